//! What is counted and told of a packet.
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use fail2xdp_common::{
    config::Config,
    report::{Event, counter},
};

use crate::{
    maps::{BAN_STATS, COUNTERS, EVENT_WINDOW, EVENTS},
    packet::Packet,
    tries::Hit,
};

/// What becomes of a packet: a row of `COUNTERS`.
pub type Outcome = u32;

/// Counts the packet on this CPU and says what the driver is to do with it.
#[inline(always)]
pub fn action(packet: &impl Packet, outcome: Outcome) -> u32 {
    if let Some(row) = COUNTERS.get_ptr_mut(outcome) {
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
pub fn count_by_id(packet: &impl Packet, id: u32, now: u32) {
    let Some(stat) = BAN_STATS.get_ptr_mut(id) else { return };
    // SAFETY: as above; `last_seen` may be stored by several CPUs at once, each with the same second.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*stat).packets, 1);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(
            &raw mut (*stat).bytes,
            packet.length(),
        );
        (*stat).last_seen = now;
    }
}

/// A packet about to be reported.
pub struct Sample {
    pub source: [u64; 2],
    pub hit: Hit,
    pub scope_row: u32,
    pub now: u32,
    pub family: u16,
}

/// Reports a drop while this second's budget lasts.
#[inline(always)]
pub fn report(packet: &impl Packet, config: &Config, sample: Sample) {
    let Some(window) = EVENT_WINDOW.get_ptr_mut(0) else { return };
    // SAFETY: the window is this CPU's own, and nothing else runs on it meanwhile.
    let window = unsafe { &mut *window };
    if window.second != sample.now {
        window.second = sample.now;
        window.emitted = 0;
    }
    if window.emitted >= config.events_per_second {
        window.suppressed += 1;
        return;
    }
    window.emitted += 1;
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else {
        window.suppressed += 1;
        return;
    };
    let mut source = [0; 16];
    source[..8].copy_from_slice(&sample.source[0].to_ne_bytes());
    source[8..].copy_from_slice(&sample.source[1].to_ne_bytes());
    entry.write(Event {
        source,
        second: sample.now,
        ban_id: sample.hit.id,
        interface: packet.context().ingress_ifindex() as u32,
        scope_row: sample.scope_row,
        length: packet.length() as u32,
        jail: sample.hit.jail,
        family: sample.family,
    });
    entry.submit(0);
    #[cfg(feature = "verbose")]
    aya_log_ebpf::info!(
        packet.context(),
        "ban {}: packet of {} bytes, scope row {}",
        sample.hit.id,
        packet.length(),
        sample.scope_row
    );
}
