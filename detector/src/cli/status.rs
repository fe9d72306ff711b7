//! `status`, `ping`, `reload`, `stop`: in fail2ban-client's words where it has the verb.
use std::{fmt::Write, process::ExitCode};

use super::{Place, ask};
use crate::control::wire;

pub(super) fn run(place: &Place, jail: Option<&str>) -> anyhow::Result<ExitCode> {
    match jail {
        Some(jail) => {
            // A jail's name may hold what a URL may not.
            let path = format!("/v1/jails/{}", escaped(jail));
            ask::print(place, &ask::get::<wire::Jail>(place, &path)?, jail_text);
        }
        None => ask::print(place, &ask::get::<wire::Status>(place, "/v1/status")?, status_text),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn ping(place: &Place) -> anyhow::Result<ExitCode> {
    let pong = ask::get::<wire::Pong>(place, "/v1/ping")?;
    ask::print(place, &pong, |pong| format!("Server replied: {}", pong.reply));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn reload(place: &Place) -> anyhow::Result<ExitCode> {
    let done = ask::post::<wire::Reloaded>(place, "/v1/reload", &())?;
    // Beside the answer: scripts expect `OK` alone, as fail2ban's client prints it.
    for line in done.read.changes.iter().chain(&done.read.problems) {
        eprintln!("{line}");
    }
    ask::print(place, &done, |_| "OK".into());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn confirm(place: &Place) -> anyhow::Result<ExitCode> {
    let done = ask::post::<wire::Confirmed>(place, "/v1/confirm", &())?;
    ask::print(place, &done, |confirmed| match confirmed.waited {
        true => "Confirmed: the daemon stays".into(),
        false => "The daemon waits for no confirmation".into(),
    });
    Ok(ExitCode::SUCCESS)
}

pub(super) fn stop(place: &Place) -> anyhow::Result<ExitCode> {
    let done = ask::post::<wire::Stopping>(place, "/v1/stop", &())?;
    ask::print(place, &done, |stopping| match stopping {
        wire::Stopping { detached: true, .. } => {
            "Shutdown successful: nothing is enforced any longer".into()
        }
        wire::Stopping { enforced, .. } => {
            format!(
                "Shutdown successful: {enforced} bans stay enforced; `fail2xdp detach` lifts them"
            )
        }
    });
    Ok(ExitCode::SUCCESS)
}

/// A path segment (RFC 3986, section 3.3), everything but unreserved characters escaped.
pub(super) fn escaped(segment: &str) -> String {
    segment.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(byte.into());
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}

fn status_text(status: &wire::Status) -> String {
    let names: Vec<&str> = status.jails.iter().map(|jail| jail.name.as_str()).collect();
    let mut text = format!(
        "Status\n|- Number of jail:\t{}\n`- Jail list:\t{}\n",
        status.jails.len(),
        names.join(", ")
    );
    let alarms = status.jails.iter().flat_map(|jail| {
        jail.alarms.iter().map(move |alarm| format!("|- ALARM:\t[{}] {alarm}\n", jail.name))
    });
    let alarms: String = alarms.collect();
    let gave_up = status.jails.iter().flat_map(|jail| {
        jail.gave_up.iter().map(move |pattern| {
            let place = pattern.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
            let wire::GaveUp { pattern, lines, .. } = pattern;
            format!("|- Gave up:\t[{}] {pattern}{place}, on {lines} lines\n", jail.name)
        })
    });
    let gave_up: String = gave_up.collect();
    let quiet = status.jails.iter().filter(|jail| jail.never_matched);
    let quiet: Vec<&str> = quiet.map(|jail| jail.name.as_str()).collect();
    let quiet = if quiet.is_empty() { "-".to_owned() } else { quiet.join(", ") };
    let listening = status.jails.iter().filter(|jail| jail.hears_bans);
    let listening: Vec<&str> = listening.map(|jail| jail.name.as_str()).collect();
    let heard = match listening.is_empty() {
        true => String::new(),
        false => format!("|- Bans heard as they are made by:\t{}\n", listening.join(", ")),
    };
    let unread = unread(&status.unread);
    let _ = writeln!(
        text,
        "Sources\n{alarms}{unread}{gave_up}{heard}`- Nothing found yet by:\t{quiet}"
    );
    if let Some(why) = &status.log.fault {
        let wire::Log { target, lost, .. } = &status.log;
        let _ =
            writeln!(text, "Log\n`- ALARM:\t{target} cannot be written: {why} ({lost} lines lost)");
    }
    let ceiling = &status.ceiling;
    if ceiling.exceeded {
        let wire::Ceiling { bans, most, suspended, .. } = ceiling;
        let _ = writeln!(
            text,
            "New bans\n`- ALARM:\t{bans} within a minute, more than `ban_ceiling` ({most}): networks and addresses \
             with logins are not banned now ({suspended} so far)"
        );
    }
    let enforcement = &status.enforcement;
    let _ = writeln!(text, "Enforcement");
    let _ = writeln!(
        text,
        "|- Mode:\t{}{}",
        enforcement.mode,
        if enforcement.observe { " (observe: counts, drops nothing)" } else { "" }
    );
    let observing = status.jails.iter().filter(|jail| jail.observe && !enforcement.observe);
    let observing: Vec<&str> = observing.map(|jail| jail.name.as_str()).collect();
    if !observing.is_empty() {
        let _ = writeln!(text, "|- Only observing:\t{}", observing.join(", "));
    }
    for interface in &enforcement.interfaces {
        let reason =
            interface.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        let _ = writeln!(text, "|- Interface:\t{} {}{reason}", interface.name, interface.mode);
    }
    if let Some(counters) = enforcement.counters {
        let _ = writeln!(
            text,
            "|- Packets:\tpassed {}, dropped {}, would drop {}, spared {}, not IP {}, unreadable {}",
            counters.passed.packets,
            counters.dropped.packets,
            counters.would_drop.packets,
            counters.spared.packets,
            counters.not_ip.packets,
            counters.unreadable.packets
        );
    }
    for alarm in &enforcement.alarms {
        let _ = writeln!(text, "|- ALARM:\t{alarm}");
    }
    if enforcement.repairs > 0 {
        let _ = writeln!(text, "|- Maps mended:\t{} times", enforcement.repairs);
    }
    let _ = writeln!(text, "`- Banned prefixes:\t{}", status.bans);
    let pending = &status.pending;
    let forgotten = match (pending.forgotten_addresses, pending.forgotten_lines) {
        (0, 0) => String::new(),
        (addresses, lines) => {
            format!(" (forgotten for want of room: {addresses}, and {lines} lines)")
        }
    };
    let _ = writeln!(text, "Below the threshold\n`- Addresses:\t{}{forgotten}", pending.addresses);
    if status.names.lost > 0 {
        let lost = status.names.lost;
        let _ = writeln!(text, "Names looked up\n`- Lost for want of room:\t{lost} failures");
    }
    let forgotten = match pending.forgotten_history {
        0 => String::new(),
        addresses => format!(" (forgotten for want of room: {addresses})"),
    };
    let _ = writeln!(text, "Banned before\n`- Addresses:\t{}{forgotten}", pending.history);
    let wire::Questions { waiting, failed, unasked } = status.questions;
    if waiting > 0 || failed > 0 || unasked > 0 {
        let _ = writeln!(
            text,
            "ignorecommand\n`- Questions:\t{waiting} waiting, {failed} without an answer, {unasked} not asked"
        );
    }
    match &status.store {
        None => text += "Store\n`- Nothing is stored\n",
        Some(store) => {
            let state = match store.state.as_str() {
                "works" | "opening" => store.state.clone(),
                why => format!("ALARM: {why}"),
            };
            let _ = writeln!(text, "Store\n|- File:\t{}\n|- State:\t{state}", store.path);
            if let Some(path) = &store.set_aside {
                let _ = writeln!(text, "|- Damaged file:\t{path}");
            }
            let _ = writeln!(
                text,
                "`- Writes:\t{} transactions, {} waiting, {} refused, {} lost, {} faults",
                store.transactions, store.waiting, store.refused, store.lost, store.faults
            );
        }
    }
    for problem in &status.problems {
        let _ = writeln!(text, "Problem: {problem}");
    }
    text
}

/// One line, if anything was not read.
fn unread(unread: &wire::Unread) -> String {
    let counts = [
        (unread.cut_lines, "lines cut"),
        (unread.truncations, "truncations with bytes unread"),
        (unread.rotated_files, "rotated files left out"),
        (unread.unreadable_files, "rotated files unreadable"),
        (unread.directory_entries, "directory entries left out"),
        (unread.surplus_files, "files beyond those followed"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    if counts.is_empty() { String::new() } else { format!("|- Not read:\t{}\n", counts.join(", ")) }
}

fn jail_text(jail: &wire::Jail) -> String {
    let mut text = format!(
        "Status for the jail: {}\n|- Filter\n|  |- Currently failed:\t{}\n|  |- Total failed:\t{}\n",
        jail.name, jail.currently_failed, jail.total_failed
    );
    let files: Vec<String> = jail
        .files
        .iter()
        .map(|file| match file.state.as_str() {
            "following" => file.path.clone(),
            state => format!("{} ({state})", file.path),
        })
        .collect();
    let heard = jail.hears_bans.then(|| "(bans of other jails, as they are made)".to_owned());
    // Both stand here until `backend = auto` has found one of them.
    let journal = jail.journal.as_ref().map(|state| match state.as_str() {
        "following" => jail.journal_matches.join(" + "),
        state => format!("{} ({state})", jail.journal_matches.join(" + ")),
    });
    if !files.is_empty() || journal.is_none() {
        let branch = if journal.is_some() { "|-" } else { "`-" };
        let files: Vec<String> = files.into_iter().chain(heard.clone()).collect();
        let _ = writeln!(text, "|  {branch} File list:\t{}", files.join(" "));
    }
    if let Some(journal) = journal {
        let heard = heard.map_or(String::new(), |heard| format!(" {heard}"));
        let _ = writeln!(text, "|  `- Journal matches:\t{journal}{heard}");
    }
    let observe = if jail.observe { "   |- Observe:\tcounts, drops nothing\n" } else { "" };
    let _ = write!(
        text,
        "`- Actions\n{observe}   |- Currently banned:\t{}\n   |- Total banned:\t{}\n   `- Banned IP list:\t{}\n",
        jail.currently_banned,
        jail.total_banned,
        jail.banned.join(" ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jail_reads_as_in_fail2ban() {
        let jail = wire::Jail {
            name: "sshd".into(),
            currently_failed: 1,
            total_failed: 4,
            currently_banned: 2,
            total_banned: 2,
            files: vec![
                wire::File { path: "/var/log/a.log".into(), state: "following".into() },
                wire::File { path: "/var/log/b.log".into(), state: "waiting".into() },
            ],
            journal_matches: vec![],
            journal: None,
            scope: "tcp:22".into(),
            observe: false,
            alarms: Vec::new(),
            hears_bans: false,
            never_matched: false,
            gave_up: Vec::new(),
            banned: vec!["192.0.2.1".into(), "2001:db8::/64".into()],
        };
        assert_eq!(
            jail_text(&jail),
            "Status for the jail: sshd\n\
             |- Filter\n\
             |  |- Currently failed:\t1\n\
             |  |- Total failed:\t4\n\
             |  `- File list:\t/var/log/a.log /var/log/b.log (waiting)\n\
             `- Actions\n   \
                |- Currently banned:\t2\n   \
                |- Total banned:\t2\n   \
                `- Banned IP list:\t192.0.2.1 2001:db8::/64\n"
        );
        let listening = jail_text(&wire::Jail { hears_bans: true, ..jail });
        let list =
            "/var/log/a.log /var/log/b.log (waiting) (bans of other jails, as they are made)\n";
        assert!(listening.contains(list), "{listening}");
    }

    #[test]
    fn what_was_not_read_is_said_once_there_is_any() {
        assert_eq!(unread(&wire::Unread::default()), "");
        let some = wire::Unread { cut_lines: 2, surplus_files: 1, ..wire::Unread::default() };
        assert_eq!(unread(&some), "|- Not read:\t2 lines cut, 1 files beyond those followed\n");
    }

    #[test]
    fn a_jail_name_is_escaped_for_the_path() {
        assert_eq!(escaped("sshd-1_a"), "sshd-1_a");
        assert_eq!(escaped("a b/c"), "a%20b%2Fc");
    }
}
