//! What is allowed and probably not meant: jails that nobody can be caught by, and evidence that anybody can forge.
use ipnet::IpNet;

use super::{Ignore, JailSettings, Located, Problem, Scope, Severity, UseDns};

const UDP: u8 = 17;
/// What stands for an address in a pattern.
const WHO: [&str; 5] = ["<HOST>", "<ADDR>", "<IP4>", "<IP6>", "<SUBNET>"];

/// Doubts about a jail that holds together.
pub fn doubts(jail: &JailSettings) -> Vec<Problem> {
    let mut doubts = Vec::new();
    let mut doubt = |severity, what: &str, remedy: &str| {
        doubts.push(Problem {
            severity,
            jail: Some(jail.name.clone()),
            place: jail.place.clone(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        });
    };

    let remedy = "name only the networks that you trust in `ignoreip`";
    match (spares_all(&jail.ignore, false), spares_all(&jail.ignore, true)) {
        (true, true) => {
            doubt(
                Severity::Error,
                "`ignoreip` covers every address: nobody is ever banned",
                remedy,
            );
        }
        (true, false) => doubt(
            Severity::Warning,
            "`ignoreip` covers every IPv4 address: only IPv6 is ever banned",
            remedy,
        ),
        (false, true) => doubt(
            Severity::Warning,
            "`ignoreip` covers every IPv6 address: only IPv4 is ever banned",
            remedy,
        ),
        (false, false) => {}
    }

    let regexes = || jail.filter.failregex.iter().chain(&jail.filter.prefregex);
    let takes_names = regexes().any(|regex| {
        ["<HOST>", "<DNS>", "<F-DNS/>", "(?P<dns>"].iter().any(|tag| regex.value.contains(tag))
    });
    if takes_names && matches!(jail.filter.use_dns, UseDns::Yes | UseDns::Warn) {
        doubt(
            Severity::Warning,
            "`usedns` takes host names for evidence: whoever owns a name's zone decides which address is banned",
            "set `usedns = no`, and have the service log addresses",
        );
    }
    // A packet filter logs what arrives: nobody need have answered it.
    let from_packets = |regex: &Located<String>| {
        let after = regex.value.split("SRC=").skip(1);
        after.into_iter().any(|rest| WHO.iter().any(|who| rest.starts_with(who)))
    };
    if regexes().any(from_packets) {
        doubt(
            Severity::Warning,
            "the log is one of packets: a forged packet can have any address banned",
            "keep `bantime` short, and name addresses that must never be banned in `ignoreip`",
        );
    } else if names_udp(&jail.scope) {
        doubt(
            Severity::Warning,
            "the service answers on UDP: a forged packet can have any address banned",
            "name addresses that must never be banned in `ignoreip`, raise `maxretry`, or ban for TCP alone",
        );
    }
    doubts
}

/// Whether the networks of one family add up to all of it.
fn spares_all(ignored: &[Located<Ignore>], ipv6: bool) -> bool {
    let nets = ignored.iter().filter_map(|ignore| match &ignore.value {
        Ignore::Net(net) => Some(*net),
        Ignore::Name(_) => None,
    });
    let family: Vec<IpNet> = nets.filter(|net| net.addr().is_ipv6() == ipv6).collect();
    IpNet::aggregate(&family).iter().any(|net| net.prefix_len() == 0)
}

/// Whether the scope names ports of UDP, or UDP and nothing else.
fn names_udp(scope: &Scope) -> bool {
    match scope {
        Scope::EveryPacket => false,
        Scope::Only(shares) => {
            let alone = shares.iter().all(|share| share.protocol == UDP);
            shares.iter().any(|share| share.protocol == UDP && (alone || !share.ports.is_empty()))
        }
    }
}
