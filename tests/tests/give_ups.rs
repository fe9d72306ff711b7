//! Promise: a pattern that a line keeps trying for too long is counted and named, in the log and in `status`.
use std::{fs, process::Command, time::Duration};

use fail2xdp_tests::{Daemon, Log, binary, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_pattern_that_gives_up_is_counted_and_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir_all(path("etc/filter.d")).expect("a directory");
    let mut log = Log::open(path("log"));
    let jail = format!(
        "[guard]\nenabled = true\nfilter = guard\nbackend = polling\nlogpath = {}\n",
        path("log")
    );
    fs::write(path("etc/jail.conf"), jail).expect("a file");
    let filter = "[Definition]\nfailregex = ^bad <ADDR>$\n            (?:a|aa)+(?!c)c <ADDR>\n";
    fs::write(path("etc/filter.d/guard.conf"), filter).expect("a file");

    let place = [("--config", "etc"), ("--socket", "sock"), ("--state", "state")];
    let flags = place.map(|(flag, name)| [flag.to_owned(), path(name)]).concat();
    let ours = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(&flags).args(words);
        command
    };
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
