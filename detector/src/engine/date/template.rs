//! One form that a date may have.
use std::{cell::OnceCell, ops::Range};

use jiff::civil::Weekday;

use super::{
    DateFault, codes,
    hot::{self, Hot},
    resolve::{Pieces, Week, Zone},
};
use crate::engine::{
    Timestamp,
    pattern::{Engine, Groups, Node, Options, Outcome, Pattern, Subject, Syntax, parse},
};

/// A date found by a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// All that the template matched.
    pub(super) whole: Range<usize>,
    /// The text that is the date, and is taken out of the line.
    pub(super) cut: Range<usize>,
    /// What it says; `None` when it says nothing (the template matched an empty text).
    pub(super) pieces: Option<Pieces>,
}

/// How a template finds its date.
#[derive(Debug)]
enum Finder {
    /// A pattern, compiled when first asked. `None` cannot happen for patterns checked when made.
    Pattern { text: String, edges: Edges, compiled: OnceCell<Option<Box<Pattern>>> },
    /// Unix time where logs put it: first, behind a bracket that stands first, or in `audit(…`; `long` takes
    /// milliseconds and microseconds, too.
    Epoch { long: bool },
}

/// Which ends of a pattern must not lie within a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edges {
    pub(super) start: bool,
    pub(super) end: bool,
}

/// Where the text that is left of a line can come together behind and before a date that was cut out of it: between which
/// characters. What is neither a letter nor a digit nor `_` is a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seam {
    /// Before a mark, or first in the line.
    BeforeMark,
    /// Before a mark or behind one, or first in the line.
    AtMark,
    /// Anywhere.
    Anywhere,
}

/// A form of dates with what experience says about it.
#[derive(Debug)]
pub(super) struct Template {
    /// As written: two of the same name would be one too many.
    pub(super) name: String,
    finder: Finder,
    hot: Option<Hot>,
    /// Bound to the start or end of the line: found nowhere else, so found right.
    pub(super) anchored: bool,
    pub(super) seam: Seam,
    /// How much a hit counts when templates change places.
    pub(super) weight: u64,
    pub(super) hits: u64,
    pub(super) last_used: Option<Timestamp>,
    /// Where its last match began.
    pub(super) distance: usize,
}

/// What stands before a pattern bound to the beginning: a bracket or two.
pub(super) const LINE_BEGIN: &str = r"^(?:\W{0,2})?";
/// Weight of the default templates bound to the beginning of the line, and of all others.
pub(super) const ANCHORED_WEIGHT: u64 = 100;
pub(super) const WEIGHT: u64 = 1;

impl Template {
    fn with(name: &str, finder: Finder, anchored: bool) -> Template {
        Template {
            name: name.to_owned(),
            finder,
            hot: None,
            anchored,
            // Our own begin and end with a letter or digit, which no other may follow; but those that stand first in the
            // line, but for brackets.
            seam: Seam::BeforeMark,
            weight: WEIGHT,
            hits: 0,
            last_used: None,
            distance: usize::MAX,
        }
    }

    /// Unix time where logs put it.
    pub(super) fn epoch(name: &str, long: bool) -> Template {
        Template::with(name, Finder::Epoch { long }, false)
    }

    /// A pattern with `%` codes; `whole_edges` puts the edges that keep it from matching within a word.
    pub(super) fn pattern(
        name: &str,
        text: &str,
        bound: bool,
        year: i16,
    ) -> Result<Template, DateFault> {
        let (text, named) = codes::expand(text, year)?;
        let (flags, mut body) = flags_first(&text);
        let mut edges = Edges {
            start: bound && !["^", "(^", "(?:^", "**"].iter().any(|start| body.starts_with(start)),
            end: bound && !["$", "$)", r"\b", r"\s", "**"].iter().any(|end| body.ends_with(end)),
        };
        if let Some(inner) = body.strip_prefix("**") {
            body = inner;
            edges.start = false;
        }
        if let Some(inner) = body.strip_suffix("**") {
            body = inner;
            edges.end = false;
        }
        let anchored = body.starts_with('^') || before_end(body).is_some();
        // All of a pattern is cut, or its first group. What stands before one that stands first are brackets.
        let seam = match has_plain_group(body) {
            _ if body == "^()" => Seam::BeforeMark,
            false if body.starts_with('^') => Seam::AtMark,
            _ => Seam::Anywhere,
        };
        let mut body = if has_plain_group(body) { body.to_owned() } else { whole_as_group(body) };
        body.insert_str(0, flags);
        if named {
            body.insert_str(0, "(?i)");
        }
        compile(&body, edges).map_err(DateFault::Pattern)?;
        let finder = Finder::Pattern { text: body, edges, compiled: OnceCell::new() };
        Ok(Template { seam, ..Template::with(name, finder, anchored) })
    }

    /// One of our own patterns, known to compile; compiled when first used.
    pub(super) fn known(name: &str, text: &str, year: i16) -> Template {
        let (text, named) =
            codes::expand(text, year).expect("the default templates use known codes");
        let anchored = text.starts_with('^');
        let edges = Edges { start: !anchored, end: true };
        let mut body = whole_as_group(&text);
        if named {
            body.insert_str(0, "(?i)");
        }
        let finder = Finder::Pattern { text: body, edges, compiled: OnceCell::new() };
        Template::with(name, finder, anchored)
    }

    /// The same with a reader by hand in front, which must know the template's commonest form.
    pub(super) fn with_hot(mut self, hot: Hot) -> Template {
        self.hot = Some(hot);
        self
    }

    pub(super) fn with_weight(mut self, weight: u64) -> Template {
        self.weight = weight;
        self
    }

    #[cfg(test)]
    pub(super) fn hot(&self) -> Option<Hot> {
        self.hot
    }

    /// The engine of its pattern; `None` where it is read by hand.
    pub(super) fn engine(&self) -> Option<Engine> {
        let Finder::Pattern { text, .. } = &self.finder else { return None };
        let syntax = parse(text, Options { lines: false, names_again: true }).ok()?;
        Some(Engine::of(&syntax.root)).filter(|_| self.hot.is_none())
    }

    /// Looks for the date in `line`.
    pub(super) fn find(&self, line: &str) -> Option<Found> {
        if let Some(hot) = self.hot
            && let Some(found) = hot::find(hot, line)
        {
            return Some(found);
        }
        self.find_from(line, 0)
    }

    /// The same without the reader by hand, for a date that begins at byte `from` or behind it.
    pub(super) fn find_from(&self, line: &str, from: usize) -> Option<Found> {
        let (text, edges, compiled) = match &self.finder {
            Finder::Pattern { text, edges, compiled } => (text, edges, compiled),
            Finder::Epoch { long } => return find_epoch(line, from, *long),
        };
        let pattern = compiled.get_or_init(|| compile(text, *edges).ok().map(Box::new)).as_ref()?;
        let mut groups = Groups::default();
        if pattern.search(&Subject::new(line).starting_at(from), &mut groups) != Outcome::Matched {
            return None;
        }
        let whole = groups.get(0)?;
        let cut = groups.get(1).unwrap_or(whole.clone());
        let pieces = (!cut.is_empty())
            .then(|| pieces(pattern.names(), |number| Some(&line[groups.get(number)?])));
        Some(Found { whole, cut, pieces })
    }
}

/// Whether a `(…)` without a name or `?` stands in `text`.
fn has_plain_group(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut in_class = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' if !in_class => {
                in_class = true;
                // A `]` that stands first is a member.
                at += usize::from(bytes.get(at + 1) == Some(&b'^'));
                at += usize::from(bytes.get(at + 1) == Some(&b']'));
            }
            b']' => in_class = false,
            b'(' if !in_class && bytes.get(at + 1) != Some(&b'?') => return true,
            _ => {}
        }
        at += 1;
    }
    false
}

/// Flags for all of a pattern, `(?i)`, and what follows them.
fn flags_first(text: &str) -> (&str, &str) {
    let letters = text
        .strip_prefix("(?")
        .map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_lowercase).count());
    let end = "(?".len() + letters;
    if letters > 0 && text.as_bytes().get(end) == Some(&b')') {
        text.split_at(end + 1)
    } else {
        ("", text)
    }
}

/// What stands before the `$` that a pattern ends with; `\$` is only a dollar sign.
fn before_end(text: &str) -> Option<&str> {
    let before = text.strip_suffix('$')?;
    let escapes = before.bytes().rev().take_while(|b| *b == b'\\').count();
    (escapes % 2 == 0).then_some(before)
}

/// Makes all of `text` the first group, but for what binds it to the line's ends.
fn whole_as_group(text: &str) -> String {
    let (start, rest) = match text.strip_prefix(LINE_BEGIN) {
        Some(rest) => (LINE_BEGIN, rest),
        None => text.strip_prefix('^').map_or(("", text), |rest| ("^", rest)),
    };
    let (rest, end) = before_end(rest).map_or((rest, ""), |rest| (rest, "$"));
    format!("{start}({rest}){end}")
}

fn compile(text: &str, edges: Edges) -> Result<Pattern, crate::engine::PatternError> {
    let Syntax { root, groups, names } = parse(text, Options { lines: false, names_again: true })?;
    let root = match root {
        choice @ Node::Choice(_) => Node::Group { number: None, inner: Box::new(choice) },
        root => root,
    };
    let mut parts = vec![root];
    if edges.start {
        parts.insert(0, Node::NotInWord);
    }
    if edges.end {
        parts.push(Node::NotInWord);
    }
    Pattern::from_syntax(Syntax { root: Node::Sequence(parts), groups, names })
}

/// Unix time first in the line, behind a bracket that stands first, or as in
/// `audit(1364481363.422:123)`.
fn find_epoch(line: &str, from: usize, long: bool) -> Option<Found> {
    let bytes = line.as_bytes();
    let first = usize::from(bytes.first() == Some(&b'['));
    let audits = memchr::memmem::find_iter(bytes, b"audit(");
    let audits = audits.filter(|&at| {
        !line[..at].chars().next_back().is_some_and(|c| c == '_' || c.is_alphanumeric())
    });
    let places = std::iter::once(first).chain(audits.map(|at| at + b"audit(".len()));
    let (from, to) = places
        .filter(|place| *place >= from)
        .find_map(|from| Some((from, epoch_end(bytes, from, long)?)))?;
    let pieces = Some(Pieces { unix: unix_time(&line[from..to]), ..Pieces::default() });
    Some(Found { whole: from..to, cut: from..to, pieces })
}

/// Where the Unix time that begins at `from` ends: ten or eleven digits with a fraction of three to
/// six; `long`: also with milliseconds and their fraction, or with microseconds.
fn epoch_end(bytes: &[u8], from: usize, long: bool) -> Option<usize> {
    let digits = |at: usize, most: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        rest.iter().take(most).take_while(|b| b.is_ascii_digit()).count()
    };
    let whole = digits(from, 18);
    let end = from + whole;
    // How few digits a fraction may have, where there may be one.
    let least = match whole {
        10 | 11 => (!long).then_some(3),
        13 | 14 if long => Some(1),
        16 | 17 if long => None,
        _ => return None,
    };
    if bytes.get(end).is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_' || !b.is_ascii()) {
        return None;
    }
    if let Some(least) = least
        && bytes.get(end) == Some(&b'.')
    {
        let length = digits(end + 1, 6);
        if length >= least {
            return Some(end + 1 + length);
        }
    }
    Some(end)
}

/// `1364481363.422`, and milliseconds or microseconds where there are that many digits.
pub(super) fn unix_time(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number: i64 = whole.parse().ok()?;
    let scale = match whole.len() {
        16.. => 1,
        13.. => 1_000,
        _ => 1_000_000,
    };
    let mut micros = number.checked_mul(scale)?;
    let mut place = scale / 10;
    for digit in fraction.bytes() {
        micros = micros.checked_add(i64::from(digit.checked_sub(b'0')?) * place)?;
        place /= 10;
    }
    Some(Timestamp::from_micros(micros))
}

/// Seconds of a TAI64N label: the hex digits behind `@4`.
fn tai_time(text: &str) -> Option<Timestamp> {
    i64::from_str_radix(text.get(2..17)?, 16).ok().map(Timestamp::from_seconds)
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The month, 1 to 12, whose name begins with `text`'s first three letters.
pub(super) fn month_named(text: &str) -> Option<i8> {
    let start = text.get(..3)?;
    MONTHS.iter().position(|name| name.eq_ignore_ascii_case(start)).map(|at| at as i8 + 1)
}

fn weekday_named(text: &str) -> Option<Weekday> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let start = text.get(..3)?;
    let at = DAYS.iter().position(|name| name.eq_ignore_ascii_case(start))?;
    Weekday::from_monday_zero_offset(at as i8).ok()
}

/// What the named groups of a template say.
fn pieces<'t>(names: &[(Box<str>, u32)], text: impl Fn(u32) -> Option<&'t str>) -> Pieces {
    let mut pieces = Pieces::default();
    let mut afternoon = None;
    let mut twelve = false;
    for (name, number) in names {
        let Some(text) = text(*number) else { continue };
        // Digits of other scripts match `\d` as well: they are no date anybody writes.
        let number = || text.trim_start().parse::<i16>().ok();
        let small = || text.trim_start().parse::<i8>().ok();
        match &**name {
            "Y" | "G" => pieces.year = number(),
            "y" => pieces.year = number().map(|year| year + 2000),
            "m" => pieces.month = small(),
            "b" | "B" => pieces.month = month_named(text),
            "d" => pieces.day = small(),
            "H" => pieces.hour = small().unwrap_or(-1),
            "I" => {
                twelve = true;
                pieces.hour = small().unwrap_or(-1);
            }
            "p" => afternoon = Some(text.eq_ignore_ascii_case("pm")),
            "M" => pieces.minute = small().unwrap_or(-1),
            "S" => pieces.second = small().unwrap_or(-1),
            "a" | "A" => pieces.weekday = weekday_named(text),
            "w" => {
                pieces.weekday = small().and_then(|day| Weekday::from_sunday_zero_offset(day).ok());
            }
            "u" => {
                pieces.weekday = small().and_then(|day| Weekday::from_monday_one_offset(day).ok())
            }
            "j" => pieces.day_of_year = number(),
            "U" => pieces.week = small().map(Week::FromSunday),
            "W" => pieces.week = small().map(Week::FromMonday),
            "V" => pieces.week = small().map(Week::Iso),
            "z" | "Z" => pieces.zone = Some(Zone::named(text)),
            "epoch" => pieces.unix = unix_time(text),
            "tai" => pieces.unix = tai_time(text),
            _ => {}
        }
    }
    if twelve {
        pieces.hour = match (pieces.hour, afternoon.unwrap_or(false)) {
            (12, false) => 0,
            (hour @ 1..=11, true) => hour + 12,
            (hour, _) => hour,
        };
    }
    pieces
}
