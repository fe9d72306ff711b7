//! Names of what the maps know by number.

/// [`NameKey::kind`]: a scope, whose id is its bit in `SCOPES`.
pub const SCOPE: u16 = 1;
/// [`NameKey::kind`]: a jail.
pub const JAIL: u16 = 2;

/// Bytes of text in one piece.
pub const PIECE: usize = 60;

/// The key of `NAMES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// [`SCOPE`] or [`JAIL`].
    pub kind: u16,
    /// Its number.
    pub id: u16,
    /// Which piece of the text, from 0.
    pub piece: u32,
}

/// A piece of a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamePiece {
    /// Length of the whole text in bytes; the same in each piece.
    pub length: u32,
    /// UTF-8, filled up with zeros.
    pub text: [u8; PIECE],
}

const _: () = {
    assert!(size_of::<NameKey>() == 8);
    assert!(size_of::<NamePiece>() == 64);
};

#[cfg(feature = "user")]
mod user {
    use super::{NameKey, NamePiece};
    // SAFETY: `repr(C)`, integers alone, no padding (sizes asserted above).
    unsafe impl aya::Pod for NameKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NamePiece {}
}
