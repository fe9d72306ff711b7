//! Failures counted towards a ban, in fail2ban's arithmetic: a rate, not a window.
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ipnet::IpNet;

use super::{Pending, Timestamp};

/// What an attacker could make grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses a jail counts at once; beyond it the oldest sixteenth is forgotten. At least 16.
    pub pending_failures: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { pending_failures: 1_000_000 }
    }
}

/// What is counted: a prefix, or a text that names no address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Prefix(IpNet),
    Text(Box<str>),
}

/// Failures of one jail.
#[derive(Default)]
pub(super) struct Counter {
    records: HashMap<Key, Pending>,
    /// What was counted since it was last asked for; `None` while nobody wants to know.
    changed: Option<HashSet<Key>>,
}

/// One failure as it is counted.
pub(super) struct Failure {
    pub at: Timestamp,
    pub lines: Vec<Box<str>>,
}

/// The rules of one jail.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub max_retry: u32,
    pub find_time: Duration,
    pub max_matches: usize,
}

/// What counting a failure led to.
pub(super) struct Counted {
    pub attempts: u32,
    /// The threshold is reached; the record is gone from the counter.
    pub reached: Option<Pending>,
    /// Addresses forgotten to make room.
    pub forgotten: usize,
}

impl Counter {
    /// Counts one failure of `key`.
    pub fn count(&mut self, key: Key, failure: Failure, rules: Rules, limits: Limits) -> Counted {
        let mut forgotten = 0;
        if !self.records.contains_key(&key) && self.records.len() >= limits.pending_failures {
            forgotten = self.forget_oldest();
        }
        if let Some(changed) = &mut self.changed {
            changed.insert(key.clone());
        }
        let record = self.records.entry(key.clone()).or_insert_with(|| Pending {
            first: failure.at,
            last: failure.at,
            attempts: 0,
            failures: 0,
            lines: Vec::new(),
        });
        if failure.at > record.last {
            let start = failure.at.minus(rules.find_time);
            if record.first < start {
                let since_first = (failure.at.micros() - record.first.micros()) as f64;
                let kept =
                    f64::from(record.attempts) / since_first * rules.find_time.as_micros() as f64;
                // Python rounds halves to even, and thresholds turn on it.
                record.attempts = kept.round_ties_even() as u32;
                record.first = start;
            }
            record.last = failure.at;
        }
        record.attempts = record.attempts.saturating_add(1);
        record.failures = record.failures.saturating_add(1);
        record.lines.extend(failure.lines);
        let surplus = record.lines.len().saturating_sub(rules.max_matches);
        record.lines.drain(..surplus);
        let attempts = record.attempts;
        let reached = if attempts >= rules.max_retry { self.records.remove(&key) } else { None };
        Counted { attempts, reached, forgotten }
    }

    /// Drops what is too old to count.
    pub fn forget_lapsed(&mut self, before: Timestamp) {
        self.records.retain(|_, record| record.last > before);
        if self.records.capacity() > 4 * self.records.len().max(1024) {
            self.records.shrink_to(2 * self.records.len());
        }
    }

    /// Drops the sixteenth whose last failure is oldest: a scan for every so many insertions, not for each.
    fn forget_oldest(&mut self) -> usize {
        let mut ends: Vec<Timestamp> = self.records.values().map(|record| record.last).collect();
        let Some(nth) = (ends.len() / 16).max(1).checked_sub(1).filter(|nth| *nth < ends.len())
        else {
            return 0;
        };
        let (_, &mut limit, _) = ends.select_nth_unstable(nth);
        let (before, mut surplus) = (self.records.len(), nth + 1);
        self.records.retain(|_, record| {
            let drop = surplus > 0 && record.last <= limit;
            surplus -= usize::from(drop);
            !drop
        });
        before - self.records.len()
    }

    /// From now on notes what changes; with `all` as if everything just had.
    pub fn note_changes(&mut self, all: bool) {
        let changed = self.changed.get_or_insert_default();
        if all {
            changed.extend(self.records.keys().cloned());
        }
    }

    /// At most `most` keys that changed since they were last given, with what is known of them now.
    pub fn changes(&mut self, most: usize) -> Vec<(Key, Option<Pending>)> {
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
                let record = self.records.get(&key).cloned();
                (key, record)
            })
            .collect()
    }

    /// How many keys [`Counter::changes`] has to give.
    pub fn changed(&self) -> usize {
        self.changed.as_ref().map_or(0, HashSet::len)
    }

    /// Takes up what was known before.
    pub fn restore(&mut self, key: Key, record: Pending) {
        self.records.insert(key, record);
    }

    /// Keys below the threshold.
    pub fn len(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { max_retry: 5, find_time: Duration::from_secs(600), max_matches: 2 };

    fn key(nth: u32) -> Key {
        Key::Prefix(IpNet::from(std::net::IpAddr::from(nth.to_be_bytes())))
    }

    /// Attempts after each failure; `!` where the threshold was reached.
    #[track_caller]
    fn check(failures_at: &[i64], expect: &str) {
        let mut counter = Counter::default();
        let shown: Vec<String> = failures_at
            .iter()
            .map(|&at| {
                let failure =
                    Failure { at: Timestamp::from_seconds(at), lines: vec!["line".into()] };
                let counted = counter.count(key(1), failure, RULES, Limits::default());
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
        let mut counter = Counter::default();
        for nth in 0..5 {
            let lines = vec![format!("line {nth}").into_boxed_str()];
            let counted = counter.count(
                key(1),
                Failure { at: Timestamp::from_seconds(nth), lines },
                RULES,
                Limits::default(),
            );
            if let Some(record) = counted.reached {
                assert_eq!(record.lines, ["line 3".into(), "line 4".into()]);
                return;
            }
        }
        panic!("never reached the threshold");
    }

    #[test]
    fn pending_failures_are_bounded_and_the_oldest_go_first() {
        let limits = Limits { pending_failures: 160 };
        let mut counter = Counter::default();
        for nth in 0..160 {
            let failure = Failure { at: Timestamp::from_seconds(nth.into()), lines: vec![] };
            assert_eq!(counter.count(key(nth), failure, RULES, limits).forgotten, 0);
        }
        let failure = |at| Failure { at: Timestamp::from_seconds(at), lines: vec![] };
        assert_eq!(counter.count(key(1000), failure(500), RULES, limits).forgotten, 10);
        assert_eq!(counter.len(), 151);
        assert_eq!(
            counter.count(key(10), failure(501), RULES, limits).attempts,
            2,
            "the eleventh oldest is kept"
        );
        assert_eq!(
            counter.count(key(9), failure(501), RULES, limits).attempts,
            1,
            "the tenth oldest is forgotten"
        );
    }

    #[test]
    fn all_of_one_second_are_forgotten_no_further_than_a_sixteenth() {
        let limits = Limits { pending_failures: 32 };
        let mut counter = Counter::default();
        for nth in 0..33 {
            counter.count(
                key(nth),
                Failure { at: Timestamp::from_seconds(7), lines: vec![] },
                RULES,
                limits,
            );
        }
        assert_eq!(counter.len(), 31);
    }
}
