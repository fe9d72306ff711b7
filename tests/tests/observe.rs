//! Promise: who only observes drops nothing, counts what it would have dropped, and is switched without a new start.
use std::{net::SocketAddr, time::Duration};

use fail2xdp_tests::{ATTACKER, Echo, Net, SERVER, Site, is_dropped, reaches, until};

fn guard(site: &Site, name: &str, more: &str) -> String {
    site.jail(
        name,
        &format!("{name}.log"),
        &format!("port = 2222\nmaxretry = 2\nbantime = 600\n{more}"),
    )
}

#[test]
fn a_jail_that_observes_counts_and_the_others_drop() {
    let net = Net::new("observe");
    let site = Site::new(&net);
    let mut log = site.log("trial.log");
    site.log("guard.log");
    let jails = |observe: &str| {
        site.jails(
            &(guard(&site, "trial", &format!("observe = {observe}")) + &guard(&site, "guard", "")),
        );
    };
    jails("yes");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.wait_following("trial");
    log.wrong_password(ATTACKER.v4);
    log.wrong_password(ATTACKER.v4);
    let made = site.wait_banned("10.9.0.2");
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()), "nothing is dropped");
    let ban = &site.json(&["explain", "10.9.0.2"])["bans"][0];
    assert_eq!((&ban["observe"], &ban["packets"]), (&true.into(), &0.into()), "{ban}");
    let would_drop = ban["would_drop"].as_u64().expect("a number");
    assert!(would_drop > 0 && ban["last_packet"].as_i64() > Some(0), "{ban}");
    assert!(site.counted("would_drop") >= would_drop && site.counted("dropped") == 0);
    let told = site.text(&["explain", "10.9.0.2"]);
    assert!(told.contains("Observe:\tit only counts: nothing is dropped for it"), "{told}");
    assert!(told.contains("Would have dropped:\t"), "{told}");
    let status = site.text(&["status"]);
    assert!(status.contains("|- Only observing:\ttrial\n"), "{status}");
    let status = site.text(&["status", "trial"]);
    assert!(status.contains("   |- Observe:\tcounts, drops nothing\n"), "{status}");

    // Another jail's ban of the same address drops, and lifted leaves the first as it was.
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    site.json(&["unban", "10.9.0.2", "--jail", "guard"]);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()));
    // So does a ban of a network around it.
    site.json(&["ban", "10.9.0.0/24", "--jail", "guard", "--force"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    site.json(&["unban", "10.9.0.0/24", "--jail", "guard"]);

    // Switched by a reload: the ban stays the same ban.
    jails("no");
    site.text(&["reload"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    let bans = site.bans_of("10.9.0.2");
    assert_eq!(bans.len(), 1);
    for field in ["jail", "since", "until", "failures", "lines"] {
        assert_eq!(bans[0][field], made[field], "{field}");
    }
    assert!(bans[0]["packets"].as_u64() > Some(0), "{bans:?}");
    assert!(bans[0]["would_drop"].as_u64() >= Some(would_drop), "what was counted stays: {bans:?}");
    jails("yes");
    site.text(&["reload"]);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()));
    // The next daemon takes it over, also after a crash.
    daemon.kill();
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()), "with nobody there");
    let _daemon = site.start();
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()));
    assert_eq!(site.bans_of("10.9.0.2")[0]["observe"], true);
}

#[test]
fn a_daemon_that_observes_is_switched_by_a_reload() {
    let net = Net::new("observeall");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&guard(&site, "guard", ""));
    site.settings("[Definition]\nobserve = yes\n");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v6, 2222));
    let _daemon = site.start();
    site.json(&["ban", "fd09:0:0:2::/64", "--jail", "guard"]);
    assert!(reaches(&net.clients, ATTACKER.v6, echo.address()));
    until(Duration::from_secs(5), "packets that would have been dropped", || {
        let ban = &site.bans_of("fd09:0:0:2::/64")[0];
        (ban["would_drop"].as_u64() > Some(0) && ban["observe"] == true).then_some(())
    });
    assert_eq!(site.json(&["status"])["enforcement"]["observe"], true);
    site.settings("[Definition]\nobserve = no\n");
    site.text(&["reload"]);
    assert!(is_dropped(&net.clients, ATTACKER.v6, echo.address()));
    let ban = &site.bans_of("fd09:0:0:2::/64")[0];
    assert!(ban["packets"].as_u64() > Some(0) && ban["observe"] == false, "{ban}");
    assert!(site.bans_of("fd09:0:0:2::/64").len() == 1);
}
