//! Where Debian's fail2ban lies: unpacked aside by `cargo xtask test`, or installed. The black-box tests ask here, too.
use std::{
    env,
    path::{Path, PathBuf},
};

/// Its configuration directory.
#[track_caller]
pub fn config() -> PathBuf {
    let aside = env::var_os("FAIL2XDP_FAIL2BAN_TREE").map(PathBuf::from);
    let config = aside.unwrap_or_else(|| PathBuf::from("/etc/fail2ban"));
    assert!(
        config.join("jail.conf").is_file(),
        "there is no fail2ban configuration in `{}`: run `cargo xtask test`, which unpacks one, or unpack it with \
         `apt-get download fail2ban && dpkg -x fail2ban_*.deb DIR` and set FAIL2XDP_FAIL2BAN_TREE=DIR/etc/fail2ban",
        config.display()
    );
    config
}

/// The directory that its packages of Python lie in.
#[track_caller]
pub fn packages() -> PathBuf {
    let config = config();
    let root = config.parent().and_then(Path::parent).expect("`etc/fail2ban` below some directory");
    root.join("usr/lib/python3/dist-packages")
}

/// The tests that the same package brings: sample logs with expectations, filters made for them.
#[track_caller]
pub fn tests() -> PathBuf {
    let tests = packages().join("fail2ban/tests");
    assert!(
        tests.join("files/logs").is_dir(),
        "this package of fail2ban brings no `{}`: take Debian's 1.0.2-2",
        tests.join("files/logs").display()
    );
    tests
}
