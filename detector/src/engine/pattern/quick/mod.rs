//! A matcher of our own for lines of ASCII: it tries one way after another, as Python does, and so finds the same.
//!
//! Most searches are over within a few dozen steps, with all groups at hand, where an automaton that also tells groups
//! needs several passes. One that takes more than [`budget`] steps is given up undecided; another engine then decides.
mod compile;

use std::ops::Range;

/// Bytes of ASCII, one bit each.
type Bytes = u128;

/// What a text can go on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct First {
    bytes: Bytes,
    /// Nothing more.
    end: bool,
}

impl First {
    const ANY: First = First { bytes: Bytes::MAX, end: true };

    fn with(self, other: First) -> First {
        First { bytes: self.bytes | other.bytes, end: self.end || other.end }
    }

    fn fits(self, next: Option<&u8>) -> bool {
        next.map_or(self.end, |byte| has(self.bytes, *byte))
    }
}

fn has(bytes: Bytes, byte: u8) -> bool {
    byte < 128 && bytes >> byte & 1 == 1
}

/// One step. Places in the program are its indices.
#[derive(Debug)]
enum Op {
    Byte(u8),
    Text(Box<[u8]>),
    /// One byte of a set.
    Set(u16),
    /// Many bytes of a set.
    Run(Run),
    /// The first way, then the second; what the text can go on with in each.
    Split {
        first: Way,
        second: Way,
    },
    Jump(usize),
    /// Remembers the place.
    Save(usize),
    Start,
    LineStart,
    End,
    LineEnd,
    VeryEnd,
    WordEdge {
        negated: bool,
    },
    NotInWord,
    /// What follows it up to [`Op::Done`], before `end`, must match here, or so many bytes before, or must not.
    Look {
        back: usize,
        negated: bool,
        end: usize,
    },
    /// What follows it up to [`Op::Done`], before `end`, is tried in one way only.
    Atomic {
        end: usize,
    },
    Done,
    /// The text of a group again.
    Again {
        group: usize,
        fold: bool,
    },
    /// Goes on behind it if the group took part, else at `no`.
    Condition {
        group: usize,
        no: usize,
    },
    Match,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    at: usize,
    first: First,
}

/// A repetition of one set.
#[derive(Debug)]
struct Run {
    set: u16,
    /// It ends before this text.
    stop: Option<Box<memchr::memmem::Finder<'static>>>,
    min: usize,
    max: usize,
    order: Order,
    /// What can follow it.
    next: First,
}

/// In which order a run tries its lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    LongestFirst,
    ShortestFirst,
    /// No other can match.
    LongestOnly,
}

/// A pattern as a program.
#[derive(Debug)]
pub(super) struct Program {
    ops: Vec<Op>,
    sets: Vec<[bool; 128]>,
    /// Groups with the whole match, which is the first.
    groups: usize,
    /// Matches only at the beginning of the text.
    anchored: bool,
    first: First,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Matched,
    Absent,
    /// Undecided.
    OverBudget,
}

/// Steps that a search may take: hundreds of times what most take, and well below a millisecond.
fn budget(length: usize) -> usize {
    (1_000 + 10 * length).min(2_500)
}

/// Bytes that a run looks at in the time of a step.
const SCANNED: usize = 4;

const UNSET: usize = usize::MAX;

/// What to try when a way leads nowhere.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// Another way.
    Way { op: usize, at: usize },
    /// A group is as it was.
    Restore { slot: usize, was: usize },
    /// A shorter run, down to `least`.
    Shorter { op: usize, least: usize, at: usize },
    /// A longer run, up to `most`.
    Longer { op: usize, at: usize, most: usize },
}

/// Memory for searches.
#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Vec<usize>,
    stack: Vec<Frame>,
    steps: usize,
}

impl Memory {
    /// Where a group of the last match lies; group 0 is all of it.
    pub(super) fn group(&self, number: usize) -> Option<Range<usize>> {
        let (start, end) = (*self.slots.get(2 * number)?, *self.slots.get(2 * number + 1)?);
        (end != UNSET).then_some(start..end)
    }

    fn save(&mut self, slot: usize, at: usize) {
        self.stack.push(Frame::Restore { slot, was: self.slots[slot] });
        self.slots[slot] = at;
    }

    /// Undoes everything above `base`.
    fn undo(&mut self, base: usize) {
        while self.stack.len() > base {
            if let Some(Frame::Restore { slot, was }) = self.stack.pop() {
                self.slots[slot] = was;
            }
        }
    }

    /// Forgets the other ways above `base`; groups can still be undone.
    fn settle(&mut self, base: usize) {
        let mut kept = base;
        for at in base..self.stack.len() {
            if let Frame::Restore { .. } = self.stack[at] {
                self.stack[kept] = self.stack[at];
                kept += 1;
            }
        }
        self.stack.truncate(kept);
    }
}

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

impl Program {
    /// Looks for the leftmost match that begins at `from` or behind it. `text` must be ASCII.
    pub(super) fn search(&self, text: &[u8], from: usize, memory: &mut Memory) -> Ended {
        memory.slots.clear();
        memory.slots.resize(2 * self.groups, UNSET);
        memory.stack.clear();
        memory.steps = budget(text.len());
        let mut start = from;
        loop {
            if self.anchored && start > 0 {
                return Ended::Absent;
            }
            if !self.anchored {
                // Where it can begin.
                let rest = &text[start..];
                let ahead = rest.iter().position(|byte| has(self.first.bytes, *byte));
                match ahead {
                    Some(ahead) => start += ahead,
                    None if self.first.end => start = text.len(),
                    None => return Ended::Absent,
                }
            }
            match self.run(0, text, start, memory, 0) {
                Err(()) => return Ended::OverBudget,
                Ok(Some(end)) => {
                    (memory.slots[0], memory.slots[1]) = (start, end);
                    return Ended::Matched;
                }
                Ok(None) if start == text.len() => return Ended::Absent,
                Ok(None) => start += 1,
            }
        }
    }

    /// Whether the program matches from `op` on, and where it ends. Without a match everything above `base` is undone.
    fn run(
        &self,
        mut op: usize,
        text: &[u8],
        mut at: usize,
        memory: &mut Memory,
        base: usize,
    ) -> Result<Option<usize>, ()> {
        loop {
            memory.steps = memory.steps.checked_sub(1).ok_or(())?;
            let goes_on = match &self.ops[op] {
                Op::Byte(byte) => {
                    let fits = text.get(at) == Some(byte);
                    at += 1;
                    fits
                }
                Op::Text(bytes) => {
                    let fits = text[at..].starts_with(bytes);
                    at += bytes.len();
                    fits
                }
                Op::Set(set) => {
                    let fits = text.get(at).is_some_and(|byte| self.is_in(*set, *byte));
                    at += 1;
                    fits
                }
                Op::Run(run) => match self.begin(run, op, text, at, memory) {
                    Some(end) => {
                        at = end;
                        true
                    }
                    None => false,
                },
                Op::Split { first, second } => {
                    let next = text.get(at);
                    if !first.first.fits(next) {
                        op = second.at;
                    } else {
                        if second.first.fits(next) {
                            memory.stack.push(Frame::Way { op: second.at, at });
                        }
                        op = first.at;
                    }
                    continue;
                }
                Op::Jump(to) => {
                    op = *to;
                    continue;
                }
                Op::Save(slot) => {
                    memory.save(*slot, at);
                    true
                }
                Op::Start => at == 0,
                Op::LineStart => at == 0 || text[at - 1] == b'\n',
                Op::End => matches!(&text[at..], [] | [b'\n']),
                Op::LineEnd => matches!(&text[at..], [] | [b'\n', ..]),
                Op::VeryEnd => at == text.len(),
                Op::WordEdge { negated } => {
                    let before = at.checked_sub(1).and_then(|before| text.get(before));
                    (is_word(before) != is_word(text.get(at))) != *negated
                }
                Op::NotInWord => {
                    let before = at.checked_sub(1).and_then(|before| text.get(before));
                    !(is_word(before) && is_word(text.get(at)))
                }
                Op::Look { back, negated, end } => {
                    let above = memory.stack.len();
                    let found = match at.checked_sub(*back) {
                        None => false,
                        Some(from) => self.run(op + 1, text, from, memory, above)?.is_some(),
                    };
                    match negated {
                        false => memory.settle(above),
                        true => memory.undo(above),
                    }
                    if found == *negated {
                        false
                    } else {
                        op = *end;
                        continue;
                    }
                }
                Op::Atomic { end } => {
                    let above = memory.stack.len();
                    match self.run(op + 1, text, at, memory, above)? {
                        None => false,
                        Some(to) => {
                            memory.settle(above);
                            (op, at) = (*end, to);
                            continue;
                        }
                    }
                }
                Op::Done | Op::Match => return Ok(Some(at)),
                Op::Again { group, fold } => match memory.group(*group) {
                    None => false,
                    Some(said) => {
                        let (from, length) = (at, said.len());
                        at += length;
                        text.get(from..at).is_some_and(|here| match fold {
                            true => here.eq_ignore_ascii_case(&text[said]),
                            false => *here == text[said],
                        })
                    }
                },
                Op::Condition { group, no } => {
                    op = if memory.group(*group).is_some() { op + 1 } else { *no };
                    continue;
                }
            };
            if goes_on {
                op += 1;
                continue;
            }
            match self.next_way(text, memory, base) {
                None => return Ok(None),
                Some(way) => (op, at) = way,
            }
        }
    }

    fn is_in(&self, set: u16, byte: u8) -> bool {
        self.sets[usize::from(set)].get(usize::from(byte)).copied().unwrap_or(false)
    }

    /// Takes the first length of a run; answers where it ends.
    fn begin(
        &self,
        run: &Run,
        op: usize,
        text: &[u8],
        at: usize,
        memory: &mut Memory,
    ) -> Option<usize> {
        let set = &self.sets[usize::from(run.set)];
        let mut rest = &text[at..];
        rest = &rest[..run.max.min(rest.len())];
        if let Some(stop) = &run.stop {
            // The text that ends it may begin within what it can take, and end behind.
            let end = stop.find(&text[at..]).unwrap_or(text.len() - at);
            memory.steps = memory.steps.saturating_sub(end / SCANNED);
            rest = &rest[..end.min(rest.len())];
        }
        let fits = |byte: &u8| set.get(usize::from(*byte)).copied().unwrap_or(false);
        if run.order == Order::ShortestFirst {
            let most = at + rest.len();
            if rest.len() < run.min || !rest[..run.min].iter().all(fits) {
                return None;
            }
            memory.stack.push(Frame::Longer { op, at: at + run.min, most });
            // The frame itself takes the shortest, where what follows fits.
            return self.longer(text, memory);
        }
        let length = rest.iter().position(|byte| !fits(byte)).unwrap_or(rest.len());
        memory.steps = memory.steps.saturating_sub(length / SCANNED);
        if length < run.min {
            return None;
        }
        let (least, most) = (at + run.min, at + length);
        if run.order == Order::LongestFirst && most > least {
            memory.stack.push(Frame::Shorter { op, least, at: most });
        }
        Some(most)
    }

    /// Takes the next length that a lazy run on top of the stack can have; its frame goes when there is no other.
    fn longer(&self, text: &[u8], memory: &mut Memory) -> Option<usize> {
        let Some(Frame::Longer { op, mut at, most }) = memory.stack.pop() else { return None };
        let Op::Run(run) = &self.ops[op] else { return None };
        let from = at;
        while !run.next.fits(text.get(at)) {
            if at >= most || !self.is_in(run.set, text[at]) {
                return None;
            }
            at += 1;
        }
        memory.steps = memory.steps.saturating_sub((at - from) / SCANNED);
        if at < most && self.is_in(run.set, text[at]) {
            memory.stack.push(Frame::Longer { op, at: at + 1, most });
        }
        Some(at)
    }

    /// Goes back to the last way that was not tried: the operation to go on with, and where.
    fn next_way(&self, text: &[u8], memory: &mut Memory, base: usize) -> Option<(usize, usize)> {
        while memory.stack.len() > base {
            match memory.stack[memory.stack.len() - 1] {
                Frame::Way { op, at } => {
                    memory.stack.pop();
                    return Some((op, at));
                }
                Frame::Restore { slot, was } => {
                    memory.stack.pop();
                    memory.slots[slot] = was;
                }
                Frame::Shorter { op, least, at } => {
                    memory.stack.pop();
                    let Op::Run(run) = &self.ops[op] else { continue };
                    let mut shorter = (least..at).rev();
                    let Some(end) = shorter.find(|end| run.next.fits(text.get(*end))) else {
                        memory.steps = memory.steps.saturating_sub((at - least) / SCANNED);
                        continue;
                    };
                    memory.steps = memory.steps.saturating_sub((at - end) / SCANNED);
                    if end > least {
                        memory.stack.push(Frame::Shorter { op, least, at: end });
                    }
                    return Some((op + 1, end));
                }
                Frame::Longer { op, .. } => {
                    if let Some(end) = self.longer(text, memory) {
                        return Some((op + 1, end));
                    }
                }
            }
        }
        None
    }
}
