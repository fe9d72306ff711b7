//! What goes into the engine and what comes out.
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::config::{JailName, Place, Scope};

/// A point in time: microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Whole seconds since the epoch.
    pub const fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// So much later; stops at the end of representable time.
    pub fn plus(self, span: std::time::Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// So much earlier.
    pub fn minus(self, span: std::time::Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// When a ban ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Until {
    /// Then: the ban no longer holds at this moment.
    At(Timestamp),
    /// Never by itself.
    Forever,
}

/// Whom a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FailureId {
    /// An address.
    Address(IpAddr),
    /// A network (`<SUBNET>`), host bits cleared.
    Network(IpNet),
    /// A host name still to be looked up.
    Name(Box<str>),
    /// Any other text (`<F-ID>`): counted and reported, never enforced.
    Text(Box<str>),
}

impl FailureId {
    /// The address, or the network.
    pub(super) fn prefix(&self) -> Option<IpNet> {
        match self {
            FailureId::Address(address) => Some(IpNet::from(*address)),
            FailureId::Network(net) => Some(*net),
            FailureId::Name(_) | FailureId::Text(_) => None,
        }
    }
}

impl fmt::Display for FailureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureId::Address(address) => address.fmt(f),
            FailureId::Network(net) => net.fmt(f),
            FailureId::Name(text) | FailureId::Text(text) => f.write_str(text),
        }
    }
}

/// A failure found in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose filter found it.
    pub jail: JailName,
    /// Whom it is about.
    pub who: FailureId,
    /// When it happened, after fail2ban's rules for lines that are late, early or undated.
    pub at: Timestamp,
    /// The lines it was found in, as read.
    pub lines: Vec<Box<str>>,
    /// Which failregex, from 0.
    pub rule: usize,
    /// Named groups (`<F-USER>` is `user`).
    pub fields: Vec<(Box<str>, Box<str>)>,
}

/// A failregex of a jail, as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailRegex {
    /// Which of the jail's, from 0.
    pub nth: usize,
    /// As written, its tags not expanded.
    pub text: Box<str>,
    /// Where it was written.
    pub place: Option<Place>,
}

/// What failures were found by, and of whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The rule of the last failure; `None` where it is not known any more, or there was none.
    pub rule: Option<Arc<FailRegex>>,
    /// Where an IPv6 prefix is counted as one: the addresses of the matched lines, in the order in which they came.
    pub addresses: Vec<Ipv6Addr>,
    /// Named groups of the first failure (`<F-USER>` is `user`), as far as an action of the jail asks for them.
    pub fields: Vec<(Box<str>, Box<str>)>,
}

/// A ban: one jail's hold on one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// What is banned: a single address has the full prefix length.
    pub prefix: IpNet,
    /// By whom.
    pub jail: JailName,
    /// Which packets are dropped; one value shared by all bans of a jail.
    pub scope: Arc<Scope>,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Until,
    /// Failures that led to it; 0 for a ban by hand.
    pub failures: u32,
    /// How often its address was banned, this ban included, as fail2ban counts: by its jail, by all jails with
    /// `bantime.overalljails`, and always 1 without `bantime.increment`.
    pub count: u32,
    /// It is held against its address. Not one that is no newer than the last that is: its lines were read again, or with
    /// `bantime.overalljails` another jail has banned in the same second, which fail2ban takes for the same.
    pub counted: bool,
    /// The last matched lines.
    pub lines: Vec<Box<str>>,
    /// What they were found by, and of whom.
    pub origin: Origin,
}

impl Ban {
    /// Its time is over.
    pub fn is_over(&self, now: Timestamp) -> bool {
        matches!(self.until, Until::At(end) if end <= now)
    }
}

/// What is known of an address, or of a text, below the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The failure that the rate is counted from.
    pub first: Timestamp,
    /// The newest failure.
    pub last: Timestamp,
    /// What is left of older failures, and each newer one.
    pub attempts: u32,
    /// Failures counted.
    pub failures: u32,
    /// The last matched lines.
    pub lines: Vec<Box<str>>,
    /// What they were found by, and of whom.
    pub origin: Origin,
}

/// What a jail knows of one address or text; see [`Engine::changes`](super::Engine::changes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The jail.
    pub jail: JailName,
    /// Whom it counts: a network (also of one address) or a text.
    pub who: FailureId,
    /// What it knows; `None`: nothing any more.
    pub pending: Option<Pending>,
    /// When it is too old to count.
    pub lapses: Timestamp,
}

/// Why a ban ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// Its time was over.
    Expired,
    /// Somebody lifted it.
    ByHand,
    /// Its jail is no longer configured.
    JailRemoved,
    /// Its jail has come to ignore whom it bans.
    Ignored,
}

/// Why a failure was not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SparedBy {
    /// `ignoreself`.
    OwnAddress,
    /// The allow list, which stands above every ban.
    AllowList(IpNet),
    /// An address or network of `ignoreip`.
    IgnoreIp(IpNet),
    /// A host name of `ignoreip`.
    IgnoreName(String),
    /// `ignorecommand`, now or not long ago (`ignorecache`).
    Command,
    /// The ban it led to would be over already.
    EndsInThePast,
    /// The ban it led to was lifted by hand since: it was read again after a crash.
    LiftedSince,
}

/// What is kept of those below the threshold, and of those who were banned, of all jails together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingTotals {
    /// Addresses counted.
    pub addresses: usize,
    /// At most so many: [`Limits::pending_failures`](super::Limits::pending_failures).
    pub most_addresses: usize,
    /// Addresses forgotten because there were more, since the daemon started.
    pub forgotten_addresses: u64,
    /// Bytes of their matched lines.
    pub evidence: usize,
    /// At most so many: [`Limits::evidence`](super::Limits::evidence).
    pub most_evidence: usize,
    /// Lines forgotten because there were more, since the daemon started.
    pub forgotten_lines: u64,
    /// Addresses whose bans are remembered, each jail counting its own.
    pub history: usize,
    /// At most so many: [`Limits::history`](super::Limits::history).
    pub most_history: usize,
    /// Addresses whose bans were forgotten because there were more, since the daemon started.
    pub forgotten_history: u64,
}
