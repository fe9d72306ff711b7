//! What the program tells: counts, samples of drops, the clock.

/// Rows of `COUNTERS`: what became of a packet.
pub mod counter {
    /// Judged and passed, or passed unjudged while off.
    pub const PASSED: u32 = 0;
    /// Dropped: counted in the rows of the interfaces, this one stays 0.
    pub const DROPPED: u32 = 1;
    /// Passed, though banned: the program or the jail only observes. Counted as [`DROPPED`].
    pub const WOULD_DROP: u32 = 2;
    /// Passed, though banned: on the allow list.
    pub const SPARED: u32 = 3;
    /// Passed: neither IPv4 nor IPv6 within two VLAN tags.
    pub const NOT_IP: u32 = 4;
    /// Passed: too short to show a source.
    pub const UNREADABLE: u32 = 5;
    /// Where the rows of the interfaces begin: two for each remainder of an index, dropped and would-drop.
    pub const BY_INTERFACE: u32 = 8;
    /// So many remainders of an interface's index are told apart; a power of two.
    pub const INTERFACES: u32 = 64;

    /// The row of what was dropped of an interface's packets, or with `observed` 1 would have been.
    #[inline(always)]
    pub const fn of_interface(index: u32, observed: u32) -> u32 {
        BY_INTERFACE + (index & (INTERFACES - 1)) * 2 + (observed & 1)
    }
}

/// A row of `COUNTERS` on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// What a ban dropped, as far as no line counted it or its count was moved here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BanStat {
    /// Packets dropped.
    pub packets: u64,
    /// Packets that passed because the program or the jail only observes.
    pub would_drop: u64,
    /// Unix seconds of the last of them, 0 for none.
    pub last_seen: u32,
    /// Goes up whenever the id is given to another ban.
    pub generation: u32,
}

/// How many events this CPU has sent in this second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventWindow {
    /// The second, Unix time.
    pub second: u32,
    /// Events sent in it.
    pub emitted: u32,
    /// Events not sent since the maps were made: over the budget, or the buffer was full.
    pub suppressed: u64,
}

/// A sampled drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The source, as in the packet; IPv4 in the first four bytes, the rest 0.
    pub source: [u8; 16],
    /// Unix time.
    pub second: u32,
    /// Which ban; 0 where a line counted it, which does not know.
    pub ban_id: u32,
    /// On which interface it came in.
    pub interface: u32,
    /// Row of `SCOPES`: its port or protocol.
    pub scope_row: u32,
    /// Bytes, Ethernet header included.
    pub length: u32,
    /// Which jail.
    pub jail: u16,
    /// 4 or 6.
    pub family: u8,
    /// 1: it passed, because the program or the jail only observes.
    pub observed: u8,
}

/// What `sample_clock` writes over the packet, read at one moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSample {
    /// `jiffies`, 64 bits.
    pub jiffies: u64,
    /// The monotonic clock.
    pub nanoseconds: u64,
    /// Ticks of the clock that the verdict uses.
    pub ticks: u64,
}

const _: () = {
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<BanStat>() == 24);
    // The program counts on it.
    assert!(counter::WOULD_DROP == counter::DROPPED + 1);
    assert!(
        core::mem::offset_of!(BanStat, would_drop) == core::mem::offset_of!(BanStat, packets) + 8
    );
    assert!(size_of::<EventWindow>() == 16);
    assert!(size_of::<Event>() == 40);
    assert!(size_of::<ClockSample>() == 24);
};

#[cfg(feature = "user")]
mod user {
    use super::{BanStat, ClockSample, Counter, Event, EventWindow};
    // SAFETY: all are `repr(C)`, made of integers alone, without padding (sizes asserted above).
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BanStat {}
    // SAFETY: as above.
    unsafe impl aya::Pod for EventWindow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClockSample {}
}
