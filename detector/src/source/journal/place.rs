//! Which journal: the system's, a namespace's, a directory, or files.
use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use systemd::{
    Journal,
    journal::{OpenDirectoryOptions, OpenFilesOptions, OpenOptions},
};

use crate::{
    config::JournalSettings,
    source::files::{Pattern, Watch},
};

/// Where journald keeps its files: kept over a reboot, and not.
const ROOTS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// `SD_JOURNAL_SYSTEM` of sd_journal_open(3): what services and the kernel wrote, not what users' own processes did,
/// who may call themselves what they like.
const SYSTEM: i32 = 1 << 2;

/// What sd_journal_open_directory(3) accepts: `SD_JOURNAL_SYSTEM`, `SD_JOURNAL_CURRENT_USER`, `SD_JOURNAL_OS_ROOT`.
const DIRECTORY_FLAGS: i32 = 1 << 2 | 1 << 3 | 1 << 4;

/// One journal, read by one thread whatever the number of its jails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    directory: Option<PathBuf>,
    files: Vec<String>,
    flags: Option<i32>,
    namespace: Option<String>,
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

    /// A namespace's files lie in `MACHINE.NAMESPACE`; `*` means all, `+NAME` the default one as well.
    fn is_of_namespace(&self, dir: &Path) -> bool {
        let of = dir.extension().map(|name| name.to_string_lossy());
        match self.namespace.as_deref() {
            None | Some("") => of.is_none(),
            Some("*") => true,
            Some(name) => match name.strip_prefix('+') {
                Some(name) => of.is_none_or(|of| of == name),
                None => of.is_some_and(|of| of == name),
            },
        }
    }

    /// The files it consists of now.
    fn found_files(&self) -> Vec<PathBuf> {
        if !self.files.is_empty() {
            let patterns = self.files.iter().map(|file| Pattern::new(Path::new(file)));
            let found = patterns.flat_map(|pattern| pattern.expand(&mut |_, _| {}));
            return found.filter(|path| path.is_file()).collect();
        }
        if let Some(directory) = &self.directory {
            let dirs = std::iter::once(directory.clone()).chain(machines(directory));
            return dirs.flat_map(|dir| journal_files(&dir)).collect();
        }
        let dirs = ROOTS.iter().flat_map(|root| machines(Path::new(root)));
        let own = dirs.filter(|dir| self.is_of_namespace(dir));
        own.flat_map(|dir| journal_files(&dir)).collect()
    }

    /// What must be opened anew when it changes, because the library does not notice: of files given by name which
    /// they are, else which directories there are.
    pub(crate) fn parts(&self) -> BTreeSet<(PathBuf, u64)> {
        let files = self.found_files().into_iter();
        let parts = files.map(|file| match file.parent() {
            Some(dir) if self.files.is_empty() => dir.to_owned(),
            _ => file,
        });
        parts.filter_map(|part| part.metadata().ok().map(|meta| (part, meta.ino()))).collect()
    }

    /// Watches the files themselves where the library does not.
    pub(crate) fn watch_growth(&self, watch: &mut Watch) {
        if !self.files.is_empty() {
            for file in self.found_files().iter().filter_map(|path| File::open(path).ok()) {
                watch.growth(&file);
            }
        }
    }

    /// Watches for what could make it exist, or change its parts.
    pub(crate) fn watch(&self, watch: &mut Watch) {
        let patterns: Vec<PathBuf> = if !self.files.is_empty() {
            self.files.iter().map(PathBuf::from).collect()
        } else if let Some(directory) = &self.directory {
            vec![directory.join("*.journal"), directory.join("*/*.journal")]
        } else {
            ROOTS.iter().map(|root| Path::new(root).join("*/*.journal")).collect()
        };
        for pattern in patterns {
            Pattern::new(&pattern).expand(&mut |dir, name| watch.directory(dir, name));
        }
    }

    /// # Errors
    /// The library refuses, or none of the files can be read, of which the library says nothing.
    pub(crate) fn open(&self) -> io::Result<Journal> {
        let files = self.found_files();
        let mut refusals = files.iter().map(|file| File::open(file).err());
        if let Some(Some(error)) = refusals.clone().next()
            && refusals.all(|refusal| refusal.is_some())
        {
            return Err(error);
        }
        if !self.files.is_empty() {
            let files = files.iter().map(|path| path.to_string_lossy().into_owned());
            return Ok(OpenFilesOptions::default().open_files(files)?);
        }
        if let Some(directory) = &self.directory {
            let flags = self.flags.unwrap_or(0) & DIRECTORY_FLAGS;
            let mut options = OpenDirectoryOptions::default();
            let directory = directory.to_string_lossy().into_owned();
            return Ok(options.extra_raw_flags(flags).open_directory(directory)?);
        }
        let mut options = OpenOptions::default();
        options.extra_raw_flags(self.flags.unwrap_or(SYSTEM));
        let opened = match self.namespace.as_deref() {
            None | Some("") => options.open(),
            Some("*") => options.all_namespaces(true).open(),
            Some(name) => match name.strip_prefix('+') {
                Some(name) => options.include_default_namespace(true).open_namespace(name),
                None => options.open_namespace(name),
            },
        };
        Ok(opened?)
    }
}

fn machines(root: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

fn journal_files(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "journal"))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.files.is_empty() {
            write!(f, "journal files {}", self.files.join(" "))?;
        } else if let Some(directory) = &self.directory {
            write!(f, "journal in {}", directory.display())?;
        } else if let Some(namespace) = &self.namespace {
            write!(f, "journal of namespace {namespace}")?;
        } else {
            f.write_str("system journal")?;
        }
        self.flags.map_or(Ok(()), |flags| write!(f, " with flags {flags}"))
    }
}
