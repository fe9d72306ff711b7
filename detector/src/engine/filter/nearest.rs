//! How far a pattern got in a text that it does not match.
//!
//! The pattern is cut, as its author wrote it, into pieces: characters, classes, tags, groups, each with
//! its repetition. The longest beginning of it that is found in the text is how far it got; where the
//! next piece is a group, each of its branches is tried the same way. A beginning matches wherever a
//! longer one does, so few have to be tried.
use std::{collections::HashMap, ops::Range};

use super::tags;
use crate::{
    config::{FilterSettings, UseDns},
    engine::pattern::{Groups, Outcome, Pattern, Subject},
};

/// Compiled beginnings kept; beyond it they are compiled anew.
const MOST_KEPT: usize = 2048;
/// Pieces of a pattern; longer ones are taken as one piece.
const MOST_PIECES: usize = 4096;
/// Depth of groups that is looked into.
const DEEPEST: usize = 16;

/// How far one pattern got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// Which failregex, from 0; `None` for `prefregex`.
    pub rule: Option<usize>,
    /// Bytes of the pattern, as written, that were found.
    pub reached: usize,
    /// Pieces of it that stand for themselves, so found: how much that says.
    pub weight: usize,
    /// What they were found in, in bytes of the text that the pattern saw.
    pub found: Range<usize>,
}

/// The patterns of a filter, cut into pieces.
pub struct NearMisses {
    names: bool,
    lines: bool,
    prefix: Option<Cut>,
    rules: Vec<Cut>,
    compiled: HashMap<String, Option<Pattern>>,
}

struct Cut {
    source: String,
    branches: Vec<Vec<Piece>>,
}

/// A piece of a pattern.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    range: Range<usize>,
    /// A group that can be looked into.
    group: Option<Group>,
    /// A character that stands for itself.
    literal: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Group {
    open: Range<usize>,
    close: String,
    branches: Vec<Vec<Piece>>,
}

/// The best beginning found so far.
struct Best {
    reached: usize,
    weight: usize,
    found: Range<usize>,
}

impl NearMisses {
    /// For the patterns of this filter.
    pub fn new(filter: &FilterSettings) -> NearMisses {
        NearMisses {
            names: filter.use_dns != UseDns::No,
            lines: filter.max_lines > 1,
            prefix: filter.prefregex.as_ref().map(|regex| Cut::new(&regex.value)),
            rules: filter.failregex.iter().map(|regex| Cut::new(&regex.value)).collect(),
            compiled: HashMap::new(),
        }
    }

    /// How far `prefregex` got in `text`; `None` without one.
    pub fn prefix(&mut self, text: &str) -> Option<NearMiss> {
        let cut = self.prefix.take()?;
        let miss = self.miss(None, &cut, text, false);
        self.prefix = Some(cut);
        Some(miss)
    }

    /// How far each failregex got in `text`, the one that got furthest first.
    pub fn rules(&mut self, text: &str) -> Vec<NearMiss> {
        let cuts = std::mem::take(&mut self.rules);
        let lines = self.lines;
        let tried = cuts.iter().enumerate();
        let mut misses: Vec<NearMiss> =
            tried.map(|(nth, cut)| self.miss(Some(nth), cut, text, lines)).collect();
        self.rules = cuts;
        misses.sort_by_key(|miss| std::cmp::Reverse((miss.weight, miss.reached)));
        misses
    }

    fn miss(&mut self, rule: Option<usize>, cut: &Cut, text: &str, lines: bool) -> NearMiss {
        let mut best = Best { reached: 0, weight: 0, found: 0..0 };
        let mut search = Search { misses: self, source: &cut.source, text, lines };
        search.branches("", "", &cut.branches, 0, 0, &mut best);
        let Best { reached, weight, found } = best;
        NearMiss { rule, reached, weight, found }
    }
}

struct Search<'s> {
    misses: &'s mut NearMisses,
    source: &'s str,
    text: &'s str,
    lines: bool,
}

impl Search<'_> {
    /// Tries each branch behind `before`; `close` closes the groups that are open there.
    fn branches(
        &mut self,
        before: &str,
        close: &str,
        branches: &[Vec<Piece>],
        weight: usize,
        depth: usize,
        best: &mut Best,
    ) {
        for pieces in branches {
            self.pieces(before, close, pieces, weight, depth, best);
        }
    }

    fn pieces(
        &mut self,
        before: &str,
        close: &str,
        pieces: &[Piece],
        weight: usize,
        depth: usize,
        best: &mut Best,
    ) {
        let Some(first) = pieces.first() else { return };
        let beginning = |count: usize| match count {
            0 => before.to_owned(),
            _ => {
                format!("{before}{}", &self.source[first.range.start..pieces[count - 1].range.end])
            }
        };
        let beginnings: Vec<String> = (0..=pieces.len()).map(beginning).collect();
        // Found in the text: all up to `low`; not found: `high` and beyond.
        let (mut low, mut high) = (0, pieces.len() + 1);
        while high - low > 1 {
            let middle = low.midpoint(high);
            match self.found(&format!("{}{close}", beginnings[middle])) {
                Some(found) => {
                    low = middle;
                    let weight = weight + pieces[..low].iter().map(Piece::weight).sum::<usize>();
                    let reached = pieces[low - 1].range.end;
                    if (weight, reached) > (best.weight, best.reached) {
                        *best = Best { reached, weight, found };
                    }
                }
                None => high = middle,
            }
        }
        let Some(Piece { group: Some(group), .. }) = pieces.get(low) else { return };
        if depth < DEEPEST {
            let before = format!("{}{}", beginnings[low], &self.source[group.open.clone()]);
            let close = format!("{}{close}", group.close);
            let weight = weight + pieces[..low].iter().map(Piece::weight).sum::<usize>();
            self.branches(&before, &close, &group.branches, weight, depth + 1, best);
        }
    }

    /// Where in the text this pattern is found.
    fn found(&mut self, pattern: &str) -> Option<Range<usize>> {
        let misses = &mut *self.misses;
        if misses.compiled.len() >= MOST_KEPT {
            misses.compiled.clear();
        }
        let (names, lines) = (misses.names, self.lines);
        let compiled = misses
            .compiled
            .entry(pattern.to_owned())
            .or_insert_with(|| Pattern::new(&tags::expand(pattern, names), lines).ok());
        let mut groups = Groups::default();
        match compiled.as_ref()?.search(&Subject::new(self.text), &mut groups) {
            Outcome::Matched => groups.get(0),
            Outcome::Absent | Outcome::GaveUp => None,
        }
    }
}

impl Piece {
    fn weight(&self) -> usize {
        let inner = self.group.as_ref().map_or(0, |group| {
            let branch = |pieces: &Vec<Piece>| pieces.iter().map(Piece::weight).sum::<usize>();
            group.branches.iter().map(branch).min().unwrap_or(0)
        });
        usize::from(self.literal) + inner
    }
}

impl Cut {
    fn new(source: &str) -> Cut {
        let mut cutter = Cutter { source, at: 0, count: 0 };
        let branches = cutter.branches(None, 0);
        // What cannot be taken apart is one piece.
        let whole = cutter.at == source.len() && cutter.count <= MOST_PIECES;
        let branches = if whole {
            branches
        } else {
            vec![vec![Piece { range: 0..source.len(), group: None, literal: false }]]
        };
        Cut { source: source.to_owned(), branches }
    }
}

struct Cutter<'s> {
    source: &'s str,
    at: usize,
    count: usize,
}

impl Cutter<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    /// Branches up to `end` (not taken in), or the end of the pattern.
    fn branches(&mut self, end: Option<&str>, depth: usize) -> Vec<Vec<Piece>> {
        let mut branches = vec![Vec::new()];
        while self.at < self.source.len() && !end.is_some_and(|end| self.rest().starts_with(end)) {
            if self.rest().starts_with('|') {
                self.at += 1;
                branches.push(Vec::new());
                continue;
            }
            let (start, group) = (self.at, self.piece(depth));
            let atom = start..self.at;
            // A backslash may stand before a character that is meant as such.
            let text = self.source[atom.clone()].trim_start_matches('\\');
            let plain = text.chars().count() == 1
                && (atom.len() == text.len() || !text.starts_with(char::is_alphanumeric))
                && (atom.len() > text.len() || !text.starts_with(['.', '^', '$']));
            let repeated = self.repetition();
            self.count += 1;
            branches.last_mut().expect("there is one").push(Piece {
                range: start..self.at,
                group,
                literal: plain && !repeated,
            });
        }
        branches
    }

    /// One piece without its repetition.
    fn piece(&mut self, depth: usize) -> Option<Group> {
        let start = self.at;
        let rest = self.rest();
        let tag = rest.strip_prefix('<').and_then(|inner| inner.split_once('>'));
        if let Some((name, _)) = tag.filter(|(name, _)| is_tag(name)) {
            let opens = name.strip_prefix("F-").filter(|name| !name.ends_with('/'));
            let close = opens.map(|name| format!("</F-{name}>"));
            let length = name.len() + 2;
            return match close {
                Some(close) if self.source[start..].contains(&close) && depth < DEEPEST => {
                    self.at += length;
                    Some(self.group(start, close, depth))
                }
                _ => {
                    self.at += length;
                    None
                }
            };
        }
        match rest.as_bytes()[0] {
            b'\\' => self.at += escape_length(rest),
            b'[' => self.at += class_length(rest),
            b'(' => {
                let open = open_length(rest);
                if let Some(length) = open.filter(|_| depth < DEEPEST) {
                    self.at += length;
                    return Some(self.group(start, ")".to_owned(), depth));
                }
                self.skip_group();
            }
            _ => self.at += rest.chars().next().map_or(1, char::len_utf8),
        }
        None
    }

    fn group(&mut self, start: usize, close: String, depth: usize) -> Group {
        let open = start..self.at;
        let branches = self.branches(Some(&close), depth + 1);
        self.at = (self.at + close.len()).min(self.source.len());
        Group { open, close, branches }
    }

    /// Takes in a group that is not looked into.
    fn skip_group(&mut self) {
        let mut open = 0;
        while self.at < self.source.len() {
            let rest = self.rest();
            match rest.as_bytes()[0] {
                b'\\' => self.at += escape_length(rest),
                b'[' => self.at += class_length(rest),
                byte => {
                    open += i32::from(byte == b'(') - i32::from(byte == b')');
                    self.at += rest.chars().next().map_or(1, char::len_utf8);
                    if open == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Takes in `*`, `+?`, `{2,3}` …; says whether there was one.
    fn repetition(&mut self) -> bool {
        let rest = self.rest();
        let length = match rest.as_bytes().first() {
            Some(b'*' | b'+' | b'?') => 1,
            Some(b'{') => {
                let inner = rest[1..].find('}').map(|end| &rest[1..=end]);
                match inner.filter(|inner| {
                    !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_digit() || b == b',')
                }) {
                    Some(inner) => inner.len() + 2,
                    None => return false,
                }
            }
            _ => return false,
        };
        let more = matches!(rest.as_bytes().get(length), Some(b'?' | b'+'));
        self.at += length + usize::from(more);
        true
    }
}

fn is_tag(name: &str) -> bool {
    let known = ["HOST", "ADDR", "IP4", "IP6", "DNS", "CIDR", "SUBNET", "SKIPLINES"];
    let upper =
        |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '/');
    known.contains(&name) || name.strip_prefix("F-").is_some_and(|name| name.chars().all(upper))
}

fn escape_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let Some((at, escaped)) = chars.next() else { return rest.len() };
    let digits = |most: usize, is: fn(&char) -> bool| {
        let taken = rest[at + 1..].chars().take(most).take_while(is).count();
        at + 1 + taken
    };
    match escaped {
        'x' => digits(2, char::is_ascii_hexdigit),
        'u' => digits(4, char::is_ascii_hexdigit),
        'U' => digits(8, char::is_ascii_hexdigit),
        '0'..='9' => digits(2, char::is_ascii_digit),
        _ => at + escaped.len_utf8(),
    }
}

fn class_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1 + usize::from(bytes.get(1) == Some(&b'^'));
    // A bracket that stands first is meant as such.
    at += usize::from(bytes.get(at) == Some(&b']'));
    while at < bytes.len() {
        match bytes[at] {
            b']' => return at + 1,
            b'\\' => at += 1,
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

/// The length of what opens a group that can be looked into; `None` for conditions, look-around and the
/// like.
fn open_length(rest: &str) -> Option<usize> {
    let Some(kind) = rest.strip_prefix("(?") else { return Some(1) };
    if let Some(name) = kind.strip_prefix("P<") {
        return name.find('>').map(|end| end + 5);
    }
    let flags = kind.bytes().take_while(|b| b.is_ascii_lowercase() || *b == b'-').count();
    (kind.as_bytes().get(flags) == Some(&b':')).then_some(flags + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of the pattern was found, and in what of the text.
    #[track_caller]
    fn check(pattern: &str, text: &str, reached: &str, found: &str) {
        let cut = Cut::new(pattern);
        let mut misses = NearMisses {
            names: true,
            lines: false,
            prefix: None,
            rules: vec![cut],
            compiled: HashMap::new(),
        };
        let miss = misses.rules(&format!("{text}\n")).remove(0);
        assert_eq!((&pattern[..miss.reached], &text[miss.found]), (reached, found), "{pattern}");
    }

    #[test]
    fn the_longest_beginning_that_is_found_counts() {
        check(
            "^Failed password for <HOST>$",
            "Failed passwrd for 192.0.2.1",
            "^Failed passw",
            "Failed passw",
        );
        check(
            r"bad \d+ from <HOST>$",
            "a bad 12 from 192.0.2.1 x",
            r"bad \d+ from <HOST>",
            "bad 12 from 192.0.2.1",
        );
        check("nothing", "xyz", "", "");
    }

    #[test]
    fn groups_are_looked_into() {
        check("a (?:bcd|bxy) e", "a bcx e", "a (?:bc", "a bc");
        check("^<F-USER>bob|mallory</F-USER> from", "mallard from", "^<F-USER>bob|mall", "mall");
        check("(?P<one>a(b(c)))d", "abx", "(?P<one>a(b", "ab");
        check("(?:a|b)? c", "b d", "(?:a|b)? ", "b ");
    }

    #[test]
    fn odd_notation_is_taken_apart_all_the_same() {
        check(r"[]x]\x41\.\\<HOST", r"]A.\<HOSX", r"[]x]\x41\.\\<HOS", r"]A.\<HOS");
        check(r"a(?=b)b(?!c)c", "abc", r"a(?=b)b", "ab");
        check("a{2,3}b{x", "aab{y", "a{2,3}b{", "aab{");
        check("é+ü", "ééx", "é+", "éé");
    }
}
