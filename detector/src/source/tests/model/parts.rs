//! What the model is made of: lines, files, writers.
use std::{
    collections::BTreeSet,
    fs::File,
    ops::AddAssign,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::Log;
use crate::{
    engine::{Finding, Timestamp},
    source::LineMatcher,
};

/// How much was seen in how many lines.
#[derive(Debug, Default)]
pub struct Tally {
    /// Lines that had to be read, and were.
    pub read: u64,
    /// Lines that were lost, as the model says.
    pub lost: u64,
    /// Lines of which the model says nothing.
    pub open: u64,
    /// Starts after the first.
    pub starts: u64,
    /// Rotated files that were compressed.
    pub packed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.read += other.read;
        self.lost += other.lost;
        self.open += other.open;
        self.starts += other.starts;
        self.packed += other.packed;
    }
}

/// What must become of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is read once.
    Read,
    /// It vanished before it was read.
    Lost,
    /// It may be read once.
    Open,
}

#[derive(Debug)]
pub struct LineInfo {
    pub text: String,
    pub fate: Fate,
    /// Files that hold it.
    pub places: BTreeSet<usize>,
    /// How often it was read; after `kill -9`, since the positions that were gone back to.
    pub read: u32,
    /// The same when positions were saved.
    pub saved: u32,
}

/// One file, whatever it is called.
#[derive(Debug)]
pub struct Content {
    pub path: PathBuf,
    /// The log whose name it bears or bore.
    pub log: Log,
    pub lines: Vec<usize>,
    /// What stands after its last line end.
    pub half: String,
    /// Deleted, and only there as long as someone has it open.
    pub deleted: bool,
    /// A start did not find it.
    pub unknown: bool,
    /// The tailer had it open when positions were saved.
    pub saved: bool,
}

#[derive(Debug)]
pub struct Writer {
    pub file: File,
    pub content: usize,
    /// A line was begun.
    pub half: bool,
}

/// Collects every line.
pub struct Collector(pub Arc<Mutex<Vec<String>>>);

impl LineMatcher for Collector {
    fn line(
        &mut self,
        line: &str,
        _: Option<Timestamp>,
        _: Timestamp,
        _: bool,
        _: &mut Vec<Finding>,
    ) {
        self.0.lock().expect("one thread").push(line.to_owned());
    }

    fn time_of(&mut self, line: &str, _: Timestamp) -> Option<Timestamp> {
        let seconds = line.strip_prefix('@')?.split(' ').next()?.parse().ok()?;
        Some(Timestamp::from_seconds(seconds))
    }
}
