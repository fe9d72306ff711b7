//! Looking again at names: which files they mean now, and where to begin in those that are new.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Codec, FilePosition, FileState, Files, GONE,
    follow::{Followed, MAX_FILES, Name, Reader},
    position::open_log,
    restore::siblings,
    start::{first_dated, first_since, last_line_start},
    tail::{FileId, Tail},
};
use crate::{
    clock::monotonic,
    source::{Report, board::Limit, outbox::Stopped},
};

/// Times within one log may go back by so much.
const DISORDER: Duration = Duration::from_secs(60);

/// A log that is new to us and begins longer ago than this is old. Clocks and time zones are never off by so much.
const OLD: Duration = Duration::from_secs(26 * 3600);

/// Who wants the file at a path: the jail's number, and whether it starts at the end.
type Wishes = Vec<(usize, bool)>;

impl Files {
    /// Looks at every name again. `first` is the look at which what is found was there before us.
    pub(super) fn look(&mut self, first: bool) -> Result<(), Stopped> {
        self.watch.begin_round();
        let mut found: BTreeMap<PathBuf, Wishes> = BTreeMap::new();
        for wanted in &self.wanted {
            let watch = &mut self.watch;
            for path in wanted.pattern.expand(&mut |dir, name| watch.directory(dir, name)) {
                let wishes = found.entry(path).or_default();
                if !wishes.iter().any(|(jail, _)| *jail == wanted.jail) {
                    wishes.push((wanted.jail, wanted.tail));
                }
            }
        }
        self.watch.end_round();
        let surplus = leave_off(&mut found, &self.follow.names, MAX_FILES);
        if surplus > 0 && !self.crowded {
            let what = format!(
                "the globs of these jails match {surplus} files more than the {MAX_FILES} that are \
                 followed: the rest is not read; make the globs narrower"
            );
            self.board.count(Limit::Files, surplus as u64);
            self.outbox.send(Report::Fault { source: "logpath".into(), what })?;
        }
        self.crowded = surplus > 0;
        let lost: Vec<PathBuf> =
            self.follow.names.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        for path in lost {
            self.lose(&path);
        }
        let is_known = |path: &Path| self.stored.contains_key(path.to_string_lossy().as_ref());
        self.there =
            siblings(found.keys().filter(|path| first || (is_known(path) && path.exists())));
        for (path, wishes) in &found {
            self.look_at(path, wishes, first)?;
        }
        if first {
            self.rest_of_others(&found);
            self.remember_siblings(found.keys());
            self.past.clear();
        }
        self.there.clear();
        for id in self.follow.retire(monotonic()) {
            self.watch.forget(id);
            self.settle_copies(id);
        }
        if let Some(error) = self.watch.take_refusal() {
            let what = format!(
                "inotify refused a watch ({error}): looking twice a second instead; raise \
                 `fs.inotify.max_user_watches` and `fs.inotify.max_user_instances`"
            );
            self.outbox.send(Report::Fault { source: "inotify".into(), what })?;
        }
        Ok(())
    }

    /// Reads what is left of logs that were read before and that no glob finds now.
    fn rest_of_others(&mut self, found: &BTreeMap<PathBuf, Wishes>) {
        let stored: Vec<PathBuf> = self.stored.keys().map(PathBuf::from).collect();
        for path in stored.into_iter().filter(|path| !found.contains_key(path)) {
            let mut wishes: Wishes = Vec::new();
            for wanted in self.wanted.iter().filter(|wanted| wanted.pattern.fits(&path)) {
                if !wishes.iter().any(|(jail, _)| *jail == wanted.jail) {
                    wishes.push((wanted.jail, wanted.tail));
                }
            }
            let jails: Vec<usize> = wishes.iter().map(|(jail, _)| *jail).collect();
            if let Some(last) = self.begin_without(&path, &jails) {
                self.note(&path, &wishes, Some(last));
                if let Some(name) = self.follow.names.get_mut(&path) {
                    (name.state, name.lost) = (FileState::Gone, Some(monotonic()));
                }
            }
        }
    }

    /// A name that a glob found is no longer there.
    fn lose(&mut self, path: &Path) {
        let Some(name) = self.follow.names.get_mut(path) else { return };
        // It is remembered for a while: after a rotation a new file will bear it.
        if name.lost.replace(monotonic()).is_some() {
            return;
        }
        if name.state == FileState::Following {
            name.gone = Some(monotonic() + GONE);
        }
        name.state = FileState::Gone;
        for jail in &name.jails {
            self.board.lose(&self.jails[*jail].name, path);
        }
    }

    fn look_at(&mut self, path: &Path, wishes: &Wishes, first: bool) -> Result<(), Stopped> {
        let state = match fs::metadata(path) {
            Ok(meta) => self.found(path, wishes, FileId::of(&meta), first)?,
            Err(error) if is_missing(&error) => {
                let jails: Vec<usize> = wishes.iter().map(|(jail, _)| *jail).collect();
                if let Some(last) = self.begin_without(path, &jails) {
                    self.note(path, wishes, Some(last));
                }
                match self.follow.names.get(path).map(|name| &name.state) {
                    Some(FileState::Following | FileState::Gone) => FileState::Gone,
                    _ => FileState::Waiting,
                }
            }
            Err(error) => FileState::Unreadable(error.to_string()),
        };
        if !self.follow.names.contains_key(path) {
            self.note(path, wishes, None);
        }
        self.set_state(path.to_owned(), state)
    }

    /// Notes what a name means; its state is still to be set.
    fn note(&mut self, path: &Path, wishes: &Wishes, file: Option<FileId>) {
        let jails = wishes.iter().map(|(jail, _)| *jail).collect();
        let known = self.follow.names.get(path);
        let gone = known.and_then(|name| name.gone);
        let state = known.map(|name| name.state.clone());
        // Of a state that stays as it is nothing is said, so a new name must begin with another than it will have.
        let state = state.unwrap_or_else(|| FileState::Unreadable(String::new()));
        self.follow.names.insert(path.to_owned(), Name { file, state, jails, lost: None, gone });
    }

    /// `path` means the file `id`.
    fn found(
        &mut self,
        path: &Path,
        wishes: &Wishes,
        id: FileId,
        first: bool,
    ) -> Result<FileState, Stopped> {
        let old = self.follow.names.get(path).and_then(|name| name.file);
        if self.follow.files.contains_key(&id) {
            // Found already beside another log; what had this name before is not to be read again either.
            let before = self.stored.remove(path.to_string_lossy().as_ref());
            for spot in before.iter().flat_map(FilePosition::spots) {
                self.follow.put_aside(path, spot.clone());
            }
            if let Err(error) = self.attach(path, wishes, id, first) {
                return Ok(FileState::Unreadable(error.to_string()));
            }
        } else {
            if self.follow.files.len() >= MAX_FILES {
                let what = format!("more than {MAX_FILES} files in this group");
                return Ok(FileState::Unreadable(what));
            }
            let key = path.to_string_lossy();
            let stored = self.stored.get(key.as_ref()).cloned();
            let mut begun =
                open_log(path).and_then(|file| self.begin(path, wishes, file, old, first));
            if begun.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
                // Truncated meanwhile: what was read of it is to be found in a copy.
                self.stored.extend(stored.map(|position| (key.into_owned(), position)));
                begun = open_log(path).and_then(|file| self.begin(path, wishes, file, old, first));
            }
            match begun {
                // It was replaced between being found and being opened: what was opened counts.
                Ok(opened) => {
                    self.note(path, wishes, Some(opened));
                    self.tell_rotation(path, old, opened)?;
                    return Ok(FileState::Following);
                }
                Err(error) if is_missing(&error) => return Ok(FileState::Waiting),
                Err(error) => return Ok(FileState::Unreadable(error.to_string())),
            }
        }
        self.note(path, wishes, Some(id));
        self.tell_rotation(path, old, id)?;
        Ok(FileState::Following)
    }

    fn tell_rotation(
        &mut self,
        path: &Path,
        old: Option<FileId>,
        new: FileId,
    ) -> Result<(), Stopped> {
        let Some(old) = old.filter(|old| *old != new) else { return Ok(()) };
        // Its last lines are read before the first of the new file.
        self.follow.wake(old);
        let how = self.follow.how_rotated(path, old);
        self.outbox.send(Report::Rotated { path: path.to_owned(), how })
    }

    /// A file that is followed already has this name, perhaps a new one.
    fn attach(&mut self, path: &Path, wishes: &Wishes, id: FileId, first: bool) -> io::Result<()> {
        let Some(followed) = self.follow.files.get_mut(&id) else { return Ok(()) };
        if followed.name != path {
            followed.name = path.to_owned();
            followed.gauge = self.board.gauge(path);
        }
        let known: Vec<usize> = followed.readers.iter().map(|reader| reader.jail).collect();
        for &(jail, tail) in wishes.iter().filter(|(jail, _)| !known.contains(jail)) {
            let Some(followed) = self.follow.files.get(&id) else { return Ok(()) };
            let here = followed.tail.line_start();
            let reader = if first {
                let file = followed.tail.file.try_clone()?;
                self.first_reader(jail, tail, &file, 0)?
            } else {
                Reader::new(jail, here, true)
            };
            let Some(followed) = self.follow.files.get_mut(&id) else { return Ok(()) };
            if reader.from < here {
                for other in &mut followed.readers {
                    other.from = other.from.max(here);
                }
                followed.tail.move_to(reader.from)?;
            }
            followed.readers.push(reader);
            self.follow.wake(id);
        }
        Ok(())
    }

    /// Begins with a file that was not followed before; `old` had its name.
    fn begin(
        &mut self,
        path: &Path,
        wishes: &Wishes,
        file: File,
        old: Option<FileId>,
        first: bool,
    ) -> io::Result<FileId> {
        let id = FileId::of(&file.metadata()?);
        let mut after = old.filter(|old| self.follow.files.contains_key(old));
        let jails: Vec<usize> = wishes.iter().map(|(jail, _)| *jail).collect();
        let stored = self.stored.remove(path.to_string_lossy().as_ref());
        let mut claim = None;
        if let Some(position) = &stored {
            let same = position.spot.is_in(&file)?;
            // In a file of which nothing was read, other content may have come and gone.
            let unbroken = same && position.spot.offset > 0;
            claim = same.then(|| (position.spot.offset, position.jails.clone()));
            let last = self.begin_rotated(path, &jails, position, Some(&file), (same, unbroken))?;
            after = last.or(after);
        }
        if claim.is_none() {
            let codec = jails.first().map_or(Codec::AUTO, |jail| self.codecs[*jail]);
            claim = self.claimed(path, &file, codec)?;
        }
        let copy_of = self.follow.original_of(path, &file);
        let found = first || stored.is_some() || claim.is_some();
        let mut readers = Vec::with_capacity(wishes.len());
        for &(jail, tail) in wishes {
            let name = self.jails[jail].name.to_string();
            let known = claim.as_ref().filter(|(_, jails)| jails.contains(&name));
            let from = known.map_or(0, |(from, _)| *from);
            readers.push(match found && copy_of.is_none() {
                true => self.first_reader(jail, tail, &file, from)?,
                false => Reader::new(jail, 0, true),
            });
        }
        let last_line = old.and_then(|old| self.follow.files.get(&old));
        let last_line = last_line.map(|old| (old.tail.last_line().to_vec(), old.tail.written()));
        self.follow_file(path, file, readers, copy_of)?;
        if !found && copy_of.is_none() {
            let floor = last_line.as_ref().map_or(0, |(_, written)| *written);
            after = self.missed(path, &jails, after, floor);
            self.judge_beginning(id, last_line.as_ref().map(|(line, _)| line.as_slice()))?;
        }
        if let Some(followed) = self.follow.files.get_mut(&id) {
            followed.after = after.filter(|after| *after != id);
        }
        Ok(id)
    }

    /// Begins to follow an open file at the first place that one of its readers wants.
    fn follow_file(
        &mut self,
        path: &Path,
        file: File,
        readers: Vec<Reader>,
        copy_of: Option<FileId>,
    ) -> io::Result<()> {
        let start = readers.iter().map(|reader| reader.from).min().unwrap_or(0);
        let tail = Tail::new(file, self.codec_of(&readers).line_end(), start)?;
        self.watch.file(tail.id, &tail.file);
        let (name, grew, gauge) = (path.to_owned(), monotonic(), self.board.gauge(path));
        self.follow.add(Followed {
            tail,
            name,
            readers,
            after: None,
            at_end: false,
            orphan: false,
            grew,
            copy_of,
            fresh: start == 0,
            gauge,
        });
        Ok(())
    }

    /// Where a jail begins in a file that was there before us: not before `from`, which must be the start of a line.
    pub(super) fn first_reader(
        &mut self,
        jail: usize,
        tail: bool,
        file: &File,
        from: u64,
    ) -> io::Result<Reader> {
        let size = file.metadata()?.len();
        if tail {
            let from = last_line_start(file, size, self.codecs[jail])?;
            return Ok(Reader::new(jail, from, true));
        }
        let now = (self.clock)();
        let (since, codec) = (self.jails[jail].since(now), self.codecs[jail]);
        let mut time_of = |line: &str| self.jails[jail].time_of(line, now);
        let from = first_since(file, from, size.max(from), since, codec, &mut time_of)?;
        Ok(Reader::new(jail, from, false))
    }

    /// A log that begins anew is taken to hold what was written just now, whatever its lines say of the time: the
    /// clock or time zone of their writer may be wrong. Unless it begins before the old one ended (`last_line`), or
    /// long ago: then someone put old lines there, and they are judged by their times.
    pub(super) fn judge_beginning(
        &mut self,
        id: FileId,
        last_line: Option<&[u8]>,
    ) -> io::Result<()> {
        let Some(followed) = self.follow.files.get(&id) else { return Ok(()) };
        let Some(jail) = followed.readers.first().map(|reader| reader.jail) else { return Ok(()) };
        let (file, start) = (followed.tail.file.try_clone()?, followed.tail.line_start());
        let size = file.metadata()?.len();
        let (now, codec) = ((self.clock)(), self.codecs[jail]);
        let mut time_of = |line: &str| self.jails[jail].time_of(line, now);
        let Some((first, ..)) = first_dated(&file, start, size, codec, &mut time_of)? else {
            return Ok(());
        };
        let limit = match last_line.filter(|line| !line.is_empty()) {
            Some(line) => time_of(&codec.text(line)).map(|last| last.minus(DISORDER)),
            None => Some(now.minus(OLD)),
        };
        if limit.is_none_or(|limit| first >= limit) {
            return Ok(());
        }
        let mut readers = Vec::new();
        for jail in followed.readers.iter().map(|reader| reader.jail).collect::<Vec<_>>() {
            readers.push(self.first_reader(jail, false, &file, start)?);
        }
        let start = readers.iter().map(|reader| reader.from).min().unwrap_or(start);
        if let Some(followed) = self.follow.files.get_mut(&id) {
            followed.readers = readers;
            followed.tail.move_to(start)?;
        }
        Ok(())
    }
}

/// Leaves off the names beyond `most`, those first that were not known before; answers how many.
fn leave_off<T, K>(
    found: &mut BTreeMap<PathBuf, T>,
    known: &BTreeMap<PathBuf, K>,
    most: usize,
) -> usize {
    let surplus = found.len().saturating_sub(most);
    let mut left = surplus;
    for only_new in [true, false] {
        found.retain(|path, _| {
            let stays = left == 0 || (only_new && known.contains_key(path));
            left -= usize::from(!stays);
            stays
        });
    }
    surplus
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: &str, known: &str, most: usize, expect: &str) {
        let names = |text: &str| text.chars().map(|name| (name.to_string().into(), ())).collect();
        let (mut found, known): (BTreeMap<PathBuf, ()>, _) = (names(found), names(known));
        let surplus = found.len() - expect.len();
        assert_eq!(leave_off(&mut found, &known, most), surplus);
        assert_eq!(found, names(expect));
    }

    #[test]
    fn files_that_are_followed_stay_when_there_are_too_many() {
        check("abc", "", 3, "abc");
        check("abcd", "abc", 3, "abc");
        check("abcd", "bcd", 3, "bcd");
        check("abcd", "d", 2, "cd");
        check("abcd", "abcd", 2, "cd");
    }
}
