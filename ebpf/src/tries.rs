//! The tries: the truth about every ban.
use aya_ebpf::btf_maps::lpm_trie::Key;
use fail2xdp_common::value::{BAN_HAS_MORE, Ban, MAX_DEPTH};

use crate::{
    maps::{BANS_V4, BANS_V6, MORE_SLOTS},
    scope::contains,
};

/// A ban that applies.
#[derive(Clone, Copy)]
pub struct Hit {
    pub id: u32,
    pub jail: u16,
}

/// A hit in one register, as a global function must return it; 0 is none.
const FOUND: u64 = 1 << 63;

#[inline(always)]
fn found(jail: u16, id: u32) -> u64 {
    FOUND | (jail as u64) << 32 | id as u64
}

#[inline(always)]
fn hit(found: u64) -> Option<Hit> {
    if found & FOUND == 0 {
        return None;
    }
    Some(Hit { id: found as u32, jail: (found >> 32) as u16 })
}

/// The longest prefix of `source` with a slot that applies.
#[inline(always)]
pub fn search_v4(source: u32, now: u32, scopes: u64) -> Option<Hit> {
    hit(trie_search_v4(source, now, scopes))
}

/// The longest prefix of the source with a slot that applies; its halves as in the packet.
#[inline(always)]
pub fn search_v6(source: [u64; 2], now: u32, scopes: u64) -> Option<Hit> {
    hit(trie_search_v6(source[0], source[1], now, scopes))
}

/// What was read is another ban's: ask again.
const AGAIN: u64 = 1;

/// Whether one of the ban's slots applies: a hit, 0, or [`AGAIN`].
#[inline(always)]
fn judge(ban: &Ban, now: u32, scopes: u64) -> u64 {
    if ban.until > now && contains(scopes, ban.scope as u32) {
        return found(ban.jail, ban.id);
    }
    if ban.flags & BAN_HAS_MORE == 0 {
        return 0;
    }
    // SAFETY: the element stays readable while we run. The kernel may hand its memory to another ban
    // meanwhile, whether its slots apply or not, so the id is read after them.
    let Some(more) = (unsafe { MORE_SLOTS.get(&ban.id) }) else { return 0 };
    let mut hit = 0;
    for slot in &more.slots {
        // SAFETY: a valid reference; volatile because the kernel may write the element meanwhile.
        let slot = unsafe { (&raw const *slot).read_volatile() };
        if slot.until > now && contains(scopes, slot.scope as u32) {
            hit = found(slot.jail, ban.id);
            break;
        }
    }
    // SAFETY: as above.
    let id = unsafe { (&raw const more.id).read_volatile() };
    if id == ban.id { hit } else { AGAIN }
}

/// A global function: see [`crate::scope`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trie_search_v4(source: u32, now: u32, scopes: u64) -> u64 {
    let mut key = Key::new(32, source.to_ne_bytes());
    for _ in 0..MAX_DEPTH {
        let Some(ban) = BANS_V4.get(&key) else { break };
        let found = judge(ban, now, scopes);
        if found == AGAIN {
            // It takes one of the turns: the deepest nest loses its last level then, to one packet.
            continue;
        }
        if found != 0 {
            return found;
        }
        if ban.prefix_len == 0 {
            break;
        }
        key = Key::new(ban.prefix_len as u32 - 1, source.to_ne_bytes());
    }
    0
}

/// A global function: see [`crate::scope`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trie_search_v6(first: u64, second: u64, now: u32, scopes: u64) -> u64 {
    let mut source = [0; 16];
    source[..8].copy_from_slice(&first.to_ne_bytes());
    source[8..].copy_from_slice(&second.to_ne_bytes());
    let mut length = 128;
    for _ in 0..MAX_DEPTH {
        let Some(ban) = BANS_V6.get(&Key::new(length, source)) else { break };
        let found = judge(ban, now, scopes);
        if found == AGAIN {
            // It takes one of the turns: the deepest nest loses its last level then, to one packet.
            continue;
        }
        if found != 0 {
            return found;
        }
        if ban.prefix_len == 0 {
            break;
        }
        length = ban.prefix_len as u32 - 1;
    }
    0
}
