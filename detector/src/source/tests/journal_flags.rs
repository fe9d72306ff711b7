//! `journalflags`: on files where journald keeps them, the same entries as the library itself reads with these flags.
use std::{collections::BTreeSet, process::Command};

use systemd::journal::{OpenDirectoryOptions, OpenOptions};

use super::{journal::log_fields, *};
use crate::config::JournalSettings;

const OWN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// `SD_JOURNAL_OS_ROOT`: the directory is a system's root.
const OS_ROOT: i32 = 1 << 4;

/// `SD_JOURNAL_SYSTEM` and `SD_JOURNAL_CURRENT_USER`.
const SYSTEM: i32 = 1 << 2;
const CURRENT_USER: i32 = 1 << 3;

/// What to ask this version of the library for. Root, whose entries stand in the system's own files, gets these too from
/// later ones when it asks for what is its own; and from us.
fn asked(flags: i32) -> i32 {
    if flags & CURRENT_USER != 0 { flags | SYSTEM } else { flags }
}

/// Journal files that a machine may have, some of them in places where nobody looks.
const FILES: [&str; 20] = [
    "var/log/journal/OWN/system.journal",
    "var/log/journal/OWN/system@1.journal",
    "var/log/journal/OWN/system@2.journal~",
    "var/log/journal/OWN/systematic.journal",
    "var/log/journal/OWN/user-0.journal",
    "var/log/journal/OWN/user-1000.journal",
    "var/log/journal/OWN/remote-web.journal",
    "var/log/journal/OWN.web/system.journal",
    "var/log/journal/OTHER/system.journal",
    "var/log/journal/OTHER/user-0.journal",
    "var/log/journal/remote/system.journal",
    "var/log/journal/remote/remote-mail.journal",
    "var/log/journal/misc/system.journal",
    "var/log/journal/system.journal",
    "var/log/journal/loose.journal",
    "run/log/journal/OWN/system.journal",
    "run/log/journal/OTHER/system.journal",
    "run/log/journal/OTHER.web/user-0.journal",
    "run/log/journal/system.journal",
    "run/log/journal/remote/system.journal",
];

/// Writes all of them below a directory; each holds one entry that says where it lies, of a boot of its own.
fn write_files(root: &Path) {
    for (nth, file) in FILES.iter().enumerate() {
        let path = root.join(file.replace("OWN", OWN).replace("OTHER", OTHER));
        let fields = vec![
            ("_BOOT_ID".to_owned(), format!("{nth:032x}").into_bytes()),
            ("MESSAGE".to_owned(), format!("bad {file}").into_bytes()),
        ];
        // What writes it wants another name.
        let draft = root.join("draft.journal");
        log_fields(&draft, &[(1_699_999_990_000_000, fields)]);
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("made");
        rename(&draft, &path);
    }
}

/// Runs `test` where /var/log/journal and /run/log/journal hold these files, and this machine is `OWN`.
fn on_this_machine(test: impl FnOnce(&Setup) + Send) {
    let run = |script: &str, arguments: &[&Path]| {
        let done = Command::new("sh").args(["-ec", script, "sh"]).args(arguments).status();
        assert!(done.expect("`sh` runs").success(), "{script}");
    };
    let setup = Setup::new();
    write_files(setup.dir.path());
    fs::write(setup.path("machine-id"), format!("{OWN}\n")).expect("written");
    let alone = || {
        // SAFETY: it concerns this thread and those that it starts, none of which shares memory with another view.
        let answer = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        assert_eq!(answer, 0, "a view of the file system of one's own takes root");
        run(
            "mount --make-rprivate /; mkdir -p /run/log; mount --bind \"$1/var/log\" /var/log
             mount --bind \"$1/run/log\" /run/log; mount --bind \"$1/machine-id\" /etc/machine-id",
            &[setup.dir.path()],
        );
        test(&setup);
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(alone);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// What the library reads.
fn by_the_library(journal: systemd::Result<systemd::Journal>) -> BTreeSet<String> {
    let mut journal = journal.expect("the library opens what is there");
    let mut found = BTreeSet::new();
    while let Some(entry) = journal.next_entry().expect("it reads") {
        found.insert(format!("j: {}", entry["MESSAGE"]));
    }
    found
}

#[track_caller]
fn check(setup: &Setup, settings: JournalSettings, expected: &BTreeSet<String>) {
    let told = format!("{settings:?}");
    let mut bench = setup.start_jails(vec![jail("j", SourceSettings::Journal(settings))]);
    let mut found = BTreeSet::new();
    loop {
        match bench.next("the journal's end") {
            Report::Finding(finding) => assert!(found.insert(text(&finding)), "{told}: twice"),
            Report::CaughtUp { .. } => break,
            Report::Journal { state: JournalState::Unavailable(_), .. } => break,
            _ => {}
        }
    }
    assert_eq!(found, *expected, "{told}");
    bench.stop();
}

#[test]
fn of_this_machine_the_library_and_we_read_the_same() {
    on_this_machine(|setup| {
        let mut seen = BTreeSet::new();
        // Every combination of LOCAL_ONLY, RUNTIME_ONLY, SYSTEM, CURRENT_USER, ALL_NAMESPACES, INCLUDE_DEFAULT_NAMESPACE.
        for flags in (0..128).filter(|flags| flags & OS_ROOT == 0) {
            let expected =
                by_the_library(OpenOptions::default().extra_raw_flags(asked(flags)).open());
            let settings = JournalSettings { flags: Some(flags), ..JournalSettings::default() };
            check(setup, settings, &expected);
            seen.insert(expected);
        }
        assert!(seen.len() > 10, "flags make a difference: {seen:#?}");
        for name in ["web", "mail"] {
            for flags in [0, 1, 2, 4, 8, 64] {
                let library =
                    OpenOptions::default().extra_raw_flags(asked(flags)).open_namespace(name);
                let settings = JournalSettings {
                    flags: Some(flags),
                    namespace: Some(name.into()),
                    ..JournalSettings::default()
                };
                check(setup, settings, &by_the_library(library));
            }
        }
    });
}

#[test]
fn of_a_directory_the_library_and_we_read_the_same() {
    let setup = Setup::new();
    write_files(setup.dir.path());
    let own = format!("var/log/journal/{OWN}");
    for (directory, flags) in [("", OS_ROOT), ("var/log/journal", 0), (own.as_str(), 0)] {
        for more in [0, 4, 8, 12] {
            let flags = flags | more;
            let directory = setup.path(directory);
            let library = OpenDirectoryOptions::default()
                .extra_raw_flags(asked(flags))
                .open_directory(directory.to_string_lossy().as_ref());
            let settings = JournalSettings {
                directory: Some(directory),
                flags: Some(flags),
                ..JournalSettings::default()
            };
            check(&setup, settings, &by_the_library(library));
        }
    }
}
