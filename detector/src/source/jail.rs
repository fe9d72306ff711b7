//! A jail as its reader thread sees it.
use std::{net::IpAddr, time::Duration};

use super::{
    Report,
    outbox::{Outbox, Stopped},
};
use crate::{
    config::JailName,
    engine::{Finding, Matcher, Timestamp},
};

/// What a reader needs of a jail's matcher, which lives on one reader thread only.
pub trait LineMatcher: Send {
    /// Matches one decoded line without its line end. `given` is the journal's own time: no date is searched for then.
    /// `caught_up` says that the line was written just now, not before the reader came.
    fn line(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    );

    /// Words of which one stands in every line that may change anything. All others may be left to
    /// [`line_after`](LineMatcher::line_after) and [`passed`](LineMatcher::passed). `None`: every line is wanted.
    fn words(&self) -> Option<&[String]> {
        None
    }

    /// The same as [`line`](LineMatcher::line), with the lines before it since the last that hold none of the words.
    fn line_after(
        &mut self,
        passed: &str,
        line: &str,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        self.passed(passed, now, caught_up);
        self.line(line, None, now, caught_up, out);
    }

    /// Takes in lines that hold none of the words, each with its newline.
    fn passed(&mut self, lines: &str, now: Timestamp, caught_up: bool) {
        let _ = (lines, now, caught_up);
    }

    /// Who logged in and when, if the last line told of that.
    fn login(&mut self) -> Option<(IpAddr, Timestamp)> {
        None
    }

    /// The time written in a line, for the search of the starting point; teaches the matcher nothing.
    fn time_of(&mut self, line: &str, now: Timestamp) -> Option<Timestamp>;
}

impl LineMatcher for Matcher {
    fn line(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        Matcher::line(self, line, given, now, caught_up, out);
    }

    fn words(&self) -> Option<&[String]> {
        Matcher::words(self)
    }

    fn line_after(
        &mut self,
        passed: &str,
        line: &str,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        Matcher::line_after(self, passed, line, now, caught_up, out);
    }

    fn passed(&mut self, lines: &str, now: Timestamp, caught_up: bool) {
        Matcher::passed(self, lines, now, caught_up);
    }

    fn login(&mut self) -> Option<(IpAddr, Timestamp)> {
        Matcher::login(self)
    }

    fn time_of(&mut self, line: &str, now: Timestamp) -> Option<Timestamp> {
        Matcher::time_of(self, line, now)
    }
}

/// A jail's name, its matcher, and how far back it looks.
pub(crate) struct Jail {
    pub(crate) name: JailName,
    pub(crate) find_time: Duration,
    matcher: Box<dyn LineMatcher>,
    findings: Vec<Finding>,
}

impl std::fmt::Debug for Jail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jail").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Jail {
    pub(crate) fn new(name: JailName, find_time: Duration, matcher: Box<dyn LineMatcher>) -> Jail {
        Jail { name, find_time, matcher, findings: Vec::new() }
    }

    /// Matches a line and hands over what is found.
    #[inline]
    pub(crate) fn line(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
        caught_up: bool,
        outbox: &Outbox,
    ) -> Result<(), Stopped> {
        self.matcher.line(line, given, now, caught_up, &mut self.findings);
        self.hand_over(outbox)
    }

    /// The same for a line of a log behind others that hold none of [`words`](Jail::words).
    pub(crate) fn line_after(
        &mut self,
        passed: &str,
        line: &str,
        now: Timestamp,
        caught_up: bool,
        outbox: &Outbox,
    ) -> Result<(), Stopped> {
        self.matcher.line_after(passed, line, now, caught_up, &mut self.findings);
        self.hand_over(outbox)
    }

    /// Takes in lines that hold none of [`words`](Jail::words).
    pub(crate) fn passed(&mut self, lines: &str, now: Timestamp, caught_up: bool) {
        self.matcher.passed(lines, now, caught_up);
    }

    /// What a line needs to be of interest; `None`: every one is.
    pub(crate) fn words(&self) -> Option<&[String]> {
        self.matcher.words()
    }

    fn hand_over(&mut self, outbox: &Outbox) -> Result<(), Stopped> {
        for finding in self.findings.drain(..) {
            outbox.send(Report::Finding(finding))?;
        }
        if let Some((address, at)) = self.matcher.login() {
            outbox.send(Report::LoggedIn { address, at })?;
        }
        Ok(())
    }

    pub(crate) fn time_of(&mut self, line: &str, now: Timestamp) -> Option<Timestamp> {
        self.matcher.time_of(line, now)
    }

    /// Nothing older counts.
    pub(crate) fn since(&self, now: Timestamp) -> Timestamp {
        now.minus(self.find_time)
    }
}
