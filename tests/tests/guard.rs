//! Promise: an operator who errs is asked before he locks out what must not be locked out, and a first try from far
//! away takes itself back.
use std::{net::SocketAddr, time::Duration};

use fail2xdp_tests::{ATTACKER, Echo, FRIEND, Net, SERVER, Site, is_dropped, reaches, until};

const PATIENCE: Duration = Duration::from_secs(20);

fn guard(site: &Site, settings: &str) {
    site.settings(settings);
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 1\nbantime = 600"));
}

#[test]
fn a_list_of_allowed_networks_is_read_again_when_it_changes() {
    let net = Net::new("lists");
    let site = Site::new(&net);
    site.log("guard.log");
    let list = site.write("cdn", &format!("# Ranges\n{}\n999.1.1.1\n", FRIEND.v4));
    guard(&site, &format!("[Definition]\nallow = file:{}\n", list.display()));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let mut daemon = site.start();
    daemon.wait_for_line("cdn:3: `999.1.1.1` is no address", PATIENCE);
    site.json(&["ban", "10.9.0.0/24", "--jail", "guard", "--force"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    assert!(reaches(&net.clients, FRIEND.v4, echo.address()), "the list has it");

    site.write("cdn", &format!("{} ; proxy\n", ATTACKER.v4));
    daemon.wait_for_line("allow: its files and the name servers are", PATIENCE);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()), "the list has it now");
    assert!(is_dropped(&net.clients, FRIEND.v4, echo.address()), "and this one no longer");

    std::fs::remove_file(&list).expect("it is there");
    daemon.wait_for_line("its 1 entries of before stay allowed", PATIENCE);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()));
}

#[test]
fn name_servers_of_this_machine_are_never_dropped() {
    let net = Net::new("resolver");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "");
    let _daemon = site.start();
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let status = site.json(&["status"]);
    let allowed = status["enforcement"]["allowed"].to_string();
    let servers = resolv.lines().filter_map(|line| line.strip_prefix("nameserver "));
    for server in servers.filter(|server| server.parse::<std::net::Ipv4Addr>().is_ok()) {
        assert!(allowed.contains(&format!("\"{server}\"")), "{server} is not in {allowed}");
    }
}

#[test]
fn a_ban_that_reaches_too_far_asks_for_force() {
    let net = Net::new("force");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "[Definition]\nallow = 203.0.113.7\nwidest_ban = /16, /32\n");
    let _daemon = site.start();
    for (prefix, why) in [
        (
            "203.0.113.7",
            "203.0.113.7 is on the allow list (203.0.113.7: the configuration allows it)",
        ),
        ("203.0.113.0/24", "203.0.113.0/24 covers 203.0.113.7, which is on the allow list"),
        ("10.9.0.0/24", "own address"),
        ("198.0.0.0/8", "198.0.0.0/8 is wider than `widest_ban` (/16)"),
        ("2400::/12", "2400::/12 is wider than `widest_ban` (/32)"),
        ("0.0.0.0/0", "covers 0.0.0.0, which is on the allow list"),
    ] {
        let said = site.refused(&["ban", prefix]);
        assert!(said.contains(why) && said.contains("--force"), "{prefix}: {said}");
        assert!(site.bans().is_empty(), "{prefix} was banned");
        assert_eq!(site.json(&["ban", prefix, "--force"])["banned"], 1, "{prefix}");
        assert_eq!(site.json(&["unban", prefix])["lifted"], 1, "{prefix}");
    }
    assert_eq!(site.json(&["ban", "198.51.0.0/16", "2400:db8::/32"])["banned"], 2);
}

#[test]
fn who_does_not_confirm_in_time_finds_nothing_enforced() {
    let net = Net::new("unconfirmed");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let mut daemon = site.start_with(&["--interface", "s0", "--confirm", "8s"]);
    site.json(&["ban", &ATTACKER.v4.to_string(), "--jail", "guard"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    let status = daemon.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", daemon.said());
    assert!(daemon.said().contains("nobody confirmed"), "{}", daemon.said());
    assert!(!site.pins().exists() || site.pins().read_dir().expect("a directory").next().is_none());
    until(PATIENCE, "the banned client is heard again", || {
        reaches(&net.clients, ATTACKER.v4, echo.address()).then_some(())
    });
}

#[test]
fn who_confirms_keeps_the_daemon() {
    let net = Net::new("confirmed");
    let site = Site::new(&net);
    site.log("guard.log");
    guard(&site, "");
    let daemon = site.start_with(&["--interface", "s0", "--confirm", "8s"]);
    assert_eq!(site.text(&["confirm"]).trim(), "Confirmed: the daemon stays");
    assert_eq!(site.text(&["confirm"]).trim(), "The daemon waits for no confirmation");
    // Longer than it would have waited: an answer of the daemon's own clock, not of ours.
    site.json(&["ban", "192.0.2.1", "--for", "9"]);
    site.wait_unbanned("192.0.2.1", PATIENCE);
    assert_eq!(site.text(&["ping"]).trim(), "Server replied: pong");
    assert!(daemon.terminate().success());
}
