//! Ports and protocols by name, without `/etc/services`: a small container has none, and the meaning of a jail
//! must not change with the machine.
use super::scope::Traffic;

/// A port or protocol that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortError {
    #[error("port `{0}` is not known by name")]
    UnknownPort(String),
    #[error("`{0}` is no range of ports")]
    NoRange(String),
    #[error("protocol `{0}` is not known")]
    UnknownProtocol(String),
}

impl PortError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            PortError::UnknownPort(_) => "write its number, 0 to 65535",
            PortError::NoRange(_) => "write the lower port first, as in `8000:8080`",
            PortError::UnknownProtocol(_) => {
                "write `tcp`, `udp`, `icmp`, `icmpv6`, `all` or a protocol number"
            }
        }
    }
}

/// IANA's protocol numbers.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("sctp", 132),
    ("udplite", 136),
];

/// Registered (IANA) or customary names of services that face networks, sorted.
const SERVICES: &[(&str, u16)] = &[
    ("afpovertcp", 548),
    ("amqp", 5672),
    ("amqps", 5671),
    ("asterisk", 5038),
    ("bacula-dir", 9101),
    ("bacula-fd", 9102),
    ("bacula-sd", 9103),
    ("bgp", 179),
    ("cvspserver", 2401),
    ("dict", 2628),
    ("distcc", 3632),
    ("dns", 53),
    ("domain", 53),
    ("domain-s", 853),
    ("epmd", 4369),
    ("ftp", 21),
    ("ftp-data", 20),
    ("ftps", 990),
    ("ftps-data", 989),
    ("git", 9418),
    ("gopher", 70),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("iax", 4569),
    ("imap", 143),
    ("imap2", 143),
    ("imap3", 220),
    ("imaps", 993),
    ("ipp", 631),
    ("ircd", 6667),
    ("ircs-u", 6697),
    ("isakmp", 500),
    ("kerberos", 88),
    ("kpasswd", 464),
    ("l2tp", 1701),
    ("ldap", 389),
    ("ldaps", 636),
    ("managesieve", 4190),
    ("memcached", 11211),
    ("microsoft-ds", 445),
    ("mongodb", 27017),
    ("mqtt", 1883),
    ("ms-sql-m", 1434),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("netbios-dgm", 138),
    ("netbios-ns", 137),
    ("netbios-ssn", 139),
    ("nfs", 2049),
    ("nntp", 119),
    ("nntps", 563),
    ("nrpe", 5666),
    ("ntp", 123),
    ("nut", 3493),
    ("openvpn", 1194),
    ("pop3", 110),
    ("pop3s", 995),
    ("pop-3", 110),
    ("postgresql", 5432),
    ("pptp", 1723),
    ("proxmox", 8006),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("rdp", 3389),
    ("redis", 6379),
    ("rfb", 5900),
    ("rsync", 873),
    ("rtmp", 1935),
    ("rtsp", 554),
    ("sane-port", 6566),
    ("sftp", 115),
    ("sieve", 4190),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("sips", 5061),
    ("smtp", 25),
    ("smtps", 465),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("snmptrap", 162),
    ("socks", 1080),
    ("squid", 3128),
    ("ssh", 22),
    ("ssmtp", 465),
    ("submission", 587),
    ("submissions", 465),
    ("sunrpc", 111),
    ("svn", 3690),
    ("syslog", 514),
    ("syslog-tls", 6514),
    ("teamspeak", 9987),
    ("telnet", 23),
    ("telnets", 992),
    ("tftp", 69),
    ("urd", 465),
    ("vnc", 5900),
    ("webmin", 10000),
    ("whois", 43),
    ("ws-man", 5985),
    ("x11", 6000),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
    ("zabbix-agent", 10050),
    ("zabbix-trapper", 10051),
];

/// A port, a range `a:b` or `a-b`, or a service's name.
pub(super) fn port(word: &str) -> Result<(u16, u16), PortError> {
    let lower = word.to_ascii_lowercase();
    if matches!(lower.as_str(), "all" | "any") {
        return Ok((0, u16::MAX));
    }
    if let Some(port) = single(&lower) {
        return Ok((port, port));
    }
    let ends = lower.split_once(':').or_else(|| lower.split_once('-'));
    let Some((from, to)) = ends else { return Err(PortError::UnknownPort(word.to_owned())) };
    // An open end reaches as far as ports go, as for iptables.
    let from = if from.is_empty() { Some(0) } else { single(from) };
    let to = if to.is_empty() { Some(u16::MAX) } else { single(to) };
    match (from, to) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        (Some(_), Some(_)) => Err(PortError::NoRange(word.to_owned())),
        _ => Err(PortError::UnknownPort(word.to_owned())),
    }
}

fn single(word: &str) -> Option<u16> {
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        return word.parse().ok();
    }
    SERVICES.iter().find(|(name, _)| *name == word).map(|(_, port)| *port)
}

/// A protocol's number; `None` for `all`.
pub(super) fn protocol(word: &str) -> Result<Option<u8>, PortError> {
    let lower = word.to_ascii_lowercase();
    if matches!(lower.as_str(), "all" | "any") {
        return Ok(None);
    }
    let known = PROTOCOLS.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number);
    known
        .or_else(|| lower.parse().ok())
        .map(Some)
        .ok_or_else(|| PortError::UnknownProtocol(word.to_owned()))
}

/// Whether packets of the protocol have the ports that the kernel side looks at.
pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17)
}

/// The words of a list separated by commas and blanks.
pub(super) fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

/// Every packet of a protocol.
pub(super) fn whole(protocol: u8) -> Traffic {
    Traffic { protocol, ports: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, from: u16, to: u16) {
        assert_eq!(port(word), Ok((from, to)), "{word}");
    }

    #[test]
    fn ports_are_numbers_names_and_ranges() {
        check("22", 22, 22);
        check("ssh", 22, 22);
        check("SSH", 22, 22);
        check("ftp-data", 20, 20);
        check("0:65535", 0, 65_535);
        check("8000-8080", 8_000, 8_080);
        check("ssh:smtp", 22, 25);
        check("1024:", 1_024, 65_535);
        check("all", 0, 65_535);
    }

    #[test]
    fn what_is_no_port_is_said() {
        for unknown in ["70000", "-1-2-", "nosuchport", "22ssh", "1:nosuch", "22,", "²"] {
            assert_eq!(port(unknown), Err(PortError::UnknownPort(unknown.to_owned())), "{unknown}");
        }
        assert_eq!(port("90:80"), Err(PortError::NoRange("90:80".to_owned())));
    }

    #[test]
    fn protocols_are_names_and_numbers() {
        assert_eq!(protocol("TCP"), Ok(Some(6)));
        assert_eq!(protocol("ipv6-icmp"), Ok(Some(58)));
        assert_eq!(protocol("47"), Ok(Some(47)));
        assert_eq!(protocol("all"), Ok(None));
        assert!(protocol("tpc").is_err());
    }

    #[test]
    fn no_service_has_two_ports() {
        for (nth, (name, _)) in SERVICES.iter().enumerate() {
            assert!(SERVICES[nth + 1..].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
