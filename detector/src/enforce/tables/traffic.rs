//! What was dropped.
use std::{mem::offset_of, sync::atomic::Ordering::SeqCst};

use fail2xdp_common::report::{BanStat, Counter, counter};
use ipnet::IpNet;

use super::{
    TableError, Tables,
    entry::Entry,
    layout::Slots,
    lines::{self, Place},
    maps::{Maps, Shared},
    prefix::{Family, Prefix},
};

/// What the bans of a prefix have dropped, or would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Packets dropped.
    pub packets: u64,
    /// Packets that would have been, had the program and the jail not merely observed.
    pub would_drop: u64,
    /// Unix seconds of the last packet, as far as known: for what a line counts, when
    /// [`Tables::harvest`] last saw its count move.
    pub last_seen: Option<u32>,
}

impl Dropped {
    /// So many packets more, which passed if they were only observed.
    pub(super) fn add(&mut self, packets: u32, observed: bool) {
        let count = if observed { &mut self.would_drop } else { &mut self.packets };
        *count += u64::from(packets);
    }
}

/// What became of all packets since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Judged and passed.
    pub passed: Counter,
    /// Dropped.
    pub dropped: Counter,
    /// Passed, though banned, by an observing program.
    pub would_drop: Counter,
    /// Passed, though banned, by the allow list.
    pub spared: Counter,
    /// Passed: neither IPv4 nor IPv6.
    pub not_ip: Counter,
    /// Passed: no source to be found.
    pub unreadable: Counter,
}

/// A row of `BAN_STATS`.
#[derive(Clone, Copy)]
struct Row<'a> {
    stats: &'a Shared,
    start: usize,
}

impl Row<'_> {
    /// `None` for a number beyond the map, which goes uncounted.
    fn of(maps: &Maps, id: u32) -> Option<Row<'_>> {
        let row = Row { stats: &maps.stats, start: id as usize * size_of::<BanStat>() };
        (id < maps.stats.entries()).then_some(row)
    }
}

impl Tables {
    /// The sum over all CPUs.
    ///
    /// # Errors
    /// [`TableError::Call`] or [`TableError::Processors`].
    pub fn counters(&self) -> Result<Counters, TableError> {
        let sum = |row| self.maps.counters.sum(row);
        let interfaces = |observed| {
            (0..counter::INTERFACES).try_fold(Counter::default(), |all, interface| {
                let row = sum(counter::of_interface(interface, observed))?;
                let (packets, bytes) = (all.packets + row.packets, all.bytes + row.bytes);
                Ok::<_, TableError>(Counter { packets, bytes })
            })
        };
        Ok(Counters {
            passed: sum(counter::PASSED)?,
            dropped: interfaces(0)?,
            would_drop: interfaces(1)?,
            spared: sum(counter::SPARED)?,
            not_ip: sum(counter::NOT_IP)?,
            unreadable: sum(counter::UNREADABLE)?,
        })
    }

    /// What was dropped, and what would have been, of the packets of an interface and of those whose index leaves the
    /// same remainder.
    ///
    /// # Errors
    /// As for [`Tables::counters`].
    pub fn dropped_on(&self, interface: u32) -> Result<(Counter, Counter), TableError> {
        let sum = |observed| self.maps.counters.sum(counter::of_interface(interface, observed));
        Ok((sum(0)?, sum(1)?))
    }

    /// What the bans of exactly this prefix have dropped; `None` if there is none.
    pub fn traffic(&self, prefix: IpNet) -> Option<Dropped> {
        let prefix = Prefix::from(prefix);
        self.bans.get(&prefix).map(|entry| self.dropped_by(&prefix, entry))
    }

    pub(super) fn dropped_by(&self, prefix: &Prefix, entry: &Entry) -> Dropped {
        let mut dropped = self.counted_by_id(entry.id);
        if let Place::Line(slot) = entry.place {
            let packets = Slots::of(prefix.family()).packets(slot);
            let packets = self.maps.hosts(prefix.family()).word32(packets).load(SeqCst);
            dropped.add(packets, self.is_observed(entry.told()[0].jail));
        }
        dropped
    }

    pub(super) fn counted_by_id(&self, id: u32) -> Dropped {
        let Some(Row { stats, start }) = Row::of(&self.maps, id) else { return Dropped::default() };
        let last_seen = stats.word32(start + offset_of!(BanStat, last_seen)).load(SeqCst);
        Dropped {
            packets: stats.word64(start + offset_of!(BanStat, packets)).load(SeqCst),
            would_drop: stats.word64(start + offset_of!(BanStat, would_drop)).load(SeqCst),
            last_seen: (last_seen != 0).then_some(last_seen),
        }
    }

    /// Before a number's new ban is written.
    pub(super) fn start_counting(&self, id: u32) {
        let Some(Row { stats, start }) = Row::of(&self.maps, id) else { return };
        let generation = stats.word32(start + offset_of!(BanStat, generation));
        self.maps.store32(generation, generation.load(SeqCst).wrapping_add(1));
        self.maps.store64(stats.word64(start + offset_of!(BanStat, packets)), 0);
        self.maps.store64(stats.word64(start + offset_of!(BanStat, would_drop)), 0);
        self.maps.store32(stats.word32(start + offset_of!(BanStat, last_seen)), 0);
    }

    /// Adds to what a ban has dropped: what other maps counted of it, for maps that replace them.
    /// Nothing for a prefix that is not banned.
    pub fn credit(&mut self, prefix: IpNet, more: Dropped) {
        let Some(entry) = self.bans.get(&Prefix::from(prefix)) else { return };
        let Some(Row { stats, start }) = Row::of(&self.maps, entry.id) else { return };
        self.maps.add(stats.word64(start + offset_of!(BanStat, packets)), more.packets);
        self.maps.add(stats.word64(start + offset_of!(BanStat, would_drop)), more.would_drop);
        let last_seen = stats.word32(start + offset_of!(BanStat, last_seen));
        let latest = more.last_seen.unwrap_or(0).max(last_seen.load(SeqCst));
        self.maps.store32(last_seen, latest);
    }

    /// Moves counts from lines, which hold 32 bits and no time, to `BAN_STATS`: looks at up to `lines`
    /// lines of each family, going on where it stopped, and notes `now` (Unix seconds) for counts that
    /// moved. Called every few seconds it keeps any rate from running over.
    pub fn harvest(&mut self, now: u32, lines: u32) {
        for family in [Family::V4, Family::V6] {
            let (count, slots) = (self.maps.hosts(family).entries(), Slots::of(family));
            for _ in 0..lines.min(count) {
                let line = self.harvested_to[family as usize];
                self.harvested_to[family as usize] = (line + 1) % count;
                for slot in line * slots.in_line..(line + 1) * slots.in_line {
                    self.harvest_slot(family, slot, Some(now));
                }
            }
        }
    }

    /// Moves every count of a line, whose kind is about to change.
    pub(super) fn harvest_all(&self) {
        for (prefix, entry) in &self.bans {
            if let Place::Line(slot) = entry.place {
                self.harvest_slot(prefix.family(), slot, None);
            }
        }
    }

    /// The same for the line of one prefix.
    pub fn harvest_of(&self, prefix: IpNet, now: u32) {
        let prefix = Prefix::from(prefix);
        if let Some(Entry { place: Place::Line(slot), .. }) = self.bans.get(&prefix) {
            self.harvest_slot(prefix.family(), *slot, Some(now));
        }
    }

    /// What it says of the time stays where `now` is not known.
    pub(super) fn harvest_slot(&self, family: Family, slot: u32, now: Option<u32>) {
        let packets = self.maps.hosts(family).word32(Slots::of(family).packets(slot));
        if packets.load(SeqCst) == 0 {
            return;
        }
        let entry =
            lines::occupant(&self.maps, family, slot).and_then(|prefix| self.bans.get(&prefix));
        let Some(entry) = entry.filter(|entry| entry.place == Place::Line(slot)) else { return };
        let Some(Row { stats, start }) = Row::of(&self.maps, entry.id) else { return };
        self.maps.step();
        // Taken out first: a crash between the two loses a few counts, and never counts twice.
        let moved = packets.swap(0, SeqCst);
        let count = match self.is_observed(entry.told()[0].jail) {
            true => offset_of!(BanStat, would_drop),
            false => offset_of!(BanStat, packets),
        };
        self.maps.add(stats.word64(start + count), moved.into());
        if let Some(now) = now {
            self.maps.store32(stats.word32(start + offset_of!(BanStat, last_seen)), now);
        }
    }
}
