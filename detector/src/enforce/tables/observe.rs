//! Counting what would be dropped instead of dropping it: all of it, or what some jails ban.
//!
//! A jail that only observes has a bit in `CONFIG`, so that switching it is one store, however many bans it has.
//! Its slots stand where they would: what they say is counted, and the program looks on for one that drops.
//!
//! Where several jails share a slot, what is told depends on who observes. While jails are switched, those drop that
//! drop before or after: first the bits of those that shall drop again are turned and such slots told so, then they
//! are told as they are to be, then the bits of those that shall only observe are turned. So no packet is let through
//! that is dropped before and after; where scopes had to be united more may be dropped for the moment.
use std::{collections::HashSet, mem::offset_of, sync::atomic::Ordering::SeqCst};

use fail2xdp_common::config::{Config, OBSERVE, OBSERVED_WORDS};

use super::{
    TableError, Tables,
    maps::Maps,
    prefix::{Family, Prefix},
};

/// Jails in a word.
const EACH: u16 = u64::BITS as u16;

/// The jails whose bits are set.
pub(super) fn read(maps: &Maps) -> HashSet<u16> {
    let words =
        (0..=u16::MAX / EACH).map(|nth| (nth, word(maps, nth))).filter(|(_, word)| *word != 0);
    words
        .flat_map(|(nth, word)| {
            (0..EACH).filter(move |bit| word >> bit & 1 != 0).map(move |bit| nth * EACH + bit)
        })
        .collect()
}

fn word(maps: &Maps, nth: u16) -> u64 {
    maps.config.word64(offset_of!(Config, observed) + usize::from(nth) * 8).load(SeqCst)
}

/// Whether a jail's bit is set.
pub(super) fn is_set(maps: &Maps, jail: u16) -> bool {
    word(maps, jail / EACH) >> (jail % EACH) & 1 != 0
}

impl Tables {
    fn flags(&self) -> u32 {
        self.maps.config.word32(offset_of!(Config, flags)).load(SeqCst)
    }

    /// Whether the program only counts what a jail bans.
    pub(super) fn is_observed(&self, jail: u16) -> bool {
        self.flags() & OBSERVE != 0 || is_set(&self.maps, jail)
    }

    /// Counts what would be dropped and drops nothing, or drops again. What was counted so far stays what it was.
    pub fn set_observe(&mut self, on: bool) {
        if (self.flags() & OBSERVE != 0) != on {
            self.harvest_all();
            self.set_flag(OBSERVE, on);
        }
    }

    /// From now on these jails only observe, and no others. What was counted so far stays what it was.
    ///
    /// # Errors
    /// [`TableError::TooManyJails`], or what a map says; then each jail is as before or as wanted.
    pub fn set_observing<'j>(
        &mut self,
        jails: impl IntoIterator<Item = &'j str>,
    ) -> Result<(), TableError> {
        let mut wanted = HashSet::new();
        for jail in jails {
            wanted.insert(self.names.jail(&self.maps, jail)?);
        }
        let before = self.names.observed().clone();
        if before == wanted {
            self.mend_observed();
            return Ok(());
        }
        self.harvest_all();
        self.names.set_observed(before.intersection(&wanted).copied().collect());
        self.mend_observed();
        self.tell_shared_anew()?;
        self.names.set_observed(wanted);
        self.tell_shared_anew()?;
        self.mend_observed();
        // As a later comparison would tell them.
        self.tell_shared_anew()
    }

    /// Brings the bits to what they are to be; whether they were not.
    pub(super) fn mend_observed(&self) -> bool {
        let observed = self.names.observed();
        let mut changed = false;
        let mut words = [0u64; OBSERVED_WORDS];
        for jail in observed {
            words[usize::from(jail / EACH)] |= 1 << (jail % EACH);
        }
        for (nth, wanted) in (0..).zip(words) {
            if word(&self.maps, nth) != wanted {
                let word = offset_of!(Config, observed) + usize::from(nth) * 8;
                self.maps.store64(self.maps.config.word64(word), wanted);
                changed = true;
            }
        }
        changed
    }

    /// Tells the slots that several share, and those that networks inherit, as it now has to be.
    fn tell_shared_anew(&mut self) -> Result<(), TableError> {
        let shared = self.bans.iter().filter(|(_, entry)| entry.is_shared());
        let shared: Vec<Prefix> = shared.map(|(prefix, _)| *prefix).collect();
        for prefix in &shared {
            let Some(entry) = self.bans.get(prefix).cloned() else { continue };
            let change = entry.retold(self.room_of(&entry), self.uniting());
            self.change(prefix, &entry, change)?;
        }
        for family in [Family::V4, Family::V6] {
            let everything = Prefix::everything(family);
            if !shared.is_empty() || self.lengths.may_nest(&everything) {
                self.inherit_within(&everything)?;
            }
        }
        Ok(())
    }
}
