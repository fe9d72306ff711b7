//! What of the matchers is watched from here: sessions that they remember, and
//! patterns that a line kept trying for so long that they were stopped: an attacker may hide behind such lines.
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    config::JailName,
    engine::{Matcher, PatternState, SessionCounts, Timestamp},
};

/// How often the same pattern is warned of.
const EVERY: Duration = Duration::from_secs(60);

/// The patterns of all jails that can be stopped, and their sessions.
#[derive(Debug, Default)]
pub(super) struct GiveUps(Vec<Watched>, Vec<(JailName, Arc<SessionCounts>)>);

#[derive(Debug)]
struct Watched {
    jail: JailName,
    pattern: PatternState,
    /// How often it had been stopped when that was said last, and when that was.
    told: (u64, Option<Timestamp>),
    /// It was said that two engines differ.
    difference: bool,
}

impl GiveUps {
    /// Also those of this jail.
    pub fn watch(&mut self, jail: &JailName, matcher: &Matcher) {
        self.1.push((jail.clone(), matcher.sessions()));
        let patterns = matcher.patterns();
        self.0.extend(patterns.map(|pattern| Watched {
            jail: jail.clone(),
            pattern,
            told: (0, None),
            difference: false,
        }));
    }

    /// The patterns of a jail that were stopped since its filter was read.
    pub fn of<'a>(&'a self, jail: &'a JailName) -> impl Iterator<Item = &'a PatternState> {
        let of_jail = self.0.iter().filter(move |watched| watched.jail == *jail);
        of_jail.map(|watched| &watched.pattern).filter(|pattern| pattern.gave_up() > 0)
    }

    /// Of each jail the sessions that it remembers now, and those that it forgot for want of room.
    pub fn sessions(&self) -> impl Iterator<Item = (&JailName, usize, u64)> {
        let counts = self.1.iter();
        counts.map(|(jail, of)| (jail, of.held.load(Relaxed), of.lost.load(Relaxed)))
    }

    /// Texts that two engines searched, and those of which they said different things.
    pub fn verified(&self) -> (u64, u64) {
        let counts = self.0.iter().map(|watched| watched.pattern.verified());
        counts.fold((0, 0), |(all, other), (texts, differing)| (all + texts, other + differing))
    }

    /// What is new, each pattern once a minute at the most.
    pub fn news(&mut self, now: Timestamp) -> Vec<String> {
        let mut news = Vec::new();
        for Watched { jail, pattern, told, difference } in &mut self.0 {
            if !*difference && let Some(what) = pattern.difference() {
                *difference = true;
                news.push(format!("[{jail}] {what}"));
            }
            let waits = told.1.is_some_and(|at| at <= now && at.plus(EVERY) > now);
            if pattern.gave_up() > told.0
                && !waits
                && let Some(fault) = pattern.fault()
            {
                *told = (pattern.gave_up(), Some(now));
                news.push(format!("[{jail}] {fault}"));
            }
        }
        news
    }
}
