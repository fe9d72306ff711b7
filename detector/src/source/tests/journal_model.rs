//! Random entries through `systemd-journal-remote`, and what each jail gets of them, against a plain model of
//! `journalmatch`.
use std::collections::BTreeMap;

use super::{
    journal::{Fields, log_fields},
    *,
};
use crate::config::JournalSettings;

/// How many journals are made, each with its own jails, files and restarts.
const ROUNDS: u64 = 12;

/// Few names and values, so that matches are met.
const NAMES: [&str; 4] = ["_SYSTEMD_UNIT", "_COMM", "_TRANSPORT", "X_1"];
const VALUES: [&str; 5] = ["a", "kernel", "", "a b", "a=b"];

/// Random numbers that a seed repeats: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn term(&mut self) -> String {
        format!("{}={}", self.one(&NAMES), self.one(&VALUES))
    }
}

/// Groups of terms, as `journalmatch` has them.
type Groups = Vec<Vec<String>>;

/// The grammar, as it is written down: groups are alternatives; of each field in a group one term must be there.
fn wants(groups: &Groups, entry: &Fields) -> bool {
    let has = |term: &String| {
        entry.iter().any(|(name, value)| [name.as_bytes(), b"=", value].concat() == term.as_bytes())
    };
    groups.is_empty()
        || groups.iter().any(|group| {
            let mut by_field: BTreeMap<&str, bool> = BTreeMap::new();
            for term in group {
                let field = term.split('=').next().unwrap_or_default();
                *by_field.entry(field).or_default() |= has(term);
            }
            by_field.values().all(|found| *found)
        })
}

fn random_groups(random: &mut Random) -> Groups {
    if random.below(12) == 0 {
        return Vec::new();
    }
    let groups = 1 + random.below(3);
    (0..groups).map(|_| (0..1 + random.below(3)).map(|_| random.term()).collect()).collect()
}

fn random_entry(random: &mut Random, number: usize) -> Fields {
    let mut fields: Fields = Vec::new();
    for _ in 0..1 + random.below(6) {
        let (name, value) = (random.one(&NAMES), random.one(&VALUES));
        let value = match random.below(20) {
            0 => format!("{value}\n{value}").into_bytes(),
            1 => [value.as_bytes(), &[0xff, 0]].concat(),
            _ => value.as_bytes().to_vec(),
        };
        // One that has the same value twice is the same as one that has it once.
        if !fields.contains(&(name.to_owned(), value.clone())) {
            fields.push((name.to_owned(), value));
        }
    }
    // Neither the number nor the text of an entry may be met by a match.
    fields.push(("SYSLOG_IDENTIFIER".to_owned(), b"n".to_vec()));
    fields.push(("MESSAGE".to_owned(), format!("bad {number}").into_bytes()));
    fields
}

#[track_caller]
fn check(seed: u64) {
    let mut random = Random(seed);
    let mut setup = Setup { queue: 1 + random.below(200), ..Setup::new() };
    let jails: Vec<Groups> = (0..1 + random.below(8)).map(|_| random_groups(&mut random)).collect();
    let start = |setup: &Setup| {
        let jails = jails.iter().enumerate().map(|(number, groups)| {
            let directory = Some(setup.path("journal"));
            let matches = groups.clone();
            let journal = JournalSettings { directory, matches, ..JournalSettings::default() };
            jail(&format!("j{number}"), SourceSettings::Journal(journal))
        });
        setup.start_jails(jails.collect())
    };
    let mut expected: Vec<BTreeMap<String, Vec<usize>>> = vec![BTreeMap::new(); jails.len()];
    let mut found = expected.clone();
    let (mut number, mut generation) = (0, [0; 3]);
    let mut bench = start(&setup);
    for step in 0..10 {
        // One of three machines has something to say; its clock shows anything within `findtime`.
        let machine = random.below(3);
        let name = format!("remote-{machine}.journal");
        let file = setup.path(&format!("journal/{name}"));
        let mut entries = Vec::new();
        let mut awaited = 0;
        for _ in 0..1 + random.below(60) {
            let micros = (NOW - 590 + random.below(580) as i64) * 1_000_000 + number as i64;
            let entry = random_entry(&mut random, number);
            for (jail, groups) in jails.iter().enumerate().filter(|(_, it)| wants(it, &entry)) {
                expected[jail].entry(name.clone()).or_default().push(number);
                let _ = groups;
                awaited += 1;
            }
            entries.push((micros, entry));
            number += 1;
        }
        log_fields(&file, &entries);
        // Which machine said it is known by the number.
        for _ in 0..awaited {
            let line = bench.finding();
            let (jail, line) = line.split_once(": ").expect("a jail");
            let jail: usize = jail[1..].parse().expect("a number");
            let read: usize =
                line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number");
            found[jail].entry(name.clone()).or_default().push(read);
        }
        assert_eq!(found, expected, "seed {seed}, step {step}, jails {jails:#?}");
        if random.below(4) == 0 {
            // As `systemd-journal-remote` rotates: what follows goes to another file.
            generation[machine] += 1;
            let archived = format!("journal/remote-{machine}@{}.journal", generation[machine]);
            rename(&file, &setup.path(&archived));
        }
        if random.below(4) == 0 {
            setup.from = bench.stop();
            bench = start(&setup);
        }
    }
    bench.stop();
    let lines: usize = expected.iter().flat_map(BTreeMap::values).map(Vec::len).sum();
    println!("seed {seed}: {number} entries, {} jails, {lines} lines", jails.len());
}

#[test]
fn each_jail_gets_what_its_matches_say_and_nothing_else() {
    // Another seed repeats a failure: `FAIL2XDP_SEED=N`.
    let seed = std::env::var("FAIL2XDP_SEED").ok().and_then(|seed| seed.parse().ok());
    match seed {
        Some(seed) => check(seed),
        None => (0..ROUNDS).for_each(check),
    }
}
