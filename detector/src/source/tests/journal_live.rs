//! A living `systemd-journald` of our own: it rotates, vacuums, flushes, and has namespaces.
use std::{
    collections::BTreeSet,
    io::Read,
    ops::Range,
    os::{fd::AsRawFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread::JoinHandle,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{journal::journal_jail, *};
use crate::config::JournalSettings;

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Takes every entry, however many come at once and however full the disk is.
const UNLIMITED: &str = "[Journal]\nRateLimitIntervalSec=0\nRateLimitBurst=0\nRuntimeMaxUse=256M\n\
    RuntimeKeepFree=0\nSystemMaxUse=256M\nSystemKeepFree=0\n";

/// Runs in a private mount namespace. $1: what becomes /run/log/journal, $2: the configuration, $3: what becomes
/// /var/log, $4: a namespace that has a journald of its own, $5: a library that journald loads before all others.
const SCRIPT: &str = r#"
set -e
mkdir -p /run/systemd /run/log/journal
mount -t tmpfs tmpfs /run/systemd
mkdir -p /run/systemd/journal
for of in journald.conf.d "journald@$4.conf.d"; do
  mkdir -p "/run/systemd/$of"; printf %s "$2" >"/run/systemd/$of/test.conf"
done
mount --bind "$1" /run/log/journal
if [ -n "$3" ]; then mount --bind "$3" /var/log; fi
if [ -n "$4" ]; then setpriv --pdeathsig KILL "$0" "$4" & fi
exec env LD_PRELOAD="$5" "$0"
"#;

/// A journald whose files lie in a directory of ours.
struct Journald {
    child: Child,
}

impl Journald {
    fn start(files: &Path) -> Journald {
        Journald::start_with(files, UNLIMITED, "", "")
    }

    fn start_with(files: &Path, configuration: &str, var: &str, namespace: &str) -> Journald {
        Journald::start_loading(files, configuration, var, namespace, "")
    }

    /// One whose clock is `clock`'s.
    fn start_by(clock: &SteppedClock, files: &Path) -> Journald {
        let library = clock.library.display().to_string();
        Journald::start_loading(files, UNLIMITED, "", "", &library)
    }

    fn start_loading(
        files: &Path,
        configuration: &str,
        var: &str,
        namespace: &str,
        library: &str,
    ) -> Journald {
        fs::create_dir_all(files).expect("made");
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, JOURNALD])
            .arg(files)
            .args([configuration, var, namespace, library])
            .stderr(Stdio::piped())
            .spawn();
        let mut journald =
            Journald { child: child.expect("`unshare` of the package `util-linux` runs") };
        let sockets = [(!namespace.is_empty()).then_some(namespace), None];
        let is_up = |journald: &Journald| {
            sockets.iter().all(|of| UnixStream::connect(journald.socket(*of)).is_ok())
        };
        // The one place where there is nothing to wait for but a socket to appear.
        for _ in 0..DEADLINE.as_millis() / 10 {
            if is_up(&journald) {
                return journald;
            }
            if journald.child.try_wait().expect("it can be asked").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = journald.child.kill();
        let mut why = String::new();
        let _ = journald.child.stderr.take().expect("piped").read_to_string(&mut why);
        panic!("{JOURNALD} did not start ({why}); it takes root and the package `systemd`");
    }

    fn socket(&self, namespace: Option<&str>) -> PathBuf {
        let of = namespace.map(|name| format!(".{name}")).unwrap_or_default();
        format!("/proc/{}/root/run/systemd/journal{of}/stdout", self.child.id()).into()
    }

    /// A service's standard output, as systemd would connect it.
    fn service(&self, name: &str) -> UnixStream {
        self.service_of(None, name)
    }

    fn service_of(&self, namespace: Option<&str>, name: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket(namespace)).expect("journald listens");
        let hello = format!("{name}\nf2x.service\n6\n0\n0\n0\n0\n");
        stream.write_all(hello.as_bytes()).expect("taken");
        // journald asks the kernel for senders only after it has taken the connection: of what is written in that
        // moment it knows neither process nor unit, and files it without them.
        until("journald has read who writes", || unread(&stream) == 0);
        stream
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it lives");
    }

    /// As `journalctl --rotate`.
    fn rotate(&self) {
        self.signal(Signal::USR2);
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What journald is told for a time, in place of the C library's function: the kernel's wall clock and so many seconds as
/// stand in a file.
const STEPPING: &str = r#"
use std::ffi::{c_int, c_long};

#[repr(C)]
pub struct Time {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

const CLOCK_GETTIME: c_long = if cfg!(target_arch = "x86_64") { 228 } else { 113 };
const WALL: [c_int; 2] = [0, 5];

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Time) -> c_int {
    let said = unsafe { syscall(CLOCK_GETTIME, clock, time) };
    let seconds = std::fs::read_to_string(env!("F2X_STEP")).unwrap_or_default();
    if said == 0 && WALL.contains(&clock) {
        unsafe { (*time).seconds += seconds.parse::<i64>().unwrap_or(0) };
    }
    said as c_int
}
"#;

/// A clock that can be set.
struct SteppedClock {
    library: PathBuf,
    step: PathBuf,
}

impl SteppedClock {
    #[track_caller]
    fn new(setup: &Setup) -> SteppedClock {
        let clock = SteppedClock { library: setup.path("libclock.so"), step: setup.path("step") };
        let source = setup.path("clock.rs");
        fs::write(&source, STEPPING).expect("written");
        clock.set(0);
        let built = Command::new("rustc")
            .args(["--edition=2024", "--crate-type=cdylib", "-O", "-o"])
            .args([&clock.library, &source])
            .env("F2X_STEP", &clock.step)
            .output()
            .expect("`rustc` runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        clock
    }

    /// So many seconds before or after the kernel's wall clock. In one step: nobody reads half a number.
    fn set(&self, seconds: i64) {
        let draft = self.step.with_extension("draft");
        fs::write(&draft, seconds.to_string()).expect("written");
        rename(&draft, &self.step);
    }
}

/// Waits until something is so, asked again and again.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..DEADLINE.as_millis() / 10 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within {DEADLINE:?}: {what}");
}

/// What was written to a stream and that its other end has not read, as the kernel accounts for it.
fn unread(stream: &UnixStream) -> libc::c_int {
    let mut unread = 0;
    // SAFETY: the request writes one number (unix(7)).
    let asked = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    assert_eq!(asked, 0, "a stream can be asked");
    unread
}

/// The number behind `bad` of the next finding.
#[track_caller]
fn number(bench: &mut Bench) -> u32 {
    let line = bench.finding();
    let number = line.rsplit_once("bad ").and_then(|(_, number)| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number in `{line}`"))
}

/// Writes `bad N` for each number, at most so many ahead of `read`.
fn write_paced(
    mut to: UnixStream,
    numbers: Range<u32>,
    read: Arc<AtomicU32>,
    ahead: u32,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for number in numbers {
            while number > read.load(Relaxed).saturating_add(ahead) {
                std::thread::yield_now();
            }
            to.write_all(format!("bad {number}\n").as_bytes()).expect("taken");
        }
    })
}

/// Writes `bad N` for each number, as fast as it goes.
fn write_numbers(to: UnixStream, numbers: Range<u32>) -> JoinHandle<()> {
    write_paced(to, numbers, Arc::new(AtomicU32::new(0)), u32::MAX)
}

/// The files of a machine, by name.
fn files(journal: &Path) -> Vec<PathBuf> {
    let machine = fs::read_dir(journal).expect("it is there").flatten().next();
    let files = fs::read_dir(machine.expect("a machine's directory").path()).expect("read");
    let mut files: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

const UNIT: &str = "_SYSTEMD_UNIT=f2x.service";

#[test]
fn a_living_journal_is_followed_through_rotation() {
    let setup = Setup { clock: crate::clock::now, ..Setup::new() };
    let journald = Journald::start(&setup.path("journal"));
    let mut bench =
        setup.start_journal(&[("j", "_SYSTEMD_UNIT=f2x.service SYSLOG_IDENTIFIER=sshd")]);
    bench.wait(&Report::CaughtUp { source: setup.journal_name() });
    let (mut service, mut other) = (journald.service("sshd"), journald.service("other"));
    let mut expect = |bench: &mut Bench, number: u32| {
        other.write_all(b"bad, but of another service\n").expect("taken");
        service.write_all(format!("bad {number}\n").as_bytes()).expect("taken");
        let report = loop {
            match bench.next("a finding") {
                Report::Finding(finding) => break finding,
                Report::Fault { source, what } => panic!("{source}: {what}"),
                _ => {}
            }
        };
        let line = &report.lines[0];
        assert!(line.contains(" sshd[") && line.ends_with(&format!("]: bad {number}")), "{line}");
        assert_eq!(&*report.fields[0].1, "new");
    };
    for number in 0..3 {
        expect(&mut bench, number);
    }
    for number in 3..6 {
        journald.rotate();
        expect(&mut bench, number);
    }
    bench.stop();
}

#[test]
fn rotation_vacuum_and_restarts_under_load_lose_and_repeat_nothing() {
    const LINES: u32 = 20_000;
    let mut setup = Setup { clock: crate::clock::now, ..Setup::new() };
    let conf = format!("{UNLIMITED}RuntimeMaxFiles=3\n");
    let journal = setup.path("journal");
    let journald = Journald::start_with(&journal, &conf, "", "");
    let mut bench = setup.start_journal(&[("j", UNIT)]);
    let read = Arc::new(AtomicU32::new(0));
    let writer = write_paced(journald.service("sshd"), 0..LINES, Arc::clone(&read), 1000);
    let (mut rotations, mut restarts, mut seen) = (0, 0, BTreeSet::new());
    for expect in 0..LINES {
        assert_eq!(number(&mut bench), expect, "after {rotations} rotations, {restarts} restarts");
        if expect % 700 == 350 {
            journald.rotate();
            rotations += 1;
        }
        if expect % 4000 == 2000 {
            // What was handed over and not taken yet was read.
            let readers = bench.readers.take().expect("running");
            setup.from = readers.stop();
            let mut next = setup.start_journal(&[("j", UNIT)]);
            next.first = std::iter::from_fn(|| bench.reports.try_recv().ok()).collect();
            bench = next;
            restarts += 1;
        }
        read.store(expect, Relaxed);
        seen.extend(files(&journal));
    }
    writer.join().expect("everything was written");
    let left = files(&journal).len();
    println!("{rotations} rotations, {restarts} restarts, {} files, {left} left", seen.len());
    assert!(seen.len() > 10 && left <= 4, "files were made and vacuumed: {left} of {seen:?}");
    assert_eq!(
        bench.status()[0].journal.as_ref().map(|it| it.progress.counts),
        Some(Default::default())
    );
    bench.stop();
}

#[test]
fn what_was_removed_unread_is_counted() {
    let setup = Setup { clock: crate::clock::now, ..Setup::new() };
    let journal = setup.path("journal");
    let journald = Journald::start(&journal);
    let mut bench = setup.start_journal(&[("j", UNIT)]);
    write_numbers(journald.service("sshd"), 0..10).join().expect("written");
    for expect in 0..10 {
        assert_eq!(number(&mut bench), expect);
    }
    let from = bench.stop();
    write_numbers(journald.service("sshd"), 10..50).join().expect("written");
    // What was written is in the files once a later line can be read.
    let mut bench = setup.start_journal(&[("j", UNIT)]);
    while number(&mut bench) != 49 {}
    journald.rotate();
    until("it has rotated", || files(&journal).len() > 1);
    write_numbers(journald.service("sshd"), 50..55).join().expect("written");
    while number(&mut bench) != 54 {}
    bench.stop();
    for archived in files(&journal).iter().filter(|path| path.to_string_lossy().contains('@')) {
        fs::remove_file(archived).expect("removed");
    }
    let mut bench = Setup { from, ..setup.clone() }.start_journal(&[("j", UNIT)]);
    for expect in 50..55 {
        assert_eq!(number(&mut bench), expect);
    }
    let what = bench.wait_fault("were removed before they were read");
    let counts = bench.status().remove(0).journal.expect("it reads one").progress.counts;
    assert!((40..=60).contains(&counts.removed), "{what}: {counts:?}");
    bench.stop();
}

#[test]
fn a_reader_that_vacuuming_overtakes_says_what_it_has_lost() {
    let setup = Setup { clock: crate::clock::now, queue: 1, ..Setup::new() };
    let conf = format!("{UNLIMITED}RuntimeMaxFiles=2\n");
    let journal = setup.path("journal");
    let journald = Journald::start_with(&journal, &conf, "", "");
    let mut bench = setup.start_journal(&[("j", UNIT)]);
    // The reader comes no further than the queue is long.
    for part in 0..6 {
        let numbers = part * 500..(part + 1) * 500;
        write_numbers(journald.service("sshd"), numbers).join().expect("written");
        let before = files(&journal);
        journald.rotate();
        until("it has rotated", || files(&journal) != before);
    }
    let (mut found, mut last) = (0, None);
    while last != Some(2999) {
        let line = match bench.next("the last line") {
            Report::Finding(finding) => text(&finding),
            report => {
                bench.seen.push(report);
                continue;
            }
        };
        let number = line.rsplit_once("bad ").and_then(|(_, number)| number.parse::<u32>().ok());
        let Some(number) = number else { continue };
        assert!(last.is_none_or(|last| number > last), "in order, and none twice");
        (found, last) = (found + 1, Some(number));
    }
    let lost = 3000 - found;
    let says = |report: &Report| matches!(report, Report::Fault { what, .. } if what.contains("removed before they were read"));
    while !bench.seen.iter().any(says) {
        let report = bench.next("what was removed");
        bench.seen.push(report);
    }
    let counts = bench.status().remove(0).journal.expect("it reads one").progress.counts;
    println!("{lost} of 3000 lost: {counts:?}");
    assert!(lost > 0, "it was not overtaken");
    // Others than the jail's were removed too: what the kernel and journald itself have to say.
    assert!(counts.removed >= lost, "{lost} lost, {counts:?}");
    drop(bench);
}

#[test]
fn a_flush_to_disk_repeats_nothing() {
    let setup = Setup { clock: crate::clock::now, ..Setup::new() };
    let root = setup.path("journal");
    let (run, var) = (root.join("run/log/journal"), root.join("var/log"));
    fs::create_dir_all(&var).expect("made");
    let var = var.display().to_string();
    let journald = Journald::start_with(&run, UNLIMITED, &var, "");
    let (settings, matcher) = journal_jail(&setup, "j", UNIT);
    let SourceSettings::Journal(journal) = settings.source.clone() else { unreachable!() };
    // `SD_JOURNAL_OS_ROOT`
    let source = SourceSettings::Journal(JournalSettings { flags: Some(16), ..journal });
    let mut bench = setup.start_jails(vec![(JailSettings { source, ..settings }, matcher)]);
    let mut service = journald.service("sshd");
    let mut write = |numbers: Range<u32>| {
        for number in numbers {
            service.write_all(format!("bad {number}\n").as_bytes()).expect("taken");
        }
    };
    write(0..200);
    for expect in 0..200 {
        assert_eq!(number(&mut bench), expect);
    }
    fs::create_dir(Path::new(&var).join("journal")).expect("made");
    journald.signal(Signal::USR1);
    write(200..400);
    for expect in 200..400 {
        assert_eq!(number(&mut bench), expect);
    }
    let counts = bench.status().remove(0).journal.expect("it reads one").progress.counts;
    assert_eq!(counts.copies, 200);
    bench.stop();
}

#[test]
fn namespaces_have_journals_of_their_own() {
    let setup = Setup { clock: crate::clock::now, ..Setup::new() };
    // Otherwise it would write to this machine's disk.
    let conf = format!("{UNLIMITED}Storage=volatile\n");
    let journald = Journald::start_with(&setup.path("journal"), &conf, "", "web");
    let jail_of = |name: &str, namespace: Option<&str>| {
        let (settings, matcher) = journal_jail(&setup, name, UNIT);
        let SourceSettings::Journal(journal) = settings.source.clone() else { unreachable!() };
        let namespace = namespace.map(str::to_owned);
        let source = SourceSettings::Journal(JournalSettings { namespace, ..journal });
        (JailSettings { source, ..settings }, matcher)
    };
    let jails = vec![jail_of("own", None), jail_of("web", Some("web")), jail_of("all", Some("*"))];
    let mut bench = setup.start_jails(jails);
    let mut services =
        [journald.service("sshd"), journald.service_of(Some("web"), "sshd")].map(|it| (it, 0));
    // Both write at once and in turns, so that times lie close together and come in either order.
    for number in 0..1000 {
        let (service, count) = &mut services[number % 2];
        let name = ["own", "web"][number % 2];
        service.write_all(format!("bad {name} {count}\n").as_bytes()).expect("taken");
        *count += 1;
    }
    let mut found: Vec<(String, String, u32)> = Vec::new();
    for _ in 0..2000 {
        let line = bench.finding();
        let (jail, line) = line.split_once(": ").expect("a jail");
        let words: Vec<&str> = line.split(' ').collect();
        let [.., name, number] = words[..] else { panic!("{line}") };
        found.push((jail.to_owned(), name.to_owned(), number.parse().expect("a number")));
    }
    for (jail, name) in [("own", "own"), ("web", "web"), ("all", "own"), ("all", "web")] {
        let of = found.iter().filter(|(by, of, _)| by == jail && of == name);
        let numbers: Vec<u32> = of.map(|(_, _, number)| *number).collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>(), "{jail} of {name}");
    }
    bench.stop();
}

#[test]
fn steps_of_the_clock_lose_and_repeat_nothing() {
    let mut setup = Setup { clock: crate::clock::now, ..Setup::new() };
    let clock = SteppedClock::new(&setup);
    let journal = setup.path("journal");
    let journald = Journald::start_by(&clock, &journal);
    let mut bench = setup.start_journal(&[("j", UNIT)]);
    let mut written = 0;
    // An hour back, a day forward, and to and fro, while it is read and while nobody reads. Never to what is older than
    // `findtime`: that is passed over where reading begins.
    for (step, is_read) in
        [(4000, true), (400, true), (300, false), (86_400, true), (60, false), (0, true)]
    {
        let write = || {
            clock.set(step);
            write_numbers(journald.service("sshd"), written..written + 50).join().expect("written");
        };
        if is_read {
            write();
        } else {
            setup.from = bench.stop();
            write();
            bench = setup.start_journal(&[("j", UNIT)]);
        }
        for expect in written..written + 50 {
            assert_eq!(number(&mut bench), expect, "with the clock at {step}");
        }
        written += 50;
    }
    assert!(files(&journal).len() > 2, "journald has begun new files where its clock went back");
    let counts = bench.status().remove(0).journal.expect("it reads one").progress.counts;
    assert_eq!(counts, Default::default());
    setup.from = bench.stop();
    // Nothing is left, and what comes after still does.
    let mut bench = setup.start_journal(&[("j", UNIT)]);
    write_numbers(journald.service("sshd"), written..written + 1).join().expect("written");
    assert_eq!(number(&mut bench), written);
    bench.stop();
}
