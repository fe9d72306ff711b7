//! What lines cost a matcher, with filters of Debian's fail2ban: 10,000 of them, of this thread's own time, so that a
//! busy machine does not count.
//!
//! `cargo bench -p fail2xdp --bench matcher`; the filters are looked for as by the tests (`FAIL2XDP_FAIL2BAN_TREE`).
use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fail2xdp::engine::{Matcher, Timestamp};
use jiff::tz::TimeZone;
use rustix::time::{ClockId, clock_gettime};

#[path = "../tests/peer/mod.rs"]
mod peer;

/// 21 November 2026, 14:00 UTC; the logs end here.
const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);
const LINES: usize = 10_000;

/// Other services of the same host.
const NOISE: [&str; 4] = [
    "web systemd[1]: Started Session 4711 of User deploy.",
    "web CRON[{p}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
    "web kernel: [12345.678901] TCP: request_sock_TCP: Possible SYN flooding on port 443. Sending cookies.",
    "web dhclient[812]: DHCPREQUEST for 192.0.2.77 on eth0 to 192.0.2.1 port 67",
];
/// sshd when nobody attacks.
const LOGINS: [&str; 4] = [
    "web sshd[{p}]: Accepted publickey for deploy from 198.51.100.{a} port 40022 ssh2: ED25519 SHA256:abcdefgh",
    "web sshd[{p}]: pam_unix(sshd:session): session opened for user deploy(uid=1000) by (uid=0)",
    "web sshd[{p}]: Received disconnect from 198.51.100.{a} port 40022:11: disconnected by user",
    "web sshd[{p}]: Disconnected from user deploy 198.51.100.{a} port 40022",
];
/// sshd under attack.
const ATTACK: [&str; 3] = [
    "web sshd[{p}]: Failed password for root from 203.0.113.{a} port 50022 ssh2",
    "web sshd[{p}]: Invalid user admin from 203.0.113.{a} port 50022",
    "web sshd[{p}]: Failed password for invalid user admin from 203.0.113.{a} port 50022 ssh2",
];

/// Lines of the last ten minutes, so many in a hundred of them of the second kind.
fn log(often: &[&str], rare: &[&str], percent: usize) -> Vec<String> {
    let lines = (0..LINES).map(|nth| {
        let of = if nth * 61 % 100 < percent { rare } else { often };
        let second = 600 * nth / LINES;
        let text = of[nth % of.len()]
            .replace("{p}", &(1_000 + nth % 9_000).to_string())
            .replace("{a}", &(nth % 250).to_string());
        format!("Nov 21 13:{:02}:{:02} {text}", 50 + second / 60, second % 60)
    });
    lines.collect()
}

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
        ("noise", log(&NOISE, &[], 0)),
        ("0 %", log(&LOGINS, &[], 0)),
        ("1 %", log(&LOGINS, &ATTACK, 1)),
        ("50 %", log(&LOGINS, &ATTACK, 50)),
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
