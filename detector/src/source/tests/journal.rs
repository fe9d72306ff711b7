//! Journals: files written by `systemd-journal-remote`, and a living `systemd-journald` of our own.
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
};

use super::*;
use crate::config::JournalSettings;

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Any boot will do; an entry must have one.
const BOOT: &str = "0123456789abcdef0123456789abcdef";

/// Adds entries, given as `seconds FIELD=value FIELD=value`, to a journal file; `_` in values stands for a space.
#[track_caller]
fn log(file: &Path, entries: &[&str]) {
    let mut feed = String::new();
    for entry in entries {
        let (seconds, fields) = entry.split_once(' ').expect("a time and fields");
        let micros = seconds.parse::<i64>().expect("a number") * 1_000_000;
        feed +=
            &format!("__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID={BOOT}\n");
        for field in fields.split(' ') {
            let (name, value) = field.split_once('=').expect("a field");
            feed += &format!("{name}={}\n", value.replace('~', " "));
        }
        feed += "\n";
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
    child.stdin.take().expect("piped").write_all(feed.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A jail that reads the journal in a directory; groups are separated by `+`.
fn journal_jail(setup: &Setup, name: &str, matches: &str) -> (JailSettings, Fake) {
    let groups = matches.split('+').map(|group| group.split_whitespace().map(str::to_owned));
    let journal = JournalSettings {
        matches: groups.map(Iterator::collect).filter(|group: &Vec<_>| !group.is_empty()).collect(),
        directory: Some(setup.path("journal")),
        ..JournalSettings::default()
    };
    jail(name, SourceSettings::Journal(journal))
}

impl Setup {
    fn start_journal(&self, jails: &[(&str, &str)]) -> Bench {
        let jails = jails.iter().map(|(name, matches)| journal_jail(self, name, matches));
        self.start_jails(jails.collect())
    }

    fn journal_name(&self) -> String {
        format!("journal in {}", self.path("journal").display())
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

/// A journald of our own, in a private mount namespace, whose files lie in a directory of ours.
struct Journald {
    child: Child,
}

impl Journald {
    fn start(files: &Path) -> Journald {
        fs::create_dir_all(files).expect("made");
        let script = format!(
            "set -e; mkdir -p /run/systemd/journal /run/log/journal; \
             mount -t tmpfs tmpfs /run/systemd/journal; mount --bind \"$1\" /run/log/journal; \
             exec {JOURNALD}"
        );
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
            .arg(files)
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("`unshare` of the package `util-linux` runs");
        // The one place where there is nothing to wait for but a socket to appear.
        for _ in 0..DEADLINE.as_millis() / 10 {
            if Journald::socket(&child).exists() {
                return Journald { child };
            }
            if child.try_wait().expect("it can be asked").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let mut why = String::new();
        let _ = child.stderr.take().expect("piped").read_to_string(&mut why);
        panic!("{JOURNALD} did not start ({why}); it takes root and the package `systemd`");
    }

    fn socket(child: &Child) -> PathBuf {
        format!("/proc/{}/root/run/systemd/journal/stdout", child.id()).into()
    }

    /// A service's standard output, as systemd would connect it.
    fn service(&self, name: &str) -> UnixStream {
        let socket = Journald::socket(&self.child);
        let mut stream = UnixStream::connect(socket).expect("journald listens");
        stream
            .write_all(format!("{name}\nf2x.service\n6\n0\n0\n0\n0\n").as_bytes())
            .expect("taken");
        stream
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_living_journal_is_followed_through_rotation() {
    let setup = Setup { clock: crate::clock::now, ..Setup::new() };
    let journald = Journald::start(&setup.path("journal"));
    let mut bench =
        setup.start_journal(&[("j", "_SYSTEMD_UNIT=f2x.service SYSLOG_IDENTIFIER=sshd")]);
    bench.wait(&Report::CaughtUp { source: setup.journal_name() });
    let (mut service, mut other) = (journald.service("sshd"), journald.service("other"));
    let mut expect = |bench: &mut Bench, number: u32| {
        other.write_all(b"bad, but of another service\n").expect("taken");
        service.write_all(format!("bad {number}\n").as_bytes()).expect("taken");
        let report = loop {
            match bench.next("a finding") {
                Report::Finding(finding) => break finding,
                Report::Fault { source, what } => panic!("{source}: {what}"),
                _ => {}
            }
        };
        let line = &report.lines[0];
        assert!(line.contains(" sshd[") && line.ends_with(&format!("]: bad {number}")), "{line}");
        assert_eq!(&*report.fields[0].1, "new");
    };
    for number in 0..3 {
        expect(&mut bench, number);
    }
    for number in 3..6 {
        let rotate = rustix::process::Signal::USR2;
        let pid = rustix::process::Pid::from_child(&journald.child);
        rustix::process::kill_process(pid, rotate).expect("it lives");
        expect(&mut bench, number);
    }
    bench.stop();
}
