//! Logs as this user sees them: there, readable, recent, and dated as their machine's clock goes.
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::Findings;
use crate::{
    config::{JailSettings, JournalSettings, LogPath, SourceSettings},
    engine::{Matcher, Timestamp},
};

/// A log that nobody wrote to for so long, in seconds, is perhaps no longer the one that is written.
const STALE: i64 = 7 * 86_400;
/// A line whose date is so far, in seconds, from when it was written, has another clock or time zone.
const SKEW: i64 = 600;
/// Bytes at the end of a log in which its last line is looked for.
const TAIL: u64 = 8192;
/// Where journald keeps what it has.
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

pub(super) fn look(jails: &[JailSettings], now: Timestamp, findings: &mut Findings) {
    let before = findings.0.len();
    for jail in jails {
        match &jail.source {
            SourceSettings::Files { paths, .. } => files(jail, paths, now, findings),
            SourceSettings::Journal(journal) => journals(jail, journal, findings),
            SourceSettings::Auto { paths, journal, .. } => {
                if paths.iter().any(|path| matched(path).next().is_some()) {
                    files(jail, paths, now, findings);
                } else {
                    journals(jail, journal, findings);
                }
            }
            SourceSettings::Nothing => {}
        }
    }
    if findings.0.len() == before && !jails.is_empty() {
        findings.good("sources", "every log is there, can be read and is written to");
    }
}

fn matched(path: &LogPath) -> impl Iterator<Item = std::path::PathBuf> {
    glob::glob(&path.pattern).into_iter().flatten().flatten()
}

fn files(jail: &JailSettings, paths: &[LogPath], now: Timestamp, findings: &mut Findings) {
    let name = &jail.name;
    let before = findings.0.len();
    let mut newest: Option<i64> = None;
    for file in paths.iter().flat_map(matched) {
        let shown = file.display();
        match File::open(&file).and_then(|open| Ok((open.metadata()?.mtime(), open))) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !is_root() => {
                findings.unseen(
                    "sources",
                    format!("[{name}] `{shown}` may not be read by this user; the daemon's must, as by group `adm`"),
                );
                newest = newest.max(fs::metadata(&file).ok().map(|meta| meta.mtime()));
            }
            Err(error) => findings.fault(
                "sources",
                format!(
                    "[{name}] `{shown}` cannot be read ({error}): let the daemon's user read it"
                ),
            ),
            Ok((written, open)) => {
                newest = newest.max(Some(written));
                if let Some(skew) = skew(jail, &file, open, written, now) {
                    let side = if skew > 0 { "in the future" } else { "in the past" };
                    findings.doubt(
                        "clock",
                        format!(
                            "[{name}] the last line of `{shown}` is dated {} minutes {side} of when it was written",
                            skew.abs() / 60
                        ),
                        "the service may log in another time zone: see `logtimezone` of the jail",
                    );
                }
            }
        }
    }
    match newest {
        None if paths.is_empty() => {}
        None if findings.0.len() > before => {}
        None => findings.doubt(
            "sources",
            format!("[{name}] none of its logs exists, as `{}`", paths[0].pattern),
            "wait for it if the service has never run; else see where it logs",
        ),
        Some(newest) if now.seconds() - newest > STALE => findings.doubt(
            "sources",
            format!("[{name}] nobody wrote to its logs for {} days", (now.seconds() - newest) / 86_400),
            "see whether the service logs somewhere else by now, perhaps to the journal (`backend = systemd`)",
        ),
        Some(_) => {}
    }
}

/// Seconds from when the last line was written to what it says, where they are far apart.
fn skew(
    jail: &JailSettings,
    path: &Path,
    mut open: File,
    written: i64,
    now: Timestamp,
) -> Option<i64> {
    if path.extension().is_some_and(|it| ["gz", "xz", "zst", "bz2"].iter().any(|of| it == *of)) {
        return None;
    }
    let length = open.metadata().ok()?.len();
    open.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    open.take(TAIL).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let last = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let (mut matcher, _) = Matcher::new(jail, jiff::tz::TimeZone::system());
    let skew = matcher.time_of(last, now)?.seconds() - written;
    (skew.abs() > SKEW).then_some(skew)
}

fn journals(jail: &JailSettings, journal: &JournalSettings, findings: &mut Findings) {
    if journal.directory.is_some() || !journal.files.is_empty() || journal.namespace.is_some() {
        return;
    }
    let there: Vec<&Path> = JOURNALS.iter().map(Path::new).filter(|path| path.is_dir()).collect();
    let name = &jail.name;
    if there.is_empty() {
        findings.doubt(
            "sources",
            format!("[{name}] there is no journal in {}", JOURNALS.join(" or ")),
            "run systemd-journald, or set `backend = auto` and a `logpath`",
        );
    } else if there.iter().all(|path| fs::read_dir(path).is_err()) {
        findings.unseen(
            "sources",
            format!("[{name}] the journal may not be read by this user; the daemon's must, as by group `systemd-journal`"),
        );
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
