//! The lines: copies of the bans of single addresses and /64s, written through shared memory.
//!
//! Each word is stored whole and the program reads each once, so an entry changes in place:
//!
//! - A new entry: everything while the slot is empty, `head` last. A slot that was emptied rests until
//!   no program can hold what it read there.
//! - Another end: `head` alone. Another jail, scope or flag: `meta` alone. Both: the one first whose
//!   half-way state decides every packet as before or after; while the two differ the flag "more slots"
//!   stays on, which sends those that the entry does not hit to the trie, where the new state stands.
//! - An end: `head` cleared, one store.
use std::{collections::HashMap, sync::atomic::Ordering::SeqCst};

use fail2xdp_common::value::{
    LINE_ASK_TRIE, LINE_HAS_PAIR, META_JAIL_SHIFT, META_MORE, META_SCOPE, META_UNIT, Slot,
};

use super::{
    layout::{Layout, Slots},
    maps::Maps,
    prefix::{Family, Prefix},
};

/// Where a ban is kept besides its trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: a network.
    Trie,
    /// In this slot.
    Line(u32),
    /// Nowhere: its line and the pair were full, a flag of its line says so.
    Overflow,
}

const LINE_FLAGS: u32 = LINE_ASK_TRIE | LINE_HAS_PAIR;

/// How many addresses of a line are elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spill {
    in_pair: u32,
    in_trie: u32,
}

/// What the writer knows of the lines.
#[derive(Debug)]
pub struct Lines {
    /// A bit for each slot that is some ban's, or that was emptied and rests. Not asked of the memory:
    /// a ban keeps its slot though another writer emptied it.
    taken: [Vec<u64>; 2],
    spilled: HashMap<(Family, u32), Spill>,
    uses: u32,
}

fn meta_of(prefix: &Prefix, slot: &Slot, more: bool) -> u32 {
    let unit = prefix.family() == Family::V6 && prefix.length() == 64;
    u32::from(slot.jail) << META_JAIL_SHIFT
        | u32::from(slot.scope) & META_SCOPE
        | if more { META_MORE } else { 0 }
        | if unit { META_UNIT } else { 0 }
}

/// The half of a head that holds the end, and how to put another in.
fn end_in(family: Family, head: u64) -> u32 {
    match family {
        Family::V4 => (head >> 32) as u32,
        Family::V6 => head as u32,
    }
}

fn with_end(family: Family, head: u64, until: u32) -> u64 {
    match family {
        Family::V4 => head & u64::from(u32::MAX) | u64::from(until) << 32,
        Family::V6 => head & !u64::from(u32::MAX) | u64::from(until),
    }
}

impl Lines {
    /// Nothing is in them.
    pub fn new(maps: &Maps) -> Lines {
        let bits = |family| {
            let slots = maps.hosts(family).entries() * Slots::of(family).in_line;
            vec![0; slots.div_ceil(64) as usize]
        };
        Lines { taken: [bits(Family::V4), bits(Family::V6)], spilled: HashMap::new(), uses: 0 }
    }

    fn is_taken(&self, family: Family, slot: u32) -> bool {
        self.taken[family as usize][slot as usize / 64] & 1 << (slot % 64) != 0
    }

    fn take(&mut self, family: Family, slot: u32) {
        self.taken[family as usize][slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Puts a ban that no line holds into one: its own, else the pair, else none.
    pub fn place(
        &mut self,
        maps: &Maps,
        layout: &Layout,
        prefix: &Prefix,
        slot: &Slot,
        more: bool,
    ) -> Place {
        if !prefix.fits_a_line() {
            return Place::Trie;
        }
        let home = layout.home(prefix);
        if let Some(free) = self.free_slot(maps, prefix.family(), home) {
            self.write(maps, prefix, free, slot, more);
            return Place::Line(free);
        }
        if let Some(free) = self.free_slot(maps, prefix.family(), home ^ 1) {
            self.spill(prefix.family(), home, |spill| spill.in_pair += 1);
            self.raise_flags(maps, prefix.family(), home);
            self.write(maps, prefix, free, slot, more);
            return Place::Line(free);
        }
        self.spill(prefix.family(), home, |spill| spill.in_trie += 1);
        self.raise_flags(maps, prefix.family(), home);
        Place::Overflow
    }

    /// Notes that maps which were found have a ban in this slot.
    pub fn found(&mut self, layout: &Layout, prefix: &Prefix, slot: u32) {
        self.take(prefix.family(), slot);
        let home = layout.home(prefix);
        if Slots::of(prefix.family()).line(slot) != home {
            self.spill(prefix.family(), home, |spill| spill.in_pair += 1);
        }
    }

    fn free_slot(&self, maps: &Maps, family: Family, line: u32) -> Option<u32> {
        let slots = Slots::of(family);
        let first = line * slots.in_line;
        (first..first + slots.in_line)
            .find(|slot| !self.is_taken(family, *slot) && is_empty(maps, family, *slot))
    }

    fn write(&mut self, maps: &Maps, prefix: &Prefix, slot: u32, value: &Slot, more: bool) {
        let (family, memory) = (prefix.family(), maps.hosts(prefix.family()));
        let slots = Slots::of(family);
        self.take(family, slot);
        let meta = memory.word32(slots.meta(slot));
        let flags = meta.load(SeqCst) & line_flags(slots, slot);
        maps.store32(meta, meta_of(prefix, value, more) | flags);
        maps.store32(memory.word32(slots.packets(slot)), 0);
        if family == Family::V6 {
            let [high, low] = prefix.raw_v6();
            maps.store64(memory.word64(slots.address(slot)), high);
            maps.store64(memory.word64(slots.address(slot) + 8), low);
        }
        self.uses = self.uses.wrapping_add(1);
        let rest = match family {
            Family::V4 => u64::from(prefix.raw_v4()),
            Family::V6 => u64::from(self.uses) << 32,
        };
        maps.store64(memory.word64(slots.head(slot)), with_end(family, rest, value.until));
    }

    /// Changes the entry of a ban that stays. The trie holds the new state already.
    /// Returns whether anything was to change.
    pub fn rewrite(
        &self,
        maps: &Maps,
        prefix: &Prefix,
        slot: u32,
        value: &Slot,
        more: bool,
    ) -> bool {
        let (family, memory) = (prefix.family(), maps.hosts(prefix.family()));
        let slots = Slots::of(family);
        let (head, meta) = (memory.word64(slots.head(slot)), memory.word32(slots.meta(slot)));
        let (old_head, old_meta) = (head.load(SeqCst), meta.load(SeqCst));
        let new_head = with_end(family, old_head, value.until);
        let new_meta = meta_of(prefix, value, more) | old_meta & line_flags(slots, slot);
        if old_head == new_head {
            if old_meta != new_meta {
                maps.store32(meta, new_meta);
            }
            return old_meta != new_meta;
        }
        if old_meta == new_meta {
            maps.store64(head, new_head);
        } else if value.until > end_in(family, old_head) {
            // Half-way the new scope has the old end: until then as after, and later the trie decides
            // if the flag is on, else nothing did before either.
            maps.store32(meta, new_meta | old_meta & META_MORE);
            maps.store64(head, new_head);
            if (new_meta | old_meta) & META_MORE != new_meta & META_MORE {
                maps.store32(meta, new_meta);
            }
        } else {
            // Half-way the old scope has the new, earlier end: until then as before, later as after.
            maps.store64(head, new_head);
            maps.store32(meta, new_meta);
        }
        true
    }

    /// Takes a ban out of its line. The slot must rest then; see [`Lines::rested`].
    /// Returns the packets it dropped and the slot, where a line held it.
    pub fn remove(
        &mut self,
        maps: &Maps,
        layout: &Layout,
        prefix: &Prefix,
        place: Place,
    ) -> Option<(u32, u32)> {
        let family = prefix.family();
        match place {
            Place::Trie => None,
            Place::Overflow => {
                let home = layout.home(prefix);
                self.spill(family, home, |spill| spill.in_trie -= 1);
                self.mend_flags(maps, family, home);
                None
            }
            Place::Line(slot) => {
                let packets = self.clear(maps, family, slot);
                let home = layout.home(prefix);
                if Slots::of(family).line(slot) != home {
                    self.spill(family, home, |spill| spill.in_pair -= 1);
                    self.mend_flags(maps, family, home);
                }
                Some((packets, slot))
            }
        }
    }

    /// Empties a slot; returns the packets counted there.
    pub fn clear(&mut self, maps: &Maps, family: Family, slot: u32) -> u32 {
        let (memory, slots) = (maps.hosts(family), Slots::of(family));
        let head = memory.word64(slots.head(slot));
        let empty = match family {
            Family::V4 => 0,
            Family::V6 => with_end(family, head.load(SeqCst), 0),
        };
        maps.store64(head, empty);
        self.take(family, slot);
        memory.word32(slots.packets(slot)).load(SeqCst)
    }

    /// No program can hold any more what it read in this slot.
    pub fn rested(&mut self, family: Family, slot: u32) {
        self.taken[family as usize][slot as usize / 64] &= !(1 << (slot % 64));
    }

    fn spill(&mut self, family: Family, home: u32, change: impl FnOnce(&mut Spill)) {
        let spill = self.spilled.entry((family, home)).or_default();
        change(spill);
        if *spill == Spill::default() {
            self.spilled.remove(&(family, home));
        }
    }

    fn flags(&self, family: Family, line: u32) -> u32 {
        let spill = self.spilled.get(&(family, line)).copied().unwrap_or_default();
        let flag = |count, flag| if count > 0 { flag } else { 0 };
        flag(spill.in_pair, LINE_HAS_PAIR) | flag(spill.in_trie, LINE_ASK_TRIE)
    }

    /// Sets the flags that a line is to have, and leaves those it has: at adoption not every address
    /// that is elsewhere has been counted yet.
    fn raise_flags(&self, maps: &Maps, family: Family, line: u32) {
        let word = maps.hosts(family).word32(Slots::of(family).flags(line));
        let (found, flags) = (word.load(SeqCst), self.flags(family, line));
        if found | flags != found {
            maps.store32(word, found | flags);
        }
    }

    /// Brings the flags of a line to what they are to be; whether they were not.
    pub fn mend_flags(&self, maps: &Maps, family: Family, line: u32) -> bool {
        let word = maps.hosts(family).word32(Slots::of(family).flags(line));
        let found = word.load(SeqCst);
        let wanted = found & !LINE_FLAGS | self.flags(family, line);
        if found != wanted {
            maps.store32(word, wanted);
        }
        found != wanted
    }

    /// How many lines have an address elsewhere.
    pub fn spilled(&self) -> usize {
        self.spilled.len()
    }
}

/// The line's flags stand in its first `meta`.
fn line_flags(slots: Slots, slot: u32) -> u32 {
    if slot.is_multiple_of(slots.in_line) { LINE_FLAGS } else { 0 }
}

fn is_empty(maps: &Maps, family: Family, slot: u32) -> bool {
    end_in(family, maps.hosts(family).word64(Slots::of(family).head(slot)).load(SeqCst)) == 0
}

/// Which ban a slot says it holds; `None` for an empty one.
pub fn occupant(maps: &Maps, family: Family, slot: u32) -> Option<Prefix> {
    if is_empty(maps, family, slot) {
        return None;
    }
    let (memory, slots) = (maps.hosts(family), Slots::of(family));
    Some(match family {
        Family::V4 => Prefix::from_raw_v4(memory.word64(slots.head(slot)).load(SeqCst) as u32),
        Family::V6 => {
            let address = slots.address(slot);
            let raw =
                [memory.word64(address).load(SeqCst), memory.word64(address + 8).load(SeqCst)];
            let unit = memory.word32(slots.meta(slot)).load(SeqCst) & META_UNIT != 0;
            Prefix::from_raw_v6(raw, if unit { 64 } else { 128 })
        }
    })
}
