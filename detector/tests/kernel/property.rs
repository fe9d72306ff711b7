//! Random tables and random packets: every verdict and every count as the model says, with each
//! accelerator on and off.
use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use fail2xdp::enforce::tables::{self, Sizes, Tables};
use fail2xdp_common::config::{IGNORE_HINTS, IGNORE_LINES, IGNORE_NETS};
use ipnet::IpNet;
use rand::Rng as _;

use crate::{
    frame::Truth,
    lab::{Action, Lab, NOW, stand_still},
    model::{Hold, Model, Outcome},
    random::Random,
};

/// Accelerators off: none, each, all.
pub const FLAGS: [u32; 5] =
    [0, IGNORE_HINTS, IGNORE_LINES, IGNORE_NETS, IGNORE_HINTS | IGNORE_LINES | IGNORE_NETS];

/// Tables and model side by side.
struct Pair {
    lab: Lab,
    tables: Tables,
    model: Model,
    /// What each ban is to have dropped since it was made, and what it would have.
    dropped: HashMap<IpNet, (u64, u64)>,
    outcomes: HashMap<Outcome, u64>,
    flags: u32,
}

impl Pair {
    fn new() -> Pair {
        let lab = Lab::new(Sizes::for_bans(1024, 1024));
        let tables = lab.tables();
        let (dropped, outcomes) = Default::default();
        Pair { lab, tables, model: Model::default(), dropped, outcomes, flags: 0 }
    }

    fn ban(&mut self, prefix: IpNet, hold: Hold) {
        self.tables.ban(prefix, &real(&hold)).expect("room for a ban");
        self.model.ban(prefix, hold);
        self.dropped.entry(prefix).or_default();
    }

    fn unban(&mut self, prefix: IpNet, jail: &str) {
        let lifted = self.tables.unban(prefix, jail).expect("a map that can be written");
        assert_eq!(lifted.is_some(), self.model.unban(prefix, jail), "{prefix} by {jail}");
        if let Some(lifted) = lifted {
            let found = (lifted.packets, lifted.would_drop);
            assert_eq!(found, self.dropped[&prefix], "what {prefix} had dropped");
        }
        if self.model.jails(prefix).is_empty() {
            self.dropped.remove(&prefix);
        }
    }

    /// Switches a jail between dropping and observing.
    fn switch(&mut self, jail: &str) {
        if !self.model.observing.remove(jail) {
            self.model.observing.insert(jail.to_owned());
        }
        let observing = self.model.observing.iter().map(String::as_str);
        self.tables.set_observing(observing).expect("a map that can be written");
    }

    fn ignore(&mut self, flags: u32) {
        self.tables.set_flag(self.flags, false);
        self.tables.set_flag(flags, true);
        self.flags = flags;
    }

    fn run(&mut self, packet: &[u8], truth: &Truth, now: u32) {
        let (outcome, by) = self.model.verdict(truth, now);
        let action = self.lab.run(packet);
        let wanted = if outcome == Outcome::Dropped { Action::Drop } else { Action::Pass };
        assert_eq!(
            action,
            wanted,
            "{truth:?}: the model says {outcome:?} by {by:?}, whom {:?} hold; flags {}; packet {packet:02x?}",
            by.map(|net| self.model.holds(net)),
            self.flags
        );
        *self.outcomes.entry(outcome).or_insert(0) += 1;
        if let Some(net) = by {
            let (dropped, would_drop) = self.dropped.get_mut(&net).expect("a banned prefix");
            *(if outcome == Outcome::Dropped { dropped } else { would_drop }) += 1;
        }
    }

    /// Every counter and every ban's count as the model says.
    fn check_counts(&self) {
        let counters = self.tables.counters().expect("counters");
        for (outcome, counter) in [
            (Outcome::Passed, counters.passed),
            (Outcome::Dropped, counters.dropped),
            (Outcome::WouldDrop, counters.would_drop),
            (Outcome::Spared, counters.spared),
            (Outcome::NotIp, counters.not_ip),
            (Outcome::Unreadable, counters.unreadable),
        ] {
            assert_eq!(
                counter.packets,
                self.outcomes.get(&outcome).copied().unwrap_or(0),
                "{outcome:?}"
            );
        }
        assert_eq!(self.dropped.len(), self.model.len());
        for (net, packets) in &self.dropped {
            assert_eq!(
                self.tables.traffic(*net).map(|dropped| (dropped.packets, dropped.would_drop)),
                Some(*packets),
                "{net}"
            );
        }
    }

    fn check_bans(&self) {
        let mut found: Vec<(IpNet, Vec<Hold>)> =
            self.tables.bans().map(|(net, holds)| (net, model(holds))).collect();
        found.sort_by_key(|(net, _)| *net);
        let wanted: Vec<_> =
            self.model.prefixes().map(|net| (net, self.model.holds(net))).collect();
        assert_eq!(found, wanted);
    }
}

/// As the tables take it.
pub fn real(hold: &Hold) -> tables::Hold {
    tables::Hold { jail: hold.jail.clone(), scope: hold.scope.clone(), until: hold.until }
}

/// As the model has it, sorted by jail.
pub fn model(holds: Vec<tables::Hold>) -> Vec<Hold> {
    let mut holds: Vec<Hold> = holds
        .into_iter()
        .map(|hold| Hold { jail: hold.jail, scope: hold.scope, until: hold.until })
        .collect();
    holds.sort_by(|one, other| one.jail.cmp(&other.jail));
    holds
}

/// One random change of the table.
fn change(pair: &mut Pair, random: &mut Random) {
    let known: Vec<IpNet> = pair.model.prefixes().collect();
    match random.below(11) {
        10 if random.one_in(4) => {
            pair.model.observes ^= true;
            pair.tables.set_observe(pair.model.observes);
        }
        10 => pair.switch(&format!("jail {}", random.below(10))),
        0..4 => {
            let prefix = random.prefix();
            pair.ban(prefix, random.hold(10));
        }
        4..6 if !known.is_empty() => {
            // Another jail's hold, or another end or scope of one.
            let prefix = random.pick(&known);
            pair.ban(prefix, random.hold(10));
        }
        6 if !known.is_empty() => {
            let prefix = random.pick(&known);
            let jails = pair.model.jails(prefix);
            let jail = jails[random.below(jails.len())].clone();
            pair.unban(prefix, &jail);
        }
        7 if !known.is_empty() => {
            let prefix = random.pick(&known);
            for jail in pair.model.jails(prefix) {
                pair.unban(prefix, &jail);
            }
        }
        8 if random.one_in(2) => {
            let prefix = random.prefix();
            pair.tables.allow(prefix).expect("room for an allow entry");
            if !pair.model.allowed.contains(&prefix) {
                pair.model.allowed.push(prefix);
            }
        }
        9 if !pair.model.allowed.is_empty() => {
            let nth = random.below(pair.model.allowed.len());
            let prefix = pair.model.allowed.swap_remove(nth);
            pair.tables.disallow(prefix).expect("a map that can be written");
        }
        _ => {
            // A deep nest around one address: to the limit of levels, beyond, and twice.
            let (address, depth) = (random.address(), random.pick(&[4, 9, 12, 20]));
            for prefix in random.nest(address, depth) {
                pair.ban(prefix, random.hold(10));
                // Each may unite scopes anew, and there are 60 numbers for them.
                rest(&mut pair.tables);
            }
        }
    }
}

#[test]
fn every_verdict_and_count_equals_the_models() {
    let mut random = Random::new();
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    for _ in 0..12 {
        let mut pair = Pair::new();
        for _ in 0..10 {
            for _ in 0..40 {
                change(&mut pair, &mut random);
            }
            pair.tables.settle(Instant::now());
            let now = random.pick(&[NOW, NOW, NOW + 1, NOW + 50]);
            stand_still(&mut pair.tables, now);
            for _ in 0..200 {
                let source = random.address();
                let (packet, truth) = random.frame(source).build();
                for flags in FLAGS {
                    pair.ignore(flags);
                    pair.run(&packet, &truth, now);
                }
            }
            pair.check_counts();
            if random.one_in(3) {
                pair.tables.harvest(now, u32::MAX);
                pair.check_counts();
            }
        }
        pair.check_bans();
        let differences =
            pair.tables.compare(usize::MAX).expect("maps that can be read").expect("all at once");
        assert!(differences.is_none(), "{differences}");
        for (outcome, count) in pair.outcomes {
            *outcomes.entry(outcome).or_insert(0) += count;
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes.values().sum::<u64>() >= 100_000);
    for outcome in [
        Outcome::Passed,
        Outcome::Dropped,
        Outcome::WouldDrop,
        Outcome::Spared,
        Outcome::NotIp,
        Outcome::Unreadable,
    ] {
        assert!(
            outcomes.get(&outcome).is_some_and(|count| *count > 300),
            "too few packets were {outcome:?}"
        );
    }
}

/// Lets slots and numbers rest until they may be used again.
pub fn rest(tables: &mut Tables) {
    let mut now = Instant::now();
    while tables.settle(now).is_some() {
        // The kernel's grace period is real, the ten seconds of a number are ours to choose.
        std::thread::sleep(Duration::from_millis(1));
        now += Duration::from_secs(1);
    }
}

#[test]
fn full_lines_spill_and_every_ban_still_holds() {
    let mut random = Random::new();
    let mut pair = Pair::new();
    for (nth, v4) in random.distinct_v4(1024).into_iter().enumerate() {
        // By chance, as the IPv4 ones: addresses in steps would spread over the lines too well.
        let network = u128::from(random.rng.random::<u32>()) << 32 | nth as u128;
        let v6 = Ipv6Addr::from(0x2001_u128 << 112 | network << 64 | 7);
        let hold = random.hold(10);
        pair.ban(v4, hold.clone());
        let length = if nth % 2 == 0 { 64 } else { 128 };
        pair.ban(IpNet::new(v6.into(), length).expect("128 at most").trunc(), hold);
    }
    assert!(
        pair.tables.load().spilled_lines > 0,
        "{:?}: nothing spilled, so this proves nothing",
        pair.tables.load()
    );
    let one_more = pair.tables.ban("192.0.2.1/32".parse().unwrap(), &real(&random.hold(1)));
    assert!(
        matches!(one_more, Err(tables::TableError::Full { map: "BANS_V4", entries: 1024 })),
        "{one_more:?}"
    );
    for turn in 0..3 {
        let prefixes: Vec<IpNet> = pair.model.prefixes().collect();
        for prefix in &prefixes {
            let (packet, truth) = random.frame(prefix.addr()).build();
            for flags in FLAGS {
                pair.ignore(flags);
                pair.run(&packet, &truth, NOW);
            }
        }
        pair.check_counts();
        // Half of them go and come again, in other slots.
        let gone: Vec<_> = prefixes
            .iter()
            .filter(|_| turn < 2 && random.one_in(2))
            .map(|prefix| (*prefix, pair.model.holds(*prefix).remove(0)))
            .collect();
        gone.iter().for_each(|(prefix, hold)| pair.unban(*prefix, &hold.jail));
        rest(&mut pair.tables);
        gone.into_iter().for_each(|(prefix, hold)| pair.ban(prefix, hold));
    }
    let differences =
        pair.tables.compare(usize::MAX).expect("maps that can be read").expect("all at once");
    assert!(differences.is_none(), "{differences}");
}
