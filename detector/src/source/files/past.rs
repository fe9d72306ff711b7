//! A log as it lies there, read once from its first line to its last: for `regex` and `replay`.
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    path::Path,
};

use super::{
    decode::{Codec, LineEnd},
    frame::Framer,
};

/// Bytes read at once.
const BLOCK: usize = 256 << 10;

/// A log being read. Lines longer than a megabyte are cut.
pub struct PastFile {
    input: Box<dyn Read>,
    codec: Codec,
    framer: Framer,
    block: Vec<u8>,
    lines: VecDeque<String>,
    read: u64,
    at_end: bool,
}

impl PastFile {
    /// Opens a file; `encoding` is `auto` or a codec's name, as in `logencoding`.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::InvalidInput`] for an encoding that nobody knows.
    pub fn open(path: &Path, encoding: &str) -> io::Result<PastFile> {
        PastFile::new(Box::new(File::open(path)?), encoding)
    }

    /// Reads what comes from elsewhere, such as standard input.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for an encoding that nobody knows.
    pub fn new(input: Box<dyn Read>, encoding: &str) -> io::Result<PastFile> {
        let unknown = || {
            let what = format!("`{encoding}` is no encoding; write `auto`, `UTF-8`, `latin-1` …");
            io::Error::new(io::ErrorKind::InvalidInput, what)
        };
        let codec = Codec::named(encoding).ok_or_else(unknown)?;
        let framer = Framer::new(codec.line_end(), 0);
        let (block, lines) = (vec![0; BLOCK], VecDeque::new());
        Ok(PastFile { input, codec, framer, block, lines, read: 0, at_end: false })
    }

    /// The next line without its line end; `None` at the end. The last one need not be ended.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        while self.lines.is_empty() && !self.at_end {
            let count = match self.input.read(&mut self.block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            self.read += count as u64;
            let end: &[u8] = match self.framer.end() {
                LineEnd::Byte => b"\n",
                LineEnd::Utf16Little => b"\n\0",
                LineEnd::Utf16Big => b"\0\n",
            };
            self.at_end = count == 0;
            let unended = self.at_end && self.read > self.framer.line_start();
            let bytes = if unended { end } else { &self.block[..count] };
            let (codec, lines) = (self.codec, &mut self.lines);
            let _ = self.framer.feed::<()>(bytes, codec.is_utf8(), &mut |line| {
                lines.push_back(match line.text {
                    Some(text) => text.to_owned(),
                    None => codec.text(line.bytes).into_owned(),
                });
                ControlFlow::Continue(())
            });
        }
        Ok(self.lines.pop_front())
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &'static [u8], encoding: &str, expect: &[&str]) {
        let mut file = PastFile::new(Box::new(bytes), encoding).expect("the encoding is known");
        let mut lines = Vec::new();
        while let Some(line) = file.next_line().expect("memory can be read") {
            lines.push(line);
        }
        assert_eq!(lines, expect);
        assert_eq!(file.bytes_read(), bytes.len() as u64);
    }

    #[test]
    fn every_line_is_read_also_the_last_without_an_end() {
        check(b"", "auto", &[]);
        check(b"a\n\nb\r\n", "auto", &["a", "", "b"]);
        check(b"a\nb", "auto", &["a", "b"]);
        check(b"a\n\xff\n", "auto", &["a", "\u{fffd}"]);
        check(b"\xe9\n", "latin-1", &["é"]);
        check(b"a\0\n\0b\0", "utf-16le", &["a", "b"]);
        assert!(PastFile::new(Box::new(io::empty()), "klingon").is_err());
    }
}
