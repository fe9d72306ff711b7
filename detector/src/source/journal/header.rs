//! The header of a journal file: whose entries it holds, and which.
//!
//! libsystemd does not tell any of this. The layout is a stable format, described in
//! <https://systemd.io/JOURNAL_FILE_FORMAT/>.
use std::{fmt, fs::File, io, os::unix::fs::FileExt};

/// Bytes of the header that every version of the format has.
const SIZE: usize = 208;

/// What the file begins with.
const SIGNATURE: &[u8; 8] = b"LPKSHHRH";

/// The state of a file that will not grow any more.
const ARCHIVED: u8 = 2;

/// What a file's header says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Who numbers the entries. Files that follow one another share it.
    pub(super) numbering: Numbering,
    /// It will not grow any more.
    pub(super) archived: bool,
    /// Number of the first entry; 0: there is none.
    pub(super) first: u64,
    /// Number of the last entry; 0: there is none.
    pub(super) last: u64,
    /// When the last entry was received, in microseconds since the Unix epoch.
    pub(super) last_micros: i64,
    /// Bytes that the file must have.
    pub(super) size: u64,
}

/// Whose numbers entries have: the `seqnum_id`, which a writer gives to each file that continues another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Numbering(u128);

impl fmt::Display for Numbering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Header {
    /// # Errors
    /// The file cannot be read, or is none of the journal.
    pub(super) fn read(file: &File) -> io::Result<Header> {
        let mut bytes = [0; SIZE];
        file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it is cut short"),
            _ => error,
        })?;
        Header::parse(&bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it is no journal file, or damaged")
        })
    }

    /// How many entries it may hold with numbers between two others.
    pub(super) fn between(&self, after: u64, before: u64) -> u64 {
        let from = self.first.max(after.saturating_add(1));
        self.last.saturating_add(1).min(before).saturating_sub(from)
    }

    fn parse(bytes: &[u8; SIZE]) -> Option<Header> {
        let word = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
        };
        let id = bytes[72..88].try_into().expect("sixteen bytes are sixteen bytes");
        (bytes.starts_with(SIGNATURE)).then(|| Header {
            numbering: Numbering(u128::from_be_bytes(id)),
            archived: bytes[16] == ARCHIVED,
            size: word(88).saturating_add(word(96)),
            last: word(160),
            first: word(168),
            last_micros: i64::try_from(word(192)).unwrap_or(i64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_journal_file_is_told_apart_from_one_cut_short() {
        let file = tempfile::tempfile().expect("a file for the test");
        let why = |file: &File| Header::read(file).expect_err("not a journal").to_string();
        assert_eq!(why(&file), "it is cut short");
        file.write_all_at(&[7; 300], 0).expect("written");
        assert_eq!(why(&file), "it is no journal file, or damaged");
    }

    #[test]
    fn fields_are_where_the_format_says() {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[16] = ARCHIVED;
        bytes[72..88].copy_from_slice(&[0xab; 16]);
        let words = [(88, 208), (96, 792), (160, 9u64), (168, 3), (192, 1_700_000_000_000_000)];
        for (at, value) in words {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let header = Header::parse(&bytes).expect("it has the signature");
        assert_eq!(header.numbering.to_string(), "ab".repeat(16));
        assert_eq!((header.first, header.last, header.archived), (3, 9, true));
        assert_eq!(header.size, 1000);
        assert_eq!(header.last_micros, 1_700_000_000_000_000);
        assert_eq!(header.between(0, u64::MAX), 7);
        assert_eq!((header.between(5, 8), header.between(9, 20), header.between(0, 3)), (2, 0, 0));
    }
}
