//! Promise: a source that is silent, unreadable or gone is reported as loudly as an attack.
use std::{fs, time::Duration};

use fail2xdp_tests::{ATTACKER, Net, Site, until};

/// Sources are looked at every few seconds.
const SOON: Duration = Duration::from_secs(30);

/// A log is late when it has been for ten seconds.
const LATE: Duration = Duration::from_secs(60);

#[test]
fn a_silent_log_and_one_that_is_gone_raise_alarms_that_end() {
    let net = Net::new("silence");
    let site = Site::new(&net);
    let mut log = site.log("talking.log");
    let lost = site.log("lost.log");
    site.jails(
        &(site.jail("talking", "talking.log", "maxretry = 5\nsilence = 3s")
            + &site.jail("lost", "lost.log", "")),
    );
    let mut daemon = site.start();
    site.wait_following("talking");
    site.wait_following("lost");
    assert_eq!(site.json(&["status", "talking"])["never_matched"], true);

    daemon.wait_for_line("[talking] ", SOON);
    let said = daemon.wait_for_line("has been silent for", SOON);
    assert!(said.contains("ERROR") && said.contains("talking.log"), "{said}");
    let alarms = || site.json(&["status"])["jails"][0]["alarms"].clone();
    assert!(alarms()[0].as_str().is_some_and(|text| text.contains("talking.log")), "{}", alarms());
    assert!(site.text(&["status"]).contains("ALARM:\t[talking] "));

    // Its last line is young at the next look but one: they come every five seconds.
    until(SOON, "a line ends the silence", || {
        log.wrong_password(ATTACKER.v4);
        (alarms() == serde_json::json!([])).then_some(())
    });
    daemon.wait_for_line("no longer: ", SOON);
    assert_eq!(site.json(&["status", "talking"])["never_matched"], false);

    fs::remove_file(site.path("lost.log")).expect("it can be removed");
    drop(lost);
    let said = daemon.wait_for_line("is gone: nothing is read of it", SOON);
    assert!(said.contains("ERROR") && said.contains("[lost] "), "{said}");
    assert!(site.json(&["status"])["source_alarms"].as_u64() >= Some(2));
    let _back = site.log("lost.log");
    daemon.wait_for_line("[lost] no longer: ", SOON);
}

#[test]
fn a_log_that_cannot_be_read_any_longer_raises_an_alarm_that_ends() {
    let net = Net::new("unreadable");
    let site = Site::new(&net);
    let (log, mut other) = (site.log("odd.log"), site.log("other.log"));
    site.jails(&(site.jail("odd", "odd.log", "") + &site.jail("other", "other.log", "")));
    let mut daemon = site.start();
    site.wait_following("odd");
    // Root may read every file, but no directory.
    let path = log.path().to_owned();
    fs::remove_file(&path).expect("it can be removed");
    fs::create_dir(&path).expect("made");
    let alarms = || site.json(&["status", "odd"])["alarms"].clone();
    until(SOON, "an alarm", || {
        alarms()[0].as_str().is_some_and(|text| text.contains("cannot be read")).then_some(())
    });
    let said = daemon.wait_for_line("[odd] ", SOON);
    assert!(said.contains("ERROR") && said.contains("cannot be read"), "{said}");
    assert_eq!(site.json(&["status"])["source_alarms"], 1);
    // The other one is read all the while.
    other.wrong_password(ATTACKER.v4);
    until(SOON, "the other log is read", || {
        (site.json(&["status", "other"])["total_failed"] == 1).then_some(())
    });
    assert_eq!(site.json(&["status", "other"])["alarms"], serde_json::json!([]));
    fs::remove_dir(&path).expect("it can be removed");
    let mut log = site.log("odd.log");
    daemon.wait_for_line("[odd] no longer: ", SOON);
    log.wrong_password(ATTACKER.v4);
    until(SOON, "it is read again", || {
        (site.json(&["status", "odd"])["total_failed"] == 1).then_some(())
    });
    daemon.terminate();
}

#[test]
fn a_log_that_is_written_faster_than_it_can_be_read_raises_an_alarm() {
    let net = Net::new("late");
    let site = Site::new(&net);
    let (mut log, mut other) = (site.log("flood.log"), site.log("other.log"));
    // Of such a pattern each long line costs all the steps that it may take.
    let filter = "[Definition]\nfailregex = (?:a|aa)+(?!c)c <ADDR>\n";
    site.write("config/filter.d/slow.conf", filter);
    let flood = site.jail("flood", "flood.log", "").replace("sshd", "slow");
    site.jails(&(flood + &site.jail("other", "other.log", "")));
    let mut daemon = site.start();
    site.wait_following("flood");
    log.append(&format!("{}c 192.0.2.1\n", "a".repeat(1000)).repeat(200_000));
    let said = daemon.wait_for_line("s late: more is written than can be read", LATE);
    assert!(said.contains("ERROR") && said.contains("[flood] "), "{said}");
    let status = site.json(&["status", "flood"]);
    assert!(status["alarms"][0].as_str().is_some_and(|text| text.contains("flood.log")));
    assert_eq!(site.json(&["status"])["source_alarms"], 1);
    // The daemon answers, and the other jail is served all the while.
    other.wrong_password(ATTACKER.v4);
    until(SOON, "the other log is read", || {
        (site.json(&["status", "other"])["total_failed"] == 1).then_some(())
    });
    daemon.terminate();
}
