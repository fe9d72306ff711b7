//! How the store is doing, for `status` and the log.
use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::clock::monotonic;

/// One transaction that takes longer is told of.
pub(super) const SLOW: Duration = Duration::from_secs(5);

/// Something the operator should hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Something that should be stored is not.
    pub alarm: bool,
    /// What happened, and what follows.
    pub text: String,
}

/// Whether it stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The file is being opened.
    Opening,
    /// All is well.
    Works,
    /// Nothing can be written now, for this reason; it is tried again.
    Fails(String),
    /// Nothing will be written until the next start, for this reason.
    Off(String),
}

/// How the store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The file.
    pub path: PathBuf,
    /// Whether it stores.
    pub state: State,
    /// Writes that wait.
    pub waiting: usize,
    /// Transactions since the start.
    pub transactions: u64,
    /// Times it began to fail.
    pub faults: u64,
    /// Writes refused because too many waited.
    pub refused: u64,
    /// Writes given up because the file could not be written for too long.
    pub lost: u64,
    /// Where a damaged file was put last.
    pub set_aside: Option<PathBuf>,
}

#[derive(Debug)]
struct Told {
    state: State,
    busy: Option<Instant>,
    set_aside: Option<PathBuf>,
}

/// What both ends of the store know.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    told: Mutex<Told>,
    anew: AtomicBool,
    transactions: AtomicU64,
    faults: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    pub fn new(path: PathBuf) -> Shared {
        Shared {
            path,
            told: Mutex::new(Told { state: State::Opening, busy: None, set_aside: None }),
            anew: AtomicBool::new(false),
            transactions: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
        self.anew.store(true, Relaxed);
    }

    /// The file lacks writes: everything has to follow anew.
    pub fn lost(&self, writes: usize) {
        self.lost.fetch_add(writes as u64, Relaxed);
        self.anew.store(true, Relaxed);
    }

    pub fn is_behind(&self) -> bool {
        self.anew.load(Relaxed)
    }

    pub fn wants_anew(&self) -> bool {
        self.anew.load(Relaxed) && self.lock().state == State::Works
    }

    pub fn anew_begun(&self) {
        self.anew.store(false, Relaxed);
    }

    pub fn committed(&self) {
        self.transactions.fetch_add(1, Relaxed);
    }

    /// `Some`: a transaction begins; `None`: it is over.
    pub fn busy(&self, since: Option<Instant>) {
        self.lock().busy = since;
    }

    pub fn set_aside(&self, to: PathBuf) {
        self.lock().set_aside = Some(to);
    }

    /// Answers the state before, if this is another one.
    pub fn state(&self, state: State) -> Option<State> {
        let mut told = self.lock();
        if told.state == state {
            return None;
        }
        if matches!(state, State::Fails(_)) && !matches!(told.state, State::Fails(_)) {
            self.faults.fetch_add(1, Relaxed);
        }
        Some(std::mem::replace(&mut told.state, state))
    }

    pub fn status(&self, waiting: usize) -> Status {
        let told = self.lock();
        let slow = told.busy.map(|since| monotonic() - since).filter(|time| *time >= SLOW);
        let state = match (&told.state, slow) {
            (State::Works, Some(time)) => {
                State::Fails(format!("slow: one write takes {} s so far", time.as_secs()))
            }
            (state, _) => state.clone(),
        };
        Status {
            path: self.path.clone(),
            state,
            waiting,
            transactions: self.transactions.load(Relaxed),
            faults: self.faults.load(Relaxed),
            refused: self.refused.load(Relaxed),
            lost: self.lost.load(Relaxed),
            set_aside: told.set_aside.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Every change is a single assignment, so what a panicking thread left is whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
