//! Who was banned before, how often, and when last: what ban times grow by. The store holds the same and gives it back
//! at the start, so that no ban ever waits for a database.
use std::{collections::BTreeMap, ops::Bound, time::Duration};

use ipnet::IpNet;

use super::{Timestamp, Until};
use crate::config::JailName;

/// Addresses looked at in one turn for what is forgotten by now, and how often.
const SWEPT_AT_ONCE: usize = 8192;
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// A past is remembered for so many times the length of its last ban, and `dbpurgeage` more, as fail2ban has it.
const TIMES_ITS_LENGTH: u64 = 3;

/// What is remembered of the bans of one address by one jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The count of the last ban, at least 1; see [`Ban::count`](super::Ban::count).
    pub bans: u32,
    /// The last failure of the last ban, to the second.
    pub last: Timestamp,
    /// The end that ban was given.
    pub until: Until,
}

/// The same in 12 bytes, since there may be a million: times in Unix seconds.
#[derive(Clone, Copy, Debug)]
struct Entry {
    bans: u32,
    last: u32,
    lasts: u32,
}

/// A ban for ever.
const FOREVER: u32 = u32::MAX;

/// Where a walk through the history stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastPlace {
    jail: JailName,
    prefix: IpNet,
}

/// All that is remembered, by jail and prefix.
pub(super) struct History {
    jails: BTreeMap<JailName, BTreeMap<IpNet, Entry>>,
    len: usize,
    most: usize,
    purge_age: Duration,
    forgotten: u64,
    sweep: Option<(Timestamp, Option<PastPlace>)>,
}

impl Entry {
    fn of(past: Past) -> Entry {
        let (micros, second) = (past.last.micros(), 1_000_000);
        // As Python rounds, halves to even: what a ban is compared with turns on it.
        let rest = micros.rem_euclid(second) * 2;
        let down = micros.div_euclid(second);
        let up = rest > second || (rest == second && down % 2 == 1);
        let last = u32::try_from(down + i64::from(up)).unwrap_or(0);
        let lasts = match past.until {
            Until::Forever => FOREVER,
            Until::At(end) => {
                u32::try_from(end.seconds() - i64::from(last)).unwrap_or(0).min(FOREVER - 1)
            }
        };
        Entry { bans: past.bans, last, lasts }
    }

    fn past(self) -> Past {
        let last = Timestamp::from_seconds(self.last.into());
        let until = match self.lasts {
            FOREVER => Until::Forever,
            seconds => Until::At(last.plus(Duration::from_secs(seconds.into()))),
        };
        Past { bans: self.bans, last, until }
    }

    fn is_forgotten(self, now: Timestamp, purge_age: Duration) -> bool {
        let kept = Duration::from_secs(TIMES_ITS_LENGTH * u64::from(self.lasts)) + purge_age;
        self.lasts != FOREVER
            && Timestamp::from_seconds(self.last.into()).plus(kept).seconds() < now.seconds()
    }
}

impl History {
    /// Room for `most` addresses.
    pub fn new(most: usize, purge_age: Duration) -> History {
        let jails = BTreeMap::new();
        History { jails, len: 0, most, purge_age, forgotten: 0, sweep: None }
    }

    /// Other bounds, kept from the next ban on.
    pub fn set_limits(&mut self, most: usize, purge_age: Duration) {
        (self.most, self.purge_age) = (most, purge_age);
    }

    /// What is remembered of a prefix in one jail.
    pub fn of(&self, jail: &JailName, prefix: IpNet, now: Timestamp) -> Option<Past> {
        let entry = *self.jails.get(jail)?.get(&prefix)?;
        (!entry.is_forgotten(now, self.purge_age)).then(|| entry.past())
    }

    /// The same over all jails: the sum of their counts, and the last ban of any.
    pub fn over_all(&self, prefix: IpNet, now: Timestamp) -> Option<Past> {
        let pasts = self.jails.keys().filter_map(|jail| self.of(jail, prefix, now));
        pasts.reduce(|one, other| Past {
            bans: one.bans.saturating_add(other.bans),
            last: one.last.max(other.last),
            until: one.until.max(other.until),
        })
    }

    /// Remembers a ban.
    pub fn enter(&mut self, jail: &JailName, prefix: IpNet, past: Past, now: Timestamp) {
        if self.len >= self.most && self.of(jail, prefix, now).is_none() {
            self.make_room(now);
        }
        let of_jail = self.jails.entry(jail.clone()).or_default();
        self.len += usize::from(of_jail.insert(prefix, Entry::of(past)).is_none());
        self.sweep.get_or_insert((now.plus(SWEEP_EVERY), None));
    }

    /// Forgets what somebody pardoned; whether there was something.
    pub fn forget(&mut self, jail: &JailName, prefix: IpNet) -> bool {
        let Some(of_jail) = self.jails.get_mut(jail) else { return false };
        let known = of_jail.remove(&prefix).is_some();
        if of_jail.is_empty() {
            self.jails.remove(jail);
        }
        self.len -= usize::from(known);
        known
    }

    /// Forgets all that a jail remembers.
    pub fn forget_jail(&mut self, jail: &JailName) {
        self.len -= self.jails.remove(jail).map_or(0, |of_jail| of_jail.len());
    }

    /// The jails that remember somebody, also those no longer configured.
    pub fn jails(&self) -> impl Iterator<Item = &JailName> {
        self.jails.keys()
    }

    /// What follows `place`, from the first on where there is none, and where the next step goes on.
    pub fn step(
        &self,
        place: Option<&PastPlace>,
        most: usize,
    ) -> (Vec<(JailName, IpNet, Past)>, Option<PastPlace>) {
        let jails = match place {
            None => self.jails.range::<JailName, _>(..),
            Some(place) => self.jails.range(&place.jail..),
        };
        let entries = jails.flat_map(|(jail, of_jail)| {
            let after = place.filter(|place| place.jail == *jail).map(|place| place.prefix);
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let entries = of_jail.range((from, Bound::Unbounded));
            entries.map(move |(prefix, entry)| (jail.clone(), *prefix, entry.past()))
        });
        let found: Vec<_> = entries.take(most).collect();
        let last =
            found.last().map(|(jail, prefix, _)| PastPlace { jail: jail.clone(), prefix: *prefix });
        (found, last)
    }

    /// Drops some of what is forgotten by now, where it is due.
    pub fn sweep(&mut self, now: Timestamp) {
        let Some((due, place)) = self.sweep.take() else { return };
        if due > now {
            self.sweep = Some((due, place));
            return;
        }
        let (found, last) = self.step(place.as_ref(), SWEPT_AT_ONCE);
        for (jail, prefix, _) in found {
            if self.of(&jail, prefix, now).is_none() {
                self.forget(&jail, prefix);
            }
        }
        self.sweep = (self.len > 0).then(|| (now.plus(SWEEP_EVERY), last));
    }

    /// When [`History::sweep`] next has work.
    pub fn next_sweep(&self) -> Option<Timestamp> {
        self.sweep.as_ref().map(|(due, _)| *due)
    }

    /// How many addresses are remembered, each jail counting its own.
    pub fn len(&self) -> usize {
        self.len
    }

    /// At most so many.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many were forgotten because there were more, since the start.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Drops the sixteenth whose last ban is oldest, after all that nobody needs any longer: a scan for every so many
    /// insertions, not for each.
    fn make_room(&mut self, now: Timestamp) {
        let (most, purge_age) = (self.most, self.purge_age);
        self.retain(|entry| !entry.is_forgotten(now, purge_age));
        if self.len < most {
            return;
        }
        let mut lasts: Vec<u32> =
            self.jails.values().flat_map(BTreeMap::values).map(|entry| entry.last).collect();
        let nth = (lasts.len() / 16).min(lasts.len().saturating_sub(1));
        if lasts.is_empty() {
            return;
        }
        let (_, &mut limit, _) = lasts.select_nth_unstable(nth);
        let (before, mut surplus) = (self.len, nth + 1);
        self.retain(|entry| {
            let drop = surplus > 0 && entry.last <= limit;
            surplus -= usize::from(drop);
            !drop
        });
        self.forgotten += (before - self.len) as u64;
    }

    fn retain(&mut self, mut keep: impl FnMut(Entry) -> bool) {
        self.jails.retain(|_, of_jail| {
            of_jail.retain(|_, entry| keep(*entry));
            !of_jail.is_empty()
        });
        self.len = self.jails.values().map(BTreeMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn past(bans: u32, last: i64, lasts: i64) -> Past {
        Past { bans, last: at(last), until: Until::At(at(last + lasts)) }
    }

    fn net(nth: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(nth.to_be_bytes()))
    }

    #[test]
    fn a_past_is_remembered_for_three_times_its_ban_and_dbpurgeage() {
        let mut history = History::new(100, HOUR);
        let (jail, other) = (JailName::new("sshd"), JailName::new("web"));
        history.enter(&jail, net(1), past(4, 1000, 600), at(1000));
        let end = 1000 + 3 * 600 + 3600;
        assert_eq!(history.of(&jail, net(1), at(end)), Some(past(4, 1000, 600)));
        assert_eq!(history.of(&jail, net(1), at(end + 1)), None);
        assert_eq!(history.of(&other, net(1), at(1000)), None);
        history.enter(&other, net(1), Past { until: Until::Forever, ..past(2, 900, 0) }, at(1000));
        let all = history.over_all(net(1), at(1000)).expect("both");
        assert_eq!((all.bans, all.last), (6, at(1000)));
        assert_eq!(history.over_all(net(1), at(end + 1)).map(|past| past.bans), Some(2));
        history.sweep(at(end + 1));
        assert_eq!(history.len(), 1, "what does not end stays");
        assert!(history.forget(&other, net(1)) && !history.forget(&other, net(1)));
        history.sweep(at(end + 1000));
        assert_eq!((history.len(), history.next_sweep()), (0, None));
    }

    #[test]
    fn times_are_rounded_as_fail2bans_database_has_them() {
        let mut history = History::new(100, HOUR);
        let jail = JailName::new("sshd");
        for (micros, expect) in [(500_000, 0), (1_500_000, 2), (1_499_999, 1), (2_500_001, 3)] {
            let last = Timestamp::from_micros(micros);
            history.enter(&jail, net(1), Past { bans: 1, last, until: Until::Forever }, at(0));
            let found = history.of(&jail, net(1), at(0)).expect("entered");
            assert_eq!(found.last, at(expect), "{micros}");
        }
    }

    #[test]
    fn the_oldest_sixteenth_goes_when_there_is_no_room() {
        let mut history = History::new(160, HOUR);
        let jail = JailName::new("sshd");
        for nth in 0..160 {
            history.enter(&jail, net(nth), past(1, i64::from(nth), 600), at(200));
        }
        history.enter(&jail, net(7), past(2, 300, 600), at(300));
        assert_eq!(
            (history.len(), history.forgotten()),
            (160, 0),
            "one that is known takes no room"
        );
        history.enter(&jail, net(1000), past(1, 300, 600), at(300));
        assert_eq!((history.len(), history.forgotten()), (150, 11));
        assert!(history.of(&jail, net(7), at(300)).is_some());
        assert!(history.of(&jail, net(0), at(300)).is_none());
    }

    #[test]
    fn a_walk_meets_everybody() {
        let mut history = History::new(1000, HOUR);
        for nth in 0..50 {
            let jail = JailName::new(["a", "b", "c"][nth % 3]);
            history.enter(&jail, net(nth as u32), past(1, 5, 600), at(5));
        }
        let (mut place, mut met) = (None, Vec::new());
        loop {
            let (found, last) = history.step(place.as_ref(), 7);
            met.extend(found.into_iter().map(|(jail, prefix, _)| (jail, prefix)));
            place = last;
            if place.is_none() {
                break;
            }
        }
        assert_eq!(met.len(), 50);
        assert!(met.is_sorted());
    }
}
