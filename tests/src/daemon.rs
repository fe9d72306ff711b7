//! A running daemon and everything it says.
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// The lines said so far, and whether more can come.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    open_streams: u8,
}

/// A daemon; dropping it kills it, and shows what it said if the test is failing.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    said: Arc<(Mutex<Said>, Condvar)>,
    ended: Option<ExitStatus>,
}

/// Also when a test failed while it held the lock: what was said is to be shown then.
fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Starts a daemon by this command and waits until it protects.
    #[track_caller]
    pub fn start(command: Command) -> Daemon {
        let mut daemon = Daemon::spawn(command);
        daemon.wait_for_line("ready", Duration::from_secs(20));
        daemon
    }

    /// Starts a command and listens to both its streams, without waiting for anything it says.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Daemon {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let said =
            Arc::new((Mutex::new(Said { lines: Vec::new(), open_streams: 2 }), Condvar::new()));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        listen(stdout, said.clone());
        listen(stderr, said.clone());
        Daemon { child, said, ended: None }
    }

    /// The process id; also the daemon's own, since the helpers before it replace themselves by it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `part`, also one said before; fails when it ends without.
    #[track_caller]
    pub fn wait_for_line(&mut self, part: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        let (said, changed) = &*self.said;
        let mut said = lock(said);
        loop {
            if let Some(line) = said.lines.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                said.open_streams > 0,
                "the daemon ended without saying `{part}`: {:#?}",
                said.lines
            );
            assert!(
                !left.is_zero(),
                "not within {limit:?}: a line with `{part}`; said {:#?}",
                said.lines
            );
            said = changed.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything it said, stdout and stderr as they came.
    pub fn said(&self) -> String {
        lock(&self.said.0).lines.join("\n")
    }

    /// How many lines from the `from`th on contain `part`, and how many there are by now.
    ///
    /// Whoever waits for many lines looks at each only once: the daemon waits while we look.
    pub fn said_times(&self, part: &str, from: usize) -> (usize, usize) {
        let said = lock(&self.said.0);
        let times = said.lines[from..].iter().filter(|line| line.contains(part)).count();
        (times, said.lines.len())
    }

    /// `kill -9`: it has no time to tidy up.
    #[track_caller]
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(5));
    }

    /// Asks it to end and waits until it has.
    #[track_caller]
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(10))
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it has not been waited for, so its id is still its own");
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = until(limit, "the daemon ends", || child.try_wait().expect("it is our child"));
        self.ended = Some(status);
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("--- the daemon said:\n{}\n---", self.said());
        }
    }
}

/// Collects a stream's lines until its end.
fn listen(stream: impl Read + Send + 'static, said: Arc<(Mutex<Said>, Condvar)>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            let mut heard = lock(&said.0);
            heard.lines.push(String::from_utf8_lossy(&line).into_owned());
            said.1.notify_all();
        }
        lock(&said.0).open_streams -= 1;
        said.1.notify_all();
    });
}
