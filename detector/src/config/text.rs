//! Text that remembers where each of its characters was written, through all substitutions.
use std::ops::Range;

use super::{Located, Place};

/// A value while it is being expanded.
///
/// A regex is often woven from several files; a mistake in it must still be reported with the line that an
/// operator wrote, so each stretch carries its place, and how deep in substitutions it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    chars: String,
    /// Sorted by `at`; the first, if any, is at 0.
    marks: Vec<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    at: usize,
    depth: u8,
    place: Option<Place>,
}

impl Text {
    /// One stretch from one place.
    pub(super) fn new(chars: &str, place: Option<Place>) -> Text {
        Text { chars: chars.to_owned(), marks: vec![Mark { at: 0, depth: 0, place }] }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.chars
    }

    pub(super) fn len(&self) -> usize {
        self.chars.len()
    }

    /// Adds a line of the same value, written at `place`.
    pub(super) fn push_line(&mut self, line: &str, place: Place) {
        if !self.marks.is_empty() {
            self.chars.push('\n');
        }
        self.marks.push(Mark { at: self.chars.len(), depth: 0, place: Some(place) });
        self.chars.push_str(line);
    }

    /// Adds a line end that stands in the file as an empty line.
    pub(super) fn push_empty_line(&mut self) {
        self.chars.push('\n');
    }

    /// Cuts the blank lines at the end, which belong to nobody.
    pub(super) fn trim_end(&mut self) {
        let end = self.chars.trim_end().len();
        self.chars.truncate(end);
        let mut first = true;
        self.marks.retain(|mark| std::mem::take(&mut first) || mark.at <= end);
    }

    /// Adds part of another text, `deeper` substitutions down. `part` lies on character boundaries.
    pub(super) fn push(&mut self, other: &Text, part: Range<usize>, deeper: u8) {
        let (Some(piece), start) = (other.chars.get(part.clone()), self.chars.len()) else {
            return;
        };
        if piece.is_empty() {
            if self.marks.is_empty() {
                self.marks
                    .extend(other.mark_at(part.start).map(|mark| Mark { at: 0, ..mark.clone() }));
            }
            return;
        }
        let from = other.marks.partition_point(|mark| mark.at <= part.start).saturating_sub(1);
        for mark in other.marks.iter().skip(from).take_while(|mark| mark.at < part.end) {
            let at = start + mark.at.saturating_sub(part.start);
            self.marks.push(Mark {
                at,
                depth: mark.depth.saturating_add(deeper),
                place: mark.place.clone(),
            });
        }
        self.chars.push_str(piece);
    }

    /// Part of it. `part` lies on character boundaries.
    pub(super) fn slice(&self, part: Range<usize>) -> Text {
        let mut slice = Text::default();
        slice.push(self, part, 0);
        slice
    }

    /// Where the character at this byte was written.
    pub(super) fn place_at(&self, at: usize) -> Option<Place> {
        self.mark_at(at).and_then(|mark| mark.place.clone())
    }

    /// Where it begins.
    pub(super) fn place(&self) -> Option<Place> {
        self.place_at(0)
    }

    fn mark_at(&self, at: usize) -> Option<&Mark> {
        let after = self.marks.partition_point(|mark| mark.at <= at);
        self.marks.get(after.saturating_sub(1))
    }

    /// Its lines without surrounding blanks and without empty ones, each with the place of its outermost part.
    pub(super) fn lines(&self) -> Vec<Located<String>> {
        let mut lines = self.whole_lines();
        lines.iter_mut().for_each(|line| line.value = line.value.trim().to_owned());
        lines
    }

    /// The same with the blanks around them, which mean something in a pattern: a substitution may have left them.
    pub(super) fn whole_lines(&self) -> Vec<Located<String>> {
        let mut start = 0;
        let mut lines = Vec::new();
        for line in self.chars.split('\n') {
            let range = start..start + line.len();
            start = range.end + 1;
            if !line.trim().is_empty() {
                lines.push(Located { value: line.to_owned(), place: self.outermost(range) });
            }
        }
        lines
    }

    /// The place of the least deep stretch: of a line woven from variables, the line that names them.
    pub(super) fn outermost(&self, range: Range<usize>) -> Option<Place> {
        let from = self.marks.partition_point(|mark| mark.at <= range.start).saturating_sub(1);
        let stretches = self
            .marks
            .iter()
            .skip(from)
            .take_while(|mark| mark.at < range.end.max(range.start + 1));
        stretches.min_by_key(|mark| mark.depth).and_then(|mark| mark.place.clone())
    }

    /// The whole as one value.
    pub(super) fn located(&self) -> Located<String> {
        Located { value: self.chars.clone(), place: self.outermost(0..self.chars.len()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use super::*;

    fn at(line: u32) -> Place {
        Place { file: Arc::new(PathBuf::from("f")), line }
    }

    fn lines_of(text: &Text) -> Vec<(String, u32)> {
        let numbered =
            |line: Located<String>| (line.value, line.place.map_or(0, |place| place.line));
        text.lines().into_iter().map(numbered).collect()
    }

    #[test]
    fn a_substituted_stretch_keeps_its_own_place_and_the_line_that_of_whoever_named_it() {
        let mut outer = Text::default();
        outer.push_line("<x> failed", at(1));
        outer.push_empty_line();
        outer.push_line("<y>", at(3));
        let inner = Text::new("prefix", Some(at(10)));
        let mut list = Text::default();
        list.push_line("one", at(20));
        list.push_line("two", at(21));

        let mut whole = Text::default();
        whole.push(&inner, 0..inner.len(), 1);
        whole.push(&outer, 3..12, 0);
        whole.push(&list, 0..list.len(), 1);
        assert_eq!(whole.as_str(), "prefix failed\n\none\ntwo");
        assert_eq!(
            lines_of(&whole),
            [("prefix failed".into(), 1), ("one".into(), 20), ("two".into(), 21)]
        );
        assert_eq!(whole.place_at(2), Some(at(10)));
        assert_eq!(lines_of(&whole.slice(15..22)), [("one".into(), 20), ("two".into(), 21)]);
    }

    #[test]
    fn blank_lines_at_the_end_are_cut() {
        let mut text = Text::default();
        text.push_line("", at(1));
        text.push_line("a", at(2));
        text.push_empty_line();
        text.push_empty_line();
        text.trim_end();
        assert_eq!(text.as_str(), "\na");
        assert_eq!(lines_of(&text), [("a".into(), 2)]);
    }
}
