//! `cargo xtask build`: the kernel object first, because the daemon carries it inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::setup::machine::{fitting, sysroot_of};
use crate::setup::plan::{Machine, Purpose, Route};
use crate::{elf, setup, sh};

/// Builds the kernel object and the daemon that carries it
#[derive(clap::Args)]
pub struct Args {
    /// Build the daemon optimised [default: quick to build, slow to run]
    #[arg(long)]
    release: bool,
    /// Build only the kernel object
    #[arg(long)]
    object: bool,
    /// Compiler for the kernel object [default: the one that is there]
    #[arg(long, value_enum)]
    route: Option<Route>,
}

/// The verb.
pub fn verb(args: &Args) -> Result<()> {
    let (machine, plan) = setup::ensure(Purpose::Build, args.route)?;
    object(&machine, plan.route)?;
    if !args.object {
        println!("{}", daemon(args.release)?.display());
    }
    Ok(())
}

/// The objects and the features that each is built with. The default one is linked without
/// logging, whose map is of a kind that libbpf refuses.
const OBJECTS: [(&str, &str); 2] = [("fail2xdp.o", ""), ("fail2xdp-verbose.o", "verbose")];

/// Where the kernel object lies when it is built.
pub fn object_path() -> PathBuf {
    sh::target().join("ebpf").join(OBJECTS[0].0)
}

/// Builds the kernel objects; one that did not change keeps its time, so that nothing that
/// embeds it is built anew.
pub fn object(machine: &Machine, route: Route) -> Result<()> {
    let compiler = Compiler::find(machine, route)?;
    let dir = sh::target().join("ebpf");
    fs::create_dir_all(&dir)?;
    for (name, features) in OBJECTS {
        let mut build = compiler.cargo("build");
        build.args(["--features", features]);
        sh::run(&mut build)?;
        let built = compiler.target_dir.join("bpfel-unknown-none/bpf/fail2xdp-ebpf");
        let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        let sections = elf::sections(&bytes)?;
        ensure!(
            sections.iter().any(|section| section == ".BTF"),
            "{} carries no BTF: the maps would have no named fields. Sections: {}",
            built.display(),
            sections.join(" ")
        );
        let object = dir.join(name);
        if fs::read(&object).ok().as_ref() != Some(&bytes) {
            fs::write(&object, &bytes)?;
        }
    }
    Ok(())
}

/// Builds the daemon; answers where it lies.
pub fn daemon(release: bool) -> Result<PathBuf> {
    let mut build = sh::cargo();
    build.args(["build", "--package", "fail2xdp"]);
    build.args(release.then_some("--release"));
    sh::run(&mut build)?;
    Ok(sh::target().join(if release { "release" } else { "debug" }).join("fail2xdp"))
}

/// A compiler for the kernel's machine.
pub struct Compiler {
    /// How its cargo is called.
    program: Vec<String>,
    /// What it needs in the environment.
    environment: Vec<(&'static str, String)>,
    /// Flags of its own for rustc.
    flags: Vec<String>,
    target_dir: PathBuf,
}

impl Compiler {
    /// The compiler of a route, with a linker that fits it.
    pub fn find(machine: &Machine, route: Route) -> Result<Self> {
        let llvm = match route {
            Route::Debian => machine.debian.map(|compiler| compiler.llvm),
            Route::Rustup => machine.nightly.as_ref().map(|nightly| nightly.llvm),
        };
        let llvm = llvm.with_context(|| format!("{} is not installed", route.says()))?;
        let linker = fitting(machine, llvm).context("no bpf-linker fits the compiler")?;
        let toolchain = machine.nightly.as_ref().map_or("", |nightly| nightly.name.as_str());
        let sysroot = match route {
            Route::Debian => None,
            Route::Rustup => sysroot_of(toolchain),
        };
        let home = std::env::var("HOME").unwrap_or_default();
        let cargo_home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
        let path = std::env::var("PATH").unwrap_or_default();
        // The same bytes wherever the repository, cargo's home and the toolchain lie.
        let mut places =
            vec![(sh::root().to_string_lossy().into_owned(), "/src"), (cargo_home, "/cargo")];
        places.extend(sysroot.map(|dir| (dir.to_string_lossy().into_owned(), "/rust")));
        Ok(Self::new(
            route,
            toolchain,
            linker.path.parent().unwrap_or(Path::new("/")),
            &path,
            &places,
        ))
    }

    fn new(
        route: Route,
        toolchain: &str,
        linker: &Path,
        path: &str,
        places: &[(String, &str)],
    ) -> Self {
        let (program, mut environment) = match route {
            Route::Debian => (
                vec!["/usr/bin/cargo".to_owned()],
                vec![
                    // Debian ships the release compiler; `build-std` is for nightlies otherwise.
                    ("RUSTC_BOOTSTRAP", "1".to_owned()),
                    ("RUSTC", "/usr/bin/rustc".to_owned()),
                ],
            ),
            Route::Rustup => (
                ["rustup", "run", toolchain, "cargo"].map(str::to_owned).to_vec(),
                vec![("RUSTUP_AUTO_INSTALL", "0".to_owned())],
            ),
        };
        environment.push(("PATH", format!("{}:{path}", linker.display())));
        let mut flags = vec!["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()];
        let renamed = places.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
        flags.extend(renamed);
        let target_dir = sh::target().join("ebpf-build");
        Self { program, environment, flags, target_dir }
    }

    /// Its cargo on the kernel program.
    pub fn cargo(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.current_dir(sh::root());
        sh::forget_outer_cargo(&mut command);
        // The outer cargo's compiler, its libraries and the user's flags are meant for the host.
        for name in ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "RUSTFLAGS", "RUSTDOC", "RUSTC_WRAPPER"]
        {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\x1f"));
        command.args(&self.program[1..]).arg(verb);
        command.args(["--package", "fail2xdp-ebpf", "--profile", "bpf", "-Zbuild-std=core"]);
        command.args(["--target", "bpfel-unknown-none", "--target-dir"]).arg(&self.target_dir);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(route: Route) -> Command {
        let linker = Path::new("/tools/bin");
        let places = [("/h/.cargo".to_owned(), "/cargo")];
        Compiler::new(route, "nightly-x", linker, "/usr/bin:/bin", &places).cargo("build")
    }

    fn set<'a>(command: &'a Command, wanted: &str) -> Option<&'a str> {
        command.get_envs().find(|(name, _)| *name == wanted)?.1?.to_str()
    }

    fn words(command: &Command) -> String {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_routes_ask_for_the_same_build() {
        let common = "build --package fail2xdp-ebpf --profile bpf -Zbuild-std=core \
                      --target bpfel-unknown-none --target-dir";
        let debian = words(&command(Route::Debian));
        assert!(debian.starts_with(&format!("/usr/bin/cargo {common} ")), "{debian}");
        let rustup = words(&command(Route::Rustup));
        assert!(rustup.starts_with(&format!("rustup run nightly-x cargo {common} ")), "{rustup}");
    }

    #[test]
    fn only_debians_release_compiler_is_talked_into_unstable_options() {
        assert_eq!(set(&command(Route::Debian), "RUSTC_BOOTSTRAP"), Some("1"));
        assert_eq!(set(&command(Route::Debian), "RUSTC"), Some("/usr/bin/rustc"));
        assert_eq!(set(&command(Route::Rustup), "RUSTC_BOOTSTRAP"), None);
        assert_eq!(set(&command(Route::Rustup), "RUSTC"), None);
    }

    #[test]
    fn the_object_carries_btf_and_no_path_of_the_machine() {
        for route in [Route::Debian, Route::Rustup] {
            let command = command(route);
            let flags = set(&command, "CARGO_ENCODED_RUSTFLAGS").unwrap();
            let flags: Vec<_> = flags.split('\x1f').collect();
            assert!(flags.contains(&"-Clink-arg=--btf"));
            assert!(flags.contains(&"--remap-path-prefix=/h/.cargo=/cargo"));
            assert_eq!(set(&command, "PATH"), Some("/tools/bin:/usr/bin:/bin"));
        }
    }
}
