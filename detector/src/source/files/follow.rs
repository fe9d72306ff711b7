//! Which files are being followed, under which names, and for which jails.
//!
//! Names and files are kept apart: a name may come to mean another file (rotation, a switched symlink), a file may
//! change its name (`x.log` becomes `x.log.1`, which a glob may match as well) or have several. What is read is the
//! file, once, and each jail that has a name for it gets its lines.
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::super::board::Gauge;
use super::{
    FileState,
    position::{ANCHOR, FilePosition, HEAD, Spot},
    rotated::is_rotated_name,
    tail::{FileId, Tail},
};

/// Rotated files of one name that are still read, because their writer may not have noticed yet.
const MAX_ROTATED: usize = 2;

/// A deleted file is read no longer when it has been quiet for so long: an open file keeps its place on the disk.
const DELETED_QUIET: Duration = Duration::from_secs(60);

/// Places in files that are followed no longer and are remembered for each name, so that neither they nor copies of
/// them are read again: so many for each of few names, fewer for each of many.
const MAX_RETIRED: usize = 256;
const MAX_RETIRED_IN_ALL: usize = 4096;

/// Of so many of a name, the latest, the first bytes are kept: a copy may be shorter as it is being made.
const MAX_HEADS: usize = 16;

/// Files that one thread follows at the most.
pub(crate) const MAX_FILES: usize = 4096;

/// A jail's place in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// The jail, by its number on this thread.
    pub(crate) jail: usize,
    /// It gets the lines from here on.
    pub(crate) from: u64,
    /// What it gets was written just now.
    pub(crate) caught_up: bool,
    /// Bytes of the block being read that it has taken in.
    pub(crate) passed: usize,
}

impl Reader {
    pub(crate) fn new(jail: usize, from: u64, caught_up: bool) -> Reader {
        Reader { jail, from, caught_up, passed: 0 }
    }
}

/// An open file with those who read it.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) tail: Tail,
    /// The name by which it was last known.
    pub(crate) name: PathBuf,
    pub(crate) readers: Vec<Reader>,
    /// To be read to its end before this one: the file that had the name before.
    pub(crate) after: Option<FileId>,
    /// The end was reached, and nothing has happened to the file since.
    pub(crate) at_end: bool,
    /// No name leads to it any more.
    pub(crate) orphan: bool,
    /// When it last grew.
    pub(crate) grew: Instant,
    /// It is a copy that is being made of this file (`copytruncate`): all it holds is read there, until that is
    /// truncated.
    pub(crate) copy_of: Option<FileId>,
    /// Nothing was read of its content yet.
    pub(crate) fresh: bool,
    /// Where it is told how far it was read.
    pub(crate) gauge: Arc<Gauge>,
}

/// A name and what it means at present.
#[derive(Debug)]
pub(crate) struct Name {
    /// The file it means, or last meant.
    pub(crate) file: Option<FileId>,
    pub(crate) state: FileState,
    /// Who asked for it.
    pub(crate) jails: Vec<usize>,
    /// Since when no file bears it that a pattern finds.
    pub(crate) lost: Option<Instant>,
    /// When to tell that its file is gone, if that was not told yet.
    pub(crate) gone: Option<Instant>,
}

/// All files and names of one reader thread.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    pub(crate) files: HashMap<FileId, Followed>,
    pub(crate) names: BTreeMap<PathBuf, Name>,
    /// Files to be read.
    pub(crate) ready: Vec<FileId>,
    /// How far files were read that are followed no longer, by the names they bore, oldest first.
    pub(crate) retired: HashMap<PathBuf, VecDeque<Spot>>,
}

impl Followed {
    /// Reads on at `from`, the start of a line; what lies before was read elsewhere.
    pub(crate) fn begin_at(&mut self, from: u64) -> io::Result<()> {
        self.fresh &= from == 0;
        for reader in &mut self.readers {
            reader.from = reader.from.max(from);
        }
        self.tail.move_to(from)
    }
}

impl Follow {
    pub(crate) fn add(&mut self, followed: Followed) {
        let id = followed.tail.id;
        self.files.insert(id, followed);
        self.wake(id);
    }

    /// Has a file read as soon as possible.
    pub(crate) fn wake(&mut self, id: FileId) {
        if let Some(followed) = self.files.get_mut(&id) {
            followed.at_end = false;
            if !self.ready.contains(&id) {
                self.ready.push(id);
            }
        }
    }

    pub(crate) fn wake_all(&mut self) {
        self.ready = self.files.keys().copied().collect();
        for followed in self.files.values_mut() {
            followed.at_end = false;
        }
    }

    /// When the next name is due of whose file it is to be told that it is gone.
    pub(crate) fn next_gone(&self) -> Option<Instant> {
        self.names.values().filter_map(|name| name.gone).min()
    }

    /// The names whose files have been gone for a while.
    pub(crate) fn take_gone(&mut self, now: Instant) -> Vec<PathBuf> {
        let due = self.names.iter_mut().filter(|(_, name)| name.gone.is_some_and(|due| due <= now));
        due.map(|(path, name)| {
            name.gone = None;
            path.clone()
        })
        .collect()
    }

    /// Whether what must be read before this file has been read.
    pub(crate) fn may_read(&self, id: FileId) -> bool {
        let before = self.files.get(&id).and_then(|followed| followed.after);
        before.and_then(|before| self.files.get(&before)).is_none_or(|before| before.at_end)
    }

    /// Whether a file is a copy of which nothing need be read yet. One that holds anything else, or more, is none.
    pub(crate) fn is_idle_copy(&mut self, id: FileId) -> bool {
        let Some(copy) = self.files.get(&id) else { return false };
        let Some(original) = copy.copy_of.and_then(|original| self.files.get(&original)) else {
            return false;
        };
        let idle = holds_no_more(&copy.tail.file, &original.tail).unwrap_or(false);
        if idle {
            self.wait(id);
        }
        idle
    }

    /// Nothing need be read of a file for now.
    pub(crate) fn wait(&mut self, id: FileId) {
        if let Some(followed) = self.files.get_mut(&id) {
            followed.at_end = true;
        }
    }

    /// The file that is or was called as `path` but for an ending, and whose content `file` begins like: of that it may
    /// be a copy that is being made (`copytruncate`). An empty file begins like any.
    pub(crate) fn original_of(&self, path: &Path, file: &File) -> Option<FileId> {
        let goes_on = |base: &&PathBuf| base.as_path() != path && is_rotated_name(base, path);
        let bases: Vec<&PathBuf> = self.names.keys().filter(goes_on).collect();
        self.files.values().find_map(|known| {
            let copy = bases.iter().any(|base| is_rotated_name(base, &known.name))
                && holds_no_more(file, &known.tail).unwrap_or(false);
            copy.then_some(known.tail.id)
        })
    }

    /// The copies of a file that is about to change or to be followed no longer: what they hold was read in it.
    pub(crate) fn idle_copies(&self, original: FileId) -> Vec<FileId> {
        let copies = self.files.values().filter(|file| file.copy_of == Some(original));
        copies.map(|file| file.tail.id).collect()
    }

    /// Finds the files that no name leads to, and answers which of them need not be followed any longer.
    pub(crate) fn retire(&mut self, now: Instant) -> Vec<FileId> {
        let named: HashSet<FileId> = self.names.values().filter_map(|name| name.file).collect();
        let mut done = Vec::new();
        let mut rotated: HashMap<PathBuf, Vec<(Instant, FileId)>> = HashMap::new();
        for (id, followed) in &mut self.files {
            followed.orphan = !named.contains(id);
            let quiet = followed.at_end && now.duration_since(followed.grew) >= DELETED_QUIET;
            if quiet && followed.tail.is_deleted() {
                done.push(*id);
            } else if followed.orphan && followed.at_end {
                rotated.entry(followed.name.clone()).or_default().push((followed.grew, *id));
            }
        }
        for files in rotated.values_mut() {
            files.sort();
            let surplus = files.len().saturating_sub(MAX_ROTATED);
            done.extend(files.drain(..surplus).map(|(_, id)| id));
        }
        for id in &done {
            if let Some(file) = self.files.remove(id) {
                self.put_aside(&file.name, file.tail.spot());
            }
            for name in self.names.values_mut().filter(|name| name.file == Some(*id)) {
                name.file = None;
            }
        }
        self.names.retain(|_, name| {
            let long_lost = |since: Instant| now.duration_since(since) >= DELETED_QUIET;
            let forget = |since| name.file.is_none() || long_lost(since);
            name.gone.is_some() || !name.lost.is_some_and(forget)
        });
        let (names, files) = (&self.names, &self.files);
        self.retired.retain(|path, _| {
            names.contains_key(path) || files.values().any(|file| file.name == *path)
        });
        done
    }

    /// Remembers how far a file was read that is not read on.
    pub(crate) fn put_aside(&mut self, name: &Path, spot: Spot) {
        // Where nothing was read there is nothing to remember it by.
        if spot.offset == 0 {
            return;
        }
        let share = MAX_RETIRED_IN_ALL / self.names.len().max(1);
        let spots = self.retired.entry(name.to_owned()).or_default();
        spots.retain(|known| !spot.goes_on_after(known));
        spots.push_back(spot);
        while spots.len() > share.clamp(MAX_HEADS, MAX_RETIRED) {
            spots.pop_front();
        }
        if let Some(spot) = spots.iter_mut().nth_back(MAX_HEADS) {
            spot.head.abridge();
        }
    }

    /// How far everything was read. `jail_name` names a jail by its number, `spot_of` says how far a file was read.
    pub(crate) fn positions(
        &self,
        jail_name: impl Fn(usize) -> String,
        spot_of: impl Fn(&Followed) -> io::Result<Spot>,
    ) -> io::Result<BTreeMap<String, FilePosition>> {
        let mut orphans: BTreeMap<&Path, Vec<&Followed>> = BTreeMap::new();
        for file in self.files.values().filter(|file| file.orphan) {
            orphans.entry(&file.name).or_default().push(file);
        }
        let mut logs: BTreeMap<&Path, &Followed> = BTreeMap::new();
        for (path, name) in &self.names {
            if let Some(file) = name.file.and_then(|id| self.files.get(&id)) {
                logs.insert(path, file);
            }
        }
        for (path, files) in &mut orphans {
            files.sort_by_key(|file| file.grew);
            // Nothing has taken its name yet, or it is forgotten: the last that bore it stands for it.
            if !logs.contains_key(path)
                && let Some(last) = files.pop()
            {
                logs.insert(path, last);
            }
        }
        let mut positions = BTreeMap::new();
        for (path, file) in logs {
            let finished = self.retired.get(path).into_iter().flatten().cloned().collect();
            let mut earlier = Vec::new();
            let mut spot = spot_of(file)?;
            for orphan in orphans.get(path).into_iter().flatten() {
                // What a copy holds is known by its original.
                if orphan.tail.id == file.tail.id || orphan.copy_of.is_some() {
                    continue;
                }
                // One of which nothing was read yet is found again by its time.
                if !orphan.at_end {
                    spot.written = spot.written.min(orphan.tail.written());
                }
                earlier.push(spot_of(orphan)?);
            }
            let jails = file.readers.iter().map(|reader| jail_name(reader.jail)).collect();
            let position = FilePosition { spot, jails, earlier, finished };
            positions.insert(path.to_string_lossy().into_owned(), position);
        }
        Ok(positions)
    }

    /// How a name came to mean another file than `old`.
    pub(crate) fn how_rotated(&self, path: &Path, old: FileId) -> super::Rotation {
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            super::Rotation::Relinked
        } else if self.files.get(&old).is_some_and(|old| old.tail.is_deleted()) {
            super::Rotation::Replaced
        } else {
            super::Rotation::Renamed
        }
    }
}

/// Whether all that `copy` holds stands in the original of this tail too, judged by its first and its last bytes, or
/// stood there.
pub(crate) fn holds_no_more(copy: &File, tail: &Tail) -> io::Result<bool> {
    if tail.is_unpacking() {
        // Of what it holds only a piece is at hand, but its first bytes always are.
        return begins_alike(copy, &tail.file);
    }
    let (spot, original) = (tail.spot_in_memory(), &tail.file);
    if !spot.fits(original)? {
        // It was truncated since we read it. What becomes of its copies is decided when we come to read it again.
        let all_was_read = copy.metadata()?.len() <= spot.offset && tail.began_like(copy)?;
        return Ok(all_was_read || spot.was_copied_to(copy)? || begins_like(copy, original)?);
    }
    begins_like(copy, original)
}

/// Whether all that `copy` holds stands in `original`, judged by its first and its last bytes.
pub(crate) fn begins_like(copy: &File, original: &File) -> io::Result<bool> {
    let size = copy.metadata()?.len();
    if size > original.metadata()?.len() {
        return Ok(false);
    }
    let same = |at: u64, length: u64| {
        let mut bytes = [vec![0; length as usize], vec![0; length as usize]];
        copy.read_exact_at(&mut bytes[0], at)?;
        original.read_exact_at(&mut bytes[1], at)?;
        io::Result::Ok(bytes[0] == bytes[1])
    };
    let last = size.min(ANCHOR as u64);
    Ok(same(0, size.min(HEAD as u64))? && same(size - last, last)?)
}

/// Whether the first bytes of two files are the same, as many as make a head, or as `copy` has.
fn begins_alike(copy: &File, original: &File) -> io::Result<bool> {
    let length = copy.metadata()?.len().min(HEAD as u64) as usize;
    let mut bytes = [[0; HEAD]; 2];
    if original.metadata()?.len() < length as u64 {
        return Ok(false);
    }
    copy.read_exact_at(&mut bytes[0][..length], 0)?;
    original.read_exact_at(&mut bytes[1][..length], 0)?;
    Ok(bytes[0] == bytes[1])
}
