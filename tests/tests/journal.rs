//! Promise: the same where sshd's messages exist only in a journal, told by their unit.
use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, LogTo, Login, Net, SERVER, Site, Sshd,
    attack::{Cast, is_stopped_and_ends},
    guess, now, reaches, tool, unit, until,
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

/// Writes entries of another machine's sshd as `systemd-journal-remote` keeps them.
#[track_caller]
fn send(file: &Path, messages: &[&str]) {
    let entry = |message: &&str| {
        format!(
            "__REALTIME_TIMESTAMP={}000000\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID={}\n_HOSTNAME=web\n\
             _SYSTEMD_UNIT=ssh.service\nSYSLOG_IDENTIFIER=sshd\n_PID=7\nMESSAGE={message}\n\n",
            now() as i64,
            "0123456789abcdef".repeat(2)
        )
    };
    let feed: String = messages.iter().map(entry).collect();
    let mut remote = Command::new(tool("systemd-journal-remote"));
    remote.arg("-o").arg(file).arg("-").stdin(Stdio::piped()).stderr(Stdio::null());
    let mut remote = remote.spawn().expect("it can be started");
    remote.stdin.take().expect("it is piped").write_all(feed.as_bytes()).expect("it reads");
    assert!(remote.wait().expect("it ends").success(), "systemd-journal-remote failed");
}

#[test]
fn files_of_other_machines_are_read_beside_a_broken_one() {
    let net = Net::new("jnl-far");
    let site = Site::new(&net);
    let far = site.path("far");
    fs::create_dir(&far).expect("the site can be written");
    fs::write(far.join("noise.journal"), [0x5a; 9000]).expect("the site can be written");
    let failed = "Failed password for root from 192.0.2.7 port 50022 ssh2";
    send(&far.join("remote-web.journal"), &[failed; 2]);
    let jail = format!(
        "[sshd]\nenabled = true\nbackend = systemd[journalfiles=\"{}/*.journal\"]\nmaxretry = 3\n",
        far.display()
    );
    site.jails(&(jail + UNIT));
    let mut daemon = site.start();
    daemon.wait_for_line("noise.journal` cannot be read", Duration::from_secs(10));
    send(&far.join("remote-mail.journal"), &[failed]);
    assert_eq!(site.wait_banned("192.0.2.7")["failures"], 3);
}
