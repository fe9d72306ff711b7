//! Which port scopes a packet is in.
//!
//! A banned host could choose packets that hide their port: one whose port cannot be found is in every
//! scope of its protocol, one whose protocol cannot be found in every scope.
use aya_ebpf::bindings::xdp_md;
use fail2xdp_common::scope_row::{PROTOCOL, UDP, UNKNOWN};

use crate::{
    maps::SCOPES,
    packet::{Frame, Packet, Span, read, read_be16},
};

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Where an IPv6 or IPv4 header can begin at the furthest: Ethernet and two VLAN tags.
const MAX_L3: usize = 22;

/// IPv6 extension headers that are followed.
const MAX_EXTENSIONS: usize = 6;

/// The scopes of a row; [`UNKNOWN`] has no row, which means all.
#[inline(always)]
pub fn mask(row: u32) -> u64 {
    SCOPES.get(row).copied().unwrap_or(u64::MAX)
}

/// Whether `scope` is in the mask.
#[inline(always)]
pub fn contains(mask: u64, scope: u32) -> bool {
    (mask >> (scope & 63)) & 1 != 0
}

#[inline(always)]
fn row(frame: &impl Frame, protocol: u8, l4: Option<usize>) -> u32 {
    let first = match protocol {
        PROTOCOL_TCP => 0,
        PROTOCOL_UDP => UDP,
        _ => return PROTOCOL + protocol as u32,
    };
    match l4.and_then(|l4| read_be16(frame, l4 + 2)) {
        Some(port) => first + port as u32,
        None => PROTOCOL + protocol as u32,
    }
}

/// The row of an IPv4 packet whose header begins at `l3`.
#[inline(always)]
pub fn row_v4(packet: &impl Frame, l3: usize) -> u32 {
    let Some(header) = read::<[u8; 10]>(packet, l3) else { return UNKNOWN };
    let words = (header[0] & 15) as usize;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let l4 = if later_fragment || words < 5 { None } else { Some(l3 + (words << 2)) };
    row(packet, header[9], l4)
}

/// The same, for another subprogram.
#[inline(always)]
pub fn scope_row_v4(ctx: *mut xdp_md, l3: u32) -> u32 {
    if l3 as usize > MAX_L3 { UNKNOWN } else { row_v4(&Span::of(ctx), l3 as usize) }
}

/// The row of an IPv6 packet whose header begins at `l3`.
#[inline(always)]
pub fn row_v6(packet: &impl Packet, l3: usize) -> u32 {
    scope_row_v6(packet.context().ctx, l3 as u32)
}

/// A global function (scalars and the context in, a scalar out): the verifier walks it once, not again
/// for each of its callers' states, which would be 100,000 instructions instead of 19,000.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scope_row_v6(ctx: *mut xdp_md, l3: u32) -> u32 {
    // The verifier knows nothing about an argument of a global function.
    if l3 as usize > MAX_L3 {
        return UNKNOWN;
    }
    walk(&Span::of(ctx), l3 as usize).unwrap_or(UNKNOWN)
}

#[inline(always)]
fn walk(frame: &Span, l3: usize) -> Option<u32> {
    let mut next: u8 = read(frame, l3 + 6)?;
    let mut at = l3 + 40;
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            // hop-by-hop, routing, destination options, mobility, host identity, shim6 (RFC 7045)
            0 | 43 | 60 | 135 | 139 | 140 => {
                let header: [u8; 2] = read(frame, at)?;
                next = header[0];
                at += 8 + ((header[1] as usize) << 3);
            }
            // authentication header: its length counts words of four bytes (RFC 4302)
            51 => {
                let header: [u8; 2] = read(frame, at)?;
                next = header[0];
                at += 8 + ((header[1] as usize) << 2);
            }
            // fragment: a later one shows neither port nor, after other headers, protocol
            44 => {
                let header: [u8; 4] = read(frame, at)?;
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
                    return None;
                }
                next = header[0];
                at += 8;
            }
            protocol => return Some(row(frame, protocol, Some(at))),
        }
    }
    None
}
