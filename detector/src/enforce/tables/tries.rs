//! The tries: every ban and every allow entry.
use fail2xdp_common::value::{BAN_HAS_MORE, Ban, INHERITED, MAX_SLOTS, MoreSlots, Slot};

use super::{
    TableError,
    maps::Maps,
    prefix::{Family, Prefix},
};

/// The value of a prefix.
pub fn ban_of(prefix: &Prefix, id: u32, told: &[Slot]) -> Ban {
    let first = told.first().copied().unwrap_or_default();
    let flags = if told.len() > 1 { BAN_HAS_MORE } else { 0 };
    Ban {
        until: first.until,
        id,
        jail: first.jail,
        scope: first.scope,
        prefix_len: prefix.length(),
        flags,
    }
}

/// The slots after the first.
pub fn more_of(id: u32, told: &[Slot]) -> MoreSlots {
    let mut slots = [Slot::default(); MAX_SLOTS - 1];
    for (to, from) in slots.iter_mut().zip(told.iter().skip(1)) {
        *to = *from;
    }
    MoreSlots { slots, id, unused: 0 }
}

/// Writes a ban.
pub fn put(maps: &Maps, prefix: &Prefix, ban: &Ban) -> Result<(), TableError> {
    match prefix.family() {
        Family::V4 => maps.put(&maps.bans_v4, &prefix.key_v4(), ban),
        Family::V6 => maps.put(&maps.bans_v6, &prefix.key_v6(), ban),
    }
}

/// Takes a ban out; whether it was there.
pub fn remove(maps: &Maps, prefix: &Prefix) -> Result<bool, TableError> {
    match prefix.family() {
        Family::V4 => maps.remove(&maps.bans_v4, &prefix.key_v4()),
        Family::V6 => maps.remove(&maps.bans_v6, &prefix.key_v6()),
    }
}

/// The ban of exactly this prefix.
pub fn get(maps: &Maps, prefix: &Prefix) -> Result<Option<Ban>, TableError> {
    let longest = match prefix.family() {
        Family::V4 => maps.bans_v4.get(&prefix.key_v4())?,
        Family::V6 => maps.bans_v6.get(&prefix.key_v6())?,
    };
    // The trie answers with the longest prefix that covers the key.
    Ok(longest.filter(|ban| ban.prefix_len == prefix.length()))
}

/// Every ban.
pub fn bans(maps: &Maps) -> Result<Vec<(Prefix, Ban)>, TableError> {
    let v4 = maps.bans_v4.all()?.into_iter().map(|(key, ban)| (Prefix::of_key_v4(&key), ban));
    let v6 = maps.bans_v6.all()?.into_iter().map(|(key, ban)| (Prefix::of_key_v6(&key), ban));
    Ok(v4.chain(v6).collect())
}

/// The banned prefix after this one, or the family's first.
pub fn next(
    maps: &Maps,
    family: Family,
    after: Option<&Prefix>,
) -> Result<Option<Prefix>, TableError> {
    Ok(match family {
        Family::V4 => maps
            .bans_v4
            .next_key(after.map(Prefix::key_v4).as_ref())?
            .as_ref()
            .map(Prefix::of_key_v4),
        Family::V6 => maps
            .bans_v6
            .next_key(after.map(Prefix::key_v6).as_ref())?
            .as_ref()
            .map(Prefix::of_key_v6),
    })
}

/// The slots that the maps tell of a ban.
pub fn slots(maps: &Maps, ban: &Ban) -> Result<Vec<Slot>, TableError> {
    let mut told = vec![Slot { until: ban.until, jail: ban.jail, scope: ban.scope, mark: 0 }];
    if ban.flags & BAN_HAS_MORE != 0
        && let Some(more) = maps.more_slots.get(&ban.id)?
    {
        for slot in more.slots.iter().filter(|slot| slot.until != 0) {
            // A writer that died while it moved the last slot into the first left it in both.
            if slot.mark & INHERITED != 0 || told.iter().all(|known| known.jail != slot.jail) {
                told.push(*slot);
            }
        }
    }
    Ok(told)
}

/// Writes an allow entry.
pub fn allow(maps: &Maps, prefix: &Prefix) -> Result<(), TableError> {
    match prefix.family() {
        Family::V4 => maps.put(&maps.allow_v4, &prefix.key_v4(), &1),
        Family::V6 => maps.put(&maps.allow_v6, &prefix.key_v6(), &1),
    }
}

/// Takes an allow entry out; whether it was there.
pub fn disallow(maps: &Maps, prefix: &Prefix) -> Result<bool, TableError> {
    match prefix.family() {
        Family::V4 => maps.remove(&maps.allow_v4, &prefix.key_v4()),
        Family::V6 => maps.remove(&maps.allow_v6, &prefix.key_v6()),
    }
}

/// Every allowed prefix.
pub fn allowed(maps: &Maps) -> Result<Vec<Prefix>, TableError> {
    let mut prefixes: Vec<Prefix> = maps.allow_v4.keys()?.iter().map(Prefix::of_key_v4).collect();
    prefixes.extend(maps.allow_v6.keys()?.iter().map(Prefix::of_key_v6));
    Ok(prefixes)
}
