//! The files behind one base name, in fail2ban's order, merged section by section: later wins, key by key.
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    MAX_FILE, Place, ReadFault, Tree,
    expand::{Context, ExpandError},
    ini::{Ini, IniFaultKind},
    ordered::Options,
    text::Text,
};

/// The section whose options every other section inherits.
pub(super) const DEFAULT: &str = "DEFAULT";
/// Begins the name by which a section's known values are a section of their own.
pub(super) const KNOWN: &str = "KNOWN/";
/// The section that names further files.
const INCLUDES: &str = "INCLUDES";
/// Includes of includes of includes …
const MAX_DEPTH: usize = 20;
/// Files read for one base name, each inclusion counted.
const MAX_FILES: usize = 1_000;
/// Bytes of them.
const MAX_BYTES: usize = 64 << 20;

/// All files of one base name (`jail`, `filter.d/sshd` …), merged.
#[derive(Debug, Default)]
pub(super) struct Layers {
    sections: Vec<Section>,
    index: HashMap<String, usize>,
    pub(super) faults: Vec<Fault>,
    /// Files that were there and could be read, in the order read.
    pub(super) files: Vec<Arc<PathBuf>>,
}

/// One section of the merged result.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    /// Where its header stands first.
    pub(super) place: Place,
    pub(super) options: Options,
    /// What the last override of an option replaced.
    pub(super) known: Options,
    /// It stands in several files, or has a part for one address family: there is something to remember of it.
    pub(super) again: bool,
}

/// Something that kept part of the files from being used.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Option<Place>,
    /// The section it lies in, where only that is concerned.
    pub(super) section: Option<String>,
    pub(super) kind: FaultKind,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FaultKind {
    #[error(transparent)]
    Ini(#[from] IniFaultKind),
    #[error("`{}` cannot be read: {fault}", file.display())]
    Unreadable { file: PathBuf, fault: ReadFault },
    #[error("includes are nested more than {MAX_DEPTH} deep at `{}`", file.display())]
    TooDeep { file: PathBuf },
    #[error("more than {MAX_FILES} files are included by `{}`", file.display())]
    TooMany { file: PathBuf },
    #[error("more than {MAX_BYTES} bytes are read, up to `{}`", file.display())]
    TooMuch { file: PathBuf },
    #[error("the includes cannot be expanded: {0}")]
    Expand(ExpandError),
}

impl FaultKind {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            FaultKind::Ini(kind) => kind.remedy(),
            FaultKind::Unreadable { fault, .. } => fault.remedy(),
            FaultKind::TooDeep { .. } | FaultKind::TooMany { .. } | FaultKind::TooMuch { .. } => {
                "look for files that include one another"
            }
            FaultKind::Expand(error) => error.remedy(),
        }
    }
}

/// Reads the files in their order.
struct Reading<'a> {
    tree: &'a dyn Tree,
    layers: Layers,
    /// The files whose includes are being followed.
    path: Vec<PathBuf>,
    reads: usize,
    bytes: usize,
}

impl Layers {
    /// Reads `BASE.conf`, `BASE.d/*.conf`, `BASE.local`, `BASE.d/*.local` of the tree and what they include.
    pub(super) fn read(tree: &dyn Tree, base: &str) -> Layers {
        Layers::read_at(tree, tree.root().join(base))
    }

    /// The same of a name in a folder of the tree, such as `filter.d`. One that begins with `./` or `/` is no name in
    /// there: it is taken as it stands, seen from where we were started.
    pub(super) fn read_in(tree: &dyn Tree, folder: &str, name: &str) -> Layers {
        match name.starts_with("./") {
            true => Layers::read_at(tree, PathBuf::from(name)),
            false => Layers::read_at(tree, tree.root().join(folder).join(name)),
        }
    }

    fn read_at(tree: &dyn Tree, base: PathBuf) -> Layers {
        let mut reading =
            Reading { tree, layers: Layers::default(), path: Vec::new(), reads: 0, bytes: 0 };
        let folder = suffixed(&base, ".d");
        let mut names = tree.list(&folder).unwrap_or_else(|fault| {
            let kind = FaultKind::Unreadable { file: folder.clone(), fault };
            reading.layers.faults.push(Fault { place: None, section: None, kind });
            Vec::new()
        });
        names.sort_unstable();
        for suffix in [".conf", ".local"] {
            reading.file(&suffixed(&base, suffix));
            // As the shell's `*.conf`: no hidden files.
            let fits = |name: &&String| name.ends_with(suffix) && !name.starts_with('.');
            for name in names.iter().filter(fits) {
                reading.file(&folder.join(name));
            }
        }
        reading.layers
    }

    /// Whether any file was there.
    pub(super) fn found(&self) -> bool {
        !self.files.is_empty()
    }

    /// Sections in the order of their first appearance.
    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.index.get(name).map(|index| &self.sections[*index])
    }

    /// The option as written in the section itself.
    pub(super) fn own(&self, section: &str, option: &str) -> Option<&Text> {
        match section.strip_prefix(KNOWN) {
            Some(section) => self.section(section)?.known.get(option),
            None => self.section(section)?.options.get(option),
        }
    }

    /// The option as written in the section or else in `[DEFAULT]`.
    pub(super) fn raw(&self, section: &str, option: &str) -> Option<&Text> {
        self.own(section, option).or_else(|| self.own(DEFAULT, option))
    }

    /// What the section's option was before the last file changed it. Of `[DEFAULT]` nothing is remembered.
    pub(super) fn known(&self, section: &str, option: &str) -> Option<&Text> {
        self.section(section).filter(|_| section != DEFAULT)?.known.get(option)
    }

    fn merge(&mut self, ini: &Ini) {
        for section in &ini.sections {
            let (name, condition) = conditional(&section.name);
            let again = self.index.contains_key(name);
            let index = *self.index.entry(name.to_owned()).or_insert_with(|| {
                let (options, known) = (Options::default(), Options::default());
                self.sections.push(Section {
                    name: name.to_owned(),
                    place: section.place.clone(),
                    options,
                    known,
                    again: false,
                });
                self.sections.len() - 1
            });
            let merged = &mut self.sections[index];
            merged.again |= again;
            for (option, value) in &section.options {
                let option = match condition {
                    Some(condition) => format!("{option}?{condition}"),
                    None => option.clone(),
                };
                if let Some(previous) = merged.options.insert(option.clone(), value.clone()) {
                    merged.known.insert(option, previous);
                }
            }
        }
    }
}

impl Reading<'_> {
    /// Reads a file with what it includes before and after itself. A missing file is none.
    fn file(&mut self, file: &Path) {
        if self.path.len() >= MAX_DEPTH || self.reads >= MAX_FILES {
            let top = self.path.first().cloned().unwrap_or_default();
            let deep = self.path.len() >= MAX_DEPTH;
            let kind = if deep {
                FaultKind::TooDeep { file: file.into() }
            } else {
                FaultKind::TooMany { file: top }
            };
            // Once is enough: a fan of includes would repeat it without end.
            if !self.layers.faults.iter().any(|fault| same_limit(&fault.kind, &kind)) {
                self.layers.faults.push(Fault { place: None, section: None, kind });
            }
            return;
        }
        self.reads += 1;
        let bytes = match self.tree.read(file) {
            Ok(Some(bytes)) if bytes.len() > MAX_FILE => Err(ReadFault::TooLong),
            other => other,
        };
        let bytes = match bytes {
            Ok(None) => return,
            Ok(Some(bytes)) => bytes,
            Err(fault) => {
                let kind = FaultKind::Unreadable { file: file.into(), fault };
                self.layers.faults.push(Fault { place: None, section: None, kind });
                return;
            }
        };
        self.bytes += bytes.len();
        if self.bytes > MAX_BYTES {
            let kind = FaultKind::TooMuch { file: file.into() };
            if !self.layers.faults.iter().any(|fault| same_limit(&fault.kind, &kind)) {
                self.layers.faults.push(Fault { place: None, section: None, kind });
            }
            return;
        }
        let name = Arc::new(file.to_path_buf());
        let mut ini = Ini::read(&bytes, &name);
        self.layers.files.push(Arc::clone(&name));
        for fault in ini.faults.drain(..) {
            let section = fault.section.map(|name| conditional(&name).0.to_owned());
            self.layers.faults.push(Fault {
                place: Some(fault.place),
                section,
                kind: fault.kind.into(),
            });
        }
        let mut alone = Layers::default();
        alone.merge(&ini);
        self.path.push(file.to_path_buf());
        self.included(&alone, "before", file);
        self.layers.merge(&ini);
        self.included(&alone, "after", file);
        self.path.pop();
    }

    fn included(&mut self, alone: &Layers, option: &str, file: &Path) {
        let Some(raw) = alone.own(INCLUDES, option) else { return };
        let names = match Context::of_file(alone, INCLUDES).expand(raw) {
            Ok(names) => names,
            Err(error) => {
                let (place, kind) = (error.place.clone(), FaultKind::Expand(error));
                self.layers.faults.push(Fault { place, section: None, kind });
                return;
            }
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        for name in names.lines() {
            let included = folder.join(&name.value);
            // A circle ends here; fail2ban sees one only from its second file on.
            let above = self.path.split_last().map_or(&[][..], |(_, above)| above);
            if above.contains(&included) {
                continue;
            }
            self.file(&included);
            let sibling = included.with_extension("local");
            if sibling != included {
                self.file(&sibling);
            }
        }
    }
}

/// `[Init?family=inet6]` folds into `[Init]`, its options named `option?family=inet6`.
fn conditional(name: &str) -> (&str, Option<&str>) {
    match name.split_once('?') {
        Some((word, condition)) if is_word(word) && !condition.is_empty() => {
            (word, Some(condition))
        }
        _ => (name, None),
    }
}

/// Whether it is what patterns call `\w+`.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn same_limit(one: &FaultKind, other: &FaultKind) -> bool {
    matches!(
        (one, other),
        (FaultKind::TooDeep { .. }, FaultKind::TooDeep { .. })
            | (FaultKind::TooMany { .. }, FaultKind::TooMany { .. })
            | (FaultKind::TooMuch { .. }, FaultKind::TooMuch { .. })
    )
}

/// `path` with `suffix` behind its last component.
fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut whole = path.as_os_str().to_owned();
    whole.push(suffix);
    whole.into()
}
