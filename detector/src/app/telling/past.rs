//! What the store knows of a ban's address, for actions that show it (`<ipmatches>`, `<ipjailfailures>` …).
use std::path::PathBuf;

use super::{
    queue::{Asks, Entry},
    tasks,
};
use crate::{
    action::wire::{Past, Ticket},
    config::JailName,
    engine::Timestamp,
    store::{EarlierBan, Evidence},
};

/// Bans of one address that are looked at: with more, the oldest do not count.
const MOST: usize = 1000;

/// Reads the store on the thread of whoever asks.
#[derive(Debug)]
pub(super) struct Pasts {
    file: Option<PathBuf>,
    /// `dbmaxmatches`.
    most_matches: usize,
}

impl Pasts {
    /// Of this file; without one a ban is all that is known of its address.
    pub fn new(file: Option<PathBuf>, most_matches: usize) -> Pasts {
        Pasts { file, most_matches }
    }

    /// Adds to a ticket what its action asks for. What cannot be read is left out: the runner then takes the ticket's own.
    pub fn add_to(&self, ticket: &mut Ticket, entry: &Entry) {
        let asks = entry.asks;
        if asks == Asks::default() {
            return;
        }
        let (Some(file), Some(prefix)) = (&self.file, tasks::prefix_of(&ticket.id)) else { return };
        // Opened each time: the file may have been set aside meanwhile.
        let bans = Evidence::open(file).and_then(|evidence| evidence.of(prefix, MOST));
        let Ok(mut bans) = bans else { return };
        let own = EarlierBan {
            jail: entry.jail.clone(),
            since: Timestamp::from_micros((ticket.time * 1e6).round() as i64),
            failures: ticket.failures.into(),
            lines: ticket.matches.clone(),
        };
        // This ban may not be in the file yet: it is written by another thread.
        let is_own = |ban: &EarlierBan| {
            // A time as a number with a fraction is not quite what it was.
            ban.jail == own.jail && ban.since.micros().abs_diff(own.since.micros()) <= 1
        };
        if !bans.iter().any(is_own) {
            bans.insert(bans.partition_point(|ban| ban.since >= own.since), own);
        }
        let merged = |of: Option<&JailName>| {
            merge(bans.iter().filter(|ban| of.is_none_or(|of| *of == ban.jail)), self.most_matches)
        };
        ticket.of_address = asks.of_address.then(|| merged(None));
        ticket.of_jail = asks.of_jail.then(|| merged(Some(&entry.jail)));
    }
}

/// As fail2ban merges them: the newest first, each with its last lines while there is room.
fn merge<'a>(bans: impl Iterator<Item = &'a EarlierBan>, most: usize) -> Past {
    let mut past = Past::default();
    for EarlierBan { failures, lines, .. } in bans {
        let room = most.saturating_sub(past.matches.len());
        let kept = &lines[lines.len().saturating_sub(room)..];
        past.matches.splice(0..0, kept.iter().cloned());
        past.failures += failures;
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_count_and_all_failures() {
        let ban = |failures, lines: &[&str]| EarlierBan {
            jail: JailName::new("j"),
            since: Timestamp::from_seconds(0),
            failures,
            lines: lines.iter().map(ToString::to_string).collect(),
        };
        let bans = [ban(3, &["c", "d"]), ban(2, &["a", "b"]), ban(5, &["z"])];
        let past = merge(bans.iter(), 3);
        assert_eq!((past.failures, past.matches.join(" ")), (10, "b c d".to_owned()));
    }
}
