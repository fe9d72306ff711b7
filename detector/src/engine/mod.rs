//! Findings become bans. Pure: an event and `now` in, effects out.
mod types;
pub use types::*;
