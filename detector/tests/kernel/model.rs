//! The plain model of a verdict: lists of bans, no tricks.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fail2xdp::config::Scope;
use fail2xdp_common::value::{MAX_DEPTH, MAX_SLOTS};
use ipnet::IpNet;

use crate::frame::Truth;

/// Whether a packet of which this is known is in a scope. What is not known counts as in it.
pub fn in_scope(scope: &Scope, protocol: Option<u8>, port: Option<u16>) -> bool {
    let (Scope::Only(traffic), Some(protocol)) = (scope, protocol) else { return true };
    traffic.iter().filter(|share| share.protocol == protocol).any(|share| match port {
        Some(port) if !share.ports.is_empty() => {
            share.ports.iter().any(|&(from, to)| from <= port && port <= to)
        }
        _ => true,
    })
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Passed,
    Dropped,
    WouldDrop,
    Spared,
    NotIp,
    Unreadable,
}

/// A jail's hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub jail: String,
    pub scope: Scope,
    pub until: u32,
}

/// Jails that only observe.
type Observing = BTreeSet<String>;

/// One slot as enforced: a hold, and the guests merged into it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    own: Hold,
    guests: Vec<Hold>,
}

impl Slot {
    fn all(&self) -> impl Iterator<Item = &Hold> {
        std::iter::once(&self.own).chain(&self.guests)
    }

    fn told(&self, observing: &Observing) -> Told {
        Told::united(self.all().map(|hold| Told {
            scope: hold.scope.clone(),
            until: hold.until,
            drops: !observing.contains(&hold.jail),
        }))
    }
}

/// What the kernel is told in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    scope: Scope,
    until: u32,
    drops: bool,
}

impl Told {
    /// Of several in one slot those that drop, if any does.
    fn united(all: impl Iterator<Item = Told>) -> Told {
        let all: Vec<Told> = all.collect();
        let drops = all.iter().any(|told| told.drops);
        let kept = all.into_iter().filter(|told| told.drops == drops);
        let nothing = Told { scope: Scope::NOTHING, until: 0, drops };
        kept.fold(nothing, |one, other| Told {
            scope: one.scope.union(other.scope),
            until: one.until.max(other.until),
            drops,
        })
    }

    fn applies(&self, now: u32, protocol: Option<u8>, port: Option<u16>) -> bool {
        self.until > now && in_scope(&self.scope, protocol, port)
    }
}

/// Everything banned and allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    bans: BTreeMap<IpNet, Vec<Slot>>,
    pub allowed: Vec<IpNet>,
    /// Jails that only observe.
    pub observing: BTreeSet<String>,
    /// Nothing is dropped at all.
    pub observes: bool,
    /// Jails that were merged, in the order they came: the first gets the slot that becomes free.
    order: Vec<(IpNet, String)>,
}

impl Model {
    pub fn ban(&mut self, prefix: IpNet, hold: Hold) {
        let Model { bans, observing, .. } = self;
        let slots = bans.entry(prefix).or_default();
        for slot in slots.iter_mut() {
            if slot.own.jail == hold.jail {
                slot.own = hold;
                return;
            }
            if let Some(guest) = slot.guests.iter_mut().find(|guest| guest.jail == hold.jail) {
                *guest = hold;
                return;
            }
        }
        if slots.len() < MAX_SLOTS && slots.iter().all(|slot| slot.guests.is_empty()) {
            slots.push(Slot { own: hold, guests: Vec::new() });
            return;
        }
        // The nearest later end, else the latest; the first of equals that end later, the last of equals else.
        let until = |nth: usize| slots[nth].told(observing).until;
        let later = (0..slots.len()).filter(|&nth| until(nth) >= hold.until);
        let host = later.min_by_key(|&nth| (until(nth), nth));
        let host = host.or_else(|| (0..slots.len()).max_by_key(|&nth| (until(nth), nth)));
        self.order.push((prefix, hold.jail.clone()));
        slots[host.expect("eight slots")].guests.push(hold);
    }

    /// Whether the jail held the prefix.
    pub fn unban(&mut self, prefix: IpNet, jail: &str) -> bool {
        let Some(slots) = self.bans.get_mut(&prefix) else { return false };
        for slot in slots.iter_mut() {
            if let Some(nth) = slot.guests.iter().position(|guest| guest.jail == jail) {
                slot.guests.remove(nth);
                self.order.retain(|(of, guest)| *of != prefix || guest != jail);
                return true;
            }
        }
        let Some(nth) = slots.iter().position(|slot| slot.own.jail == jail) else { return false };
        if let Some(next) = self.order.iter().position(|(of, _)| *of == prefix) {
            let (_, guest) = self.order.remove(next);
            for slot in 0..slots.len() {
                if let Some(at) = slots[slot].guests.iter().position(|hold| hold.jail == guest) {
                    slots[nth].own = slots[slot].guests.remove(at);
                    return true;
                }
            }
        }
        slots.swap_remove(nth);
        if slots.is_empty() {
            self.bans.remove(&prefix);
        }
        true
    }

    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.bans.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.bans.len()
    }

    /// Jails that hold a prefix.
    pub fn jails(&self, prefix: IpNet) -> Vec<String> {
        let slots = self.bans.get(&prefix).into_iter().flatten();
        slots.flat_map(|slot| slot.all().map(|hold| hold.jail.clone())).collect()
    }

    /// The holds on a prefix, sorted by jail.
    pub fn holds(&self, prefix: IpNet) -> Vec<Hold> {
        let mut holds: Vec<Hold> = self
            .bans
            .get(&prefix)
            .into_iter()
            .flatten()
            .flat_map(|slot| slot.all().cloned())
            .collect();
        holds.sort_by(|one, other| one.jail.cmp(&other.jail));
        holds
    }

    /// What becomes of a packet, and which ban counts it.
    pub fn verdict(&self, truth: &Truth, now: u32) -> (Outcome, Option<IpNet>) {
        let (source, protocol, port) = match *truth {
            Truth::NotIp => return (Outcome::NotIp, None),
            Truth::Unreadable => return (Outcome::Unreadable, None),
            Truth::Ip { source, protocol, port } => (source, protocol, port),
        };
        let covers = |net: &&IpNet| net.contains(&source);
        let mut covering: Vec<&IpNet> = self.bans.keys().filter(covers).collect();
        covering.sort_by_key(|net| std::cmp::Reverse(net.prefix_len()));
        let mut observed = None;
        // Deeper than so many the program does not look: what is there is told by one of these.
        let hit = covering.iter().enumerate().take(MAX_DEPTH).find(|&(nth, net)| {
            let heir = (covering.len() - nth).is_multiple_of(MAX_DEPTH - 1)
                && net.prefix_len() < net.max_prefix_len();
            let told = self.told(net, if heir { &covering[nth + 1..] } else { &[] });
            let applying = || told.iter().filter(|told| told.applies(now, protocol, port));
            if observed.is_none() && applying().next().is_some() {
                observed = Some(**net);
            }
            applying().any(|told| told.drops)
        });
        let hit = hit.map(|(_, net)| **net);
        match (hit, observed) {
            (None, None) => (Outcome::Passed, None),
            _ if self.is_allowed(source) => (Outcome::Spared, None),
            (Some(net), _) if self.observes => (Outcome::WouldDrop, Some(net)),
            (Some(net), _) => (Outcome::Dropped, Some(net)),
            (None, observed) => (Outcome::WouldDrop, observed),
        }
    }

    /// What a network's slots tell: its own, and what it inherits of shorter ones.
    fn told(&self, net: &IpNet, shorter: &[&IpNet]) -> Vec<Told> {
        let told = |net: &IpNet| self.bans[net].iter().map(|slot| slot.told(&self.observing));
        let mut own: Vec<Told> = told(net).collect();
        // Of one scope only the one that ends last.
        let mut inherited: Vec<Told> = Vec::new();
        for slot in shorter.iter().flat_map(|net| told(net)) {
            let like = |known: &&mut Told| known.scope == slot.scope && known.drops == slot.drops;
            match inherited.iter_mut().find(like) {
                Some(known) => known.until = known.until.max(slot.until),
                None => inherited.push(slot),
            }
        }
        if own.len() + inherited.len() <= MAX_SLOTS {
            own.extend(inherited);
        } else if !inherited.is_empty() {
            // All in one where they have no room: in the last of the own slots if these are eight.
            let last = if own.len() == MAX_SLOTS { own.pop() } else { None };
            own.push(Told::united(last.into_iter().chain(inherited)));
        }
        own
    }

    /// Whether it is dropped though no scopes were ever united for want of slots.
    pub fn drops_exactly(&self, truth: &Truth, now: u32) -> bool {
        let Truth::Ip { source, protocol, port } = *truth else { return false };
        let drops = |hold: &Hold| {
            !self.observing.contains(&hold.jail)
                && hold.until > now
                && in_scope(&hold.scope, protocol, port)
        };
        let mut covering = self.bans.iter().filter(|(net, _)| net.contains(&source));
        !self.observes
            && !self.is_allowed(source)
            && covering.any(|(_, slots)| slots.iter().flat_map(Slot::all).any(drops))
    }

    fn is_allowed(&self, source: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&source))
    }
}
