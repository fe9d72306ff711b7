//! The real `logrotate` on a log that a process fills with 50,000 lines a second.
//!
//! Every line that lies in some file in the end was read once. What is in none was written between the copy that
//! `copytruncate` makes and the truncation, or, across a restart, to a file that was compressed under its writer.
use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    process::{Child, Command, Stdio},
    time::Instant,
};

use super::*;

/// For how long one way of rotation is tried, and how often at least: on a loaded machine `logrotate` takes its time.
const SPAN: Duration = Duration::from_secs(3);
const ROTATIONS: u32 = 6;

/// The log is rotated when it has so many bytes.
const GROWTH: u64 = 100_000;

/// Lines a second that are written.
const RATE: u64 = 50_000;

/// Writes numbered lines at the rate of its argument until it is told to end; opens its log anew when told so, and
/// not in the middle of a line.
const WRITER: &str = r#"
use Time::HiRes qw(time sleep);
my ($path, $rate) = @ARGV;
my ($end, $anew) = (0, 1);
$SIG{TERM} = sub { $end = 1 };
$SIG{HUP} = sub { $anew = 1 };
my ($n, $start, $log) = (0, time());
until ($end) {
    if ($anew) { $anew = 0; open($log, '>>', $path) or die; }
    my $due = int((time() - $start) * $rate);
    $due = $n + 2000 if $due > $n + 2000;
    my $text = '';
    $text .= sprintf('@1700000000 bad %d of the writer' . "\n", $n++) while $n < $due;
    syswrite($log, $text) if length $text;
    sleep(0.001);
}
print $n;
"#;

/// A program that tests need.
#[track_caller]
fn tool(names: &[&str], package: &str) -> PathBuf {
    let found = names.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("install `{package}`: none of {names:?} is there"))
}

struct Writer(Child);

impl Writer {
    fn start(log: &Path) -> Writer {
        let perl = tool(&["/usr/bin/perl"], "perl");
        let mut command = Command::new(perl);
        command.args(["-e", WRITER]).arg(log).arg(RATE.to_string());
        let writer = Writer(command.stdout(Stdio::piped()).spawn().expect("perl starts"));
        let end = Instant::now() + DEADLINE;
        // Only then it has set its signals up.
        while fs::metadata(log).is_ok_and(|meta| meta.len() == 0) {
            assert!(Instant::now() < end, "the writer does not begin");
            std::thread::yield_now();
        }
        writer
    }

    /// Ends it; answers how many lines it wrote.
    fn end(mut self) -> u64 {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("it says a number");
        assert!(self.0.wait().expect("it ends").success());
        text.parse().expect("a number")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It has ended, unless the test fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One line's number.
fn number(line: &str) -> Option<u64> {
    line.strip_prefix("@1700000000 bad ")?.strip_suffix(" of the writer")?.parse().ok()
}

/// Every line in the files of a directory, compressed or not.
fn lines_on_disk(dir: &Path) -> BTreeMap<u64, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("readable").flatten() {
        let path = entry.path();
        let bytes = fs::read(&path).expect("readable");
        let mut text = String::new();
        if path.extension().is_some_and(|ending| ending == "gz") {
            let mut gzip = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            gzip.read_to_string(&mut text).expect("whole");
        } else if path.to_string_lossy().contains("x.log") {
            text = String::from_utf8(bytes).expect("text");
        }
        for line in text.lines().filter_map(number) {
            *found.entry(line).or_default() += 1;
        }
    }
    found
}

/// Rotates again and again in this way; with `restart` the readers are stopped and started meanwhile.
fn rotate(how: &str, restart: bool) {
    let logrotate = tool(&["/usr/sbin/logrotate"], "logrotate");
    let setup = Setup { queue: 100_000, ..Setup::new() };
    let (log, pid_file) = (setup.path("logs/x.log"), setup.path("pid"));
    fs::create_dir(setup.path("logs")).expect("made");
    append(&log, "");
    let tell = format!("postrotate\nkill -HUP $(cat {})\nendscript", pid_file.display());
    let tell = if how.contains("copytruncate") { "" } else { &tell };
    let text = format!("{} {{\nsu root root\nrotate 1000\n{how}\n{tell}\n}}\n", log.display());
    fs::write(setup.path("conf"), text).expect("written");
    let mut bench = setup.start(&["j: logs/x.log"]);
    bench.wait_state("logs/x.log", FileState::Following);
    let writer = Writer::start(&log);
    fs::write(&pid_file, writer.0.id().to_string()).expect("written");
    let mut found: Vec<u64> = Vec::new();
    let mut rotations = 0;
    let begin = Instant::now();
    let mut take = |bench: &mut Bench| {
        while let Ok(report) = bench.reports.try_recv() {
            if let Report::Finding(finding) = report {
                found.push(number(&finding.lines[0]).expect("whole lines"));
            }
        }
    };
    while begin.elapsed() < SPAN || rotations < ROTATIONS {
        if fs::metadata(&log).is_ok_and(|meta| meta.len() < GROWTH) {
            std::thread::yield_now();
            continue;
        }
        let mut command = Command::new(&logrotate);
        command.arg("-f").arg("-s").arg(setup.path("state")).arg(setup.path("conf"));
        let output = command.output().expect("logrotate starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        rotations += 1;
        take(&mut bench);
        if restart && rotations % 3 == 0 {
            let positions = bench.readers.take().expect("running").stop();
            take(&mut bench);
            let text = serde_json::to_string(&positions).expect("positions are plain data");
            let from = serde_json::from_str(&text).expect("as it was written");
            bench = Setup { from, ..setup.clone() }.start(&["j: logs/x.log"]);
        }
    }
    let written = writer.end();
    // One more line comes after all others.
    append(&log, format!("@1700000000 bad {written} of the writer\n"));
    let end = Instant::now() + DEADLINE;
    let mut last = false;
    while !last {
        assert!(Instant::now() < end, "{how}: the last line does not come");
        if let Report::Finding(finding) = bench.next("the last line") {
            let line = number(&finding.lines[0]).expect("whole lines");
            found.push(line);
            last = line == written;
        }
    }
    let readers = bench.readers.take().expect("running");
    let limits = readers.limits();
    readers.stop();
    let mut counts: HashMap<u64, u32> = HashMap::new();
    found.iter().for_each(|line| *counts.entry(*line).or_default() += 1);
    let twice = counts.iter().filter(|(_, count)| **count > 1).count();
    let on_disk = lines_on_disk(&setup.path("logs"));
    let missed: Vec<&u64> = on_disk.keys().filter(|line| !counts.contains_key(line)).collect();
    let lost = written + 1 - counts.len() as u64;
    let vanished = written + 1 - on_disk.len() as u64;
    println!(
        "{}{}: {rotations} rotations, {written} lines in {:?}, {vanished} in no file, {lost} of them not read; {limits:?}",
        how.replace('\n', " "),
        if restart { ", restarts" } else { "" },
        begin.elapsed()
    );
    assert_eq!((twice, missed.len()), (0, 0), "{how}: missed {:?}", &missed[..missed.len().min(9)]);
    if !how.contains("copytruncate") && !restart {
        assert_eq!(lost, 0, "{how}");
    }
    assert!(lost <= vanished, "{how}: {lost} lost of {vanished}");
}

#[test]
fn logrotate_by_rename_loses_and_repeats_nothing_under_load() {
    for how in ["create\ncompress", "create\ncompress\ndelaycompress"] {
        rotate(how, false);
    }
}

#[test]
fn logrotate_by_copytruncate_loses_only_what_the_copy_has_not() {
    for how in ["copytruncate\ncompress", "copytruncate\ncompress\ndelaycompress"] {
        rotate(how, false);
    }
}

#[test]
fn restarts_between_rotations_lose_and_repeat_nothing_either() {
    for how in ["create\ncompress", "create\ncompress\ndelaycompress", "copytruncate\ncompress"] {
        rotate(how, true);
    }
}
