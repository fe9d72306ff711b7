//! apt, so that no service starts: neither now nor at the next boot.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::machine::{is_root, peer_dir};
use super::plan::Peer;
use crate::sh;

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n\
    # Put here by `cargo xtask setup` of fail2xdp, which removes it when it has installed its\n\
    # packages: no service starts meanwhile. Left over? It is safe to delete.\n\
    exit 101\n";

/// `apt-get update`.
pub fn update() -> Result<()> {
    sh::run(apt_get(&["update", "-q"]).stdout(Stdio::null()))
}

/// Installs packages without what they recommend, removes none, starts and enables no service.
pub fn install(packages: &[String]) -> Result<()> {
    let _policy = Policy::put()?;
    let before = enabled_units();
    let fixed = ["install", "-y", "-q", "--no-install-recommends", "--no-remove"];
    let words: Vec<&str> = fixed.into_iter().chain(packages.iter().map(String::as_str)).collect();
    sh::run(apt_get(&words).stdout(Stdio::null()))?;
    let new: Vec<_> = enabled_units().difference(&before).cloned().collect();
    disable(&new, packages)
}

/// Fetches a package and lays its files aside.
pub fn unpack(peer: Peer) -> Result<()> {
    let dir = peer_dir(peer.name);
    let fetched = dir.with_extension("fetch");
    let unpacked = fetched.join("files");
    if fetched.exists() {
        fs::remove_dir_all(&fetched)?;
    }
    fs::create_dir_all(&unpacked)?;
    // As root apt fetches as the user `_apt`, who may not write here, and complains about it.
    let mut download = Command::new("apt-get");
    download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
    download.args(real_packages(peer.packages)?);
    sh::run(download.current_dir(&fetched).stdout(Stdio::null()))?;
    for entry in fs::read_dir(&fetched)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            sh::run(Command::new("dpkg").arg("-x").args([&entry.path(), &unpacked]))?;
        }
    }
    // Under its name only when whole, so that a broken fetch is not taken for the package.
    fs::rename(&unpacked, &dir)?;
    fs::remove_dir_all(&fetched)?;
    Ok(())
}

/// The packages that hold the files: for a name that only leads to the newest kernel, that
/// kernel, and its modules where they are packed apart.
fn real_packages(names: &[&str]) -> Result<Vec<String>> {
    let is_offered =
        |name: &&&str| sh::succeeds(Command::new("apt-cache").args(["show", "--quiet=0", name]));
    let name = names.iter().find(is_offered);
    let name = name.with_context(|| format!("apt offers no `{}`", names.join("`, no `")))?;
    if !name.starts_with("linux-image-") {
        return Ok(vec![(*name).to_owned()]);
    }
    let kernel = dependencies(name, "linux-image-")?.pop();
    let kernel = kernel.with_context(|| format!("`{name}` leads to no kernel"))?;
    let mut packages = dependencies(&kernel, "linux-modules-")?;
    packages.push(kernel);
    Ok(packages)
}

fn dependencies(package: &str, prefix: &str) -> Result<Vec<String>> {
    let tree = sh::capture(Command::new("apt-cache").args(["depends", "--important", package]))?;
    let names = tree.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
}

fn apt_get(words: &[&str]) -> Command {
    let mut command = as_root("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]).args(words);
    command.stdin(Stdio::null());
    command
}

/// The program as root, with what keeps packages from asking and from restarting services.
fn as_root(program: &str) -> Command {
    let quiet = ["DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"];
    let mut command;
    if is_root() {
        command = Command::new("env");
    } else {
        command = Command::new("sudo");
        command.args(["-n", "env"]);
    }
    command.args(quiet).arg(program);
    command
}

/// While it lives, packages start no service. A policy of the user's own is left as it is.
struct Policy {
    ours: bool,
}

impl Policy {
    fn put() -> Result<Self> {
        let path = Path::new(POLICY);
        match fs::read_to_string(path) {
            // Ours from a run that was killed: it serves, and goes with this one.
            Ok(text) if text == POLICY_TEXT => Ok(Self { ours: true }),
            Ok(_) if denies(path) => Ok(Self { ours: false }),
            Ok(_) => bail!(
                "`{POLICY}` of this machine lets services start: install the packages by hand"
            ),
            Err(_) => {
                let draft =
                    std::env::temp_dir().join(format!("policy-rc.d-{}", std::process::id()));
                fs::write(&draft, POLICY_TEXT)?;
                fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
                let put = sh::run(as_root("install").args(["-m", "755"]).arg(&draft).arg(path));
                fs::remove_file(&draft)?;
                put.map(|()| Self { ours: true })
            }
        }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = sh::run(as_root("rm").args(["-f", POLICY]))
        {
            eprintln!("xtask: {error:#}; delete `{POLICY}` by hand");
        }
    }
}

/// Asks a policy what `invoke-rc.d` would ask it.
fn denies(policy: &Path) -> bool {
    let answer = Command::new(policy).args(["ssh", "start"]).stdin(Stdio::null()).output();
    answer.is_ok_and(|output| output.status.code() == Some(101))
}

/// What systemd would start: the links in its directories of wanted units.
fn enabled_units() -> BTreeSet<PathBuf> {
    let Ok(dirs) = fs::read_dir("/etc/systemd/system") else { return BTreeSet::new() };
    dirs.flatten()
        .filter(|dir| dir.file_name().to_string_lossy().ends_with(".wants"))
        .filter_map(|dir| fs::read_dir(dir.path()).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .collect()
}

/// Takes units out again that the packages have just enabled. Those of systemd itself stay: where
/// it comes with us nothing boots by it yet, and a machine that once does needs them.
fn disable(links: &[PathBuf], packages: &[String]) -> Result<()> {
    let mut list = Command::new("dpkg-query");
    list.arg("-L").args(packages.iter().filter(|package| *package != "systemd"));
    let files = sh::capture(&mut list).unwrap_or_default();
    let is_theirs = |unit: &&OsStr| {
        let unit = unit.to_string_lossy();
        files
            .lines()
            .any(|file| file.rsplit_once("/systemd/system/").is_some_and(|(_, name)| name == unit))
    };
    let names = links.iter().filter_map(|link| link.file_name());
    let units: BTreeSet<_> = names.filter(is_theirs).collect();
    if units.is_empty() || sh::find_program("systemctl").is_none() {
        return Ok(());
    }
    let names = units.iter().map(|unit| unit.to_string_lossy()).collect::<Vec<_>>().join(" ");
    eprintln!("xtask: leaving the new services off: systemctl disable {names}");
    let mut systemctl = as_root("systemctl");
    sh::run(systemctl.args(["--quiet", "disable"]).args(&units).stdout(Stdio::null()))
}
