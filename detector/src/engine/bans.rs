//! Who is banned until when. The only copy of that truth: the kernel's maps mirror it.
use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::{Ban, Timestamp, Until};
use crate::config::JailName;

/// All live bans, by jail and prefix and by their end.
#[derive(Default)]
pub struct BanTable {
    by_jail: HashMap<JailName, HashMap<IpNet, Ban>>,
    by_end: BTreeSet<(Timestamp, IpNet, JailName)>,
}

/// What became of a ban put into the table.
pub(super) enum Put {
    /// Nobody of this jail held the prefix.
    New(Ban),
    /// The jail's ban of this prefix now ends later.
    Later(Ban),
    /// The jail's ban of this prefix ends as late or later: nothing changed.
    Already(Ban),
}

impl BanTable {
    pub(super) fn put(&mut self, ban: Ban) -> Put {
        let of_jail = self.by_jail.entry(ban.jail.clone()).or_default();
        let put = match of_jail.get_mut(&ban.prefix) {
            None => {
                of_jail.insert(ban.prefix, ban.clone());
                Put::New(ban)
            }
            Some(held) if ban.until <= held.until => return Put::Already(held.clone()),
            Some(held) => {
                if let Until::At(end) = held.until {
                    self.by_end.remove(&(end, held.prefix, held.jail.clone()));
                }
                held.until = ban.until;
                Put::Later(held.clone())
            }
        };
        if let Put::New(ban) | Put::Later(ban) = &put
            && let Until::At(end) = ban.until
        {
            self.by_end.insert((end, ban.prefix, ban.jail.clone()));
        }
        put
    }

    /// Takes one jail's ban of a prefix out.
    pub(super) fn take(&mut self, prefix: IpNet, jail: &JailName) -> Option<Ban> {
        let of_jail = self.by_jail.get_mut(jail)?;
        let ban = of_jail.remove(&prefix)?;
        if of_jail.is_empty() {
            self.by_jail.remove(jail);
        }
        if let Until::At(end) = ban.until {
            self.by_end.remove(&(end, ban.prefix, ban.jail.clone()));
        }
        Some(ban)
    }

    /// Takes out every ban of `within` and of the prefixes it covers, of one jail or of all.
    pub(super) fn take_within(&mut self, within: IpNet, jail: Option<&JailName>) -> Vec<Ban> {
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
    pub(super) fn take_jail(&mut self, jail: &JailName) -> Vec<Ban> {
        let bans: Vec<Ban> =
            self.by_jail.remove(jail).into_iter().flat_map(HashMap::into_values).collect();
        for ban in &bans {
            if let Until::At(end) = ban.until {
                self.by_end.remove(&(end, ban.prefix, ban.jail.clone()));
            }
        }
        bans
    }

    /// Takes out at most `most` bans that have run their course at `now`, oldest first.
    pub(super) fn expire(&mut self, now: Timestamp, most: usize) -> Vec<Ban> {
        let mut lapsed = Vec::new();
        while lapsed.len() < most
            && let Some((end, _, _)) = self.by_end.first()
            && *end <= now
            && let Some((_, prefix, jail)) = self.by_end.pop_first()
        {
            lapsed.extend(self.take(prefix, &jail));
        }
        lapsed
    }

    /// When the next ban ends.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.by_end.first().map(|(end, _, _)| *end)
    }

    /// One jail's bans, in no order.
    pub fn of_jail(&self, jail: &JailName) -> impl Iterator<Item = &Ban> {
        self.by_jail.get(jail).into_iter().flat_map(HashMap::values)
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
        self.by_jail.values().flat_map(HashMap::values)
    }

    /// The bans that cover an address, of whatever jail.
    pub fn covering(&self, prefix: IpNet) -> impl Iterator<Item = &Ban> {
        self.iter().filter(move |ban| ban.prefix.contains(&prefix))
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
