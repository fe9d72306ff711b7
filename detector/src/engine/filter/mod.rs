//! Lines become findings.
//!
//! A line is first dated; patterns see it without its date and with its newline. Then, as fail2ban
//! has it: `prefregex` must match and may hand on only a part (`<F-CONTENT>`); the first failregex
//! that matches decides, unless an ignoreregex matches too; lines of one session are taken together
//! ([`session`]); and the text where an address should be must be one ([`identify`]).
//!
//! The way of a line is written once ([`search`]), at work and for those who test a filter ([`inspect`]).
//!
//! A matcher belongs to one reader thread. It knows no file and no clock.
mod buffer;
mod error;
mod identify;
mod inspect;
mod literals;
mod nearest;
mod patterns;
mod search;
mod session;
mod tags;
mod when;

use std::{net::IpAddr, ops::Range, time::Duration};

use buffer::Buffer;
pub use error::FilterError;
use identify::{Fields, Identity, field, identify};
pub use inspect::{Hit, Inspection, expand_tags};
use jiff::tz::TimeZone;
use literals::Literals;
pub use nearest::{NearMiss, NearMisses};
pub use patterns::{PatternName, PatternState};
pub use search::HitOutcome;
use search::{Listener, Match};
pub use session::{MAX_SESSIONS, SessionCounts};
use session::{Merged, Sessions};
use when::{Rules, Said, When};

use super::{
    FailureId, Finding, Timestamp,
    date::{Dated, Detector},
    pattern::{Groups, Pattern},
};
use crate::config::{JailName, JailSettings, Place, UseDns};

/// Bytes of a line that are kept as evidence, and of a field.
pub const MAX_EVIDENCE: usize = 4096;
/// Lines kept for one failure, whatever `maxmatches` says.
pub const MAX_LINES: u32 = 50;
/// Lines joined at the most, whatever `maxlines` says.
const MAX_JOINED: u32 = 1000;

/// The groups of which a failregex needs one, unless its `prefregex` has it.
const NAMES_SOMEBODY: [&str; 5] = ["fid", "ip4", "ip6", "dns", "mlfid"];

/// What a matcher has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatcherCounts {
    /// Lines looked at.
    pub lines: u64,
    /// Lines that a failregex matched.
    pub matched: u64,
    /// Lines that an ignoreregex spared.
    pub ignored: u64,
    /// Searches stopped because a line made a pattern try too long; [`Matcher::patterns`] says which.
    pub gave_up: u64,
    /// Matches whose address was none (`999.1.1.1`).
    pub not_an_address: u64,
    /// Matches in lines without a date, after no line that had one: counted as of now, or not at all
    /// while older lines are read.
    pub undated: u64,
    /// Lines older than `findtime` when they were read.
    pub too_old: u64,
}

/// A jail's filter with its memory: date templates, sessions, joined lines.
#[derive(Debug)]
pub struct Matcher {
    jail: JailName,
    use_dns: UseDns,
    find_time: Duration,
    max_matches: usize,
    prefix: Option<Rule>,
    rules: Vec<Rule>,
    /// What a text needs for one of `rules` to match.
    literals: Option<Literals>,
    /// What a line as read needs for that; `None`: nothing.
    words: Option<Vec<String>>,
    ignore: Vec<Rule>,
    /// Patterns of each kind as configured, good or bad: it decides when `ignoreregex` is asked.
    ignore_first: bool,
    armed: bool,
    dates: Detector,
    times: Rules,
    sessions: Sessions,
    buffer: Option<Buffer>,
    counts: MatcherCounts,
    scratch: Scratch,
    /// Of the line that was read last.
    login: Option<(IpAddr, Timestamp)>,
}

/// Memory used again for each line.
#[derive(Debug, Default)]
struct Scratch {
    text: String,
    content: String,
    prefix_groups: Groups,
    groups: Groups,
}

/// A pattern with the groups that become fields.
#[derive(Debug)]
struct Rule {
    /// Which of its kind, as written.
    nth: usize,
    place: Option<Place>,
    pattern: Pattern,
    fields: Vec<(Box<str>, u32)>,
    content: Option<u32>,
    skipped: Vec<u32>,
}

impl Rule {
    fn new(nth: usize, place: Option<Place>, pattern: Pattern) -> Rule {
        let (fields, skipped) = (Vec::new(), Vec::new());
        let mut rule = Rule { nth, place, pattern, fields, content: None, skipped };
        for (name, number) in rule.pattern.names() {
            if &**name == "content" {
                rule.content = Some(*number);
            } else if name.starts_with(tags::SKIPLINES) {
                rule.skipped.push(*number);
            } else {
                rule.fields.push((name.clone(), *number));
            }
        }
        rule
    }

    fn names_somebody(&self) -> bool {
        self.fields.iter().any(|(name, _)| NAMES_SOMEBODY.contains(&&**name))
    }
}

impl Matcher {
    /// A matcher for this jail; `local` is the zone of lines that name none. What compiles is kept,
    /// errors tell of the rest.
    pub fn new(jail: &JailSettings, local: TimeZone) -> (Matcher, Vec<FilterError>) {
        let filter = &jail.filter;
        let mut errors = Vec::new();
        let names = filter.use_dns != UseDns::No;
        let joined = filter.max_lines.clamp(1, MAX_JOINED);

        let prefix = filter.prefregex.as_ref().map(|regex| {
            Pattern::new(&tags::expand(&regex.value, names), false)
                .map(|pattern| Rule::new(0, regex.place.clone(), pattern))
                .map_err(|source| FilterError::Prefix { place: regex.place.clone(), source })
        });
        let (prefix, prefix_fails) = match prefix.transpose() {
            Ok(prefix) => (prefix, false),
            Err(error) => {
                errors.push(error);
                (None, true)
            }
        };
        let prefix_names = prefix.as_ref().is_some_and(Rule::names_somebody);
        let mut rules = Vec::new();
        for (nth, regex) in filter.failregex.iter().enumerate() {
            let place = regex.place.clone();
            match Pattern::new(&tags::expand(&regex.value, names), joined > 1) {
                Err(source) => errors.push(FilterError::Fail { nth, place, source }),
                Ok(pattern) => {
                    let rule = Rule::new(nth, place.clone(), pattern);
                    // A prefix that does not compile may have named somebody: that is one mistake, not two.
                    if rule.names_somebody() || prefix_names || prefix_fails {
                        rules.push(rule);
                    } else {
                        errors.push(FilterError::Nobody { nth, place });
                    }
                }
            }
        }
        let mut ignore = Vec::new();
        for (nth, regex) in filter.ignoreregex.iter().enumerate() {
            let place = regex.place.clone();
            match Pattern::new(&tags::expand(&regex.value, names), false) {
                Err(source) => errors.push(FilterError::Ignore { nth, place, source }),
                Ok(pattern) => ignore.push(Rule::new(nth, place, pattern)),
            }
        }

        let entries: Vec<&str> =
            filter.date_patterns.iter().map(|entry| entry.value.as_str()).collect();
        let (mut dates, faults) = Detector::new(&entries, local);
        errors.extend(faults.into_iter().map(|(nth, source)| FilterError::Date {
            nth,
            place: filter.date_patterns[nth].place.clone(),
            source,
        }));
        if let Some(zone) = &filter.time_zone
            && !dates.set_zone(&zone.value)
        {
            errors.push(FilterError::Zone { zone: zone.value.clone(), place: zone.place.clone() });
        }

        let armed = !rules.is_empty() && !prefix_fails;
        let patterns = || rules.iter().map(|rule| &rule.pattern);
        let words = match (armed, joined) {
            (false, _) => Some(Vec::new()),
            (true, 1) => literals::in_lines_as_read(patterns(), dates.seam()),
            // Each line may be part of what is joined.
            (true, _) => None,
        };
        let matcher = Matcher {
            jail: jail.name.clone(),
            use_dns: filter.use_dns,
            find_time: jail.find_time,
            max_matches: jail.max_matches.min(MAX_LINES) as usize,
            armed,
            literals: Literals::new(patterns()),
            words,
            prefix,
            rules,
            ignore,
            ignore_first: filter.ignoreregex.len() + 2 < filter.failregex.len(),
            dates,
            times: Rules::default(),
            sessions: Sessions::default(),
            buffer: (joined > 1).then(|| Buffer::new(joined as usize)),
            counts: MatcherCounts::default(),
            scratch: Scratch::default(),
            login: None,
        };
        (matcher, errors)
    }

    /// Whether any line could make a finding.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// What it has seen so far.
    pub fn counts(&self) -> MatcherCounts {
        self.counts
    }

    /// Who logged in and when, if the last line told of a login that succeeded (`<F-MLFGAINED>`), with the address in it.
    pub fn login(&mut self) -> Option<(IpAddr, Timestamp)> {
        self.login.take()
    }

    /// The time written in a line, from which nothing is learned: for the search of the place to start
    /// reading at.
    pub fn time_of(&mut self, line: &str, now: Timestamp) -> Option<Timestamp> {
        self.dates.peek(line, now)?.at
    }

    /// Takes in one line without its line end and pushes at most one finding.
    ///
    /// `given` is the journal's own time; then no date is looked for in the text. `caught_up` says
    /// that lines are read as they are written.
    pub fn line(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        self.counts.lines += 1;
        if !self.armed {
            return;
        }
        let dated = self.dated(line, given, now);
        self.line_of(line, dated, now, caught_up, out);
    }

    /// Words of which one stands in every line that may change anything; all others may go to
    /// [`passed`](Matcher::passed) and [`line_after`](Matcher::line_after) unseen. `None`: any line may.
    pub fn words(&self) -> Option<&[String]> {
        self.words.as_deref()
    }

    /// The same as [`line`](Matcher::line) for each of `passed` and for the line after them, which alone may match
    /// anything.
    pub fn line_after(
        &mut self,
        passed: &str,
        line: &str,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        let lines = count_of(passed);
        match self.dates.find_as_ever(line, lines, now) {
            Some(dated) if self.armed => {
                self.counts.lines += lines + 1;
                let dated = self.said(Some(dated), now);
                self.line_of(line, dated, now, caught_up, out);
            }
            _ => {
                self.look_at(passed, now, caught_up);
                self.line(line, None, now, caught_up, out);
            }
        }
    }

    /// The same as [`line`](Matcher::line) for each of these lines, none of which can match.
    pub fn passed(&mut self, lines: &str, now: Timestamp, caught_up: bool) {
        let Some(last) = lines_of(lines).next_back() else { return };
        let count = count_of(lines);
        match self.dates.find_as_ever(last, count - 1, now) {
            Some(dated) if self.armed => {
                self.counts.lines += count;
                let (said, _) = self.said(Some(dated), now);
                self.times.time(said, self.find_time, now, caught_up);
            }
            _ => self.look_at(lines, now, caught_up),
        }
    }

    /// Dates each of these lines, none of which can match.
    fn look_at(&mut self, lines: &str, now: Timestamp, caught_up: bool) {
        for line in lines_of(lines) {
            self.counts.lines += 1;
            if self.armed {
                let (said, _) = self.dated(line, None, now);
                let when = self.times.time(said, self.find_time, now, caught_up);
                self.counts.too_old += u64::from(when == When::TooOld);
            }
        }
    }

    /// Searches a line of which this is known.
    fn line_of(
        &mut self,
        line: &str,
        (said, cut): (Said, Range<usize>),
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        let when = self.times.time(said, self.find_time, now, caught_up);
        if when == When::TooOld {
            self.counts.too_old += 1;
            return;
        }
        // As read it is what patterns see, but for its newline: most lines need no copy.
        if cut.is_empty()
            && self.buffer.is_none()
            && self.literals.as_ref().is_some_and(|words| words.candidates(line) == 0)
        {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.prepare(line, cut, &mut scratch.text);
        self.search(line, &mut scratch, &mut AtWork { when, now, out });
        self.scratch = scratch;
    }

    /// What a line says about its time, and the bytes of it that are a date.
    fn dated(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
    ) -> (Said, Range<usize>) {
        if let Some(at) = given {
            return (Said::At(at), 0..0);
        }
        let dated = self.dates.find(line, now);
        self.said(dated, now)
    }

    /// What this date says, and what of it is cut out of the line.
    fn said(&self, dated: Option<Dated>, now: Timestamp) -> (Said, Range<usize>) {
        match dated {
            Some(Dated { at: Some(at), cut, .. }) => (Said::At(at), cut),
            Some(Dated { cut, is_empty: true, .. }) => (Said::Never, cut),
            Some(_) if self.times.last_serves(now) => (Said::Nothing, 0..0),
            Some(Dated { cut, .. }) => (Said::Nothing, cut),
            None => (Said::Nothing, 0..0),
        }
    }

    /// Writes into `text` what patterns see of a line: without its date, with its newline, and with the lines before it
    /// where they are joined.
    fn prepare(&mut self, line: &str, cut: Range<usize>, text: &mut String) {
        text.clear();
        text.push_str(&line[..cut.start]);
        text.push_str(&line[cut.end..]);
        match &mut self.buffer {
            Some(buffer) => {
                let this = std::mem::take(text);
                buffer.push(&this, shortened(line), text);
            }
            None => text.push('\n'),
        }
    }
}

/// Lines that end with a newline each, as readers hand them on: without `\r` at their ends and NULs at their starts.
fn lines_of(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let lines = text.split_terminator('\n');
    lines.map(|line| line.trim_end_matches('\r').trim_start_matches('\0'))
}

fn count_of(lines: &str) -> u64 {
    memchr::memchr_iter(b'\n', lines.as_bytes()).count() as u64
}

/// A line that is read to find who fails.
struct AtWork<'o> {
    when: When,
    now: Timestamp,
    out: &'o mut Vec<Finding>,
}

impl Listener for AtWork<'_> {
    const OF_ALL: bool = false;

    fn prefix(&mut self, _: &Rule, _: Option<&Groups>, _: &str, _: Option<&str>) {}

    fn ignored(&mut self, _: usize) {}

    fn matched(&mut self, matcher: &mut Matcher, mut found: Match) -> bool {
        let at = match self.when {
            When::At(at) => at,
            When::Guessed(at) => {
                matcher.counts.undated += 1;
                at
            }
            When::Unknown | When::TooOld => {
                matcher.counts.undated += 1;
                return false;
            }
        };
        if field(&found.fields, "mlfgained").is_some()
            && let Identity::Known(FailureId::Address(address)) =
                identify(&found.fields, matcher.use_dns)
        {
            matcher.login = Some((address, at));
        }
        match matcher.judge(&mut found, matcher.max_matches, false, self.now) {
            HitOutcome::Failure(who) => {
                let Match { at: rule, fields, mut lines } = found;
                lines.drain(..lines.len().saturating_sub(matcher.max_matches));
                let rule = matcher.rules[rule].nth;
                let jail = matcher.jail.clone();
                self.out.push(Finding { jail, who, at, lines, rule, fields });
            }
            HitOutcome::NotAnAddress => matcher.counts.not_an_address += 1,
            HitOutcome::NoFailure | HitOutcome::Pending => {}
        }
        false
    }
}

/// `text` up to [`MAX_EVIDENCE`] bytes.
fn shortened(text: &str) -> &str {
    cut(text, MAX_EVIDENCE).0
}

/// `text` up to `most` bytes, and the rest of it.
fn cut(text: &str, most: usize) -> (&str, &str) {
    let mut at = most.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.split_at(at)
}

#[cfg(test)]
mod tests;
