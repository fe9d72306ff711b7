//! Promise: the same logs and jails lead fail2ban and `fail2xdp replay` to the same bans, of the same addresses, at the
//! same times, after the same number of failures. Half a million lines in all.
//!
//! fail2ban's server judges a log's lines against the time of now, and takes those of the last `findtime` as they are:
//! its logs are of the last 40 minutes, and `findtime` is an hour. Hours in which clocks change are past; for them
//! fail2ban's parts run without its threads, its clock set to the time of each line. There `findtime` and `bantime` are
//! short, so that rates decide, and bans end and are made anew.
mod logs;
mod samples;
mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fail2xdp_tests::{Fail2ban, ToldBan, binary, until};
use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::Value;

use self::{
    logs::{Dates, Log, Random, Scene, Service},
    samples::{Samples, samples},
    services::SERVICES,
};

/// Zone of machines whose zone does not matter.
const ZONE: &str = "Europe/Berlin";
/// Seconds of a log that fail2ban's server reads, up to a minute ago.
const RECENT: i64 = 2400;
/// Seconds of a log from the past: two thirds of them before the clock changes.
const PAST: i64 = 10_800;
/// Lines of each service: for fail2ban's server, in the past, and of samples.
const LINES: (usize, usize, usize) = (3_000, 10_000, 4_000);
/// Whom every jail bans last of all, so that the end of its log is known to be reached.
const LAST: &str = "198.51.100.250";

/// The jails of these services.
fn jails(folder: &Path, services: &[Service<'_>], common: &str) -> String {
    let mut jails = String::new();
    for Service { jail, filter, options, .. } in services {
        let log = folder.join(format!("{jail}.log"));
        let _ = writeln!(
            jails,
            "[{jail}]\nenabled = true\nfilter = {filter}\n{options}\n{common}logpath = {}",
            log.display()
        );
    }
    jails
}

/// Bans by fail2ban's server, which reads until every jail has banned the last one.
fn by_server(folder: &Path, services: &[Service<'_>]) -> BTreeSet<ToldBan> {
    let server = Fail2ban::start(folder, ZONE);
    let last: IpAddr = LAST.parse().expect("an address");
    until(Duration::from_secs(500), "fail2ban has read all logs", || {
        let bans = server.bans();
        let jails: BTreeSet<&str> =
            bans.iter().filter(|ban| ban.1 == last).map(|ban| ban.0.as_str()).collect();
        (jails.len() == services.len()).then_some(bans)
    })
}

/// Bans by `fail2xdp replay`.
fn by_replay(folder: &Path, services: &[Service<'_>], zone: &str) -> BTreeSet<ToldBan> {
    let mut bans = BTreeSet::new();
    for service in services {
        let log = folder.join(format!("{}.log", service.jail));
        let output = Command::new(binary())
            .args(["replay", "--json", "--jail", service.jail, "--config"])
            .arg(folder.join("etc"))
            .arg(log)
            .env("TZ", zone)
            .stderr(Stdio::inherit())
            .output()
            .expect("we start");
        assert!(output.status.success(), "{}", service.jail);
        for line in String::from_utf8(output.stdout).expect("JSON is UTF-8").lines() {
            let event: Value = serde_json::from_str(line).expect("JSON");
            if event["event"] == "ban" {
                let address = event["address"].as_str().and_then(|text| text.parse().ok());
                let time = event["time"].as_f64().expect("a number") as i64;
                let jail = event["jail"].as_str().expect("a name").to_owned();
                let failures = event["failures"].as_u64().expect("a number");
                bans.insert((jail, address.expect("an address"), time, failures));
            }
        }
    }
    bans
}

/// Whose bans differ; keeps the logs if any do.
fn agree(
    what: &str,
    folder: tempfile::TempDir,
    ours: (&BTreeSet<ToldBan>, Duration),
    theirs: (&BTreeSet<ToldBan>, Duration),
) {
    let ((ours, our_time), (theirs, their_time)) = (ours, theirs);
    eprintln!("{what}: {} bans; we took {our_time:?}, fail2ban {their_time:?}", ours.len());
    let whose = |ban| if ours.contains(ban) { "only we" } else { "only fail2ban" };
    let wrong: Vec<String> = ours
        .symmetric_difference(theirs)
        .map(|ban| format!("{} {:?} {} {} {}", whose(ban), ban.0, ban.1, ban.2, ban.3))
        .collect();
    if !wrong.is_empty() {
        panic!(
            "{what}: {} bans differ of {}; the logs are in `{}`:\n{}",
            wrong.len(),
            theirs.len(),
            folder.keep().display(),
            wrong[..wrong.len().min(30)].join("\n")
        );
    }
}

/// Every one of these jails has banned some.
fn all_ban(bans: &BTreeSet<ToldBan>, services: &[Service<'_>]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (jail, ..) in bans {
        *counts.entry(jail).or_default() += 1;
    }
    assert!(
        counts.len() == services.len() && counts.values().all(|bans| *bans > 5),
        "too few bans: {counts:?}"
    );
}

#[test]
fn recent_logs_lead_to_the_bans_of_fail2bans_server() {
    let folder = tempfile::tempdir().expect("a directory");
    Fail2ban::configure(folder.path(), &jails(folder.path(), &SERVICES, ""));
    let start = fail2xdp_tests::now() as i64 - RECENT - 60;
    let scene = Scene { zone: ZONE, offset: None, start, span: RECENT, fraction: true };
    let lines = if full() { 32_000 } else { LINES.0 };
    for (nth, service) in SERVICES.iter().enumerate() {
        let mut random = seeded(0, nth);
        let mut log = Log::of(service, lines, &scene, &mut random);
        log.end(LAST, service, &scene, &mut random);
        let path = folder.path().join(format!("{}.log", service.jail));
        fs::write(path, log.text).expect("room for a log");
    }
    let began = Instant::now();
    let ours = by_replay(folder.path(), &SERVICES, ZONE);
    let our_time = began.elapsed();
    let began = Instant::now();
    let theirs = by_server(folder.path(), &SERVICES);
    all_ban(&ours, &SERVICES);
    agree("recent", folder, (&ours, our_time), (&theirs, began.elapsed()));
}

/// Random numbers for one log of one test; `FAIL2XDP_SEED` chooses others.
fn seeded(test: u64, log: usize) -> Random {
    let seed = std::env::var("FAIL2XDP_SEED").ok().and_then(|seed| seed.parse().ok());
    Random((seed.unwrap_or(6) * 100 + test) * 100 + log as u64 + 1)
}

fn full() -> bool {
    std::env::var_os("FAIL2XDP_FULL").is_some()
}

/// Makes logs of a scene, plays them to both, and compares; with the bans.
fn play(
    (seed, what): (u64, &str),
    services: &[Service<'_>],
    lines: usize,
    scene: &Scene,
    options: &str,
) -> BTreeSet<ToldBan> {
    let folder = tempfile::tempdir().expect("a directory");
    let options = format!("findtime = 600\nbantime = 300\n{options}");
    Fail2ban::configure(folder.path(), &jails(folder.path(), services, &options));
    for (nth, service) in services.iter().enumerate() {
        let mut random = seeded(seed, nth);
        let log = Log::of(service, lines, scene, &mut random);
        let path = folder.path().join(format!("{}.log", service.jail));
        fs::write(&path, log.text).expect("room for a log");
        let times: String = log.times.iter().map(|time| format!("{time}\n")).collect();
        fs::write(path.with_extension("times"), times).expect("room for its times");
    }
    let began = Instant::now();
    let ours = by_replay(folder.path(), services, scene.zone);
    let our_time = began.elapsed();
    let began = Instant::now();
    let names: Vec<&str> = services.iter().map(|service| service.jail).collect();
    let theirs = Fail2ban::play(folder.path(), scene.zone, &names);
    agree(what, folder, (&ours, our_time), (&theirs, began.elapsed()));
    ours
}

/// Hours around `at`.
fn around(zone: &'static str, at: i64) -> Scene {
    Scene { zone, offset: None, start: at - PAST * 2 / 3, span: PAST, fraction: false }
}

/// When clocks in `zone` were last set forward or back.
fn changed(zone: &'static str, forward: bool) -> Scene {
    let all = TimeZone::get(zone).expect("a zone that is known");
    let end = Timestamp::from_second(fail2xdp_tests::now() as i64 - PAST).expect("of our days");
    let before = |at: Timestamp| all.to_offset(at - Duration::from_secs(1));
    let change =
        all.preceding(end).find(|change| (change.offset() > before(change.timestamp())) == forward);
    around(zone, change.expect("clocks were set").timestamp().as_second())
}

#[test]
fn an_hour_that_spring_leaves_out() {
    let bans = play((1, "spring"), &SERVICES, LINES.1, &changed(ZONE, true), "");
    all_ban(&bans, &SERVICES);
}

#[test]
fn an_hour_that_autumn_has_twice() {
    let bans = play((2, "autumn"), &SERVICES, LINES.1, &changed(ZONE, false), "");
    all_ban(&bans, &SERVICES);
}

#[test]
fn half_an_hour_that_autumn_has_twice() {
    // Where clocks are set by 30 minutes, and stand on half hours.
    let bans = play((3, "half"), &SERVICES, LINES.1, &changed("Australia/Lord_Howe", false), "");
    all_ban(&bans, &SERVICES);
}

#[test]
fn a_new_year() {
    let now = fail2xdp_tests::now() as i64;
    let zone = TimeZone::get(ZONE).expect("a zone that is known");
    let year = Timestamp::from_second(now).expect("of our days").to_zoned(zone.clone()).year();
    let midnight = civil::date(year, 1, 1).to_zoned(zone).expect("a midnight");
    // In a year's first hours it lies too near.
    let midnight = midnight.timestamp().as_second().min(now - PAST);
    all_ban(&play((4, "new year"), &SERVICES, LINES.1, &around(ZONE, midnight), ""), &SERVICES);
}

#[test]
fn logs_of_another_time_zone() {
    let yesterday = fail2xdp_tests::now() as i64 - 86_400;
    let scene = Scene { offset: Some(-12_600), ..around(ZONE, yesterday) };
    let options = "logtimezone = UTC-03:30\n";
    all_ban(&play((5, "zone"), &SERVICES, LINES.1, &scene, options), &SERVICES);
}

#[test]
fn samples_with_other_addresses_and_accidents() {
    let samples = samples();
    let said: Vec<Vec<Vec<&str>>> = samples.iter().map(Samples::texts).collect();
    let attacks: Vec<Vec<&[&str]>> =
        said.iter().map(|sessions| sessions.iter().map(Vec::as_slice).collect()).collect();
    let services: Vec<Service<'_>> = samples
        .iter()
        .zip(&attacks)
        .enumerate()
        .map(|(nth, (of, attacks))| Service {
            jail: &of.filter,
            filter: &of.filter,
            options: "maxretry = 3",
            dates: [Dates::Syslog, Dates::Plain, Dates::Iso][nth % 3],
            attacks,
            noise: &[],
        })
        .collect();
    assert!(services.len() >= 25, "only {} filters have samples", services.len());
    let scene = around(ZONE, fail2xdp_tests::now() as i64 - 86_400);
    play((6, "samples"), &services, LINES.2, &scene, "");
}
