//! A writer that dies between any two writes: the verdict of every packet is that of before or after,
//! with each accelerator on and off, now and when ends have passed; and the next daemon makes it whole.
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Instant,
};

use fail2xdp::enforce::tables::{Sizes, Tables};
use ipnet::IpNet;
use rand::seq::SliceRandom as _;

use crate::{
    frame::{Frame, Truth},
    lab::{Action, Lab, NOW, stand_still},
    model::{Hold, Model, Outcome},
    property::{FLAGS, model, real},
    random::Random,
};

/// Thrown by the hook: the writer is gone.
struct Dead;

/// When the packets are judged: now, and when some of the ends have passed.
const MOMENTS: [u32; 4] = [NOW, NOW + 1, NOW + 50, NOW + 4000];

/// One operation.
#[derive(Clone, Debug)]
enum Operation {
    Ban(IpNet, Hold),
    Unban(IpNet, String),
    Allow(IpNet),
    Disallow(IpNet),
    Harvest,
    Observe(Vec<String>),
}

impl Operation {
    fn on_tables(&self, tables: &mut Tables) {
        match self {
            Operation::Ban(prefix, hold) => {
                tables.ban(*prefix, &real(hold)).expect("room for a ban");
            }
            Operation::Unban(prefix, jail) => {
                tables.unban(*prefix, jail).expect("a map that can be written");
            }
            Operation::Allow(prefix) => tables.allow(*prefix).expect("room for an allow entry"),
            Operation::Disallow(prefix) => {
                tables.disallow(*prefix).expect("a map that can be written")
            }
            Operation::Harvest => tables.harvest(NOW, u32::MAX),
            Operation::Observe(jails) => tables
                .set_observing(jails.iter().map(String::as_str))
                .expect("a map that can be written"),
        }
    }

    fn on_model(&self, model: &mut Model) {
        match self {
            Operation::Ban(prefix, hold) => model.ban(*prefix, hold.clone()),
            Operation::Unban(prefix, jail) => _ = model.unban(*prefix, jail),
            Operation::Allow(prefix) if !model.allowed.contains(prefix) => {
                model.allowed.push(*prefix)
            }
            Operation::Disallow(prefix) => model.allowed.retain(|allowed| allowed != prefix),
            Operation::Allow(_) | Operation::Harvest => {}
            Operation::Observe(jails) => model.observing = jails.iter().cloned().collect(),
        }
    }

    fn prefix(&self) -> Option<IpNet> {
        match self {
            Operation::Ban(prefix, _) | Operation::Unban(prefix, _) => Some(*prefix),
            Operation::Allow(prefix) | Operation::Disallow(prefix) => Some(*prefix),
            Operation::Harvest | Operation::Observe(_) => None,
        }
    }
}

struct Scene {
    lab: Lab,
    tables: Tables,
    model: Model,
    packets: u64,
    deaths: u64,
    /// Jails are being switched between observing and dropping.
    switching: bool,
}

/// Does it on the tables, dead before write `budget` + 1; whether it lived.
fn attempt(tables: &mut Tables, operation: &Operation, budget: usize) -> bool {
    let mut left = budget;
    tables.before_each_write(Some(Box::new(move || {
        if left == 0 {
            resume_unwind(Box::new(Dead));
        }
        left -= 1;
    })));
    let outcome = catch_unwind(AssertUnwindSafe(|| operation.on_tables(tables)));
    // What is left of the writer only sets flags and clock for the packets that follow.
    tables.before_each_write(None);
    match outcome {
        Ok(()) => true,
        Err(cause) if cause.is::<Dead>() => false,
        Err(cause) => resume_unwind(cause),
    }
}

impl Scene {
    fn new() -> Scene {
        let lab = Lab::new(Sizes::for_bans(1024, 1024));
        let tables = lab.tables();
        Scene { lab, tables, model: Model::default(), packets: 0, deaths: 0, switching: false }
    }

    fn apply(&mut self, operation: &Operation) {
        operation.on_tables(&mut self.tables);
        operation.on_model(&mut self.model);
    }

    /// Every packet at every moment, each accelerator off: the action is one of those allowed.
    fn judge(&mut self, packets: &[(Vec<u8>, Truth)], models: &[&Model], when: &str) {
        for now in MOMENTS {
            stand_still(&mut self.tables, now);
            for flags in FLAGS {
                self.tables.set_flag(flags, true);
                for (packet, truth) in packets {
                    let action = self.lab.run(packet);
                    // What is dropped only because scopes had to be united may pass while jails are switched.
                    let fits = |model: &&&Model| {
                        let dropped = action == Action::Drop;
                        (model.verdict(truth, now).0 == Outcome::Dropped) == dropped
                            || self.switching && model.drops_exactly(truth, now) == dropped
                    };
                    let holds = || -> Vec<_> {
                        models
                            .iter()
                            .map(|model| (model.verdict(truth, now), Self::covering(model, truth)))
                            .collect()
                    };
                    assert!(
                        models.iter().any(|model| fits(&model)),
                        "{when}: {action:?} at NOW + {}, flags {flags}, of {truth:?}; before and after: {:#?}",
                        now - NOW,
                        holds()
                    );
                    self.packets += 1;
                }
                self.tables.set_flag(flags, false);
            }
        }
        stand_still(&mut self.tables, NOW);
    }

    fn covering(model: &Model, truth: &Truth) -> Vec<(IpNet, Vec<Hold>)> {
        let Truth::Ip { source, .. } = truth else { return Vec::new() };
        model
            .prefixes()
            .filter(|net| net.contains(source))
            .map(|net| (net, model.holds(net)))
            .collect()
    }

    /// A new daemon takes over; its bans are those of one of the models, whose number is returned.
    fn adopt(&mut self, models: &[&Model], when: &str) -> usize {
        let (tables, _) =
            Tables::adopt(self.lab.maps()).unwrap_or_else(|error| panic!("{when}: {error:?}"));
        self.tables = tables;
        // Who observes the configuration says: here as before.
        let observing: Vec<String> = models[0].observing.iter().cloned().collect();
        Operation::Observe(observing).on_tables(&mut self.tables);
        let again =
            self.tables.compare(usize::MAX).expect("maps that can be read").expect("all at once");
        assert!(again.is_none(), "{when}: adopted, yet {again}");
        let mut found: Vec<_> =
            self.tables.bans().map(|(net, holds)| (net, model(holds))).collect();
        found.sort_by_key(|(net, _)| *net);
        let mut allowed: Vec<IpNet> = self.tables.allowed().collect();
        allowed.sort();
        let fits = |model: &&Model| {
            let mut wanted = model.allowed.clone();
            wanted.sort();
            let bans: Vec<_> = model.prefixes().map(|net| (net, model.holds(net))).collect();
            wanted == allowed && bans == found
        };
        models.iter().position(fits).unwrap_or_else(|| {
            let of = |model: &&Model| -> Vec<_> {
                model.prefixes().map(|net| (net, model.holds(net))).collect()
            };
            let (before, after) = (of(&models[0]), of(models.last().expect("two models")));
            let odd: Vec<_> =
                found.iter().filter(|ban| !before.contains(ban) || !after.contains(ban)).collect();
            panic!("{when}: the adopted bans are neither those of before nor of after: {odd:#?}")
        })
    }

    /// Kills the writer before each of the first twenty writes of the operation in turn, then ever fewer,
    /// until it lives.
    fn die_everywhere(&mut self, operation: &Operation, packets: &[(Vec<u8>, Truth)]) {
        let before = self.model.clone();
        let mut after = before.clone();
        operation.on_model(&mut after);
        // An allow entry as wide as the Internet writes thousands of words: after the first few, and at
        // larger and larger steps, one death is as good as another.
        let budgets = std::iter::successors(Some(0), |budget| Some(budget + 1 + budget / 20 * 4));
        for budget in budgets {
            let when = format!("dead before write {} of {operation:?}", budget + 1);
            if attempt(&mut self.tables, operation, budget) {
                break;
            }
            self.deaths += 1;
            self.switching = matches!(operation, Operation::Observe(_));
            // While jails are switched, those drop that drop before or after.
            let mut between = before.clone();
            between.observing.retain(|jail| after.observing.contains(jail));
            let models = [&before, &after, &between];
            self.judge(packets, if self.switching { &models } else { &models[..2] }, &when);
            self.switching = false;
            let adopted = self.adopt(&[&before, &after], &when);
            self.judge(&packets[..packets.len().min(10)], &[[&before, &after][adopted]], &when);
            // Back to before, for the next death.
            if let (1, Some(prefix)) = (adopted, operation.prefix()) {
                self.restore(prefix, &before, &after);
            }
        }
        self.model = after;
        self.judge(packets, &[&self.model.clone()], "alive");
    }

    fn restore(&mut self, prefix: IpNet, before: &Model, after: &Model) {
        for jail in after.jails(prefix) {
            self.tables.unban(prefix, &jail).expect("a map that can be written");
        }
        for jail in before.jails(prefix) {
            let hold = before
                .holds(prefix)
                .into_iter()
                .find(|hold| hold.jail == jail)
                .expect("its own hold");
            self.tables.ban(prefix, &real(&hold)).expect("room for a ban");
        }
        if before.allowed.contains(&prefix) {
            self.tables.allow(prefix).expect("room for an allow entry");
        } else {
            self.tables.disallow(prefix).expect("a map that can be written");
        }
    }
}

fn operation(random: &mut Random, model: &Model) -> Operation {
    let known: Vec<IpNet> = model.prefixes().collect();
    match random.below(14) {
        12.. => {
            let some = (0..8).filter(|_| random.one_in(3));
            Operation::Observe(some.map(|nth| format!("jail {nth}")).collect())
        }
        0..4 => Operation::Ban(random.prefix(), random.hold(8)),
        4..7 if !known.is_empty() => Operation::Ban(random.pick(&known), random.hold(8)),
        7..10 if !known.is_empty() => {
            let prefix = random.pick(&known);
            let jails = model.jails(prefix);
            Operation::Unban(prefix, jails[random.below(jails.len())].clone())
        }
        10 if !model.allowed.is_empty() && random.one_in(2) => {
            Operation::Disallow(random.pick(&model.allowed))
        }
        10 => Operation::Allow(random.prefix()),
        _ => Operation::Harvest,
    }
}

/// Packets from the prefix and around it.
fn packets_near(random: &mut Random, prefix: Option<IpNet>, count: usize) -> Vec<(Vec<u8>, Truth)> {
    (0..count)
        .map(|nth| {
            let source = match prefix {
                Some(prefix) if nth % 4 != 0 => prefix.addr(),
                _ => random.address(),
            };
            random.frame(source).build()
        })
        .collect()
}

#[test]
fn a_writer_that_dies_anywhere_leaves_before_or_after() {
    let mut random = Random::new();
    let (mut deaths, mut packets) = (0, 0);
    for _ in 0..3 {
        let mut scene = Scene::new();
        // Deeper than the program looks, and twice that.
        for depth in [9, 17] {
            let address = random.address();
            for prefix in random.nest(address, depth) {
                scene.apply(&Operation::Ban(prefix, random.hold(8)));
            }
        }
        for _ in 0..30 {
            let first = operation(&mut random, &scene.model);
            scene.apply(&first);
        }
        for _ in 0..30 {
            let next = operation(&mut random, &scene.model);
            let near = packets_near(&mut random, next.prefix(), 24);
            scene.die_everywhere(&next, &near);
            scene.tables.settle(Instant::now());
        }
        deaths += scene.deaths;
        packets += scene.packets;
    }
    println!("{deaths} deaths, {packets} packets");
    assert!(deaths >= 200, "{deaths} deaths");
    assert!(packets >= 100_000, "{packets} packets");
}

#[test]
fn a_writer_that_dies_while_lines_are_full_leaves_before_or_after() {
    let mut random = Random::new();
    let mut scene = Scene::new();
    // By chance: addresses in steps would spread over the lines too well.
    let addresses: Vec<IpNet> = random.distinct_v4(1010);
    let address = |nth: usize| addresses[nth];
    for nth in 0..1000 {
        scene.apply(&Operation::Ban(address(nth), random.hold(3)));
    }
    assert!(scene.tables.load().spilled_lines > 0, "nothing spilled, so this proves nothing");
    for nth in 0..7 {
        let new = Operation::Ban(address(1000 + nth), random.hold(3));
        let near = packets_near(&mut random, new.prefix(), 12);
        scene.die_everywhere(&new, &near);
        let prefix = address(random.below(1000));
        let jail = scene.model.jails(prefix).first().cloned();
        if let Some(jail) = jail {
            let near = packets_near(&mut random, Some(prefix), 12);
            scene.die_everywhere(&Operation::Unban(prefix, jail), &near);
        }
    }
    assert!(scene.deaths >= 40, "{} deaths", scene.deaths);
}

#[test]
fn every_change_of_two_jails_on_an_address_is_whole_or_not_at_all() {
    let mut scene = Scene::new();
    let holds = |jail: &str| -> Vec<Hold> {
        [NOW + 1, NOW + 50]
            .into_iter()
            .flat_map(|until| ["tcp:22", "udp:53"].map(|scope| (until, scope)))
            .map(|(until, scope)| Hold {
                jail: jail.into(),
                scope: scope.parse().expect(scope),
                until,
            })
            .collect()
    };
    for prefix in ["192.0.2.1/32", "2001:db8:1::/64"] {
        let prefix: IpNet = prefix.parse().expect(prefix);
        let packets: Vec<_> = [(6, 22), (17, 53), (47, 0)]
            .into_iter()
            .map(|(protocol, port)| Frame { protocol, port, ..Frame::from(prefix.addr()) }.build())
            .collect();
        for first in holds("first") {
            for second in holds("second") {
                scene.apply(&Operation::Ban(prefix, first.clone()));
                scene.die_everywhere(&Operation::Ban(prefix, second.clone()), &packets);
                for changed in holds("first") {
                    scene.die_everywhere(&Operation::Ban(prefix, changed), &packets);
                }
                scene.apply(&Operation::Ban(prefix, first.clone()));
                scene.die_everywhere(&Operation::Unban(prefix, "first".into()), &packets);
                scene.die_everywhere(&Operation::Unban(prefix, "second".into()), &packets);
            }
        }
    }
    assert!(scene.deaths > 300, "{} deaths", scene.deaths);
}

#[test]
fn the_outermost_ban_of_a_deep_nest_holds_while_those_within_come_and_go() {
    let mut random = Random::new();
    let mut scene = Scene::new();
    let hold = |scope: &str, until| Hold {
        jail: "jail".into(),
        scope: scope.parse().expect(scope),
        until,
    };
    for address in ["192.0.2.77", "2001:db8::77"] {
        let address = address.parse().expect("an address");
        let mut nest = random.nest(address, 17);
        nest.sort_by_key(IpNet::prefix_len);
        let packets: Vec<_> = [6, 17]
            .map(|protocol| Frame { protocol, port: 22, ..Frame::from(address) }.build())
            .into();
        // Only this one drops these packets.
        let outermost = nest.remove(0);
        for prefix in &nest {
            scene.apply(&Operation::Ban(*prefix, hold("udp:53", NOW + 50)));
        }
        scene.die_everywhere(&Operation::Ban(outermost, hold("tcp", NOW + 4001)), &packets);
        nest.shuffle(&mut random.rng);
        for prefix in &nest {
            scene.die_everywhere(&Operation::Unban(*prefix, "jail".into()), &packets);
            scene.die_everywhere(&Operation::Ban(*prefix, hold("udp:53", NOW + 50)), &packets);
        }
        scene.die_everywhere(&Operation::Ban(outermost, hold("udp", NOW + 50)), &packets);
        scene.die_everywhere(&Operation::Unban(outermost, "jail".into()), &packets);
    }
    assert!(scene.deaths > 300, "{} deaths", scene.deaths);
}

#[test]
fn an_heir_without_room_for_both_is_told_what_comes_after() {
    let mut scene = Scene::new();
    let hold = |jail: &str, scope: &str, until| Hold {
        jail: jail.into(),
        scope: scope.parse().expect(scope),
        until,
    };
    let net = |length| format!("192.0.2.77/{length}").parse::<IpNet>().expect("a network").trunc();
    // Seven networks; the innermost tells what bans the six others, in all of its eight slots.
    scene.apply(&Operation::Ban(net(31), hold("jail", "proto-50", NOW + 3600)));
    for length in 25..31 {
        let scope = format!("tcp:{length}");
        scene.apply(&Operation::Ban(net(length), hold("jail", &scope, NOW + 1)));
    }
    scene.apply(&Operation::Ban(net(30), hold("second", "udp", NOW + 3600)));
    let source = "192.0.2.77".parse().expect("an address");
    let packets: Vec<_> = [(6, 25), (6, 30), (6, 53), (17, 53), (47, 0)]
        .map(|(protocol, port)| Frame { protocol, port, ..Frame::from(source) }.build())
        .into();
    for (scope, until) in [("tcp:53", NOW + 1), ("tcp:30", NOW + 3600), ("all", NOW + 1)] {
        scene.die_everywhere(&Operation::Ban(net(30), hold("jail", scope, until)), &packets);
    }
    scene.die_everywhere(&Operation::Unban(net(30), "jail".into()), &packets);
    assert!(scene.deaths > 10, "{} deaths", scene.deaths);
}
