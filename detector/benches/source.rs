//! How fast lines come from a file: CPU time for each line of a big log, alone and with Debian's sshd filter, and the time
//! from an append to its report.
//!
//! `cargo bench -p fail2xdp --bench source`; every number is printed with its unit. The filter is looked for as by the
//! tests (`FAIL2XDP_FAIL2BAN_TREE`).
use std::{
    fs::{self, File, OpenOptions},
    hint::black_box,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use fail2xdp::{
    clock,
    config::{
        BanTime, FilterSettings, JailName, JailSettings, LogPath, Scope, SourceSettings, UseDns,
    },
    engine::{FailureId, Finding, Matcher, Timestamp},
    source::{LineMatcher, Positions, Readers, Report},
};
use jiff::tz::TimeZone;
use tokio::sync::mpsc::{Receiver, channel};

mod lines;
#[path = "../tests/peer/mod.rs"]
mod peer;

use lines::{ATTACK, LOGINS, NOISE, NOW, log};

/// Lines of the logs that are read with a filter.
const FILTERED: usize = 400_000;

/// Finds a failure in lines that end in `!`, so that it costs next to nothing itself.
struct LastByte;

impl LineMatcher for LastByte {
    fn line(
        &mut self,
        line: &str,
        _: Option<Timestamp>,
        now: Timestamp,
        _: bool,
        out: &mut Vec<Finding>,
    ) {
        if black_box(line).ends_with('!') {
            out.push(Finding {
                jail: JailName::new("bench"),
                who: FailureId::Text("x".into()),
                at: now,
                lines: Vec::new(),
                rule: 0,
                fields: Vec::new(),
            });
        }
    }

    fn time_of(&mut self, _: &str, _: Timestamp) -> Option<Timestamp> {
        // Every line counts, so that the log is read whole.
        Some(Timestamp::from_micros(i64::MAX))
    }
}

fn start(log: &Path) -> (Readers, Receiver<Report>) {
    let pattern = log.to_string_lossy().into_owned();
    let settings = JailSettings {
        name: JailName::new("bench"),
        place: None,
        filter: FilterSettings {
            name: "bench".into(),
            prefregex: None,
            failregex: Vec::new(),
            ignoreregex: Vec::new(),
            max_lines: 1,
            date_patterns: Vec::new(),
            use_dns: UseDns::No,
            time_zone: None,
        },
        source: SourceSettings::Files {
            paths: vec![LogPath { pattern, tail: false, place: None }],
            encoding: "auto".into(),
        },
        max_retry: 1,
        find_time: Duration::from_secs(600),
        ban_time: BanTime::Seconds(600),
        increment: None,
        max_matches: 1,
        ignore: Vec::new(),
        ignore_self: false,
        ignore_command: None,
        ignore_cache: None,
        scope: Scope::EveryPacket,
        actions: Vec::new(),
        ipv6_prefix: 128,
        silence: None,
        observe: false,
    };
    let (to, reports) = channel(4096);
    (Readers::start(vec![(settings, LastByte)], Positions::default(), to, clock::now), reports)
}

fn wait(reports: &mut Receiver<Report>, wanted: impl Fn(&Report) -> bool) {
    while !wanted(&reports.blocking_recv().expect("the reader lives")) {}
}

/// CPU time of all threads of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn read_big_log(dir: &Path) {
    const LINES: u32 = 1_000_000;
    let log = dir.join("big");
    let line = "Nov 20 12:00:00 host sshd[12345]: Accepted publickey for someone from 192.0.2.7 port 40000";
    let mut text = String::new();
    for number in 0..LINES {
        text += line;
        text += &format!("{number:8}\n");
    }
    fs::write(&log, &text).expect("written");
    let wall = Instant::now();
    let mut count = 0;
    for line in black_box(&text).lines() {
        count += black_box(line).len();
    }
    let memory = wall.elapsed() / LINES;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let before = cpu();
        let (readers, mut reports) = start(&log);
        wait(&mut reports, |report| matches!(report, Report::CaughtUp { .. }));
        best = best.min(cpu() - before);
        readers.stop();
    }
    println!(
        "a line of {} bytes: {:?} of CPU (str::lines in memory: {memory:?})",
        count as u32 / LINES,
        best / LINES
    );
}

fn read_with_filter(dir: &Path, name: &str, lines: &[String]) {
    let path = dir.join("sshd");
    fs::write(&path, lines.join("\n") + "\n").expect("written");
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut jail = peer::jail("sshd", &[]);
        jail.find_time = Duration::from_secs(3_600);
        let pattern = path.to_string_lossy().into_owned();
        let paths = vec![LogPath { pattern, tail: false, place: None }];
        jail.source = SourceSettings::Files { paths, encoding: "auto".into() };
        let (matcher, errors) = Matcher::new(&jail, TimeZone::UTC);
        assert!(errors.is_empty(), "{errors:?}");
        let (to, mut reports) = channel(4096);
        let before = cpu();
        let readers = Readers::start(vec![(jail, matcher)], Positions::default(), to, || NOW);
        wait(&mut reports, |report| matches!(report, Report::CaughtUp { .. }));
        best = best.min(cpu() - before);
        readers.stop();
    }
    println!("sshd, {name}: {:?} of CPU a line", best / u32::try_from(lines.len()).expect("few"));
}

fn append_to_report(dir: &Path, pause: Duration, what: &str) {
    const ROUNDS: usize = 2000;
    let log = dir.join("small");
    File::create(&log).expect("made");
    let (readers, mut reports) = start(&log);
    wait(&mut reports, |report| matches!(report, Report::CaughtUp { .. }));
    let mut writer = OpenOptions::new().append(true).open(&log).expect("opened");
    let mut times = Vec::with_capacity(ROUNDS);
    let before = cpu();
    for _ in 0..ROUNDS {
        std::thread::sleep(pause);
        let written = Instant::now();
        writer.write_all(b"Nov 20 12:00:00 host sshd[12345]: Failed password!\n").expect("written");
        wait(&mut reports, |report| matches!(report, Report::Finding(_)));
        times.push(written.elapsed());
    }
    let cpu = (cpu() - before) / ROUNDS as u32;
    times.sort();
    let at = |share: usize| times[(ROUNDS - 1) * share / 1000];
    println!(
        "append to report, {what}: p50 {:?}, p99 {:?}, worst {:?}; {cpu:?} of CPU each",
        at(500),
        at(990),
        at(1000)
    );
    readers.stop();
}

fn idle(dir: &Path) {
    let switches = || {
        let status = fs::read_dir("/proc/self/task").expect("readable").flatten();
        let status = status.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        let of = |status: String| {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
            line.split_whitespace().last()?.parse::<u64>().ok()
        };
        status.filter_map(of).sum::<u64>()
    };
    let log = dir.join("idle");
    File::create(&log).expect("made");
    let (readers, mut reports) = start(&log);
    wait(&mut reports, |report| matches!(report, Report::CaughtUp { .. }));
    std::thread::sleep(Duration::from_millis(100));
    let before = switches();
    std::thread::sleep(Duration::from_secs(5));
    // This thread's own waking is one of them.
    println!("idle: {} wake-ups in 5 s", switches() - before - 1);
    readers.stop();
}

fn main() {
    let dir = tempfile::tempdir().expect("a directory for the benchmark");
    read_big_log(dir.path());
    for (name, lines) in [
        ("noise", log(&NOISE, &[], 0, FILTERED)),
        ("0 %", log(&LOGINS, &[], 0, FILTERED)),
        ("1 %", log(&LOGINS, &ATTACK, 1, FILTERED)),
        ("50 %", log(&LOGINS, &ATTACK, 50, FILTERED)),
    ] {
        read_with_filter(dir.path(), name, &lines);
    }
    append_to_report(dir.path(), Duration::from_micros(1), "one after another");
    append_to_report(dir.path(), Duration::from_millis(2), "after 2 ms of quiet");
    idle(dir.path());
}
