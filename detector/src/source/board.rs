//! How each jail's sources are doing, for `status`.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub(crate) use super::gauge::Gauge;
use super::{FileState, JournalState, gauge::FileProgress};
use crate::{
    config::{JailName, JailSettings, SourceSettings},
    engine::Timestamp,
};

/// Where a jail's lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// The jail.
    pub jail: JailName,
    /// Its log files, by name. Empty when it reads the journal.
    pub files: Vec<(PathBuf, FileState)>,
    /// Its journal. `None` when it reads files; with `backend = auto` both stand here until one of them appears.
    pub journal: Option<JournalStatus>,
}

/// The journal that a jail reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalStatus {
    /// `journalmatch`, one entry a group, its terms separated by spaces.
    pub matches: Vec<String>,
    /// How it is doing.
    pub state: JournalState,
    /// How far it is.
    pub progress: JournalProgress,
}

/// How far a journal is read. What concerns the whole journal is the same for all jails that read it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct JournalProgress {
    /// When the last entry was received that this jail wants; `None`: there was none since the start.
    pub last_entry: Option<Timestamp>,
    /// When the entry was received that is being read now; `None`: every entry is read.
    pub reading: Option<Timestamp>,
    /// Files that cannot be read, each with the reason; at most [`JournalProgress::SHOWN`].
    pub unreadable: Vec<(PathBuf, String)>,
    /// What was not as it should be, since the start.
    pub counts: JournalCounts,
}

impl JournalProgress {
    /// Unreadable files that are listed by name.
    pub const SHOWN: usize = 16;

    /// How old the entry is that is being read; nothing when every entry is read.
    pub fn behind(&self, now: Timestamp) -> Duration {
        let behind =
            self.reading.map_or(0, |reading| now.micros().saturating_sub(reading.micros()));
        Duration::from_micros(u64::try_from(behind).unwrap_or(0))
    }
}

/// Things that happened to entries of a journal, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct JournalCounts {
    /// Entries of which a field was longer than what is read of it.
    pub cut: u64,
    /// Entries whose fields could not all be read, because the file is damaged.
    pub damaged: u64,
    /// Entries that may have been passed over, because a file is damaged: at most so many.
    pub passed_over: u64,
    /// Entries that were removed before they were read: at most so many.
    pub removed: u64,
    /// Entries that stood in two files, as after a flush to disk, and were read once.
    pub copies: u64,
}

/// A journal's state before anybody has looked for it.
const NOT_YET: &str = "not opened yet";

/// The one copy of all [`SourceStatus`], written by the reader threads.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    status: Arc<Mutex<Vec<SourceStatus>>>,
    /// Jails that read nothing at all.
    idle: usize,
    /// How far each log file is read.
    gauges: Arc<Mutex<BTreeMap<PathBuf, Arc<Gauge>>>>,
    limits: Arc<[AtomicU64; Limit::ALL.len()]>,
}

/// A limit that costs lines when it is reached, and the losses that nobody can prevent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Lines that were longer than 1 MiB and were cut there.
    Line,
    /// Times that a log was truncated with bytes unread that no copy beside it held.
    Truncated,
    /// Rotated files that were left out because too many came between two looks.
    Missed,
    /// Rotated files whose rest could not be read.
    Unreadable,
    /// Directory entries that were left out in the search for rotated files.
    Siblings,
    /// Files that globs matched and that are not read, because there were too many.
    Files,
}

impl Limit {
    /// Every one, in the order of their numbers.
    pub const ALL: [Limit; 6] = [
        Limit::Line,
        Limit::Truncated,
        Limit::Missed,
        Limit::Unreadable,
        Limit::Siblings,
        Limit::Files,
    ];
}

impl Board {
    pub(crate) fn new<M>(jails: &[(JailSettings, M)]) -> Board {
        let status = jails.iter().map(|(jail, _)| {
            let journal = match &jail.source {
                SourceSettings::Journal(journal) | SourceSettings::Auto { journal, .. } => {
                    Some(JournalStatus {
                        matches: journal.matches.iter().map(|terms| terms.join(" ")).collect(),
                        state: JournalState::Unavailable(NOT_YET.into()),
                        progress: JournalProgress::default(),
                    })
                }
                SourceSettings::Files { .. } | SourceSettings::Nothing => None,
            };
            SourceStatus { jail: jail.name.clone(), files: Vec::new(), journal }
        });
        let idle = jails.iter().filter(|(jail, _)| jail.source == SourceSettings::Nothing).count();
        let status = Arc::new(Mutex::new(status.collect()));
        Board { status, idle, gauges: Arc::default(), limits: Arc::default() }
    }

    /// Every jail that reads something has a file, found or missed, or a journal that was looked for.
    pub(crate) fn is_complete(&self) -> bool {
        let looked = |status: &&SourceStatus| {
            let unopened = |journal: &JournalStatus| matches!(&journal.state, JournalState::Unavailable(why) if why == NOT_YET);
            !status.files.is_empty() || status.journal.as_ref().is_some_and(|it| !unopened(it))
        };
        let status = self.lock();
        status.iter().filter(looked).count() + self.idle >= status.len()
    }

    pub(crate) fn all(&self) -> Vec<SourceStatus> {
        self.lock().clone()
    }

    pub(crate) fn file(&self, jail: &JailName, path: &Path, state: &FileState) {
        self.change(jail, |status| {
            match status.files.binary_search_by(|(known, _)| known.as_path().cmp(path)) {
                Ok(at) => status.files[at].1 = state.clone(),
                Err(at) => status.files.insert(at, (path.to_owned(), state.clone())),
            }
        });
    }

    pub(crate) fn lose(&self, jail: &JailName, path: &Path) {
        self.change(jail, |status| status.files.retain(|(known, _)| known != path));
    }

    /// Answers whether that is news.
    pub(crate) fn journal(&self, jail: &JailName, state: &JournalState) -> bool {
        let mut news = false;
        self.change(jail, |status| {
            if let Some(journal) = status.journal.as_mut().filter(|known| known.state != *state) {
                journal.state = state.clone();
                news = true;
            }
        });
        news
    }

    /// Changes what is said of the journal's progress.
    pub(crate) fn progress(&self, jail: &JailName, change: impl FnOnce(&mut JournalProgress)) {
        self.change(jail, |status| {
            if let Some(journal) = &mut status.journal {
                change(&mut journal.progress);
            }
        });
    }

    /// Counts that a limit was reached.
    pub(crate) fn count(&self, limit: Limit, by: u64) {
        self.limits[limit as usize].fetch_add(by, Relaxed);
    }

    /// How often each limit was reached.
    pub(crate) fn limits(&self) -> [(Limit, u64); Limit::ALL.len()] {
        Limit::ALL.map(|limit| (limit, self.limits[limit as usize].load(Relaxed)))
    }

    /// Where the reader of this log tells how far it is.
    pub(crate) fn gauge(&self, path: &Path) -> Arc<Gauge> {
        let gauge = Arc::<Gauge>::default();
        self.lock_gauges().insert(path.to_owned(), Arc::clone(&gauge));
        gauge
    }

    /// How far each log file is read.
    pub(crate) fn file_progress(&self) -> Vec<FileProgress> {
        let mut gauges = self.lock_gauges();
        // Of a file that nobody reads any more only we have kept it.
        gauges.retain(|_, gauge| Arc::strong_count(gauge) > 1);
        gauges.iter().map(|(path, gauge)| gauge.progress(path)).collect()
    }

    fn lock_gauges(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Gauge>>> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jail reads files.
    pub(crate) fn no_journal(&self, jail: &JailName) {
        self.change(jail, |status| status.journal = None);
    }

    /// The jail reads the journal.
    pub(crate) fn no_files(&self, jail: &JailName) {
        self.change(jail, |status| status.files.clear());
    }

    fn change(&self, jail: &JailName, change: impl FnOnce(&mut SourceStatus)) {
        if let Some(status) = self.lock().iter_mut().find(|status| status.jail == *jail) {
            change(status);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SourceStatus>> {
        // Every change is a few assignments that cannot panic, so what a panicking thread left is whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
