//! The patterns of a filter, one by one: which engine runs them, and which a line could stop.
use std::fmt;

use super::Matcher;

/// Which pattern of a filter, as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternName {
    /// `prefregex`.
    Prefix,
    /// One of `failregex`, from 0 in the order written.
    Fail(usize),
    /// One of `ignoreregex`, from 0 among those that compile.
    Ignore(usize),
}

impl fmt::Display for PatternName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternName::Prefix => f.write_str("`prefregex`"),
            PatternName::Fail(nth) => write!(f, "failregex {}", nth + 1),
            PatternName::Ignore(nth) => write!(f, "ignoreregex {}", nth + 1),
        }
    }
}

/// How a pattern runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternState {
    /// Which one.
    pub name: PatternName,
    /// Its time is linear in the line, whatever the line says; else it is stopped after a number of tries.
    pub linear: bool,
    /// Lines that it was stopped on: they count as not matched.
    pub gave_up: u64,
}

impl Matcher {
    /// All patterns that compiled: `prefregex`, failregexes, ignoreregexes.
    pub fn patterns(&self) -> impl Iterator<Item = PatternState> {
        let prefix = self.prefix.iter().map(|rule| (PatternName::Prefix, &rule.pattern));
        let rules = self.rules.iter().map(|rule| (PatternName::Fail(rule.nth), &rule.pattern));
        let ignore = self.ignore.iter().enumerate();
        let ignore = ignore.map(|(nth, pattern)| (PatternName::Ignore(nth), pattern));
        prefix.chain(rules).chain(ignore).map(|(name, pattern)| PatternState {
            name,
            linear: pattern.is_regular(),
            gave_up: pattern.gave_up(),
        })
    }
}
