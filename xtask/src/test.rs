//! `cargo xtask test`: every test, from a bare machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::{self, Host};
use crate::setup::machine::{is_root, peer_dir, python_tools, tools};
use crate::setup::plan::Purpose;
use crate::{build, setup, sh};

/// A test binary that runs longer is ended: the whole run has 35 minutes.
const LIMIT_SECONDS: u32 = 15 * 60;
/// A full one may take its time.
const FULL_LIMIT_SECONDS: u32 = 60 * 60;

/// Installs what tests need, builds, and runs every test
///
/// Tests that attach programs do so in network namespaces of their own, which takes root: they
/// are run by sudo where it wants no password.
#[derive(clap::Args)]
pub struct Args {
    /// Also run the slow tests
    #[arg(long)]
    full: bool,
    /// Only tests whose name contains one of these
    filters: Vec<String>,
}

/// The verb.
pub fn verb(args: &Args) -> Result<()> {
    let start = Instant::now();
    let sudo = ["-nE"];
    if !is_root() && !sh::succeeds(Command::new("sudo").args(sudo).arg("true")) {
        bail!(
            "tests attach programs in network namespaces, which takes root: \
             run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
    }
    let (machine, plan) = setup::ensure(Purpose::Test, None)?;
    build::object(&machine, plan.route)?;
    // Promises of speed are made of what operators run.
    let daemon = build::daemon(true)?;
    // Library and tests in one go: built apart, dependencies that tests want with more
    // features would be built twice.
    sh::run(packages(sh::cargo().arg("build")).arg("--all-targets"))?;
    if is_root() {
        host::mount_bpffs()?;
    }
    let before = Host::look();
    let mut test = sh::cargo();
    packages(test.arg("test"));
    test.args(["--no-fail-fast", "--config", &runner(args.full, &daemon)?]);
    // Without the command that failed: its runner fills a screen, and cargo has named the test.
    let passed = test.arg("--").args(&args.filters).status().context("cannot start cargo")?;
    let after = settled(&before);
    let seconds = start.elapsed().as_secs();
    eprintln!("xtask: tests took {} min {} s", seconds / 60, seconds % 60);
    before.compare(&after)?;
    ensure!(passed.success(), "tests failed; `cargo xtask test NAME` runs those of that name");
    Ok(())
}

fn packages(command: &mut Command) -> &mut Command {
    command.args(["--workspace", "--exclude", "fail2xdp-ebpf"])
}

/// The host after the tests, given a moment for what is just closing.
fn settled(before: &Host) -> Host {
    for _ in 0..20 {
        let now = Host::look();
        if *before == now {
            return now;
        }
        thread::sleep(Duration::from_millis(250));
    }
    Host::look()
}

/// Cargo's setting that runs each test binary through `xtask limit`, as root.
fn runner(full: bool, daemon: &Path) -> Result<String> {
    let rustc = sh::capture(Command::new("rustc").arg("-vV").current_dir(sh::root()))?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say its host")?;
    let us = own_copy()?;
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH")?);
    let seconds = if full { FULL_LIMIT_SECONDS } else { LIMIT_SECONDS };
    let mut words = Vec::new();
    if !is_root() {
        words.extend(["sudo", "-nE"].map(str::to_owned));
    }
    words.extend([us.to_string_lossy().into_owned(), "limit".to_owned()]);
    words.push(format!("--seconds={seconds}"));
    let place = |path: &Path| path.to_string_lossy().into_owned();
    for (name, value) in [
        ("PATH", path),
        ("FAIL2XDP_BIN", place(daemon)),
        ("FAIL2XDP_OBJECT", place(&build::object_path())),
        ("FAIL2XDP_FAIL2BAN_TREE", place(&peer_dir("peers/fail2ban").join("etc/fail2ban"))),
        ("FAIL2XDP_PYTHON_TOOLS", place(&python_tools())),
        ("FAIL2XDP_GUEST_KERNEL", place(&peer_dir("guest-kernel"))),
        ("FAIL2XDP_USER_MODE_LINUX", place(&peer_dir("user-mode-linux"))),
    ] {
        words.push(format!("--set={name}={value}"));
    }
    if full {
        words.push("--set=FAIL2XDP_FULL=1".to_owned());
    }
    words.push("--".to_owned());
    Ok(format!("target.{host}.runner = [{}]", toml_strings(&words)))
}

/// A copy of this program that stays: cargo builds `xtask` with its tests, and replaces the file
/// that we were started from.
fn own_copy() -> Result<PathBuf> {
    let copy = tools().join("xtask");
    let draft = tools().join(format!("xtask-{}", std::process::id()));
    fs::create_dir_all(tools())?;
    fs::copy("/proc/self/exe", &draft).context("cannot copy this program")?;
    fs::rename(&draft, &copy)?;
    Ok(copy)
}

/// Words as strings of TOML. Debug output of Rust is the same for all that a path may hold,
/// control characters apart.
fn toml_strings(words: &[String]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_survives_odd_paths() {
        let words = ["/a b/xtask", "--set=X=\"1\"\\"].map(str::to_owned);
        assert_eq!(toml_strings(&words), r#""/a b/xtask", "--set=X=\"1\"\\""#);
    }
}
