//! What daemon and runner say to each other: one JSON object a line, over a Unix stream socket.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who speaks another version is sent away.
pub const VERSION: u32 = 1;
/// Bytes of a line at the most; a longer one ends the connection.
pub const LONGEST_LINE: usize = 16 << 20;
/// Tasks of one action that the runner is given before it has done any: the rest waits at the daemon.
pub const WINDOW: usize = 64;

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// First of all. The runner then reads the configuration.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Where actions stood when the runner before this one was heard last.
        standings: Vec<Standing>,
    },
    /// The configuration has changed: read it again. Tasks sent after it are done as it says.
    Reload,
    /// Something to do. Tasks of one action are done in the order of their numbers, those of different actions side by
    /// side.
    Do(Task),
    /// `set JAIL action NAME PROPERTY VALUE`; holds until the next reload. Answered by [`FromRunner::Answer`].
    Set {
        /// Names the answer.
        id: u64,
        /// The jail.
        jail: String,
        /// The action.
        action: String,
        /// The option or parameter.
        property: String,
        /// What it becomes.
        value: String,
    },
    /// `set JAIL addaction NAME`: an action without commands, until the next reload. No answer.
    Add {
        /// The jail.
        jail: String,
        /// The action.
        action: String,
    },
    /// Answered by [`FromRunner::Pong`], whatever the commands do.
    Ping,
}

/// What the runner says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRunner {
    /// First of all, in answer to the daemon's.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// The configuration was read.
    Read {
        /// What is wrong with actions, one line each.
        problems: Vec<String>,
    },
    /// A task is over and will not be done again.
    Done {
        /// Its number.
        seq: u64,
        /// Why it failed for good; `None`: it was done.
        failed: Option<String>,
        /// How its action stands now.
        standing: Standing,
    },
    /// To [`ToRunner::Set`].
    Answer {
        /// Of which question.
        id: u64,
        /// Why it was refused.
        refused: Option<String>,
    },
    /// A line for the daemon's log.
    Log {
        /// Of which jail.
        jail: String,
        /// Of which action.
        action: String,
        /// How loud.
        level: Level,
        /// What; no control characters but line feeds.
        text: String,
    },
    /// To [`ToRunner::Ping`].
    Pong,
}

/// How loud a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What happened.
    Info,
    /// What may matter.
    Warning,
    /// What failed.
    Error,
}

/// Something for one action to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its number: one after the other over all actions, also across restarts of the daemon.
    pub seq: u64,
    /// The jail.
    pub jail: String,
    /// The action, by its `actname`.
    pub action: String,
    /// What is to be done.
    pub kind: Kind,
    /// Unix seconds at which the daemon decided it.
    pub at: f64,
    /// How many the jail has, for `<jail.…>`.
    pub counts: Counts,
    /// Whom it is about; `None` where it is about nobody.
    pub ticket: Option<Box<Ticket>>,
}

/// What an action is to do; each is the option `action…` of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The jail has started.
    Start,
    /// The jail stops, or the action is no longer configured.
    Stop,
    /// The configuration was read again and the action is still there.
    Reload,
    /// Somebody was banned.
    Ban,
    /// A ban of an earlier [`Standing::epoch`] whose address fails again: it is told once more (`actionreban`).
    Reban,
    /// Somebody fails long after being banned: is the environment still there? (`actioncheck`)
    Check,
    /// A ban that ends later than was told.
    Prolong,
    /// A ban is over.
    Unban,
    /// All bans of the jail are over; sent only to an action that has `actionflush`.
    Flush,
}

/// How many the jail has had when the task was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Bans in force.
    pub banned: u64,
    /// Bans since the start.
    pub banned_total: u64,
    /// Addresses with failures that count.
    pub found: u64,
    /// Failures since the start.
    pub found_total: u64,
}

/// A ban as an action sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// What is banned: an address, a network, or any text (`<F-ID>`).
    pub id: String,
    /// The address that failed, where that is not `id`.
    pub ip: Option<String>,
    /// Failures that led to it; 0 for a ban by hand.
    pub failures: u32,
    /// Unix seconds of the last failure.
    pub time: f64,
    /// Seconds that it lasts; -1 for ever.
    pub ban_time: i64,
    /// How often its address was banned, this ban included.
    pub ban_count: u32,
    /// It was made by an earlier run of the daemon.
    pub restored: bool,
    /// The last matched lines.
    pub matches: Vec<String>,
    /// Named groups of the failregex in lower case (`<F-USER>` is `user`).
    pub fields: BTreeMap<String, String>,
    /// The same address in the store, over all jails; only where the action asks for it.
    pub of_address: Option<Past>,
    /// The same within this jail.
    pub of_jail: Option<Past>,
}

/// What the store has of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Failures of all its bans.
    pub failures: u64,
    /// Their matched lines, the newest last, at most `dbmaxmatches`.
    pub matches: Vec<String>,
}

/// How an action stands: what must outlive the runner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The jail.
    pub jail: String,
    /// The action.
    pub action: String,
    /// Families for which `actionstart` has run: `inet4`, `inet6`, or empty where it makes no difference.
    pub started: Vec<String>,
    /// Families that have had bans since.
    pub banned: Vec<String>,
    /// How often the environment had to be made anew; bans of an earlier epoch are told again when they fail again.
    pub epoch: u32,
}
