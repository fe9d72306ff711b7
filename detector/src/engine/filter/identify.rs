//! From the fields of a match to whom it is about.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{config::UseDns, engine::FailureId};

/// Named pieces of text that a match gave, in the order of the groups.
pub(super) type Fields = Vec<(Box<str>, Box<str>)>;

/// Networks wider than these are never believed: one line must not ban a continent.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 16;

/// What the fields say about who failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// This one.
    Known(FailureId),
    /// There is a text where an address should be, and it is none.
    NotAnAddress,
    /// Nothing: in a session, a later line may tell.
    Missing,
}

/// The text of field `name`, `None` also where it is empty.
pub(super) fn field<'f>(fields: &'f Fields, name: &str) -> Option<&'f str> {
    fields
        .iter()
        .find(|(known, text)| **known == *name && !text.is_empty())
        .map(|(_, text)| &**text)
}

/// Whom `fields` are about: `fid` before `ip4` and `ip6` before `dns`.
pub(super) fn identify(fields: &Fields, use_dns: UseDns) -> Identity {
    if let Some(text) = field(fields, "fid") {
        let id = address(text).map(FailureId::Address);
        let id = id.or_else(|| text.contains('/').then(|| network(text)).flatten());
        return Identity::Known(id.unwrap_or_else(|| FailureId::Text(text.into())));
    }
    let text = field(fields, "ip4").or_else(|| field(fields, "ip6"));
    if let Some(text) = text {
        let id = match field(fields, "cidr") {
            Some(cidr) => network(&format!("{text}/{cidr}")),
            None => address(text).map(FailureId::Address),
        };
        return id.map_or(Identity::NotAnAddress, Identity::Known);
    }
    let Some(name) = field(fields, "dns") else { return Identity::Missing };
    Identity::Known(match (address(name), use_dns) {
        (Some(address), _) => FailureId::Address(address),
        (None, UseDns::Raw) => FailureId::Text(name.into()),
        // `999.1.1.1` has the shape of a name, but a name of digits alone belongs to nobody.
        (None, _) if is_digits_and_dots(name) => return Identity::NotAnAddress,
        (None, _) => FailureId::Name(name.into()),
    })
}

fn is_digits_and_dots(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// The address that `text` is, with brackets around it or a zone behind it taken off, and IPv4 where
/// IPv6 only wraps it.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    // The zone says on which link the address is meant; bans know no links.
    let text = text.split_once('%').map_or(text, |(address, _zone)| address);
    let address: IpAddr = match text.parse::<Ipv4Addr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse::<Ipv6Addr>().ok()?.into(),
    };
    Some(address.to_canonical())
}

/// The network that `text` (`192.0.2.0/24`) is: host bits cleared, a single address as an address.
fn network(text: &str) -> Option<FailureId> {
    let (base, length) = text.split_once('/')?;
    let net = IpNet::new(address(base)?, length.parse().ok()?).ok()?.trunc();
    if net.prefix_len() == net.max_prefix_len() {
        return Some(FailureId::Address(net.addr()));
    }
    let widest = if net.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
    (net.prefix_len() >= widest).then_some(FailureId::Network(net))
}

/// Gives a field its other names' texts: the first of `alt_X`, `alt_X_1` … that is not empty where `X`
/// is, and all of `tuple_X`, `tuple_X_1` … behind it.
pub(super) fn merge_variants(fields: &mut Fields) {
    struct Variant {
        name: Box<str>,
        base: Box<str>,
        text: Box<str>,
        added: bool,
    }
    let mut variants: Vec<Variant> = Vec::new();
    for (name, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
        let (rest, added) = match (name.strip_prefix("alt_"), name.strip_prefix("tuple_")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => continue,
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let base = match rest.rsplit_once('_') {
            Some((base, number)) if !base.is_empty() && is_number(number) => base,
            _ => rest,
        };
        variants.push(Variant { name: name.clone(), base: base.into(), text: text.clone(), added });
    }
    variants.sort_by(|a, b| a.name.cmp(&b.name));
    for Variant { base, text, added, .. } in variants {
        if added {
            fields.push((base, text));
        } else if field(fields, &base).is_none() {
            fields.retain(|(name, _)| *name != base);
            fields.push((base, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|&(name, text)| (name.into(), text.into())).collect()
    }

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expect: &str) {
        let found = match identify(&fields(pairs), UseDns::Warn) {
            Identity::Known(FailureId::Address(address)) => format!("address {address}"),
            Identity::Known(FailureId::Network(net)) => format!("network {net}"),
            Identity::Known(FailureId::Name(name)) => format!("name {name}"),
            Identity::Known(FailureId::Text(text)) => format!("text {text}"),
            Identity::NotAnAddress => "not an address".to_owned(),
            Identity::Missing => "missing".to_owned(),
        };
        assert_eq!(found, expect, "{pairs:?}");
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        check(&[("ip4", "192.0.2.1")], "address 192.0.2.1");
        check(&[("ip6", "2001:DB8:0::5")], "address 2001:db8::5");
        check(&[("ip6", "::ffff:c000:201")], "address 192.0.2.1");
        check(&[("dns", "192.0.2.1")], "address 192.0.2.1");
        check(&[("fid", "192.0.2.1")], "address 192.0.2.1");
        check(&[("fid", "[2001:db8::1%eth0]")], "address 2001:db8::1");
        check(&[("ip4", "192.0.2.1"), ("cidr", "24")], "network 192.0.2.0/24");
        check(&[("ip4", "192.0.2.1"), ("cidr", "32")], "address 192.0.2.1");
        check(&[("ip6", "2001:db8::1"), ("cidr", "32")], "network 2001:db8::/32");
        check(&[("fid", "192.0.2.1/24")], "network 192.0.2.0/24");
    }

    #[test]
    fn a_text_with_an_addresss_shape_alone_is_none() {
        check(&[("ip4", "999.1.1.1")], "not an address");
        check(&[("ip4", "192.000.002.001")], "not an address");
        check(&[("ip6", "12:34:56")], "not an address");
        check(&[("ip6", "1::2::3")], "not an address");
        check(&[("dns", "999.1.1.1")], "not an address");
        check(&[("ip4", "192.0.2.1"), ("cidr", "33")], "not an address");
        check(&[("ip4", "٣.٣.٣.٣")], "not an address");
    }

    #[test]
    fn no_line_bans_a_continent() {
        check(&[("ip4", "192.0.2.1"), ("cidr", "0")], "not an address");
        check(&[("ip6", "2001:db8::1"), ("cidr", "8")], "not an address");
        check(&[("fid", "0.0.0.0/0")], "text 0.0.0.0/0");
    }

    #[test]
    fn the_failure_id_goes_before_the_address_before_the_name() {
        check(&[("dns", "a.example"), ("ip4", "192.0.2.1"), ("fid", "bob")], "text bob");
        check(&[("dns", "a.example"), ("ip4", "192.0.2.1")], "address 192.0.2.1");
        check(&[("dns", "a.example")], "name a.example");
        check(&[("dns", ""), ("user", "bob")], "missing");
    }

    #[test]
    fn other_names_of_a_field_fill_it() {
        let mut merged =
            fields(&[("user", ""), ("alt_user_1", ""), ("alt_user_2", "bob"), ("alt_user", "")]);
        merge_variants(&mut merged);
        assert_eq!(field(&merged, "user"), Some("bob"));
        let mut merged = fields(&[("user", "eve"), ("alt_user", "bob"), ("alt_user1", "x")]);
        merge_variants(&mut merged);
        assert_eq!(field(&merged, "user"), Some("eve"));
        assert_eq!(field(&merged, "user1"), Some("x"));
        let mut merged = fields(&[("mail", "a"), ("tuple_mail", "b"), ("tuple_mail_1", "c")]);
        merge_variants(&mut merged);
        let mails: Vec<_> =
            merged.iter().filter(|(name, _)| &**name == "mail").map(|(_, text)| &**text).collect();
        assert_eq!(mails, ["a", "b", "c"]);
    }
}
