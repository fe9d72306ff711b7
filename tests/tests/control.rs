//! Promise: the socket answers root at once, in words for people and in JSON, and others as far as they may.
use std::{
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};

use fail2xdp_tests::{ATTACKER, Echo, Net, SERVER, Site, is_dropped, reaches, until};

/// A jail on TCP port 2222 that bans at the second failure.
fn guard(site: &Site) -> String {
    site.jail("guard", "guard.log", "port = 2222\nmaxretry = 2\nbantime = 600")
}

/// Runs a verb as the user nobody.
fn as_nobody(site: &Site, words: &[&str]) -> (bool, String) {
    let output = site.command_of_nobody(words).output().expect("setpriv runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn text_is_what_fail2ban_users_know() {
    let net = Net::new("text");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&guard(&site));
    let _daemon = site.start();
    site.wait_following("guard");
    assert_eq!(site.text(&["ping"]), "Server replied: pong\n");
    assert_eq!(site.text(&["banned"]), "[{'guard': []}]\n");
    log.wrong_password(ATTACKER.v6);
    log.wrong_password(ATTACKER.v4);
    log.wrong_password(ATTACKER.v4);
    site.wait_banned("10.9.0.2");
    assert_eq!(site.text(&["banned"]), "[{'guard': ['10.9.0.2']}]\n");
    assert_eq!(site.text(&["banned", "10.9.0.2", "10.9.0.3"]), "[['guard'], []]\n");
    let expect = format!(
        "Status for the jail: guard\n\
         |- Filter\n\
         |  |- Currently failed:\t1\n\
         |  |- Total failed:\t3\n\
         |  `- File list:\t{}\n\
         `- Actions\n   \
            |- Currently banned:\t1\n   \
            |- Total banned:\t1\n   \
            `- Banned IP list:\t10.9.0.2\n",
        log.path().display()
    );
    assert_eq!(site.text(&["status", "guard"]), expect);
    let status = site.text(&["status"]);
    assert!(
        status.starts_with("Status\n|- Number of jail:\t1\n`- Jail list:\tguard\n"),
        "{status}"
    );
    let bans = site.text(&["bans"]);
    assert!(bans.contains("10.9.0.2") && bans.contains("guard"), "{bans}");
}

#[test]
fn json_tells_everything_of_a_ban() {
    let net = Net::new("json");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&guard(&site));
    let _daemon = site.start();
    site.wait_following("guard");
    log.wrong_password(ATTACKER.v6);
    log.wrong_password(ATTACKER.v6);
    let ban = site.wait_banned("fd09:0:0:2::/64");
    assert_eq!(
        (&ban["jail"], &ban["failures"], &ban["scope"]),
        (&"guard".into(), &2.into(), &"tcp:2222".into())
    );
    let behind = serde_json::json!([ATTACKER.v6]);
    assert_eq!((&ban["addresses"], &ban["count"]), (&behind, &1.into()));
    let listed = site.text(&["bans"]);
    assert!(listed.contains(&format!("`- {}\n", ATTACKER.v6)), "{listed}");
    let (since, until) = (ban["since"].as_i64(), ban["until"].as_i64());
    assert_eq!(until, since.map(|since| since + 600), "{ban}");
    let lines = ban["lines"].as_array().expect("the lines that led to it");
    assert!(
        lines.len() == 2
            && lines.iter().all(|line| line.to_string().contains("from fd09:0:0:2::1 port")),
        "{ban}"
    );
    let status = site.json(&["status"]);
    assert_eq!(status["jails"][0]["banned"][0], "fd09:0:0:2::/64", "{status}");
    assert_eq!(status["enforcement"]["mode"], "xdp", "{status}");
    assert_eq!(site.json(&["ping"])["reply"], "pong");
}

#[test]
fn bans_by_hand_count_what_is_new() {
    let net = Net::new("hand");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&guard(&site));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let other = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 8080));
    let _daemon = site.start();
    assert_eq!(site.json(&["ban", "10.9.0.2", "2001:db8::/32", "--jail", "guard"])["banned"], 2);
    assert_eq!(
        site.json(&["ban", "10.9.0.2", "--jail", "guard"])["banned"],
        0,
        "it is banned already"
    );
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    assert!(reaches(&net.clients, ATTACKER.v4, other.address()));
    // Without a jail every packet is meant.
    site.json(&["ban", "10.9.0.2", "--for", "1h"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, other.address()));
    assert_eq!(site.bans_of("10.9.0.2").len(), 2);
    assert_eq!(site.json(&["unban", "10.9.0.2", "--jail", "guard"])["lifted"], 1);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()), "the other ban still holds");
    assert_eq!(site.json(&["unban", "10.9.0.2"])["lifted"], 1);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()));
    assert_eq!(site.json(&["unban", "10.9.0.2"])["lifted"], 0);
    site.json(&["ban", "192.0.2.1", "192.0.2.2", "--for", "-1"]);
    assert!(site.bans_of("192.0.2.1")[0]["until"].is_null(), "for ever");
    assert_eq!(site.json(&["unban", "--all"])["lifted"], 3);
    assert!(site.bans().is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let net = Net::new("refuse");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&guard(&site));
    let _daemon = site.start();
    for words in [
        &["ban", "999.1.1.1"][..],
        &["unban", "999.1.1.1"],
        &["ban", "example"],
        &["ban", "10.9.0.0/33"],
    ] {
        let said = site.refused(words);
        assert!(said.contains(words[1]), "{words:?}: {said}");
    }
    for words in [&["status", "nope"][..], &["ban", "192.0.2.1", "--jail", "nope"]] {
        let output = site.output(words);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("Sorry but the jail 'nope' does not exist"), "{words:?}: {said}");
        assert_eq!(output.status.code(), Some(255), "{words:?}");
    }
    let said = site.refused(&["ban", "192.0.2.1", "--for", "10 parsecs"]);
    assert!(said.contains("10 parsecs"), "{said}");
    assert!(site.bans().is_empty());
}

#[test]
fn only_root_opens_the_socket() {
    let net = Net::new("perm");
    let mut site = Site::new(&net);
    site.open_to_nobody();
    site.log("guard.log");
    site.jails(&guard(&site));
    let _daemon = site.start();
    let socket = site.socket().metadata().expect("it is there");
    assert_eq!((socket.mode() & 0o007, socket.uid()), (0, 0), "nobody else may open it");
    let (done, said) = as_nobody(&site, &["ping"]);
    assert!(
        !done && said.to_lowercase().contains("permission") && said.contains("fail2xdp.sock"),
        "{said}"
    );
    // As for a member of the group: look and ban, but command nothing.
    std::fs::set_permissions(site.socket(), std::fs::Permissions::from_mode(0o666))
        .expect("it is ours");
    let (done, said) = as_nobody(&site, &["ping"]);
    assert!(done, "{said}");
    for command in ["reload", "stop"] {
        let (done, said) = as_nobody(&site, &[command]);
        assert!(!done && said.contains("root"), "{command}: {said}");
    }
    assert_eq!(site.text(&["ping"]), "Server replied: pong\n", "it still runs");
}

#[test]
fn nobody_at_the_socket_is_said() {
    let net = Net::new("absent");
    let site = Site::new(&net);
    let said = site.refused(&["status"]);
    assert!(said.contains("fail2xdp.sock") && said.contains("running"), "{said}");
}

#[test]
fn reloading_keeps_the_bans_and_survives_mistakes() {
    let net = Net::new("reload");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    let mut added = site.log("added.log");
    site.jails(&guard(&site));
    let mut daemon = site.start();
    site.wait_following("guard");
    log.wrong_password(ATTACKER.v4);
    log.wrong_password(ATTACKER.v4);
    let ban = site.wait_banned("10.9.0.2");
    log.wrong_password(ATTACKER.v6);
    until(Duration::from_secs(5), "a third failure", || {
        (site.json(&["status", "guard"])["total_failed"] == 3).then_some(())
    });

    site.jails(&(guard(&site) + &site.jail("added", "added.log", "maxretry = 1")));
    let reloaded = site.output(&["reload"]);
    assert_eq!(String::from_utf8_lossy(&reloaded.stdout), "OK\n");
    let said = String::from_utf8_lossy(&reloaded.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["[added] is new"]);
    site.wait_following("added");
    assert_eq!(site.bans_of("10.9.0.2"), std::slice::from_ref(&ban));
    added.wrong_password("192.0.2.9".parse().expect("it is an address"));
    site.wait_banned("192.0.2.9");
    log.wrong_password(ATTACKER.v6);
    assert_eq!(
        site.wait_banned("fd09:0:0:2::/64")["failures"],
        2,
        "what was counted before the reload counts"
    );

    site.jails("[guard\nenabled = yes");
    let said = site.output(&["reload"]);
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.contains("jail.local:1"), "file and line of the mistake: {said}");
    assert_eq!(site.bans_of("10.9.0.2").len(), 1, "a mistake lifts no ban");
    assert!(!site.text(&["stop"]).is_empty());
    daemon.wait(Duration::from_secs(5));
}
