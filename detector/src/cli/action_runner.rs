//! `action-runner`: the process that runs the commands of actions.
use std::{
    os::fd::{FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::bail;
use clap::{ArgGroup, Args};

use super::{Place, run::tree};
use crate::{
    action::{self, Door},
    app,
};

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("door").required(true).args(["listen", "fd"])))]
pub(super) struct RunnerArgs {
    /// Wait for daemons on this socket (`action_runner` of fail2xdp.conf names it)
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
    /// Serve the daemon at the other end of this descriptor: how a daemon starts its own
    #[arg(long, value_name = "N")]
    fd: Option<RawFd>,
    /// With --listen: a user beside root and our own whose daemon is served
    #[arg(long, value_name = "NAME", requires = "listen")]
    daemon_user: Option<String>,
}

pub(super) fn run(place: &Place, args: &RunnerArgs) -> anyhow::Result<ExitCode> {
    let door = match (&args.listen, args.fd) {
        (Some(path), _) => {
            Door::Listen { path: path.clone(), daemon_user: args.daemon_user.clone() }
        }
        (None, Some(fd)) => Door::Inherited(inherited(fd)?),
        (None, None) => bail!("name a socket with --listen"),
    };
    let tree = tree(place.config.as_deref())?.tree;
    action::run(action::Options { tree, wants_ipv6: app::wants_ipv6, door })?;
    Ok(ExitCode::SUCCESS)
}

/// A descriptor that we were started with.
fn inherited(fd: RawFd) -> anyhow::Result<OwnedFd> {
    // SAFETY: it is only looked at, and what is no descriptor is refused.
    let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    if fd <= libc::STDERR_FILENO || !is_open {
        bail!("--fd {fd} is no descriptor that was handed over");
    }
    // SAFETY: it is open, nobody of us uses it yet, and whoever started us has given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
