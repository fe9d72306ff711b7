//! A line's way through the patterns, the same at work and for those who test a filter.
use super::{
    Fields, Identity, Matcher, MatcherCounts, Merged, Rule, Scratch, field, identify, shortened,
};
use crate::engine::{
    FailureId, Timestamp,
    pattern::{Groups, Outcome, Subject},
};

/// Who hears what becomes of a line.
pub(super) trait Listener {
    /// Wants to hear of lines, too, that no failregex can match.
    const OF_ALL: bool;

    /// `prefregex` was tried; `text` is what it saw, `content` what it hands on.
    fn prefix(&mut self, prefix: &Rule, groups: Option<&Groups>, text: &str, content: Option<&str>);

    /// This ignoreregex matched, from 0 in the order written. Nothing follows.
    fn ignored(&mut self, nth: usize);

    /// A failregex matched. Whether those behind it are to be tried.
    fn matched(&mut self, matcher: &mut Matcher, found: Match) -> bool;
}

/// What a failregex found.
pub(super) struct Match {
    /// Which, among those that compile.
    pub at: usize,
    pub fields: Fields,
    /// The lines that it matched.
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

impl Matcher {
    /// Applies all patterns to the text in `scratch`, which is what they see of `line`.
    pub(super) fn search<L: Listener>(
        &mut self,
        line: &str,
        scratch: &mut Scratch,
        listener: &mut L,
    ) {
        let Scratch { text, content, prefix_groups, groups } = scratch;
        // Most lines end here: no failregex could match, so whatever else they say changes nothing.
        let candidates = match &self.literals {
            Some(words) if !L::OF_ALL => words.candidates(text),
            _ => u128::MAX,
        };
        if candidates == 0 {
            return;
        }
        let whole = Subject::new(text);
        if self.ignore_first
            && let Some(nth) = ignored(&self.ignore, &whole, groups, &mut self.counts)
        {
            self.counts.ignored += 1;
            return listener.ignored(nth);
        }
        let mut subject = whole;
        // Which bytes of the text the failregex sees, so that what it matched can be found in there.
        let mut handed_on = None;
        if let Some(prefix) = &self.prefix {
            if !found(prefix.pattern.search(&whole, prefix_groups), &mut self.counts) {
                return listener.prefix(prefix, None, text, None);
            }
            let range = prefix.content.and_then(|number| prefix_groups.get(number));
            if let Some(range) = range.filter(|range| !range.is_empty()) {
                content.clear();
                content.push_str(&text[range.clone()]);
                content.push('\n');
                subject = Subject::new(content);
                handed_on = Some(range);
            }
            let content = handed_on.is_some().then_some(subject.text());
            listener.prefix(prefix, Some(prefix_groups), text, content);
        }
        for at in 0..self.rules.len() {
            let rule = &self.rules[at];
            // Behind the last bit stand those of a filter that has no literals.
            let may_match = candidates.checked_shr(at as u32).is_none_or(|rest| rest & 1 == 1);
            if !may_match || !found(rule.pattern.search(&subject, groups), &mut self.counts) {
                continue;
            }
            let mut fields = match &self.prefix {
                Some(prefix) => fields_of(prefix, prefix_groups, text),
                None => Fields::new(),
            };
            let mut own = fields_of(rule, groups, subject.text());
            fields.retain(|(name, _)| own.iter().all(|(known, _)| known != name));
            fields.append(&mut own);

            let (lines, ignored) = match &mut self.buffer {
                None => (
                    vec![shortened(line).into()],
                    ignored(&self.ignore, &subject, groups, &mut self.counts),
                ),
                Some(buffer) => {
                    let (matched, skipped) = match &handed_on {
                        Some(range) => (range.clone(), Vec::new()),
                        None => (
                            groups.get(0).unwrap_or(0..0),
                            rule.skipped.iter().filter_map(|number| groups.get(*number)).collect(),
                        ),
                    };
                    let touched = buffer.touched(&matched, &skipped);
                    let text = buffer.text_of(&touched);
                    let lines = buffer.evidence_of(&touched);
                    buffer.remove(&touched);
                    let subject = Subject::new(&text);
                    (lines, ignored(&self.ignore, &subject, groups, &mut self.counts))
                }
            };
            if let Some(nth) = ignored {
                self.counts.ignored += 1;
                return listener.ignored(nth);
            }
            self.counts.matched += 1;
            let goes_on = listener.matched(self, Match { at, fields, lines });
            // What was joined is taken apart by the first match.
            if !goes_on || self.buffer.is_some() {
                return;
            }
        }
    }

    /// Takes the session into account, where there is one, and says whom the match is about. The fields and lines of a
    /// failure are then those of its session, of each kind of line at most `most`.
    /// What is none has its own only if it is to `keep` them.
    pub(super) fn judge(
        &mut self,
        found: &mut Match,
        most: usize,
        keep: bool,
        now: Timestamp,
    ) -> HitOutcome {
        if field(&found.fields, "mlfid").is_some() {
            let fields =
                if keep { found.fields.clone() } else { std::mem::take(&mut found.fields) };
            match self.sessions.merge(fields, &found.lines, most, self.use_dns, now) {
                Merged::NoFailure { pending: true } => return HitOutcome::Pending,
                Merged::NoFailure { pending: false } => return HitOutcome::NoFailure,
                Merged::Failure { fields, lines } => (found.fields, found.lines) = (fields, lines),
            }
        }
        match identify(&found.fields, self.use_dns) {
            Identity::Known(who) => HitOutcome::Failure(who),
            Identity::NotAnAddress => HitOutcome::NotAnAddress,
            Identity::Missing => HitOutcome::Pending,
        }
    }
}

/// The first that matches, by its number as written.
fn ignored(
    ignore: &[Rule],
    subject: &Subject<'_>,
    groups: &mut Groups,
    counts: &mut MatcherCounts,
) -> Option<usize> {
    let first = ignore.iter().find(|rule| found(rule.pattern.search(subject, groups), counts));
    first.map(|rule| rule.nth)
}

fn found(outcome: Outcome, counts: &mut MatcherCounts) -> bool {
    if outcome == Outcome::GaveUp {
        counts.gave_up += 1;
    }
    outcome == Outcome::Matched
}

/// The groups that took part, and what their variants make of them.
pub(super) fn fields_of(rule: &Rule, groups: &Groups, text: &str) -> Fields {
    let mut fields = Fields::new();
    for (name, number) in &rule.fields {
        let Some(range) = groups.get(*number) else { continue };
        fields.retain(|(known, _)| known != name);
        fields.push((name.clone(), shortened(&text[range]).into()));
    }
    identify::merge_variants(&mut fields);
    fields
}
