//! Numbers of bans. One is used again ten seconds after it was let go at the earliest, so that a report
//! or count under way is never taken for another ban's.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long a number rests.
pub const REST: Duration = Duration::from_secs(10);

/// Which numbers are free.
#[derive(Debug)]
pub struct Ids {
    /// Given out never yet, this and all above.
    next: u32,
    /// Rested, oldest first.
    free: VecDeque<u32>,
    /// Since when each rests, oldest first.
    resting: VecDeque<(Instant, u32)>,
    /// Let go since `settle` was last called.
    let_go: Vec<u32>,
}

impl Default for Ids {
    fn default() -> Ids {
        // 0 says "no number".
        Ids { next: 1, free: VecDeque::new(), resting: VecDeque::new(), let_go: Vec::new() }
    }
}

impl Ids {
    /// Numbers of maps that were found: those up to the highest used, but not used, rest first.
    pub fn adopt(used: impl Iterator<Item = u32>) -> Ids {
        let mut used: Vec<u32> = used.collect();
        used.sort_unstable();
        let next = used.last().map_or(1, |last| last.saturating_add(1));
        // Not more than there are bans, and a few: a stray high number must not cost memory.
        let let_go = (1..next)
            .filter(|id| used.binary_search(id).is_err())
            .take(used.len() + 1024)
            .collect();
        Ids { next, let_go, ..Ids::default() }
    }

    /// A number for a new ban. Numbers never run out: there are fewer bans than 2^31, and fresh numbers
    /// are only drawn while none has rested.
    pub fn take(&mut self) -> u32 {
        self.free.pop_front().unwrap_or_else(|| {
            let id = self.next;
            self.next = self.next.saturating_add(1);
            id
        })
    }

    /// A number no longer used.
    pub fn let_go(&mut self, id: u32) {
        self.let_go.push(id);
    }

    /// Moves the clock on; when it has something to do next.
    pub fn settle(&mut self, now: Instant) -> Option<Instant> {
        self.resting.extend(self.let_go.drain(..).map(|id| (now, id)));
        while let Some(&(since, id)) = self.resting.front()
            && now.duration_since(since) >= REST
        {
            self.resting.pop_front();
            self.free.push_back(id);
        }
        self.resting.front().map(|(since, _)| *since + REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_rests_ten_seconds() {
        let (mut ids, start) = (Ids::default(), Instant::now());
        assert_eq!((ids.take(), ids.take()), (1, 2));
        ids.let_go(1);
        assert_eq!(ids.take(), 3, "not seen by `settle` yet");
        assert_eq!(ids.settle(start), Some(start + REST));
        assert_eq!(ids.take(), 4);
        ids.settle(start + REST - Duration::from_nanos(1));
        assert_eq!(ids.take(), 5);
        assert_eq!(ids.settle(start + REST), None);
        assert_eq!(ids.take(), 1);
    }

    #[test]
    fn numbers_that_were_found_are_not_given_again() {
        let (mut ids, start) = (Ids::adopt([2, 5].into_iter()), Instant::now());
        assert_eq!(ids.take(), 6);
        ids.settle(start);
        ids.settle(start + REST);
        assert_eq!((ids.take(), ids.take(), ids.take(), ids.take()), (1, 3, 4, 7));
    }
}
