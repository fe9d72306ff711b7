//! One open log file, read to its end again and again, whatever its name has become.
use std::{
    fs::File,
    io,
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt},
};

use super::{
    decode::LineEnd,
    frame::{Framer, MAX_LINE, Piece},
    packed::Unpack,
    position::{ANCHOR, HEAD, Head, Mark, Spot, head_of, micros},
    rotated::{Identity, Sibling},
    scan::Scan,
};

/// Bytes read at once.
pub(crate) const BLOCK: usize = 64 << 10;

/// A file's identity while it is open: no other file can have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(meta: &std::fs::Metadata) -> FileId {
        FileId { device: meta.dev(), inode: meta.ino() }
    }
}

/// What one read came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// There may be more.
    Block,
    /// This was the end, for now.
    End,
    /// What we had read is no longer there: the file was truncated, or written anew.
    Truncated,
}

/// An open file, how far it was read, and what proves that it is still the same content.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) file: File,
    pub(crate) id: FileId,
    /// Everything before was given to the framer.
    offset: u64,
    head: Vec<u8>,
    /// The bytes just before `offset`, and those just before the first line that was not handed out.
    anchor: Vec<u8>,
    line_anchor: Vec<u8>,
    framer: Framer,
    /// The beginning of the last line, which bears its time.
    last_line: Vec<u8>,
    /// What was not read was not written before this time, in microseconds since the Unix epoch.
    written: i64,
    /// Nothing that it holds was written before this time, in the same unit.
    began: i64,
    /// When it was made, in the same unit; 0 if that is not known.
    born: i64,
    /// Of the file or, if that is unpacked, of the compressed one.
    identity: Identity,
    /// What is left to unpack of it.
    unpack: Option<Unpack>,
    /// Its size when it was last asked for.
    size: u64,
    /// When it was written to, its size and its first bytes when it was last looked at, before anything was read.
    looked: (i64, u64, Vec<u8>),
}

impl Tail {
    /// Reads `file` from `start`, which must be the start of a line.
    pub(crate) fn new(file: File, end: LineEnd, start: u64) -> io::Result<Tail> {
        let meta = file.metadata()?;
        let identity = Identity::of(&file)?;
        let mut tail = Tail {
            identity,
            id: FileId::of(&meta),
            offset: 0,
            head: Vec::new(),
            anchor: Vec::new(),
            line_anchor: Vec::new(),
            framer: Framer::new(end, start),
            last_line: Vec::new(),
            written: written(&meta),
            began: 0,
            born: identity.born,
            unpack: None,
            size: meta.len(),
            looked: (0, 0, Vec::new()),
            file,
        };
        if tail.born != 0 {
            tail.written = tail.written.min(tail.born);
        }
        tail.began = tail.written;
        tail.has_changed()?;
        tail.move_to(start)?;
        tail.size = meta.len();
        Ok(tail)
    }

    /// The same for what is unpacked of a compressed log.
    pub(crate) fn unpacking(self, unpack: Option<Unpack>, log: &Sibling) -> Tail {
        if unpack.is_none() {
            return self;
        }
        Tail {
            unpack,
            written: log.written,
            began: log.written,
            born: 0,
            identity: log.identity,
            ..self
        }
    }

    /// Goes on at `start`, the start of a line.
    pub(crate) fn move_to(&mut self, start: u64) -> io::Result<()> {
        let at = |offset: u64, length: u64| {
            let mut bytes = vec![0; length as usize];
            self.file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        };
        let anchor = start.min(ANCHOR as u64);
        let (head, anchor) = (at(0, start.min(HEAD as u64))?, at(start - anchor, anchor)?);
        self.line_anchor.clone_from(&anchor);
        (self.head, self.anchor, self.offset, self.size) = (head, anchor, start, start);
        self.framer.restart(start);
        Ok(())
    }

    /// Where the first line begins that was not handed out, and how to find it again. From memory alone: what was read
    /// may be gone from the file by now.
    pub(crate) fn spot(&self) -> Spot {
        let offset = self.framer.line_start();
        let head = self.head.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        Spot {
            inode: self.id.inode,
            head: Head::of(&self.head[..head]),
            offset,
            before: Mark::of(&self.line_anchor),
            written: if offset == 0 { self.began } else { self.written },
            born: self.born,
        }
    }

    /// The end of all that was read, an incomplete line included.
    pub(crate) fn spot_in_memory(&self) -> Spot {
        Spot {
            inode: self.id.inode,
            head: Head::of(&self.head),
            offset: self.offset,
            before: Mark::of(&self.anchor),
            written: self.written,
            born: self.born,
        }
    }

    /// Where the first line begins that was not handed out.
    pub(crate) fn line_start(&self) -> u64 {
        self.framer.line_start()
    }

    /// What the file is, whatever it is called.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The bytes it begins with, as far as they were read.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Whether `copy` begins with what this file began with when it was read. Of an empty one nothing can be said.
    pub(crate) fn began_like(&self, copy: &File) -> io::Result<bool> {
        let length = copy.metadata()?.len().min(self.head.len() as u64) as usize;
        let mut head = [0; HEAD];
        copy.read_exact_at(&mut head[..length], 0)?;
        Ok(length > 0 && head[..length] == self.head[..length])
    }

    /// Everything before was read, an incomplete line included.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// How large the file was when it was last looked at.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are known to be there and not handed out.
    pub(crate) fn unread(&self) -> u64 {
        self.size.max(self.offset) - self.framer.line_start()
    }

    /// What was not read was not written before this time, in microseconds since the Unix epoch.
    pub(crate) fn written(&self) -> i64 {
        self.written
    }

    /// The beginning of the last line that was read.
    pub(crate) fn last_line(&self) -> &[u8] {
        &self.last_line
    }

    pub(crate) fn take_cut(&mut self) -> u64 {
        self.framer.take_cut()
    }

    /// Whether it is a compressed log, of which only a piece is at hand.
    pub(crate) fn is_unpacking(&self) -> bool {
        self.unpack.is_some()
    }

    /// Whether the file has lost its last name.
    pub(crate) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Reads one block into `block`, which holds [`BLOCK`] and [`ANCHOR`] bytes, and hands out the lines it completes; with
    /// `scan` those that hold words of it.
    ///
    /// The bytes just before it are read again with it, and the head after it: if either has changed, so has the file,
    /// and nothing is handed out. The former is one system call, so a truncation before the read cannot slip in.
    pub(crate) fn read<B>(
        &mut self,
        block: &mut [u8],
        text: bool,
        scan: Option<&Scan>,
        each: &mut impl FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> io::Result<ControlFlow<B, Read>> {
        if let Some(unpack) = &mut self.unpack {
            // A line that does not end would keep everything.
            let keep =
                self.framer.line_start().max(self.offset.saturating_sub(2 * MAX_LINE as u64));
            unpack.fill(
                &self.file,
                keep.saturating_sub(ANCHOR as u64),
                self.offset + block.len() as u64,
            )?;
        }
        // Before the read: what is written after it must not seem to be older than what was read.
        let meta = self.file.metadata()?;
        let known = self.anchor.len();
        let mut count = loop {
            match self.file.read_at(block, self.offset - known as u64) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if count < known || block[..known] != self.anchor {
            return Ok(ControlFlow::Continue(Read::Truncated));
        }
        // So has what its first bytes were when it was looked at, with what lies beside it.
        if self.offset == 0 && !block[..count].starts_with(&self.looked.2) {
            return Ok(ControlFlow::Continue(Read::Truncated));
        }
        // The bytes before may be the same by chance: padding, say. Those at the start bear a time.
        let mut head = [0; HEAD];
        let head = &mut head[..self.head.len()];
        if known > 0 && (self.file.read_at(head, 0)? < head.len() || head != self.head) {
            return Ok(ControlFlow::Continue(Read::Truncated));
        }
        // A unit of UTF-16 is never split.
        count -= (count - known) % self.framer.end().width();
        let new = &block[known..count];
        if new.is_empty() {
            return Ok(ControlFlow::Continue(Read::End));
        }
        let full = count == block.len();
        if self.head.len() < HEAD {
            self.head.extend_from_slice(&new[..new.len().min(HEAD - self.head.len())]);
        }
        let before = self.offset;
        let flow = match scan {
            Some(scan) => self.framer.feed_searched(new, scan, each),
            None => self.framer.feed(new, text, &mut |line| each(Piece::Line(line))),
        };
        self.offset += new.len() as u64;
        let keep = |anchor: &mut Vec<u8>, end: usize| {
            anchor.clear();
            anchor.extend_from_slice(&block[end.saturating_sub(ANCHOR)..end]);
        };
        keep(&mut self.anchor, count);
        // One that began in an earlier block has not moved.
        if let Some(end) = self.framer.line_start().checked_sub(before) {
            keep(&mut self.line_anchor, end as usize + known);
        }
        self.remember_last_line(&block[known..count]);
        self.size = meta.len().max(self.offset);
        Ok(match flow {
            ControlFlow::Break(reason) => ControlFlow::Break(reason),
            ControlFlow::Continue(()) if full => ControlFlow::Continue(Read::Block),
            ControlFlow::Continue(()) => {
                if self.unpack.is_none() {
                    self.written = written(&meta);
                }
                ControlFlow::Continue(Read::End)
            }
        })
    }

    /// Keeps enough of the last complete line for its time to be found.
    fn remember_last_line(&mut self, new: &[u8]) {
        let Some(end) = memchr::memrchr(b'\n', new) else { return };
        let start = memchr::memrchr(b'\n', &new[..end]).map_or(0, |before| before + 1);
        self.last_line.clear();
        self.last_line.extend_from_slice(&new[start..end.min(start + 256)]);
    }

    /// Looks at the file: whether it was written to since it was last looked at.
    pub(crate) fn has_changed(&mut self) -> io::Result<bool> {
        let meta = self.file.metadata()?;
        self.size = meta.len();
        let now = (written(&meta), meta.len(), head_of(&self.file)?);
        let before = std::mem::replace(&mut self.looked, now);
        Ok(before != self.looked)
    }

    /// Begins again at the start of the file, or where its first bytes are if it starts with a hole.
    pub(crate) fn start_over(&mut self) -> io::Result<()> {
        use rustix::{
            fs::{SeekFrom, seek},
            io::Errno,
        };
        let start = match seek(&self.file, SeekFrom::Data(0)) {
            Ok(start) => start - start % self.framer.end().width() as u64,
            // No bytes at all, or a file system that does not tell.
            Err(Errno::NXIO | Errno::INVAL) => 0,
            Err(error) => return Err(error.into()),
        };
        self.began = self.written;
        self.has_changed()?;
        self.move_to(start)
    }
}

fn written(meta: &std::fs::Metadata) -> i64 {
    micros(meta.mtime(), meta.mtime_nsec())
}
