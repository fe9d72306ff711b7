//! Lines searched for in blocks find what lines find that are read one by one: Debian's filters on logs made of their
//! sample lines, long stretches of one form and changes between them, cut into blocks at random.
//!
//! `FAIL2XDP_SEED` chooses other logs.
use std::fs;

use fail2xdp::engine::{Finding, Matcher};
use rand::{Rng, SeedableRng, rngs::StdRng};

mod peer;

/// Stretches of lines in a log.
const STRETCHES: usize = 8;

/// A log: stretches of up to 150 lines made of a few samples, in half of them with other words.
fn log(rng: &mut StdRng, samples: &[&str]) -> Vec<String> {
    let mut log = Vec::new();
    for _ in 0..STRETCHES {
        let few: Vec<&str> = (0..3).map(|_| samples[rng.random_range(0..samples.len())]).collect();
        let changed = rng.random_bool(0.7);
        for _ in 0..rng.random_range(20..150) {
            let sample = few[rng.random_range(0..few.len())];
            log.push(match changed && rng.random_bool(0.8) {
                true => other_words(rng, sample),
                false => sample.to_owned(),
            });
        }
    }
    log
}

/// The line with other letters behind what may be its date.
fn other_words(rng: &mut StdRng, line: &str) -> String {
    let from = line.len() / 2;
    let turn = rng.random_range(1..25u8);
    let turned = |char: char| match char {
        'a'..='z' => char::from(b'a' + (char as u8 - b'a' + turn) % 26),
        _ => char,
    };
    line.char_indices().map(|(at, char)| if at < from { char } else { turned(char) }).collect()
}

/// Reads the log line by line.
fn one_by_one(matcher: &mut Matcher, log: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    for line in log {
        matcher.line(line, None, peer::NOON, false, &mut found);
    }
    found
}

/// Reads the log as readers of files do; answers also how many lines were handed on.
fn in_blocks(
    rng: &mut StdRng,
    matcher: &mut Matcher,
    log: &[String],
) -> Option<(Vec<Finding>, usize)> {
    let words = matcher.words()?.to_vec();
    let (mut found, mut handed) = (Vec::new(), 0);
    let mut rest = log;
    while !rest.is_empty() {
        let (block, behind) = rest.split_at(rng.random_range(1..=rest.len().min(200)));
        rest = behind;
        let mut passed = String::new();
        for line in block {
            if words.iter().any(|word| line.contains(word)) {
                matcher.line_after(&passed, line, peer::NOON, false, &mut found);
                passed.clear();
                handed += 1;
            } else {
                passed.push_str(line);
                passed.push('\n');
            }
        }
        matcher.passed(&passed, peer::NOON, false);
    }
    Some((found, handed))
}

#[test]
fn blocks_find_what_lines_find() {
    let seed = std::env::var("FAIL2XDP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("FAIL2XDP_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut searched, mut findings, mut handed, mut lines) = (0, 0, 0, 0);
    let mut whole = Vec::new();
    for filter in peer::filters() {
        let Ok(text) = fs::read(peer::tests().join("files/logs").join(&filter)) else { continue };
        let text = String::from_utf8_lossy(&text);
        let samples: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
        let aggressive = [("mode".to_owned(), "aggressive".to_owned())];
        let mut jail =
            peer::try_jail(&filter, &aggressive).unwrap_or_else(|| peer::jail(&filter, &[]));
        // The samples are of many years.
        jail.find_time = std::time::Duration::from_secs(50 * 365 * 86_400);
        for _ in 0..3 {
            let log = log(&mut rng, &samples);
            let (mut plain, _) = Matcher::new(&jail, peer::zone());
            let (mut blocks, _) = Matcher::new(&jail, peer::zone());
            let Some((found, of_it)) = in_blocks(&mut rng, &mut blocks, &log) else {
                whole.push(filter.clone());
                break;
            };
            let expect = one_by_one(&mut plain, &log);
            assert_eq!(found.len(), expect.len(), "{filter}");
            for (found, expect) in found.iter().zip(&expect) {
                assert_eq!(found, expect, "{filter}");
            }
            assert_eq!(blocks.counts().lines, plain.counts().lines, "{filter}");
            assert_eq!(blocks.counts().matched, plain.counts().matched, "{filter}");
            (findings, handed, lines) = (findings + found.len(), handed + of_it, lines + log.len());
            searched += 1;
        }
    }
    eprintln!("{searched} logs, {handed} of {lines} lines handed on, {findings} findings");
    eprintln!("every line is wanted by {}", whole.join(", "));
    assert!(searched > 150 && findings > 10_000 && handed < lines);
}
