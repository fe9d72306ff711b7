//! `ignoreip` and `allow`: addresses, networks and host names.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Ignore, Located, Place, Severity,
    filter::FilterFiles,
    jail::{Jail, Refused},
    ports,
};

/// Bound of a file named by `ignoreip = file:PATH`, in words.
const MOST_IGNORED: usize = 100_000;

/// A word that is neither an address, a network nor a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Looks like an address and is none.
    #[error("`{0}` is no address")]
    NoAddress(String),
    /// The part after `/` fits no network of that family.
    #[error("`{0}` is no network")]
    NoNetwork(String),
    /// Holds characters that no host name has.
    #[error("`{0}` is neither an address nor a host name")]
    NoName(String),
}

/// Reads one word of `ignoreip`: `192.0.2.1`, `192.0.2.0/24`, `192.0.2.0/255.255.255.0`, `2001:db8::/32`,
/// `host.example`. Host bits of a network are cleared, IPv4 in IPv6 clothes becomes IPv4.
pub(super) fn entry(word: &str) -> Result<Ignore, AddressError> {
    let looks_like_address =
        word.contains([':', '/']) || word.chars().all(|c| c.is_ascii_digit() || c == '.');
    if looks_like_address {
        return network(word).map(Ignore::Net);
    }
    if is_host_name(word) {
        Ok(Ignore::Name(word.to_owned()))
    } else {
        Err(AddressError::NoName(word.to_owned()))
    }
}

/// Reads an address or network: `192.0.2.1`, `192.0.2.0/24`, `192.0.2.0/255.255.255.0`, `2001:db8::/32`. Host bits
/// are cleared, IPv4 in IPv6 clothes becomes IPv4.
pub fn network(word: &str) -> Result<IpNet, AddressError> {
    let (address, mask) = match word.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (word, None),
    };
    let no_address = || AddressError::NoAddress(word.to_owned());
    let no_network = || AddressError::NoNetwork(word.to_owned());
    let address: IpAddr =
        address.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| no_address())?;
    let Some(mask) = mask else { return Ok(IpNet::from(address.to_canonical())) };
    let net = match (address, mask.parse::<u8>()) {
        (_, Ok(length)) => IpNet::new(address, length).map_err(|_| no_network())?,
        (IpAddr::V4(address), Err(_)) => {
            let mask: Ipv4Addr = mask.parse().map_err(|_| no_network())?;
            Ipv4Net::with_netmask(address, mask).map_err(|_| no_network())?.into()
        }
        (IpAddr::V6(address), Err(_)) => {
            let mask: Ipv6Addr = mask.parse().map_err(|_| no_network())?;
            Ipv6Net::with_netmask(address, mask).map_err(|_| no_network())?.into()
        }
    };
    Ok(mapped(net).trunc())
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
fn mapped(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let (Some(v4), Some(length)) =
            (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        return Ipv4Net::new(v4, length).map_or(net, IpNet::from);
    }
    net
}

fn is_host_name(word: &str) -> bool {
    let name = word.strip_suffix('.').unwrap_or(word);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
    };
    name.len() <= 253
        && name.split('.').all(label)
        && name.rsplit('.').next().is_none_or(|top| top.parse::<u64>().is_err())
}

impl Jail<'_, '_> {
    /// Reads `ignoreip`. What is no address is told and spares nobody.
    pub(super) fn ignored(
        &mut self,
        filter: Option<&FilterFiles>,
    ) -> Result<Vec<Located<Ignore>>, Refused> {
        let Some(text) = self.text("ignoreip", filter)? else { return Ok(Vec::new()) };
        let mut ignored = Vec::new();
        for line in text.lines() {
            for word in ports::words(&line.value) {
                match word.strip_prefix("file:") {
                    Some(file) => self.ignored_in(file, &line.place, &mut ignored),
                    None => self.ignored_word(word, &line.place, &mut ignored),
                }
            }
        }
        Ok(ignored)
    }

    fn ignored_word(
        &mut self,
        word: &str,
        place: &Option<Place>,
        ignored: &mut Vec<Located<Ignore>>,
    ) {
        match entry(word) {
            Ok(value) => ignored.push(Located { value, place: place.clone() }),
            Err(error) => {
                let what = format!("`ignoreip`: {error}; it spares nobody");
                let remedy = "write an address, a network such as `192.0.2.0/24`, or a host name";
                self.tell(Severity::Error, place.clone(), what, remedy);
            }
        }
    }

    /// A file of addresses, one or more a line, with `#` comments.
    fn ignored_in(
        &mut self,
        file: &str,
        place: &Option<Place>,
        ignored: &mut Vec<Located<Ignore>>,
    ) {
        let path = Path::new(file);
        let content = match self.tree().read(path) {
            Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            missing => {
                let reason =
                    missing.err().map_or("it does not exist".to_owned(), |fault| fault.to_string());
                let what = format!(
                    "`ignoreip`: `{file}` cannot be read ({reason}); its addresses are not spared"
                );
                self.tell(
                    Severity::Error,
                    place.clone(),
                    what,
                    "write the file, or correct its name",
                );
                return;
            }
        };
        let file = Arc::new(path.to_path_buf());
        for (nth, line) in content.lines().enumerate() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let number = u32::try_from(nth + 1).unwrap_or(u32::MAX);
            let place = Some(Place { file: Arc::clone(&file), line: number });
            for word in ports::words(line) {
                if ignored.len() >= MOST_IGNORED {
                    let what = format!(
                        "`ignoreip` holds more than {MOST_IGNORED} entries; the rest is not spared"
                    );
                    self.tell(Severity::Error, place, what, "name networks instead of addresses");
                    return;
                }
                self.ignored_word(word, &place, ignored);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expect: &str) {
        let shown = match entry(word) {
            Ok(Ignore::Net(net)) => net.to_string(),
            Ok(Ignore::Name(name)) => format!("name {name}"),
            Err(error) => format!("! {error}"),
        };
        assert_eq!(shown, expect, "{word}");
    }

    #[test]
    fn addresses_networks_and_names() {
        check("192.0.2.1", "192.0.2.1/32");
        check("192.0.2.77/24", "192.0.2.0/24");
        check("192.0.2.77/255.255.255.0", "192.0.2.0/24");
        check("2001:DB8::5", "2001:db8::5/128");
        check("[2001:db8::5]", "2001:db8::5/128");
        check("2001:db8::5/32", "2001:db8::/32");
        check("2001:db8::5/ffff:ffff::", "2001:db8::/32");
        check("::ffff:192.0.2.1", "192.0.2.1/32");
        check("::ffff:192.0.2.77/120", "192.0.2.0/24");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("::1", "::1/128");
        check("localhost", "name localhost");
        check("my-host.example.org", "name my-host.example.org");
    }

    #[test]
    fn what_is_none_is_never_taken_for_a_name() {
        check("999.1.1.1", "! `999.1.1.1` is no address");
        check("1.2.3", "! `1.2.3` is no address");
        check("12:34:56", "! `12:34:56` is no address");
        check("192.0.2.1/33", "! `192.0.2.1/33` is no network");
        check("192.0.2.1/255.0.255.0", "! `192.0.2.1/255.0.255.0` is no network");
        check("192.0.2.1/", "! `192.0.2.1/` is no network");
        check("host/24", "! `host/24` is no address");
        check("a$b", "! `a$b` is neither an address nor a host name");
        check("host.1", "! `host.1` is neither an address nor a host name");
        check(
            &"a".repeat(64),
            &format!("! `{}` is neither an address nor a host name", "a".repeat(64)),
        );
    }
}
