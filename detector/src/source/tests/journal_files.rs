//! Journal files as they come from other machines, and as they should not be.
use super::{
    journal::{Fields, log, log_fields},
    *,
};
use crate::{config::JournalSettings, source::JournalProgress};

const NEVER: &[&str] = &[];

/// A jail `j` that reads everything below the bench's directory `journal`.
fn everything(setup: &Setup) -> Bench {
    setup.start_journal(&[("j", "")])
}

/// Stops and starts again where reading ended.
#[track_caller]
fn restart(setup: &Setup, bench: Bench) -> Bench {
    everything(&Setup { from: bench.stop(), ..setup.clone() })
}

impl Bench {
    /// The one journal's progress.
    fn progress(&self) -> JournalProgress {
        self.status().remove(0).journal.expect("it reads a journal").progress
    }
}

#[test]
fn what_another_machine_sends_late_is_read() {
    let setup = Setup::new();
    let (near, far) = (setup.path("journal/near.journal"), setup.path("journal/far.journal"));
    log(&near, &["1699999990 MESSAGE=bad~1"]);
    log(&far, &["1699999980 MESSAGE=bad~2", "1699999991 MESSAGE=bad~3"]);
    let mut bench = everything(&setup);
    // At the start the one that was received first comes first, whoever wrote it.
    bench.expect(&["j: bad 2", "j: bad 1", "j: bad 3"]);
    log(&near, &["1699999999 MESSAGE=bad~4"]);
    bench.expect(&["j: bad 4"]);
    log(&far, &["1699999992 MESSAGE=bad~5"]);
    bench.expect(&["j: bad 5"]);
    let mut bench = restart(&setup, bench);
    log(&far, &["1699999993 MESSAGE=bad~6"]);
    log(&near, &["1699999990 MESSAGE=bad~7"]);
    let mut found = [bench.finding(), bench.finding()];
    found.sort();
    assert_eq!(found, ["j: bad 6", "j: bad 7"]);
    bench.stop();
}

#[test]
fn time_may_go_back() {
    let setup = Setup::new();
    let file = setup.path("journal/system.journal");
    log(&file, &["1699999900 MESSAGE=bad~1", "1699999950 MESSAGE=bad~2"]);
    let mut bench = everything(&setup);
    bench.expect(&["j: bad 1", "j: bad 2"]);
    // An hour back, and a minute further: still in the order of writing.
    log(&file, &["1699996350 MESSAGE=bad~3", "1699996290 MESSAGE=bad~4"]);
    bench.expect(&["j: bad 3", "j: bad 4"]);
    let mut bench = restart(&setup, bench);
    log(&file, &["1699996291 MESSAGE=bad~5", "1699999800 MESSAGE=bad~6"]);
    bench.expect(&["j: bad 5", "j: bad 6"]);
    rename(&file, &setup.path("journal/system@1.journal"));
    log(&file, &["1699996000 MESSAGE=bad~7"]);
    log(&file, &["1699999801 MESSAGE=bad~8"]);
    // A writer that is new begins with what its clock says.
    bench.expect(&["j: bad 7", "j: bad 8"]);
    log(&file, &["1699996000 MESSAGE=bad~9"]);
    bench.expect(&["j: bad 9"]);
    bench.stop();
}

#[test]
fn broken_files_beside_good_ones_are_left_out_and_said() {
    let setup = Setup::new();
    let good = setup.path("journal/good.journal");
    log(&good, &["1699999990 MESSAGE=bad~1"]);
    let whole = fs::read(&good).expect("read");
    for (name, content) in [
        ("empty", &[][..]),
        ("noise", &[0x5a; 4096]),
        ("short", &whole[..100]),
        ("headless", &[&whole[..16], &[9; 500]].concat()),
        ("future", &[&whole[..12], &[0xff; 4], &whole[16..]].concat()),
    ] {
        fs::write(setup.path(&format!("journal/{name}.journal")), content).expect("written");
    }
    let mut bench = everything(&setup);
    bench.expect(&["j: bad 1"]);
    let mut said: Vec<String> = (0..5).map(|_| bench.wait_fault("cannot be read")).collect();
    said.sort();
    for (line, name) in said.iter().zip(["empty", "future", "headless", "noise", "short"]) {
        assert!(line.contains(&format!("/{name}.journal`")), "{said:#?}");
    }
    log(&good, &["1699999991 MESSAGE=bad~2"]);
    bench.expect(&["j: bad 2"]);
    assert_eq!(bench.progress().unreadable.len(), 5, "{:?}", bench.progress());
    // One that is repaired is read.
    fs::copy(&good, setup.path("journal/copy")).expect("copied");
    fs::remove_file(setup.path("journal/noise.journal")).expect("removed");
    log(&setup.path("journal/noise.journal"), &["1699999992 MESSAGE=bad~3"]);
    bench.expect(&["j: bad 3"]);
    bench.stop();
}

#[test]
fn a_journal_of_which_nothing_can_be_read_is_unavailable_until_it_can() {
    let setup = Setup::new();
    let file = setup.path("journal/system.journal");
    fs::create_dir(setup.path("journal")).expect("made");
    fs::write(&file, [1; 300]).expect("written");
    let mut bench = everything(&setup);
    let state = JournalState::Unavailable("it is no journal file, or damaged".to_owned());
    bench.wait(&Report::Journal { journal: setup.journal_name(), state });
    fs::remove_file(&file).expect("removed");
    log(&file, &["1699999990 MESSAGE=bad~1"]);
    bench.expect(&["j: bad 1"]);
    bench.stop();
}

#[test]
fn damage_in_the_middle_costs_what_lies_there_and_no_more() {
    for damaged_at in [0.3, 0.5, 0.7, 0.9] {
        let setup = Setup::new();
        let (file, next) =
            (setup.path("journal/system@1.journal"), setup.path("journal/system.journal"));
        let entries: Vec<String> =
            (0..400).map(|n| format!("1699999900 MESSAGE=bad~{n}~{}", "x".repeat(90))).collect();
        log(&file, &entries.iter().map(String::as_str).collect::<Vec<_>>());
        log(&next, &["1699999990 MESSAGE=bad~of~another~file"]);
        let mut content = fs::read(&file).expect("read");
        let end = content.iter().rposition(|byte| *byte != 0).expect("it is not empty");
        let begin = memchr::memmem::find(&content, b"MESSAGE=bad 0").expect("it is in there");
        let at = begin + ((end - begin) as f64 * damaged_at) as usize;
        content[at..at + 3000].fill(0xee);
        fs::write(&file, content).expect("written");
        let mut bench = everything(&setup);
        let mut found = Vec::new();
        while found.last().is_none_or(|line: &String| !line.contains("of another file")) {
            match bench.next("the other file's entry") {
                Report::Finding(finding) => found.push(text(&finding)),
                report => bench.seen.push(report),
            }
        }
        let mut own: Vec<&String> = found.iter().filter(|line| line.contains('x')).collect();
        let read = own.len();
        own.dedup();
        assert_eq!(own.len(), read, "none is read twice");
        log(&next, &["1699999991 MESSAGE=bad~and~later"]);
        bench.expect_after_faults(&["j: bad and later"]);
        // The library passes over what is damaged without a word; 3,000 bytes hold about 13 entries.
        let counts = bench.progress().counts;
        assert!(400 - read <= 20, "{read} of 400 read with damage at {damaged_at}: {counts:?}");
        println!("damage at {damaged_at}: {read} of 400 read, {counts:?}");
    }
}

#[test]
fn entries_of_every_shape_become_lines() {
    let setup = Setup::new();
    let huge = [b"bad ", &*vec![b'x'; 5 << 20]].concat();
    let shapes: &[&[(&str, &[u8])]] = &[
        &[("MESSAGE", b"bad\nin two lines\n")],
        &[("MESSAGE", b"bad \0 \x01\xff\xfe end")],
        &[("MESSAGE", &huge)],
        &[("MESSAGE", b"bad"), ("MESSAGE", b"twice")],
        &[("PRIORITY", b"6")],
        &[("SYSLOG_IDENTIFIER", b"bad\nname"), ("MESSAGE", b"")],
        &[
            ("_HOSTNAME", b"h"),
            ("_COMM", b"c"),
            ("_PID", b"9"),
            ("BIG", &huge),
            ("MESSAGE", b"bad"),
        ],
        &[
            ("_TRANSPORT", b"kernel"),
            ("SYSLOG_IDENTIFIER", b"kernel"),
            ("_SOURCE_MONOTONIC_TIMESTAMP", b"12345678"),
            ("MESSAGE", b"bad"),
        ],
    ];
    let entries: Vec<(i64, Fields)> = shapes
        .iter()
        .map(|fields| {
            let own = fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
            (1_699_999_990_000_000, own.collect())
        })
        .collect();
    log_fields(&setup.path("journal/system.journal"), &entries);
    let mut bench = everything(&setup);
    bench.expect(&[
        "j: bad\\nin two lines\\n",
        "j: bad \0 \u{1}\u{fffd}\u{fffd} end",
        &format!("j: bad {}", "x".repeat((1 << 20) - 4)),
        "j: bad twice",
        "j: bad\\nname: ",
        "j: h c[9]: bad",
        "j: kernel: [   12.345678] bad",
    ]);
    bench.wait_fault("cut 1 entries");
    assert_eq!(bench.progress().counts.cut, 1);
    bench.stop();
}

#[test]
fn an_older_copy_that_was_put_back_is_read_by_time() {
    let setup = Setup::new();
    let (file, copy) = (setup.path("journal/system.journal"), setup.path("copy"));
    log(&file, &["1699999990 MESSAGE=bad~1"]);
    fs::copy(&file, &copy).expect("copied");
    log(&file, &["1699999991 MESSAGE=bad~2", "1699999992 MESSAGE=bad~3"]);
    let mut bench = everything(&setup);
    bench.expect(&["j: bad 1", "j: bad 2", "j: bad 3"]);
    bench.wait(&Report::CaughtUp { source: setup.journal_name() });
    let from = bench.stop();
    fs::rename(&copy, &file).expect("renamed");
    log(&file, &["1699999993 MESSAGE=bad~4"]);
    let mut bench = everything(&Setup { from, ..setup.clone() });
    bench.wait_fault("holds less than was read of it");
    bench.expect(&["j: bad 4"]);
    bench.stop();
}

#[test]
fn a_position_of_another_machine_means_nothing() {
    let setup = Setup::new();
    let file = setup.path("journal/system.journal");
    log(&file, &["1699999990 MESSAGE=bad~1", "1699999991 MESSAGE=bad~2"]);
    let mut bench = everything(&setup);
    bench.expect(&["j: bad 1", "j: bad 2"]);
    let from = bench.stop();
    fs::remove_file(&file).expect("removed");
    log(&file, &["1699999900 MESSAGE=bad~3"]);
    let mut bench = everything(&Setup { from: from.clone(), ..setup.clone() });
    bench.expect(&["j: bad 3"]);
    let both = bench.stop();
    let journal = |positions: &Positions| positions.journals.values().next().cloned();
    let count = |positions| journal(positions).map_or(0, |journal| journal.chains.len());
    assert_eq!((count(&from), count(&both)), (1, 2), "the other one may come back");
}

#[test]
fn progress_tells_how_old_what_is_read_is() {
    let setup = Setup { queue: 1, ..Setup::new() };
    let file = setup.path("journal/system.journal");
    log(
        &file,
        &["1699999940 MESSAGE=bad~1", "1699999950 MESSAGE=bad~2", "1699999960 MESSAGE=good"],
    );
    let mut bench = everything(&setup);
    // The queue is full, so the reader cannot go on.
    let behind = loop {
        let behind = bench.progress().behind(now());
        if !behind.is_zero() {
            break behind;
        }
        std::thread::yield_now();
    };
    assert_eq!(behind, Duration::from_secs(60));
    bench.expect(&["j: bad 1", "j: bad 2"]);
    bench.wait(&Report::CaughtUp { source: setup.journal_name() });
    let progress = bench.progress();
    assert_eq!(progress.behind(now()), Duration::ZERO);
    assert_eq!(progress.last_entry, Some(Timestamp::from_seconds(1_699_999_960)));
    bench.stop();
}

#[test]
fn files_of_one_user_or_the_system_are_told_by_flags() {
    let setup = Setup::new();
    for name in ["system", "user-0", "user-77", "remote-web"] {
        let entry = format!("1699999990 MESSAGE=bad~{name}");
        log(&setup.path(&format!("journal/{name}.journal")), &[&entry]);
    }
    let read = |flags: Option<i32>, wanted: &[&str]| {
        let directory = Some(setup.path("journal"));
        let journal = JournalSettings { directory, flags, ..JournalSettings::default() };
        let mut bench = setup.start_jails(vec![jail("j", SourceSettings::Journal(journal))]);
        let mut found: Vec<String> = wanted.iter().map(|_| bench.finding()).collect();
        found.sort();
        assert_eq!(found, wanted, "{flags:?}");
        bench.expect(NEVER);
        bench.stop();
    };
    let (system, root) = ("j: bad system", "j: bad user-0");
    read(None, &["j: bad remote-web", system, root, "j: bad user-77"]);
    read(Some(4), &[system]);
    if rustix::process::getuid().is_root() {
        read(Some(8), &[system, root]);
    }
}

#[test]
fn a_file_that_is_emptied_under_the_reader_ends_nothing() {
    let setup = Setup::new();
    let (file, other) = (setup.path("journal/a.journal"), setup.path("journal/b.journal"));
    log(&file, &["1699999990 MESSAGE=bad~1"]);
    log(&other, &["1699999991 MESSAGE=bad~2"]);
    let mut bench = everything(&setup);
    bench.expect(&["j: bad 1", "j: bad 2"]);
    bench.wait(&Report::CaughtUp { source: setup.journal_name() });
    let empty = OpenOptions::new().write(true).open(&file).expect("opened");
    empty.set_len(0).expect("emptied");
    let what = bench.wait_fault("cannot be read");
    assert!(what.contains("a.journal` cannot be read: it is cut short"), "{what}");
    log(&other, &["1699999992 MESSAGE=bad~3"]);
    bench.expect(&["j: bad 3"]);
    // Its writer replaces it.
    fs::remove_file(&file).expect("removed");
    log(&file, &["1699999993 MESSAGE=bad~4"]);
    bench.expect(&["j: bad 4"]);
    bench.stop();
}

#[test]
fn a_file_whose_index_is_damaged_is_given_up_and_its_successors_are_read() {
    let setup = Setup::new();
    let (file, next) = (setup.path("journal/a.journal"), setup.path("journal/b.journal"));
    let entries: Vec<String> = (0..20).map(|n| format!("1699999900 A=1 MESSAGE=bad~{n}")).collect();
    log(&file, &entries.iter().map(String::as_str).collect::<Vec<_>>());
    log(&next, &["1699999990 A=1 MESSAGE=bad~of~another~file"]);
    // The hash table that leads from a match to its entries: its place and size stand in the header.
    let mut content = fs::read(&file).expect("read");
    let word = |at: usize| {
        u64::from_le_bytes(content[at..at + 8].try_into().expect("eight bytes")) as usize
    };
    let (begin, size) = (word(104), word(112));
    content[begin..begin + size].fill(0xee);
    fs::write(&file, content).expect("written");
    let mut bench = setup.start_journal(&[("j", "A=1")]);
    bench.expect(&["j: bad of another file"]);
    let what = bench.wait_fault("cannot be read on");
    assert!(
        what.contains("a.journal` cannot be read on: it is damaged; up to 20 entries"),
        "{what}"
    );
    log(&next, &["1699999991 A=1 MESSAGE=bad~and~later"]);
    bench.expect_after_faults(&["j: bad and later"]);
    assert_eq!(bench.progress().counts.passed_over, 20);
    fs::remove_file(&file).expect("removed");
    log(&file, &["1699999992 A=1 MESSAGE=bad~in~a~new~file"]);
    bench.expect_after_faults(&["j: bad in a new file"]);
    bench.stop();
}
