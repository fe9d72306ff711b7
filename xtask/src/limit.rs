//! The runner of every test binary: a time limit, and nothing left running behind it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Runs a program for at most so many seconds, and kills what it leaves behind
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// How long it may run
    #[arg(long)]
    seconds: u64,
    /// A variable for the program, as NAME=VALUE
    #[arg(long)]
    set: Vec<String>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

enum Event {
    Ended(ExitStatus),
    Signal(i32),
}

/// The verb: answers with the program's own exit code, 124 when its time was up (as `timeout`
/// does), 128 and the signal's number where a signal ended it.
pub fn verb(args: &Args) -> ExitCode {
    match limited(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: cannot run `{}`: {error}", args.command.join(" "));
            ExitCode::from(126)
        }
    }
}

fn limited(args: &Args) -> std::io::Result<u8> {
    adopt_orphans()?;
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (events, happened) = mpsc::channel();
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).stdin(Stdio::null());
    command.envs(args.set.iter().filter_map(|pair| pair.split_once('=')));
    // Its own process group, so that Ctrl-C comes to us alone and we end it whole.
    let mut child = command.process_group(0).spawn()?;
    let ended = events.clone();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = ended.send(Event::Ended(status));
        }
    });
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = events.send(Event::Signal(signal));
        }
    });
    let code = match happened.recv_timeout(Duration::from_secs(args.seconds)) {
        Ok(Event::Ended(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => u8::try_from(code).unwrap_or(255),
            (None, signal) => ended_by(signal.unwrap_or(0)),
        },
        Ok(Event::Signal(signal)) => ended_by(signal),
        Err(_) => {
            let limit = args.seconds;
            eprintln!("xtask: `{}` ran for {limit} s: ended", args.command.join(" "));
            124
        }
    };
    for left in end_descendants() {
        eprintln!("xtask: left running by the test, and killed: {left}");
    }
    Ok(code)
}

/// From now on a process below us that loses its parent becomes our child, not the machine's: so
/// that [`end_descendants`] finds it.
pub fn adopt_orphans() -> std::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

fn ended_by(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(255)
}

/// Kills every descendant, round after round: the children of a killed one become ours. Answers
/// with their names.
pub fn end_descendants() -> Vec<String> {
    let us = rustix::process::getpid();
    let mut ended = Vec::new();
    // More rounds than any family has generations, and an end should one refuse to die.
    for _ in 0..64 {
        let below = descendants(us);
        if below.is_empty() {
            break;
        }
        for (pid, name) in below {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            // Not always ours to wait for yet; then the next round finds it again.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            ended.push(format!("{name} ({})", pid.as_raw_nonzero()));
        }
    }
    ended.dedup();
    ended
}

/// Living processes below one, by `/proc`.
fn descendants(of: Pid) -> Vec<(Pid, String)> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat"));
        if let Some((pid, parent, name)) = stat.ok().as_deref().and_then(parse_stat) {
            parents.insert(pid, (parent, name));
        }
    }
    let is_below = |mut pid: i32| {
        // A chain of parents is never longer than the table of processes.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some((parent, _)) if *parent == of.as_raw_nonzero().get() => return true,
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let below = parents.iter().filter(|(pid, _)| is_below(**pid));
    below.filter_map(|(pid, (_, name))| Some((Pid::from_raw(*pid)?, name.clone()))).collect()
}

/// Process, parent and name from `/proc/PID/stat`; none for one that has ended already.
fn parse_stat(stat: &str) -> Option<(i32, i32, String)> {
    // The name may hold anything, brackets too: it ends at the last one.
    let (head, tail) = stat.rsplit_once(')')?;
    let (pid, name) = head.split_once(" (")?;
    let mut fields = tail.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    Some((pid.parse().ok()?, fields.next()?.parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_calls_itself() {
        let stat = "42 (a) S 1 (b) S 7 42 42 0 -1";
        assert_eq!(parse_stat(stat), Some((42, 7, "a) S 1 (b".to_owned())));
        assert_eq!(parse_stat("42 (gone) Z 7 42"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_child_is_found_below_us() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let found = descendants(rustix::process::getpid()).iter().any(|(found, _)| *found == pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
        assert!(!descendants(rustix::process::getpid()).iter().any(|(found, _)| *found == pid));
    }
}
