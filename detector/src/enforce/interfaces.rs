//! The network as the kernel describes it: interfaces, own addresses, default routes; and which interfaces to protect.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    fault::EnforceError,
    netlink::{self, Netlink, attributes, text, word},
};

/// `linux/if_arp.h`: what kind of frames a link carries.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_PPP: u16 = 512;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number, never used again in this network namespace while the machine is up.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it: `veth`, `vlan`, `wireguard` …; empty for hardware.
    pub kind: String,
    /// It is switched on.
    pub is_up: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// ARPHRD_ number of its frames.
    link_type: u16,
    /// The interface below, for VLANs, tunnels and the like in this network namespace.
    lower: Option<u32>,
    /// The XDP program it runs.
    pub xdp: Option<RunningXdp>,
}

/// An XDP program that an interface runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningXdp {
    /// `native`, `generic` or `hardware`.
    pub mode: &'static str,
    /// The program's id.
    pub id: u32,
}

/// Everything enforcement wants to know of the network, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// All interfaces of this network namespace.
    pub devices: Vec<Device>,
    /// This machine's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Interfaces of the default routes, both families.
    pub default_devices: Vec<u32>,
    /// Gateways of the default routes.
    pub gateways: Vec<IpAddr>,
}

impl Network {
    /// Asks the kernel.
    pub fn observe() -> Result<Network, EnforceError> {
        let fault = |what| move |source: io::Error| EnforceError::Netlink { what, source };
        let mut netlink = Netlink::open().map_err(fault("a netlink socket"))?;
        let devices = devices(&mut netlink).map_err(fault("the interfaces"))?;
        let addresses = own_addresses(&mut netlink).map_err(fault("the addresses"))?;
        let routes = netlink
            .dump(netlink::RTM_GETROUTE, &[0; 12], |found: &mut Vec<DefaultRoute>, kind, body| {
                if kind == netlink::RTM_NEWROUTE {
                    found.extend(DefaultRoute::read(body));
                }
            })
            .map_err(fault("the routes"))?;
        let mut network = Network { devices, addresses, ..Network::default() };
        network.take_routes(routes);
        network.addresses.sort_unstable();
        network.addresses.dedup();
        Ok(network)
    }

    /// The default routes of the main table count; where it has none, those of any other table do.
    fn take_routes(&mut self, routes: Vec<DefaultRoute>) {
        let main = routes.iter().any(|route| route.table == RT_TABLE_MAIN);
        for route in routes.into_iter().filter(|route| !main || route.table == RT_TABLE_MAIN) {
            self.default_devices.extend(route.devices);
            self.gateways.extend(route.gateways);
        }
        self.default_devices.sort_unstable();
        self.default_devices.dedup();
        self.gateways.sort_unstable();
        self.gateways.dedup();
    }

    /// The interface with this number.
    pub fn by_index(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.index == index)
    }

    /// The interface with this name.
    pub fn by_name(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// The error for an interface that is not there, with those that are.
    pub fn unknown(&self, name: &str) -> EnforceError {
        let known: Vec<String> =
            self.devices.iter().map(|device| format!("`{}`", device.name)).collect();
        EnforceError::UnknownInterface { name: name.to_owned(), known: known.join(", ") }
    }

    /// Whether the program can read this interface's frames; if not, which interface to use.
    ///
    /// # Errors
    ///
    /// [`EnforceError::NoEthernet`] for tun, PPP, WireGuard and other links without an Ethernet header.
    pub fn readable(&self, device: &Device) -> Result<(), EnforceError> {
        if matches!(device.link_type, ARPHRD_ETHER | ARPHRD_LOOPBACK) {
            return Ok(());
        }
        let ethernet =
            |index: &u32| self.by_index(*index).filter(|device| device.link_type == ARPHRD_ETHER);
        let below: Vec<&str> = match device.lower.as_ref().and_then(ethernet) {
            Some(lower) => vec![&lower.name],
            None => {
                let default: Vec<&str> = self
                    .default_devices
                    .iter()
                    .filter_map(ethernet)
                    .map(|device| device.name.as_str())
                    .collect();
                let any = self.devices.iter().filter(|device| device.link_type == ARPHRD_ETHER);
                if default.is_empty() {
                    any.map(|device| device.name.as_str()).collect()
                } else {
                    default
                }
            }
        };
        let named: Vec<String> = below.iter().map(|name| format!("`{name}`")).collect();
        Err(EnforceError::NoEthernet {
            interface: device.name.clone(),
            kind: device.describe(),
            instead: match named.as_slice() {
                [] => "there is no Ethernet interface here to protect in its place".to_owned(),
                [one] => format!("protect the Ethernet interface that carries it, {one}"),
                several => format!(
                    "protect the Ethernet interface that carries it, one of {}",
                    several.join(", ")
                ),
            },
        })
    }

    /// The interface below a VLAN, macvlan or similar one, where native mode may be had.
    pub fn below(&self, device: &Device) -> Option<&Device> {
        device.lower.and_then(|index| self.by_index(index))
    }
}

impl Device {
    /// An interface of hardware, for tests.
    #[cfg(test)]
    pub(super) fn ethernet(index: u32, name: &str) -> Device {
        let (name, kind) = (name.to_owned(), String::new());
        let (lower, xdp, link_type) = (None, None, ARPHRD_ETHER);
        Device { index, name, kind, is_up: true, mtu: 1500, link_type, lower, xdp }
    }

    /// Whether it is one end of a PPP connection.
    pub fn is_ppp(&self) -> bool {
        self.link_type == ARPHRD_PPP
    }

    /// What the link is, in the operator's words.
    pub fn describe(&self) -> String {
        let by_type = match self.link_type {
            ARPHRD_PPP => "PPP",
            768 | 769 => "IP tunnel",
            776 => "IPv6-in-IPv4 tunnel",
            778 | 823 => "GRE tunnel",
            32 => "InfiniBand",
            519 => "raw IP",
            65_534 => "no link layer",
            _ => "",
        };
        match (self.kind.as_str(), by_type) {
            ("", "") => format!("link type {}", self.link_type),
            ("", by_type) => by_type.to_owned(),
            (kind, "") => kind.to_owned(),
            (kind, by_type) => format!("{kind}, {by_type}"),
        }
    }
}

/// This machine's own addresses.
pub(super) fn addresses() -> Result<Vec<IpAddr>, EnforceError> {
    let asked = Netlink::open().and_then(|mut netlink| own_addresses(&mut netlink));
    asked.map_err(|source| EnforceError::Netlink { what: "the addresses", source })
}

fn own_addresses(netlink: &mut Netlink) -> io::Result<Vec<IpAddr>> {
    netlink.dump(netlink::RTM_GETADDR, &[0; 8], |found: &mut Vec<IpAddr>, kind, body| {
        if kind == netlink::RTM_NEWADDR {
            found.extend(own_address(body));
        }
    })
}

/// The interfaces as they are now.
pub(super) fn devices(netlink: &mut Netlink) -> io::Result<Vec<Device>> {
    const IFLA_EXT_MASK: u16 = 29;
    const RTEXT_FILTER_SKIP_STATS: u32 = 8;
    let mut body = vec![0; 16];
    netlink::push_attribute(&mut body, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    netlink.dump(netlink::RTM_GETLINK, &body, |found: &mut Vec<Device>, kind, body| {
        if kind == netlink::RTM_NEWLINK {
            found.extend(device(body));
        }
    })
}

/// Reads a `struct ifinfomsg` with its attributes.
fn device(body: &[u8]) -> Option<Device> {
    const IFF_UP: u32 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINK: u16 = 5;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_LINK_NETNSID: u16 = 37;
    const IFLA_XDP: u16 = 43;
    let mut device = Device {
        index: word(body, 4)?,
        name: String::new(),
        kind: String::new(),
        is_up: word(body, 8)? & IFF_UP != 0,
        mtu: 0,
        link_type: netlink::half(body, 2)?,
        lower: None,
        xdp: None,
    };
    let mut elsewhere = false;
    for (kind, value) in attributes(body, 16) {
        match kind {
            IFLA_IFNAME => device.name = text(value),
            IFLA_MTU => device.mtu = word(value, 0).unwrap_or(0),
            IFLA_LINK => {
                device.lower = word(value, 0).filter(|&index| index != 0 && index != device.index)
            }
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_LINKINFO => {
                let kind = attributes(value, 0).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                device.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            IFLA_XDP => device.xdp = running_xdp(value),
            _ => {}
        }
    }
    // For a veth `IFLA_LINK` is its other end, which carries the same packets.
    if elsewhere || device.kind == "veth" {
        device.lower = None;
    }
    (!device.name.is_empty()).then_some(device)
}

/// Reads the nested `IFLA_XDP`.
fn running_xdp(value: &[u8]) -> Option<RunningXdp> {
    const IFLA_XDP_DRV_PROG_ID: u16 = 5;
    const IFLA_XDP_SKB_PROG_ID: u16 = 6;
    const IFLA_XDP_HW_PROG_ID: u16 = 7;
    [
        (IFLA_XDP_DRV_PROG_ID, "native"),
        (IFLA_XDP_SKB_PROG_ID, "generic"),
        (IFLA_XDP_HW_PROG_ID, "hardware"),
    ]
    .into_iter()
    .find_map(|(wanted, mode)| {
        let (_, id) = attributes(value, 0).find(|(kind, _)| *kind == wanted)?;
        Some(RunningXdp { mode, id: word(id, 0).filter(|&id| id != 0)? })
    })
}

/// An address in network byte order, of whichever family its length says.
fn address(value: &[u8]) -> Option<IpAddr> {
    match *value {
        [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => <[u8; 16]>::try_from(value).ok().map(|raw| Ipv6Addr::from(raw).into()),
    }
}

/// Reads a `struct ifaddrmsg`: the address that is ours (`IFA_LOCAL`; on a point-to-point link `IFA_ADDRESS` is the
/// other end).
fn own_address(body: &[u8]) -> Option<IpAddr> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let find = |wanted| {
        attributes(body, 8).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| address(value))
    };
    find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))
}

const RT_TABLE_MAIN: u32 = 254;
const RT_TABLE_LOCAL: u32 = 255;

/// A route to everywhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    table: u32,
    devices: Vec<u32>,
    gateways: Vec<IpAddr>,
}

impl DefaultRoute {
    /// Reads a `struct rtmsg` with its attributes; `None`: some other route.
    pub fn read(body: &[u8]) -> Option<DefaultRoute> {
        const RTN_UNICAST: u8 = 1;
        const RTM_F_CLONED: u32 = 0x200;
        const RTA_OIF: u16 = 4;
        const RTA_GATEWAY: u16 = 5;
        const RTA_MULTIPATH: u16 = 9;
        const RTA_TABLE: u16 = 15;
        const RTA_VIA: u16 = 18;
        let (family, length, table, kind) =
            (*body.first()?, *body.get(1)?, *body.get(4)?, *body.get(7)?);
        let internet = i32::from(family) == libc::AF_INET || i32::from(family) == libc::AF_INET6;
        if !internet || length != 0 || kind != RTN_UNICAST || word(body, 8)? & RTM_F_CLONED != 0 {
            return None;
        }
        let mut route =
            DefaultRoute { table: table.into(), devices: Vec::new(), gateways: Vec::new() };
        let hop = |route: &mut DefaultRoute, kind, value: &[u8]| match kind {
            RTA_GATEWAY => route.gateways.extend(address(value)),
            // `struct rtvia`: a gateway of the other family, behind two bytes that name it.
            RTA_VIA => route.gateways.extend(value.get(2..).and_then(address)),
            _ => {}
        };
        for (kind, value) in attributes(body, 12) {
            match kind {
                RTA_OIF => route.devices.extend(word(value, 0)),
                RTA_TABLE => route.table = word(value, 0).unwrap_or(route.table),
                RTA_MULTIPATH => {
                    let mut rest = value;
                    // `struct rtnexthop`: length, flags, hops, interface; then attributes.
                    while let Some(length) =
                        netlink::half(rest, 0).map(usize::from).filter(|&length| length >= 8)
                    {
                        let Some(one) = rest.get(..length) else { break };
                        route.devices.extend(word(one, 4));
                        attributes(one, 8).for_each(|(kind, value)| hop(&mut route, kind, value));
                        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                    }
                }
                _ => hop(&mut route, kind, value),
            }
        }
        (route.table != RT_TABLE_LOCAL).then_some(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(index: u32, name: &str, kind: &str, link_type: u16, lower: Option<u32>) -> Device {
        Device { kind: kind.into(), link_type, lower, ..Device::ethernet(index, name) }
    }

    #[track_caller]
    fn check(device: Device, expect: &str) {
        let network = Network {
            devices: vec![Device::ethernet(2, "eth0"), Device::ethernet(3, "eth1"), device.clone()],
            default_devices: vec![2, device.index],
            ..Network::default()
        };
        assert_eq!(
            network.readable(&device).map_err(|fault| fault.to_string()),
            Err(expect.to_owned())
        );
    }

    #[test]
    fn a_link_without_ethernet_header_is_refused_with_the_one_to_use() {
        check(
            tunnel(9, "wg0", "wireguard", 65_534, None),
            "`wg0` carries no Ethernet frames (wireguard, no link layer), so its packets cannot be read: \
             protect the Ethernet interface that carries it, `eth0`",
        );
        check(
            tunnel(9, "gre1", "gre", 778, Some(3)),
            "`gre1` carries no Ethernet frames (gre, GRE tunnel), so its packets cannot be read: \
             protect the Ethernet interface that carries it, `eth1`",
        );
        check(
            tunnel(9, "ppp0", "", 512, None),
            "`ppp0` carries no Ethernet frames (PPP), so its packets cannot be read: \
             protect the Ethernet interface that carries it, `eth0`",
        );
        assert!(Network::default().readable(&Device::ethernet(2, "eth0")).is_ok());
        assert!(Network::default().readable(&tunnel(1, "lo", "", ARPHRD_LOOPBACK, None)).is_ok());
    }

    fn route(family: i32, length: u8, table: u8, kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family as u8, length, 0, 0, table, 3, 0, kind, 0, 0, 0, 0];
        for (kind, value) in attributes {
            netlink::push_attribute(&mut body, *kind, value);
        }
        body
    }

    #[test]
    fn default_routes_are_told_from_others() {
        let (four, six) = (libc::AF_INET, libc::AF_INET6);
        let plain = route(four, 0, 254, 1, &[(4, &2u32.to_ne_bytes()), (5, &[192, 0, 2, 1])]);
        let read = DefaultRoute::read(&plain).unwrap();
        assert_eq!((read.devices, read.gateways), (vec![2], vec!["192.0.2.1".parse().unwrap()]));
        assert_eq!(DefaultRoute::read(&route(four, 24, 254, 1, &[])), None);
        assert_eq!(DefaultRoute::read(&route(six, 0, 254, 7, &[(4, &1u32.to_ne_bytes())])), None);
        let over_six = route(four, 0, 254, 1, &[(18, &[&[10, 0][..], &[0xfe; 16]].concat())]);
        assert!(DefaultRoute::read(&over_six).unwrap().gateways[0].is_ipv6());
    }

    #[test]
    fn every_path_of_a_multipath_route_counts() {
        let mut paths = Vec::new();
        for (device, last) in [(2u32, 1), (3, 2)] {
            let mut one = [16u16.to_ne_bytes(), [0, 0]].concat();
            one.extend(device.to_ne_bytes());
            netlink::push_attribute(&mut one, 5, &[192, 0, 2, last]);
            paths.extend(one);
        }
        let read = DefaultRoute::read(&route(libc::AF_INET, 0, 254, 1, &[(9, &paths)])).unwrap();
        assert_eq!(read.devices, [2, 3]);
        assert_eq!(read.gateways.len(), 2);
    }

    #[test]
    fn the_main_table_wins_and_another_serves_where_it_has_no_default() {
        let from = |table, device| DefaultRoute { table, devices: vec![device], gateways: vec![] };
        let mut network = Network::default();
        network.take_routes(vec![from(51_820, 9), from(RT_TABLE_MAIN, 2), from(RT_TABLE_MAIN, 2)]);
        assert_eq!(network.default_devices, [2]);
        let mut network = Network::default();
        network.take_routes(vec![from(100, 4)]);
        assert_eq!(network.default_devices, [4]);
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let network = Network::observe().unwrap();
        let loopback = network.by_name("lo").expect("a network namespace has `lo`");
        assert_eq!(loopback.link_type, ARPHRD_LOOPBACK);
        let said = network.unknown("eth9").to_string();
        assert!(said.starts_with("no interface `eth9` here: there are `"), "{said}");
    }
}
