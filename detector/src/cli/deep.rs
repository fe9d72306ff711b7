//! `check --deep`: the last day of every source through its jail's filter.
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    clock,
    config::{JailSettings, Problem, Severity, SourceSettings},
    engine::{Finding, Matcher, MatcherCounts, Timestamp},
    source::{LineMatcher, Positions, Readers, Report},
};

/// How far back is looked.
const DAY: Duration = Duration::from_secs(86_400);
/// How long the reading may take: what was not read by then is not judged.
const AT_MOST: Duration = Duration::from_secs(120);
/// Nothing was read for so long: everything was.
const QUIET: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(20);
/// Reports that may wait to be thrown away.
const QUEUE: usize = 4_096;

/// What a jail's matcher saw, readable while it works.
#[derive(Debug, Default)]
struct Seen {
    lines: AtomicU64,
    dated: AtomicU64,
    recent: AtomicU64,
    hits: AtomicU64,
}

/// A matcher that is watched.
struct Watched {
    matcher: Matcher,
    seen: Arc<Seen>,
    journal: bool,
}

impl LineMatcher for Watched {
    fn line(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        let dated = given.is_some() || self.matcher.time_of(line, now).is_some();
        self.matcher.line(line, given, now, caught_up, out);
        out.clear();
        let MatcherCounts { lines, matched, ignored, too_old, .. } = self.matcher.counts();
        self.seen.lines.store(lines, Relaxed);
        self.seen.recent.store(lines - too_old.min(lines), Relaxed);
        self.seen.hits.store(matched + ignored, Relaxed);
        self.seen.dated.fetch_add(u64::from(dated || self.journal), Relaxed);
    }

    fn time_of(&mut self, line: &str, now: Timestamp) -> Option<Timestamp> {
        self.matcher.time_of(line, now)
    }
}

/// Reads what the jails' sources hold of the last day and tells whose filter matched nothing in it.
pub(super) fn problems(jails: &[JailSettings]) -> Vec<Problem> {
    let mut seen = BTreeMap::new();
    let mut watched = Vec::new();
    for jail in jails {
        let mut settings = jail.clone();
        settings.find_time = DAY;
        let (matcher, _) = Matcher::new(&settings, jiff::tz::TimeZone::system());
        if !matcher.is_armed() || matches!(jail.source, SourceSettings::Nothing) {
            continue;
        }
        let counts = Arc::new(Seen::default());
        seen.insert(jail.name.clone(), Arc::clone(&counts));
        let journal = matches!(jail.source, SourceSettings::Journal(_));
        watched.push((settings, Watched { matcher, seen: counts, journal }));
    }
    read(watched, &seen.values().cloned().collect::<Vec<_>>());
    let doubt = |jail: &JailSettings| {
        let seen = seen.get(&jail.name)?;
        let [lines, dated, recent, hits] =
            [&seen.lines, &seen.dated, &seen.recent, &seen.hits].map(|count| count.load(Relaxed));
        let (what, remedy) = match (lines, dated, recent, hits) {
            (0, ..) => (
                "its logs hold no line of the last day".to_owned(),
                "see whether the service writes somewhere else",
            ),
            (_, 0, ..) => (
                format!("in none of {lines} lines of its logs the filter finds a date"),
                "set `datepattern` to the form of date that the log has",
            ),
            (.., 0, _) | (.., 1.., 1..) => return None,
            (.., recent, 0) => (
                format!("the filter matches nothing in the {recent} lines of the last day"),
                "compare the log's lines with the filter, as a service may have changed its words; nothing need be \
                 wrong where nobody tried to get in",
            ),
        };
        Some(Problem {
            severity: Severity::Warning,
            jail: Some(jail.name.clone()),
            place: jail.place.clone(),
            what,
            remedy: remedy.to_owned(),
        })
    };
    jails.iter().filter_map(doubt).collect()
}

/// Lets readers work until they have come to the end.
fn read(jails: Vec<(JailSettings, Watched)>, seen: &[Arc<Seen>]) {
    let (to, mut from) = mpsc::channel::<Report>(QUEUE);
    let readers = Readers::start(jails, Positions::default(), to, clock::now);
    let lines = || seen.iter().map(|seen| seen.lines.load(Relaxed)).sum::<u64>();
    let start = clock::monotonic();
    let (mut last, mut since) = (0, start);
    while start.elapsed() < AT_MOST {
        let mut busy = false;
        while from.try_recv().is_ok() {
            busy = true;
        }
        let now = lines();
        if busy || now != last || !readers.have_looked() {
            (last, since) = (now, clock::monotonic());
        } else if since.elapsed() >= QUIET {
            break;
        }
        thread::sleep(TICK);
    }
    readers.stop();
}
