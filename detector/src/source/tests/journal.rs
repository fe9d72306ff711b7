//! Journals: files written by `systemd-journal-remote`.
use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::*;
use crate::config::JournalSettings;

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// Any boot will do where fields name none; an entry must have one.
const BOOT: &str = "0123456789abcdef0123456789abcdef";

/// An entry's fields: names and values.
pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// Adds entries, given as `seconds FIELD=value FIELD=value`, to a journal file; `~` in values stands for a space.
#[track_caller]
pub(super) fn log(file: &Path, entries: &[&str]) {
    let entries = entries.iter().map(|entry| {
        let (seconds, fields) = entry.split_once(' ').expect("a time and fields");
        let fields = fields.split(' ').map(|field| {
            let (name, value) = field.split_once('=').expect("a field");
            (name.to_owned(), value.replace('~', " ").into_bytes())
        });
        (seconds.parse::<i64>().expect("a number") * 1_000_000, fields.collect())
    });
    log_fields(file, &entries.collect::<Vec<_>>());
}

/// Adds entries, each with its time in microseconds, in the export format of systemd-journal-remote(8).
#[track_caller]
pub(super) fn log_fields(file: &Path, entries: &[(i64, Fields)]) {
    let mut feed = Vec::new();
    for (micros, fields) in entries {
        feed.extend(format!("__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP=1\n").bytes());
        if fields.iter().all(|(name, _)| name != "_BOOT_ID") {
            feed.extend(format!("_BOOT_ID={BOOT}\n").bytes());
        }
        for (name, value) in fields {
            feed.extend(name.bytes());
            if value.iter().all(|byte| (32..127).contains(byte)) {
                feed.push(b'=');
            } else {
                feed.push(b'\n');
                feed.extend((value.len() as u64).to_le_bytes());
            }
            feed.extend(value);
            feed.push(b'\n');
        }
        feed.push(b'\n');
    }
    fs::create_dir_all(file.parent().expect("in a directory")).expect("made");
    let child = Command::new(REMOTE)
        .arg("-o")
        .arg(file)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("{REMOTE}: {error}; install the package `systemd-journal-remote`")
    });
    child.stdin.take().expect("piped").write_all(&feed).expect("taken");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A jail that reads the journal in a directory; groups are separated by `+`.
pub(super) fn journal_jail(setup: &Setup, name: &str, matches: &str) -> (JailSettings, Fake) {
    let groups = matches.split('+').map(|group| group.split_whitespace().map(str::to_owned));
    let journal = JournalSettings {
        matches: groups.map(Iterator::collect).filter(|group: &Vec<_>| !group.is_empty()).collect(),
        directory: Some(setup.path("journal")),
        ..JournalSettings::default()
    };
    jail(name, SourceSettings::Journal(journal))
}

impl Setup {
    pub(super) fn start_journal(&self, jails: &[(&str, &str)]) -> Bench {
        let jails = jails.iter().map(|(name, matches)| journal_jail(self, name, matches));
        self.start_jails(jails.collect())
    }

    pub(super) fn journal_name(&self) -> String {
        format!("journal in {}", self.path("journal").display())
    }
}

impl Bench {
    /// The next finding, given as `jail: line`.
    #[track_caller]
    pub(super) fn finding(&mut self) -> String {
        loop {
            let report = self.next("a finding");
            self.seen.push(report.clone());
            match report {
                Report::Finding(finding) => return text(&finding),
                Report::Fault { .. } => panic!("{report:?}"),
                _ => {}
            }
        }
    }

    /// Waits for a fault that says this, passing over all but findings.
    #[track_caller]
    pub(super) fn wait_fault(&mut self, part: &str) -> String {
        loop {
            let report = self.next(part);
            self.seen.push(report.clone());
            match report {
                Report::Fault { what, .. } if what.contains(part) => return what,
                Report::Fault { .. } | Report::Finding(_) => panic!("{report:?} instead of {part}"),
                _ => {}
            }
        }
    }

    /// The same as [`Bench::expect`], where faults may come between.
    #[track_caller]
    pub(super) fn expect_after_faults(&mut self, wanted: &[&str]) {
        let mut found = Vec::new();
        while found.len() < wanted.len() {
            match self.next("findings after faults") {
                Report::Finding(finding) => found.push(text(&finding)),
                report => self.seen.push(report),
            }
        }
        assert_eq!(found, wanted);
    }
}

#[test]
fn entries_are_shared_out_to_the_jails_that_match_them() {
    let setup = Setup::new();
    log(
        &setup.path("journal/system.journal"),
        &[
            "1699999900 _SYSTEMD_UNIT=ssh.service _HOSTNAME=h SYSLOG_IDENTIFIER=sshd _PID=7 MESSAGE=bad~1",
            "1699999901 _SYSTEMD_UNIT=other.service MESSAGE=bad~2",
            "1699999902 _SYSTEMD_UNIT=web.service _COMM=nginx MESSAGE=bad~3",
            "1699999903 _SYSTEMD_UNIT=ssh.service MESSAGE=good",
            "1699999904 _COMM=sshd MESSAGE=bad~4",
        ],
    );
    let jails = [
        ("ssh", "_SYSTEMD_UNIT=ssh.service + _COMM=sshd"),
        ("web", "_SYSTEMD_UNIT=web.service _COMM=nginx"),
        ("both", "_SYSTEMD_UNIT=ssh.service _SYSTEMD_UNIT=web.service"),
    ];
    let mut bench = setup.start_journal(&jails);
    bench.expect(&[
        "ssh: h sshd[7]: bad 1",
        "both: h sshd[7]: bad 1",
        "web: nginx: bad 3",
        "both: nginx: bad 3",
        "ssh: sshd: bad 4",
    ]);
    let times: Vec<i64> = bench
        .seen
        .iter()
        .filter_map(|report| match report {
            Report::Finding(finding) => Some(finding.at.seconds() - 1_699_999_900),
            _ => None,
        })
        .collect();
    assert_eq!(times, [0, 0, 2, 2, 4]);
    bench.stop();
    let mut everything = setup.start_journal(&[("all", "")]);
    everything.expect(&[
        "all: h sshd[7]: bad 1",
        "all: bad 2",
        "all: nginx: bad 3",
        "all: sshd: bad 4",
    ]);
    everything.stop();
}

#[test]
fn entries_older_than_findtime_are_not_read_and_later_ones_follow() {
    let setup = Setup::new();
    let file = setup.path("journal/system.journal");
    log(&file, &["1699990000 MESSAGE=bad~old", "1699999999 MESSAGE=bad~1"]);
    let mut bench = setup.start_journal(&[("j", "")]);
    bench.expect(&["j: bad 1"]);
    bench.wait(&Report::CaughtUp { source: setup.journal_name() });
    log(&file, &["1700000001 MESSAGE=bad~2"]);
    bench.expect(&["j: bad 2"]);
    // As journald rotates: the file gets another name, a new one takes its place.
    rename(&file, &setup.path("journal/system@0.journal"));
    log(&file, &["1700000002 MESSAGE=bad~3"]);
    bench.expect(&["j: bad 3"]);
    bench.stop();
}

#[test]
fn journal_files_given_by_name_are_followed_through_rotation() {
    let setup = Setup::new();
    let file = setup.path("journal/system.journal");
    log(&file, &["1699999999 MESSAGE=bad~1"]);
    let journal = JournalSettings {
        files: vec![setup.path("journal/sys*m.journal").to_string_lossy().into_owned()],
        ..JournalSettings::default()
    };
    let mut bench = setup.start_jails(vec![jail("j", SourceSettings::Journal(journal))]);
    bench.expect(&["j: bad 1"]);
    log(&file, &["1700000001 MESSAGE=bad~2"]);
    bench.expect(&["j: bad 2"]);
    rename(&file, &setup.path("journal/system@0.journal"));
    log(&file, &["1700000002 MESSAGE=bad~3"]);
    bench.expect(&["j: bad 3"]);
    bench.stop();
}

#[test]
fn a_missing_journal_is_waited_for() {
    let setup = Setup::new();
    let mut bench = setup.start_journal(&[("j", "")]);
    let why = "there are no journal files yet".to_owned();
    let journal = setup.journal_name();
    bench
        .wait(&Report::Journal { journal: journal.clone(), state: JournalState::Unavailable(why) });
    log(&setup.path("journal/system.journal"), &["1699999999 MESSAGE=bad~1"]);
    bench.wait(&Report::Journal { journal, state: JournalState::Following });
    bench.expect(&["j: bad 1"]);
    let status = bench.status().remove(0).journal.expect("it reads a journal");
    assert_eq!(status.state, JournalState::Following);
    bench.stop();
}

#[test]
fn a_restart_goes_on_at_the_cursor() {
    let setup = Setup::new();
    let file = setup.path("journal/system.journal");
    log(&file, &["1699999990 MESSAGE=bad~1", "1699999990 MESSAGE=bad~2"]);
    let mut bench = setup.start_journal(&[("j", "")]);
    bench.expect(&["j: bad 1", "j: bad 2"]);
    bench.wait(&Report::CaughtUp { source: setup.journal_name() });
    let from = bench.stop();
    log(&file, &["1699999991 MESSAGE=bad~3"]);
    let mut bench = Setup { from: from.clone(), ..setup.clone() }.start_journal(&[("j", "")]);
    bench.expect(&["j: bad 3"]);
    bench.stop();
    // A jail that is new reads what the other has read already.
    let jails = [("j", ""), ("new", "")];
    let mut bench = Setup { from: from.clone(), ..setup.clone() }.start_journal(&jails);
    bench.expect(&["new: bad 1", "new: bad 2", "j: bad 3", "new: bad 3"]);
    bench.stop();
    // The entry read last is no longer there.
    fs::remove_file(&file).expect("removed");
    log(&file, &["1699999992 MESSAGE=bad~4"]);
    let mut bench = Setup { from, ..setup.clone() }.start_journal(&[("j", "")]);
    bench.expect(&["j: bad 4"]);
    bench.stop();
}

#[test]
fn a_full_queue_loses_no_entry_even_when_stopped() {
    let setup = Setup { queue: 2, ..Setup::new() };
    let file = setup.path("journal/system.journal");
    let entries: Vec<String> = (0..100).map(|n| format!("1699999990 MESSAGE=bad~{n}")).collect();
    log(&file, &entries.iter().map(String::as_str).collect::<Vec<_>>());
    let mut found = Vec::new();
    let mut from = Positions::default();
    while found.len() < entries.len() {
        let mut bench = Setup { from, ..setup.clone() }.start_journal(&[("j", "")]);
        let mut wanted = 30.min(entries.len() - found.len());
        while wanted > 0 {
            if let Report::Finding(finding) = bench.next("a finding") {
                found.push(finding.lines[0].to_string());
                wanted -= 1;
            }
        }
        from = bench.readers.take().expect("running").stop();
        while let Ok(report) = bench.reports.try_recv() {
            if let Report::Finding(finding) = report {
                found.push(finding.lines[0].to_string());
            }
        }
    }
    assert_eq!(found, (0..100).map(|n| format!("bad {n}")).collect::<Vec<_>>());
}

#[test]
fn files_are_chosen_before_the_journal_and_whichever_comes_first() {
    let choose = |setup: &Setup| {
        let (settings, matcher) = journal_jail(setup, "j", "");
        let SourceSettings::Journal(journal) = settings.source.clone() else { unreachable!() };
        let pattern = setup.path("log").to_string_lossy().into_owned();
        let paths = vec![LogPath { pattern, tail: false, place: None }];
        let source = SourceSettings::Auto { paths, encoding: "auto".into(), journal };
        setup.start_jails(vec![(JailSettings { source, ..settings }, matcher)])
    };
    let write_journal = |setup: &Setup, text: &str| {
        let entry = format!("1699999999 MESSAGE=bad~{text}");
        log(&setup.path("journal/system.journal"), &[&entry]);
    };
    let both = Setup::new();
    append(&both.path("log"), "bad from the file\n");
    write_journal(&both, "from~the~journal");
    let mut bench = choose(&both);
    bench.expect(&["j: bad from the file"]);
    assert_eq!(bench.status()[0].journal, None);
    bench.stop();

    // The same, had syslog been given up long ago.
    fn later() -> Timestamp {
        Timestamp::from_seconds(NOW + 100)
    }
    let stale = Setup { clock: later, ..Setup::new() };
    append(&stale.path("log"), "bad from the file\n");
    let log = File::options().append(true).open(stale.path("log")).expect("opened");
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(NOW as u64 - 200_000);
    log.set_modified(long_ago).expect("changed");
    write_journal(&stale, "from~the~journal");
    let mut bench = choose(&stale);
    bench.expect(&["j: bad from the journal"]);
    bench.stop();

    let journal = Setup::new();
    write_journal(&journal, "from~the~journal");
    let mut bench = choose(&journal);
    bench.expect(&["j: bad from the journal"]);
    append(&journal.path("log"), "bad from the file\n");
    write_journal(&journal, "again");
    bench.expect(&["j: bad again"]);
    assert_eq!(bench.status()[0].files, []);
    bench.stop();

    for file_first in [true, false] {
        let neither = Setup::new();
        let mut bench = choose(&neither);
        bench.wait_state("log", FileState::Waiting);
        if file_first {
            append(&neither.path("log"), "bad from the file\n");
            bench.expect(&["j: bad from the file"]);
            write_journal(&neither, "from~the~journal");
            append(&neither.path("log"), "bad again\n");
        } else {
            write_journal(&neither, "from~the~journal");
            bench.expect(&["j: bad from the journal"]);
            append(&neither.path("log"), "bad from the file\n");
            write_journal(&neither, "again");
        }
        bench.expect(&["j: bad again"]);
        bench.stop();
    }
}
