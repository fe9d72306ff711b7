//! Promise: more new bans than `ban_ceiling` a minute raise an alarm and hold back what would hurt if all were a mistake:
//! networks, and those who logged in. Everybody else is banned as ever.
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use fail2xdp_tests::{Log, Net, Site, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn metric(site: &Site, line: &str) -> bool {
    let mut stream = UnixStream::connect(site.socket()).expect("the daemon listens");
    let request = "GET /v1/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.lines().any(|it| it == line)
}

fn said(log: &mut Log, what: &str) {
    let line = Log::line_of("192.0.2.1".parse().expect("an address"));
    let head = line.split_once("Failed").expect("a line of sshd").0;
    log.append(&format!("{head}{what}\n"));
}

#[test]
fn above_the_ceiling_only_what_is_risky_waits() {
    let net = Net::new("ceiling");
    let site = Site::new(&net);
    site.settings("[Definition]\nmode = none\nban_ceiling = 5\n");
    let wide = site.jail("wide", "wide.log", "maxretry = 1\nipv6_prefix = 48\n");
    site.jails(&(site.jail("one", "one.log", "maxretry = 1\n") + &wide));
    let (mut log, mut wide) = (site.log("one.log"), site.log("wide.log"));
    let mut daemon = site.start();
    let ceiling = || site.json(&["status"])["ceiling"].clone();
    said(&mut log, "Accepted password for alice from 192.0.2.77 port 50022 ssh2");
    until(SOON, "the login is known", || (ceiling()["logins"] == 1).then_some(()));
    let fail = |log: &mut Log, address: &str| {
        log.wrong_password(address.parse().expect("an address"));
    };
    for nth in 1..=5 {
        fail(&mut log, &format!("192.0.2.{nth}"));
    }
    site.wait_banned("192.0.2.5");
    assert_eq!((&ceiling()["exceeded"], &ceiling()["bans"]), (&false.into(), &5.into()));
    fail(&mut log, "192.0.2.6");
    site.wait_banned("192.0.2.6");
    daemon.wait_for_line("ERROR   6 new bans within a minute, more than `ban_ceiling` (5)", SOON);
    fail(&mut log, "192.0.2.77");
    fail(&mut wide, "2001:db8::1");
    daemon.wait_for_line(
        "[one] 192.0.2.77 is not banned while so many are: somebody logged in",
        SOON,
    );
    daemon.wait_for_line(
        "[wide] 2001:db8::/48 is not banned while so many are: it is a network",
        SOON,
    );
    fail(&mut log, "192.0.2.8");
    site.wait_banned("192.0.2.8");
    fail(&mut log, "2001:db8::1");
    site.wait_banned("2001:db8::/64");
    let shown = ceiling();
    assert_eq!((&shown["exceeded"], &shown["suspended"]), (&true.into(), &2.into()), "{shown}");
    assert!(metric(&site, "fail2xdp_ban_ceiling_exceeded 1"));
    assert!(site.text(&["status"]).contains("more than `ban_ceiling` (5)"));
    // An operator's own word holds.
    site.text(&["ban", "192.0.2.77"]);
    let bans: Vec<Value> = site.bans_of("192.0.2.77");
    assert_eq!(bans.len(), 1, "{bans:?}");

    // Who logged in is known to the next daemon, too.
    daemon.kill();
    let _daemon = site.start();
    until(SOON, "the login is known again", || (ceiling()["logins"] == 1).then_some(()));
}
