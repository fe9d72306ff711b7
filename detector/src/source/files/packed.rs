//! Rotated logs that were compressed: unpacked piece by piece, and read like any other file.
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use ruzstd::decoding::StreamingDecoder;

use super::position::{HEAD, open_log};

/// Bytes unpacked of one file at the most, what was read before it was compressed included.
const MAX_UNPACKED: u64 = 16 << 30;

/// Memory for the dictionary of one file at the most; `xz -9` wants 64 MiB.
const MAX_WINDOW: u64 = 128 << 20;

/// Bytes unpacked at once.
const PIECE: usize = 64 << 10;

/// Unpacked bytes are given back when so many have been read.
const GIVE_BACK: u64 = 1 << 20;

/// Endings of compressed files that we cannot read.
const FOREIGN: [&str; 6] = [".bz2", ".lz4", ".lzo", ".Z", ".zip", ".br"];

/// How a rotated log was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Xz,
    Zstd,
    /// In a way we cannot read.
    Foreign,
}

impl Format {
    /// By the ending of its name, which is how `logrotate` says it.
    pub(crate) fn of(name: &OsStr) -> Option<Format> {
        let name = name.to_string_lossy();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        [
            (Format::Gzip, [".gz"].as_slice()),
            (Format::Xz, &[".xz"]),
            (Format::Zstd, &[".zst", ".zstd"]),
            (Format::Foreign, &FOREIGN),
        ]
        .into_iter()
        .find_map(|(format, endings)| ends(endings).then_some(format))
    }

    fn decoder(self, file: File) -> io::Result<Box<dyn Read + Send>> {
        let file = BufReader::with_capacity(PIECE, file);
        Ok(match self {
            Format::Gzip => Box::new(MultiGzDecoder::new(file)),
            Format::Xz => Box::new(XzReader::new_mem_limit(file, true, (MAX_WINDOW >> 10) as u32)),
            Format::Zstd => Box::new(
                StreamingDecoder::new_with_max_window_size(file, MAX_WINDOW)
                    .map_err(io::Error::other)?,
            ),
            Format::Foreign => {
                return Err(io::Error::other("compressed in a way that is not supported"));
            }
        })
    }
}

/// The first bytes of what a compressed file holds, as many as make a head.
pub(crate) fn head(path: &Path, format: Format) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    format.decoder(open_log(path)?)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Bytes that a compressed file holds when it is unpacked, of which no more than [`MAX_UNPACKED`] are counted.
pub(crate) fn size(path: &Path, format: Format) -> io::Result<u64> {
    io::copy(&mut format.decoder(open_log(path)?)?.take(MAX_UNPACKED), &mut io::sink())
}

/// What is left to unpack of a compressed log. The piece at hand lies in a file that only this process knows, at the
/// offsets it has in the whole.
pub(crate) struct Unpack {
    decoder: Box<dyn Read + Send>,
    /// Unpacked so far.
    done: u64,
    /// Given back so far.
    freed: u64,
    /// There is no more.
    ended: bool,
    piece: Vec<u8>,
}

impl std::fmt::Debug for Unpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpack").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Unpack {
    /// Begins to unpack; answers the file in which the pieces will appear.
    pub(crate) fn open(path: &Path, format: Format) -> io::Result<(File, Unpack)> {
        let decoder = format.decoder(open_log(path)?)?;
        let file = File::from(memfd_create("unpacked", MemfdFlags::CLOEXEC)?);
        let unpack = Unpack { decoder, done: 0, freed: 0, ended: false, piece: vec![0; PIECE] };
        Ok((file, unpack))
    }

    /// Sees to it that the file holds what lies before `until`, unless the log ends earlier. What lies before `keep`
    /// is needed no longer, its head apart.
    ///
    /// # Errors
    /// The file is damaged, or longer than [`MAX_UNPACKED`].
    pub(crate) fn fill(&mut self, file: &File, keep: u64, until: u64) -> io::Result<()> {
        if until > MAX_UNPACKED {
            return Err(io::Error::other(format!("holds more than {MAX_UNPACKED} bytes")));
        }
        while self.done < until && !self.ended {
            match self.decoder.read(&mut self.piece) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    file.write_all_at(&self.piece[..count], self.done)?;
                    self.done += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if keep >= self.freed + GIVE_BACK {
            // The first page holds the head, by which the log is known.
            let from = self.freed.max(4096);
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, hole, from, keep - from)?;
            self.freed = keep;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, process::Command};

    use super::*;

    #[test]
    fn what_common_programs_compressed_is_unpacked_piece_by_piece() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let text: Vec<u8> = (0..400_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        for (program, ending) in [("gzip", ".gz"), ("xz", ".xz"), ("zstd", ".zst")] {
            let path = dir.path().join("log");
            std::fs::write(&path, &text).expect("written");
            let packer = Command::new(program).args(["-q", "-1"]).arg(&path).status();
            assert!(packer.is_ok_and(|status| status.success()), "install `{program}`");
            let path = dir.path().join(format!("log{ending}"));
            let format = Format::of(path.as_os_str()).expect("known");
            assert_eq!(head(&path, format).expect("readable"), text[..HEAD], "{program}");
            let (file, mut unpack) = Unpack::open(&path, format).expect("readable");
            let mut place = 0;
            while place < text.len() {
                let next = (place + 100_000).min(text.len());
                unpack.fill(&file, place as u64, next as u64).expect("unpacked");
                let mut bytes = vec![0; next - place];
                file.read_exact_at(&mut bytes, place as u64).expect("readable");
                assert!(bytes == text[place..next], "{program} at {place}");
                place = next;
            }
            unpack.fill(&file, place as u64, place as u64 + 1).expect("unpacked");
            assert!(unpack.ended, "{program}");
            let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().expect("open"));
            assert!(blocks * 512 < 3 * GIVE_BACK, "{program}: {blocks} blocks are held");
        }
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        for ending in [".gz", ".xz", ".zst", ".bz2"] {
            let path = dir.path().join(format!("log{ending}"));
            std::fs::write(&path, "this was never compressed by anybody").expect("written");
            let format = Format::of(&OsString::from(&path)).expect("known");
            head(&path, format).expect_err(ending);
        }
    }
}
