//! fail2ban's commands on the command line: as verbs of ours, and under the names `fail2ban-client` and
//! `fail2ban-server`.
mod getopt;
mod usage;

use std::{
    io::{BufRead, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use self::getopt::Opt;
use super::{Place, REFUSED, dump, run};
use crate::{
    clock,
    config::{self, Severity, Value},
    control::{
        client::{self, CallError},
        command::{self, Class, Fault, text},
    },
};

/// How long `start` and `reload` wait for a word from a daemon.
const PING: Duration = Duration::from_secs(5);

/// The words behind one of fail2ban's verbs.
#[derive(Args, Debug)]
pub(super) struct WordArgs {
    /// As for fail2ban-client
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl WordArgs {
    /// Carries the verb out with them. A `--json` behind them is for us, as behind every verb.
    pub fn carry_out(mut self, mut place: Place, verb: &str) -> ExitCode {
        if self.words.last().is_some_and(|word| word == "--json") {
            self.words.pop();
            place.json = true;
        }
        self.words.insert(0, verb.to_owned());
        carry_out(&place, &self.words)
    }
}

/// Sends one command and prints the answer, as fail2ban's client does.
pub(super) fn send(place: &Place, words: &[String]) -> ExitCode {
    match ask(place, words, None) {
        Ok(Ok(answer)) => {
            let shown = if place.json { json(&answer) } else { text(words, &answer) };
            // Who reads through `head` closes early; that is no fault.
            let _ = writeln!(std::io::stdout(), "{shown}");
            ExitCode::SUCCESS
        }
        Ok(Err(fault)) => {
            log(&format!("NOK: {}", fault.shown_arguments()));
            said(place, &fault.to_string());
            ExitCode::from(REFUSED)
        }
        Err(error) => unreachable(place, &error),
    }
}

fn json(value: &Value) -> String {
    serde_json::to_string(value).expect("values are plain data")
}

/// What went wrong, on standard output: scripts read it there.
fn said(place: &Place, what: &str) {
    let shown =
        if place.json { serde_json::json!({ "error": what }).to_string() } else { what.to_owned() };
    let _ = writeln!(std::io::stdout(), "{shown}");
}

fn unreachable(place: &Place, error: &CallError) -> ExitCode {
    if place.json {
        said(place, &error.to_string());
    }
    log(&match error {
        // As scripts around fail2ban expect it.
        CallError::NoSocket(path) => {
            format!("Failed to access socket path: {}. Is fail2ban running?", path.display())
        }
        CallError::NobodyThere(_) => "Unable to contact server. Is it running?".to_owned(),
        CallError::Denied(path) => {
            format!("Permission denied to socket: {}, (you must be root)", path.display())
        }
        CallError::Refused(_) | CallError::Broken(_) => error.to_string(),
    });
    ExitCode::from(REFUSED)
}

/// Asks the daemon; one that does not answer in time has broken off.
fn ask(
    place: &Place,
    words: &[String],
    limit: Option<Duration>,
) -> Result<Result<Value, Fault>, CallError> {
    let broken = |error: &dyn std::fmt::Display| CallError::Broken(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| broken(&error))?.block_on(async {
        let answer = client::command(&place.socket, words);
        match limit {
            None => answer.await,
            Some(limit) => {
                tokio::time::timeout(limit, answer).await.map_err(|_| broken(&"timed out"))?
            }
        }
    })
}

/// A line as fail2ban's client logs it on standard error.
fn log(what: &str) {
    let now = jiff::Timestamp::from_microsecond(clock::now().micros()).unwrap_or_default();
    let now = now.to_zoned(jiff::tz::TimeZone::system());
    let (at, milliseconds) = (now.strftime("%F %T"), now.millisecond());
    eprintln!(
        "{at},{milliseconds:03} fail2ban                [{}]: ERROR   {what}",
        std::process::id()
    );
}

fn failed(what: &str) -> ExitCode {
    log(what);
    ExitCode::from(REFUSED)
}

/// The program under a name of fail2ban's.
pub(super) fn main(name: &str) -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Ok((options, words)) = getopt::read(&arguments) else {
        print!("{}", usage::text(name));
        return ExitCode::from(REFUSED);
    };
    let mut place = Place::default();
    let (mut foreground, mut interactive, mut test) = (false, false, false);
    let (mut dumped, mut run_args) = (None, run::RunArgs::default());
    for option in options {
        match option {
            Opt::Config(folder) => place.config = Some(folder.into()),
            Opt::Socket(path) => place.socket = path.into(),
            Opt::Json => place.json = true,
            Opt::Foreground(wanted) => foreground = wanted,
            Opt::Interactive => interactive = true,
            Opt::Test => test = true,
            Opt::Dump { pretty } => dumped = Some(pretty),
            Opt::Seconds(text) => return seconds(&text),
            Opt::LogLevel(level) => run_args.log = Some(level),
            Opt::LogTarget(target) => run_args.log_target = Some(target),
            Opt::SyslogSocket(path) => {
                run_args.syslog_socket = (path != "auto").then(|| path.into());
            }
            Opt::Help => {
                print!("{}", usage::text(name));
                return ExitCode::SUCCESS;
            }
            Opt::Version { short } => {
                let version = env!("CARGO_PKG_VERSION");
                println!("{}{version}", if short { "" } else { "fail2xdp v" });
                return ExitCode::SUCCESS;
            }
            Opt::WithoutEffect => {}
        }
    }
    if let Some(pretty) = dumped {
        let done = super::finish(dump::print(&place, pretty), place.json);
        if !test {
            return done;
        }
    }
    if test {
        let passed = tested(&place, words.is_empty());
        if words.is_empty() || !passed {
            return if passed { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) };
        }
    }
    if interactive {
        return converse(&place, &words);
    }
    if name == "fail2ban-server" && foreground && words.iter().all(|word| word == "start") {
        return super::finish(run::run(&place, &run_args), place.json);
    }
    if words.is_empty() {
        print!("{}", usage::text(name));
        return ExitCode::from(REFUSED);
    }
    carry_out(&place, &words)
}

/// One command, of which some are the client's own business.
pub(super) fn carry_out(place: &Place, words: &[String]) -> ExitCode {
    let first: Vec<&str> = words.iter().map(String::as_str).collect();
    match first.as_slice() {
        ["start"] => match ask(place, &["ping".to_owned()], Some(PING)) {
            Ok(_) => failed("Server already running"),
            Err(_) => failed(
                "fail2xdp starts no server in the background: use `systemctl start fail2xdp`, or `fail2xdp run`",
            ),
        },
        ["restart"] => failed(
            "fail2xdp does not start itself: use `systemctl restart fail2xdp`; `reload --restart` begins all jails anew",
        ),
        ["restart", rest @ ..] => {
            let words = ["reload", "--restart"].iter().chain(rest);
            let words: Vec<String> = words.map(|word| (*word).to_owned()).collect();
            carry_out(place, &words)
        }
        ["reload", ..] => {
            let read: Vec<Value> = first.iter().map(|word| Value::from(*word)).collect();
            match command::Command::read(&read) {
                Err(Fault { class: Class::Exception, text }) => failed(&text),
                _ if ask(place, &["ping".to_owned()], None).is_err() => {
                    failed("Could not find server")
                }
                _ => send(place, words),
            }
        }
        ["ping", limit] => {
            let Ok(Ok(limit)) = limit.parse().map(Duration::try_from_secs_f64) else {
                let limit = Value::from(*limit);
                return failed(&format!("could not convert string to float: {limit}"));
            };
            match ask(place, &["ping".to_owned()], Some(limit)) {
                Ok(_) => send(place, words),
                Err(error) => unreachable(place, &error),
            }
        }
        _ => send(place, words),
    }
}

/// `--str2sec`
fn seconds(text: &str) -> ExitCode {
    match config::seconds(text) {
        // A calculation with a fraction in it has one in its result.
        Ok(seconds) if text.contains(['.', '/']) => println!("{seconds:?}"),
        Ok(seconds) => println!("{seconds:.0}"),
        Err(error) => {
            println!("ERROR: {error}");
            return ExitCode::from(REFUSED);
        }
    }
    ExitCode::SUCCESS
}

/// `-t`
fn tested(place: &Place, say_so: bool) -> bool {
    let tree = match run::tree(place.config.as_deref()) {
        Ok(chosen) => chosen.tree,
        Err(error) => {
            failed(&format!("{error:#}"));
            return false;
        }
    };
    let problems = match config::load(tree.as_ref()) {
        Ok(loaded) => loaded.problems,
        Err(problems) => problems,
    };
    let errors: Vec<_> =
        problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    for problem in &errors {
        log(&problem.to_string());
    }
    if errors.is_empty() && say_so {
        println!("OK: configuration test is successful");
    } else if !errors.is_empty() {
        log("ERROR: test configuration failed");
    }
    errors.is_empty()
}

/// `-i`: a command a line, until `exit`.
fn converse(place: &Place, first: &[String]) -> ExitCode {
    if !first.is_empty() && carry_out(place, first) != ExitCode::SUCCESS {
        return ExitCode::from(REFUSED);
    }
    println!(
        "fail2xdp v{}: commands of fail2ban-client, `help` or `exit`\n",
        env!("CARGO_PKG_VERSION")
    );
    let prompt = std::io::stdin().is_terminal();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if prompt {
            print!("fail2ban> ");
            let _ = std::io::stdout().flush();
        }
        let Some(Ok(line)) = lines.next() else { return ExitCode::SUCCESS };
        match line.trim() {
            "" => {}
            "exit" | "quit" => return ExitCode::SUCCESS,
            "help" => print!("{}", usage::text("fail2ban-client")),
            line => match config::shell_words(line) {
                Some(words) => drop(carry_out(place, &words)),
                None => log("No closing quotation"),
            },
        }
    }
}
