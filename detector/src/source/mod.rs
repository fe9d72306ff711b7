//! Log lines from files and the journal: read where they are written, matched where they lie.
//!
//! Each [`Report`] that leaves this room says that a filter found something, or how a source is doing. Raw lines never
//! leave. A few blocking threads do the reading; each owns the matchers of its jails.
mod board;
mod choose;
mod files;
mod gauge;
mod group;
mod jail;
mod journal;
mod outbox;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Sender;

pub use board::{JournalCounts, JournalProgress, JournalStatus, Limit, SourceStatus};
pub use files::{FilePosition, FilePositions, FileState, Head, Mark, PastFile, Rotation, Spot};
pub use gauge::FileProgress;
pub use jail::LineMatcher;
pub use journal::{JournalPosition, JournalSpot, JournalState, PastEntry, PastJournal};

use self::{
    board::Board,
    choose::{Candidate, Starter, join},
    files::Watch,
    jail::Jail,
    outbox::{Outbox, Stop},
};
use crate::{
    clock::Clock,
    config::{JailName, JailSettings},
    engine::{Finding, Timestamp},
};

/// A reader that reads tells so often how far it is: so much is read again after a crash. It begins with the shorter
/// time, or one that crashes again and again would never catch up, and comes to the longer one by doubling.
const POSITION_FIRST: Duration = Duration::from_millis(20);
const POSITION_EVERY: Duration = Duration::from_secs(1);

/// What a reader tells the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A filter found a failure.
    Finding(Finding),
    /// A filter found a login that succeeded.
    LoggedIn {
        /// From there.
        address: IpAddr,
        /// When.
        at: Timestamp,
    },
    /// A log file came, went, or could not be read. Told once for each change.
    File {
        /// The name it was asked for by; a glob that matches nothing stands for itself.
        path: PathBuf,
        /// How it is doing.
        state: FileState,
    },
    /// A log began anew.
    Rotated {
        /// Its name.
        path: PathBuf,
        /// What happened.
        how: Rotation,
    },
    /// A journal can be read, or cannot any more.
    Journal {
        /// Which, in words.
        journal: String,
        /// How it is doing.
        state: JournalState,
    },
    /// So far was read: all that was found up to there is in the queue before this, nothing that comes after.
    Position {
        /// The jails that a reader reads for; no other reader does.
        jails: Vec<JailName>,
        /// How far it has read all of its sources.
        positions: Positions,
    },
    /// The end of a source was reached for the first time: from now on its lines are new.
    CaughtUp {
        /// A path, or a journal in words.
        source: String,
    },
    /// Something is wrong that costs lines or time.
    Fault {
        /// A path, a journal in words, or a part of this room.
        source: String,
        /// What is wrong and what happens now.
        what: String,
    },
}

/// How far every source was read. The default knows of none.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Positions {
    /// Log files by path.
    pub files: FilePositions,
    /// Journals by their description.
    pub journals: BTreeMap<String, JournalPosition>,
}

impl Positions {
    fn merge(&mut self, other: Positions) {
        self.files.extend(other.files);
        self.journals.extend(other.journals);
    }
}

/// What every reader thread is given.
#[derive(Clone, Debug)]
struct Kit {
    outbox: Outbox,
    board: Board,
    clock: Clock,
    watch: fn() -> Watch,
}

/// All reader threads. Dropping it stops them too.
#[derive(Debug)]
pub struct Readers {
    threads: Vec<JoinHandle<Positions>>,
    stop: Arc<Stop>,
    board: Board,
    waits: Arc<AtomicU64>,
    from: Positions,
}

impl Readers {
    /// Starts the threads that the jails need. A source that is missing is waited for, and reported.
    ///
    /// `from` says how far sources were read before; of those that no jail reads now it is kept.
    pub fn start<M: LineMatcher + 'static>(
        jails: Vec<(JailSettings, M)>,
        from: Positions,
        to: Sender<Report>,
        clock: Clock,
    ) -> Readers {
        Readers::start_with(jails, from, to, clock, Watch::new)
    }

    /// `watch` makes what wakes a reader of files.
    fn start_with<M: LineMatcher + 'static>(
        jails: Vec<(JailSettings, M)>,
        from: Positions,
        to: Sender<Report>,
        clock: Clock,
        watch: fn() -> Watch,
    ) -> Readers {
        let (stop, waits) = (Arc::new(Stop::new()), Arc::new(AtomicU64::new(0)));
        let board = Board::new(&jails);
        let outbox = Outbox::new(to, Arc::clone(&stop), Arc::clone(&waits));
        let mut starter = Starter::new(Kit { outbox, board: board.clone(), clock, watch });
        let candidates = jails.into_iter().filter_map(|(settings, matcher)| {
            let jail = Jail::new(settings.name, settings.find_time, Box::new(matcher));
            Candidate::new(jail, settings.source)
        });
        starter.start(candidates.collect(), &from, true);
        Readers { threads: starter.into_threads(), stop, board, waits, from }
    }

    /// Stops all threads and says how far each source was read, so that the next `start` goes on there.
    ///
    /// Does not need the queue to be emptied: a line whose finding was not handed over counts as not read.
    pub fn stop(mut self) -> Positions {
        self.stop.order();
        let mut positions = std::mem::take(&mut self.from);
        positions.merge(join(std::mem::take(&mut self.threads)));
        positions
    }

    /// Where each jail's lines come from and how that is going, in the order of the jails.
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.board.all()
    }

    /// How far each log file is read, by path: what is behind, since when, and when its last line came.
    pub fn progress(&self) -> Vec<FileProgress> {
        self.board.file_progress()
    }

    /// How often each limit on what is read was reached, since the start.
    pub fn limits(&self) -> [(Limit, u64); Limit::ALL.len()] {
        self.board.limits()
    }

    /// Whether every jail's sources have been looked for once, so that [`Readers::sources`] says what there is.
    pub fn have_looked(&self) -> bool {
        self.board.is_complete()
    }

    /// How often a reader had to wait because the daemon's queue was full.
    pub fn waits(&self) -> u64 {
        self.waits.load(Relaxed)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.order();
    }
}
