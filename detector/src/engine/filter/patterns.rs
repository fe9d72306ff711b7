//! The patterns of a filter, one by one: which engine runs them, and which a line could stop.
use std::{
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{Matcher, Rule, SessionCounts};
use crate::{config::Place, engine::pattern::Shadow};

/// Characters of a text that are told.
const SHOWN: usize = 300;

/// Which pattern of a filter, as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternName {
    /// `prefregex`.
    Prefix,
    /// One of `failregex`, from 0 in the order written.
    Fail(usize),
    /// One of `ignoreregex`, from 0 in the order written.
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

/// How a pattern runs. It goes on telling while the matcher is at work on another thread.
#[derive(Clone, Debug)]
pub struct PatternState {
    /// Which one.
    pub name: PatternName,
    /// Where it is written.
    pub place: Option<Place>,
    /// Its time is linear in the line, whatever the line says; else it is stopped after a number of tries.
    pub linear: bool,
    gave_up: Arc<AtomicU64>,
    shadow: Option<Arc<Shadow>>,
}

impl PatternState {
    /// Texts that two engines searched, and those of which they said different things; see [`Matcher::verify`].
    pub fn verified(&self) -> (u64, u64) {
        let counts =
            |shadow: &Arc<Shadow>| (shadow.compared.load(Relaxed), shadow.differing.load(Relaxed));
        self.shadow.as_ref().map_or((0, 0), counts)
    }

    /// What there is to say where they did; `None` where they never did.
    pub fn difference(&self) -> Option<String> {
        let shadow = self.shadow.as_ref()?;
        let (compared, differing) = self.verified();
        let first = shadow.first.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = first.as_ref()?.chars().take(SHOWN).collect();
        Some(format!(
            "{}: two engines differ on {differing} of {compared} texts, first on `{}`",
            self.shown(),
            text.escape_debug()
        ))
    }

    fn shown(&self) -> String {
        let place = self.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
        format!("{}{place}", self.name)
    }

    /// Lines that it was stopped on: they count as not matched.
    pub fn gave_up(&self) -> u64 {
        self.gave_up.load(Relaxed)
    }

    /// What there is to say of a pattern that was stopped; `None` of one that was not.
    pub fn fault(&self) -> Option<String> {
        let lines = self.gave_up();
        let what =
            || format!("{} gave up on {lines} lines, which count as not matched", self.shown());
        (lines > 0).then(what)
    }
}

impl Matcher {
    /// How many sessions it remembers, to be watched from another thread.
    pub fn sessions(&self) -> Arc<SessionCounts> {
        Arc::clone(&self.sessions.counts)
    }

    /// From now on searches every text twice, by our own matcher and by the engines behind it, and compares: for whoever
    /// does not trust the former. [`PatternState::verified`] tells what came of it; what the latter say counts.
    pub fn verify(&self) {
        for rule in self.prefix.iter().chain(&self.rules).chain(&self.ignore) {
            rule.pattern.verify();
        }
    }

    /// All patterns that compiled: `prefregex`, failregexes, ignoreregexes.
    pub fn patterns(&self) -> impl Iterator<Item = PatternState> {
        let state = |rule: &Rule, name| PatternState {
            name,
            place: rule.place.clone(),
            linear: rule.pattern.is_regular(),
            gave_up: rule.pattern.gave_up(),
            shadow: rule.pattern.shadow(),
        };
        let prefix = self.prefix.iter().map(move |rule| state(rule, PatternName::Prefix));
        let rules = self.rules.iter().map(move |rule| state(rule, PatternName::Fail(rule.nth)));
        let ignore = self.ignore.iter().map(move |rule| state(rule, PatternName::Ignore(rule.nth)));
        prefix.chain(rules).chain(ignore)
    }
}
