//! From blocks to lines: where each begins, where it ends, and what is left for the next block.
use std::ops::ControlFlow;

use memchr::{memchr, memchr_iter};

use super::{decode::LineEnd, scan::Scan};

/// Bytes of a line that are looked at; the rest of it is cut off and counted.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// One line without its line end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Its bytes, `\r` at the end and NULs at the start taken off.
    pub(crate) bytes: &'a [u8],
    /// The same as text where its whole block is UTF-8.
    pub(crate) text: Option<&'a str>,
    /// Where in the file it begins.
    pub(crate) start: u64,
}

/// What a block that was searched for words is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece<'a> {
    /// A line that everybody may want: it was not searched.
    Line(Line<'a>),
    /// A line with words.
    Hit {
        line: Line<'a>,
        /// All complete lines of the block, and where in it this line begins and the next.
        block: &'a str,
        start: usize,
        next: usize,
        /// For each jail of the thread, whether one of its words stands in the line.
        wanted: &'a [bool],
    },
    /// Its end.
    End(&'a str),
}

/// Cuts a stream of blocks into lines. Holds no more than the one line that is not complete yet.
#[derive(Debug)]
pub(crate) struct Framer {
    end: LineEnd,
    /// Where the line that is not complete yet begins.
    line_start: u64,
    /// Bytes of it so far, held or cut off.
    pending: u64,
    /// Those that are held; NULs in front of it never are.
    rest: Vec<u8>,
    /// Bytes of it that were cut off.
    dropped: u64,
    /// Lines that were longer than [`MAX_LINE`].
    cut: u64,
    /// Memory for [`Piece::Hit`].
    wanted: Vec<bool>,
}

impl Framer {
    pub(crate) fn new(end: LineEnd, start: u64) -> Framer {
        let (rest, wanted) = (Vec::new(), Vec::new());
        Framer { end, line_start: start, pending: 0, rest, dropped: 0, cut: 0, wanted }
    }

    /// Begins again at `start`, forgetting an incomplete line.
    pub(crate) fn restart(&mut self, start: u64) {
        self.line_start = start;
        self.pending = 0;
        self.rest = Vec::new();
        self.dropped = 0;
    }

    pub(crate) fn end(&self) -> LineEnd {
        self.end
    }

    /// Where the first line begins that was not handed out.
    pub(crate) fn line_start(&self) -> u64 {
        self.line_start
    }

    /// Takes the number of lines that were cut since it was last asked.
    pub(crate) fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// Hands out every line that `block` completes. `text` asks for UTF-8 to be checked once for the whole block.
    ///
    /// After a `Break` the line it was given for counts as not handed out, and the framer must be dropped or restarted.
    pub(crate) fn feed<B>(
        &mut self,
        block: &[u8],
        text: bool,
        each: &mut impl FnMut(Line<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(from) = self.finish_line(block, each)? else { return ControlFlow::Continue(()) };
        let block = &block[from..];
        let done = match self.end {
            LineEnd::Byte => self.feed_bytes(block, text, each)?,
            LineEnd::Utf16Little | LineEnd::Utf16Big => self.feed_wide(block, each)?,
        };
        self.hold(&block[done..]);
        ControlFlow::Continue(())
    }

    /// Searches the lines that `block` completes for words; hands out those that hold some, and what was not searched.
    /// For lines that end with the byte 0x0A; a `Break` means the same.
    pub(crate) fn feed_searched<B>(
        &mut self,
        block: &[u8],
        scan: &Scan,
        each: &mut impl FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut line = |line: Line<'_>| each(Piece::Line(line));
        let Some(from) = self.finish_line(block, &mut line)? else {
            return ControlFlow::Continue(());
        };
        let block = &block[from..];
        let complete = memchr::memrchr(b'\n', block).map_or(0, |last| last + 1);
        match std::str::from_utf8(&block[..complete]) {
            Ok(text) => self.feed_text(text, scan, each)?,
            // Of bytes that mean nothing each line makes a text of its own.
            Err(_) => self.feed_bytes(block, false, &mut line).map_continue(|_| ())?,
        }
        self.hold(&block[complete..]);
        ControlFlow::Continue(())
    }

    fn feed_text<B>(
        &mut self,
        text: &str,
        scan: &Scan,
        each: &mut impl FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let bytes = text.as_bytes();
        let base = self.line_start;
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.resize(scan.count(), false);
        let mut from = 0;
        while let Some(hit) = scan.find(bytes, from, bytes.len()) {
            let start = memchr::memrchr(b'\n', &bytes[from..hit.start]);
            let start = start.map_or(from, |before| from + before + 1);
            let end = memchr(b'\n', &bytes[hit.start..]).map_or(bytes.len(), |at| hit.start + at);
            scan.mark(bytes, hit, end, &mut wanted);
            self.line_start = base + start as u64;
            let line = text[start..end].trim_end_matches('\r').trim_start_matches('\0');
            let (bytes, next) = (line.as_bytes(), end + 1);
            let line = Line { bytes, text: Some(line), start: self.line_start };
            each(Piece::Hit { line, block: text, start, next, wanted: &wanted })?;
            self.line_start = base + next as u64;
            from = next;
        }
        self.wanted = wanted;
        self.line_start = base + bytes.len() as u64;
        each(Piece::End(text))
    }

    /// Hands out the line that is not complete yet, if `block` completes it; answers where the next one begins in there.
    fn finish_line<B>(
        &mut self,
        block: &[u8],
        each: &mut impl FnMut(Line<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B, Option<usize>> {
        if self.pending == 0 {
            return ControlFlow::Continue(Some(0));
        }
        let Some(end) = self.first_end(block) else {
            self.hold(block);
            return ControlFlow::Continue(None);
        };
        self.hold(&block[..end - self.end.width()]);
        let next = self.line_start + self.pending + self.end.width() as u64;
        each(Line { bytes: trim(&self.rest, self.end), text: None, start: self.line_start })?;
        self.cut += u64::from(std::mem::take(&mut self.dropped) > 0);
        // A long line's memory is given back; a short one's serves the next.
        if self.rest.capacity() > 1 << 16 {
            self.rest = Vec::new();
        }
        self.rest.clear();
        self.pending = 0;
        self.line_start = next;
        ControlFlow::Continue(Some(end))
    }

    fn feed_bytes<B>(
        &mut self,
        block: &[u8],
        text: bool,
        each: &mut impl FnMut(Line<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B, usize> {
        let complete = memchr::memrchr(b'\n', block).map_or(0, |last| last + 1);
        let block_text = if text { std::str::from_utf8(&block[..complete]).ok() } else { None };
        let base = self.line_start;
        let mut start = 0;
        for end in memchr_iter(b'\n', &block[..complete]) {
            let mut last = end;
            while last > start && block[last - 1] == b'\r' {
                last -= 1;
            }
            let mut first = start;
            while first < last && block[first] == 0 {
                first += 1;
            }
            let text = block_text.map(|text| &text[first..last]);
            let line = Line { bytes: &block[first..last], text, start: base + start as u64 };
            each(line)?;
            start = end + 1;
            self.line_start = base + start as u64;
        }
        ControlFlow::Continue(complete)
    }

    fn feed_wide<B>(
        &mut self,
        block: &[u8],
        each: &mut impl FnMut(Line<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B, usize> {
        let mut start = 0;
        while let Some(length) = self.first_end(&block[start..]) {
            let bytes = trim(&block[start..start + length - 2], self.end);
            each(Line { bytes, text: None, start: self.line_start })?;
            start += length;
            self.line_start += length as u64;
        }
        ControlFlow::Continue(start)
    }

    /// How many bytes of `block` it takes to complete the current line, its line end included.
    fn first_end(&self, block: &[u8]) -> Option<usize> {
        let unit = match self.end {
            LineEnd::Byte => return memchr(b'\n', block).map(|at| at + 1),
            LineEnd::Utf16Little => [b'\n', 0],
            LineEnd::Utf16Big => [0, b'\n'],
        };
        block.chunks_exact(2).position(|pair| pair == unit).map(|pairs| pairs * 2 + 2)
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.pending += bytes.len() as u64;
        let mut bytes = bytes;
        // A file that its writer goes on filling after it was truncated begins with a hole, which reads as NULs and
        // can be longer than any line may be.
        if self.rest.is_empty() && self.end == LineEnd::Byte {
            bytes = &bytes[bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len())..];
        }
        let room = MAX_LINE - self.rest.len();
        let (kept, cut) = bytes.split_at(room.min(bytes.len()));
        self.rest.extend_from_slice(kept);
        self.dropped += cut.len() as u64;
    }
}

fn trim(line: &[u8], end: LineEnd) -> &[u8] {
    let mut line = line;
    match end {
        LineEnd::Byte => {
            while let Some((b'\r', shorter)) = line.split_last() {
                line = shorter;
            }
            &line[line.iter().position(|&byte| byte != 0).unwrap_or(line.len())..]
        }
        LineEnd::Utf16Little | LineEnd::Utf16Big => {
            let unit = if end == LineEnd::Utf16Little { [b'\r', 0] } else { [0, b'\r'] };
            while let Some((shorter, last)) = line.split_last_chunk::<2>()
                && *last == unit
            {
                line = shorter;
            }
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes in blocks of `size`; answers the lines, each with its start, and where the next begins.
    fn lines(end: LineEnd, bytes: &[u8], size: usize) -> (Vec<(u64, Vec<u8>)>, u64, u64) {
        let mut framer = Framer::new(end, 0);
        let mut lines = Vec::new();
        for block in bytes.chunks(size) {
            let flow = framer.feed::<()>(block, true, &mut |line| {
                if let Some(text) = line.text {
                    assert_eq!(text.as_bytes(), line.bytes);
                }
                lines.push((line.start, line.bytes.to_vec()));
                ControlFlow::Continue(())
            });
            assert!(flow.is_continue());
        }
        (lines, framer.line_start(), framer.take_cut())
    }

    #[track_caller]
    fn check(bytes: &[u8], expect: &[(u64, &str)], rest: u64) {
        for size in [1, 2, 3, 5, 7, 64, 4096] {
            let (found, start, cut) = lines(LineEnd::Byte, bytes, size);
            let found: Vec<_> =
                found.iter().map(|(at, line)| (*at, String::from_utf8_lossy(line))).collect();
            let expect: Vec<_> = expect.iter().map(|(at, line)| (*at, (*line).into())).collect();
            assert_eq!((found, start, cut), (expect, rest, 0), "in blocks of {size}");
        }
    }

    #[test]
    fn lines_are_the_same_however_the_blocks_fall() {
        check(b"", &[], 0);
        check(b"half", &[], 0);
        check(b"one\ntwo\n", &[(0, "one"), (4, "two")], 8);
        check(b"one\r\ntwo\r\r\nhalf", &[(0, "one"), (5, "two")], 11);
        check(b"\n\na\n", &[(0, ""), (1, ""), (2, "a")], 4);
        check("ä\n€uro\nrest".as_bytes(), &[(0, "ä"), (3, "€uro")], 10);
        check(b"\0\0\0\0a\0b\n\0\n", &[(0, "a\0b"), (8, "")], 10);
        check(b"bad \xff\ngood\n", &[(0, "bad \u{fffd}"), (6, "good")], 11);
    }

    #[test]
    fn wide_line_ends_are_whole_units() {
        // U+0A0A holds the byte 0x0A twice and ends no line.
        let text = "a\u{a0a}\r\nb\nrest";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for size in [2, 4, 6, 64] {
            for (end, bytes) in [(LineEnd::Utf16Little, &little), (LineEnd::Utf16Big, &big)] {
                let (found, start, _) = lines(end, bytes, size);
                let lengths: Vec<_> = found.iter().map(|(at, line)| (*at, line.len())).collect();
                assert_eq!((lengths, start), (vec![(0, 4), (8, 2)], 12), "in blocks of {size}");
            }
        }
    }

    #[test]
    fn a_line_too_long_is_cut_and_counted_and_the_next_is_whole() {
        let mut bytes = vec![0; 3 * MAX_LINE];
        bytes.extend(vec![b'x'; MAX_LINE + 5]);
        bytes.extend(b"\nnext\n");
        let (found, start, cut) = lines(LineEnd::Byte, &bytes, 65536);
        assert_eq!(found.len(), 2);
        assert!(found[0].1.len() == MAX_LINE && found[0].1.iter().all(|&byte| byte == b'x'));
        assert_eq!((&found[1].1[..], start, cut), (&b"next"[..], bytes.len() as u64, 1));
    }

    #[test]
    fn a_line_that_was_refused_is_not_counted_as_read() {
        let mut framer = Framer::new(LineEnd::Byte, 0);
        let flow = framer.feed(b"one\ntwo\nthree\n", true, &mut |line| {
            if line.bytes == b"two" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((flow, framer.line_start()), (ControlFlow::Break(()), 4));
    }
}
