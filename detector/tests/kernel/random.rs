//! Random bans and packets that meet: few networks, many lengths, few ports.
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fail2xdp_common::value::FOREVER;
use ipnet::IpNet;
use rand::{
    Rng, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};

use crate::{
    frame::{Cut, Extension, Frame},
    lab::NOW,
    model::Hold,
};

const SCOPES: [&str; 12] = [
    "all",
    "all",
    "all",
    "tcp",
    "udp",
    "icmp+icmpv6",
    "tcp:22",
    "tcp:22,80-443",
    "udp:53",
    "tcp:25+udp:53",
    "proto-47",
    "tcp:1024-65535",
];

const PORTS: [u16; 8] = [22, 22, 25, 53, 80, 443, 0, 65_535];

/// A source of choices that can be had again.
pub struct Random {
    pub rng: StdRng,
}

impl Random {
    /// From `FAIL2XDP_SEED`, else a seed of its own; say it when a test fails.
    pub fn new() -> Random {
        let seed = match std::env::var("FAIL2XDP_SEED") {
            Ok(seed) => seed.parse().expect("FAIL2XDP_SEED is a number"),
            Err(_) => rand::random(),
        };
        println!("FAIL2XDP_SEED={seed}");
        Random { rng: StdRng::seed_from_u64(seed) }
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.rng).expect("something to choose from")
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of a few hundred addresses, neighbours in several networks.
    pub fn address(&mut self) -> IpAddr {
        let (near, net) = (self.rng.random_range(0..6u16), self.pick(&[0u16, 0, 0, 1, 0x80, 0xff]));
        match self.below(2) {
            0 => {
                let first = self.pick(&[192u8, 192, 192, 203, 10, 0]);
                Ipv4Addr::from([first, net as u8, self.pick(&[2u8, 2, 3, 130]), near as u8]).into()
            }
            _ => {
                let first = self.pick(&[0x2001u16, 0x2001, 0x2001, 0x2a00, 0xfe80, 0xff02, 0]);
                let third = self.pick(&[0u16, 0, 1]);
                let low = self.pick(&[0u16, 0, 1, 0x8000]);
                Ipv6Addr::new(first, 0xdb8, third, net, low, 0, 0, near).into()
            }
        }
    }

    /// Addresses from all over, each once.
    pub fn distinct_v4(&mut self, count: usize) -> Vec<IpNet> {
        let mut addresses = BTreeSet::new();
        while addresses.len() < count {
            addresses.insert(Ipv4Addr::from(self.rng.random::<u32>()));
        }
        addresses.into_iter().map(|address| IpAddr::from(address).into()).collect()
    }

    /// A prefix around one of them.
    pub fn prefix(&mut self) -> IpNet {
        let address = self.address();
        let length = match address {
            IpAddr::V4(_) => match self.below(4) {
                0 => self.rng.random_range(0..=32),
                1 => self.rng.random_range(20..=32),
                _ => 32,
            },
            IpAddr::V6(_) => match self.below(5) {
                0 => self.rng.random_range(0..=128),
                1 => self.rng.random_range(40..=80),
                2 => 64,
                _ => 128,
            },
        };
        IpNet::new(address, length).expect("a length of its family").trunc()
    }

    /// The prefixes of an address that are longest, in any order.
    pub fn nest(&mut self, address: IpAddr, count: u8) -> Vec<IpNet> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = |length| IpNet::new(address, length).expect("a length of its family").trunc();
        let mut nest: Vec<IpNet> = (most + 1 - count..=most).map(prefix).collect();
        nest.shuffle(&mut self.rng);
        nest
    }

    /// An end: over, just over, nearly over, later, never.
    pub fn until(&mut self) -> u32 {
        let seconds = self.rng.random_range(2..100);
        self.pick(&[1, NOW - 5, NOW, NOW + 1, NOW + seconds, NOW + seconds, NOW + 3600, FOREVER])
    }

    pub fn hold(&mut self, jails: usize) -> Hold {
        let jail = format!("jail {}", self.below(jails));
        Hold { jail, scope: self.pick(&SCOPES).parse().expect("a scope"), until: self.until() }
    }

    /// A packet from one of these addresses.
    pub fn frame(&mut self, source: IpAddr) -> Frame {
        let mut frame = Frame::from(source);
        let tags = self.pick(&[0, 0, 0, 0, 1, 2, 3]);
        frame.tags =
            (0..tags).map(|nth| if nth == 0 && self.one_in(2) { 0x88a8 } else { 0x8100 }).collect();
        if self.one_in(100) {
            frame.ether_type = Some(0x0806);
        }
        frame.protocol = self.pick(&[6, 6, 6, 6, 17, 17, 1, 58, 47, 50, 59]);
        frame.port = if self.one_in(8) { self.rng.random() } else { self.pick(&PORTS) };
        if source.is_ipv4() {
            frame.option_words = if self.one_in(4) { self.rng.random_range(0..=10) } else { 0 };
            frame.more_fragments = self.one_in(8);
            frame.fragment_offset =
                if self.one_in(8) { self.rng.random_range(1..0x1fff) } else { 0 };
        } else if self.one_in(3) {
            let count = self.below(9);
            frame.extensions = (0..count)
                .map(|_| {
                    let kind = self.pick(&[0u8, 43, 44, 51, 60, 135, 139, 140]);
                    let more = if kind == 44 {
                        u16::from(self.one_in(4)) * 100
                    } else {
                        self.below(4) as u16
                    };
                    Extension { kind, more }
                })
                .collect();
        }
        if self.one_in(6) {
            frame.cut = Cut::At(self.rng.random_range(14..120));
        }
        frame
    }
}
