//! A command of the operator's, run by the shell, with a deadline and what it says. What others may have written reaches it
//! as variables of its environment or as arguments, never as its text.
use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Gid, Uid},
    process::{Pid, Resource, Rlimit, Signal},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use crate::{
    clock,
    engine::{Answer, Question},
};

/// As long as fail2ban waits for a command.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes kept of what it says on either stream; the rest is read and forgotten.
const SAID: usize = 64 << 10;
/// Bytes told of what an `ignorecommand` says.
const TOLD: usize = 1024;
/// Between asking it to end and ending it, as in fail2ban.
const GRACE: Duration = Duration::from_millis(200);
/// How long what it has said is waited for when it has ended: whom it leaves behind may hold the pipe for long.
const REST: Duration = Duration::from_millis(50);
/// Descriptors that it may open at first: the daemon's own limit would be met by programs that use select(2).
const OPEN_FILES: u64 = 1024;

/// Whom a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub home: String,
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
}

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order<'a> {
    /// For `sh -c`.
    pub script: &'a str,
    /// What stands behind it: `$0`, `$1` …
    pub arguments: &'a [String],
    /// Variables of its environment.
    pub variables: &'a [(Box<str>, Box<str>)],
    /// `None`: as we run.
    pub user: Option<&'a User>,
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub ended: Ended,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

/// How a command ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// By itself.
    #[error("exit status: {0}")]
    Status(i32),
    /// By somebody else.
    #[error("signal: {0}")]
    Signal(i32),
    /// By us, with all that it had started.
    #[error("it took longer than {} s and was ended", .0.as_secs())]
    Late(Duration),
    /// It never began.
    #[error("it cannot be started: {0}")]
    Unstarted(io::Error),
}

/// Why an `ignorecommand` has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{ended}{}{said}", if .said.is_empty() { "" } else { ": " })]
pub(crate) struct CommandFault {
    ended: Ended,
    said: String,
}

/// Asks an `ignorecommand`, and says why it has no answer.
pub(crate) async fn answer(
    question: &Question,
    deadline: Duration,
) -> (Answer, Option<CommandFault>) {
    let order =
        Order { script: &question.script, variables: &question.variables, ..Order::default() };
    let ran = run(&order, deadline).await;
    match ran.ended {
        Ended::Status(0) => (Answer::Ignore, None),
        Ended::Status(1) => (Answer::Count, None),
        ended => {
            let said = &ran.stderr[..ran.stderr.len().min(TOLD)];
            let said = match ended {
                Ended::Late(_) => String::new(),
                _ => String::from_utf8_lossy(said).trim().to_owned(),
            };
            (Answer::Failed, Some(CommandFault { ended, said }))
        }
    }
}

/// Runs a command in a session of its own. Whoever stops waiting ends it, with all that it has started.
pub(crate) async fn run(order: &Order<'_>, deadline: Duration) -> Ran {
    let begun = clock::monotonic();
    let mut child = match start(order) {
        Ok(child) => child,
        Err(error) => return ran(Ended::Unstarted(error), begun),
    };
    let group = child.id().and_then(|id| Pid::from_raw(id as i32)).map(Group);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = {
        let reading = async { tokio::join!(keep(out, &mut stdout), keep(err, &mut stderr)) };
        tokio::pin!(reading);
        let mut is_read = false;
        let wait = tokio::time::timeout(deadline, child.wait());
        tokio::pin!(wait);
        let status = loop {
            tokio::select! {
                status = &mut wait => break status,
                _ = &mut reading, if !is_read => is_read = true,
            }
        };
        if status.is_ok() && !is_read {
            let _ = tokio::time::timeout(REST, &mut reading).await;
        }
        status
    };
    let ended = match ended {
        Ok(Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Status(code),
            (None, signal) => Ended::Signal(signal.unwrap_or_default()),
        },
        Ok(Err(error)) => Ended::Unstarted(error),
        Err(_) => {
            // It is not waited for in between, so that its number stays its own.
            if let Some(group) = &group {
                group.send(Signal::TERM);
                tokio::time::sleep(GRACE).await;
                group.send(Signal::KILL);
            }
            let _ = child.wait().await;
            Ended::Late(deadline)
        }
    };
    // It is over: whom it leaves behind, as a server that `actionstart` starts, is left alone.
    std::mem::forget(group);
    Ran { stdout, stderr, ..ran(ended, begun) }
}

fn ran(ended: Ended, begun: Instant) -> Ran {
    Ran { ended, stdout: Vec::new(), stderr: Vec::new(), took: begun.elapsed() }
}

/// The processes that a command consists of, ended where nobody waits for it any more.
struct Group(Pid);

impl Group {
    fn send(&self, signal: Signal) {
        // It may have ended by itself in this moment.
        let _ = rustix::process::kill_process_group(self.0, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.send(Signal::KILL);
    }
}

fn start(order: &Order<'_>) -> io::Result<tokio::process::Child> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(order.script)
        .args(order.arguments)
        .envs(order.variables.iter().map(|(name, value)| (&**name, &**value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(User { name, home, .. }) = order.user {
        command.env("USER", name).env("LOGNAME", name).env("HOME", home);
    }
    let user = order.user.map(|user| (user.uid, user.gid, user.groups.clone()));
    // SAFETY: between fork and exec it makes system calls and nothing else: what they are given was made before.
    unsafe { command.pre_exec(move || prepare(user.as_ref())) };
    command.spawn()
}

/// What a child does before it becomes the shell.
fn prepare(user: Option<&(Uid, Gid, Vec<Gid>)>) -> io::Result<()> {
    rustix::process::setsid()?;
    let files = rustix::process::getrlimit(Resource::Nofile);
    let current = files.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..files })?;
    // What it holds of others' secrets is not to lie on a disk.
    let core = rustix::process::getrlimit(Resource::Core);
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), ..core })?;
    if let Some((uid, gid, groups)) = user {
        rustix::thread::set_thread_groups(groups)?;
        rustix::thread::set_thread_gid(*gid)?;
        rustix::thread::set_thread_uid(*uid)?;
    }
    // Forgotten by a change of user, so the last.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Reads to the end, and keeps the beginning.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        let room = SAID - kept.len();
        kept.extend_from_slice(&piece[..read.min(room)]);
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
        let end = clock::monotonic() + Duration::from_secs(10);
        while !gone() {
            assert!(clock::monotonic() < end, "{pid} lives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_that_leaves_something_behind_has_answered() {
        let (answer, _) = ask("sleep 5 & exit 0", "", DEADLINE);
        assert_eq!(answer, Answer::Ignore);
    }
}
