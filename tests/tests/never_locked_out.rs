//! Promise: nobody locks himself out: own addresses, gateways and logged-in administrators are never dropped.
use std::{net::SocketAddr, time::Duration};

use fail2xdp_tests::{
    ATTACKER, Echo, FRIEND, Host, LogTo, Net, SERVER, Siege, Site, Sshd, hold_session, host,
    is_dropped, reaches, unit, until,
};

/// The machine's router.
const GATEWAY: Host = host(254);

/// A jail on TCP port 2222 that bans at once.
fn guard(site: &Site, settings: &str) {
    site.settings(settings);
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 1\nbantime = 600"));
}

/// Bans both networks of the wire on the jail's port.
#[track_caller]
fn ban_the_wire(site: &Site) {
    site.json(&["ban", "10.9.0.0/24", "fd09::/48", "--jail", "guard", "--force"]);
    site.wait_banned("fd09::/48");
}

#[test]
fn the_default_gateways_are_never_dropped() {
    let net = Net::new("gateway");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    guard(&site, "");
    net.add_client(GATEWAY);
    net.server.ip(&format!("route add default via {}", GATEWAY.v4));
    net.server.ip(&format!("route add default via {}", GATEWAY.v6));
    let (v4, v6) = [SERVER.v4, SERVER.v6]
        .map(|to| Echo::listen(&net.server, SocketAddr::new(to, 2222)))
        .into();
    let _daemon = site.start();
    site.wait_following("guard");
    for source in [GATEWAY.v4, GATEWAY.v6, ATTACKER.v4, ATTACKER.v6] {
        log.wrong_password(source);
    }
    site.wait_banned(&unit(ATTACKER.v6));
    ban_the_wire(&site);
    assert!(is_dropped(&net.clients, ATTACKER.v4, v4.address()));
    assert!(is_dropped(&net.clients, ATTACKER.v6, v6.address()));
    assert!(reaches(&net.clients, GATEWAY.v4, v4.address()));
    assert!(reaches(&net.clients, GATEWAY.v6, v6.address()));
}

#[test]
fn the_interfaces_of_the_default_routes_are_protected_when_none_is_named() {
    let net = Net::new("default");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "");
    net.wire("s1", "c1");
    net.add_client(GATEWAY);
    net.server.ip(&format!("route add default via {}", GATEWAY.v4));
    let _daemon = site.start_with(&[]);
    let interfaces = &site.json(&["status"])["enforcement"]["interfaces"];
    assert_eq!(interfaces.as_array().map(Vec::len), Some(1), "{interfaces}");
    assert_eq!(interfaces[0]["name"], "s0", "{interfaces}");
}

#[test]
fn a_gateway_that_comes_later_is_spared_too() {
    let net = Net::new("later");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "");
    net.add_client(GATEWAY);
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let _daemon = site.start();
    ban_the_wire(&site);
    assert!(is_dropped(&net.clients, GATEWAY.v4, echo.address()), "no gateway yet");
    net.server.ip(&format!("route add default via {}", GATEWAY.v4));
    until(Duration::from_secs(10), "the new gateway is spared", || {
        reaches(&net.clients, GATEWAY.v4, echo.address()).then_some(())
    });
}

#[test]
fn the_machines_own_addresses_are_never_banned() {
    let net = Net::new("own");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    guard(&site, "");
    let _daemon = site.start();
    site.wait_following("guard");
    for source in [SERVER.v4, SERVER.v6, ATTACKER.v4] {
        log.wrong_password(source);
    }
    site.wait_banned(&unit(ATTACKER.v4));
    assert_eq!(site.bans().len(), 1, "only the attacker is");
    let said = site.refused(&["ban", &SERVER.v4.to_string(), "--jail", "guard"]);
    assert!(said.contains(&SERVER.v4.to_string()) && said.contains("--force"), "{said}");
}

#[test]
fn a_logged_in_administrator_is_never_dropped() {
    let net = Net::new("session");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "");
    let _sshd = Sshd::start(&net, &site, LogTo::File);
    let echoes =
        [SERVER.v4, SERVER.v6].map(|to| Echo::listen(&net.server, SocketAddr::new(to, 2222)));
    let mut sessions = [
        hold_session(&net.clients, FRIEND.v4, SERVER.v4),
        hold_session(&net.clients, FRIEND.v6, SERVER.v6),
    ];
    let _daemon = site.start();
    let sieges = [
        Siege::begin(&net.clients, FRIEND.v4, echoes[0].address()),
        Siege::begin(&net.clients, FRIEND.v6, echoes[1].address()),
    ];
    ban_the_wire(&site);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echoes[0].address()));
    assert!(is_dropped(&net.clients, ATTACKER.v6, echoes[1].address()));
    for seen in sieges.map(Siege::end) {
        assert!(
            seen.tried > 50 && seen.opened + 3 >= seen.tried,
            "not one packet was dropped: {seen:?}"
        );
    }
    for session in &mut sessions {
        session.kill().expect("it has not been waited for");
        session.wait().expect("it is our child");
    }
}

#[test]
fn who_does_not_want_that_gets_no_exception() {
    let net = Net::new("optout");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "[Definition]\nallow_sessions = false\n");
    let _sshd = Sshd::start(&net, &site, LogTo::File);
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let mut session = hold_session(&net.clients, FRIEND.v4, SERVER.v4);
    let _daemon = site.start();
    ban_the_wire(&site);
    assert!(is_dropped(&net.clients, FRIEND.v4, echo.address()));
    session.kill().expect("it has not been waited for");
    session.wait().expect("it is our child");
}
