//! Prefixes as the maps know them.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

/// A banned or allowed prefix; in order each comes right before those within it. 18 bytes, where `IpNet` with its padding would double the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    family: Family,
    /// An IPv4 address in the first four, the rest 0; host bits 0.
    bytes: [u8; 16],
    length: u8,
}

/// The key of an IPv4 trie: length in this machine's order, then the address.
pub type KeyV4 = [u8; 8];
/// The key of an IPv6 trie.
pub type KeyV6 = [u8; 20];

impl Prefix {
    /// A prefix from its address, whose host bits do not matter.
    pub fn new(address: IpAddr, length: u8) -> Prefix {
        let (family, bits) = match address {
            IpAddr::V4(address) => (Family::V4, u128::from(address.to_bits()) << 96),
            IpAddr::V6(address) => (Family::V6, address.to_bits()),
        };
        Prefix { family, bytes: bits.to_be_bytes(), length }.cut(length)
    }

    /// The prefix of length 0, which covers its family.
    pub fn everything(family: Family) -> Prefix {
        Prefix { family, bytes: [0; 16], length: 0 }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its length in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The address, left-aligned in 128 bits.
    pub fn bits(&self) -> u128 {
        u128::from_be_bytes(self.bytes)
    }

    /// The first four bytes as the program reads them from a packet.
    pub fn raw_v4(&self) -> u32 {
        u32::from_ne_bytes([self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]])
    }

    /// The halves of an IPv6 address as the program reads them from a packet.
    pub fn raw_v6(&self) -> [u64; 2] {
        let half = |at: usize| {
            let mut half = [0; 8];
            half.copy_from_slice(&self.bytes[at..at + 8]);
            u64::from_ne_bytes(half)
        };
        [half(0), half(8)]
    }

    /// The address, or IPv6 /64, that these raw bytes are.
    pub fn from_raw_v6(raw: [u64; 2], length: u8) -> Prefix {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&raw[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&raw[1].to_ne_bytes());
        Prefix::new(IpAddr::V6(Ipv6Addr::from(bytes)), length)
    }

    /// The address that these raw bytes are.
    pub fn from_raw_v4(raw: u32) -> Prefix {
        Prefix::new(IpAddr::V4(Ipv4Addr::from(raw.to_ne_bytes())), 32)
    }

    /// Whether a line can hold it: an address, or an IPv6 /64.
    pub fn fits_a_line(&self) -> bool {
        match self.family {
            Family::V4 => self.length == 32,
            Family::V6 => self.length == 128 || self.length == 64,
        }
    }

    /// Whether it is one address.
    pub fn is_address(&self) -> bool {
        self.length == if self.family == Family::V4 { 32 } else { 128 }
    }

    /// The prefix of this length that covers it; `length` is at most its own.
    pub fn cut(&self, length: u8) -> Prefix {
        let kept = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Prefix { bytes: (self.bits() & kept).to_be_bytes(), length, ..*self }
    }

    /// Whether every address of `other` is one of this prefix.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.family == other.family
            && self.length <= other.length
            && (self.bits() ^ other.bits()).checked_shr(128 - u32::from(self.length)).unwrap_or(0)
                == 0
    }

    /// Its key in an IPv4 trie.
    pub fn key_v4(&self) -> KeyV4 {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&u32::from(self.length).to_ne_bytes());
        key[4..].copy_from_slice(&self.bytes[..4]);
        key
    }

    /// Its key in an IPv6 trie.
    pub fn key_v6(&self) -> KeyV6 {
        let mut key = [0; 20];
        key[..4].copy_from_slice(&u32::from(self.length).to_ne_bytes());
        key[4..].copy_from_slice(&self.bytes);
        key
    }

    /// What a key of an IPv4 trie stands for.
    pub fn of_key_v4(key: &KeyV4) -> Prefix {
        Prefix::new(IpAddr::V4(Ipv4Addr::new(key[4], key[5], key[6], key[7])), length_of(key))
    }

    /// What a key of an IPv6 trie stands for.
    pub fn of_key_v6(key: &KeyV6) -> Prefix {
        let mut address = [0; 16];
        address.copy_from_slice(&key[4..]);
        Prefix::new(IpAddr::V6(Ipv6Addr::from(address)), length_of(key))
    }
}

/// The kernel keeps lengths within the family's.
fn length_of(key: &[u8]) -> u8 {
    u32::from_ne_bytes([key[0], key[1], key[2], key[3]]).min(128) as u8
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Prefix {
        Prefix::new(net.addr(), net.prefix_len())
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> IpNet {
        let address = match prefix.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(
                prefix.bytes[0],
                prefix.bytes[1],
                prefix.bytes[2],
                prefix.bytes[3],
            )),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(prefix.bytes)),
        };
        let width = if prefix.family == Family::V4 { 32 } else { 128 };
        IpNet::new_assert(address, prefix.length.min(width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str) {
        let net: IpNet = text.parse().expect(text);
        let prefix = Prefix::from(net);
        assert_eq!(IpNet::from(prefix).to_string(), canonical);
        let back = match prefix.family() {
            Family::V4 => Prefix::of_key_v4(&prefix.key_v4()),
            Family::V6 => Prefix::of_key_v6(&prefix.key_v6()),
        };
        assert_eq!(back, prefix, "through its key");
    }

    #[test]
    fn a_prefix_survives_the_way_through_its_key() {
        check("192.0.2.7/32", "192.0.2.7/32");
        check("192.0.2.7/24", "192.0.2.0/24");
        check("192.0.2.7/0", "0.0.0.0/0");
        check("2001:db8::1/128", "2001:db8::1/128");
        check("2001:db8:1:2:3::/65", "2001:db8:1:2::/65");
        check("2001:db8::1/0", "::/0");
    }

    #[test]
    fn covering_is_by_family_and_leading_bits() {
        let prefix = |text: &str| Prefix::from(text.parse::<IpNet>().expect(text));
        assert!(prefix("0.0.0.0/0").covers(&prefix("192.0.2.1/32")));
        assert!(prefix("192.0.2.1/32").covers(&prefix("192.0.2.1/32")));
        assert!(!prefix("192.0.2.1/32").covers(&prefix("192.0.2.0/24")));
        assert!(!prefix("192.0.2.0/24").covers(&prefix("192.0.3.1/32")));
        assert!(!prefix("::/0").covers(&prefix("192.0.2.1/32")));
        assert!(prefix("::/0").covers(&prefix("2001:db8::/32")));
    }
}
