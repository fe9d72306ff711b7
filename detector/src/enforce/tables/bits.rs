//! Hint and network bits: counted here, so that a bit is cleared when its last prefix goes.
use std::{collections::HashMap, mem::offset_of, sync::atomic::Ordering::SeqCst};

use fail2xdp_common::config::{Config, LEVEL_32, LEVEL_48, LEVEL_WITHIN_64};

use super::{
    layout::Layout,
    maps::{Maps, Shared},
    prefix::{Family, Prefix},
};

/// An array of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `HINT_V4`, `HINT_V6`.
    Hints(Family),
    /// `NETS_V4`, `NETS_V6`.
    Networks(Family),
}

impl Field {
    /// Every one.
    pub const ALL: [Field; 4] = [
        Field::Hints(Family::V4),
        Field::Hints(Family::V6),
        Field::Networks(Family::V4),
        Field::Networks(Family::V6),
    ];

    fn index(self) -> usize {
        match self {
            Field::Hints(family) => family as usize,
            Field::Networks(family) => 2 + family as usize,
        }
    }

    fn map(self, maps: &Maps) -> &Shared {
        match self {
            Field::Hints(family) => maps.hints(family),
            Field::Networks(family) => maps.nets(family),
        }
    }
}

/// What a prefix sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Bit(Field, u32),
    /// As many bits one after the other, every second one, from here.
    Bits(Field, u32, u32),
    Level(u32, u32),
    WideBan(Family),
    WideAllow,
    Nothing,
}

/// What a ban sets.
fn mark_of_ban(layout: &Layout, prefix: &Prefix) -> Mark {
    let family = prefix.family();
    if prefix.fits_a_line() {
        return Mark::Bit(Field::Hints(family), layout.hint(prefix));
    }
    match (family, prefix.length()) {
        (Family::V4, 16..) => Mark::Bit(Field::Networks(family), (prefix.bits() >> 112) as u32 * 2),
        (Family::V6, 65..) => Mark::Level(LEVEL_WITHIN_64, layout.ban_network_v6(prefix)),
        (Family::V6, 48..) => Mark::Level(LEVEL_48, layout.ban_network_v6(prefix)),
        (Family::V6, 32..) => Mark::Level(LEVEL_32, layout.ban_network_v6(prefix)),
        _ => Mark::WideBan(family),
    }
}

/// What an allow entry sets.
fn mark_of_allow(layout: &Layout, prefix: &Prefix) -> Mark {
    let (bits, length) = (prefix.bits(), prefix.length());
    match prefix.family() {
        Family::V4 => {
            let count = 1 << 16u32.saturating_sub(u32::from(length));
            Mark::Bits(Field::Networks(Family::V4), (bits >> 112) as u32 * 2 + 1, count)
        }
        // There the program always asks: `::/64`, `fe80::/10`, `ff00::/8`.
        Family::V6 if length >= 64 && bits >> 64 == 0 => Mark::Nothing,
        Family::V6 if length >= 10 && bits >> 118 == 0xfe80 >> 6 => Mark::Nothing,
        Family::V6 if length >= 8 && bits >> 120 == 0xff => Mark::Nothing,
        Family::V6 if length >= 32 => {
            Mark::Bit(Field::Networks(Family::V6), layout.allow_network_v6(prefix))
        }
        Family::V6 => Mark::WideAllow,
    }
}

#[derive(Debug, Default)]
struct Counted {
    /// What the words of the map are to be.
    words: Vec<u64>,
    /// How many prefixes beyond the first set a bit; most bits have one.
    more: HashMap<u32, u32>,
}

/// All bits of a set of maps.
#[derive(Debug, Default)]
pub struct Bits {
    fields: [Counted; 4],
    wide_bans: [u32; 2],
    wide_allow: u32,
    levels: [u32; 3],
}

impl Bits {
    /// None set.
    pub fn new(maps: &Maps) -> Bits {
        let fields = Field::ALL.map(|field| Counted {
            words: vec![0; field.map(maps).entries() as usize],
            more: HashMap::new(),
        });
        Bits { fields, ..Bits::default() }
    }

    /// Before a ban is written. Without maps it is only counted, for maps that know it already.
    pub fn add_ban(&mut self, maps: Option<&Maps>, layout: &Layout, prefix: &Prefix) {
        self.add(maps, mark_of_ban(layout, prefix));
    }

    /// After a ban has been taken out.
    pub fn remove_ban(&mut self, maps: &Maps, layout: &Layout, prefix: &Prefix) {
        self.remove(maps, mark_of_ban(layout, prefix));
    }

    /// Before an allow entry is written. Without maps as for bans.
    pub fn add_allow(&mut self, maps: Option<&Maps>, layout: &Layout, prefix: &Prefix) {
        self.add(maps, mark_of_allow(layout, prefix));
    }

    /// After an allow entry has been taken out.
    pub fn remove_allow(&mut self, maps: &Maps, layout: &Layout, prefix: &Prefix) {
        self.remove(maps, mark_of_allow(layout, prefix));
    }

    fn add(&mut self, maps: Option<&Maps>, mark: Mark) {
        match mark {
            Mark::Bit(field, bit) => self.raise(maps, field, bit),
            Mark::Bits(field, first, count) => {
                (0..count).for_each(|nth| self.raise(maps, field, first + nth * 2))
            }
            Mark::Level(level, bit) => {
                self.levels[level.ilog2() as usize] += 1;
                self.tell_config(maps);
                self.raise(maps, Field::Networks(Family::V6), bit);
            }
            Mark::WideBan(family) => {
                self.wide_bans[family as usize] += 1;
                self.tell_config(maps);
            }
            Mark::WideAllow => {
                self.wide_allow += 1;
                self.tell_config(maps);
            }
            Mark::Nothing => {}
        }
    }

    fn remove(&mut self, maps: &Maps, mark: Mark) {
        match mark {
            Mark::Bit(field, bit) => self.lower(maps, field, bit),
            Mark::Bits(field, first, count) => {
                (0..count).for_each(|nth| self.lower(maps, field, first + nth * 2))
            }
            Mark::Level(level, bit) => {
                self.lower(maps, Field::Networks(Family::V6), bit);
                self.levels[level.ilog2() as usize] -= 1;
                self.write_config(maps);
            }
            Mark::WideBan(family) => {
                self.wide_bans[family as usize] -= 1;
                self.write_config(maps);
            }
            Mark::WideAllow => {
                self.wide_allow -= 1;
                self.write_config(maps);
            }
            Mark::Nothing => {}
        }
    }

    fn tell_config(&self, maps: Option<&Maps>) {
        if let Some(maps) = maps {
            self.write_config(maps);
        }
    }

    fn raise(&mut self, maps: Option<&Maps>, field: Field, bit: u32) {
        self.raise_all(maps, field, bit, 1);
    }

    fn lower(&mut self, maps: &Maps, field: Field, bit: u32) {
        self.lower_all(maps, field, bit, 1);
    }

    /// Sets every second bit, `count` of them, with one write for each word of the map.
    fn raise_all(&mut self, maps: Option<&Maps>, field: Field, first: u32, count: u32) {
        let counted = &mut self.fields[field.index()];
        let mut bits = (0..count).map(|nth| first + nth * 2).peekable();
        while let Some(&next) = bits.peek() {
            let word = next / 64;
            let mut new = 0;
            while let Some(bit) = bits.next_if(|bit| bit / 64 == word) {
                let mask = 1u64 << (bit % 64);
                if (counted.words[word as usize] | new) & mask != 0 {
                    *counted.more.entry(bit).or_insert(0) += 1;
                } else {
                    new |= mask;
                }
            }
            counted.words[word as usize] |= new;
            if let (Some(maps), 1..) = (maps, new) {
                maps.raise(field.map(maps).word64(word as usize * 8), new);
            }
        }
    }

    /// Takes back what `raise_all` did once.
    fn lower_all(&mut self, maps: &Maps, field: Field, first: u32, count: u32) {
        let counted = &mut self.fields[field.index()];
        let mut bits = (0..count).map(|nth| first + nth * 2).peekable();
        while let Some(&next) = bits.peek() {
            let word = next / 64;
            let mut gone = 0;
            while let Some(bit) = bits.next_if(|bit| bit / 64 == word) {
                match counted.more.get_mut(&bit) {
                    Some(1) => drop(counted.more.remove(&bit)),
                    Some(more) => *more -= 1,
                    None => gone |= 1u64 << (bit % 64),
                }
            }
            counted.words[word as usize] &= !gone;
            if gone != 0 {
                maps.lower(field.map(maps).word64(word as usize * 8), gone);
            }
        }
    }

    /// Brings the counts in `CONFIG` to what they are to be; how many were not.
    pub fn write_config(&self, maps: &Maps) -> u64 {
        let levels = self.levels.iter().enumerate().filter(|(_, count)| **count > 0);
        let levels = levels.fold(0, |bits, (level, _)| bits | 1 << level);
        let mut changed = 0;
        for (offset, value) in [
            (offset_of!(Config, wide_bans_v4), self.wide_bans[Family::V4 as usize]),
            (offset_of!(Config, wide_bans_v6), self.wide_bans[Family::V6 as usize]),
            (offset_of!(Config, wide_allow_v6), self.wide_allow),
            (offset_of!(Config, levels_v6), levels),
        ] {
            let word = maps.config.word32(offset);
            if word.load(SeqCst) != value {
                maps.store32(word, value);
                changed += 1;
            }
        }
        changed
    }

    /// Words of a field.
    pub fn words(&self, field: Field) -> usize {
        self.fields[field.index()].words.len()
    }

    /// Brings a word of the map to what it is to be; how many of its bits were not.
    pub fn mend(&self, maps: &Maps, field: Field, word: usize) -> u64 {
        let wanted = self.fields[field.index()].words[word];
        let cell = field.map(maps).word64(word * 8);
        let found = cell.load(SeqCst);
        if found == wanted {
            return 0;
        }
        maps.store64(cell, wanted);
        u64::from((found ^ wanted).count_ones())
    }
}
