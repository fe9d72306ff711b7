//! Every pattern of Debian's filters, in every mode and for every kind of log.
mod trees;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use fail2xdp::{
    config::{self, ReadFault, Tree},
    config_tree::DirTree,
    engine::{Matcher, PatternEngine, review_jail},
};

const MODES: [&str; 10] =
    ["normal", "ddos", "extra", "aggressive", "more", "auth", "rbl", "errors", "fallback", "all"];
const LOG_TYPES: [&str; 4] = ["file", "short", "journal", "rfc5424"];

/// The tree with other jails.
struct WithJails {
    tree: DirTree,
    jails: String,
}

impl Tree for WithJails {
    fn root(&self) -> &Path {
        self.tree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        match file == self.root().join("jail.conf") {
            true => Ok(Some(self.jails.clone().into_bytes())),
            false => self.tree.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        if folder == self.root().join("jail.d") { Ok(Vec::new()) } else { self.tree.list(folder) }
    }
}

fn filters(tree: &Path) -> Vec<String> {
    let entries = fs::read_dir(tree.join("filter.d")).expect("filter.d");
    let files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let files = files.iter().filter(|file| file.extension().is_some_and(|it| it == "conf"));
    let mut names: Vec<String> = files
        .map(|file| file.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.retain(|name| !name.ends_with("common"));
    names.sort();
    names
}

#[test]
fn every_filter_is_translated_in_every_mode() {
    let root = trees::debian();
    let filters = filters(&root);
    assert!(filters.len() > 80, "{filters:?}");
    let mut seen = BTreeSet::new();
    let (mut patterns, mut backtracking) = (BTreeSet::new(), BTreeSet::new());
    for mode in MODES {
        for log_type in LOG_TYPES {
            let jail = |name: &String| {
                let date = "action = iptables-allports\nlogpath = /var/log/x\n";
                format!(
                    "[{name}]\nenabled = true\nfilter = {name}[mode={mode}, logtype={log_type}]\n{date}"
                )
            };
            let jails: String = filters.iter().map(jail).collect();
            let tree = WithJails { tree: DirTree::new(&root), jails };
            let loaded = config::load(&tree).expect("a configuration");
            assert_eq!(loaded.settings.jails.len(), filters.len(), "{:#?}", loaded.problems);
            for jail in &loaded.settings.jails {
                // Most filters have neither modes nor forms: looked at once, that is enough.
                let same = |regex: &config::Located<String>| regex.value.clone();
                let texts: Vec<String> =
                    jail.filter.failregex.iter().chain(&jail.filter.prefregex).map(same).collect();
                if !seen.insert((jail.name.clone(), texts)) {
                    continue;
                }
                let (_, errors) = Matcher::new(jail, jiff::tz::TimeZone::UTC);
                assert_eq!(errors, [], "filter `{}`, mode {mode}, {log_type}", jail.name);
                let filter = &jail.filter;
                let all = filter.failregex.len()
                    + filter.ignoreregex.len()
                    + filter.prefregex.iter().len();
                let (mut reviews, _) = review_jail(jail);
                reviews.retain(|review| review.option != "datepattern");
                assert_eq!(reviews.len(), all, "filter `{}`", jail.name);
                for review in reviews {
                    let key = (jail.name.to_string(), review.option, review.text);
                    if review.engine != PatternEngine::Regex {
                        backtracking.insert(key.clone());
                    }
                    patterns.insert(key);
                }
            }
        }
    }
    // Nine in ten run in linear time, as the survey of fail2ban's filters says.
    println!(
        "{} patterns, {} of them on the engine that backtracks",
        patterns.len(),
        backtracking.len()
    );
    assert!(
        patterns.len() > 300 && backtracking.len() * 5 < patterns.len(),
        "{} {}",
        patterns.len(),
        backtracking.len()
    );
}
