//! Promise: the same where sshd's messages exist only in a journal, told by their unit.
use std::{net::SocketAddr, time::Duration};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, LogTo, Login, Net, SERVER, Site, Sshd,
    attack::{Cast, is_stopped_and_ends},
    guess, reaches, unit, until,
};

/// What the journal knows of a service's messages.
const UNIT: &str = "journalmatch = _SYSTEMD_UNIT=ssh.service\n";
/// What the shipped filter asks for.
const SHIPPED: &str = "";

/// A jail that reads the journal of `sshd`, with this `journalmatch` line.
fn jail(sshd: &Sshd, matches: &str) -> String {
    format!(
        "[sshd]\nenabled = true\nbackend = systemd[journalpath=\"{}\"]\n{matches}\
         maxretry = 3\nfindtime = 60\nbantime = 12\n",
        sshd.journal().display()
    )
}

#[track_caller]
fn check(label: &str, matches: &str, cast: Cast) {
    let net = Net::new(label);
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::Journal);
    site.jails(&jail(&sshd, matches));
    let _daemon = site.start();
    is_stopped_and_ends(&net, &site, cast);
}

#[test]
fn an_attack_over_ipv4_is_stopped() {
    check("jnl4", UNIT, Cast { attacker: ATTACKER.v4, bystander: BYSTANDER.v4, server: SERVER.v4 });
}

#[test]
fn an_attack_over_ipv6_is_stopped() {
    check(
        "jnl6",
        SHIPPED,
        Cast { attacker: ATTACKER.v6, bystander: BYSTANDER.v6, server: SERVER.v6 },
    );
}

#[test]
fn guesses_of_another_unit_count_for_nothing() {
    let net = Net::new("jnl-unit");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::Journal);
    let other = jail(&sshd, "journalmatch = _SYSTEMD_UNIT=other.service\n")
        .replace("[sshd]", "[other]\nfilter = sshd\nport = ssh");
    site.jails(&(jail(&sshd, UNIT).replace("maxretry = 3", "maxretry = 5") + &other));
    let _daemon = site.start();
    for _ in 0..4 {
        assert_eq!(guess(&net.clients, ATTACKER.v4, SERVER.v4, false), Login::Denied);
    }
    until(Duration::from_secs(5), "four failures are counted in `sshd`", || {
        (site.json(&["status", "sshd"])["total_failed"] == 4).then_some(())
    });
    assert_eq!(site.json(&["status", "other"])["total_failed"], 0);
    assert!(reaches(&net.clients, ATTACKER.v4, SocketAddr::new(SERVER.v4, 22)));
}

#[test]
fn guesses_made_before_the_daemon_starts_count() {
    let net = Net::new("jnl-before");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::Journal);
    site.jails(&jail(&sshd, UNIT).replace("bantime = 12", "bantime = 60"));
    for _ in 0..3 {
        assert_eq!(guess(&net.clients, ATTACKER.v6, SERVER.v6, false), Login::Denied);
    }
    let _daemon = site.start();
    let ban = site.wait_banned(&unit(ATTACKER.v6));
    assert_eq!(ban["failures"], 3, "each is counted once: {ban}");
}
