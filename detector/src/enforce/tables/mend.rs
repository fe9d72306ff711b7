//! The table compared with the maps, and the maps mended.
//!
//! At adoption the tries tell the table what is banned; ever after the table tells the maps. Everything
//! else (lines, flags, bits, counts, rows of scopes) follows from the bans and is compared with what
//! follows.
use std::{collections::HashSet, fmt};

use fail2xdp_common::value::Slot;

use super::{
    TableError, Tables,
    bits::Field,
    entry::Entry,
    grace::Waiting,
    ids::Ids,
    layout::Slots,
    lines::{self, Place},
    observe,
    prefix::{Family, Prefix},
    tries,
};

/// What was found to differ, and was mended. Counts, since a ban missing from a map is an incident and
/// a stray bit is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Bans that a trie lacked.
    pub bans_missing: u64,
    /// Entries of a trie that no ban explains.
    pub bans_stray: u64,
    /// Bans whose end, jail, scope or number was another.
    pub bans_changed: u64,
    /// Lists of further slots that were missing, stray or another.
    pub slots: u64,
    /// Entries of lines that were missing, stray or another, and flags of lines.
    pub lines: u64,
    /// Hint and network bits, and counts of wide prefixes.
    pub bits: u64,
    /// Rows of `SCOPES`.
    pub scopes: u64,
    /// Allow entries that were missing or stray.
    pub allowed: u64,
}

impl Differences {
    /// Whether nothing differed.
    pub fn is_none(&self) -> bool {
        *self == Differences::default()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.bans_missing, "bans were missing"),
            (self.bans_stray, "bans were stray"),
            (self.bans_changed, "bans were changed"),
            (self.slots, "lists of slots differed"),
            (self.lines, "lines differed"),
            (self.bits, "bits differed"),
            (self.scopes, "scope rows differed"),
            (self.allowed, "allow entries differed"),
        ];
        let mut said = counts.into_iter().filter(|(count, _)| *count > 0).peekable();
        if said.peek().is_none() {
            return f.write_str("nothing differed");
        }
        while let Some((count, what)) = said.next() {
            write!(f, "{count} {what}{}", if said.peek().is_some() { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// What a comparison looks at next.
#[derive(Debug)]
enum Stage {
    /// Every ban of the table, these still to come.
    Bans(Vec<Prefix>),
    /// Every entry of a trie, after this one.
    Strays(Family, Option<Prefix>),
    /// Every line, from this one.
    Lines(Family, u32),
    /// Every word of a field, from this one.
    Bits(usize, usize),
    /// What is small: counts, scopes, further slots, the allow list.
    Rest,
}

/// A comparison under way.
#[derive(Debug)]
pub struct Comparison {
    stage: Stage,
    found: Differences,
}

/// Words of bits or lines that cost about as much as one entry of a trie.
const CHEAP: usize = 16;

impl Tables {
    /// Compares the table with the maps and mends these: looks at up to `entries` entries and goes on
    /// there at the next call. Returns what was found once everything has been seen.
    ///
    /// # Errors
    /// [`TableError::Call`]; the next call starts anew.
    pub fn compare(&mut self, entries: usize) -> Result<Option<Differences>, TableError> {
        let mut comparison = self.comparison.take().unwrap_or_else(|| Comparison {
            stage: Stage::Bans(self.bans.keys().copied().collect()),
            found: Differences::default(),
        });
        let mut left = entries.max(1);
        while left > 0 {
            let Comparison { stage, found } = &mut comparison;
            let next = match stage {
                Stage::Bans(prefixes) => self.compare_bans(prefixes, found, &mut left)?,
                Stage::Strays(family, after) => {
                    self.compare_strays(*family, after, found, &mut left)?
                }
                Stage::Lines(family, line) => self.compare_lines(*family, line, found, &mut left),
                Stage::Bits(field, word) => self.compare_bits(*field, word, found, &mut left),
                Stage::Rest => {
                    self.compare_rest(found)?;
                    return Ok(Some(comparison.found));
                }
            };
            if let Some(next) = next {
                comparison.stage = next;
            }
        }
        self.comparison = Some(comparison);
        Ok(None)
    }

    fn compare_bans(
        &mut self,
        prefixes: &mut Vec<Prefix>,
        found: &mut Differences,
        left: &mut usize,
    ) -> Result<Option<Stage>, TableError> {
        while *left > 0 {
            let Some(prefix) = prefixes.pop() else {
                return Ok(Some(Stage::Strays(Family::V4, None)));
            };
            *left -= 1;
            // Lifted since the comparison began.
            let Some(entry) = self.bans.get(&prefix).cloned() else { continue };
            let told = entry.told();
            if told.len() > 1 {
                let wanted = tries::more_of(entry.id, &told);
                if self.maps.more_slots.get(&entry.id)? != Some(wanted) {
                    self.maps.put(&self.maps.more_slots, &entry.id, &wanted)?;
                    found.slots += 1;
                }
            }
            let wanted = tries::ban_of(&prefix, entry.id, &told);
            match tries::get(&self.maps, &prefix)? {
                Some(ban) if ban == wanted => {}
                Some(_) => {
                    tries::put(&self.maps, &prefix, &wanted)?;
                    found.bans_changed += 1;
                }
                None => {
                    tries::put(&self.maps, &prefix, &wanted)?;
                    found.bans_missing += 1;
                }
            }
            self.compare_place(&prefix, entry, &told, found);
        }
        Ok(None)
    }

    fn compare_place(
        &mut self,
        prefix: &Prefix,
        mut entry: Entry,
        told: &[Slot],
        found: &mut Differences,
    ) {
        let Place::Line(slot) = entry.place else { return };
        if lines::occupant(&self.maps, prefix.family(), slot) == Some(*prefix) {
            let changed = self.lines.rewrite(&self.maps, prefix, slot, &told[0], told.len() > 1);
            found.lines += u64::from(changed);
            return;
        }
        // Whatever is in its place goes when its line is looked at. It gets another one.
        if let Some((_, slot)) = self.lines.remove(&self.maps, &self.layout, prefix, entry.place) {
            self.grace.wait_for(Waiting::Slot(prefix.family(), slot));
        }
        entry.place = self.lines.place(&self.maps, &self.layout, prefix, &told[0], told.len() > 1);
        self.bans.insert(*prefix, entry);
        found.lines += 1;
    }

    fn compare_strays(
        &mut self,
        family: Family,
        after: &mut Option<Prefix>,
        found: &mut Differences,
        left: &mut usize,
    ) -> Result<Option<Stage>, TableError> {
        while *left > 0 {
            *left -= 1;
            let Some(prefix) = tries::next(&self.maps, family, after.as_ref())? else {
                return Ok(Some(match family {
                    Family::V4 => Stage::Strays(Family::V6, None),
                    Family::V6 => Stage::Lines(Family::V4, 0),
                }));
            };
            if self.bans.contains_key(&prefix) {
                *after = Some(prefix);
            } else {
                tries::remove(&self.maps, &prefix)?;
                found.bans_stray += 1;
                // The walk cannot go on from a key that is gone.
                *after = None;
            }
        }
        Ok(None)
    }

    fn compare_lines(
        &mut self,
        family: Family,
        line: &mut u32,
        found: &mut Differences,
        left: &mut usize,
    ) -> Option<Stage> {
        let (count, slots) = (self.maps.hosts(family).entries(), Slots::of(family));
        let until =
            count.min(line.saturating_add(left.saturating_mul(CHEAP).min(count as usize) as u32));
        *left = left.saturating_sub(((until - *line) as usize).div_ceil(CHEAP).max(1));
        while *line < until {
            for slot in *line * slots.in_line..(*line + 1) * slots.in_line {
                let Some(prefix) = lines::occupant(&self.maps, family, slot) else { continue };
                if self.bans.get(&prefix).is_none_or(|entry| entry.place != Place::Line(slot)) {
                    self.lines.clear(&self.maps, family, slot);
                    self.grace.wait_for(Waiting::Slot(family, slot));
                    found.lines += 1;
                }
            }
            found.lines += u64::from(self.lines.mend_flags(&self.maps, family, *line));
            *line += 1;
        }
        (*line == count).then_some(match family {
            Family::V4 => Stage::Lines(Family::V6, 0),
            Family::V6 => Stage::Bits(0, 0),
        })
    }

    fn compare_bits(
        &mut self,
        nth: usize,
        word: &mut usize,
        found: &mut Differences,
        left: &mut usize,
    ) -> Option<Stage> {
        let Some(&field) = Field::ALL.get(nth) else { return Some(Stage::Rest) };
        let count = self.bits.words(field);
        let until = count.min(word.saturating_add(left.saturating_mul(CHEAP)));
        *left = left.saturating_sub((until - *word).div_ceil(CHEAP).max(1));
        while *word < until {
            found.bits += self.bits.mend(&self.maps, field, *word);
            *word += 1;
        }
        (*word == count).then_some(Stage::Bits(nth + 1, 0))
    }

    fn compare_rest(&mut self, found: &mut Differences) -> Result<(), TableError> {
        found.bits += self.bits.write_config(&self.maps) + u64::from(self.mend_observed());
        found.scopes += self.names.mend_rows(&self.maps);
        let ids: HashSet<u32> = self
            .bans
            .values()
            .filter(|entry| entry.told().len() > 1)
            .map(|entry| entry.id)
            .collect();
        for id in self.maps.more_slots.keys()? {
            if !ids.contains(&id) && !self.leaving.contains_key(&id) {
                self.maps.remove(&self.maps.more_slots, &id)?;
                found.slots += 1;
            }
        }
        let in_maps: HashSet<Prefix> = tries::allowed(&self.maps)?.into_iter().collect();
        for prefix in self.allowed.iter().filter(|prefix| !in_maps.contains(prefix)) {
            tries::allow(&self.maps, prefix)?;
            found.allowed += 1;
        }
        for prefix in in_maps.iter().filter(|prefix| !self.allowed.contains(prefix)) {
            tries::disallow(&self.maps, prefix)?;
            found.allowed += 1;
        }
        Ok(())
    }

    /// Reads the bans from the tries, finds them in the lines, and mends the rest.
    pub(super) fn take_over(&mut self) -> Result<Differences, TableError> {
        let (mut found, mut inherits) = (Differences::default(), false);
        // As the maps have it; who observes by now is told later.
        self.names.set_observed(observe::read(&self.maps));
        let mut entries: Vec<(Prefix, Entry)> = Vec::new();
        for (prefix, ban) in tries::bans(&self.maps)? {
            let (id, told) = (ban.id, tries::slots(&self.maps, &ban)?);
            if told.len() > 1 && self.maps.more_slots.get(&id)? != Some(tries::more_of(id, &told)) {
                self.maps.put(&self.maps.more_slots, &id, &tries::more_of(id, &told))?;
                found.slots += 1;
            }
            told.iter().for_each(|slot| self.names.adopt_slot(&self.maps, slot));
            let entry = Entry::adopted(id, &told);
            inherits |= !entry.inherited().is_empty();
            self.names.hold(&entry.references());
            self.with_more += u32::from(told.len() > 1);
            self.bits.add_ban(None, &self.layout, &prefix);
            self.counts[prefix.family() as usize] += 1;
            self.lengths.add(&prefix);
            entries.push((prefix, entry));
        }
        // All at once: they come nearly in order.
        self.bans = entries.into_iter().collect();
        for prefix in tries::allowed(&self.maps)? {
            self.bits.add_allow(None, &self.layout, &prefix);
            self.allowed.insert(prefix);
        }
        self.ids = Ids::adopt(self.bans.values().map(|entry| entry.id));
        for family in [Family::V4, Family::V6] {
            found.lines += self.find_in_lines(family);
        }
        found.lines += self.place_the_rest();
        for family in [Family::V4, Family::V6] {
            let everything = Prefix::everything(family);
            if inherits || self.lengths.may_nest(&everything) {
                found.slots += self.inherit_within(&everything)?;
            }
        }
        for family in [Family::V4, Family::V6] {
            let lines = 0..self.maps.hosts(family).entries();
            let mended = lines.filter(|line| self.lines.mend_flags(&self.maps, family, *line));
            found.lines += mended.count() as u64;
        }
        // Tries and lines were just read and need no comparison; what follows from them does.
        self.comparison = Some(Comparison { stage: Stage::Bits(0, 0), found });
        loop {
            if let Some(found) = self.compare(usize::MAX)? {
                return Ok(found);
            }
        }
    }

    /// Notes which bans the lines hold, as the tries have them; clears entries of bans that are no more.
    /// How many entries that changed.
    fn find_in_lines(&mut self, family: Family) -> u64 {
        let slots = Slots::of(family);
        let mut changed = 0;
        for slot in 0..self.maps.hosts(family).entries() * slots.in_line {
            let Some(prefix) = lines::occupant(&self.maps, family, slot) else { continue };
            let line = slots.line(slot);
            let entry = self.bans.get_mut(&prefix).filter(|entry| entry.place == Place::Trie);
            match entry.filter(|_| self.layout.home(&prefix) | 1 == line | 1) {
                Some(entry) => {
                    entry.place = Place::Line(slot);
                    let told = entry.told();
                    self.lines.found(&self.layout, &prefix, slot);
                    changed += u64::from(self.lines.rewrite(
                        &self.maps,
                        &prefix,
                        slot,
                        &told[0],
                        told.len() > 1,
                    ));
                }
                None => {
                    self.lines.clear(&self.maps, family, slot);
                    self.grace.wait_for(Waiting::Slot(family, slot));
                    changed += 1;
                }
            }
        }
        changed
    }

    /// Puts bans that no line holds into one, or says in their line that the trie has them.
    fn place_the_rest(&mut self) -> u64 {
        let mut placed = 0;
        for (prefix, entry) in &mut self.bans {
            if entry.place == Place::Trie && prefix.fits_a_line() {
                let told = entry.told();
                entry.place =
                    self.lines.place(&self.maps, &self.layout, prefix, &told[0], told.len() > 1);
                placed += u64::from(entry.place != Place::Overflow);
            }
        }
        placed
    }
}
