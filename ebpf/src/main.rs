//! The XDP program: a packet's source, a verdict, an action.
#![no_std]
#![no_main]
// Atomic additions: see `account`.
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "the target has no other way to add atomically")]
#![allow(missing_docs, reason = "the `xdp` macro writes functions without documentation")]

mod account;
mod clock;
mod lines;
mod maps;
mod packet;
mod scope;
mod tries;
mod verdict;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

use crate::packet::{Packet, Pieces, Whole};

#[inline(always)]
fn judge(packet: &impl Packet) -> u32 {
    account::action(packet, verdict::of(packet))
}

/// The verdict for frames in one piece.
#[xdp]
pub fn ban(ctx: XdpContext) -> u32 {
    judge(&Whole(ctx))
}

/// The verdict for frames in several pieces; headers stand in the first.
#[xdp(frags)]
pub fn ban_frags(ctx: XdpContext) -> u32 {
    judge(&Pieces(ctx))
}

/// Writes a sample of the clocks over the packet, for a test run.
#[xdp]
pub fn sample_clock(ctx: XdpContext) -> u32 {
    packet::overwrite(&ctx, clock::sample());
    XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses a program that could loop here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
