//! What a file beside a log is to us, decided by what it holds: times and names prove little.
use std::{ffi::OsStr, fs::File, io, os::unix::ffi::OsStrExt, path::Path};

use super::{
    Codec, Files,
    follow::{Followed, MAX_FILES, begins_like},
    position::{Spot, head_of, open_log},
    rotated::{Identity, Sibling, is_rotated_name},
    start::last_line_start,
    tail::FileId,
};

/// What a file beside a log is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing that it holds is read elsewhere.
    New,
    /// What it holds was read up to here. If a file is named, that holds the beginning and is to be read no longer.
    Rest(Spot, Option<FileId>),
    /// It is followed, or holds what was read.
    Read,
    /// It holds what another file holds, which may be followed; should that be truncated, it will matter.
    Copy(Option<FileId>),
}

/// What a file holds.
struct Content<'a> {
    /// Its first bytes.
    head: Vec<u8>,
    /// Itself, unless it is compressed.
    plain: Option<&'a File>,
    /// Its length, unpacked.
    size: &'a dyn Fn() -> u64,
}

impl Files {
    /// How far a file was read before, under whatever name, or what it is a copy of; `codec` decodes it.
    pub(super) fn claimed(
        &self,
        path: &Path,
        file: &File,
        codec: Codec,
    ) -> io::Result<Option<(u64, Vec<String>)>> {
        let identity = Identity::of(file)?;
        let (head, size, logs) = (head_of(file)?, file.metadata()?.len(), self.logs_of(path));
        let stored = self.past.iter().chain(&self.stored);
        let stored = stored.flat_map(|(name, position)| {
            position.spots().map(move |spot| (Path::new(name), spot, Some(&position.jails)))
        });
        let retired = self.follow.retired.iter();
        let retired = retired
            .flat_map(|(name, spots)| spots.iter().map(move |spot| (name.as_path(), spot, None)));
        let mut known: Option<(u64, Option<&Vec<String>>)> = None;
        for (name, spot, jails) in stored.chain(retired) {
            // Of a copy of what was read only the rest is new.
            let other = |log: &&Path| *log != path && is_rotated_name(log, name);
            let copy = spot.offset > 0 && (is_rotated_name(name, path) || logs.iter().any(other));
            let from = if (spot.may_be(identity) || copy) && spot.fits(file)? {
                spot.offset
            } else if copy && name != path && size < spot.offset && spot.head.agrees(&head) {
                last_line_start(file, size, codec)?
            } else {
                continue;
            };
            if known.is_none_or(|(offset, _)| from > offset) {
                known = Some((from, jails));
            }
        }
        let all = || self.jails.iter().map(|jail| jail.name.to_string()).collect();
        Ok(known.map(|(from, jails)| (from, jails.cloned().unwrap_or_else(all))))
    }

    /// The logs whose names `path` goes on from, shortest first, and itself.
    pub(super) fn logs_of<'a>(&'a self, path: &'a Path) -> Vec<&'a Path> {
        let own = path.file_name().unwrap_or_default().as_bytes();
        let dir = path.parent().unwrap_or(path);
        let shorter = (1..own.len()).map(|length| dir.join(OsStr::from_bytes(&own[..length])));
        let known = shorter.filter_map(|log| self.follow.names.get_key_value(&log));
        known.map(|(log, _)| log.as_path()).chain([path]).collect()
    }

    /// Whether this is the name of a log, and not of a rotated file of one.
    fn is_log(&self, name: &Path) -> bool {
        self.logs_of(name) == [name]
    }

    /// From now on `id` is read, which holds all that `part` does.
    pub(super) fn take_over(&mut self, id: FileId, part: FileId) {
        if let Some(part) = self.follow.files.get_mut(&part).filter(|part| part.tail.id != id) {
            part.copy_of = Some(id);
        }
    }

    /// What is known of the files that bear or bore the name `path`, and are not followed.
    pub(super) fn known_of(&self, path: &Path) -> Vec<Spot> {
        let logs = self.logs_of(path);
        let of_this_log = |name: &Path| logs.iter().any(|log| is_rotated_name(log, name));
        let stored = self.stored.iter().filter(|(name, _)| of_this_log(Path::new(name)));
        let stored = stored.flat_map(|(_, position)| position.spots());
        let retired = self.follow.retired.iter().filter(|(name, _)| of_this_log(name));
        stored.chain(retired.flat_map(|(_, spots)| spots)).cloned().collect()
    }

    /// What a file beside the log `path` is to us. `current` is the log, if it is not followed yet; `known_of` says what
    /// was read of files that are followed no longer.
    pub(super) fn standing(
        &self,
        path: &Path,
        file: &Sibling,
        current: Option<&File>,
        known_of: &[Spot],
    ) -> Standing {
        let is_this = |known: &&Followed| known.tail.identity() == file.identity;
        if let Some(known) = self.follow.files.values().find(is_this) {
            return known.copy_of.map_or(Standing::Read, |original| Standing::Copy(Some(original)));
        }
        let (Ok(head), true) = (file.head(), file.size > 0) else { return Standing::New };
        let plain = if file.packed.is_none() { open_log(&file.path).ok() } else { None };
        let size = || file.unpacked_size().unwrap_or(0);
        let content = Content { head, plain: plain.as_ref(), size: &size };
        self.relation(path, &content, current, known_of)
    }

    /// The same for what a file holds that is not followed, or of which nothing was read yet.
    fn relation(
        &self,
        path: &Path,
        content: &Content<'_>,
        current: Option<&File>,
        known_of: &[Spot],
    ) -> Standing {
        let Content { head, plain, size } = content;
        let same = |bytes: &[u8]| {
            let length = bytes.len().min(head.len());
            length > 0 && bytes[..length] == head[..length]
        };
        let logs = self.logs_of(path);
        let of_this_log = |name: &Path| logs.iter().any(|log| is_rotated_name(log, name));
        let followed = self.follow.files.values().filter(|known| of_this_log(&known.name));
        let own = plain.and_then(|plain| plain.metadata().ok()).map(|meta| FileId::of(&meta));
        // Not the file itself, nor its copies: of two that hold the same one is read.
        let others = |known: &&Followed| {
            let original = |id: &FileId| self.follow.files.get(id)?.copy_of;
            let mut chain = std::iter::successors(Some(known.tail.id), original).take(MAX_FILES);
            chain.all(|id| Some(id) != own)
        };
        let mut followed: Vec<&Followed> = followed.filter(others).collect();
        followed.sort_by_key(|known| (known.copy_of.is_some(), known.tail.id));
        let is_copy_of = |known: &File, unpacking: bool| match plain {
            Some(plain) if !unpacking => begins_like(plain, known).unwrap_or(false),
            _ => {
                // Of what is being unpacked only a piece is at hand, but its first bytes always are.
                let no_longer = || known.metadata().is_ok_and(|meta| size() <= meta.len());
                head_of(known).is_ok_and(|known| same(&known)) && (unpacking || no_longer())
            }
        };
        let is_original =
            |known: &&&Followed| is_copy_of(&known.tail.file, known.tail.is_unpacking());
        if let Some(known) = followed.iter().find(is_original) {
            return Standing::Copy(Some(known.tail.id));
        }
        if current.is_some_and(|current| is_copy_of(current, false)) {
            return Standing::Copy(None);
        }
        let is_part = |known: &&&Followed| {
            let (file, beside) = (&known.tail.file, known.orphan || !self.is_log(&known.name));
            let holds = || match plain {
                Some(plain) => begins_like(file, plain).unwrap_or(false),
                None => head_of(file).is_ok_and(|known| same(&known)),
            };
            let intact = || known.tail.spot().fits(file).unwrap_or(false);
            let some = || file.metadata().is_ok_and(|meta| meta.len() > 0);
            // What a copy holds is read elsewhere, and how far is known of that.
            let own = known.copy_of.is_none() && !known.tail.is_unpacking();
            beside && own && some() && intact() && holds()
        };
        if let Some(known) = followed.iter().find(is_part) {
            return Standing::Rest(known.tail.spot(), Some(known.tail.id));
        }
        if head.is_empty() {
            return Standing::Read;
        }
        if let Some(known) = followed.iter().find(|known| same(known.tail.head())) {
            // What was read may be gone by now; what is to be read of its copies is decided when that is noticed.
            let intact = known.tail.spot_in_memory().fits(&known.tail.file).unwrap_or(true);
            let gone = !intact && !known.tail.is_unpacking() && known.copy_of.is_none();
            return if gone { Standing::Copy(Some(known.tail.id)) } else { Standing::Read };
        }
        let known = known_of.iter().filter(|spot| spot.head.agrees(head));
        let Some(spot) = known.max_by_key(|spot| spot.offset) else { return Standing::New };
        let holds = |plain: &&File| spot.fits(plain).unwrap_or(false);
        match size() > spot.offset && plain.as_ref().is_none_or(holds) {
            true => Standing::Rest(spot.clone(), None),
            false => Standing::Read,
        }
    }

    /// What a file is to us of which nothing was read yet, as far as it is one beside a log.
    pub(super) fn filled(&self, id: FileId) -> io::Result<Standing> {
        let Some(followed) = self.follow.files.get(&id) else { return Ok(Standing::New) };
        let Followed { name, tail, orphan, .. } = followed;
        let (head, size) = (head_of(&tail.file)?, tail.file.metadata()?.len());
        let content = Content { head, plain: Some(&tail.file), size: &|| size };
        // The log itself is nobody's copy.
        if !orphan && self.is_log(name) {
            return Ok(Standing::New);
        }
        Ok(self.relation(name, &content, None, &self.known_of(name)))
    }
}
