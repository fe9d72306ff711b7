//! What one line does to a filter, pattern by pattern: for people who test one.
//!
//! Here no line is too old and none is left out for want of a date. All else is as at work: it is the same
//! code that hears more.
use super::{HitOutcome, Listener, Match, Matcher, Rule, search::fields_of, tags};
use crate::{
    config::UseDns,
    engine::{Timestamp, pattern::Groups},
};

/// What a line did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The time written in it.
    pub at: Option<Timestamp>,
    /// The text that patterns see: without its date, with its newline; several lines where `maxlines`
    /// joins them.
    pub text: String,
    /// What `prefregex` handed on, where it did.
    pub content: Option<String>,
    /// Whether `prefregex` matched; `None` where there is none, or an ignoreregex came first.
    pub prefix_matched: Option<bool>,
    /// The groups of `prefregex`.
    pub prefix_fields: Vec<(Box<str>, Box<str>)>,
    /// The ignoreregex that matched, from 0 in the order written.
    pub ignored_by: Option<usize>,
    /// The failregexes that matched, in their order.
    pub hits: Vec<Hit>,
}

/// A failregex that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which, from 0.
    pub rule: usize,
    /// What came of it.
    pub outcome: HitOutcome,
    /// Named groups, with those of the session.
    pub fields: Vec<(Box<str>, Box<str>)>,
    /// Groups that the patterns name, in their order, whether or not they took part.
    pub names: Vec<Box<str>>,
    /// The lines of the failure.
    pub lines: Vec<Box<str>>,
}

/// A pattern with its tags written out.
pub fn expand_tags(pattern: &str, use_dns: UseDns) -> String {
    tags::expand(pattern, use_dns != UseDns::No)
}

impl Matcher {
    /// Takes in one line as [`line`](Matcher::line) does and tells everything about it. With `every` all
    /// failregexes are tried, else none behind the first that matches.
    pub fn inspect(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
        every: bool,
    ) -> Inspection {
        self.counts.lines += 1;
        let (said, cut) = self.dated(line, given, now);
        let at = self.times.written(said, now);
        let mut scratch = std::mem::take(&mut self.scratch);
        self.prepare(line, cut, &mut scratch.text);
        let seen = Inspection { at, text: scratch.text.clone(), ..Inspection::default() };
        let mut tested = Tested { seen, every, now };
        if self.armed {
            self.search(line, &mut scratch, &mut tested);
        }
        self.scratch = scratch;
        tested.seen
    }

    /// The bytes of a line that are its date; nothing is learned from it.
    pub fn date_of(&mut self, line: &str, now: Timestamp) -> std::ops::Range<usize> {
        self.dates.peek(line, now).map_or(0..0, |dated| dated.cut)
    }

    /// The date templates in fail2ban's notation, in the order in which they are tried, and how often each
    /// was found; none before the first line.
    pub fn date_templates(&self) -> Vec<(String, u64)> {
        self.dates.shown()
    }

    /// The groups that a failregex and the prefix name.
    fn names_of(&self, rule: usize) -> Vec<Box<str>> {
        let mut names: Vec<Box<str>> = Vec::new();
        let prefix = self.prefix.iter().flat_map(|prefix| &prefix.fields);
        for (name, _) in prefix.chain(&self.rules[rule].fields) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

/// A line that is read to test a filter.
struct Tested {
    seen: Inspection,
    every: bool,
    now: Timestamp,
}

impl Listener for Tested {
    const OF_ALL: bool = true;

    fn prefix(
        &mut self,
        prefix: &Rule,
        groups: Option<&Groups>,
        text: &str,
        content: Option<&str>,
    ) {
        self.seen.prefix_matched = Some(groups.is_some());
        let Some(groups) = groups else { return };
        self.seen.prefix_fields = fields_of(prefix, groups, text);
        if let Some(content) = content {
            let field = content.trim_end_matches('\n');
            self.seen.prefix_fields.push(("content".into(), field.into()));
            self.seen.content = Some(content.to_owned());
        }
    }

    fn ignored(&mut self, nth: usize) {
        self.seen.ignored_by = Some(nth);
    }

    fn matched(&mut self, matcher: &mut Matcher, mut found: Match) -> bool {
        let outcome = matcher.judge(&mut found, matcher.max_matches.max(1), true, self.now);
        let Match { at, fields, lines } = found;
        let (rule, names) = (matcher.rules[at].nth, matcher.names_of(at));
        self.seen.hits.push(Hit { rule, outcome, fields, names, lines });
        self.every
    }
}
