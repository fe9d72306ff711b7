//! Finding out what a machine has.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::plan::{Apt, Compiler, LINKER, Linker, Machine, NEEDS, NIGHTLY, Nightly, PEERS, Proof};
use crate::sh;

/// LLVM behind `rustc-web` in Debian 12 and later with security updates (November 2026): taken
/// for granted only until package lists are there.
const RUSTC_WEB_LLVM: u32 = 22;

/// Looks at the machine; runs only commands that change nothing.
pub fn look() -> Machine {
    Machine {
        may_install: is_root() || sh::succeeds(Command::new("sudo").args(["-n", "true"])),
        apt: apt(),
        missing: NEEDS.iter().filter(|need| !holds(&need.proof)).map(|need| need.package).collect(),
        missing_peers: PEERS
            .iter()
            .map(|peer| peer.name)
            .filter(|name| !peer_dir(name).exists())
            .collect(),
        misses_python_tools: !["offenders_fail2ban.py", "fail2slack", "validators", "requests"]
            .iter()
            .all(|name| python_tools().join(name).exists()),
        debian: debian(),
        rustup: sh::find_program("rustup").is_some(),
        nightly: nightly(),
        linkers: linkers(),
    }
}

/// Whether we are root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the package of [`PEERS`] with this name is laid aside.
pub fn peer_dir(name: &str) -> PathBuf {
    sh::target().join(name)
}

/// Where the tools that we build for ourselves lie.
pub fn tools() -> PathBuf {
    sh::target().join("tools")
}

/// Where tools from PyPI lie.
pub fn python_tools() -> PathBuf {
    tools().join("python")
}

fn holds(proof: &Proof) -> bool {
    match proof {
        Proof::Program(name) => sh::find_program(name).is_some(),
        Proof::File(paths) => paths.iter().any(|path| Path::new(path).exists()),
        Proof::Library(name) => sh::succeeds(Command::new("pkg-config").args(["--exists", name])),
    }
}

fn apt() -> Option<Apt> {
    sh::find_program("apt-get")?;
    let has_lists = std::fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    });
    let rustc_web_llvm = if has_lists {
        // The library that the compiler's own library depends on tells its LLVM.
        let mut depends = Command::new("apt-cache");
        depends.args(["depends", "--recurse", "--important", "rustc-web"]);
        sh::capture(&mut depends).ok().and_then(|tree| llvm_in_tree(&tree))
    } else {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        is_debian(&release).then_some(RUSTC_WEB_LLVM)
    };
    let conflict = ["rustc", "rustc-mozilla", "rustup"].into_iter().find(|package| {
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${db:Status-Status}", package]);
        sh::capture(&mut query).is_ok_and(|status| status == "installed")
    });
    Some(Apt { has_lists, rustc_web_llvm, conflict })
}

fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| line.trim_matches('"') == "ID=debian")
}

/// The newest `libllvmN` that stands in a tree of dependencies on a line of its own.
fn llvm_in_tree(tree: &str) -> Option<u32> {
    tree.lines().filter_map(|line| line.trim().strip_prefix("libllvm")?.parse().ok()).max()
}

fn debian() -> Option<Compiler> {
    // Only Debian's own package has its sources at this place; a `rustc` put there otherwise,
    // or without sources, cannot build `core` for the kernel.
    let rustc = Path::new("/usr/bin/rustc");
    if !Path::new("/usr/bin/cargo").exists()
        || !Path::new("/usr/lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    {
        return None;
    }
    let said = sh::capture(Command::new(rustc).arg("-vV").env_remove("LD_LIBRARY_PATH")).ok()?;
    llvm_of_rustc(&said).map(|llvm| Compiler { llvm })
}

/// The nightly that builds the kernel object: `FAIL2XDP_NIGHTLY`, else the tried one, else the
/// user's `nightly`.
fn nightly() -> Option<Nightly> {
    let chosen = std::env::var("FAIL2XDP_NIGHTLY").ok();
    let names = chosen.map_or_else(|| vec![NIGHTLY.to_owned(), "nightly".to_owned()], |n| vec![n]);
    names.into_iter().find_map(|name| {
        let said = sh::capture(rustc_of(&name).arg("-vV")).ok()?;
        let sysroot = sysroot_of(&name)?;
        let has_sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists();
        Some(Nightly { llvm: llvm_of_rustc(&said)?, has_sources, name })
    })
}

fn rustc_of(toolchain: &str) -> Command {
    let mut command = Command::new("rustup");
    // Looking must not fetch: rustup installs a toolchain it is asked to run unless told not to.
    command.args(["run", toolchain, "rustc"]).env("RUSTUP_AUTO_INSTALL", "0");
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
    command
}

/// The directory of a toolchain of rustup.
pub fn sysroot_of(toolchain: &str) -> Option<PathBuf> {
    sh::capture(rustc_of(toolchain).args(["--print", "sysroot"])).ok().map(PathBuf::from)
}

/// `22` from the line `LLVM version: 22.1.8` of `rustc -vV`.
fn llvm_of_rustc(said: &str) -> Option<u32> {
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn linkers() -> Vec<Linker> {
    let ours = tools().join("bin/bpf-linker");
    let others = sh::find_program("bpf-linker");
    [Some(ours), others].into_iter().flatten().filter_map(linker).collect()
}

fn linker(path: PathBuf) -> Option<Linker> {
    let said = sh::capture(Command::new(&path).arg("--version")).ok()?;
    let version = linker_version(&said)?;
    let bytes = std::fs::read(&path).ok()?;
    // Released binaries are static and say nothing; from 0.13 on they contain LLVM 23.
    let llvm = llvm_of_binary(&bytes).unwrap_or(if version >= (0, 13) { 23 } else { 0 });
    Some(Linker { path, version, llvm })
}

/// `(0, 13)` from `bpf-linker 0.13.0`.
fn linker_version(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.trim().strip_prefix("bpf-linker ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// `22` from the name `libLLVM.so.22.1` of the library that a program is linked with.
fn llvm_of_binary(bytes: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(bytes);
    ["libLLVM.so.", "libLLVM-"].into_iter().find_map(|name| {
        let mut numbers = text.match_indices(name).filter_map(|(at, _)| {
            let rest = &text[at + name.len()..];
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        numbers.next()
    })
}

/// The linker to use with a compiler of this LLVM.
pub fn fitting(machine: &Machine, llvm: u32) -> Option<&Linker> {
    machine.linkers.iter().find(|linker| linker.fits(llvm))
}

/// The arguments that build the linker against an LLVM. Forced, because cargo takes a linker that
/// no longer runs (its LLVM is gone) for installed.
pub fn linker_arguments(llvm: u32, root: &Path) -> Vec<String> {
    let root = root.to_string_lossy().into_owned();
    let feature = format!("llvm-{llvm}");
    ["install", "bpf-linker", "--version", LINKER, "--locked", "--force", "--no-default-features"]
        .into_iter()
        .map(str::to_owned)
        .chain(["--features".to_owned(), feature, "--root".to_owned(), root])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_where_they_are_said() {
        let said = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_of_rustc(said), Some(22));
        assert_eq!(llvm_of_rustc("rustc 1.96.0"), None);
        assert_eq!(linker_version("bpf-linker 0.13.0\n"), Some((0, 13)));
        assert_eq!(linker_version("bpf-linker"), None);
        assert_eq!(llvm_of_binary(b"\0libgcc_s.so.1\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(llvm_of_binary(b"libLLVM.so.x libLLVM.so.23.1-rust-1.99.0-nightly"), Some(23));
        assert_eq!(llvm_of_binary(b"\x7fELF"), None);
    }

    #[test]
    fn the_llvm_on_offer_is_read_from_the_dependencies() {
        let tree = "rustc-web\n  Depends: libc6\n  Depends: libstd-rust-web-dev\n\
                    libstd-rust-web-1.96\n  Depends: libllvm22\nlibllvm22\n  Depends: libc6\n";
        assert_eq!(llvm_in_tree(tree), Some(22));
        assert_eq!(llvm_in_tree("W: No packages found"), None);
    }

    #[test]
    fn only_debian_itself_is_debian() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(!is_debian("ID=ubuntu\nID_LIKE=debian\n"));
    }

    #[test]
    fn the_linker_is_built_against_one_llvm_and_into_our_own_place() {
        assert_eq!(
            linker_arguments(22, Path::new("/t/tools")).join(" "),
            "install bpf-linker --version 0.13.0 --locked --force \
             --no-default-features --features llvm-22 --root /t/tools"
        );
    }
}
