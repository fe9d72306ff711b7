//! What is counted and told of a packet.
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS},
        xdp_md,
    },
    programs::XdpContext,
};
use fail2xdp_common::{
    config::Config,
    report::{Event, counter},
};

use crate::{
    maps::{BAN_STATS, COUNTERS, EVENT_WINDOW, EVENTS},
    packet::Packet,
    scope::{scope_row_v4, scope_row_v6},
    tries::Hit,
};

/// What becomes of a packet: a row of `COUNTERS`.
pub type Outcome = u32;

/// Counts the packet on this CPU and says what the driver is to do with it.
#[inline(always)]
pub fn action(packet: &impl Packet, outcome: Outcome) -> u32 {
    // Who is dropped is told apart by interface; the look-up is the same.
    let row = match outcome {
        counter::DROPPED | counter::WOULD_DROP => {
            let interface = packet.context().ingress_ifindex() as u32;
            counter::of_interface(interface, outcome - counter::DROPPED)
        }
        outcome => outcome,
    };
    if let Some(row) = COUNTERS.get_ptr_mut(row) {
        // SAFETY: the row is this CPU's own, and nothing else runs on it meanwhile.
        unsafe {
            (*row).packets += 1;
            (*row).bytes += packet.length();
        }
    }
    if outcome == counter::DROPPED { XDP_DROP } else { XDP_PASS }
}

/// Counts a packet in the entry of a line.
#[inline(always)]
pub fn count_in_line(packets: *mut u32) {
    // SAFETY: the pointer is into a map's value, aligned as its type is, and lives as long as we run;
    // everyone adds atomically. The intrinsic, because the standard library has no atomic addition on
    // this target, which cannot compare and swap before Linux 5.12.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(packets, 1) };
}

/// Counts a packet of a ban that no line counts. An id beyond the map goes uncounted.
#[inline(always)]
pub fn count_by_id(id: u32, observed: u32, now: u32) {
    let Some(stat) = BAN_STATS.get_ptr_mut(id) else { return };
    // SAFETY: as above; `last_seen` may be stored by several CPUs at once, each with the same second.
    unsafe {
        // `would_drop` stands behind `packets`; a branch would be followed both ways to the end.
        let count = (&raw mut (*stat).packets).add(observed as usize & 1);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1);
        (*stat).last_seen = now;
    }
}

/// A packet about to be reported.
pub struct Sample {
    pub source: [u64; 2],
    pub hit: Hit,
    pub observed: u32,
    pub now: u32,
    /// Where its IP header begins.
    pub l3: usize,
    pub family: u8,
}

/// Reports a drop while this second's budget lasts.
#[inline(always)]
pub fn report(packet: &impl Packet, config: &Config, sample: Sample) {
    let Some(window) = EVENT_WINDOW.get_ptr_mut(0) else { return };
    // SAFETY: the window is this CPU's own, and nothing else runs on it meanwhile.
    let window = unsafe { &mut *window };
    // A flood ends here: the call would cost it more than all of this.
    if window.second == sample.now && window.emitted >= config.events_per_second {
        window.suppressed += 1;
        return;
    }
    let Sample { source, hit, observed, now, l3, family } = sample;
    let who = hit.id as u64
        | (hit.jail as u64) << 32
        | (l3 as u64 & 0x3f) << 48
        | (observed as u64 & 1) << 54
        | (family as u64) << 56;
    let what = packet.length() << 32 | now as u64;
    report_drop(packet.context().ctx, source[0], source[1], who, what);
}

/// A global function: see [`crate::scope`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_drop(ctx: *mut xdp_md, first: u64, second: u64, who: u64, what: u64) -> u32 {
    let Some(window) = EVENT_WINDOW.get_ptr_mut(0) else { return 0 };
    let now = what as u32;
    // SAFETY: as above.
    let window = unsafe { &mut *window };
    if window.second != now {
        window.second = now;
        window.emitted = 0;
    }
    window.emitted += 1;
    let (l3, family) = ((who >> 48) as u32 & 0x3f, (who >> 56) as u8);
    let scope_row = if family == 4 { scope_row_v4(ctx, l3) } else { scope_row_v6(ctx, l3) };
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else {
        window.suppressed += 1;
        return 0;
    };
    let mut source = [0; 16];
    source[..8].copy_from_slice(&first.to_ne_bytes());
    source[8..].copy_from_slice(&second.to_ne_bytes());
    let packet = XdpContext::new(ctx);
    entry.write(Event {
        source,
        second: now,
        ban_id: who as u32,
        interface: packet.ingress_ifindex() as u32,
        scope_row,
        length: (what >> 32) as u32,
        jail: (who >> 32) as u16,
        family,
        observed: (who >> 54) as u8 & 1,
    });
    entry.submit(0);
    #[cfg(feature = "verbose")]
    aya_log_ebpf::info!(
        &packet,
        "ban {}: packet of {} bytes, scope row {}",
        who as u32,
        what >> 32,
        scope_row
    );
    1
}
