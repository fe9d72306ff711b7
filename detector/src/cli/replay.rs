//! `replay`: who would have been banned, and when, by what logs of the past say.
use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use ipnet::IpNet;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{
    Place,
    overlay::{Overlay, has_jail},
    regex::look_up,
    run::tree,
};
use crate::{
    clock, command,
    config::{JailSettings, JournalSettings, JournalTerms, Severity, SourceSettings},
    enforce,
    engine::{Answer, Ban, Limits, Question, SparedBy, Timestamp, Until},
    replay::{self, DISORDER, Happening, Replay},
    source::{PastFile, PastJournal},
};

/// How often the progress is shown anew.
const SHOWN_EVERY: Duration = Duration::from_millis(100);
/// Lines between two looks at the clock.
const LINES_BETWEEN: u64 = 4096;

#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Log files, read together in the order of their times; `-` is standard input
    #[arg(required_unless_present = "journal")]
    log: Vec<PathBuf>,
    /// Only this jail, also where it is not enabled (repeatable) [default: every enabled jail]
    #[arg(long, value_name = "JAIL")]
    jail: Vec<String>,
    /// The journal in this directory instead of files; `system` is this machine's
    #[arg(long, value_name = "DIR", conflicts_with = "log")]
    journal: Option<String>,
    /// Encoding of the files, as in `logencoding`
    #[arg(short = 'e', long, value_name = "NAME", default_value = "auto")]
    encoding: String,
    /// Show every failure found, too, and bans that were prolonged
    #[arg(short = 'v', long)]
    verbose: bool,
}

pub(super) fn run(place: &Place, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let chosen = tree(place.config.as_deref())?;
    let tree = chosen.tree.as_ref();
    let names: Vec<&str> = args.jail.iter().map(String::as_str).collect();
    if let Some(name) = names.iter().find(|name| !has_jail(tree, name)) {
        bail!("there is no jail `{name}` in {}", chosen.name);
    }
    let mut options = vec![("enabled", "true".to_owned())];
    // Lines of the journal begin otherwise than those of files, and filters must know.
    if !names.is_empty() {
        let backend = if args.journal.is_some() { "systemd" } else { "polling" };
        options.push(("backend", backend.to_owned()));
    }
    let loaded = Overlay::over(tree, &names, &options).load()?;
    let mut jails = loaded.settings.jails.clone();
    jails.retain(|jail| names.is_empty() || names.contains(&jail.name.as_str()));
    for problem in &loaded.problems {
        let concerns = problem
            .jail
            .as_ref()
            .is_none_or(|jail| names.is_empty() || names.contains(&jail.as_str()));
        if concerns && problem.severity == Severity::Error {
            eprintln!("error: {problem}");
        }
    }
    if jails.is_empty() {
        bail!("no jail is enabled in {}: name one with --jail", chosen.name);
    }
    let present = clock::now();
    let (mut replay, faults) = Replay::new(&jails, Limits::from(&loaded.settings), present);
    for (jail, fault) in &faults {
        eprintln!("error: {}", fault.problem(jail));
    }
    let own = enforce::own_addresses().unwrap_or_default();
    let mut outside = Outside::new()?;
    let allow = loaded.settings.enforce.allow.iter().map(|entry| entry.value).collect();
    replay.spare(own, allow, &mut outside);
    let mut player = Player {
        replay,
        outside,
        told: Told::new(&jails, place.json, args.verbose),
        happened: Vec::new(),
    };
    match &args.journal {
        Some(directory) => player.journal(directory, &jails)?,
        None => player.files(&args.log, &args.encoding)?,
    }
    player.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Looks names up, and asks the operator's commands, each once.
struct Outside {
    addresses: HashMap<String, Vec<IpAddr>>,
    answers: HashMap<Question, Answer>,
    runtime: tokio::runtime::Runtime,
}

impl Outside {
    fn new() -> anyhow::Result<Outside> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (addresses, answers) = (HashMap::new(), HashMap::new());
        Ok(Outside { addresses, answers, runtime: runtime.context("cannot run commands")? })
    }
}

impl replay::Outside for Outside {
    fn resolve(&mut self, name: &str) -> Vec<IpAddr> {
        self.addresses.entry(name.to_owned()).or_insert_with(|| look_up(name)).clone()
    }

    fn ask(&mut self, question: &Question) -> Answer {
        if let Some(answer) = self.answers.get(question) {
            return *answer;
        }
        let (answer, fault) = self.runtime.block_on(command::answer(question, command::DEADLINE));
        if let Some(fault) = fault {
            eprintln!("error: `ignorecommand` of jail `{}`: {fault}", question.jail);
        }
        self.answers.insert(question.clone(), answer);
        answer
    }
}

/// Logs on their way to what is printed.
struct Player {
    replay: Replay,
    outside: Outside,
    told: Told,
    happened: Vec<Happening>,
}

impl Player {
    fn line(
        &mut self,
        line: &str,
        at: Option<Timestamp>,
        given: bool,
        jails: impl Iterator<Item = usize>,
    ) -> io::Result<()> {
        self.told.lines += 1;
        self.replay.line(line, at, given, jails, &mut self.outside, &mut self.happened);
        self.happened.drain(..).try_for_each(|happening| self.told.tell(happening))
    }

    /// Reads files together, the line that was written first next.
    fn files(&mut self, paths: &[PathBuf], encoding: &str) -> anyhow::Result<()> {
        let all = 0..self.told.jails.len();
        let mut logs = Vec::new();
        let mut progress = Progress::default();
        for path in paths {
            let named = || format!("cannot read `{}`", path.display());
            let file = match path == Path::new("-") {
                true => PastFile::new(Box::new(io::stdin()), encoding),
                false => PastFile::open(path, encoding),
            };
            progress.bytes += path.metadata().map_or(0, |meta| meta.len());
            let file = file.with_context(named)?;
            logs.push(Past::new(file, &mut self.replay).with_context(named)?);
        }
        loop {
            // Of lines of one time, the one of the file named first.
            let waiting = logs.iter().enumerate().filter(|(_, log)| log.line.is_some());
            let Some((nth, _)) = waiting.min_by_key(|(_, log)| log.at) else { break };
            let log = &mut logs[nth];
            let line = log.line.take().unwrap_or_default();
            let at = log.at;
            self.line(&line, at, false, all.clone())?;
            let log = &mut logs[nth];
            log.advance(&mut self.replay)
                .with_context(|| format!("cannot read on in `{}`", paths[nth].display()))?;
            if self.told.lines.is_multiple_of(LINES_BETWEEN) {
                let read = logs.iter().map(|log| log.file.bytes_read()).sum();
                progress.show(read, &self.told, self.replay.now());
            }
        }
        progress.hide();
        Ok(())
    }

    fn journal(&mut self, directory: &str, jails: &[JailSettings]) -> anyhow::Result<()> {
        let settings = JournalSettings {
            directory: (directory != "system").then(|| directory.into()),
            ..JournalSettings::default()
        };
        let everything: &[JournalTerms] = &[];
        let wanted: Vec<&[JournalTerms]> = jails
            .iter()
            .map(|jail| match &jail.source {
                SourceSettings::Journal(journal) | SourceSettings::Auto { journal, .. } => {
                    journal.matches.as_slice()
                }
                SourceSettings::Files { .. } | SourceSettings::Nothing => everything,
            })
            .collect();
        let (mut journal, problems) =
            PastJournal::open(&settings, &wanted).context("cannot read the journal")?;
        for problem in problems {
            eprintln!("warning: {problem}");
        }
        let mut progress = Progress::default();
        while let Some(entry) = journal.next_entry().context("cannot read on in the journal")? {
            self.line(&entry.line, Some(entry.at), true, entry.wanted.into_iter())?;
            if self.told.lines.is_multiple_of(LINES_BETWEEN) {
                progress.show(0, &self.told, self.replay.now());
            }
        }
        progress.hide();
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.replay.end(&mut self.outside, &mut self.happened);
        self.happened.drain(..).try_for_each(|happening| self.told.tell(happening))?;
        if !self.told.json {
            self.told.summary(&self.replay)?;
        }
        self.told.to.flush()?;
        for (nth, (jail, _)) in self.told.jails.iter().enumerate() {
            let patterns = self.replay.matcher(nth).patterns();
            patterns.filter_map(|pattern| pattern.fault()).for_each(|fault| {
                eprintln!("warning: [{}] {fault}", jail.name);
            });
        }
        Ok(())
    }
}

/// A file with its next line, and the one behind it.
struct Past {
    file: PastFile,
    line: Option<String>,
    /// When that was written, or the last one before it that says when.
    at: Option<Timestamp>,
    following: Option<String>,
    /// What that says about when it was written.
    said: Option<Timestamp>,
}

impl Past {
    fn new(file: PastFile, replay: &mut Replay) -> io::Result<Past> {
        let mut past = Past { file, line: None, at: None, following: None, said: None };
        past.advance(replay)?;
        past.advance(replay)?;
        Ok(past)
    }

    fn advance(&mut self, replay: &mut Replay) -> io::Result<()> {
        self.line = self.following.take();
        let said = self.said.take();
        let said = said.map(|said| self.at.map_or(said, |at| replay.in_order(said, at)));
        self.following = self.file.next_line()?;
        self.said = self.following.as_ref().and_then(|line| replay.time_of(line));
        if self.line.is_none() {
            return Ok(());
        }
        // A leap that the next line takes back is a mistake, or an attacker's: the clock would never come back.
        let taken_back = said.zip(self.said).is_some_and(|(said, next)| {
            self.at.is_none_or(|at| at.plus(DISORDER) < said) && next.plus(DISORDER) < said
        });
        // What stands before the first date was written when that was.
        self.at = said.filter(|_| !taken_back).or(self.at).or(self.said);
        Ok(())
    }
}

/// What a jail would have done.
#[derive(Default)]
struct JailTold {
    found: u64,
    spared: u64,
    banned: u64,
    prolonged: u64,
    lifted: u64,
}

/// What is printed.
struct Told {
    to: io::BufWriter<io::Stdout>,
    json: bool,
    verbose: bool,
    zone: TimeZone,
    jails: Vec<(JailSettings, JailTold)>,
    lines: u64,
    bans: u64,
}

impl Told {
    fn new(jails: &[JailSettings], json: bool, verbose: bool) -> Told {
        Told {
            to: io::BufWriter::new(io::stdout()),
            json,
            verbose,
            zone: TimeZone::system(),
            jails: jails.iter().map(|jail| (jail.clone(), JailTold::default())).collect(),
            lines: 0,
            bans: 0,
        }
    }

    fn tell(&mut self, happening: Happening) -> io::Result<()> {
        let name = match &happening {
            Happening::Finding { finding, .. } => finding.jail.clone(),
            Happening::Ban { ban, .. } | Happening::Unban { ban, .. } => ban.jail.clone(),
        };
        let Some((jail, told)) = self.jails.iter_mut().find(|(jail, _)| jail.name == name) else {
            return Ok(());
        };
        match &happening {
            Happening::Finding { attempts: Some(_), .. } => told.found += 1,
            Happening::Finding { .. } => told.spared += 1,
            Happening::Ban { prolonged: true, .. } => told.prolonged += 1,
            Happening::Ban { .. } => told.banned += 1,
            Happening::Unban { .. } => told.lifted += 1,
        }
        self.bans += u64::from(matches!(happening, Happening::Ban { prolonged: false, .. }));
        if self.json {
            let line = as_json(&happening, jail);
            return writeln!(self.to, "{line}");
        }
        let Some(line) = in_words(&happening, jail.max_retry, &self.zone) else { return Ok(()) };
        let detail =
            matches!(happening, Happening::Finding { .. } | Happening::Ban { prolonged: true, .. });
        if detail && !self.verbose {
            return Ok(());
        }
        writeln!(self.to, "{line}")
    }

    fn summary(&mut self, replay: &Replay) -> io::Result<()> {
        let width = self.jails.iter().map(|(jail, _)| jail.name.as_str().len()).max();
        let width = width.unwrap_or(0).max(4);
        let to = &mut self.to;
        writeln!(to, "\n{} lines", self.lines)?;
        let heads = ["matched", "found", "ignored", "bans", "prolonged", "ended", "too long"];
        let heads: Vec<String> = heads.iter().map(|head| format!("{head:>9}")).collect();
        writeln!(to, "{:width$} {}", "jail", heads.join(" "))?;
        for (nth, (jail, told)) in self.jails.iter().enumerate() {
            let counts = replay.matcher(nth).counts();
            let JailTold { found, spared, banned, prolonged, lifted } = *told;
            let shown = [counts.matched, found, spared, banned, prolonged, lifted, counts.gave_up];
            let shown: Vec<String> = shown.iter().map(|count| format!("{count:>9}")).collect();
            writeln!(to, "{:width$} {}", jail.name.as_str(), shown.join(" "))?;
        }
        Ok(())
    }
}

fn address(prefix: IpNet) -> String {
    match prefix.prefix_len() == prefix.max_prefix_len() {
        true => prefix.addr().to_string(),
        false => prefix.to_string(),
    }
}

fn local(at: Timestamp, zone: &TimeZone) -> String {
    let time = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    time.to_zoned(zone.clone()).strftime("%F %T").to_string()
}

fn in_words(happening: &Happening, max_retry: u32, zone: &TimeZone) -> Option<String> {
    let until = |ban: &Ban| match ban.until {
        Until::At(at) => format!("until {}", local(at, zone)),
        Until::Forever => "for ever".to_owned(),
    };
    Some(match happening {
        Happening::Finding { finding, attempts, spared } => {
            let at = local(finding.at, zone);
            let count = match (attempts, spared) {
                (Some(attempts), _) => format!("{attempts} of {max_retry}"),
                (None, Some(by)) => format!("ignored: {}", reason(by)),
                (None, None) => return None,
            };
            format!("{at}  [{}] found {} ({count})", finding.jail, finding.who)
        }
        Happening::Ban { ban, at, prolonged, .. } => {
            let word = if *prolonged { "prolong" } else { "ban" };
            let (at, who) = (local(*at, zone), address(ban.prefix));
            let again = if ban.count > 1 { format!(", ban {}", ban.count) } else { String::new() };
            format!(
                "{at}  [{}] {word} {who} after {} failures{again} {}",
                ban.jail,
                ban.failures,
                until(ban)
            )
        }
        Happening::Unban { ban, .. } => {
            let Until::At(at) = ban.until else { return None };
            format!("{}  [{}] unban {}", local(at, zone), ban.jail, address(ban.prefix))
        }
    })
}

fn reason(by: &SparedBy) -> String {
    match by {
        SparedBy::OwnAddress => "an own address".to_owned(),
        SparedBy::AllowList(net) => format!("on the allow list ({net})"),
        SparedBy::IgnoreIp(net) => format!("ignoreip {net}"),
        SparedBy::IgnoreName(name) => format!("ignoreip {name}"),
        SparedBy::Command => "ignorecommand".to_owned(),
        SparedBy::EndsInThePast => "its ban would have ended already".to_owned(),
        SparedBy::LiftedSince => "its ban was lifted by hand since".to_owned(),
    }
}

/// Seconds since the epoch, with a fraction where there is one.
fn seconds(at: Timestamp) -> Value {
    match at.micros() % 1_000_000 {
        0 => json!(at.seconds()),
        _ => json!(at.micros() as f64 / 1e6),
    }
}

fn as_json(happening: &Happening, jail: &JailSettings) -> Value {
    let regex = |rule: usize| jail.filter.failregex.get(rule).map(|regex| regex.value.as_str());
    let banned = |event: &str, ban: &Ban, at: Timestamp, rule: usize| {
        let until = match ban.until {
            Until::At(at) => seconds(at),
            Until::Forever => Value::Null,
        };
        json!({
            "event": event,
            "jail": ban.jail.as_str(),
            "address": address(ban.prefix),
            "time": seconds(at),
            "until": until,
            "failures": ban.failures,
            "count": ban.count,
            "lines": ban.lines,
            "rule": rule + 1,
            "regex": regex(rule),
        })
    };
    match happening {
        Happening::Finding { finding, attempts, spared } => {
            let fields = finding.fields.iter();
            let fields: serde_json::Map<String, Value> =
                fields.map(|(name, text)| (name.to_string(), json!(text))).collect();
            json!({
                "event": "finding",
                "jail": finding.jail.as_str(),
                "address": finding.who.to_string(),
                "time": seconds(finding.at),
                "failures": attempts,
                "ignored": spared.as_ref().map(reason),
                "lines": finding.lines,
                "rule": finding.rule + 1,
                "regex": regex(finding.rule),
                "fields": fields,
            })
        }
        Happening::Ban { ban, at, prolonged, rule } => {
            banned(if *prolonged { "prolong" } else { "ban" }, ban, *at, *rule)
        }
        Happening::Unban { ban, rule } => {
            let at = match ban.until {
                Until::At(at) => at,
                Until::Forever => ban.since,
            };
            banned("unban", ban, at, *rule)
        }
    }
}

/// A line on the terminal that says how far we are; none where nobody looks.
struct Progress {
    bytes: u64,
    shown: Option<Instant>,
    /// Events are printed to the same terminal.
    looks: bool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { bytes: 0, shown: None, looks: io::stderr().is_terminal() }
    }
}

impl Progress {
    fn show(&mut self, read: u64, told: &Told, now: Option<Timestamp>) {
        if !self.looks || self.shown.is_some_and(|shown| shown.elapsed() < SHOWN_EVERY) {
            return;
        }
        self.shown = Some(clock::monotonic());
        const WIDTH: usize = 30;
        let part = if self.bytes > 0 { (read as f64 / self.bytes as f64).min(1.0) } else { 0.0 };
        let filled = (part * WIDTH as f64) as usize;
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
        let at = now.map_or(String::new(), |now| local(now, &told.zone));
        let bar = if self.bytes > 0 { format!("[{bar}] {:3.0} %  ", part * 100.0) } else { bar };
        eprint!("\r\x1b[K{bar}{} lines, {} bans, {at}", told.lines, told.bans);
    }

    fn hide(&self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
