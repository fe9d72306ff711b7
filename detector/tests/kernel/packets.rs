//! The table of packets: what becomes of each, with the verdict written down by hand.
use std::net::IpAddr;

use fail2xdp::enforce::tables::{Counters, Hold, Sizes, Tables};
use fail2xdp_common::config::{IGNORE_HINTS, IGNORE_LINES, IGNORE_NETS, OFF};

use crate::{
    frame::{BANNED_V4, BANNED_V6, Frame},
    lab::{Action, Lab, NOW},
};

const TABLE: &str = include_str!("packets.txt");

fn rows() -> impl Iterator<Item = (usize, [&'static str; 3])> {
    TABLE
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(nth, line)| {
            let mut cells = line.split('|').map(str::trim);
            let mut cell = || {
                cells
                    .next()
                    .unwrap_or_else(|| panic!("packets.txt:{}: three cells, please", nth + 1))
            };
            (nth + 1, [cell(), cell(), cell()])
        })
}

/// The name of the one counter that went up, by one packet of these bytes.
#[track_caller]
fn moved(before: &Counters, after: &Counters, bytes: usize) -> &'static str {
    let rows = [
        ("passed", before.passed, after.passed),
        ("dropped", before.dropped, after.dropped),
        ("would_drop", before.would_drop, after.would_drop),
        ("spared", before.spared, after.spared),
        ("not_ip", before.not_ip, after.not_ip),
        ("unreadable", before.unreadable, after.unreadable),
    ];
    let moved: Vec<_> = rows.into_iter().filter(|(_, before, after)| before != after).collect();
    let [(name, before, after)] = moved[..] else {
        panic!("not one counter went up but these: {moved:?}")
    };
    assert_eq!((after.packets - before.packets, after.bytes - before.bytes), (1, bytes as u64));
    name
}

fn outcome(lab: &mut Lab, tables: &Tables, packet: &[u8]) -> &'static str {
    let before = tables.counters().expect("counters");
    let action = lab.run(packet);
    let name = moved(&before, &tables.counters().expect("counters"), packet.len());
    assert_eq!(action == Action::Drop, name == "dropped", "{name}, {action:?}");
    name
}

fn ban_both(tables: &mut Tables, scope: &str) {
    let hold = Hold { jail: "sshd".into(), scope: scope.parse().expect(scope), until: NOW + 60 };
    for address in [IpAddr::from(BANNED_V4), BANNED_V6.into()] {
        tables.ban(address.into(), &hold).expect("room");
    }
}

fn lift_both(tables: &mut Tables) {
    for address in [IpAddr::from(BANNED_V4), BANNED_V6.into()] {
        tables
            .unban(address.into(), "sshd")
            .expect("a map that can be written")
            .expect("it was banned");
    }
}

/// Runs the whole table; `settle` prepares the tables, `expect` says what a row's outcome becomes.
fn run_table(
    mut lab: Lab,
    prepare: impl Fn(&mut Tables),
    expect: impl Fn(&'static str) -> &'static str,
) {
    let mut tables = lab.tables();
    prepare(&mut tables);
    let mut count = 0;
    for (line, [scope, packet, wanted]) in rows() {
        ban_both(&mut tables, scope);
        let (bytes, _) = Frame::parse(packet).build();
        let found = outcome(&mut lab, &tables, &bytes);
        assert_eq!(found, expect(wanted), "packets.txt:{line}: `{packet}` with a ban of `{scope}`");
        lift_both(&mut tables);
        count += 1;
    }
    assert!(count > 100, "the table has {count} rows");
}

fn small() -> Sizes {
    Sizes::for_bans(1024, 1024)
}

#[test]
fn every_packet_of_the_table_gets_its_verdict() {
    run_table(Lab::new(small()), |_| {}, |wanted| wanted);
}

#[test]
fn the_variant_for_frames_in_pieces_gives_the_same_verdicts() {
    use fail2xdp::enforce::tables::object;
    let lab = Lab::of(object::plain(), fail2xdp_common::program::BAN_FRAGS, small());
    run_table(lab, |_| {}, |wanted| wanted);
}

#[test]
fn without_an_accelerator_the_verdicts_are_the_same() {
    for flags in
        [IGNORE_HINTS, IGNORE_LINES, IGNORE_NETS, IGNORE_HINTS | IGNORE_LINES | IGNORE_NETS]
    {
        run_table(Lab::new(small()), |tables| tables.set_flag(flags, true), |wanted| wanted);
    }
}

#[test]
fn an_observing_program_drops_nothing_and_counts_what_it_would_have() {
    let observed = |wanted| if wanted == "dropped" { "would_drop" } else { wanted };
    run_table(Lab::new(small()), |tables| tables.set_observe(true), observed);
}

#[test]
fn a_program_that_is_off_judges_nothing() {
    run_table(Lab::new(small()), |tables| tables.set_flag(OFF, true), |_| "passed");
}

#[test]
fn an_allowed_source_is_spared_whatever_bans_it() {
    let spared = |wanted| if wanted == "dropped" { "spared" } else { wanted };
    for (v4, v6) in [
        ("192.0.2.7/32", "2001:db8:0:7::7/128"),
        ("192.0.2.0/24", "2001:db8:0:7::/64"),
        ("192.0.0.0/16", "2001:db8::/32"),
        ("128.0.0.0/1", "2000::/3"),
        ("0.0.0.0/0", "::/0"),
    ] {
        let allow = |tables: &mut Tables| {
            for prefix in [v4, v6] {
                tables.allow(prefix.parse().expect(prefix)).expect("room");
            }
        };
        run_table(Lab::new(small()), allow, spared);
    }
}

#[test]
fn the_truth_that_the_model_starts_from_agrees_with_the_table() {
    use crate::{frame::Truth, model::in_scope};
    for (line, [scope, packet, wanted]) in rows() {
        let found = match Frame::parse(packet).build().1 {
            Truth::NotIp => "not_ip",
            Truth::Unreadable => "unreadable",
            Truth::Ip { source, protocol, port } => {
                let banned = source == BANNED_V4 || source == BANNED_V6;
                let hit = banned && in_scope(&scope.parse().expect(scope), protocol, port);
                if hit { "dropped" } else { "passed" }
            }
        };
        assert_eq!(found, wanted, "packets.txt:{line}: `{packet}` with a ban of `{scope}`");
    }
}
