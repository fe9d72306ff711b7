//! The runner of test binaries, from outside.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

/// Runs a line of shell under the runner, for at most so many seconds.
fn limited(seconds: u32, line: &str) -> Output {
    let mut runner = Command::new(env!("CARGO_BIN_EXE_xtask"));
    runner.args(["limit", &format!("--seconds={seconds}"), "--set=GREETING=a=b c", "--"]);
    runner.args(["sh", "-c", line]).output().expect("the runner starts")
}

#[track_caller]
fn check(seconds: u32, line: &str, code: i32, stdout: &str) {
    let output = limited(seconds, line);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
}

#[test]
fn the_programs_own_end_is_passed_on() {
    check(60, "echo \"$GREETING\"", 0, "a=b c\n");
    check(60, "exit 7", 7, "");
    check(60, "kill -TERM $$", 128 + 15, "");
}

#[test]
fn time_that_is_up_ends_the_whole_family() {
    let start = Instant::now();
    let output = limited(1, "setsid sleep 300 & echo $!; wait");
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    assert!(start.elapsed().as_secs() < 60);
    gone(&output);
}

#[test]
fn what_a_test_leaves_running_is_killed_and_named() {
    // Its parent is gone and it has a session of its own: only a subreaper still finds it.
    let output = limited(60, "(setsid sleep 300 >/dev/null 2>&1 & echo $!) ");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    // It may be told by the name of the shell that it still is: the number is what counts.
    let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(said.contains("left running") && said.contains(&format!("({pid})")), "{said}");
    gone(&output);
}

/// The process whose number was printed no longer lives.
#[track_caller]
fn gone(output: &Output) {
    let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(pid.parse::<u32>().is_ok(), "{output:?}");
    let command = std::fs::read_to_string(Path::new("/proc").join(&pid).join("cmdline"));
    assert!(!command.unwrap_or_default().contains("300"), "{pid} still lives");
}
