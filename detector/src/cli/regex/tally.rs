//! Lines through a filter, counted as fail2ban-regex counts them.
use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, ToSocketAddrs},
};

use anyhow::bail;

use super::RegexArgs;
use crate::{
    config::{JailSettings, UseDns},
    engine::{FailureId, FilterError, Hit, HitOutcome, Inspection, Matcher, Timestamp},
};

/// Lines of a kind that are printed without being asked for.
const PRINTED: usize = 20;
/// Hits of a regex that are shown one by one.
const MOST_SHOWN: usize = 10_000;

/// One failure found.
pub(super) struct Failure {
    pub who: FailureId,
    pub at: Option<Timestamp>,
    pub fields: Vec<(Box<str>, Box<str>)>,
    pub names: Vec<Box<str>>,
    pub lines: Vec<Box<str>>,
}

/// What one regex found.
#[derive(Default)]
pub(super) struct RuleHits {
    pub count: u64,
    pub shown: Vec<Shown>,
}

/// A hit as it is shown.
pub(super) struct Shown {
    pub who: Option<String>,
    pub at: Option<Timestamp>,
    /// A regex before it matched the line, too.
    pub multiple: bool,
}

/// A missed line with what patterns saw of it.
pub(super) struct Missed {
    pub line: String,
    pub seen: Inspection,
}

/// Lines of one kind.
pub(super) struct Kept<T> {
    pub count: u64,
    /// The first of them.
    pub first: Vec<T>,
    pub limit: usize,
}

impl<T> Kept<T> {
    fn new(limit: usize) -> Kept<T> {
        Kept { count: 0, first: Vec::new(), limit }
    }

    fn push(&mut self, line: impl FnOnce() -> T) {
        self.count += 1;
        if self.first.len() < self.limit {
            self.first.push(line());
        }
    }
}

/// Everything counted.
pub(super) struct Tally {
    pub matcher: Matcher,
    every: bool,
    names: Option<HashMap<Box<str>, Vec<IpAddr>>>,
    recent: VecDeque<(String, bool)>,
    joined: usize,
    pub prefix: u64,
    pub prefix_groups: Vec<Vec<(Box<str>, Box<str>)>>,
    pub rules: Vec<RuleHits>,
    pub ignores: Vec<u64>,
    pub matched: Kept<String>,
    pub ignored: Kept<String>,
    pub missed: Kept<Missed>,
    /// Matches that are no failure because the address is none.
    pub not_an_address: u64,
}

impl Tally {
    pub fn new(jail: &JailSettings, every: bool, args: &RegexArgs) -> anyhow::Result<Tally> {
        let (matcher, errors) = Matcher::new(jail, jiff::tz::TimeZone::system());
        if let Some(error) = errors.first() {
            bail!("{}; {}", what_is_wrong(error), error.remedy());
        }
        if !matcher.is_armed() {
            bail!("there is no failregex to test");
        }
        let printed = args.maxlines.map_or(PRINTED, |lines| lines as usize);
        let limit = |all: bool| if all { usize::MAX } else { printed };
        let looks_up = matches!(jail.filter.use_dns, UseDns::Yes | UseDns::Warn);
        Ok(Tally {
            matcher,
            every,
            names: looks_up.then(HashMap::new),
            recent: VecDeque::new(),
            joined: jail.filter.max_lines as usize,
            prefix: 0,
            prefix_groups: Vec::new(),
            rules: jail.filter.failregex.iter().map(|_| RuleHits::default()).collect(),
            ignores: jail.filter.ignoreregex.iter().map(|_| 0).collect(),
            matched: Kept::new(if args.print_all_matched { usize::MAX } else { 0 }),
            ignored: Kept::new(limit(args.print_all_ignored)),
            missed: Kept::new(limit(args.print_all_missed)),
            not_an_address: 0,
        })
    }

    /// Lines tested.
    pub fn lines(&self) -> u64 {
        self.matched.count + self.ignored.count + self.missed.count
    }

    /// Takes in a line; answers its failures, none of an ignored one, `None` of a missed one.
    pub fn line(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Vec<Failure>> {
        let seen = self.matcher.inspect(line, given, now, self.every);
        let at = seen.at;
        if seen.prefix_matched == Some(true) {
            self.prefix += 1;
            if self.prefix_groups.len() < MOST_SHOWN {
                self.prefix_groups.push(seen.prefix_fields.clone());
            }
        }
        if let Some(nth) = seen.ignored_by {
            self.ignores[nth] += 1;
        }
        let (mut failures, mut no_failure, mut pending) = (Vec::new(), false, false);
        for (nth, hit) in seen.hits.iter().enumerate() {
            let shown = match &hit.outcome {
                HitOutcome::NotAnAddress => {
                    self.not_an_address += 1;
                    continue;
                }
                HitOutcome::NoFailure => {
                    no_failure = true;
                    vec![address_of(hit)]
                }
                HitOutcome::Pending => {
                    pending = true;
                    vec![None]
                }
                HitOutcome::Failure(who) => {
                    let everybody = self.resolved(who);
                    for who in &everybody {
                        failures.push(Failure {
                            who: who.clone(),
                            at,
                            fields: hit.fields.clone(),
                            names: hit.names.clone(),
                            lines: hit.lines.clone(),
                        });
                    }
                    everybody.iter().map(|who| Some(who.to_string())).collect()
                }
            };
            let rule = &mut self.rules[hit.rule];
            rule.count += shown.len() as u64;
            let room = MOST_SHOWN.saturating_sub(rule.shown.len());
            let shown = shown.into_iter().map(|who| Shown { who, at, multiple: nth > 0 });
            rule.shown.extend(shown.take(room));
        }
        let spared = seen.ignored_by.is_some() || no_failure;
        let matched = !failures.is_empty() || pending;
        if self.joined > 1 {
            self.take_back(&failures, line);
            if self.recent.len() >= self.joined {
                self.recent.pop_front();
            }
            self.recent.push_back((line.to_owned(), !spared && !matched));
        }
        // As fail2ban-regex has it: what one regex ignores another does not make a failure.
        if spared {
            self.ignored.push(|| line.to_owned());
            Some(Vec::new())
        } else if matched {
            self.matched.push(|| line.to_owned());
            Some(failures)
        } else {
            self.missed.push(|| Missed { line: line.to_owned(), seen });
            None
        }
    }

    /// Lines that counted as missed until a later one completed what they began.
    fn take_back(&mut self, failures: &[Failure], current: &str) {
        for line in failures.iter().flat_map(|failure| &failure.lines) {
            let known = self.recent.iter_mut().find(|(known, missed)| *missed && **known == **line);
            let Some((known, missed)) = known.filter(|_| **line != *current) else { continue };
            *missed = false;
            self.missed.count -= 1;
            self.missed.first.retain(|missed| missed.line != *known);
            self.matched.push(|| line.to_string());
        }
    }

    /// A name's addresses, where names are looked up: each is a failure of its own.
    fn resolved(&mut self, who: &FailureId) -> Vec<FailureId> {
        let (FailureId::Name(name), Some(names)) = (who, &mut self.names) else {
            return vec![who.clone()];
        };
        let addresses = names.entry(name.clone()).or_insert_with(|| look_up(name));
        addresses.iter().map(|address| FailureId::Address(*address)).collect()
    }
}

/// An error's own words go on to say what the daemon does about it.
fn what_is_wrong(error: &FilterError) -> String {
    let what = match error {
        FilterError::Prefix { source, .. } => format!("`prefregex` {source}"),
        FilterError::Fail { nth, source, .. } => format!("failregex {} {source}", nth + 1),
        FilterError::Ignore { nth, source, .. } => format!("ignoreregex {} {source}", nth + 1),
        FilterError::Date { nth, source, .. } => format!("datepattern {} {source}", nth + 1),
        FilterError::Nobody { nth, .. } => format!("failregex {} names nobody", nth + 1),
        FilterError::Zone { zone, .. } => format!("`{zone}` names no time zone"),
    };
    match error.place() {
        Some(place) => format!("{place}: {what}"),
        None => what,
    }
}

/// The address that a line names which is no failure.
fn address_of(hit: &Hit) -> Option<String> {
    let named = |name: &str| {
        let field = hit.fields.iter().find(|(known, text)| **known == *name && !text.is_empty());
        field.map(|(_, text)| text.to_string())
    };
    ["fid", "ip4", "ip6", "dns"].iter().find_map(|name| named(name))
}

/// The addresses of a name; none when there are none, or nobody answers.
pub(in crate::cli) fn look_up(name: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = (name, 0)
        .to_socket_addrs()
        .map(|found| found.map(|address| address.ip().to_canonical()).collect())
        .unwrap_or_default();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
