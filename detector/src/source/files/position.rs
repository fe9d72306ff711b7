//! How far a file was read, in a form that can be stored and found again.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

/// Bytes at the start of a file that make its head.
pub(crate) const HEAD: usize = 512;

/// Bytes before the place we have come to that must still be there when we read on.
pub(crate) const ANCHOR: usize = 64;

/// Directory entries that are looked through for a rotated file.
const MAX_SIBLINGS: usize = 4096;

/// Files that were rotated between two runs and are read at the most.
const MAX_ROTATED: usize = 8;

/// Names of files that are not logs as they stand.
const COMPRESSED: [&[u8]; 6] = [b".gz", b".bz2", b".xz", b".zst", b".lz4", b".Z"];

/// A fingerprint of some bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// How many bytes.
    pub length: u32,
    /// Their 64-bit FNV-1a hash. Stored, so it must never change; it tells logs apart and resists nobody who may write them.
    pub hash: u64,
}

impl Mark {
    pub(crate) fn of(bytes: &[u8]) -> Mark {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Mark { length: bytes.len() as u32, hash }
    }

    fn stands_at(self, file: &File, offset: u64) -> io::Result<bool> {
        let mut bytes = vec![0; (self.length as usize).min(HEAD)];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Mark::of(&bytes) == self),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A place in one particular file, whatever it is called by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// The file's inode number. A freed number goes to the next file created, so it proves nothing alone.
    pub inode: u64,
    /// The bytes it begins with, up to 512 and no further than `offset`.
    pub head: Mark,
    /// Everything before was read; a line begins here.
    pub offset: u64,
    /// The bytes just before `offset`, up to 64.
    pub before: Mark,
    /// When the file had last been written to by then, in microseconds since the Unix epoch.
    pub written: i64,
}

impl Spot {
    /// Whether `file` holds what was read of the file that this spot is in.
    pub(crate) fn fits(&self, file: &File) -> io::Result<bool> {
        let Some(before) = self.offset.checked_sub(self.before.length.into()) else {
            return Ok(false);
        };
        Ok(self.head.stands_at(file, 0)? && self.before.stands_at(file, before)?)
    }

    /// Whether `file` is a copy of what was read, and perhaps of more, made after it was read. Without the time, lines
    /// that say nothing of theirs would make one log look like an earlier copy of another.
    pub(crate) fn was_copied_to(&self, file: &File) -> io::Result<bool> {
        let meta = file.metadata()?;
        let changed = meta.ctime() * 1_000_000 + meta.ctime_nsec() / 1000;
        Ok(meta.len() >= self.offset && changed >= self.written && self.fits(file)?)
    }
}

/// How far the log at one path was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// In the file that bore the name.
    pub spot: Spot,
    /// The jails that had read so far; another one starts `findtime` ago.
    pub jails: Vec<String>,
    /// Rotated files that were still being read, oldest first.
    pub earlier: Vec<Spot>,
}

/// How far every log file was read, by path.
pub type FilePositions = BTreeMap<String, FilePosition>;

/// The file beside `path` that `spot` lies in: the same inode under any name, or, with `copy`, a file whose name goes
/// on where that of `path` ends (`x.log.1`, `x.log-20260101`) and which holds all that was read and more.
pub(crate) fn find_sibling(path: &Path, spot: &Spot, copy: bool) -> Option<(PathBuf, File)> {
    let dir = path.parent()?;
    let own = path.file_name()?;
    let entries = fs::read_dir(dir).ok()?.flatten().take(MAX_SIBLINGS);
    for entry in entries {
        let name = entry.file_name();
        if name == own {
            continue;
        }
        let wanted = if copy {
            name.as_encoded_bytes().starts_with(own.as_encoded_bytes())
        } else {
            // `d_ino` costs nothing; the file itself is asked below.
            std::os::unix::fs::DirEntryExt::ino(&entry) == spot.inode
        };
        if !wanted || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = open_log(&entry.path()) else { continue };
        let Ok(meta) = file.metadata() else { continue };
        let right = if copy {
            meta.len() > spot.offset && spot.was_copied_to(&file).unwrap_or(false)
        } else {
            meta.ino() == spot.inode && spot.fits(&file).unwrap_or(false)
        };
        if right {
            return Some((entry.path(), file));
        }
    }
    None
}

/// The logs beside `path`, not compressed, that were written after `time`: what was rotated meanwhile, oldest first.
pub(crate) fn newer_siblings(path: &Path, time: SystemTime) -> Vec<File> {
    let (Some(dir), Some(own)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<(SystemTime, File)> = entries
        .flatten()
        .take(MAX_SIBLINGS)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.len() > own.len()
                && name.starts_with(own.as_encoded_bytes())
                && !COMPRESSED.iter().any(|suffix| name.ends_with(suffix))
        })
        .filter_map(|entry| {
            let file = open_log(&entry.path()).ok()?;
            let modified = file.metadata().ok()?.modified().ok()?;
            (modified > time).then_some((modified, file))
        })
        .collect();
    files.sort_by_key(|(modified, _)| *modified);
    files.truncate(MAX_ROTATED);
    files.into_iter().map(|(_, file)| file).collect()
}

/// Opens a regular file for reading. A FIFO or device in a log's place is refused, and never blocks.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn spot(file: &Path, offset: u64) -> Spot {
        let bytes = fs::read(file).expect("readable");
        let read = &bytes[..offset as usize];
        Spot {
            inode: fs::metadata(file).expect("exists").ino(),
            head: Mark::of(&read[..read.len().min(HEAD)]),
            offset,
            before: Mark::of(&read[read.len().saturating_sub(ANCHOR)..]),
            written: 0,
        }
    }

    #[test]
    fn a_spot_fits_only_a_file_that_holds_what_was_read() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("log");
        let text = "first\n".repeat(200) + "last\n";
        fs::write(&path, &text).expect("written");
        let spot = spot(&path, text.len() as u64);
        for (content, expect) in [
            (text.clone(), true),
            (text.clone() + "more\n", true),
            (text.replacen("first", "First", 1), false),
            (text.replace("last", "lost"), false),
            (text[..text.len() - 1].into(), false),
            (String::new(), false),
        ] {
            fs::write(&path, &content).expect("written");
            let fits = spot.fits(&open_log(&path).expect("readable")).expect("readable");
            assert_eq!(fits, expect, "{content}");
        }
    }

    #[test]
    fn the_rotated_file_is_found_by_inode_and_the_copy_by_its_content() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("x.log");
        fs::write(&path, "one\ntwo\n").expect("written");
        fs::write(dir.path().join("x.log.9"), "other\ntwo\n").expect("written");
        let spot = spot(&path, 8);
        assert!(find_sibling(&path, &spot, false).is_none());
        fs::write(dir.path().join("x.log.1"), "one\ntwo\nthree\n").expect("written");
        let found = |copy| find_sibling(&path, &spot, copy).map(|(path, _)| path);
        assert_eq!(found(false), None);
        assert_eq!(found(true), Some(dir.path().join("x.log.1")));
        let later = Spot { written: i64::MAX, ..spot.clone() };
        assert!(find_sibling(&path, &later, true).is_none(), "it was there before we read");
        fs::rename(&path, dir.path().join("moved")).expect("renamed");
        assert_eq!(found(false), Some(dir.path().join("moved")));
    }

    #[test]
    fn what_is_no_file_is_refused_and_does_not_block() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).expect("made");
        for path in [fifo.as_path(), dir.path()] {
            let error = open_log(path).expect_err("refused");
            assert_eq!(error.to_string(), "not a regular file");
        }
    }
}
