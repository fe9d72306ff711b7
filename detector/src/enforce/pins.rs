//! The directory of pins: what it looks like, who may write in it, and how it goes from one set of maps to the next.
//!
//! ```text
//! PIN_DIR/maps -> maps_2     which set holds; turned by renaming a new symlink over the old one
//! PIN_DIR/maps_2/BANS_V4 …   the maps of that set
//! PIN_DIR/program            the program that runs
//! PIN_DIR/links/eth0         one link an interface
//! ```
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, statfs};

use super::{fault::EnforceError, sys};

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// The symlink that names the set of maps in use.
const MAPS: &str = "maps";
/// A set of maps, with its number behind.
const SET: &str = "maps_";
const PROGRAM: &str = "program";
const LINKS: &str = "links";

/// A directory of pins that this process alone works in, until it is dropped.
#[derive(Debug)]
pub(super) struct PinDir {
    path: PathBuf,
    _lock: Lock,
}

/// A lock on a directory.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a child that was just forked still has a copy of the descriptor.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnforceError {
    let path = path.to_owned();
    move |source| EnforceError::Pin { doing, path, source }
}

/// Not being there is as good as being removed.
fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl PinDir {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// [`EnforceError::NotBpffs`] where no BPF file system is mounted, [`EnforceError::AnotherDaemon`] where another
    /// process holds the lock, [`EnforceError::Pin`] where it may not be written.
    pub fn open(path: &Path) -> Result<PinDir, EnforceError> {
        if !is_on_bpffs(path) {
            return Err(EnforceError::NotBpffs { path: path.to_owned() });
        }
        let links = path.join(LINKS);
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700).create(path).map_err(fault("make", path))?;
        // The lock is on the directory itself: files of our own cannot be opened on bpffs, and one that lies elsewhere
        // would not be shared by all who see these pins. It ends with the process.
        let lock = File::open(path).map_err(fault("open", path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(EnforceError::AnotherDaemon {
                    path: path.to_owned(),
                    pid: holder(&lock),
                });
            }
            Err(errno) => return Err(fault("lock", path)(errno.into())),
        }
        make.create(&links).map_err(fault("make", &links))?;
        Ok(PinDir { path: path.to_owned(), _lock: Lock(lock) })
    }

    /// Where links are pinned.
    pub fn links_dir(&self) -> PathBuf {
        self.path.join(LINKS)
    }

    /// The number of the set of maps that `maps` names; `None`: there is none yet.
    pub fn current(&self) -> Option<u32> {
        current(&self.path)
    }

    /// Where the maps of a set are pinned.
    pub fn set(&self, number: u32) -> PathBuf {
        self.path.join(format!("{SET}{number}"))
    }

    /// Makes the folder of a new set; whatever a crash left in it goes first.
    pub fn make_set(&self, number: u32) -> Result<PathBuf, EnforceError> {
        let folder = self.set(number);
        remove_folder(&folder)?;
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(fault("make", &folder))?;
        Ok(folder)
    }

    /// Makes a set the one in use: in one step, seen by the next daemon.
    pub fn turn_to(&self, number: u32) -> Result<(), EnforceError> {
        let (link, fresh) = (self.path.join(MAPS), self.path.join("maps_next"));
        absent_is_fine(fs::remove_file(&fresh)).map_err(fault("remove", &fresh))?;
        std::os::unix::fs::symlink(format!("{SET}{number}"), &fresh)
            .map_err(fault("make", &fresh))?;
        fs::rename(&fresh, &link).map_err(fault("turn", &link))
    }

    /// Removes every set but this one: what a crash or a finished move left.
    pub fn sweep(&self, keep: Option<u32>) -> Result<usize, EnforceError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.path).map_err(fault("read", &self.path))?.flatten() {
            let name = entry.file_name();
            if let Some(number) = name.to_str().and_then(number)
                && Some(number) != keep
            {
                remove_folder(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Pins a program as the one that runs, in the place of another.
    pub fn pin_program(&self, program: &impl AsFd) -> Result<(), EnforceError> {
        let (path, fresh) = (self.path.join(PROGRAM), self.path.join("program_next"));
        absent_is_fine(fs::remove_file(&fresh)).map_err(fault("remove", &fresh))?;
        sys::pin(program, &fresh).map_err(fault("pin the program as", &fresh))?;
        fs::rename(&fresh, &path).map_err(fault("pin the program as", &path))
    }

    /// The pinned links, with where each is pinned; pins that are no XDP link are removed.
    pub fn links(&self) -> Result<Vec<(OwnedFd, PathBuf)>, EnforceError> {
        let folder = self.links_dir();
        let mut links = Vec::new();
        for entry in fs::read_dir(&folder).map_err(fault("read", &folder))?.flatten() {
            let path = entry.path();
            let link = sys::open_pin(&path).map_err(fault("open", &path))?;
            match sys::link_info(&link) {
                Ok(_) => links.push((link, path)),
                Err(_) => fs::remove_file(&path).map_err(fault("remove", &path))?,
            }
        }
        Ok(links)
    }

    /// Removes everything here, the links first, so that no packet meets a program without its maps.
    pub fn remove_all(self) -> Result<Removed, EnforceError> {
        let links = self.links_dir();
        let mut removed = Removed { interfaces: Vec::new(), maps: false };
        for entry in fs::read_dir(&links).map_err(fault("read", &links))?.flatten() {
            let interface =
                entry.file_name().to_string_lossy().replace("%2e", ".").replace("%25", "%");
            fs::remove_file(entry.path()).map_err(fault("remove", &entry.path()))?;
            removed.interfaces.push(interface);
        }
        removed.interfaces.sort_unstable();
        fs::remove_dir(&links).map_err(fault("remove", &links))?;
        for name in [MAPS, "maps_next", PROGRAM, "program_next"] {
            let path = self.path.join(name);
            absent_is_fine(fs::remove_file(&path)).map_err(fault("remove", &path))?;
        }
        removed.maps = self.sweep(None)? > 0;
        // What an operator pinned or mounted here stays, and with it the directory.
        match fs::remove_dir(&self.path) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EBUSY)) => {
                Err(fault("remove", &self.path)(error))
            }
            _ => Ok(removed),
        }
    }
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removed {
    /// Interfaces that the program was attached to.
    pub interfaces: Vec<String>,
    /// Whether there were maps.
    pub maps: bool,
}

/// As [`PinDir::current`], without opening anything.
pub(super) fn current(path: &Path) -> Option<u32> {
    let target = fs::read_link(path.join(MAPS)).ok()?;
    number(target.to_str()?)
}

/// The number behind `maps_`.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix(SET)?.parse().ok()
}

/// Whether the directory, or the nearest one above it that exists, is on a BPF file system.
pub(super) fn is_on_bpffs(path: &Path) -> bool {
    let nearest = path.ancestors().find_map(|path| {
        statfs(if path.as_os_str().is_empty() { Path::new(".") } else { path }).ok()
    });
    nearest.is_some_and(|found| found.f_type as u32 == BPF_FS_MAGIC)
}

fn remove_folder(folder: &Path) -> Result<(), EnforceError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(fault("read", folder))?,
    };
    for entry in entries.flatten() {
        fs::remove_file(entry.path()).map_err(fault("remove", &entry.path()))?;
    }
    fs::remove_dir(folder).map_err(fault("remove", folder))
}

/// The process that holds a lock on `directory`, as `/proc/locks` tells.
fn holder(directory: &File) -> Option<u32> {
    let inode = directory.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, process, file, ..] = fields[..] else { return None };
        let found = file.rsplit_once(':')?.1.parse::<u64>().ok()? == inode;
        found.then(|| process.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::lab;

    fn dir() -> PathBuf {
        Path::new(lab::BPFFS).join("f2x-test")
    }

    #[test]
    fn pins_need_a_bpf_file_system() {
        let said = PinDir::open(Path::new("/proc/f2x")).unwrap_err().to_string();
        assert!(said.contains("mount -t bpf bpf /sys/fs/bpf"), "{said}");
        let relative = PinDir::open(Path::new("f2x-nowhere")).unwrap_err().to_string();
        assert!(relative.contains("is not on a BPF file system"), "{relative}");
    }

    #[test]
    fn two_daemons_never_share_pins() {
        lab::alone(|| {
            let first = PinDir::open(&dir()).unwrap();
            let said = PinDir::open(&dir()).unwrap_err().to_string();
            assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
            assert!(said.contains("/sys/fs/bpf/f2x-test"), "{said}");
            drop(first);
            PinDir::open(&dir()).expect("the lock ends with its holder");
        });
    }

    #[test]
    fn a_set_is_turned_to_in_one_step_and_what_is_left_over_goes() {
        lab::alone(|| {
            let pins = PinDir::open(&dir()).unwrap();
            assert_eq!(pins.current(), None);
            for number in [1, 2, 7] {
                pins.make_set(number).unwrap();
                pins.turn_to(number).unwrap();
                assert_eq!(pins.current(), Some(number));
            }
            assert_eq!(pins.sweep(Some(7)).unwrap(), 2);
            assert!(pins.set(7).exists() && !pins.set(1).exists());
        });
    }

    #[test]
    fn removing_leaves_nothing_and_spares_what_is_not_ours() {
        lab::alone(|| {
            let pins = PinDir::open(&dir()).unwrap();
            pins.make_set(1).unwrap();
            pins.turn_to(1).unwrap();
            let program = sys::tests::answer(2, false).unwrap();
            pins.pin_program(&program).unwrap();
            pins.pin_program(&program).expect("a second one takes the first one's place");
            fs::create_dir(dir().join("theirs")).unwrap();
            assert_eq!(pins.remove_all().unwrap(), Removed { interfaces: vec![], maps: true });
            let left: Vec<_> =
                fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["theirs"]);
            fs::remove_dir(dir().join("theirs")).unwrap();
            PinDir::open(&dir()).unwrap().remove_all().unwrap();
            assert!(!dir().exists());
        });
    }
}
