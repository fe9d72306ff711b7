//! Matched lines of failures that led to no ban yet, of all jails: a queue that forgets its oldest line
//! when it is full, whoever it belongs to.
use std::{collections::VecDeque, net::Ipv6Addr};

use super::rules::{self, Rules};

/// What a line costs beside its bytes: its place in the queue and what the allocator adds.
const OVERHEAD: usize = 48;

/// The lines of one address: the number of its newest one, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain(u64);

/// 24 bytes, since there may be many.
#[derive(Debug)]
struct Line {
    /// The line; behind it the address of its failure, if `rule` has [`HAS_ADDRESS`].
    bytes: Box<[u8]>,
    /// How far back the line before it in its chain stands, 0 for none; [`GONE`] for one that was taken out. A line
    /// that stood further back than this can tell would be forgotten long since.
    back: u32,
    /// The number of the failregex that found it, and [`HAS_ADDRESS`].
    rule: u32,
}

const _: () = assert!(size_of::<Line>() == 24);

const GONE: u32 = u32::MAX;
const HAS_ADDRESS: u32 = 1 << 31;

/// A matched line on its way in.
pub(super) struct Matched {
    pub text: Box<str>,
    /// The number of its failregex in [`Rules`].
    pub rule: u32,
    /// The address that failed, where a wider prefix is counted.
    pub address: Option<Ipv6Addr>,
}

/// What a chain says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The lines, the newest last.
    pub texts: Vec<Box<str>>,
    /// The failregex of the newest.
    pub rule: u32,
    /// Addresses of their failures, each once, in the order in which they came.
    pub addresses: Vec<Ipv6Addr>,
}

impl Line {
    fn new(Matched { text, rule, address }: Matched, back: u32) -> Line {
        let Some(address) = address else {
            return Line { bytes: text.into_boxed_bytes(), back, rule };
        };
        let bytes = [text.as_bytes(), &address.octets()].concat();
        Line { bytes: bytes.into(), back, rule: rule | HAS_ADDRESS }
    }

    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    fn parts(&self) -> (&str, Option<Ipv6Addr>) {
        let (text, address) = match self.bytes.split_last_chunk::<16>() {
            Some((text, address)) if self.rule & HAS_ADDRESS != 0 => {
                (text, Some(Ipv6Addr::from(*address)))
            }
            _ => (&*self.bytes, None),
        };
        (str::from_utf8(text).expect("it was made from a text"), address)
    }
}

/// The lines.
#[derive(Debug)]
pub(super) struct Evidence {
    lines: VecDeque<Line>,
    /// The number of the first in the queue.
    first: u64,
    bytes: usize,
    limit: usize,
    forgotten: u64,
    /// What the lines were found by.
    pub rules: Rules,
}

impl Evidence {
    /// Room for so many bytes.
    pub fn new(limit: usize) -> Evidence {
        let (lines, rules) = (VecDeque::new(), Rules::default());
        Evidence { lines, first: 1, bytes: 0, limit, forgotten: 0, rules }
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
    pub fn add(&mut self, chain: &mut Chain, line: Matched) {
        let number = self.first + self.lines.len() as u64;
        let back = if chain.0 < self.first { 0 } else { number - chain.0 };
        let line = Line::new(line, u32::try_from(back).unwrap_or(0));
        self.bytes += line.cost();
        self.lines.push_back(line);
        chain.0 = number;
        while self.bytes > self.limit
            && let Some(line) = self.lines.pop_front()
        {
            self.bytes -= line.cost();
            self.first += 1;
            self.forgotten += u64::from(line.back != GONE);
        }
    }

    /// What the newest `most` lines of a chain say that are still there.
    pub fn of(&self, chain: Chain, most: usize) -> Told {
        let line = |number: u64| {
            let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
            Some((number, self.lines.get(at)?))
        };
        let older = |(number, line): &(u64, &Line)| before(*number, line);
        let newest_first =
            std::iter::successors(line(chain.0), |newer| older(newer).and_then(line));
        let lines: Vec<&Line> = newest_first.take(most).map(|(_, line)| line).collect();
        let mut told = Told {
            rule: lines.first().map_or(rules::NONE, |line| line.rule & !HAS_ADDRESS),
            ..Told::default()
        };
        for line in lines.into_iter().rev() {
            let (text, address) = line.parts();
            told.texts.push(text.into());
            told.addresses.extend(address.filter(|address| !told.addresses.contains(address)));
        }
        told
    }

    /// Forgets all of a chain but its newest `most` lines.
    pub fn trim(&mut self, chain: &mut Chain, most: usize) {
        let mut number = std::mem::take(&mut chain.0);
        let newest = number;
        let mut kept = 0;
        let mut last_kept = None;
        while let Some(line) = self.line(number) {
            let before = before(number, line);
            if kept < most {
                kept += 1;
                last_kept = Some(number);
            } else {
                let length = line.bytes.len();
                *line = Line { bytes: Box::default(), back: GONE, rule: rules::NONE };
                self.bytes -= length;
            }
            let Some(before) = before else { break };
            number = before;
        }
        if let Some(line) = last_kept.and_then(|number| self.line(number)) {
            line.back = 0;
            chain.0 = newest;
        }
        while self.lines.front().is_some_and(|line| line.back == GONE) {
            self.lines.pop_front();
            self.first += 1;
            self.bytes -= OVERHEAD;
        }
        if self.lines.capacity() > 4 * self.lines.len().max(1024) {
            self.lines.shrink_to(2 * self.lines.len());
        }
    }
}

/// The line before this one in its chain.
fn before(number: u64, line: &Line) -> Option<u64> {
    (line.back != 0).then(|| number.checked_sub(line.back.into())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(evidence: &Evidence, chain: Chain, most: usize) -> String {
        evidence.of(chain, most).texts.join(" ")
    }

    impl From<&str> for Matched {
        fn from(text: &str) -> Matched {
            Matched { text: text.into(), rule: 1, address: None }
        }
    }

    #[test]
    fn a_chain_tells_its_newest_rule_and_whom_its_lines_are_of() {
        let mut evidence = Evidence::new(10_000);
        let mut chain = Chain::default();
        let address = |nth: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, nth);
        for (nth, rule) in [(7, 1), (8, 2), (7, 3)] {
            let (text, address) = (format!("line of {nth}").into(), Some(address(nth)));
            evidence.add(&mut chain, Matched { text, rule, address });
        }
        evidence.add(&mut chain, "é".into());
        let told = evidence.of(chain, 9);
        assert_eq!(told.texts.join(", "), "line of 7, line of 8, line of 7, é");
        assert_eq!((told.rule, told.addresses), (1, vec![address(7), address(8)]));
        assert_eq!(evidence.of(chain, 2).addresses, [address(7)]);
        assert_eq!(evidence.bytes(), 4 * OVERHEAD + 3 * (9 + 16) + 2);
        evidence.trim(&mut chain, 0);
        assert_eq!((evidence.bytes(), evidence.of(chain, 9)), (0, Told::default()));
    }

    #[test]
    fn each_chain_has_its_own_lines_the_newest_last() {
        let mut evidence = Evidence::new(10_000);
        let (mut odd, mut even) = (Chain::default(), Chain::default());
        for nth in 0..10 {
            let chain = if nth % 2 == 1 { &mut odd } else { &mut even };
            evidence.add(chain, nth.to_string().as_str().into());
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
        evidence.add(
            &mut old,
            "longer than everything that there is room for ".repeat(20).as_str().into(),
        );
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
            evidence.add(&mut kept, nth.to_string().as_str().into());
        }
        assert_eq!(evidence.forgotten(), 2, "1 and 3, not 2");
        assert_eq!(texts(&evidence, kept, 9), "4 5 6 7");
    }
}
