//! A program with a deadline: `sendmail`, `whois`.
use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// What it left behind.
pub(super) struct Ended {
    /// Its exit status; `None`: a signal ended it.
    pub(super) code: Option<i32>,
    /// The beginning of its standard output.
    pub(super) output: Vec<u8>,
    /// The beginning of its standard error.
    pub(super) errors: Vec<u8>,
}

/// Bytes of its standard error that are kept.
const MOST_ERRORS: u64 = 1024;

/// How long what is still in its pipes is waited for when it has ended: who is left behind by it may hold them for long.
const GRACE: Duration = Duration::from_millis(200);

/// Runs a program, never through a shell, in a process group of its own; what it was handed on standard input and has not
/// read by its end is no error. At the deadline the group is killed.
pub(super) fn run(
    words: &[String],
    input: &[u8],
    most_output: u64,
    deadline: Duration,
) -> Result<Ended, String> {
    let Some((program, arguments)) = words.split_first() else {
        return Err("there is no program".to_owned());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let status = {
            let write = async {
                if let Some(mut stdin) = stdin {
                    let _ = stdin.write_all(input).await;
                }
            };
            let talk = async {
                let read = beginning(stdout, most_output, &mut output);
                tokio::join!(write, read, beginning(stderr, MOST_ERRORS, &mut errors));
            };
            tokio::pin!(talk);
            let end = async {
                tokio::select! {
                    status = child.wait() => {
                        let _ = tokio::time::timeout(GRACE, &mut talk).await;
                        status
                    }
                    () = &mut talk => child.wait().await,
                }
            };
            tokio::time::timeout(deadline, end).await
        };
        let Ok(status) = status else {
            if let Some(group) = group {
                // It may have ended by itself in this moment.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait().await;
            return Err(format!(
                "{program} took longer than {} s and was ended",
                deadline.as_secs()
            ));
        };
        let code = status.map_err(|error| error.to_string())?.code();
        Ok(Ended { code, output, errors })
    })
}

/// The beginning of what a pipe says; the rest is read, too, so that nobody waits for us.
async fn beginning(pipe: Option<impl tokio::io::AsyncRead + Unpin>, most: u64, text: &mut Vec<u8>) {
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(most).read_to_end(text).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
}
