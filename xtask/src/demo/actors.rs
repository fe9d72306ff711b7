//! Who plays: a server of pages, a bystander who asks for them, an attacker.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::stage::{Place, Stage};

/// How often the bystander asks.
const EVERY: Duration = Duration::from_millis(200);
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The flood: so many packets every hundredth of a second. Plenty to see, little to a CPU.
const BURST: usize = 50;

/// Serves a page on the server's port 80 for as long as we live.
pub fn serve_pages(stage: &Stage) -> Result<()> {
    let (bound, is_bound) = mpsc::channel();
    stage.enter(Place::Server, move || {
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)) {
            Ok(listener) => listener,
            Err(error) => {
                let _ = bound.send(Err(error));
                return;
            }
        };
        let _ = bound.send(Ok(()));
        for mut client in listener.incoming().flatten() {
            // A client that goes away is its own loss; it counts it.
            let _ = client.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    })?;
    is_bound.recv().context("the web server's thread ended")?.context("cannot serve pages")
}

/// What a bystander asked for and got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Pages asked for.
    pub asked: u64,
    /// Pages that came whole.
    pub got: u64,
}

/// Somebody with the server's page in a browser, over IPv4 and IPv6 in turn.
pub struct Bystander {
    tally: Arc<Mutex<Tally>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    /// Begins to ask.
    pub fn start(stage: &Stage) -> Result<Self> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, stopped) = mpsc::channel::<()>();
        let ours = Arc::clone(&tally);
        let thread = stage.enter(Place::Bystander, move || {
            let mut servers = Place::Server.addresses().into_iter().cycle();
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let Some(server) = servers.next() else { return };
                let got = fetch(SocketAddr::new(server, 80));
                // Asked and got change together: a half-counted page would look like a lost one.
                let mut tally = ours.lock().unwrap_or_else(|poison| poison.into_inner());
                tally.asked += 1;
                tally.got += u64::from(got);
            }
        })?;
        Ok(Self { tally, stop: Some(stop), thread: Some(thread) })
    }

    /// The count so far.
    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The whole count.
    pub fn stop(&mut self) -> Tally {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and a poisoned count would still be right.
            let _ = thread.join();
        }
        self.tally()
    }
}

fn fetch(server: SocketAddr) -> bool {
    let page = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    page().is_ok_and(|text| text.ends_with("hello"))
}

/// What the attacker does.
mod mood {
    pub const GUESS: u8 = 0;
    pub const FLOOD: u8 = 1;
    pub const REST: u8 = 2;
}

/// Guesses root's password with the real `ssh`, and floods when told.
pub struct Attacker<'stage> {
    stage: &'stage Stage,
    target: SocketAddr,
    mood: Arc<AtomicU8>,
    stop: Option<Sender<()>>,
    flooder: Option<JoinHandle<()>>,
    guesser: Option<JoinHandle<()>>,
}

impl<'stage> Attacker<'stage> {
    /// Begins to guess.
    pub fn guess(stage: &'stage Stage, target: IpAddr) -> Result<Self> {
        let mood = Arc::new(AtomicU8::new(mood::GUESS));
        let (stop, stopped) = mpsc::channel::<()>();
        let target = SocketAddr::new(target, 22);
        let flooder = stage.enter(Place::Attacker, {
            let mood = Arc::clone(&mood);
            move || flood(target, &mood, &stopped)
        })?;
        // One guess is one `ssh`, ended after two seconds: once banned it would wait for minutes.
        let mut ssh = stage.command(Place::Attacker, "timeout");
        ssh.args(["--signal=KILL", "2", "sshpass", "-p", "123456", "ssh", "-F", "none"]);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "PubkeyAuthentication=no",
            "NumberOfPasswordPrompts=1",
            "ConnectTimeout=1",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("root@{}", target.ip())).stdout(Stdio::null()).stderr(Stdio::null());
        let guesser = std::thread::spawn({
            let mood = Arc::clone(&mood);
            move || {
                while mood.load(Ordering::Relaxed) == mood::GUESS {
                    // Its failure is what is wanted.
                    let _ = ssh.status();
                }
            }
        });
        Ok(Self {
            stage,
            target,
            mood,
            stop: Some(stop),
            flooder: Some(flooder),
            guesser: Some(guesser),
        })
    }

    /// From guessing to flooding.
    pub fn flood(&mut self) {
        self.mood.store(mood::FLOOD, Ordering::Relaxed);
    }

    /// Sends nothing more.
    pub fn rest(&mut self) {
        self.mood.store(mood::REST, Ordering::Relaxed);
    }

    /// Connects as anybody would.
    pub fn connects_again(&self) -> Result<()> {
        let target = self.target;
        let connect = move || TcpStream::connect_timeout(&target, PATIENCE);
        match self.stage.enter(Place::Attacker, connect)?.join() {
            Ok(connected) => connected.map(drop).context("cannot connect"),
            Err(_) => bail!("the attacker's thread panicked"),
        }
    }
}

impl Drop for Attacker<'_> {
    fn drop(&mut self) {
        self.rest();
        self.stop = None;
        for thread in [self.flooder.take(), self.guesser.take()].into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

/// Opens connections without waiting for any: each is one SYN, which the ban drops.
fn flood(target: SocketAddr, mood: &AtomicU8, stopped: &Receiver<()>) {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let mut next = Instant::now();
    loop {
        next = Instant::now().max(next + Duration::from_millis(10));
        let wait = next.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if mood.load(Ordering::Relaxed) != mood::FLOOD {
            continue;
        }
        for _ in 0..BURST {
            if let Ok(socket) = rustix::net::socket_with(family, SocketType::STREAM, flags, None) {
                // "In progress" is an error to `connect`, and all that is wanted.
                let _ = rustix::net::connect(&socket, &target);
            }
        }
    }
}
