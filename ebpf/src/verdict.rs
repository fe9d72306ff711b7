//! The order of lookups.
//!
//! The tries are the truth. What stands in front of them saves time: hint bits say whether a single
//! address (or /64) may be banned, network bits whether a network may be, lines are copies of the bans
//! of single addresses. None of them can change a verdict.
use aya_ebpf::btf_maps::lpm_trie::Key;
use fail2xdp_common::{
    config::{
        Config, IGNORE_HINTS, IGNORE_LINES, IGNORE_NETS, LEVEL_32, LEVEL_48, LEVEL_WITHIN_64,
        OBSERVE, OFF, net_kind,
    },
    report::counter,
    value::{META_JAIL_SHIFT, META_MORE, META_SCOPE, META_UNIT},
};

use crate::{
    account::{Outcome, Sample, count_by_id, count_in_line, report},
    clock,
    lines::{Answer, Entry, look_v4, look_v6},
    maps::{ALLOW_V4, ALLOW_V6, CONFIG, HINT_V4, HINT_V6, NETS_V4, NETS_V6},
    packet::{Packet, read, read_be16},
    scope::{contains, mask, row_v4, row_v6},
    tries::{Hit, observes, search_v4, search_v6},
};

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const MAX_VLAN_TAGS: usize = 2;

/// What is to become of the packet.
#[inline(always)]
pub fn of(packet: &impl Packet) -> Outcome {
    judge(packet).unwrap_or(counter::UNREADABLE)
}

#[inline(always)]
fn judge(packet: &impl Packet) -> Option<Outcome> {
    let config = CONFIG.get(0)?;
    if config.flags & OFF != 0 {
        return Some(counter::PASSED);
    }
    let mut l3 = ETHERNET_HEADER;
    let mut ether_type = read_be16(packet, 12)?;
    for _ in 0..MAX_VLAN_TAGS {
        if ether_type != 0x8100 && ether_type != 0x88a8 {
            break;
        }
        ether_type = read_be16(packet, l3 + 2)?;
        l3 += VLAN_TAG;
    }
    match ether_type {
        0x0800 => judge_v4(packet, config, l3),
        0x86dd => judge_v6(packet, config, l3),
        _ => Some(counter::NOT_IP),
    }
}

/// Who bans the packet, and where it is counted if in a line.
struct Banned {
    hit: Hit,
    packets: Option<*mut u32>,
}

impl Banned {
    /// By the entry of a line that applies; its id does not matter, the line counts.
    #[inline(always)]
    fn by_line(config: &Config, entry: &Entry) -> Banned {
        let jail = (entry.meta >> META_JAIL_SHIFT) as u16;
        let observed = observes(config, jail) as u32;
        Banned { hit: Hit { id: 0, jail, observed }, packets: Some(entry.packets) }
    }

    #[inline(always)]
    fn observed(&self, config: &Config) -> u32 {
        config.flags >> OBSERVE.trailing_zeros() & 1 | self.hit.observed
    }

    #[inline(always)]
    fn count(&self, observed: u32, now: u32) {
        match self.packets {
            Some(packets) => count_in_line(packets),
            None => count_by_id(self.hit.id, observed, now),
        }
    }
}

// ---- IPv4

/// Two bits of the source's /16: a network ban may cover it, an allow entry may.
#[inline(always)]
fn network_bits_v4(config: &Config, source: [u8; 4]) -> (bool, bool) {
    let position = (source[0] as u32) << 8 | source[1] as u32;
    let bits = match NETS_V4.get(position >> 5) {
        Some(word) if config.flags & IGNORE_NETS == 0 => *word >> ((position & 31) * 2),
        _ => 3,
    };
    (bits & 1 != 0, bits & 2 != 0)
}

#[inline(always)]
fn hint_v4(config: &Config, hash: u32) -> bool {
    let bit = hash >> (config.hint_shift_v4 & 31);
    match HINT_V4.get(bit >> 6) {
        Some(word) => config.flags & IGNORE_HINTS != 0 || (*word >> (bit & 63)) & 1 != 0,
        None => true,
    }
}

#[inline(always)]
fn judge_v4(packet: &impl Packet, config: &Config, l3: usize) -> Option<Outcome> {
    let bytes: [u8; 4] = read(packet, l3 + 12)?;
    let source = u32::from_ne_bytes(bytes);
    let hash = ((source as u64).wrapping_mul(config.multipliers[0]) >> 32) as u32;
    let (network, may_allow) = network_bits_v4(config, bytes);
    let hinted = hint_v4(config, hash);
    let mut ask_trie = network || config.wide_bans_v4 != 0;
    if !hinted && !ask_trie {
        return Some(counter::PASSED);
    }
    let now = clock::now(config);
    let mut banned = None;
    if config.flags & IGNORE_LINES != 0 {
        ask_trie |= hinted;
    } else if hinted {
        match look_v4(config, source, hash) {
            Answer::Nothing => {}
            Answer::AskTrie => ask_trie = true,
            Answer::Entry(entry) => {
                let scope = entry.meta & META_SCOPE;
                let more = entry.meta & META_MORE != 0;
                let by_line = Banned::by_line(config, &entry);
                // What is only observed hides no other ban: the trie knows them all. By arithmetic, since
                // the verifier would follow a branch from here to the end, for each slot of a line.
                let look_on = by_line.hit.observed & (more | ask_trie) as u32;
                let until = entry.until & look_on.wrapping_sub(1);
                if until > now && (scope == 0 || contains(mask(row_v4(packet, l3)), scope)) {
                    banned = Some(by_line);
                } else if more {
                    ask_trie = true;
                }
            }
        }
    }
    if banned.is_none() && ask_trie {
        banned = search_v4(source, now, mask(row_v4(packet, l3)))
            .map(|hit| Banned { hit, packets: None });
    }
    let Some(banned) = banned else { return Some(counter::PASSED) };
    if may_allow && ALLOW_V4.get(&Key::new(32, bytes)).is_some() {
        return Some(counter::SPARED);
    }
    let observed = banned.observed(config);
    banned.count(observed, now);
    if config.events_per_second != 0 {
        let source = [source as u64, 0];
        report(packet, config, Sample { source, hit: banned.hit, observed, now, l3, family: 4 });
    }
    Some(counter::DROPPED + observed)
}

// ---- IPv6

#[inline(always)]
fn network_bit_v6(config: &Config, network: u64, kind: u64) -> bool {
    let hash = ((network ^ kind << 60).wrapping_mul(config.multipliers[0]) >> 32) as u32;
    let bit = hash >> (config.nets_shift_v6 & 31);
    match NETS_V6.get(bit >> 6) {
        Some(word) => config.flags & IGNORE_NETS != 0 || (*word >> (bit & 63)) & 1 != 0,
        None => true,
    }
}

/// Two bits of the hashed /64: an address in it may be banned, the /64 itself may be.
#[inline(always)]
fn hints_v6(config: &Config, hash: u32) -> (bool, bool) {
    let position = hash >> (config.hint_shift_v6 & 31);
    let bits = match HINT_V6.get(position >> 5) {
        Some(word) if config.flags & IGNORE_HINTS == 0 => *word >> ((position & 31) * 2),
        _ => 3,
    };
    (bits & 1 != 0, bits & 2 != 0)
}

/// Loopback and unspecified, link-local, multicast: always on the allow list, so always asked.
#[inline(always)]
fn may_allow_v6(config: &Config, high: u64) -> bool {
    config.wide_allow_v6 != 0
        || high == 0
        || high >> 54 == 0xfe80 >> 6
        || high >> 56 == 0xff
        || network_bit_v6(config, high >> 32, net_kind::ALLOW_32)
}

#[inline(always)]
fn judge_v6(packet: &impl Packet, config: &Config, l3: usize) -> Option<Outcome> {
    let source: [u64; 2] = read(packet, l3 + 8)?;
    let (high, low) = (u64::from_be(source[0]), source[1]);
    let mut mixed = high.wrapping_mul(config.multipliers[0]);
    mixed ^= mixed >> 32;
    let hash_of_unit = (mixed.wrapping_mul(config.multipliers[1]) >> 32) as u32;
    let hash = ((mixed ^ low).wrapping_mul(config.multipliers[1]) >> 32) as u32;
    let (address_hinted, unit_hinted) = hints_v6(config, hash_of_unit);
    let levels = config.levels_v6;
    // A ban between /64 and /128 is longer than the /64, so the trie comes before the /64's line.
    let within = levels & LEVEL_WITHIN_64 != 0 && network_bit_v6(config, high, net_kind::WITHIN_64);
    let mut ask_trie = within
        || config.wide_bans_v6 != 0
        || levels & LEVEL_48 != 0 && network_bit_v6(config, high >> 16, net_kind::BAN_48)
        || levels & LEVEL_32 != 0 && network_bit_v6(config, high >> 32, net_kind::BAN_32);
    if !address_hinted && !unit_hinted && !ask_trie {
        return Some(counter::PASSED);
    }
    let now = clock::now(config);
    let mut banned = None;
    if config.flags & IGNORE_LINES != 0 {
        ask_trie |= address_hinted || unit_hinted;
    } else {
        let mut before_unit = within;
        if address_hinted {
            match look_v6(config, source, 0, hash) {
                Answer::Nothing => {}
                Answer::AskTrie => before_unit = true,
                Answer::Entry(entry) => {
                    let scope = entry.meta & META_SCOPE;
                    let more = entry.meta & META_MORE != 0;
                    let by_line = Banned::by_line(config, &entry);
                    let look_on = by_line.hit.observed & (more | ask_trie | unit_hinted) as u32;
                    let until = entry.until & look_on.wrapping_sub(1);
                    if until > now && (scope == 0 || contains(mask(row_v6(packet, l3)), scope)) {
                        banned = Some(by_line);
                    } else if more as u32 | look_on != 0 {
                        before_unit = true;
                    }
                }
            }
        }
        ask_trie |= before_unit;
        if banned.is_none() && !before_unit && unit_hinted {
            match look_v6(config, [source[0], 0], META_UNIT, hash_of_unit) {
                Answer::Nothing => {}
                Answer::AskTrie => ask_trie = true,
                Answer::Entry(entry) => {
                    let scope = entry.meta & META_SCOPE;
                    let more = entry.meta & META_MORE != 0;
                    let by_line = Banned::by_line(config, &entry);
                    let look_on = by_line.hit.observed & (more | ask_trie) as u32;
                    let until = entry.until & look_on.wrapping_sub(1);
                    if until > now && (scope == 0 || contains(mask(row_v6(packet, l3)), scope)) {
                        banned = Some(by_line);
                    } else if more {
                        ask_trie = true;
                    }
                }
            }
        }
    }
    if banned.is_none() && ask_trie {
        banned = search_v6(source, now, mask(row_v6(packet, l3)))
            .map(|hit| Banned { hit, packets: None });
    }
    let Some(banned) = banned else { return Some(counter::PASSED) };
    if may_allow_v6(config, high) {
        let bytes: [u8; 16] = read(packet, l3 + 8)?;
        if ALLOW_V6.get(&Key::new(128, bytes)).is_some() {
            return Some(counter::SPARED);
        }
    }
    let observed = banned.observed(config);
    banned.count(observed, now);
    if config.events_per_second != 0 {
        report(packet, config, Sample { source, hit: banned.hit, observed, now, l3, family: 6 });
    }
    Some(counter::DROPPED + observed)
}
