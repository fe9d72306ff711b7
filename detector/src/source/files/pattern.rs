//! `logpath` globs of the shell kind: `*`, `?`, `[..]` within a name, no `**`.
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Component, Path, PathBuf},
};

use glob::MatchOptions;

use super::packed::Format;

/// As in a shell: a wildcard does not match a leading dot.
const SHELL: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Symlinks followed from one path, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// What one path component must be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Is(OsString),
    Like(glob::Pattern),
}

impl Name {
    fn new(text: &OsStr) -> Name {
        let Some(text) = text.to_str().filter(|text| text.contains(['*', '?', '['])) else {
            return Name::Is(text.to_owned());
        };
        let mut single = text.to_owned();
        while single.contains("**") {
            single = single.replace("**", "*");
        }
        // What is no pattern (`a[b`) is taken literally, as a shell does.
        glob::Pattern::new(&single).map_or_else(|_| Name::Is(text.into()), Name::Like)
    }

    pub(crate) fn fits(&self, name: &OsStr) -> bool {
        match self {
            Name::Is(literal) => literal == name,
            Name::Like(pattern) => pattern.matches_with(name.to_string_lossy().as_ref(), SHELL),
        }
    }

    /// Whether some name could fit both. Two wildcards are taken to overlap.
    fn may_overlap(&self, other: &Name) -> bool {
        match (self, other) {
            (Name::Is(a), b) | (b, Name::Is(a)) => b.fits(a),
            (Name::Like(_), Name::Like(_)) => true,
        }
    }
}

/// One `logpath` pattern, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: PathBuf,
    names: Vec<Name>,
}

impl Pattern {
    pub(crate) fn new(text: &Path) -> Pattern {
        Pattern::of(text, Name::new)
    }

    fn literal(path: &Path) -> Pattern {
        Pattern::of(path, |name| Name::Is(name.to_owned()))
    }

    fn of(text: &Path, name_of: impl Fn(&OsStr) -> Name) -> Pattern {
        let text = std::path::absolute(text).unwrap_or_else(|_| text.to_owned());
        let names = text
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name_of(name)),
                Component::ParentDir => Some(Name::Is("..".into())),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
            })
            .collect();
        Pattern { text, names }
    }

    /// The pattern itself.
    pub(crate) fn text(&self) -> &Path {
        &self.text
    }

    /// Whether this absolute path is among those it may name.
    pub(crate) fn fits(&self, path: &Path) -> bool {
        let Pattern { names, .. } = Pattern::literal(path);
        let mut pairs = self.names.iter().zip(&names);
        self.names.len() == names.len()
            && pairs.all(|(own, name)| matches!(name, Name::Is(name) if own.fits(name)))
    }

    /// Whether a file could be named by both.
    pub(crate) fn may_overlap(&self, other: &Pattern) -> bool {
        self.names.len() == other.names.len()
            && self.names.iter().zip(&other.names).all(|(a, b)| a.may_overlap(b))
    }

    /// The paths this pattern names now, in name order; the pattern itself when there are none.
    ///
    /// `watch` is told, before it is looked at, of each directory and name that decides the answer: where a missing
    /// part would appear, where a wildcard could grow, where a symlink could be switched.
    pub(crate) fn expand(&self, watch: &mut dyn FnMut(&Path, &Name)) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(Path::new("/"), &self.names, watch, &mut found, MAX_LINKS);
        if found.is_empty() {
            found.push(self.text.clone());
        }
        found.sort();
        found
    }
}

fn walk(
    dir: &Path,
    names: &[Name],
    watch: &mut dyn FnMut(&Path, &Name),
    found: &mut Vec<PathBuf>,
    links: usize,
) {
    let Some((name, rest)) = names.split_first() else { return };
    match name {
        Name::Is(literal) => {
            let path = dir.join(literal);
            if rest.is_empty() {
                watch(dir, name);
                follow_links(&path, watch, links);
                if path.symlink_metadata().is_ok() {
                    found.push(path);
                }
                return;
            }
            // Only a directory of its own is found without a watch on its name: one that is missing may appear between
            // two looks, and a symlink may be switched.
            if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                watch(dir, name);
                follow_links(&path, watch, links);
            }
            if path.is_dir() {
                walk(&path, rest, watch, found, links);
            }
        }
        Name::Like(_) => {
            watch(dir, name);
            let Ok(entries) = fs::read_dir(dir) else { return };
            for entry in entries.flatten().filter(|entry| name.fits(&entry.file_name())) {
                let path = entry.path();
                if rest.is_empty() {
                    // `x.log*` means the logs, not what was made of them.
                    if Format::of(&entry.file_name()).is_some() {
                        continue;
                    }
                    follow_links(&path, watch, links);
                    found.push(path);
                } else if path.is_dir() {
                    walk(&path, rest, watch, found, links);
                }
            }
        }
    }
}

/// Watches where the target of a symlink lies, and of the symlink it leads to.
fn follow_links(path: &Path, watch: &mut dyn FnMut(&Path, &Name), links: usize) {
    let Some(links) = links.checked_sub(1) else { return };
    let Ok(target) = fs::read_link(path) else { return };
    let target = path.parent().unwrap_or(Path::new("/")).join(target);
    let names: Vec<Name> = target
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(Name::Is(name.to_owned())),
            Component::ParentDir => Some(Name::Is("..".into())),
            _ => None,
        })
        .collect();
    walk(Path::new("/"), &names, watch, &mut Vec::new(), links);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn overlap(a: &str, b: &str, expect: bool) {
        let (a, b) = (Pattern::new(Path::new(a)), Pattern::new(Path::new(b)));
        assert_eq!((a.may_overlap(&b), b.may_overlap(&a)), (expect, expect), "{a:?} {b:?}");
    }

    #[test]
    fn patterns_that_could_name_one_file_overlap() {
        overlap("/var/log/auth.log", "/var/log/auth.log", true);
        overlap("/var/log/auth.log", "/var/log/*.log", true);
        overlap("/var/log/auth.log", "/var/log/*/auth.log", false);
        overlap("/var/log/[ab]uth.log", "/var/log/auth.log", true);
        overlap("/var/log/[!a]uth.log", "/var/log/auth.log", false);
        overlap("/var/*/a.log", "/var/log/?.log", true);
        overlap("/var/log/a.log", "/var/log/b.log", false);
        overlap("/var/log/.a", "/var/log/*", false);
        overlap("/var/log/**", "/var/log/x", true);
        overlap("/var/log/a[b", "/var/log/a[b", true);
    }

    #[test]
    fn expansion_finds_files_and_names_the_places_to_watch() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let root = dir.path().canonicalize().expect("it exists");
        for file in ["one/a.log", "two/b.log", "two/.c.log", "three/x"] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("inside root")).expect("made");
            fs::write(path, "").expect("made");
        }
        let expand = |pattern: &str| {
            let mut watched = Vec::new();
            let found = Pattern::new(&root.join(pattern)).expand(&mut |dir, _| {
                watched.push(dir.strip_prefix(&root).expect("below root").to_owned());
            });
            let names = |paths: Vec<PathBuf>| {
                let names = paths.iter().map(|path| path.strip_prefix(&root).unwrap_or(path));
                names.map(|name| name.display().to_string()).collect::<Vec<_>>().join(" ")
            };
            watched.sort();
            (names(found), names(watched))
        };
        assert_eq!(expand("*/*.log"), ("one/a.log two/b.log".into(), " one three two".into()));
        assert_eq!(expand("four/five.log"), ("four/five.log".into(), "".into()));
        assert_eq!(expand("one/z.log"), ("one/z.log".into(), "one".into()));
    }

    #[test]
    fn a_symlink_is_watched_where_it_lies_and_where_it_leads() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let root = dir.path().canonicalize().expect("it exists");
        for name in ["links", "data"] {
            fs::create_dir(root.join(name)).expect("made");
        }
        std::os::unix::fs::symlink("../data/real.log", root.join("links/log")).expect("made");
        let mut watched = Vec::new();
        let found = Pattern::new(&root.join("links/log")).expand(&mut |dir, _| {
            watched.push(dir.canonicalize().expect("exists"));
        });
        assert_eq!(found, [root.join("links/log")]);
        assert_eq!(watched, [root.join("links"), root.join("data")]);
    }
}
