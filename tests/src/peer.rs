//! Debian's fail2ban, run beside us: unpacked aside by `cargo xtask test`, or installed. Nothing of it is copied.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::tool;

/// Its configuration directory.
#[track_caller]
pub fn fail2ban_config() -> PathBuf {
    let aside = std::env::var_os("FAIL2XDP_FAIL2BAN_TREE").map(PathBuf::from);
    let config = aside.unwrap_or_else(|| PathBuf::from("/etc/fail2ban"));
    assert!(
        config.join("jail.conf").is_file(),
        "there is no fail2ban in `{}`: run `cargo xtask test`, which unpacks one, or unpack it with \
         `apt-get download fail2ban && dpkg -x fail2ban_*.deb DIR` and set FAIL2XDP_FAIL2BAN_TREE=DIR/etc/fail2ban",
        config.display()
    );
    config
}

/// The directory that its packages of Python lie in.
fn packages() -> PathBuf {
    let config = fail2ban_config();
    let root = config.parent().and_then(Path::parent).expect("`etc/fail2ban` below some directory");
    root.join("usr/lib/python3/dist-packages")
}

/// The sample logs that Debian's package brings.
#[track_caller]
pub fn fail2ban_samples() -> PathBuf {
    let samples = packages().join("fail2ban/tests/files/logs");
    assert!(
        samples.is_dir(),
        "this fail2ban brings no `{}`: take Debian's package 1.0.2",
        samples.display()
    );
    samples
}

/// Python with fail2ban at hand, running this script. It writes nothing beside fail2ban's files.
#[track_caller]
pub fn fail2ban(script: &str) -> Command {
    // The interpreter that Debian's programs name; another in `PATH` may be too new for them.
    let debian = Path::new("/usr/bin/python3");
    let python = if debian.exists() { debian.to_owned() } else { tool("python3") };
    let mut command = Command::new(python);
    command.arg("-c").arg(script);
    command.env("PYTHONPATH", packages()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
