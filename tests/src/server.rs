//! A real OpenSSH server in a namespace, with its own users, host key and log.
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    Host, Namespace, Net, SERVER, Site, connect,
    run::{output, require, run, tool},
    wait::until,
};

/// Where a server's messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Through rsyslogd into `auth.log`, in the format Debian used for decades.
    File,
    /// Into a journal of its own systemd-journald, as unit `ssh.service`.
    Journal,
}

/// A running sshd with the users `root` and `alice`, whose password is `correct horse`; ends on drop.
#[derive(Debug)]
pub struct Sshd {
    room: PathBuf,
    child: Child,
    slice: String,
}

/// The one password that is right.
pub(crate) const PASSWORD: &str = "correct horse";

impl Sshd {
    /// Starts one on port 22 of the server's machine and waits until it answers.
    #[track_caller]
    pub fn start(net: &Net, site: &Site, log: LogTo) -> Sshd {
        require(&["sshd", "ssh", "ssh-keygen", "sshpass", "openssl"]);
        match log {
            LogTo::File => require(&["rsyslogd"]),
            LogTo::Journal => require(&["systemd-journald", "journalctl"]),
        }
        let room = site.path("sshd");
        furnish(&room);
        let slice = format!("{}.slice", net.server.name().replace('-', "_"));
        let mut command = net.server.command(tool("unshare"));
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args(["sh", "-c", include_str!("server.sh"), "server.sh"]).arg(&room);
        command.arg(match log {
            LogTo::File => "file",
            LogTo::Journal => "journal",
        });
        let said = fs::File::create(room.join("output")).expect("the room can be written");
        command.arg(&slice).stdin(Stdio::null());
        command.stdout(said.try_clone().expect("descriptors are not short")).stderr(said);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut sshd = Sshd { room, child, slice };
        sshd.wait_until_open(&net.server, SERVER);
        sshd
    }

    /// `auth.log`.
    pub fn auth_log(&self) -> PathBuf {
        self.room.join("auth.log")
    }

    /// The directory that the journal lies below.
    pub fn journal(&self) -> PathBuf {
        self.room.join("journal")
    }

    /// The socket of its systemd-journald that takes entries in journald's own form, seen from our side.
    pub fn journal_socket(&self) -> PathBuf {
        format!("/proc/{}/root/run/systemd/journal/socket", self.child.id()).into()
    }

    /// Everything in `auth.log`.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.auth_log()).unwrap_or_default()
    }

    /// Waits for the port, on the server's own machine so that no wire takes part.
    #[track_caller]
    fn wait_until_open(&mut self, server: &Namespace, host: Host) {
        until(Duration::from_secs(15), "sshd listens on port 22", || {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                let said = fs::read_to_string(self.room.join("output")).unwrap_or_default();
                panic!("the server ended ({status}): {said}");
            }
            connect(server, host.v4, SocketAddr::new(host.v4, 22), Duration::from_secs(1)).ok()
        });
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have ended by itself; its whole process namespace ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its control group, and those of test runs that no longer live.
        let remove = format!(
            "mount -t cgroup2 none /sys/fs/cgroup; cd /sys/fs/cgroup; for slice in f2x_*.slice; do \
             pid=${{slice#f2x_}}; if [ $slice = {} ] || ! [ -d /proc/${{pid%%_*}} ]; then \
             for n in 1 2 3 4 5; do rmdir $slice/ssh.service $slice && break; sleep 0.1; done; fi; done",
            self.slice
        );
        output(Command::new(tool("unshare")).args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &remove,
        ]));
    }
}

/// Writes everything that `server.sh` needs.
#[track_caller]
fn furnish(room: &Path) {
    fs::create_dir_all(room).expect("the site can be written");
    let write = |name: &str, text: String| {
        fs::write(room.join(name), text).expect("the site can be written")
    };
    run(
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-f", &room.join("host_key").display().to_string()],
    );
    let hash = run("openssl", &["passwd", "-6", PASSWORD]);
    let hash = hash.trim();
    write(
        "passwd",
        "root:x:0:0::/:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\nalice:x:2000:2000::/:/bin/sh\n".into(),
    );
    write(
        "shadow",
        format!("root:{hash}:19000::::::\nsshd:*:19000::::::\nalice:{hash}:19000::::::\n"),
    );
    write(
        "rsyslog.conf",
        format!(
            "module(load=\"imuxsock\")\n\
             auth,authpriv.* action(type=\"omfile\" file=\"{}\" template=\"RSYSLOG_TraditionalFileFormat\")\n",
            room.join("auth.log").display()
        ),
    );
    write(
        "sshd_config",
        format!(
            "Port 22\nHostKey {}\nPidFile none\nUsePAM no\nUseDNS no\nStrictModes no\nPermitRootLogin yes\n\
             PasswordAuthentication yes\nKbdInteractiveAuthentication no\nMaxStartups 100\n",
            room.join("host_key").display()
        ),
    );
}
