//! What is never printed, logged or sent to whoever asks.
use std::fmt;

/// Shown in its place.
pub const HIDDEN: &str = "***";

/// A password, a token, or an address that holds one. Its `Debug` shows [`HIDDEN`]; it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one who needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
