//! Lines that match nothing cost no allocation, however near they come; counted by the allocator.
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use fail2xdp::engine::{Matcher, Timestamp};
use jiff::tz::TimeZone;

mod peer;

/// Counts what this thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// 21 November 2026, 14:00 UTC.
const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);

/// Nothing of the service; of the service, and harmless; as far as a failregex's words.
const LINES: [&str; 7] = [
    "Nov 21 13:59:59 web systemd[1]: Started Session 4711 of User deploy.",
    "Nov 21 13:59:59 web CRON[12]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
    "Nov 21 13:59:59 web sshd[77]: Server listening on 0.0.0.0 port 22.",
    "Nov 21 13:59:59 web sshd[77]: error: something else failed here",
    "2026-11-21T13:59:59.123456+00:00 web sshd[77]: Server listening on :: port 22.",
    "Nov 21 13:59:59 web tool[9]: Failed password for nobody at all",
    "Nov 21 13:59:59 wéb sshd[77]: Failed password for nobody at all",
];

#[test]
fn a_line_that_matches_nothing_costs_no_allocation() {
    for mut jail in [peer::jail("sshd", &[]), peer::shipped("sshd", &[])] {
        jail.find_time = Duration::from_secs(3_600);
        let (mut matcher, errors) = Matcher::new(&jail, TimeZone::UTC);
        assert!(errors.is_empty(), "{errors:?}");
        let mut found = Vec::new();
        let block: String = LINES.iter().map(|line| format!("{line}\n")).collect();
        let mut read = |matcher: &mut Matcher| {
            for line in LINES {
                matcher.line(line, None, NOW, true, &mut found);
                matcher.line(line, Some(NOW), NOW, true, &mut found);
                matcher.line_after(&block, line, NOW, true, &mut found);
            }
            matcher.passed(&block, NOW, true);
        };
        // The engines get their memory with the first lines.
        for _ in 0..100 {
            read(&mut matcher);
        }
        let before = ASKED.get();
        assert!(before > 0, "it counts");
        for _ in 0..100 {
            read(&mut matcher);
        }
        assert_eq!(ASKED.get() - before, 0);
        assert!(found.is_empty() && matcher.counts().lines > 1_000, "{found:?}");
    }
}
