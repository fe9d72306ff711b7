//! Whom the rules and sets that fail2ban's actions made hold at present, as the firewall's own tools list them.
use std::{
    collections::HashMap,
    process::{Command, Stdio},
};

use ipnet::IpNet;
use serde_json::Value;

use crate::config;

/// An address that a rule or set of a jail holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub jail: String,
    pub prefix: IpNet,
    /// Seconds that it is still held; `None`: until somebody takes it out.
    pub left: Option<i64>,
    /// Where it was found.
    pub by: &'static str,
}

/// A tool, its arguments, and how its listing is read.
type Tool = (&'static str, &'static [&'static str], fn(&str) -> Vec<Held>);

const TOOLS: [Tool; 4] = [
    ("iptables-save", &[], iptables),
    ("ip6tables-save", &[], iptables),
    ("ipset", &["save"], ipset),
    ("nft", &["-j", "list", "ruleset"], nftables),
];

/// What every tool that is installed lists, and why one could not.
pub(super) fn held() -> (Vec<Held>, Vec<String>) {
    let (mut held, mut faults) = (Vec::new(), Vec::new());
    for (tool, arguments, read) in TOOLS {
        match Command::new(tool).args(arguments).stdin(Stdio::null()).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => faults.push(format!("cannot start `{tool}`: {error}")),
            Ok(output) if !output.status.success() => {
                let said = String::from_utf8_lossy(&output.stderr);
                faults.push(format!(
                    "`{tool}` lists nothing: {}",
                    said.lines().next().unwrap_or("it failed")
                ));
            }
            Ok(output) => {
                for found in read(&String::from_utf8_lossy(&output.stdout)) {
                    // `iptables-save` of today lists what `nft` lists, too.
                    let known =
                        |known: &Held| known.jail == found.jail && known.prefix == found.prefix;
                    if !held.iter().any(known) {
                        held.push(found);
                    }
                }
            }
        }
    }
    (held, faults)
}

/// `-A f2b-sshd -s 192.0.2.1/32 -j REJECT …`
fn iptables(listing: &str) -> Vec<Held> {
    let rule = |line: &str| {
        let mut words = line.strip_prefix("-A f2b-")?.split_ascii_whitespace();
        let jail = words.next()?.to_owned();
        let source = words.next().filter(|word| *word == "-s").and(words.next())?;
        // Where a ban lets in, nothing is held off.
        let target = words.skip_while(|word| *word != "-j").nth(1)?;
        if matches!(target, "ACCEPT" | "RETURN") {
            return None;
        }
        Some(Held { jail, prefix: config::network(source).ok()?, left: None, by: "iptables" })
    };
    listing.lines().filter_map(rule).collect()
}

/// `create f2b-sshd hash:ip family inet … timeout 600`, `add f2b-sshd 192.0.2.1 timeout 512`; the set of IPv6 addresses
/// is `f2b-sshd6`.
fn ipset(listing: &str) -> Vec<Held> {
    let mut jails: HashMap<&str, String> = HashMap::new();
    let mut held = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["create", set, _, ref rest @ ..] => {
                let Some(name) = set.strip_prefix("f2b-") else { continue };
                let jail = match name.strip_suffix('6') {
                    Some(stem) if rest.contains(&"inet6") => stem,
                    _ => name,
                };
                jails.insert(set, jail.to_owned());
            }
            ["add", set, address, ref rest @ ..] => {
                let (Some(jail), Ok(prefix)) = (jails.get(set), config::network(address)) else {
                    continue;
                };
                let time =
                    rest.iter().position(|word| *word == "timeout").and_then(|at| rest.get(at + 1));
                // A time of 0 is none.
                let left = time.and_then(|time| time.parse().ok()).filter(|left| *left > 0);
                held.push(Held { jail: jail.clone(), prefix, left, by: "ipset" });
            }
            _ => {}
        }
    }
    held
}

/// The sets `addr-set-JAIL` and `addr6-set-JAIL` of table `f2b-table`; libnftables-json(5) has the form.
fn nftables(listing: &str) -> Vec<Held> {
    let Ok(listing) = serde_json::from_str::<Value>(listing) else { return Vec::new() };
    let mut held = Vec::new();
    for object in listing["nftables"].as_array().into_iter().flatten() {
        let set = &object["set"];
        let name = set["name"].as_str().unwrap_or_default();
        let jail = name.strip_prefix("addr-set-").or_else(|| name.strip_prefix("addr6-set-"));
        let (Some("f2b-table"), Some(jail)) = (set["table"].as_str(), jail) else { continue };
        for element in set["elem"].as_array().into_iter().flatten() {
            let (value, left) = match &element["elem"] {
                Value::Null => (element, None),
                timed => (&timed["val"], timed["expires"].as_i64()),
            };
            let Some(prefix) = nft_prefix(value) else { continue };
            held.push(Held { jail: jail.to_owned(), prefix, left, by: "nftables" });
        }
    }
    held
}

/// `"192.0.2.1"` or `{"prefix": {"addr": "192.0.2.0", "len": 24}}`.
fn nft_prefix(value: &Value) -> Option<IpNet> {
    if let Some(address) = value.as_str() {
        return config::network(address).ok();
    }
    let prefix = &value["prefix"];
    config::network(&format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(read: fn(&str) -> Vec<Held>, listing: &str, expect: &[(&str, &str, Option<i64>)]) {
        let found: Vec<_> = read(listing)
            .into_iter()
            .map(|held| (held.jail, held.prefix.to_string(), held.left))
            .collect();
        let expect: Vec<_> = expect
            .iter()
            .map(|(jail, prefix, left)| (jail.to_string(), prefix.to_string(), *left))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn rules_of_iptables_are_read() {
        check(
            iptables,
            "*filter\n:INPUT ACCEPT [0:0]\n:f2b-web-app - [0:0]\n-A INPUT -p tcp -m multiport --dports 22 -j f2b-web-app\n\
             -A f2b-web-app -s 192.0.2.1/32 -j REJECT --reject-with icmp-port-unreachable\n\
             -A f2b-web-app -s 2001:db8::/64 -j DROP\n-A f2b-web-app -j RETURN\n-A f2b-open -s 192.0.2.3/32 -j ACCEPT\n-A other -s 192.0.2.2/32 -j DROP\nCOMMIT\n",
            &[("web-app", "192.0.2.1/32", None), ("web-app", "2001:db8::/64", None)],
        );
    }

    #[test]
    fn sets_of_ipset_are_read() {
        check(
            ipset,
            "create f2b-sshd hash:ip family inet hashsize 1024 maxelem 65536 timeout 0\nadd f2b-sshd 192.0.2.1 timeout 512\n\
             add f2b-sshd 192.0.2.2 timeout 0\ncreate f2b-sshd6 hash:ip family inet6 hashsize 1024\n\
             add f2b-sshd6 2001:db8::1\ncreate f2b-ipv6 hash:ip family inet\nadd f2b-ipv6 192.0.2.3\n\
             create mine hash:ip family inet\nadd mine 192.0.2.9\nadd f2b-gone 192.0.2.9\n",
            &[
                ("sshd", "192.0.2.1/32", Some(512)),
                ("sshd", "192.0.2.2/32", None),
                ("sshd", "2001:db8::1/128", None),
                ("ipv6", "192.0.2.3/32", None),
            ],
        );
    }

    #[test]
    fn sets_of_nftables_are_read() {
        check(
            nftables,
            r#"{"nftables": [{"metainfo": {}}, {"table": {"name": "f2b-table"}},
                {"set": {"name": "addr-set-sshd", "table": "f2b-table", "elem": ["192.0.2.1",
                    {"elem": {"val": "192.0.2.2", "timeout": 600, "expires": 512}},
                    {"prefix": {"addr": "198.51.100.0", "len": 24}}, {"range": ["192.0.2.4", "192.0.2.5"]}]}},
                {"set": {"name": "addr6-set-sshd", "table": "f2b-table", "elem": ["2001:db8::1"]}},
                {"set": {"name": "addr-set-sshd", "table": "mine", "elem": ["192.0.2.9"]}},
                {"set": {"name": "addr-set-empty", "table": "f2b-table"}}]}"#,
            &[
                ("sshd", "192.0.2.1/32", None),
                ("sshd", "192.0.2.2/32", Some(512)),
                ("sshd", "198.51.100.0/24", None),
                ("sshd", "2001:db8::1/128", None),
            ],
        );
        check(nftables, "", &[]);
    }
}
