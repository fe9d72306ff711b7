//! The writer of one set of maps: bans in, map entries out. One thread.
//!
//! The tries hold every ban and are the truth. In front of them stand copies and hints that only save
//! the program time; the order of writes keeps each half-way state equal to before or after, so that a
//! crash between any two leaves a verdict that was meant:
//!
//! - a ban: number and statistics, hint or network bit, further slots, trie, line;
//! - a change: trie and further slots, line, in place;
//! - an unban: line, trie, bit when nothing else set it; further slots and the number after a grace
//!   period, the slot of the line too.
//!
//! [`Tables::adopt`] makes whole what a crash left.
mod bits;
mod entry;
mod error;
mod grace;
mod ids;
mod layout;
mod lines;
mod maps;
mod memory;
mod mend;
mod names;
mod nesting;
pub mod object;
mod observe;
mod prefix;
mod sizes;
mod sys;
mod traffic;
mod tries;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::offset_of,
    sync::atomic::Ordering::SeqCst,
    time::Instant,
};

use fail2xdp_common::{
    config::{Config, LAYOUT},
    map, scope_id,
    value::{FOREVER, MAX_SLOTS, Slot},
};
use ipnet::IpNet;

use self::{
    bits::Bits,
    entry::{Change, Entry},
    grace::{Grace, Waiting},
    ids::Ids,
    layout::Layout,
    lines::{Lines, Place},
    mend::Comparison,
    names::Names,
    nesting::Lengths,
    prefix::{Family, Prefix},
};
pub use self::{
    error::TableError,
    maps::{Maps, SHAPES, Shape},
    mend::Differences,
    sizes::Sizes,
    traffic::{Counters, Dropped},
};
use crate::config::Scope;

/// One jail's hold on a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The jail's name.
    pub jail: String,
    /// Which packets it drops.
    pub scope: Scope,
    /// Its end in Unix seconds: it no longer holds then. [`FOREVER`] never comes; 0 counts as 1.
    pub until: u32,
}

/// How a ban was enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Banned {
    /// No scope number was left, so these packets are dropped instead of those asked for.
    pub widened: Option<Scope>,
    /// More than eight jails hold the prefix: this one shares another's slot, which may drop more and
    /// last longer.
    pub merged: bool,
}

/// Bans of a family, and how many the maps were made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Banned prefixes.
    pub bans: u32,
    /// Room for so many.
    pub capacity: u32,
}

/// How full the maps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// IPv4.
    pub v4: Fill,
    /// IPv6.
    pub v6: Fill,
    /// Lines that could not hold all of their addresses: those take a slower way.
    pub spilled_lines: usize,
}

/// One set of maps and all that is known of it.
#[derive(Debug)]
pub struct Tables {
    maps: Maps,
    layout: Layout,
    bans: BTreeMap<Prefix, Entry>,
    lengths: Lengths,
    counts: [u32; 2],
    allowed: BTreeSet<Prefix>,
    bits: Bits,
    lines: Lines,
    names: Names,
    ids: Ids,
    grace: Grace,
    /// Numbers whose further slots are to be removed after a grace period, each with its mark.
    leaving: HashMap<u32, u64>,
    marks: u64,
    /// Numbers with further slots.
    with_more: u32,
    comparison: Option<Comparison>,
    harvested_to: [u32; 2],
}

impl Tables {
    fn new(maps: Maps, layout: Layout, names: Names) -> Tables {
        Tables {
            layout,
            names,
            bits: Bits::new(&maps),
            lines: Lines::new(&maps),
            maps,
            bans: BTreeMap::new(),
            lengths: Lengths::NONE,
            counts: [0; 2],
            allowed: BTreeSet::new(),
            ids: Ids::default(),
            grace: Grace::default(),
            leaving: HashMap::new(),
            marks: 0,
            with_more: 0,
            comparison: None,
            harvested_to: [0; 2],
        }
    }

    /// Prepares maps that were just created: draws the secrets, says which scopes there are.
    ///
    /// # Errors
    /// [`TableError::Random`], or what a map says.
    pub fn fresh(maps: Maps) -> Result<Tables, TableError> {
        let layout = Layout::fresh(&maps)?;
        layout.write(&maps);
        let names = Names::fresh(&maps)?;
        // Last: maps without it are not adopted.
        maps.store32(maps.config.word32(offset_of!(Config, layout)), LAYOUT);
        Ok(Tables::new(maps, layout, names))
    }

    /// Takes over maps that enforce, and makes whole what a crash left half-way. No packet is judged
    /// differently meanwhile, except by bans that were being written.
    ///
    /// # Errors
    /// [`TableError::Layout`] or [`TableError::Shape`] for maps that are not this version's, or what a
    /// map says.
    pub fn adopt(maps: Maps) -> Result<(Tables, Differences), TableError> {
        if maps.layout() != LAYOUT {
            return Err(TableError::Layout { found: maps.layout(), wanted: LAYOUT });
        }
        let layout = Layout::read(&maps);
        if !layout.fits(&maps) {
            let what = "it speaks of maps of other sizes".to_owned();
            return Err(TableError::Shape { map: map::CONFIG, what });
        }
        let names = Names::adopt(&maps)?;
        let mut tables = Tables::new(maps, layout, names);
        let differences = tables.take_over()?;
        Ok((tables, differences))
    }

    /// One jail's hold on a prefix: new, or in place of the one it had.
    ///
    /// # Errors
    /// [`TableError::Full`] when the family's maps hold what they were made for, or what a map says;
    /// then nothing has changed, or [`Tables::compare`] finds it.
    pub fn ban(&mut self, prefix: IpNet, hold: &Hold) -> Result<Banned, TableError> {
        let prefix = Prefix::from(prefix);
        let jail = self.names.jail(&self.maps, &hold.jail)?;
        let scope = self.names.scope(&self.maps, &hold.scope)?;
        let slot = Slot { until: hold.until.max(1), jail, scope: scope.id, mark: 0 };
        let mut merged = false;
        if let Some(entry) = self.bans.get(&prefix).cloned() {
            let change = entry.with(slot, self.room_of(&entry), self.uniting());
            merged = change.merged;
            self.change_nested(&prefix, &entry, change)?;
        } else {
            self.nested(&prefix, |_| vec![slot], |tables| tables.place(&prefix, slot))?;
        }
        Ok(Banned { widened: scope.widened, merged })
    }

    /// How many slots a prefix can have: one only where no further slots can be stored.
    pub(super) fn room_of(&self, entry: &Entry) -> usize {
        let stored = entry.told().len() > 1 || self.leaving.contains_key(&entry.id);
        if stored || self.with_more + (self.leaving.len() as u32) < self.maps.more_slots.entries() {
            MAX_SLOTS
        } else {
            1
        }
    }

    /// Writes a prefix that is not banned yet.
    fn place(&mut self, prefix: &Prefix, slot: Slot) -> Result<(), TableError> {
        let (family, sizes) = (prefix.family(), self.maps.sizes());
        let (map, room) = match family {
            Family::V4 => (map::BANS_V4, sizes.v4()),
            Family::V6 => (map::BANS_V6, sizes.v6()),
        };
        if self.counts[family as usize] >= room {
            return Err(TableError::Full { map, entries: room });
        }
        let id = self.ids.take();
        let mut entry = Entry::new(id, &[slot]);
        self.start_counting(id);
        self.bits.add_ban(Some(&self.maps), &self.layout, prefix);
        if let Err(error) = tries::put(&self.maps, prefix, &tries::ban_of(prefix, id, &[slot])) {
            self.bits.remove_ban(&self.maps, &self.layout, prefix);
            self.grace.wait_for(Waiting::Id(id));
            return Err(error);
        }
        entry.place = self.lines.place(&self.maps, &self.layout, prefix, &slot, false);
        self.names.hold(&[slot]);
        self.counts[family as usize] += 1;
        self.lengths.add(prefix);
        self.bans.insert(*prefix, entry);
        Ok(())
    }

    /// Stores the slots after the first.
    fn write_more(&mut self, id: u32, told: &[Slot]) -> Result<(), TableError> {
        self.maps.put(&self.maps.more_slots, &id, &tries::more_of(id, told))?;
        // A removal under way would take these.
        self.leaving.remove(&id);
        Ok(())
    }

    /// Further slots that the trie no longer names go when no program can ask for them any more.
    fn leave_more(&mut self, id: u32) {
        self.with_more -= 1;
        self.marks += 1;
        self.leaving.insert(id, self.marks);
        self.grace.wait_for(Waiting::MoreSlots(id, self.marks));
    }

    /// Writes what differs of a banned prefix.
    fn change(&mut self, prefix: &Prefix, old: &Entry, change: Change) -> Result<(), TableError> {
        let (was, is, id) = (old.told(), change.entry.told(), old.id);
        let in_trie = was[0] != is[0] || (was.len() > 1) != (is.len() > 1);
        let in_more = was[1..] != is[1..] && is.len() > 1;
        let trie_first = is.len() <= was.len() && (change.lead == 0 || is.len() == 1);
        if in_more && !trie_first {
            self.write_more(id, &is)?;
        }
        if in_trie {
            tries::put(&self.maps, prefix, &tries::ban_of(prefix, id, &is))?;
        }
        if in_more && trie_first {
            self.write_more(id, &is)?;
        }
        if let Place::Line(slot) = old.place {
            if self.is_observed(was[0].jail) != self.is_observed(is[0].jail) {
                self.harvest_slot(prefix.family(), slot, None);
            }
            self.lines.rewrite(&self.maps, prefix, slot, &is[0], is.len() > 1);
        }
        match (was.len() > 1, is.len() > 1) {
            (false, true) => self.with_more += 1,
            (true, false) => self.leave_more(id),
            _ => {}
        }
        self.names.hold(&change.entry.references());
        self.names.let_go(&old.references());
        self.bans.insert(*prefix, change.entry);
        Ok(())
    }

    /// Ends a jail's hold on a prefix. Returns what the prefix's bans have dropped; `None` if the jail
    /// did not hold it.
    ///
    /// # Errors
    /// What a map says.
    pub fn unban(&mut self, prefix: IpNet, jail: &str) -> Result<Option<Dropped>, TableError> {
        let prefix = Prefix::from(prefix);
        let (Some(jail), Some(entry)) = (self.names.number_of(jail), self.bans.get(&prefix)) else {
            return Ok(None);
        };
        let entry = entry.clone();
        match entry.without(jail, self.room_of(&entry), self.uniting()) {
            None => Ok(None),
            Some(Some(change)) => {
                self.change_nested(&prefix, &entry, change)?;
                Ok(Some(self.dropped_by(&prefix, &entry)))
            }
            Some(None) => self
                .nested(&prefix, |_| Vec::new(), |tables| tables.lift(&prefix, &entry))
                .map(Some),
        }
    }

    /// [`Tables::change`], and what the networks within inherit.
    fn change_nested(
        &mut self,
        prefix: &Prefix,
        old: &Entry,
        change: Change,
    ) -> Result<(), TableError> {
        let after = change.entry.clone();
        self.nested(
            prefix,
            |tables| after.slots(tables.uniting()),
            |tables| tables.change(prefix, old, change),
        )
    }

    /// Makes one slot of several.
    fn uniting(&mut self) -> impl FnMut(&[Slot]) -> Slot {
        |slots| unite(&mut self.names, &self.maps, slots)
    }

    /// Takes a prefix out altogether.
    fn lift(&mut self, prefix: &Prefix, entry: &Entry) -> Result<Dropped, TableError> {
        let family = prefix.family();
        let mut dropped = self.counted_by_id(entry.id);
        if let Some((packets, slot)) =
            self.lines.remove(&self.maps, &self.layout, prefix, entry.place)
        {
            dropped.add(packets, self.is_observed(entry.told()[0].jail));
            self.grace.wait_for(Waiting::Slot(family, slot));
        }
        self.bans.remove(prefix);
        self.lengths.remove(prefix);
        self.counts[family as usize] -= 1;
        self.names.let_go(&entry.references());
        tries::remove(&self.maps, prefix)?;
        self.bits.remove_ban(&self.maps, &self.layout, prefix);
        if entry.told().len() > 1 {
            self.leave_more(entry.id);
        }
        self.grace.wait_for(Waiting::Id(entry.id));
        Ok(dropped)
    }

    /// Every banned prefix with the holds on it.
    pub fn bans(&self) -> impl Iterator<Item = (IpNet, Vec<Hold>)> {
        self.bans.iter().map(|(prefix, entry)| (IpNet::from(*prefix), self.holds_of(entry)))
    }

    /// Every banned prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.bans.keys().map(|prefix| IpNet::from(*prefix))
    }

    /// The holds on a prefix; none for one that is not banned by itself.
    pub fn holds(&self, prefix: IpNet) -> Vec<Hold> {
        self.bans.get(&Prefix::from(prefix)).map(|entry| self.holds_of(entry)).unwrap_or_default()
    }

    fn holds_of(&self, entry: &Entry) -> Vec<Hold> {
        let hold = |slot: Slot| Hold {
            jail: self.names.jail_of(slot.jail).unwrap_or_default().to_owned(),
            scope: self.names.scope_of(slot.scope).cloned().unwrap_or(Scope::EveryPacket),
            until: slot.until,
        };
        entry.holds().into_iter().map(hold).collect()
    }

    /// Takes a ban over from another set of maps, all holds at once, for maps that are to replace it.
    /// One that is here already is left as it is.
    ///
    /// # Errors
    /// As [`Tables::ban`].
    pub fn carry(&mut self, prefix: IpNet, from: &Tables) -> Result<(), TableError> {
        if self.bans.contains_key(&Prefix::from(prefix)) {
            return Ok(());
        }
        from.holds(prefix).iter().try_for_each(|hold| self.ban(prefix, hold).map(drop))
    }

    /// Exempts a prefix: none of its packets is dropped, whatever bans it.
    ///
    /// # Errors
    /// [`TableError::Full`] or [`TableError::Call`].
    pub fn allow(&mut self, prefix: IpNet) -> Result<(), TableError> {
        let prefix = Prefix::from(prefix);
        if self.allowed.contains(&prefix) {
            return Ok(());
        }
        self.bits.add_allow(Some(&self.maps), &self.layout, &prefix);
        if let Err(error) = tries::allow(&self.maps, &prefix) {
            self.bits.remove_allow(&self.maps, &self.layout, &prefix);
            return Err(error);
        }
        self.allowed.insert(prefix);
        Ok(())
    }

    /// Ends an exemption; one that is not there already is fine.
    ///
    /// # Errors
    /// [`TableError::Call`].
    pub fn disallow(&mut self, prefix: IpNet) -> Result<(), TableError> {
        let prefix = Prefix::from(prefix);
        if self.allowed.remove(&prefix) {
            tries::disallow(&self.maps, &prefix)?;
            self.bits.remove_allow(&self.maps, &self.layout, &prefix);
        }
        Ok(())
    }

    /// Every exempt prefix.
    pub fn allowed(&self) -> impl Iterator<Item = IpNet> {
        self.allowed.iter().map(|prefix| IpNet::from(*prefix))
    }

    /// Frees what rested long enough. Never waits; call it again at the time it returns.
    pub fn settle(&mut self, now: Instant) -> Option<Instant> {
        let settled = self.grace.settle();
        if settled.passed {
            self.names.grace_passed();
        }
        if settled.begun {
            self.names.grace_begins();
        }
        for waiting in settled.free {
            match waiting {
                Waiting::Slot(family, slot) => self.lines.rested(family, slot),
                Waiting::Id(id) => self.ids.let_go(id),
                Waiting::MoreSlots(id, mark) => {
                    if self.leaving.get(&id) == Some(&mark) {
                        self.leaving.remove(&id);
                        // What cannot be removed is a stray that nothing names; `compare` tries again.
                        let _ = self.maps.remove(&self.maps.more_slots, &id);
                    }
                }
            }
        }
        let ids = self.ids.settle(now);
        let grace = self.grace.is_waiting().then(|| now + grace::USUAL);
        grace.into_iter().chain(ids).min()
    }

    /// How full the maps are.
    pub fn load(&self) -> Load {
        let sizes = self.maps.sizes();
        Load {
            v4: Fill { bans: self.counts[Family::V4 as usize], capacity: sizes.v4() },
            v6: Fill { bans: self.counts[Family::V6 as usize], capacity: sizes.v6() },
            spilled_lines: self.lines.spilled(),
        }
    }

    /// Each map's name, how many entries are in it where the table knows, and for how many it has room.
    pub fn fills(&self) -> Vec<(&'static str, Option<u32>, u32)> {
        let allowed =
            |family| self.allowed.iter().filter(|it| it.family() == family).count() as u32;
        let used = |name| match name {
            map::BANS_V4 => Some(self.counts[Family::V4 as usize]),
            map::BANS_V6 => Some(self.counts[Family::V6 as usize]),
            map::MORE_SLOTS => Some(self.with_more + self.leaving.len() as u32),
            map::ALLOW_V4 => Some(allowed(Family::V4)),
            map::ALLOW_V6 => Some(allowed(Family::V6)),
            _ => None,
        };
        self.maps.capacities().map(|(name, room)| (name, used(name), room)).collect()
    }

    /// The line that an address or IPv6 /64 shares with its neighbours of the hash, for diagnosis; `None`
    /// for networks.
    pub fn line_of(&self, prefix: IpNet) -> Option<u32> {
        let prefix = Prefix::from(prefix);
        prefix.fits_a_line().then(|| self.layout.home(&prefix))
    }

    /// The maps, to pin them or compare their numbers with a program's.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Sets or clears a flag of [`Config::flags`].
    pub fn set_flag(&mut self, flag: u32, on: bool) {
        let word = self.maps.config.word32(offset_of!(Config, flags));
        let flags = word.load(SeqCst);
        self.maps.store32(word, if on { flags | flag } else { flags & !flag });
    }

    /// Sets the clock: Unix seconds are `(ticks * scale + offset) >> 32`. With an unchanged scale this
    /// is one store, which the next packet sees.
    pub fn set_clock(&mut self, scale: u64, offset: u64) {
        let word = self.maps.config.word64(offset_of!(Config, clock_scale));
        if word.load(SeqCst) != scale {
            self.maps.store64(word, scale);
        }
        self.maps.store64(self.maps.config.word64(offset_of!(Config, clock_offset)), offset);
    }

    /// How many drops each CPU reports in `EVENTS` a second.
    pub fn set_events_per_second(&mut self, events: u32) {
        self.maps.store32(self.maps.config.word32(offset_of!(Config, events_per_second)), events);
    }

    /// Calls `hook` before every write to a map, for tests that cut the writer off between any two.
    pub fn before_each_write(&mut self, hook: Option<Box<dyn FnMut() + Send>>) {
        self.maps.before_each_write(hook);
    }
}

/// One slot of several; for every packet where the maps cannot be told of their scope.
fn unite(names: &mut Names, maps: &Maps, slots: &[Slot]) -> Slot {
    names.unite(maps, slots).unwrap_or_else(|_| {
        let until = slots.iter().map(|slot| slot.until).max().unwrap_or(FOREVER);
        Slot { until, scope: scope_id::EVERY_PACKET, ..slots[0] }
    })
}

/// A ban that never ends by itself has this end.
pub const NEVER_ENDS: u32 = FOREVER;
