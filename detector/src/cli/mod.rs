//! The command line: what the words are, and which file carries each out.
mod action;
mod action_runner;
mod ask;
mod bans;
mod check;
mod client;
mod deep;
mod detach;
mod doctor;
mod dump;
mod explain;
mod import;
mod log;
mod overlay;
mod regex;
mod replay;
mod run;
mod status;
mod top;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::config::AttachMode;

/// fail2ban's job, done at line rate: finds attackers in logs, drops their packets in XDP.
#[derive(Parser, Debug)]
#[command(name = "fail2xdp", version, about, long_about = None, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(
    after_help = "Look into the kernel: bpftool map dump pinned /sys/fs/bpf/fail2xdp/maps/BANS_V4\n\
    Exit status: 0; 255 when the daemon refuses or does not answer, as fail2ban-client; 1 for any other failure."
)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    dump: dump::DumpArgs,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Where things are. With these, several instances live side by side.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Configuration directory [default: /etc/fail2xdp where it exists, else the tree inside the binary]
    #[arg(long, short = 'c', global = true, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Control socket
    #[arg(
        long,
        short = 's',
        global = true,
        value_name = "PATH",
        default_value = SOCKET
    )]
    pub socket: PathBuf,
    /// State directory; one daemon at a time works in it
    #[arg(long, global = true, value_name = "DIR", default_value = STATE)]
    pub state: PathBuf,
    /// Directory on a BPF file system for pinned maps, program and links
    #[arg(long, global = true, value_name = "DIR", default_value = PINS)]
    pub pin: PathBuf,
    /// Interface to protect (repeatable) [default: those of the IPv4 and IPv6 default routes]
    #[arg(long, short = 'i', global = true, value_name = "NAME")]
    pub interface: Vec<String>,
    /// How to attach: `auto` is native where the driver can and generic elsewhere; `none` detects and
    /// reports without any BPF and needs no privilege [default: of the configuration, else auto]
    #[arg(long, global = true, value_name = "MODE", value_parser = attach_mode)]
    pub mode: Option<AttachMode>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run the daemon in the foreground
    Run(run::RunArgs),
    /// Read the configuration and report every problem with file, line and remedy; exit 1 if any is an error
    Check(check::CheckArgs),
    /// Test a filter: what it finds in a log or a line, and how far its regexes got in lines they missed
    #[command(disable_version_flag = true)]
    Regex(regex::RegexArgs),
    /// Run past logs through the jails: who would have been banned, and when, in the time of the logs
    Replay(replay::ReplayArgs),
    /// Take over from fail2ban: its configuration, bans and their history; changes nothing of fail2ban's
    Import(import::ImportArgs),
    /// Show all jails, or one
    Status {
        /// The jail; `--all` for every jail
        #[arg(allow_hyphen_values = true)]
        jail: Option<String>,
        /// How much of it: `basic`, `short` or `cymru`
        flavor: Option<String>,
    },
    /// Show every jail's counts as a table
    #[command(alias = "statistics")]
    Stats,
    /// Show who is banned, by jail; with addresses, the jails that ban each
    Banned {
        /// Addresses to look for
        address: Vec<String>,
    },
    /// Show every ban with its end, packets dropped and evidence
    Bans,
    /// Tell why an address is banned or not; with --line, what each jail makes of a line of a log
    Explain(explain::ExplainArgs),
    /// Ban addresses or networks
    Ban(bans::BanArgs),
    /// Lift bans; prints how many
    Unban(bans::UnbanArgs),
    /// Ask whether the daemon lives
    Ping,
    /// Read the configuration again; a broken one changes nothing
    Reload(ReloadArgs),
    /// Tell a daemon that runs with --confirm that you are not locked out; it then stays
    Confirm,
    /// Stop the daemon; bans stay enforced by the kernel until they end, or `detach`. With a jail: remove that jail
    Stop {
        /// The jail, or `--all` for every jail
        #[arg(allow_hyphen_values = true)]
        jail: Option<String>,
    },
    /// Reload a jail that forgets what it counted, as `reload --restart`
    Restart(client::WordArgs),
    /// Start a jail that was added or is idle
    Start(client::WordArgs),
    /// Add a jail: `add JAIL [BACKEND]`
    Add(client::WordArgs),
    /// Show a setting: `get JAIL OPTION`, `get loglevel`; fail2ban-client's forms, `fail2ban-client --help` lists them
    Get(client::WordArgs),
    /// Change the running daemon: `set JAIL OPTION VALUE`, `set loglevel LEVEL`; fail2ban-client's forms
    Set(client::WordArgs),
    /// Open the log file anew
    Flushlogs,
    /// Print the words
    Echo(client::WordArgs),
    /// Show the daemon's version
    Version,
    /// Look for what keeps attackers from being found or stopped, and say how to mend it; exit 1 if anything does
    Doctor,
    /// Watch an attack live: rates, busiest banned sources, newest bans and why; needs a terminal (with --json: once)
    Top,
    /// Remove program, links and maps from the kernel; also without a daemon
    Detach,
    /// Try an action out
    #[command(subcommand)]
    Action(action::ActionVerb),
    /// Run the commands of actions for a daemon, which starts its own unless told where one listens
    ActionRunner(action_runner::RunnerArgs),
}

#[derive(Args, Debug)]
struct ReloadArgs {
    /// The jails forget what they counted; who is banned stays so
    #[arg(long)]
    restart: bool,
    /// Lift the bans first
    #[arg(long)]
    unban: bool,
    /// A jail that does not run yet is started
    #[arg(long)]
    if_exists: bool,
    /// All jails, as without a jail
    #[arg(long, conflicts_with = "jail")]
    all: bool,
    /// Only this jail
    jail: Option<String>,
}

impl ReloadArgs {
    /// As a command; `None` for the plain reload.
    fn words(&self) -> Option<Vec<String>> {
        let flags =
            [(self.restart, "--restart"), (self.unban, "--unban"), (self.if_exists, "--if-exists")];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag.to_owned());
        let words: Vec<String> = flags.chain(self.jail.clone()).collect();
        (!words.is_empty()).then(|| [vec!["reload".to_owned()], words].concat())
    }
}

fn attach_mode(text: &str) -> Result<AttachMode, String> {
    match text {
        "auto" => Ok(AttachMode::Auto),
        "native" => Ok(AttachMode::Native),
        "generic" => Ok(AttachMode::Generic),
        "none" => Ok(AttachMode::None),
        _ => Err("write `auto`, `native`, `generic` or `none`".into()),
    }
}

impl Default for Place {
    fn default() -> Place {
        Place {
            config: None,
            socket: SOCKET.into(),
            state: STATE.into(),
            pin: PINS.into(),
            interface: Vec::new(),
            mode: None,
            json: false,
        }
    }
}

/// Where things are when nobody says otherwise.
const SOCKET: &str = "/run/fail2xdp/fail2xdp.sock";
const STATE: &str = "/var/lib/fail2xdp";
const PINS: &str = "/sys/fs/bpf/fail2xdp";

/// Exit status of a request that was refused or not answered, as fail2ban-client's.
const REFUSED: u8 = 255;

/// Carries the command line out.
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match std::path::Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some("fail2ban-regex") => return regex::as_fail2ban_regex(),
        Some(name @ ("fail2ban-client" | "fail2ban-server")) => return client::main(name),
        _ => {}
    }
    let cli = Cli::parse();
    let json = cli.place.json;
    let verb = match cli.verb {
        None if cli.dump.wanted() => return finish(dump::run(&cli.place, &cli.dump), json),
        None => Cli::command()
            .error(
                ErrorKind::MissingSubcommand,
                "a command is missing; `fail2xdp --help` lists them",
            )
            .exit(),
        Some(verb) => verb,
    };
    let result = match verb {
        Verb::Run(args) => run::run(&cli.place, &args),
        Verb::Check(args) => check::run(&cli.place, &args),
        Verb::Regex(args) => Ok(regex::verb(&cli.place, &args)),
        Verb::Replay(args) => replay::run(&cli.place, &args),
        Verb::Import(args) => import::run(&cli.place, &args),
        Verb::Status { jail: Some(jail), flavor: Some(flavor) } => {
            Ok(client::send(&cli.place, &["status".to_owned(), jail, flavor]))
        }
        Verb::Status { jail: Some(all), flavor: None } if all == "--all" => {
            Ok(client::send(&cli.place, &["status".to_owned(), all]))
        }
        Verb::Stats => Ok(client::send(&cli.place, &["stats".to_owned()])),
        Verb::Status { jail, .. } => status::run(&cli.place, jail.as_deref()),
        Verb::Banned { address } => bans::banned(&cli.place, &address),
        Verb::Bans => bans::list(&cli.place),
        Verb::Explain(args) => explain::run(&cli.place, &args),
        Verb::Ban(args) => bans::ban(&cli.place, &args),
        Verb::Unban(args) => bans::unban(&cli.place, &args),
        Verb::Ping => status::ping(&cli.place),
        Verb::Reload(args) => match args.words() {
            Some(words) => Ok(client::carry_out(&cli.place, &words)),
            None => status::reload(&cli.place),
        },
        Verb::Stop { jail: Some(jail) } => Ok(client::send(&cli.place, &["stop".to_owned(), jail])),
        Verb::Stop { jail: None } => status::stop(&cli.place),
        Verb::Restart(args) => Ok(args.carry_out(cli.place, "restart")),
        Verb::Start(args) => Ok(args.carry_out(cli.place, "start")),
        Verb::Add(args) => Ok(args.carry_out(cli.place, "add")),
        Verb::Get(args) => Ok(args.carry_out(cli.place, "get")),
        Verb::Set(args) => Ok(args.carry_out(cli.place, "set")),
        Verb::Echo(args) => Ok(args.carry_out(cli.place, "echo")),
        Verb::Flushlogs => Ok(client::send(&cli.place, &["flushlogs".to_owned()])),
        Verb::Version => Ok(client::send(&cli.place, &["version".to_owned()])),
        Verb::Confirm => status::confirm(&cli.place),
        Verb::Doctor => doctor::run(&cli.place),
        Verb::Top => top::run(&cli.place),
        Verb::Detach => detach::run(&cli.place),
        Verb::Action(verb) => action::run(&cli.place, &verb),
        Verb::ActionRunner(args) => action_runner::run(&cli.place, &args),
    };
    finish(result, json)
}

/// Says what went wrong, if anything did.
fn finish(result: anyhow::Result<ExitCode>, json: bool) -> ExitCode {
    result.unwrap_or_else(|error| {
        // The chain, outermost first, once.
        if json {
            println!("{}", serde_json::json!({ "error": format!("{error:#}") }));
        }
        eprintln!("fail2xdp: {error:#}");
        let refused = error.downcast_ref::<crate::control::client::CallError>().is_some();
        ExitCode::from(if refused { REFUSED } else { 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_place_stand_before_or_after_the_verb() {
        for line in
            ["fail2xdp --socket /s --json status sshd", "fail2xdp status sshd --json --socket /s"]
        {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!((cli.place.socket, cli.place.json), (PathBuf::from("/s"), true));
            assert!(
                matches!(cli.verb, Some(Verb::Status { jail: Some(jail), .. }) if jail == "sshd")
            );
        }
    }
}
