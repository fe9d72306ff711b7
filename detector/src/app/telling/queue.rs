//! What waits for one action: bounded, in order, a part of it handed to the runner and kept until that is done with it.
use std::{collections::VecDeque, sync::Arc};

use ipnet::IpNet;

use crate::{
    action::wire::{self, Counts, Kind, Ticket},
    config::JailName,
    store,
};

/// Bytes of one task beside its ticket's texts.
const OVERHEAD: usize = 256;

/// A task, shared by queue, store and link: each puts it into words on its own thread.
#[derive(Debug)]
pub(in crate::app) struct Entry {
    pub seq: u64,
    pub jail: JailName,
    pub action: Arc<str>,
    pub kind: Kind,
    /// Unix seconds.
    pub at: f64,
    pub counts: Counts,
    /// One for all actions that are told of the same.
    pub ticket: Option<Arc<Ticket>>,
    /// The ticket is to have what the store knows of its address.
    pub asks: Asks,
}

/// Whether an action's texts show what the store knows of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct Asks {
    /// Over all jails.
    pub of_address: bool,
    /// Within its own.
    pub of_jail: bool,
}

impl Entry {
    /// Whether it must outlive the daemon. What begins and ends an action is said anew by each run.
    pub fn is_kept(&self) -> bool {
        match self.kind {
            Kind::Ban | Kind::Reban | Kind::Prolong | Kind::Unban | Kind::Flush => true,
            Kind::Start | Kind::Stop | Kind::Reload | Kind::Check => false,
        }
    }

    pub fn task(&self) -> wire::Task {
        wire::Task {
            seq: self.seq,
            jail: self.jail.to_string(),
            action: self.action.to_string(),
            kind: self.kind,
            at: self.at,
            counts: self.counts,
            ticket: self.ticket.as_ref().map(|ticket| Box::new(Ticket::clone(ticket))),
        }
    }

    fn size(&self) -> usize {
        let Some(ticket) = &self.ticket else { return OVERHEAD };
        let matches: usize = ticket.matches.iter().map(String::len).sum();
        let fields: usize =
            ticket.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        OVERHEAD + matches + fields
    }
}

impl store::TaskText for Entry {
    fn text(&self) -> String {
        serde_json::to_string(&self.task()).expect("a task is plain data")
    }
}

/// What waits.
#[derive(Debug)]
enum Waiting {
    Task(Arc<Entry>),
    /// Bans of an earlier run, to be told as restored: whoever of them holds when its turn comes.
    Restored {
        of: Arc<[IpNet]>,
        next: usize,
        /// The number of the first; all were set aside.
        seq: u64,
    },
}

/// What comes next.
pub(super) enum Next {
    Task(Arc<Entry>),
    /// This one, if it is still banned.
    Restored {
        prefix: IpNet,
        seq: u64,
    },
}

/// The queue of one action.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Tasks among those that wait.
    tasks: usize,
    /// What the runner has and is not done with.
    out: VecDeque<Arc<Entry>>,
}

/// What was dropped: its number, and its bytes.
pub(super) type Dropped = (u64, usize);

impl Queue {
    /// Adds a task; answers its bytes.
    pub fn push(&mut self, entry: Arc<Entry>) -> usize {
        let bytes = entry.size();
        self.waiting.push_back(Waiting::Task(entry));
        self.tasks += 1;
        bytes
    }

    /// Adds what an earlier run left, before all that came since.
    pub fn push_first(&mut self, entries: Vec<Arc<Entry>>) -> usize {
        let bytes = entries.iter().map(|entry| entry.size()).sum();
        self.tasks += entries.len();
        // What begins an action stays first.
        let begun = self.waiting.iter().take_while(
            |waiting| matches!(waiting, Waiting::Task(entry) if entry.kind == Kind::Start),
        );
        let at = begun.count();
        let rest = self.waiting.split_off(at);
        self.waiting.extend(entries.into_iter().map(Waiting::Task));
        self.waiting.extend(rest);
        bytes
    }

    pub fn push_restored(&mut self, of: Arc<[IpNet]>, seq: u64) {
        self.waiting.push_back(Waiting::Restored { of, next: 0, seq });
    }

    /// How many tasks wait, those that the runner has left out.
    pub fn len(&self) -> usize {
        self.tasks
    }

    pub fn out(&self) -> &VecDeque<Arc<Entry>> {
        &self.out
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.out.is_empty()
    }

    /// Takes the oldest task out that may be lost.
    pub fn drop_oldest(&mut self) -> Option<Dropped> {
        let is_kept =
            |waiting: &Waiting| matches!(waiting, Waiting::Task(entry) if entry.is_kept());
        let at = self.waiting.iter().position(is_kept)?;
        let Some(Waiting::Task(entry)) = self.waiting.remove(at) else { return None };
        self.tasks -= 1;
        Some((entry.seq, entry.size()))
    }

    /// What the runner may be given now, if it may have so many at once; with its bytes, which no longer wait.
    pub fn next(&mut self, window: usize) -> Option<(Next, usize)> {
        if self.out.len() >= window {
            return None;
        }
        match self.waiting.front_mut()? {
            Waiting::Task(_) => {
                let Some(Waiting::Task(entry)) = self.waiting.pop_front() else { return None };
                self.tasks -= 1;
                let bytes = entry.size();
                Some((Next::Task(entry), bytes))
            }
            Waiting::Restored { of, next, seq } => {
                let found = of.get(*next).map(|prefix| (*prefix, *seq + *next as u64));
                *next += 1;
                if *next >= of.len() {
                    self.waiting.pop_front();
                }
                found.map(|(prefix, seq)| (Next::Restored { prefix, seq }, 0))
            }
        }
    }

    /// The runner has it from now on.
    pub fn is_out(&mut self, entry: Arc<Entry>) {
        self.out.push_back(entry);
    }

    /// The runner is done with it; `None`: it had no such task.
    pub fn done(&mut self, seq: u64) -> Option<Arc<Entry>> {
        let at = self.out.iter().position(|entry| entry.seq == seq)?;
        self.out.remove(at)
    }

    /// Tasks with rows that come after the one of this number, in their order.
    pub fn kept_after(&self, seq: u64) -> impl Iterator<Item = &Arc<Entry>> {
        let waiting = self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Task(entry) => Some(entry),
            Waiting::Restored { .. } => None,
        });
        let restored = |entry: &&Arc<Entry>| {
            entry.ticket.as_ref().is_some_and(|it| it.restored && entry.kind == Kind::Ban)
        };
        self.out
            .iter()
            .chain(waiting)
            .filter(move |entry| entry.seq > seq && entry.is_kept() && !restored(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::wire::WINDOW;

    fn entry(seq: u64, kind: Kind) -> Arc<Entry> {
        let (jail, action) = (JailName::new("j"), Arc::from("a"));
        let (counts, asks) = (Counts::default(), Asks::default());
        Arc::new(Entry { seq, jail, action, kind, at: 0.0, counts, ticket: None, asks })
    }

    /// Hands over all that may go; the numbers.
    fn handed(queue: &mut Queue) -> Vec<u64> {
        let mut seqs = Vec::new();
        while let Some((next, _)) = queue.next(WINDOW) {
            match next {
                Next::Task(entry) => {
                    seqs.push(entry.seq);
                    queue.is_out(entry);
                }
                Next::Restored { seq, .. } => {
                    seqs.push(seq);
                    queue.is_out(entry(seq, Kind::Ban));
                }
            }
        }
        seqs
    }

    #[test]
    fn what_an_earlier_run_left_comes_after_the_start_and_before_all_else() {
        let mut queue = Queue::default();
        queue.push(entry(100, Kind::Start));
        queue.push(entry(101, Kind::Unban));
        let banned: Arc<[IpNet]> =
            ["192.0.2.1/32", "192.0.2.2/32"].map(|it| it.parse().expect("a prefix")).into();
        queue.push_restored(banned, 102);
        queue.push(entry(104, Kind::Ban));
        queue.push_first(vec![entry(7, Kind::Ban), entry(9, Kind::Unban)]);
        assert_eq!(queue.len(), 5);
        assert_eq!(handed(&mut queue), [100, 7, 9, 101, 102, 103, 104]);
        let kept: Vec<u64> = queue.kept_after(7).map(|entry| entry.seq).collect();
        assert_eq!(kept, [9, 101, 102, 103, 104]);
        for seq in [7, 103] {
            assert!(queue.done(seq).is_some_and(|entry| entry.seq == seq));
        }
        assert!(queue.done(7).is_none() && !queue.is_empty());
    }

    #[test]
    fn a_window_is_handed_over_and_the_oldest_of_the_rest_is_lost() {
        let mut queue = Queue::default();
        queue.push(entry(0, Kind::Start));
        for seq in 1..=100 {
            queue.push(entry(seq, Kind::Ban));
        }
        assert_eq!(handed(&mut queue).len(), WINDOW);
        assert_eq!(queue.drop_oldest().map(|(seq, _)| seq), Some(WINDOW as u64));
        assert!(queue.done(5).is_some());
        assert_eq!(handed(&mut queue), [WINDOW as u64 + 1]);
        let mut queue = Queue::default();
        queue.push(entry(0, Kind::Start));
        queue.push(entry(1, Kind::Ban));
        assert_eq!(queue.drop_oldest().map(|(seq, _)| seq), Some(1), "never how it begins");
        assert!(queue.drop_oldest().is_none());
    }
}
