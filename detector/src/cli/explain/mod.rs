//! `explain`: why an address is banned or not, and what the jails make of a line.
mod address;
mod line;

use std::process::ExitCode;

use clap::Args;

pub(super) use self::address::text;
use super::Place;

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// An address; also a network
    #[arg(required_unless_present = "line", conflicts_with = "line")]
    address: Option<String>,
    /// A line of a log, or several: what each jail makes of it. Asks the configuration, not the daemon
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    line: Option<String>,
    /// With --line: only this jail, also one that is not enabled
    #[arg(long, requires = "line")]
    jail: Option<String>,
}

pub(super) fn run(place: &Place, args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    match (&args.address, &args.line) {
        (Some(address), _) => address::run(place, address),
        (None, Some(line)) => line::run(place, line, args.jail.as_deref()),
        (None, None) => unreachable!("one of the two is required"),
    }
}
