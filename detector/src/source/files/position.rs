//! How far a file was read, in a form that can be stored and found again.
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::rotated::Identity;

/// Bytes at the start of a file that make its head.
pub(crate) const HEAD: usize = 512;

/// Bytes before the place we have come to that must still be there when we read on.
pub(crate) const ANCHOR: usize = 64;

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

/// The bytes a file begins with, up to [`HEAD`] of those that were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Head {
    /// Themselves, stored as a text in which each byte is the character of its number.
    Bytes(#[serde(with = "latin1")] Vec<u8>),
    /// Their fingerprint: it says nothing of a file that is shorter.
    Mark(Mark),
}

impl Head {
    pub(crate) fn of(bytes: &[u8]) -> Head {
        Head::Bytes(bytes[..bytes.len().min(HEAD)].to_vec())
    }

    /// Takes little room, where that says as much.
    pub(crate) fn abridge(&mut self) {
        if let Head::Bytes(bytes) = self
            && bytes.len() == HEAD
        {
            *self = Head::Mark(Mark::of(bytes));
        }
    }

    pub(crate) fn length(&self) -> usize {
        match self {
            Head::Bytes(bytes) => bytes.len(),
            Head::Mark(mark) => mark.length as usize,
        }
    }

    /// Whether a file that begins with `bytes` begins with these.
    pub(crate) fn begins(&self, bytes: &[u8]) -> bool {
        match self {
            Head::Bytes(own) => bytes.starts_with(own),
            Head::Mark(mark) => {
                bytes.get(..self.length()).is_some_and(|bytes| Mark::of(bytes) == *mark)
            }
        }
    }

    /// Whether these and a file that begins with `bytes` are the same as far as both go: one of them may be a copy that
    /// was made before the other grew. Where there are no bytes nothing can be said.
    pub(crate) fn agrees(&self, bytes: &[u8]) -> bool {
        match self {
            Head::Bytes(own) => {
                let length = own.len().min(bytes.len());
                length > 0 && own[..length] == bytes[..length]
            }
            Head::Mark(_) => self.length() > 0 && self.begins(bytes),
        }
    }
}

/// Bytes as a text of as many characters.
mod latin1 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = text.chars().map(u8::try_from).collect::<Result<_, _>>();
        bytes.map_err(|_| D::Error::custom("a character that is no byte"))
    }
}

/// A place in one particular file, whatever it is called by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// The file's inode number. A freed number goes to the next file created, so it proves nothing alone.
    pub inode: u64,
    /// The bytes it begins with, up to 512 and no further than `offset`.
    pub head: Head,
    /// Everything before was read; a line begins here.
    pub offset: u64,
    /// The bytes just before `offset`, up to 64.
    pub before: Mark,
    /// What comes after was not written before this time, in microseconds since the Unix epoch: when the file had last
    /// been written to as it was read to its end, or when it was made.
    pub written: i64,
    /// When the file was made, in the same unit; 0 where the file system does not tell, and in positions of old.
    #[serde(default)]
    pub born: i64,
}

impl Spot {
    /// Whether a file with this identity can be the one that this spot is in.
    pub(crate) fn may_be(&self, identity: Identity) -> bool {
        let unknown = self.born == 0 || identity.born == 0;
        self.inode == identity.inode && (unknown || self.born == identity.born)
    }

    /// Whether this spot is in `file`, as it is now.
    pub(crate) fn is_in(&self, file: &File) -> io::Result<bool> {
        Ok(self.may_be(Identity::of(file)?) && self.fits(file)?)
    }

    /// Whether `file` holds what was read of the file that this spot is in.
    pub(crate) fn fits(&self, file: &File) -> io::Result<bool> {
        let Some(before) = self.offset.checked_sub(self.before.length.into()) else {
            return Ok(false);
        };
        let mut head = [0; HEAD];
        let head = &mut head[..self.head.length().min(HEAD)];
        match file.read_exact_at(head, 0) {
            Ok(()) => Ok(self.head.begins(head) && self.before.stands_at(file, before)?),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this is a place in the same content as `earlier`, and no earlier one.
    pub(crate) fn goes_on_after(&self, earlier: &Spot) -> bool {
        let same = match (&earlier.head, &self.head) {
            (Head::Bytes(bytes), own) => own.agrees(bytes),
            (earlier, Head::Bytes(own)) => earlier.agrees(own),
            (earlier, own) => earlier == own,
        };
        same && self.offset >= earlier.offset
    }

    /// Whether `file` is a copy of what was read, and perhaps of more, made after it was read. Without the time, lines
    /// that say nothing of theirs would make one log look like an earlier copy of another.
    pub(crate) fn was_copied_to(&self, file: &File) -> io::Result<bool> {
        let meta = file.metadata()?;
        let changed = micros(meta.ctime(), meta.ctime_nsec());
        Ok(meta.len() >= self.offset && changed >= self.written && self.fits(file)?)
    }

    /// The spot at `offset` in a file that was read so far, never written to.
    #[cfg(test)]
    pub(crate) fn for_test(path: &Path, offset: u64) -> Spot {
        let bytes = std::fs::read(path).expect("readable");
        let read = &bytes[..offset as usize];
        let identity = Identity::of(&open_log(path).expect("readable")).expect("readable");
        Spot {
            inode: identity.inode,
            head: Head::of(read),
            offset,
            before: Mark::of(&read[read.len().saturating_sub(ANCHOR)..]),
            written: 0,
            born: identity.born,
        }
    }
}

/// A time of a file in microseconds.
pub(crate) fn micros(seconds: impl Into<i64>, nanos: impl Into<i64>) -> i64 {
    seconds.into().saturating_mul(1_000_000).saturating_add(nanos.into() / 1000)
}

/// How far the log at one path was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// In the file that bore the name.
    pub spot: Spot,
    /// The jails that had read so far; another one starts `findtime` ago.
    pub jails: Vec<String>,
    /// Files that bore the name before and were still being read, oldest first.
    pub earlier: Vec<Spot>,
    /// Those that were read to their ends, oldest first; in positions of old they are among `earlier`.
    #[serde(default)]
    pub finished: Vec<Spot>,
}

impl FilePosition {
    /// Every spot, oldest first.
    pub(crate) fn spots(&self) -> impl Iterator<Item = &Spot> {
        self.finished.iter().chain(&self.earlier).chain([&self.spot])
    }
}

/// How far every log file was read, by path.
pub type FilePositions = BTreeMap<String, FilePosition>;

/// The bytes a file begins with, as many as make a head.
pub(crate) fn head_of(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let mut have = 0;
    while have < HEAD {
        match file.read_at(&mut head[have..], have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(have);
    Ok(head)
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
    use std::fs;

    use super::*;

    #[test]
    fn a_spot_fits_only_a_file_that_holds_what_was_read() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("log");
        let text = "first\n".repeat(200) + "last\n";
        fs::write(&path, &text).expect("written");
        let spot = Spot::for_test(&path, text.len() as u64);
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
    fn a_head_is_stored_as_it_is_and_one_of_old_is_still_understood() {
        let bytes: Vec<u8> = (0..=255).rev().collect();
        let head = Head::of(&bytes);
        let text = serde_json::to_string(&head).expect("plain data");
        assert_eq!(serde_json::from_str::<Head>(&text).expect("as it was written"), head);
        assert!(head.begins(&bytes) && head.agrees(&bytes[..9]) && !head.begins(&bytes[..9]));
        assert!(!head.agrees(b"") && !head.agrees(b"other"));
        let Mark { length, hash } = Mark::of(b"first\n");
        let old = format!(
            r#"{{"inode":7,"head":{{"length":{length},"hash":{hash}}},"offset":6,"before":{{"length":0,"hash":0}},"written":1}}"#
        );
        let old: Spot = serde_json::from_str(&old).expect("positions of old are read");
        assert!(old.head.begins(b"first\nsecond\n") && old.head.agrees(b"first\n"));
        assert!(!old.head.agrees(b"fir"), "of less a fingerprint says nothing");
        let now = Spot { head: Head::of(b"first\nsecond\n"), offset: 13, ..old.clone() };
        assert!(now.goes_on_after(&Spot { head: Head::of(b"first\n"), ..old.clone() }));
        assert!(now.goes_on_after(&old) && !old.goes_on_after(&now));
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
