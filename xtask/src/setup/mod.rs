//! `cargo xtask setup`: finds what is there and installs what is missing, each step said in one
//! line. Where we may not install, it prints what to run by hand and goes on with what it can.

pub mod apt;
pub mod machine;
pub mod plan;

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::sh;
use machine::{look, peer_dir, python_tools, tools};
use plan::{LINKER, LlvmFrom, Machine, PYTHON_TOOLS, Plan, Purpose, Route, Step};

/// Finds what is there and installs what is missing, each step said in one line
#[derive(clap::Args)]
pub struct Args {
    /// Print the steps and their commands, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Compiler for the kernel object [default: the one that lacks least]
    #[arg(long, value_enum)]
    route: Option<Route>,
    /// Also install what `cargo xtask test` and `cargo xtask demo` run beside us
    #[arg(long)]
    tests: bool,
}

/// The verb.
pub fn verb(args: &Args) -> Result<()> {
    let purpose = if args.tests { Purpose::Test } else { Purpose::Build };
    if args.dry_run {
        let machine = look();
        let plan = plan::plan(&machine, purpose, args.route)?;
        for step in &plan.steps {
            println!("{}: {}", step.says(), step.by_hand());
        }
        let ready = if plan.steps.is_empty() { "nothing is missing; " } else { "" };
        println!("{ready}the kernel object is built with {}", plan.route.says());
        return Ok(());
    }
    let (_, plan) = ensure(purpose, args.route)?;
    println!("ready: the kernel object is built with {}", plan.route.says());
    Ok(())
}

/// Installs what is missing for a purpose; what is there when it returns, and the plan that led
/// there.
pub fn ensure(purpose: Purpose, route: Option<Route>) -> Result<(Machine, Plan)> {
    let mut machine = look();
    let mut plan = plan::plan(&machine, purpose, route)?;
    if plan.steps.first() == Some(&Step::Update) && machine.may_install {
        Step::Update.perform()?;
        machine = look();
        plan = plan::plan(&machine, purpose, route)?;
    }
    if plan.steps.is_empty() {
        return Ok((machine, plan));
    }
    let mut by_hand = Vec::new();
    for step in &plan.steps {
        let blocked = step.waits_for_packages() && !by_hand.is_empty();
        if blocked || (step.needs_root() && !machine.may_install) {
            by_hand.push(step);
        } else {
            step.perform()?;
        }
    }
    if !by_hand.is_empty() {
        let mut list = String::new();
        for step in by_hand {
            list += &format!("\n  {}", step.by_hand());
        }
        bail!("this needs root, and sudo is not available without a password; run:{list}");
    }
    machine = look();
    let left = plan::plan(&machine, purpose, Some(plan.route))?;
    if let Some(step) = left.steps.first() {
        bail!("still missing after setup: {}: {}", step.says(), step.by_hand());
    }
    Ok((machine, plan))
}

impl Route {
    /// The compiler in words.
    pub fn says(self) -> &'static str {
        match self {
            Self::Debian => "Debian's rustc-web",
            Self::Rustup => "rustup's nightly",
        }
    }
}

impl Step {
    fn says(&self) -> String {
        match self {
            Self::Update => "fetching package lists".to_owned(),
            Self::Install(packages) => format!("installing {}", packages.join(" ")),
            Self::Nightly(name) => format!("installing the toolchain {name} with rust-src"),
            Self::Sources(name) => format!("adding rust-src to the toolchain {name}"),
            Self::Linker { llvm, .. } => {
                format!("installing bpf-linker {LINKER} for LLVM {llvm} (about a minute)")
            }
            Self::Unpack(peer) => format!("unpacking {} aside", peer.name),
            Self::PythonTools => "laying tools made for fail2ban aside".to_owned(),
        }
    }

    fn needs_root(&self) -> bool {
        matches!(self, Self::Update | Self::Install(_))
    }

    fn waits_for_packages(&self) -> bool {
        matches!(self, Self::Linker { from: LlvmFrom::Debian, .. } | Self::PythonTools)
    }

    /// What a person would type for the same.
    fn by_hand(&self) -> String {
        match self {
            Self::Update => "sudo apt-get update".to_owned(),
            Self::Install(packages) => {
                format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))
            }
            Self::Nightly(_) | Self::Sources(_) => sh::line(&self.rustup()),
            Self::Linker { llvm, from } => {
                let prefix = match from {
                    LlvmFrom::Debian => debian_llvm(*llvm),
                    LlvmFrom::Toolchain(_) => borrowed_llvm().to_string_lossy().into_owned(),
                };
                sh::line(&linker(*llvm, &prefix))
            }
            Self::PythonTools => sh::line(&pip()),
            Self::Unpack(peer) => {
                let package = match peer.packages {
                    [package] => (*package).to_owned(),
                    kernels => format!("(the kernel that {} names)", kernels.join(" or ")),
                };
                let dir = peer_dir(peer.name);
                format!("apt-get download {package}; dpkg -x *.deb {}", dir.display())
            }
        }
    }

    fn rustup(&self) -> Command {
        let mut command = Command::new("rustup");
        match self {
            Self::Sources(name) => {
                command.args(["component", "add", "rust-src", "--toolchain", name])
            }
            Self::Nightly(name) => command.args(["toolchain", "install", name]).args([
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ]),
            other => unreachable!("{other:?} is not rustup's"),
        };
        command
    }

    fn perform(&self) -> Result<()> {
        eprintln!("xtask: {}: {}", self.says(), self.by_hand());
        match self {
            Self::Update => apt::update(),
            Self::Install(packages) => apt::install(packages),
            Self::Nightly(_) | Self::Sources(_) => sh::run(&mut self.rustup()),
            Self::Linker { llvm, from: LlvmFrom::Debian } => {
                sh::run(&mut linker(*llvm, &debian_llvm(*llvm)))
            }
            Self::Linker { llvm, from: LlvmFrom::Toolchain(name) } => {
                borrow_llvm(name)?;
                sh::run(&mut linker(*llvm, &borrowed_llvm().to_string_lossy()))
            }
            Self::Unpack(peer) => apt::unpack(*peer),
            Self::PythonTools => sh::run(&mut pip()),
        }
        .with_context(|| format!("failed while {}", self.says()))
    }
}

/// By the interpreter that fail2ban runs on. One of the tools asks for a newer one than Debian's, for its screens; what
/// reads fail2ban runs on this one.
fn pip() -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", "pip", "install", "--no-deps", "--ignore-requires-python", "--upgrade"]);
    command.arg("--disable-pip-version-check").arg("--target").arg(python_tools());
    command.args(PYTHON_TOOLS);
    command
}

fn debian_llvm(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn borrowed_llvm() -> std::path::PathBuf {
    tools().join("llvm")
}

/// Makes rustc's own LLVM look like an installed one: the toolchain has the library, but not
/// under the name that a linker looks for. The result has the LLVM of the compiler to the patch.
fn borrow_llvm(toolchain: &str) -> Result<()> {
    let sysroot = machine::sysroot_of(toolchain)
        .with_context(|| format!("rustup has no toolchain `{toolchain}`"))?;
    let library = std::fs::read_dir(sysroot.join("lib"))?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("libLLVM.so."))
        .with_context(|| {
            format!(
                "the toolchain `{toolchain}` has no LLVM as a library of its own: install \
                 bpf-linker {LINKER} by hand (`cargo binstall bpf-linker@{LINKER}`), then run \
                 this again"
            )
        })?;
    let dir = borrowed_llvm().join("lib");
    std::fs::create_dir_all(&dir)?;
    for old in std::fs::read_dir(&dir)?.flatten() {
        std::fs::remove_file(old.path())?;
    }
    for name in [library.file_name(), "libLLVM.so".into()] {
        std::os::unix::fs::symlink(library.path(), dir.join(name))?;
    }
    Ok(())
}

fn linker(llvm: u32, prefix: &str) -> Command {
    let mut command = sh::cargo();
    command.args(machine::linker_arguments(llvm, &tools()));
    command.env("LLVM_PREFIX", prefix).env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    // The work is done in LLVM's library: what is built here need not be fast, but soon there.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    command
}
