//! Maps of twice the size, while bans go on.
//!
//! ```text
//! idle --75 % full--> preparing (a thread makes maps and programs)
//!      --ready--> filling (bans are copied in steps; changes go into both sets)
//!      --all there--> the symlink is turned, the links' program swapped: the new set holds
//!      --> retiring (counts of dropped packets are carried over) --> idle
//! ```
//! A crash anywhere leaves one whole set, and the next daemon removes the other.
use std::{
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    time::{Duration, Instant},
    vec::IntoIter,
};

use ipnet::IpNet;

use super::{
    fault::EnforceError,
    pins::PinDir,
    set::{Blueprint, Set},
    tables::{Hold, Load, Sizes, TableError, Tables},
};

/// Longest time that one step takes from the task that also bans.
const STEP: Duration = Duration::from_millis(3);
/// Prefixes between two looks at the clock.
const PAGE: usize = 64;
/// After a failure the next attempt waits this long.
const PAUSE: Duration = Duration::from_secs(60);

/// Where the growth stands.
#[derive(Debug, Default)]
pub(super) enum Growth {
    /// There is room.
    #[default]
    Idle,
    /// It went wrong; not again before then.
    Paused(Instant),
    /// A thread makes the new set.
    Preparing(Preparation),
    /// Bans are copied into the new set, these still to come.
    Filling(Box<Set>, IntoIter<IpNet>),
    /// The new set holds; counts are carried over from the old one, these still to come.
    Retiring(Box<Tables>, IntoIter<IpNet>),
}

/// A thread that makes a set. Dropping it waits for the end: the thread pins maps, and nobody else may until then.
#[derive(Debug)]
pub(super) struct Preparation(Receiver<Result<Set, EnforceError>>);

impl Drop for Preparation {
    fn drop(&mut self) {
        // An error: its result was taken already.
        let _ = self.0.recv();
    }
}

/// What a step led to.
pub(super) enum Step {
    /// Nothing to do, or not finished: come again then.
    Wait(Option<Instant>),
    /// The new set holds every ban: swap it in.
    Full(Box<Set>),
    /// It cannot be done now.
    Failed(EnforceError),
}

impl Growth {
    /// The sizes to grow to, when a family is three quarters full, may have more, and nothing stands against it.
    pub fn due(&self, load: Load, most: u32) -> Option<Sizes> {
        let is_free = match self {
            Growth::Idle => true,
            Growth::Paused(until) => *until <= Instant::now(),
            _ => false,
        };
        wanted(load, most).filter(|_| is_free)
    }

    /// Begins to grow to what [`Growth::due`] answers.
    pub fn begin(
        &mut self,
        sizes: Sizes,
        pins: &PinDir,
        current: u32,
        plan: Blueprint,
    ) -> Result<(), EnforceError> {
        let number = current + 1;
        let folder = pins.make_set(number)?;
        let before = pins.set(current);
        let (send, receive) = sync_channel(1);
        let make = move || {
            // The receiver is gone when the daemon ends: then the next one clears the folder away.
            let _ = send.send(Set::make(&plan, number, folder, sizes, Some(before)));
        };
        let thread = std::thread::Builder::new().name("growth".to_owned()).spawn(make);
        thread.map_err(|source| EnforceError::Pin {
            doing: "start a thread that fills",
            path: pins.set(number),
            source,
        })?;
        *self = Growth::Preparing(Preparation(receive));
        Ok(())
    }

    /// Goes on for a few milliseconds, or with `whole` until every ban is in the new set.
    pub fn step(&mut self, tables: &Tables, whole: bool) -> Step {
        let deadline = (!whole).then(|| Instant::now() + STEP);
        match std::mem::take(self) {
            idle @ (Growth::Idle | Growth::Paused(_)) => {
                *self = idle;
                Step::Wait(None)
            }
            Growth::Preparing(ready) => {
                let arrived = if whole {
                    ready.0.recv().map_err(|_| TryRecvError::Disconnected)
                } else {
                    ready.0.try_recv()
                };
                match arrived {
                    Ok(Ok(set)) => {
                        *self = Growth::Filling(Box::new(set), all(tables));
                        if whole {
                            self.step(tables, true)
                        } else {
                            Step::Wait(Some(Instant::now()))
                        }
                    }
                    Ok(Err(fault)) => self.fail(fault),
                    Err(TryRecvError::Empty) => {
                        *self = Growth::Preparing(ready);
                        Step::Wait(Some(Instant::now() + Duration::from_millis(5)))
                    }
                    Err(TryRecvError::Disconnected) => self.fail(EnforceError::Object {
                        what: "the thread that loads it for larger maps panicked".to_owned(),
                    }),
                }
            }
            Growth::Filling(mut set, mut rest) => loop {
                for prefix in rest.by_ref().take(PAGE) {
                    if let Err(source) = set.tables.carry(prefix, tables) {
                        return self
                            .fail(EnforceError::Table { doing: "fill the larger maps", source });
                    }
                }
                set.tables.settle(Instant::now());
                if rest.len() == 0 {
                    return Step::Full(set);
                }
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    *self = Growth::Filling(set, rest);
                    return Step::Wait(Some(Instant::now()));
                }
            },
            retiring @ Growth::Retiring(..) => {
                *self = retiring;
                Step::Wait(Some(Instant::now()))
            }
        }
    }

    /// Carries counts over from the old set for a few milliseconds; `true`: done, the old set may go.
    pub fn retire(&mut self, to: &mut Tables) -> bool {
        let Growth::Retiring(old, rest) = self else { return false };
        let deadline = Instant::now() + STEP;
        while rest.len() > 0 {
            for prefix in rest.by_ref().take(PAGE) {
                if let Some(dropped) =
                    old.traffic(prefix).filter(|dropped| dropped.packets + dropped.would_drop > 0)
                {
                    to.credit(prefix, dropped);
                }
            }
            if deadline <= Instant::now() {
                return false;
            }
        }
        if let Growth::Retiring(old, _) = std::mem::take(self) {
            // Unmapping and freeing a million entries takes a while.
            std::thread::spawn(move || drop(old));
        }
        true
    }

    /// A new or changed ban goes into the set that is being filled as well.
    ///
    /// # Errors
    ///
    /// Ends the growth; the set in use is not concerned.
    pub fn ban(&mut self, prefix: IpNet, hold: &Hold, from: &Tables) -> Result<(), EnforceError> {
        let Growth::Filling(set, _) = self else { return Ok(()) };
        // Its other holds come along; what is there already would be left as it is when its turn comes.
        let result =
            set.tables.carry(prefix, from).and_then(|()| set.tables.ban(prefix, hold).map(drop));
        self.or_pause(result)
    }

    /// A lifted ban is lifted there as well.
    ///
    /// # Errors
    ///
    /// As for [`Growth::ban`].
    pub fn unban(&mut self, prefix: IpNet, jail: &str) -> Result<(), EnforceError> {
        let Growth::Filling(set, _) = self else { return Ok(()) };
        let result = set.tables.unban(prefix, jail).map(drop);
        self.or_pause(result)
    }

    fn or_pause(&mut self, result: Result<(), TableError>) -> Result<(), EnforceError> {
        result.map_err(|source| {
            self.pause();
            EnforceError::Table { doing: "fill the larger maps", source }
        })
    }

    /// The set that is being filled.
    pub fn filling(&mut self) -> Option<&mut Set> {
        match self {
            Growth::Filling(set, _) => Some(set),
            _ => None,
        }
    }

    /// Gives up for a minute; what was made is cleared away by the next attempt or the next start.
    pub fn pause(&mut self) {
        *self = Growth::Paused(Instant::now() + PAUSE);
    }

    fn fail(&mut self, fault: EnforceError) -> Step {
        self.pause();
        Step::Failed(fault)
    }
}

/// Every prefix there is now. A later one goes into both sets, one that is lifted meanwhile is not carried.
pub(super) fn all(tables: &Tables) -> IntoIter<IpNet> {
    tables.prefixes().collect::<Vec<_>>().into_iter()
}

/// Twice the size for each family that is three quarters full, up to `most` bans.
fn wanted(load: Load, most: u32) -> Option<Sizes> {
    let grown = |bans: u32, room: u32| {
        let full = u64::from(bans) * 4 >= u64::from(room) * 3;
        if full && room < most { room.saturating_mul(2) } else { room }
    };
    let (v4, v6) = (grown(load.v4.bans, load.v4.capacity), grown(load.v6.bans, load.v6.capacity));
    ((v4, v6) != (load.v4.capacity, load.v6.capacity)).then(|| Sizes::for_bans(v4, v6))
}
