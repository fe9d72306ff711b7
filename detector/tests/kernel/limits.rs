//! What happens at each limit of the tables.
use std::time::{Duration, Instant};

use aya::maps::{Map, RingBuf};
use fail2xdp::enforce::tables::{Hold, Sizes, TableError, Tables};
use fail2xdp_common::{map, report::Event};
use ipnet::IpNet;

use crate::{
    frame::{BANNED_V4, Frame},
    lab::{Action, Lab, NOW},
    property::rest,
};

fn small() -> (Lab, Tables) {
    let lab = Lab::new(Sizes::for_bans(1024, 1024));
    let tables = lab.tables();
    (lab, tables)
}

fn hold(jail: &str, scope: &str, until: u32) -> Hold {
    Hold { jail: jail.into(), scope: scope.parse().expect(scope), until }
}

fn banned() -> IpNet {
    std::net::IpAddr::from(BANNED_V4).into()
}

fn address(nth: u32) -> IpNet {
    std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + nth)).into()
}

fn packet(text: &str) -> Vec<u8> {
    Frame::parse(text).build().0
}

#[test]
fn when_no_scope_number_is_left_a_jail_is_enforced_on_every_port_of_its_protocol() {
    let (mut lab, mut tables) = small();
    for nth in 0..60 {
        let banned = tables
            .ban(address(nth), &hold("jail", &format!("tcp:{}", 1000 + nth), NOW + 5))
            .expect("room");
        assert_eq!(banned.widened, None, "scope {nth}");
    }
    let widened = tables.ban(banned(), &hold("jail", "tcp:22", NOW + 5)).expect("room").widened;
    assert_eq!(widened.map(|scope| scope.to_string()).as_deref(), Some("tcp"));
    assert_eq!(lab.run(&packet("v4 tcp=80")), Action::Drop);
    assert_eq!(lab.run(&packet("v4 udp=22")), Action::Pass);
    let known = tables.ban(address(100), &hold("jail", "tcp:1003", NOW + 5)).expect("room");
    assert_eq!(known.widened, None, "a scope that has a number keeps it");
    // One goes, and after a grace period another takes its number.
    tables.unban(address(7), "jail").expect("a map that can be written").expect("it was banned");
    rest(&mut tables);
    tables.ban(banned(), &hold("jail", "tcp:22", NOW + 5)).expect("room");
    assert_eq!(lab.run(&packet("v4 tcp=80")), Action::Pass);
    assert_eq!(lab.run(&packet("v4 tcp=1007")), Action::Pass, "what the number meant before");
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Drop);
    let (adopted, differences) = Tables::adopt(lab.maps()).expect("maps of this version");
    assert!(differences.is_none(), "{differences}");
    assert_eq!(adopted.holds(banned()), [hold("jail", "tcp:22", NOW + 5)]);
}

#[test]
fn a_ninth_jail_shares_a_slot_and_is_never_dropped() {
    let (mut lab, mut tables) = small();
    for nth in 0..8 {
        let alone = tables
            .ban(banned(), &hold(&format!("jail {nth}"), &format!("tcp:{nth}"), NOW + 10 + nth));
        assert!(!alone.expect("room").merged);
    }
    let ninth = tables.ban(banned(), &hold("ninth", "tcp:22", NOW + 13)).expect("room");
    assert!(ninth.merged);
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Drop);
    assert_eq!(tables.holds(banned()).len(), 9);
    // Its host lets go: the slot is the ninth's now.
    tables.unban(banned(), "jail 3").expect("a map that can be written").expect("it was banned");
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Drop);
    assert_eq!(lab.run(&packet("v4 tcp=3")), Action::Pass);
    tables.unban(banned(), "ninth").expect("a map that can be written").expect("it was banned");
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Pass);
}

#[test]
fn when_further_slots_are_full_a_second_jail_shares_the_first_ones() {
    let (mut lab, mut tables) = small();
    let room = lab
        .maps()
        .handle_to(map::MORE_SLOTS)
        .expect("a map")
        .info()
        .expect("its description")
        .max_entries();
    for nth in 0..room {
        tables.ban(address(nth), &hold("one", "tcp:1", NOW + 5)).expect("room");
        assert!(
            !tables.ban(address(nth), &hold("two", "tcp:2", NOW + 5)).expect("room").merged,
            "{nth} of {room}"
        );
    }
    tables.ban(banned(), &hold("one", "tcp:22", NOW + 5)).expect("room");
    assert!(tables.ban(banned(), &hold("two", "tcp:23", NOW + 9)).expect("room").merged);
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Drop);
    assert_eq!(lab.run(&packet("v4 tcp=23")), Action::Drop);
    assert_eq!(lab.run(&packet("v4 tcp=24")), Action::Pass);
}

#[test]
fn a_full_family_is_refused_by_name_and_the_other_goes_on() {
    let (mut lab, mut tables) = small();
    for nth in 0..1024 {
        tables.ban(address(nth), &hold("jail", "all", NOW + 5)).expect("room");
    }
    let full = tables.ban(banned(), &hold("jail", "all", NOW + 5));
    assert!(matches!(full, Err(TableError::Full { map: map::BANS_V4, entries: 1024 })), "{full:?}");
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Pass);
    assert_eq!((tables.load().v4.bans, tables.load().v4.capacity), (1024, 1024));
    // Those that are there can still change, and others come when one goes.
    tables.ban(address(3), &hold("jail", "tcp", NOW + 50)).expect("room for a change");
    tables
        .ban("2001:db8::1/128".parse().expect("an address"), &hold("jail", "all", NOW + 5))
        .expect("room for IPv6");
    tables.unban(address(4), "jail").expect("a map that can be written");
    tables.ban(banned(), &hold("jail", "all", NOW + 5)).expect("room again");
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Drop);
}

#[test]
fn larger_maps_take_every_ban_over_and_its_counts() {
    let (mut lab, mut tables) = small();
    tables.ban(banned(), &hold("one", "tcp:22", NOW + 5)).expect("room");
    tables.ban(banned(), &hold("two", "udp:53", NOW + 9)).expect("room");
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Drop);
    let mut larger = Lab::new(Sizes::for_bans(4096, 1024));
    let mut grown = larger.tables();
    let prefixes: Vec<IpNet> = tables.bans().map(|(prefix, _)| prefix).collect();
    for prefix in prefixes {
        grown.carry(prefix, &tables).expect("room");
        grown.credit(prefix, tables.traffic(prefix).expect("it is banned"));
    }
    assert_eq!(grown.holds(banned()), tables.holds(banned()));
    assert_eq!(larger.run(&packet("v4 udp=53")), Action::Drop);
    assert_eq!(grown.traffic(banned()).map(|dropped| dropped.packets), Some(2));
    assert_eq!(grown.load().v4.capacity, 4096);
}

#[test]
fn a_comparison_in_small_steps_mends_what_was_tampered_with() {
    let (mut lab, mut tables) = small();
    let mut other = Tables::adopt(lab.maps()).expect("maps of this version").0;
    // Many: each shares its line with others, whose slots are not to be taken while all are mended.
    for nth in 0..1000 {
        tables.ban(address(nth), &hold("jail", "tcp:22", NOW + 5)).expect("room");
    }
    tables
        .ban("203.0.113.0/24".parse().expect("a network"), &hold("jail", "all", NOW + 5))
        .expect("room");
    // A second writer, which must not be: it knows none of these bans.
    other.ban(banned(), &hold("stranger", "all", NOW + 5)).expect("room");
    let strays = other.compare(usize::MAX).expect("maps that can be read").expect("all at once");
    assert_eq!(strays.bans_stray, 1001, "{strays}");
    let steps =
        (1..).find_map(|step| Some((step, tables.compare(8).expect("maps that can be read")?)));
    let (steps, differences) = steps.expect("an end");
    assert!(steps > 10, "{steps} steps");
    assert_eq!((differences.bans_missing, differences.bans_stray), (1001, 1), "{differences}");
    assert!(differences.lines > 0 && differences.bits > 0, "{differences}");
    assert_eq!(lab.run(&packet("v4 tcp=22")), Action::Pass);
    assert_eq!(lab.run(&packet("v4=10.0.0.7 tcp=22")), Action::Drop);
    assert_eq!(lab.run(&packet("v4=203.0.113.9 udp=1")), Action::Drop);
    let again = tables.compare(usize::MAX).expect("maps that can be read").expect("all at once");
    assert!(again.is_none(), "{again}");
}

#[test]
fn drops_are_reported_within_the_budget_of_a_second() {
    let (mut lab, mut tables) = small();
    tables.ban(banned(), &hold("jail", "tcp:22", NOW + 5)).expect("room");
    let events = Map::RingBuf(tables.maps().handle_to(map::EVENTS).expect("a map"));
    let mut events = RingBuf::try_from(events).expect("a ring buffer");
    lab.run(&packet("v4 tcp=22"));
    assert!(events.next().is_none(), "no budget, no events");
    tables.set_events_per_second(3);
    // One processor: the budget is each one's own.
    let (action, _) = lab.repeat(&packet("v4 tcp=22"), 100);
    assert_eq!(action, Action::Drop);
    let mut count = 0;
    while let Some(event) = events.next() {
        assert_eq!(event.len(), size_of::<Event>());
        assert_eq!(event[..4], BANNED_V4.octets());
        assert_eq!(event[16..20], NOW.to_ne_bytes());
        assert_eq!(event[28..32], 22u32.to_ne_bytes());
        count += 1;
    }
    let processors = aya::util::nr_cpus().expect("/sys");
    assert!((3..=3 * processors).contains(&count), "{count} events of a budget of 3");
}

#[test]
fn a_slot_is_used_again_only_after_its_rest() {
    let (_lab, mut tables) = small();
    let line = tables.line_of(banned());
    let same_line: Vec<IpNet> =
        (0..).map(address).filter(|net| tables.line_of(*net) == line).take(6).collect();
    let ban = |tables: &mut Tables, net: IpNet| {
        tables.ban(net, &hold("jail", "all", NOW + 5)).expect("room");
        tables.load().spilled_lines
    };
    for net in &same_line[..4] {
        assert_eq!(ban(&mut tables, *net), 0, "four fit a line");
    }
    let started = Instant::now();
    tables.unban(same_line[0], "jail").expect("a map that can be written").expect("it was banned");
    assert_eq!(
        ban(&mut tables, same_line[4]),
        1,
        "the slot rests, so the pair line takes the next"
    );
    tables.unban(same_line[4], "jail").expect("a map that can be written").expect("it was banned");
    assert!(tables.settle(started).is_some(), "something rests");
    rest(&mut tables);
    assert_eq!(tables.settle(started + Duration::from_secs(600)), None);
    assert_eq!(ban(&mut tables, same_line[5]), 0, "the slot has rested");
}
