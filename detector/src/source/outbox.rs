//! What every reader thread holds: the way to the daemon, and the order to stop.
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::Report;

/// How long a reader pauses when the daemon's queue is full.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a thread sleeps at the most that no event can wake.
const BLIND: Duration = Duration::from_secs(1);

/// The order to stop: a flag for threads that work, an event for threads that sleep.
#[derive(Debug)]
pub(crate) struct Stop {
    ordered: AtomicBool,
    /// Missing when no file descriptor was to be had; then sleepers look at the flag again and again.
    event: Option<OwnedFd>,
}

impl Stop {
    pub(crate) fn new() -> Stop {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        Stop { ordered: AtomicBool::new(false), event }
    }

    pub(crate) fn order(&self) {
        self.ordered.store(true, Relaxed);
        if let Some(event) = &self.event {
            // Fails only when the counter is full, and then everybody has been woken already.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered.load(Relaxed)
    }

    /// Sleeps until one of `fds` can be read, the order to stop comes, or the time is up.
    pub(crate) fn sleep(&self, fds: &[BorrowedFd<'_>], at_most: Option<Duration>) {
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let mut at_most = at_most;
        match &self.event {
            Some(event) => polled.push(PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)),
            None => at_most = Some(at_most.map_or(BLIND, |span| span.min(BLIND))),
        }
        let timeout = at_most.map(|span| Timespec {
            tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: span.subsec_nanos().into(),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // No memory for the poll: come back soon rather than spin.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The daemon wants no more: stop, and do not count as read what was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// A reader's end of the queue to the daemon.
#[derive(Clone)]
pub(crate) struct Outbox {
    to: Sender<Report>,
    stop: Arc<Stop>,
    waits: Arc<AtomicU64>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waits", &self.waits).finish_non_exhaustive()
    }
}

impl Outbox {
    pub(crate) fn new(to: Sender<Report>, stop: Arc<Stop>, waits: Arc<AtomicU64>) -> Outbox {
        Outbox { to, stop, waits }
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Hands over a report that is not worth waiting for: a full queue sends it to the log.
    pub(crate) fn tell(&self, report: Report) {
        if let Err(TrySendError::Full(report)) = self.to.try_send(report) {
            tracing::warn!("{report:?}");
        }
    }

    /// Hands a report over. A full queue slows reading down and is counted; nothing is lost.
    // Not `blocking_send`: a daemon that waits for this thread to stop no longer empties the queue.
    pub(crate) fn send(&self, report: Report) -> Result<(), Stopped> {
        let mut report = match self.to.try_send(report) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Stopped),
            Err(TrySendError::Full(report)) => report,
        };
        self.waits.fetch_add(1, Relaxed);
        loop {
            if self.stop.is_ordered() {
                return Err(Stopped);
            }
            self.stop.sleep(&[], Some(PAUSE));
            report = match self.to.try_send(report) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Stopped),
                Err(TrySendError::Full(report)) => report,
            };
        }
    }
}
