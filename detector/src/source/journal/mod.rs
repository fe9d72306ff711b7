//! The systemd journal: one thread for all jails that read the same one.
//!
//! Its files are sorted into chains ([`stream`]); of all chains the entry that was received first comes first. The
//! library is given the matches of all jails at once; what it yields is shared out by the fields of each entry.
mod header;
mod look;
mod matches;
mod past;
mod place;
mod render;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use self::past::{PastEntry, PastJournal};
pub(crate) use self::place::Place;
pub use self::stream::Spot as JournalSpot;
use self::{
    look::Faults,
    matches::Matches,
    render::{Entry, MAX_MESSAGE},
    stream::{Spot, Stream},
};
use super::{
    Board, JournalCounts, Kit, POSITION_EVERY, POSITION_FIRST, Positions, Report,
    files::{FileId, Watch},
    jail::Jail,
    outbox::{Outbox, Stopped},
};
use crate::{
    clock::{Clock, monotonic},
    config::JournalTerms,
    engine::Timestamp,
};

/// How often a journal that is missing, or files that cannot be read, are tried again, beside being watched for.
const RETRY: Duration = Duration::from_secs(10);

/// How long to wait after an error before a file is opened anew.
const PAUSE: Duration = Duration::from_secs(1);

/// An open journal is looked at so often, in case its files lie where inotify does not reach.
const RECHECK: Duration = Duration::from_secs(30);

/// Where inotify does not serve it is looked at so often.
const TICK: Duration = Duration::from_secs(1);

/// journald tells its readers of new entries up to 250 ms late (`POST_CHANGE_TIMER_INTERVAL_USEC`), though they can be
/// read at once. So while entries come we look for the next one ourselves, so often
const LIVELY_STEP: Duration = Duration::from_millis(5);

/// and for so long after the last.
const LIVELY: Duration = Duration::from_millis(500);

/// Entries between two looks at the order to stop.
const TURN: u64 = 64;

/// Chains of which the position is kept, those that are there now apart.
const MAX_SPOTS: usize = 1024;

/// Why a journal is waited for.
pub(crate) const NO_JOURNAL: &str = "there are no journal files yet";

/// How a journal is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalState {
    /// It is read as it grows.
    Following,
    /// It cannot be read, for this reason; it is waited for.
    Unavailable(String),
}

/// How one reading of everything that is there has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// At the end of every chain.
    Whole,
    /// Some chain cannot be read on.
    Hurt,
    /// Files came or went meanwhile.
    Interrupted,
}

/// How far a journal was read.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JournalPosition {
    /// Each chain of files, by its directory and the id under which its entries are numbered.
    pub chains: BTreeMap<String, JournalSpot>,
    /// The jails that had read so far; another one starts `findtime` ago.
    pub jails: Vec<String>,
}

/// The reader of one journal.
pub(crate) struct Reader {
    place: Place,
    jails: Vec<Jail>,
    /// Whether the stored position does not hold for the jail.
    is_new: Vec<bool>,
    matches: Matches,
    spots: BTreeMap<String, Spot>,
    /// Chains that were opened since the start.
    opened: BTreeSet<String>,
    faults: Faults,
    counts: JournalCounts,
    /// What was said of the counts, and when.
    said: (JournalCounts, Option<Instant>),
    caught_up: bool,
    started: Timestamp,
    entry: Entry,
    last_entry: Option<Instant>,
    /// Entries may have been missed that were written while we looked.
    is_unsure: bool,
    /// When the last entry that each jail wants was received.
    newest: Vec<Option<Timestamp>>,
    /// When it was told last how far was read, how long until the next time, and whether more was read since.
    told: Option<Instant>,
    telling: Duration,
    moved: bool,
    outbox: Outbox,
    board: Board,
    clock: Clock,
    watch: fn() -> Watch,
}

impl Reader {
    pub(crate) fn new(
        place: Place,
        jails: Vec<(Jail, Vec<JournalTerms>)>,
        position: Option<JournalPosition>,
        kit: Kit,
    ) -> (Reader, Vec<String>) {
        let Kit { outbox, board, clock, watch } = kit;
        let mut matches = Matches::default();
        let mut problems = Vec::new();
        let mut own = Vec::new();
        for (jail, groups) in jails {
            problems.extend(
                matches
                    .add_jail(&groups)
                    .iter()
                    .map(|what| format!("jail `{}`: {what}", jail.name)),
            );
            own.push(jail);
        }
        let JournalPosition { chains: spots, jails: known } = position.unwrap_or_default();
        let reader = Reader {
            place,
            is_new: own
                .iter()
                .map(|jail| !known.iter().any(|it| it == jail.name.as_str()))
                .collect(),
            newest: vec![None; own.len()],
            jails: own,
            matches,
            spots,
            opened: BTreeSet::new(),
            faults: Faults::default(),
            counts: JournalCounts::default(),
            said: (JournalCounts::default(), None),
            caught_up: false,
            started: clock(),
            entry: Entry::default(),
            last_entry: None,
            is_unsure: false,
            told: None,
            telling: POSITION_FIRST,
            moved: false,
            outbox,
            board,
            clock,
            watch,
        };
        (reader, problems)
    }

    /// Reads until it is told to stop; answers how far it came.
    pub(crate) fn run(mut self) -> Option<JournalPosition> {
        let mut streams = Vec::new();
        let (Ok(()) | Err(Stopped)) = self.work(&mut streams);
        let present: BTreeSet<&str> = streams.iter().map(|stream| stream.key.as_str()).collect();
        let mut gone: Vec<(i64, String)> = self
            .spots
            .iter()
            .filter(|(key, _)| !present.contains(key.as_str()))
            .map(|(key, spot)| (spot.micros, key.clone()))
            .collect();
        gone.sort();
        for (_, key) in gone.into_iter().rev().skip(MAX_SPOTS) {
            self.spots.remove(&key);
        }
        self.spots.extend(streams.into_iter().map(|mut stream| {
            // A new jail that had not come up to the others is taken to have: better than that they read twice.
            stream.spot.number = stream.spot.number.max(stream.known_until.unwrap_or(0));
            (stream.key, stream.spot)
        }));
        let jails = self.names();
        (!self.spots.is_empty()).then_some(JournalPosition { chains: self.spots, jails })
    }

    fn work(&mut self, streams: &mut Vec<Stream>) -> Result<(), Stopped> {
        if self.matches.are_empty() {
            let why = "no journalmatch that can match".to_owned();
            return self.set_state(&JournalState::Unavailable(why));
        }
        let mut watch = (self.watch)();
        let mut watched = BTreeSet::new();
        while !self.outbox.stop().is_ordered() {
            self.look(streams, &mut watch)?;
            watch_growth(streams, &mut watch, &mut watched);
            self.follow(streams, &mut watch)?;
        }
        Ok(())
    }

    /// Reads and waits for more, until the files must be looked at anew.
    fn follow(&mut self, streams: &mut [Stream], watch: &mut Watch) -> Result<(), Stopped> {
        let looked = monotonic();
        loop {
            let pass = self.read(streams, watch)?;
            if pass == Pass::Interrupted {
                return Ok(());
            }
            if !self.caught_up && !streams.is_empty() {
                self.caught_up = true;
                self.outbox.send(Report::CaughtUp { source: self.place.to_string() })?;
            }
            self.tell_position(streams)?;
            let lively = self.last_entry.is_some_and(|last| last.elapsed() < LIVELY);
            let due = if pass == Pass::Hurt || self.faults.are_suspected() {
                PAUSE
            } else if watch.needs_ticks() {
                TICK
            } else if streams.is_empty() || self.faults.are_there() {
                RETRY
            } else {
                RECHECK
            };
            if !lively && std::mem::take(&mut self.is_unsure) {
                streams.iter_mut().for_each(Stream::look_again);
                continue;
            }
            let left = due.saturating_sub(looked.elapsed());
            let at_most = if lively { left.min(LIVELY_STEP) } else { left };
            let at_most = if self.moved { at_most.min(self.until_told()) } else { at_most };
            let fds: Vec<BorrowedFd<'_>> = watch.fd().into_iter().collect();
            self.outbox.stop().sleep(&fds, Some(at_most));
            if self.outbox.stop().is_ordered() {
                return Err(Stopped);
            }
            let woken = watch.take();
            self.is_unsure |= !woken.files.is_empty();
            if woken.names || woken.anything || looked.elapsed() >= due {
                self.is_unsure = true;
                return Ok(());
            }
        }
    }

    /// Reads every chain to its end, unless files come or go.
    fn read(&mut self, streams: &mut [Stream], watch: &mut Watch) -> Result<Pass, Stopped> {
        streams.iter_mut().for_each(Stream::begin_pass);
        let mut count = 0u64;
        let mut pass = Pass::Whole;
        loop {
            if count > 0 && count.is_multiple_of(TURN) {
                streams.iter_mut().for_each(Stream::look_after_files);
            }
            let mut next: Option<(Timestamp, usize)> = None;
            for (number, stream) in streams.iter_mut().enumerate() {
                match stream.peek() {
                    Ok(Some(at)) if next.is_none_or(|(first, _)| at < first) => {
                        next = Some((at, number));
                    }
                    Ok(_) => {}
                    Err(trouble) => {
                        if self.face(stream, trouble)? {
                            pass = Pass::Interrupted;
                        }
                    }
                }
                self.counts.removed += stream.take_removed();
            }
            if pass == Pass::Interrupted {
                break;
            }
            let Some((received, number)) = next else { break };
            if count.is_multiple_of(TURN) {
                if self.outbox.stop().is_ordered() {
                    return Err(Stopped);
                }
                self.show(Some(received));
                self.tell_position(streams)?;
                // A file that is new must be opened before it can be removed, however much is unread before it.
                let woken = watch.take();
                if woken.names || woken.anything {
                    pass = Pass::Interrupted;
                    break;
                }
            }
            self.take(streams, number, received)?;
            self.moved = true;
            count += 1;
        }
        streams.iter_mut().for_each(Stream::finish_pass);
        if count > 0 {
            self.last_entry = Some(monotonic());
            self.is_unsure = true;
        }
        if pass == Pass::Interrupted {
            return Ok(pass);
        }
        if count > 0 || self.counts != self.said.0 {
            self.show(None);
            self.say_counts()?;
        }
        Ok(if streams.iter().any(Stream::is_hurt) { Pass::Hurt } else { pass })
    }

    /// Matches the entry that a chain stands on. Where it is not handed over it counts as not read.
    fn take(
        &mut self,
        streams: &mut [Stream],
        number: usize,
        received: Timestamp,
    ) -> Result<(), Stopped> {
        if self.is_copy(streams, number) {
            self.counts.copies += 1;
            streams[number].advance(true);
            return Ok(());
        }
        let stream = &mut streams[number];
        let is_known = stream.is_known();
        self.matches.begin();
        self.entry.begin();
        let journal = stream.entry();
        journal.restart_data();
        loop {
            match journal.enumerate_data() {
                Ok(Some(field)) => {
                    self.matches.see(field.data());
                    self.entry.see(field.data());
                }
                Ok(None) => break,
                Err(_) => {
                    self.counts.damaged += 1;
                    break;
                }
            }
        }
        self.counts.cut += u64::from(self.entry.is_cut());
        let time = self.entry.source_time().unwrap_or(received);
        let caught_up = self.caught_up || time >= self.started;
        let now = (self.clock)();
        let line = self.entry.line(|| stream.monotonic().map(|(_, micros)| micros));
        for (number, jail) in self.jails.iter_mut().enumerate() {
            if (!is_known || self.is_new[number]) && self.matches.wants(number) {
                jail.line(line, Some(time), now, caught_up, &self.outbox)?;
                self.newest[number] = Some(received);
            }
        }
        stream.advance(false);
        Ok(())
    }

    /// Whether the entry was read from another chain: journald copies what it kept in memory when it begins to write to
    /// disk, with new numbers.
    fn is_copy(&self, streams: &mut [Stream], number: usize) -> bool {
        let twins = std::mem::take(&mut streams[number].twins);
        let is_copy = !twins.is_empty() && {
            let at = streams[number].monotonic();
            at.map(|(boot, micros)| (boot.to_owned(), micros)).is_some_and(|(boot, micros)| {
                twins.iter().any(|twin| {
                    let open = streams.iter().find(|stream| stream.key == *twin);
                    let spot = open.map(|stream| &stream.spot).or_else(|| self.spots.get(twin));
                    spot.is_some_and(|spot| spot.covers(&boot, micros))
                })
            })
        };
        streams[number].twins = twins;
        is_copy
    }

    fn set_state(&mut self, state: &JournalState) -> Result<(), Stopped> {
        let mut news = false;
        for jail in &self.jails {
            news |= self.board.journal(&jail.name, state);
        }
        if !news {
            return Ok(());
        }
        let (journal, state) = (self.place.to_string(), state.clone());
        self.outbox.send(Report::Journal { journal, state })
    }

    /// When it may be told again how far was read.
    fn until_told(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |told| self.telling.saturating_sub(told.elapsed()))
    }

    /// Tells now and then how far was read.
    fn tell_position(&mut self, streams: &[Stream]) -> Result<(), Stopped> {
        if !self.moved || !self.until_told().is_zero() {
            return Ok(());
        }
        self.told = Some(monotonic());
        // While a jail catches up with others, one position does not say it all.
        let behind = |stream: &Stream| stream.known_until.is_some_and(|it| stream.spot.number < it);
        if streams.iter().any(behind) {
            return Ok(());
        }
        self.moved = false;
        self.telling = (self.telling * 2).min(POSITION_EVERY);
        let mut chains = self.spots.clone();
        chains.extend(streams.iter().map(|stream| (stream.key.clone(), stream.spot.clone())));
        let position = JournalPosition { chains, jails: self.names() };
        let jails = self.jails.iter().map(|jail| jail.name.clone()).collect();
        let journals = [(self.place.to_string(), position)].into();
        let positions = Positions { journals, ..Positions::default() };
        self.outbox.send(Report::Position { jails, positions })
    }

    fn names(&self) -> Vec<String> {
        self.jails.iter().map(|jail| jail.name.to_string()).collect()
    }

    /// Puts up how far each jail is.
    fn show(&self, reading: Option<Timestamp>) {
        for (jail, newest) in self.jails.iter().zip(&self.newest) {
            self.board.progress(&jail.name, |progress| {
                progress.reading = reading;
                progress.last_entry = newest.or(progress.last_entry);
                progress.counts = self.counts;
            });
        }
    }

    /// Says what costs entries, at most so often.
    fn say_counts(&mut self) -> Result<(), Stopped> {
        let (said, at) = &self.said;
        if at.is_some_and(|at| at.elapsed() < RECHECK) {
            return Ok(());
        }
        let (cut, damaged) = (self.counts.cut - said.cut, self.counts.damaged - said.damaged);
        let removed = self.counts.removed - said.removed;
        self.said.0 = self.counts;
        let mut words = Vec::new();
        if cut > 0 {
            words.push(format!("cut {cut} entries: of a message {MAX_MESSAGE} bytes are read"));
        }
        if damaged > 0 {
            words.push(format!("{damaged} entries are damaged: what can be read of them is used"));
        }
        if removed > 0 {
            words.push(format!("up to {removed} entries were removed before they were read"));
        }
        for what in words {
            self.said.1 = Some(monotonic());
            self.fault(what)?;
        }
        Ok(())
    }

    fn fault(&self, what: String) -> Result<(), Stopped> {
        self.outbox.send(Report::Fault { source: self.place.to_string(), what })
    }
}

/// Watches the files that may grow, and no others any more.
fn watch_growth(streams: &[Stream], watch: &mut Watch, watched: &mut BTreeSet<FileId>) {
    let grows = || streams.iter().flat_map(|stream| &stream.parts).filter(|part| part.may_grow());
    let wanted: BTreeSet<FileId> = grows().map(|part| part.id).collect();
    watched.difference(&wanted).for_each(|id| watch.forget(*id));
    for part in grows().filter(|part| !watched.contains(&part.id)) {
        watch.growth(&part.file);
    }
    *watched = wanted;
}
