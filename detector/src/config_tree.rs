//! Where the configuration's texts come from: a directory, or the tree inside the binary.
use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use include_dir::{Dir, include_dir};

use crate::config::{MAX_FILE, ReadFault, Tree};

/// A directory such as `/etc/fail2xdp` or `/etc/fail2ban`.
#[derive(Clone, Debug)]
pub struct DirTree {
    root: PathBuf,
}

impl DirTree {
    /// The directory itself is not looked at before the first read.
    pub fn new(root: &Path) -> DirTree {
        DirTree { root: root.to_path_buf() }
    }
}

impl Tree for DirTree {
    fn root(&self) -> &Path {
        &self.root
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        let metadata = match fs::metadata(file) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other.map_err(fault)?,
        };
        if metadata.is_dir() {
            return Err(ReadFault::Directory);
        }
        // A pipe or a device could keep us waiting or reading for ever.
        if !metadata.is_file() {
            return Err(ReadFault::System("it is no regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        let limit = MAX_FILE as u64 + 1;
        fs::File::open(file).map_err(fault)?.take(limit).read_to_end(&mut bytes).map_err(fault)?;
        if bytes.len() > MAX_FILE { Err(ReadFault::TooLong) } else { Ok(Some(bytes)) }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        let entries = match fs::read_dir(folder) {
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            other => other.map_err(fault)?,
        };
        let names = entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<_, _>>().map_err(fault)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn fault(error: io::Error) -> ReadFault {
    ReadFault::System(error.to_string())
}

/// The tree that is shipped with the program: `config/` of the repository.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShippedTree;

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../config");

/// Stands in messages where a directory's path would.
const SHIPPED_ROOT: &str = "(shipped)";

impl Tree for ShippedTree {
    fn root(&self) -> &Path {
        Path::new(SHIPPED_ROOT)
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        let inside = file.strip_prefix(SHIPPED_ROOT).ok();
        Ok(inside.and_then(|file| SHIPPED.get_file(file)).map(|file| file.contents().to_vec()))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        let inside = folder.strip_prefix(SHIPPED_ROOT).ok();
        let files =
            inside.and_then(|folder| SHIPPED.get_dir(folder)).into_iter().flat_map(Dir::files);
        let names = files.filter_map(|file| file.path().file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config;

    #[test]
    fn a_directory_is_read_and_what_is_missing_is_no_fault() {
        let folder = tempfile::tempdir().expect("a directory");
        let tree = DirTree::new(folder.path());
        fs::create_dir(folder.path().join("jail.d")).expect("a directory");
        fs::write(folder.path().join("jail.d/a.conf"), "[a]").expect("a file");
        assert_eq!(tree.list(&folder.path().join("jail.d")), Ok(vec!["a.conf".to_owned()]));
        assert_eq!(tree.read(&folder.path().join("jail.d/a.conf")), Ok(Some(b"[a]".to_vec())));
        for missing in ["jail.conf", "jail.d/a.conf/b.conf", "nowhere/jail.conf"] {
            assert_eq!(tree.read(&folder.path().join(missing)), Ok(None), "{missing}");
            assert_eq!(tree.list(&folder.path().join(missing)), Ok(Vec::new()), "{missing}");
        }
        assert!(config::load(&tree).is_ok());
        assert!(config::load(&DirTree::new(&folder.path().join("nowhere"))).is_err());
    }

    #[test]
    fn what_could_keep_us_reading_for_ever_is_refused() {
        let folder = tempfile::tempdir().expect("a directory");
        let tree = DirTree::new(folder.path());
        symlink("/dev/zero", folder.path().join("jail.conf")).expect("a link");
        let fault = ReadFault::System("it is no regular file".to_owned());
        assert_eq!(tree.read(&folder.path().join("jail.conf")), Err(fault.clone()));
        assert_eq!(tree.read(folder.path()), Err(ReadFault::Directory));
        let long = fs::File::create(folder.path().join("long.conf")).expect("a file");
        long.set_len(MAX_FILE as u64 + 1).expect("a long file");
        assert_eq!(tree.read(&folder.path().join("long.conf")), Err(ReadFault::TooLong));
    }

    #[test]
    fn the_shipped_tree_has_files_and_no_others() {
        let root = ShippedTree.root();
        assert!(ShippedTree.read(&root.join("jail.conf")).is_ok_and(|file| file.is_some()));
        assert_eq!(ShippedTree.read(&root.join("../Cargo.toml")), Ok(None));
        assert_eq!(ShippedTree.read(Path::new("/etc/passwd")), Ok(None));
        let filters = ShippedTree.list(&root.join("filter.d")).expect("a folder");
        assert!(filters.contains(&"sshd.conf".to_owned()), "{filters:?}");
        assert!(filters.iter().all(|name| name.ends_with(".conf")), "{filters:?}");
        assert_eq!(ShippedTree.list(&root.join("jail.d")), Ok(Vec::new()));
    }
}
