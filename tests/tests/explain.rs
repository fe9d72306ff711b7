//! Promise: `explain` says why: who bans an address and by which rule, or what was counted and what spared it.
use std::time::Duration;

use fail2xdp_tests::{ATTACKER, Echo, FRIEND, Net, SERVER, Site, is_dropped, until};
use serde_json::Value;

/// A jail on TCP port 2222 that bans at the second failure.
fn guard(site: &Site, more: &str) -> String {
    site.jail("guard", "guard.log", &format!("port = 2222\nmaxretry = 2\nbantime = 600\n{more}"))
}

fn explained(site: &Site, address: &str) -> Value {
    site.json(&["explain", address])
}

/// The line of a file whose text holds `part`, from 1.
fn line_of(site: &Site, file: &str, part: &str) -> usize {
    let text = std::fs::read_to_string(site.path(file)).expect("it was written");
    1 + text.lines().position(|line| line.contains(part)).expect(part)
}

#[test]
fn a_ban_is_explained_by_its_rule_its_lines_and_its_packets() {
    let net = Net::new("why4");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&guard(&site, ""));
    let echo = Echo::listen(&net.server, std::net::SocketAddr::new(SERVER.v4, 2222));
    let mut daemon = site.start();
    site.wait_following("guard");
    log.wrong_password(ATTACKER.v4);
    let counted = until(Duration::from_secs(5), "one failure", || {
        let of = explained(&site, "10.9.0.2");
        (of["jails"][0]["attempts"] == 1).then_some(of)
    });
    assert_eq!(counted["banned"], false, "{counted}");
    let guard = &counted["jails"][0];
    assert_eq!((&guard["jail"], &guard["max_retry"]), (&"guard".into(), &2.into()), "{counted}");
    assert!(guard["last"].as_i64() > Some(1_700_000_000), "{counted}");
    assert!(guard["lines"][0].to_string().contains("from 10.9.0.2 port"), "{counted}");
    assert!(guard["rule"]["regex"].to_string().contains("<HOST>"), "{counted}");

    log.wrong_password(ATTACKER.v4);
    site.wait_banned("10.9.0.2");
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    let banned = explained(&site, "10.9.0.2");
    let ban = &banned["bans"][0];
    assert_eq!((&banned["banned"], &ban["jail"]), (&true.into(), &"guard".into()), "{banned}");
    assert_eq!(ban["until"].as_i64(), ban["since"].as_i64().map(|since| since + 600), "{banned}");
    assert!(
        ban["packets"].as_u64() > Some(0) && ban["last_packet"].as_i64() >= ban["since"].as_i64()
    );
    assert_eq!(ban["lines"].as_array().map(Vec::len), Some(2), "{banned}");
    let place = ban["rule"]["place"].as_str().expect("it was written somewhere").to_owned();
    let (file, line) = place.rsplit_once(':').expect("file and line");
    assert!(file.ends_with("filter.d/sshd.conf"), "{place}");
    let text = std::fs::read_to_string(file).expect("the filter's file");
    let line: usize = line.parse().expect("a number");
    assert!(text.lines().nth(line - 1).is_some_and(|line| line.contains("<HOST>")), "{place}");
    let jail = line_of(&site, "config/jail.local", "[guard]");
    let expect = format!("{}:{jail}", site.path("config/jail.local").display());
    assert_eq!(banned["jails"][0]["place"], expect.as_str(), "{banned}");
    assert_eq!(banned["history"][0]["bans"], 1, "{banned}");
    let told = site.text(&["explain", "10.9.0.2"]);
    assert!(told.starts_with("10.9.0.2 is banned\nBan of 10.9.0.2 by jail guard\n"), "{told}");
    assert!(told.contains(&place), "{told}");

    // A covering network counts as well, and the next daemon knows as much.
    site.json(&["ban", "10.9.0.0/16", "--for", "1h", "--force"]);
    site.text(&["stop"]);
    daemon.wait(Duration::from_secs(5));
    let _daemon = site.start();
    let again = explained(&site, "10.9.0.2");
    let prefixes: Vec<&Value> =
        again["bans"].as_array().expect("a list").iter().map(|ban| &ban["prefix"]).collect();
    assert_eq!(prefixes, ["10.9.0.0/16", "10.9.0.2"], "{again}");
    for field in ["rule", "lines", "failures", "since", "until"] {
        assert_eq!(again["bans"][1][field], ban[field], "{field}");
    }
    site.unban("10.9.0.2");
    let lifted = explained(&site, "10.9.0.2");
    assert_eq!(lifted["bans"][0]["jail"], "manual", "{lifted}");
}

#[test]
fn an_ipv6_prefix_is_explained_with_the_addresses_behind_it() {
    let net = Net::new("why6");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&guard(&site, ""));
    let mut daemon = site.start();
    site.wait_following("guard");
    let [first, second] = ["2001:db8:7::a", "2001:db8:7::b"];
    log.wrong_password(first.parse().expect("an address"));
    until(Duration::from_secs(5), "one failure", || {
        let of = &explained(&site, "2001:db8:7::c")["jails"][0];
        (of["addresses"] == serde_json::json!([first]) && of["prefix"] == "2001:db8:7::/64")
            .then_some(())
    });
    log.wrong_password(second.parse().expect("an address"));
    let ban = site.wait_banned("2001:db8:7::/64");
    assert_eq!(ban["addresses"], serde_json::json!([first, second]));
    let bans = site.text(&["bans"]);
    assert!(bans.contains("2001:db8:7::a 2001:db8:7::b"), "{bans}");
    let told = site.text(&["explain", "2001:db8:7::c"]);
    assert!(told.contains("Ban of 2001:db8:7::/64 by jail guard"), "{told}");
    assert!(told.contains("Addresses:\t2001:db8:7::a\n|  \t2001:db8:7::b\n"), "{told}");
    site.text(&["stop"]);
    daemon.wait(Duration::from_secs(5));
    let _daemon = site.start();
    assert_eq!(site.wait_banned("2001:db8:7::/64")["addresses"], ban["addresses"]);
}

#[test]
fn what_spares_an_address_is_named_with_its_place() {
    let net = Net::new("spared");
    let site = Site::new(&net);
    site.log("guard.log");
    site.settings(&format!("[Definition]\nallow = 192.0.2.0/24\n  {}\n", FRIEND.v4));
    site.jails(&guard(&site, "ignoreip = 198.51.100.7\n  203.0.113.0/24"));
    let _daemon = site.start();
    let allowed = explained(&site, &FRIEND.v4.to_string());
    let place = format!("{}:3", site.path("config/fail2xdp.local").display());
    assert_eq!(allowed["allowed"]["place"], place.as_str(), "{allowed}");
    let own = explained(&site, &SERVER.v4.to_string());
    assert_eq!(own["allowed"]["reason"], "own address", "{own}");
    assert_eq!(own["jails"][0]["spared"]["by"], "ignoreself", "{own}");
    let ignored = explained(&site, "203.0.113.9");
    let line = line_of(&site, "config/jail.local", "203.0.113.0/24");
    let place = format!("{}:{line}", site.path("config/jail.local").display());
    let spared = &ignored["jails"][0]["spared"];
    assert_eq!(spared["by"], "ignoreip 203.0.113.0/24", "{ignored}");
    assert_eq!(spared["place"], place.as_str(), "{ignored}");
    let told = site.text(&["explain", "203.0.113.9"]);
    assert!(told.contains(&format!("Not counted:\tignoreip 203.0.113.0/24, {place}")), "{told}");
    let refused = site.refused(&["explain", "example"]);
    assert!(refused.contains("`example` is no address"), "{refused}");
}

#[test]
fn a_line_is_told_what_every_jail_makes_of_it_without_a_daemon() {
    let net = Net::new("line");
    let site = Site::new(&net);
    site.write(
        "config/filter.d/door.conf",
        "[Definition]\nprefregex = ^ host door: <F-CONTENT>.+</F-CONTENT>$\n\
         failregex = ^knock from <ADDR>$\n ^kick by <F-USER>\\S+</F-USER> from <ADDR>\n\
         ignoreregex = by friend\n",
    );
    let door = "enabled = true\nfilter = door\nlogpath = /nowhere\nignoreip = 198.51.100.0/24\n";
    site.jails(&format!("[door]\n{door}maxretry = 3\n[window]\n{door}[shut]\nfilter = door\n"));
    let now = fail2xdp_tests::syslog_now();
    let told = |line: &str| -> Value {
        let line = format!("{now} host {line}");
        let told = site.json(&["explain", "--jail", "door", "--line", &line]);
        assert_eq!((&told[0]["jail"], &told[0]["date"]), (&"door".into(), &now.as_str().into()));
        told[0].clone()
    };
    let kick = told("door: kick by eve from 2001:db8:7::a");
    assert_eq!(kick["result"], "one of 3 failures in 600 s that make a ban");
    let found = &kick["failregex"][0];
    assert_eq!((&found["rule"]["number"], &found["who"]), (&2.into(), &"2001:db8:7::a".into()));
    assert_eq!(
        (&found["prefix"], &found["fields"]["user"]),
        (&"2001:db8:7::/64".into(), &"eve".into())
    );
    let place = format!("{}:4", site.path("config/filter.d/door.conf").display());
    assert_eq!(found["rule"]["place"], place.as_str(), "{kick}");

    let spared = told("door: knock from 198.51.100.7");
    assert_eq!(spared["result"], "nothing: spared by ignoreip 198.51.100.0/24", "{spared}");
    let place = format!("{}:5", site.path("config/jail.local").display());
    assert_eq!(spared["failregex"][0]["spared"]["place"], place.as_str(), "{spared}");

    let ignored = told("door: kick by friend from 192.0.2.1");
    assert_eq!(ignored["result"], "nothing: an ignoreregex spares it", "{ignored}");
    assert_eq!(ignored["ignoreregex"]["regex"], "by friend", "{ignored}");

    let none = told("door: knock from 999.1.1.1");
    assert_eq!(none["failregex"][0]["outcome"], "not an address", "{none}");

    let missed = told("door: knock form 192.0.2.1");
    assert_eq!(missed["nearest"]["wanted"], "rom <ADDR>$", "{missed}");
    assert_eq!(missed["nearest"]["found"], "orm 192.0.2.1", "{missed}");

    let other = told("gate: knock from 192.0.2.1");
    assert_eq!(other["prefregex"]["matched"], false, "{other}");
    assert_eq!(other["result"], "nothing: `prefregex` does not match", "{other}");

    let all = site.json(&["explain", "--line", "knock"]);
    let jails: Vec<&Value> = all.as_array().expect("a list").iter().map(|it| &it["jail"]).collect();
    assert_eq!(jails, ["door", "window"]);
    let text = site.text(&["explain", "--jail", "shut", "--line", "knock"]);
    assert!(text.starts_with("Jail shut: nothing: `prefregex` does not match\n"), "{text}");
    let refused = site.refused(&["explain", "--jail", "nope", "--line", "knock"]);
    assert!(refused.contains("there is no jail `nope`"), "{refused}");
}
