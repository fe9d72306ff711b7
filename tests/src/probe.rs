//! Connections as a client makes them, from a chosen address.
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, connect as connect_socket, socket_with,
        sockopt,
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::Namespace;

/// How long something that must not come is waited for: the wire is memory, answers take microseconds,
/// and the kernel's first retransmission of a lost packet falls into it too.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long something that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens a TCP connection from one of a namespace's addresses.
#[track_caller]
pub fn connect(
    from: &Namespace,
    source: IpAddr,
    to: SocketAddr,
    limit: Duration,
) -> io::Result<TcpStream> {
    from.enter(|| {
        let socket = start_connecting(source, to)?;
        let limit = Timespec::try_from(limit).expect("limits are seconds");
        if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&limit))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sockopt::socket_error(&socket)??;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// Whether a connection comes about, given ample time.
#[track_caller]
pub fn reaches(from: &Namespace, source: IpAddr, to: SocketAddr) -> bool {
    match connect(from, source, to, PATIENCE) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => false,
        Err(error) => panic!("{source} to {to}: neither an answer nor silence but: {error}"),
    }
}

/// Whether nothing at all comes back, not even a refusal.
#[track_caller]
pub fn is_dropped(from: &Namespace, source: IpAddr, to: SocketAddr) -> bool {
    match connect(from, source, to, SILENCE) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => true,
        Err(error) => panic!("{source} to {to}: neither an answer nor silence but: {error}"),
    }
}

/// An SSH connection before the client has said anything: the server's greeting is read.
#[track_caller]
pub fn ssh_opened(from: &Namespace, source: IpAddr, to: SocketAddr) -> TcpStream {
    let mut stream = connect(from, source, to, PATIENCE)
        .unwrap_or_else(|error| panic!("{source} to {to}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    let mut greeting = Vec::new();
    let mut byte = [0];
    while !greeting.ends_with(b"\n") {
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{source} to {to} is not greeted: {error}"));
        greeting.push(byte[0]);
    }
    assert!(greeting.starts_with(b"SSH-2.0-"), "{:?}", String::from_utf8_lossy(&greeting));
    stream
}

/// Greets back on such a connection; whether the server goes on talking.
#[track_caller]
pub fn ssh_continues(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SILENCE)).expect("the timeout is not zero");
    stream.write_all(b"SSH-2.0-test\r\n").expect("the send buffer has room");
    match stream.read(&mut [0; 64]) {
        Ok(read) => read > 0,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("neither an answer nor silence but: {error}"),
    }
}

/// Many connections a second from one address, all the time; says whether any came about.
#[derive(Debug)]
pub struct Siege {
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicU32>,
    thread: thread::JoinHandle<Besieged>,
}

/// What a [`Siege`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Besieged {
    /// Connections tried.
    pub tried: u32,
    /// Connections that came about.
    pub opened: u32,
}

impl Siege {
    /// Begins: a new try every few milliseconds, each given up after a second.
    #[track_caller]
    pub fn begin(from: &Namespace, source: IpAddr, to: SocketAddr) -> Siege {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let tried = Arc::new(AtomicU32::new(0));
        let tries = tried.clone();
        // Sockets belong to the namespace of the thread that makes them.
        let path = from.path();
        let thread = thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace outlives the siege");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("we are root");
            besiege(source, to, &stopped, &tries)
        });
        Siege { stop, tried, thread }
    }

    /// Connections tried so far.
    pub fn tried(&self) -> u32 {
        self.tried.load(Ordering::Relaxed)
    }

    /// Ends it and says what it saw.
    #[track_caller]
    pub fn end(self) -> Besieged {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the siege went on to its end")
    }
}

/// Tries until told to stop.
fn besiege(source: IpAddr, to: SocketAddr, stopped: &AtomicBool, tries: &AtomicU32) -> Besieged {
    let mut seen = Besieged::default();
    let mut pending: VecDeque<(Instant, OwnedFd)> = VecDeque::new();
    while !stopped.load(Ordering::Relaxed) {
        // The test that failed has taken its network away.
        let Ok(socket) = start_connecting(source, to) else { break };
        seen.tried += 1;
        tries.store(seen.tried, Ordering::Relaxed);
        pending.push_back((Instant::now(), socket));
        thread::sleep(Duration::from_millis(5));
        pending.retain(|(begun, socket)| {
            let ready =
                poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&Timespec::default()))
                    .unwrap_or(0);
            if ready > 0 && sockopt::socket_error(socket) == Ok(Ok(())) {
                seen.opened += 1;
            }
            ready == 0 && begun.elapsed() < Duration::from_secs(1)
        });
    }
    seen
}

/// A socket bound to `source` with a connection under way.
fn start_connecting(source: IpAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    match connect_socket(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// A TCP service that sends back what it is sent; ends on drop.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Echo {
    /// Listens on an address of a namespace.
    #[track_caller]
    pub fn listen(on: &Namespace, address: SocketAddr) -> Echo {
        let listener = on
            .enter(|| TcpListener::bind(address))
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        listener.set_nonblocking(true).expect("a listener can be made non-blocking");
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                // A signal or a tick: look again whether to stop.
                if poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&tick)).unwrap_or(0) == 0
                {
                    continue;
                }
                let Ok((stream, _)) = listener.accept() else { continue };
                thread::spawn(move || echo(stream));
            }
        });
        Echo { address, stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends back until the other end has gone.
fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}
