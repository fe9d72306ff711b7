//! Log files: followed through rotation, truncation and renaming, and read once for all jails.
//!
//! One thread reads a group of files. It sleeps in poll(2) until inotify says that a file grew or a name changed.
mod decode;
mod follow;
mod frame;
mod look;
mod packed;
mod past;
mod pattern;
mod position;
mod restore;
mod rotated;
mod scan;
mod standing;
mod start;
mod tail;
mod watch;

use std::{
    borrow::Cow,
    io,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub(crate) use decode::Codec;
pub use past::PastFile;
pub(crate) use pattern::Pattern;
pub use position::{FilePosition, FilePositions, Head, Mark, Spot};
pub(crate) use tail::FileId;
pub(crate) use watch::Watch;

use self::{
    follow::{Follow, Followed, Reader, begins_like},
    frame::Piece,
    position::ANCHOR,
    restore::{Seen, There},
    scan::Scan,
    standing::Standing,
    tail::{BLOCK, Read},
};
use super::{
    Board, Kit, POSITION_EVERY, POSITION_FIRST, Positions, Report,
    board::Limit,
    jail::Jail,
    outbox::{Outbox, Stopped},
};
use crate::clock::{Clock, monotonic};

/// Everything is looked at so often, in case something changed of which inotify does not tell: a mount, a renamed
/// parent directory.
const RECHECK: Duration = Duration::from_secs(60);

/// A file that is gone is told of after so long: in most rotations it is back by then.
const GONE: Duration = Duration::from_secs(1);

/// What cannot be watched is looked at so often.
const TICK: Duration = Duration::from_millis(500);

/// How a log file is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileState {
    /// It is read as it grows.
    Following,
    /// It is not there yet.
    Waiting,
    /// It is there and cannot be read, for this reason; it is tried again when that may have changed.
    Unreadable(String),
    /// It was there.
    Gone,
}

/// How a log began anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The old file was renamed.
    Renamed,
    /// The old file was deleted or overwritten by a rename.
    Replaced,
    /// The same file was truncated, or written anew.
    Truncated,
    /// A symlink leads elsewhere now.
    Relinked,
}

/// What one jail reads.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) pattern: Pattern,
    /// Start at the end.
    pub(crate) tail: bool,
    /// The jail, by its number on this thread.
    pub(crate) jail: usize,
}

/// What a test does to the file of this name before it is read.
#[cfg(test)]
pub(crate) type Midway = Box<dyn FnMut(&PathBuf) + Send>;

/// The reader of one group of files.
pub(crate) struct Files {
    jails: Vec<Jail>,
    codecs: Vec<Codec>,
    /// The words that the jails wait for.
    scan: Option<Scan>,
    wanted: Vec<Wanted>,
    follow: Follow,
    watch: Watch,
    stored: FilePositions,
    /// The same as it was at the start, for the first look.
    past: FilePositions,
    outbox: Outbox,
    board: Board,
    clock: Clock,
    block: Vec<u8>,
    /// What the first look finds may have been there before us.
    first: bool,
    /// There are more files than are followed, and that was told.
    crowded: bool,
    /// When it was told last how far everything was read, how long until the next time, and whether more was read since.
    told: Option<Instant>,
    telling: Duration,
    moved: bool,
    /// What lies beside the logs.
    seen: Seen,
    /// What lay beside the logs before the present look.
    there: There,
    /// Happens between the look at what lies beside a file and its reading.
    #[cfg(test)]
    pub(crate) midway: Option<Midway>,
}

impl Files {
    /// `codecs` has one for each jail; `first` says that the files may have been there before us.
    pub(crate) fn new(
        jails: Vec<Jail>,
        codecs: Vec<Codec>,
        wanted: Vec<Wanted>,
        stored: FilePositions,
        first: bool,
        kit: Kit,
    ) -> Files {
        let Kit { outbox, board, clock, watch } = kit;
        Files {
            scan: Scan::new(&jails),
            jails,
            codecs,
            wanted,
            follow: Follow::default(),
            watch: watch(),
            past: stored.clone(),
            stored,
            outbox,
            board,
            clock,
            block: vec![0; BLOCK + ANCHOR],
            first,
            crowded: false,
            told: None,
            telling: POSITION_FIRST,
            moved: false,
            seen: Seen::default(),
            there: There::new(),
            #[cfg(test)]
            midway: None,
        }
    }

    /// Reads until it is told to stop; answers how far it came.
    pub(crate) fn run(mut self) -> FilePositions {
        // Whether by order or because the daemon is gone: the positions hold.
        let (Ok(()) | Err(Stopped)) = self.work();
        self.positions().unwrap_or_else(|error| {
            // Nobody is left to be told; the next start searches by time.
            tracing::warn!("positions in log files are lost: {error}");
            self.stored
        })
    }

    fn work(&mut self) -> Result<(), Stopped> {
        self.first_look()?;
        let mut last_look = monotonic();
        while !self.outbox.stop().is_ordered() {
            let period = if self.watch.needs_ticks() { TICK } else { RECHECK };
            if !self.has_more() {
                let mut left = period.saturating_sub(last_look.elapsed());
                if let Some(due) = self.follow.next_gone() {
                    left = left.min(due.saturating_duration_since(monotonic()));
                }
                if self.moved {
                    left = left.min(self.until_told());
                }
                let fds: Vec<_> = self.watch.fd().into_iter().collect();
                self.outbox.stop().sleep(&fds, Some(left));
            }
            if self.step(last_look.elapsed() >= period)? {
                last_look = monotonic();
            }
        }
        Ok(())
    }

    /// The first look.
    pub(super) fn first_look(&mut self) -> Result<(), Stopped> {
        self.look(self.first)
    }

    /// There is more to read at once.
    pub(super) fn has_more(&self) -> bool {
        !self.follow.ready.is_empty()
    }

    /// Does what is to be done now, and reads a block of each file that may have grown. `late` says that it is time to
    /// look at everything that nothing tells of. Never waits; answers whether names were looked at.
    pub(super) fn step(&mut self, late: bool) -> Result<bool, Stopped> {
        let woken = self.watch.take();
        for id in woken.files {
            self.follow.wake(id);
        }
        if woken.anything || (late && !self.watch.needs_ticks()) {
            self.follow.wake_all();
        } else if late {
            for id in self.watch.unwatched().collect::<Vec<_>>() {
                self.follow.wake(id);
            }
        }
        let look = woken.names || woken.anything || late;
        if look {
            self.look(false)?;
        }
        self.tell_gone()?;
        self.moved |= !self.follow.ready.is_empty();
        self.read_ready()?;
        self.tell_position()?;
        Ok(look)
    }

    /// When it may be told again how far was read.
    fn until_told(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |told| self.telling.saturating_sub(told.elapsed()))
    }

    /// Tells now and then how far everything was read.
    fn tell_position(&mut self) -> Result<(), Stopped> {
        if !self.moved || !self.until_told().is_zero() {
            return Ok(());
        }
        // While a jail catches up with others, or a file is being copied, one position does not say it all.
        let mut files = self.follow.files.values();
        let plain = files.all(|file| {
            let start = file.tail.line_start();
            file.copy_of.is_none() && file.readers.iter().all(|reader| reader.from <= start)
        });
        self.told = Some(monotonic());
        if !plain {
            return Ok(());
        }
        let Ok(files) = self.positions() else { return Ok(()) };
        self.moved = false;
        self.telling = (self.telling * 2).min(POSITION_EVERY);
        let jails = self.jails.iter().map(|jail| jail.name.clone()).collect();
        let positions = Positions { files, ..Positions::default() };
        self.outbox.send(Report::Position { jails, positions })
    }

    /// Tells of the files that have been gone for a while.
    fn tell_gone(&mut self) -> Result<(), Stopped> {
        if self.follow.next_gone().is_none_or(|due| due > monotonic()) {
            return Ok(());
        }
        for path in self.follow.take_gone(monotonic()) {
            self.outbox.send(Report::File { path, state: FileState::Gone })?;
        }
        Ok(())
    }

    /// Reads one block of each file that may have more, so that none starves another.
    fn read_ready(&mut self) -> Result<(), Stopped> {
        let now = (self.clock)();
        for id in &self.follow.ready {
            if let Some(followed) = self.follow.files.get(id) {
                followed.gauge.woken(now);
            }
        }
        let mut again = Vec::new();
        for id in std::mem::take(&mut self.follow.ready) {
            if self.outbox.stop().is_ordered() {
                return Err(Stopped);
            }
            if self.follow.is_idle_copy(id) || !self.is_own_log(id) {
                continue;
            }
            let own = self.before_first_bytes(id);
            #[cfg(test)]
            if let (Some(midway), Some(file)) = (&mut self.midway, self.follow.files.get(&id)) {
                midway(&file.name);
            }
            let more = match own {
                Ok(own) => !own || !self.follow.may_read(id) || self.read(id)?,
                Err(error) => self.failed(id, &error).map(|()| false)?,
            };
            if more {
                again.push(id);
            }
        }
        // Truncation may have made more files ready.
        for id in again {
            if !self.follow.ready.contains(&id) {
                self.follow.ready.push(id);
            }
        }
        Ok(())
    }

    /// Reads one block; answers whether there may be more.
    fn read(&mut self, id: FileId) -> Result<bool, Stopped> {
        let Files { follow, jails, codecs, scan, outbox, block, clock, .. } = self;
        let Some(followed) = follow.files.get_mut(&id) else { return Ok(false) };
        let Followed { tail, readers, .. } = followed;
        let now = clock();
        let before = tail.line_start();
        let utf8 = readers.iter().any(|reader| codecs[reader.jail].is_utf8());
        let scan = scan.as_ref().filter(|scan| {
            let mut readers = readers.iter();
            readers.all(|it| it.from <= before && codecs[it.jail].is_utf8() && scan.serves(it.jail))
        });
        let flow = tail.read(block, utf8, scan, &mut |piece| {
            let line = match piece {
                Piece::Line(line) => line,
                Piece::Hit { line, block, start, next, wanted } => {
                    for reader in readers.iter_mut().filter(|reader| wanted[reader.jail]) {
                        let passed = &block[std::mem::replace(&mut reader.passed, next)..start];
                        let (text, jail) = (line.text.unwrap_or_default(), &mut jails[reader.jail]);
                        let text = without_mark(text, line.start);
                        let told = jail.line_after(passed, text, now, reader.caught_up, outbox);
                        if let Err(stopped) = told {
                            return ControlFlow::Break(stopped);
                        }
                    }
                    return ControlFlow::Continue(());
                }
                Piece::End(block) => {
                    for reader in readers.iter_mut() {
                        let passed = &block[std::mem::take(&mut reader.passed)..];
                        jails[reader.jail].passed(passed, now, reader.caught_up);
                    }
                    return ControlFlow::Continue(());
                }
            };
            let mut decoded: Option<(Codec, Cow<'_, str>)> = None;
            for reader in readers.iter().filter(|reader| line.start >= reader.from) {
                let codec = codecs[reader.jail];
                let text = match (line.text, &decoded) {
                    (Some(text), _) if codec.is_utf8() => text,
                    (_, Some((known, text))) if *known == codec => text,
                    _ => &decoded.insert((codec, codec.text(line.bytes))).1,
                };
                let text = without_mark(text, line.start);
                let jail = &mut jails[reader.jail];
                if let Err(stopped) = jail.line(text, None, now, reader.caught_up, outbox) {
                    return ControlFlow::Break(stopped);
                }
            }
            ControlFlow::Continue(())
        });
        let came = tail.line_start() != before;
        if came {
            followed.grew = monotonic();
        }
        let place = (followed.tail.offset(), followed.tail.size());
        followed.gauge.read(place, came, now);
        let cut = followed.tail.take_cut();
        if cut > 0 {
            self.board.count(Limit::Line, cut);
            let what = format!("cut {cut} lines longer than {} bytes", frame::MAX_LINE);
            outbox.send(Report::Fault { source: followed.name.display().to_string(), what })?;
        }
        match flow {
            Ok(ControlFlow::Break(stopped)) => Err(stopped),
            Ok(ControlFlow::Continue(Read::Block)) => Ok(true),
            Ok(ControlFlow::Continue(Read::End)) => self.reached_end(id).map(|()| false),
            Ok(ControlFlow::Continue(Read::Truncated)) => {
                let name = followed.name.clone();
                match self.truncated(id) {
                    Ok(()) => {
                        outbox_rotated(&self.outbox, name, Rotation::Truncated)?;
                        Ok(true)
                    }
                    Err(error) => self.failed(id, &error).map(|()| false),
                }
            }
            Err(error) => self.failed(id, &error).map(|()| false),
        }
    }

    fn reached_end(&mut self, id: FileId) -> Result<(), Stopped> {
        let Some(followed) = self.follow.files.get_mut(&id) else { return Ok(()) };
        followed.at_end = true;
        followed.gauge.at_end();
        if followed.readers.iter().all(|reader| reader.caught_up) {
            return Ok(());
        }
        for reader in &mut followed.readers {
            reader.caught_up = true;
        }
        self.outbox.send(Report::CaughtUp { source: followed.name.display().to_string() })
    }

    /// Whether a file is to be read after all, having looked like a copy: what it was a copy of is another by now.
    fn is_own_log(&mut self, id: FileId) -> bool {
        let Some(followed) = self.follow.files.get_mut(&id) else { return false };
        if followed.copy_of.take().is_none() {
            return true;
        }
        match self.place(id) {
            Ok(Standing::New) => self.judge_beginning(id, None).is_ok(),
            Ok(Standing::Copy(Some(_))) => {
                self.follow.wait(id);
                false
            }
            standing => standing.is_ok(),
        }
    }

    /// What the copies of a file hold was read in it: of them only what is added will be read. Those of what it holds
    /// now stay what they are.
    fn settle_copies(&mut self, original: FileId) {
        for id in self.follow.idle_copies(original) {
            let now = self.follow.files.get(&original).map(|original| &original.tail.file);
            let Some(copy) = self.follow.files.get(&id) else { continue };
            if now.is_some_and(|now| begins_like(&copy.tail.file, now).unwrap_or(false)) {
                continue;
            }
            let Some(copy) = self.follow.files.get_mut(&id) else { continue };
            copy.copy_of = None;
            let codec = copy.readers.first().map_or(Codec::AUTO, |reader| self.codecs[reader.jail]);
            let end = copy.tail.file.metadata().map(|meta| meta.len());
            let end = end.and_then(|end| start::last_line_start(&copy.tail.file, end, codec));
            // A copy that cannot be read is found out when it is read.
            let _ = end.and_then(|end| copy.tail.move_to(end));
        }
    }

    /// A file could not be read: its name is tried again at the next look.
    fn failed(&mut self, id: FileId, error: &io::Error) -> Result<(), Stopped> {
        self.watch.forget(id);
        let Some(followed) = self.follow.files.remove(&id) else { return Ok(()) };
        let names: Vec<PathBuf> = self
            .follow
            .names
            .iter_mut()
            .filter(|(_, name)| name.file == Some(id))
            .map(|(path, name)| {
                name.file = None;
                path.clone()
            })
            .collect();
        // Should it come back as it was, it is read from here.
        let name_of = |reader: &Reader| self.jails[reader.jail].name.to_string();
        let jails = followed.readers.iter().map(name_of).collect();
        let spot = followed.tail.spot();
        let position = FilePosition { spot, jails, earlier: Vec::new(), finished: Vec::new() };
        self.stored.insert(followed.name.to_string_lossy().into_owned(), position);
        for path in names {
            self.set_state(path, FileState::Unreadable(error.to_string()))?;
        }
        Ok(())
    }

    /// Notes and reports a state, if it is news.
    fn set_state(&mut self, path: PathBuf, state: FileState) -> Result<(), Stopped> {
        let Some(name) = self.follow.names.get_mut(&path) else { return Ok(()) };
        if name.state == state {
            return Ok(());
        }
        let before = std::mem::replace(&mut name.state, state.clone());
        // Gone and back before anybody was told is no news at all.
        let untold = name.gone.take().is_some();
        if state == FileState::Gone {
            name.gone = Some(monotonic() + GONE);
        }
        for jail in &name.jails {
            self.board.file(&self.jails[*jail].name, &path, &state);
        }
        if state == FileState::Gone
            || (untold && before == FileState::Gone && state == FileState::Following)
        {
            return Ok(());
        }
        self.outbox.send(Report::File { path, state })
    }
}

/// A log's first line without the mark that says that it is UTF-8.
fn without_mark(text: &str, start: u64) -> &str {
    if start > 0 { text } else { text.strip_prefix('\u{feff}').unwrap_or(text) }
}

fn outbox_rotated(outbox: &Outbox, path: PathBuf, how: Rotation) -> Result<(), Stopped> {
    outbox.send(Report::Rotated { path, how })
}
