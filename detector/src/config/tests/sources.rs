//! Where lines come from.
use super::*;

#[track_caller]
fn source(options: &str, ours: bool) -> SourceSettings {
    let section = format!("[j]\nenabled = true\n{options}\n");
    let own = ours.then_some(("fail2xdp.conf", "[Definition]\n"));
    jail("j", own.into_iter().chain([("jail.conf", section.as_str())])).source
}

#[track_caller]
fn check_paths(logpath: &str, expect: &[(&str, bool)]) {
    let SourceSettings::Files { paths, .. } = source(&format!("logpath = {logpath}"), false) else {
        panic!("{logpath}")
    };
    let found: Vec<_> = paths.iter().map(|path| (path.pattern.as_str(), path.tail)).collect();
    assert_eq!(found, expect);
}

#[test]
fn log_paths_are_one_a_line_with_head_or_tail() {
    check_paths(
        "/a/*.log\n  /b tail\n  /c head\n /d e head",
        &[("/a/*.log", false), ("/b", true), ("/c", false), ("/d e", false)],
    );
    check_paths("/a b.log", &[("/a b.log", false)]);
    check_paths("/a.log /b.log", &[("/a.log", false), ("/b.log", false)]);
    check_problem(
        "logpath = /a.log /b.log",
        "warning /etc/x/jail.conf:3: jail `j`: `logpath` holds several paths in one line; write each on a line of its own, for fail2ban's sake",
    );
}

#[test]
fn with_files_and_journal_what_exists_decides() {
    let both = "logpath = /a\njournalmatch = A=1";
    assert!(matches!(source(both, false), SourceSettings::Auto { .. }));
    assert!(matches!(
        source(&format!("{both}\nsystemd_if_nologs = no"), false),
        SourceSettings::Files { .. }
    ));
    assert!(matches!(
        source(&format!("{both}\nbackend = polling"), false),
        SourceSettings::Files { .. }
    ));
    assert!(matches!(
        source(&format!("{both}\nbackend = systemd"), false),
        SourceSettings::Journal(_)
    ));
    assert!(matches!(source("logpath =\njournalmatch = A=1", true), SourceSettings::Journal(_)));
    assert_eq!(source("logpath =", true), SourceSettings::Nothing);
}

#[test]
fn the_systemd_backend_takes_parameters() {
    let journal = source(
        "backend = systemd[journalpath=/j, journalflags=1, namespace=n]\njournalmatch = A=1",
        false,
    );
    let SourceSettings::Journal(journal) = journal else { panic!("{journal:?}") };
    assert_eq!(
        (journal.directory.as_deref(), journal.flags, journal.namespace.as_deref()),
        (Some(Path::new("/j")), Some(1), Some("n"))
    );
    let files = source(
        "backend = systemd[journalfiles=\"/a.journal, /b*.journal\"]\njournalmatch = A=1",
        false,
    );
    let SourceSettings::Journal(files) = files else { panic!("{files:?}") };
    assert_eq!(files.files, ["/a.journal", "/b*.journal"]);
}

#[test]
fn what_cannot_be_read_from_is_told() {
    check_problem(
        "backend = inotify",
        "error /etc/x/jail.conf:3: jail `j`: `backend = inotify` is not known: the jail does not run; write `auto`, `systemd`, `polling` or `pyinotify`",
    );
    check_problem(
        "backend = systemd",
        "warning /etc/x/jail.conf:3: jail `j`: `journalmatch` is empty: every entry of the journal is examined; name the unit, as in `_SYSTEMD_UNIT=ssh.service`",
    );
    check_problem(
        "journalmatch = sshd",
        "error /etc/x/jail.conf:3: jail `j`: `journalmatch`: `sshd` is no journal match: the jail does not run; write `FIELD=value`, with the field's name in capitals, or `+`",
    );
    check_problem(
        "logpath =",
        "warning /etc/x/jail.conf:1: jail `j`: neither `logpath` nor a journal is set: only bans by hand are possible; set `logpath`, or `backend = systemd` and `journalmatch`",
    );
    check_problem(
        "logpath = log/x",
        "warning /etc/x/jail.conf:3: jail `j`: `logpath`: `log/x` is no absolute path; begin it with `/`; it is looked for where the daemon was started",
    );
    check_problem(
        "logencoding = klingon",
        "error /etc/x/jail.conf:3: jail `j`: `logencoding = klingon` is not known; `auto` is used; write a codec's name, as in `utf-8` or `latin1`",
    );
}

#[test]
fn encodings_have_pythons_spellings() {
    for (written, known) in [
        ("auto", "auto"),
        ("UTF-8", "UTF-8"),
        ("utf_8", "UTF-8"),
        ("latin-1", "windows-1252"),
        ("iso-8859-15", "ISO-8859-15"),
        ("cp1251", "windows-1251"),
        ("ascii", "windows-1252"),
    ] {
        let SourceSettings::Files { encoding, .. } =
            source(&format!("logencoding = {written}"), false)
        else {
            panic!()
        };
        assert_eq!(encoding, known, "{written}");
    }
}
