//! `regex`: what a filter finds in a log, and why not. fail2ban-regex, its arguments and its report.
mod chosen;
mod out;
mod python;
mod report;
mod tally;

pub(super) use tally::look_up;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::{ArgAction, Args, Parser, error::ErrorKind};

use self::{
    chosen::{Chosen, Log},
    out::Format,
    report::Report,
    tally::Tally,
};
use super::{Place, run::tree};
use crate::{clock, config::UseDns, engine::Timestamp, source::PastFile, source::PastJournal};

/// Exit status of what could not be tested, as fail2ban-regex's.
const FAILED: u8 = 255;
/// The same, of options that it does not have.
const UNKNOWN: u8 = 2;
/// The same, of an encoding that nobody knows: it dies of that, as programs in Python do.
const NO_ENCODING: u8 = 1;

#[derive(Args, Debug)]
pub(super) struct RegexArgs {
    /// A log file, `-` for standard input, `systemd-journal` (also with parameters, as
    /// `systemd-journal[journalpath=DIR]`), or a line itself
    log: String,
    /// A jail, a filter (also with parameters, as `sshd[mode=aggressive]`), a filter's file, or a
    /// failregex itself
    regex: String,
    /// An ignoreregex, or a filter's file that has some; in place of the filter's own
    ignoreregex: Option<String>,
    /// Date pattern, in place of the filter's
    #[arg(short = 'd', long, value_name = "PATTERN")]
    datepattern: Option<String>,
    /// Time zone of lines that name none, as in `logtimezone`
    #[arg(long, visible_alias = "TZ", value_name = "ZONE")]
    timezone: Option<String>,
    /// Encoding of the log, as in `logencoding`
    #[arg(short = 'e', long, value_name = "NAME", default_value = "UTF-8")]
    encoding: String,
    /// Look no names up: they are shown as they stand
    #[arg(short = 'r', long)]
    raw: bool,
    /// What becomes of host names: `yes`, `warn`, `no` or `raw`
    #[arg(long, value_name = "HOW", value_parser = use_dns)]
    usedns: Option<UseDns>,
    /// Lines that are matched together
    #[arg(short = 'L', long, value_name = "LINES")]
    maxlines: Option<u32>,
    /// Entries of the journal to read, in place of the filter's `journalmatch`
    #[arg(short = 'm', long, value_name = "MATCH")]
    journalmatch: Option<String>,
    /// Taken from fail2ban-regex and without effect: there is no log
    #[arg(short = 'l', long, value_name = "LEVEL", hide = true)]
    log_level: Option<String>,
    /// Say more: patterns without a hit, whom each found, how far every regex got
    #[arg(short = 'v', long, action = ArgAction::Count)]
    verbose: u8,
    /// The same as a number
    #[arg(long, value_name = "LEVEL")]
    verbosity: Option<u8>,
    /// Show the pattern of each date template
    #[arg(long, visible_alias = "VD")]
    verbose_date: bool,
    /// Taken from fail2ban-regex and without effect: `Nearest miss` tells the same
    #[arg(short = 'D', long, hide = true)]
    debuggex: bool,
    /// Try no more regexes once one has matched, as the daemon does
    #[arg(long)]
    no_check_all: bool,
    /// Print only the failures: `row`, `id`, `ip`, `msg`, a field such as `user`, or a text with tags such
    /// as `<ip> <time> <F-USER>`
    #[arg(short = 'o', long, value_name = "FORM")]
    out: Option<String>,
    /// With -o: print the lines that did not match
    #[arg(long)]
    invert: bool,
    /// Print no missed lines
    #[arg(long)]
    print_no_missed: bool,
    /// Print no ignored lines
    #[arg(long)]
    print_no_ignored: bool,
    /// Print all matched lines
    #[arg(long)]
    print_all_matched: bool,
    /// Print all missed lines, however many
    #[arg(long, conflicts_with = "print_no_missed")]
    print_all_missed: bool,
    /// Print all ignored lines, however many
    #[arg(long, conflicts_with = "print_no_ignored")]
    print_all_ignored: bool,
    /// Taken from fail2ban-regex and without effect
    #[arg(short = 't', long, hide = true)]
    log_traceback: bool,
    /// Taken from fail2ban-regex and without effect
    #[arg(long, hide = true)]
    full_traceback: bool,
}

/// `fail2ban-regex`, which a symbolic link of that name makes of us.
#[derive(Parser, Debug)]
#[command(name = "fail2ban-regex", disable_version_flag = true, about, long_about = None)]
struct Fail2banRegex {
    #[command(flatten)]
    args: RegexArgs,
    /// Configuration directory [default: /etc/fail2xdp where it exists, else the tree inside the binary]
    #[arg(short = 'c', long, value_name = "DIR")]
    config: Option<std::path::PathBuf>,
    /// The same as --invert
    #[arg(short = 'i', hide = true)]
    i: bool,
    /// Print the version
    #[arg(short = 'V', action = ArgAction::SetTrue)]
    short_version: bool,
    /// Print name and version
    #[arg(long, action = ArgAction::SetTrue)]
    version: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn use_dns(text: &str) -> Result<UseDns, String> {
    match text {
        "yes" => Ok(UseDns::Yes),
        "warn" => Ok(UseDns::Warn),
        "no" => Ok(UseDns::No),
        "raw" => Ok(UseDns::Raw),
        _ => Err("write `yes`, `warn`, `no` or `raw`".into()),
    }
}

/// The command when it was called by fail2ban's name for it.
pub(super) fn as_fail2ban_regex() -> ExitCode {
    // Asked for a version nobody has to name a log.
    let version = env!("CARGO_PKG_VERSION");
    for word in std::env::args_os().skip(1) {
        if word == "-V" {
            println!("{version}");
            return ExitCode::SUCCESS;
        } else if word == "--version" {
            println!("fail2xdp {version}");
            return ExitCode::SUCCESS;
        }
    }
    let called = match Fail2banRegex::try_parse() {
        Ok(called) => called,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                _ if !error.use_stderr() => ExitCode::SUCCESS,
                ErrorKind::MissingRequiredArgument => ExitCode::from(FAILED),
                _ => ExitCode::from(UNKNOWN),
            };
        }
    };
    let Fail2banRegex { mut args, config, i, json, .. } = called;
    args.invert |= i;
    run(config.as_deref(), json, &args)
}

/// The verb.
pub(super) fn verb(place: &Place, args: &RegexArgs) -> ExitCode {
    run(place.config.as_deref(), place.json, args)
}

fn run(config: Option<&Path>, json: bool, args: &RegexArgs) -> ExitCode {
    match test(config, json, args) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads no further has what they wanted.
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            if json {
                println!("{}", serde_json::json!({ "error": format!("{error:#}") }));
            } else {
                println!("ERROR: {error:#}");
            }
            let is_encoding = error
                .root_cause()
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::InvalidInput);
            ExitCode::from(if is_encoding { NO_ENCODING } else { FAILED })
        }
    }
}

fn test(config: Option<&Path>, json: bool, args: &RegexArgs) -> anyhow::Result<()> {
    let out = args.out.as_deref().map(Format::new);
    let mut to = io::BufWriter::new(io::stdout().lock());
    let talks = out.is_none() && !json;
    if talks {
        write!(to, "\nRunning tests\n=============\n\n")?;
    }
    let tree = tree(config)?;
    let chosen = Chosen::new(tree.tree.as_ref(), args)?;
    if talks {
        to.write_all(chosen.used(args).as_bytes())?;
    }
    let every = !args.no_check_all && out.is_none();
    let now = clock::now();
    let mut tally = Tally::new(&chosen.jail, every, args)?;
    let started = clock::monotonic();
    let mut each = |line: &str, given: Option<Timestamp>, to: &mut dyn Write| {
        let failures = tally.line(line, given, now);
        let Some(out) = &out else { return Ok(()) };
        match failures {
            Some(failures) if !args.invert => {
                failures.iter().try_for_each(|failure| out.print(failure, &mut tally, now, to))
            }
            None if args.invert => writeln!(to, "{line}"),
            _ => Ok(()),
        }
    };
    match &chosen.log {
        Log::Lines(lines) => {
            for line in lines.lines().filter(|line| is_told(line)) {
                each(line, None, &mut to)?;
            }
        }
        Log::File(path) => {
            let mut file = PastFile::open(path, &args.encoding)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            while let Some(line) = file.next_line()? {
                if is_told(&line) {
                    each(&line, None, &mut to)?;
                }
            }
        }
        Log::Stdin => {
            let mut file = PastFile::new(Box::new(io::stdin()), &args.encoding)?;
            while let Some(line) = file.next_line()? {
                if is_told(&line) {
                    each(&line, None, &mut to)?;
                }
            }
        }
        Log::Journal(settings) => {
            let (mut journal, problems) = PastJournal::open(settings, &[&settings.matches])?;
            if let Some(problem) = problems.first() {
                anyhow::bail!("{problem}");
            }
            while let Some(entry) = journal.next_entry()? {
                each(&entry.line, Some(entry.at), &mut to)?;
            }
        }
    }
    if out.is_none() {
        let report =
            Report { jail: &chosen.jail, args, tally: &mut tally, took: started.elapsed() };
        match json {
            true => writeln!(to, "{}", report.json())?,
            false => to.write_all(report.text().as_bytes())?,
        }
    }
    to.flush()?;
    Ok(())
}

/// Comments and empty lines of a file are no lines of a log.
fn is_told(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}
