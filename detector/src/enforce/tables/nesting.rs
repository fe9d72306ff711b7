//! Bans within bans, deeper than the program looks.
//!
//! The program asks the trie for at most [`MAX_DEPTH`] prefixes of a source, the longest first. So
//! every seventh network, counted from the outermost ban inward, inherits: its own slots also tell what
//! bans the shorter ones. Of any eight prefixes in a row the first seven are networks and one of them
//! is such a seventh; beyond it nothing is left to ask.
//!
//! What an heir is told applies to its packets anyway, through the shorter prefix. So both what it
//! inherited before a change and what it inherits after may be told while the change is written.
use fail2xdp_common::value::{INHERITED, MAX_DEPTH, Slot};

use super::{TableError, Tables, entry::Entry, prefix::Prefix, unite};

/// One network in so many inherits.
const EVERY: usize = MAX_DEPTH - 1;

/// How many banned networks there are of each length. Whole addresses do not count: nothing is within.
#[derive(Debug)]
pub struct Lengths([[u32; 129]; 2]);

impl Lengths {
    /// None.
    pub const NONE: Lengths = Lengths([[0; 129]; 2]);

    /// One more.
    pub fn add(&mut self, prefix: &Prefix) {
        if !prefix.is_address() {
            self.0[prefix.family() as usize][usize::from(prefix.length())] += 1;
        }
    }

    /// One less.
    pub fn remove(&mut self, prefix: &Prefix) {
        if !prefix.is_address() {
            self.0[prefix.family() as usize][usize::from(prefix.length())] -= 1;
        }
    }

    /// Lengths of the banned networks that are shorter than this prefix.
    fn shorter(&self, prefix: &Prefix) -> impl Iterator<Item = u8> {
        let counts = &self.0[prefix.family() as usize][..usize::from(prefix.length())];
        counts.iter().zip(0..).filter(|(count, _)| **count > 0).map(|(_, length)| length)
    }

    /// Whether some network may inherit because of this one: no chain of bans is longer than there are
    /// lengths.
    pub fn may_nest(&self, prefix: &Prefix) -> bool {
        let counts = &self.0[prefix.family() as usize];
        let others = counts
            .iter()
            .zip(0..)
            .filter(|(count, length)| **count > 0 && *length != prefix.length());
        !prefix.is_address() && others.count() + 1 >= EVERY
    }
}

/// A network whose inherited slots are to be these.
struct Heir {
    prefix: Prefix,
    inherited: Vec<Slot>,
}

impl Tables {
    /// Does `write`, which changes a prefix to be held by what `after` says (nothing: it is lifted), and
    /// has the networks within it inherit accordingly: while it is written both what they inherited before
    /// and what they inherit after, or, where these have no room together and would be united, what comes
    /// after. So at every moment each packet is judged as before or as after.
    pub(super) fn nested<T>(
        &mut self,
        prefix: &Prefix,
        after: impl FnOnce(&mut Tables) -> Vec<Slot>,
        write: impl FnOnce(&mut Tables) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        if !self.lengths.may_nest(prefix) {
            return write(self);
        }
        let slots = after(self);
        for Heir { prefix, inherited } in self.heirs(prefix, &slots) {
            let Some(entry) = self.bans.get(&prefix) else { continue };
            let mut both = inherited.clone();
            for slot in entry.inherited() {
                self.add_inherited(&mut both, *slot);
            }
            let fits = entry.has_room_for(both.len(), self.room_of(entry));
            self.inherit(&prefix, if fits || inherited.is_empty() { both } else { inherited })?;
        }
        let written = write(self);
        // Whether it could be written or not.
        self.inherit_within(prefix)?;
        written
    }

    /// Has the networks within a prefix, and itself, inherit what they are to. How many were told
    /// something else.
    pub(super) fn inherit_within(&mut self, prefix: &Prefix) -> Result<u64, TableError> {
        let slots = self.slots_of(prefix);
        let mut changed = 0;
        for heir in self.heirs(prefix, &slots) {
            changed += u64::from(self.inherit(&heir.prefix, heir.inherited)?);
        }
        Ok(changed)
    }

    /// Its own slots; none if it is not banned.
    fn slots_of(&mut self, prefix: &Prefix) -> Vec<Slot> {
        let Tables { bans, names, maps, .. } = self;
        let slots = |entry: &Entry| entry.slots(|slots| unite(names, maps, slots));
        bans.get(prefix).map(slots).unwrap_or_default()
    }

    /// The banned networks within a prefix, and itself, that are to inherit something else than they do,
    /// if the prefix were held by these slots.
    fn heirs(&mut self, prefix: &Prefix, slots: &[Slot]) -> Vec<Heir> {
        // The chain of bans above the one looked at, the outermost first.
        let mut above: Vec<Prefix> = self
            .lengths
            .shorter(prefix)
            .map(|length| prefix.cut(length))
            .filter(|shorter| self.bans.contains_key(shorter))
            .collect();
        let banned = (!slots.is_empty()).then_some(*prefix);
        let within: Vec<Prefix> = self
            .bans
            .range(prefix..)
            .map(|(within, _)| *within)
            .take_while(|within| prefix.covers(within))
            .filter(|within| within != prefix && !within.is_address())
            .collect();
        let mut heirs = Vec::new();
        for network in banned.into_iter().chain(within) {
            while above.last().is_some_and(|last| !last.covers(&network)) {
                above.pop();
            }
            let mut inherited: Vec<Slot> = Vec::new();
            if (above.len() + 1).is_multiple_of(EVERY) {
                for shorter in above.iter().rev() {
                    let held =
                        if shorter == prefix { slots.to_vec() } else { self.slots_of(shorter) };
                    for slot in held {
                        self.add_inherited(&mut inherited, slot);
                    }
                }
            }
            if self.bans.get(&network).is_none_or(|entry| entry.inherited() != inherited) {
                heirs.push(Heir { prefix: network, inherited });
            }
            above.push(network);
        }
        heirs
    }

    /// Of several slots of one scope, those that drop and those that are only observed, the one that ends last says
    /// it all.
    fn add_inherited(&self, inherited: &mut Vec<Slot>, slot: Slot) {
        let slot = Slot { mark: INHERITED, ..slot };
        let observed = self.names.observes(slot.jail);
        let like = |known: &&mut Slot| {
            known.scope == slot.scope && self.names.observes(known.jail) == observed
        };
        match inherited.iter_mut().find(like) {
            Some(known) if known.until >= slot.until => {}
            Some(known) => *known = slot,
            None => inherited.push(slot),
        }
    }

    /// Tells a banned network's inherited slots; whether that changed what it is told.
    fn inherit(&mut self, prefix: &Prefix, inherited: Vec<Slot>) -> Result<bool, TableError> {
        let Some(entry) = self.bans.get(prefix).cloned() else { return Ok(false) };
        let change = entry.inheriting(inherited, self.room_of(&entry), self.uniting());
        let differs = *change.entry.told() != *entry.told();
        self.change(prefix, &entry, change)?;
        Ok(differs)
    }
}
