//! Waiting for what must come true.
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Time between two looks: short beside everything that is waited for, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives something; `None` once `limit` has passed.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(PAUSE);
    }
}

/// Looks until `look` gives something; fails the test with `what` once `limit` has passed.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    match within(limit, look) {
        Some(seen) => seen,
        None => panic!("not within {limit:?}: {what}"),
    }
}
