//! The whole reader: small trees in, settings and problems out.
use std::{collections::BTreeMap, path::Path};

use super::*;

/// A tree of texts, under `/etc/x`.
#[derive(Debug, Default)]
pub(super) struct TextTree {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

const ROOT: &str = "/etc/x";

impl TextTree {
    pub(super) fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> TextTree {
        let path =
            |(name, text): (&str, &str)| (Path::new(ROOT).join(name), text.as_bytes().to_vec());
        TextTree { files: files.into_iter().map(path).collect() }
    }
}

impl Tree for TextTree {
    fn root(&self) -> &Path {
        Path::new(ROOT)
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(self.files.get(file).cloned())
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        let inside = self.files.keys().filter(|file| file.parent() == Some(folder));
        Ok(inside
            .filter_map(|file| file.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }
}
