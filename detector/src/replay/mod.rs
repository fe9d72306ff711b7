//! Past logs through the same engine, in their own time: who would have been banned, and when.
//!
//! The clock is the log's: it stands where the newest line so far was written, and what the daemon
//! would have done between two lines, lifting bans above all, happens between them. A line is taken as
//! the daemon takes one just written. So the decisions are the daemon's, as far as the log tells: it
//! does not tell when lines without a date were written. Of the hour that autumn has twice in local
//! time, the second begins with the first line that would otherwise be older than the line before it.
//!
//! The room reads no file, socket or clock; it asks its caller for the addresses of names, and what an
//! `ignorecommand` says.
use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::{
    config::{JailName, JailSettings},
    engine::{
        Answer, Ban, Effect, Engine, Event, FailureId, FilterError, Finding, Limits, Matcher,
        Question, SparedBy, Timestamp,
    },
};

/// How far ahead of the present a date may lie and still move the clock.
const AHEAD: std::time::Duration = std::time::Duration::from_secs(60);
/// How much older than the line before it a line may be: writers take turns.
pub const DISORDER: std::time::Duration = std::time::Duration::from_secs(60);
/// Turns of the engine between two lines; it needs one for each 64 bans that lapse.
const MOST_TURNS: usize = 1 << 20;

/// Something that would have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A filter found a failure.
    Finding {
        /// It.
        finding: Finding,
        /// How often its address had failed by then; `None` where it was not counted.
        attempts: Option<u32>,
        /// Why it was not counted.
        spared: Option<SparedBy>,
    },
    /// A ban, or with `prolonged` a later end of one that held.
    Ban {
        /// It.
        ban: Arc<Ban>,
        /// The failure that led to it.
        at: Timestamp,
        /// A ban that held moved to a later end.
        prolonged: bool,
        /// The failregex of its last failure, from 0.
        rule: usize,
    },
    /// A ban ended.
    Unban {
        /// It.
        ban: Arc<Ban>,
        /// The failregex of its last failure, from 0.
        rule: usize,
    },
}

/// Past logs on their way through the engine.
pub struct Replay {
    engine: Engine,
    matchers: Vec<Matcher>,
    zone: TimeZone,
    now: Option<Timestamp>,
    present: Timestamp,
    rules: HashMap<(JailName, IpNet), usize>,
    findings: Vec<Finding>,
}

/// What the engine asks while past logs go through it.
pub trait Outside {
    /// The addresses of a name, if it has any.
    fn resolve(&mut self, name: &str) -> Vec<IpAddr>;
    /// What an `ignorecommand` says.
    fn ask(&mut self, question: &Question) -> Answer;
}

impl Replay {
    /// For these jails, remembering so much; `present` is the time of now, after which nothing was written. Tells which
    /// patterns cannot be used.
    pub fn new(
        jails: &[JailSettings],
        limits: Limits,
        present: Timestamp,
    ) -> (Replay, Vec<(JailName, FilterError)>) {
        let mut faults = Vec::new();
        let mut matchers = Vec::new();
        let zone = TimeZone::system();
        for jail in jails {
            let (matcher, errors) = Matcher::new(jail, zone.clone());
            faults.extend(errors.into_iter().map(|error| (jail.name.clone(), error)));
            matchers.push(matcher);
        }
        let engine = Engine::new(jails, limits);
        let (rules, findings) = (HashMap::new(), Vec::new());
        (Replay { engine, matchers, zone, now: None, present, rules, findings }, faults)
    }

    /// Whom no jail counts: this machine's own addresses, and what is never banned.
    pub fn spare(&mut self, own: Vec<IpAddr>, allowed: Vec<IpNet>, outside: &mut dyn Outside) {
        self.engine.handle(Event::OwnAddresses(own), self.present);
        self.engine.handle(Event::AllowList(allowed), self.present);
        for name in self.engine.names_to_resolve() {
            let addresses = outside.resolve(&name);
            self.engine.handle(Event::Resolved { name, addresses }, self.present);
        }
    }

    /// The time written in a line, by the first of the jails that finds one.
    pub fn time_of(&mut self, line: &str) -> Option<Timestamp> {
        let present = self.present;
        self.matchers.iter_mut().find_map(|matcher| matcher.time_of(line, present))
    }

    /// The time that is written as `at` in a log that has come as far as `before`.
    pub fn in_order(&self, at: Timestamp, before: Timestamp) -> Timestamp {
        in_order(at, before, &self.zone)
    }

    /// Takes in a line written at `at`, or right behind the last one; `given` says that the journal
    /// has told its time, so that none is looked for in it. `jails` are those that read it, by number.
    pub fn line(
        &mut self,
        line: &str,
        at: Option<Timestamp>,
        given: bool,
        jails: impl Iterator<Item = usize>,
        outside: &mut dyn Outside,
        out: &mut Vec<Happening>,
    ) {
        // A date from the future is a mistake of whoever wrote it; the clock does not follow.
        let at = at.filter(|at| *at <= self.present.plus(AHEAD));
        self.now = self.now.into_iter().chain(at).max();
        let now = self.now.unwrap_or(self.present);
        self.wake(now, outside, out);
        for jail in jails {
            let mut findings = std::mem::take(&mut self.findings);
            let written = at.filter(|_| given);
            self.matchers[jail].line(line, written, now, true, &mut findings);
            for finding in findings.drain(..) {
                self.found(finding, now, outside, out);
            }
            self.findings = findings;
        }
    }

    /// Lets time pass up to the present, so that bans end which have ended by now.
    pub fn end(&mut self, outside: &mut dyn Outside, out: &mut Vec<Happening>) {
        self.wake(self.present, outside, out);
    }

    /// The engine as it stands.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What a jail's filter has seen.
    pub fn matcher(&self, jail: usize) -> &Matcher {
        &self.matchers[jail]
    }

    /// Where the clock stands; `None` before the first line.
    pub fn now(&self) -> Option<Timestamp> {
        self.now
    }

    fn found(
        &mut self,
        finding: Finding,
        now: Timestamp,
        outside: &mut dyn Outside,
        out: &mut Vec<Happening>,
    ) {
        let effects = self.engine.handle(Event::Finding(finding.clone()), now);
        self.follow(effects, Some(&finding), now, outside, out);
    }

    fn wake(&mut self, now: Timestamp, outside: &mut dyn Outside, out: &mut Vec<Happening>) {
        for _ in 0..MOST_TURNS {
            let Some(due) = self.engine.next_wake().filter(|due| *due <= now) else { return };
            let effects = self.engine.handle(Event::Wake, due);
            // An end has passed only once its moment is over.
            let idle = effects.is_empty() && self.engine.next_wake() == Some(due);
            self.follow(effects, None, due, outside, out);
            if idle {
                let effects = self.engine.handle(Event::Wake, now);
                self.follow(effects, None, now, outside, out);
                if self.engine.next_wake() == Some(due) {
                    return;
                }
            }
        }
    }

    fn follow(
        &mut self,
        effects: Vec<Effect>,
        finding: Option<&Finding>,
        now: Timestamp,
        outside: &mut dyn Outside,
        out: &mut Vec<Happening>,
    ) {
        // A jail may find something in what another one did; then there is no line of a log.
        let own = |jail: &JailName| finding.filter(|finding| finding.jail == *jail);
        let told = |jail: JailName, who: FailureId, at, attempts, spared| {
            let finding = match own(&jail) {
                Some(finding) => Finding { who, ..finding.clone() },
                None => Finding { jail, who, at, lines: Vec::new(), rule: 0, fields: Vec::new() },
            };
            Happening::Finding { finding, attempts, spared }
        };
        for effect in effects {
            match effect {
                Effect::Found { jail, who, at, attempts } => {
                    out.push(told(jail, who, at, Some(attempts), None));
                }
                Effect::Spared { jail, who, by } => {
                    out.push(told(jail, who, now, None, Some(by)));
                }
                Effect::Ban { ban, prolonged, .. } => {
                    let rule = own(&ban.jail).map_or(0, |finding| finding.rule);
                    self.rules.insert((ban.jail.clone(), ban.prefix), rule);
                    let newest = own(&ban.jail).map_or(now, |finding| finding.at);
                    let at = if prolonged { newest } else { ban.since };
                    out.push(Happening::Ban { ban, at, prolonged, rule });
                }
                Effect::Unban { ban, .. } => {
                    let key = (ban.jail.clone(), ban.prefix);
                    let rule = self.rules.remove(&key).unwrap_or(0);
                    out.push(Happening::Unban { ban, rule });
                }
                Effect::Resolve { name } => {
                    let addresses = outside.resolve(&name);
                    let effects = self.engine.handle(Event::Resolved { name, addresses }, now);
                    self.follow(effects, finding, now, outside, out);
                }
                Effect::Ask(question) => {
                    let answer = outside.ask(&question);
                    let event = Event::Answered { question, answer };
                    let effects = self.engine.handle(event, now);
                    self.follow(effects, finding, now, outside, out);
                }
                // The ban says it, or its absence.
                Effect::KnownOffender { .. }
                | Effect::Increased { .. }
                | Effect::NotIncreased { .. }
                | Effect::Pardoned { .. }
                | Effect::Unasked { .. }
                | Effect::AlreadyBanned { .. }
                | Effect::NoAddress { .. }
                | Effect::Ceiling { .. }
                | Effect::Suspended { .. }
                | Effect::LoggedIn { .. }
                | Effect::Forgot { .. } => {}
            }
        }
    }
}

/// `at`, or the same time of the clock an hour later where that comes twice and the log is past the first.
fn in_order(at: Timestamp, before: Timestamp, zone: &TimeZone) -> Timestamp {
    if at.plus(DISORDER) >= before {
        return at;
    }
    let instant = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    match zone.to_ambiguous_timestamp(zone.to_datetime(instant)).offset() {
        AmbiguousOffset::Fold { before, after } if zone.to_offset(instant) == before => {
            let later = before.seconds() - after.seconds();
            at.plus(std::time::Duration::from_secs(later.unsigned_abs().into()))
        }
        _ => at,
    }
}

#[cfg(test)]
mod tests;
