//! Promise: who comes from fail2ban loses no ban and no memory of one, and fail2ban notices nothing.
use std::{fs, net::SocketAddr, os::unix::fs::symlink, path::Path, time::Duration};

use fail2xdp_tests::{
    ATTACKER, Daemon, Echo, FRIEND, Fail2ban, Net, SERVER, Site, fail2ban_config, is_dropped,
    reaches, until,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// A tree of fail2ban's with a jail for each of its usual firewall actions, and two that cannot all be had.
fn tree(folder: &Path) {
    let etc = folder.join("etc");
    fs::create_dir_all(&etc).expect("a directory");
    for name in ["filter.d", "action.d"] {
        symlink(fail2ban_config().join(name), etc.join(name)).expect("a link");
    }
    let at = |name: &str| folder.join(name).display().to_string();
    let write = |name: &str, text: String| fs::write(etc.join(name), text).expect("a file");
    write(
        "fail2ban.conf",
        format!(
            "[DEFAULT]\nloglevel = INFO\nlogtarget = {}\nsyslogsocket = auto\nsocket = {}\npidfile = {}\n\
             dbfile = {}\ndbpurgeage = 1d\n[Definition]\n",
            at("fail2ban.log"),
            at("sock"),
            at("pid"),
            at("db.sqlite3")
        ),
    );
    let jail = |name: &str, time: u32, action: &str| {
        fs::write(folder.join(name), "").expect("a log");
        format!(
            "[{name}]\nenabled = true\nfilter = sshd\nbackend = polling\nlogpath = {}\nport = 2222\nbantime = {time}\n\
             action = {action}\n\n",
            at(name)
        )
    };
    let all = [
        jail("tables", 600, "iptables-multiport[name=tables, port=2222, protocol=tcp]"),
        jail("sets", 600, "iptables-ipset-proto6[name=sets, port=2222, protocol=tcp]"),
        jail(
            "nft",
            600,
            &format!(
                "nftables[type=multiport, name=nft, port=2222, protocol=tcp]\n dummy[target={}]",
                at("dummy")
            ),
        ),
        jail("brief", 1, "iptables-multiport[name=brief, port=2222, protocol=tcp]"),
        jail("open", 600, "iptables-multiport[name=open, port=2222, blocktype=ACCEPT]"),
    ];
    write("jail.conf", format!("[DEFAULT]\nignoreself = false\nusedns = no\n{}", all.concat()));
}

/// Our program on that tree and a state directory, in the server's namespace.
fn command(site: &Site, tree: &Path, state: &str, words: &[&str]) -> std::process::Command {
    let mut flags = site.flags();
    let place =
        |flags: &[String], name| flags.iter().position(|flag| flag == name).expect("a flag") + 1;
    let (config, kept) = (place(&flags, "--config"), place(&flags, "--state"));
    flags[config] = tree.display().to_string();
    flags[kept] = site.path(state).display().to_string();
    let mut command = site.command_without_flags();
    command.args(words).args(flags);
    command
}

fn import(site: &Site, tree: &Path, state: &str, words: &[&str]) -> Value {
    let output = command(site, tree, state, &[&["import", "--json"], words].concat())
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn bans_and_their_history_come_over_from_a_running_fail2ban() {
    let net = Net::new("import");
    let site = Site::new(&net);
    let folder = site.path("peer");
    tree(&folder);
    // Whose bans let in, fail2ban cannot run either way here: it is another test's.
    let peer = Fail2ban::start_in(&net.server, &folder);
    until(PATIENCE, "fail2ban answers", || peer.ask(&["ping"]).contains("pong").then_some(()));
    let attacker = ATTACKER.v4.to_string();
    let attacker6 = ATTACKER.v6.to_string();
    peer.ask(&["set", "tables", "banip", &attacker, "192.0.2.1"]);
    peer.ask(&["set", "sets", "banip", "192.0.2.2"]);
    peer.ask(&["set", "nft", "banip", &attacker6, "192.0.2.3"]);
    peer.ask(&["set", "open", "banip", "192.0.2.4"]);
    // Over by the time that it is taken over.
    peer.ask(&["set", "brief", "banip", "192.0.2.5"]);
    let listed = |tool: &str, words: &str| -> String {
        let output = net.server.command(tool).args(words.split_whitespace()).output().expect(tool);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    until(PATIENCE, "its rules and sets hold them", || {
        let (tables, sets, nft) =
            (listed("iptables-save", ""), listed("ipset", "save"), listed("nft", "list ruleset"));
        let all = tables.contains("192.0.2.1/32")
            && sets.contains("192.0.2.2")
            && nft.contains("192.0.2.3");
        (all && !tables.contains("192.0.2.5")).then_some(())
    });
    let database = folder.join("db.sqlite3");
    let before = (fs::read(&database).expect("its database"), listed("iptables-save", ""));

    let etc = folder.join("etc");
    let told = import(&site, &etc, "state", &[]);
    assert_eq!(told["bans"], 5, "{told}");
    assert_eq!(told["past_bans"], 1, "{told}");
    assert_eq!(told["bans_of_other_jails"]["open"], 1, "{told}");
    let jails = told["jails"].as_array().expect("jails");
    let jail = |name: &str| {
        jails.iter().find(|jail| jail["jail"] == name).unwrap_or_else(|| panic!("{name}: {told}"))
    };
    assert_eq!(jail("tables")["mapped_actions"][0], "iptables-multiport", "{told}");
    assert_eq!(jail("tables")["scope"], "tcp:2222", "{told}");
    assert_eq!(jail("nft")["actions_not_run"][0], "dummy", "{told}");
    assert_eq!(jail("open")["runs"], false, "{told}");
    assert!(jail("open")["problems"][0].as_str().is_some_and(|it| it.contains("ACCEPT")), "{told}");

    // What only the firewall knows: as if the database had been lost.
    let lost = import(&site, &etc, "lost", &["--dbfile", &empty_database(&folder, &database)]);
    assert_eq!(lost["bans"], 5, "{lost}");
    let held: u64 = lost["bans_of_firewall_only"]
        .as_object()
        .expect("tools")
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(held, 5, "{lost}");

    assert_eq!(
        before.0,
        fs::read(&database).expect("its database"),
        "fail2ban's database was changed"
    );
    assert_eq!(before.1, listed("iptables-save", ""), "fail2ban's rules were changed");
    assert!(peer.ask(&["ping"]).contains("pong"));
    drop(peer);

    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let echo6 = Echo::listen(&net.server, SocketAddr::new(SERVER.v6, 2222));
    let _daemon = Daemon::start(command(&site, &etc, "state", &["run", "--interface", "s0"]));
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    assert!(is_dropped(&net.clients, ATTACKER.v6, echo6.address()));
    assert!(reaches(&net.clients, FRIEND.v4, echo.address()));
    for ban in site.bans() {
        let time =
            ban["until"].as_i64().zip(ban["since"].as_i64()).map(|(until, since)| until - since);
        assert_eq!(time, Some(600), "{ban}");
    }
    // One that is taken over again counts once.
    let again = import(&site, &etc, "lost", &["--dry-run"]);
    assert_eq!(again["taken_over"], false);
}

/// A database as fail2ban makes it, without a ban in it.
fn empty_database(folder: &Path, of: &Path) -> String {
    let path = folder.join("empty.sqlite3");
    fs::copy(of, &path).expect("a copy");
    let sql = rusqlite::Connection::open(&path).expect("a database");
    sql.execute_batch("DELETE FROM bans; DELETE FROM bips;").expect("its tables");
    path.display().to_string()
}

#[test]
fn what_cannot_be_taken_over_is_named() {
    let net = Net::new("noimport");
    let site = Site::new(&net);
    let output = site.command(&["import", "--dbfile", "/nowhere/db"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("`/nowhere/db`"), "{said}");
    site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", ""));
    let _daemon = site.start();
    let output = site.command(&["import"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("another daemon works in"), "{said}");
}
