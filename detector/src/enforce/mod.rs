//! The rooms of enforcement.
pub mod tables; // bans become entries of the maps
