//! Who holds a prefix, and what the kernel is told of it.
//!
//! A prefix has up to eight slots, one for each jail that holds it. A ninth jail is a guest: it is
//! merged into the slot with the nearest later end, whose scopes are united, so that it is never
//! dropped though it may last longer. When a jail lets go its slot goes to a guest.
use std::ops::Deref;

use fail2xdp_common::value::{MAX_SLOTS, Slot};

use super::lines::Place;

/// A jail beyond the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Guest {
    hold: Slot,
    /// The slot that covers it.
    host: usize,
}

/// What the kernel is told: from one to eight slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    slots: [Slot; MAX_SLOTS],
    count: usize,
}

impl Deref for Told {
    type Target = [Slot];
    fn deref(&self) -> &[Slot] {
        &self.slots[..self.count]
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct More {
    /// Slots two and on as told; only while there is no guest also what their jails asked for.
    rest: Vec<Slot>,
    /// While there are guests, what each slot's own jail asked for.
    own: Vec<Slot>,
    guests: Vec<Guest>,
}

/// A banned prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the maps.
    pub id: u32,
    /// Where it is kept besides the trie.
    pub place: Place,
    first: Slot,
    /// Nearly every prefix is held by one jail alone.
    more: Option<Box<More>>,
}

impl Entry {
    /// A prefix with these slots, at least one.
    pub fn new(id: u32, slots: &[Slot]) -> Entry {
        let more = (slots.len() > 1)
            .then(|| Box::new(More { rest: slots[1..].to_vec(), ..More::default() }));
        Entry { id, place: Place::Trie, first: slots.first().copied().unwrap_or_default(), more }
    }

    /// What the kernel is told.
    pub fn told(&self) -> Told {
        let mut told = Told { slots: [Slot::default(); MAX_SLOTS], count: 1 };
        told.slots[0] = self.first;
        if let Some(more) = &self.more {
            told.count += more.rest.len();
            told.slots[1..told.count].copy_from_slice(&more.rest);
        }
        told
    }

    /// What the jails asked for, guests last.
    pub fn holds(&self) -> Vec<Slot> {
        match &self.more {
            Some(more) if !more.guests.is_empty() => {
                more.own.iter().copied().chain(more.guests.iter().map(|guest| guest.hold)).collect()
            }
            _ => self.told().to_vec(),
        }
    }

    /// Every jail and scope number in use here, as often as each.
    pub fn references(&self) -> Vec<Slot> {
        match &self.more {
            Some(more) if !more.guests.is_empty() => {
                self.told().iter().copied().chain(self.holds()).collect()
            }
            _ => self.told().to_vec(),
        }
    }

    /// Whether `jail` is one of those merged into another's slot.
    #[cfg(test)]
    fn is_guest(&self, jail: u16) -> bool {
        self.more
            .as_ref()
            .is_some_and(|more| more.guests.iter().any(|guest| guest.hold.jail == jail))
    }

    fn parts(&self) -> (Vec<Slot>, Vec<Guest>) {
        match &self.more {
            Some(more) if !more.guests.is_empty() => (more.own.clone(), more.guests.clone()),
            _ => (self.told().to_vec(), Vec::new()),
        }
    }

    fn rebuilt(
        &self,
        own: Vec<Slot>,
        guests: Vec<Guest>,
        unite: impl FnMut(u8, u8) -> u8,
    ) -> Entry {
        let told = tell(&own, &guests, unite);
        let mut entry = Entry { place: self.place, ..Entry::new(self.id, &told) };
        if !guests.is_empty() {
            let more = entry.more.get_or_insert_default();
            (more.own, more.guests) = (own, guests);
        }
        entry
    }

    /// A jail's hold, new or changed, at most `room` slots. `unite` gives the scope of two.
    pub fn with(&self, hold: Slot, room: usize, unite: impl FnMut(u8, u8) -> u8) -> Change {
        let (mut own, mut guests) = self.parts();
        let mut merged = false;
        let lead = if let Some(nth) = own.iter().position(|slot| slot.jail == hold.jail) {
            own[nth] = hold;
            nth
        } else if let Some(guest) = guests.iter_mut().find(|guest| guest.hold.jail == hold.jail) {
            guest.hold = hold;
            merged = true;
            guest.host
        } else if guests.is_empty() && own.len() < room.clamp(1, MAX_SLOTS) {
            own.push(hold);
            own.len() - 1
        } else {
            let host = host_for(&self.told(), hold.until);
            guests.push(Guest { hold, host });
            merged = true;
            host
        };
        Change { entry: self.rebuilt(own, guests, unite), lead, merged }
    }

    /// Without a jail's hold; `None` if it has none, a change to nothing if it was the last.
    pub fn without(&self, jail: u16, unite: impl FnMut(u8, u8) -> u8) -> Option<Option<Change>> {
        let (mut own, mut guests) = self.parts();
        let lead = if let Some(nth) = guests.iter().position(|guest| guest.hold.jail == jail) {
            guests.remove(nth).host
        } else {
            let nth = own.iter().position(|slot| slot.jail == jail)?;
            match guests.first().copied() {
                Some(guest) => {
                    own[nth] = guest.hold;
                    guests.remove(0);
                }
                None => {
                    own.swap_remove(nth);
                }
            }
            nth
        };
        if own.is_empty() {
            return Some(None);
        }
        Some(Some(Change { entry: self.rebuilt(own, guests, unite), lead, merged: false }))
    }
}

/// A prefix as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The prefix.
    pub entry: Entry,
    /// The slot that must be told first where two change, so that half-way every packet is judged as
    /// before or after.
    pub lead: usize,
    /// The jail shares another's slot.
    pub merged: bool,
}

/// The slot with the nearest later end; where none is later, the last.
fn host_for(told: &[Slot], until: u32) -> usize {
    let later = told.iter().enumerate().filter(|(_, slot)| slot.until >= until);
    let nearest = later.min_by_key(|(_, slot)| slot.until);
    let last = || told.iter().enumerate().max_by_key(|(_, slot)| slot.until);
    nearest.or_else(last).map_or(0, |(nth, _)| nth)
}

fn tell(own: &[Slot], guests: &[Guest], mut unite: impl FnMut(u8, u8) -> u8) -> Vec<Slot> {
    let mut told = own.to_vec();
    for guest in guests {
        let slot = &mut told[guest.host];
        slot.until = slot.until.max(guest.hold.until);
        if slot.scope != guest.hold.scope {
            slot.scope = unite(slot.scope, guest.hold.scope);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(jail: u16, until: u32) -> Slot {
        Slot { until, jail, scope: jail as u8, unused: 0 }
    }

    /// Scopes unite to 100 and more, so that a merged slot shows.
    fn unite(a: u8, b: u8) -> u8 {
        100 + a.max(b) % 100
    }

    fn full() -> Entry {
        (2..=8).fold(Entry::new(1, &[hold(1, 100)]), |entry, jail| {
            entry.with(hold(jail, u32::from(jail) * 100), MAX_SLOTS, unite).entry
        })
    }

    #[track_caller]
    fn check(entry: &Entry, told: &[(u16, u32, u8)]) {
        let found: Vec<_> =
            entry.told().iter().map(|slot| (slot.jail, slot.until, slot.scope)).collect();
        assert_eq!(found, told);
    }

    #[test]
    fn a_jail_has_one_slot_and_changes_it() {
        let entry = Entry::new(1, &[hold(1, 10)]).with(hold(2, 20), MAX_SLOTS, unite).entry;
        check(&entry, &[(1, 10, 1), (2, 20, 2)]);
        let change = entry.with(hold(1, 30), MAX_SLOTS, unite);
        check(&change.entry, &[(1, 30, 1), (2, 20, 2)]);
        assert_eq!(change.lead, 0);
        let change = change.entry.without(1, unite).flatten().expect("jail 2 still holds it");
        check(&change.entry, &[(2, 20, 2)]);
        assert_eq!(change.entry.without(3, unite), None);
        assert_eq!(change.entry.without(2, unite), Some(None));
    }

    #[test]
    fn a_ninth_jail_shares_the_slot_with_the_nearest_later_end() {
        let change = full().with(hold(9, 350), MAX_SLOTS, unite);
        assert!(change.merged && change.entry.is_guest(9));
        assert_eq!(change.lead, 3);
        assert_eq!(change.entry.told()[3], Slot { until: 400, jail: 4, scope: 109, unused: 0 });
        assert_eq!(change.entry.holds().len(), 9);
    }

    #[test]
    fn a_ninth_jail_that_ends_last_prolongs_the_slot_it_shares() {
        let change = full().with(hold(9, 5000), MAX_SLOTS, unite);
        assert_eq!(change.entry.told()[7], Slot { until: 5000, jail: 8, scope: 109, unused: 0 });
    }

    #[test]
    fn a_guest_takes_the_slot_that_becomes_free() {
        let entry = full().with(hold(9, 350), MAX_SLOTS, unite).entry;
        let change = entry.without(2, unite).flatten().expect("others hold it");
        assert_eq!(change.lead, 1);
        assert_eq!(change.entry.told()[1], hold(9, 350));
        assert_eq!(change.entry.told()[3], hold(4, 400));
        assert!(!change.entry.is_guest(9));
    }

    #[test]
    fn a_guest_that_lets_go_leaves_its_host_as_it_was() {
        let entry = full().with(hold(9, 350), MAX_SLOTS, unite).entry;
        let change = entry.without(9, unite).flatten().expect("others hold it");
        assert_eq!(*change.entry.told(), *full().told());
    }
}
