//! What lines cost a matcher, with filters of Debian's fail2ban: 10,000 of them, of this thread's own time, so that a
//! busy machine does not count.
//!
//! `cargo bench -p fail2xdp --bench matcher`; the filters are looked for as by the tests (`FAIL2XDP_FAIL2BAN_TREE`).
use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fail2xdp::engine::Matcher;
use jiff::tz::TimeZone;
use rustix::time::{ClockId, clock_gettime};

mod lines;
#[path = "../tests/peer/mod.rs"]
mod peer;

use lines::{ATTACK, LOGINS, NOISE, NOW, log};

const LINES: usize = 10_000;

/// What this thread has spent.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (time.tv_sec.try_into(), time.tv_nsec.try_into());
    Duration::new(seconds.expect("not negative"), nanos.expect("below a second"))
}

fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sshd");
    group.throughput(Throughput::Elements(LINES as u64));
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    let logs = [
        ("noise", log(&NOISE, &[], 0, LINES)),
        ("0 %", log(&LOGINS, &[], 0, LINES)),
        ("1 %", log(&LOGINS, &ATTACK, 1, LINES)),
        ("50 %", log(&LOGINS, &ATTACK, 50, LINES)),
    ];
    for (name, lines) in &logs {
        let mut jail = peer::jail("sshd", &[]);
        jail.find_time = Duration::from_secs(3_600);
        let (mut matcher, errors) = Matcher::new(&jail, TimeZone::UTC);
        assert!(errors.is_empty(), "{errors:?}");
        let mut found = Vec::new();
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|times| {
                let start = spent();
                for _ in 0..times {
                    for line in lines {
                        matcher.line(black_box(line), None, NOW, false, &mut found);
                    }
                    found.clear();
                }
                spent() - start
            });
        });
    }
    group.finish();
}

criterion_group!(benches, measure);
criterion_main!(benches);
