//! `fail2xdp.conf`: what is ours alone; and the few options of `fail2ban.conf` that we honour.
use std::{path::PathBuf, time::Duration};

use super::{
    AttachMode, CountingSettings, EnforceSettings, Located, Problem, Severity, StoreSettings,
    expand::Context, ignore, layers::Layers, options, ports, seconds, text::Text,
};

const SECTION: &str = "Definition";

/// Where fail2ban listens, unless `socket` says otherwise.
const FAIL2BAN_SOCKET: &str = "/run/fail2ban/fail2ban.sock";

/// Default and bound of `max_bans`, each family.
const MAX_BANS: u32 = 4_194_304;
/// What the maps are made for at first, each family.
const INITIAL_BANS: u32 = 65_536;
/// Sampled drops a second.
const EVENTS: u32 = 100;
/// Bans of one family that any machine could hold: the bound of `max_bans`.
const MOST_BANS: u32 = 1 << 28;
/// The kernel's limit for an interface's name, its end included.
const INTERFACE_NAME: usize = 16;

const OPTIONS: &[&str] = &[
    "interface",
    "interfaces",
    "mode",
    "observe",
    "allow",
    "allow_sessions",
    "max_bans",
    "initial_bans",
    "events_per_second",
    "loglevel",
    "dbpurgeage",
    "dbmaxmatches",
    "max_pending",
    "max_evidence",
    "compat-socket",
];

/// `dbpurgeage` and `dbmaxmatches`, as fail2ban ships them.
const PURGE_AGE: Duration = Duration::from_secs(86_400);
const MAX_MATCHES: u32 = 10;
const MOST_MATCHES: u32 = 1000;
/// A hundred years: the bound of `dbpurgeage`.
const MOST_SECONDS: f64 = 3_155_760_000.0;

/// `max_pending`, and bounds: the fewest that forgetting a sixteenth works with, the most a machine could hold.
const PENDING: u32 = 1_000_000;
const FEWEST_PENDING: u32 = 16;
const MOST_PENDING: u32 = 1 << 28;
/// `max_evidence` and its bound, in MiB.
const EVIDENCE: u32 = 24;
const MOST_EVIDENCE: u32 = 1 << 16;

/// The server's share of the settings.
pub(super) struct Server {
    pub(super) enforce: EnforceSettings,
    pub(super) log_level: String,
    pub(super) store: StoreSettings,
    pub(super) counting: CountingSettings,
    pub(super) compat_socket: Option<PathBuf>,
}

/// Reads `fail2xdp.conf`, and what it leaves open from `fail2ban.conf`.
pub(super) fn read(own: &Layers, fail2ban: &Layers, problems: &mut Vec<Problem>) -> Server {
    let mut reader = Reader { context: Context::of_file(own, SECTION), problems };
    reader.unknown_options(own);
    let max_bans = reader.number("max_bans", MAX_BANS, 1..=MOST_BANS);
    let initial_bans = reader.number("initial_bans", INITIAL_BANS.min(max_bans), 1..=max_bans);
    let enforce = EnforceSettings {
        interfaces: reader.interfaces(),
        mode: reader.mode(),
        observe: reader.boolean("observe", false),
        allow: reader.allow(),
        allow_sessions: reader.boolean("allow_sessions", true),
        max_bans,
        initial_bans,
        events_per_second: reader.number("events_per_second", EVENTS, 0..=u32::MAX),
    };
    let counting = CountingSettings {
        max_pending: reader.number("max_pending", PENDING, FEWEST_PENDING..=MOST_PENDING),
        max_evidence: reader.number("max_evidence", EVIDENCE, 0..=MOST_EVIDENCE),
    };
    let compat = reader.boolean("compat-socket", false);
    let log_level = reader.log_level();
    let (purge_age, max_matches) = (reader.purge_age(), reader.max_matches());
    // What our own file leaves open is asked of fail2ban's.
    let mut other =
        Reader { context: Context::of_file(fail2ban, SECTION), problems: reader.problems };
    let log_level = log_level.or_else(|| other.log_level());
    let store = StoreSettings {
        purge_age: purge_age.or_else(|| other.purge_age()).unwrap_or(PURGE_AGE),
        max_matches: max_matches.or_else(|| other.max_matches()).unwrap_or(MAX_MATCHES),
    };
    let compat_socket = compat.then(|| {
        let socket = other.text("socket");
        PathBuf::from(socket.as_ref().map_or(FAIL2BAN_SOCKET, |socket| socket.as_str().trim()))
    });
    let log_level = log_level.unwrap_or_else(|| "INFO".to_owned());
    Server { enforce, log_level, store, counting, compat_socket }
}

struct Reader<'a, 'p> {
    context: Context<'a>,
    problems: &'p mut Vec<Problem>,
}

impl Reader<'_, '_> {
    fn problem(&mut self, severity: Severity, at: &Located<String>, what: String, remedy: &str) {
        let (place, remedy) = (at.place.clone(), remedy.to_owned());
        self.problems.push(Problem { severity, jail: None, place, what, remedy });
    }

    fn unknown_options(&mut self, own: &Layers) {
        let section = own.section(SECTION).map(|section| &section.options);
        let section = section.into_iter().flatten().take(options::MOST_LOOKED_AT);
        for (name, text) in section.filter(|(name, _)| !OPTIONS.contains(&name.as_str())) {
            let remedy = match options::meant(name, OPTIONS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are {}", listed(OPTIONS)),
            };
            self.problem(
                Severity::Warning,
                &text.located(),
                format!("option `{name}` is not known"),
                &remedy,
            );
        }
    }

    /// The option expanded; `None` when it is not set, empty or cannot be expanded.
    fn text(&mut self, option: &str) -> Option<Text> {
        match self.context.get(option) {
            Ok(text) => text.filter(|text| !text.as_str().trim().is_empty()),
            Err(error) => {
                let what = format!("`{option}` cannot be expanded: {error}; its default is used");
                let at = Located { value: String::new(), place: error.place.clone() };
                self.problem(Severity::Error, &at, what, error.remedy());
                None
            }
        }
    }

    fn number(&mut self, option: &str, default: u32, range: std::ops::RangeInclusive<u32>) -> u32 {
        let Some(text) = self.text(option) else { return default };
        match text.as_str().trim().replace('_', "").parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let what = format!(
                    "`{option} = {}` is no usable number; {default} is used",
                    text.as_str()
                );
                let remedy = format!("write a number from {} to {}", range.start(), range.end());
                self.problem(Severity::Error, &text.located(), what, &remedy);
                default
            }
        }
    }

    fn purge_age(&mut self) -> Option<Duration> {
        let text = self.text("dbpurgeage")?;
        match seconds(text.as_str()) {
            Ok(seconds) if (0.0..=MOST_SECONDS).contains(&seconds) => {
                Some(Duration::from_secs_f64(seconds))
            }
            _ => {
                let what =
                    format!("`dbpurgeage = {}` is no usable time; 1d is used", text.as_str());
                self.problem(Severity::Error, &text.located(), what, "write a time such as `7d`");
                Some(PURGE_AGE)
            }
        }
    }

    fn max_matches(&mut self) -> Option<u32> {
        self.text("dbmaxmatches")?;
        Some(self.number("dbmaxmatches", MAX_MATCHES, 0..=MOST_MATCHES))
    }

    fn boolean(&mut self, option: &str, default: bool) -> bool {
        let Some(text) = self.text(option) else { return default };
        match text.as_str().trim().to_ascii_lowercase().as_str() {
            "1" | "on" | "true" | "yes" => true,
            "0" | "off" | "false" | "no" => false,
            other => {
                let used = if default { "yes" } else { "no" };
                let what = format!("`{option} = {other}` is neither yes nor no; `{used}` is used");
                self.problem(Severity::Error, &text.located(), what, "write `yes` or `no`");
                default
            }
        }
    }

    fn mode(&mut self) -> AttachMode {
        let Some(text) = self.text("mode") else { return AttachMode::Auto };
        match text.as_str().trim().to_ascii_lowercase().as_str() {
            "auto" => AttachMode::Auto,
            "native" => AttachMode::Native,
            "generic" => AttachMode::Generic,
            "none" => AttachMode::None,
            other => {
                let what = format!("`mode = {other}` is none; `auto` is used");
                self.problem(
                    Severity::Error,
                    &text.located(),
                    what,
                    "write `auto`, `native`, `generic` or `none`",
                );
                AttachMode::Auto
            }
        }
    }

    fn interfaces(&mut self) -> Vec<String> {
        let mut interfaces: Vec<String> = Vec::new();
        for option in ["interface", "interfaces"] {
            let Some(text) = self.text(option) else { continue };
            for name in ports::words(text.as_str()) {
                if name.len() >= INTERFACE_NAME || name.contains('/') || name == "." || name == ".."
                {
                    let what = format!("`{name}` can be no interface's name; it is left out");
                    self.problem(
                        Severity::Error,
                        &text.located(),
                        what,
                        "take a name that `ip link` shows",
                    );
                } else if !interfaces.iter().any(|known| known == name) {
                    interfaces.push(name.to_owned());
                }
            }
        }
        interfaces
    }

    fn allow(&mut self) -> Vec<ipnet::IpNet> {
        let Some(text) = self.text("allow") else { return Vec::new() };
        let mut allow = Vec::new();
        for line in text.lines() {
            for word in ports::words(&line.value) {
                match ignore::network(word) {
                    Ok(net) => allow.push(net),
                    Err(error) => {
                        let what = format!("`allow`: {error}; it protects nobody");
                        let remedy = "write an address or a network, as in `192.0.2.1` or `2001:db8::/32`; names are \
                                      looked up for a jail's `ignoreip` only";
                        self.problem(Severity::Error, &line, what, remedy);
                    }
                }
            }
        }
        allow
    }

    fn log_level(&mut self) -> Option<String> {
        const LEVELS: &[&str] = &[
            "CRITICAL",
            "ERROR",
            "WARNING",
            "NOTICE",
            "INFO",
            "DEBUG",
            "TRACEDEBUG",
            "HEAVYDEBUG",
        ];
        let text = self.text("loglevel")?;
        let level = text.as_str().trim().to_ascii_uppercase();
        if LEVELS.contains(&level.as_str()) || level.parse::<u8>().is_ok_and(|level| level <= 50) {
            return Some(level);
        }
        let what = format!("`loglevel = {}` is none; `INFO` is used", text.as_str());
        self.problem(
            Severity::Warning,
            &text.located(),
            what,
            &format!("write one of {}", listed(LEVELS)),
        );
        None
    }
}

/// Names for a message.
fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
