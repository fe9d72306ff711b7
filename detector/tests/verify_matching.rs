//! Our own matcher finds what `regex` and `fancy-regex` find: the patterns of all of Debian's filters and of ours, in every
//! mode, on its sample lines and on a million lines made of them with accidents.
//!
//! `FAIL2XDP_SEED` chooses other lines.
use std::{fs, thread};

use fail2xdp::{
    config::{JailSettings, Tree},
    config_tree::ShippedTree,
    engine::Matcher,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

mod peer;

/// Pairs of a pattern and a text at the least.
const PAIRS: u64 = 1_000_000;

/// A line with a few characters changed, doubled, taken out, or with a piece of another in it.
fn with_accidents(rng: &mut StdRng, lines: &[&str]) -> String {
    const MARKS: &[u8] = b" :;,.[]()<>\"'=/\\-_@#%&*+?!|{}^$~`\t\n0123456789aZ";
    let line = lines[rng.random_range(0..lines.len())];
    let mut bytes: Vec<u8> = line.bytes().filter(u8::is_ascii).collect();
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] = MARKS[rng.random_range(0..MARKS.len())],
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, MARKS[rng.random_range(0..MARKS.len())]),
            3 => bytes.truncate(at),
            _ => {
                let other: Vec<u8> =
                    lines[rng.random_range(0..lines.len())].bytes().filter(u8::is_ascii).collect();
                let from = rng.random_range(0..=other.len());
                let piece = &other[from..other.len().min(from + rng.random_range(0..30))];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    String::from_utf8(bytes).expect("ASCII")
}

/// Pairs compared, and what differs.
fn compare(jail: &JailSettings, lines: &[&str], seed: u64, pairs: u64) -> (u64, Vec<String>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut matcher, _) = Matcher::new(jail, peer::zone());
    matcher.verify();
    let compared = |matcher: &Matcher| matcher.patterns().map(|it| it.verified().0).sum::<u64>();
    for line in lines {
        matcher.inspect(line, None, peer::NOON, true);
    }
    let mut tries = 0;
    while compared(&matcher) < pairs && tries < 20_000 {
        tries += 1;
        let line = with_accidents(&mut rng, lines);
        matcher.inspect(&line, None, peer::NOON, true);
    }
    let name = &jail.filter.name;
    let differences = matcher.patterns().filter_map(|pattern| pattern.difference());
    (compared(&matcher), differences.map(|what| format!("{name}: {what}")).collect())
}

/// Every filter in every mode that it has, with its sample lines.
fn jails() -> Vec<(JailSettings, String)> {
    let mut jails = Vec::new();
    let modes = ["normal", "aggressive", "ddos", "extra", "more", "errors"];
    let ours = ShippedTree.list(&ShippedTree.root().join("filter.d")).expect("the shipped tree");
    for filter in peer::filters() {
        let Ok(text) = fs::read(peer::tests().join("files/logs").join(&filter)) else { continue };
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut known: Vec<JailSettings> = vec![peer::jail(&filter, &[])];
        for mode in modes {
            known.extend(peer::try_jail(&filter, &[("mode".to_owned(), mode.to_owned())]));
        }
        if ours.contains(&format!("{filter}.conf")) {
            known.push(peer::shipped(&filter, &[]));
        }
        known.dedup_by(|one, other| one.filter.failregex == other.filter.failregex);
        jails.extend(known.into_iter().map(|jail| (jail, text.clone())));
    }
    jails
}

#[test]
fn our_matcher_finds_what_the_others_find() {
    let seed = std::env::var("FAIL2XDP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("FAIL2XDP_SEED={seed}");
    let jails = jails();
    // A few filters have nothing to compare.
    let each = PAIRS * 11 / 10 / jails.len() as u64;
    let half = jails.len() / 2;
    let (mut pairs, mut differences) = (0, Vec::new());
    thread::scope(|scope| {
        let parts = [&jails[..half], &jails[half..]];
        let threads = parts.map(|part| {
            scope.spawn(move || {
                let results = part.iter().enumerate().map(|(nth, (jail, text))| {
                    let lines: Vec<&str> = text
                        .lines()
                        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
                        .collect();
                    compare(jail, &lines, seed.wrapping_add(nth as u64), each)
                });
                results.collect::<Vec<_>>()
            })
        });
        for (compared, differing) in threads.into_iter().flat_map(|it| it.join().expect("no panic"))
        {
            pairs += compared;
            differences.extend(differing);
        }
    });
    eprintln!("{pairs} pairs of pattern and text, {} filters and modes", jails.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(pairs >= PAIRS, "{pairs}");
}
