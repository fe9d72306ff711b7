//! A journal as it lies there, read once from its first entry to its last: for `regex` and `replay`.
use std::io;

use systemd::Journal;

use super::{MAX_FIELD, Place, matches::Matches, render::Entry};
use crate::{
    config::{JournalSettings, JournalTerms},
    engine::Timestamp,
};

/// A journal being read.
pub struct PastJournal {
    journal: Journal,
    matches: Matches,
    entry: Entry,
    jails: usize,
}

/// An entry of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEntry {
    /// When it was logged.
    pub at: Timestamp,
    /// Its line, as filters see it.
    pub line: String,
    /// Which jails want it, by their numbers.
    pub wanted: Vec<usize>,
}

impl PastJournal {
    /// Opens a journal for jails with these `journalmatch`es; says what of these is left out.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read.
    pub fn open(
        settings: &JournalSettings,
        jails: &[&[JournalTerms]],
    ) -> io::Result<(PastJournal, Vec<String>)> {
        let place = Place::new(settings);
        if !place.exists() {
            let what = format!("there are no files of the {place}");
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        let mut matches = Matches::default();
        let problems = jails.iter().flat_map(|groups| matches.add_jail(groups)).collect();
        let mut journal = place.open()?;
        journal.set_data_threshold(MAX_FIELD)?;
        matches.apply(&mut journal)?;
        journal.seek_head()?;
        Ok((
            PastJournal { journal, matches, entry: Entry::default(), jails: jails.len() },
            problems,
        ))
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn next_entry(&mut self) -> io::Result<Option<PastEntry>> {
        if self.journal.next()? == 0 {
            return Ok(None);
        }
        self.matches.begin();
        self.entry.begin();
        self.journal.restart_data();
        while let Some(field) = self.journal.enumerate_data()? {
            self.matches.see(field.data());
            self.entry.see(field.data());
        }
        let received = i64::try_from(self.journal.timestamp_usec()?).unwrap_or(i64::MAX);
        let at = self.entry.source_time().unwrap_or(Timestamp::from_micros(received));
        let journal = &self.journal;
        let monotonic = || journal.monotonic_timestamp().ok().map(|(micros, _)| micros);
        let line = self.entry.line(monotonic).to_owned();
        let wanted = (0..self.jails).filter(|jail| self.matches.wants(*jail)).collect();
        Ok(Some(PastEntry { at, line, wanted }))
    }
}
