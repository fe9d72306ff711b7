//! The real tailer on a real directory against a model that knows of every line where it lies.
//!
//! A sequence of what writers, `logrotate` and the daemon do is drawn at random and played to both. The tailer is
//! driven step by step, so that anything can happen between any two reads, also while something is copied or compressed.
//!
//! What the model says of a line:
//! - It is read once, as long as a file that holds it can be found: the log itself, a rotated file or a compressed one
//!   beside it, a deleted file that the tailer still has open.
//! - It is lost when the last such place vanishes before it was read: truncation without a copy that holds it,
//!   deletion while the tailer has the file not open. With `copytruncate` these are exactly the lines that were
//!   written after the copy was made and not read before the truncation.
//! - After `kill -9` all that was read since positions were saved last is read once more, where it still lies
//!   somewhere (for counting only).
//! - What a symlink led to between two looks, or between saved positions and a start, may be missed.
//! - Of a log that the saved positions know nothing of, nothing but the log itself is read after a start.
mod parts;
mod rotate;
mod world;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use rand::{Rng as _, SeedableRng as _};

use self::world::World;

/// Sequences that a run draws.
const SEQUENCES: u32 = 20_000;

/// With `--full` so many times as many.
const FULL: u32 = 10;

/// Threads that play them: each waits for the kernel most of the time, when it closes inotify. By default one user has
/// 128 instances of that.
const THREADS: u32 = 40;

/// What a writer writes.
#[derive(Clone, Copy, Debug)]
enum Text {
    /// Whole lines.
    Lines(u8),
    /// More than the tailer reads at once.
    Burst,
    /// A line without its end, which comes with the next writing.
    Half,
}

/// What becomes of a file that was rotated.
#[derive(Clone, Copy, Debug)]
enum Pack {
    /// It stays as it is.
    No,
    /// It is compressed at once.
    Now,
    /// It is compressed at the next rotation: `delaycompress`.
    Later,
}

/// What happens while something is copied or compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Step,
    Look,
    Write,
    Save,
    Restart,
    Kill,
}

/// A log by its number: [`world::NAMES`].
type Log = usize;

/// What happens. All of it is over when the next happens.
#[derive(Clone, Copy, Debug)]
enum Action {
    Write(Log, Text),
    /// The rotated files move on, then the log is renamed; `create` makes a new one at once.
    Rename(Log, Pack, /* create */ bool),
    /// The writer opens the log anew, and makes it if it is not there.
    Reopen(Log),
    /// `logrotate` begins: it looks at the log's time, which it gives to the copy that it compresses later.
    Check(Log),
    /// The rotated files move on, then the log is copied beside itself. With a `Truncate` this is `copytruncate`.
    Copy(Log, Pack),
    /// What is copied or compressed next takes its time: this happens between any two pieces of it.
    Slowly(Between),
    Truncate(Log),
    /// Truncated and at once longer than before.
    Regrow(Log),
    /// Deleted, and made anew; the writer has not noticed yet.
    Recreate(Log),
    /// The symlink leads to the other file.
    Relink,
    /// Steps of the tailer.
    Step(u8),
    /// The tailer looks at everything again.
    Look,
    /// The positions are stored, as happens from time to time.
    Save,
    /// The daemon is stopped in order.
    Stop,
    /// The daemon is killed.
    Kill,
    /// It is started.
    Start,
}

fn action() -> impl Strategy<Value = Action> {
    let log = || 0..world::NAMES.len();
    let pack = || prop_oneof![Just(Pack::No), Just(Pack::Now), Just(Pack::Later)];
    let text = prop_oneof![
        8 => (1..4u8).prop_map(Text::Lines),
        1 => Just(Text::Burst),
        3 => Just(Text::Half),
    ];
    let between = prop_oneof![
        Just(Between::Step),
        Just(Between::Look),
        Just(Between::Write),
        Just(Between::Save),
        Just(Between::Restart),
        Just(Between::Kill),
    ];
    prop_oneof![
        10 => (log(), text).prop_map(|(log, text)| Action::Write(log, text)),
        6 => (log(), pack(), any::<bool>()).prop_map(|(log, pack, create)| Action::Rename(log, pack, create)),
        4 => log().prop_map(Action::Reopen),
        3 => log().prop_map(Action::Check),
        4 => (log(), pack()).prop_map(|(log, pack)| Action::Copy(log, pack)),
        3 => between.prop_map(Action::Slowly),
        4 => log().prop_map(Action::Truncate),
        1 => log().prop_map(Action::Regrow),
        2 => log().prop_map(Action::Recreate),
        1 => Just(Action::Relink),
        8 => (1..4u8).prop_map(Action::Step),
        1 => Just(Action::Look),
        2 => Just(Action::Save),
        2 => Just(Action::Stop),
        2 => Just(Action::Kill),
        4 => Just(Action::Start),
    ]
}

/// How the directory is watched and which names are asked for.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// By looking again and again, as on NFS.
    polling: bool,
    /// The glob matches rotated files too.
    wide: bool,
    /// Actions keep to few logs, so that more happens to each.
    logs: usize,
    /// On a disk, where a new file may get the number of one that was deleted; else in memory, which is quicker.
    disk: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    let disk = proptest::bool::weighted(0.2);
    (any::<bool>(), any::<bool>(), 1..=world::NAMES.len(), disk)
        .prop_map(|(polling, wide, logs, disk)| Setting { polling, wide, logs, disk })
}

fn play(setting: Setting, actions: &[Action]) -> Result<parts::Tally, String> {
    let mut world = World::new(setting);
    for action in actions {
        world.act(*action)?;
    }
    world.end()
}

/// `$FAIL2XDP_SEED`, else another one each time; printed, so that a failure can be repeated.
fn seed() -> u64 {
    let given = std::env::var("FAIL2XDP_SEED").ok();
    let seed =
        given.map_or_else(rand::random, |text| text.parse().expect("FAIL2XDP_SEED is a number"));
    println!("repeat with FAIL2XDP_SEED={seed}");
    seed
}

/// Plays so many sequences, and the shortest that fails of those that do.
fn run(seed: [u8; 16], cases: u32) -> (parts::Tally, Option<String>) {
    let config = Config {
        cases,
        // What was found is written down below, where it says what it is about.
        failure_persistence: None,
        max_shrink_iters: 5_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let total = std::cell::RefCell::new(parts::Tally::default());
    let sequences = (setting(), proptest::collection::vec(action(), 3..14));
    let outcome = runner.run(&sequences, |(setting, actions)| {
        let tally = play(setting, &actions).map_err(TestCaseError::fail)?;
        *total.borrow_mut() += tally;
        Ok(())
    });
    let failure = outcome.err().map(|error| match error {
        TestError::Fail(why, (setting, actions)) => format!("{why}\n{setting:?} {actions:?}\n"),
        TestError::Abort(why) => why.to_string(),
    });
    (total.into_inner(), failure)
}

#[test]
fn every_line_is_read_once_whatever_becomes_of_its_file() {
    let mut seeds = rand::rngs::StdRng::seed_from_u64(seed());
    let times = if std::env::var_os("FAIL2XDP_FULL").is_some() { FULL } else { 1 };
    let cases = (SEQUENCES * times).div_ceil(THREADS);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let seed = seeds.random();
            std::thread::spawn(move || run(seed, cases))
        })
        .collect();
    let (mut total, mut failures) = (parts::Tally::default(), Vec::new());
    for thread in threads {
        let (tally, failure) = thread.join().expect("it says what failed");
        failures.extend(failure);
        total += tally;
    }
    println!("{total:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(total.read > 20 * total.open, "the model says nothing of too many lines: {total:?}");
}

/// Sequences that were found to fail once, each with what was wrong.
#[test]
fn what_once_failed_holds() {
    use Action::*;
    use Text::{Burst, Half, Lines};
    let (a, b, c, link, one) = (0, 1, 2, 3, Lines(1));
    let cases: &[(&str, &[Action])] = &[
        (
            "a copy that holds half a line, and the whole log compressed before a stop",
            &[
                Write(a, one),
                Step(1),
                Write(a, Half),
                Copy(a, Pack::No),
                Rename(a, Pack::Now, false),
                Stop,
            ],
        ),
        (
            "a copy and its original, both new",
            &[
                Rename(a, Pack::Now, false),
                Write(a, one),
                Copy(a, Pack::No),
                Rename(a, Pack::No, false),
            ],
        ),
        (
            "what came and went in a log that was empty",
            &[Write(a, one), Copy(a, Pack::No), Truncate(a)],
        ),
        ("padding before the place come to", &[Write(b, Burst), Step(1), Regrow(b), Write(a, one)]),
        (
            "a half line in a copy, the whole in a compressed file",
            &[Write(a, Half), Copy(a, Pack::No), Rename(a, Pack::Now, false), Stop],
        ),
        (
            "a copy that holds less than was read",
            &[Write(a, one), Step(1), Copy(a, Pack::No), Write(a, one), Step(1), Truncate(a)],
        ),
        (
            "a compressed file of which only a deleted one is known",
            &[Write(b, one), Rename(b, Pack::Later, false), Step(1), Rename(b, Pack::Later, false)],
        ),
        (
            "a copy made before the start of what was not read yet",
            &[Write(a, one), Copy(a, Pack::No), Stop, Start, Truncate(a)],
        ),
        (
            "the same while nobody looked",
            &[Stop, Write(a, one), Copy(a, Pack::No), Start, Truncate(a)],
        ),
        (
            "a truncation that was not noticed before the rename",
            &[
                Write(a, one),
                Copy(a, Pack::No),
                Write(a, one),
                Step(1),
                Truncate(a),
                Rename(a, Pack::No, false),
            ],
        ),
        (
            "positions of a log that is being truncated",
            &[Write(a, one), Copy(a, Pack::Now), Step(1), Truncate(a), Stop],
        ),
        (
            "a glob that finds the copy of what it found no more",
            &[Write(b, one), Step(1), Truncate(b), Write(b, one), Copy(b, Pack::No)],
        ),
        (
            "a glob that finds copy and original",
            &[Write(b, one), Copy(b, Pack::No), Rename(b, Pack::No, false)],
        ),
        (
            "a compressed file of which nothing was read",
            &[Write(a, one), Copy(a, Pack::Now), Truncate(a), Step(1), Stop],
        ),
        (
            "an empty copy to be read before what is truncated",
            &[Copy(a, Pack::Later), Write(a, one), Step(1), Copy(a, Pack::No), Truncate(a)],
        ),
        (
            "a glob that finds a copy of what was read in another run",
            &[Write(b, one), Step(1), Stop, Copy(b, Pack::Later), Rename(b, Pack::Now, false)],
        ),
        (
            "the rest of a file that was compressed while nobody looked",
            &[Write(a, one), Step(1), Stop, Write(a, one), Rename(a, Pack::Now, true)],
        ),
        (
            "a symlink that was switched while nobody looked",
            &[Rename(link, Pack::Now, false), Step(1), Write(link, one), Relink, Kill],
        ),
        (
            "a glob that finds the original of a compressed copy of the same time",
            &[Write(b, Burst), Check(b), Copy(b, Pack::Now), Rename(b, Pack::No, false)],
        ),
        (
            "a glob that finds the original of a copy that was compressed later",
            &[Write(b, Burst), Copy(b, Pack::No), Rename(b, Pack::Later, false)],
        ),
        (
            "a glob that finds a copy of what was compressed later",
            &[Write(b, one), Copy(b, Pack::Later), Write(b, one), Rename(b, Pack::Now, false)],
        ),
        (
            "a copy that took an older time from its log across a restart",
            &[
                Write(a, one),
                Check(a),
                Write(a, one),
                Step(1),
                Stop,
                Write(a, one),
                Copy(a, Pack::Now),
                Truncate(a),
            ],
        ),
        (
            "a copy of less than was read that was compressed after that",
            &[
                Write(a, Burst),
                Step(3),
                Copy(a, Pack::No),
                Write(a, one),
                Step(1),
                Truncate(a),
                Copy(a, Pack::Later),
            ],
        ),
        (
            "a copy that a glob finds, of less than was read, before the truncation is noticed",
            &[Write(b, one), Copy(b, Pack::No), Look, Write(b, one), Step(2), Truncate(b), Look],
        ),
        (
            "a copy that took the time of its log from before what was read last",
            &[
                Write(a, one),
                Check(a),
                Write(a, one),
                Step(1),
                Write(a, one),
                Copy(a, Pack::Now),
                Truncate(a),
            ],
        ),
        (
            "a copy of less than was read, truncated within one tick of the clock before a stop",
            &[Write(a, one), Copy(a, Pack::Later), Write(a, one), Step(1), Truncate(a), Stop],
        ),
        (
            "a compressed log that bears the time from before it was first written to",
            &[Check(a), Write(a, one), Stop, Start, Rename(a, Pack::Now, false), Stop],
        ),
        (
            "a copy that was found empty, before a stop",
            &[Slowly(Between::Write), Copy(a, Pack::No), Stop],
        ),
        (
            "a copy that was found empty and filled before either is read",
            &[Slowly(Between::Write), Copy(a, Pack::No), Rename(a, Pack::No, false)],
        ),
        (
            "a copy that a glob finds empty",
            &[Slowly(Between::Step), Write(b, one), Copy(b, Pack::No)],
        ),
        (
            "a copy that a glob found and that moved on while nobody looked",
            &[Write(b, Burst), Copy(b, Pack::Later), Step(1), Stop, Rename(b, Pack::Now, false)],
        ),
        (
            "two copies of a log that is being read, one in the place of the other, before a stop",
            &[Write(b, Burst), Copy(b, Pack::Later), Step(1), Copy(b, Pack::No), Stop],
        ),
        (
            "a compressed log that bears the time from before its first line was begun",
            &[
                Check(a),
                Write(a, Half),
                Step(1),
                Write(a, one),
                Copy(a, Pack::Now),
                Truncate(a),
                Stop,
            ],
        ),
        (
            "a copy of a line of which the beginning was read before it was truncated away",
            &[
                Write(a, Half),
                Step(1),
                Reopen(a),
                Copy(a, Pack::No),
                Truncate(a),
                Rename(a, Pack::No, false),
            ],
        ),
        (
            "a compressed file and the deleted copy that it was made of, both unread",
            &[
                Stop,
                Write(c, one),
                Copy(c, Pack::No),
                Start,
                Regrow(c),
                Rename(c, Pack::Later, false),
            ],
        ),
        (
            "two copies of a log that was written anew before it was read",
            &[
                Stop,
                Write(b, one),
                Copy(b, Pack::Later),
                Copy(b, Pack::No),
                Start,
                Regrow(b),
                Step(1),
            ],
        ),
        (
            "an empty log of which a copy is made across a restart beside the one before, compressed",
            &[
                Write(b, one),
                Slowly(Between::Step),
                Rename(b, Pack::Now, true),
                Slowly(Between::Restart),
                Copy(b, Pack::No),
            ],
        ),
        (
            "two copies of a log of which a line was begun, truncated",
            &[
                Slowly(Between::Write),
                Copy(a, Pack::No),
                Write(a, Half),
                Step(2),
                Copy(a, Pack::No),
                Truncate(a),
            ],
        ),
        (
            "a copy that a glob found, compressed across restarts beside another one",
            &[
                Write(c, Burst),
                Copy(c, Pack::No),
                Slowly(Between::Restart),
                Look,
                Copy(c, Pack::Later),
                Write(a, one),
            ],
        ),
        (
            "a copy that a glob found as it was made, of a log truncated before it was read, compressed",
            &[
                Slowly(Between::Write),
                Stop,
                Write(b, one),
                Start,
                Copy(b, Pack::No),
                Truncate(b),
                Rename(b, Pack::Later, false),
            ],
        ),
        (
            "a compressed log beside a copy of half of its first line",
            &[
                Slowly(Between::Save),
                Write(a, Half),
                Copy(a, Pack::No),
                Write(a, one),
                Copy(a, Pack::Now),
                Truncate(a),
            ],
        ),
    ];
    for (what, actions) in cases {
        for ways in 0..8 {
            let [polling, wide, disk] = [1, 2, 4].map(|way| ways & way != 0);
            let setting = Setting { polling, wide, logs: world::NAMES.len(), disk };
            if let Err(error) = play(setting, actions) {
                panic!("{what}, {setting:?}: {error}");
            }
        }
    }
}

/// A log that is copied and truncated between the look at what lies beside it and its first read.
#[test]
fn what_is_truncated_as_its_first_bytes_are_read_is_read_from_its_copy() {
    for polling in [false, true] {
        let setting = Setting { polling, wide: false, logs: 1, disk: false };
        let mut world = World::new(setting);
        world.act(Action::Write(0, Text::Lines(1))).expect("nothing is read yet");
        let log = world.path(world::NAMES[0]);
        let tailer = world.tailer.as_mut().expect("it runs");
        let mut done = false;
        tailer.midway = Some(Box::new(move |name| {
            if *name == log && !std::mem::replace(&mut done, true) {
                std::fs::copy(&log, log.with_extension("log.1")).expect("copied");
                std::fs::write(&log, "a line of the next log\n").expect("written anew");
            }
        }));
        world.rest().expect("it comes to rest");
        let lines: Vec<String> = world.collected.lock().expect("one thread").drain(..).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[1], "a line of the next log");
    }
}
