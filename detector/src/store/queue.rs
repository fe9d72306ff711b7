//! Writes on their way to the thread that makes them: bounded, and taken all at once.
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Write;

/// Writes that may wait: of bans it is half a second's work, and 4 MB.
pub(super) const MOST: usize = 65_536;

#[derive(Debug, Default)]
struct Waiting {
    writes: VecDeque<Write>,
    closed: bool,
}

/// The queue. Its lock is held for moments only.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    /// `false`: there is no room.
    pub fn push(&self, write: Write) -> bool {
        let mut waiting = self.lock();
        if waiting.writes.len() >= MOST {
            return false;
        }
        waiting.writes.push_back(write);
        drop(waiting);
        self.changed.notify_one();
        true
    }

    pub fn room(&self) -> usize {
        MOST.saturating_sub(self.len())
    }

    pub fn len(&self) -> usize {
        self.lock().writes.len()
    }

    /// No more is coming.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Everything that waits, after waiting `at_most` for something; the flag says that no more is coming.
    pub fn take(&self, at_most: Duration) -> (VecDeque<Write>, bool) {
        let idle = |waiting: &mut Waiting| waiting.writes.is_empty() && !waiting.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut waiting.writes), waiting.closed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is a single step, so what a panicking thread left is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
