//! Promise: an attack that goes on while its log is rotated is counted whole, no line twice.
use std::{fs, net::Ipv4Addr, thread::sleep, time::Duration};

use fail2xdp_tests::{ATTACKER, Net, Site, unit, until};

#[test]
fn failures_on_both_sides_of_a_rename_make_one_ban() {
    let net = Net::new("rename");
    let site = Site::new(&net);
    let mut old = site.log("auth.log");
    site.jails(&site.jail("sshd", "auth.log", "maxretry = 3\nbantime = 60"));
    let _daemon = site.start();
    site.wait_following("sshd");
    let attacker = ATTACKER.v4;
    old.wrong_password(attacker);
    fs::rename(site.path("auth.log"), site.path("auth.log.1")).expect("it is there");
    // syslog has not been told yet.
    old.wrong_password(attacker);
    assert!(site.bans_of(&unit(attacker)).is_empty());
    let mut new = site.log("auth.log");
    new.wrong_password(attacker);
    let ban = site.wait_banned(&unit(attacker));
    assert_eq!(ban["failures"], 3, "{ban}");
    assert_eq!(site.json(&["status", "sshd"])["total_failed"], 3);
}

#[test]
fn no_line_is_lost_or_counted_twice_over_many_rotations() {
    const ROUNDS: u32 = 40;
    const LINES: u32 = 25;
    let net = Net::new("rotate");
    let site = Site::new(&net);
    let mut log = site.log("auth.log");
    site.jails(&site.jail("sshd", "auth.log", "maxretry = 1\nbantime = 600"));
    let _daemon = site.start();
    site.wait_following("sshd");
    for round in 0..ROUNDS {
        for line in 0..LINES {
            log.wrong_password(Ipv4Addr::from(0xc612_0000 + round * LINES + line).into());
        }
        // As logrotate: every older one moves on, then a fresh file appears.
        for nth in (1..=round).rev() {
            let name = |nth: u32| site.path(&format!("auth.log.{nth}"));
            fs::rename(name(nth), name(nth + 1)).expect("it is there");
        }
        fs::rename(site.path("auth.log"), site.path("auth.log.1")).expect("it is there");
        log = site.log("auth.log");
        // A file that came and went between two looks would be nobody's; logrotate comes once a day.
        sleep(Duration::from_millis(50));
    }
    let expected = ROUNDS * LINES;
    let total = || site.json(&["status", "sshd"])["total_failed"].as_u64();
    until(Duration::from_secs(10), &format!("{expected} failures"), || {
        (total() >= Some(expected.into())).then_some(())
    });
    // One more line has its effect only after all before it had theirs.
    log.wrong_password(ATTACKER.v6);
    site.wait_banned(&unit(ATTACKER.v6));
    assert_eq!(total(), Some(u64::from(expected) + 1));
}

#[test]
fn failures_after_a_truncation_count() {
    let net = Net::new("truncate");
    let site = Site::new(&net);
    let mut log = site.log("auth.log");
    site.jails(&site.jail("sshd", "auth.log", "maxretry = 3\nbantime = 60"));
    let _daemon = site.start();
    site.wait_following("sshd");
    let attacker = ATTACKER.v6;
    log.wrong_password(attacker);
    log.wrong_password(attacker);
    until(Duration::from_secs(5), "two failures are counted", || {
        (site.json(&["status", "sshd"])["total_failed"] == 2).then_some(())
    });
    log.truncate();
    log.wrong_password(attacker);
    let ban = site.wait_banned(&unit(attacker));
    assert_eq!(ban["failures"], 3, "{ban}");
}

#[test]
fn a_restart_between_two_failures_forgets_none_and_repeats_none() {
    let net = Net::new("restart");
    let site = Site::new(&net);
    let mut log = site.log("auth.log");
    site.jails(&site.jail("sshd", "auth.log", "maxretry = 3\nbantime = 60"));
    let daemon = site.start();
    site.wait_following("sshd");
    log.wrong_password(ATTACKER.v4);
    log.wrong_password(ATTACKER.v4);
    daemon.terminate();
    let daemon = site.start();
    assert!(site.bans_of(&unit(ATTACKER.v4)).is_empty());
    log.wrong_password(ATTACKER.v4);
    let ban = site.wait_banned(&unit(ATTACKER.v4));
    assert_eq!(ban["failures"], 3, "{ban}");
    drop(daemon);
}
