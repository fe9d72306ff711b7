//! `ban`, `unban`, `bans`, `banned`.
use std::{fmt::Write, io::BufRead, process::ExitCode};

use anyhow::Context;
use clap::Args;
use ipnet::IpNet;
use jiff::{Timestamp, tz::TimeZone};

use super::{Place, ask};
use crate::{config, control::wire};

/// Addresses behind a prefix that are listed; `--json` has all that are known.
const SHOWN: usize = 5;

#[derive(Args, Debug)]
pub(super) struct BanArgs {
    /// Addresses or networks; `-` reads them from standard input, one a line
    #[arg(required = true)]
    address: Vec<String>,
    /// Ban on behalf of this jail, on its ports [default: by hand, every packet]
    #[arg(long)]
    jail: Option<String>,
    /// How long, as `600`, `1h30m`, `2d`, or -1 for ever [default: the jail's bantime]
    #[arg(long = "for", value_name = "TIME", allow_hyphen_values = true)]
    time: Option<String>,
    /// Also what reaches an address of the allow list, which stays spared, or more than `widest_ban`
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
pub(super) struct UnbanArgs {
    /// Addresses or networks; everything banned within them; `-` reads them from standard input
    #[arg(required_unless_present = "all")]
    address: Vec<String>,
    /// Lift every ban
    #[arg(long, conflicts_with = "address")]
    all: bool,
    /// Only bans of this jail
    #[arg(long)]
    jail: Option<String>,
}

/// The addresses given, those of standard input in the place of `-`.
fn addresses(given: &[String]) -> anyhow::Result<Vec<String>> {
    let mut addresses = Vec::new();
    for address in given {
        if address != "-" {
            addresses.push(address.clone());
            continue;
        }
        for line in std::io::stdin().lock().lines() {
            let line = line.context("reading standard input")?;
            addresses.extend(line.split_whitespace().map(str::to_owned));
        }
    }
    Ok(addresses)
}

pub(super) fn ban(place: &Place, args: &BanArgs) -> anyhow::Result<ExitCode> {
    let seconds = match &args.time {
        None => None,
        // What is no time for a ban is refused by the daemon, as from any other client.
        Some(text) => Some(config::seconds(text).with_context(|| format!("--for {text}"))? as i64),
    };
    let order = wire::BanOrder {
        prefixes: addresses(&args.address)?,
        jail: args.jail.clone(),
        seconds,
        force: args.force,
    };
    let made = ask::post::<wire::BansMade>(place, "/v1/bans", &order)?;
    ask::print(place, &made, |made| made.banned.to_string());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn unban(place: &Place, args: &UnbanArgs) -> anyhow::Result<ExitCode> {
    let order = wire::UnbanOrder {
        prefixes: addresses(&args.address)?,
        all: args.all,
        jail: args.jail.clone(),
    };
    let lifted = ask::post::<wire::BansLifted>(place, "/v1/unban", &order)?;
    ask::print(place, &lifted, |lifted| lifted.lifted.to_string());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(place: &Place) -> anyhow::Result<ExitCode> {
    let bans = ask::get::<Vec<wire::Ban>>(place, "/v1/bans")?;
    ask::print(place, &bans, |bans| bans_text(bans, &TimeZone::system()));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn banned(place: &Place, wanted: &[String]) -> anyhow::Result<ExitCode> {
    let mut answer = ask::get::<Vec<wire::BannedBy>>(place, "/v1/banned")?;
    if wanted.is_empty() {
        ask::print(place, &answer, |jails| {
            let jails: Vec<String> = jails
                .iter()
                .map(|jail| format!("{{{}: {}}}", quoted(&jail.jail), list_of(&jail.banned)))
                .collect();
            format!("[{}]", jails.join(", "))
        });
        return Ok(ExitCode::SUCCESS);
    }
    let jails_of = |address: &String| -> Vec<String> {
        let covers = |prefix: &String| match (net(prefix), net(address)) {
            (Some(prefix), Some(address)) => prefix.contains(&address),
            _ => prefix == address,
        };
        answer
            .read
            .iter()
            .filter(|jail| jail.banned.iter().any(covers))
            .map(|jail| jail.jail.clone())
            .collect()
    };
    let found: Vec<Vec<String>> = wanted.iter().map(jails_of).collect();
    answer.json = serde_json::json!(found);
    ask::print(place, &answer, |_| {
        let found: Vec<String> = found.iter().map(|jails| list_of(jails)).collect();
        format!("[{}]", found.join(", "))
    });
    Ok(ExitCode::SUCCESS)
}

fn net(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse().map(|address: std::net::IpAddr| IpNet::from(address)).ok())
}

/// As Python writes a string, for scripts made for fail2ban-client.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn list_of(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// Packets dropped, and those that would have been.
fn dropped(ban: &wire::Ban) -> String {
    match (ban.packets, ban.would_drop) {
        (Some(packets), Some(0) | None) if !ban.observe => packets.to_string(),
        (Some(0), Some(would)) => format!("would {would}"),
        (Some(packets), Some(would)) => format!("{packets}, would {would}"),
        _ => "-".into(),
    }
}

fn bans_text(bans: &[wire::Ban], zone: &TimeZone) -> String {
    if bans.is_empty() {
        return "nobody is banned".into();
    }
    let time = |seconds: i64| match Timestamp::from_second(seconds) {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%F %T").to_string(),
        Err(_) => "out of range".into(),
    };
    let rows: Vec<[String; 8]> = bans
        .iter()
        .map(|ban| {
            [
                ban.prefix.clone(),
                ban.jail.clone(),
                time(ban.since),
                ban.until.map_or("for ever".into(), time),
                ban.scope.clone(),
                ban.failures.to_string(),
                ban.count.to_string(),
                dropped(ban),
            ]
        })
        .collect();
    let heads = ["PREFIX", "JAIL", "SINCE", "UNTIL", "SCOPE", "FAILURES", "BAN", "DROPPED"]
        .map(str::to_owned);
    let mut widths = [0; 8];
    for row in std::iter::once(&heads).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let behind = std::iter::once(None).chain(bans.iter().map(addresses_behind));
    for (row, behind) in std::iter::once(&heads).chain(&rows).zip(behind) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        if let Some(behind) = behind {
            let _ = writeln!(text, "`- {behind}");
        }
    }
    text
}

/// Of a prefix the addresses that failed, the first of them.
fn addresses_behind(ban: &wire::Ban) -> Option<String> {
    let more = ban.addresses.len().saturating_sub(SHOWN);
    let shown = ban.addresses.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" ");
    match (shown.is_empty() || ban.addresses == [ban.prefix.clone()], more) {
        (true, _) => None,
        (false, 0) => Some(shown),
        (false, more) => Some(format!("{shown} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> wire::Ban {
        wire::Ban {
            prefix: "192.0.2.1".into(),
            jail: "sshd".into(),
            since: 0,
            until: Some(600),
            failures: 5,
            count: 2,
            scope: "tcp:22".into(),
            packets: Some(17),
            would_drop: Some(0),
            observe: false,
            last_packet: None,
            addresses: vec![],
            rule: None,
            lines: vec![],
        }
    }

    #[test]
    fn bans_are_a_table() {
        let ban = one();
        let lasting = wire::Ban {
            prefix: "2001:db8::/64".into(),
            addresses: (1..=7).map(|nth| format!("2001:db8::{nth}")).collect(),
            until: None,
            packets: None,
            ..ban.clone()
        };
        assert_eq!(
            bans_text(&[ban, lasting], &TimeZone::UTC),
            "PREFIX         JAIL  SINCE                UNTIL                SCOPE   FAILURES  BAN  DROPPED\n\
             192.0.2.1      sshd  1970-01-01 00:00:00  1970-01-01 00:10:00  tcp:22  5         2    17\n\
             2001:db8::/64  sshd  1970-01-01 00:00:00  for ever             tcp:22  5         2    -\n\
             `- 2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5 and 2 more\n"
        );
    }

    #[test]
    fn what_would_have_been_dropped_is_told_apart() {
        let ban = |packets, would_drop, observe| {
            dropped(&wire::Ban {
                packets: Some(packets),
                would_drop: Some(would_drop),
                observe,
                ..one()
            })
        };
        assert_eq!(ban(17, 0, false), "17");
        assert_eq!(ban(0, 0, true), "would 0");
        assert_eq!(ban(0, 9, true), "would 9");
        assert_eq!(ban(17, 9, false), "17, would 9");
        assert_eq!(dropped(&wire::Ban { packets: None, would_drop: None, ..one() }), "-");
    }

    #[test]
    fn lists_read_as_python_writes_them() {
        assert_eq!(list_of(&["a".into(), "it's".into()]), r"['a', 'it\'s']");
    }
}
