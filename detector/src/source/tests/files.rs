//! Log files that grow, rotate, vanish and come.
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

#[test]
fn lines_are_found_as_they_are_appended_and_a_half_line_waits_for_its_end() {
    let setup = Setup::new();
    append(&setup.path("log"), "@1700000000 bad 1\ngood\n");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: @1700000000 bad 1"]);
    bench.wait_caught_up("log");
    let log = bench.path("log");
    append(&log, "bad 2\r\nba");
    bench.expect(&["j: bad 2"]);
    append(&log, "d 3");
    append(&log, "\nbad 4\n");
    bench.expect(&["j: bad 3", "j: bad 4"]);
    bench.stop();
}

#[test]
fn lines_from_before_the_start_are_old_and_later_ones_new() {
    let setup = Setup::new();
    append(&setup.path("log"), "bad 1\nbad 2\n");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: bad 1", "j: bad 2"]);
    bench.wait_caught_up("log");
    append(&bench.path("log"), "bad 3\n");
    bench.expect(&["j: bad 3"]);
    let flags: Vec<String> = bench
        .seen
        .iter()
        .filter_map(|report| match report {
            Report::Finding(finding) => Some(finding.fields[0].1.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(flags, ["old", "old", "new"]);
    bench.stop();
}

#[test]
fn a_big_log_is_read_from_findtime_ago() {
    let setup = Setup::new();
    let lines: String = (0..200_000).map(|n| format!("@{} ok\n", NOW - 200_000 + n)).collect();
    append(&setup.path("log"), format!("@1 bad too old to look at\n{lines}@{NOW} bad\n"));
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&[&format!("j: @{NOW} bad")]);
    bench.stop();
}

#[test]
fn tail_starts_at_the_end_and_at_the_start_of_a_line() {
    let setup = Setup::new();
    append(&setup.path("log"), "bad 1\nbad");
    let mut bench = setup.start(&["all: log", "end: log tail"]);
    bench.expect(&["all: bad 1"]);
    bench.wait_caught_up("log");
    append(&bench.path("log"), " 2\nbad 3\n");
    bench.expect(&["all: bad 2", "end: bad 2", "all: bad 3", "end: bad 3"]);
    bench.stop();
}

#[test]
fn a_file_of_two_jails_is_read_once_for_both() {
    let setup = Setup::new();
    append(&setup.path("log"), "");
    let mut bench = setup.start(&["a: log", "b: *log", "c: other"]);
    append(&bench.path("log"), "bad 1\nbad 2\n");
    bench.expect(&["a: bad 1", "b: bad 1", "a: bad 2", "b: bad 2"]);
    append(&bench.path("other"), "bad 3\n");
    bench.expect(&["c: bad 3"]);
    let states: Vec<_> = bench.status().into_iter().map(|status| status.files).collect();
    let follows = |name| vec![(bench.path(name), FileState::Following)];
    assert_eq!(states, [follows("log"), follows("log"), follows("other")]);
    bench.stop();
}

#[test]
fn a_file_with_two_names_is_read_once_for_each_jail() {
    let setup = Setup::new();
    append(&setup.path("real"), "");
    symlink("real", setup.path("link")).expect("made");
    let mut bench = setup.start(&["a: real link", "b: link"]);
    for name in ["link", "real"] {
        bench.wait_state(name, FileState::Following);
    }
    append(&bench.path("real"), "bad 1\n");
    append(&bench.path("link"), "bad 2\n");
    bench.expect(&["a: bad 1", "b: bad 1", "a: bad 2", "b: bad 2"]);
    bench.stop();
}

/// A writer that keeps its file open, follows a rename by opening anew only later.
fn rename_rotation(jails: &str) {
    let setup = Setup::new();
    let log = setup.path("x.log");
    append(&log, "");
    let mut bench = setup.start(&[jails]);
    bench.wait_state("x.log", FileState::Following);
    let mut old = OpenOptions::new().append(true).open(&log).expect("opened");
    write(&mut old, "bad 1\n");
    rename(&log, &bench.path("x.log.1"));
    write(&mut old, "bad 2\n");
    bench.expect(&["j: bad 1", "j: bad 2"]);
    append(&log, "bad 4\n");
    bench.expect(&["j: bad 4"]);
    // The writer has not noticed yet.
    write(&mut old, "bad 3\n");
    bench.expect(&["j: bad 3"]);
    append(&log, "bad 5\n");
    bench.expect(&["j: bad 5"]);
    let rotated = Report::Rotated { path: log, how: Rotation::Renamed };
    assert!(bench.seen.contains(&rotated), "{:?}", bench.seen);
    bench.stop();
}

#[test]
fn rename_rotation_loses_and_repeats_nothing() {
    rename_rotation("j: x.log");
}

#[test]
fn a_rotated_file_that_the_glob_matches_too_is_not_read_again() {
    rename_rotation("j: x.log*");
}

#[test]
fn the_unread_rest_of_a_rotated_file_comes_before_the_new_file() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "");
    let mut bench = setup.start(&["j: log"]);
    bench.wait_state("log", FileState::Following);
    let mut wanted = Vec::new();
    // More than one block, so that the rename comes while the old file is being read.
    for round in 0..10 {
        let lines: Vec<String> = (0..500).map(|n| format!("bad {round} {n:1000}")).collect();
        append(&log, lines.join("\n") + "\n");
        rename(&log, &bench.path(&format!("log.{round}")));
        wanted.extend(lines.into_iter().map(|line| format!("j: {line}")));
        append(&log, format!("bad first of {round}\n"));
        wanted.push(format!("j: bad first of {round}"));
        bench.expect(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
        wanted.clear();
    }
    bench.stop();
}

#[test]
fn copytruncate_goes_on_at_the_start() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "");
    let mut bench = setup.start(&["j: log"]);
    bench.wait_state("log", FileState::Following);
    append(&log, "bad first\nbad 2\n");
    bench.expect(&["j: bad first", "j: bad 2"]);
    fs::copy(&log, bench.path("log.1")).expect("copied");
    fs::write(&log, "").expect("truncated");
    bench.wait_rotated("log", Rotation::Truncated);
    append(&log, "bad 1\n");
    bench.expect(&["j: bad 1"]);
    // Truncated and longer than before by the time we look.
    fs::write(&log, "bad 3\nbad 4\nbad 5\n").expect("written anew");
    bench.expect(&["j: bad 3", "j: bad 4", "j: bad 5"]);
    bench.stop();
}

#[test]
fn what_only_the_copy_still_holds_is_read_from_it() {
    for jails in ["j: x.log", "j: x.log*"] {
        let setup = Setup::new();
        let log = setup.path("x.log");
        append(&log, "bad 1\n");
        // With a queue this short the reader has not come far when the file is truncated.
        let mut bench = Setup { queue: 1, ..setup }.start(&[jails]);
        bench.expect(&["j: bad 1"]);
        bench.wait_caught_up("x.log");
        let long = " ".repeat(2000);
        let lines: Vec<String> = (0..200).map(|n| format!("bad {n} {long}")).collect();
        append(&log, lines.join("\n") + "\n");
        let wanted: Vec<String> = lines.iter().map(|line| format!("j: {line}")).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        bench.expect(&wanted[..10]);
        fs::copy(&log, bench.path("x.log.1")).expect("copied");
        fs::write(&log, "").expect("truncated");
        append(&log, "bad after\n");
        bench.expect(&wanted[10..]);
        bench.expect(&["j: bad after"]);
        bench.stop();
    }
}

#[test]
fn a_copy_beside_a_log_that_goes_on_is_not_read() {
    let setup = Setup::new();
    let log = setup.path("x.log");
    append(&log, "bad 1\n");
    let mut bench = setup.start(&["j: x.log*"]);
    bench.expect(&["j: bad 1"]);
    bench.wait_caught_up("x.log");
    append(&log, "bad 2\n");
    bench.expect(&["j: bad 2"]);
    // Slowly, as a big one is made.
    append(&bench.path("x.log.bak"), "");
    bench.wait_state("x.log.bak", FileState::Following);
    for part in ["bad", " 1\nba", "d 2\n"] {
        append(&bench.path("x.log.bak"), part);
    }
    append(&log, "bad 3\n");
    bench.expect(&["j: bad 3"]);
    bench.stop();
}

#[test]
fn a_writer_that_leaves_a_hole_when_truncated_is_followed() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "");
    let mut bench = setup.start(&["j: log"]);
    bench.wait_state("log", FileState::Following);
    let mut writer = OpenOptions::new().write(true).open(&log).expect("opened");
    let padding = "ok\n".repeat(100_000);
    write(&mut writer, &padding);
    write(&mut writer, "bad 1\n");
    bench.expect(&["j: bad 1"]);
    let truncate = File::options().write(true).open(&log).expect("opened");
    truncate.set_len(0).expect("truncated");
    bench.wait_rotated("log", Rotation::Truncated);
    // It writes on at its old offset, so that the file begins with NULs.
    write(&mut writer, "bad 2\n");
    bench.expect(&["j: bad 2"]);
    bench.stop();
}

#[test]
fn a_deleted_log_is_read_on_and_its_successor_from_the_start() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "");
    let mut bench = setup.start(&["j: log"]);
    bench.wait_state("log", FileState::Following);
    let mut old = OpenOptions::new().append(true).open(&log).expect("opened");
    fs::remove_file(&log).expect("removed");
    bench.wait_state("log", FileState::Gone);
    write(&mut old, "bad 1\n");
    bench.expect(&["j: bad 1"]);
    append(&log, "bad 1\n");
    bench.expect(&["j: bad 1"]);
    let rotated = Report::Rotated { path: log, how: Rotation::Replaced };
    assert!(bench.seen.contains(&rotated), "{:?}", bench.seen);
    bench.stop();
}

#[test]
fn a_switched_symlink_is_followed_to_its_new_target() {
    let setup = Setup::new();
    for dir in ["data", "links"] {
        fs::create_dir(setup.path(dir)).expect("made");
    }
    append(&setup.path("data/1"), "");
    symlink("../data/1", setup.path("links/log")).expect("made");
    let mut bench = setup.start(&["j: links/log"]);
    bench.wait_state("links/log", FileState::Following);
    append(&bench.path("data/1"), "bad 1\n");
    bench.expect(&["j: bad 1"]);
    append(&bench.path("data/2"), "bad 2\n");
    symlink("../data/2", bench.path("links/new")).expect("made");
    rename(&bench.path("links/new"), &bench.path("links/log"));
    bench.expect(&["j: bad 2"]);
    // The target itself is replaced, in a directory of its own.
    append(&bench.path("data/3"), "bad 3\n");
    rename(&bench.path("data/3"), &bench.path("data/2"));
    bench.expect(&["j: bad 3"]);
    bench.stop();
}

#[test]
fn a_directory_that_is_a_symlink_may_be_switched_too() {
    let setup = Setup::new();
    for dir in ["one", "two"] {
        fs::create_dir(setup.path(dir)).expect("made");
        append(&setup.path(dir).join("log"), "");
    }
    symlink("one", setup.path("current")).expect("made");
    let mut bench = setup.start(&["j: current/log"]);
    bench.wait_state("current/log", FileState::Following);
    append(&bench.path("one/log"), "bad 1\n");
    bench.expect(&["j: bad 1"]);
    symlink("two", bench.path("next")).expect("made");
    rename(&bench.path("next"), &bench.path("current"));
    bench.wait_rotated("current/log", Rotation::Renamed);
    append(&bench.path("two/log"), "bad 2\n");
    bench.expect(&["j: bad 2"]);
    bench.stop();
}

#[test]
fn a_glob_grows() {
    let setup = Setup::new();
    append(&setup.path("a.log"), "");
    let mut bench = setup.start(&["j: *.log sites/*/access"]);
    bench.wait_state("a.log", FileState::Following);
    append(&bench.path("b.log"), "bad 1\n");
    bench.expect(&["j: bad 1"]);
    append(&bench.path("ignored.txt"), "bad\n");
    fs::create_dir_all(bench.path("sites/example.org")).expect("made");
    append(&bench.path("sites/example.org/access"), "bad 2\n");
    bench.expect(&["j: bad 2"]);
    fs::remove_file(bench.path("b.log")).expect("removed");
    bench.wait_state("b.log", FileState::Gone);
    append(&bench.path("a.log"), "bad 3\n");
    bench.expect(&["j: bad 3"]);
    bench.stop();
}

#[test]
fn a_missing_file_in_a_missing_directory_is_waited_for() {
    let setup = Setup::new();
    let mut bench = setup.start(&["j: not/yet/there.log"]);
    bench.wait_state("not/yet/there.log", FileState::Waiting);
    let states = bench.status().remove(0).files;
    assert_eq!(states, [(bench.path("not/yet/there.log"), FileState::Waiting)]);
    fs::create_dir(bench.path("not")).expect("made");
    fs::create_dir(bench.path("not/yet")).expect("made");
    append(&bench.path("not/yet/there.log"), "bad 1\n");
    bench.expect(&["j: bad 1"]);
    // The directory is replaced as a whole.
    rename(&bench.path("not/yet"), &bench.path("not/any-more"));
    fs::create_dir(bench.path("not/yet")).expect("made");
    append(&bench.path("not/yet/there.log"), "bad 2\n");
    bench.expect(&["j: bad 2"]);
    bench.stop();
}

#[test]
fn an_unreadable_file_is_reported_and_read_once_it_can_be() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, "bad 1\n");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o000)).expect("changed");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(setup.dir.path(), open).expect("changed");
    // Root reads whatever it likes, so the readers are started by a thread that is nobody.
    let mut bench = std::thread::spawn(move || {
        // SAFETY: a bare system call, which changes this thread alone and takes no pointers.
        unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        setup.start(&["j: log"])
    })
    .join()
    .expect("readers started");
    bench.wait_state("log", FileState::Unreadable("Permission denied (os error 13)".into()));
    fs::set_permissions(&log, fs::Permissions::from_mode(0o644)).expect("changed");
    bench.wait_state("log", FileState::Following);
    bench.expect(&["j: bad 1"]);
    bench.stop();
}

#[test]
fn what_is_no_file_is_reported() {
    let setup = Setup::new();
    fs::create_dir(setup.path("log")).expect("made");
    let mut bench = setup.start(&["j: log"]);
    bench.wait_state("log", FileState::Unreadable("not a regular file".into()));
    fs::remove_dir(bench.path("log")).expect("removed");
    append(&bench.path("log"), "bad 1\n");
    bench.expect(&["j: bad 1"]);
    bench.stop();
}

#[test]
fn without_inotify_files_are_looked_at_again_and_again() {
    let setup = Setup { watch: Watch::polling, ..Setup::new() };
    let mut bench = setup.start(&["j: log"]);
    bench.wait_state("log", FileState::Waiting);
    append(&bench.path("log"), "bad 1\n");
    bench.expect(&["j: bad 1"]);
    append(&bench.path("log"), "bad 2\n");
    bench.expect(&["j: bad 2"]);
    rename(&bench.path("log"), &bench.path("log.1"));
    append(&bench.path("log"), "bad 3\n");
    bench.expect(&["j: bad 3"]);
    bench.stop();
}

#[test]
fn where_inotify_is_used_up_files_are_looked_at_again_and_again() {
    let setup = Setup::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(setup.dir.path(), open).expect("changed");
    append(&setup.path("log"), "bad 1\n");
    // The kernel counts instances by user: these are nobody's last ones.
    let (mut bench, taken) = std::thread::spawn(move || {
        // SAFETY: a bare system call, which changes this thread alone and takes no pointers.
        unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        let taken: Vec<_> = std::iter::from_fn(|| inotify::Inotify::init().ok()).collect();
        (setup.start(&["j: log"]), taken)
    })
    .join()
    .expect("readers started");
    let refused = loop {
        if let Report::Fault { source, what } = bench.next("the refusal") {
            break format!("{source}: {what}");
        }
    };
    assert!(refused.starts_with("inotify: inotify refused a watch (Too many open"), "{refused}");
    append(&bench.path("log"), "bad 2\n");
    let mut found = Vec::new();
    while found.len() < 2 {
        if let Report::Finding(finding) = bench.next("two findings") {
            found.push(text(&finding));
        }
    }
    // What was found before the refusal was told came first, if it did.
    assert_eq!(found, ["j: bad 1", "j: bad 2"]);
    drop(taken);
    bench.stop();
}

#[test]
fn a_line_of_more_than_a_mebibyte_is_cut_and_counted() {
    let setup = Setup::new();
    append(&setup.path("log"), "");
    let mut bench = setup.start(&["j: log"]);
    bench.wait_caught_up("log");
    append(&bench.path("log"), format!("bad {}\nbad 2\n", "x".repeat(1 << 20)));
    let cut = format!("j: bad {}", "x".repeat((1 << 20) - 4));
    bench.expect(&[&cut]);
    let (source, what) =
        (bench.path("log").display().to_string(), "cut 1 lines longer than 1048576 bytes");
    let fault = Report::Fault { source, what: what.into() };
    let mut reports = [bench.next("a finding"), bench.next("a fault")];
    reports.sort_by_key(|report| matches!(report, Report::Fault { .. }));
    assert!(matches!(&reports[0], Report::Finding(finding) if text(finding) == "j: bad 2"));
    assert_eq!(reports[1], fault);
    let readers = bench.readers.as_ref().expect("running");
    assert_eq!(readers.limits()[0], (Limit::Line, 1));
    bench.stop();
}

#[test]
fn how_far_each_file_was_read_is_told_while_it_is_read() {
    let setup = Setup { queue: 1, ..Setup::new() };
    append(&setup.path("log"), "bad 1\nbad 2\nbad 3\nbad 4\n");
    let mut bench = setup.start(&["j: log"]);
    bench.expect(&["j: bad 1"]);
    // The queue is full: whoever asks sees since when the reader is stuck.
    let of = |bench: &Bench| bench.readers.as_ref().expect("running").progress().remove(0);
    let progress = of(&bench);
    assert_eq!((progress.path, progress.behind_since), (bench.path("log"), Some(now())));
    bench.expect(&["j: bad 2", "j: bad 3", "j: bad 4"]);
    bench.wait_caught_up("log");
    let progress = of(&bench);
    assert_eq!((progress.bytes_behind, progress.behind_since), (0, None));
    assert_eq!(progress.last_line, Some(now()));
    bench.stop();
}

#[test]
fn each_jail_reads_in_its_own_encoding() {
    let setup = Setup::new();
    append(&setup.path("log"), b"bad caf\xe9 \xff\n");
    let utf16: Vec<u8> = "bad ä\r\nbad €\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    append(&setup.path("wide"), utf16);
    append(&setup.path("bom"), "\u{feff}bad 1\n");
    let jails = ["a: log", "b: encoding=latin-1 log", "w: encoding=utf-16le wide", "u: bom"];
    for jail in jails {
        let mut bench = setup.start(&[jail]);
        let wanted: &[&str] = match jail.as_bytes()[0] {
            b'a' => &["a: bad caf\u{fffd} \u{fffd}"],
            b'b' => &["b: bad café ÿ"],
            b'w' => &["w: bad ä", "w: bad €"],
            _ => &["u: bad 1"],
        };
        bench.expect(wanted);
        bench.stop();
    }
    let mut bench = setup.start(&jails[..2]);
    bench.expect(&["a: bad caf\u{fffd} \u{fffd}", "b: bad café ÿ"]);
    bench.stop();
}

#[test]
fn old_lines_put_in_place_of_a_log_are_judged_by_their_times() {
    let setup = Setup::new();
    let log = setup.path("log");
    append(&log, format!("@{NOW} bad 1\n"));
    let mut bench = setup.start(&["j: log", "k: late"]);
    bench.expect(&[&format!("j: @{NOW} bad 1")]);
    bench.wait_caught_up("log");
    let waiting = Report::File { path: bench.path("late"), state: FileState::Waiting };
    if !bench.seen.contains(&waiting) {
        bench.wait(&waiting);
    }
    let old = NOW - 5000;
    let restored = format!("@{old} bad 2\n@{NOW} bad 3\n");
    append(&bench.path("restored"), &restored);
    rename(&bench.path("restored"), &log);
    let found = [format!("j: @{old} bad 2"), format!("j: @{NOW} bad 3")];
    bench.expect(&[&found[0], &found[1]]);
    bench.wait_caught_up("log");
    // A log whose clock is wrong begins anew where it ended: that is no restored one.
    append(&bench.path("late"), format!("@{old} bad 4\n"));
    bench.expect(&[&format!("k: @{old} bad 4")]);
    let last = bench.seen.iter().rev().find_map(|report| match report {
        Report::Finding(finding) => Some(finding.fields[0].1.to_string()),
        _ => None,
    });
    assert_eq!(last.as_deref(), Some("new"));
    bench.stop();
}
