//! What lies beside a log: the files that bore its name before, copies of them, and what became of them.
use std::{
    cmp::Reverse,
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    ops::Range,
    os::unix::{ffi::OsStrExt, fs::DirEntryExt},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::{
    follow::begins_like,
    packed::{self, Format, Unpack},
    position::{HEAD, Spot, head_of, micros, open_log},
};

/// Directory entries that are looked through for rotated files; of a larger directory the rest is left out.
const MAX_ENTRIES: usize = 16 << 10;

/// A rotated log with a number as its ending: `x.log.1`. Greater ones are dates.
const MAX_NUMBER: u32 = 100_000;

/// What is listed is looked at so often, until nothing moves meanwhile.
const MAX_LOOKS: usize = 8;

/// A file's number and when it was made, in microseconds since the Unix epoch; 0 where the file system does not tell.
/// A freed number goes to the next file made, so it tells little alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Identity {
    pub(crate) inode: u64,
    pub(crate) born: i64,
}

impl Identity {
    fn at(path: &Path) -> io::Result<(Identity, rustix::fs::Statx)> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        Ok((Identity::of_stat(&stat), stat))
    }

    /// Of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Identity> {
        let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Identity::of_stat(&statx(file, c"", AtFlags::EMPTY_PATH, flags)?))
    }

    fn of_stat(stat: &rustix::fs::Statx) -> Identity {
        let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let born = if told { micros(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) } else { 0 };
        Identity { inode: stat.stx_ino, born }
    }
}

/// The names in one directory, in order.
#[derive(Debug, PartialEq)]
pub(crate) struct Listing {
    dir: PathBuf,
    names: Vec<(OsString, u64)>,
    /// Entries beyond [`MAX_ENTRIES`]; more than none says that something may be missed.
    pub(crate) left_out: usize,
}

impl Listing {
    /// Empty for a directory that cannot be read.
    pub(crate) fn of(dir: &Path) -> Listing {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut entries = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_file()));
        let named = |entry: fs::DirEntry| (entry.file_name(), entry.ino());
        let mut names: Vec<_> = entries.by_ref().take(MAX_ENTRIES).map(named).collect();
        names.sort();
        Listing { dir: dir.to_owned(), names, left_out: entries.count() }
    }

    /// Every file in it.
    pub(crate) fn all(&self) -> impl Iterator<Item = Sibling> + '_ {
        self.siblings(0..self.names.len())
    }

    /// The files whose names go on where `own` ends: `x.log.1`, `x.log-20260101.gz`.
    pub(crate) fn rotated(&self, own: &OsStr) -> impl Iterator<Item = Sibling> + '_ {
        let first = self.names.partition_point(|(name, _)| name.as_os_str() <= own);
        let own = own.as_bytes();
        let count =
            self.names[first..].partition_point(|(name, _)| name.as_bytes().starts_with(own));
        self.siblings(first..first + count).filter(|file| !self.is_being_packed(file))
    }

    /// While a file is compressed it is there twice, and the compressed one is not complete yet.
    fn is_being_packed(&self, file: &Sibling) -> bool {
        let plain = file.path.with_extension("");
        let plain = plain.file_name().filter(|_| file.packed.is_some());
        plain.is_some_and(|plain| {
            self.names.binary_search_by(|(name, _)| name.as_os_str().cmp(plain)).is_ok()
        })
    }

    /// Those with this inode number that are not called `own`.
    fn of_inode(&self, inode: u64, own: &OsStr) -> impl Iterator<Item = Sibling> + '_ {
        let other = |at: &usize| self.names[*at].1 == inode && self.names[*at].0 != own;
        let found: Vec<usize> = (0..self.names.len()).filter(other).collect();
        found.into_iter().flat_map(|at| self.siblings(at..at + 1))
    }

    pub(crate) fn inodes(&self) -> HashSet<u64> {
        self.names.iter().map(|(_, inode)| *inode).collect()
    }

    fn siblings(&self, range: Range<usize>) -> impl Iterator<Item = Sibling> + '_ {
        self.names[range].iter().filter_map(|(name, _)| {
            let path = self.dir.join(name);
            let (identity, stat) = Identity::at(&path).ok()?;
            let written = micros(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
            let changed = micros(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
            let (size, packed) = (stat.stx_size, Format::of(name));
            Some(Sibling { path, identity, written, changed, size, packed })
        })
    }
}

/// What `look` finds in what `list` lists, when nothing moved while it looked: as it looks, a copy may be compressed and
/// rotated files move on.
pub(crate) fn steady<L: PartialEq, T>(
    mut list: impl FnMut() -> L,
    mut look: impl FnMut(&L) -> T,
) -> (L, T) {
    let mut listed = list();
    for _ in 1..MAX_LOOKS {
        let found = look(&listed);
        let now = list();
        if now == listed {
            return (listed, found);
        }
        listed = now;
    }
    let found = look(&listed);
    (listed, found)
}

/// One of the files beside a log.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    /// When it was last written to, in microseconds since the Unix epoch. Compression keeps it, perhaps to the second;
    /// but what `logrotate` compresses at once bears the time that the log had when `logrotate` began.
    pub(crate) written: i64,
    /// When it was last written to, renamed or given another time, in the same unit: nobody can set this.
    pub(crate) changed: i64,
    /// Its bytes, compressed or not.
    pub(crate) size: u64,
    pub(crate) packed: Option<Format>,
}

/// An open file, and what is left to unpack of it.
pub(crate) type Opened = (File, Option<Unpack>);

impl Sibling {
    /// Whether it may have been written to at `time` or later.
    pub(crate) fn is_as_new_as(&self, time: i64) -> bool {
        const SECOND: i64 = 1_000_000;
        let whole = self.packed.is_some() && self.written.rem_euclid(SECOND) == 0;
        self.written >= if whole { time - time.rem_euclid(SECOND) } else { time }
    }

    /// The bytes that it holds when it is unpacked. Its times do not tell: see [`Sibling::written`].
    pub(crate) fn unpacked_size(&self) -> io::Result<u64> {
        self.packed.map_or(Ok(self.size), |format| packed::size(&self.path, format))
    }

    /// Its first bytes, unpacked.
    pub(crate) fn head(&self) -> io::Result<Vec<u8>> {
        match self.packed {
            Some(format) => packed::head(&self.path, format),
            None => head_of(&open_log(&self.path)?),
        }
    }

    /// Opens it where it lies now, or the compressed one that has taken its place since it was listed, to be read from
    /// `spot` or its start. `None` if it ends before.
    pub(crate) fn open_now(
        &self,
        own: &OsStr,
        spot: Option<&Spot>,
    ) -> (Sibling, io::Result<Option<Opened>>) {
        let mut file = self.clone();
        let mut looks = 0;
        loop {
            let opened = match spot {
                Some(spot) => file.open_at(spot),
                None => file.open().map(Some),
            };
            looks += 1;
            let moved = if file.is_there() || looks == MAX_LOOKS { None } else { file.moved(own) };
            match moved {
                // An open file stays what it is, wherever it is moved.
                Some(moved) if opened.is_err() || file.packed.is_some() => file = moved,
                _ => return (file, opened),
            }
        }
    }

    fn is_there(&self) -> bool {
        Identity::at(&self.path).is_ok_and(|(identity, _)| identity == self.identity)
    }

    /// Where it lies now, or what has taken its place.
    fn moved(&self, own: &OsStr) -> Option<Sibling> {
        let listing = Listing::of(self.path.parent()?);
        let mut same = listing.of_inode(self.identity.inode, OsStr::new(""));
        if let Some(moved) = same.find(|file| file.identity == self.identity) {
            return Some(moved);
        }
        let is_its =
            |file: &Sibling| file.packed.is_some() && file.path.with_extension("") == self.path;
        let mut packed = listing.all().filter(|file| !listing.is_being_packed(file));
        // It keeps its time when it is compressed, unless it is the copy that `logrotate` makes.
        let mut rotated = listing.rotated(own).filter(|file| file.packed.is_some());
        packed.find(is_its).or_else(|| rotated.find(|file| file.written == self.written))
    }

    /// Opens it to be read from its start.
    pub(crate) fn open(&self) -> io::Result<Opened> {
        match self.packed {
            Some(format) => {
                let (file, unpack) = Unpack::open(&self.path, format)?;
                Ok((file, Some(unpack)))
            }
            None => {
                let file = open_log(&self.path)?;
                match Identity::of(&file)? == self.identity {
                    true => Ok((file, None)),
                    false => Err(io::Error::other("it is another file by now")),
                }
            }
        }
    }

    /// Opens it to be read from `spot`, which it holds as far as its head tells. `None` if it ends before.
    pub(crate) fn open_at(&self, spot: &Spot) -> io::Result<Option<Opened>> {
        let (file, mut unpack) = self.open()?;
        if let Some(unpack) = &mut unpack {
            unpack.fill(&file, 0, HEAD as u64)?;
            // In steps, so that what was read before needs no room.
            let mut place = 0;
            while place < spot.offset {
                let keep = place.saturating_sub(1 << 20);
                place = (place + (1 << 20)).min(spot.offset);
                unpack.fill(&file, keep, place)?;
            }
            if file.metadata()?.len() < spot.offset {
                return Ok(None);
            }
            if !spot.fits(&file)? {
                return Err(io::Error::other("does not hold what was read of the log"));
            }
        }
        Ok(Some((file, unpack)))
    }
}

/// The order in which rotated files were written: `x.log.2` before `x.log.1`; others by their times, then by name.
pub(crate) fn sort_by_age(own: &OsStr, files: &mut [Sibling]) {
    let number = |file: &Sibling| -> Option<u32> {
        let name = file.path.file_name()?.to_str()?.strip_prefix(own.to_str()?)?;
        let number: u32 = name.strip_prefix('.')?.split('.').next()?.parse().ok()?;
        (number < MAX_NUMBER).then_some(number)
    };
    if files.iter().all(|file| number(file).is_some()) {
        files.sort_by_key(|file| Reverse(number(file)));
    } else {
        files.sort_by(|a, b| (a.written, &a.path).cmp(&(b.written, &b.path)));
    }
}

/// Of files in the order of their age leaves those out that only hold what another of them holds: copies, and what is
/// just being compressed.
pub(crate) fn leave_out_copies(files: &mut Vec<Sibling>) {
    if files.len() < 2 {
        return;
    }
    // One that cannot be read is kept: whoever reads it says so.
    let heads: Vec<Vec<u8>> = files.iter().map(|file| file.head().unwrap_or_default()).collect();
    let size = |at: usize| files[at].unpacked_size().unwrap_or(0);
    let holds = |all: usize, part: usize| {
        let length = heads[all].len().min(heads[part].len());
        if length == 0 || heads[all][..length] != heads[part][..length] {
            return false;
        }
        match (files[all].packed, files[part].packed) {
            (None, None) => {
                let open = |at: usize| open_log(&files[at].path);
                let both = open(part).and_then(|part| begins_like(&part, &open(all)?));
                both.unwrap_or(false)
            }
            _ => size(all) >= size(part),
        }
    };
    let others = |at: usize| (0..files.len()).filter(move |other| *other != at);
    let is_copy = |at: usize| others(at).any(|all| holds(all, at) && (all > at || !holds(at, all)));
    let mut copies = (0..files.len()).map(is_copy).collect::<Vec<_>>().into_iter();
    files.retain(|_| !copies.next().unwrap_or(false));
}

/// The file in which to read on from `spot`, of a log that was called `own`: the same inode under any name; if there is
/// none, or it was truncated, that which holds most of the copies and compressed files that hold what was read and more.
pub(crate) fn find_rest(
    listing: &Listing,
    own: &OsStr,
    spot: &Spot,
    truncated: bool,
) -> Option<Sibling> {
    if !truncated {
        let same = listing.of_inode(spot.inode, own);
        let mut same = same.filter(|file| spot.may_be(file.identity) && file.packed.is_none());
        let fits = |file: &Sibling| open_log(&file.path).and_then(|file| spot.fits(&file));
        if let Some(file) = same.find(|file| fits(file).unwrap_or(false)) {
            return Some(file);
        }
    }
    // Where nothing was read, any file would do.
    if spot.offset == 0 {
        return None;
    }
    let (plain, packed): (Vec<_>, Vec<_>) =
        listing.rotated(own).partition(|file| file.packed.is_none());
    let (mut rest, mut length) = (None, spot.offset);
    for file in plain {
        let Ok(open) = open_log(&file.path) else { continue };
        let holds = open.metadata().map_or(0, |meta| meta.len());
        if holds > length && spot.was_copied_to(&open).unwrap_or(false) {
            (rest, length) = (Some(file), holds);
        }
    }
    let packed = packed.into_iter().filter(|file| file.changed >= spot.written);
    let mut packed: Vec<Sibling> = packed.filter(|file| begins_as(file, spot)).collect();
    if rest.is_none() && packed.len() < 2 {
        // Whoever reads it finds out how much it holds.
        return packed.pop();
    }
    for file in packed {
        match file.unpacked_size() {
            Ok(holds) if holds > length => (rest, length) = (Some(file), holds),
            Err(_) if rest.is_none() => rest = Some(file),
            _ => {}
        }
    }
    rest
}

/// Whether a file begins with what was read at `spot`. Of a spot at the very start nothing can be said.
pub(crate) fn begins_as(file: &Sibling, spot: &Spot) -> bool {
    spot.head.length() > 0 && file.head().is_ok_and(|head| spot.head.begins(&head))
}

/// Whether `name` is `path`, or goes on where that ends.
pub(crate) fn is_rotated_name(path: &Path, name: &Path) -> bool {
    let (Some(own), Some(other)) = (path.file_name(), name.file_name()) else { return false };
    path.parent() == name.parent() && other.as_bytes().starts_with(own.as_bytes())
}

/// Where files lie that bore the name `path`: beside it, and beside what it leads to if it is a symlink.
pub(crate) fn places(path: &Path) -> Vec<(PathBuf, OsString)> {
    let place = |path: &Path| Some((path.parent()?.to_owned(), path.file_name()?.to_owned()));
    let mut places: Vec<_> = place(path).into_iter().collect();
    let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    if is_link && let Some(target) = path.canonicalize().ok().and_then(|target| place(&target)) {
        places.push(target);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sibling(name: &str, written: i64) -> Sibling {
        let path = PathBuf::from("/log").join(name);
        let packed = Format::of(path.as_os_str());
        Sibling { path, identity: Identity::default(), written, changed: written, size: 1, packed }
    }

    #[track_caller]
    fn order(files: &[(&str, i64)], expect: &str) {
        let mut files: Vec<_> = files.iter().map(|(name, time)| sibling(name, *time)).collect();
        sort_by_age(OsStr::new("x.log"), &mut files);
        let names = files.iter().map(|file| file.path.file_name().expect("named").display());
        assert_eq!(names.map(|name| name.to_string()).collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn rotated_files_are_read_in_the_order_they_were_written() {
        order(
            &[("x.log.1", 9), ("x.log.10.gz", 9), ("x.log.2.gz", 99)],
            "x.log.10.gz x.log.2.gz x.log.1",
        );
        order(&[("x.log-20260102", 2), ("x.log-20260101", 1)], "x.log-20260101 x.log-20260102");
        order(
            &[("x.log-20260102", 1), ("x.log-20260101.gz", 1)],
            "x.log-20260101.gz x.log-20260102",
        );
        order(&[("x.log.old", 1), ("x.log.1", 2)], "x.log.old x.log.1");
        order(&[("x.log.20260101", 1), ("x.log.20260102", 2)], "x.log.20260101 x.log.20260102");
    }

    #[test]
    fn only_names_that_go_on_where_the_own_ends_are_rotated_files() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        for name in ["x.log", "x.log.1", "x.log-2026", "x.logs", "x.lo", "y.log.1", "x.log.2.gz"] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        let names: Vec<_> = Listing::of(dir.path())
            .rotated(OsStr::new("x.log"))
            .map(|file| file.path.file_name().expect("named").to_owned())
            .collect();
        assert_eq!(names, ["x.log-2026", "x.log.1", "x.log.2.gz", "x.logs"]);
    }

    #[test]
    fn the_rest_is_found_by_inode_then_in_a_copy_then_in_a_compressed_one() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("x.log");
        let own = OsStr::new("x.log");
        fs::write(&path, "one\ntwo\n").expect("written");
        fs::write(dir.path().join("x.log.9"), "other\ntwo\n").expect("written");
        let spot = Spot::for_test(&path, 8);
        let found = |spot: &Spot, which| {
            let listing = Listing::of(dir.path());
            let file = find_rest(&listing, own, spot, which)?;
            Some(file.path.file_name().expect("named").to_string_lossy().into_owned())
        };
        assert_eq!(found(&spot, false), None);
        let gzip = |name: &str, text: &str| {
            let file = File::create(dir.path().join(name)).expect("made");
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            io::Write::write_all(&mut gzip, text.as_bytes()).expect("written");
            gzip.finish().expect("written");
        };
        gzip("x.log.3.gz", "something else\n");
        assert_eq!(found(&spot, true), None);
        gzip("x.log.2.gz", "one\ntwo\nthree\n");
        assert_eq!(found(&spot, true).as_deref(), Some("x.log.2.gz"));
        fs::write(dir.path().join("x.log.1"), "one\ntwo\nthree\n").expect("written");
        assert_eq!(found(&spot, true).as_deref(), Some("x.log.1"));
        let later = Spot { written: i64::MAX, ..spot.clone() };
        assert_eq!(found(&later, true), None, "they were there before we read");
        fs::rename(&path, dir.path().join("moved")).expect("renamed");
        assert_eq!(found(&spot, false).as_deref(), Some("moved"));
        let reused = Spot { born: spot.born + 1, ..spot.clone() };
        assert_eq!(found(&reused, false).as_deref(), Some("x.log.1"), "another file by now");
    }
}
