//! The plain model of a verdict: lists of bans, no tricks.
use std::{collections::BTreeMap, net::IpAddr};

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

/// One slot as enforced: a hold, and the guests merged into it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    own: Hold,
    guests: Vec<Hold>,
}

impl Slot {
    fn until(&self) -> u32 {
        self.all().map(|hold| hold.until).max().unwrap_or(0)
    }

    fn scope(&self) -> Scope {
        let scopes = self.all().map(|hold| hold.scope.clone());
        scopes.reduce(Scope::union).unwrap_or(Scope::NOTHING)
    }

    fn all(&self) -> impl Iterator<Item = &Hold> {
        std::iter::once(&self.own).chain(&self.guests)
    }

    fn applies(&self, now: u32, protocol: Option<u8>, port: Option<u16>) -> bool {
        self.until() > now && self.all().any(|hold| in_scope(&hold.scope, protocol, port))
    }
}

/// What a network tells of shorter ones.
struct Inherited(Vec<(Scope, u32)>);

impl Inherited {
    fn applies(&self, now: u32, protocol: Option<u8>, port: Option<u16>) -> bool {
        self.0.iter().any(|(scope, until)| *until > now && in_scope(scope, protocol, port))
    }
}

/// Everything banned and allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    bans: BTreeMap<IpNet, Vec<Slot>>,
    pub allowed: Vec<IpNet>,
    /// Jails that were merged, in the order they came: the first gets the slot that becomes free.
    order: Vec<(IpNet, String)>,
}

impl Model {
    pub fn ban(&mut self, prefix: IpNet, hold: Hold) {
        let slots = self.bans.entry(prefix).or_default();
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
        let later = (0..slots.len()).filter(|&nth| slots[nth].until() >= hold.until);
        let host = later.min_by_key(|&nth| (slots[nth].until(), nth));
        let host = host.or_else(|| (0..slots.len()).max_by_key(|&nth| (slots[nth].until(), nth)));
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
        let hit = covering.iter().enumerate().find(|&(nth, net)| {
            let own = &self.bans[*net];
            let from_outside = covering.len() - nth;
            // What a network tells of shorter ones may be more than these ban, and is heard where the program asks.
            own.iter().any(|slot| slot.applies(now, protocol, port))
                || nth < MAX_DEPTH
                    && from_outside.is_multiple_of(MAX_DEPTH - 1)
                    && net.prefix_len() < net.max_prefix_len()
                    && self.inherited(own, &covering[nth + 1..]).applies(now, protocol, port)
        });
        let hit = hit.map(|(_, net)| *net);
        match hit {
            None => (Outcome::Passed, None),
            Some(_) if self.is_allowed(source) => (Outcome::Spared, None),
            Some(net) => (Outcome::Dropped, Some(*net)),
        }
    }

    /// What every seventh network from outside tells of the shorter ones, beside its own slots.
    fn inherited(&self, own: &[Slot], shorter: &[&IpNet]) -> Inherited {
        // Of one scope only the one that ends last.
        let mut slots: Vec<(Scope, u32)> = Vec::new();
        for slot in shorter.iter().flat_map(|net| &self.bans[*net]) {
            match slots.iter_mut().find(|(scope, _)| *scope == slot.scope()) {
                Some((_, until)) => *until = slot.until().max(*until),
                None => slots.push((slot.scope(), slot.until())),
            }
        }
        if own.len() + slots.len() <= MAX_SLOTS || slots.is_empty() {
            return Inherited(slots);
        }
        // All in one where they have no room: in the last of the own slots if these are eight.
        let last = own.last().filter(|_| own.len() == MAX_SLOTS);
        slots.extend(last.map(|slot| (slot.scope(), slot.until())));
        let united =
            slots.into_iter().reduce(|one, other| (one.0.union(other.0), one.1.max(other.1)));
        Inherited(united.into_iter().collect())
    }

    fn is_allowed(&self, source: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&source))
    }
}
