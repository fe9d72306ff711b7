//! A configuration with one or a few jails of the command line's own.
use std::{fmt::Write, path::Path};

use anyhow::bail;

use crate::config::{self, JailSettings, Loaded, Problem, ReadFault, Severity, Tree};

/// A tree with some options of jails set, or with one jail alone.
pub(super) struct Overlay<'t> {
    tree: &'t dyn Tree,
    /// The only jail there is, or one more file in `jail.d`.
    alone: bool,
    text: String,
}

/// Read last of all.
const LAST: &str = "~~~.local";

impl<'t> Overlay<'t> {
    /// The tree as it is but for these options of its jails.
    pub fn over(tree: &'t dyn Tree, jails: &[&str], options: &[(&str, String)]) -> Overlay<'t> {
        let text = jails.iter().map(|jail| section(jail, options)).collect();
        Overlay { tree, alone: false, text }
    }

    /// The tree's filters, with this jail for all of its jails.
    pub fn instead(tree: &'t dyn Tree, jail: &str, options: &[(&str, String)]) -> Overlay<'t> {
        Overlay { tree, alone: true, text: section(jail, options) }
    }

    /// The whole configuration.
    ///
    /// # Errors
    ///
    /// The first error, where nothing can be used.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        config::load(self).or_else(|problems| match errors(&problems).next() {
            Some(problem) => bail!("{problem}"),
            None => bail!("nothing of the configuration can be used: try `fail2xdp check`"),
        })
    }

    /// The jail of that name.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn jail(&self, name: &str) -> anyhow::Result<JailSettings> {
        let loaded = self.load()?;
        let concerns =
            |problem: &&Problem| problem.jail.as_ref().is_none_or(|jail| jail.as_str() == name);
        if let Some(jail) = loaded.settings.jails.iter().find(|jail| jail.name.as_str() == name) {
            return Ok(jail.clone());
        }
        match errors(&loaded.problems).find(concerns) {
            Some(problem) => bail!("{problem}"),
            None => bail!("`{name}` cannot be used: try `fail2xdp check`"),
        }
    }
}

fn errors(problems: &[Problem]) -> impl Iterator<Item = &Problem> {
    problems.iter().filter(|problem| problem.severity == Severity::Error)
}

fn section(jail: &str, options: &[(&str, String)]) -> String {
    let mut text = format!("[{jail}]\n");
    for (name, value) in options {
        let value = value.replace('%', "%%").replace('\n', "\n  ");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

/// Whether some file has a section for this jail.
pub(super) fn has_jail(tree: &dyn Tree, name: &str) -> bool {
    let root = tree.root();
    let folder = root.join("jail.d");
    let inside = tree.list(&folder).unwrap_or_default();
    let files = inside.iter().map(|name| folder.join(name));
    let header = format!("[{name}]");
    files.chain([root.join("jail.conf"), root.join("jail.local")]).any(|file| {
        let text = tree.read(&file).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&text).lines().any(|line| line.trim_end() == header)
    })
}

impl Tree for Overlay<'_> {
    fn root(&self) -> &Path {
        self.tree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        let root = self.root();
        let ours = match self.alone {
            true => root.join("jail.conf"),
            false => root.join("jail.d").join(LAST),
        };
        if file == ours {
            return Ok(Some(self.text.clone().into_bytes()));
        }
        if self.alone && file == root.join("jail.local") {
            return Ok(None);
        }
        self.tree.read(file)
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        if folder != self.root().join("jail.d") {
            return self.tree.list(folder);
        }
        if self.alone {
            return Ok(Vec::new());
        }
        let mut names = self.tree.list(folder)?;
        names.push(LAST.to_owned());
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_tree::ShippedTree;

    #[test]
    fn a_jail_can_be_set_over_or_stand_alone() {
        assert!(has_jail(&ShippedTree, "sshd"));
        assert!(!has_jail(&ShippedTree, "nope"));
        let off = [("enabled", "false".to_owned())];
        let without = Overlay::over(&ShippedTree, &["sshd"], &off).load().expect("it loads");
        assert!(without.settings.jails.iter().all(|jail| jail.name.as_str() != "sshd"));
        let on = [("enabled", "true".to_owned()), ("filter", "sshd[mode=aggressive]".to_owned())];
        let alone = Overlay::instead(&ShippedTree, "x", &on).jail("x").expect("it holds together");
        assert!(!alone.filter.failregex.is_empty());
        let missing = [("enabled", "true".to_owned()), ("filter", "nope".to_owned())];
        assert!(Overlay::instead(&ShippedTree, "x", &missing).jail("x").is_err());
    }
}
