//! Where the demo plays: namespaces, a directory, a real sshd, the daemon. Dropping it clears all.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::ip;
use crate::host::PREFIX;
use crate::sh;

/// A machine of the demo: a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Has sshd, a web page, and fail2xdp on its only interface.
    Server,
    /// Guesses passwords.
    Attacker,
    /// Wants the web page.
    Bystander,
    /// Joins the others: a bridge, without addresses.
    Switch,
}

impl Place {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Attacker => "attacker",
            Self::Bystander => "bystander",
            Self::Switch => "switch",
        }
    }

    /// Its IPv4 and its IPv6 address, of the networks for documentation (RFC 5737, RFC 3849).
    /// The IPv6 ones lie in different /64s: a ban may cover one whole.
    pub fn addresses(self) -> [IpAddr; 2] {
        let number = match self {
            Self::Server => 1,
            Self::Attacker => 66,
            Self::Bystander => 7,
            Self::Switch => 254,
        };
        [
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(number), 0, 0, 0, 1)),
        ]
    }
}

/// The whole scenery.
pub struct Stage {
    name: String,
    dir: PathBuf,
    server: Option<Child>,
    daemon: Option<Child>,
    daemon_lines: Option<Receiver<String>>,
    binary: PathBuf,
}

impl Stage {
    /// Puts the machines up and joins them; clears away what a killed demo left.
    pub fn set() -> Result<Self> {
        sweep();
        let name = format!("{PREFIX}-{}-demo", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        let stage = Self {
            name,
            dir,
            server: None,
            daemon: None,
            daemon_lines: None,
            binary: PathBuf::new(),
        };
        for dir in ["room", "config", "state", "bpf"] {
            fs::create_dir_all(stage.dir.join(dir))?;
        }
        ip(&format!("netns add {}", stage.namespace(Place::Switch)))?;
        stage.ip(Place::Switch, "link add bridge type bridge")?;
        stage.ip(Place::Switch, "link set bridge up")?;
        for place in [Place::Server, Place::Attacker, Place::Bystander] {
            stage.join(place)?;
        }
        sh::run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(stage.dir.join("bpf")))?;
        Ok(stage)
    }

    /// One machine with one interface on the switch.
    fn join(&self, place: Place) -> Result<()> {
        let (namespace, switch) = (self.namespace(place), self.namespace(Place::Switch));
        let port = place.name();
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("link add eth0 netns {namespace} type veth peer name {port} netns {switch}"))?;
        self.ip(Place::Switch, &format!("link set {port} master bridge up"))?;
        self.ip(place, "link set lo up")?;
        self.ip(place, "link set eth0 up")?;
        let [v4, v6] = place.addresses();
        self.ip(place, &format!("addr add {v4}/24 dev eth0"))?;
        // A wide prefix: one wire, and still a /64 of its own for each machine.
        self.ip(place, &format!("addr add {v6}/48 dev eth0 nodad"))
    }

    fn namespace(&self, place: Place) -> String {
        format!("{}-{}", self.name, place.name())
    }

    fn ip(&self, place: Place, words: &str) -> Result<()> {
        ip(&format!("-n {} {words}", self.namespace(place)))
    }

    fn namespace_path(&self, place: Place) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(place))
    }

    /// A command that will run on one of the machines, and dies with us.
    ///
    /// `ip netns exec` would mount a fresh `/sys` and hide the file system of pins.
    pub fn command(&self, place: Place, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]);
        command.arg(format!("--net={}", self.namespace_path(place).display()));
        command.args(["--", program]).stdin(Stdio::null());
        command
    }

    /// Runs something on a thread that lives on one of the machines.
    pub fn enter<T: Send + 'static>(
        &self,
        place: Place,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let namespace = fs::File::open(self.namespace_path(place))?;
        Ok(thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("we are root, and the namespace is open");
            inside()
        }))
    }

    /// sshd's log.
    pub fn auth_log(&self) -> PathBuf {
        self.dir.join("room/auth.log")
    }

    /// Starts sshd and rsyslogd with mounts and processes of their own, and waits for the port.
    pub fn start_server(&mut self) -> Result<()> {
        let room = self.dir.join("room");
        let file = |name: &str, text: String| fs::write(room.join(name), text);
        let key = room.join("host_key");
        sh::run(
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
        )?;
        // No password is right: nobody is to log in.
        file("shadow", "root:*:19000::::::\nsshd:*:19000::::::\n".to_owned())?;
        file(
            "passwd",
            "root:x:0:0::/:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n".to_owned(),
        )?;
        file(
            "rsyslog.conf",
            format!(
                "module(load=\"imuxsock\")\n\
                 auth,authpriv.* action(type=\"omfile\" file=\"{}\" \
                 template=\"RSYSLOG_TraditionalFileFormat\")\n",
                self.auth_log().display()
            ),
        )?;
        file(
            "sshd_config",
            format!(
                "HostKey {}\nPidFile none\nUsePAM no\nUseDNS no\nStrictModes no\n\
                 PermitRootLogin yes\nPasswordAuthentication yes\n\
                 KbdInteractiveAuthentication no\n",
                key.display()
            ),
        )?;
        let mut command = self.command(Place::Server, "unshare");
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "sh", "-c", include_str!("../../../tests/src/server.sh")]);
        command.arg("server.sh").arg(&room).args(["file", "unused"]);
        let said = fs::File::create(room.join("output"))?;
        command.stdout(said.try_clone()?).stderr(said);
        self.server = Some(command.process_group(0).spawn().context("cannot start sshd")?);
        let complaint = || fs::read_to_string(room.join("output")).unwrap_or_default();
        let mut probe = self.command(Place::Server, "sh");
        probe.args(["-c", "ss -Hltn sport = :22 | grep -q ."]);
        let deadline = Instant::now() + Duration::from_secs(15);
        while !sh::succeeds(&mut probe) {
            let ended = self
                .server
                .as_mut()
                .is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if ended || Instant::now() > deadline {
                bail!("sshd does not start: {}", complaint().trim());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts the daemon on the server's interface, with the shipped configuration and one jail.
    pub fn start_daemon(&mut self, binary: &Path, bantime: u64, maxretry: u64) -> Result<()> {
        self.binary = binary.to_owned();
        let config = self.dir.join("config");
        let mut copy = Command::new("cp");
        sh::run(copy.arg("-r").arg(sh::root().join("config").join(".")).arg(&config))?;
        fs::write(
            config.join("jail.local"),
            format!(
                "[DEFAULT]\nbantime = {bantime}\nfindtime = 60\nmaxretry = {maxretry}\n\n\
                 [sshd]\nenabled = true\nbackend = pyinotify\nlogpath = {}\n",
                self.auth_log().display()
            ),
        )?;
        let mut command = self.command(Place::Server, &binary.to_string_lossy());
        command.args(self.flags()).args(["--interface", "eth0", "run", "--detach-on-exit"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).spawn().context("cannot start the daemon")?;
        let (lines, receiver) = mpsc::channel();
        let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Source>);
        let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Source>);
        for pipe in [stdout, stderr].into_iter().flatten() {
            let lines = lines.clone();
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if lines.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        self.daemon = Some(child);
        self.daemon_lines = Some(receiver);
        Ok(())
    }

    fn flags(&self) -> [String; 8] {
        let place = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let [config, socket, state, pin] =
            ["--config", "--socket", "--state", "--pin"].map(str::to_owned);
        [
            config,
            place("config"),
            socket,
            place("socket"),
            state,
            place("state"),
            pin,
            place("bpf/fail2xdp"),
        ]
    }

    /// What the daemon has printed; waits at most so long for a first line.
    pub fn daemon_says(&self, wait: Duration) -> Result<Vec<String>> {
        let Some(lines) = &self.daemon_lines else { return Ok(Vec::new()) };
        match lines.recv_timeout(wait) {
            Ok(line) => Ok(std::iter::once(line).chain(lines.try_iter()).collect()),
            Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => bail!("the daemon ended by itself"),
        }
    }

    /// Asks the daemon with one of its own verbs.
    pub fn ask(&self, verb: &str) -> Result<serde_json::Value> {
        let mut command = Command::new(&self.binary);
        command.args(self.flags()).args(["--json", verb]);
        let answer = sh::capture(&mut command)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("`{}` printed no JSON: {answer}", sh::line(&command)))
    }

    /// Ends the daemon as Ctrl-C would.
    pub fn stop_daemon(&mut self) -> Result<()> {
        let Some(mut child) = self.daemon.take() else { return Ok(()) };
        rustix::process::kill_process(Pid::from_child(&child), Signal::INT)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the daemon ended with {status}"),
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                None => {
                    child.kill()?;
                    child.wait()?;
                    bail!("the daemon did not stop within 10 s of SIGINT");
                }
            }
        }
    }
}

/// A pipe of a child.
trait Source: std::io::Read + Send {}
impl<T: std::io::Read + Send> Source for T {}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.stop_daemon() {
            eprintln!("xtask: {error:#}");
        }
        if let Some(mut server) = self.server.take() {
            // Its whole process namespace ends with it; it may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
        for place in [Place::Server, Place::Attacker, Place::Bystander, Place::Switch] {
            if self.namespace_path(place).exists()
                && let Err(error) = ip(&format!("netns del {}", self.namespace(place)))
            {
                eprintln!("xtask: {error:#}");
            }
        }
        remove(&self.dir);
    }
}

/// Unmounts the pins and removes the directory.
fn remove(dir: &Path) {
    let mut unmount = Command::new("umount");
    sh::succeeds(unmount.args(["--lazy", "--quiet"]).arg(dir.join("bpf")));
    if dir.exists()
        && let Err(error) = fs::remove_dir_all(dir)
    {
        eprintln!("xtask: cannot remove {}: {error}", dir.display());
    }
}

/// Removes what demos that were killed have left.
fn sweep() {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_stale(name, |pid| Path::new("/proc").join(pid).exists())).collect()
    };
    for name in names(Path::new("/run/netns")) {
        // What cannot be removed now is tried again by the next demo.
        sh::succeeds(Command::new("ip").args(["netns", "del", &name]));
    }
    for name in names(&std::env::temp_dir()) {
        remove(&std::env::temp_dir().join(name));
    }
}

/// Whether a name is that of a demo whose process no longer lives.
fn is_stale(name: &str, lives: impl Fn(&str) -> bool) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-'));
    let Some((pid, rest)) = rest.and_then(|rest| rest.split_once('-')) else { return false };
    rest.split('-').next() == Some("demo") && pid.parse::<u32>().is_ok() && !lives(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_demo_left_is_swept() {
        let lives = |pid: &str| pid == "7";
        assert!(is_stale("f2x-8-demo", lives));
        assert!(is_stale("f2x-8-demo-switch", lives));
        assert!(!is_stale("f2x-7-demo-switch", lives));
        assert!(!is_stale("f2x-8-attack-s", lives));
        assert!(!is_stale("f2x-x-demo", lives));
        assert!(!is_stale("other-8-demo", lives));
    }

    #[test]
    fn each_machine_has_a_64_of_its_own() {
        let places = [Place::Server, Place::Attacker, Place::Bystander];
        let networks = places.map(|place| match place.addresses()[1] {
            IpAddr::V6(address) => u128::from(address) >> 64,
            IpAddr::V4(_) => 0,
        });
        assert!(networks[0] != networks[1] && networks[1] != networks[2] && networks[0] != 0);
    }
}
