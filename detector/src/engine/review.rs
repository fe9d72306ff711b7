//! A jail's patterns as an operator should see them: engines, and doubts.
use super::{
    date,
    filter::expand_tags,
    pattern::{Engine, Forgery, Groups, Outcome, Pattern, Subject, remembers_otherwise, review},
};
use crate::config::{JailSettings, Place, Problem, Severity};

/// One pattern of a jail that compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternReview {
    /// The option: `failregex` …
    pub option: &'static str,
    /// Which of the option's patterns, from 0.
    pub nth: usize,
    /// Where it was written.
    pub place: Option<Place>,
    /// As it stands in the file, expanded.
    pub text: String,
    /// What runs it.
    pub engine: Engine,
}

/// Looks at every pattern of the jail: which engine runs it, and what about it is doubtful.
pub fn review_jail(jail: &JailSettings) -> (Vec<PatternReview>, Vec<Problem>) {
    let filter = &jail.filter;
    let mut reviews = Vec::new();
    let mut doubts = Vec::new();
    let prefix_names = filter.prefregex.iter().any(|regex| !regex.value.contains("<F-CONTENT>"));
    let patterns = (filter.prefregex.iter().enumerate().map(|it| ("prefregex", it)))
        .chain(filter.failregex.iter().enumerate().map(|it| ("failregex", it)))
        .chain(filter.ignoreregex.iter().enumerate().map(|it| ("ignoreregex", it)));
    for (option, (nth, regex)) in patterns {
        let lines = option == "failregex" && filter.max_lines > 1;
        let expanded = expand_tags(&regex.value, filter.use_dns);
        let Some((engine, forgery)) = review(&expanded, lines) else { continue };
        let (place, text) = (regex.place.clone(), regex.value.clone());
        reviews.push(PatternReview { option, nth, place, text, engine });
        let mut doubt = |severity, what: String, remedy: &str| {
            let (jail, place) = (Some(jail.name.clone()), regex.place.clone());
            doubts.push(Problem { severity, jail, place, what, remedy: remedy.to_owned() });
        };
        // What a prefix lets through is searched as a line of its own, unless the prefix says already who it was.
        let forgery = forgery.filter(|_| match option {
            "failregex" => !(lines || prefix_names),
            "prefregex" => true,
            _ => false,
        });
        match forgery {
            Some(Forgery::NotAnchored) => doubt(
                Severity::Warning,
                format!(
                    "{option} {} may begin anywhere in a line, also within text that a client chooses: any address can be banned",
                    nth + 1
                ),
                "begin it with `^`",
            ),
            Some(Forgery::AnyTextBefore) => doubt(
                Severity::Warning,
                format!(
                    "{option} {} lets any text stand before the address and does not fix the end of the line: any address can be banned",
                    nth + 1
                ),
                "end it with `$`, or name what may stand before the address more closely than by `.*`",
            ),
            None => {}
        }
        if remembers_otherwise(&expanded) {
            doubt(
                Severity::Warning,
                format!(
                    "{option} {} repeats a group that can be empty: the group may hold other text than in fail2ban",
                    nth + 1
                ),
                "put the group around the repetition",
            );
        }
        if option == "ignoreregex" && matches_everything(&expanded) {
            doubt(
                Severity::Error,
                format!("ignoreregex {} matches every line: nobody is ever banned", nth + 1),
                "name in it what is to be spared",
            );
        }
    }
    for (nth, entry) in filter.date_patterns.iter().enumerate() {
        let Some(engine) = date::engine(&entry.value) else { continue };
        let (place, text) = (entry.place.clone(), entry.value.clone());
        reviews.push(PatternReview { option: "datepattern", nth, place, text, engine });
    }
    (reviews, doubts)
}

/// A pattern that finds itself in an empty line finds itself in every one.
fn matches_everything(pattern: &str) -> bool {
    let Ok(pattern) = Pattern::new(pattern, false) else { return false };
    let mut groups = Groups::default();
    ["\n", "a 1\n", "-\n"]
        .iter()
        .all(|text| pattern.search(&Subject::new(text), &mut groups) == Outcome::Matched)
}
