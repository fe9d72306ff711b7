//! Promise: a reload applies a changed configuration in one step, and loses nothing that was counted, read or banned.
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use fail2xdp_tests::{ATTACKER, BYSTANDER, FRIEND, Net, Site, unit, until};

const SOON: Duration = Duration::from_secs(20);

/// What `reload` says of changes and faults, with the answer.
fn reload(site: &Site) -> (bool, String) {
    let output = site.output(&["reload"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

#[test]
fn the_level_of_the_log_changes_at_once() {
    let net = Net::new("level");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 9"));
    site.settings("[Definition]\nloglevel = WARNING\n");
    let mut daemon = site.start();
    site.wait_following("guard");
    let found = |times: u64| {
        until(SOON, "it is counted", || {
            (site.json(&["status", "guard"])["total_failed"] == times).then_some(())
        });
    };
    log.wrong_password(ATTACKER.v4);
    found(1);
    site.settings("[Definition]\nloglevel = INFO\n");
    let (done, said) = reload(&site);
    assert!(done && said.lines().any(|line| line == "loglevel: WARNING -> INFO"), "{said}");
    log.wrong_password(BYSTANDER.v4);
    daemon.wait_for_line("[guard] Found 10.9.0.3", SOON);
    assert!(!daemon.said().contains("Found 10.9.0.2"), "{}", daemon.said());
    site.settings("[Definition]\nloglevel = ERROR\n");
    assert!(reload(&site).0);
    log.wrong_password(FRIEND.v4);
    found(3);
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait(SOON);
    assert!(!daemon.said().contains("Found 10.9.0.4"), "{}", daemon.said());
}

#[test]
fn reloads_under_load_miss_no_line_and_count_none_twice() {
    let net = Net::new("reloads");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    let jail = |retries: u32| {
        let options = format!("port = 2222\nmaxretry = {retries}\nfindtime = 1d");
        site.jails(&site.jail("guard", "guard.log", &options));
    };
    jail(1_000_000);
    let daemon = site.start();
    site.wait_following("guard");
    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                log.wrong_password(ATTACKER.v4);
                written.fetch_add(1, Relaxed);
                thread::yield_now();
            }
        });
        // Ten times, and on until there was load.
        for nth in 0.. {
            if nth >= 10 && written.load(Relaxed) > 1000 {
                break;
            }
            jail(1_000_001 + nth);
            let done = reload(&site);
            if !done.0 {
                over.store(true, Relaxed);
            }
            assert!(done.0, "{}", done.1);
        }
        over.store(true, Relaxed);
    });
    let written = written.into_inner();
    let counted = || site.json(&["status", "guard"])["total_failed"].as_u64();
    until(SOON, "every line is counted", || (counted() >= Some(written)).then_some(()));
    assert_eq!(counted(), Some(written));
    assert!(written > 1000, "{written} lines");
    daemon.terminate();
}

#[test]
fn a_fault_in_one_jail_leaves_it_as_it_was_and_changes_the_others() {
    let net = Net::new("fault");
    let site = Site::new(&net);
    let (mut first, mut second) = (site.log("first.log"), site.log("second.log"));
    let jail = |name: &str, options: &str| {
        let options = format!("port = 2222\nbantime = 600\n{options}");
        site.jail(name, &format!("{name}.log"), &options)
    };
    site.jails(&(jail("first", "maxretry = 3") + &jail("second", "maxretry = 3")));
    let daemon = site.start();
    site.wait_following("second");
    second.wrong_password(ATTACKER.v4);
    second.wrong_password(ATTACKER.v4);
    until(SOON, "two are counted", || {
        (site.json(&["status", "second"])["total_failed"] == 2).then_some(())
    });
    let broken = jail("second", "").replace("filter = sshd", "filter = no-such-filter");
    site.jails(&(jail("first", "maxretry = 1") + &broken));
    let (done, said) = reload(&site);
    assert!(done && said.contains("[first] maxretry: 3 -> 1"), "{said}");
    assert!(said.contains("second") && said.contains("no-such-filter"), "{said}");
    first.wrong_password(BYSTANDER.v4);
    site.wait_banned(&unit(BYSTANDER.v4));
    // As it was, with what it had counted.
    second.wrong_password(ATTACKER.v4);
    assert_eq!(site.wait_banned(&unit(ATTACKER.v4))["failures"], 3);
    // What concerns more than one jail changes nothing at all.
    site.jails(&(jail("first", "maxretry = 7") + "[second\n"));
    let (done, said) = reload(&site);
    assert!(!done && said.contains("kept as it was"), "{said}");
    first.wrong_password(FRIEND.v4);
    site.wait_banned(&unit(FRIEND.v4));
    assert_eq!(site.bans().len(), 3);
    daemon.terminate();
}
