//! Promise: beside fail2ban's server, on the same log as it is written, the daemon bans the same addresses at the same
//! times after the same number of failures; `replay` of that log then bans them, too.
//!
//! Here failures outlast `findtime`, so that the rate they are counted by decides. None stays away so long that it
//! would turn on the moment at which fail2ban clears lapsed ones away.
use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::Duration,
};

use fail2xdp_tests::{Daemon, Fail2ban, Log, ToldBan, binary, now, syslog_now, until};
use serde_json::Value;

/// Seconds that it lasts.
const LASTS: u64 = 24;

/// Jail, `maxretry`, `findtime`.
const JAILS: [(&str, u32, u32); 4] =
    [("slow", 4, 8), ("slower", 5, 10), ("quick", 3, 7), ("endless", 40, 9)];

/// Seconds between an attacker's failures, over and over.
const RHYTHMS: [&[u64]; 10] = [
    &[1],
    &[2],
    &[3],
    &[1, 3],
    &[3, 3, 1],
    &[2, 3],
    &[3, 1, 1],
    &[3, 2, 3, 1],
    &[1, 1, 3, 3],
    &[2, 2, 1],
];

/// Bans as a list of JSON objects has them.
fn bans(list: &[Value], address: &str, time: &str) -> BTreeSet<ToldBan> {
    let told = |ban: &Value| {
        let address = ban[address].as_str().expect("a text").parse().expect("an address");
        let jail = ban["jail"].as_str().expect("a text").to_owned();
        let failures = ban["failures"].as_u64().expect("a number");
        (jail, address, ban[time].as_i64().expect("a number"), failures)
    };
    list.iter().map(told).collect()
}

#[test]
fn the_daemon_bans_as_fail2ban_does_beside_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name);
    let mut jails = String::new();
    for (jail, max_retry, find_time) in JAILS {
        let log = path("auth.log");
        jails += &format!(
            "[{jail}]\nenabled = true\nfilter = sshd\nmaxretry = {max_retry}\nfindtime = {find_time}\nlogpath = {}\n",
            log.display()
        );
    }
    Fail2ban::configure(folder.path(), &jails);
    let mut log = Log::open(path("auth.log"));
    let place = [("--config", "etc"), ("--socket", "our.sock"), ("--state", "state")];
    let flags: Vec<String> = place
        .iter()
        .flat_map(|(flag, name)| [(*flag).to_owned(), path(name).display().to_string()])
        .collect();
    let ours = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(&flags).args(words).stderr(Stdio::inherit());
        command
    };
    let _daemon = Daemon::start(ours(&["run", "--mode", "none"]));
    let server = Fail2ban::start(folder.path(), ":/etc/localtime");
    until(Duration::from_secs(30), "fail2ban follows the log", || {
        (server.log().matches("Jail '").count() >= 2 * JAILS.len()).then_some(())
    });

    // One line a failure, in the second it is dated with.
    let mut due: Vec<u64> = vec![0; RHYTHMS.len()];
    let mut told = vec![0; RHYTHMS.len()];
    let start = now().ceil();
    for second in 0..LASTS {
        let at = start + second as f64;
        until(Duration::from_secs(10), "time passes", || (now() >= at).then_some(()));
        for (nth, rhythm) in RHYTHMS.iter().enumerate() {
            if due[nth] != second {
                continue;
            }
            log.append(&format!(
                "{} host sshd[{nth}{second:03}]: Failed password for root from 198.51.100.{nth} port 22 ssh2\n",
                syslog_now()
            ));
            due[nth] += rhythm[told[nth] % rhythm.len()];
            told[nth] += 1;
        }
    }
    // Everybody who is not banned yet is by this; and by then all was read.
    for nth in 0..40 {
        log.append(&format!(
            "{} host sshd[9{nth:03}]: Failed password for root from 203.0.113.250 port 22 ssh2\n",
            syslog_now()
        ));
    }
    let all_have = |bans: &BTreeSet<ToldBan>| {
        bans.iter().filter(|ban| ban.1.to_string() == "203.0.113.250").count() >= JAILS.len()
    };
    let theirs = until(Duration::from_secs(30), "fail2ban has read all", || {
        Some(server.bans()).filter(all_have)
    });
    let daemons = until(Duration::from_secs(10), "the daemon has read all", || {
        let said = ours(&["bans", "--json"]).output().expect("we start").stdout;
        let list: Vec<Value> = serde_json::from_slice(&said).ok()?;
        Some(bans(&list, "prefix", "since")).filter(all_have)
    });
    let replayed = ours(&["replay", "--json"]).arg(path("auth.log")).output().expect("we start");
    let events = String::from_utf8(replayed.stdout).expect("JSON is UTF-8");
    let events = events.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let events: Vec<Value> = events.filter(|event: &Value| event["event"] == "ban").collect();
    assert!(theirs.len() > 25, "only {} bans", theirs.len());
    assert_eq!(daemons, theirs, "the daemon beside fail2ban");
    assert_eq!(bans(&events, "address", "time"), theirs, "replay beside fail2ban");
}
