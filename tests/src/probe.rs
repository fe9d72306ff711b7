//! Connections as a client makes them, from a chosen address.
use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, connect as connect_socket, socket_with,
        sockopt,
    },
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
        let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::new(source, 0))?;
        match connect_socket(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
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
