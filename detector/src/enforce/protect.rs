//! The allow list: who is never dropped, whatever bans cover them.
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

use super::interfaces::Network;

/// Why an address is never dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// `allow` or `ignoreip` of the configuration.
    Configured,
    /// This machine's own address.
    Own,
    /// A gateway of a default route.
    Gateway,
    /// Loopback, link-local, unspecified or multicast.
    Special,
    /// A file that `allow` names lists it.
    Listed,
    /// A name server that this machine asks.
    Resolver,
    /// The remote end of an SSH session that was logged in when the daemon started.
    Session,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Configured => "the configuration allows it",
            Why::Own => "own address",
            Why::Gateway => "default gateway",
            Why::Special => "loopback, link-local, unspecified or multicast",
            Why::Listed => "a file of the configuration's allow list has it",
            Why::Resolver => "name server of this machine",
            Why::Session => "logged-in SSH session",
        })
    }
}

/// Sources that no ban may ever silence: neighbour discovery, DHCP (0.0.0.0) and the machine itself need them.
const SPECIAL: [&str; 8] = [
    "0.0.0.0/32",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// The entries of the allow list, each with its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllowList {
    entries: BTreeMap<IpNet, Why>,
}

impl AllowList {
    /// What has to be on it in this network.
    pub fn of(
        network: &Network,
        configured: &[IpNet],
        also: &[(IpNet, Why)],
        sessions: &[IpAddr],
    ) -> AllowList {
        let special = SPECIAL
            .iter()
            .map(|text| text.parse::<IpNet>().expect("a constant prefix, checked by a test"));
        let host = |why| move |address: &IpAddr| (IpNet::from(*address), why);
        let mut entries = BTreeMap::new();
        let all = (configured.iter().map(|prefix| (prefix.trunc(), Why::Configured)))
            .chain(also.iter().map(|(prefix, why)| (prefix.trunc(), *why)))
            .chain(network.addresses.iter().map(host(Why::Own)))
            .chain(network.gateways.iter().map(host(Why::Gateway)))
            .chain(sessions.iter().map(host(Why::Session)))
            .chain(special.map(|prefix| (prefix, Why::Special)));
        for (prefix, why) in all {
            // The first reason is the one an operator can change.
            entries.entry(prefix).or_insert(why);
        }
        AllowList { entries }
    }

    /// The entry that covers the whole prefix: the widest, with its reason.
    pub fn covering(&self, prefix: IpNet) -> Option<(IpNet, Why)> {
        // By length rather than by entry: a configured list may have thousands, and this is asked for every ban.
        (0..=prefix.prefix_len()).find_map(|length| {
            let wider = IpNet::new(prefix.addr(), length).ok()?.trunc();
            self.entries.get(&wider).map(|&why| (wider, why))
        })
    }

    /// An entry that the prefix reaches: one that covers it, else the first within.
    pub fn touching(&self, prefix: IpNet) -> Option<(IpNet, Why)> {
        let within =
            || self.entries.range(prefix..).next().filter(|(entry, _)| prefix.contains(*entry));
        self.covering(prefix).or_else(|| within().map(|(&entry, &why)| (entry, why)))
    }

    /// Whether exactly this entry is on it.
    pub fn contains(&self, entry: IpNet) -> bool {
        self.entries.contains_key(&entry)
    }

    /// All entries.
    pub fn entries(&self) -> impl Iterator<Item = (IpNet, Why)> {
        self.entries.iter().map(|(&prefix, &why)| (prefix, why))
    }

    /// What must be added to and removed from `old` to make this one.
    pub fn against<'a>(
        &'a self,
        old: &'a AllowList,
    ) -> (impl Iterator<Item = IpNet> + 'a, impl Iterator<Item = IpNet> + 'a) {
        let only = |one: &'a AllowList, other: &'a AllowList| {
            one.entries.keys().copied().filter(move |prefix| !other.entries.contains_key(prefix))
        };
        (only(self, old), only(old, self))
    }
}

/// An IPv4 address that travels in an IPv6 socket is an IPv4 address.
pub(super) fn plain(address: Ipv6Addr) -> IpAddr {
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(configured: &[&str], sessions: &[&str]) -> AllowList {
        let network = Network {
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            gateways: vec!["192.0.2.254".parse().unwrap()],
            ..Network::default()
        };
        let configured: Vec<IpNet> = configured.iter().map(|text| text.parse().unwrap()).collect();
        let sessions: Vec<IpAddr> = sessions.iter().map(|text| text.parse().unwrap()).collect();
        AllowList::of(&network, &configured, &[], &sessions)
    }

    #[track_caller]
    fn check(prefix: &str, expect: Option<(&str, Why)>) {
        let list = list(&["198.51.100.7/24", "192.0.2.1/32"], &["203.0.113.9"]);
        let expect = expect.map(|(entry, why)| (entry.parse().unwrap(), why));
        assert_eq!(list.covering(prefix.parse().unwrap()), expect, "{prefix}");
    }

    #[test]
    fn who_must_never_be_dropped_is_on_the_list() {
        check("2001:db8::1/128", Some(("2001:db8::1/128", Why::Own)));
        check("192.0.2.254/32", Some(("192.0.2.254/32", Why::Gateway)));
        check("203.0.113.9/32", Some(("203.0.113.9/32", Why::Session)));
        check("198.51.100.200/32", Some(("198.51.100.0/24", Why::Configured)));
        check("192.0.2.1/32", Some(("192.0.2.1/32", Why::Configured)));
        check("127.9.9.9/32", Some(("127.0.0.0/8", Why::Special)));
        check("0.0.0.0/32", Some(("0.0.0.0/32", Why::Special)));
        check("224.0.0.251/32", Some(("224.0.0.0/4", Why::Special)));
        check("fe80::1/128", Some(("fe80::/10", Why::Special)));
        check("::1/128", Some(("::1/128", Why::Special)));
        check("203.0.113.10/32", None);
    }

    #[test]
    fn a_network_that_merely_contains_an_allowed_address_is_not_allowed() {
        check("203.0.113.0/24", None);
        check("0.0.0.0/0", None);
        check("198.51.100.0/25", Some(("198.51.100.0/24", Why::Configured)));
    }

    #[track_caller]
    fn check_touching(prefix: &str, expect: Option<(&str, Why)>) {
        let list = list(&["198.51.100.7/24", "192.0.2.1/32"], &["203.0.113.9"]);
        let expect = expect.map(|(entry, why)| (entry.parse().unwrap(), why));
        assert_eq!(list.touching(prefix.parse().unwrap()), expect, "{prefix}");
    }

    #[test]
    fn a_network_reaches_what_is_allowed_within_it() {
        check_touching("203.0.113.0/24", Some(("203.0.113.9/32", Why::Session)));
        check_touching("192.0.2.0/24", Some(("192.0.2.1/32", Why::Configured)));
        check_touching("198.51.100.0/25", Some(("198.51.100.0/24", Why::Configured)));
        check_touching("::/0", Some(("::/128", Why::Special)));
        check_touching("2001:db8::/32", Some(("2001:db8::1/128", Why::Own)));
        check_touching("203.0.113.0/29", None);
        check_touching("203.0.113.10/32", None);
        check_touching("255.0.0.0/8", None);
    }

    #[test]
    fn a_change_names_only_what_differs() {
        let (old, new) =
            (list(&["198.51.100.0/24"], &[]), list(&["198.51.100.0/25"], &["203.0.113.9"]));
        let (added, removed) = new.against(&old);
        let text = |prefixes: &mut dyn Iterator<Item = IpNet>| {
            prefixes.map(|prefix| prefix.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(text(&mut { added }), ["198.51.100.0/25", "203.0.113.9/32"]);
        assert_eq!(text(&mut { removed }), ["198.51.100.0/24"]);
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert_eq!(
            plain("::ffff:192.0.2.7".parse().unwrap()),
            "192.0.2.7".parse::<IpAddr>().unwrap()
        );
        assert_eq!(plain("2001:db8::7".parse().unwrap()), "2001:db8::7".parse::<IpAddr>().unwrap());
    }
}
