//! Programs that the tests run, and where the built ones lie.
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where a program is that a test needs.
///
/// Looks in `PATH` and the system directories that a plain user's `PATH` lacks.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/lib/systemd", "/lib/systemd"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| {
            panic!("this test needs `{name}`: install the package `{}`", package_of(name))
        })
}

/// Fails the test unless all these programs are there.
#[track_caller]
pub fn require(names: &[&str]) {
    for name in names {
        tool(name);
    }
}

/// The Debian package that brings a program.
fn package_of(program: &str) -> &str {
    match program {
        "ip" => "iproute2",
        "nsenter" | "unshare" | "setpriv" | "mount" | "umount" | "flock" | "fsfreeze" => {
            "util-linux"
        }
        "mkfs.ext4" => "e2fsprogs",
        "truncate" => "coreutils",
        "sshd" => "openssh-server",
        "ssh" | "ssh-keygen" => "openssh-client",
        "rsyslogd" => "rsyslog",
        "systemd-journald" | "journalctl" => "systemd",
        "qemu-system-x86_64" => "qemu-system-x86",
        "busybox" => "busybox-static",
        "script" => "bsdutils",
        "strip" => "binutils",
        "apache2" => "apache2-bin",
        "nft" => "nftables",
        same => same,
    }
}

/// Runs a program to its end; anything but success fails the test with what the program said.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(tool(program));
    command.args(arguments);
    let output = output(&mut command);
    assert!(
        output.status.success(),
        "`{program} {}` failed ({}): {}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end and keeps what it said.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    command
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// The top of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

/// A file that a build made, below `target/`.
#[track_caller]
pub fn artifact(name: &str) -> PathBuf {
    let path = target().join(name);
    assert!(path.exists(), "`target/{name}` is missing: run `cargo xtask build`");
    path
}

/// The directory that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// The daemon's binary: `$FAIL2XDP_BIN`, else the one built last.
#[track_caller]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FAIL2XDP_BIN") {
        return path.into();
    }
    let built = |profile: &str| {
        let path = target().join(profile).join("fail2xdp");
        let modified = path.metadata().and_then(|meta| meta.modified()).ok()?;
        Some((modified, path))
    };
    let newest = ["release", "debug"].into_iter().filter_map(built).max();
    newest.expect("no `fail2xdp` is built: run `cargo xtask build`, or set FAIL2XDP_BIN").1
}
