//! The kernel's clock: Unix seconds made from jiffies by one multiplication and one offset.
//!
//! The program computes `(ticks * scale + offset) >> 32`. The offset carries wall-clock seconds in 32.32 fixed point;
//! it is renewed every minute, when the wall clock steps and after a suspend, by one atomic store.
use std::time::{Duration, Instant};

use fail2xdp_common::report::ClockSample;

use crate::engine::Timestamp;

/// Values of `CONFIG_HZ` that Linux offers on any machine.
const FREQUENCIES: [u32; 10] = [24, 32, 48, 64, 100, 128, 250, 300, 1000, 1024];

/// How often the offset is renewed: rounding alone costs 6 ms a day at most, the wall clock's slewing 30 ms a minute.
const RENEWAL: Duration = Duration::from_secs(60);

/// A wall clock that moved by more than this against the monotonic one was set.
pub(super) const STEP: Duration = Duration::from_millis(20);

/// Which of the kernel's counters the program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// Jiffies at this frequency.
    Jiffies {
        /// Ticks a second.
        frequency: u32,
    },
    /// The coarse monotonic clock, in units of 2^20 ns.
    Coarse,
}

impl Ticks {
    /// Finds the frequency of jiffies from one sample, or decides for the coarse clock where none fits well.
    ///
    /// Jiffies start at 2^32 − 300 · HZ (`INITIAL_JIFFIES`), so one sample tells frequencies apart from the first
    /// second on. The rate of two samples would not: under emulation it was once wrong by a fifth.
    pub fn of(sample: ClockSample) -> Ticks {
        let distance = |frequency: u32| {
            let since_start =
                i128::from(sample.jiffies) - ((1 << 32) - 300 * i128::from(frequency));
            (since_start - i128::from(sample.nanoseconds) * i128::from(frequency) / 1_000_000_000)
                .unsigned_abs()
        };
        let mut ranked = FREQUENCIES.map(|frequency| (distance(frequency), frequency));
        ranked.sort_unstable();
        let [(best, frequency), (second, _), ..] = ranked;
        if best < second / 10 { Ticks::Jiffies { frequency } } else { Ticks::Coarse }
    }

    /// Seconds a tick, in 32.32 fixed point, rounded down.
    pub fn scale(self) -> u64 {
        match self {
            Ticks::Jiffies { frequency } => (1 << 32) / u64::from(frequency),
            Ticks::Coarse => (1 << 52) / 1_000_000_000,
        }
    }

    /// The offset with which the kernel's clock shows `now` when its counter stands at `ticks`.
    pub fn offset(self, ticks: u64, now: Timestamp) -> u64 {
        fixed(now).wrapping_sub(ticks.wrapping_mul(self.scale()))
    }
}

/// Unix time in 32.32 fixed point; the seconds wrap in 2106, as `until` does.
pub fn fixed(time: Timestamp) -> u64 {
    ((i128::from(time.micros()) << 32).div_euclid(1_000_000)) as u64
}

/// Knows when the offset is due again.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    at: Instant,
    wall: Timestamp,
}

impl Renewal {
    /// The offset was written when the wall clock said `wall` and the monotonic one `at`.
    pub fn done(at: Instant, wall: Timestamp) -> Renewal {
        Renewal { at, wall }
    }

    /// Whether a minute has passed, or the wall clock was set in between.
    pub fn is_due(&self, at: Instant, wall: Timestamp) -> bool {
        at.saturating_duration_since(self.at) >= RENEWAL
            || self.step(at, wall).unsigned_abs() > STEP.as_micros()
    }

    /// By how many microseconds the wall clock ran ahead of the monotonic one since.
    pub fn step(&self, at: Instant, wall: Timestamp) -> i128 {
        let passed = at.saturating_duration_since(self.at).as_micros() as i128;
        i128::from(wall.micros()) - i128::from(self.wall.micros()) - passed
    }

    /// What the wall clock says at a moment, unless it was set since.
    pub fn wall_at(&self, at: Instant) -> Timestamp {
        self.wall.plus(at.saturating_duration_since(self.at))
    }

    /// When a minute will have passed.
    pub fn next(&self) -> Instant {
        self.at + RENEWAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that has been up for so long, its jiffies off by so many ticks.
    fn sample(frequency: u32, up: Duration, off: i64) -> ClockSample {
        let ticks = up.as_nanos() * u128::from(frequency) / 1_000_000_000;
        let jiffies = ((1u64 << 32) - 300 * u64::from(frequency)) + ticks as u64;
        ClockSample {
            jiffies: jiffies.wrapping_add_signed(off),
            nanoseconds: up.as_nanos() as u64,
            ticks: 0,
        }
    }

    #[test]
    fn one_sample_tells_the_frequency() {
        for frequency in FREQUENCIES {
            for seconds in [0, 1, 10, 86_400, 5 * 365 * 86_400] {
                for off in [-72, 0, 72] {
                    let seen = Ticks::of(sample(frequency, Duration::from_secs(seconds), off));
                    assert_eq!(
                        seen,
                        Ticks::Jiffies { frequency },
                        "{seconds} s up, {off} ticks off"
                    );
                }
            }
        }
    }

    #[test]
    fn jiffies_that_fit_no_frequency_are_not_trusted() {
        assert_eq!(
            Ticks::of(ClockSample { nanoseconds: 1 << 50, ..ClockSample::default() }),
            Ticks::Coarse
        );
        assert_eq!(Ticks::of(sample(177, Duration::from_secs(3600), 0)), Ticks::Coarse);
    }

    #[test]
    fn the_clock_shows_the_wall_clock_and_stays_close_for_a_day() {
        for ticks in [Ticks::Coarse]
            .into_iter()
            .chain(FREQUENCIES.map(|frequency| Ticks::Jiffies { frequency }))
        {
            let frequency = match ticks {
                Ticks::Jiffies { frequency } => frequency,
                Ticks::Coarse => 100,
            };
            let now = Timestamp::from_micros(1_795_270_000_123_456);
            let reading = |seconds| {
                let then = sample(frequency, Duration::from_secs(seconds), 0);
                if ticks == Ticks::Coarse { then.nanoseconds >> 20 } else { then.jiffies }
            };
            let offset = ticks.offset(reading(1000), now);
            // What the program computes.
            let shown = |seconds| reading(seconds).wrapping_mul(ticks.scale()).wrapping_add(offset);
            assert_eq!(shown(1000), fixed(now));
            let late = fixed(now.plus(Duration::from_secs(86_400))) - shown(1000 + 86_400);
            assert!(
                late < (1u64 << 32) / 70,
                "{ticks:?}: {} ms late after a day",
                (late * 1000) >> 32
            );
        }
    }

    #[test]
    fn an_hour_forth_and_back_is_followed() {
        let start = Instant::now();
        let wall = Timestamp::from_seconds(1_795_270_000);
        let renewal = Renewal::done(start, wall);
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        assert!(!renewal.is_due(start + second, wall.plus(second)));
        assert!(renewal.is_due(start + second, wall.plus(second).plus(hour)));
        assert!(renewal.is_due(start + second, wall.plus(second).minus(hour)));
        assert!(renewal.is_due(start + RENEWAL, wall.plus(RENEWAL)));
        // A suspend: the wall clock goes on, the monotonic one stands.
        assert!(renewal.is_due(start, wall.plus(hour)));
        assert_eq!(renewal.step(start + second, wall), -1_000_000);
    }
}
