//! What `logrotate` and others do to the files.
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use flate2::{Compression, write::GzEncoder};

use super::{
    Between, Log, Pack, Text,
    parts::Content,
    world::{NAMES, World},
};

impl World {
    /// Moves the rotated files on: `.1` becomes `.2`; compresses the last one if that was put off.
    fn shift(&mut self, log: Log, pack: Pack) {
        let base = self.log_path(log);
        let name = |number: usize, ending: &str| {
            PathBuf::from(format!("{}.{number}{ending}", base.display()))
        };
        for number in (1..30).rev() {
            for ending in ["", ".gz"] {
                let from = name(number, ending);
                if let Some(content) = self.content_at(&from) {
                    let to = name(number + 1, ending);
                    fs::rename(&from, &to).expect("renamed");
                    self.contents[content].path = to;
                }
            }
        }
        if let (Pack::Later, Some(content)) = (pack, self.content_at(&name(2, ""))) {
            self.pack(content, None);
        }
    }

    /// Compresses a file, which keeps its time or gets another.
    fn pack(&mut self, content: usize, time: Option<SystemTime>) {
        let log = self.contents[content].log;
        // logrotate is told to when the writer must have noticed.
        if self.writers[log].as_ref().is_some_and(|writer| writer.content == content) {
            self.reopen(log);
        }
        let path = self.contents[content].path.clone();
        let packed = PathBuf::from(format!("{}.gz", path.display()));
        let time = time.unwrap_or_else(|| modified(&path));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&fs::read(&path).expect("readable")).expect("written");
        let bytes = gzip.finish().expect("written");
        let mut file = File::create_new(&packed).expect("new");
        let slowly = self.slowly.take();
        for piece in bytes.chunks(if slowly.is_some() { bytes.len() / 2 + 1 } else { bytes.len() })
        {
            self.between(slowly, None);
            file.write_all(piece).expect("written");
        }
        self.between(slowly, None);
        file.set_modified(time).expect("changed");
        self.between(slowly, None);
        self.double(content, packed);
        self.delete(content);
        self.tally.packed += 1;
    }

    /// Does what happens between two pieces; `log` may be written to.
    fn between(&mut self, what: Option<Between>, log: Option<Log>) {
        match what {
            None => {}
            Some(Between::Step) => self.step(self.setting.polling),
            Some(Between::Look) => self.step(true),
            Some(Between::Write) => {
                self.step(true);
                if let Some(log) = log {
                    self.write(log, Text::Lines(1));
                }
            }
            Some(Between::Save) => {
                self.step(true);
                self.save();
            }
            Some(Between::Restart) => {
                self.stop();
                self.start();
            }
            Some(Between::Kill) => {
                self.step(true);
                self.kill();
                self.start();
            }
        }
    }

    /// Another file has the same content now.
    fn double(&mut self, content: usize, path: PathBuf) {
        let number = self.contents.len();
        let Content { log, lines, half, .. } = &self.contents[content];
        let (log, lines, half) = (*log, lines.clone(), half.clone());
        for line in &lines {
            self.lines[*line].places.insert(number);
        }
        self.contents.push(Content {
            path,
            log,
            lines,
            half,
            deleted: false,
            unknown: false,
            saved: false,
        });
    }

    pub(super) fn rename(&mut self, log: Log, pack: Pack, create: bool) {
        let path = self.log_path(log);
        let Some(content) = self.content_at(&path) else { return };
        // A writer that misses two rotations misses its log.
        if self.writers[log].as_ref().is_some_and(|writer| writer.content != content) {
            self.reopen(log);
        }
        self.shift(log, pack);
        let first = PathBuf::from(format!("{}.1", path.display()));
        fs::rename(&path, &first).expect("renamed");
        self.contents[content].path = first;
        // Names that nobody has seen yet must not go before they are.
        if create || NAMES[log] != "a.log" {
            self.create(log, path);
        }
        let time = self.checked[log].take();
        if matches!(pack, Pack::Now) {
            self.pack(content, time);
        }
    }

    pub(super) fn check(&mut self, log: Log) {
        let path = self.log_path(log);
        self.checked[log] = self.content_at(&path).map(|_| modified(&path));
    }

    pub(super) fn copy(&mut self, log: Log, pack: Pack) {
        let path = self.log_path(log);
        let Some(content) = self.content_at(&path) else { return };
        self.shift(log, pack);
        let first = PathBuf::from(format!("{}.1", path.display()));
        let (mut from, mut to) = (File::open(&path), File::create_new(&first));
        let (from, to) = (from.as_mut().expect("there"), to.as_mut().expect("new"));
        let slowly = self.slowly.take();
        let piece = from.metadata().map_or(0, |meta| meta.len()) / 2;
        if slowly.is_some() {
            self.between(slowly, Some(log));
            io::copy(&mut from.take(piece), to).expect("copied");
            self.between(slowly, Some(log));
        }
        io::copy(from, to).expect("copied");
        self.double(content, first.clone());
        // What `logrotate` compresses at once gets the time that the log bore when it began, not that of the copy.
        let time = self.checked[log].take();
        if let (Pack::Now, Some(copy)) = (pack, self.content_at(&first)) {
            self.pack(copy, time);
        }
    }

    pub(super) fn truncate(&mut self, log: Log) {
        self.checked[log] = None;
        let path = self.log_path(log);
        let Some(content) = self.content_at(&path) else { return };
        File::options().write(true).open(&path).expect("opened").set_len(0).expect("truncated");
        self.vanish(content);
    }

    pub(super) fn regrow(&mut self, log: Log) {
        let path = self.log_path(log);
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        self.truncate(log);
        while fs::metadata(&path).is_ok_and(|meta| meta.len() <= size) {
            self.reopen(log);
            self.write(log, if size > 10_000 { Text::Burst } else { Text::Lines(3) });
        }
    }

    pub(super) fn recreate(&mut self, log: Log) {
        self.checked[log] = None;
        let path = self.log_path(log);
        if let Some(content) = self.content_at(&path) {
            self.delete(content);
            self.create(log, path);
        }
    }
}

/// When a file was last written to.
fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|meta| meta.modified()).expect("it is there")
}
