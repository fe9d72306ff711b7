//! Words shared by kernel and user space: what the maps are called and hold, byte for byte.
//!
//! Data only. Who reads and writes what, and in which order, stands in the rooms that do it.
#![no_std]

pub mod config;
pub mod name;
pub mod report;
pub mod value;

/// Names of the maps, as pinned and as `bpftool map` shows them (the kernel keeps 15 characters).
pub mod map {
    /// Every IPv4 ban: prefix to [`Ban`](crate::value::Ban).
    pub const BANS_V4: &str = "BANS_V4";
    /// Every IPv6 ban.
    pub const BANS_V6: &str = "BANS_V6";
    /// Further holds on a prefix: ban id to [`MoreSlots`](crate::value::MoreSlots).
    pub const MORE_SLOTS: &str = "MORE_SLOTS";
    /// Lines of IPv4 addresses, [`LineV4`](crate::value::LineV4).
    pub const HOSTS_V4: &str = "HOSTS_V4";
    /// Lines of IPv6 addresses and /64s, [`LineV6`](crate::value::LineV6).
    pub const HOSTS_V6: &str = "HOSTS_V6";
    /// One bit a hashed IPv4 address: banned, perhaps.
    pub const HINT_V4: &str = "HINT_V4";
    /// Two bits a hashed /64: an address in it, the /64 itself.
    pub const HINT_V6: &str = "HINT_V6";
    /// Two bits an IPv4 /16: a network ban touches it, an allow entry touches it.
    pub const NETS_V4: &str = "NETS_V4";
    /// One bit a hashed IPv6 network.
    pub const NETS_V6: &str = "NETS_V6";
    /// IPv4 prefixes that are never dropped.
    pub const ALLOW_V4: &str = "ALLOW_V4";
    /// IPv6 prefixes that are never dropped.
    pub const ALLOW_V6: &str = "ALLOW_V6";
    /// TCP port, UDP port, protocol: the scopes that contain it.
    pub const SCOPES: &str = "SCOPES";
    /// Texts of scopes and jails, [`NameKey`](crate::name::NameKey).
    pub const NAMES: &str = "NAMES";
    /// The one [`Config`](crate::config::Config).
    pub const CONFIG: &str = "CONFIG";
    /// What became of packets, [`Counter`](crate::report::Counter) a CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// By ban id: [`BanStat`](crate::report::BanStat).
    pub const BAN_STATS: &str = "BAN_STATS";
    /// The budget of events of this second, a CPU: [`EventWindow`](crate::report::EventWindow).
    pub const EVENT_WINDOW: &str = "EVENT_WINDOW";
    /// Sampled drops, [`Event`](crate::report::Event).
    pub const EVENTS: &str = "EVENTS";

    /// All of them.
    pub const ALL: [&str; 18] = [
        BANS_V4,
        BANS_V6,
        MORE_SLOTS,
        HOSTS_V4,
        HOSTS_V6,
        HINT_V4,
        HINT_V6,
        NETS_V4,
        NETS_V6,
        ALLOW_V4,
        ALLOW_V6,
        SCOPES,
        NAMES,
        CONFIG,
        COUNTERS,
        BAN_STATS,
        EVENT_WINDOW,
        EVENTS,
    ];
}

/// Names of the programs in the object.
pub mod program {
    /// The verdict, for drivers that hand over frames in one piece.
    pub const BAN: &str = "ban";
    /// The verdict for frames in several pieces (`xdp.frags`, Linux 5.18).
    pub const BAN_FRAGS: &str = "ban_frags";
    /// Writes one sample of the kernel's clocks, [`ClockSample`](crate::report::ClockSample), over the
    /// first bytes of the packet; for test runs only, never attached.
    pub const SAMPLE_CLOCK: &str = "sample_clock";
}

/// The `CLOCK` global of the object: what the program takes for time.
pub mod clock {
    /// Name of the global, one byte.
    pub const GLOBAL: &str = "CLOCK";
    /// Ticks of `jiffies`.
    pub const JIFFIES: u8 = 0;
    /// The coarse monotonic clock, in units of 2^20 ns (Linux 5.11).
    pub const COARSE: u8 = 1;
    /// The monotonic clock, in units of 2^20 ns.
    pub const MONOTONIC: u8 = 2;
}

/// Capacities of the default object, for [`BANS`](capacity::BANS) bans a family. At load they are
/// replaced by what is wanted.
pub mod capacity {
    /// Bans of one family.
    pub const BANS: usize = 65_536;
    /// Room in a trie beyond its bans: before Linux 6.13 an overwrite in a full trie was miscounted.
    pub const fn trie(bans: usize) -> usize {
        bans + bans / 64
    }
    /// Lines of four IPv4 addresses each: half full when all bans are there, 0.7 % left over.
    pub const fn lines_v4(bans: usize) -> usize {
        bans / 2
    }
    /// Lines of two IPv6 prefixes each: a quarter full, for two a line spill sooner.
    pub const fn lines_v6(bans: usize) -> usize {
        bans * 2
    }
    /// Words of 64 hint bits, 16 bits a ban.
    pub const fn hint_v4(bans: usize) -> usize {
        bans / 4
    }
    /// Words of 32 hint positions of two bits, 16 positions a ban.
    pub const fn hint_v6(bans: usize) -> usize {
        bans / 2
    }
    /// Words of 64 network bits, 4 bits a ban.
    pub const fn nets_v6(bans: usize) -> usize {
        bans / 16
    }
    /// Prefixes held by several jails at once.
    pub const fn more_slots(bans: usize) -> usize {
        bans / 4
    }
    /// Statistics of both families' bans, and of numbers that rest before they are used again.
    pub const fn ban_stats(bans: usize) -> usize {
        bans * 2 + bans / 4
    }
    /// Words of 32 /16s, two bits each.
    pub const NETS_V4: usize = 2048;
    /// Allow entries of one family.
    pub const ALLOW: usize = 65_536;
    /// Rows of `SCOPES`: TCP ports, UDP ports, protocols.
    pub const SCOPES: usize = 65_536 + 65_536 + 256;
    /// Pieces of names.
    pub const NAMES: usize = 131_072;
    /// Bytes of the ring buffer of events.
    pub const EVENTS: usize = 262_144;
    /// Rows of `COUNTERS`: the outcomes, and two for each interface that is told apart.
    pub const COUNTERS: usize = 8 + 2 * super::report::counter::INTERFACES as usize;
}

/// Rows of `SCOPES`.
pub mod scope_row {
    /// Where the 65,536 UDP ports begin; the TCP ports stand at 0.
    pub const UDP: u32 = 65_536;
    /// Where the 256 protocols begin: for packets that show no port.
    pub const PROTOCOL: u32 = 131_072;
    /// No row at all: the protocol cannot be found, so the packet is in every scope.
    pub const UNKNOWN: u32 = u32::MAX;
}

/// Scope ids below [`FIRST_FREE`](scope_id::FIRST_FREE) mean the same everywhere.
pub mod scope_id {
    /// Every packet.
    pub const EVERY_PACKET: u8 = 0;
    /// All TCP.
    pub const TCP: u8 = 1;
    /// All UDP.
    pub const UDP: u8 = 2;
    /// All ICMP and ICMPv6.
    pub const ICMP: u8 = 3;
    /// The first that a configuration's own scope can have.
    pub const FIRST_FREE: u8 = 4;
    /// How many there are: one bit of a `SCOPES` word each.
    pub const COUNT: u8 = 64;
}
