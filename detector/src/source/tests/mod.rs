//! The whole room on real files and journals. Nothing sleeps: every wait is for a report, with a deadline.
mod files;
mod journal;
mod journal_files;
mod journal_flags;
mod journal_live;
mod journal_model;
mod logrotate;
mod model;
mod restart;

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::mpsc::{Receiver, channel},
    time::timeout,
};

use super::{
    FileState, JournalState, Limit, LineMatcher, Positions, Readers, Report, Rotation, files::Watch,
};
use crate::{
    clock::Clock,
    config::{
        BanTime, FilterSettings, JailName, JailSettings, LogPath, Scope, SourceSettings, UseDns,
    },
    engine::{FailureId, Finding, Timestamp},
};

/// No report takes longer, however loaded the machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the tests' clock shows.
const NOW: i64 = 1_700_000_000;

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

/// A jail of this name is given every line.
const EVERY_LINE: &str = "every line";

/// Finds a failure in every line that says `bad`; a line's time stands in front as `@seconds`.
struct Fake(JailName);

impl LineMatcher for Fake {
    fn line(
        &mut self,
        line: &str,
        given: Option<Timestamp>,
        now: Timestamp,
        caught_up: bool,
        out: &mut Vec<Finding>,
    ) {
        if line.contains("bad") {
            let caught_up = if caught_up { "new" } else { "old" };
            out.push(Finding {
                jail: self.0.clone(),
                who: FailureId::Text(line.into()),
                at: given.unwrap_or(now),
                lines: vec![line.into()],
                rule: 0,
                fields: vec![("caught_up".into(), caught_up.into())],
            });
        }
    }

    fn words(&self) -> Option<&[String]> {
        static BAD: LazyLock<[String; 1]> = LazyLock::new(|| ["bad".to_owned()]);
        (self.0.as_str() != EVERY_LINE).then_some(&*BAD)
    }

    fn time_of(&mut self, line: &str, _: Timestamp) -> Option<Timestamp> {
        let seconds = line.strip_prefix('@')?.split(' ').next()?.parse().ok()?;
        Some(Timestamp::from_seconds(seconds))
    }
}

fn jail(name: &str, source: SourceSettings) -> (JailSettings, Fake) {
    let filter = FilterSettings {
        name: "fake".into(),
        prefregex: None,
        failregex: Vec::new(),
        ignoreregex: Vec::new(),
        max_lines: 1,
        date_patterns: Vec::new(),
        use_dns: UseDns::No,
        time_zone: None,
    };
    let settings = JailSettings {
        name: JailName::new(name),
        place: None,
        filter,
        source,
        max_retry: 1,
        find_time: Duration::from_secs(600),
        ban_time: BanTime::Seconds(600),
        increment: None,
        max_matches: 1,
        ignore: Vec::new(),
        ignore_self: false,
        ignore_command: None,
        ignore_cache: None,
        scope: Scope::EveryPacket,
        actions: Vec::new(),
        ipv6_prefix: 128,
        silence: None,
        observe: false,
    };
    (settings, Fake(JailName::new(name)))
}

/// A directory, readers in it, and what they have reported.
struct Bench {
    dir: Arc<TempDir>,
    runtime: Runtime,
    reports: Receiver<Report>,
    readers: Option<Readers>,
    /// Reports that an earlier bench had not taken yet.
    first: std::collections::VecDeque<Report>,
    seen: Vec<Report>,
}

/// How a bench is set up, beside its jails.
#[derive(Clone)]
struct Setup {
    dir: Arc<TempDir>,
    from: Positions,
    queue: usize,
    clock: Clock,
    watch: fn() -> Watch,
}

impl Setup {
    fn new() -> Setup {
        Setup {
            dir: Arc::new(tempfile::tempdir().expect("a directory for the test")),
            from: Positions::default(),
            queue: 1000,
            clock: now,
            watch: Watch::new,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts jails given as `name: path path`; `path tail` as in a configuration. `encoding=` may come first.
    fn start(&self, jails: &[&str]) -> Bench {
        let files = jails.iter().map(|text| {
            let (name, paths) = text.split_once(':').expect("`name: paths`");
            let mut encoding = "auto".to_owned();
            let mut found: Vec<LogPath> = Vec::new();
            for word in paths.split_whitespace() {
                if let Some(name) = word.strip_prefix("encoding=") {
                    name.clone_into(&mut encoding);
                } else if let ("tail", Some(path)) = (word, found.last_mut()) {
                    path.tail = true;
                } else {
                    let pattern = self.path(word).to_string_lossy().into_owned();
                    found.push(LogPath { pattern, tail: false, place: None });
                }
            }
            jail(name, SourceSettings::Files { paths: found, encoding })
        });
        self.start_jails(files.collect())
    }

    fn start_jails(&self, jails: Vec<(JailSettings, Fake)>) -> Bench {
        let (to, reports) = channel(self.queue);
        let from = self.from.clone();
        let readers = Readers::start_with(jails, from, to, self.clock, self.watch);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Bench {
            dir: Arc::clone(&self.dir),
            runtime: runtime.expect("a runtime for the test"),
            reports,
            readers: Some(readers),
            first: Default::default(),
            seen: Vec::new(),
        }
    }
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn next(&mut self, wanted: &str) -> Report {
        if let Some(report) = self.first.pop_front() {
            return report;
        }
        let report = self.runtime.block_on(async { timeout(DEADLINE, self.reports.recv()).await });
        match report {
            Ok(Some(report)) => report,
            Ok(None) => {
                panic!("all readers ended while waiting for {wanted}; seen: {:#?}", self.seen)
            }
            Err(_) => panic!("nothing came while waiting for {wanted}; seen: {:#?}", self.seen),
        }
    }

    /// Waits for a report, passing over all but findings and faults, which must not come.
    #[track_caller]
    fn wait(&mut self, wanted: &Report) {
        loop {
            let report = self.next(&format!("{wanted:?}"));
            self.seen.push(report.clone());
            if report == *wanted {
                return;
            }
            let bad = matches!(report, Report::Finding(_) | Report::Fault { .. });
            assert!(!bad, "{report:?} while waiting for {wanted:?}");
        }
    }

    #[track_caller]
    fn wait_state(&mut self, name: &str, state: FileState) {
        self.wait(&Report::File { path: self.path(name), state });
    }

    #[track_caller]
    fn wait_rotated(&mut self, name: &str, how: Rotation) {
        self.wait(&Report::Rotated { path: self.path(name), how });
    }

    #[track_caller]
    fn wait_caught_up(&mut self, name: &str) {
        self.wait(&Report::CaughtUp { source: self.path(name).display().to_string() });
    }

    /// Waits for findings, given as `jail: line`, in exactly this order; other reports may come between.
    #[track_caller]
    fn expect(&mut self, wanted: &[&str]) {
        let mut found: Vec<String> = Vec::new();
        while found.len() < wanted.len() {
            let report = self.next(&format!("{wanted:?} after {found:?}"));
            self.seen.push(report.clone());
            match report {
                Report::Finding(finding) => found.push(text(&finding)),
                Report::Fault { .. } => panic!("{report:?}"),
                _ => {}
            }
        }
        let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
        if let Some(at) = differs {
            let near = |lines: Vec<&str>| {
                let near = lines.iter().skip(at.saturating_sub(2)).take(5);
                let near = near.map(|line| line.split("  ").next().unwrap_or(line));
                near.collect::<Vec<_>>().join("\n")
            };
            let found = near(found.iter().map(String::as_str).collect());
            panic!("finding {at} differs: found\n{found}\nwanted\n{}", near(wanted.to_vec()));
        }
    }

    /// Stops; no finding may be left that was not expected.
    #[track_caller]
    fn stop(mut self) -> Positions {
        let readers = self.readers.take().expect("stopped once only");
        let positions = readers.stop();
        while let Ok(report) = self.reports.try_recv() {
            let bad = matches!(report, Report::Finding(_) | Report::Fault { .. });
            assert!(!bad, "unexpected {report:?}");
        }
        positions
    }

    fn status(&self) -> Vec<super::SourceStatus> {
        self.readers.as_ref().expect("still running").sources()
    }
}

fn text(finding: &Finding) -> String {
    format!("{}: {}", finding.jail, finding.lines[0])
}

#[track_caller]
fn append(path: &Path, text: impl AsRef<[u8]>) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    write(&mut file.expect("the log can be opened"), text);
}

#[track_caller]
fn write(file: &mut File, text: impl AsRef<[u8]>) {
    file.write_all(text.as_ref()).expect("the log can be written");
}

#[track_caller]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("it can be renamed");
}
