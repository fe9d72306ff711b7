//! Which patterns a text can match at all: those of whose required texts one stands in it.
//!
//! Nearly every failregex cannot match without some fixed words. All these words of a filter are looked for
//! at once; a line that holds none, as most lines do, is done. What a pattern requires is read from its
//! tree, so that nothing is lost: a pattern of which nothing is known is always tried.
use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::engine::{
    date::Seam,
    pattern::{Class, Item, Node, Pattern},
};

/// Texts that a part of a pattern may be at the most; beyond it nothing is known of the part.
const MOST_TEXTS: usize = 16;
/// Bytes of such a text.
const MOST_BYTES: usize = 64;
/// Alternative words of one pattern; more of them would be found in most lines.
const MOST_WORDS: usize = 40;
/// Words shorter than this are in most lines.
const LEAST_BYTES: usize = 3;
/// Patterns told apart; those behind them are always tried.
const MOST_PATTERNS: usize = u128::BITS as usize;

/// The words of all patterns of a filter.
#[derive(Debug)]
pub(super) struct Literals {
    words: AhoCorasick,
    /// For each word, the patterns that it may let match.
    patterns: Vec<u128>,
    /// Patterns without words.
    always: u128,
}

impl Literals {
    /// What `patterns` require; `None` if that would spare no text a search.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Option<Literals> {
        let mut words: Vec<String> = Vec::new();
        let mut masks: Vec<u128> = Vec::new();
        let mut always = 0;
        for (nth, pattern) in patterns.enumerate() {
            if nth >= MOST_PATTERNS {
                return None;
            }
            let Some(required) = required(pattern.root()) else {
                always |= 1 << nth;
                continue;
            };
            for word in required {
                match words.iter().position(|known| *known == word) {
                    Some(at) => masks[at] |= 1 << nth,
                    None => {
                        words.push(word);
                        masks.push(1 << nth);
                    }
                }
            }
        }
        if words.is_empty() {
            return None;
        }
        let kind = Some(AhoCorasickKind::ContiguousNFA);
        let words = AhoCorasick::builder().kind(kind).build(&words).ok()?;
        Some(Literals { words, patterns: masks, always })
    }

    /// The patterns that `text` may match, one bit each.
    pub(super) fn candidates(&self, text: &str) -> u128 {
        let mut candidates = self.always;
        for found in self.words.find_overlapping_iter(text) {
            candidates |= self.patterns[found.pattern().as_usize()];
        }
        candidates
    }
}

/// Words of which one stands, however its date is cut out of it, in every line as it was read that one of `patterns` may
/// match. `None` if there are none: any line may.
pub(super) fn in_lines_as_read<'p>(
    patterns: impl Iterator<Item = &'p Pattern>,
    seam: Seam,
) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    for pattern in patterns {
        let pieces = |words: Vec<String>| -> Vec<String> {
            words.iter().flat_map(|word| pieces(word, seam)).map(str::to_owned).collect()
        };
        let pieces = sets(pattern.root()).map(pieces).filter(|words| is_useful(words));
        words.extend(pieces.max_by_key(|words| rarity(words))?);
    }
    // Of two of which one holds the other, the shorter is enough.
    words.sort_by_key(String::len);
    let mut least: Vec<String> = Vec::new();
    for word in words {
        if !least.iter().any(|known| word.contains(known)) {
            least.push(word);
        }
    }
    Some(least)
}

/// Parts of a word of which one stands wherever the word does after a date was cut out; empty ones where nothing is known.
fn pieces(word: &str, seam: Seam) -> Vec<&str> {
    let behind_mark = match seam {
        Seam::BeforeMark => false,
        Seam::AtMark => true,
        // Wherever a date tears it apart, one half is whole.
        Seam::Anywhere if word.is_ascii() => {
            let (first, second) = word.split_at(word.len() / 2);
            return vec![first, second];
        }
        Seam::Anywhere => return vec![""],
    };
    let is_mark = |char: char| !char.is_alphanumeric() && char != '_';
    let (mut best, mut from, mut before) = ("", 0, 'x');
    for (at, char) in word.char_indices().chain([(word.len(), ' ')]) {
        if is_mark(char) || (behind_mark && is_mark(before)) {
            let piece = &word[from..at];
            if piece.is_ascii() && weight(piece) > weight(best) {
                best = piece;
            }
            from = at;
        }
        before = char;
    }
    vec![best]
}

/// Words of which one stands in every text that the pattern matches.
fn required(root: &Node) -> Option<Vec<String>> {
    sets(root).filter(|words| is_useful(words)).max_by_key(|words| rarity(words))
}

/// Sets of words; one word of each stands in every text that the pattern matches.
fn sets(root: &Node) -> impl Iterator<Item = Vec<String>> {
    let part = Part::of(root);
    part.required.into_iter().chain(part.texts)
}

fn is_useful(words: &[String]) -> bool {
    !words.is_empty()
        && words.len() <= MOST_WORDS
        && words.iter().all(|word| word.len() >= LEAST_BYTES)
}

/// How seldom such words are, roughly: by the commonest of them; capitals and marks are rarer than small
/// letters, blanks are everywhere.
fn rarity(words: &[String]) -> usize {
    let least = words.iter().map(|word| weight(word)).min();
    // Each doubling of the alternatives takes away about half a letter.
    (least.unwrap_or(0) * 2).saturating_sub(words.len().ilog2() as usize)
}

fn weight(word: &str) -> usize {
    let weights = word.bytes().take(16).map(|byte| match byte {
        b' ' | b'\t' => 1,
        b'0'..=b'9' | b'a'..=b'z' => 2,
        _ => 3,
    });
    weights.sum()
}

/// What is known of the texts that a part of a pattern matches.
#[derive(Default)]
struct Part {
    /// All texts it matches; `None` where they are too many to tell.
    texts: Option<Vec<String>>,
    /// Sets of words; one word of each stands in every text it matches.
    required: Vec<Vec<String>>,
}

impl Part {
    fn exactly(texts: Vec<String>) -> Part {
        Part { texts: Some(texts), required: Vec::new() }
    }

    fn of(node: &Node) -> Part {
        match node {
            Node::Empty
            | Node::Start { .. }
            | Node::End { .. }
            | Node::VeryEnd
            | Node::WordEdge { .. }
            | Node::NotInWord
            | Node::Look { .. } => Part::exactly(vec![String::new()]),
            // What `prefregex` hands on gets a newline of its own: words must not span it.
            Node::Literal { char, fold } if *char != '\n' && (!fold || has_no_case(*char)) => {
                Part::exactly(vec![char.to_string()])
            }
            Node::Class(class) => Part { texts: few(class), required: Vec::new() },
            Node::Group { inner, .. } | Node::Atomic(inner) => Part::of(inner),
            Node::Repeat { inner, min, max, .. } => Part::repeated(inner, *min, *max),
            Node::Sequence(parts) => Part::sequence(parts),
            Node::Choice(branches) => Part::choice(branches.iter()),
            Node::Condition { yes, no, .. } => Part::choice([&**yes, &**no].into_iter()),
            _ => Part::default(),
        }
    }

    fn repeated(inner: &Node, min: u32, max: Option<u32>) -> Part {
        let part = Part::of(inner);
        match (min, max) {
            (1, Some(1)) => part,
            (0, Some(1)) => {
                let texts = part.texts.map(|mut texts| {
                    texts.push(String::new());
                    texts
                });
                Part {
                    texts: texts.filter(|texts| texts.len() <= MOST_TEXTS),
                    required: Vec::new(),
                }
            }
            (0, _) => Part::default(),
            _ => {
                let required = part.required.into_iter().chain(part.texts).collect();
                Part { texts: None, required }
            }
        }
    }

    fn sequence(parts: &[Node]) -> Part {
        let mut required = Vec::new();
        let mut is_exact = true;
        let mut run = vec![String::new()];
        for part in parts.iter().map(Part::of) {
            required.extend(part.required);
            let joined = part.texts.as_ref().and_then(|texts| joined(&run, texts));
            match (joined, part.texts) {
                (Some(texts), _) => run = texts,
                (None, texts) => {
                    is_exact = false;
                    required.push(std::mem::replace(
                        &mut run,
                        texts.unwrap_or_else(|| vec![String::new()]),
                    ));
                }
            }
        }
        if is_exact {
            return Part { texts: Some(run), required };
        }
        required.push(run);
        Part { texts: None, required }
    }

    fn choice<'n>(branches: impl Iterator<Item = &'n Node>) -> Part {
        let mut texts = Some(Vec::new());
        let mut words = Some(Vec::new());
        for part in branches.map(Part::of) {
            texts = texts.zip(part.texts.clone()).map(|(mut all, more)| {
                all.extend(more);
                all
            });
            let sets = part.required.into_iter().chain(part.texts);
            let best = sets.filter(|words| is_useful(words)).max_by_key(|words| rarity(words));
            words = words.zip(best).map(|(mut all, more)| {
                all.extend(more);
                all
            });
        }
        let texts = texts.filter(|texts| texts.len() <= MOST_TEXTS);
        Part { texts, required: words.into_iter().collect() }
    }
}

/// Every text of `before` with every one of `behind`.
fn joined(before: &[String], behind: &[String]) -> Option<Vec<String>> {
    if before.len() * behind.len() > MOST_TEXTS {
        return None;
    }
    let pairs =
        before.iter().flat_map(|start| behind.iter().map(move |end| format!("{start}{end}")));
    let texts: Vec<String> = pairs.collect();
    texts.iter().all(|text| text.len() <= MOST_BYTES).then_some(texts)
}

/// The characters of a small class.
fn few(class: &Class) -> Option<Vec<String>> {
    if class.negated {
        return None;
    }
    let mut chars = Vec::new();
    for item in &class.items {
        let Item::Range(from, to) = *item else { return None };
        if u32::from(to) - u32::from(from) > 3 || chars.len() > 4 {
            return None;
        }
        chars.extend(from..=to);
    }
    (chars.len() <= 4
        && !chars.contains(&'\n')
        && (!class.fold || chars.iter().all(|c| has_no_case(*c))))
    .then(|| chars.iter().map(char::to_string).collect())
}

fn has_no_case(char: char) -> bool {
    char.is_ascii() && !char.is_ascii_alphabetic()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::pattern::{Groups, Outcome, Subject};

    #[track_caller]
    fn check(pattern: &str, expect: &[&str]) {
        let pattern = Pattern::new(pattern, false).expect(pattern);
        let words = required(pattern.root()).unwrap_or_default();
        assert_eq!(words, expect);
    }

    #[test]
    fn what_a_pattern_requires_is_read_from_it() {
        check(r"^Failed \S+ for (?P<user>.*) from ([\d.]+)", &["Failed "]);
        check(
            r"^(?:error: )?Received disconnect from",
            &["error: Received disconnect from", "Received disconnect from"],
        );
        check(r"(?:bad|wrong) (?:\w+)", &["bad ", "wrong "]);
        check(
            r"^\s*[aA]uth(?:entication)? x",
            &["authentication x", "auth x", "Authentication x", "Auth x"],
        );
        check(r"(?:no such|unknown) user .* (?!x)end!", &["no such user ", "unknown user "]);
        check(r"(?i)failed .*: 12345", &[": 12345"]);
        check(r"(?:Failed )+login", &["Failed "]);
        check(r"(?:Failed login )*x", &[]);
        check(r".*", &[]);
        check(r"(a)?(?(1)bcd|efg)", &["bcd", "efg"]);
        check(r"(?P<q>.)text(?P=q)", &["text"]);
    }

    #[test]
    fn words_are_parted_where_a_date_may_have_stood() {
        let check = |word: &str, seam: Seam, expect: &[&str]| {
            assert_eq!(pieces(word, seam), expect, "{word} {seam:?}");
        };
        check("Failed password", Seam::BeforeMark, &[" password"]);
        check("] [client ", Seam::BeforeMark, &["[client"]);
        check("] [client ", Seam::AtMark, &["client"]);
        check("[] \"GET", Seam::BeforeMark, &["\"GET"]);
        check("[] \"GET", Seam::Anywhere, &["[] ", "\"GET"]);
        check("für", Seam::BeforeMark, &[""]);
    }

    proptest! {
        #[test]
        fn no_match_is_lost(
            pattern in "([a-c ]{1,4}|[a-c.^$|]|\\(|\\)|\\[|\\]|[*+?]|\\{1,2\\}|\\(\\?:|\\(\\?!|\\(\\?i:|\\(\\?P<n>|\\(\\?P=n\\)|\\\\[dswb1]){0,10}",
            text in "[a-cA ]{0,16}",
        ) {
            let Ok(pattern) = Pattern::new(&pattern, false) else { return Ok(()) };
            let Some(words) = required(pattern.root()) else { return Ok(()) };
            let outcome = pattern.search(&Subject::new(&text), &mut Groups::default());
            if outcome == Outcome::Matched {
                prop_assert!(words.iter().any(|word| text.contains(word)), "{:?}", words);
            }
        }

        #[test]
        fn no_match_is_lost_where_a_date_was_cut_out(
            pattern in "([a-c]{3,5}[ :.]{0,2}|[a-c .:]{1,3}|[a-c.|]|\\(|\\)|[*+?]){1,8}",
            text in "[a-c .:]{0,24}",
            at in 0..24_usize,
            seam in prop_oneof![Just(Seam::BeforeMark), Just(Seam::AtMark), Just(Seam::Anywhere)],
        ) {
            let Ok(pattern) = Pattern::new(&pattern, false) else { return Ok(()) };
            let Some(words) = in_lines_as_read([&pattern].into_iter(), seam) else { return Ok(()) };
            let (before, behind) = text.split_at(at.min(text.len()));
            let is_mark = |char: char| !char.is_ascii_alphanumeric();
            let may_stand = match seam {
                Seam::BeforeMark => behind.chars().next().is_none_or(is_mark),
                Seam::AtMark => {
                    behind.chars().next().is_none_or(is_mark)
                        || before.chars().next_back().is_none_or(is_mark)
                }
                Seam::Anywhere => true,
            };
            let outcome = pattern.search(&Subject::new(&text), &mut Groups::default());
            if may_stand && outcome == Outcome::Matched {
                let line = format!("{before}2026-11-22{behind}");
                prop_assert!(words.iter().any(|word| line.contains(word)), "{:?} {:?}", words, line);
            }
        }
    }
}
