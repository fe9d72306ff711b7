//! The systemd journal: one thread for all jails that read the same one.
//!
//! The library is given the matches of all jails at once; what it yields is shared out by the fields of each entry.
mod matches;
mod place;
mod render;

use std::{
    collections::BTreeSet,
    io,
    os::fd::BorrowedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use systemd::Journal;

pub(crate) use self::place::Place;
use self::{matches::Matches, render::Entry};
use super::{
    Board, Kit, POSITION_EVERY, POSITION_FIRST, Positions, Report,
    files::Watch,
    jail::Jail,
    outbox::{Outbox, Stopped},
};
use crate::{
    clock::{Clock, monotonic},
    config::JournalTerms,
    engine::Timestamp,
};

/// Bytes of a field that are read, as of a line in a file.
const MAX_FIELD: usize = 1 << 20;

/// How often a journal that is missing is looked for, beside being watched for.
const RETRY: Duration = Duration::from_secs(10);

/// How long to wait after an error before the journal is opened anew.
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

/// How far a journal was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPosition {
    /// The library's name for the last entry that was read.
    pub cursor: String,
    /// When journald received that entry, in microseconds since the Unix epoch.
    pub micros: i64,
    /// The jails that had read so far; another one starts `findtime` ago.
    pub jails: Vec<String>,
}

/// The reader of one journal.
pub(crate) struct Reader {
    place: Place,
    jails: Vec<Jail>,
    matches: Matches,
    position: Option<JournalPosition>,
    /// What the stored position does not hold for, entry by entry: until then the jail has read.
    read_until: Vec<Option<Timestamp>>,
    /// The journal stands on an entry that was not read yet.
    on_unread: bool,
    caught_up: bool,
    started: Timestamp,
    entry: Entry,
    last_entry: Option<Instant>,
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
        let reader = Reader {
            place,
            read_until: vec![None; own.len()],
            jails: own,
            matches,
            position,
            on_unread: false,
            caught_up: false,
            started: clock(),
            entry: Entry::default(),
            last_entry: None,
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
        let (Ok(()) | Err(Stopped)) = self.work();
        self.position
    }

    fn work(&mut self) -> Result<(), Stopped> {
        if self.matches.are_empty() {
            let why = "no journalmatch that can match".to_owned();
            return self.set_state(&JournalState::Unavailable(why));
        }
        while !self.outbox.stop().is_ordered() {
            if !self.place.exists() {
                self.wait_for_files()?;
                continue;
            }
            let parts = self.place.parts();
            let mut journal = match self.open() {
                Ok(journal) => journal,
                Err(error) => {
                    self.set_state(&JournalState::Unavailable(error.to_string()))?;
                    self.outbox.stop().sleep(&[], Some(PAUSE));
                    continue;
                }
            };
            self.set_state(&JournalState::Following)?;
            let before = self.position.clone();
            if let Err(error) = self.follow(&mut journal, &parts)? {
                let what = format!("reading failed ({error}); opening it anew");
                self.outbox.send(Report::Fault { source: self.place.to_string(), what })?;
                if self.position == before {
                    self.skip_damage();
                }
                self.outbox.stop().sleep(&[], Some(PAUSE));
            }
        }
        Ok(())
    }

    /// Nothing could be read from here: goes on with what comes from now on, rather than fail here for ever.
    fn skip_damage(&mut self) {
        let now = (self.clock)();
        self.read_until = vec![Some(now); self.jails.len()];
        self.position = None;
    }

    fn wait_for_files(&mut self) -> Result<(), Stopped> {
        self.set_state(&JournalState::Unavailable(NO_JOURNAL.to_owned()))?;
        let mut watch = (self.watch)();
        while !self.outbox.stop().is_ordered() {
            watch.begin_round();
            self.place.watch(&mut watch);
            watch.end_round();
            // Looked for once more now that nothing can happen unseen.
            if self.place.exists() {
                return Ok(());
            }
            let fds: Vec<BorrowedFd<'_>> = watch.fd().into_iter().collect();
            self.outbox.stop().sleep(&fds, Some(RETRY));
            watch.take();
        }
        Ok(())
    }

    fn set_state(&self, state: &JournalState) -> Result<(), Stopped> {
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

    /// Opens the journal and goes to where reading begins.
    fn open(&mut self) -> io::Result<Journal> {
        let mut journal = self.place.open()?;
        // Asked for first: what happens after this is told through it.
        journal.fd()?;
        journal.set_data_threshold(MAX_FIELD)?;
        self.matches.apply(&mut journal)?;
        self.on_unread = false;
        let now = (self.clock)();
        let since = self.jails.iter().map(|jail| jail.since(now)).min().unwrap_or(now);
        if let Some(position) = &self.position {
            let read = Timestamp::from_micros(position.micros);
            let knows = |jail: &Jail| position.jails.iter().any(|name| name == jail.name.as_str());
            if read >= since && self.jails.iter().all(knows) {
                journal.seek_cursor(position.cursor.as_str())?;
                // Now on the entry that was read last if it is still there, else on the next one.
                self.on_unread =
                    journal.next()? == 1 && !journal.test_cursor(position.cursor.as_str())?;
                return Ok(journal);
            }
            self.read_until = self.jails.iter().map(|jail| knows(jail).then_some(read)).collect();
        }
        journal.seek_realtime_usec(u64::try_from(since.micros()).unwrap_or(0))?;
        Ok(journal)
    }

    /// Reads and waits for more, until the journal fails or must be opened anew because its `parts` have changed.
    fn follow(
        &mut self,
        journal: &mut Journal,
        parts: &BTreeSet<(PathBuf, u64)>,
    ) -> Result<io::Result<()>, Stopped> {
        let mut watch = (self.watch)();
        watch.begin_round();
        self.place.watch(&mut watch);
        watch.end_round();
        self.place.watch_growth(&mut watch);
        if self.place.parts() != *parts {
            return Ok(Ok(()));
        }
        let mut last_look = monotonic();
        loop {
            match self.read(journal)? {
                Ok(()) => {}
                Err(error) => return Ok(Err(error)),
            }
            if !self.caught_up {
                self.caught_up = true;
                self.outbox.send(Report::CaughtUp { source: self.place.to_string() })?;
            }
            self.tell_position()?;
            let lively = self.last_entry.is_some_and(|last| last.elapsed() < LIVELY);
            let fd = match journal.fd() {
                Ok(fd) => fd,
                Err(error) => return Ok(Err(error.into())),
            };
            // SAFETY: the descriptor belongs to `journal`, which is neither closed nor moved during the sleep.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let at_most = match (lively, watch.needs_ticks()) {
                (true, _) => LIVELY_STEP,
                (false, true) => TICK,
                (false, false) => RECHECK,
            };
            let at_most = if self.moved { at_most.min(self.until_told()) } else { at_most };
            let fds: Vec<BorrowedFd<'_>> = watch.fd().into_iter().chain([fd]).collect();
            self.outbox.stop().sleep(&fds, Some(at_most));
            if self.outbox.stop().is_ordered() {
                return Err(Stopped);
            }
            let late = last_look.elapsed() >= RECHECK;
            if (watch.take().names || late || (watch.needs_ticks() && !lively))
                && self.place.parts() != *parts
            {
                // What was written last before that may be in files that will not be opened again.
                return self.read(journal);
            }
            if late {
                last_look = monotonic();
            }
            if let Err(error) = journal.process() {
                return Ok(Err(error.into()));
            }
        }
    }

    /// Reads to the end.
    fn read(&mut self, journal: &mut Journal) -> Result<io::Result<()>, Stopped> {
        let mut count = 0u32;
        loop {
            if !std::mem::take(&mut self.on_unread) {
                match journal.next() {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return Ok(Err(error.into())),
                }
            }
            let handed_over = match self.take(journal) {
                Ok(handed_over) => handed_over,
                Err(error) => return Ok(Err(error)),
            };
            if handed_over.is_err() {
                // This entry counts as not read.
                if journal.previous().is_ok_and(|moved| moved == 1) {
                    self.note_position(journal);
                }
                return Err(Stopped);
            }
            count += 1;
            if count.is_multiple_of(64) && self.outbox.stop().is_ordered() {
                self.note_position(journal);
                return Err(Stopped);
            }
            if count.is_multiple_of(64) && self.until_told().is_zero() {
                self.note_position(journal);
                self.tell_position()?;
            }
        }
        if count > 0 {
            self.last_entry = Some(monotonic());
            self.note_position(journal);
        }
        Ok(Ok(()))
    }

    fn note_position(&mut self, journal: &Journal) {
        let (Ok(cursor), Ok(micros)) = (journal.cursor(), journal.timestamp_usec()) else { return };
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        let jails = self.jails.iter().map(|jail| jail.name.to_string()).collect();
        self.position = Some(JournalPosition { cursor, micros, jails });
        self.moved = true;
    }

    /// When it may be told again how far was read.
    fn until_told(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |told| self.telling.saturating_sub(told.elapsed()))
    }

    /// Tells now and then how far was read.
    fn tell_position(&mut self) -> Result<(), Stopped> {
        let Some(position) = self.position.as_ref().filter(|_| self.moved) else { return Ok(()) };
        let read = Timestamp::from_micros(position.micros);
        // While a jail catches up with others, one position does not say it all.
        let plain = self.read_until.iter().flatten().all(|until| *until < read);
        if !self.until_told().is_zero() {
            return Ok(());
        }
        self.told = Some(monotonic());
        if !plain {
            return Ok(());
        }
        self.moved = false;
        self.telling = (self.telling * 2).min(POSITION_EVERY);
        let jails = self.jails.iter().map(|jail| jail.name.clone()).collect();
        let journals = [(self.place.to_string(), position.clone())].into();
        let positions = Positions { journals, ..Positions::default() };
        self.outbox.send(Report::Position { jails, positions })
    }

    /// Matches the current entry.
    fn take(&mut self, journal: &mut Journal) -> io::Result<Result<(), Stopped>> {
        self.matches.begin();
        self.entry.begin();
        journal.restart_data();
        while let Some(field) = journal.enumerate_data()? {
            self.matches.see(field.data());
            self.entry.see(field.data());
        }
        let received = journal.timestamp_usec()?;
        let received = Timestamp::from_micros(i64::try_from(received).unwrap_or(i64::MAX));
        let time = self.entry.source_time().unwrap_or(received);
        let caught_up = self.caught_up || time >= self.started;
        let now = (self.clock)();
        let monotonic = || journal.monotonic_timestamp().ok().map(|(micros, _)| micros);
        let line = self.entry.line(monotonic);
        for (number, jail) in self.jails.iter_mut().enumerate() {
            let unread = self.read_until[number].is_none_or(|until| received > until);
            if unread
                && self.matches.wants(number)
                && let Err(stopped) = jail.line(line, Some(time), now, caught_up, &self.outbox)
            {
                return Ok(Err(stopped));
            }
        }
        Ok(Ok(()))
    }
}
