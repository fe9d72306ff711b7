//! Failures counted towards a ban, in fail2ban's arithmetic: a rate, not a window.
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Origin, Pending, Timestamp,
    evidence::{Chain, Evidence, Matched},
    rules,
};
use crate::config::{CountingSettings, Settings};

/// What an attacker could make grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses below the threshold that all jails count at once; beyond it the jail with the most forgets
    /// the sixteenth whose last failure is oldest. At least 16.
    pub pending_failures: usize,
    /// Bytes of matched lines kept for them; beyond it the oldest lines go first.
    pub evidence: usize,
    /// Addresses whose bans are remembered, each jail counting its own; beyond it the sixteenth whose last ban is oldest
    /// is forgotten.
    pub history: usize,
    /// How long they are remembered, beside three times the length of the last ban.
    pub purge_age: Duration,
    /// New bans a minute that raise an alarm; 0: however many.
    pub bans_a_minute: u32,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Limits {
        let CountingSettings { max_pending, max_evidence, max_history, ban_ceiling } =
            settings.counting;
        Limits {
            pending_failures: max_pending as usize,
            evidence: (max_evidence as usize) << 20,
            history: max_history as usize,
            purge_age: settings.store.purge_age,
            bans_a_minute: ban_ceiling,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            pending_failures: 1_000_000,
            evidence: 24 << 20,
            history: 1_000_000,
            purge_age: Duration::from_secs(86_400),
            bans_a_minute: 0,
        }
    }
}

/// What is counted: a prefix, or a text that names no address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Prefix(IpNet),
    Text(Box<str>),
}

/// What is known of one key: 32 bytes, since there may be a million.
#[derive(Clone, Copy, Debug)]
struct Record {
    first: Timestamp,
    last: Timestamp,
    attempts: u32,
    failures: u32,
    lines: Chain,
}

const _: () = assert!(size_of::<Record>() == 32);

/// Failures of one jail.
#[derive(Default)]
pub(super) struct Counter {
    /// Single IPv4 addresses, which are most: a quarter of the room of the other keys.
    v4: HashMap<Ipv4Addr, Record>,
    others: HashMap<Key, Record>,
    /// How often those had been banned whose first failure counted for more: a past that is forgotten since still
    /// counts, as in fail2ban.
    bans: HashMap<Key, u32>,
    /// Named groups of each first failure, where somebody asks for them, and their bytes.
    fields: HashMap<Key, Fields>,
    field_bytes: usize,
    /// What was counted since it was last asked for; `None` while nobody wants to know.
    changed: Option<HashSet<Key>>,
}

type Fields = Vec<(Box<str>, Box<str>)>;

/// Bytes of named groups that a jail keeps, of one address and of all; what finds no room is not kept.
const MOST_FIELDS: usize = 4 << 10;
const ALL_FIELDS: usize = 4 << 20;

/// What fields cost, beside the bytes the key.
fn cost(fields: &Fields) -> usize {
    96 + fields.iter().map(|(name, value)| 32 + name.len() + value.len()).sum::<usize>()
}

/// One failure as it is counted.
pub(super) struct Failure {
    pub at: Timestamp,
    pub lines: Vec<Box<str>>,
    /// The number of its failregex.
    pub rule: u32,
    /// Who failed, where a wider prefix is counted.
    pub address: Option<Ipv6Addr>,
    /// Named groups, where they are wanted.
    pub fields: Vec<(Box<str>, Box<str>)>,
}

/// The rules of one jail.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub max_retry: u32,
    pub find_time: Duration,
    pub max_matches: usize,
}

/// What counting a failure led to.
#[derive(Default)]
pub(super) struct Counted {
    pub attempts: u32,
    /// The threshold is reached; the record is gone from the counter.
    pub reached: Option<Pending>,
    /// How often it had been banned before the first of these failures, as far as that counted for more.
    pub bans: u32,
}

/// The address of a key that is one of IPv4.
fn v4_of(key: &Key) -> Option<Ipv4Addr> {
    match key {
        Key::Prefix(IpNet::V4(net)) if net.prefix_len() == 32 => Some(net.addr()),
        _ => None,
    }
}

fn key_of(address: Ipv4Addr) -> Key {
    Key::Prefix(IpNet::from(IpAddr::from(address)))
}

impl Record {
    fn count(&mut self, at: Timestamp, find_time: Duration) {
        if at > self.last {
            let start = at.minus(find_time);
            if self.first < start {
                let since_first = (at.micros() - self.first.micros()) as f64;
                let kept = f64::from(self.attempts) / since_first * find_time.as_micros() as f64;
                // Python rounds halves to even, and thresholds turn on it.
                self.attempts = kept.round_ties_even() as u32;
                self.first = start;
            }
            self.last = at;
        }
        self.add(1);
    }

    fn add(&mut self, attempts: u32) {
        self.attempts = self.attempts.saturating_add(attempts);
        self.failures = self.failures.saturating_add(1);
    }

    fn pending(&self, evidence: &Evidence, most: usize) -> Pending {
        let told = evidence.of(self.lines, most);
        let rule = evidence.rules.get(told.rule).cloned();
        Pending {
            first: self.first,
            last: self.last,
            attempts: self.attempts,
            failures: self.failures,
            lines: told.texts,
            origin: Origin { rule, addresses: told.addresses, fields: Vec::new() },
        }
    }
}

impl Counter {
    /// Counts one failure of `key`.
    pub fn count(
        &mut self,
        key: Key,
        failure: Failure,
        rules: Rules,
        evidence: &mut Evidence,
    ) -> Counted {
        let Failure { at, lines, rule, address, fields } = failure;
        if let Some(changed) = &mut self.changed {
            changed.insert(key.clone());
        }
        let new =
            || Record { first: at, last: at, attempts: 0, failures: 0, lines: Chain::default() };
        let record = match v4_of(&key) {
            Some(address) => self.v4.entry(address).or_insert_with(new),
            None => self.others.entry(key.clone()).or_insert_with(new),
        };
        let is_first = record.attempts == 0;
        record.count(at, rules.find_time);
        for text in lines.into_iter().filter(|_| rules.max_matches > 0) {
            evidence.add(&mut record.lines, Matched { text, rule, address });
        }
        let bytes = cost(&fields);
        if is_first
            && !fields.is_empty()
            && bytes <= MOST_FIELDS
            && self.field_bytes + bytes <= ALL_FIELDS
        {
            self.field_bytes += bytes;
            self.fields.insert(key.clone(), fields);
        }
        self.judge(&key, rules, evidence).unwrap_or_default()
    }

    fn take_fields(&mut self, key: &Key) -> Fields {
        // Most jails keep none.
        let fields = self.fields.remove(key);
        self.field_bytes -= fields.as_ref().map_or(0, cost);
        fields.unwrap_or_default()
    }

    /// Counts a failure of `key`, which was banned so often, for `more` than once; and, as fail2ban does, for one failure
    /// more. `None`: it is not counted at present.
    pub fn count_more(
        &mut self,
        key: &Key,
        (more, bans): (u32, u32),
        rules: Rules,
        evidence: &mut Evidence,
    ) -> Option<Counted> {
        let record = self.record(key)?;
        let is_first = record.failures == 1;
        record.add(more);
        if is_first {
            self.bans.insert(key.clone(), bans);
        }
        self.judge(key, rules, evidence)
    }

    fn record(&mut self, key: &Key) -> Option<&mut Record> {
        match v4_of(key) {
            Some(address) => self.v4.get_mut(&address),
            None => self.others.get_mut(key),
        }
    }

    /// Takes a key out that has reached the threshold.
    fn judge(&mut self, key: &Key, rules: Rules, evidence: &mut Evidence) -> Option<Counted> {
        let record = self.record(key)?;
        let attempts = record.attempts;
        if attempts < rules.max_retry {
            // Now and then, so that who fails for ever below the threshold keeps no more than twice as many.
            if (record.failures as usize).is_multiple_of(rules.max_matches.max(1)) {
                evidence.trim(&mut record.lines, rules.max_matches);
            }
            return Some(Counted { attempts, ..Counted::default() });
        }
        let mut reached = record.pending(evidence, rules.max_matches);
        evidence.trim(&mut record.lines, 0);
        reached.origin.fields = self.take_fields(key);
        match v4_of(key) {
            Some(address) => self.v4.remove(&address),
            None => self.others.remove(key),
        };
        let bans = self.bans.remove(key).unwrap_or_default();
        Some(Counted { attempts, reached: Some(reached), bans })
    }

    /// What is known of one key.
    pub fn pending(&self, key: &Key, evidence: &Evidence, lines: usize) -> Option<Pending> {
        let record = match v4_of(key) {
            Some(address) => self.v4.get(&address),
            None => self.others.get(key),
        };
        record.map(|record| record.pending(evidence, lines))
    }

    /// Whether it is counted already.
    pub fn knows(&self, key: &Key) -> bool {
        match v4_of(key) {
            Some(address) => self.v4.contains_key(&address),
            None => self.others.contains_key(key),
        }
    }

    /// The newest failure of a key.
    pub fn last_failure(&self, key: &Key) -> Option<Timestamp> {
        let record = match v4_of(key) {
            Some(address) => self.v4.get(&address),
            None => self.others.get(key),
        };
        record.map(|record| record.last)
    }

    fn retain(&mut self, evidence: &mut Evidence, mut keep: impl FnMut(&Record) -> bool) {
        let mut keep = |record: &mut Record| {
            let keep = keep(record);
            if !keep {
                evidence.trim(&mut record.lines, 0);
            }
            keep
        };
        self.v4.retain(|_, record| keep(record));
        self.others.retain(|_, record| keep(record));
        let mut bans = std::mem::take(&mut self.bans);
        bans.retain(|key, _| self.knows(key));
        self.bans = bans;
        let mut fields = std::mem::take(&mut self.fields);
        fields.retain(|key, _| self.knows(key));
        self.field_bytes = fields.values().map(cost).sum();
        self.fields = fields;
    }

    /// Drops what is too old to count.
    pub fn forget_lapsed(&mut self, before: Timestamp, evidence: &mut Evidence) {
        self.retain(evidence, |record| record.last > before);
        if self.v4.capacity() > 4 * self.v4.len().max(1024) {
            self.v4.shrink_to(2 * self.v4.len());
        }
        if self.others.capacity() > 4 * self.others.len().max(1024) {
            self.others.shrink_to(2 * self.others.len());
        }
    }

    /// Drops the sixteenth whose last failure is oldest: a scan for every so many insertions, not for each.
    /// How many that were.
    pub fn forget_oldest(&mut self, evidence: &mut Evidence) -> usize {
        let records = self.v4.values().chain(self.others.values());
        let mut ends: Vec<Timestamp> = records.map(|record| record.last).collect();
        let Some(nth) = (ends.len() / 16).max(1).checked_sub(1).filter(|nth| *nth < ends.len())
        else {
            return 0;
        };
        let (_, &mut limit, _) = ends.select_nth_unstable(nth);
        let (before, mut surplus) = (self.len(), nth + 1);
        self.retain(evidence, |record| {
            let drop = surplus > 0 && record.last <= limit;
            surplus -= usize::from(drop);
            !drop
        });
        before - self.len()
    }

    /// From now on notes what changes; with `all` as if everything just had.
    pub fn note_changes(&mut self, all: bool) {
        let changed = self.changed.get_or_insert_default();
        if all {
            changed.extend(self.v4.keys().copied().map(key_of));
            changed.extend(self.others.keys().cloned());
        }
    }

    /// At most `most` keys that changed since they were last given, with what is known of them now, no more than
    /// `lines` lines each.
    pub fn changes(
        &mut self,
        most: usize,
        evidence: &Evidence,
        lines: usize,
    ) -> Vec<(Key, Option<Pending>)> {
        let Some(changed) = &mut self.changed else { return Vec::new() };
        let given: Vec<Key> = changed.iter().take(most).cloned().collect();
        for key in &given {
            changed.remove(key);
        }
        if changed.is_empty() && changed.capacity() > 4096 {
            changed.shrink_to(1024);
        }
        given
            .into_iter()
            .map(|key| {
                let pending = self.pending(&key, evidence, lines);
                (key, pending)
            })
            .collect()
    }

    /// How many keys [`Counter::changes`] has to give.
    pub fn changed(&self) -> usize {
        self.changed.as_ref().map_or(0, HashSet::len)
    }

    /// Takes up what was known before.
    pub fn restore(&mut self, key: Key, known: Pending, evidence: &mut Evidence) {
        let Pending { first, last, attempts, failures, lines, origin: _ } = known;
        let mut record = Record { first, last, attempts, failures, lines: Chain::default() };
        for text in lines {
            evidence.add(&mut record.lines, Matched { text, rule: rules::NONE, address: None });
        }
        let before = match v4_of(&key) {
            Some(address) => self.v4.insert(address, record),
            None => self.others.insert(key, record),
        };
        if let Some(mut before) = before {
            evidence.trim(&mut before.lines, 0);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, evidence: &mut Evidence) {
        self.retain(evidence, |_| false);
    }

    /// Keys below the threshold.
    pub fn len(&self) -> usize {
        self.v4.len() + self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { max_retry: 5, find_time: Duration::from_secs(600), max_matches: 2 };

    fn key(nth: u32) -> Key {
        Key::Prefix(IpNet::from(IpAddr::from(nth.to_be_bytes())))
    }

    fn evidence() -> Evidence {
        Evidence::new(Limits::default().evidence)
    }

    fn failure(at: i64) -> Failure {
        let (lines, fields) = (vec![], vec![]);
        Failure { at: Timestamp::from_seconds(at), lines, rule: 0, address: None, fields }
    }

    /// Attempts after each failure; `!` where the threshold was reached.
    #[track_caller]
    fn check(failures_at: &[i64], expect: &str) {
        let (mut counter, mut evidence) = (Counter::default(), evidence());
        let shown: Vec<String> = failures_at
            .iter()
            .map(|&at| {
                let failure = Failure { lines: vec!["line".into()], ..failure(at) };
                let counted = counter.count(key(1), failure, RULES, &mut evidence);
                match counted.reached {
                    Some(record) => format!("{}!{}", counted.attempts, record.last.seconds()),
                    None => counted.attempts.to_string(),
                }
            })
            .collect();
        assert_eq!(shown.join(" "), expect);
    }

    #[test]
    fn findtime_is_a_rate_not_a_window() {
        check(&[0, 100, 200, 300, 400, 500], "1 2 3 4 5!400 1");
        check(&[0, 500, 1000, 1500, 2000], "1 2 2 2 2");
        check(&[0, 300, 600, 900, 1200], "1 2 3 3 3");
        check(&[0, 1, 2, 3, 599, 601], "1 2 3 4 5!599 1");
        check(&[0, 150, 300, 450, 600], "1 2 3 4 5!600");
        check(&[0, 1, 2, 3, 700, 701], "1 2 3 4 4 5!701");
    }

    #[test]
    fn the_newest_failure_dates_the_ban_whatever_the_order() {
        check(&[100, 50, 20, 10, 0], "1 2 3 4 5!100");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let (mut counter, mut evidence) = (Counter::default(), evidence());
        for nth in 0..5 {
            let lines = vec![format!("line {nth}").into_boxed_str()];
            let failure = Failure { lines, ..failure(nth) };
            let counted = counter.count(key(1), failure, RULES, &mut evidence);
            if let Some(record) = counted.reached {
                assert_eq!(record.lines, ["line 3".into(), "line 4".into()]);
                assert_eq!(evidence.bytes(), 0, "a ban takes its lines along");
                return;
            }
        }
        panic!("never reached the threshold");
    }

    #[test]
    fn who_fails_for_ever_below_the_threshold_keeps_few_lines() {
        let (mut counter, mut evidence) = (Counter::default(), evidence());
        for nth in 0..100 {
            let failure = Failure { lines: vec!["line".into()], ..failure(nth * 1000) };
            assert!(counter.count(key(1), failure, RULES, &mut evidence).reached.is_none());
        }
        assert!(evidence.of(counter.v4.values().next().expect("one").lines, 100).texts.len() <= 4);
        counter.forget_lapsed(Timestamp::from_seconds(1_000_000), &mut evidence);
        assert_eq!((counter.len(), evidence.bytes()), (0, 0));
    }

    #[test]
    fn the_oldest_sixteenth_goes_first() {
        let (mut counter, mut evidence) = (Counter::default(), evidence());
        for nth in 0..160 {
            counter.count(key(nth), failure(nth.into()), RULES, &mut evidence);
        }
        assert_eq!(counter.forget_oldest(&mut evidence), 10);
        assert_eq!(counter.len(), 150);
        assert!(counter.knows(&key(10)) && !counter.knows(&key(9)));
    }

    #[test]
    fn all_of_one_second_are_forgotten_no_further_than_a_sixteenth() {
        let (mut counter, mut evidence) = (Counter::default(), evidence());
        for nth in 0..32 {
            counter.count(key(nth), failure(7), RULES, &mut evidence);
        }
        assert_eq!(counter.forget_oldest(&mut evidence), 2);
        assert_eq!(counter.len(), 30);
    }

    #[test]
    fn keys_of_every_kind_are_told_apart() {
        let (mut counter, mut evidence) = (Counter::default(), evidence());
        let net = |text: &str| Key::Prefix(text.parse().expect(text));
        let keys =
            [net("192.0.2.1/32"), net("192.0.2.0/31"), net("2001:db8::/64"), Key::Text("x".into())];
        counter.note_changes(false);
        for round in 1..=2 {
            for key in &keys {
                let counted = counter.count(key.clone(), failure(7), RULES, &mut evidence);
                assert_eq!(counted.attempts, round, "{key:?}");
            }
        }
        assert_eq!((counter.len(), counter.changed()), (4, 4));
        let mut other = Counter::default();
        for (key, pending) in counter.changes(9, &evidence, 9) {
            other.restore(key, pending.expect("it is counted"), &mut evidence);
        }
        assert!(keys.iter().all(|key| other.knows(key)));
    }
}
