//! `explain ADDRESS`: the daemon's answer in words.
use std::{fmt::Write, process::ExitCode};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    cli::{Place, ask, status::escaped},
    clock,
    control::{
        explained::{Explained, Rule, Standing},
        wire,
    },
};

pub(super) fn run(place: &Place, address: &str) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/explain/{}", escaped(address));
    let explained = ask::get::<Explained>(place, &path)?;
    let now = clock::now().seconds();
    ask::print(place, &explained, |it| text(it, now, &TimeZone::system()));
    Ok(ExitCode::SUCCESS)
}

/// A heading with rows under it; nothing where there are none.
struct Block {
    head: String,
    rows: Vec<(String, String)>,
}

impl Block {
    fn new(head: String) -> Block {
        Block { head, rows: Vec::new() }
    }

    fn row(&mut self, name: &str, what: impl Into<String>) {
        self.rows.push((name.to_owned(), what.into()));
    }

    /// Rows under one name, each in a line of its own.
    fn list(&mut self, name: &str, rows: &[String]) {
        for (nth, row) in rows.iter().enumerate() {
            self.row(if nth == 0 { name } else { "" }, row);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let place = rule.place.as_ref().map_or(String::new(), |place| format!(", {place}"));
        self.row("Found by:", format!("failregex {}{place}", rule.number));
        self.row("", &rule.regex);
    }

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{}", self.head);
        for (nth, (name, what)) in self.rows.iter().enumerate() {
            let last = self.rows[nth + 1..].iter().all(|(name, _)| name.is_empty());
            let branch = match (name.is_empty(), last) {
                (false, true) => "`- ",
                (false, false) => "|- ",
                (true, true) => "   ",
                (true, false) => "|  ",
            };
            let _ = writeln!(text, "{branch}{name}\t{what}");
        }
    }
}

/// What is known of an address; `now` in Unix seconds.
pub(in crate::cli) fn text(explained: &Explained, now: i64, zone: &TimeZone) -> String {
    let time = |seconds: i64| match Timestamp::from_second(seconds) {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%F %T").to_string(),
        Err(_) => "out of range".into(),
    };
    let mut text = match explained.banned {
        true => format!("{} is banned\n", explained.address),
        false => format!("{} is not banned\n", explained.address),
    };
    if let Some(allowed) = &explained.allowed {
        let place = allowed.place.as_ref().map_or(String::new(), |place| format!(", {place}"));
        let _ = writeln!(
            text,
            "It is never dropped: {} is on the allow list ({}{place})",
            allowed.entry, allowed.reason
        );
    }
    for ban in &explained.bans {
        let jail = explained.jails.iter().find(|standing| standing.jail == ban.jail);
        banned(ban, jail, now, &time).write(&mut text);
    }
    for standing in &explained.jails {
        let block = standing_in_words(standing, now, &time);
        if !block.rows.is_empty() {
            block.write(&mut text);
        }
    }
    let mut past = Block::new("Bans remembered".into());
    for ban in explained.history.iter().flatten() {
        let until = ban.until.map_or("for ever".into(), |until| format!("until {}", time(until)));
        past.row(
            &format!("{}:", ban.jail),
            format!("{} of {}, the last from {} {until}", ban.bans, ban.prefix, time(ban.last)),
        );
    }
    if let Some(fault) = &explained.history_fault {
        past.row("Unknown:", fault);
    } else if past.rows.is_empty() {
        past.row("None", "");
    }
    past.write(&mut text);
    text
}

fn banned(
    ban: &wire::Ban,
    jail: Option<&Standing>,
    now: i64,
    time: &impl Fn(i64) -> String,
) -> Block {
    let mut block = Block::new(format!("Ban of {} by jail {}", ban.prefix, ban.jail));
    if let Some(place) = jail.and_then(|jail| jail.place.as_ref()) {
        block.row("Jail:", place);
    }
    block.row("Since:", time(ban.since));
    block.row(
        "Until:",
        match ban.until {
            Some(until) => format!("{} (another {})", time(until), span(until - now)),
            None => "for ever".into(),
        },
    );
    block.row("Drops:", &ban.scope);
    if ban.observe {
        block.row("Observe:", "it only counts: nothing is dropped for it");
    }
    let last = ban.last_packet.map_or(String::new(), |at| format!(", the last at {}", time(at)));
    if let Some(packets) = ban.packets.filter(|packets| *packets > 0 || !ban.observe) {
        block.row("Dropped so far:", format!("{packets} packets{last}"));
    }
    if let Some(packets) = ban.would_drop.filter(|packets| *packets > 0 || ban.observe) {
        block.row("Would have dropped:", format!("{packets} packets{last}"));
    }
    match ban.failures {
        0 => block.row("Failures:", "none known: banned by hand, or taken over from the kernel"),
        failures => block.row("Failures:", failures.to_string()),
    }
    if let Some(rule) = &ban.rule {
        block.rule(rule);
    }
    block.list("Addresses:", &ban.addresses);
    block.list("Lines:", &ban.lines);
    block
}

fn standing_in_words(standing: &Standing, now: i64, time: &impl Fn(i64) -> String) -> Block {
    let mut block = Block::new(format!("Jail {}", standing.jail));
    if let Some(spared) = &standing.spared {
        let place = spared.place.as_ref().map_or(String::new(), |place| format!(", {place}"));
        block.row("Not counted:", format!("{}{place}", spared.by));
    }
    if let Some(last) = standing.last {
        let of = if standing.prefix.contains('/') {
            format!(" of {}", standing.prefix)
        } else {
            String::new()
        };
        // A rate, not a window: what is too old to count is not yet taken out here.
        let over = if last + standing.find_time as i64 <= now { ", too long ago" } else { "" };
        block.row(
            "Counted:",
            format!(
                "{} of {} failures{of} in {}, the last at {}{over}",
                standing.attempts,
                standing.max_retry,
                span(standing.find_time as i64),
                time(last)
            ),
        );
        if let Some(rule) = &standing.rule {
            block.rule(rule);
        }
        block.list("Addresses:", &standing.addresses);
        block.list("Lines:", &standing.lines);
    }
    block
}

/// A time in its two largest units: `1h 30m`.
fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds.max(0);
    let mut parts = Vec::new();
    for (size, name) in units {
        if left >= size && parts.len() < 2 {
            parts.push(format!("{}{name}", left / size));
            left %= size;
        }
    }
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::explained::{Allowed, Past, Spared};

    fn standing(jail: &str) -> Standing {
        Standing {
            jail: jail.into(),
            place: Some("/etc/fail2xdp/jail.conf:7".into()),
            prefix: "2001:db8::/64".into(),
            max_retry: 5,
            find_time: 600,
            attempts: 0,
            failures: 0,
            first: None,
            last: None,
            rule: None,
            addresses: vec![],
            lines: vec![],
            spared: None,
        }
    }

    fn rule() -> Option<Rule> {
        Some(Rule {
            number: 3,
            regex: "^Failed password .* from <HOST>".into(),
            place: Some("/etc/fail2xdp/filter.d/sshd.conf:34".into()),
        })
    }

    #[test]
    fn a_ban_is_told_with_its_reason() {
        let ban = wire::Ban {
            prefix: "2001:db8::/64".into(),
            jail: "sshd".into(),
            since: 1000,
            until: Some(4600),
            failures: 5,
            count: 1,
            scope: "tcp:22".into(),
            packets: Some(17),
            would_drop: Some(0),
            observe: false,
            last_packet: Some(1234),
            addresses: vec!["2001:db8::5".into(), "2001:db8::7".into()],
            rule: rule(),
            lines: vec!["one".into(), "two".into()],
        };
        let explained = Explained {
            address: "2001:db8::5".into(),
            banned: true,
            bans: vec![ban],
            allowed: None,
            jails: vec![standing("sshd"), standing("other")],
            history: Some(vec![Past {
                jail: "sshd".into(),
                prefix: "2001:db8::/64".into(),
                bans: 2,
                last: 1000,
                until: Some(4600),
            }]),
            history_fault: None,
        };
        assert_eq!(
            text(&explained, 2000, &TimeZone::UTC),
            "2001:db8::5 is banned\n\
             Ban of 2001:db8::/64 by jail sshd\n\
             |- Jail:\t/etc/fail2xdp/jail.conf:7\n\
             |- Since:\t1970-01-01 00:16:40\n\
             |- Until:\t1970-01-01 01:16:40 (another 43m 20s)\n\
             |- Drops:\ttcp:22\n\
             |- Dropped so far:\t17 packets, the last at 1970-01-01 00:20:34\n\
             |- Failures:\t5\n\
             |- Found by:\tfailregex 3, /etc/fail2xdp/filter.d/sshd.conf:34\n\
             |  \t^Failed password .* from <HOST>\n\
             |- Addresses:\t2001:db8::5\n\
             |  \t2001:db8::7\n\
             `- Lines:\tone\n   \ttwo\n\
             Bans remembered\n\
             `- sshd:\t2 of 2001:db8::/64, the last from 1970-01-01 00:16:40 until 1970-01-01 01:16:40\n"
        );
    }

    #[test]
    fn who_is_not_banned_is_told_why_not() {
        let counted = Standing {
            attempts: 3,
            failures: 3,
            first: Some(1000),
            last: Some(1234),
            rule: rule(),
            lines: vec!["one".into()],
            ..standing("sshd")
        };
        let spared = Standing {
            spared: Some(Spared {
                by: "ignoreip 2001:db8::/32".into(),
                place: Some("/etc/fail2xdp/jail.local:2".into()),
            }),
            ..standing("web")
        };
        let explained = Explained {
            address: "2001:db8::5".into(),
            banned: false,
            bans: vec![],
            allowed: Some(Allowed {
                entry: "2001:db8::5".into(),
                reason: "default gateway".into(),
                place: None,
            }),
            jails: vec![counted, spared, standing("other")],
            history: None,
            history_fault: Some("nothing is stored".into()),
        };
        assert_eq!(
            text(&explained, 1300, &TimeZone::UTC),
            "2001:db8::5 is not banned\n\
             It is never dropped: 2001:db8::5 is on the allow list (default gateway)\n\
             Jail sshd\n\
             |- Counted:\t3 of 5 failures of 2001:db8::/64 in 10m, the last at 1970-01-01 00:20:34\n\
             |- Found by:\tfailregex 3, /etc/fail2xdp/filter.d/sshd.conf:34\n\
             |  \t^Failed password .* from <HOST>\n\
             `- Lines:\tone\n\
             Jail web\n\
             `- Not counted:\tignoreip 2001:db8::/32, /etc/fail2xdp/jail.local:2\n\
             Bans remembered\n\
             `- Unknown:\tnothing is stored\n"
        );
    }

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        let told = [0, 59, 60, 3600, 5400, 90_061].map(span);
        assert_eq!(told, ["0s", "59s", "1m", "1h", "1h 30m", "1d 1h"]);
    }
}
