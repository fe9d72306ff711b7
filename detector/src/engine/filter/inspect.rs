//! What one line does to a filter, pattern by pattern: for people who test one.
//!
//! Here no line is too old and none is left out for want of a date. All else, sessions, joined lines and
//! learned dates above all, is as at work.
use super::{
    Fields, Identity, Matcher, Merged, Rule, Scratch, collect, field, found, identify, shortened,
    tags,
};
use crate::{
    config::UseDns,
    engine::{FailureId, Timestamp, pattern::Subject},
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
    /// The ignoreregex that matched, from 0 among those that compile.
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

/// What came of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HitOutcome {
    /// A failure of this one.
    Failure(FailureId),
    /// Nothing by itself (`<F-NOFAIL>`, `<F-MLFGAINED>`).
    NoFailure,
    /// A failure of somebody whom a later line of the session may name.
    Pending,
    /// The text where an address should be is none.
    NotAnAddress,
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
        let mut seen = Inspection::default();
        let dated = if given.is_some() { None } else { self.dates.find(line, now) };
        seen.at = given.or(dated.as_ref().and_then(|dated| dated.at));
        let cut = dated.map_or(0..0, |dated| dated.cut);
        seen.text.push_str(&line[..cut.start]);
        seen.text.push_str(&line[cut.end..]);
        match &mut self.buffer {
            Some(buffer) => {
                let this = std::mem::take(&mut seen.text);
                buffer.push(&this, shortened(line), &mut seen.text);
            }
            None => seen.text.push('\n'),
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.look(line, &mut seen, &mut scratch, now, every);
        self.scratch = scratch;
        seen
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

    fn look(
        &mut self,
        line: &str,
        seen: &mut Inspection,
        scratch: &mut Scratch,
        now: Timestamp,
        every: bool,
    ) {
        let Scratch { prefix_groups, groups, .. } = scratch;
        let counts = &mut self.counts;
        let whole = Subject::new(&seen.text);
        let first = |subject: &Subject<'_>, groups: &mut _, counts: &mut _| {
            self.ignore.iter().position(|pattern| found(pattern.search(subject, groups), counts))
        };
        if self.ignore_first {
            seen.ignored_by = first(&whole, groups, counts);
            if seen.ignored_by.is_some() {
                return;
            }
        }
        let mut handed_on = None;
        let mut before = Fields::new();
        if let Some(prefix) = &self.prefix {
            let matched = found(prefix.pattern.search(&whole, prefix_groups), counts);
            seen.prefix_matched = Some(matched);
            if !matched {
                return;
            }
            collect(&prefix.fields, prefix_groups, &seen.text, &mut before);
            identify::merge_variants(&mut before);
            seen.prefix_fields.clone_from(&before);
            let range = prefix.content.and_then(|number| prefix_groups.get(number));
            if let Some(range) = range.filter(|range| !range.is_empty()) {
                let content = &seen.text[range.clone()];
                seen.prefix_fields.push(("content".into(), content.into()));
                seen.content = Some(format!("{content}\n"));
                handed_on = Some(range);
            }
        }
        let content = seen.content.clone();
        let subject = content.as_deref().map_or(whole, Subject::new);
        for at in 0..self.rules.len() {
            let rule = &self.rules[at];
            if !found(rule.pattern.search(&subject, groups), &mut self.counts) {
                continue;
            }
            let mut own = Fields::new();
            collect(&rule.fields, groups, subject.text(), &mut own);
            identify::merge_variants(&mut own);
            let mut fields = before.clone();
            fields.retain(|(name, _)| own.iter().all(|(known, _)| known != name));
            fields.append(&mut own);
            let (mut lines, mut judged) = (vec![shortened(line).into()], None);
            let names = self.names_of(rule);
            let nth = rule.nth;
            if let Some(buffer) = &mut self.buffer {
                let spots = |number: &u32| groups.get(*number);
                let (matched, skipped) = match handed_on.clone() {
                    Some(range) => (range, Vec::new()),
                    None => (
                        groups.get(0).unwrap_or(0..0),
                        rule.skipped.iter().filter_map(spots).collect(),
                    ),
                };
                let touched = buffer.touched(&matched, &skipped);
                judged = Some(buffer.text_of(&touched));
                lines = buffer.evidence_of(&touched);
                buffer.remove(&touched);
            }
            let judged = judged.as_deref().map_or(subject, Subject::new);
            seen.ignored_by = self
                .ignore
                .iter()
                .position(|pattern| found(pattern.search(&judged, groups), &mut self.counts));
            if seen.ignored_by.is_some() {
                return;
            }
            seen.hits.push(self.hit(nth, fields, names, lines, now));
            // What was joined is taken apart by the first match.
            if !every || self.buffer.is_some() {
                return;
            }
        }
    }

    fn names_of(&self, rule: &Rule) -> Vec<Box<str>> {
        let mut names: Vec<Box<str>> = Vec::new();
        let prefix = self.prefix.iter().flat_map(|prefix| &prefix.fields);
        for (name, _) in prefix.chain(&rule.fields) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    fn hit(
        &mut self,
        rule: usize,
        mut fields: Fields,
        names: Vec<Box<str>>,
        mut lines: Vec<Box<str>>,
        now: Timestamp,
    ) -> Hit {
        let use_dns = self.use_dns;
        if field(&fields, "mlfid").is_some() {
            let identified =
                |fields: &Fields| identify::identify(fields, use_dns) != Identity::Missing;
            let most = self.max_matches.max(1);
            match self.sessions.merge(fields.clone(), &lines, most, identified, now) {
                Merged::NoFailure { pending } => {
                    let outcome = if pending { HitOutcome::Pending } else { HitOutcome::NoFailure };
                    return Hit { rule, outcome, fields, names, lines };
                }
                Merged::Failure { fields: merged, lines: all } => (fields, lines) = (merged, all),
            }
        }
        let outcome = match identify::identify(&fields, use_dns) {
            Identity::Known(who) => HitOutcome::Failure(who),
            Identity::NotAnAddress => HitOutcome::NotAnAddress,
            Identity::Missing => HitOutcome::Pending,
        };
        Hit { rule, outcome, fields, names, lines }
    }
}
