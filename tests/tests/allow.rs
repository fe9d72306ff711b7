//! Promise: what is on the allow list is never dropped, whatever it does and whatever bans cover it.
use std::net::{IpAddr, SocketAddr};

use fail2xdp_tests::{
    ATTACKER, Echo, FRIEND, Net, SERVER, Siege, Site, is_dropped, reaches, unit, until,
};

#[track_caller]
fn check(
    label: &str,
    friend: IpAddr,
    attacker: IpAddr,
    server: IpAddr,
    network: &str,
    allow: &str,
) {
    let net = Net::new(label);
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    let (settings, ignored) = match allow {
        "allow" => (format!("[Definition]\nallow = {friend}\n"), String::new()),
        _ => (String::new(), format!("[DEFAULT]\nignoreip = {friend}\n")),
    };
    site.settings(&settings);
    site.jails(
        &(ignored + &site.jail("guard", "guard.log", "port = 2222\nmaxretry = 2\nbantime = 60")),
    );
    let echo = Echo::listen(&net.server, SocketAddr::new(server, 2222));
    let _daemon = site.start();
    site.wait_following("guard");
    let siege = Siege::begin(&net.clients, friend, echo.address());

    for _ in 0..10 {
        log.wrong_password(friend);
    }
    log.wrong_password(attacker);
    log.wrong_password(attacker);
    site.wait_banned(&unit(attacker));
    assert!(site.bans_of(&unit(friend)).is_empty(), "ten failures of a friend ban nobody");

    site.json(&["ban", network, "--jail", "guard", "--for", "60", "--force"]);
    site.wait_banned(network);
    site.unban(&unit(attacker));
    assert!(
        is_dropped(&net.clients, attacker, echo.address()),
        "the network's ban holds for the attacker"
    );
    assert!(reaches(&net.clients, friend, echo.address()), "and not for the friend");
    until(std::time::Duration::from_secs(5), "the spared packets are counted", || {
        (site.counted("spared") > 0).then_some(())
    });
    let seen = siege.end();
    // The last tries may not have been looked at before the end.
    assert!(
        seen.tried > 50 && seen.opened + 3 >= seen.tried,
        "not one packet of the friend was dropped: {seen:?}"
    );
}

#[test]
fn an_allowed_ipv4_attacker_is_never_dropped() {
    check("allow4", FRIEND.v4, ATTACKER.v4, SERVER.v4, "10.9.0.0/24", "allow");
}

#[test]
fn an_allowed_ipv6_attacker_is_never_dropped() {
    check("allow6", FRIEND.v6, ATTACKER.v6, SERVER.v6, "fd09::/48", "allow");
}

#[test]
fn an_attacker_whom_every_jail_ignores_is_never_dropped() {
    check("ignore4", FRIEND.v4, ATTACKER.v4, SERVER.v4, "10.9.0.0/24", "ignoreip");
}
