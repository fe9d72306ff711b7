//! The tries: the truth about every ban.
use aya_ebpf::btf_maps::lpm_trie::Key;
use fail2xdp_common::{
    config::Config,
    value::{BAN_HAS_MORE, Ban, MAX_DEPTH},
};

use crate::maps::{BANS_V4, BANS_V6, CONFIG, MORE_SLOTS};

/// A ban that applies.
#[derive(Clone, Copy)]
pub struct Hit {
    pub id: u32,
    pub jail: u16,
    /// 1: those who ban the source only observe; else 0. A number, because the verifier would follow both ways.
    pub observed: u32,
}

/// A hit in one register, as a global function must return it: bit 63 where one drops, bit 62 where one only
/// observes. 0 is none.
const DROPS: u64 = 1 << 63;

#[inline(always)]
fn hit(found: u64) -> Option<Hit> {
    if found == 0 {
        return None;
    }
    let observed = (found >> 62 & !(found >> 63)) as u32 & 1;
    Some(Hit { id: found as u32, jail: (found >> 32) as u16, observed })
}

/// 1 where a jail's bans are counted and drop nothing, else 0. No branch: the verifier would follow both ways.
#[inline(always)]
pub fn observes(config: &Config, jail: u16) -> u64 {
    // SAFETY: the reference is valid; volatile because the writer switches jails at any time.
    let word = unsafe { (&raw const config.observed[jail as usize >> 6]).read_volatile() };
    (word >> (jail & 63)) & 1
}

/// The longest prefix of `source` with a slot that applies and drops, else the longest with one that applies.
#[inline(always)]
pub fn search_v4(source: u32, now: u32, scopes: u64) -> Option<Hit> {
    hit(trie_search_v4(source, now, scopes))
}

/// The same for IPv6; the halves of the source as in the packet.
#[inline(always)]
pub fn search_v6(source: [u64; 2], now: u32, scopes: u64) -> Option<Hit> {
    hit(trie_search_v6(source[0], source[1], now, scopes))
}

/// What was read is another ban's: ask again.
const AGAIN: u64 = 1 << 61;

/// 1 where the slot applies, else 0, without a branch.
#[inline(always)]
fn applies(until: u32, scope: u8, now: u32, scopes: u64) -> u64 {
    // The top bit is the borrow. The compiler must not see that, or it makes a branch of it.
    let borrow = core::hint::black_box((now as u64).wrapping_sub(until as u64)) >> 63;
    borrow & (scopes >> (scope & 63))
}

/// What the ban's slots say, one of them or several, with the ban's number and a jail; or [`AGAIN`].
#[inline(always)]
fn judge(config: &Config, ban: &Ban, now: u32, scopes: u64) -> u64 {
    let hit = applies(ban.until, ban.scope, now, scopes);
    let observed = hit & observes(config, ban.jail);
    let mut kinds = observed << 62 | (hit & !observed) << 63;
    let mut jail = ban.jail as u64;
    if ban.flags & BAN_HAS_MORE != 0 {
        // SAFETY: the element stays readable while we run. The kernel may hand its memory to another ban
        // meanwhile, whether its slots apply or not, so the id is read after them.
        let Some(more) = (unsafe { MORE_SLOTS.get(&ban.id) }) else { return kinds | ban.id as u64 };
        for slot in &more.slots {
            // SAFETY: a valid reference; volatile because the kernel may write the element meanwhile.
            let slot = unsafe { (&raw const *slot).read_volatile() };
            let hit = applies(slot.until, slot.scope, now, scopes);
            let observed = hit & observes(config, slot.jail);
            let drops = hit & !observed;
            kinds |= observed << 62 | drops << 63;
            // One that drops is the one to name.
            jail ^= (jail ^ slot.jail as u64) & 0u64.wrapping_sub(drops);
        }
        // SAFETY: as above.
        if unsafe { (&raw const more.id).read_volatile() } != ban.id {
            return AGAIN;
        }
    }
    kinds | jail << 32 | ban.id as u64
}

/// The first that is observed counts, should none drop.
#[inline(always)]
fn first(observed: u64, found: u64) -> u64 {
    let new = (found >> 62) & !(observed >> 62) & 1;
    observed | found & 0u64.wrapping_sub(core::hint::black_box(new))
}

/// A global function: see [`crate::scope`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trie_search_v4(source: u32, now: u32, scopes: u64) -> u64 {
    let Some(config) = CONFIG.get(0) else { return 0 };
    let mut key = Key::new(32, source.to_ne_bytes());
    let mut observed = 0;
    for _ in 0..MAX_DEPTH {
        let Some(ban) = BANS_V4.get(&key) else { break };
        let found = judge(config, ban, now, scopes);
        if found & AGAIN != 0 {
            // It takes one of the turns: the deepest nest loses its last level then, to one packet.
            continue;
        }
        if found & DROPS != 0 {
            return found;
        }
        observed = first(observed, found);
        if ban.prefix_len == 0 {
            break;
        }
        key = Key::new(ban.prefix_len as u32 - 1, source.to_ne_bytes());
    }
    observed
}

/// A global function: see [`crate::scope`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trie_search_v6(high: u64, low: u64, now: u32, scopes: u64) -> u64 {
    let Some(config) = CONFIG.get(0) else { return 0 };
    let mut source = [0; 16];
    source[..8].copy_from_slice(&high.to_ne_bytes());
    source[8..].copy_from_slice(&low.to_ne_bytes());
    let mut length = 128;
    let mut observed = 0;
    for _ in 0..MAX_DEPTH {
        let Some(ban) = BANS_V6.get(&Key::new(length, source)) else { break };
        let found = judge(config, ban, now, scopes);
        if found & AGAIN != 0 {
            // It takes one of the turns: the deepest nest loses its last level then, to one packet.
            continue;
        }
        if found & DROPS != 0 {
            return found;
        }
        observed = first(observed, found);
        if ban.prefix_len == 0 {
            break;
        }
        length = ban.prefix_len as u32 - 1;
    }
    observed
}
