//! What has to be done now and then: the clock, growth, grace periods, comparison, alarms.
use std::time::{Duration, Instant};

use super::{
    Enforcer,
    attachments::chain,
    clock::STEP,
    growth::{self, Growth, Step},
    notice::Notice,
    protect::AllowList,
    seconds,
    tables::Counters,
    watch::LinkChange,
};
use crate::engine::{Timestamp, Until};

/// Between two looks at what became of packets.
const MINUTE: Duration = Duration::from_secs(60);
/// Changed entries settle in batches: one grace period serves many.
const SETTLING: Duration = Duration::from_millis(10);
/// Entries compared at once, and the pause for other work after it.
const COMPARED: usize = 1000;
const BREATH: Duration = Duration::from_millis(20);
/// Samples are read, and counts taken out of so many lines of each family, so often.
const HARVEST: Duration = Duration::from_secs(5);
const HARVESTED: u32 = 16_384;
/// Fewer packets in a minute say nothing of their kind.
const TELLING: u64 = 1000;

/// When what is due.
#[derive(Debug)]
pub(super) struct Upkeep {
    settle: Option<Instant>,
    minute: Instant,
    comparison: Instant,
    harvest: Instant,
    grow: Option<Instant>,
    clock_now: bool,
    counted: Option<Counters>,
    refused: u64,
    refused_at: u32,
    tell_refused: Instant,
}

impl Upkeep {
    /// From the start on.
    pub fn new(at: Instant, compare_every: Duration) -> Upkeep {
        Upkeep {
            settle: Some(at),
            minute: at + MINUTE,
            // Adoption itself compares.
            comparison: at + compare_every,
            harvest: at + HARVEST,
            grow: None,
            clock_now: false,
            counted: None,
            refused: 0,
            refused_at: 0,
            tell_refused: at,
        }
    }

    /// The next comparison comes no later than this.
    pub fn compare_within(&mut self, time: Duration) {
        self.comparison = self.comparison.min(Instant::now() + time);
    }

    /// Something was written that may have to settle.
    pub fn written(&mut self) {
        let soon = Instant::now() + SETTLING;
        self.settle = Some(self.settle.map_or(soon, |known| known.min(soon)));
    }

    /// A ban was refused, with so many of its family in the maps.
    pub fn refused(&mut self, bans: u32) {
        self.refused += 1;
        self.refused_at = bans;
    }
}

impl Enforcer {
    /// Does what is due: at most a few milliseconds of work, except where an interface is attached or the kernel swaps
    /// the program of one.
    pub fn maintain(&mut self, now: Timestamp) -> Vec<Notice> {
        let at = Instant::now();
        self.keep_time(at, now);
        if self.upkeep.settle.is_some_and(|due| due <= at) {
            self.upkeep.settle = self.set.tables.settle(at);
        }
        if self.upkeep.grow.is_some_and(|due| due <= at) {
            self.grow(now, at, false);
        }
        if self.attachments.again().is_some_and(|due| due <= at) {
            let told = self.attachments.follow(&self.network, &self.set.object.programs);
            self.notices.extend(told);
        }
        if self.upkeep.refused > 0 && self.upkeep.tell_refused <= at {
            self.upkeep.tell_refused = at + MINUTE;
            let bans = std::mem::take(&mut self.upkeep.refused);
            self.notices.push(Notice::Refused { bans, room: self.upkeep.refused_at });
        }
        if self.upkeep.minute <= at {
            self.upkeep.minute = at + MINUTE;
            self.look_at_packets();
            self.consider_growth();
        }
        if self.upkeep.comparison <= at {
            self.compare(at);
        }
        if self.upkeep.harvest <= at {
            self.upkeep.harvest = at + HARVEST;
            self.set.object.drops.tell(&self.network);
            self.set.tables.harvest(seconds(Until::At(now)), HARVESTED);
        }
        std::mem::take(&mut self.notices)
    }

    /// When [`Enforcer::maintain`] wants to run next.
    pub fn next_due(&self) -> Instant {
        if self.upkeep.clock_now || !self.notices.is_empty() {
            return Instant::now();
        }
        let fixed = [
            self.upkeep.minute,
            self.upkeep.comparison,
            self.upkeep.harvest,
            self.set.renewal().next(),
        ];
        let refused = (self.upkeep.refused > 0).then_some(self.upkeep.tell_refused);
        let open = [self.upkeep.settle, self.upkeep.grow, self.attachments.again(), refused];
        fixed
            .into_iter()
            .chain(open.into_iter().flatten())
            .min()
            .expect("the list of fixed times is not empty")
    }

    /// Follows a change that [`watch`](super::watch) reports.
    pub fn link_changed(&mut self, change: LinkChange) -> Vec<Notice> {
        match change {
            LinkChange::ClockStepped => self.upkeep.clock_now = true,
            LinkChange::Network(network) => {
                self.network = *network;
                self.renew_allow_list();
                let told = self.attachments.follow(&self.network, &self.set.object.programs);
                self.notices.extend(told);
            }
        }
        std::mem::take(&mut self.notices)
    }

    /// Brings the kernel's clock in line when a minute has passed or the wall clock was set.
    fn keep_time(&mut self, at: Instant, now: Timestamp) {
        let renewal = self.set.renewal();
        if !self.upkeep.clock_now && !renewal.is_due(at, now) {
            return;
        }
        self.upkeep.clock_now = false;
        let step = renewal.step(at, now);
        if step.unsigned_abs() > STEP.as_micros() {
            let millis = i64::try_from(step / 1000).unwrap_or(i64::MAX);
            self.notices.push(Notice::ClockStepped { millis });
        }
        let also = self.growth.filling().map(|set| set.set_clock(now));
        if let Err(fault) = self.set.set_clock(now).and(also.unwrap_or(Ok(()))) {
            self.notices.push(Notice::ClockFault { why: chain(&fault) });
        }
    }

    /// Own addresses and gateways as they are now.
    pub(super) fn renew_allow_list(&mut self) {
        let new = AllowList::of(
            &self.network,
            &self.options.allow,
            &self.options.also_allow,
            &self.sessions,
        );
        if new == self.allow {
            return;
        }
        let also = self.growth.filling().map(|set| set.change_allow(&self.allow, &new));
        if let Err(fault) = self.set.change_allow(&self.allow, &new).and(also.unwrap_or(Ok(()))) {
            self.notices.push(Notice::MapFault { what: chain(&fault) });
        }
        self.allow = new;
    }

    /// Begins to make room when a family is three quarters full.
    pub(super) fn consider_growth(&mut self) {
        let (load, most) = (self.set.tables.load(), self.options.max_bans);
        let at = Instant::now();
        let Some(sizes) = self.growth.due(load, most) else { return };
        // The wall clock as the last renewal knew it: the new set's clock is set again before it is used.
        let plan = self.blueprint(self.set.renewal().wall_at(at), at);
        match self.growth.begin(sizes, &self.pins, self.set.number, plan) {
            Ok(()) => self.upkeep.grow = Some(at),
            Err(fault) => self.notices.push(Notice::CannotGrow { why: chain(&fault) }),
        }
    }

    /// Grows to the end before it returns, because a ban waits for the room.
    pub(super) fn grow_now(&mut self) {
        while let Growth::Retiring(..) = self.growth {
            self.growth.retire(&mut self.set.tables);
        }
        self.consider_growth();
        let at = Instant::now();
        self.grow(self.set.renewal().wall_at(at), at, true);
    }

    fn grow(&mut self, now: Timestamp, at: Instant, whole: bool) {
        if let Growth::Retiring(..) = self.growth {
            let done = self.growth.retire(&mut self.set.tables);
            self.upkeep.grow = (!done).then(Instant::now);
            if done && let Err(fault) = self.pins.sweep(Some(self.set.number)) {
                tracing::warn!("{}; the next start tries again", chain(&fault));
            }
            return;
        }
        match self.growth.step(&self.set.tables, whole) {
            Step::Wait(due) => self.upkeep.grow = due,
            Step::Failed(fault) => {
                self.upkeep.grow = None;
                self.notices.push(Notice::CannotGrow { why: chain(&fault) });
            }
            Step::Full(mut set) => {
                self.upkeep.grow = Some(Instant::now());
                let plan = self.blueprint(now, at);
                if let Err(fault) = set.prepare(&plan).and_then(|()| set.install(&self.pins)) {
                    self.growth.pause();
                    self.notices.push(Notice::CannotGrow { why: chain(&fault) });
                    return;
                }
                let old = std::mem::replace(&mut self.set, *set);
                let told = self.attachments.update(&self.network, &self.set.object.programs);
                // That the program was swapped is no news, that it could not be is.
                self.notices.extend(told.into_iter().filter(Notice::is_alarm));
                let load = self.set.tables.load();
                let room = load.v4.capacity.max(load.v6.capacity);
                self.notices.push(Notice::Grown { room, folder: self.set.folder.clone() });
                let all = growth::all(&old.tables);
                self.growth = Growth::Retiring(Box::new(old.tables), all);
                self.upkeep.written();
            }
        }
    }

    fn look_at_packets(&mut self) {
        let counters = match self.set.tables.counters() {
            Ok(counters) => counters,
            Err(source) => return self.notices.push(Notice::MapFault { what: chain(&source) }),
        };
        if let Some(before) = self.upkeep.counted.replace(counters) {
            self.notices.extend(unjudged(&before, &counters));
        }
    }

    /// Compares table and maps a piece at a time.
    fn compare(&mut self, at: Instant) {
        self.upkeep.comparison = at + self.options.compare_every;
        match self.set.tables.compare(COMPARED) {
            Ok(None) => self.upkeep.comparison = at + BREATH,
            Ok(Some(differences)) if differences.is_none() => {}
            Ok(Some(differences)) => {
                self.notices.push(Notice::Repaired { what: differences.to_string() })
            }
            Err(source) => self.notices.push(Notice::MapFault { what: chain(&source) }),
        }
        self.upkeep.written();
    }
}

/// The alarm when more than a tenth of the packets between two readings could not be judged.
fn unjudged(before: &Counters, now: &Counters) -> Option<Notice> {
    let since = |row: fn(&Counters) -> u64| row(now).saturating_sub(row(before));
    let not_ip = since(|all| all.not_ip.packets);
    let unreadable = since(|all| all.unreadable.packets);
    let judged = since(|all| {
        all.passed.packets + all.dropped.packets + all.would_drop.packets + all.spared.packets
    });
    let all = judged + not_ip + unreadable;
    let percent = (not_ip + unreadable).checked_mul(100)?.checked_div(all)?;
    (all >= TELLING && percent > 10).then_some(Notice::Unjudged {
        percent: percent as u8,
        not_ip,
        unreadable,
    })
}

#[cfg(test)]
mod tests {
    use fail2xdp_common::report::Counter;

    use super::*;

    #[track_caller]
    fn check(passed: u64, not_ip: u64, unreadable: u64, expect: Option<u8>) {
        let row = |packets| Counter { packets, bytes: 60 * packets };
        let before = Counters { passed: row(5000), not_ip: row(4000), ..Counters::default() };
        let now = Counters {
            passed: row(5000 + passed),
            not_ip: row(4000 + not_ip),
            unreadable: row(unreadable),
            ..before
        };
        let alarm = unjudged(&before, &now);
        let percent = alarm.as_ref().map(|notice| match notice {
            Notice::Unjudged { percent, .. } => *percent,
            other => panic!("{other}"),
        });
        assert_eq!(percent, expect, "{passed} passed, {not_ip} not IP, {unreadable} unreadable");
        assert!(alarm.is_none_or(|notice| notice.is_alarm()));
    }

    #[test]
    fn an_alarm_is_raised_when_over_a_tenth_of_a_minutes_packets_cannot_be_judged() {
        check(9000, 500, 500, None);
        check(8800, 600, 600, Some(12));
        check(0, 0, 10_000, Some(100));
        check(0, 0, 0, None);
        // A quiet network says little: neighbour discovery is most of it.
        check(10, 500, 0, None);
    }
}
