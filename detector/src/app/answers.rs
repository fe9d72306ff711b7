//! What the socket answers: the daemon's state in the words of the wire.
use ipnet::IpNet;

use super::{Daemon, LogFill, act::shown};
use crate::{
    config::{JailName, Problem, Scope},
    control::wire,
    enforce::{
        InterfaceMode, InterfaceStatus,
        tables::{Counters, Load},
    },
    engine::{
        CeilingTotals, Jail, Lingering, NameTotals, PatternState, PendingTotals, QuestionTotals,
    },
    source::{FileState, JournalState, JournalStatus, Limit, Readers},
    store::State,
};

/// Banned addresses that are found all the same, in one answer.
const LINGERING: usize = 16;

/// Without the banned prefixes of its jails.
pub(crate) fn status(daemon: &Daemon) -> wire::Status {
    wire::Status {
        version: env!("CARGO_PKG_VERSION").into(),
        jails: daemon.engine.jails().iter().map(|of| jail(daemon, of)).collect(),
        bans: daemon.engine.bans().len(),
        enforcement: enforcement(daemon),
        store: daemon.keeper.status().map(store),
        action_runner: daemon.telling.runner(),
        actions: daemon.telling.actions(),
        log: log(daemon),
        pending: pending(daemon.engine.pending()),
        names: names(daemon.engine.names()),
        questions: questions(daemon.engine.questions()),
        since: daemon.silence.started().seconds(),
        lingering: lingering(daemon),
        ceiling: ceiling(daemon.engine.ceiling()),
        source_alarms: daemon.silence.raised(),
        unread: daemon.readers.as_ref().map(unread).unwrap_or_default(),
        problems: daemon.problems.iter().map(Problem::to_string).collect(),
    }
}

/// Without its banned prefixes.
pub(crate) fn jail(daemon: &Daemon, jail: &Jail) -> wire::Jail {
    let settings = jail.settings();
    let sources = daemon.readers.as_ref().map(Readers::sources).unwrap_or_default();
    let source = sources.into_iter().find(|status| status.jail == settings.name);
    let (files, journal) = source.map(|source| (source.files, source.journal)).unwrap_or_default();
    let files = files
        .into_iter()
        .map(|(path, state)| wire::File {
            path: path.display().to_string(),
            state: match state {
                FileState::Following => "following".into(),
                FileState::Waiting => "waiting".into(),
                FileState::Gone => "gone".into(),
                FileState::Unreadable(why) => why,
            },
        })
        .collect();
    let (journal_matches, journal) = match journal {
        None => (Vec::new(), None),
        Some(JournalStatus { matches, state: JournalState::Following, .. }) => {
            (matches, Some("following".into()))
        }
        Some(JournalStatus { matches, state: JournalState::Unavailable(why), .. }) => {
            (matches, Some(why))
        }
    };
    wire::Jail {
        name: settings.name.to_string(),
        currently_failed: jail.currently_failed(),
        total_failed: jail.totals().failed,
        currently_banned: daemon.engine.bans().count_of(&settings.name),
        total_banned: jail.totals().banned,
        files,
        journal_matches,
        journal,
        scope: Scope::to_string(jail.scope()),
        observe: observes(daemon, &settings.name),
        alarms: daemon.silence.alarms_of(&settings.name),
        hears_bans: jail.hears_bans(),
        never_matched: jail.totals().failed == 0,
        gave_up: daemon.give_ups.of(&settings.name).map(gave_up).collect(),
        banned: Vec::new(),
    }
}

/// Whether the bans of a jail, also of one that is no longer configured, are only counted.
pub(super) fn observes(daemon: &Daemon, jail: &JailName) -> bool {
    match &daemon.enforcer {
        Some(enforcer) => enforcer.observes(jail.as_str()),
        None => daemon.engine.jail(jail).is_some_and(|jail| jail.settings().observe),
    }
}

fn enforcement(daemon: &Daemon) -> wire::Enforcement {
    let Some(enforcer) = &daemon.enforcer else {
        return wire::Enforcement {
            mode: "none".into(),
            observe: false,
            pins: None,
            interfaces: Vec::new(),
            counters: None,
            capacity: None,
            allowed: Vec::new(),
            alarms: daemon.alarms.clone(),
            repairs: 0,
        };
    };
    let status = enforcer.status();
    wire::Enforcement {
        mode: "xdp".into(),
        observe: status.observe,
        // By the link, which goes on to name the maps in use when they grow.
        pins: Some(status.maps.with_file_name("maps").display().to_string()),
        interfaces: status.interfaces.into_iter().map(interface).collect(),
        counters: status.counters.map(counters),
        capacity: Some(capacity(status.load)),
        allowed: widest(&status.allowed).map(shown).collect(),
        alarms: daemon.alarms.clone(),
        repairs: daemon.repairs,
    }
}

fn log(daemon: &Daemon) -> wire::Log {
    let LogFill { lost, fault, .. } = daemon.log.fill();
    wire::Log { target: daemon.log.target().to_owned(), fault, lost }
}

fn unread(readers: &Readers) -> wire::Unread {
    let mut unread = wire::Unread::default();
    for (limit, count) in readers.limits() {
        *match limit {
            Limit::Line => &mut unread.cut_lines,
            Limit::Truncated => &mut unread.truncations,
            Limit::Missed => &mut unread.rotated_files,
            Limit::Unreadable => &mut unread.unreadable_files,
            Limit::Siblings => &mut unread.directory_entries,
            Limit::Files => &mut unread.surplus_files,
        } = count;
    }
    unread
}

fn pending(totals: PendingTotals) -> wire::Pending {
    let PendingTotals {
        addresses,
        most_addresses,
        forgotten_addresses,
        evidence,
        most_evidence,
        forgotten_lines,
        history,
        most_history,
        forgotten_history,
    } = totals;
    wire::Pending {
        addresses,
        most_addresses,
        forgotten_addresses,
        evidence_bytes: evidence,
        most_evidence_bytes: most_evidence,
        forgotten_lines,
        history,
        most_history,
        forgotten_history,
    }
}

fn gave_up(pattern: &PatternState) -> wire::GaveUp {
    wire::GaveUp {
        pattern: pattern.name.to_string(),
        place: pattern.place.as_ref().map(ToString::to_string),
        lines: pattern.gave_up(),
    }
}

fn lingering(daemon: &Daemon) -> Vec<wire::Lingering> {
    let told = |found: Lingering| {
        let dropped = daemon.enforcer.as_ref().and_then(|it| it.traffic(found.prefix));
        wire::Lingering {
            prefix: shown(found.prefix),
            jail: found.jail.to_string(),
            failures: found.failures,
            last: found.last.seconds(),
            dropped: dropped.map(|dropped| dropped.packets),
        }
    };
    daemon.engine.lingering().into_iter().take(LINGERING).map(told).collect()
}

fn ceiling(totals: CeilingTotals) -> wire::Ceiling {
    let CeilingTotals { most, bans, is_exceeded, suspended, logins, most_logins, forgotten_logins } =
        totals;
    wire::Ceiling {
        bans,
        most,
        exceeded: is_exceeded,
        suspended,
        logins,
        most_logins,
        forgotten_logins,
    }
}

fn names(totals: NameTotals) -> wire::Names {
    let NameTotals { waiting, most_waiting, lost } = totals;
    wire::Names { waiting, most_waiting, lost }
}

fn questions(totals: QuestionTotals) -> wire::Questions {
    let QuestionTotals { waiting, failed, unasked } = totals;
    wire::Questions { waiting, failed, unasked }
}

fn store(status: crate::store::Status) -> wire::Store {
    wire::Store {
        path: status.path.display().to_string(),
        state: match status.state {
            State::Works => "works".into(),
            State::Opening => "opening".into(),
            State::Fails(why) | State::Off(why) => why,
        },
        waiting: status.waiting,
        transactions: status.transactions,
        faults: status.faults,
        refused: status.refused,
        lost: status.lost,
        set_aside: status.set_aside.map(|path| path.display().to_string()),
    }
}

/// Without the entries that another one covers.
fn widest(entries: &[IpNet]) -> impl Iterator<Item = IpNet> + '_ {
    let covered =
        |entry: &IpNet| entries.iter().any(|other| other != entry && other.contains(entry));
    entries.iter().filter(move |entry| !covered(entry)).copied()
}

fn interface(status: InterfaceStatus) -> wire::Interface {
    let mode = match status.mode {
        InterfaceMode::Native => "native",
        InterfaceMode::Generic => "generic",
        InterfaceMode::Gone => "gone",
    };
    wire::Interface {
        name: status.name,
        index: status.index,
        mode: mode.into(),
        reason: status.reason,
    }
}

fn counters(counters: Counters) -> wire::Counters {
    let traffic = |counter: fail2xdp_common::report::Counter| wire::Traffic {
        packets: counter.packets,
        bytes: counter.bytes,
    };
    wire::Counters {
        passed: traffic(counters.passed),
        dropped: traffic(counters.dropped),
        would_drop: traffic(counters.would_drop),
        spared: traffic(counters.spared),
        not_ip: traffic(counters.not_ip),
        unreadable: traffic(counters.unreadable),
    }
}

fn capacity(load: Load) -> wire::Capacity {
    wire::Capacity {
        ipv4_used: load.v4.bans,
        ipv4_room: load.v4.capacity,
        ipv6_used: load.v6.bans,
        ipv6_room: load.v6.capacity,
    }
}
