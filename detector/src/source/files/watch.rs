//! What wakes a reader of files: inotify where it works, looking again and again where it does not.
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::fs::{fstatfs, statfs};

use super::{pattern::Name, tail::FileId};

/// File systems that other machines or processes change without this kernel's knowledge: `f_type` of statfs(2).
const REMOTE: [u64; 12] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x6573_5546, // FUSE
    0x0102_1997, // 9P
    0x5346_414f, // AFS
    0x00c3_6400, // Ceph
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x0bd0_0bd0, // Lustre
    0x786f_4256, // vboxsf
];

/// What has happened since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    /// Files that may have grown.
    pub(crate) files: HashSet<FileId>,
    /// Names may have appeared, gone, or changed their meaning or permissions.
    pub(crate) names: bool,
    /// Events were lost: anything may have happened.
    pub(crate) anything: bool,
}

#[derive(Debug, Default)]
struct Directory {
    /// The names that matter in it, with the round in which each was last asked for.
    names: Vec<(Name, u64)>,
}

/// The inotify instance of one reader thread.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Option<Inotify>,
    directories: HashMap<WatchDescriptor, Directory>,
    files: HashMap<WatchDescriptor, FileId>,
    /// Files without a watch; they are looked at on every tick.
    unwatched: HashSet<FileId>,
    /// A directory without a watch was asked for in this round.
    unwatched_names: bool,
    round: u64,
    /// Why inotify does not serve, once, for the log.
    refusal: Option<io::Error>,
    buffer: Vec<u8>,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        let (inotify, refusal) = match Inotify::init() {
            Ok(inotify) => (Some(inotify), None),
            Err(error) => (None, Some(error)),
        };
        Watch { refusal, ..Watch::with(inotify) }
    }

    /// One that never has inotify, as on a machine whose instances are used up.
    #[cfg(test)]
    pub(crate) fn polling() -> Watch {
        Watch::with(None)
    }

    fn with(inotify: Option<Inotify>) -> Watch {
        Watch {
            inotify,
            directories: HashMap::new(),
            files: HashMap::new(),
            unwatched: HashSet::new(),
            unwatched_names: false,
            round: 0,
            refusal: None,
            buffer: vec![0; 16 << 10],
        }
    }

    /// What poll(2) is to wait for.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Something is not watched and must be looked at again and again.
    pub(crate) fn needs_ticks(&self) -> bool {
        self.unwatched_names || !self.unwatched.is_empty()
    }

    /// The files that must be looked at on each tick.
    pub(crate) fn unwatched(&self) -> impl Iterator<Item = FileId> + '_ {
        self.unwatched.iter().copied()
    }

    /// Why something could not be watched, if that is news.
    pub(crate) fn take_refusal(&mut self) -> Option<io::Error> {
        self.refusal.take()
    }

    /// Begins a new round of [`Watch::directory`] calls.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
        self.unwatched_names = false;
    }

    /// Watches for `name` in `dir`, if `dir` exists.
    pub(crate) fn directory(&mut self, dir: &Path, name: &Name) {
        let Some(inotify) = &self.inotify else {
            self.unwatched_names = true;
            return;
        };
        if statfs(dir).is_ok_and(|fs| REMOTE.contains(&(fs.f_type as u64))) {
            self.unwatched_names = true;
        }
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        match inotify.watches().add(dir, mask) {
            Ok(descriptor) => {
                let names = &mut self.directories.entry(descriptor).or_default().names;
                match names.iter_mut().find(|(known, _)| known == name) {
                    Some((_, round)) => *round = self.round,
                    None => names.push((name.clone(), self.round)),
                }
            }
            // It went away between being found and being watched; what it was found in is watched.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.unwatched_names = true;
                self.refusal.get_or_insert(error);
            }
        }
    }

    /// Ends the round: what was not asked for in it is no longer watched.
    pub(crate) fn end_round(&mut self) {
        let round = self.round;
        let idle: Vec<WatchDescriptor> = self
            .directories
            .iter_mut()
            .filter_map(|(descriptor, directory)| {
                directory.names.retain(|(_, asked)| *asked == round);
                directory.names.is_empty().then(|| descriptor.clone())
            })
            .collect();
        for descriptor in idle {
            self.directories.remove(&descriptor);
            self.drop_watch(descriptor);
        }
    }

    /// Watches an open file, wherever it is moved.
    pub(crate) fn file(&mut self, id: FileId, file: &File) {
        let remote = fstatfs(file).is_ok_and(|fs| REMOTE.contains(&(fs.f_type as u64)));
        let Some(inotify) = self.inotify.as_ref().filter(|_| !remote) else {
            self.unwatched.insert(id);
            return;
        };
        let mask =
            WatchMask::MODIFY | WatchMask::ATTRIB | WatchMask::MOVE_SELF | WatchMask::DELETE_SELF;
        // By descriptor and not by name, which may mean another file by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        match inotify.watches().add(path, mask) {
            Ok(descriptor) => {
                self.files.insert(descriptor, id);
            }
            Err(error) => {
                self.unwatched.insert(id);
                self.refusal.get_or_insert(error);
            }
        }
    }

    /// The same for a file that is not followed: only that it woke us will be seen.
    pub(crate) fn growth(&mut self, file: &File) {
        if let Ok(meta) = file.metadata() {
            self.file(FileId::of(&meta), file);
        }
    }

    /// Watches a file no longer.
    pub(crate) fn forget(&mut self, id: FileId) {
        self.unwatched.remove(&id);
        let descriptor = self.files.iter().find(|(_, known)| **known == id);
        if let Some(descriptor) = descriptor.map(|(descriptor, _)| descriptor.clone()) {
            self.files.remove(&descriptor);
            self.drop_watch(descriptor);
        }
    }

    fn drop_watch(&self, descriptor: WatchDescriptor) {
        if let Some(inotify) = &self.inotify {
            // It fails when the kernel has dropped it already, together with the file.
            let _ = inotify.watches().remove(descriptor);
        }
    }

    /// What has happened; does not wait.
    pub(crate) fn take(&mut self) -> Woken {
        let mut woken = Woken::default();
        let Some(inotify) = &mut self.inotify else { return woken };
        loop {
            let events = match inotify.read_events(&mut self.buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return woken,
            };
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    woken.anything = true;
                } else if let Some(id) = self.files.get(&event.wd) {
                    woken.files.insert(*id);
                    woken.names |= event.mask != EventMask::MODIFY;
                    if event.mask.contains(EventMask::IGNORED) {
                        self.files.remove(&event.wd);
                    }
                } else if let Some(directory) = self.directories.get(&event.wd) {
                    let names = &directory.names;
                    woken.names |= event
                        .name
                        .is_none_or(|name| names.iter().any(|(known, _)| known.fits(name)));
                    if event.mask.contains(EventMask::IGNORED) {
                        self.directories.remove(&event.wd);
                    }
                }
            }
        }
    }
}
