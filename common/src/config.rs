//! What the writer tells the program.

/// Version of everything in this crate that lies in a map. A daemon adopts maps of its own alone.
pub const LAYOUT: u32 = 2;

/// Flag: every packet passes unjudged.
pub const OFF: u32 = 1;
/// Flag: count what would be dropped, drop nothing.
pub const OBSERVE: u32 = 2;
/// Flag, for tests: do not believe the hint bits.
pub const IGNORE_HINTS: u32 = 4;
/// Flag, for tests: do not look into the lines, ask the tries.
pub const IGNORE_LINES: u32 = 8;
/// Flag, for tests: do not believe the network bits, neither of bans nor of the allow list.
pub const IGNORE_NETS: u32 = 16;

/// Bit of `levels_v6`: some ban is longer than a /64 and shorter than a /128.
pub const LEVEL_WITHIN_64: u32 = 1;
/// Bit of `levels_v6`: some ban's length is 48 to 63.
pub const LEVEL_48: u32 = 2;
/// Bit of `levels_v6`: some ban's length is 32 to 47.
pub const LEVEL_32: u32 = 4;

/// What a hashed network in `NETS_V6` is of: mixed into the hash, so that levels do not share bits.
pub mod net_kind {
    /// The /64 of a ban longer than it.
    pub const WITHIN_64: u64 = 1;
    /// The /48 of a ban of 48 to 63.
    pub const BAN_48: u64 = 2;
    /// The /32 of a ban of 32 to 47.
    pub const BAN_32: u64 = 3;
    /// The /32 of an allow entry of at least 32.
    pub const ALLOW_32: u64 = 4;
}

/// The one entry of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Secret odd numbers: a place is the top bits of a product with them, so that nobody can choose
    /// addresses that share a line. A secret merely added or xored in would not do that.
    pub multipliers: [u64; 2],
    /// Unix seconds are `(ticks * clock_scale + clock_offset) >> 32`, wrapping.
    pub clock_scale: u64,
    /// As above; one atomic store sets the clock.
    pub clock_offset: u64,
    /// [`OFF`], [`OBSERVE`] and those for tests.
    pub flags: u32,
    /// Drops reported in `EVENTS` each second and CPU.
    pub events_per_second: u32,
    /// IPv4 bans shorter than a /16; while there is one, the trie is always asked.
    pub wide_bans_v4: u32,
    /// IPv6 bans shorter than a /32.
    pub wide_bans_v6: u32,
    /// IPv6 allow entries shorter than a /32, except those within `::/64`, `fe80::/10` and `ff00::/8`,
    /// where the allow list is always asked.
    pub wide_allow_v6: u32,
    /// Levels of IPv6 network bans in use, [`LEVEL_WITHIN_64`] and so on.
    pub levels_v6: u32,
    /// 32 less the power of two that `HOSTS_V4` has lines; 1 to 31.
    pub line_shift_v4: u32,
    /// 32 less the power of two that `HINT_V4` has bits; 1 to 31.
    pub hint_shift_v4: u32,
    /// As for IPv4.
    pub line_shift_v6: u32,
    /// 32 less the power of two that `HINT_V6` has pairs of bits; 1 to 31.
    pub hint_shift_v6: u32,
    /// 32 less the power of two that `NETS_V6` has bits; 1 to 31.
    pub nets_shift_v6: u32,
    /// [`LAYOUT`]; 0 while the maps are being prepared.
    pub layout: u32,
    /// One bit a jail: what it bans is counted, and not dropped. In here, where the program needs no look-up for it:
    /// the verifier would follow each of them, for every slot of every prefix.
    pub observed: [u64; OBSERVED_WORDS],
}

/// Words of 64 jails.
pub const OBSERVED_WORDS: usize = 1024;

const _: () = assert!(size_of::<Config>() == 80 + 8 * OBSERVED_WORDS);

// SAFETY: `repr(C)`, integers alone, no padding (the size is the sum of the fields).
#[cfg(feature = "user")]
unsafe impl aya::Pod for Config {}
