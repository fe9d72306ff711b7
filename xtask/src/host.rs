//! What tests must leave as they found it: the host's listening sockets, namespaces and pins.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::sh;

/// How the names of our namespaces and folders of pins begin, in tests and in the demo.
pub const PREFIX: &str = "f2x";

/// Ports from here on are given to clients as they come and go.
const FIRST_EPHEMERAL_PORT: u16 = 32768;

/// The host at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    things: BTreeSet<String>,
}

impl Host {
    /// Looks at the host.
    pub fn look() -> Self {
        let mut things = BTreeSet::new();
        for protocol in ["tcp", "tcp6", "udp", "udp6"] {
            let table = fs::read_to_string(format!("/proc/net/{protocol}")).unwrap_or_default();
            let listening = table.lines().filter_map(|line| listener(line, &protocol[..3]));
            things.extend(listening.map(|at| format!("{} socket {at}", &protocol[..3])));
        }
        for (kind, dir) in [("namespace", "/run/netns"), ("pins", "/sys/fs/bpf")] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(PREFIX) {
                    things.insert(format!("{kind} {dir}/{name}"));
                }
            }
        }
        Self { things }
    }

    /// An error that names what came and what went since then.
    pub fn compare(&self, now: &Self) -> Result<()> {
        let came = now.things.difference(&self.things).map(|thing| format!("\n  new: {thing}"));
        let went = self.things.difference(&now.things).map(|thing| format!("\n  gone: {thing}"));
        let changes: String = came.chain(went).collect();
        if !changes.is_empty() {
            bail!("the host is not as it was before the tests:{changes}");
        }
        Ok(())
    }
}

/// The address that a line of `/proc/net/tcp` and its like says somebody listens at.
fn listener(line: &str, protocol: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // States of the kernel's `tcp_states.h`: 0A listens, 07 is a UDP socket without a peer.
    let listens = match protocol {
        "tcp" => state == "0A",
        _ => state == "07" && port < FIRST_EPHEMERAL_PORT,
    };
    listens.then_some(SocketAddr::new(hex_address(address)?, port))
}

/// An address as the kernel prints it: 32-bit words in the machine's own order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for word in text.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
        _ => None,
    }
}

/// Mounts the kernel's file system of pins where it is missing.
pub fn mount_bpffs() -> Result<()> {
    let place = "/sys/fs/bpf";
    let mounts = fs::read_to_string("/proc/mounts")?;
    let is_there = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(place) && fields.next() == Some("bpf")
    });
    if !is_there && Path::new(place).exists() {
        let mut mount = Command::new("mount");
        mount.args(["-t", "bpf", "bpf", place]);
        eprintln!("xtask: mounting the BPF file system: {}", sh::line(&mount));
        sh::run(&mut mount)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, protocol: &str, expect: Option<&str>) {
        let found = listener(line, protocol).map(|at| at.to_string());
        assert_eq!(found.as_deref(), expect);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn listeners_are_read_and_connections_are_not() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue";
        check(head, "tcp", None);
        check("0: 0100007F:0016 00000000:0000 0A 0:0", "tcp", Some("127.0.0.1:22"));
        check("1: 0100007F:0016 0100007F:C350 01 0:0", "tcp", None);
        let any = "00000000000000000000000000000000";
        check(&format!("2: {any}:0016 {any}:0000 0A 0:0"), "tcp", Some("[::]:22"));
        let loopback = "00000000000000000000000001000000";
        check(&format!("3: {loopback}:0050 {any}:0000 0A 0:0"), "tcp", Some("[::1]:80"));
        check("4: 00000000:0202 00000000:0000 07 0:0", "udp", Some("0.0.0.0:514"));
        check("5: 00000000:C350 00000000:0000 07 0:0", "udp", None);
    }

    #[test]
    fn what_came_and_what_went_is_named() {
        let host = |names: &[&str]| Host { things: names.iter().map(|&n| n.to_owned()).collect() };
        assert!(host(&["tcp socket 1"]).compare(&host(&["tcp socket 1"])).is_ok());
        let error = host(&["a", "b"]).compare(&host(&["b", "c"])).unwrap_err().to_string();
        assert!(error.ends_with("\n  new: c\n  gone: a"), "{error}");
    }
}
