//! What a stop and a start between them must neither lose nor repeat.
use super::*;

/// Starts where `positions` say.
fn again(setup: &Setup, positions: Positions) -> Setup {
    // As a store would: through text and back.
    let text = serde_json::to_string(&positions).expect("positions are plain data");
    let from = serde_json::from_str(&text).expect("as it was written");
    Setup { from, ..setup.clone() }
}

#[test]
fn a_restart_neither_repeats_nor_loses() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "bad 1\nba");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: bad 1"]);
    let positions = bench.stop();
    append(&log, "d 2\nbad 3\n");
    let mut bench = again(&setup, positions).start(&["j: log", "new: log"]);
    bench.expect(&["new: bad 1", "j: bad 2", "new: bad 2", "j: bad 3", "new: bad 3"]);
    let positions = bench.stop();
    let mut bench = again(&setup, positions).start(&["j: log", "new: log"]);
    bench.wait_caught_up("log");
    append(&log, "bad 4\n");
    bench.expect(&["j: bad 4", "new: bad 4"]);
    bench.stop();
}

#[test]
fn what_was_written_to_rotated_files_while_nobody_looked_is_read() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "bad 1\n");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: bad 1"]);
    let positions = bench.stop();
    append(&log, "bad 2\n");
    rename(&log, &setup.path("log.2"));
    append(&log, "bad 3\n");
    rename(&log, &setup.path("log.1"));
    append(&log, "bad 4\n");
    let times = |name: &str, seconds: u64| {
        let file = File::options().append(true).open(setup.path(name)).expect("opened");
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_modified(time).expect("changed");
    };
    times("log.2", 1000);
    times("log.1", 2000);
    let mut bench = again(&setup, positions).start(&["j: log"]);
    bench.expect(&["j: bad 2", "j: bad 3", "j: bad 4"]);
    let positions = bench.stop();
    // The rotated ones were read to their ends.
    append(&setup.path("log"), "bad 5\n");
    let mut bench = again(&setup, positions).start(&["j: log"]);
    bench.expect(&["j: bad 5"]);
    bench.stop();
}

#[test]
fn a_copied_and_truncated_log_is_read_on_in_the_copy() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "bad 1\n");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: bad 1"]);
    let positions = bench.stop();
    append(&log, "bad 2\n");
    fs::copy(&log, setup.path("log.1")).expect("copied");
    fs::write(&log, "bad 3\n").expect("truncated");
    let mut bench = again(&setup, positions).start(&["j: log"]);
    bench.expect(&["j: bad 2", "j: bad 3"]);
    bench.stop();
}

#[test]
fn a_new_file_with_the_old_inode_number_is_not_taken_for_the_old_file() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "bad old and long enough to be told apart\n");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: bad old and long enough to be told apart"]);
    let positions = bench.stop();
    // The same inode, as if freed and given out again.
    fs::write(&log, "bad new, and longer than what was there before it, by far\n")
        .expect("written");
    let mut bench = again(&setup, positions).start(&["j: log"]);
    bench.expect(&["j: bad new, and longer than what was there before it, by far"]);
    bench.stop();
}

#[test]
fn a_log_that_is_missing_at_the_start_keeps_its_position() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "bad 1\n");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: bad 1"]);
    let positions = bench.stop();
    rename(&log, &setup.path("away"));
    let mut bench = again(&setup, positions).start(&["j: log"]);
    bench.wait_state("log", FileState::Waiting);
    let positions = bench.stop();
    let mut bench = again(&setup, positions).start(&["j: log"]);
    bench.wait_state("log", FileState::Waiting);
    append(&bench.path("away"), "bad 2\n");
    rename(&bench.path("away"), &log);
    bench.expect(&["j: bad 2"]);
    bench.stop();
}

#[test]
fn a_full_queue_slows_reading_and_loses_nothing_even_when_stopped() {
    let setup = Setup { queue: 3, ..Setup::new() };
    let lines: Vec<String> = (0..2000).map(|n| format!("bad {n}")).collect();
    append(&setup.path("log"), lines.join("\n") + "\n");
    let mut from = Positions::default();
    let mut found = Vec::new();
    while found.len() < lines.len() {
        let mut bench = again(&setup, from).start(&["j: log"]);
        for _ in 0..500.min(lines.len() - found.len()) {
            loop {
                let report = bench.next("a finding");
                if let Report::Finding(finding) = report {
                    found.push(finding.lines[0].to_string());
                    break;
                }
            }
        }
        let readers = bench.readers.take().expect("running");
        if found.len() < 500 {
            assert!(readers.waits() > 0);
        }
        from = readers.stop();
        while let Ok(report) = bench.reports.try_recv() {
            if let Report::Finding(finding) = report {
                found.push(finding.lines[0].to_string());
            }
        }
    }
    assert_eq!(found, lines);
}

#[test]
fn dropping_the_readers_ends_their_threads() {
    let setup = Setup::new();
    append(&setup.path("log"), "");
    let mut bench = setup.start(&["j: log"]);
    bench.wait_state("log", FileState::Following);
    drop(bench.readers.take());
    // The queue closes when the last reader has let go of it.
    while bench
        .runtime
        .block_on(async { timeout(DEADLINE, bench.reports.recv()).await })
        .expect("the threads end")
        .is_some()
    {}
}
