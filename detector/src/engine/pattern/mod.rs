//! Python's regular expressions on engines that an attacker cannot stall.
//!
//! A pattern is read into a tree ([`parse`]). Texts of ASCII are searched by a small matcher of our own ([`quick`]), which
//! decides nearly all of them; what it gives up, and all other texts, by the engine that can run the pattern, which is
//! written again for it ([`print`]): `regex` (time linear in the text) wherever the pattern is regular, else `fancy-regex`, which
//! tries again and again and is stopped after a number of tries; before it, a regular pattern that
//! matches wherever the real one does says which texts need no try. Texts of ASCII alone take a smaller
//! and faster twin; the others are compiled when the first text asks for them.
//!
//! The text is searched, not matched whole; groups are those of Python: the first branch that lets
//! the rest match wins, a group remembers its last turn, one that took no part is `None`.
mod parse;
mod print;
mod quick;
mod review;
mod syntax;

use std::{
    cell::{OnceCell, RefCell},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

pub(crate) use parse::{Options, parse};
use print::{Dialect, print};
pub use review::{Engine, Forgery};
pub(crate) use review::{remembers_otherwise, review};
pub(crate) use syntax::{Class, Item, Node, Syntax};

/// Bytes that a compiled pattern may take: what stock filters need is below a tenth of it.
const SIZE_LIMIT: usize = 4 << 20;
/// The same for the twin that knows all of Unicode.
const UNICODE_SIZE_LIMIT: usize = 32 << 20;
/// Tries of an engine that backtracks: under a millisecond's worth, with room for a slower machine.
const BACKTRACK_LIMIT: usize = 5_000;
/// Texts longer than this are not given to an engine that backtracks: each of its tries may look at
/// the whole of it. Syslog daemons and web servers cut lines at this length or below.
const BACKTRACK_TEXT: usize = 8 << 10;
/// Steps of a program for the engine that backtracks.
const PROGRAM_LIMIT: usize = 100_000;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing there, which would match everything.
    #[error("is empty")]
    Empty,
    /// Not Python's notation.
    #[error("has {fault}, at character {at} of the expanded pattern, near `{near}`")]
    Syntax {
        /// What is wrong.
        fault: SyntaxFault,
        /// Where, in characters from 0 of the pattern after its tags were replaced.
        at: usize,
        /// What stands there, a little before and behind.
        near: String,
    },
    /// Counted repetitions multiplied.
    #[error("takes more than {limit} bytes once compiled")]
    TooLarge {
        /// The limit passed.
        limit: usize,
    },
    /// The engine says no.
    #[error("is refused by the engine: {0}")]
    Engine(String),
}

impl PatternError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            PatternError::Empty => "remove it, or write a pattern",
            PatternError::TooLarge { .. } => "lower the numbers in its `{m,n}`",
            PatternError::Engine(_) => "write it in another way",
            PatternError::Syntax { fault, .. } => match fault {
                SyntaxFault::GlobalFlag => "write `(?i:…)` around what it is for",
                SyntaxFault::NameTwice(_) => {
                    "a pattern names an address, and every other thing, only once"
                }
                SyntaxFault::Unopened
                | SyntaxFault::Unclosed
                | SyntaxFault::UnclosedClass
                | SyntaxFault::NothingToRepeat
                | SyntaxFault::MultipleRepeat => {
                    "complete it, or write a backslash before the character if it is meant as such"
                }
                _ => "correct it: patterns are written as for Python's `re`",
            },
        }
    }
}

/// What is wrong in a pattern's notation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxFault {
    /// `)` without `(`.
    #[error("a `)` that closes nothing")]
    Unopened,
    /// `(` without `)`, or a name without its end.
    #[error("a group that is not closed")]
    Unclosed,
    /// `[` without `]`.
    #[error("a `[` that is not closed")]
    UnclosedClass,
    /// `**` and the like.
    #[error("a repetition of a repetition")]
    MultipleRepeat,
    /// `*` first.
    #[error("a repetition of nothing")]
    NothingToRepeat,
    /// `{3,2}`, or numbers beyond 32 bits.
    #[error("a repetition that counts backwards or too far")]
    Bounds,
    /// `[z-a]`.
    #[error("a range in `[…]` that runs backwards or ends in no character")]
    Range,
    /// `\q`.
    #[error("an escape that means nothing")]
    Escape,
    /// `(?q)`.
    #[error("an unknown flag")]
    Flag,
    /// `(?i)` elsewhere than first.
    #[error("a flag for all of the pattern that does not stand first")]
    GlobalFlag,
    /// `(?…` unknown.
    #[error("an unknown kind of group")]
    Extension,
    /// More than two branches in a condition.
    #[error("a condition with more than two branches")]
    Condition,
    /// `(?P<1>…)`.
    #[error("a group name `{0}` that is no name")]
    Name(Box<str>),
    /// The same name twice.
    #[error("the group `{0}` twice")]
    NameTwice(Box<str>),
    /// `(?P=who)`.
    #[error("a reference to a group `{0}` that does not stand before it")]
    UnknownGroup(Box<str>),
    /// `(a\1)`.
    #[error("a reference to a group from within")]
    OpenGroup,
    /// Nested too deep.
    #[error("groups nested too deep")]
    TooDeep,
    /// Too many groups.
    #[error("too many groups")]
    TooManyGroups,
}

/// A text to search, with what engines want to know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'t> {
    text: &'t str,
    /// No match begins before this byte, though patterns may look there.
    from: usize,
    ascii: bool,
    /// Newlines elsewhere than at its end.
    many_lines: bool,
}

impl<'t> Subject<'t> {
    pub(crate) fn new(text: &'t str) -> Subject<'t> {
        let body = text.strip_suffix('\n').unwrap_or(text);
        Subject {
            text,
            from: 0,
            ascii: text.is_ascii(),
            many_lines: memchr::memchr(b'\n', body.as_bytes()).is_some(),
        }
    }

    /// The same, for matches that begin at byte `from` or behind it.
    pub(crate) fn starting_at(self, from: usize) -> Subject<'t> {
        Subject { from, ..self }
    }

    pub(crate) fn text(&self) -> &'t str {
        self.text
    }
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Found; the groups tell what.
    Matched,
    /// Not there.
    Absent,
    /// Stopped undecided: too many tries, or a text too long for an engine that backtracks.
    GaveUp,
}

/// Where the groups of the last match lie; group 0 is the whole match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups(Vec<Option<Range<usize>>>);

impl Groups {
    /// The bytes of group `number`, if it took part.
    pub(crate) fn get(&self, number: u32) -> Option<Range<usize>> {
        self.0.get(number as usize)?.clone()
    }

    fn fill(&mut self, count: u32, get: impl Fn(usize) -> Option<Range<usize>>) {
        self.0.clear();
        self.0.extend((0..=count as usize).map(get));
    }
}

/// What two engines said of the same texts.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    /// Texts that both decided.
    pub(crate) compared: AtomicU64,
    /// Those of which they said different things.
    pub(crate) differing: AtomicU64,
    /// The first of these.
    pub(crate) first: Mutex<Option<Box<str>>>,
}

/// Where an engine writes down where groups lie.
#[derive(Debug, Default)]
struct Spots {
    ascii: RefCell<Option<regex::bytes::CaptureLocations>>,
    unicode: RefCell<Option<regex::CaptureLocations>>,
}

/// A pattern ready to search with.
#[derive(Debug)]
pub(crate) struct Pattern {
    syntax: Syntax,
    regular: bool,
    /// Tried first, for texts of ASCII alone.
    quick: Option<quick::Program>,
    /// For texts of ASCII alone; `None` where the pattern itself goes beyond it. Where the pattern is
    /// not regular this one matches more than it.
    ascii: Option<regex::bytes::Regex>,
    unicode: OnceCell<Option<regex::Regex>>,
    fancy: OnceCell<Option<fancy_regex::Regex>>,
    /// Memory for where groups lie, made by the first match.
    spots: Spots,
    memory: RefCell<quick::Memory>,
    /// There where every text is searched twice.
    shadow: OnceCell<Arc<Shadow>>,
    gave_up: Arc<AtomicU64>,
}

impl Pattern {
    /// Compiles Python notation; `lines` is Python's `MULTILINE`.
    pub(crate) fn new(pattern: &str, lines: bool) -> Result<Pattern, PatternError> {
        if pattern.is_empty() {
            return Err(PatternError::Empty);
        }
        Pattern::from_syntax(parse(pattern, Options { lines, names_again: false })?)
    }

    /// Compiles a tree.
    pub(crate) fn from_syntax(syntax: Syntax) -> Result<Pattern, PatternError> {
        let regular = !syntax.root.needs_backtracking();
        let beyond_ascii = syntax.root.beyond_ascii();
        let ascii = if beyond_ascii { None } else { Some(compile_ascii(&syntax.root, regular)?) };
        let pattern = Pattern {
            regular,
            quick: quick::Program::new(&syntax),
            memory: RefCell::default(),
            shadow: OnceCell::new(),
            ascii,
            unicode: OnceCell::new(),
            fancy: OnceCell::new(),
            spots: Spots::default(),
            gave_up: Arc::default(),
            syntax,
        };
        if !regular {
            let fancy = pattern.compile_fancy()?;
            return Ok(Pattern { fancy: OnceCell::from(Some(fancy)), ..pattern });
        }
        if beyond_ascii {
            let unicode = pattern.compile_unicode()?;
            return Ok(Pattern { unicode: OnceCell::from(Some(unicode)), ..pattern });
        }
        Ok(pattern)
    }

    /// Groups with names, in the order of their numbers.
    pub(crate) fn names(&self) -> &[(Box<str>, u32)] {
        &self.syntax.names
    }

    /// What it means.
    pub(crate) fn root(&self) -> &Node {
        &self.syntax.root
    }

    /// Runs on an engine whose time is linear in the text.
    pub(crate) fn is_regular(&self) -> bool {
        self.regular
    }

    /// How many searches ended undecided, counted on.
    pub(crate) fn gave_up(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.gave_up)
    }

    /// Looks for the leftmost match.
    pub(crate) fn search(&self, subject: &Subject<'_>, groups: &mut Groups) -> Outcome {
        let outcome = match self.shadow.get() {
            None => self.run(subject, groups),
            Some(shadow) => self.run_twice(subject, groups, shadow),
        };
        if outcome == Outcome::GaveUp {
            self.gave_up.fetch_add(1, Relaxed);
        }
        outcome
    }

    fn run(&self, subject: &Subject<'_>, groups: &mut Groups) -> Outcome {
        match self.run_quickly(subject, groups) {
            Outcome::GaveUp => self.run_surely(subject, groups),
            outcome => outcome,
        }
    }

    /// By the matcher of our own alone.
    fn run_quickly(&self, subject: &Subject<'_>, groups: &mut Groups) -> Outcome {
        let Some(quick) = self.quick.as_ref().filter(|_| subject.ascii) else {
            return Outcome::GaveUp;
        };
        let mut memory = self.memory.borrow_mut();
        match quick.search(subject.text.as_bytes(), subject.from, &mut memory) {
            quick::Ended::Matched => {
                groups.fill(self.syntax.groups, |number| memory.group(number));
                Outcome::Matched
            }
            quick::Ended::Absent => Outcome::Absent,
            quick::Ended::OverBudget => Outcome::GaveUp,
        }
    }

    /// By both, compared; what the other engines say counts.
    fn run_twice(&self, subject: &Subject<'_>, groups: &mut Groups, shadow: &Shadow) -> Outcome {
        let mut quick_groups = Groups::default();
        let quick = self.run_quickly(subject, &mut quick_groups);
        let sure = self.run_surely(subject, groups);
        if quick == Outcome::GaveUp || sure == Outcome::GaveUp {
            if quick != Outcome::GaveUp {
                *groups = quick_groups;
                return quick;
            }
            return sure;
        }
        shadow.compared.fetch_add(1, Relaxed);
        if quick != sure || (sure == Outcome::Matched && quick_groups != *groups) {
            shadow.differing.fetch_add(1, Relaxed);
            let mut first = shadow.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| subject.text.into());
        }
        sure
    }

    /// From now on searches every text by both engines, and compares.
    pub(crate) fn verify(&self) {
        self.shadow.get_or_init(Arc::default);
    }

    /// What came of that; `None` where every text is searched once.
    pub(crate) fn shadow(&self) -> Option<Arc<Shadow>> {
        self.shadow.get().cloned()
    }

    /// The same without the matcher of our own.
    fn run_surely(&self, subject: &Subject<'_>, groups: &mut Groups) -> Outcome {
        let Subject { text, from, .. } = *subject;
        let count = self.syntax.groups;
        // Only an engine that looks ahead can tell the last newline from an earlier one.
        let last_newline = subject.many_lines && self.syntax.root.asks_for_the_end();
        let exact = self.regular && !last_newline;
        if subject.ascii
            && let Some(ascii) = &self.ascii
        {
            // Most lines match nothing, and to learn that needs neither groups nor another engine.
            if !ascii.is_match_at(text.as_bytes(), from) {
                return Outcome::Absent;
            }
            if exact {
                let mut spots = self.spots.ascii.borrow_mut();
                let spots = spots.get_or_insert_with(|| ascii.capture_locations());
                if ascii.captures_read_at(spots, text.as_bytes(), from).is_none() {
                    return Outcome::Absent;
                }
                groups.fill(count, |number| spots.get(number).map(|(from, to)| from..to));
                return Outcome::Matched;
            }
        }
        if !exact {
            return self.search_fancy(text, from, groups);
        }
        let Some(unicode) = self.unicode.get_or_init(|| self.compile_unicode().ok()) else {
            return Outcome::GaveUp;
        };
        if !unicode.is_match_at(text, from) {
            return Outcome::Absent;
        }
        let mut spots = self.spots.unicode.borrow_mut();
        let spots = spots.get_or_insert_with(|| unicode.capture_locations());
        if unicode.captures_read_at(spots, text, from).is_none() {
            return Outcome::Absent;
        }
        groups.fill(count, |number| spots.get(number).map(|(from, to)| from..to));
        Outcome::Matched
    }

    fn search_fancy(&self, text: &str, from: usize, groups: &mut Groups) -> Outcome {
        if text.len() > BACKTRACK_TEXT {
            return Outcome::GaveUp;
        }
        let Some(fancy) = self.fancy.get_or_init(|| self.compile_fancy().ok()) else {
            return Outcome::GaveUp;
        };
        match fancy.captures_from_pos(text, from) {
            Ok(Some(captures)) => {
                groups.fill(self.syntax.groups, |number| {
                    captures.get(number).map(|found| found.range())
                });
                Outcome::Matched
            }
            Ok(None) => Outcome::Absent,
            Err(_) => Outcome::GaveUp,
        }
    }

    fn compile_unicode(&self) -> Result<regex::Regex, PatternError> {
        let text = print(&self.syntax.root, Dialect::Unicode);
        regex::RegexBuilder::new(&text).size_limit(UNICODE_SIZE_LIMIT).build().map_err(engine_error)
    }

    fn compile_fancy(&self) -> Result<fancy_regex::Regex, PatternError> {
        let text = print(&self.syntax.root, Dialect::Fancy);
        fancy_regex::RegexBuilder::new(&text)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(UNICODE_SIZE_LIMIT)
            .max_prog_size(PROGRAM_LIMIT)
            .build()
            .map_err(|error| PatternError::Engine(error.to_string()))
    }
}

fn compile_ascii(root: &Node, regular: bool) -> Result<regex::bytes::Regex, PatternError> {
    let text =
        if regular { print(root, Dialect::Ascii) } else { print(&root.relaxed(), Dialect::Ascii) };
    regex::bytes::RegexBuilder::new(&text)
        .unicode(false)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(engine_error)
}

fn engine_error(error: regex::Error) -> PatternError {
    match error {
        regex::Error::CompiledTooBig(limit) => PatternError::TooLarge { limit },
        error => PatternError::Engine(error.to_string()),
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
