//! Matched lines of failures that led to no ban yet, of all jails: a queue that forgets its oldest line
//! when it is full, whoever it belongs to.
use std::collections::VecDeque;

/// What a line costs beside its bytes: its place in the queue and what the allocator adds.
const OVERHEAD: usize = 48;

/// The lines of one address: the number of its newest one, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain(u64);

#[derive(Debug)]
struct Line {
    text: Box<str>,
    /// The line before it in its chain; [`GONE`] for one that was taken out.
    before: u64,
}

const GONE: u64 = u64::MAX;

/// The lines.
#[derive(Debug)]
pub(super) struct Evidence {
    lines: VecDeque<Line>,
    /// The number of the first in the queue.
    first: u64,
    bytes: usize,
    limit: usize,
    forgotten: u64,
}

impl Evidence {
    /// Room for so many bytes.
    pub fn new(limit: usize) -> Evidence {
        Evidence { lines: VecDeque::new(), first: 1, bytes: 0, limit, forgotten: 0 }
    }

    /// Another limit, kept from the next line on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Bytes in use, what is kept beside each line included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lines that were forgotten to make room.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn line(&mut self, number: u64) -> Option<&mut Line> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.lines.get_mut(at)
    }

    /// Adds a line to a chain.
    pub fn add(&mut self, chain: &mut Chain, text: Box<str>) {
        self.bytes += text.len() + OVERHEAD;
        self.lines.push_back(Line { text, before: chain.0 });
        chain.0 = self.first + self.lines.len() as u64 - 1;
        while self.bytes > self.limit
            && let Some(line) = self.lines.pop_front()
        {
            self.bytes -= line.text.len() + OVERHEAD;
            self.first += 1;
            self.forgotten += u64::from(line.before != GONE);
        }
    }

    /// The newest `most` lines of a chain that are still there, the oldest first.
    pub fn of(&self, chain: Chain, most: usize) -> Vec<Box<str>> {
        let line = |number: u64| {
            let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
            self.lines.get(at)
        };
        let newest_first = std::iter::successors(line(chain.0), |newer| line(newer.before));
        let mut texts: Vec<Box<str>> =
            newest_first.take(most).map(|line| line.text.clone()).collect();
        texts.reverse();
        texts
    }

    /// Forgets all of a chain but its newest `most` lines.
    pub fn trim(&mut self, chain: &mut Chain, most: usize) {
        let mut number = std::mem::take(&mut chain.0);
        let newest = number;
        let mut kept = 0;
        let mut last_kept = None;
        while let Some(line) = self.line(number) {
            let before = line.before;
            if kept < most {
                kept += 1;
                last_kept = Some(number);
            } else {
                let length = line.text.len();
                *line = Line { text: Box::default(), before: GONE };
                self.bytes -= length;
            }
            number = before;
        }
        if let Some(line) = last_kept.and_then(|number| self.line(number)) {
            line.before = 0;
            chain.0 = newest;
        }
        while self.lines.front().is_some_and(|line| line.before == GONE) {
            self.lines.pop_front();
            self.first += 1;
            self.bytes -= OVERHEAD;
        }
        if self.lines.capacity() > 4 * self.lines.len().max(1024) {
            self.lines.shrink_to(2 * self.lines.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(evidence: &Evidence, chain: Chain, most: usize) -> String {
        evidence.of(chain, most).join(" ")
    }

    #[test]
    fn each_chain_has_its_own_lines_the_newest_last() {
        let mut evidence = Evidence::new(10_000);
        let (mut odd, mut even) = (Chain::default(), Chain::default());
        for nth in 0..10 {
            let chain = if nth % 2 == 1 { &mut odd } else { &mut even };
            evidence.add(chain, nth.to_string().into());
        }
        assert_eq!(texts(&evidence, odd, 9), "1 3 5 7 9");
        assert_eq!(texts(&evidence, even, 2), "6 8");
        evidence.trim(&mut odd, 2);
        assert_eq!(texts(&evidence, odd, 9), "7 9");
        evidence.add(&mut odd, "11".into());
        assert_eq!(texts(&evidence, odd, 9), "7 9 11");
        evidence.trim(&mut odd, 0);
        assert_eq!((odd, texts(&evidence, odd, 9)), (Chain::default(), String::new()));
        assert_eq!(texts(&evidence, even, 9), "0 2 4 6 8");
        evidence.trim(&mut even, 0);
        assert_eq!((evidence.bytes(), evidence.lines.len()), (0, 0), "nothing is left");
        assert_eq!(evidence.forgotten(), 0);
    }

    #[test]
    fn when_it_is_full_the_oldest_line_of_all_goes() {
        let mut evidence = Evidence::new(10 * (OVERHEAD + 1));
        let (mut old, mut new) = (Chain::default(), Chain::default());
        for _ in 0..5 {
            evidence.add(&mut old, "o".into());
        }
        for _ in 0..8 {
            evidence.add(&mut new, "n".into());
        }
        assert_eq!(texts(&evidence, old, 9), "o o");
        assert_eq!((evidence.forgotten(), evidence.bytes()), (3, 10 * (OVERHEAD + 1)));
        evidence.add(&mut old, "longer than everything that there is room for ".repeat(20).into());
        assert_eq!((evidence.bytes(), texts(&evidence, old, 9)), (0, String::new()));
    }

    #[test]
    fn what_was_taken_out_is_no_loss() {
        let mut evidence = Evidence::new(4 * (OVERHEAD + 1));
        let (mut gone, mut kept) = (Chain::default(), Chain::default());
        evidence.add(&mut kept, "1".into());
        evidence.add(&mut gone, "2".into());
        evidence.trim(&mut gone, 0);
        for nth in 3..8 {
            evidence.add(&mut kept, nth.to_string().into());
        }
        assert_eq!(evidence.forgotten(), 2, "1 and 3, not 2");
        assert_eq!(texts(&evidence, kept, 9), "4 5 6 7");
    }
}
