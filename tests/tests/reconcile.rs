//! Promise: whatever becomes of the kernel's maps under a running daemon is found, mended, counted and told.
use std::{net::SocketAddr, time::Duration};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Daemon, Echo, FRIEND, Net, SERVER, Site, is_dropped, reaches, run, unit,
    until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// What the daemon says of each kind of damage.
const SAID: [&str; 6] = [
    "bans were missing",
    "bans were stray",
    "bans were changed",
    "lines differed",
    "bits differed",
    "allow entries differed",
];

/// A map of the running daemon, in bytes.
struct Map(String);

impl Map {
    fn of(site: &Site, name: &str) -> Map {
        Map(site.map(name))
    }

    fn entries(&self) -> Vec<(Vec<String>, Vec<String>)> {
        let dump = run("bpftool", &["-j", "map", "dump", "pinned", &self.0]);
        let dump: Value = serde_json::from_str(&dump).expect("bpftool prints JSON");
        let bytes = |entry: &Value| -> Vec<String> {
            let bytes = entry.as_array().expect("a list of bytes").iter();
            bytes.map(|byte| byte.as_str().expect("0x..").to_owned()).collect()
        };
        let entries = dump.as_array().expect("a list of entries").iter();
        entries.map(|entry| (bytes(&entry["key"]), bytes(&entry["value"]))).collect()
    }

    fn change(&self, verb: &str, key: &[String], value: &[String]) {
        let mut words = vec!["map", verb, "pinned", &self.0, "key"];
        words.extend(key.iter().map(String::as_str));
        if !value.is_empty() {
            words.push("value");
            words.extend(value.iter().map(String::as_str));
        }
        run("bpftool", &words);
    }

    /// Makes every entry zero that is not; how many.
    fn blank(&self) -> usize {
        let is_set = |value: &[String]| value.iter().any(|byte| byte != "0x00");
        let set = self.entries().into_iter().filter(|(_, value)| is_set(value));
        set.map(|(key, value)| self.change("update", &key, &vec!["0x00".to_owned(); value.len()]))
            .count()
    }
}

/// An IPv4 address as a trie has it: its length, then its bytes.
fn key(address: [u8; 4]) -> Vec<String> {
    [32, 0, 0, 0].into_iter().chain(address).map(|byte| format!("{byte:#04x}")).collect()
}

fn repairs(site: &Site) -> u64 {
    let status = site.json(&["status"]);
    status["enforcement"]["repairs"].as_u64().expect("it is counted")
}

#[test]
fn damaged_maps_are_mended_counted_and_told_while_the_daemon_runs() {
    let net = Net::new("mend");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nbantime = 600"));
    site.settings("[Definition]\ncompare_every = 1s\ninitial_bans = 1024\nallow = 192.0.2.0/24\n");
    let echoes = [SERVER.v4, SERVER.v6]
        .map(|server| Echo::listen(&net.server, SocketAddr::new(server, 2222)));
    let daemon = site.start();
    let banned = [ATTACKER.v4, ATTACKER.v6, FRIEND.v4];
    let to = |who: std::net::IpAddr| echoes[usize::from(who.is_ipv6())].address();
    for who in banned {
        site.json(&["ban", &unit(who), "--jail", "guard"]);
    }
    assert_eq!(repairs(&site), 0);
    let maps = ["BANS_V4", "BANS_V6", "HOSTS_V4", "HOSTS_V6", "HINT_V4", "HINT_V6", "ALLOW_V4"];
    let maps = maps.map(|name| Map::of(&site, name));
    let before = |map: &Map| {
        let mut entries = map.entries();
        entries.sort();
        entries
    };
    let [bans, bans_v6, hosts, hosts_v6, hints, hints_v6, allow] = &maps;
    let [as_it_was, allowed] = [bans, allow].map(before);

    // A ban gone, one that nobody made, one whose end is now another; copies and hints gone; the allow list with one
    // entry less and one more.
    let (_, value) = bans.entries().remove(0);
    bans.change("delete", &key([10, 9, 0, 2]), &[]);
    bans.change("update", &key([10, 9, 0, 3]), &value);
    for (key, value) in bans_v6.entries() {
        let ended: Vec<String> = ["0x01", "0x00", "0x00", "0x00"]
            .map(str::to_owned)
            .into_iter()
            .chain(value[4..].to_vec())
            .collect();
        bans_v6.change("update", &key, &ended);
    }
    assert!(hosts.blank() + hosts_v6.blank() >= 2 && hints.blank() + hints_v6.blank() >= 2);
    let (narrow, wide): (Vec<_>, Vec<_>) = allowed.iter().partition(|(key, _)| key[0] != "0x18");
    assert_eq!(wide.len(), 1, "the one network of 24 bits is that of the configuration");
    allow.change("delete", &wide[0].0, &[]);
    allow.change("update", &key([10, 9, 0, 2]), &narrow[0].1);

    mended(&site, &daemon);
    assert_eq!(before(allow), allowed);
    assert_eq!(before(bans), as_it_was, "bans, with their ends");
    for who in banned {
        assert!(is_dropped(&net.clients, who, to(who)), "{who}");
    }
    for who in [BYSTANDER.v4, BYSTANDER.v6] {
        assert!(reaches(&net.clients, who, to(who)), "{who}");
    }
    assert_eq!(site.bans().len(), banned.len());
    daemon.terminate();
}

/// Waits until all of it was said, and the count agrees with the log.
fn mended(site: &Site, daemon: &Daemon) {
    for what in SAID {
        until(SOON, what, || (daemon.said_times(what, 0).0 > 0).then_some(()));
    }
    let told =
        || daemon.said_times("the kernel's maps differed from the ban table and were mended", 0).0;
    until(SOON, "each is counted and told", || (repairs(site) == told() as u64).then_some(()));
}
