//! Which packets of a banned source a ban drops.
use std::{fmt, ops::RangeInclusive, str::FromStr};

/// Destination ports, both ends included.
pub type PortRange = RangeInclusive<u16>;

/// One protocol's share of a [`Scope`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Traffic {
    /// IP protocol number, as in the IANA registry (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6).
    pub protocol: u8,
    /// Destination ports, sorted and without overlap; empty means every packet of the protocol.
    /// Only TCP and UDP have ports.
    pub ports: Vec<(u16, u16)>,
}

/// Which packets of a banned source are dropped: all of them, or those of named protocols and ports.
///
/// Its text form names a scope across restarts (in the `NAMES` map): `all`, `tcp`, `tcp:22,80-90`,
/// `tcp:22+udp:53`, `proto-47`; `none` drops nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every packet, whatever its protocol.
    EveryPacket,
    /// The packets of these protocols and ports, sorted by protocol, one entry each; none of them: no packet.
    Only(Vec<Traffic>),
}

/// A text that names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no scope: write `all`, or protocols with ports such as `tcp:22,80-90+udp:53`")]
pub struct ScopeError(pub String);

impl Scope {
    /// No packet at all: for a jail whose bans are only reported.
    pub const NOTHING: Scope = Scope::Only(Vec::new());

    /// Whether no packet is dropped.
    pub fn is_nothing(&self) -> bool {
        *self == Scope::NOTHING
    }

    /// The packets of either scope.
    pub fn union(self, other: Scope) -> Scope {
        match (self, other) {
            (Scope::Only(one), Scope::Only(other)) => Scope::only(one.into_iter().chain(other)),
            _ => Scope::EveryPacket,
        }
    }

    /// A scope of these protocols: sorted, merged where they overlap or touch.
    pub fn only(traffic: impl IntoIterator<Item = Traffic>) -> Scope {
        let mut merged: Vec<Traffic> = Vec::new();
        for share in traffic {
            match merged.iter_mut().find(|known| known.protocol == share.protocol) {
                None => merged.push(share),
                Some(known) if known.ports.is_empty() || share.ports.is_empty() => {
                    known.ports.clear()
                }
                Some(known) => known.ports.extend(share.ports),
            }
        }
        for share in &mut merged {
            share.ports.sort_unstable();
            share.ports =
                share.ports.iter().fold(Vec::new(), |mut ports: Vec<(u16, u16)>, &(from, to)| {
                    match ports.last_mut() {
                        Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                        _ => ports.push((from, to)),
                    }
                    ports
                });
            if share.ports == [(0, u16::MAX)] {
                share.ports.clear();
            }
        }
        merged.sort_unstable();
        Scope::Only(merged)
    }
}

const NAMED: [(u8, &str); 4] = [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmpv6")];

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scope::Only(traffic) = self else { return f.write_str("all") };
        if traffic.is_empty() {
            return f.write_str("none");
        }
        for (nth, share) in traffic.iter().enumerate() {
            if nth > 0 {
                f.write_str("+")?;
            }
            match NAMED.iter().find(|(number, _)| *number == share.protocol) {
                Some((_, name)) => f.write_str(name)?,
                None => write!(f, "proto-{}", share.protocol)?,
            }
            for (nth, (from, to)) in share.ports.iter().enumerate() {
                f.write_str(if nth == 0 { ":" } else { "," })?;
                if from == to { write!(f, "{from}")? } else { write!(f, "{from}-{to}")? }
            }
        }
        Ok(())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Scope, ScopeError> {
        let fault = || ScopeError(text.to_owned());
        if text == "all" {
            return Ok(Scope::EveryPacket);
        }
        if text == "none" {
            return Ok(Scope::NOTHING);
        }
        let mut traffic = Vec::new();
        for part in text.split('+') {
            let (name, ports) = part.split_once(':').unwrap_or((part, ""));
            let protocol = match NAMED.iter().find(|(_, known)| *known == name) {
                Some((number, _)) => *number,
                None => {
                    name.strip_prefix("proto-").and_then(|n| n.parse().ok()).ok_or_else(fault)?
                }
            };
            let mut ranges = Vec::new();
            for range in ports.split(',').filter(|range| !range.is_empty()) {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                let (from, to) =
                    (from.parse().map_err(|_| fault())?, to.parse().map_err(|_| fault())?);
                if from > to {
                    return Err(fault());
                }
                ranges.push((from, to));
            }
            traffic.push(Traffic { protocol, ports: ranges });
        }
        Ok(Scope::only(traffic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str) {
        let scope: Scope = text.parse().expect(text);
        assert_eq!(scope.to_string(), canonical);
        assert_eq!(canonical.parse::<Scope>(), Ok(scope));
    }

    #[test]
    fn a_scope_has_one_text_form() {
        check("all", "all");
        check("none", "none");
        check("tcp", "tcp");
        check("tcp:80,22", "tcp:22,80");
        check("tcp:80-90,85-100,101", "tcp:80-101");
        check("udp:53+tcp:53", "tcp:53+udp:53");
        check("tcp:0-65535", "tcp");
        check("proto-47", "proto-47");
        assert!("tcp:99999".parse::<Scope>().is_err());
        assert!("tcp:9-1".parse::<Scope>().is_err());
        assert!("".parse::<Scope>().is_err());
    }

    #[test]
    fn the_union_holds_the_packets_of_both() {
        let union = |one: &str, other: &str| {
            let scopes = one.parse::<Scope>().ok().zip(other.parse::<Scope>().ok());
            scopes.map(|(one, other)| one.union(other).to_string())
        };
        assert_eq!(union("tcp:22", "tcp:80+udp").as_deref(), Some("tcp:22,80+udp"));
        assert_eq!(union("none", "tcp:80").as_deref(), Some("tcp:80"));
        assert_eq!(union("tcp:22", "all").as_deref(), Some("all"));
    }
}
