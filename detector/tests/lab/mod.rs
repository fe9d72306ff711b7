//! A laboratory that leaves nothing behind: a thread with its own network, mounts and BPF file system.
//!
//! Namespaces, interfaces, pins and attached programs all end with the threads, also when a test panics.
#![allow(dead_code, reason = "each test file uses some of it")]
use std::{
    ffi::{CStr, CString},
    io,
    net::{IpAddr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Where the laboratory's own BPF file system is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Runs `test` alone in its own network and mount namespace, with `lo` up and an empty BPF file system.
#[track_caller]
pub fn alone(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS);
        // Mounts made here must not show outside.
        mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE);
        mount(c"bpf", c"/sys/fs/bpf", c"bpf", 0);
        run("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[track_caller]
fn unshare(flags: libc::c_int) {
    // SAFETY: takes a number and changes this thread alone.
    let answer = unsafe { libc::unshare(flags) };
    let error = io::Error::last_os_error();
    assert_eq!(answer, 0, "this test needs root to make namespaces: {error}");
}

#[track_caller]
fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) {
    // SAFETY: all three are C strings, and no data is handed over.
    let answer = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null())
    };
    let error = io::Error::last_os_error();
    assert_eq!(answer, 0, "this test needs root and BPF file systems to mount {target:?}: {error}");
}

/// Runs a command in the caller's namespaces and returns what it printed.
#[track_caller]
pub fn run(command: &str) -> String {
    match attempt(command) {
        Ok(said) => said,
        Err(fault) => panic!("{fault}"),
    }
}

/// Runs a command that may fail.
pub fn attempt(command: &str) -> Result<String, String> {
    let mut words = command.split_ascii_whitespace();
    let program = words.next().ok_or("no command")?;
    let output = Command::new(program)
        .args(words)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(|error| {
            format!("this test needs `{program}` (package iproute2, ethtool or bpftool): {error}")
        })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("`{command}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Takes capabilities from the calling thread, for good.
#[track_caller]
pub fn drop_capabilities(dropped: &[u32]) {
    #[repr(C)]
    struct Header {
        version: u32,
        process: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, process: 0 };
    // Effective, permitted, inheritable: the lower 32 bits of all three, then the upper.
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: header and sets have the layout that version 3 asks for and live until the calls return.
    let answer = unsafe {
        libc::syscall(libc::SYS_capget, &raw const header, &raw mut sets);
        for &capability in dropped {
            sets[(capability / 32) as usize]
                .iter_mut()
                .for_each(|set| *set &= !(1 << (capability % 32)));
        }
        libc::syscall(libc::SYS_capset, &raw const header, &raw const sets)
    };
    assert_eq!(
        answer,
        0,
        "this test needs root to give up capabilities: {}",
        io::Error::last_os_error()
    );
}

type Task = Box<dyn FnOnce() + Send>;

/// Another machine: a thread with its own network.
pub struct Peer {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    id: libc::pid_t,
}

impl Peer {
    /// Makes one.
    pub fn new() -> Peer {
        let (tasks, queue) = channel::<Task>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            unshare(libc::CLONE_NEWNET);
            // SAFETY: takes nothing and returns a number.
            tell.send(unsafe { libc::gettid() }).expect("the laboratory waits for it");
            run("ip link set lo up");
            for task in queue {
                task();
            }
        });
        let id = told.recv().expect("this test needs root to make namespaces");
        Peer { tasks: Some(tasks), thread: Some(thread), id }
    }

    /// Does something there and returns its result.
    #[track_caller]
    pub fn there<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let task: Task = Box::new(move || drop(tell.send(task())));
        self.tasks.as_ref().expect("until dropped").send(task).expect("the peer is alive");
        told.recv().expect("the task on the peer ended well")
    }

    /// Runs a command there.
    #[track_caller]
    pub fn run(&self, command: &str) -> String {
        let command = command.to_owned();
        self.there(move || run(&command))
    }

    /// Joins this machine (`near`, 10.0.0.1, fd00::1) and the peer (`far`, 10.0.0.2, fd00::2) by a veth pair.
    #[track_caller]
    pub fn connect(&self, near: &str, far: &str) {
        run(&format!("ip link add {near} type veth peer name {far} netns {}", self.id));
        run(&format!("ip addr add 10.0.0.1/24 dev {near}"));
        run(&format!("ip addr add fd00::1/64 dev {near} nodad"));
        run(&format!("ip link set {near} up"));
        self.run(&format!("ip addr add 10.0.0.2/24 dev {far}"));
        self.run(&format!("ip addr add fd00::2/64 dev {far} nodad"));
        self.run(&format!("ip link set {far} up"));
    }
}

/// Whether datagrams from the peer arrive at this machine's `to`; the first ones may wait for neighbour discovery.
#[track_caller]
pub fn reaches(from: &Peer, to: IpAddr) -> bool {
    arrives(from, to, Duration::from_secs(10))
}

/// Whether no datagram from the peer arrives at this machine's `to`; to be asked when neighbours know each other.
#[track_caller]
pub fn is_cut_off(from: &Peer, to: IpAddr) -> bool {
    !arrives(from, to, Duration::from_millis(300))
}

#[track_caller]
fn arrives(from: &Peer, to: IpAddr, patience: Duration) -> bool {
    let socket = UdpSocket::bind((to, 0)).expect("the address is this machine's");
    socket.set_read_timeout(Some(Duration::from_millis(30))).expect("not zero");
    let target = socket.local_addr().expect("bound");
    let until = Instant::now() + patience;
    loop {
        from.there(move || {
            let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
            let socket = UdpSocket::bind((any, 0)).expect("any address");
            // Unreachable while neighbours are unknown: the receiver's silence is the answer.
            let _ = socket.send_to(b"knock", target);
        });
        let arrived = socket.recv(&mut [0; 8]).is_ok();
        if arrived || Instant::now() >= until {
            return arrived;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A way to send Ethernet frames out of one interface. Closing it costs the kernel a grace period, so it is kept.
pub struct Wire {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl Wire {
    /// Out of `interface` of the calling thread's network.
    #[track_caller]
    pub fn new(interface: &str) -> Wire {
        let name = CString::new(interface).expect("no zero in a name");
        // SAFETY: a system call with a C string that lives until it returns.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no interface `{interface}`");
        // SAFETY: a system call with numbers alone.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(
            socket >= 0,
            "this test needs root for raw packets: {}",
            io::Error::last_os_error()
        );
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: all zeros are a valid address structure.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        Wire { socket, to }
    }

    /// Sends one frame.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: buffer and address live until the call returns and are as long as said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_ref(&self.to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(sent, frame.len() as isize, "sending a frame: {}", io::Error::last_os_error());
    }
}

/// An Ethernet frame with an IPv4 TCP packet from `source` to port `port`, to everybody's address.
pub fn tcp_frame(source: std::net::Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(source.octets());
    frame.extend([10, 0, 0, 1]);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}
