//! What travels over the socket. Field names are stable: scripts read them.
use serde::{Deserialize, Serialize};

use super::explained::{Explained, Rule};

/// An answer.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To `ping`.
    Pong(Pong),
    /// To `status`.
    Status(Box<Status>),
    /// To `GET /v1/jails`.
    Jails(Vec<Jail>),
    /// To `GET /v1/metrics`: not JSON.
    Metrics(String),
    /// To `GET /v1/events`: the events follow.
    Subscribed,
    /// To `status JAIL`.
    Jail(Jail),
    /// To `bans`.
    Bans(Vec<Ban>),
    /// To `top`.
    Top(Box<Top>),
    /// To `explain`.
    Explained(Box<Explained>),
    /// To `banned`.
    Banned(Vec<BannedBy>),
    /// To `ban`.
    Made(BansMade),
    /// To `unban`.
    Lifted(BansLifted),
    /// To `reload`.
    Reloaded(Reloaded),
    /// To `stop` and `detach`.
    Stopping(Stopping),
    /// To a command of fail2ban's.
    Value(crate::config::Value),
    /// To `confirm`.
    Confirmed(Confirmed),
}

/// The daemon lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Always `pong`.
    pub reply: String,
}

/// The whole daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// In the order of the configuration.
    pub jails: Vec<Jail>,
    /// Live bans, of all jails.
    pub bans: usize,
    /// What the kernel does.
    pub enforcement: Enforcement,
    /// What outlives the daemon; absent where nothing is stored.
    pub store: Option<Store>,
    /// What runs actions; absent where there are none.
    pub action_runner: Option<ActionRunner>,
    /// Actions that tell of bans, by jail.
    pub actions: Vec<ActionState>,
    /// Where the log goes.
    pub log: Log,
    /// What is kept of those below the threshold.
    pub pending: Pending,
    /// Names found in logs, on their way to addresses.
    pub names: Names,
    /// What `ignorecommand` is asked.
    pub questions: Questions,
    /// When the daemon started: Unix seconds.
    pub since: i64,
    /// Banned addresses whose failures are found all the same, most failures first, 16 at the most.
    pub lingering: Vec<Lingering>,
    /// How many bans are made.
    pub ceiling: Ceiling,
    /// Alarms about sources, raised since the daemon started.
    pub source_alarms: u64,
    /// What of the logs was not read, or not wholly, since the daemon started or was reloaded.
    pub unread: Unread,
    /// What is wrong in the configuration.
    pub problems: Vec<String>,
}

/// The process that runs actions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRunner {
    /// `works`, or `gone` while another one is begun.
    pub state: String,
    /// How many went away since the daemon started.
    pub lost: u64,
    /// Why it is gone, or what is wrong with actions.
    pub fault: Option<String>,
}

/// An action of a jail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionState {
    /// The jail.
    pub jail: String,
    /// Its name.
    pub action: String,
    /// What it is still to do.
    pub waiting: usize,
    /// Done since the daemon started.
    pub done: u64,
    /// Given up since then.
    pub failed: u64,
    /// Given up one after the other, up to now.
    pub failed_in_a_row: u64,
    /// Dropped since then, because too much waited.
    pub dropped: u64,
    /// Why the last one was given up, while no other is done.
    pub fault: Option<String>,
}

/// The log that the daemon writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// `STDERR`, `SYSLOG` … or a file.
    pub target: String,
    /// Why nothing can be written now.
    pub fault: Option<String>,
    /// Lines that found no room or could not be written, since the daemon started.
    pub lost: u64,
}

/// How often a limit on what is read of log files was reached, and losses that nobody can prevent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Lines longer than 1 MiB, cut there.
    pub cut_lines: u64,
    /// Times that a log was truncated with bytes unread that no copy beside it held.
    pub truncations: u64,
    /// Rotated files that were left out because too many came between two looks.
    pub rotated_files: u64,
    /// Rotated files whose rest could not be read.
    pub unreadable_files: u64,
    /// Directory entries that were left out in the search for rotated files.
    pub directory_entries: u64,
    /// Files that globs matched beyond those that are followed.
    pub surplus_files: u64,
}

/// What is kept of those below the threshold, of all jails together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Addresses counted.
    pub addresses: usize,
    /// `max_pending`.
    pub most_addresses: usize,
    /// Addresses forgotten because there were more, since the daemon started.
    pub forgotten_addresses: u64,
    /// Their matched lines.
    pub evidence_bytes: usize,
    /// `max_evidence`.
    pub most_evidence_bytes: usize,
    /// Lines forgotten because there were more, since the daemon started.
    pub forgotten_lines: u64,
    /// Addresses whose bans are remembered, each jail counting its own.
    pub history: usize,
    /// `max_history`.
    pub most_history: usize,
    /// Addresses whose bans were forgotten because there were more, since the daemon started.
    pub forgotten_history: u64,
}

/// What `ignorecommand` is asked, of all jails together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// Failures that wait for an answer.
    pub waiting: usize,
    /// Questions without an answer, since the daemon started: the command could not run, took too long, or failed.
    pub failed: u64,
    /// Failures counted without asking because too many waited, since the daemon started.
    pub unasked: u64,
}

/// Somebody who is banned and found all the same: by way of a proxy, another interface, or another port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lingering {
    /// An address or prefix.
    pub prefix: String,
    /// The jail that bans and finds it.
    pub jail: String,
    /// Failures found since its ban.
    pub failures: u64,
    /// When the last of them happened: Unix seconds.
    pub last: i64,
    /// Packets that its ban has dropped; null with mode `none`.
    pub dropped: Option<u64>,
}

/// New bans, and their ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Within the last minute, those by hand left out.
    pub bans: u32,
    /// `ban_ceiling`; 0: however many.
    pub most: u32,
    /// There are, or were not long ago, more: networks are not banned now, nor addresses that somebody logged in from.
    pub exceeded: bool,
    /// Bans that were not made for that, since the daemon started.
    pub suspended: u64,
    /// Addresses whose logins are remembered.
    pub logins: usize,
    /// At most so many.
    pub most_logins: usize,
    /// Addresses whose logins were forgotten because there were more, since the daemon started.
    pub forgotten_logins: u64,
}

/// Names found in logs, on their way to addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Being looked up.
    pub waiting: usize,
    /// More are not looked up at once.
    pub most_waiting: usize,
    /// Failures not counted because too many waited, since the daemon started.
    pub lost: u64,
}

/// One jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// Its name.
    pub name: String,
    /// Addresses below the threshold.
    pub currently_failed: usize,
    /// Failures since the daemon started.
    pub total_failed: u64,
    /// Live bans.
    pub currently_banned: usize,
    /// Bans since the daemon started.
    pub total_banned: u64,
    /// Log files.
    pub files: Vec<File>,
    /// Journal matches, one group a string.
    pub journal_matches: Vec<String>,
    /// How the journal is: `following`, or why not; absent when the jail reads none.
    pub journal: Option<String>,
    /// Which packets a ban drops, as `tcp:22`.
    pub scope: String,
    /// Its bans are counted by the kernel, and drop nothing; also while the whole daemon observes.
    pub observe: bool,
    /// What is wrong with its sources now.
    pub alarms: Vec<String>,
    /// It hears of other jails' bans as they are made, whether or not a log of them is written.
    pub hears_bans: bool,
    /// Its filter has found nothing since the daemon started.
    pub never_matched: bool,
    /// Patterns that lines made try too long, since its filter was read.
    pub gave_up: Vec<GaveUp>,
    /// Banned prefixes, in the order of banning.
    pub banned: Vec<String>,
}

/// A pattern that was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaveUp {
    /// As `failregex 3`.
    pub pattern: String,
    /// Its file and line.
    pub place: Option<String>,
    /// Lines that it was stopped on, which count as not matched.
    pub lines: u64,
}

/// A log file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path, or the glob that matches nothing yet.
    pub path: String,
    /// `following`, `waiting`, `gone`, or why it cannot be read.
    pub state: String,
}

/// What the kernel does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// `xdp` or `none`.
    pub mode: String,
    /// Counts, drops nothing.
    pub observe: bool,
    /// The folder of pins; absent with mode `none`.
    pub pins: Option<String>,
    /// The attached interfaces.
    pub interfaces: Vec<Interface>,
    /// Packets seen; absent with mode `none`.
    pub counters: Option<Counters>,
    /// Room in the maps; absent with mode `none`.
    pub capacity: Option<Capacity>,
    /// Never dropped, whatever bans cover it.
    pub allowed: Vec<String>,
    /// What is not as it should be.
    pub alarms: Vec<String>,
    /// Times that the kernel's maps differed from the table of bans, and were mended.
    pub repairs: u64,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// The file.
    pub path: String,
    /// `works`, `opening`, or why nothing is stored.
    pub state: String,
    /// Writes that wait.
    pub waiting: usize,
    /// Transactions since the daemon started.
    pub transactions: u64,
    /// Times it began to fail.
    pub faults: u64,
    /// Writes refused because too many waited.
    pub refused: u64,
    /// Writes given up because the file could not be written; all of it is written anew when it can.
    pub lost: u64,
    /// Where a damaged file was put last.
    pub set_aside: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index; 0 while it is gone.
    pub index: u32,
    /// `native`, `generic`, or `gone`.
    pub mode: String,
    /// Why not native.
    pub reason: Option<String>,
}

/// Packets and bytes, by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Went on to the kernel.
    pub passed: Traffic,
    /// Dropped.
    pub dropped: Traffic,
    /// Would have been dropped, while observing.
    pub would_drop: Traffic,
    /// Banned, and spared by the allow list.
    pub spared: Traffic,
    /// Neither IPv4 nor IPv6.
    pub not_ip: Traffic,
    /// Too short to have a source.
    pub unreadable: Traffic,
}

/// An amount of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes, with link header.
    pub bytes: u64,
}

/// Room in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// IPv4 prefixes banned.
    pub ipv4_used: u32,
    /// IPv4 prefixes the maps hold before they grow.
    pub ipv4_room: u32,
    /// IPv6 prefixes banned.
    pub ipv6_used: u32,
    /// IPv6 prefixes the maps hold before they grow.
    pub ipv6_room: u32,
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// A single address is written without its length.
    pub prefix: String,
    /// By whom.
    pub jail: String,
    /// Unix seconds.
    pub since: i64,
    /// Unix seconds; null: for ever.
    pub until: Option<i64>,
    /// Failures that led to it; 0 by hand.
    pub failures: u32,
    /// How often the prefix was banned, this ban included, as far as `bantime.increment` remembers; else 1.
    pub count: u32,
    /// As `tcp:22`.
    pub scope: String,
    /// Packets dropped; null with mode `none`.
    pub packets: Option<u64>,
    /// Packets that would have been dropped, while the jail or the daemon only observes; null with mode `none`.
    pub would_drop: Option<u64>,
    /// The jail, or the daemon, only observes now: nothing is dropped for this ban.
    pub observe: bool,
    /// When the last of them came, as far as it was seen: Unix seconds.
    pub last_packet: Option<i64>,
    /// Where an IPv6 prefix is banned: the addresses of the matched lines.
    pub addresses: Vec<String>,
    /// The failregex that found its last failure; only in what `explain` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// The last matched lines.
    pub lines: Vec<String>,
}

/// What a live view shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// When it was asked: Unix time in milliseconds.
    pub at: i64,
    /// The daemon; its jails without their banned prefixes.
    pub status: Status,
    /// Where the jails' lines come from.
    pub sources: Vec<Source>,
    /// Bans that have dropped most packets, 64 at the most, most first.
    pub busiest: Vec<Ban>,
    /// Bans made last, 64 at the most, newest first.
    pub newest: Vec<Ban>,
}

/// A log or journal of a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The jail.
    pub jail: String,
    /// A path, or `the journal`.
    pub name: String,
    /// `read`, `awaited`, `gone`, or why it cannot be read.
    pub state: String,
    /// Age of the oldest line that is not read yet, in milliseconds.
    pub lag: u64,
    /// When its last line was read: Unix seconds.
    pub last: Option<i64>,
}

/// One jail's banned prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BannedBy {
    /// The jail.
    pub jail: String,
    /// Its prefixes, in the order of banning.
    pub banned: Vec<String>,
}

/// Ban these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanOrder {
    /// Addresses or networks.
    pub prefixes: Vec<String>,
    /// On behalf of this jail; absent: by hand, every packet.
    #[serde(default)]
    pub jail: Option<String>,
    /// For so many seconds, -1 for ever; absent: the jail's `bantime`.
    #[serde(default)]
    pub seconds: Option<i64>,
    /// Also when the allow list spares the address (the ban then has no effect on it).
    #[serde(default)]
    pub force: bool,
}

/// How many of them are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BansMade {
    /// New bans.
    pub banned: usize,
}

/// Lift these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnbanOrder {
    /// Addresses or networks; everything banned within them.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Every ban.
    #[serde(default)]
    pub all: bool,
    /// Only those of this jail.
    #[serde(default)]
    pub jail: Option<String>,
}

/// How many were lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BansLifted {
    /// Bans that ended.
    pub lifted: usize,
}

/// The configuration was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Jails now running.
    pub jails: usize,
    /// What differs from before, one option a line.
    pub changes: Vec<String>,
    /// What is wrong in the configuration.
    pub problems: Vec<String>,
}

/// The daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// Bans that stay enforced.
    pub enforced: usize,
    /// Program and maps were removed.
    pub detached: bool,
}

/// One of fail2ban's commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandOrder {
    /// Its words, as for `fail2ban-client`: `["set", "sshd", "banip", "192.0.2.1"]`.
    pub words: Vec<serde_json::Value>,
}

/// What a command of fail2ban's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandAnswer {
    /// The value; lists of a name and a value are what fail2ban has as tuples.
    pub value: crate::config::Value,
}

/// Somebody is not locked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The daemon waited for it.
    pub waited: bool,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub error: String,
    /// Of a command of fail2ban's: the class of the exception that its server would answer with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The same exception's text, without what its client puts around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}
