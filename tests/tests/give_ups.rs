//! Promise: a pattern that a line keeps trying for too long is counted and named, in the log and in `status`.
use std::{fs, path::Path, process::Command, time::Duration};

use fail2xdp_tests::{Daemon, Log, binary, until};
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// A daemon in this folder with a jail `guard` that reads `log`, and a client of it.
fn guard(folder: &Path, failregex: &str) -> impl Fn(&[&str]) -> Command {
    let path = |name: &str| folder.join(name).display().to_string();
    fs::create_dir_all(path("etc/filter.d")).expect("a directory");
    let jail = format!(
        "[guard]\nenabled = true\nfilter = guard\nbackend = polling\nlogpath = {}\n",
        path("log")
    );
    fs::write(path("etc/jail.conf"), jail).expect("a file");
    let filter = format!("[Definition]\nfailregex = {failregex}\n");
    fs::write(path("etc/filter.d/guard.conf"), filter).expect("a file");
    let place = [("--config", "etc"), ("--socket", "sock"), ("--state", "state")];
    let flags = place.map(|(flag, name)| [flag.to_owned(), path(name)]).concat();
    move |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(&flags).args(words);
        command
    }
}

#[test]
fn every_text_is_searched_twice_where_that_is_wanted() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut log = Log::open(folder.path().join("log").display().to_string());
    let ours = guard(folder.path(), "^bad <ADDR>$\n            ^(?!good)\\w+ by <ADDR>");
    let mut daemon = Daemon::start(ours(&["run", "--mode", "none", "--verify-matching"]));
    log.append(&"bad 203.0.113.1\nworse by 203.0.113.2\ngood by 203.0.113.3\n".repeat(5));
    let banned = || {
        let said = ours(&["banned"]).output().expect("we start").stdout;
        let said = String::from_utf8(said).expect("text");
        (said.contains("203.0.113.1") && said.contains("203.0.113.2")).then_some(said)
    };
    let said = until(SOON, "both are banned", banned);
    assert!(!said.contains("203.0.113.3"), "{said}");
    daemon.signal(Signal::TERM);
    let said = daemon.wait_for_line("two engines searched", SOON);
    // Each failregex on what stands behind the words it needs.
    assert!(said.contains("searched 15 texts and said the same of all but 0"), "{said}");
}

#[test]
fn a_pattern_that_gives_up_is_counted_and_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut log = Log::open(path("log"));
    let ours = guard(folder.path(), "^bad <ADDR>$\n            (?:a|aa)+(?!c)c <ADDR>");
    let said = |words: &[&str]| {
        String::from_utf8(ours(words).output().expect("we start").stdout).expect("text")
    };
    let mut daemon = Daemon::start(ours(&["run", "--mode", "none"]));
    let gave_up = || {
        let status: Value = serde_json::from_str(&said(&["status", "--json"])).ok()?;
        Some(status["jails"][0]["gave_up"].clone())
    };
    until(SOON, "the daemon answers", || gave_up().filter(|none| *none == serde_json::json!([])));
    log.append(&format!("{}c 192.0.2.1\n", "a".repeat(5000)).repeat(2));
    let place = format!("{}:3", path("etc/filter.d/guard.conf"));
    let expect = serde_json::json!([{ "pattern": "failregex 2", "place": place, "lines": 2 }]);
    until(SOON, "both lines are counted", || gave_up().filter(|told| *told == expect));
    let warned = daemon.wait_for_line("gave up on", SOON);
    let part = format!("[guard] failregex 2 ({place}) gave up on 2 lines");
    assert!(warned.contains("WARN") && warned.contains(&part), "{warned}");
    let part = format!("Gave up:\t[guard] failregex 2 ({place}), on 2 lines");
    assert!(said(&["status"]).contains(&part), "{}", said(&["status"]));
}
