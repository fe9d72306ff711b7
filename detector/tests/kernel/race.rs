//! Packets without a pause against a writer without one.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use fail2xdp::enforce::tables::{Hold, Sizes, Tables};
use fail2xdp_common::value::FOREVER;
use ipnet::IpNet;

use crate::{
    frame::Frame,
    lab::{Action, Lab, NOW},
    random::Random,
};

const LASTS: Duration = Duration::from_secs(3);

/// Packets of each kind before the next kind's turn: many, for the kernel prepares each repeated run
/// for some 30 ms.
const TURN: u32 = 300_000;

/// A packet and what must become of it whenever it comes.
struct Stream {
    what: &'static str,
    packet: Vec<u8>,
    /// `None` for one whose ban comes and goes.
    action: Option<Action>,
}

fn stream(
    what: &'static str,
    source: IpNet,
    rest: &str,
    action: impl Into<Option<Action>>,
) -> Stream {
    let family = if source.addr().is_ipv4() { "v4" } else { "v6" };
    let packet = Frame::parse(&format!("{family}={} {rest}", source.addr())).build().0;
    Stream { what, packet, action: action.into() }
}

/// One race at a time: two threads want the processors for themselves.
static TRACK: Mutex<()> = Mutex::new(());

/// What the packets' thread counted, stream by stream.
struct Sent {
    packets: Vec<u64>,
}

/// Sends packets until told to stop. Within a turn the counters cannot tell streams apart, so a turn
/// that ends with the wrong action names its stream, and the sums at the end cover the rest.
fn send(mut lab: Lab, streams: Arc<Vec<Stream>>, stop: Arc<AtomicBool>) -> (Lab, Sent) {
    let mut sent = Sent { packets: vec![0; streams.len()] };
    while !stop.load(SeqCst) {
        for (nth, stream) in streams.iter().enumerate() {
            let (action, _) = lab.repeat(&stream.packet, TURN);
            assert!(stream.action.is_none_or(|wanted| wanted == action), "{}", stream.what);
            sent.packets[nth] += u64::from(TURN);
        }
    }
    (lab, sent)
}

fn hold(jail: &str, scope: &str, until: u32) -> Hold {
    Hold { jail: jail.into(), scope: scope.parse().expect(scope), until }
}

/// Runs streams against `write` for a while; returns what was sent, after checking the sums.
fn race(
    mut tables: Tables,
    lab: Lab,
    streams: Vec<Stream>,
    mut write: impl FnMut(&mut Tables, u64),
) -> (Tables, Sent) {
    let _turn = TRACK.lock().unwrap_or_else(PoisonError::into_inner);
    let (streams, stop) = (Arc::new(streams), Arc::new(AtomicBool::new(false)));
    let sender = thread::spawn({
        let (streams, stop) = (Arc::clone(&streams), Arc::clone(&stop));
        move || send(lab, streams, stop)
    });
    let end = Instant::now() + LASTS;
    let mut turns = 0;
    while Instant::now() < end && !sender.is_finished() {
        write(&mut tables, turns);
        tables.settle(Instant::now());
        turns += 1;
    }
    stop.store(true, SeqCst);
    let (_lab, sent) = sender.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    let of = |action: Option<Action>| -> u64 {
        let streams = streams.iter().zip(&sent.packets);
        streams.filter(|(stream, _)| stream.action == action).map(|(_, sent)| sent).sum()
    };
    let counters = tables.counters().expect("counters");
    let passed = counters.passed.packets + counters.would_drop.packets;
    let dropped = counters.dropped.packets;
    println!("{turns} turns of the writer, {dropped} drops, {passed} passes");
    let (drop, pass, either) = (of(Some(Action::Drop)), of(Some(Action::Pass)), of(None));
    assert!(
        dropped >= drop && passed >= pass,
        "{dropped} of {drop} dropped, {passed} of {pass} passed"
    );
    assert_eq!(dropped + passed, drop + pass + either);
    assert!(turns > 100 && dropped > 100_000, "too few to prove anything");
    (tables, sent)
}

/// Addresses that share the line of `stable`, and so many that its pair fills too.
fn neighbours(tables: &Tables, stable: IpNet, count: usize) -> Vec<IpNet> {
    let line = tables.line_of(stable).expect("an address");
    let address = |nth: u32| match stable.addr() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from(0x0a00_0000 + nth)),
        IpAddr::V6(_) => {
            IpAddr::from(Ipv6Addr::from(0x2001_0db8_00aa_u128 << 80 | u128::from(nth) << 64 | 1))
        }
    };
    let same_line = |net: &IpNet| tables.line_of(*net).is_some_and(|found| found | 1 == line | 1);
    (0..).map(address).map(IpNet::from).filter(same_line).take(count).collect()
}

fn small() -> (Lab, Tables) {
    let lab = Lab::new(Sizes::for_bans(1024, 1024));
    let tables = lab.tables();
    (lab, tables)
}

fn net(text: &str) -> IpNet {
    text.parse().expect(text)
}

#[test]
fn a_stable_ban_holds_while_its_lines_are_rewritten() {
    let (lab, mut tables) = small();
    let stable = [
        net("192.0.2.1/32"),
        net("2001:db8:1::1/128"),
        net("2001:db8:2::/64"),
        net("198.51.100.0/24"),
    ];
    for prefix in stable {
        tables.ban(prefix, &hold("stable", "all", FOREVER)).expect("room");
    }
    let crowd: Vec<IpNet> =
        stable[..3].iter().flat_map(|prefix| neighbours(&tables, *prefix, 12)).collect();
    let streams =
        stable.iter().map(|prefix| stream("stable", *prefix, "tcp=22", Action::Drop)).collect();
    let mut random = Random::new();
    let (tables, sent) = race(tables, lab, streams, |tables, _| {
        let prefix = random.pick(&crowd);
        if tables.holds(prefix).is_empty() {
            let until = random.pick(&[1, NOW - 1, NOW + 5, FOREVER]);
            tables
                .ban(prefix, &hold("crowd", random.pick(&["all", "tcp:80", "udp"]), until))
                .expect("room");
        } else {
            let lifted = tables
                .unban(prefix, "crowd")
                .expect("a map that can be written")
                .expect("it was banned");
            assert_eq!(
                lifted.packets, 0,
                "{prefix} never sent a packet: the count is another ban's"
            );
        }
    });
    for (prefix, sent) in stable.iter().zip(sent.packets) {
        assert_eq!(
            tables.traffic(*prefix).map(|dropped| dropped.packets),
            Some(sent),
            "counts of {prefix} were lost"
        );
    }
}

#[test]
fn a_ban_that_changes_its_end_scope_and_jails_never_lets_a_packet_through() {
    let (lab, mut tables) = small();
    let changing = [
        net("192.0.2.1/32"),
        net("2001:db8:1::1/128"),
        net("2001:db8:2::/64"),
        net("198.51.100.0/24"),
    ];
    for prefix in changing {
        tables.ban(prefix, &hold("first", "tcp", FOREVER)).expect("room");
    }
    let streams = changing
        .iter()
        .flat_map(|prefix| {
            [
                stream("in every scope it takes", *prefix, "tcp=22", Action::Drop),
                stream("in none of them", *prefix, "proto=47", Action::Pass),
            ]
        })
        .collect();
    let mut random = Random::new();
    let (tables, sent) = race(tables, lab, streams, |tables, _| {
        let prefix = random.pick(&changing);
        let (jail, other) =
            random.pick(&[("first", "second"), ("second", "first"), ("third", "first")]);
        if random.one_in(2) {
            // Every hold covers port 22 and lasts, or is over already.
            let scope = random.pick(&["tcp", "tcp:22", "tcp:1-1000", "tcp:22+udp:53"]);
            let until = random.pick(&[NOW + 5, NOW + 3600, FOREVER]);
            tables.ban(prefix, &hold(jail, scope, until)).expect("room");
        } else if tables.holds(prefix).iter().any(|hold| hold.jail == other) {
            tables.unban(prefix, jail).expect("a map that can be written");
        }
    });
    for (nth, prefix) in changing.iter().enumerate() {
        let dropped = tables.traffic(*prefix).map(|dropped| dropped.packets);
        assert_eq!(dropped, Some(sent.packets[nth * 2]), "counts of {prefix} were lost");
    }
}

#[test]
fn a_source_never_meets_the_end_or_scope_of_another() {
    let (lab, mut tables) = small();
    let over = [net("192.0.2.1/32"), net("2001:db8:1::1/128"), net("2001:db8:2::/64")];
    let narrow = [net("192.0.2.2/32"), net("2001:db8:1::2/128")];
    let shared = net("198.51.100.0/24");
    let crowd: Vec<IpNet> =
        over.iter().chain(&narrow).flat_map(|prefix| neighbours(&tables, *prefix, 10)).collect();
    let several: Vec<IpNet> = (1..9).map(|nth| net(&format!("203.0.{nth}.0/24"))).collect();
    for prefix in narrow.iter().chain([&shared]) {
        tables.ban(*prefix, &hold("narrow", "tcp:22", FOREVER)).expect("room");
    }
    tables.ban(shared, &hold("second", "udp:53", FOREVER)).expect("room");
    let mut streams = vec![
        stream("in no slot of a shared prefix", shared, "proto=47", Action::Pass),
        stream("in the second slot of a shared prefix", shared, "udp=53", Action::Drop),
    ];
    streams
        .extend(over.map(|prefix| stream("of a ban that is over", prefix, "tcp=22", Action::Pass)));
    streams
        .extend(narrow.map(|prefix| stream("outside the scope", prefix, "tcp=80", Action::Pass)));
    streams.extend(narrow.map(|prefix| stream("inside the scope", prefix, "tcp=22", Action::Drop)));
    let mut random = Random::new();
    race(tables, lab, streams, |tables, turn| {
        // Slots go from bans that are over to bans that hold and back.
        let prefix = if turn % 2 == 0 { random.pick(&crowd) } else { random.pick(&over) };
        match tables.holds(prefix).first() {
            Some(hold) => {
                let jail = hold.jail.clone();
                tables.unban(prefix, &jail).expect("a map that can be written");
            }
            None if over.contains(&prefix) => {
                tables.ban(prefix, &hold("over", "all", NOW - 5)).expect("room");
            }
            None => {
                tables.ban(prefix, &hold("crowd", "all", FOREVER)).expect("room");
            }
        }
        // Further slots come and go, so that the kernel reuses their memory.
        let prefix = random.pick(&several);
        if tables.holds(prefix).len() < 2 {
            tables.ban(prefix, &hold("one", "all", NOW - 1)).expect("room");
            tables.ban(prefix, &hold("two", "all", FOREVER)).expect("room");
        } else {
            tables.unban(prefix, "two").expect("a map that can be written");
        }
        if turn % 16 == 0 {
            let until = random.pick(&[NOW + 5, FOREVER]);
            tables.ban(shared, &hold("second", "udp:53", until)).expect("room");
        }
    });
}

#[test]
fn a_count_is_never_anothers() {
    let (lab, mut tables) = small();
    let going = [net("192.0.2.1/32"), net("2001:db8:1::1/128")];
    let next: Vec<IpNet> =
        going.iter().flat_map(|prefix| neighbours(&tables, *prefix, 1)).collect();
    let still = net("198.51.100.0/24");
    tables.ban(still, &hold("still", "all", FOREVER)).expect("room");
    let mut streams = vec![stream("stable", still, "tcp=22", Action::Drop)];
    streams.extend(going.map(|prefix| stream("comes and goes", prefix, "tcp=22", None)));
    race(tables, lab, streams, |tables, _| {
        for (going, next) in going.iter().zip(&next) {
            tables.ban(*going, &hold("going", "all", FOREVER)).expect("room");
            tables
                .unban(*going, "going")
                .expect("a map that can be written")
                .expect("it was banned");
            tables.ban(*next, &hold("next", "all", FOREVER)).expect("room");
            let lifted = tables.unban(*next, "next").expect("a map that can be written");
            assert_eq!(lifted.map(|lifted| lifted.packets), Some(0), "{next} never sent a packet");
        }
    });
}

#[test]
fn a_jail_that_is_switched_lets_no_packet_of_another_jails_ban_through() {
    let (lab, mut tables) = small();
    let both = [net("192.0.2.1/32"), net("2001:db8:1::1/128"), net("2001:db8:2::/64")];
    let within = net("198.51.100.9/32");
    let alone = net("203.0.113.1/32");
    for (nth, prefix) in both.iter().enumerate() {
        // Either stands in the first slot.
        let order = if nth % 2 == 0 { ["switched", "other"] } else { ["other", "switched"] };
        for jail in order {
            tables.ban(*prefix, &hold(jail, "tcp", FOREVER)).expect("room");
        }
    }
    tables.ban(within, &hold("switched", "all", FOREVER)).expect("room");
    tables.ban(net("198.51.100.0/24"), &hold("other", "tcp", FOREVER)).expect("room");
    tables.ban(alone, &hold("switched", "all", FOREVER)).expect("room");
    let mut streams: Vec<Stream> =
        both.iter().map(|prefix| stream("of both", *prefix, "tcp=22", Action::Drop)).collect();
    streams.push(stream("within another jail's network", within, "tcp=22", Action::Drop));
    streams.push(stream("of the switched jail alone", alone, "tcp=22", None));
    let (tables, sent) = race(tables, lab, streams, |tables, turn| {
        let observing = ["switched"].into_iter().take(turn as usize % 2);
        tables.set_observing(observing).expect("a map that can be written");
    });
    for (prefix, sent) in both.iter().chain([&within, &alone]).zip(sent.packets) {
        let counted = tables.traffic(*prefix).map_or(0, |it| it.packets + it.would_drop);
        let network = if *prefix == within { net("198.51.100.0/24") } else { *prefix };
        let of_network = tables.traffic(network).map_or(0, |it| it.packets);
        let all = if *prefix == within { counted + of_network } else { counted };
        assert_eq!(all, sent, "counts of {prefix} were lost");
    }
}
