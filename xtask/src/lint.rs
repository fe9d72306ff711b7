//! `cargo xtask lint`: what CI asks, in the same words and the same order.

use std::process::Command;

use anyhow::Result;

use crate::build::Compiler;
use crate::setup::machine::tools;
use crate::setup::plan::{Machine, Purpose, Route};
use crate::{build, setup, sh, tidy};

/// Release of cargo-deny that `--full` installs.
const DENY: &str = "0.20.2";

/// Checks formatting, clippy, the rules clippy cannot see, and dependencies
#[derive(clap::Args)]
pub struct Args {
    /// Install cargo-deny where it is missing, so that dependencies are checked too
    #[arg(long)]
    full: bool,
}

/// The verb.
pub fn verb(args: &Args) -> Result<()> {
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]))?;
    tidy::check_tree()?;
    let (machine, plan) = setup::ensure(Purpose::Build, None)?;
    build::object(&machine, plan.route)?;
    let workspace = ["clippy", "--workspace", "--exclude", "fail2xdp-ebpf", "--all-targets"];
    sh::run(sh::cargo().args(workspace).args(["--", "-D", "warnings"]))?;
    kernel_program(&machine, plan.route)?;
    deny(args.full)
}

/// Debian has no clippy for its compiler; the compiler's own lints are asked there.
fn kernel_program(machine: &Machine, route: Route) -> Result<()> {
    let compiler = Compiler::find(machine, route)?;
    let verb = if route == Route::Rustup { "clippy" } else { "check" };
    let mut check = compiler.cargo(verb);
    // Flags for rustc would go to every dependency; this is about our own warnings.
    check.args(["--features", "verbose", "-Zwarnings"]).env("CARGO_BUILD_WARNINGS", "deny");
    sh::run(&mut check)
}

fn deny(install: bool) -> Result<()> {
    let ours = tools().join("bin/cargo-deny");
    let program = if sh::is_program(&ours) { Some(ours) } else { sh::find_program("cargo-deny") };
    let mut command = sh::cargo();
    command.args(["install", "cargo-deny", "--version", DENY, "--locked", "--root"]).arg(tools());
    let program = match program {
        Some(program) => program,
        None if install => {
            eprintln!("xtask: installing cargo-deny {DENY}: {}", sh::line(&command));
            sh::run(&mut command)?;
            tools().join("bin/cargo-deny")
        }
        None => {
            println!("dependencies not checked: cargo-deny is missing (`cargo xtask lint --full`)");
            return Ok(());
        }
    };
    let mut check = Command::new(program);
    check.current_dir(sh::root()).args(["check", "bans", "licenses", "sources"]);
    sh::run(&mut check)
}
