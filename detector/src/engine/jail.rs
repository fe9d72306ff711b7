//! One jail: whom it spares, what it counts, when it bans.
use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    Ban, Change, FailRegex, FailureId, Finding, Origin, Pending, SparedBy, Timestamp, Until,
    asking::Answers,
    counter::{self, Counter, Failure, Key, Rules},
    evidence::Evidence,
    hearing::Ear,
    increment,
    names::Names,
    rules::{self, Rules as FailRegexes},
};
use crate::config::{BanTime, Ignore, JailSettings, Scope};

/// How often lapsed failures are cleared away.
const FORGET_EVERY: Duration = Duration::from_secs(20);

/// A jail at work.
pub struct Jail {
    settings: JailSettings,
    scope: Arc<Scope>,
    /// The numbers of its failregexes.
    rules: Box<[u32]>,
    /// An action asks for `<F-…>`.
    wants_fields: bool,
    counter: Counter,
    ear: Option<Ear>,
    pub(super) answers: Answers,
    totals: JailTotals,
    forget_at: Option<Timestamp>,
}

/// What a jail has done since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JailTotals {
    /// Failures counted.
    pub failed: u64,
    /// Bans made.
    pub banned: u64,
    /// Bans decided that could not be enforced.
    pub refused: u64,
}

/// What a counted failure led to.
pub(super) enum Outcome {
    Below,
    Ban(Ban),
    NoAddress(Box<str>),
}

/// A counted failure.
pub(super) struct Counted {
    pub attempts: u32,
    pub outcome: Outcome,
}

impl Jail {
    pub(super) fn new(settings: JailSettings) -> Jail {
        Jail {
            scope: Arc::new(settings.scope.clone()),
            ear: Ear::of(&settings),
            wants_fields: wants_fields(&settings),
            settings,
            rules: Box::default(),
            counter: Counter::default(),
            answers: Answers::default(),
            totals: JailTotals::default(),
            forget_at: None,
        }
    }

    /// The same jail, counting on, under new settings.
    pub(super) fn with_settings(self, settings: JailSettings) -> Jail {
        let (scope, ear) = (Arc::new(settings.scope.clone()), Ear::of(&settings));
        let wants_fields = wants_fields(&settings);
        Jail { scope, ear, wants_fields, answers: Answers::default(), settings, ..self }
    }

    /// Its failregexes get their numbers.
    pub(super) fn number_rules(&mut self, known: &mut FailRegexes) {
        self.rules = known.numbers(&self.settings.filter.failregex);
    }

    /// Its settings.
    pub fn settings(&self) -> &JailSettings {
        &self.settings
    }

    /// What its bans drop.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// What it has done.
    pub fn totals(&self) -> JailTotals {
        self.totals
    }

    /// Addresses below the threshold.
    pub fn currently_failed(&self) -> usize {
        self.counter.len()
    }

    /// Whether it hears of other jails' bans as they are made.
    pub fn hears_bans(&self) -> bool {
        self.ear.is_some()
    }

    pub(super) fn hear(&mut self, ban: &Ban, now: Timestamp) -> Option<Finding> {
        self.ear.as_mut()?.hear(ban, now)
    }

    /// How long a ban decided at `now` lasts, by this jail's `bantime`.
    pub fn ban_until(&self, since: Timestamp) -> Until {
        ban_end(self.settings.ban_time, since)
    }

    /// Why an address or network is not counted, if it is not.
    pub(super) fn spares(&self, prefix: IpNet, own: &[IpAddr], names: &Names) -> Option<SparedBy> {
        if self.settings.ignore_self && own.iter().any(|own| IpNet::from(*own) == prefix) {
            return Some(SparedBy::OwnAddress);
        }
        self.settings.ignore.iter().find_map(|ignore| match &ignore.value {
            Ignore::Net(net) => net.contains(&prefix).then_some(SparedBy::IgnoreIp(*net)),
            Ignore::Name(name) => {
                names.is(name, prefix).then(|| SparedBy::IgnoreName(name.clone()))
            }
        })
    }

    /// Everybody whom it spares, as far as known.
    pub(super) fn spared(&self, own: &[IpAddr], names: &Names) -> Vec<IpNet> {
        let own = own.iter().filter(|_| self.settings.ignore_self).copied();
        let mut spared: Vec<IpNet> = own.map(IpNet::from).collect();
        for ignore in &self.settings.ignore {
            match &ignore.value {
                Ignore::Net(net) => spared.push(*net),
                Ignore::Name(name) => {
                    spared.extend(names.addresses(name).iter().copied().map(IpNet::from));
                }
            }
        }
        spared
    }

    /// Whether a failure of this one would be the first that is counted.
    pub(super) fn is_new(&self, who: &FailureId) -> bool {
        !self.counter.knows(&self.key_of(who.clone()))
    }

    /// The newest failure of this one that is counted.
    pub(super) fn last_failure(&self, who: &FailureId) -> Option<Timestamp> {
        self.counter.last_failure(&self.key_of(who.clone()))
    }

    /// Forgets some that failed last long ago; how many.
    pub(super) fn forget_oldest(&mut self, evidence: &mut Evidence) -> usize {
        self.counter.forget_oldest(evidence)
    }

    /// Forgets all that it counts.
    pub(super) fn clear(&mut self, evidence: &mut Evidence) {
        self.counter.clear(evidence);
    }

    pub(super) fn count(
        &mut self,
        finding: Finding,
        now: Timestamp,
        evidence: &mut Evidence,
    ) -> Counted {
        self.totals.failed += 1;
        self.forget_at.get_or_insert(now.plus(FORGET_EVERY));
        let address = match finding.who {
            FailureId::Address(IpAddr::V6(address)) if self.settings.ipv6_prefix < 128 => {
                Some(address)
            }
            _ => None,
        };
        let rule = self.rules.get(finding.rule).copied().unwrap_or(rules::NONE);
        let (key, rules) = (self.key_of(finding.who), self.rules());
        // A line from the future, written by a clock that runs ahead, counts as of now.
        let fields = if self.wants_fields { finding.fields } else { Vec::new() };
        let failure =
            Failure { at: finding.at.min(now), lines: finding.lines, rule, address, fields };
        let counted = self.counter.count(key.clone(), failure, rules, evidence);
        self.decide(key, counted, evidence.rules.get(rule))
    }

    /// Counts the failure of one who was banned before, so often, for `more` than itself.
    pub(super) fn count_more(
        &mut self,
        who: &FailureId,
        (more, bans): (u32, u32),
        evidence: &mut Evidence,
    ) -> Counted {
        let (key, rules) = (self.key_of(who.clone()), self.rules());
        match self.counter.count_more(&key, (more, bans), rules, evidence) {
            Some(counted) => {
                self.totals.failed += 1;
                self.decide(key, counted, None)
            }
            None => Counted { attempts: 0, outcome: Outcome::Below },
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            max_retry: self.settings.max_retry,
            find_time: self.settings.find_time,
            max_matches: self.settings.max_matches as usize,
        }
    }

    /// `rule` found the last failure: it is told also where no lines are kept.
    fn decide(
        &self,
        key: Key,
        counted: counter::Counted,
        rule: Option<&Arc<FailRegex>>,
    ) -> Counted {
        let outcome = match (counted.reached, key) {
            (None, _) => Outcome::Below,
            (Some(_), Key::Text(text)) => Outcome::NoAddress(text),
            (Some(record), Key::Prefix(prefix)) => Outcome::Ban(Ban {
                prefix,
                jail: self.settings.name.clone(),
                scope: self.scope.clone(),
                since: record.last,
                until: self.ban_until(record.last),
                failures: record.failures,
                count: counted.bans.saturating_add(1),
                counted: true,
                lines: record.lines,
                origin: Origin { rule: rule.cloned().or(record.origin.rule), ..record.origin },
            }),
        };
        Counted { attempts: counted.attempts, outcome }
    }

    /// What it counts as one with this address, and what it knows of that.
    pub(super) fn standing(
        &self,
        address: IpAddr,
        evidence: &Evidence,
    ) -> (IpNet, Option<Pending>) {
        let prefix = self.unit_of(address);
        let lines = self.settings.max_matches as usize;
        (prefix, self.counter.pending(&Key::Prefix(prefix), evidence, lines))
    }

    fn key_of(&self, who: FailureId) -> Key {
        match who {
            FailureId::Address(address) => Key::Prefix(self.unit_of(address)),
            FailureId::Network(net) => Key::Prefix(net.trunc()),
            FailureId::Name(text) | FailureId::Text(text) => Key::Text(text),
        }
    }

    /// From now on notes whose counts change; with `all` as if everybody's just had.
    pub(super) fn note_changes(&mut self, all: bool) {
        self.counter.note_changes(all);
    }

    pub(super) fn changed(&self) -> usize {
        self.counter.changed()
    }

    pub(super) fn changes(
        &mut self,
        most: usize,
        evidence: &Evidence,
    ) -> impl Iterator<Item = Change> {
        let lines = self.settings.max_matches as usize;
        self.counter.changes(most, evidence, lines).into_iter().map(|(key, pending)| Change {
            jail: self.settings.name.clone(),
            lapses: pending.as_ref().map_or(Timestamp::from_micros(0), |pending| {
                pending.last.plus(self.settings.find_time)
            }),
            who: match key {
                Key::Prefix(prefix) => FailureId::Network(prefix),
                Key::Text(text) => FailureId::Text(text),
            },
            pending,
        })
    }

    /// Counts on from there, unless it is too old to count.
    pub(super) fn restore(
        &mut self,
        who: FailureId,
        pending: Pending,
        now: Timestamp,
        evidence: &mut Evidence,
    ) {
        if pending.last > now.minus(self.settings.find_time) {
            self.counter.restore(self.key_of(who), pending, evidence);
            self.forget_at.get_or_insert(now.plus(FORGET_EVERY));
        }
    }

    /// What this one is counted and banned as; `None`: a text is never banned.
    pub(super) fn prefix_of(&self, who: &FailureId) -> Option<IpNet> {
        match self.key_of(who.clone()) {
            Key::Prefix(prefix) => Some(prefix),
            Key::Text(_) => None,
        }
    }

    /// What is counted and banned as one: the address itself, or for IPv6 the jail's prefix.
    fn unit_of(&self, address: IpAddr) -> IpNet {
        let length = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => self.settings.ipv6_prefix.min(128),
        };
        IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |net| net.trunc())
    }

    pub(super) fn count_ban(&mut self) {
        self.totals.banned += 1;
    }

    /// A ban could not be enforced; `new` if it had only just been counted.
    pub(super) fn refuse_ban(&mut self, new: bool) {
        self.totals.banned -= u64::from(new).min(self.totals.banned);
        self.totals.refused += 1;
    }

    pub(super) fn forget_lapsed(&mut self, now: Timestamp, evidence: &mut Evidence) {
        if self.forget_at.is_some_and(|at| at <= now) {
            self.counter.forget_lapsed(now.minus(self.settings.find_time), evidence);
            self.forget_at = (self.counter.len() > 0).then(|| now.plus(FORGET_EVERY));
        }
    }

    pub(super) fn next_forget(&self) -> Option<Timestamp> {
        self.forget_at
    }
}

fn wants_fields(settings: &JailSettings) -> bool {
    settings.actions.iter().any(|action| action.wants().fields)
}

/// The end of a ban: a whole second, as the kernel's maps hold it, never earlier than decided.
pub fn ban_end(ban_time: BanTime, since: Timestamp) -> Until {
    match ban_time {
        BanTime::Permanent => Until::Forever,
        BanTime::Seconds(seconds) => increment::end(since, seconds.into()),
    }
}
