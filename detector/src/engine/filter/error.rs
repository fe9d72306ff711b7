//! What can be wrong in a filter.
use crate::{
    config::{JailName, Place, Problem, Severity},
    engine::{DateFault, PatternError},
};

/// One pattern of a filter that cannot be used, with its place. The others are used all the same, but
/// for a bad `prefregex`: without it the others would match more than was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// `prefregex` does not compile: the filter finds nothing.
    #[error("`prefregex` {source}, so the filter finds nothing")]
    Prefix {
        /// Where it was written.
        place: Option<Place>,
        /// Why.
        source: PatternError,
    },
    /// A failregex does not compile.
    #[error("failregex {} {source}; the others are used", .nth + 1)]
    Fail {
        /// Which, from 0.
        nth: usize,
        /// Where it was written.
        place: Option<Place>,
        /// Why.
        source: PatternError,
    },
    /// A failregex cannot say whom it is about.
    #[error("failregex {} names nobody and is left out", .nth + 1)]
    Nobody {
        /// Which, from 0.
        nth: usize,
        /// Where it was written.
        place: Option<Place>,
    },
    /// An ignoreregex does not compile.
    #[error("ignoreregex {} {source}, so what it should spare is counted", .nth + 1)]
    Ignore {
        /// Which, from 0.
        nth: usize,
        /// Where it was written.
        place: Option<Place>,
        /// Why.
        source: PatternError,
    },
    /// An entry of `datepattern` cannot be used.
    #[error("datepattern {} {source}; it is left out", .nth + 1)]
    Date {
        /// Which, from 0.
        nth: usize,
        /// Where it was written.
        place: Option<Place>,
        /// Why.
        source: DateFault,
    },
    /// `logtimezone` names no zone.
    #[error(
        "`logtimezone = {zone}` names no time zone, so lines without a zone are read in this machine's"
    )]
    Zone {
        /// What was written.
        zone: String,
        /// Where.
        place: Option<Place>,
    },
}

impl FilterError {
    /// Where it was written.
    pub fn place(&self) -> Option<&Place> {
        match self {
            FilterError::Prefix { place, .. }
            | FilterError::Fail { place, .. }
            | FilterError::Nobody { place, .. }
            | FilterError::Ignore { place, .. }
            | FilterError::Date { place, .. }
            | FilterError::Zone { place, .. } => place.as_ref(),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            FilterError::Prefix { source, .. }
            | FilterError::Fail { source, .. }
            | FilterError::Ignore { source, .. }
            | FilterError::Date { source: DateFault::Pattern(source), .. } => source.remedy(),
            FilterError::Nobody { .. } => {
                "add `<HOST>`, `<ADDR>`, `<F-ID>…</F-ID>` or `<F-MLFID>…</F-MLFID>`"
            }
            FilterError::Date { source: DateFault::Code(_), .. } => "write `%%` for a percent sign",
            FilterError::Date { source: DateFault::Twice, .. } => "remove one of the two",
            FilterError::Zone { .. } => {
                "write `UTC`, an abbreviation such as `CET`, or an offset such as `UTC+0200`"
            }
        }
    }

    /// The same as a problem of this jail's configuration.
    pub fn problem(&self, jail: &JailName) -> Problem {
        Problem {
            severity: Severity::Error,
            jail: Some(jail.clone()),
            place: self.place().cloned(),
            what: self.to_string(),
            remedy: self.remedy().to_owned(),
        }
    }
}
