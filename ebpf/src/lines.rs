//! The lines: copies of single-address bans, one cache line a look.
//!
//! No subprogram is called in here: 5.10 refuses a call inside a loop ("back-edge from insn N to M"),
//! so whoever asked judges the entry afterwards.
use fail2xdp_common::{
    config::Config,
    value::{LINE_ASK_TRIE, LINE_HAS_PAIR, LINE_SLOTS_V4, LINE_SLOTS_V6, META_UNIT},
};

use crate::maps::{HOSTS_V4, HOSTS_V6};

/// What a line says of a source.
pub enum Answer {
    /// Not banned by itself.
    Nothing,
    /// The trie knows.
    AskTrie,
    /// Banned, if this is not over and the packet is in its scope.
    Entry(Entry),
}

/// An entry of a line.
pub struct Entry {
    pub until: u32,
    pub meta: u32,
    /// Where its packets are counted.
    pub packets: *mut u32,
}

/// Looks for an IPv4 address, as its bytes lie in the packet.
#[inline(always)]
pub fn look_v4(config: &Config, source: u32, hash: u32) -> Answer {
    let mut index = hash >> (config.line_shift_v4 & 31);
    let mut ask_trie = false;
    for _ in 0..2 {
        let Some(line) = HOSTS_V4.get_ptr_mut(index) else { return Answer::AskTrie };
        for slot in 0..LINE_SLOTS_V4 {
            // SAFETY: `line` points to a whole line of the map, which lives as long as we run; volatile
            // because the writer stores to it meanwhile, and each word must be read once and in order.
            let (head, meta, again) = unsafe {
                let head = (&raw const (*line).head[slot]).read_volatile();
                // An empty slot looks like the address 0.0.0.0.
                if head as u32 != source || head >> 32 == 0 {
                    continue;
                }
                (
                    head,
                    (&raw const (*line).meta[slot]).read_volatile(),
                    (&raw const (*line).head[slot]).read_volatile(),
                )
            };
            if again != head {
                return Answer::AskTrie;
            }
            // SAFETY: as above.
            let packets = unsafe { &raw mut (*line).packets[slot] };
            return Answer::Entry(Entry { until: (head >> 32) as u32, meta, packets });
        }
        // After the heads, never before: whoever takes an address out of a line sets the flag first.
        // SAFETY: as above.
        let flags = unsafe { (&raw const (*line).meta[0]).read_volatile() };
        ask_trie |= flags & LINE_ASK_TRIE != 0;
        if flags & LINE_HAS_PAIR == 0 {
            break;
        }
        index ^= 1;
    }
    if ask_trie { Answer::AskTrie } else { Answer::Nothing }
}

/// Looks for an IPv6 address, or with `unit` [`META_UNIT`] for a /64, as its bytes lie in the packet.
#[inline(always)]
pub fn look_v6(config: &Config, source: [u64; 2], unit: u32, hash: u32) -> Answer {
    let mut index = hash >> (config.line_shift_v6 & 31);
    let mut ask_trie = false;
    for _ in 0..2 {
        let Some(line) = HOSTS_V6.get_ptr_mut(index) else { return Answer::AskTrie };
        for slot in 0..LINE_SLOTS_V6 {
            // SAFETY: as for IPv4.
            let (head, meta, again) = unsafe {
                let head = (&raw const (*line).head[slot]).read_volatile();
                if head as u32 == 0 {
                    continue;
                }
                let address = (&raw const (*line).address[slot]).read_volatile();
                if address[0] != source[0] || address[1] != source[1] {
                    continue;
                }
                let meta = (&raw const (*line).meta[slot]).read_volatile();
                if meta & META_UNIT != unit {
                    continue;
                }
                (head, meta, (&raw const (*line).head[slot]).read_volatile())
            };
            if again != head {
                return Answer::AskTrie;
            }
            // SAFETY: as for IPv4.
            let packets = unsafe { &raw mut (*line).packets[slot] };
            return Answer::Entry(Entry { until: head as u32, meta, packets });
        }
        // SAFETY: as for IPv4.
        let flags = unsafe { (&raw const (*line).meta[0]).read_volatile() };
        ask_trie |= flags & LINE_ASK_TRIE != 0;
        if flags & LINE_HAS_PAIR == 0 {
            break;
        }
        index ^= 1;
    }
    if ask_trie { Answer::AskTrie } else { Answer::Nothing }
}
