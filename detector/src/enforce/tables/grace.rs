//! Grace periods: what a running program may still hold is left alone until none does.
//!
//! The wait lasts up to 16 ms, so a thread of its own waits while bans go on. What becomes free
//! meanwhile waits for the next period; one serves any number of slots.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{prefix::Family, sys};

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A slot that was emptied.
    Slot(Family, u32),
    /// An entry of `MORE_SLOTS` that its trie value no longer names, and the mark of that removal.
    MoreSlots(u32, u64),
    /// A ban's number.
    Id(u32),
}

/// Where the kernel refuses `membarrier`: thousands of times as long as a program runs.
const INSTEAD: Duration = Duration::from_millis(10);

/// How long until it is worth asking again.
pub const USUAL: Duration = Duration::from_millis(12);

/// The wait for running programs.
#[derive(Debug, Default)]
pub struct Grace {
    /// Came while a period was running.
    next: Vec<Waiting>,
    /// Wait for the period that runs.
    current: Vec<Waiting>,
    waiter: Option<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    ask: mpsc::Sender<()>,
    passed: Arc<AtomicU64>,
    asked: u64,
}

impl Waiter {
    fn start() -> Option<Waiter> {
        let (ask, asked) = mpsc::channel::<()>();
        let passed = Arc::new(AtomicU64::new(0));
        let done = Arc::clone(&passed);
        let run = move || {
            while asked.recv().is_ok() {
                if sys::wait_for_programs().is_err() {
                    thread::sleep(INSTEAD);
                }
                done.fetch_add(1, SeqCst);
            }
        };
        // It ends when `ask` is dropped.
        thread::Builder::new().name("grace".to_owned()).spawn(run).ok()?;
        Some(Waiter { ask, passed, asked: 0 })
    }
}

/// What `Grace::settle` found.
#[derive(Debug, Default)]
pub struct Settled {
    /// Whether a period has passed.
    pub passed: bool,
    /// Whether one begins.
    pub begun: bool,
    /// What no program can hold any more.
    pub free: Vec<Waiting>,
}

impl Grace {
    /// Something to leave alone.
    pub fn wait_for(&mut self, what: Waiting) {
        self.next.push(what);
    }

    /// Whether anything waits.
    pub fn is_waiting(&self) -> bool {
        !(self.next.is_empty() && self.current.is_empty())
    }

    /// Takes note of a period that has passed and begins the next. Never waits itself.
    pub fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        if let Some(waiter) = &self.waiter
            && !self.current.is_empty()
            && waiter.passed.load(SeqCst) == waiter.asked
        {
            settled.passed = true;
            settled.free = std::mem::take(&mut self.current);
        }
        if self.current.is_empty() && !self.next.is_empty() {
            if self.waiter.is_none() {
                // Without a thread everything waits on, and the next call tries again.
                self.waiter = Waiter::start();
            }
            if let Some(waiter) = &mut self.waiter
                && waiter.ask.send(()).is_ok()
            {
                waiter.asked += 1;
                self.current = std::mem::take(&mut self.next);
                settled.begun = true;
            }
        }
        settled
    }
}
