//! How large the maps are made.
use fail2xdp_common::{capacity, map};

/// Bans the maps have room for. Both are powers of two, and everything else follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    v4: u32,
    v6: u32,
}

/// The least that makes sense: below it, memory is the map's own overhead.
const SMALLEST: u32 = 1024;
/// 2^27: beyond it a line number no longer fits the hash.
const LARGEST: u32 = 1 << 27;

impl Sizes {
    /// Room for at least so many bans of each family, from 1,024 to 2^27.
    pub fn for_bans(v4: u32, v6: u32) -> Sizes {
        let round = |bans: u32| bans.clamp(SMALLEST, LARGEST).next_power_of_two();
        Sizes { v4: round(v4), v6: round(v6) }
    }

    /// IPv4 bans.
    pub fn v4(self) -> u32 {
        self.v4
    }

    /// IPv6 bans.
    pub fn v6(self) -> u32 {
        self.v6
    }

    /// What maps of these line counts were made for.
    pub(super) fn of_lines(v4: u32, v6: u32) -> Sizes {
        Sizes { v4: v4.saturating_mul(2), v6: v6 / 2 }
    }

    /// `max_entries` of each map that depends on them, for `EbpfLoader::map_max_entries`.
    pub fn entries(self) -> [(&'static str, u32); 9] {
        let (v4, v6) = (self.v4 as usize, self.v6 as usize);
        // The largest is twice 2^28, well inside u32.
        [
            (map::BANS_V4, capacity::trie(v4)),
            (map::BANS_V6, capacity::trie(v6)),
            (map::HOSTS_V4, capacity::lines_v4(v4)),
            (map::HOSTS_V6, capacity::lines_v6(v6)),
            (map::HINT_V4, capacity::hint_v4(v4)),
            (map::HINT_V6, capacity::hint_v6(v6)),
            (map::NETS_V6, capacity::nets_v6(v6)),
            (map::MORE_SLOTS, capacity::more_slots((v4 + v6) / 2)),
            (map::BAN_STATS, capacity::ban_stats((v4 + v6) / 2)),
        ]
        .map(|(map, entries)| (map, entries as u32))
    }
}

impl Default for Sizes {
    /// Those of the object as built.
    fn default() -> Sizes {
        Sizes::for_bans(capacity::BANS as u32, capacity::BANS as u32)
    }
}
