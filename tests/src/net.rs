//! Network namespaces joined by a veth pair: a server's machine, and a machine with many addresses.
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::run::{output, require, run, tool};

/// Both addresses of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// In 10.9.0.0/24.
    pub v4: IpAddr,
    /// In fd09::/48, each host in a /64 of its own: that is what is counted and banned as one.
    pub v6: IpAddr,
}

/// The host with this number in both networks.
pub const fn host(number: u8) -> Host {
    Host {
        v4: IpAddr::V4(Ipv4Addr::new(10, 9, 0, number)),
        v6: IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, number as u16, 0, 0, 0, 1)),
    }
}

/// How the prefix is written that an address is banned as by default: itself, or its IPv6 /64.
pub fn unit(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            format!("{}/64", Ipv6Addr::from(network))
        }
    }
}

/// The machine that the daemon protects.
pub const SERVER: Host = host(1);
/// Who guesses: what the clients' machine sends from unless told otherwise.
pub const ATTACKER: Host = host(2);
/// Who has done nothing, behind the same interface.
pub const BYSTANDER: Host = host(3);
/// Who is on an allow list.
pub const FRIEND: Host = host(4);

/// A network namespace; deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one with loopback up. Its name carries our process id, so that leftovers can be told.
    #[track_caller]
    pub fn new(label: &str) -> Namespace {
        require(&["ip", "nsenter", "setpriv", "unshare"]);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        assert!(
            rustix::process::geteuid().is_root(),
            "namespaces need root: run the tests as root"
        );
        let namespace = Namespace { name: format!("f2x-{}-{label}", std::process::id()) };
        run("ip", &["netns", "add", &namespace.name]);
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `setns` opens.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// `ip` inside; words are split at blanks.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let mut arguments = vec!["-n", self.name.as_str()];
        arguments.extend(words.split_whitespace());
        run("ip", &arguments)
    }

    /// A command that will run inside, seeing the same files and bpffs as we do, and that dies with us.
    ///
    /// `ip netns exec` would mount a fresh `/sys` over the one with bpffs in it. The kernel ends the
    /// command when the thread that started it ends, so only start it from the test's own thread.
    #[track_caller]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(tool("setpriv"));
        command.args(["--pdeathsig", "KILL"]).arg(tool("nsenter"));
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program.as_ref());
        command
    }

    /// Runs `inside` on a thread that lives in this namespace; sockets it makes stay there.
    #[track_caller]
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(self.path()).expect("the namespace exists as long as its value");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("we are root");
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not `run`: a panic while panicking would hide why the test failed.
        output(Command::new(tool("ip")).args(["netns", "del", &self.name]));
    }
}

/// A server's machine and a clients' machine on one wire, both with IPv4 and IPv6.
///
/// The server's end is called `s0` and can run XDP natively; the clients' end is `c0` and holds every
/// address from [`ATTACKER`] on that a test sends from.
#[derive(Debug)]
pub struct Net {
    /// Where server and daemon run.
    pub server: Namespace,
    /// Where attackers, bystanders and friends are.
    pub clients: Namespace,
}

impl Net {
    /// The two machines, wired, addressed and reachable at once (no duplicate address detection).
    #[track_caller]
    pub fn new(label: &str) -> Net {
        let net = Net {
            server: Namespace::new(&format!("{label}-s")),
            clients: Namespace::new(&format!("{label}-c")),
        };
        net.wire("s0", "c0");
        net.server.ip(&format!("addr add {}/24 dev s0", SERVER.v4));
        net.server.ip(&format!("addr add {}/48 dev s0 nodad", SERVER.v6));
        for client in [ATTACKER, BYSTANDER, FRIEND] {
            net.add_client(client);
        }
        net
    }

    /// One more veth pair between the two machines, both ends up.
    #[track_caller]
    pub fn wire(&self, server_end: &str, client_end: &str) {
        let (server, clients) = (self.server.name(), self.clients.name());
        run(
            "ip",
            &[
                "link", "add", server_end, "netns", server, "type", "veth", "peer", "name",
                client_end, "netns", clients,
            ],
        );
        self.server.ip(&format!("link set {server_end} up"));
        self.clients.ip(&format!("link set {client_end} up"));
    }

    /// Gives the clients' machine one more pair of addresses.
    #[track_caller]
    pub fn add_client(&self, client: Host) {
        self.clients.ip(&format!("addr add {}/24 dev c0", client.v4));
        // A deprecated address is used when asked for, never chosen: who binds nothing is the attacker.
        let lifetime = if client == ATTACKER { "" } else { "preferred_lft 0" };
        self.clients.ip(&format!("addr add {}/48 dev c0 nodad {lifetime}", client.v6));
    }

    /// Lets the clients' machine send from every address of an IPv4 network, and the server answer it.
    #[track_caller]
    pub fn add_client_network(&self, network: &str) {
        self.clients.ip(&format!("route add local {network} dev lo"));
        self.server.ip(&format!("route add {network} via {}", ATTACKER.v4));
    }
}

/// Removes what test runs that no longer live have left: their namespaces, mounts and directories.
pub fn sweep() {
    let stale = |name: &str| {
        let pid = name.strip_prefix("f2x-").and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    let named = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_str().is_some_and(stale))
            .map(|entry| entry.path())
            .collect()
    };
    for namespace in named(Path::new("/run/netns")) {
        let name = namespace.file_name().unwrap_or_default();
        output(Command::new(tool("ip")).args(["netns", "del"]).arg(name));
    }
    for directory in named(&std::env::temp_dir()) {
        unmount_below(&directory);
        // What cannot be removed is tried again by the next run.
        let _ = fs::remove_dir_all(directory);
    }
}

/// Takes away what is mounted below a directory. A file system that a test froze is thawed first: whoever touched it
/// before would hang, and could not be killed.
fn unmount_below(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth word is where it is mounted (proc_pid_mountinfo(5)); later ones may lie on earlier ones.
    let places = mounts.lines().rev().filter_map(|mount| mount.split(' ').nth(4));
    for place in places.filter(|place| Path::new(place).starts_with(directory)) {
        output(Command::new(tool("fsfreeze")).args(["--unfreeze", place]));
        output(Command::new(tool("umount")).args(["--lazy", place]));
    }
}
