//! What the maps of bans hold.
//!
//! An end (`until`) is in Unix seconds: the ban holds while it is later than now. [`FOREVER`] never
//! comes, and 0 is an empty slot, which never applies and is never written for a ban.

/// The end of a ban that does not end by itself.
pub const FOREVER: u32 = u32::MAX;

/// Prefixes the program tries for one source, longest first. What bans a shorter one stands in a longer
/// one's slots too, marked [`INHERITED`].
pub const MAX_DEPTH: usize = 8;

/// Holds on one prefix: the one in its [`Ban`] and those in its [`MoreSlots`].
pub const MAX_SLOTS: usize = 8;

/// Flag of a [`Ban`]: `MORE_SLOTS` holds further slots under its id.
pub const BAN_HAS_MORE: u32 = 1;

/// The value of the tries. 16 bytes: a larger one would double the kernel's object for each entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    /// End of the first slot.
    pub until: u32,
    /// Number of this ban, from 1; no other ban of the same time has it.
    pub id: u32,
    /// Jail of the first slot, as `NAMES` says.
    pub jail: u16,
    /// Scope of the first slot, below 64.
    pub scope: u8,
    /// Length of the prefix, so that the program can ask for the next shorter one.
    pub prefix_len: u8,
    /// [`BAN_HAS_MORE`].
    pub flags: u32,
}

/// One jail's hold on a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// End.
    pub until: u32,
    /// Jail, as `NAMES` says.
    pub jail: u16,
    /// Scope, below 64.
    pub scope: u8,
    /// [`INHERITED`] or 0. The program does not ask.
    pub mark: u8,
}

/// Mark of a [`Slot`]: not this prefix's, but of shorter ones that the program might not come to.
pub const INHERITED: u8 = 1;

/// Slots two to eight of a prefix that several jails hold.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoreSlots {
    /// The slots; empty ones at the end.
    pub slots: [Slot; MAX_SLOTS - 1],
    /// The key once more. The kernel hands a replaced element's memory to the next one at once, while
    /// a program may still read it; the id tells it so.
    pub id: u32,
    /// Zero.
    pub unused: u32,
}

/// Bits of a `meta` word that hold the scope.
pub const META_SCOPE: u32 = 0x3f;
/// `meta`: further slots stand in `MORE_SLOTS`; where the first does not apply, the trie knows.
pub const META_MORE: u32 = 0x100;
/// `meta` of IPv6: the entry is the /64, not the address.
pub const META_UNIT: u32 = 0x200;
/// First `meta` of a line: an address of this line stands in the trie alone.
pub const LINE_ASK_TRIE: u32 = 0x4000;
/// First `meta` of a line: an address of this line stands in the pair line (`index ^ 1`).
pub const LINE_HAS_PAIR: u32 = 0x8000;
/// Where the jail begins in a `meta` word.
pub const META_JAIL_SHIFT: u32 = 16;

/// Addresses in one [`LineV4`].
pub const LINE_SLOTS_V4: usize = 4;
/// Prefixes in one [`LineV6`].
pub const LINE_SLOTS_V6: usize = 2;

/// Four banned IPv4 addresses in one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineV4 {
    /// Low half: the address as its bytes lie in the packet, read in this machine's order. High half:
    /// end of the first slot. Written last, cleared first; 0 is empty.
    pub head: [u64; LINE_SLOTS_V4],
    /// Jail, flags and scope of the first slot.
    pub meta: [u32; LINE_SLOTS_V4],
    /// Packets that this entry dropped; the program adds, the writer sets to zero at reuse.
    pub packets: [u32; LINE_SLOTS_V4],
}

/// Two banned IPv6 addresses or /64s in one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineV6 {
    /// Low half: end of the first slot, 0 is empty. High half: a number that changes whenever the
    /// slot is used anew. Written last, cleared first.
    pub head: [u64; LINE_SLOTS_V6],
    /// The address as its bytes lie in the packet, read in this machine's order; the second half of a
    /// /64 is 0.
    pub address: [[u64; 2]; LINE_SLOTS_V6],
    /// As in [`LineV4`], and [`META_UNIT`].
    pub meta: [u32; LINE_SLOTS_V6],
    /// As in [`LineV4`].
    pub packets: [u32; LINE_SLOTS_V6],
}

const _: () = {
    assert!(size_of::<Ban>() == 16);
    assert!(size_of::<Slot>() == 8);
    assert!(size_of::<MoreSlots>() == 64);
    assert!(size_of::<LineV4>() == 64);
    assert!(size_of::<LineV6>() == 64);
};

#[cfg(feature = "user")]
mod user {
    use super::{Ban, LineV4, LineV6, MoreSlots, Slot};
    // SAFETY: all are `repr(C)`, made of integers alone, without padding (their sizes are the sums of
    // their fields, asserted above), so every byte pattern is a value and every byte is initialised.
    unsafe impl aya::Pod for Ban {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Slot {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MoreSlots {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LineV4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LineV6 {}
}
