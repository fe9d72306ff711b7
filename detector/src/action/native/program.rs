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
        let work = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    let _ = stdin.write_all(input).await;
                }
            };
            let ((), output, errors) =
                tokio::join!(write, beginning(stdout, most_output), beginning(stderr, MOST_ERRORS));
            let status = child.wait().await.map_err(|error| error.to_string())?;
            Ok(Ended { code: status.code(), output, errors })
        };
        let ended = tokio::time::timeout(deadline, work).await;
        ended.unwrap_or_else(|_| {
            if let Some(group) = group {
                // It may have ended by itself in this moment.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            Err(format!("{program} took longer than {} s and was ended", deadline.as_secs()))
        })
    })
}

/// The beginning of what a pipe says; the rest is read, too, so that nobody waits for us.
async fn beginning(pipe: Option<impl tokio::io::AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(most).read_to_end(&mut text).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    text
}
