//! Promise: a daemon that dies takes no ban with it and prolongs none; the next one goes on where it was.
use std::{net::SocketAddr, time::Duration};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Daemon, Echo, LogTo, Net, SERVER, Siege, Site, Sshd, attack::ends_on_time,
    flood, is_dropped, now, reaches, unit, until,
};

#[test]
fn bans_hold_through_kill_and_restart_and_end_as_decided() {
    let net = Net::new("kill");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::File);
    site.jails(&site.jail("sshd", "sshd/auth.log", "port = 22\nmaxretry = 3\nbantime = 12"));
    let passwords: String = (0..10_000).map(|nth| format!("guess{nth}\n")).collect();
    let passwords = site.write("passwords", &passwords);
    let ssh = SocketAddr::new(SERVER.v4, 22);
    let attacker = unit(ATTACKER.v4);

    let daemon = site.start();
    site.wait_following("sshd");
    let mut hydra = flood(&net.clients, SERVER.v4, &passwords, Duration::from_secs(40));
    let banned = site.wait_banned(&attacker);
    let siege = Siege::begin(&net.clients, ATTACKER.v4, ssh);
    daemon.kill();
    assert!(is_dropped(&net.clients, ATTACKER.v4, ssh), "no daemon lives");
    assert!(reaches(&net.clients, BYSTANDER.v4, ssh));

    let _daemon = site.start();
    let adopted = site.bans_of(&attacker).pop().expect("the ban is adopted");
    for kept in ["jail", "until", "scope"] {
        assert_eq!(adopted[kept], banned[kept], "{kept}");
    }
    assert!(is_dropped(&net.clients, ATTACKER.v4, ssh), "another daemon lives");
    let seen = siege.end();
    assert!(seen.tried > 50 && seen.opened == 0, "no connection came through in between: {seen:?}");
    // What hydra does is over before the ban is, so that nothing renews it.
    hydra.kill().expect("it runs as long as its list lasts");
    hydra.wait().expect("it is our child");
    ends_on_time(&site, &adopted);
    assert!(reaches(&net.clients, ATTACKER.v4, ssh));
    drop(sshd);
}

#[test]
fn old_bans_keep_their_ports_when_the_configuration_changes() {
    let net = Net::new("ports");
    let site = Site::new(&net);
    let (mut first, mut second) = (site.log("first.log"), site.log("second.log"));
    let jail = |name: &str, port: u16| {
        site.jail(
            name,
            &format!("{name}.log"),
            &format!("port = {port}\nmaxretry = 1\nbantime = 60"),
        )
    };
    let echoes: Vec<Echo> = [2001, 2002, 3001, 3002]
        .map(|port| Echo::listen(&net.server, SocketAddr::new(SERVER.v4, port)))
        .into();
    let closed_to = |source| -> Vec<u16> {
        let dropped =
            echoes.iter().map(Echo::address).filter(|&to| is_dropped(&net.clients, source, to));
        dropped.map(|to| to.port()).collect()
    };
    let (one, two, three) = (ATTACKER.v4, BYSTANDER.v4, fail2xdp_tests::FRIEND.v4);

    site.jails(&(jail("first", 2001) + &jail("second", 2002)));
    let daemon = site.start();
    site.wait_following("second");
    first.wrong_password(one);
    second.wrong_password(two);
    site.wait_banned(&unit(one));
    site.wait_banned(&unit(two));
    assert_eq!((closed_to(one), closed_to(two)), (vec![2001], vec![2002]));
    daemon.kill();

    site.log("another.log");
    site.jails(&(jail("another", 2001) + &jail("second", 3002) + &jail("first", 3001)));
    let _daemon = site.start();
    site.wait_following("second");
    assert_eq!(
        (closed_to(one), closed_to(two)),
        (vec![2001], vec![2002]),
        "old bans, exactly their old ports"
    );
    second.wrong_password(three);
    site.wait_banned(&unit(three));
    assert_eq!(closed_to(three), vec![3002], "a new ban, the new port");
    assert_eq!((closed_to(one), closed_to(two)), (vec![2001], vec![2002]), "still");
}

#[test]
fn a_ban_lapses_in_the_kernel_when_the_daemon_stays_dead() {
    let net = Net::new("dead");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 1\nbantime = 6"));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v6, 2222));
    let daemon = site.start();
    site.wait_following("guard");
    log.wrong_password(ATTACKER.v6);
    let ban = site.wait_banned(&unit(ATTACKER.v6));
    daemon.kill();
    let due = ban["until"].as_i64().expect("it has an end") as f64;

    let siege = Siege::begin(&net.clients, ATTACKER.v6, echo.address());
    until(Duration::from_secs(10), "the end is near", || (now() > due - 0.3).then_some(()));
    let before = siege.end();
    assert!(before.tried > 50 && before.opened == 0, "dropped up to its end: {before:?}");
    until(Duration::from_secs(10), "the end has come", || (now() > due + 0.1).then_some(()));
    let siege = Siege::begin(&net.clients, ATTACKER.v6, echo.address());
    until(Duration::from_secs(2), "a while later", || (now() > due + 0.5).then_some(()));
    let after = siege.end();
    assert!(after.opened + 3 >= after.tried && after.opened > 20, "and no longer: {after:?}");
}

/// A site with one address banned on port 2222 by a jail, in maps made for `bans` bans at first.
#[track_caller]
fn besieged<'net>(net: &'net Net, bans: u32) -> (Site<'net>, Echo, Daemon, Siege) {
    let site = Site::new(net);
    site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nbantime = 600"));
    site.settings(&format!("[Definition]\ninitial_bans = {bans}\n"));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    let siege = Siege::begin(&net.clients, ATTACKER.v4, echo.address());
    (site, echo, daemon, siege)
}

#[track_caller]
fn nothing_came_through(siege: Siege) {
    until(Duration::from_secs(10), "it has been tried", || (siege.tried() > 50).then_some(()));
    let seen = siege.end();
    assert!(seen.tried > 50 && seen.opened == 0, "{seen:?}");
}

#[test]
fn stops_starts_and_other_sizes_let_no_packet_through() {
    let net = Net::new("sizes");
    let (site, echo, daemon, siege) = besieged(&net, 256);
    daemon.terminate();
    let daemon = site.start();
    daemon.kill();
    // Other sizes are other maps: made, filled, and only then put to use.
    site.settings("[Definition]\ninitial_bans = 4096\n");
    let daemon = site.start();
    assert_eq!(site.bans_of("10.9.0.2").len(), 1);
    assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
    daemon.terminate();
    nothing_came_through(siege);
}

#[test]
fn maps_that_grow_let_no_packet_through() {
    let net = Net::new("grow");
    let (site, echo, _daemon, siege) = besieged(&net, 256);
    let many: Vec<String> =
        (0..3000).map(|nth| format!("198.18.{}.{}", nth / 250, nth % 250)).collect();
    for some in many.chunks(500) {
        let words: Vec<&str> =
            ["ban", "--jail", "guard"].into_iter().chain(some.iter().map(String::as_str)).collect();
        assert_eq!(site.json(&words)["banned"], some.len());
    }
    let room = || site.json(&["status"])["enforcement"]["capacity"]["ipv4_room"].as_u64();
    until(Duration::from_secs(10), "the maps have grown", || (room() >= Some(3001)).then_some(()));
    assert_eq!(site.bans().len(), 3001);
    assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
    nothing_came_through(siege);
}
