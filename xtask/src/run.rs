//! `cargo xtask run`: the daemon in the foreground, from a fresh clone.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::plan::Purpose;
use crate::{build, setup, sh};

/// Installs what building needs, builds, and starts the daemon in the foreground
///
/// Ctrl-C stops the daemon and takes its program off the interfaces again (`--detach-on-exit`).
#[derive(clap::Args)]
pub struct Args {
    /// More arguments for `fail2xdp run`, after `--`
    #[arg(last = true)]
    args: Vec<String>,
}

/// The verb. Returns only when the daemon could not be started.
pub fn verb(args: &Args) -> Result<()> {
    let (machine, plan) = setup::ensure(Purpose::Build, None)?;
    build::object(&machine, plan.route)?;
    let mut daemon = Command::new(build::daemon(true)?);
    daemon.args(["run", "--detach-on-exit"]).args(&args.args);
    sh::forget_outer_cargo(&mut daemon);
    eprintln!("xtask: starting {}", sh::line(&daemon));
    // In our place, so that Ctrl-C and the service manager reach the daemon itself.
    let error = daemon.exec();
    Err(error).with_context(|| format!("cannot start `{}`", sh::line(&daemon)))
}
