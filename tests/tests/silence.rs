//! Promise: a source that is silent, unreadable or gone is reported as loudly as an attack.
use std::{fs, time::Duration};

use fail2xdp_tests::{ATTACKER, Net, Site, until};

/// Sources are looked at every few seconds.
const SOON: Duration = Duration::from_secs(30);

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
