//! The files behind one base name, in fail2ban's order, merged section by section: later wins, key by key.
use std::{
    collections::HashMap,
    mem::discriminant,
    path::{Path, PathBuf},
    rc::Rc,
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
/// Files read for one base name, and inclusions of them.
const MAX_FILES: usize = 1_000;
/// Bytes of them, and of all inclusions.
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
    /// What was read; `None` where there is no such file.
    read: HashMap<PathBuf, Option<Rc<Ini>>>,
    /// What an included file comes to with its own includes. As in fail2ban the first answer holds: in a circle it
    /// depends on where that is entered.
    lists: HashMap<PathBuf, Vec<PathBuf>>,
    /// Bytes of what was read.
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
        let (read, lists) = (HashMap::new(), HashMap::new());
        let mut reading = Reading { tree, layers: Layers::default(), read, lists, bytes: 0 };
        let folder = suffixed(&base, ".d");
        let mut names = tree.list(&folder).unwrap_or_else(|fault| {
            let kind = FaultKind::Unreadable { file: folder.clone(), fault };
            reading.layers.faults.push(Fault { place: None, section: None, kind });
            Vec::new()
        });
        names.sort_unstable();
        let mut files = Vec::new();
        for suffix in [".conf", ".local"] {
            files.extend(reading.with_includes(&suffixed(&base, suffix), &mut Vec::new()));
            // As the shell's `*.conf`: no hidden files.
            let fits = |name: &&String| name.ends_with(suffix) && !name.starts_with('.');
            for name in names.iter().filter(fits) {
                files.extend(reading.with_includes(&folder.join(name), &mut Vec::new()));
            }
        }
        reading.merge(&files);
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
    /// A file with what it includes before and after itself. A missing file is none. `above` are the files whose
    /// includes are being followed.
    fn with_includes(&mut self, file: &Path, above: &mut Vec<PathBuf>) -> Vec<PathBuf> {
        if above.len() >= MAX_DEPTH {
            self.limit(FaultKind::TooDeep { file: file.into() });
            return Vec::new();
        }
        let Some(ini) = self.ini(file) else { return Vec::new() };
        let mut alone = Layers::default();
        alone.merge(&ini);
        let mut files = self.included(&alone, "before", file, above);
        files.push(file.to_path_buf());
        files.extend(self.included(&alone, "after", file, above));
        if files.len() > MAX_FILES {
            let top = above.first().map_or(file, PathBuf::as_path);
            self.limit(FaultKind::TooMany { file: top.into() });
            files.truncate(MAX_FILES);
        }
        files
    }

    fn included(
        &mut self,
        alone: &Layers,
        option: &str,
        file: &Path,
        above: &mut Vec<PathBuf>,
    ) -> Vec<PathBuf> {
        let Some(raw) = alone.own(INCLUDES, option) else { return Vec::new() };
        let names = match Context::of_file(alone, INCLUDES).expand(raw) {
            Ok(names) => names.lines(),
            Err(error) => {
                let (place, kind) = (error.place.clone(), FaultKind::Expand(error));
                self.layers.faults.push(Fault { place, section: None, kind });
                return Vec::new();
            }
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut files = Vec::new();
        for name in names {
            let included = folder.join(&name.value);
            // A circle ends here; fail2ban sees one only from its second file on.
            if above.contains(&included) || files.len() > MAX_FILES {
                continue;
            }
            if let Some(known) = self.lists.get(&included) {
                files.extend_from_slice(known);
                continue;
            }
            above.push(file.to_path_buf());
            let mut list = self.with_includes(&included, above);
            let sibling = included.with_extension("local");
            if sibling != included {
                list.extend(self.with_includes(&sibling, above));
            }
            above.pop();
            files.extend_from_slice(&list);
            self.lists.insert(included, list);
        }
        files
    }

    /// The file, read once.
    fn ini(&mut self, file: &Path) -> Option<Rc<Ini>> {
        if let Some(known) = self.read.get(file) {
            return known.clone();
        }
        if self.read.len() >= MAX_FILES {
            self.limit(FaultKind::TooMany { file: file.into() });
            return None;
        }
        let bytes = match self.tree.read(file) {
            Ok(Some(bytes)) if bytes.len() > MAX_FILE => Err(ReadFault::TooLong),
            other => other,
        };
        self.bytes += bytes.as_ref().map_or(0, |bytes| bytes.as_ref().map_or(0, Vec::len));
        let ini = match bytes {
            Ok(None) => None,
            Ok(Some(_)) if self.bytes > MAX_BYTES => {
                self.limit(FaultKind::TooMuch { file: file.into() });
                None
            }
            Ok(Some(bytes)) => Some(self.parsed(&bytes, file)),
            Err(fault) => {
                let kind = FaultKind::Unreadable { file: file.into(), fault };
                self.layers.faults.push(Fault { place: None, section: None, kind });
                None
            }
        };
        self.read.insert(file.to_path_buf(), ini.clone());
        ini
    }

    fn parsed(&mut self, bytes: &[u8], file: &Path) -> Rc<Ini> {
        let name = Arc::new(file.to_path_buf());
        let mut ini = Ini::read(bytes, &name);
        self.layers.files.push(name);
        for fault in ini.faults.drain(..) {
            let section = fault.section.map(|name| conditional(&name).0.to_owned());
            let (place, kind) = (Some(fault.place), fault.kind.into());
            self.layers.faults.push(Fault { place, section, kind });
        }
        Rc::new(ini)
    }

    /// Merges the files in this order.
    fn merge(&mut self, files: &[PathBuf]) {
        if files.len() > MAX_FILES {
            self.limit(FaultKind::TooMany { file: files[0].clone() });
        }
        let mut bytes = 0;
        for file in files.iter().take(MAX_FILES) {
            let Some(ini) = self.ini(file) else { continue };
            bytes += ini.bytes;
            if bytes > MAX_BYTES {
                self.limit(FaultKind::TooMuch { file: file.clone() });
                return;
            }
            self.layers.merge(&ini);
        }
    }

    /// Tells a limit. Once is enough: a fan of includes would repeat it without end.
    fn limit(&mut self, kind: FaultKind) {
        let same = |fault: &Fault| discriminant(&fault.kind) == discriminant(&kind);
        if !self.layers.faults.iter().any(same) {
            self.layers.faults.push(Fault { place: None, section: None, kind });
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

/// `path` with `suffix` behind its last component.
fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut whole = path.as_os_str().to_owned();
    whole.push(suffix);
    whole.into()
}
