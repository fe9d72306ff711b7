use std::path::Path;

use super::*;
use crate::{
    config::{self, ReadFault, Tree},
    engine::Until,
};

const NOON: i64 = 1_795_176_000;

/// A jail file and a filter.
struct Small(&'static str);

impl Tree for Small {
    fn root(&self) -> &Path {
        Path::new("/small")
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(match file.to_str() {
            Some("/small/jail.conf") => Some(self.0.as_bytes().to_vec()),
            Some("/small/filter.d/f.conf") => {
                Some(b"[Definition]\nfailregex = ^ bad <HOST>$\ndatepattern = ^EPOCH\n".to_vec())
            }
            _ => None,
        })
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadFault> {
        Ok(Vec::new())
    }
}

/// The world outside: one name, and one who is never counted.
struct Known;

impl Outside for Known {
    fn resolve(&mut self, name: &str) -> Vec<IpAddr> {
        match name {
            "two.example" => vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])],
            _ => Vec::new(),
        }
    }

    fn ask(&mut self, question: &Question) -> Answer {
        if question.script.ends_with("192.0.2.7") { Answer::Ignore } else { Answer::Count }
    }
}

/// What happens with lines written so many seconds after noon.
#[track_caller]
fn check(options: &'static str, lines: &[(i64, &str)], expect: &str) {
    let loaded = config::load(&Small(options)).expect("the jail holds together");
    let present = Timestamp::from_seconds(NOON + 100_000);
    let (mut replay, faults) = Replay::new(&loaded.settings.jails, Limits::default(), present);
    assert!(faults.is_empty(), "{faults:?}");
    let mut out = Vec::new();
    for (after, rest) in lines {
        let line = format!("{} {rest}", NOON + after);
        let at = replay.time_of(&line);
        replay.line(&line, at, false, 0..1, &mut Known, &mut out);
    }
    replay.end(&mut Known, &mut out);
    let shown: Vec<String> = out
        .iter()
        .map(|happening| match happening {
            Happening::Finding { finding, attempts, spared } => {
                let count = attempts.map_or(format!("{spared:?}"), |count| count.to_string());
                format!("{} {count}", finding.who)
            }
            Happening::Ban { ban, prolonged, .. } => {
                let until = match ban.until {
                    Until::At(at) => (at.seconds() - NOON).to_string(),
                    Until::Forever => "ever".to_owned(),
                };
                let since = ban.since.seconds() - NOON;
                let prolonged = if *prolonged { "+" } else { "" };
                format!("ban{prolonged} {} {since}-{until} {}", ban.prefix.addr(), ban.failures)
            }
            Happening::Unban { ban, .. } => format!("unban {}", ban.prefix.addr()),
        })
        .collect();
    assert_eq!(shown.join(", "), expect);
}

const JAIL: &str = "[j]\nenabled = true\nfilter = f\nmaxretry = 2\nfindtime = 60\nbantime = 100\nignoreip = 192.0.2.9\n";

#[test]
fn bans_come_and_go_in_the_time_of_the_log() {
    check(
        JAIL,
        &[(0, "bad 192.0.2.1"), (1, "good"), (5, "bad 192.0.2.1"), (300, "bad 192.0.2.2")],
        "192.0.2.1 1, 192.0.2.1 2, ban 192.0.2.1 5-105 2, unban 192.0.2.1, 192.0.2.2 1",
    );
}

#[test]
fn a_ban_that_outlasts_the_log_ends_by_now_or_stays() {
    check(
        "[j]\nenabled = true\nfilter = f\nmaxretry = 1\nbantime = 200000\n",
        &[(0, "bad 192.0.2.1")],
        "192.0.2.1 1, ban 192.0.2.1 0-200000 1",
    );
}

#[test]
fn who_is_ignored_is_told_and_not_counted() {
    check(
        JAIL,
        &[(0, "bad 192.0.2.9"), (1, "bad 192.0.2.9")],
        "192.0.2.9 Some(IgnoreIp(192.0.2.9/32)), 192.0.2.9 Some(IgnoreIp(192.0.2.9/32))",
    );
}

#[test]
fn a_name_is_each_of_its_addresses() {
    check(
        "[j]\nenabled = true\nfilter = f\nmaxretry = 1\nbantime = 200000\n",
        &[(0, "bad two.example"), (1, "bad none.example")],
        "192.0.2.1 1, ban 192.0.2.1 0-200000 1, 192.0.2.2 1, ban 192.0.2.2 0-200000 1",
    );
}

#[test]
fn a_date_from_the_future_does_not_move_the_clock() {
    check(
        JAIL,
        &[(0, "bad 192.0.2.1"), (500_000, "bad 192.0.2.2"), (5, "bad 192.0.2.1")],
        "192.0.2.1 1, 192.0.2.2 1, 192.0.2.1 2, ban 192.0.2.1 5-105 2, unban 192.0.2.1",
    );
}

#[test]
fn the_second_of_two_hours_begins_where_the_clock_goes_back() {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a POSIX zone");
    // 26 October 2025: at 01:00 UTC 03:00 becomes 02:00.
    let turn = 1_761_440_400;
    let check = |before: i64, at: i64, expect: i64| {
        let second = |after: i64| Timestamp::from_seconds(turn + after);
        assert_eq!(in_order(second(at), second(before), &zone), second(expect), "{before} {at}");
    };
    // 02:59:59 and 02:00:00, of which the first 02:00:00 is read.
    check(-1, -3600, 0);
    check(10, -3590, 10);
    check(-1, -2, -2);
    check(-3000, -3590, -3590 + 3600);
    check(-3000, -3050, -3050);
    // Of an hour that comes once nothing is said twice.
    check(3601, 3500, 3500);
    check(7200, 3601, 3601);
    check(-3601, -7200, -7200);
}

#[test]
fn an_ignorecommand_is_asked() {
    check(
        "[j]\nenabled = true\nfilter = f\nmaxretry = 1\nbantime = 200000\nignorecommand = check <ip>\n",
        &[(0, "bad 192.0.2.7"), (1, "bad 192.0.2.8")],
        "192.0.2.7 Some(Command), 192.0.2.8 1, ban 192.0.2.8 1-200001 1",
    );
}

#[test]
fn bans_grow_in_the_time_of_the_log() {
    check(
        "[j]\nenabled = true\nfilter = f\nmaxretry = 2\nfindtime = 60\nbantime = 100\nbantime.increment = true\n",
        &[(0, "bad 192.0.2.1"), (1, "bad 192.0.2.1"), (200, "bad 192.0.2.1"), (500, "good")],
        "192.0.2.1 1, 192.0.2.1 2, ban 192.0.2.1 1-101 2, unban 192.0.2.1, \
         192.0.2.1 1, ban 192.0.2.1 200-400 2, unban 192.0.2.1",
    );
}
