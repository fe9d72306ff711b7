//! Lines made to keep a matcher busy: none may cost more than a millisecond for each of its filter's patterns. A line of
//! many kilobytes may cost more where the engine's time is linear: as much as reading so many shorter ones.
use std::{fs, path::Path, time::Duration};

use fail2xdp::{
    config::{JailSettings, Located, Tree},
    config_tree::ShippedTree,
    engine::{Matcher, Timestamp},
};
use jiff::tz::TimeZone;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rustix::time::{ClockId, clock_gettime};

mod peer;

const NOW: Timestamp = Timestamp::from_seconds(1_124_013_600);

/// What one line may cost for one pattern, of this thread's own time.
fn most(line: &str) -> Duration {
    Duration::from_millis(1)
        .max(Duration::from_nanos(250) * u32::try_from(line.len()).expect("short"))
}

/// Patterns that keep an engine busy that tries every way, and what they are busy with.
const EXPLODING: [(&str, &str); 12] = [
    (r"^(a+)+$ <F-ID>x</F-ID>", "aaaaaaaaaaaaaaaa"),
    (r"^(a|a)*$ <F-ID>x</F-ID>", "aaaaaaaaaaaaaaaa"),
    (r"^(?:a|aa)+(?!c)c <F-ID>x</F-ID>", "aaaaaaaaaaaaaaaa"),
    (r"(?=(a+)+$)b <F-ID>x</F-ID>", "aaaaaaaaaaaaaaaab"),
    (r"^(?P<x>.*)(?P<y>.*)(?P=x)(?P=y)<F-ID>!</F-ID>$", "abcabdabcabe"),
    (r"(\w+\s?)+(?!x)<F-ID>!</F-ID>$", "word word word "),
    (r"^(?:(?! from ).)*(?: (?! from ).*)* from <HOST>!$", "user from x from y from "),
    (r"(.*)(.*)(.*)(.*)(?P<q>[ab])(?P=q)<F-ID>z</F-ID>", "abababab"),
    (r"(?:[^x]*,)*(?=y)<F-ID>z</F-ID>", "a,b,c,d,"),
    (r"^(([a-z])+.)+(?!b)[A-Z]<F-ID>z</F-ID>$", "aaaaaaaaaaa"),
    (r"(?:(?:x+x+)+y|z)(?<!w)<F-ID>q</F-ID>", "xxxxxxxxxx"),
    (r"<HOST>.*<F-USER>.*</F-USER>(?!a).*(?P=user)!$", "192.0.2.1 192.0.2.1 ::1 :::::"),
];

/// What this thread has spent.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().expect("not negative"),
        time.tv_nsec.try_into().expect("below a second"),
    )
}

/// The longest that a line took for each pattern, of several tries the shortest: other threads disturb caches.
fn cost(matcher: &mut Matcher, line: &str) -> Duration {
    let patterns = u32::try_from(matcher.patterns().count()).expect("few patterns");
    let once = |matcher: &mut Matcher| {
        let (before, mut found) = (spent(), Vec::new());
        matcher.line(line, Some(NOW), NOW, true, &mut found);
        (spent() - before) / patterns
    };
    let mut least = once(matcher);
    for _ in 0..3 {
        if least <= most(line) {
            break;
        }
        least = least.min(once(matcher));
    }
    least
}

/// `line` with a piece of it repeated up to so many bytes.
fn stretched(rng: &mut StdRng, line: &str, length: usize) -> String {
    let marks: Vec<usize> = line.char_indices().map(|(at, _)| at).chain([line.len()]).collect();
    let (mut from, mut to) =
        (marks[rng.random_range(0..marks.len())], marks[rng.random_range(0..marks.len())]);
    (from, to) = (from.min(to), from.max(to));
    let piece = if from == to { " " } else { &line[from..to] };
    let times = length / piece.len() + 1;
    format!("{}{}{}", &line[..from], piece.repeat(times), &line[to..])
}

#[test]
fn exploding_patterns_are_stopped() {
    let mut worst = Vec::new();
    for (pattern, piece) in EXPLODING {
        let mut jail = peer::jail("apache-pass", &[]);
        jail.filter.failregex = vec![Located { value: pattern.to_owned(), place: None }];
        let (mut matcher, errors) = Matcher::new(&jail, TimeZone::UTC);
        assert_eq!(errors, [], "{pattern}");
        for length in [100, 1_000, 4_000, 16_000, 60_000, 1_000_000] {
            for end in ["", "!", "b", " x"] {
                let line = format!("{}{end}", piece.repeat(length / piece.len() + 1));
                let cost = cost(&mut matcher, &line);
                if cost > most(&line) {
                    worst.push(format!("{cost:?} for {length} bytes: {pattern} on {piece}…{end}"));
                }
            }
        }
    }
    assert!(worst.is_empty(), "{}", worst.join("\n"));
}

/// Stretches 40 of these lines, and tells which kept the filter busy.
fn stretch(
    rng: &mut StdRng,
    filter: &str,
    lines: &[&str],
    jail: &JailSettings,
    worst: &mut Vec<String>,
) {
    let (mut matcher, _) = Matcher::new(jail, TimeZone::UTC);
    for _ in 0..40 {
        let line = lines[rng.random_range(0..lines.len())];
        let length = [300, 3_000, 15_000][rng.random_range(0..3)];
        let line = stretched(rng, line, length);
        let cost = cost(&mut matcher, &line);
        if cost > most(&line) {
            worst.push(format!("{filter}: {cost:?} for {} bytes: {:.150}", line.len(), line));
        }
    }
}

#[test]
fn no_stretched_sample_keeps_a_filter_of_debian_busy() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut worst = Vec::new();
    for filter in peer::filters() {
        let Ok(text) = fs::read(peer::tests().join("files/logs").join(&filter)) else { continue };
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
        let aggressive = [("mode".to_owned(), "aggressive".to_owned())];
        let jail = peer::try_jail(&filter, &aggressive).unwrap_or_else(|| peer::jail(&filter, &[]));
        stretch(&mut rng, &filter, &lines, &jail, &mut worst);
    }
    assert!(worst.is_empty(), "{}", worst.join("\n"));
}

#[test]
fn no_stretched_line_keeps_a_shipped_filter_busy() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/testdata");
    let mut rng = StdRng::seed_from_u64(7);
    let (mut worst, mut filters) = (Vec::new(), 0);
    for name in ShippedTree.list(&ShippedTree.root().join("filter.d")).expect("the shipped tree") {
        let filter = name.trim_end_matches(".conf");
        let file =
            cases.join(filter).join(if filter == "sshd" { "openssh.txt" } else { "lines.txt" });
        let Ok(text) = fs::read_to_string(file) else { continue };
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("| ")).map(|(_, line)| line).collect();
        let aggressive = [("mode".to_owned(), "aggressive".to_owned())];
        stretch(&mut rng, filter, &lines, &peer::shipped(filter, &aggressive), &mut worst);
        filters += 1;
    }
    assert!(worst.is_empty(), "{}", worst.join("\n"));
    assert!(filters >= 15, "{filters} filters");
}
