//! The last lines of a log, searched together (`maxlines`).
use std::{collections::VecDeque, ops::Range};

/// Bytes of text that are kept at the most; older lines go first.
const MAX_BYTES: usize = 1 << 20;

/// One line: what patterns see of it, and how it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// Without its date.
    text: Box<str>,
    evidence: Box<str>,
}

/// The last lines that no match has used up.
#[derive(Debug)]
pub(super) struct Buffer {
    most: usize,
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Buffer {
    /// Keeps at most `most` lines.
    pub(super) fn new(most: usize) -> Buffer {
        Buffer { most, lines: VecDeque::new(), bytes: 0 }
    }

    /// Adds a line and writes all of them into `joined`, each with its newline.
    pub(super) fn push(&mut self, text: &str, evidence: &str, joined: &mut String) {
        self.bytes += text.len();
        self.lines.push_back(Line { text: text.into(), evidence: evidence.into() });
        while self.lines.len() > self.most || (self.bytes > MAX_BYTES && self.lines.len() > 1) {
            if let Some(line) = self.lines.pop_front() {
                self.bytes -= line.text.len();
            }
        }
        joined.clear();
        for line in &self.lines {
            joined.push_str(&line.text);
            joined.push('\n');
        }
    }

    /// The lines that a match of these bytes of the joined text touches; those within one of `skipped`
    /// are not among them.
    pub(super) fn touched(&self, matched: &Range<usize>, skipped: &[Range<usize>]) -> Vec<usize> {
        let mut start = 0;
        let mut touched = Vec::new();
        for (nth, line) in self.lines.iter().enumerate() {
            let end = start + line.text.len() + 1;
            let in_match = matched.start < end && matched.end > start;
            if in_match && !skipped.iter().any(|skip| skip.start <= start && end <= skip.end) {
                touched.push(nth);
            }
            start = end;
        }
        touched
    }

    /// What patterns see of these lines.
    pub(super) fn text_of(&self, lines: &[usize]) -> String {
        let mut out = String::new();
        for &nth in lines {
            out.push_str(&self.lines[nth].text);
            out.push('\n');
        }
        out
    }

    /// These lines as they were read.
    pub(super) fn evidence_of(&self, lines: &[usize]) -> Vec<Box<str>> {
        lines.iter().map(|&nth| self.lines[nth].evidence.clone()).collect()
    }

    /// Forgets these lines: a match has used them up.
    pub(super) fn remove(&mut self, lines: &[usize]) {
        let mut nth = 0;
        self.lines.retain(|line| {
            let keep = !lines.contains(&nth);
            nth += 1;
            if !keep {
                self.bytes -= line.text.len();
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_uses_up_the_lines_it_touches_but_not_those_it_skips() {
        let mut buffer = Buffer::new(4);
        let mut joined = String::new();
        for line in ["zero", "one", "two", "three", "four"] {
            buffer.push(line, &line.to_uppercase(), &mut joined);
        }
        assert_eq!(joined, "one\ntwo\nthree\nfour\n");
        let matched = joined.find("wo").expect("there")..joined.find("ur").expect("there");
        let skipped = joined.find("three").expect("there")..joined.find("four").expect("there");
        let touched = buffer.touched(&matched, &[skipped]);
        assert_eq!(buffer.text_of(&touched), "two\nfour\n");
        assert_eq!(buffer.evidence_of(&touched), ["TWO".into(), "FOUR".into()]);
        buffer.remove(&touched);
        buffer.push("five", "FIVE", &mut joined);
        assert_eq!(joined, "one\nthree\nfive\n");
    }

    #[test]
    fn long_lines_do_not_pile_up() {
        let mut buffer = Buffer::new(1000);
        let mut joined = String::new();
        let long = "x".repeat(MAX_BYTES / 3);
        for _ in 0..10 {
            buffer.push(&long, "", &mut joined);
        }
        assert!(joined.len() <= MAX_BYTES + 3);
    }
}
