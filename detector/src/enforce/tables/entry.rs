//! Who holds a prefix, and what the kernel is told of it.
//!
//! A prefix has up to eight slots, one for each jail that holds it. A ninth jail is a guest: it is
//! merged into the slot with the nearest later end, whose scopes are united, so that it is never
//! dropped though it may last longer. When a jail lets go its slot goes to a guest.
//!
//! What the prefix inherits ([`super::nesting`]) is told in the slots that are left: where they do not
//! suffice, united in one. Of several in one slot those are told that drop, if any does: the scope of a
//! jail that only observes must not be dropped.
use std::ops::Deref;

use fail2xdp_common::value::{INHERITED, MAX_SLOTS, Slot};

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
    /// Slots two and on as told; what their jails asked for unless `asked` says otherwise.
    rest: Vec<Slot>,
    /// Where what is told is not just what was asked for.
    asked: Option<Asked>,
}

/// What is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// What each slot's own jail asked for.
    own: Vec<Slot>,
    guests: Vec<Guest>,
    inherited: Vec<Slot>,
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
    /// A prefix that these jails hold, at least one.
    pub fn new(id: u32, slots: &[Slot]) -> Entry {
        let more = (slots.len() > 1)
            .then(|| Box::new(More { rest: slots[1..].to_vec(), ..More::default() }));
        Entry { id, place: Place::Trie, first: slots.first().copied().unwrap_or_default(), more }
    }

    /// A prefix of which the maps tell this.
    pub fn adopted(id: u32, told: &[Slot]) -> Entry {
        let (inherited, own): (Vec<_>, Vec<_>) =
            told.iter().partition(|slot| slot.mark & INHERITED != 0);
        let mut entry = Entry::new(id, told);
        if let (Some(more), false) = (&mut entry.more, inherited.is_empty()) {
            more.asked = Some(Asked { own, guests: Vec::new(), inherited });
        }
        entry
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

    fn kept(&self) -> Option<&Asked> {
        self.more.as_ref().and_then(|more| more.asked.as_ref())
    }

    fn asked(&self) -> Asked {
        self.kept()
            .cloned()
            .unwrap_or_else(|| Asked { own: self.told().to_vec(), ..Asked::default() })
    }

    /// What the jails asked for, guests last.
    pub fn holds(&self) -> Vec<Slot> {
        match self.kept() {
            Some(asked) => {
                let guests = asked.guests.iter().map(|guest| guest.hold);
                asked.own.iter().copied().chain(guests).collect()
            }
            None => self.told().to_vec(),
        }
    }

    /// What is told on behalf of shorter prefixes.
    pub fn inherited(&self) -> &[Slot] {
        self.kept().map_or(&[], |asked| &asked.inherited)
    }

    /// Whether so many inherited slots can be told beside its own, with `room` slots in all.
    pub fn has_room_for(&self, inherited: usize, room: usize) -> bool {
        let own = self.kept().map_or(self.told().len(), |asked| asked.own.len());
        own + inherited <= room
    }

    /// Whether several share a slot, or something is inherited: then what is told depends on who observes.
    pub fn is_shared(&self) -> bool {
        self.kept().is_some()
    }

    /// The same prefix, told anew.
    pub fn retold(&self, room: usize, unite: impl FnMut(&[Slot]) -> Slot) -> Change {
        Change { entry: self.rebuilt(self.asked(), room, unite), lead: 0, merged: false }
    }

    /// What would be told if nothing were inherited.
    pub fn slots(&self, unite: impl FnMut(&[Slot]) -> Slot) -> Vec<Slot> {
        match self.kept() {
            Some(asked) => tell(&asked.own, &asked.guests, unite),
            None => self.told().to_vec(),
        }
    }

    /// Every jail and scope number in use here, as often as each.
    pub fn references(&self) -> Vec<Slot> {
        let mut references = self.told().to_vec();
        if self.kept().is_some() {
            references.extend(self.holds());
            references.extend(self.inherited());
        }
        references
    }

    /// Whether `jail` is one of those merged into another's slot.
    #[cfg(test)]
    fn is_guest(&self, jail: u16) -> bool {
        self.asked().guests.iter().any(|guest| guest.hold.jail == jail)
    }

    fn rebuilt(&self, asked: Asked, room: usize, mut unite: impl FnMut(&[Slot]) -> Slot) -> Entry {
        let mut told = tell(&asked.own, &asked.guests, &mut unite);
        inherit(&mut told, &asked.inherited, room, unite);
        let mut entry = Entry { place: self.place, ..Entry::new(self.id, &told) };
        if !asked.guests.is_empty() || !asked.inherited.is_empty() {
            entry.more.get_or_insert_default().asked = Some(asked);
        }
        entry
    }

    /// A jail's hold, new or changed, at most `room` slots. `unite` makes one slot of several.
    pub fn with(&self, hold: Slot, room: usize, mut unite: impl FnMut(&[Slot]) -> Slot) -> Change {
        let mut asked = self.asked();
        let Asked { own, guests, .. } = &mut asked;
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
            let host = host_for(&tell(own, guests, &mut unite), hold.until);
            guests.push(Guest { hold, host });
            merged = true;
            host
        };
        Change { entry: self.rebuilt(asked, room, unite), lead, merged }
    }

    /// Without a jail's hold; `None` if it has none, a change to nothing if it was the last.
    pub fn without(
        &self,
        jail: u16,
        room: usize,
        unite: impl FnMut(&[Slot]) -> Slot,
    ) -> Option<Option<Change>> {
        let mut asked = self.asked();
        let Asked { own, guests, .. } = &mut asked;
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
        Some(Some(Change { entry: self.rebuilt(asked, room, unite), lead, merged: false }))
    }

    /// With other inherited slots, at most `room` slots in all.
    pub fn inheriting(
        &self,
        inherited: Vec<Slot>,
        room: usize,
        unite: impl FnMut(&[Slot]) -> Slot,
    ) -> Change {
        let asked = Asked { inherited, ..self.asked() };
        Change { entry: self.rebuilt(asked, room, unite), lead: 0, merged: false }
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

fn tell(own: &[Slot], guests: &[Guest], mut unite: impl FnMut(&[Slot]) -> Slot) -> Vec<Slot> {
    let mut told = own.to_vec();
    for (nth, slot) in told.iter_mut().enumerate() {
        let merged = guests.iter().filter(|guest| guest.host == nth).map(|guest| guest.hold);
        cover(slot, merged, &mut unite);
    }
    told
}

/// Tells what is inherited in the slots that are left. Where it does not fit it is united in one, which
/// may drop more and last longer; where none is left, in the last.
fn inherit(
    told: &mut Vec<Slot>,
    inherited: &[Slot],
    room: usize,
    unite: impl FnMut(&[Slot]) -> Slot,
) {
    let room = room.clamp(1, MAX_SLOTS);
    if told.len() + inherited.len() <= room {
        told.extend_from_slice(inherited);
        return;
    }
    let mut inherited = inherited.iter().copied();
    if told.len() < room {
        told.extend(inherited.next());
    }
    if let Some(last) = told.last_mut() {
        cover(last, inherited, unite);
    }
}

/// Makes a slot cover others too, all in one go: each step would take a scope's number of its own.
fn cover(
    slot: &mut Slot,
    others: impl Iterator<Item = Slot>,
    mut unite: impl FnMut(&[Slot]) -> Slot,
) {
    let all: Vec<Slot> = std::iter::once(*slot).chain(others).collect();
    if all.len() > 1 {
        *slot = unite(&all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(jail: u16, until: u32) -> Slot {
        Slot { until, jail, scope: jail as u8, mark: 0 }
    }

    /// Scopes unite to 100 and more, so that a merged slot shows.
    fn unite(slots: &[Slot]) -> Slot {
        let until = slots.iter().map(|slot| slot.until).max().expect("two at least");
        let scope = slots.iter().map(|slot| slot.scope).max().expect("two at least");
        Slot { until, scope: 100 + scope, ..slots[0] }
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
        let change =
            change.entry.without(1, MAX_SLOTS, unite).flatten().expect("jail 2 still holds it");
        check(&change.entry, &[(2, 20, 2)]);
        assert_eq!(change.entry.without(3, MAX_SLOTS, unite), None);
        assert_eq!(change.entry.without(2, MAX_SLOTS, unite), Some(None));
    }

    #[test]
    fn a_ninth_jail_shares_the_slot_with_the_nearest_later_end() {
        let change = full().with(hold(9, 350), MAX_SLOTS, unite);
        assert!(change.merged && change.entry.is_guest(9));
        assert_eq!(change.lead, 3);
        assert_eq!(change.entry.told()[3], Slot { until: 400, jail: 4, scope: 109, mark: 0 });
        assert_eq!(change.entry.holds().len(), 9);
    }

    #[test]
    fn a_ninth_jail_that_ends_last_prolongs_the_slot_it_shares() {
        let change = full().with(hold(9, 5000), MAX_SLOTS, unite);
        assert_eq!(change.entry.told()[7], Slot { until: 5000, jail: 8, scope: 109, mark: 0 });
    }

    #[test]
    fn a_guest_takes_the_slot_that_becomes_free() {
        let entry = full().with(hold(9, 350), MAX_SLOTS, unite).entry;
        let change = entry.without(2, MAX_SLOTS, unite).flatten().expect("others hold it");
        assert_eq!(change.lead, 1);
        assert_eq!(change.entry.told()[1], hold(9, 350));
        assert_eq!(change.entry.told()[3], hold(4, 400));
        assert!(!change.entry.is_guest(9));
    }

    #[test]
    fn a_guest_that_lets_go_leaves_its_host_as_it_was() {
        let entry = full().with(hold(9, 350), MAX_SLOTS, unite).entry;
        let change = entry.without(9, MAX_SLOTS, unite).flatten().expect("others hold it");
        assert_eq!(*change.entry.told(), *full().told());
    }

    fn inherited(jail: u16, until: u32) -> Slot {
        Slot { mark: INHERITED, ..hold(jail, until) }
    }

    #[test]
    fn what_is_inherited_takes_the_slots_that_are_left() {
        let entry = Entry::new(1, &[hold(1, 10)]);
        let heir = entry.inheriting(vec![inherited(7, 5), inherited(8, 20)], MAX_SLOTS, unite);
        check(&heir.entry, &[(1, 10, 1), (7, 5, 7), (8, 20, 8)]);
        assert_eq!(heir.entry.holds(), [hold(1, 10)]);
        let adopted = Entry::adopted(1, &heir.entry.told());
        assert_eq!(adopted, heir.entry);
        let grown = adopted.with(hold(2, 30), MAX_SLOTS, unite).entry;
        check(&grown, &[(1, 10, 1), (2, 30, 2), (7, 5, 7), (8, 20, 8)]);
        let poor = grown.inheriting(Vec::new(), MAX_SLOTS, unite).entry;
        check(&poor, &[(1, 10, 1), (2, 30, 2)]);
    }

    #[test]
    fn what_is_inherited_beyond_the_slots_is_united() {
        let heritage = || vec![inherited(20, 5), inherited(21, 900)];
        let seven = full().without(8, MAX_SLOTS, unite).flatten().expect("seven hold it").entry;
        let heir = seven.inheriting(heritage(), MAX_SLOTS, unite).entry;
        assert_eq!(heir.told()[7], Slot { scope: 121, ..inherited(20, 900) });
        let heir = full().inheriting(heritage(), MAX_SLOTS, unite).entry;
        assert_eq!(heir.told()[7], Slot { scope: 121, ..hold(8, 900) });
        let alone = Entry::new(1, &[hold(1, 10)]).inheriting(heritage(), 1, unite).entry;
        check(&alone, &[(1, 900, 121)]);
        assert_eq!(alone.holds(), [hold(1, 10)]);
    }
}
