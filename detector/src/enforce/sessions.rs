//! Finds the remote ends of SSH sessions that are logged in right now, from the kernel's own tables.
//!
//! No log is asked: a log line can be provoked by anyone, and a connection that has not logged in may be an attack.
//! A remote end counts when all of this holds: its connection is established; its local port has a listener that
//! belongs to root; the connection is held by an SSH server process; and that process has left the stage before login.
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use super::protect::plain;

/// `include/net/tcp_states.h`.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// One line of `/proc/net/tcp` or `tcp6`.
#[derive(Debug, PartialEq, Eq)]
struct Connection {
    local_port: u16,
    remote: IpAddr,
    inode: u64,
}

/// What two tables of `/proc/net` say together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Connections {
    established: Vec<Connection>,
    /// Ports and inodes of listeners that belong to root.
    listening: Vec<(u16, u64)>,
}

impl Connections {
    /// Adds the lines of `/proc/net/tcp` or `tcp6`.
    fn read(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, local, remote, state, _, _, _, owner, _, inode, ..] = fields[..] else {
                continue;
            };
            let (Some((_, local_port)), Some((remote, _)), Ok(inode)) =
                (endpoint(local), endpoint(remote), inode.parse())
            else {
                continue;
            };
            match state {
                ESTABLISHED => self.established.push(Connection { local_port, remote, inode }),
                LISTEN if owner == "0" => self.listening.push((local_port, inode)),
                _ => {}
            }
        }
    }

    /// Established connections to ports that root listens on, by inode.
    fn candidates(&self) -> HashMap<u64, IpAddr> {
        let ports: HashSet<u16> = self.listening.iter().map(|&(port, _)| port).collect();
        let served =
            self.established.iter().filter(|connection| ports.contains(&connection.local_port));
        served.map(|connection| (connection.inode, connection.remote)).collect()
    }
}

/// Reads `0100007F:0016`: 32-bit words in the machine's order, then the port.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<u8> = (0..address.len() / 8)
        .map(|nth| {
            u32::from_str_radix(address.get(nth * 8..nth * 8 + 8)?, 16).ok().map(u32::to_ne_bytes)
        })
        .collect::<Option<Vec<[u8; 4]>>>()?
        .concat();
    match words[..] {
        [a, b, c, d] => Some((Ipv4Addr::new(a, b, c, d).into(), port)),
        _ => <[u8; 16]>::try_from(words).ok().map(|raw| (plain(Ipv6Addr::from(raw)), port)),
    }
}

/// What tells an SSH server process that is logged in from one that is not.
#[derive(Clone, Debug, Default)]
struct Process {
    /// `/proc/PID/comm`.
    name: String,
    /// `/proc/PID/cmdline`: sshd writes what it is doing there.
    title: String,
    /// Effective user id.
    user: u32,
    /// `/proc/PID/cgroup`.
    cgroup: String,
}

impl Process {
    fn read(folder: &Path) -> io::Result<Process> {
        let text = |name: &str| {
            fs::read(folder.join(name)).map(|raw| String::from_utf8_lossy(&raw).into_owned())
        };
        let status = text("status")?;
        let user = status.lines().find_map(|line| {
            line.strip_prefix("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok()
        });
        Ok(Process {
            name: text("comm")?.trim_end().to_owned(),
            title: text("cmdline")?.trim_end_matches('\0').replace('\0', " "),
            user: user.ok_or(io::ErrorKind::InvalidData)?,
            cgroup: text("cgroup").unwrap_or_default(),
        })
    }

    fn is_ssh_server(&self) -> bool {
        // `sshd-auth` (OpenSSH 10) handles the time before login alone.
        matches!(self.name.as_str(), "sshd" | "sshd-session")
    }

    /// Whether somebody has logged in over this process's connection.
    ///
    /// Before login the connection is held by a monitor (root, title `… [priv]` or `… [accepted]`) and a helper (user
    /// `sshd`, title `… [net]`). After it by a process of the user, and for root by one titled `root@TTY`.
    fn logged_in(&self, unprivileged: &HashSet<u32>, listeners: &HashSet<&str>) -> bool {
        let before_login = ["[net]", "[preauth]", "[accepted]", "[listener]"];
        if unprivileged.contains(&self.user)
            || before_login.iter().any(|mark| self.title.ends_with(mark))
        {
            return false;
        }
        if self.user != 0 {
            return true;
        }
        let doing = self.title.split_once(": ").map_or("", |(_, doing)| doing);
        let with_terminal = doing.contains('@') && !doing.ends_with(']');
        // systemd moves a process into a session's scope when PAM opens the session. When sshd itself was started from
        // within a session, all its children stand in that scope and it proves nothing.
        let in_session =
            self.cgroup.contains("/session-") && !listeners.contains(self.cgroup.as_str());
        with_terminal || in_session
    }
}

/// The remote ends of the SSH sessions that are logged in.
///
/// # Errors
///
/// Where `/proc` cannot be read, or not the descriptors of other users' processes (`CAP_SYS_PTRACE` is missing).
pub(super) fn logged_in() -> io::Result<Vec<IpAddr>> {
    let mut connections = Connections::default();
    // The namespace of this thread: `/proc/net` would be that of the process's first.
    connections.read(&fs::read_to_string("/proc/thread-self/net/tcp")?);
    connections.read(&fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default());
    let candidates = connections.candidates();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let unprivileged =
        privilege_separation_users(&fs::read_to_string("/etc/passwd").unwrap_or_default());

    let mut servers = Vec::new();
    let mut hidden = None;
    for entry in fs::read_dir("/proc")?.flatten() {
        let folder = entry.path();
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        // A process that has ended meanwhile holds nothing.
        let Some(process) = is_process.then(|| Process::read(&folder).ok()).flatten() else {
            continue;
        };
        if !process.is_ssh_server() {
            continue;
        }
        match sockets(&folder.join("fd")) {
            Ok(inodes) => servers.push((process, inodes)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden = Some(error),
            Err(_) => {}
        }
    }
    if let (true, Some(error)) = (servers.is_empty(), hidden) {
        return Err(error);
    }
    let listening: HashSet<u64> = connections.listening.iter().map(|&(_, inode)| inode).collect();
    let listeners: HashSet<&str> = servers
        .iter()
        .filter(|(_, inodes)| inodes.iter().any(|inode| listening.contains(inode)))
        .map(|(process, _)| process.cgroup.as_str())
        .collect();
    let mut remote: Vec<IpAddr> = servers
        .iter()
        .filter(|(process, _)| process.logged_in(&unprivileged, &listeners))
        .flat_map(|(_, inodes)| inodes.iter().filter_map(|inode| candidates.get(inode).copied()))
        .collect();
    remote.sort_unstable();
    remote.dedup();
    Ok(remote)
}

/// Inodes of the sockets behind a process's descriptors.
fn sockets(descriptors: &Path) -> io::Result<Vec<u64>> {
    let links =
        fs::read_dir(descriptors)?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(links
        .filter_map(|target| {
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect())
}

/// The users that sshd becomes before login.
fn privilege_separation_users(passwd: &str) -> HashSet<u32> {
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields
        .filter(|fields| matches!(fields.first(), Some(&("sshd" | "_sshd"))))
        .filter_map(|fields| fields.get(2)?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 0100000A:0016 097100CB:A1B2 01 00000000:00000000 02:000A 00000000     0        0 200 2 0 20 4 30 10 -1
   2: 0100000A:1F90 087100CB:A1B3 01 00000000:00000000 02:000A 00000000  1000        0 300 2 0 20 4 30 10 -1
   3: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 400 1 0 100 0 0 10 0
   4: 0100000A:0016 077100CB:A1B4 06 00000000:00000000 03:000A 00000000     0        0 0 3 0
   5: damaged
";

    #[test]
    fn only_connections_to_a_port_of_root_are_candidates() {
        let mut connections = Connections::default();
        connections.read(TABLE);
        assert_eq!(connections.listening, [(22, 100)]);
        assert_eq!(
            connections.candidates(),
            HashMap::from([(200, "203.0.113.9".parse().unwrap())])
        );
    }

    #[test]
    fn addresses_are_read_in_the_machines_order() {
        assert_eq!(endpoint("0100007F:0016"), Some(("127.0.0.1".parse().unwrap(), 22)));
        let six = "B80D0120000000000000000001000000:01BB";
        assert_eq!(endpoint(six), Some(("2001:db8::1".parse().unwrap(), 443)));
        let mapped = "0000000000000000FFFF0000097100CB:0016";
        assert_eq!(endpoint(mapped), Some(("203.0.113.9".parse().unwrap(), 22)));
        assert_eq!(endpoint("01007F:0016"), None);
        assert_eq!(endpoint("nonsense"), None);
    }

    #[track_caller]
    fn check(name: &str, title: &str, user: u32, cgroup: &str, expect: bool) {
        let process =
            Process { name: name.into(), title: title.into(), user, cgroup: cgroup.into() };
        let service = "0::/system.slice/ssh.service\n";
        let logged_in = process.is_ssh_server()
            && process.logged_in(&HashSet::from([105]), &HashSet::from([service]));
        assert_eq!(logged_in, expect, "{name} `{title}` as {user} in {cgroup}");
    }

    #[test]
    fn a_connection_that_has_not_logged_in_is_never_a_session() {
        let service = "0::/system.slice/ssh.service\n";
        check("sshd", "sshd: [accepted]", 0, service, false);
        check("sshd", "sshd: root [priv]", 0, service, false);
        check("sshd", "sshd: unknown [priv]", 0, service, false);
        check("sshd", "sshd: root [net]", 105, service, false);
        check("sshd", "sshd: [net]", 105, service, false);
        check("sshd", "sshd: me@example.org [priv]", 0, service, false);
        check("sshd-session", "sshd-session: root [priv]", 0, service, false);
        check("sshd-session", "/usr/lib/openssh/sshd-session -D -R", 0, service, false);
        check("sshd-auth", "sshd-auth: root [net]", 1000, service, false);
        check("sshd", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", 0, service, false);
        check("bash", "sshd: root@pts/0", 0, service, false);
    }

    #[test]
    fn a_logged_in_user_is_a_session() {
        let service = "0::/system.slice/ssh.service\n";
        let session = "0::/user.slice/user-0.slice/session-4.scope\n";
        check("sshd", "sshd: me@pts/0", 1000, session, true);
        check("sshd", "sshd: me@notty", 1000, service, true);
        check("sshd", "sshd: me [priv]", 1000, service, true);
        check("sshd-session", "sshd-session: root@pts/1", 0, service, true);
        check("sshd", "sshd: root@pts/1", 0, service, true);
        check("sshd", "sshd: root [priv]", 0, session, true);
    }

    #[test]
    fn the_user_before_login_is_known_by_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\nme:x:1000:1000::/:/bin/sh\n";
        assert_eq!(privilege_separation_users(passwd), HashSet::from([105]));
    }
}
