//! A runner, and what a daemon does with it.
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsRawFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use fail2xdp::action::wire::{
    Counts, FromRunner, Kind, Level, Standing, Task, Ticket, ToRunner, VERSION,
};
use tempfile::TempDir;

/// For what takes no longer than a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// A configuration, and a directory for what its actions write.
pub struct Site {
    pub folder: TempDir,
}

impl Site {
    /// Jails, each with its `action`; and action files by their names.
    pub fn new(jails: &[(&str, &str)], actions: &[(&str, &str)], options: &str) -> Site {
        let folder = tempfile::tempdir().expect("a directory");
        let site = Site { folder };
        let jail = |(name, action): &(&str, &str)| {
            format!(
                "[{name}]\nenabled = true\nbackend = polling\nlogpath = /nowhere/x.log\naction = {action}\n"
            )
        };
        fs::create_dir_all(site.config().join("action.d")).expect("a directory");
        let jails: String = jails.iter().map(jail).collect();
        fs::write(site.config().join("jail.conf"), jails).expect("jail.conf");
        fs::write(site.config().join("fail2xdp.conf"), format!("[Definition]\n{options}\n"))
            .expect("fail2xdp.conf");
        for (name, text) in actions {
            site.action(name, text);
        }
        site
    }

    /// Writes an action's file; `<out>` in it is the directory for what it writes.
    pub fn action(&self, name: &str, text: &str) {
        let text = text.replace("<out>", &self.folder.path().display().to_string());
        let file = self.config().join("action.d").join(format!("{name}.conf"));
        fs::write(file, text).expect("an action");
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What an action has written.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

/// The other end.
pub struct Runner {
    pub child: Option<Child>,
    write: UnixStream,
    read: BufReader<UnixStream>,
    next: u64,
    /// Lines for the log.
    pub log: Vec<(Level, String)>,
    /// What is over: number, why it failed, how the action stands.
    pub done: Vec<(u64, Option<String>, Standing)>,
}

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fail2xdp"))
}

impl Runner {
    /// A runner that is our child.
    pub fn start(site: &Site) -> Runner {
        Runner::start_with(site, Vec::new())
    }

    /// The same, told how actions stand.
    pub fn start_with(site: &Site, standings: Vec<Standing>) -> Runner {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let fd = theirs.as_raw_fd();
        let mut command = Command::new(binary());
        command.args(["action-runner", "--fd", &fd.to_string(), "--config"]).arg(site.config());
        command.stdout(Stdio::null());
        // SAFETY: it clears a flag of a descriptor that is open, and does nothing else.
        unsafe {
            command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().expect("the runner");
        drop(theirs);
        let mut runner = Runner::over(ours, Some(child));
        runner.hello(standings);
        runner
    }

    /// One that is reached already.
    pub fn over(stream: UnixStream, child: Option<Child>) -> Runner {
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let read = BufReader::new(stream.try_clone().expect("the same socket"));
        Runner { child, write: stream, read, next: 0, log: Vec::new(), done: Vec::new() }
    }

    /// Says hello, and hears what is wrong with the configuration.
    pub fn hello(&mut self, standings: Vec<Standing>) -> Vec<String> {
        self.say(&ToRunner::Hello { version: VERSION, standings });
        let hello = self.hear(|said| matches!(said, FromRunner::Hello { .. }));
        assert_eq!(hello, FromRunner::Hello { version: VERSION });
        self.problems()
    }

    /// What a reading of the configuration finds.
    pub fn problems(&mut self) -> Vec<String> {
        match self.hear(|said| matches!(said, FromRunner::Read { .. })) {
            FromRunner::Read { problems } => problems,
            other => panic!("{other:?}"),
        }
    }

    pub fn say(&mut self, what: &ToRunner) {
        let mut line = serde_json::to_vec(what).expect("JSON");
        line.push(b'\n');
        self.write.write_all(&line).expect("the runner hears");
    }

    /// Hands over a task; its number.
    pub fn task(&mut self, jail: &str, action: &str, kind: Kind, ticket: Option<Ticket>) -> u64 {
        self.next += 1;
        let task = Task {
            seq: self.next,
            jail: jail.to_owned(),
            action: action.to_owned(),
            kind,
            at: 1_700_000_000.5,
            counts: Counts::default(),
            ticket: ticket.map(Box::new),
        };
        self.say(&ToRunner::Do(task));
        self.next
    }

    /// Waits for what is wanted; what is done and said meanwhile is kept.
    #[track_caller]
    pub fn hear(&mut self, is_wanted: impl Fn(&FromRunner) -> bool) -> FromRunner {
        let end = Instant::now() + SOON;
        let mut line = String::new();
        loop {
            match self.read.read_line(&mut line) {
                Ok(0) => panic!("the runner has left; its log: {:#?}", self.log),
                Ok(_) if line.ends_with('\n') => {
                    let said: FromRunner = serde_json::from_str(&line).expect(&line);
                    line.clear();
                    match &said {
                        FromRunner::Done { seq, failed, standing } => {
                            self.done.push((*seq, failed.clone(), standing.clone()));
                        }
                        FromRunner::Log { level, text, .. } => {
                            self.log.push((*level, text.clone()))
                        }
                        _ => {}
                    }
                    if is_wanted(&said) {
                        return said;
                    }
                }
                _ => {}
            }
            assert!(Instant::now() < end, "not in time; its log: {:#?}", self.log);
        }
    }

    /// Waits until a task is over; why it failed, if it did, and how the action stands.
    #[track_caller]
    pub fn over_with(&mut self, task: u64) -> (Option<String>, Standing) {
        let is_it = |done: &&(u64, Option<String>, Standing)| done.0 == task;
        if self.done.iter().find(is_it).is_none() {
            self.hear(|said| matches!(said, FromRunner::Done { seq, .. } if *seq == task));
        }
        let (_, failed, standing) = self.done.iter().find(is_it).expect("it is done").clone();
        (failed, standing)
    }

    /// The same for one that must succeed.
    #[track_caller]
    pub fn succeeds(&mut self, task: u64) -> Standing {
        let (failed, standing) = self.over_with(task);
        assert_eq!(failed, None, "{:#?}", self.log);
        standing
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("it is our child");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).expect("it lives");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it is our child");
        let end = Instant::now() + SOON;
        loop {
            if let Some(status) = child.try_wait().expect("a status") {
                return status;
            }
            assert!(Instant::now() < end, "it lives");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The daemon is gone.
    pub fn hang_up(&mut self) {
        self.write.shutdown(std::net::Shutdown::Both).expect("a socket");
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn ticket(id: &str) -> Ticket {
    Ticket {
        id: id.to_owned(),
        failures: 3,
        time: 1_700_000_000.0,
        ban_time: 600,
        ban_count: 1,
        ..Ticket::default()
    }
}

/// Waits for what must come true.
#[track_caller]
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
