//! Finds the date in a line and says when that was.
//!
//! Logs write dates in many forms, and some texts can be read in several (`07-08-2008`). So a jail
//! learns: the template used last is tried first, in the place where it matched last, and templates
//! that match often move up. The rules are fail2ban's, so that the same log is read the same way.
//!
//! The hour of a line without a zone is that of `logtimezone`, else of this machine.
mod codes;
mod hot;
mod list;
mod resolve;
mod shown;
mod template;
mod zones;

use std::ops::Range;

pub use codes::UnknownCode;
use jiff::tz::TimeZone;
use resolve::Home;
pub use shown::in_words as date_in_words;
pub(crate) use template::Seam;
use template::{Found, Template};

use super::pattern::Engine;
use crate::engine::{PatternError, Timestamp};

/// A template used this long ago may lose its place to any other: seconds.
const UNUSED: std::time::Duration = std::time::Duration::from_secs(300);

/// So many dates in a row by the same template, and lines in which nothing else is of interest need not be dated.
const SETTLED: u32 = 50;

/// Why an entry of `datepattern` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DateFault {
    /// A code that does not exist.
    #[error(transparent)]
    Code(UnknownCode),
    /// No pattern.
    #[error(transparent)]
    Pattern(PatternError),
    /// The same entry twice.
    #[error("stands there twice")]
    Twice,
}

impl From<UnknownCode> for DateFault {
    fn from(code: UnknownCode) -> DateFault {
        DateFault::Code(code)
    }
}

/// A date in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dated {
    /// The bytes that are the date; filters see the line without them.
    pub(crate) cut: Range<usize>,
    /// When that was; `None` for a date that does not exist, or an empty one.
    pub(crate) at: Option<Timestamp>,
    /// It is empty (`{NONE}`): lines of this log have no date, and none is missed.
    pub(crate) is_empty: bool,
}

impl Dated {
    /// It says when, or need not.
    fn is_good(&self) -> bool {
        self.at.is_some() || self.is_empty
    }
}

/// A jail's date templates and what it has learned about them.
#[derive(Debug)]
pub(crate) struct Detector {
    entries: Vec<String>,
    seam: Seam,
    home: Home,
    /// Made anew when `%ExY` takes another decade; before the first line there are none.
    templates: Vec<Template>,
    last_year: i16,
    /// The template used last, and where.
    last: Option<usize>,
    last_match: LastMatch,
    /// How many dates in a row the template used last has found.
    in_a_row: u32,
    /// Templates at this place and behind it were never used, as far as is known.
    first_unused: usize,
}

/// Where a date was found last, in characters, and what stood around it.
#[derive(Debug)]
struct LastMatch {
    start: usize,
    end: usize,
    before: Border,
    behind: Border,
}

/// The characters on both sides of a match's end, `None` beyond the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Border {
    outside: Option<char>,
    inside: Option<char>,
}

impl Border {
    /// Around the bytes from `start` to `end`, both of which begin a character or end the line.
    fn at(line: &str, start: usize, end: usize) -> (Border, Border) {
        let before = |at: usize| line.get(..at).and_then(|text| text.chars().next_back());
        let behind = |at: usize| line.get(at..).and_then(|text| text.chars().next());
        (
            Border { outside: before(start), inside: behind(start) },
            Border { outside: behind(end), inside: before(end) },
        )
    }

    /// Whether a match that ended here last may end here again.
    fn fits(self, now: Border) -> bool {
        self.outside == now.outside
            || (self.inside == now.inside && !self.inside.is_some_and(char::is_alphanumeric))
    }
}

/// How many characters stand before byte `at`: places are remembered so, for lines that differ before the
/// date differ in bytes more often.
fn column(line: &str, at: usize) -> usize {
    if line.is_ascii() { at } else { line[..at].chars().count() }
}

/// The byte at which character `column` begins; the line's end for one beyond it by no more than one.
fn byte_at(line: &str, column: usize) -> Option<usize> {
    if line.is_ascii() {
        return (column <= line.len()).then_some(column);
    }
    line.char_indices().map(|(at, _)| at).chain([line.len()]).nth(column)
}

/// The engine that an entry of `datepattern` runs on: the most costly of its templates; `None` where all are read by
/// hand, or the entry cannot be used.
pub(crate) fn engine(entry: &str) -> Option<Engine> {
    let engines =
        list::entry(entry, 2000).ok()?.into_iter().filter_map(|template| template.engine());
    engines.reduce(|one, other| if one == Engine::Regex { other } else { one })
}

impl Detector {
    /// The templates of `datepattern`, one entry each; without entries the default ones. Entries that
    /// cannot be used are returned by their number and left out.
    pub(crate) fn new(entries: &[&str], home: TimeZone) -> (Detector, Vec<(usize, DateFault)>) {
        let mut good: Vec<String> = Vec::new();
        let mut faults = Vec::new();
        let mut seam = Seam::BeforeMark;
        for (nth, text) in entries.iter().enumerate() {
            if good.iter().any(|known| known == text) {
                faults.push((nth, DateFault::Twice));
                continue;
            }
            match list::entry(text, 2000) {
                Err(fault) => faults.push((nth, fault)),
                Ok(templates) => {
                    seam = templates.iter().fold(seam, |seam, template| seam.max(template.seam));
                    good.push((*text).to_owned());
                }
            }
        }
        let detector = Detector {
            entries: good,
            seam,
            home: Home::new(home),
            templates: Vec::new(),
            last_year: i16::MIN,
            last: None,
            last_match: LastMatch {
                start: 1,
                end: 1,
                before: Border { outside: None, inside: None },
                behind: Border { outside: None, inside: None },
            },
            in_a_row: 0,
            first_unused: 0,
        };
        (detector, faults)
    }

    /// Sets the zone of lines without one; `false` when `text` names none.
    pub(crate) fn set_zone(&mut self, text: &str) -> bool {
        self.home.set_written(text)
    }

    /// The date in `line`, from which the next line's is learned.
    pub(crate) fn find(&mut self, line: &str, now: Timestamp) -> Option<Dated> {
        self.prepare(now);
        let Some((nth, found)) = self.choose(line) else {
            self.in_a_row = 0;
            return None;
        };
        let dated = self.dated(&found, now);
        let again = self.last == Some(nth) && dated.is_good();
        self.in_a_row = if again { self.in_a_row.saturating_add(1) } else { 0 };
        self.learn(nth, &found, line, now);
        Some(dated)
    }

    /// Where dates may be cut out of lines.
    pub(crate) fn seam(&self) -> Seam {
        self.seam
    }

    /// The same as [`find`](Detector::find), `skipped` lines after the one before it, if the lines of this log have been
    /// dated by the same template for long and this one is, too: what was skipped then taught nothing new. Else `None`, and
    /// nothing is learned.
    pub(crate) fn find_as_ever(
        &mut self,
        line: &str,
        skipped: u64,
        now: Timestamp,
    ) -> Option<Dated> {
        if self.in_a_row < SETTLED {
            return None;
        }
        self.prepare(now);
        let (nth, found) = self.choose(line)?;
        let dated = self.dated(&found, now);
        if self.last != Some(nth) || !dated.is_good() {
            return None;
        }
        self.templates[nth].hits += skipped;
        self.learn(nth, &found, line, now);
        Some(dated)
    }

    /// The date in `line`, without learning from it.
    pub(crate) fn peek(&mut self, line: &str, now: Timestamp) -> Option<Dated> {
        self.prepare(now);
        let (_, found) = self.choose(line)?;
        Some(self.dated(&found, now))
    }

    fn dated(&self, found: &Found, now: Timestamp) -> Dated {
        let at = found.pieces.as_ref().and_then(|pieces| self.home.resolve(pieces, now));
        Dated { cut: found.cut.clone(), at, is_empty: found.pieces.is_none() }
    }

    fn prepare(&mut self, now: Timestamp) {
        let year = self.home.today(now).year();
        let last_year = list::last_year(year);
        if last_year == self.last_year {
            return;
        }
        self.last_year = last_year;
        self.templates.clear();
        for entry in &self.entries {
            for template in list::entry(entry, year).unwrap_or_default() {
                if !self.templates.iter().any(|known| known.name == template.name) {
                    self.templates.push(template);
                }
            }
        }
        if self.templates.is_empty() {
            self.templates = list::defaults(year);
        }
        self.last = None;
        self.in_a_row = 0;
        self.first_unused = 0;
    }

    /// The template that wins for `line`, and what it found.
    fn choose(&self, line: &str) -> Option<(usize, Found)> {
        let mut candidate: Option<(usize, Found)> = None;
        let mut tried = None;
        if let Some(last) = self.last {
            let template = &self.templates[last];
            let (found, whole_line) = self.try_last(template, line);
            if whole_line {
                tried = Some(last);
            }
            if let Some(found) = found {
                let same_place = column(line, found.whole.start) == self.last_match.start
                    && column(line, found.whole.end) == self.last_match.end;
                if template.anchored || self.templates.len() == 1 || same_place {
                    return Some((last, found));
                }
                candidate = Some((last, found));
            }
        }
        let count = self.templates.len();
        for (nth, template) in self.templates.iter().enumerate() {
            if tried == Some(nth) {
                continue;
            }
            let Some(found) = template.find(line) else { continue };
            let start = found.whole.start;
            let next_unused = self.templates.get(nth + 1).is_some_and(|next| next.hits == 0);
            let wins = nth + 1 == count
                || template.anchored
                || (start == 0 && template.hits > 0 && next_unused)
                || column(line, start) <= template.distance.min(self.last_match.start);
            if wins {
                return Some((nth, found));
            }
            // Several templates see a date here: the one that stands first in the line is meant.
            if candidate.as_ref().is_none_or(|(_, known)| start < known.whole.start) {
                candidate = Some((nth, found));
            }
        }
        candidate
    }

    /// Tries the template used last where it matched last, if what stands around that place is the
    /// same; says whether all of the line was searched.
    fn try_last(&self, template: &Template, line: &str) -> (Option<Found>, bool) {
        let LastMatch { start, end, before, behind } = self.last_match;
        if template.anchored {
            return (template.find(line), true);
        }
        let (Some(start), Some(end)) = (byte_at(line, start), byte_at(line, end)) else {
            return (template.find(line), true);
        };
        let (now_before, now_behind) = Border::at(line, start, end);
        if !(before.fits(now_before) && behind.fits(now_behind)) {
            return (template.find(line), true);
        }
        let found = template.find_from(&line[..end], start);
        (found, false)
    }

    fn learn(&mut self, nth: usize, found: &Found, line: &str, now: Timestamp) {
        let Range { start, end } = found.whole;
        let template = &mut self.templates[nth];
        template.hits += 1;
        template.last_used = Some(now);
        template.distance = column(line, start);
        let (before, behind) = Border::at(line, start, end);
        let (start, end) = (column(line, start), column(line, end));
        self.last_match = LastMatch { start, end, before, behind };
        let place = if nth > 0 && self.last != Some(nth) { self.moved_up(nth, now) } else { nth };
        self.first_unused = self.first_unused.max(place + 1);
        self.last = Some(place);
    }

    /// Moves the template at `nth` up where it has earned it; says where it stands now.
    fn moved_up(&mut self, nth: usize, now: Timestamp) -> usize {
        let weight = |template: &Template| {
            (template.hits * template.weight) as f64 / template.distance.max(1) as f64
        };
        let own = weight(&self.templates[nth]);
        let gives_way = |occupant: &Template| {
            own > weight(occupant) || occupant.last_used.is_none_or(|used| used < now.minus(UNUSED))
        };
        let far = if nth > self.first_unused { self.first_unused } else { nth / 2 };
        let Some(place) =
            [far, nth - 1].into_iter().find(|&place| gives_way(&self.templates[place]))
        else {
            return nth;
        };
        self.templates[place..=nth].rotate_right(1);
        place
    }
}

#[cfg(test)]
mod tests;
