//! What was written where nobody looked: the unread rest of files that bore a log's name before, found by inode and by
//! the bytes they begin with, compressed ones too.
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Codec, FilePosition, FilePositions, Files,
    follow::{Followed, Reader},
    position::{HEAD, Spot},
    rotated::{
        Identity, Listing, Opened, Sibling, begins_as, find_rest, leave_out_copies, places,
        sort_by_age, steady,
    },
    standing::Standing,
    start::last_line_start,
    tail::{FileId, Tail},
};
use crate::{
    clock::monotonic,
    source::{Report, board::Limit},
};

/// Files that came and went between two looks at one name and are read; of more the oldest are left out.
const MAX_MISSED: usize = 64;

/// A file may have been written to for so long after the next one had taken its name, in microseconds.
const OVERLAP: i64 = 2_000_000;

/// Which files are there, by the directories they lie in: what was not there before came since.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<PathBuf, HashSet<Identity>>);

impl Seen {
    fn knows(&self, dir: &Path, file: &Sibling) -> bool {
        self.0.get(dir).is_some_and(|known| known.contains(&file.identity))
    }

    fn add(&mut self, dir: &Path, listing: &Listing, files: impl Iterator<Item = Identity>) {
        let known = self.0.entry(dir.to_owned()).or_default();
        known.extend(files);
        let inodes = listing.inodes();
        // Files that are gone must not add up.
        if known.len() > 2 * inodes.len() + 64 {
            known.retain(|identity| inodes.contains(&identity.inode));
        }
    }
}

/// Which files there are beside some logs, by directory.
pub(super) type There = BTreeMap<PathBuf, (Listing, HashSet<Identity>)>;

/// What there is beside these logs.
pub(super) fn siblings<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> There {
    let mut there = There::new();
    for (dir, _) in paths.flat_map(|path| places(path)) {
        there.entry(dir).or_insert_with_key(|dir| {
            let listing = Listing::of(dir);
            let known = listing.all().map(|file| file.identity).collect();
            (listing, known)
        });
    }
    there
}

/// Where a rest is to be read from, and by whom.
struct Rest<'a> {
    /// The name of the log that it belongs to.
    path: &'a Path,
    jails: Vec<usize>,
    /// The start of the first line to be read.
    from: u64,
    /// To be read first.
    after: Option<FileId>,
    /// It was written while nobody looked, so its lines are judged by their times.
    old: bool,
}

impl Files {
    /// What `look` finds in what lies in one place of the log `path`, when nothing there moved meanwhile.
    fn search<T>(&self, path: &Path, dir: &Path, look: impl FnMut(&Listing) -> T) -> (Listing, T) {
        let (listing, found) = steady(|| Listing::of(dir), look);
        let left_out = listing.left_out;
        if left_out > 0 {
            let what = format!("{left_out} files beside it were not looked at");
            self.limit(path, Limit::Siblings, left_out, what);
        }
        (listing, found)
    }

    /// Counts that a limit was reached, and says so.
    pub(super) fn limit(&self, path: &Path, limit: Limit, by: usize, what: String) {
        self.board.count(limit, by as u64);
        self.outbox.tell(Report::Fault { source: path.display().to_string(), what });
    }

    /// Takes what lay beside these logs before they were looked at for what was there before.
    pub(super) fn remember_siblings<'a>(&mut self, paths: impl Iterator<Item = &'a PathBuf>) {
        let mut there = std::mem::take(&mut self.there);
        for path in paths {
            for (dir, own) in places(path) {
                let Some((listing, known)) = there.get_mut(&dir) else { continue };
                // Those that may be copies of what is still to be read will matter when that is truncated.
                let mut logs = self.follow.files.values().filter(|file| file.name == *path);
                let Some(log) = logs.find(|log| log.tail.offset() == 0) else { continue };
                let floor = log.tail.written();
                for file in listing.rotated(&own).filter(|file| file.is_as_new_as(floor)) {
                    if matches!(self.standing(path, &file, None, &[]), Standing::Copy(_)) {
                        known.remove(&file.identity);
                    }
                }
            }
        }
        for (dir, (listing, known)) in there {
            self.seen.add(&dir, &listing, known.into_iter());
        }
    }

    /// Begins with the unread rest of the files that had the name while nobody looked; answers the last of them.
    /// `current` is the file that has the name now. `same` says that it is the one of the stored position, `unbroken`
    /// that nothing can have come between.
    pub(super) fn begin_rotated(
        &mut self,
        path: &Path,
        jails: &[usize],
        position: &FilePosition,
        current: Option<&File>,
        (same, unbroken): (bool, bool),
    ) -> io::Result<Option<FileId>> {
        let places = places(path);
        let own_jails =
            |jail: &&usize| position.jails.contains(&self.jails[**jail].name.to_string());
        let jails: Vec<usize> = jails.iter().filter(own_jails).copied().collect();
        let (mut last, mut handled) = (None, HashSet::new());
        let mut floor = position.spot.written;
        let unfinished = position.earlier.iter().chain((!same).then_some(&position.spot));
        let read_on = |spot: &Spot| {
            position.spots().any(|other| other.offset > spot.offset && other.goes_on_after(spot))
        };
        let spots: Vec<&Spot> = unfinished.filter(|spot| !read_on(spot)).collect();
        let mut rests: Vec<Option<Sibling>> = vec![None; spots.len()];
        for (dir, own) in &places {
            let (_, found) = self.search(path, dir, |listing| {
                let rest = |spot: &&Spot| find_rest(listing, own, spot, false);
                spots.iter().map(rest).collect::<Vec<_>>()
            });
            for (rest, found) in rests.iter_mut().zip(found) {
                *rest = rest.take().or(found);
            }
        }
        let known: Vec<Spot> = position.spots().cloned().chain(self.known_of(path)).collect();
        for (spot, file) in spots.into_iter().zip(rests) {
            let Some(file) = file else { continue };
            floor = floor.min(file.written);
            // It may be a copy of what is read elsewhere, or one of which nothing was read may have become one since.
            match self.standing(path, &file, current, &known) {
                Standing::Copy(_) => continue,
                standing if spot.offset == 0 && standing != Standing::New => continue,
                _ => {}
            }
            if handled.insert(file.identity) {
                let rest =
                    Rest { path, jails: jails.clone(), from: spot.offset, after: last, old: true };
                last = self.follow_rest(&file, Some(spot), rest).or(last);
            }
        }
        // Of what is gone from here another copy may come.
        for spot in position.spots().filter(|spot| !same || *spot != &position.spot) {
            self.follow.put_aside(path, spot.clone());
        }
        for (dir, own) in &places {
            let (listing, (newer, seen)) = self.search(path, dir, |listing| {
                let (mut newer, mut seen) = (Vec::new(), Vec::new());
                // If the log moved on since it was opened, what has come meanwhile is read after it.
                let moved = current.is_some_and(|current| !bears(path, current));
                let before = self.there.get(dir).filter(|_| moved).map(|(_, known)| known);
                let was_there =
                    |file: &Sibling| before.is_none_or(|known| known.contains(&file.identity));
                for file in listing.rotated(own).filter(was_there) {
                    if unbroken || handled.contains(&file.identity) || !file.is_as_new_as(floor) {
                        seen.push(file.identity);
                        continue;
                    }
                    let standing = self.standing(path, &file, current, &known);
                    if !matches!(standing, Standing::Copy(_)) {
                        seen.push(file.identity);
                    }
                    match standing {
                        Standing::New if self.is_claimed(path, &file) => {}
                        Standing::New | Standing::Rest(..) => newer.push((file, standing)),
                        Standing::Read | Standing::Copy(_) => {}
                    }
                }
                (newer, seen)
            });
            self.seen.add(dir, &listing, seen.into_iter());
            last = self.follow_missed(path, own, newer, &jails, last, true);
        }
        Ok(last)
    }

    fn is_claimed(&self, path: &Path, file: &Sibling) -> bool {
        let plain = file.packed.is_none();
        let claim = || file.open().and_then(|(file, _)| self.claimed(path, &file, Codec::AUTO));
        plain && claim().is_ok_and(|it| it.is_some())
    }

    /// Begins with the rest of a log that is not there now; answers the last file that bore its name.
    pub(super) fn begin_without(&mut self, path: &Path, jails: &[usize]) -> Option<FileId> {
        let key = path.to_string_lossy().into_owned();
        let position = self.stored.remove(&key)?;
        let last = self.begin_rotated(path, jails, &position, None, (false, false));
        let last = last.ok().flatten();
        if last.is_none() {
            self.stored.insert(key, position);
        }
        last
    }

    /// Begins with the files that bore the name `path` since they were last looked for, and are called otherwise by
    /// now: they came and went between two looks. Answers the last of them, or `last`, which is to be read first.
    /// `floor` is a time when they cannot have been written to their ends yet.
    pub(super) fn missed(
        &mut self,
        path: &Path,
        jails: &[usize],
        mut last: Option<FileId>,
        floor: i64,
    ) -> Option<FileId> {
        for (dir, own) in places(path) {
            let known = self.known_of(path);
            let (listing, (new, seen)) = self.search(path, &dir, |listing| {
                let (mut new, mut seen) = (Vec::new(), Vec::new());
                for file in listing.rotated(&own).filter(|file| !self.seen.knows(&dir, file)) {
                    let standing = match file.is_as_new_as(floor - OVERLAP) {
                        true => self.standing(path, &file, None, &known),
                        false => Standing::Read,
                    };
                    if !matches!(standing, Standing::Copy(_)) {
                        seen.push(file.identity);
                    }
                    match standing {
                        Standing::New | Standing::Rest(..) => new.push((file, standing)),
                        Standing::Read | Standing::Copy(_) => {}
                    }
                }
                (new, seen)
            });
            self.seen.add(&dir, &listing, seen.into_iter());
            last = self.follow_missed(path, &own, new, jails, last, false);
        }
        last
    }

    /// Follows files that are new to us, each from its start or a spot, in the order they were written.
    fn follow_missed(
        &mut self,
        path: &Path,
        own: &OsStr,
        files: Vec<(Sibling, Standing)>,
        jails: &[usize],
        mut last: Option<FileId>,
        old: bool,
    ) -> Option<FileId> {
        let standings: HashMap<Identity, Standing> =
            files.iter().map(|(file, standing)| (file.identity, standing.clone())).collect();
        let mut files: Vec<Sibling> = files.into_iter().map(|(file, _)| file).collect();
        sort_by_age(own, &mut files);
        leave_out_copies(&mut files);
        let surplus = files.len().saturating_sub(MAX_MISSED);
        if surplus > 0 {
            let what = format!(
                "{surplus} rotated files are not read: more than {MAX_MISSED} came at once"
            );
            self.limit(path, Limit::Missed, surplus, what);
        }
        for file in files.drain(surplus..) {
            let (spot, part) = match standings.get(&file.identity) {
                Some(Standing::Rest(spot, part)) => (Some(spot), *part),
                _ => (None, None),
            };
            let from = spot.map_or(0, |spot| spot.offset);
            let rest = Rest { path, jails: jails.to_vec(), from, after: last, old };
            let followed = self.follow_rest(&file, spot, rest);
            if let (Some(id), Some(part)) = (followed, part) {
                self.take_over(id, part);
            }
            last = followed.or(last);
        }
        last
    }

    /// Follows a file for its rest; answers it, or nothing if it cannot be read, which is told.
    fn follow_rest(
        &mut self,
        file: &Sibling,
        spot: Option<&Spot>,
        rest: Rest<'_>,
    ) -> Option<FileId> {
        let own = rest.path.file_name().unwrap_or_default();
        let (file, opened) = file.open_now(own, spot);
        let followed = opened.and_then(|opened| {
            opened.map(|opened| self.follow_opened(&file, opened, &rest)).transpose()
        });
        match followed {
            Ok(id) => id,
            Err(error) => {
                let what = format!(
                    "its rest in `{}` cannot be read ({error}): lines may be lost",
                    file.path.display()
                );
                self.limit(rest.path, Limit::Unreadable, 1, what);
                None
            }
        }
    }

    fn follow_opened(
        &mut self,
        sibling: &Sibling,
        (file, mut unpack): Opened,
        rest: &Rest<'_>,
    ) -> io::Result<FileId> {
        if let Some(unpack) = &mut unpack {
            // By these bytes its copies are known.
            unpack.fill(&file, 0, HEAD as u64)?;
        }
        let mut id = FileId::of(&file.metadata()?);
        // What is unpacked already lies in another file.
        let mut others = self.follow.files.values();
        let same = |known: &&Followed| known.tail.identity() == sibling.identity;
        if let Some(known) = others.find(same).filter(|_| sibling.packed.is_some()) {
            id = known.tail.id;
        }
        let new = |jail: &usize| Reader::new(*jail, 0, !rest.old);
        if let Some(known) = self.follow.files.get_mut(&id) {
            if known.copy_of.take().is_some() || known.fresh {
                known.readers = rest.jails.iter().map(new).collect();
                known.begin_at(rest.from)?;
            }
            self.follow.wake(id);
            return Ok(id);
        }
        let mut readers = Vec::with_capacity(rest.jails.len());
        for jail in &rest.jails {
            readers.push(match rest.old && unpack.is_none() {
                true => self.first_reader(*jail, false, &file, rest.from)?,
                false => Reader { from: rest.from, ..new(jail) },
            });
        }
        let start = readers.iter().map(|reader| reader.from).min().unwrap_or(rest.from);
        let end = self.codec_of(&readers).line_end();
        let tail = Tail::new(file, end, start)?.unpacking(unpack, sibling);
        self.watch.file(tail.id, &tail.file);
        self.follow.add(Followed {
            tail,
            name: rest.path.to_owned(),
            readers,
            after: rest.after,
            at_end: false,
            orphan: true,
            grew: monotonic(),
            copy_of: None,
            fresh: sibling.size == 0,
            gauge: Arc::default(),
        });
        Ok(id)
    }

    /// By what the first of the readers decodes.
    pub(super) fn codec_of(&self, readers: &[Reader]) -> Codec {
        readers.first().map_or(Codec::AUTO, |reader| self.codecs[reader.jail])
    }

    /// The file's content was replaced. Goes on at its start, after what only files beside it still hold.
    pub(super) fn truncated(&mut self, id: FileId) -> io::Result<()> {
        let Some(followed) = self.follow.files.get(&id) else { return Ok(()) };
        // A glob may have found it under another name since: its copies go by that of the log.
        let logs = self.logs_of(&followed.name);
        let name = logs.first().map_or_else(|| followed.name.clone(), |log| log.to_path_buf());
        let Some(followed) = self.follow.files.get_mut(&id) else { return Ok(()) };
        let spot = followed.tail.spot_in_memory();
        let (from, unread) = (followed.tail.line_start(), followed.tail.unread());
        let (last_line, read) = (followed.tail.last_line().to_vec(), followed.tail.spot());
        followed.tail.start_over()?;
        followed.fresh = true;
        let start = followed.tail.line_start();
        for reader in &mut followed.readers {
            *reader = Reader { from: start, caught_up: true, ..*reader };
        }
        let (before, after) = (followed.readers.clone(), followed.after);
        let jails: Vec<usize> = before.iter().map(|reader| reader.jail).collect();
        let (mut copy, mut is_copied) = (None, false);
        for (dir, own) in places(&name) {
            let (listing, found) =
                self.search(&name, &dir, |listing| find_rest(listing, &own, &spot, true));
            is_copied |= found.is_some() || holds_all(&listing, &own, &spot);
            copy = copy.or(found);
        }
        let mut last = after;
        match copy {
            Some(file) => {
                let rest =
                    Rest { path: &name, jails: jails.clone(), from, after: last, old: false };
                last = self.follow_rest(&file, Some(&spot), rest).or(last);
            }
            // It may have held more, of which nobody knows.
            None if unread > 0 && !is_copied => {
                let what =
                    format!("truncated with {unread} bytes unread that no copy beside it holds");
                self.limit(&name, Limit::Truncated, 1, what);
            }
            None => {}
        }
        let floor = read.written;
        self.follow.put_aside(&name, read);
        last = self.missed(&name, &jails, last, floor);
        if let Some(followed) = self.follow.files.get_mut(&id) {
            followed.after = last;
        }
        self.settle_copies(id);
        self.judge_beginning(id, Some(&last_line))
    }

    /// Looks for what came and went before the first bytes that are read of a file; answers whether these are to be
    /// read at all.
    pub(super) fn before_first_bytes(&mut self, id: FileId) -> io::Result<bool> {
        let Some(followed) = self.follow.files.get_mut(&id) else { return Ok(false) };
        let floor = followed.tail.written();
        followed.fresh &= followed.tail.offset() == 0;
        // Changed and empty again says that something came and went.
        if !followed.fresh || !followed.tail.has_changed()? {
            return Ok(true);
        }
        // It was empty when it was found: a copy may be being made in it.
        let standing = if followed.tail.size() > 0 { self.place(id)? } else { Standing::New };
        let Some(followed) = self.follow.files.get(&id) else { return Ok(false) };
        if standing == Standing::New && !followed.orphan {
            let (name, after) = (followed.name.clone(), followed.after);
            let jails: Vec<usize> = followed.readers.iter().map(|reader| reader.jail).collect();
            let last = self.missed(&name, &jails, after, floor);
            if let Some(followed) = self.follow.files.get_mut(&id) {
                followed.after = last;
            }
        }
        Ok(!matches!(standing, Standing::Copy(Some(_))))
    }

    /// Finds out what a file is to us of which nothing was read yet, and where to begin in it.
    pub(super) fn place(&mut self, id: FileId) -> io::Result<Standing> {
        let standing = self.filled(id)?;
        let Some(followed) = self.follow.files.get(&id) else { return Ok(standing) };
        let codec = self.codec_of(&followed.readers);
        let size = followed.tail.file.metadata()?.len();
        let Some(followed) = self.follow.files.get_mut(&id) else { return Ok(standing) };
        let from = match &standing {
            Standing::New => 0,
            Standing::Rest(spot, _) => spot.offset,
            Standing::Read => last_line_start(&followed.tail.file, size, codec)?,
            Standing::Copy(original) => {
                followed.copy_of = *original;
                0
            }
        };
        if from > followed.tail.offset() {
            followed.begin_at(from)?;
        }
        if let Standing::Rest(_, Some(part)) = standing {
            self.take_over(id, part);
        }
        Ok(standing)
    }

    /// How far everything was read, in a form that can be stored.
    ///
    /// # Errors
    /// A file could not be read.
    pub(crate) fn positions(&self) -> io::Result<FilePositions> {
        let mut positions = self.stored.clone();
        let spot = |file: &Followed| {
            let original = file.copy_of.and_then(|original| self.follow.files.get(&original));
            let Some(original) = original else { return Ok(file.tail.spot()) };
            // What a copy holds is read in its original.
            let read = original.tail.spot();
            if read.fits(&file.tail.file)? {
                let Identity { inode, born } = file.tail.identity();
                return Ok(Spot { inode, born, ..read });
            }
            let codec = self.codec_of(&file.readers);
            let file = file.tail.file.try_clone()?;
            let end = last_line_start(&file, file.metadata()?.len(), codec)?;
            Tail::new(file, codec.line_end(), end).map(|tail| tail.spot())
        };
        let name = |jail: usize| self.jails[jail].name.to_string();
        positions.extend(self.follow.positions(name, spot)?);
        Ok(positions)
    }

    /// Whether a file is open here.
    #[cfg(test)]
    pub(crate) fn holds(&self, file: &File) -> bool {
        let id = file.metadata().map(|meta| FileId::of(&meta));
        id.is_ok_and(|id| self.follow.files.contains_key(&id))
    }
}

/// Whether `path` means this open file.
fn bears(path: &Path, file: &File) -> bool {
    let same = |meta: fs::Metadata| Ok(FileId::of(&meta) == FileId::of(&file.metadata()?));
    fs::metadata(path).and_then(same).unwrap_or(false)
}

/// Whether some copy holds all that was read.
fn holds_all(listing: &Listing, own: &OsStr, spot: &Spot) -> bool {
    listing.rotated(own).any(|file| match file.packed {
        Some(_) => begins_as(&file, spot),
        None => file.open().and_then(|(file, _)| spot.was_copied_to(&file)).unwrap_or(false),
    })
}
