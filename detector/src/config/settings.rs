//! Settings as used: complete, checked, ready to run. Nothing after this point can fail because of a setting.
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{Formula, Native, Number, Occasion, Scope, jail::is_true};

/// A jail's name: the section that defines it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JailName(Arc<str>);

impl JailName {
    /// Any section name names a jail.
    pub fn new(name: &str) -> JailName {
        JailName(name.into())
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JailName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// How much a [`Problem`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Runs, though probably not as meant.
    Warning,
    /// Something configured does not run.
    Error,
}

/// Something wrong in the configuration: where, what happens now, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The jail concerned, when only one is.
    pub jail: Option<JailName>,
    /// Where it was written; `None` for what is missing altogether.
    pub place: Option<Place>,
    /// What is wrong and what happens now: lower-case start, no full stop, names in backticks.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if let Some(jail) = &self.jail {
            write!(f, "jail `{jail}`: ")?;
        }
        // One line, whatever was quoted: a value may have several.
        for c in self.what.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A value with the place it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written; `None` for a built-in default.
    pub place: Option<Place>,
}

/// How long a ban lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanTime {
    /// `bantime = -1`.
    Permanent,
    /// So many seconds from the last failure.
    Seconds(u32),
}

/// How the bans of one who comes again grow (`bantime.increment`).
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    /// `bantime.factor`, above 0; the default is 1.
    pub factor: Number,
    /// `bantime.formula`; `None` is fail2ban's default.
    pub formula: Option<Formula>,
    /// `bantime.multipliers`: one for each ban before, the last for all that follow; where there are any they
    /// replace the formula.
    pub multipliers: Vec<f64>,
    /// `bantime.maxtime` in seconds, at least 0.
    pub max_time: Option<f64>,
    /// `bantime.rndtime`: up to so many seconds are added by chance.
    pub random_time: f64,
    /// `bantime.overalljails`: bans by other jails count as well.
    pub over_all_jails: bool,
}

// All numbers are finite: none of them differs from itself.
impl Eq for Increment {}

/// What becomes of a host name found where an address was expected (`usedns`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseDns {
    /// Names do not match.
    No,
    /// Names are looked up, off the hot path, each address counted.
    Yes,
    /// The same, with a warning in the log.
    Warn,
    /// The text itself is counted, and banned as text (never enforced).
    Raw,
}

/// What a jail looks for in each line, expanded but not compiled: tags like `<HOST>` still stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSettings {
    /// The filter's name, without parameters.
    pub name: String,
    /// Must match first; its `<F-CONTENT>` is what the others see.
    pub prefregex: Option<Located<String>>,
    /// The first that matches makes a finding.
    pub failregex: Vec<Located<String>>,
    /// A line that one of these matches makes none.
    pub ignoreregex: Vec<Located<String>>,
    /// Lines joined before matching, at least 1.
    pub max_lines: u32,
    /// `datepattern`, one entry a line; empty means the default templates.
    pub date_patterns: Vec<Located<String>>,
    /// What becomes of host names.
    pub use_dns: UseDns,
    /// `logtimezone`, for lines without a zone of their own.
    pub time_zone: Option<Located<String>>,
}

/// One `logpath` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPath {
    /// A path or shell glob.
    pub pattern: String,
    /// Start at the end of the file instead of `findtime` ago.
    pub tail: bool,
    /// Where it was written.
    pub place: Option<Place>,
}

/// One group of a `journalmatch`: terms `FIELD=value`, ANDed over fields, ORed within one.
pub type JournalTerms = Vec<String>;

/// Which journal, and which of its entries.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct JournalSettings {
    /// Groups joined by OR; empty means every entry.
    pub matches: Vec<JournalTerms>,
    /// `journalpath`: a directory other than the system's.
    pub directory: Option<PathBuf>,
    /// `journalfiles`: files or globs instead of a directory.
    pub files: Vec<String>,
    /// `journalflags`: as in sd_journal_open(3).
    pub flags: Option<i32>,
    /// `namespace`.
    pub namespace: Option<String>,
}

/// Where a jail's lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// Log files.
    Files {
        /// Paths and globs, in the order written.
        paths: Vec<LogPath>,
        /// `logencoding`: `auto` or a codec's name in the WHATWG Encoding Standard (`UTF-8`, `windows-1252` …).
        encoding: String,
    },
    /// The systemd journal.
    Journal(JournalSettings),
    /// Either, decided at start by what exists: files when a path matches one, else the journal when there is
    /// one, else whichever appears first. Never both at once: a syslog daemon writes what the journal holds too.
    Auto {
        /// Paths and globs, in the order written.
        paths: Vec<LogPath>,
        /// As for `Files`.
        encoding: String,
        /// As for `Journal`.
        journal: JournalSettings,
    },
    /// Nothing: bans by hand only.
    Nothing,
}

/// One entry of `ignoreip`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ignore {
    /// An address or network.
    Net(IpNet),
    /// A host name, looked up off the hot path.
    Name(String),
}

/// Answers of `ignorecommand` that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreCache {
    /// Failures of the same key have the same answer; tags as written.
    pub key: String,
    /// Answers at the most, at least 1.
    pub max_count: u32,
    /// How long one serves.
    pub max_time: Duration,
}

/// An action of a jail that tells others of its bans. What enforces them is no such action: it is part of
/// [`JailSettings::scope`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSettings {
    /// What tells it from the jail's others (`actname`).
    pub name: String,
    /// Where it was written.
    pub place: Option<Place>,
    /// What it does.
    pub kind: ActionKind,
}

/// What an action wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// All bans of a jail end at once: one word about it instead of one about each.
    pub flush: bool,
    /// Whether its environment is still there.
    pub check: bool,
    /// Ends that move.
    pub prolong: bool,
    /// Bans of an earlier run of the daemon.
    pub restored: bool,
    /// What is known of an address, over all jails.
    pub of_address: bool,
    /// The same within its own.
    pub of_jail: bool,
    /// Named groups of the failregex.
    pub fields: bool,
}

impl ActionSettings {
    /// What it wants to be told.
    pub fn wants(&self) -> Wants {
        let properties = match &self.kind {
            ActionKind::Commands(properties) => properties,
            ActionKind::Native(native) => {
                return Wants {
                    flush: false,
                    check: false,
                    prolong: native.on.contains(&Occasion::Prolong),
                    restored: !native.norestored,
                    of_address: native.asks_for_address(),
                    of_jail: native.asks_for_jail(),
                    fields: true,
                };
            }
        };
        let text = |name: &str| {
            let found = properties.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, text)| text.trim())
        };
        let mentions = |parts: &[&str]| {
            properties.iter().any(|(_, text)| parts.iter().any(|part| text.contains(part)))
        };
        Wants {
            flush: !text("actionflush").is_empty(),
            check: !text("actioncheck").is_empty(),
            prolong: !text("actionprolong").is_empty(),
            restored: !is_true(text("norestored")),
            of_address: mentions(&["ipmatches", "ipfailures"]),
            of_jail: mentions(&["ipjailmatches", "ipjailfailures"]),
            fields: mentions(&["<F-"]),
        }
    }

    /// Changes an option or parameter, or adds it; what the runner has taken can be no fault.
    pub fn set(&mut self, name: &str, value: &str) {
        match &mut self.kind {
            ActionKind::Commands(properties) => {
                match properties.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => value.clone_into(known),
                    None => properties.push((name.to_owned(), value.to_owned())),
                }
            }
            ActionKind::Native(native) => {
                if let Ok(changed) = native.with(name, value) {
                    *native = changed;
                }
            }
        }
    }
}

impl ActionSettings {
    /// One of commands that has none yet, as `set JAIL addaction NAME` makes it.
    pub fn without_commands(jail: &str, name: &str) -> ActionSettings {
        let given = [("name", jail), ("actname", name)];
        let given = given.map(|(option, value)| (option.to_owned(), value.to_owned()));
        let kind = ActionKind::Commands(given.into());
        ActionSettings { name: name.to_owned(), place: None, kind }
    }
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// Commands of an `action.d` file: its options and parameters in fail2ban's order, as its server gets them. Tags that
    /// are known only when a command runs still stand.
    Commands(Vec<(String, String)>),
    /// What needs no command.
    Native(Native),
}

/// A jail, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailSettings {
    /// Its name.
    pub name: JailName,
    /// Where its section begins.
    pub place: Option<Place>,
    /// What it looks for.
    pub filter: FilterSettings,
    /// Where it looks.
    pub source: SourceSettings,
    /// Failures that make a ban, at least 1.
    pub max_retry: u32,
    /// The time in which they must come.
    pub find_time: Duration,
    /// How long a ban lasts.
    pub ban_time: BanTime,
    /// How it grows for those who come again; `None` where it does not.
    pub increment: Option<Increment>,
    /// Matched lines kept for each address.
    pub max_matches: u32,
    /// Never counted.
    pub ignore: Vec<Located<Ignore>>,
    /// Never count this machine's own addresses.
    pub ignore_self: bool,
    /// `ignorecommand`: asked for each failure, for the shell, tags as written; those that it spares are not counted.
    pub ignore_command: Option<String>,
    /// `ignorecache`: its answers, and those of `ignore`, serve for a while.
    pub ignore_cache: Option<IgnoreCache>,
    /// What a ban drops; nothing for a jail without an action that bans.
    pub scope: Scope,
    /// Whom its bans are told, in the order written.
    pub actions: Vec<ActionSettings>,
    /// Length of the IPv6 prefix that is counted and banned as one, 1 to 128.
    pub ipv6_prefix: u8,
    /// A source that says nothing for so long is reported; `None`: however long.
    pub silence: Option<Duration>,
    /// Its bans are counted by the kernel and drop nothing.
    pub observe: bool,
}

/// `--mode` and `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// Native where the driver can, else generic.
    Auto,
    /// Native or nothing.
    Native,
    /// Generic, in the network stack.
    Generic,
    /// Detect and report; no BPF at all.
    None,
}

/// What is ours alone: `fail2xdp.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforceSettings {
    /// Interfaces; empty means those of the default routes.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub mode: AttachMode,
    /// Count what would be dropped, drop nothing.
    pub observe: bool,
    /// Never dropped: `allow`, and `ignoreip` of `[DEFAULT]` when every enabled jail inherits it.
    pub allow: Vec<Located<IpNet>>,
    /// `allow = file:PATH`: files with more of them, one a line; read again when they change.
    pub allow_files: Vec<PathBuf>,
    /// `widest_ban`: networks wider than these, by prefix length, are banned by hand only with `--force`.
    pub widest_ban: WidestBan,
    /// Add the remote ends of SSH sessions that are logged in at the start to the allow list; the default.
    pub allow_sessions: bool,
    /// Bans a family at the most.
    pub max_bans: u32,
    /// Bans a family the maps are made for at first; they double at 75 %.
    pub initial_bans: u32,
    /// Sampled drops a second for the log.
    pub events_per_second: u32,
    /// `compare_every`: between two comparisons of the maps with the ban table, at least a second.
    pub compare_every: Duration,
}

/// Prefix lengths of the widest networks that a ban by hand may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WidestBan {
    /// IPv4, 0 to 32.
    pub v4: u8,
    /// IPv6, 0 to 128.
    pub v6: u8,
}

impl WidestBan {
    /// The length for this prefix's family.
    pub fn of(self, prefix: IpNet) -> u8 {
        if prefix.addr().is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Bounds of what is kept of addresses below the threshold, and of those who were banned, of all jails together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountingSettings {
    /// `max_pending`: addresses, at least 16.
    pub max_pending: u32,
    /// `max_evidence`: their matched lines, in MiB.
    pub max_evidence: u32,
    /// `max_history`: addresses whose bans are remembered, at least 16.
    pub max_history: u32,
    /// `ban_ceiling`: new bans a minute that raise an alarm; 0: however many.
    pub ban_ceiling: u32,
}

/// What the store keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `dbpurgeage`: how long after its end a ban is remembered.
    pub purge_age: Duration,
    /// `dbmaxmatches`: matched lines kept with each ban.
    pub max_matches: u32,
}

/// How actions are told of bans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellingSettings {
    /// `action_runner`: the socket that an action runner of its own unit listens on; `None`: the daemon starts one.
    pub runner: Option<PathBuf>,
    /// `action_queue`: what may wait for one action, at least 1; beyond it the oldest is dropped.
    pub queue: u32,
}

/// Where log lines go (`logtarget`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Standard output, read by something that adds the time itself.
    SysOut,
    /// syslog(3).
    Syslog {
        /// In lower case, as in `daemon`.
        facility: String,
    },
    /// The systemd journal.
    Journal,
    /// A file, by its whole path.
    File(PathBuf),
}

/// How log lines look, as far as `logtarget` says; `None` leaves it to the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFormat {
    /// `datetime`: they begin with the time.
    pub time: Option<bool>,
    /// `padding`: names and levels are filled up to one width.
    pub padding: Option<bool>,
    /// `format`, in the words of Python's `logging`.
    pub format: Option<String>,
}

/// The log, as `fail2xdp.conf` or `fail2ban.conf` wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// `logtarget`; `None` where nobody says.
    pub target: Option<Located<(LogTarget, LogFormat)>>,
    /// `syslogsocket`; `None` is the system's.
    pub syslog_socket: Option<Located<PathBuf>>,
}

/// Whether names are looked up as IPv6 addresses, too (`allowipv6`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowIpv6 {
    /// Where this machine has IPv6.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The enabled jails that hold together, in file order.
    pub jails: Vec<JailSettings>,
    /// Enforcement.
    pub enforce: EnforceSettings,
    /// `metrics`: where they are read over TCP; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The store.
    pub store: StoreSettings,
    /// Bounds of counting.
    pub counting: CountingSettings,
    /// Telling actions.
    pub telling: TellingSettings,
    /// `bantime` of `[DEFAULT]`, for bans by hand without a jail.
    pub default_ban_time: BanTime,
    /// `loglevel` of `fail2xdp.conf` or `fail2ban.conf`: `INFO`, `DEBUG` …
    pub log_level: String,
    /// Where fail2ban's own clients are answered: `socket` of `fail2ban.conf`; `None` without `compat-socket`.
    pub compat_socket: Option<PathBuf>,
    /// `logtarget` and `syslogsocket` of either file.
    pub log: LogSettings,
    /// `allowipv6` of either file.
    pub allow_ipv6: AllowIpv6,
    /// Jails that do not run while none of their logs exists (`skip_if_nologs`).
    pub skip_without_logs: Vec<JailName>,
    /// `action_user`: whom the commands of actions run as; `None` is whom the action runner runs as.
    pub action_user: Option<String>,
    /// `action_retry`: how long a command that fails is tried again; zero: as fail2ban, which tries twice at once.
    pub action_retry: Duration,
    /// A fail2ban tree: one without `fail2xdp.conf`.
    pub fail2ban_tree: bool,
}

/// Own addresses, which `ignoreself` asks for.
pub type OwnAddresses = Vec<IpAddr>;
