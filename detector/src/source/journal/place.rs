//! Which journal: the system's, a namespace's, a directory, or files.
use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::header::{Header, Numbering};
use crate::{
    config::JournalSettings,
    source::files::{FileId, Pattern, Watch},
};

/// Where journald keeps its files: kept over a reboot, and not.
const ROOTS: [&str; 2] = ["var/log/journal", "run/log/journal"];

/// Flags of sd_journal_open(3). Files written on this machine; no effect with a directory.
const LOCAL_ONLY: i32 = 1 << 0;
/// Files that do not outlive a reboot; no effect with a directory.
const RUNTIME_ONLY: i32 = 1 << 1;
/// What services and the kernel wrote, not what users' own processes did, who may call themselves what they like.
const SYSTEM: i32 = 1 << 2;
/// What our own user's processes wrote.
const CURRENT_USER: i32 = 1 << 3;
/// The directory is the root of a system.
const OS_ROOT: i32 = 1 << 4;
/// Every namespace.
const ALL_NAMESPACES: i32 = 1 << 5;
/// Beside the namespace asked for the default one.
const INCLUDE_DEFAULT_NAMESPACE: i32 = 1 << 6;

/// Files of one journal that are looked at; what is beyond is left out, and said.
pub(super) const MAX_FILES: usize = 4096;

/// How often the files are listed anew because one was renamed meanwhile.
const MAX_LOOKS: usize = 16;

/// One journal, read by one thread whatever the number of its jails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    directory: Option<PathBuf>,
    files: Vec<String>,
    flags: Option<i32>,
    namespace: Option<String>,
}

/// A journal file that is there.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it was found.
    pub(super) path: PathBuf,
    /// What tells it from others while it is open.
    pub(super) id: FileId,
    /// Opened, so that it can be read to its end after it was removed.
    pub(super) file: File,
    /// What its header said when it was opened.
    pub(super) header: Header,
}

impl Part {
    fn open(path: PathBuf) -> Result<Part, Refused> {
        let opened = File::open(&path).and_then(|file| {
            let id = FileId::of(&file.metadata()?);
            Ok((Header::read(&file)?, id, file))
        });
        match opened {
            Ok((header, id, file)) => Ok(Part { path, id, file, header }),
            Err(why) => Err(Refused { path, why }),
        }
    }

    /// The same file after it was removed. Its writer may not have noticed.
    pub(super) fn removed(mut self) -> Option<Part> {
        self.header = Header::read(&self.file).ok()?;
        Some(self)
    }

    /// Whether it is shorter than it must be. The library reads it as memory, and memory behind the end of a file
    /// would end this process: some clean a disk by emptying every file below /var/log.
    pub(super) fn is_cut(&self) -> bool {
        let size = self.file.metadata().map_or(0, |meta| meta.len());
        Header::read(&self.file).map_or(true, |header| header.size > size)
    }

    /// What tells it from a file that was given its inode later.
    pub(super) fn identity(&self) -> (FileId, Numbering, u64) {
        (self.id, self.header.numbering, self.header.first)
    }

    /// Whether its content is gone.
    pub(super) fn is_wiped(&self) -> bool {
        Header::read(&self.file).is_err()
    }

    /// Whether more may be written to it. What journald found damaged it puts aside with a tilde.
    pub(super) fn may_grow(&self) -> bool {
        !self.header.archived && !self.path.as_os_str().as_encoded_bytes().ends_with(b"~")
    }
}

/// A journal file that cannot be read.
#[derive(Debug)]
pub(super) struct Refused {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Why not.
    pub(super) why: io::Error,
}

impl Place {
    pub(crate) fn new(settings: &JournalSettings) -> Place {
        Place {
            directory: settings.directory.clone(),
            files: settings.files.clone(),
            flags: settings.flags,
            namespace: settings.namespace.clone(),
        }
    }

    /// Whether there is anything to open now.
    pub(crate) fn exists(&self) -> bool {
        !self.found_files().is_empty()
    }

    /// Opens what there is now.
    pub(super) fn parts(&self) -> (Vec<Part>, Vec<Refused>) {
        let mut found = self.open_found();
        // A file that is renamed while we look is under neither name. Were its successor read without it, its numbers
        // would be passed: so nothing may be there that was not opened.
        for _ in 0..MAX_LOOKS {
            let opened: BTreeSet<FileId> = found.0.iter().map(|part| part.id).collect();
            let refused: BTreeSet<&PathBuf> = found.1.iter().map(|refused| &refused.path).collect();
            let is_opened = |path: &PathBuf| match path.metadata() {
                Ok(meta) => opened.contains(&FileId::of(&meta)) || refused.contains(path),
                Err(_) => true,
            };
            if opened.len() == MAX_FILES || self.found_files().iter().all(is_opened) {
                break;
            }
            found = self.open_found();
        }
        found
    }

    fn open_found(&self) -> (Vec<Part>, Vec<Refused>) {
        let (mut parts, mut refused): (Vec<Part>, _) = (Vec::new(), Vec::new());
        let mut known = BTreeSet::new();
        for path in self.found_files() {
            if parts.len() == MAX_FILES {
                let why = io::Error::other(format!("the journal has over {MAX_FILES} files"));
                refused.push(Refused { path, why });
                break;
            }
            match Part::open(path) {
                // A link leads to a file that is there by its own name too.
                Ok(part) if known.insert(part.id) => parts.push(part),
                Ok(_) => {}
                // Removed or renamed since it was found.
                Err(Refused { why, .. }) if why.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => refused.push(fault),
            }
        }
        (parts, refused)
    }

    /// The files it consists of now, as sd_journal_open(3), sd_journal_open_directory(3) and sd_journal_open_files(3)
    /// choose them.
    fn found_files(&self) -> Vec<PathBuf> {
        if !self.files.is_empty() {
            let patterns = self.files.iter().map(|file| Pattern::new(Path::new(file)));
            let found = patterns.flat_map(|pattern| pattern.expand(&mut |_, _| {}));
            return found.filter(|path| path.is_file()).collect();
        }
        let here = self.roots().into_iter().flat_map(|root| {
            let below = directories(&root).filter(|dir| self.is_wanted(dir));
            let below: Vec<PathBuf> = below.collect();
            std::iter::once(root).chain(below)
        });
        let mut found: Vec<PathBuf> = here
            .chain(self.remote())
            .flat_map(|dir| self.journal_files(&dir).collect::<Vec<_>>())
            .collect();
        found.sort();
        found
    }

    /// The directories that hold journals, as do their subdirectories that are named by machines.
    fn roots(&self) -> Vec<PathBuf> {
        let below = |root: &Path, roots: &[&str]| -> Vec<PathBuf> {
            roots.iter().map(|name| root.join(name)).collect()
        };
        match &self.directory {
            Some(root) if self.has(OS_ROOT) => below(root, &ROOTS),
            Some(directory) => vec![directory.clone()],
            None if self.has(RUNTIME_ONLY) => below(Path::new("/"), &ROOTS[1..]),
            None => below(Path::new("/"), &ROOTS),
        }
    }

    /// Where systemd-journal-remote(8) keeps what other machines send. The library reads it along with the system's own.
    fn remote(&self) -> Option<PathBuf> {
        let root = match &self.directory {
            None if self.has(LOCAL_ONLY) || self.has(RUNTIME_ONLY) => return None,
            None => Path::new("/"),
            Some(root) if self.has(OS_ROOT) => root,
            Some(_) => return None,
        };
        Some(root.join(ROOTS[0]).join("remote"))
    }

    fn has(&self, flag: i32) -> bool {
        self.flags.is_some_and(|flags| flags & flag != 0)
    }

    /// Whether a directory is a machine's, and one of the namespace asked for: its files lie in `MACHINE.NAMESPACE`;
    /// `*` means all, `+NAME` the default one as well.
    fn is_wanted(&self, dir: &Path) -> bool {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let (machine, of) = match name.split_once('.') {
            Some((machine, namespace)) => (machine, Some(namespace)),
            None => (&*name, None),
        };
        if !is_id(machine) {
            return false;
        }
        // What does not outlive a reboot was written since the last one.
        if self.has(LOCAL_ONLY) && self.directory.is_none() && !dir.starts_with("/run") {
            let own = fs::read_to_string("/etc/machine-id").unwrap_or_default();
            if own.trim() != machine.replace('-', "") {
                return false;
            }
        }
        match self.namespace.as_deref() {
            _ if self.has(ALL_NAMESPACES) => true,
            _ if self.has(INCLUDE_DEFAULT_NAMESPACE) && of.is_none() => true,
            None | Some("") => of.is_none(),
            Some("*") => true,
            Some(name) => match name.strip_prefix('+') {
                Some(name) => of.is_none_or(|of| of == name),
                None => of == Some(name),
            },
        }
    }

    fn journal_files(&self, dir: &Path) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| self.is_file_wanted(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
    }

    /// By its name: `system.journal`, `system@….journal`, `user-1000.journal`; with a tilde behind what was found
    /// damaged.
    fn is_file_wanted(&self, name: &str) -> bool {
        let Some(stem) = name.strip_suffix('~').unwrap_or(name).strip_suffix(".journal") else {
            return false;
        };
        let is_of = |writer: &str| {
            stem.strip_prefix(writer).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
        };
        let flags = self.flags.unwrap_or(if self.directory.is_some() { 0 } else { SYSTEM });
        let user = rustix::process::getuid().as_raw();
        let by_user = flags & CURRENT_USER != 0;
        // Those of a user of the system stand in the system's own.
        let by_system = flags & SYSTEM != 0 || (by_user && is_of_the_system(user));
        match (by_user, by_system) {
            (false, false) => true,
            _ => (by_system && is_of("system")) || (by_user && is_of(&format!("user-{user}"))),
        }
    }

    /// Watches for what could make it exist, or change its files.
    pub(crate) fn watch(&self, watch: &mut Watch) {
        let patterns: Vec<PathBuf> = if !self.files.is_empty() {
            self.files.iter().map(PathBuf::from).collect()
        } else {
            let roots = self.roots().into_iter();
            roots.flat_map(|root| [root.join("*.journal*"), root.join("*/*.journal*")]).collect()
        };
        for pattern in patterns {
            Pattern::new(&pattern).expand(&mut |dir, name| watch.directory(dir, name));
        }
    }
}

fn directories(root: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// Whether a user is none of the people: those of packages, those made for one service, and nobody, as
/// <https://systemd.io/UIDS-GIDS/> shares the numbers out.
fn is_of_the_system(user: u32) -> bool {
    matches!(user, 0..=999 | 61_184..=65_519 | 65_534)
}

/// Whether this is a machine's id: 32 digits, or a UUID.
pub(super) fn is_id(name: &str) -> bool {
    let digits = name.bytes().filter(|byte| *byte != b'-');
    digits.clone().count() == 32 && digits.clone().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.files.is_empty() {
            write!(f, "journal files {}", self.files.join(" "))?;
        } else if let Some(directory) = &self.directory {
            write!(f, "journal in {}", directory.display())?;
        } else if self.namespace.as_deref().is_none_or(str::is_empty) {
            f.write_str("system journal")?;
        }
        if let Some(namespace) = self.namespace.as_deref().filter(|name| !name.is_empty()) {
            let of = if self.directory.is_some() { " of" } else { "journal of" };
            write!(f, "{of} namespace {namespace}")?;
        }
        self.flags.map_or(Ok(()), |flags| write!(f, " with flags {flags}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn check(settings: JournalSettings, expect: &[&str]) {
        let dir = tempfile::tempdir().expect("a directory for the test");
        for name in [
            "system.journal",
            "other.journal",
            "note.txt",
            "MACHINE/system.journal",
            "MACHINE/system@1.journal",
            "MACHINE/system@2.journal~",
            "MACHINE/user-7.journal",
            "MACHINE/systematic.journal",
            "MACHINE.web/system.journal",
            "MACHINE.mail/system.journal",
            "remote/remote-a.journal",
            "var/log/journal/MACHINE/system.journal",
            "run/log/journal/MACHINE/system.journal",
        ] {
            let path = dir.path().join(name.replace("MACHINE", MACHINE));
            fs::create_dir_all(path.parent().expect("it lies somewhere")).expect("made");
            fs::write(path, "").expect("written");
        }
        let files = settings.files.iter().map(|file| format!("{}/{file}", dir.path().display()));
        let place = Place::new(&JournalSettings {
            directory: settings.files.is_empty().then(|| dir.path().to_owned()),
            files: files.collect(),
            ..settings
        });
        let found = place.found_files();
        let found = found.iter().map(|path| {
            let below = path.strip_prefix(dir.path()).expect("it lies in there");
            below.to_string_lossy().replace(MACHINE, "MACHINE")
        });
        assert_eq!(found.collect::<Vec<_>>(), expect, "{place}");
    }

    #[test]
    fn a_directory_means_its_files_and_those_of_machines_below() {
        let own = [
            "MACHINE/system.journal",
            "MACHINE/system@1.journal",
            "MACHINE/system@2.journal~",
            "MACHINE/systematic.journal",
            "MACHINE/user-7.journal",
            "other.journal",
            "system.journal",
        ];
        check(JournalSettings::default(), &own);
        let system = [own[0], own[1], own[2], own[6]];
        check(JournalSettings { flags: Some(SYSTEM), ..JournalSettings::default() }, &system);
        let roots = ROOTS.map(|root| format!("{root}/MACHINE/system.journal"));
        check(
            JournalSettings { flags: Some(OS_ROOT), ..JournalSettings::default() },
            &[&roots[1], &roots[0]],
        );
    }

    #[test]
    fn namespaces_are_directories_of_their_own() {
        let of = |namespace: &str| JournalSettings {
            namespace: Some(namespace.into()),
            flags: Some(SYSTEM),
            ..JournalSettings::default()
        };
        let archived = ["MACHINE/system@1.journal", "MACHINE/system@2.journal~"];
        let (own, web) = ("MACHINE/system.journal", "MACHINE.web/system.journal");
        let (mail, bare) = ("MACHINE.mail/system.journal", "system.journal");
        check(of("web"), &[web, bare]);
        check(of("+web"), &[own, archived[0], archived[1], web, bare]);
        check(of("*"), &[own, archived[0], archived[1], mail, web, bare]);
        check(of("nobody"), &[bare]);
    }

    #[test]
    fn files_are_taken_as_they_are_named() {
        let files = JournalSettings {
            files: vec!["remote/*.journal".into(), "note.txt".into()],
            ..JournalSettings::default()
        };
        check(files, &["remote/remote-a.journal", "note.txt"]);
    }
}
