//! The only reading of clocks; everything else is handed the time.
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Timestamp;

/// Where the wall-clock time comes from: [`now`], or a time that a test chose.
pub type Clock = fn() -> Timestamp;

/// The wall clock. A clock set before 1970 reads as negative microseconds.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads the clocks")]
pub fn now() -> Timestamp {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    Timestamp::from_micros(micros)
}

/// Whether somebody keeps the wall clock right, as the kernel knows it; `None` where it may not be asked.
pub fn is_synchronized() -> Option<bool> {
    // SAFETY: `timex` is plain numbers, for which zeros are values.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with `modes` zero the kernel only fills in what is behind the pointer, which lives until it returns.
    let state = unsafe { libc::adjtimex(&raw mut asked) };
    // TIME_ERROR is also what a clock is called that nobody has set (adjtimex(2)).
    (state >= 0).then_some(state != libc::TIME_ERROR && asked.status & libc::STA_UNSYNC == 0)
}

/// The clock that only goes forward, for waiting.
pub fn monotonic() -> Instant {
    Instant::now()
}
