//! Who is banned until when. The only copy of that truth: the kernel's maps mirror it.
use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use ipnet::IpNet;

use super::{Ban, Timestamp, Until};
use crate::config::JailName;

/// All live bans, by jail and prefix and by their end.
#[derive(Default)]
pub struct BanTable {
    by_jail: HashMap<JailName, HashMap<IpNet, Arc<Ban>>>,
    by_end: BTreeSet<Place>,
}

/// A ban's place in the order of ends; those for ever come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    until: Until,
    prefix: IpNet,
    jail: JailName,
}

impl Place {
    fn of(ban: &Ban) -> Place {
        Place { until: ban.until, prefix: ban.prefix, jail: ban.jail.clone() }
    }
}

/// What became of a ban put into the table.
pub(super) enum Put {
    /// Nobody of this jail held the prefix.
    New(Arc<Ban>),
    /// The jail's ban of this prefix now ends later.
    Later(Arc<Ban>),
    /// The jail's ban of this prefix ends as late or later: nothing changed.
    Already(Arc<Ban>),
}

impl BanTable {
    pub(super) fn put(&mut self, ban: Ban) -> Put {
        let of_jail = self.by_jail.entry(ban.jail.clone()).or_default();
        let put = match of_jail.get_mut(&ban.prefix) {
            None => {
                let ban = Arc::new(ban);
                of_jail.insert(ban.prefix, ban.clone());
                Put::New(ban)
            }
            Some(held) if ban.until <= held.until => return Put::Already(held.clone()),
            Some(held) => {
                self.by_end.remove(&Place::of(held));
                Arc::make_mut(held).until = ban.until;
                Put::Later(held.clone())
            }
        };
        if let Put::New(ban) | Put::Later(ban) = &put {
            self.by_end.insert(Place::of(ban));
        }
        put
    }

    /// Takes one jail's ban of a prefix out.
    pub(super) fn take(&mut self, prefix: IpNet, jail: &JailName) -> Option<Arc<Ban>> {
        let of_jail = self.by_jail.get_mut(jail)?;
        let ban = of_jail.remove(&prefix)?;
        if of_jail.is_empty() {
            self.by_jail.remove(jail);
        }
        self.by_end.remove(&Place::of(&ban));
        Some(ban)
    }

    /// Takes out every ban of `within` and of the prefixes it covers, of one jail or of all.
    pub(super) fn take_within(&mut self, within: IpNet, jail: Option<&JailName>) -> Vec<Arc<Ban>> {
        let found: Vec<(IpNet, JailName)> = self
            .by_jail
            .iter()
            .filter(|(name, _)| jail.is_none_or(|jail| jail == *name))
            .flat_map(|(name, bans)| {
                // A single address, and an IPv6 unit that holds it, cost a look-up; only a network costs a walk.
                let exact = bans.contains_key(&within).then_some(within);
                let covered: Vec<IpNet> = if within.prefix_len() == within.max_prefix_len() {
                    exact
                        .or_else(|| unit_of(within).filter(|unit| bans.contains_key(unit)))
                        .into_iter()
                        .collect()
                } else {
                    bans.keys().filter(|prefix| within.contains(*prefix)).copied().collect()
                };
                covered.into_iter().map(|prefix| (prefix, name.clone())).collect::<Vec<_>>()
            })
            .collect();
        found.into_iter().filter_map(|(prefix, jail)| self.take(prefix, &jail)).collect()
    }

    /// Takes out every ban of a jail.
    pub(super) fn take_jail(&mut self, jail: &JailName) -> Vec<Arc<Ban>> {
        let bans: Vec<Arc<Ban>> =
            self.by_jail.remove(jail).into_iter().flat_map(HashMap::into_values).collect();
        for ban in &bans {
            self.by_end.remove(&Place::of(ban));
        }
        bans
    }

    /// Takes out at most `most` bans that have run their course at `now`, oldest first.
    pub(super) fn expire(&mut self, now: Timestamp, most: usize) -> Vec<Arc<Ban>> {
        let mut lapsed = Vec::new();
        while lapsed.len() < most
            && self.next_expiry().is_some_and(|end| end <= now)
            && let Some(Place { prefix, jail, .. }) = self.by_end.pop_first()
        {
            lapsed.extend(self.take(prefix, &jail));
        }
        lapsed
    }

    /// When the next ban ends.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        match self.by_end.first()?.until {
            Until::At(end) => Some(end),
            Until::Forever => None,
        }
    }

    /// One jail's ban of a prefix.
    pub fn of(&self, prefix: IpNet, jail: &JailName) -> Option<&Arc<Ban>> {
        self.by_jail.get(jail)?.get(&prefix)
    }

    /// The bans that follow `place` in the order of ends, from the first on where there is none, and where the next
    /// step goes on. Who walks all of them in steps may miss or meet twice what changes meanwhile, nothing else.
    pub fn step(&self, place: Option<&Place>, most: usize) -> (Vec<Arc<Ban>>, Option<Place>) {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.by_end.range((from, Bound::Unbounded)).take(most);
        let mut last = None;
        let bans = places
            .filter_map(|place| {
                last = Some(place);
                self.of(place.prefix, &place.jail).cloned()
            })
            .collect();
        (bans, last.cloned())
    }

    /// One jail's bans, in no order.
    pub fn of_jail(&self, jail: &JailName) -> impl Iterator<Item = &Ban> {
        self.by_jail.get(jail).into_iter().flat_map(HashMap::values).map(Arc::as_ref)
    }

    /// How many bans a jail holds.
    pub fn count_of(&self, jail: &JailName) -> usize {
        self.by_jail.get(jail).map_or(0, HashMap::len)
    }

    /// The jails that hold bans, also those no longer configured.
    pub fn jails(&self) -> impl Iterator<Item = &JailName> {
        self.by_jail.keys()
    }

    /// Every ban, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.by_jail.values().flat_map(HashMap::values).map(Arc::as_ref)
    }

    /// The bans that cover an address or network, of whatever jail, the widest first. By length, not by ban: there may
    /// be a million.
    pub fn covering(&self, prefix: IpNet) -> impl Iterator<Item = &Arc<Ban>> {
        let wider = (0..=prefix.prefix_len())
            .filter_map(move |length| Some(IpNet::new(prefix.addr(), length).ok()?.trunc()));
        wider.flat_map(|prefix| self.by_jail.values().filter_map(move |bans| bans.get(&prefix)))
    }

    /// How many bans there are.
    pub fn len(&self) -> usize {
        self.by_jail.values().map(HashMap::len).sum()
    }

    /// Nobody is banned.
    pub fn is_empty(&self) -> bool {
        self.by_jail.is_empty()
    }
}

/// The /64 an IPv6 address lies in: who unbans one address of it means the ban that covers it.
fn unit_of(address: IpNet) -> Option<IpNet> {
    match address {
        IpNet::V4(_) => None,
        IpNet::V6(address) => {
            ipnet::Ipv6Net::new(address.addr(), 64).ok().map(|unit| IpNet::V6(unit.trunc()))
        }
    }
}
