//! How far a log file is read, told by its reader while it reads.
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::engine::Timestamp;

/// How far a log file is read. Taken together with the time of now it says how long the file has been behind or silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProgress {
    /// The log, by the name it was asked for.
    pub path: PathBuf,
    /// Bytes that are known to be there and have not been read.
    pub bytes_behind: u64,
    /// Everything written before this time has been read, and something written since has not. `None` when the end
    /// was reached and nothing has happened since.
    pub behind_since: Option<Timestamp>,
    /// When its last line was read, by our clock. `None` when none was since the start.
    pub last_line: Option<Timestamp>,
}

impl FileProgress {
    /// For how long the oldest unread line has been waiting, at the least; zero when everything was read.
    pub fn behind(&self, now: Timestamp) -> Duration {
        let since = self.behind_since.map_or(0, |since| now.micros() - since.micros());
        Duration::from_micros(since.max(0).unsigned_abs())
    }
}

/// No time.
const NEVER: i64 = i64::MIN;

/// One file's place in the board. Its reader writes, whoever asks reads; a reader that is stuck is seen by its age.
#[derive(Debug)]
pub(crate) struct Gauge {
    behind: AtomicU64,
    since: AtomicI64,
    last_line: AtomicI64,
    /// A size that was seen, and when: all before is read once the reader has come so far.
    milestone: Mutex<Option<(Timestamp, u64)>>,
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge {
            behind: AtomicU64::new(0),
            since: AtomicI64::new(NEVER),
            last_line: AtomicI64::new(NEVER),
            milestone: Mutex::new(None),
        }
    }
}

impl Gauge {
    /// There may be something new.
    pub(crate) fn woken(&self, now: Timestamp) {
        if self.since.load(Relaxed) == NEVER {
            self.since.store(now.micros(), Relaxed);
        }
    }

    /// The file was read as far as `offset` and found to be of this `size`. `came` says that lines were.
    pub(crate) fn read(&self, (offset, size): (u64, u64), came: bool, now: Timestamp) {
        self.behind.store(size.saturating_sub(offset), Relaxed);
        if came {
            self.last_line.store(now.micros(), Relaxed);
        }
        let mut milestone = self.milestone.lock().unwrap_or_else(PoisonError::into_inner);
        match *milestone {
            Some((at, reached)) if offset >= reached => {
                self.since.store(at.micros(), Relaxed);
                *milestone = Some((now, size));
            }
            Some(_) => {}
            None => *milestone = Some((now, size)),
        }
    }

    /// The end was reached.
    pub(crate) fn at_end(&self) {
        self.behind.store(0, Relaxed);
        self.since.store(NEVER, Relaxed);
        *self.milestone.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn progress(&self, path: &Path) -> FileProgress {
        let time = |of: &AtomicI64| match of.load(Relaxed) {
            NEVER => None,
            micros => Some(Timestamp::from_micros(micros)),
        };
        FileProgress {
            path: path.to_owned(),
            bytes_behind: self.behind.load(Relaxed),
            behind_since: time(&self.since),
            last_line: time(&self.last_line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    #[test]
    fn a_reader_that_never_reaches_the_end_is_behind_by_its_oldest_unread_byte() {
        let gauge = Gauge::default();
        let behind = |now| gauge.progress(Path::new("/log")).behind(at(now)).as_secs();
        assert_eq!(behind(100), 0);
        gauge.woken(at(100));
        assert_eq!(behind(111), 11, "nothing was read since");
        gauge.read((50, 200), true, at(111));
        assert_eq!(behind(112), 12);
        // What was there at 111 has been read by 120, what came later has not.
        gauge.read((200, 900), true, at(120));
        assert_eq!(behind(120), 9);
        gauge.read((950, 2000), true, at(121));
        assert_eq!(behind(122), 2);
        assert_eq!(gauge.progress(Path::new("/log")).bytes_behind, 1050);
        gauge.at_end();
        assert_eq!((behind(200), gauge.progress(Path::new("/log")).bytes_behind), (0, 0));
        assert_eq!(gauge.progress(Path::new("/log")).last_line, Some(at(121)));
    }
}
