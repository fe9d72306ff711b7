//! What the store knows of a ban's address, for actions that show it (`<ipmatches>`, `<ipjailfailures>` …).
use std::path::PathBuf;

use super::queue::Entry;
use crate::{
    action::wire::{Past, Ticket},
    config::JailName,
    store::Evidence,
};

/// Bans of one address that are looked at: with more, the oldest do not count.
const MOST: usize = 1000;

/// Reads the store on the thread of whoever asks.
#[derive(Debug)]
pub(super) struct Pasts {
    file: Option<PathBuf>,
    evidence: Option<Evidence>,
    /// `dbmaxmatches`.
    most_matches: usize,
}

impl Pasts {
    /// Of this file; without one a ban is all that is known of its address.
    pub fn new(file: Option<PathBuf>, most_matches: usize) -> Pasts {
        Pasts { file, evidence: None, most_matches }
    }

    /// Adds to a ticket what its action asks for. What cannot be read is left out: the runner then takes the ticket's own.
    pub fn add_to(&mut self, ticket: &mut Ticket, entry: &Entry) {
        let asks = entry.asks;
        if !asks.of_address && !asks.of_jail {
            return;
        }
        let Ok(prefix) = ticket
            .id
            .parse()
            .or_else(|_| ticket.id.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
        else {
            return;
        };
        let Some(file) = &self.file else { return };
        if self.evidence.is_none() {
            self.evidence = Evidence::open(file).ok();
        }
        let Some(evidence) = &self.evidence else { return };
        let Ok(mut bans) = evidence.of(prefix, MOST) else {
            // Opened anew the next time: the file may have been replaced.
            self.evidence = None;
            return;
        };
        // This ban may not be in the file yet: it is written by another thread.
        let own = (ticket.time * 1e6).round() as i64;
        if bans
            .iter()
            .all(|(jail, since, ..)| *jail != entry.jail || since.micros().abs_diff(own) > 1)
        {
            let since = crate::engine::Timestamp::from_micros(own);
            let at = bans.partition_point(|(_, other, ..)| *other >= since);
            bans.insert(
                at,
                (entry.jail.clone(), since, ticket.failures.into(), ticket.matches.clone()),
            );
        }
        let merged = |of: Option<&JailName>| {
            let bans = bans.iter().filter(|(jail, ..)| of.is_none_or(|of| of == jail));
            merge(bans.map(|(_, _, failures, lines)| (*failures, lines)), self.most_matches)
        };
        ticket.of_address = asks.of_address.then(|| merged(None));
        ticket.of_jail = asks.of_jail.then(|| merged(Some(&entry.jail)));
    }
}

/// As fail2ban merges them: the newest first, each with its last lines while there is room.
fn merge<'a>(bans: impl Iterator<Item = (u64, &'a Vec<String>)>, most: usize) -> Past {
    let mut past = Past::default();
    for (failures, lines) in bans {
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
        let lines = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let bans = [(3, lines(&["c", "d"])), (2, lines(&["a", "b"])), (5, lines(&["z"]))];
        let past = merge(bans.iter().map(|(failures, lines)| (*failures, lines)), 3);
        assert_eq!((past.failures, past.matches.join(" ")), (10, "b c d".to_owned()));
    }
}
