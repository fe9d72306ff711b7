//! How each jail's sources are doing, for `status`.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::gauge::FileProgress;
pub(crate) use super::gauge::Gauge;
use super::{FileState, JournalState};
use crate::config::{JailName, JailSettings, SourceSettings};

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
}

impl Limit {
    /// Every one, in the order of their numbers.
    pub const ALL: [Limit; 5] =
        [Limit::Line, Limit::Truncated, Limit::Missed, Limit::Unreadable, Limit::Siblings];
}

impl Board {
    pub(crate) fn new<M>(jails: &[(JailSettings, M)]) -> Board {
        let status = jails.iter().map(|(jail, _)| {
            let journal = match &jail.source {
                SourceSettings::Journal(journal) | SourceSettings::Auto { journal, .. } => {
                    Some(JournalStatus {
                        matches: journal.matches.iter().map(|terms| terms.join(" ")).collect(),
                        state: JournalState::Unavailable(NOT_YET.into()),
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
    pub(crate) fn progress(&self) -> Vec<FileProgress> {
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
        // Every change is a single assignment, so what a panicking thread left is whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
