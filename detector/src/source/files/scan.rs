//! Blocks of a log searched for the words that its jails wait for: a line that holds none of them is never cut out.
use aho_corasick::{AhoCorasick, packed};

use super::super::jail::Jail;

/// The words of all jails of a thread.
#[derive(Debug)]
pub(crate) struct Scan {
    searcher: Searcher,
    /// For each word, the jails that wait for it, by their number on this thread.
    jails: Vec<Vec<usize>>,
    /// For each jail, whether it waits for words; else it wants every line.
    has_words: Vec<bool>,
}

#[derive(Debug)]
enum Searcher {
    /// Compares many bytes at once; for few words, on machines that can.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

/// A word in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) start: usize,
    word: usize,
}

impl Scan {
    /// `None` if no jail waits for words.
    pub(crate) fn new(jails: &[Jail]) -> Option<Scan> {
        let mut wanted: Vec<(&str, Vec<usize>)> = Vec::new();
        for (jail, words) in jails.iter().enumerate() {
            for word in words.words().unwrap_or_default() {
                match wanted.iter_mut().find(|(known, _)| known == word) {
                    Some((_, jails)) => jails.push(jail),
                    None => wanted.push((word, vec![jail])),
                }
            }
        }
        let has_words: Vec<bool> = jails.iter().map(|jail| jail.words().is_some()).collect();
        if !has_words.contains(&true) {
            return None;
        }
        // A word within another is found first and stands for both.
        wanted.sort_by_key(|(word, _)| word.len());
        let mut words: Vec<(&str, Vec<usize>)> = Vec::new();
        for (word, jails) in wanted {
            let within: Vec<usize> =
                (0..words.len()).filter(|&at| word.contains(words[at].0)).collect();
            for &at in &within {
                words[at].1.extend(&jails);
            }
            if within.is_empty() {
                words.push((word, jails));
            }
        }
        let texts = || words.iter().map(|(word, _)| *word);
        let packed = packed::Config::new().builder().extend(texts()).build();
        let searcher = match packed {
            Some(packed) => Searcher::Packed(packed),
            None => Searcher::Automaton(AhoCorasick::new(texts()).ok()?),
        };
        let jails = words.into_iter().map(|(_, jails)| jails).collect();
        Some(Scan { searcher, jails, has_words })
    }

    /// Whether this jail can do without lines that hold none of its words.
    pub(crate) fn serves(&self, jail: usize) -> bool {
        self.has_words[jail]
    }

    /// How many jails there are on the thread.
    pub(crate) fn count(&self) -> usize {
        self.has_words.len()
    }

    /// The first word in these bytes of the block.
    pub(crate) fn find(&self, block: &[u8], from: usize, to: usize) -> Option<Hit> {
        let found = match &self.searcher {
            Searcher::Packed(searcher) => {
                let found =
                    searcher.find_in(&block[..to], aho_corasick::Span { start: from, end: to });
                found.map(|found| (found.start(), found.pattern()))
            }
            Searcher::Automaton(searcher) => {
                let input = aho_corasick::Input::new(block).range(from..to);
                searcher.find(input).map(|found| (found.start(), found.pattern()))
            }
        };
        found.map(|(start, word)| Hit { start, word: word.as_usize() })
    }

    /// Marks the jails that wait for the word, or for any other in the rest of its line.
    pub(crate) fn mark(&self, block: &[u8], hit: Hit, line_end: usize, wanted: &mut [bool]) {
        wanted.fill(false);
        let mut hit = Some(hit);
        while let Some(Hit { start, word }) = hit {
            for &jail in &self.jails[word] {
                wanted[jail] = true;
            }
            if *wanted == self.has_words[..] {
                break;
            }
            hit = self.find(block, start + 1, line_end);
        }
    }
}
