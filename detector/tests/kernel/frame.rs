//! Packets by description, and what is true of them.
//!
//! The words of a description, in the order of the headers:
//!
//! - `vlan`, `qinq`: a tag (0x8100, 0x88a8); `type=HEX`: another EtherType than the address's;
//! - `v4`, `v4=ADDRESS`, `v6`, `v6=ADDRESS`: the header, from the banned address if none is named;
//! - IPv4: `options=N` words of options, `ihl=N` a false header length, `more` a first fragment,
//!   `offset=N` a later one;
//! - IPv6: `hop`, `routing`, `destination`, `mobility`, `hip`, `shim6`, `auth`, each with `+N` units of
//!   length; `fragment`, with `+N` a later one;
//! - `tcp=PORT`, `udp=PORT`, `icmp`, `icmpv6`, `proto=N`: what is carried;
//! - `cut=N`: the packet ends after N bytes; `cut=ip+N` counts from the IP header, `cut=l4+N` from
//!   what is carried.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Extension headers that are followed.
const MAX_EXTENSIONS: usize = 6;

pub const BANNED_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub const BANNED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 7);

/// Where a packet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Nowhere,
    At(usize),
    AfterIp(usize),
    AfterL4(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    pub kind: u8,
    /// Units of length beyond the least; of a fragment header, the offset.
    pub more: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub tags: Vec<u16>,
    pub ether_type: Option<u16>,
    pub source: IpAddr,
    pub option_words: u8,
    pub header_words: Option<u8>,
    pub more_fragments: bool,
    pub fragment_offset: u16,
    pub extensions: Vec<Extension>,
    pub protocol: u8,
    pub port: u16,
    pub cut: Cut,
}

/// What a reader who follows the rules knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    NotIp,
    Unreadable,
    Ip { source: IpAddr, protocol: Option<u8>, port: Option<u16> },
}

impl Frame {
    /// TCP to port 22.
    pub fn from(source: IpAddr) -> Frame {
        Frame {
            tags: Vec::new(),
            ether_type: None,
            source,
            option_words: 0,
            header_words: None,
            more_fragments: false,
            fragment_offset: 0,
            extensions: Vec::new(),
            protocol: 6,
            port: 22,
            cut: Cut::Nowhere,
        }
    }

    #[track_caller]
    pub fn parse(text: &str) -> Frame {
        let mut frame = Frame::from(BANNED_V4.into());
        for word in text.split_whitespace() {
            let (name, value) = word.split_once(['=', '+']).unwrap_or((word, ""));
            let number = || {
                value
                    .parse::<u16>()
                    .unwrap_or_else(|_| panic!("`{word}` wants a number, in `{text}`"))
            };
            let mut extension = |kind| {
                let more = if value.is_empty() { 0 } else { number() };
                frame.extensions.push(Extension { kind, more });
            };
            match name {
                "vlan" => frame.tags.push(0x8100),
                "qinq" => frame.tags.push(0x88a8),
                "type" => {
                    frame.ether_type =
                        Some(u16::from_str_radix(value, 16).expect("a hexadecimal EtherType"))
                }
                "v4" if value.is_empty() => frame.source = BANNED_V4.into(),
                "v6" if value.is_empty() => frame.source = BANNED_V6.into(),
                "v4" | "v6" => frame.source = value.parse().expect("an address"),
                "options" => frame.option_words = number() as u8,
                "ihl" => frame.header_words = Some(number() as u8),
                "more" => frame.more_fragments = true,
                "offset" => frame.fragment_offset = number(),
                "hop" => extension(0),
                "routing" => extension(43),
                "fragment" => extension(44),
                "auth" => extension(51),
                "destination" => extension(60),
                "mobility" => extension(135),
                "hip" => extension(139),
                "shim6" => extension(140),
                "tcp" => (frame.protocol, frame.port) = (6, number()),
                "udp" => (frame.protocol, frame.port) = (17, number()),
                "icmp" => frame.protocol = 1,
                "icmpv6" => frame.protocol = 58,
                "proto" => frame.protocol = number() as u8,
                "cut" => {
                    let bytes = |value: &str| value.parse().expect("a number of bytes");
                    frame.cut = match value.split_once('+') {
                        Some(("ip", value)) => Cut::AfterIp(bytes(value)),
                        Some(("l4", value)) => Cut::AfterL4(bytes(value)),
                        _ => Cut::At(bytes(value)),
                    }
                }
                _ => panic!("no word of a packet: `{word}`, in `{text}`"),
            }
        }
        frame
    }

    /// The bytes, and what is true of them.
    pub fn build(&self) -> (Vec<u8>, Truth) {
        let mut bytes = vec![2; 12];
        for tag in &self.tags {
            bytes.extend(tag.to_be_bytes());
            bytes.extend(100u16.to_be_bytes());
        }
        let own_type = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        let ether_type = self.ether_type.unwrap_or(own_type);
        bytes.extend(ether_type.to_be_bytes());
        let ip = bytes.len();
        // Where what must be there to know the next header ends, header by header.
        let mut needed = Vec::new();
        let mut later_fragment = false;
        match self.source {
            IpAddr::V4(source) => {
                let words = self.header_words.unwrap_or(5 + self.option_words);
                let fragment = u16::from(self.more_fragments) << 13 | self.fragment_offset & 0x1fff;
                bytes.extend([0x40 | words, 0, 0, 40, 0, 1]);
                bytes.extend(fragment.to_be_bytes());
                bytes.extend([64, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend([10, 0, 0, 1]);
                bytes.extend(vec![1; usize::from(self.option_words) * 4]);
                later_fragment = self.fragment_offset & 0x1fff != 0;
            }
            IpAddr::V6(source) => {
                let kinds: Vec<u8> =
                    self.extensions.iter().map(|extension| extension.kind).collect();
                let next = |nth: usize| kinds.get(nth).copied().unwrap_or(self.protocol);
                bytes.extend([0x60, 0, 0, 0, 0, 40, next(0), 64]);
                bytes.extend(source.octets());
                bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
                for (nth, extension) in self.extensions.iter().enumerate() {
                    let start = bytes.len();
                    if extension.kind == 44 {
                        bytes.extend([next(nth + 1), 0]);
                        bytes.extend((extension.more << 3).to_be_bytes());
                        bytes.extend([0; 4]);
                        needed.push((start + 4, extension.more != 0));
                    } else {
                        bytes.extend([next(nth + 1), extension.more as u8]);
                        let unit = if extension.kind == 51 { 4 } else { 8 };
                        bytes.extend(vec![0; 6 + usize::from(extension.more) * unit]);
                        needed.push((start + 2, false));
                    }
                }
            }
        }
        let l4 = bytes.len();
        bytes.extend(40_000u16.to_be_bytes());
        bytes.extend(self.port.to_be_bytes());
        bytes.extend([0; 26]);
        let end = match self.cut {
            Cut::Nowhere => bytes.len(),
            Cut::At(at) => at,
            Cut::AfterIp(more) => ip + more,
            Cut::AfterL4(more) => l4 + more,
        };
        // The kernel runs no packet shorter than an Ethernet header.
        bytes.truncate(end.max(14));
        let length = bytes.len();
        let truth = if length < 14 + 4 * self.tags.len().min(2) {
            Truth::Unreadable
        } else if self.tags.len() > 2 || ether_type != own_type {
            Truth::NotIp
        } else if length < ip + if self.source.is_ipv4() { 16 } else { 24 } {
            Truth::Unreadable
        } else {
            let followed =
                needed.iter().take_while(|(end, later)| length >= *end && !later).count();
            let known = followed == needed.len() && needed.len() <= MAX_EXTENSIONS;
            let false_length =
                self.header_words.is_some_and(|words| words != 5 + self.option_words);
            let has_port =
                known && matches!(self.protocol, 6 | 17) && !later_fragment && length >= l4 + 4;
            // A header shorter than any can be shows no port; one merely false shows whatever is there.
            assert!(
                !false_length || self.header_words < Some(5),
                "a packet whose truth is not known: {self:?}"
            );
            Truth::Ip {
                source: self.source,
                protocol: known.then_some(self.protocol),
                port: (has_port && !false_length).then_some(self.port),
            }
        };
        (bytes, truth)
    }
}
