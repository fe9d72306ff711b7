//! A command of the operator's, run by the shell, with a deadline. Values come as variables of its environment.
use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, process::Command};

use crate::engine::{Answer, Question};

/// As long as fail2ban waits for a command.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of what it says on standard error that are told.
const SAID: u64 = 1024;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandFault {
    /// The shell cannot be started.
    #[error("it cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// It was ended, with all that it had started.
    #[error("it took longer than {} s and was ended", .0.as_secs())]
    Late(Duration),
    /// Somebody else ended it, or its status means nothing.
    #[error("{status}{}{said}", if .said.is_empty() { "" } else { ": " })]
    Ended { status: std::process::ExitStatus, said: String },
}

/// Asks an `ignorecommand`, and says why it has no answer.
pub(crate) async fn answer(
    question: &Question,
    deadline: Duration,
) -> (Answer, Option<CommandFault>) {
    match run(question, deadline).await {
        Ok(true) => (Answer::Ignore, None),
        Ok(false) => (Answer::Count, None),
        Err(fault) => (Answer::Failed, Some(fault)),
    }
}

async fn run(question: &Question, deadline: Duration) -> Result<bool, CommandFault> {
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(&*question.script)
        .envs(question.variables.iter().map(|(name, value)| (&**name, &**value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // So that it can be ended with all that it starts.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
    let mut said = Vec::new();
    let status = {
        let errors = child.stderr.take();
        let wait = tokio::time::timeout(deadline, child.wait());
        tokio::pin!(wait);
        let read = async {
            if let Some(errors) = errors {
                // What it says is of use only if it can be read.
                let _ = errors.take(SAID).read_to_end(&mut said).await;
            }
            // Its end alone decides; who is left behind by it may hold the pipe for long.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            status = &mut wait => status,
            () = read => unreachable!("it never ends"),
        }
    };
    let Ok(status) = status else {
        if let Some(group) = group {
            // It may have ended by itself in this moment.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait().await;
        return Err(CommandFault::Late(deadline));
    };
    let status = status?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => {
            let said = String::from_utf8_lossy(&said);
            // Whoever is in the log may have chosen it.
            let said = said.lines().next().unwrap_or("").escape_debug().to_string();
            Err(CommandFault::Ended { status, said })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JailName;

    fn ask(script: &str, value: &str, deadline: Duration) -> (Answer, String) {
        let question = Question {
            jail: JailName::new("j"),
            script: script.into(),
            variables: vec![("f2x_x".into(), value.into())],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (answer, fault) = runtime.block_on(answer(&question, deadline));
        (answer, fault.map_or(String::new(), |fault| fault.to_string()))
    }

    #[test]
    fn its_status_is_the_answer() {
        let told = |answer| (answer, String::new());
        assert_eq!(ask("exit 0", "", DEADLINE), told(Answer::Ignore));
        assert_eq!(ask("exit 1", "", DEADLINE), told(Answer::Count));
        assert_eq!(
            ask(r#"test "$f2x_x" = '$(id) `id`'"#, "$(id) `id`", DEADLINE),
            told(Answer::Ignore)
        );
        let (answer, why) = ask("echo what now >&2; exit 3", "", DEADLINE);
        assert_eq!(answer, Answer::Failed);
        assert!(why.contains('3') && why.ends_with(": what now"), "{why}");
        let (answer, why) = ask("/nowhere/at-all", "", DEADLINE);
        assert!(answer == Answer::Failed && why.contains("127"), "{why}");
    }

    #[test]
    fn one_that_hangs_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let (answer, why) = ask(&script, "", Duration::from_millis(500));
        assert_eq!(
            (answer, why.as_str()),
            (Answer::Failed, "it took longer than 0 s and was ended")
        );
        let pid = std::fs::read_to_string(file).expect("it had started");
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            // Whoever adopts it may not have reaped it yet.
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let end = crate::clock::monotonic() + Duration::from_secs(10);
        while !gone() {
            assert!(crate::clock::monotonic() < end, "{pid} lives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_that_leaves_something_behind_has_answered() {
        let (answer, _) = ask("sleep 5 & exit 0", "", DEADLINE);
        assert_eq!(answer, Answer::Ignore);
    }
}
