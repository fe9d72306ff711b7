//! A tree in memory.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fail2xdp::config::{ReadFault, Tree};

/// A tree in memory.
#[derive(Default)]
pub struct Texts {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

pub const ROOT: &str = "/again";

impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.iter().try_for_each(|(file, text)| {
            write!(f, "\n=== {}\n{}", file.display(), String::from_utf8_lossy(text))
        })
    }
}

impl Texts {
    pub fn put(&mut self, name: &str, text: impl Into<Vec<u8>>) {
        self.files.insert(Path::new(ROOT).join(name), text.into());
    }
}

impl Tree for Texts {
    fn root(&self) -> &Path {
        Path::new(ROOT)
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(self.files.get(file).cloned())
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        let inside = self.files.keys().filter(|file| file.parent() == Some(folder));
        let names = inside.filter_map(|file| file.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }
}
