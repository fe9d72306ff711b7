//! Promise: `fail2xdp replay` says who would have been banned and when, from files and from the journal, and decides as
//! the daemon does.
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use fail2xdp_tests::{ATTACKER, LogTo, Login, Net, SERVER, Site, Sshd, binary, guess, tool, unit};
use serde_json::{Value, json};

/// A configuration with one jail, and a filter for its lines.
fn configure(folder: &Path) -> String {
    let tree = folder.join("etc");
    fs::create_dir_all(tree.join("filter.d")).expect("a directory");
    let jails = "[guard]\nenabled = true\nfilter = guard\nbackend = polling\nmaxretry = 3\nfindtime = 60\n\
                 bantime = 100\nignoreself = false\nignoreip = 192.0.2.9\n\
                 [other]\nenabled = false\nfilter = guard\nmaxretry = 1\nbantime = -1\n";
    fs::write(tree.join("jail.conf"), jails).expect("a file");
    let filter = "[Definition]\nfailregex = ^ <F-USER>\\S+</F-USER> failed from <ADDR>$\n\
                  datepattern = ^%%Y-%%m-%%dT%%H:%%M:%%S%%z\n";
    fs::write(tree.join("filter.d/guard.conf"), filter).expect("a file");
    tree.display().to_string()
}

fn replay(config: &str, words: &[&str]) -> Output {
    Command::new(binary())
        .args(["--config", config, "replay"])
        .args(words)
        .output()
        .expect("we start")
}

#[track_caller]
fn events(config: &str, words: &[&str]) -> Vec<Value> {
    let output = replay(config, &[&["--json"], words].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn failed(second: u32, who: &str) -> String {
    format!("2026-01-02T03:{:02}:{:02}Z bob failed from {who}\n", second / 60, second % 60)
}

#[test]
fn files_are_read_together_in_the_order_of_their_times() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = configure(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let one = [failed(0, "192.0.2.1"), failed(20, "192.0.2.1"), failed(300, "2001:db8::1")];
    let two = [failed(10, "192.0.2.1"), failed(11, "192.0.2.9"), failed(299, "2001:db8::1")];
    fs::write(path("one"), one.concat()).expect("a file");
    fs::write(path("two"), two.concat()).expect("a file");
    let events = events(&config, &[&path("one"), &path("two")]);
    let shown: Vec<String> = events
        .iter()
        .map(|event| format!("{} {} {}", event["event"], event["address"], event["failures"]))
        .collect();
    assert_eq!(
        shown.join(", ").replace('"', ""),
        "finding 192.0.2.1 1, finding 192.0.2.1 2, finding 192.0.2.9 null, finding 192.0.2.1 3, ban 192.0.2.1 3, \
         unban 192.0.2.1 3, finding 2001:db8::1 1, finding 2001:db8::1 2"
    );
    let base = 1_767_323_000; // 2026-01-02T03:03:20Z
    assert_eq!(
        events[4],
        json!({
            "event": "ban", "jail": "guard", "address": "192.0.2.1", "time": base - 180, "until": base - 80,
            "failures": 3, "count": 1, "rule": 1, "regex": "^ <F-USER>\\S+</F-USER> failed from <ADDR>$",
            "lines": [failed(0, "192.0.2.1").trim(), failed(10, "192.0.2.1").trim(), failed(20, "192.0.2.1").trim()],
        })
    );
    assert_eq!((&events[5]["time"], &events[5]["event"]), (&json!(base - 80), &json!("unban")));
    assert_eq!(events[2]["ignored"], "ignoreip 192.0.2.9/32");
    assert_eq!(events[0]["fields"]["user"], "bob");
}

#[test]
fn people_are_told_of_bans_and_of_counts() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = configure(folder.path());
    let log = folder.path().join("log").display().to_string();
    fs::write(&log, [1, 2, 3, 4].map(|second| failed(second, "192.0.2.1")).concat())
        .expect("a file");
    let output = replay(&config, &[&log]);
    let said = String::from_utf8(output.stdout).expect("text");
    for part in [
        "[guard] ban 192.0.2.1 after 3 failures until 2026-01-02",
        "[guard] unban 192.0.2.1",
        "4 lines",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("found 192.0.2.1"), "{said}");
    let said = String::from_utf8(replay(&config, &["-v", &log]).stdout).expect("text");
    assert!(said.contains("[guard] found 192.0.2.1 (2 of 3)"), "{said}");
    // A jail that is not enabled is tried when it is named, and only it.
    let said = String::from_utf8(replay(&config, &["--jail", "other", &log]).stdout).expect("text");
    assert!(said.contains("[other] ban 192.0.2.1 after 1 failures for ever"), "{said}");
    assert!(!said.contains("guard"), "{said}");
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = configure(folder.path());
    for (words, part) in [
        (vec!["--jail", "nope", "/dev/null"], "there is no jail `nope`"),
        (vec!["/nowhere/log"], "cannot read `/nowhere/log`"),
        (vec!["--encoding", "klingon", "/dev/null"], "`klingon` is no encoding"),
        (vec!["--journal", "/nowhere"], "cannot read the journal"),
    ] {
        let output = replay(&config, &words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{words:?}: {said}");
    }
}

/// A log of an hour, 30 lines a second.
fn an_hour(folder: &Path) -> String {
    let log = folder.join("log").display().to_string();
    let mut text = String::new();
    for second in 0..3600 {
        for nth in 0..15 {
            text += &failed(second, &format!("198.51.{}.{}", (second + nth) % 200, nth));
            text += &format!("2026-01-02T03:00:00Z somebody did {nth} things\n");
        }
    }
    fs::write(&log, text).expect("room for a log");
    log
}

#[test]
fn hours_of_logs_take_seconds() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = configure(folder.path());
    let log = an_hour(folder.path());
    let start = Instant::now();
    let output = replay(&config, &[&log]);
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\n108000 lines"), "{said}");
    assert!(took < Duration::from_secs(20), "an hour of 30 lines a second took {took:?}");
}

#[test]
fn a_terminal_is_shown_how_far_it_is() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = configure(folder.path());
    let log = an_hour(folder.path());
    let command = format!("{} --config {config} replay {log} > /dev/null", binary().display());
    let output = Command::new(tool("script"))
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let shown = String::from_utf8(output.stdout).expect("text");
    for part in ["[##", "..]", " %  ", " lines, ", " bans, 2026-01-02 "] {
        assert!(shown.contains(part), "{part}: {shown:?}");
    }
    assert!(shown.ends_with("\r\u{1b}[K"), "the last is wiped: {shown:?}");
    let piped = replay(&config, &[&log]).stderr;
    assert_eq!(String::from_utf8_lossy(&piped), "", "nobody looks");
}

#[test]
fn a_leap_that_the_next_line_takes_back_moves_no_clock() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = configure(folder.path());
    let log = folder.path().join("log").display().to_string();
    let mut lines = vec!["somebody else wrote this\n".to_owned()];
    lines.extend([0, 10].map(|second| failed(second, "192.0.2.1")));
    lines.push("2026-06-02T03:00:00Z eve failed from 192.0.2.2\n".to_owned());
    lines.extend([20, 300].map(|second| failed(second, "192.0.2.1")));
    fs::write(&log, lines.concat()).expect("a file");
    let bans: Vec<Value> =
        events(&config, &[&log]).into_iter().filter(|event| event["event"] == "ban").collect();
    assert_eq!(bans.len(), 1, "{bans:?}");
    assert_eq!((&bans[0]["address"], &bans[0]["failures"]), (&json!("192.0.2.1"), &json!(3)));
    assert_eq!(bans[0]["time"], 1_767_322_820);
}

#[test]
fn patterns_that_give_up_are_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = configure(folder.path());
    let filter = folder.path().join("etc/filter.d/guard.conf");
    fs::write(
        &filter,
        "[Definition]\nfailregex = ^ bad <ADDR>$\n            (?:a|aa)+(?!c)c <ADDR>\n",
    )
    .expect("a file");
    let log = folder.path().join("log").display().to_string();
    let line = format!("2026-01-02T03:00:00Z {}c 192.0.2.1\n", "a".repeat(5000));
    fs::write(&log, line.repeat(2)).expect("a file");
    let said = replay(&config, &[&log]).stderr;
    let fault = format!("failregex 2 ({}:3) gave up on 2 lines", filter.display());
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(&format!("warning: [guard] {fault}")), "{said}");
    let regex = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["--config", &config]).args(words).args(["regex", &log, "guard"]);
        String::from_utf8(command.output().expect("we start").stdout).expect("text")
    };
    assert!(regex(&[]).contains(&fault), "{}", regex(&[]));
    let report: Value = serde_json::from_str(&regex(&["--json"])).expect("JSON");
    assert_eq!(report["gave_up"][0]["pattern"], "failregex 2");
    assert_eq!(report["gave_up"][0]["lines"], 2);
}

#[test]
fn it_decides_as_the_daemon_did() {
    let net = Net::new("replay");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "maxretry = 3\nbantime = 600"));
    let _daemon = site.start();
    site.wait_following("guard");
    for nth in 0..40u8 {
        for _ in 0..=nth % 5 {
            log.wrong_password([203, 0, 113, nth].into());
        }
    }
    site.wait_banned("203.0.113.39");
    let told = |bans: Vec<Value>, prefix: &str, since: &str| {
        let mut told: Vec<String> = bans
            .iter()
            .map(|ban| {
                let until = &ban["until"];
                format!("{} {} {until} {}", ban[prefix], ban[since], ban["failures"])
            })
            .collect();
        told.sort();
        told
    };
    let daemons = told(site.bans(), "prefix", "since");
    assert_eq!(daemons.len(), 24, "{daemons:?}");
    let log = site.path("guard.log").display().to_string();
    let said = site.text(&["replay", "--json", "--jail", "guard", &log]);
    let events: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let bans = events.into_iter().filter(|event| event["event"] == "ban").collect();
    assert_eq!(told(bans, "address", "time"), daemons);
}

#[test]
fn a_journal_is_a_log() {
    let net = Net::new("replay-jnl");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::Journal);
    for _ in 0..3 {
        assert_eq!(guess(&net.clients, ATTACKER.v4, SERVER.v4, false), Login::Denied);
    }
    site.jails("[sshd]\nenabled = true\nmaxretry = 3\nbackend = systemd\n");
    let journal = sshd.journal().display().to_string();
    let ban =
        fail2xdp_tests::until(Duration::from_secs(10), "the guesses are in the journal", || {
            let said = site.text(&["replay", "--json", "--journal", &journal]);
            let ban = said.lines().find(|line| line.contains("\"event\":\"ban\""))?;
            serde_json::from_str::<Value>(ban).ok()
        });
    assert_eq!(ban["address"], unit(ATTACKER.v4));
    assert_eq!(ban["failures"], 3, "{ban}");
    let place = format!("systemd-journal[journalpath=\"{journal}\"]");
    let said = site.text(&["regex", "-o", "id", &place, "sshd"]);
    assert!(said.lines().filter(|line| *line == unit(ATTACKER.v4)).count() == 3, "{said}");
}
