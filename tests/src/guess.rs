//! Logins as people and attackers make them.
use std::{
    net::IpAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    Namespace,
    run::{output, require, tool},
    server::PASSWORD,
};

/// What became of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// The password was right.
    Accepted,
    /// The server heard us and said no.
    Denied,
    /// Nothing came back.
    NoAnswer,
}

/// One try to log in as `alice` with a right or wrong password, from one address to another.
///
/// A try that is not answered is given up after two seconds.
#[track_caller]
pub fn guess(from: &Namespace, source: IpAddr, to: IpAddr, right: bool) -> Login {
    require(&["ssh", "sshpass"]);
    let mut command = ssh(from, source, to, if right { PASSWORD } else { "wrong" });
    let output = output(command.arg("exit 0"));
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Login::Accepted,
        _ if said.contains("Permission denied") => Login::Denied,
        _ if ["timed out", "Connection closed", "Connection reset"]
            .iter()
            .any(|how| said.contains(how)) =>
        {
            Login::NoAnswer
        }
        _ => panic!("ssh from {source} to {to} ended otherwise ({}): {said}", output.status),
    }
}

/// Logs in and stays logged in as long as the child lives.
#[track_caller]
pub fn hold_session(from: &Namespace, source: IpAddr, to: IpAddr) -> Child {
    require(&["ssh", "sshpass"]);
    let mut command = ssh(from, source, to, PASSWORD);
    command.arg("echo in; cat").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("ssh can be started");
    let mut greeting = [0; 3];
    let stdout = child.stdout.as_mut().expect("it is piped");
    std::io::Read::read_exact(stdout, &mut greeting).expect("the session opens");
    assert_eq!(&greeting, b"in\n");
    child
}

/// hydra guessing from the clients' chosen address with four connections at a time.
///
/// Runs until it has guessed `guesses` wrong passwords or `limit` has passed; a banned hydra hangs.
#[track_caller]
pub fn flood(from: &Namespace, to: IpAddr, passwords: &Path, limit: Duration) -> Child {
    require(&["hydra", "timeout"]);
    let mut command = from.command(tool("timeout"));
    command.args(["--signal=KILL", &limit.as_secs().to_string()]).arg(tool("hydra"));
    command.args(["-I", "-t", "4", "-l", "root", "-P"]).arg(passwords);
    if to.is_ipv6() {
        command.arg("-6");
    }
    let target = if to.is_ipv6() { format!("ssh://[{to}]") } else { format!("ssh://{to}") };
    command.arg(target).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // hydra writes a restore file where it stands.
    command.current_dir(passwords.parent().expect("the list is a file in a directory"));
    command.spawn().expect("hydra can be started")
}

/// `ssh` that asks nothing and believes every host key.
fn ssh(from: &Namespace, source: IpAddr, to: IpAddr, password: &str) -> Command {
    let mut command = from.command(tool("sshpass"));
    command.args(["-p", password]).arg(tool("ssh")).args(["-F", "none", "-b", &source.to_string()]);
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "PreferredAuthentications=password",
        "PubkeyAuthentication=no",
        "NumberOfPasswordPrompts=1",
        "ConnectTimeout=2",
        "ServerAliveInterval=1",
        "ServerAliveCountMax=2",
        "LogLevel=ERROR",
    ] {
        command.args(["-o", option]);
    }
    command.arg(format!("alice@{to}"));
    command
}
