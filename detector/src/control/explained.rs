//! What `explain` answers. Field names are stable: scripts read them.
use serde::{Deserialize, Serialize};

use super::wire::Ban;

/// Why an address is banned, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What was asked for: an address, or a network.
    pub address: String,
    /// Some jail bans it, or a network that it lies in.
    pub banned: bool,
    /// Who bans it, the widest prefix first.
    pub bans: Vec<Ban>,
    /// What keeps its packets from being dropped, whatever bans it.
    pub allowed: Option<Allowed>,
    /// How it stands with each jail, in the order of the configuration.
    pub jails: Vec<Standing>,
    /// Bans that are remembered, the oldest first, those that hold included; null: see `history_fault`.
    pub history: Option<Vec<Past>>,
    /// Why the history cannot be told.
    pub history_fault: Option<String>,
}

/// An entry of the allow list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// The entry.
    pub entry: String,
    /// Why it is on the list, as `own address`.
    pub reason: String,
    /// Where it was written, as `/etc/fail2xdp/fail2xdp.conf:12`; null for what nobody wrote.
    pub place: Option<String>,
}

/// A failregex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which of the jail's, from 1.
    pub number: usize,
    /// As written.
    pub regex: String,
    /// Where it was written, as `/etc/fail2xdp/filter.d/sshd.conf:12`.
    pub place: Option<String>,
}

/// How an address stands with one jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The jail.
    pub jail: String,
    /// Where its section begins.
    pub place: Option<String>,
    /// What it counts and bans as one: the address, or its IPv6 prefix.
    pub prefix: String,
    /// Failures that make a ban.
    pub max_retry: u32,
    /// The time in which they must come: seconds.
    pub find_time: u64,
    /// Failures that count now.
    pub attempts: u32,
    /// All failures since it was first counted.
    pub failures: u32,
    /// When the first of them was, Unix seconds; null: none is counted.
    pub first: Option<i64>,
    /// When the last of them was, Unix seconds.
    pub last: Option<i64>,
    /// What the last one was found by.
    pub rule: Option<Rule>,
    /// The addresses of the matched lines, where an IPv6 prefix is counted.
    pub addresses: Vec<String>,
    /// The last matched lines.
    pub lines: Vec<String>,
    /// Why its failures are not counted.
    pub spared: Option<Spared>,
}

/// Why a jail counts no failure of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spared {
    /// `ignoreself`, `ignoreip 192.0.2.0/24`.
    pub by: String,
    /// Where it was written.
    pub place: Option<String>,
}

/// What is remembered of a jail's bans of one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The jail.
    pub jail: String,
    /// The prefix.
    pub prefix: String,
    /// How often, one that holds included.
    pub bans: u64,
    /// When the last began: Unix seconds.
    pub last: i64,
    /// When the last ended, or will: Unix seconds; null: never.
    pub until: Option<i64>,
}
