//! The way to the action runner: a thread that starts it or finds it, talks to it, and begins anew when it dies or falls
//! silent. The one task only puts words into a queue and takes some out.
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::Sender;

use super::{past::Pasts, queue::Entry};
use crate::{
    action::wire::{FromRunner, LONGEST_LINE, Standing, ToRunner, VERSION},
    clock::monotonic,
};

/// Between two pings.
const PING: Duration = Duration::from_secs(3);
/// Without an answer for so long a runner counts as dead.
const SILENT: Duration = Duration::from_secs(10);
/// Before the next attempt; doubles up to the longer one, and starts over with a runner that lasts as long.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_LATEST: Duration = Duration::from_secs(60);
/// Said by the runner and not yet heard by the one task; the runner waits then.
pub(super) const SAID: usize = 1024;
/// How long the end waits for the thread.
const ENDED: Duration = Duration::from_secs(1);

/// How every action stood when it was heard of last, by jail and name.
pub(super) type Standings = Arc<Mutex<BTreeMap<(String, String), Standing>>>;

/// What the one task wants said.
pub(super) enum Word {
    /// As it is.
    Plain(ToRunner),
    /// A task, put into words by this thread.
    Task(Arc<Entry>),
}

enum Wish {
    /// To the runner of this number only: the next one is told everything anew.
    Say(u64, Word),
    /// Look whether the runner is still there.
    Look,
    End,
}

/// What the one task hears.
#[derive(Debug)]
pub(in crate::app) enum News {
    /// A runner is there and has read the configuration or is about to; its number among all.
    Up(u64),
    /// It is gone, for this reason; another one is begun after a while.
    Down(String),
    /// It says something.
    Said(FromRunner),
}

/// How an end is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The thread sees to it.
    Soon,
    /// It is over, the process gone, on return; a second at the most.
    Now,
}

/// Where a runner comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A process of ours, with these further words: its configuration.
    Child(Vec<OsString>),
    /// Somebody else started it, and it listens here.
    Socket(PathBuf),
}

/// The one task's end.
#[derive(Debug)]
pub(super) struct Link {
    wishes: mpsc::Sender<Wish>,
    child: Arc<Mutex<Option<Child>>>,
    thread: JoinHandle<()>,
}

impl Link {
    pub fn start(
        origin: Origin,
        standings: Standings,
        pasts: Pasts,
        tell: Sender<News>,
    ) -> io::Result<Link> {
        let (wishes, heard) = mpsc::channel();
        let child = Arc::new(Mutex::new(None));
        let own = child.clone();
        let look = wishes.clone();
        let talk = move || {
            Talk { origin, standings, pasts, tell, wishes: heard, look, child: own, number: 0 }
                .run()
        };
        let thread = std::thread::Builder::new().name("actions".into()).spawn(talk)?;
        Ok(Link { wishes, child, thread })
    }

    /// Says something to the runner of this number.
    pub fn say(&self, number: u64, word: Word) {
        // The thread lives as long as we do.
        let _ = self.wishes.send(Wish::Say(number, word));
    }

    /// Ends the runner, if it is ours.
    pub fn end(self, when: End) {
        let _ = self.wishes.send(Wish::End);
        if when == End::Soon {
            return;
        }
        let end = monotonic() + ENDED;
        while !self.thread.is_finished() && monotonic() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        kill(&self.child);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single assignment, so what a panicking thread left is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a runner of ours with its process group.
fn kill(child: &Mutex<Option<Child>>) {
    let Some(mut child) = lock(child).take() else { return };
    if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
        // It may have ended by itself in this moment.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

struct Talk {
    origin: Origin,
    standings: Standings,
    pasts: Pasts,
    tell: Sender<News>,
    wishes: mpsc::Receiver<Wish>,
    look: mpsc::Sender<Wish>,
    child: Arc<Mutex<Option<Child>>>,
    number: u64,
}

/// What the thread that listens notes.
#[derive(Debug)]
struct Heard {
    pong: Mutex<Instant>,
    lost: AtomicBool,
}

impl Talk {
    fn run(mut self) {
        let mut wait = RETRY;
        loop {
            let begun = monotonic();
            let why = match self.connect() {
                Ok((stream, heard)) => self.talk(stream, &heard),
                Err(error) => Some(error.to_string()),
            };
            kill(&self.child);
            let Some(why) = why else { return };
            if monotonic() - begun > RETRY_LATEST {
                wait = RETRY;
            }
            if self.tell.blocking_send(News::Down(why)).is_err() || !self.pause(wait) {
                return;
            }
            wait = (wait * 2).min(RETRY_LATEST);
        }
    }

    /// Waits; what is said meanwhile was meant for the runner that is gone. `false`: it is the end.
    fn pause(&self, wait: Duration) -> bool {
        let end = monotonic() + wait;
        loop {
            match self.wishes.recv_timeout(end.saturating_duration_since(monotonic())) {
                Ok(Wish::Say(..) | Wish::Look) => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(Wish::End) | Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Begins a runner and exchanges greetings with it.
    fn connect(&mut self) -> io::Result<(UnixStream, Arc<Heard>)> {
        let mut stream = match &self.origin {
            Origin::Socket(path) => UnixStream::connect(path).map_err(|error| {
                io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
            })?,
            Origin::Child(words) => {
                let (ours, its) = UnixStream::pair()?;
                *lock(&self.child) = Some(spawn(words, &its)?);
                ours
            }
        };
        // A runner that reads nothing, or never greets, is as good as dead.
        stream.set_write_timeout(Some(SILENT))?;
        stream.set_read_timeout(Some(SILENT))?;
        let standings = lock(&self.standings).values().cloned().collect();
        write(&mut stream, &ToRunner::Hello { version: VERSION, standings })?;
        let mut listen = BufReader::new(stream.try_clone()?);
        match read(&mut listen)? {
            Some(FromRunner::Hello { version: VERSION }) => {}
            Some(FromRunner::Hello { version }) => {
                return Err(io::Error::other(format!("it speaks version {version}, we {VERSION}")));
            }
            Some(_) => return Err(io::Error::other("it does not greet")),
            None => return Err(io::Error::other("it went away without a word")),
        }
        stream.set_read_timeout(None)?;
        self.number += 1;
        let heard = Arc::new(Heard { pong: Mutex::new(monotonic()), lost: AtomicBool::new(false) });
        if self.tell.blocking_send(News::Up(self.number)).is_err() {
            return Err(io::Error::other("the daemon ends"));
        }
        let (tell, note, look) = (self.tell.clone(), heard.clone(), self.look.clone());
        std::thread::Builder::new().name("actions-heard".into()).spawn(move || {
            while let Ok(Some(said)) = read(&mut listen) {
                match said {
                    FromRunner::Pong => *lock(&note.pong) = monotonic(),
                    said => {
                        if tell.blocking_send(News::Said(said)).is_err() {
                            break;
                        }
                    }
                }
            }
            note.lost.store(true, Relaxed);
            let _ = look.send(Wish::Look);
        })?;
        Ok((stream, heard))
    }

    /// Until the runner is gone, and why; `None`: it is the end.
    fn talk(&mut self, mut stream: UnixStream, heard: &Heard) -> Option<String> {
        let mut ping = monotonic() + PING;
        let why = loop {
            let said = match self.wishes.recv_timeout(ping.saturating_duration_since(monotonic())) {
                Ok(Wish::Say(number, word)) if number == self.number => self.say(&mut stream, word),
                Ok(Wish::Say(..) | Wish::Look) | Err(RecvTimeoutError::Timeout) => Ok(()),
                Ok(Wish::End) | Err(RecvTimeoutError::Disconnected) => break None,
            };
            let said = said.and_then(|()| {
                if monotonic() < ping {
                    return Ok(());
                }
                ping = monotonic() + PING;
                write(&mut stream, &ToRunner::Ping)
            });
            if heard.lost.load(Relaxed) {
                break Some("it went away".to_owned());
            }
            if let Err(error) = said {
                break Some(error.to_string());
            }
            let silent = monotonic().saturating_duration_since(*lock(&heard.pong));
            if silent > PING + SILENT {
                break Some(format!("it said nothing for {} s", silent.as_secs()));
            }
        };
        // The other thread reads to the end, and ends.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        why
    }

    fn say(&mut self, stream: &mut UnixStream, word: Word) -> io::Result<()> {
        match word {
            Word::Plain(word) => write(stream, &word),
            Word::Task(entry) => {
                let mut task = entry.task();
                if let Some(ticket) = &mut task.ticket {
                    self.pasts.add_to(ticket, &entry);
                }
                write(stream, &ToRunner::Do(task))
            }
        }
    }
}

/// Our own program as a runner at the other end of `socket`.
fn spawn(words: &[OsString], socket: &UnixStream) -> io::Result<Child> {
    let fd = socket.as_raw_fd();
    let mut command = Command::new("/proc/self/exe");
    command.args(["action-runner", "--fd", &fd.to_string()]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // So that it can be ended with all of its group.
    command.process_group(0);
    // In the new process alone: a command that another thread starts in this moment must not have the socket.
    let keep = move || {
        // SAFETY: `socket` is borrowed until the process was started, and the new one has a copy of it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
    };
    // SAFETY: between fork and exec it makes one system call, and touches no memory but its own.
    unsafe { command.pre_exec(keep) };
    command.spawn()
}

fn write(stream: &mut UnixStream, word: &ToRunner) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// `None`: there is no more.
fn read(listen: &mut BufReader<UnixStream>) -> io::Result<Option<FromRunner>> {
    let mut line = Vec::new();
    listen.take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::other("its line is too long, or cut")),
    }
}
