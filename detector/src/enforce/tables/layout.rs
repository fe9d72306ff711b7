//! Where a prefix stands in the maps: the same arithmetic as the program's.
use std::mem::offset_of;

use fail2xdp_common::{
    config::{Config, net_kind},
    value::{LINE_SLOTS_V4, LINE_SLOTS_V6, LineV4, LineV6},
};

use super::{
    TableError,
    maps::Maps,
    prefix::{Family, Prefix},
    sys,
};

/// Secrets and sizes of one set of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    multipliers: [u64; 2],
    line_shift: [u32; 2],
    hint_shift: [u32; 2],
    nets_shift_v6: u32,
}

/// 32 less the power of two that `count` is.
fn shift(count: usize) -> u32 {
    debug_assert!(count.is_power_of_two() && count > 1);
    32 - count.ilog2()
}

impl Layout {
    /// For new maps: their sizes, and secrets drawn now.
    ///
    /// # Errors
    /// [`TableError::Random`].
    pub fn fresh(maps: &Maps) -> Result<Layout, TableError> {
        let secret = || sys::random().map(|number| number | 1).map_err(TableError::Random);
        let lines = |family| maps.hosts(family).entries() as usize;
        Ok(Layout {
            multipliers: [secret()?, secret()?],
            line_shift: [shift(lines(Family::V4)), shift(lines(Family::V6))],
            hint_shift: [
                shift(maps.hints(Family::V4).entries() as usize * 64),
                shift(maps.hints(Family::V6).entries() as usize * 32),
            ],
            nets_shift_v6: shift(maps.nets(Family::V6).entries() as usize * 64),
        })
    }

    /// That of maps in use.
    pub fn read(maps: &Maps) -> Layout {
        let word32 = |offset| maps.config.word32(offset).load(std::sync::atomic::Ordering::SeqCst);
        let word64 = |offset| maps.config.word64(offset).load(std::sync::atomic::Ordering::SeqCst);
        let multipliers = offset_of!(Config, multipliers);
        Layout {
            multipliers: [word64(multipliers), word64(multipliers + 8)],
            line_shift: [
                word32(offset_of!(Config, line_shift_v4)),
                word32(offset_of!(Config, line_shift_v6)),
            ],
            hint_shift: [
                word32(offset_of!(Config, hint_shift_v4)),
                word32(offset_of!(Config, hint_shift_v6)),
            ],
            nets_shift_v6: word32(offset_of!(Config, nets_shift_v6)),
        }
    }

    /// Whether the shifts are those that the sizes of the maps give.
    pub fn fits(&self, maps: &Maps) -> bool {
        Layout::fresh(maps)
            .is_ok_and(|fresh| Layout { multipliers: self.multipliers, ..fresh } == *self)
            && self.multipliers.iter().all(|number| number % 2 == 1)
    }

    /// Tells the program.
    pub fn write(&self, maps: &Maps) {
        let multipliers = offset_of!(Config, multipliers);
        maps.store64(maps.config.word64(multipliers), self.multipliers[0]);
        maps.store64(maps.config.word64(multipliers + 8), self.multipliers[1]);
        for (offset, value) in [
            (offset_of!(Config, line_shift_v4), self.line_shift[0]),
            (offset_of!(Config, line_shift_v6), self.line_shift[1]),
            (offset_of!(Config, hint_shift_v4), self.hint_shift[0]),
            (offset_of!(Config, hint_shift_v6), self.hint_shift[1]),
            (offset_of!(Config, nets_shift_v6), self.nets_shift_v6),
        ] {
            maps.store32(maps.config.word32(offset), value);
        }
    }

    fn hash_v4(&self, prefix: &Prefix) -> u32 {
        (u64::from(prefix.raw_v4()).wrapping_mul(self.multipliers[0]) >> 32) as u32
    }

    /// Hashes of the /64 and of the address.
    fn hash_v6(&self, prefix: &Prefix) -> (u32, u32) {
        let [high, low] = prefix.raw_v6();
        let mut mixed = u64::from_be(high).wrapping_mul(self.multipliers[0]);
        mixed ^= mixed >> 32;
        let top = |number: u64| (number.wrapping_mul(self.multipliers[1]) >> 32) as u32;
        (top(mixed), top(mixed ^ low))
    }

    /// The line that an address or /64 belongs in; its pair is `^ 1`.
    pub fn home(&self, prefix: &Prefix) -> u32 {
        let hash = match prefix.family() {
            Family::V4 => self.hash_v4(prefix),
            Family::V6 if prefix.length() == 64 => self.hash_v6(prefix).0,
            Family::V6 => self.hash_v6(prefix).1,
        };
        hash >> self.line_shift[prefix.family() as usize]
    }

    /// The hint bit of an address or /64.
    pub fn hint(&self, prefix: &Prefix) -> u32 {
        match prefix.family() {
            Family::V4 => self.hash_v4(prefix) >> self.hint_shift[0],
            Family::V6 => {
                (self.hash_v6(prefix).0 >> self.hint_shift[1]) * 2
                    + u32::from(prefix.length() == 64)
            }
        }
    }

    fn network_v6(&self, network: u64, kind: u64) -> u32 {
        ((network ^ kind << 60).wrapping_mul(self.multipliers[0]) >> 32) as u32
            >> self.nets_shift_v6
    }

    /// The network bit of an IPv6 ban from /32 to /127 that is no /64.
    pub fn ban_network_v6(&self, prefix: &Prefix) -> u32 {
        let high = (prefix.bits() >> 64) as u64;
        match prefix.length() {
            65.. => self.network_v6(high, net_kind::WITHIN_64),
            48.. => self.network_v6(high >> 16, net_kind::BAN_48),
            _ => self.network_v6(high >> 32, net_kind::BAN_32),
        }
    }

    /// The network bit of an IPv6 allow entry from /32.
    pub fn allow_network_v6(&self, prefix: &Prefix) -> u32 {
        self.network_v6((prefix.bits() >> 96) as u64, net_kind::ALLOW_32)
    }
}

/// Byte offsets within the lines of a family. A slot's number is its line's times the slots in a line,
/// plus its place in there.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// Slots in a line.
    pub in_line: u32,
    meta: usize,
    packets: usize,
}

/// Bytes of a line.
const LINE: usize = 64;

impl Slots {
    /// Those of a family.
    pub const fn of(family: Family) -> Slots {
        match family {
            Family::V4 => Slots {
                in_line: LINE_SLOTS_V4 as u32,
                meta: offset_of!(LineV4, meta),
                packets: offset_of!(LineV4, packets),
            },
            Family::V6 => Slots {
                in_line: LINE_SLOTS_V6 as u32,
                meta: offset_of!(LineV6, meta),
                packets: offset_of!(LineV6, packets),
            },
        }
    }

    /// The line a slot is in.
    pub const fn line(self, slot: u32) -> u32 {
        slot / self.in_line
    }

    fn split(self, slot: u32) -> (usize, usize) {
        (self.line(slot) as usize * LINE, (slot % self.in_line) as usize)
    }

    /// Where its `head` is.
    pub fn head(self, slot: u32) -> usize {
        let (line, place) = self.split(slot);
        line + offset_of!(LineV4, head) + 8 * place
    }

    /// Where its `meta` is.
    pub fn meta(self, slot: u32) -> usize {
        let (line, place) = self.split(slot);
        line + self.meta + 4 * place
    }

    /// Where its `packets` is.
    pub fn packets(self, slot: u32) -> usize {
        let (line, place) = self.split(slot);
        line + self.packets + 4 * place
    }

    /// Where its `address` is, IPv6 only.
    pub fn address(self, slot: u32) -> usize {
        let (line, place) = self.split(slot);
        line + offset_of!(LineV6, address) + 16 * place
    }

    /// Where the flags of a line are: in its first `meta`.
    pub fn flags(self, line: u32) -> usize {
        self.meta(line * self.in_line)
    }
}

const _: () = assert!(offset_of!(LineV4, head) == offset_of!(LineV6, head));
const _: () = assert!(size_of::<LineV4>() == LINE && size_of::<LineV6>() == LINE);
