//! The kernel's idea of Unix time.
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use fail2xdp_common::{clock, config::Config, report::ClockSample};

use crate::maps::CLOCK;

/// Jiffies cost 1.4 ns, the coarse clock 14, the monotonic one 28.
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: these helpers take nothing and return a number.
    unsafe {
        match CLOCK.load() {
            clock::JIFFIES => bpf_jiffies64(),
            clock::COARSE => bpf_ktime_get_coarse_ns() >> 20,
            _ => bpf_ktime_get_ns() >> 20,
        }
    }
}

/// Unix seconds: one multiplication, no division. The offset carries the fraction of a second.
#[inline(always)]
pub fn now(config: &Config) -> u32 {
    // SAFETY: the reference is valid; volatile because the writer stores a new offset at any time.
    let offset = unsafe { (&raw const config.clock_offset).read_volatile() };
    (ticks().wrapping_mul(config.clock_scale).wrapping_add(offset) >> 32) as u32
}

/// All clocks at one moment, for user space to learn how long a tick is.
#[inline(always)]
pub fn sample() -> ClockSample {
    // SAFETY: these helpers take nothing and return a number.
    let (jiffies, nanoseconds) = unsafe { (bpf_jiffies64(), bpf_ktime_get_ns()) };
    ClockSample { jiffies, nanoseconds, ticks: ticks() }
}
