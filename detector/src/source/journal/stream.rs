//! Entries that one writer numbered, in that order: a chain of files, each of which continues the one before.
//!
//! The library is opened once for each chain and not for all files together, because it puts entries of different
//! writers in order by time and passes over those that come late: what another machine sends with a delay, or a
//! journald of another namespace writes a moment after. Within a chain it goes by the numbers, whatever the clock says.
use std::{
    collections::BTreeSet,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use systemd::{Journal, id128::Id128, journal::OpenFilesOptions};

use super::{
    MAX_MESSAGE,
    header::{Header, Numbering},
    matches::Matches,
    place::{Part, Refused},
};
use crate::{engine::Timestamp, source::files::FileId};

/// How far one chain was read.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Spot {
    /// Every entry up to this number was looked at.
    pub number: u64,
    /// When the last entry that was read was received, in microseconds since the Unix epoch.
    pub micros: i64,
    /// In which boot it was written.
    pub boot: String,
    /// From when to when, in microseconds of that boot, entries were read.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// Entries up to this number that were removed unread are counted.
    #[serde(skip)]
    pub(super) counted: u64,
}

impl Spot {
    /// Notes an entry that was read.
    fn note(&mut self, received: Timestamp, boot: &str, monotonic: u64) {
        self.micros = received.micros();
        if self.boot != boot {
            boot.clone_into(&mut self.boot);
            self.from = monotonic;
        }
        self.to = monotonic;
    }

    /// Counts the entries of a file, of those before a number, that are gone and were not read: each once.
    pub(super) fn count_removed(&mut self, header: &Header, before: u64) -> u64 {
        let count = header.between(self.number.max(self.counted), before);
        self.counted = self.counted.max(header.last.min(before.saturating_sub(1)));
        count
    }

    /// Whether an entry of another chain, which holds copies of this one's entries, is a copy of one that was read.
    pub(super) fn covers(&self, boot: &str, monotonic: u64) -> bool {
        self.boot == boot && (self.from..=self.to).contains(&monotonic)
    }
}

/// Which part of a journal is lost to the reader.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The library has put these files aside without a word, as it does with what it finds damaged.
    Damaged(Vec<FileId>),
    /// Reading failed.
    Failed(io::Error),
}

/// What is passed over in a damaged file.
#[derive(Debug)]
pub(super) struct Over {
    /// The file's path.
    pub(super) path: PathBuf,
    /// See [`Part::identity`].
    pub(super) identity: (FileId, Numbering, u64),
    /// Entries, at the most.
    pub(super) entries: u64,
    /// More may come.
    pub(super) grows: bool,
}

/// One chain, open.
pub(super) struct Stream {
    /// Where its files lie and who numbers them.
    pub(super) key: String,
    pub(super) spot: Spot,
    pub(super) parts: Vec<Part>,
    /// Jails that are not new have read up to this number.
    pub(super) known_until: Option<u64>,
    /// Chains that may hold the same entries.
    pub(super) twins: Vec<String>,
    /// Reading has failed; it must be opened anew.
    is_hurt: bool,
    /// An entry was read since it was opened.
    has_read: bool,
    /// Entries that were removed before they were read.
    removed: u64,
    /// Files that are shorter than they must be.
    cut: Vec<FileId>,
    ids: BTreeSet<FileId>,
    journal: Journal,
    /// When the entry was received that the library stands on and that was not read yet, and its number.
    unread: Option<(Timestamp, u64)>,
    /// There are no more entries, or there were none a moment ago.
    exhausted: bool,
    boot: Option<(Id128, String)>,
    numbering: Numbering,
}

/// Where to begin in a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// With the entry behind this number, where it is known,
    pub(super) after: Option<u64>,
    /// but not with one that was received before this time.
    pub(super) since: Option<Timestamp>,
}

impl Stream {
    /// Opens a chain's files and goes to where reading begins. Files that the library refuses are left out.
    ///
    /// # Errors
    /// None of the files can be read.
    pub(super) fn open(
        key: String,
        parts: Vec<Part>,
        matches: &Matches,
        start: Start,
        spot: Spot,
    ) -> Result<(Stream, Vec<Refused>), Vec<Refused>> {
        let (journal, parts, refused) = open_parts(parts)?;
        let numbering = parts[0].header.numbering;
        let mut stream = Stream {
            key,
            spot,
            ids: parts.iter().map(|part| part.id).collect(),
            parts,
            known_until: None,
            twins: Vec::new(),
            is_hurt: false,
            has_read: false,
            removed: 0,
            cut: Vec::new(),
            journal,
            unread: None,
            exhausted: false,
            boot: None,
            numbering,
        };
        match stream.go_to(matches, start) {
            Ok(()) => Ok((stream, refused)),
            Err(error) => {
                let all = stream.parts.into_iter();
                let why = || io::Error::new(error.kind(), error.to_string());
                Err(all.map(|part| Refused { path: part.path, why: why() }).collect())
            }
        }
    }

    fn go_to(&mut self, matches: &Matches, start: Start) -> io::Result<()> {
        self.journal.set_data_threshold(MAX_MESSAGE)?;
        let mut number = start.after.map_or(0, |after| after.saturating_add(1));
        if let Some(since) = start.since {
            // By number from here on: where the clock went back, times are in no order that one could search.
            self.journal.seek_realtime_usec(u64::try_from(since.micros()).unwrap_or(0))?;
            let at = match self.journal.next()? {
                0 => self.last_number().saturating_add(1),
                _ => self.number()?,
            };
            number = number.max(at);
        }
        self.spot.number = self.spot.number.max(number.saturating_sub(1));
        matches.apply(&mut self.journal)?;
        Ok(self.journal.seek_cursor(format!("s={};i={number:x}", self.numbering))?)
    }

    /// The files it reads.
    pub(super) fn ids(&self) -> BTreeSet<FileId> {
        self.ids.clone()
    }

    /// The highest number in its files when they were last looked at.
    pub(super) fn last_number(&self) -> u64 {
        self.parts.iter().map(|part| part.header.last).max().unwrap_or(0)
    }

    /// Asks again whether there are entries.
    pub(super) fn begin_pass(&mut self) {
        self.exhausted = false;
        self.look_after_files();
    }

    /// Takes hands off files that were cut off.
    pub(super) fn look_after_files(&mut self) {
        let cut = self.parts.iter().filter(|part| part.is_cut());
        self.cut = cut.map(|part| part.id).collect();
        if !self.cut.is_empty() {
            self.unread = None;
        }
    }

    /// When the next entry was received; `None`: there is none.
    ///
    /// # Errors
    /// The library fails, or no longer reads all files.
    pub(super) fn peek(&mut self) -> Result<Option<Timestamp>, Trouble> {
        if !self.cut.is_empty() && !self.is_hurt {
            return Err(Trouble::Damaged(std::mem::take(&mut self.cut)));
        }
        if self.unread.is_none() && !self.exhausted && !self.is_hurt {
            let next = self.journal.next().map_err(io::Error::from);
            match next.map_err(Trouble::Failed)? {
                0 => {
                    self.exhausted = true;
                    let missing = self.missing();
                    if !missing.is_empty() {
                        return Err(Trouble::Damaged(missing));
                    }
                }
                _ => {
                    let unread = self.received().and_then(|at| Ok((at, self.number()?)));
                    let unread = unread.map_err(Trouble::Failed)?;
                    // It goes on with the next file where it has put one aside.
                    if unread.1 > self.spot.number.saturating_add(1) {
                        self.count_wiped(unread.1);
                        let missing = self.missing();
                        if !missing.is_empty() {
                            return Err(Trouble::Damaged(missing));
                        }
                    }
                    self.unread = Some(unread);
                }
            }
        }
        Ok(self.unread.map(|(received, _)| received))
    }

    /// The entry that [`Stream::peek`] has found.
    pub(super) fn entry(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The boot that wrote the entry, and the microseconds since its beginning.
    pub(super) fn monotonic(&mut self) -> Option<(&str, u64)> {
        let (micros, boot) = self.journal.monotonic_timestamp().ok()?;
        if self.boot.as_ref().is_none_or(|(known, _)| *known != boot) {
            self.boot = Some((boot, boot.to_string()));
        }
        self.boot.as_ref().map(|(_, boot)| (boot.as_str(), micros))
    }

    /// Whether jails that are not new have read the entry.
    pub(super) fn is_known(&self) -> bool {
        let number = self.unread.map_or(0, |(_, number)| number);
        self.known_until.is_some_and(|until| number <= until)
    }

    /// The entry was read. A copy of what another chain holds counts as read there.
    pub(super) fn advance(&mut self, is_copy: bool) {
        let Some((received, number)) = self.unread.take() else { return };
        self.has_read = true;
        self.spot.number = self.spot.number.max(number);
        if !is_copy && let Some(monotonic) = self.monotonic().map(|(_, monotonic)| monotonic) {
            let boot = self.boot.as_ref().map_or("", |(_, boot)| boot);
            self.spot.note(received, boot, monotonic);
        }
    }

    /// Everything was read in files that had their last entry when they were looked at. In one that grows the number
    /// of an entry may stand before the entry does.
    pub(super) fn finish_pass(&mut self) {
        if self.exhausted && self.unread.is_none() && !self.is_hurt {
            let whole = self.parts.iter().filter(|part| part.header.archived);
            let last = whole.map(|part| part.header.last).max().unwrap_or(0);
            self.spot.number = self.spot.number.max(last);
        }
    }

    /// Searches for what comes next afresh. An entry is counted before it can be found by its fields; the library,
    /// which looks again only when the count has changed, misses one that it asked for in between.
    pub(super) fn look_again(&mut self) {
        if self.unread.is_none() && !self.is_hurt {
            let next = self.spot.number.saturating_add(1);
            // Refused only if what we write is no cursor.
            let _ = self.journal.seek_cursor(format!("s={};i={next:x}", self.numbering));
        }
    }

    /// Counts the entries before this number that were in files which journald has removed: it wipes them too, so
    /// that nobody who has them open keeps their space.
    fn count_wiped(&mut self, before: u64) {
        for part in self.parts.iter().filter(|part| part.is_wiped()) {
            self.removed += self.spot.count_removed(&part.header, before);
        }
    }

    /// How many entries were removed before they were read, at the most, since this was asked last.
    pub(super) fn take_removed(&mut self) -> u64 {
        std::mem::take(&mut self.removed)
    }

    /// Whether it must be opened anew.
    pub(super) fn is_hurt(&self) -> bool {
        self.is_hurt
    }

    /// Notes that reading has failed; answers whether an entry was read before.
    pub(super) fn hurt(&mut self) -> bool {
        self.is_hurt = true;
        self.has_read
    }

    /// Gives up what is unread in a file at which reading has ended again; `None`: it is worth another try.
    pub(super) fn pass_over(&mut self, id: FileId, tries: u32) -> Option<Over> {
        let part = self.parts.iter().find(|part| part.id == id).filter(|_| tries > 1)?;
        let header = Header::read(&part.file).unwrap_or(part.header);
        let entries = header.between(self.spot.number, u64::MAX);
        let (path, identity) = (part.path.clone(), part.identity());
        let over = Over { path, identity, entries, grows: part.may_grow() };
        if over.grows {
            self.spot.number = self.spot.number.max(header.last);
        }
        Some(over)
    }

    /// Whether a file was removed and wiped; then its entries that are unread are counted.
    pub(super) fn is_wiped(&mut self, id: FileId) -> bool {
        let part = self.parts.iter().find(|part| part.id == id && part.is_wiped());
        let Some(part) = part else { return false };
        self.removed += self.spot.count_removed(&part.header, u64::MAX);
        true
    }

    fn received(&self) -> io::Result<Timestamp> {
        let micros = self.journal.timestamp_usec()?;
        Ok(Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX)))
    }

    /// The number of the entry that the library stands on. Only its cursor tells, in hexadecimal digits behind `i=`.
    fn number(&self) -> io::Result<u64> {
        let cursor = self.journal.cursor()?;
        let digits = cursor.split(';').find_map(|part| part.strip_prefix("i="));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| io::Error::other(format!("the cursor `{cursor}` has no number")))
    }

    /// The files that the library has put aside, told by the space that its files take. The space is asked for before
    /// and after, because a living file grows and is cut when it is archived.
    fn missing(&self) -> Vec<FileId> {
        let space = |part: &Part| part.file.metadata().map_or(0, |meta| meta.blocks() * 512);
        let all = || self.parts.iter().map(space).sum::<u64>();
        let before = all();
        let Ok(used) = self.journal.usage() else { return Vec::new() };
        if used >= before || used >= all() {
            return Vec::new();
        }
        let lacks = before - used;
        let one = self.parts.iter().find(|part| space(part) == lacks);
        one.map_or_else(|| self.parts.iter().map(|part| part.id).collect(), |part| vec![part.id])
    }
}

type Opened = (Journal, Vec<Part>, Vec<Refused>);

/// Opens files by the descriptors we hold, so that none is another one by now.
pub(super) fn open_parts(parts: Vec<Part>) -> Result<Opened, Vec<Refused>> {
    let path = |part: &Part| format!("/proc/self/fd/{}", part.file.as_raw_fd());
    let open = |parts: &[Part]| OpenFilesOptions::default().open_files(parts.iter().map(path));
    if let Ok(journal) = open(&parts) {
        return Ok((journal, parts, Vec::new()));
    }
    // It refuses all for the sake of one.
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for part in parts {
        match open(std::slice::from_ref(&part)) {
            Ok(_) => good.push(part),
            Err(error) => refused.push(Refused { path: part.path, why: error.into() }),
        }
    }
    match open(&good) {
        Ok(journal) if !good.is_empty() => Ok((journal, good, refused)),
        Ok(_) => Err(refused),
        Err(error) => {
            let error = io::Error::from(error);
            let why = || io::Error::new(error.kind(), error.to_string());
            refused.extend(good.into_iter().map(|part| Refused { path: part.path, why: why() }));
            Err(refused)
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("key", &self.key).field("spot", &self.spot).finish()
    }
}
