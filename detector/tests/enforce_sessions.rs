//! Whoever is logged in over SSH when the daemon starts is never locked out; who is only trying to log in may be.
mod enforcing;
mod lab;

use std::{
    fs,
    io::Read,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use enforcing::{options, prefix, start};
use fail2xdp::enforce::{Enforcer, Notice, Options};

/// Ends a process of the test, also after a panic.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(program: &str, arguments: &str) -> Running {
    let child = Command::new(program)
        .args(arguments.split_ascii_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Running(child.unwrap_or_else(|error| {
        panic!("this test needs `{program}` (openssh-server, openssh-client): {error}")
    }))
}

fn keygen(file: &str) {
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", file]).status();
    assert!(made.expect("this test needs `ssh-keygen` (openssh-client)").success());
}

/// A real SSH server on 10.0.0.1:2222, in the calling thread's namespaces, with one user beside root.
fn serve(folder: &str) -> Running {
    keygen(&format!("{folder}/host"));
    keygen(&format!("{folder}/key"));
    let user = "f2xuser:x:54321:54321::/:/bin/sh\n";
    let passwd = fs::read_to_string("/etc/passwd").unwrap() + user;
    fs::write(format!("{folder}/passwd"), passwd).unwrap();
    // In this thread's own mounts alone.
    lab::run(&format!("mount --bind {folder}/passwd /etc/passwd"));
    lab::run("mount -t tmpfs tmpfs /run");
    lab::run("mkdir -m 0755 /run/sshd");
    let settings = [
        "ListenAddress 10.0.0.1:2222",
        &format!("HostKey {folder}/host"),
        &format!("AuthorizedKeysFile {folder}/key.pub"),
        "PidFile none",
        "UsePAM no",
        "StrictModes no",
        "PermitRootLogin yes",
        "PasswordAuthentication yes",
    ];
    fs::write(format!("{folder}/sshd_config"), settings.join("\n") + "\n").unwrap();
    let server = spawn("/usr/sbin/sshd", &format!("-D -f {folder}/sshd_config"));
    let patience = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("10.0.0.1", 2222)).is_err() {
        assert!(Instant::now() < patience, "sshd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// Logs in from `address` of the peer and waits until a command runs there.
fn log_in(peer: &lab::Peer, folder: &str, user: &str, address: &str) -> Running {
    let proof = format!("{folder}/{user}-is-in");
    // The session's user writes it.
    lab::run(&format!("chmod 0777 {folder}"));
    let arguments = format!(
        "-i {folder}/key -b {address} -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o BatchMode=yes {user}@10.0.0.1 touch {proof}; cat"
    );
    let session = peer.there(move || spawn("ssh", &arguments));
    let patience = Instant::now() + Duration::from_secs(30);
    while fs::metadata(&proof).is_err() {
        assert!(Instant::now() < patience, "{user} did not get in");
        std::thread::sleep(Duration::from_millis(20));
    }
    session
}

/// Somebody who is asked for root's password, and thinks.
fn guess(peer: &lab::Peer, folder: &str, address: &str) -> Running {
    let thinking = format!("{folder}/askpass");
    fs::write(&thinking, "#!/bin/sh\nwhile kill -0 $PPID; do sleep 0.1; done\n").unwrap();
    lab::run(&format!("chmod 0755 {thinking}"));
    let arguments = format!(
        "SSH_ASKPASS={thinking} SSH_ASKPASS_REQUIRE=force ssh -b {address} -p 2222 -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o PreferredAuthentications=password root@10.0.0.1"
    );
    let guessing = peer.there(move || spawn("env", &arguments));
    let patience = Instant::now() + Duration::from_secs(30);
    // The server's process says whom it is asking.
    while !titles().iter().any(|title| title.contains("sshd") && title.contains("root [")) {
        assert!(Instant::now() < patience, "sshd asks nobody: {:?}", titles());
        std::thread::sleep(Duration::from_millis(20));
    }
    guessing
}

/// What processes call themselves.
fn titles() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let titles = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    titles.map(|title| String::from_utf8_lossy(&title).replace('\0', " ")).collect()
}

#[test]
fn the_remote_ends_of_logged_in_sessions_are_allowed_and_nobody_else() {
    lab::alone(|| {
        let folder = tempfile::Builder::new().prefix("f2x-").tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        for last in 3..=6 {
            peer.run(&format!("ip addr add 10.0.0.{last}/24 dev far"));
        }
        let _server = serve(folder);
        let _root = log_in(&peer, folder, "root", "10.0.0.3");
        let _user = log_in(&peer, folder, "f2xuser", "10.0.0.4");
        // Two who only try: one has said nothing, one is asked for a password for root.
        let silent = peer.there(|| {
            let mut stream = TcpStream::connect(("10.0.0.1", 2222)).unwrap();
            stream.read_exact(&mut [0; 8]).expect("the server's greeting");
            stream
        });
        let _guessing = guess(&peer, folder, "10.0.0.6");
        let (mut enforcer, _) = start(&Options { allow_sessions: true, ..options(&["near"]) });
        let allowed =
            |enforcer: &Enforcer, address: &str| enforcer.spares(prefix(address)).is_some();
        assert!(allowed(&enforcer, "10.0.0.3"), "root's session");
        assert!(allowed(&enforcer, "10.0.0.4"), "a user's session");
        assert!(
            !allowed(&enforcer, &silent.local_addr().unwrap().ip().to_string()),
            "a connection without login"
        );
        assert!(!allowed(&enforcer, "10.0.0.6"), "a guesser");
        let told = enforcer.maintain(enforcing::now());
        let addresses = vec![prefix("10.0.0.3"), prefix("10.0.0.4")];
        assert!(told.contains(&Notice::Sessions { addresses }), "{told:?}");
        drop(enforcer);

        let (enforcer, _) = start(&options(&["near"]));
        assert!(!allowed(&enforcer, "10.0.0.3"), "allow_sessions is off");
    });
}
