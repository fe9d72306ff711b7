//! Debian's whole fail2ban configuration, read as an operator who changes over would have it read.
use std::{collections::BTreeSet, path::Path};

use fail2xdp::{
    config::{self, Loaded, ReadFault, Severity, Tree},
    config_tree::DirTree,
    engine::Matcher,
};

/// Jails of that tree that this version refuses: it opens ports instead of closing them.
const REFUSED: [&str; 1] = ["pass2allow-ftp"];

mod peer;

/// The tree with one more file, `jail.local`.
struct WithLocal {
    tree: DirTree,
    local: String,
}

impl Tree for WithLocal {
    fn root(&self) -> &Path {
        self.tree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        match file == self.root().join("jail.local") {
            true => Ok(Some(self.local.clone().into_bytes())),
            false => self.tree.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        self.tree.list(folder)
    }
}

/// The names of all jails in `jail.conf`.
fn all_jails(tree: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(tree.join("jail.conf")).expect("jail.conf");
    let names = text.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    let jails = names.filter(|name| !matches!(*name, "DEFAULT" | "INCLUDES"));
    jails.map(str::to_owned).collect()
}

fn load_with(default: &str, enable: &[String]) -> Loaded {
    let root = peer::config();
    let sections = enable.iter().map(|name| format!("[{name}]\nenabled = true\n"));
    let local = format!("[DEFAULT]\n{default}\n{}", sections.collect::<String>());
    config::load(&WithLocal { tree: DirTree::new(&root), local }).expect("a configuration")
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

#[test]
fn the_tree_as_installed_runs_its_sshd_jail() {
    let loaded = config::load(&DirTree::new(&peer::config())).expect("a configuration");
    assert_eq!(errors(&loaded), Vec::<String>::new());
    assert!(loaded.settings.fail2ban_tree);
    let names: Vec<_> = loaded.settings.jails.iter().map(|jail| jail.name.as_str()).collect();
    assert_eq!(names, ["sshd"]);
    let jail = &loaded.settings.jails[0];
    assert_eq!(
        (jail.scope.to_string().as_str(), jail.max_retry, jail.ipv6_prefix),
        ("tcp:22", 5, 128)
    );
    assert!(jail.filter.prefregex.is_some());
    assert!(jail.filter.failregex.len() > 10, "{:#?}", jail.filter.failregex);
    assert_eq!(loaded.notes.len(), 1, "{:?}", loaded.notes);
}

#[test]
fn every_jail_but_one_can_be_enabled() {
    let names = all_jails(&peer::config());
    assert!(names.len() > 80, "{names:?}");
    for default in ["", "mode = aggressive", "backend = systemd", "usedns = no\nmaxretry = 2"] {
        let loaded = load_with(default, &names);
        let running: BTreeSet<&str> =
            loaded.settings.jails.iter().map(|jail| jail.name.as_str()).collect();
        let missing: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| !running.contains(name)).collect();
        assert_eq!(missing, REFUSED, "{default}: {:#?}", errors(&loaded));
        for jail in &loaded.settings.jails {
            assert!(!jail.scope.is_nothing(), "{default}: jail `{}` bans nothing", jail.name);
            for regex in jail.filter.failregex.iter().chain(&jail.filter.prefregex) {
                let rest = ["%(", "<mdre-", "_prefix_line"]
                    .into_iter()
                    .find(|rest| regex.value.contains(rest));
                assert_eq!(rest, None, "{default}: {:?}: {}", regex.place, regex.value);
            }
        }
    }
}

#[test]
fn every_pattern_compiles() {
    let names = all_jails(&peer::config());
    for default in ["", "mode = aggressive", "usedns = no"] {
        for jail in &load_with(default, &names).settings.jails {
            let (matcher, errors) = Matcher::new(jail, jiff::tz::TimeZone::UTC);
            assert_eq!(errors, [], "{default}: jail `{}`", jail.name);
            // A filter that lacks the mode has no failregex, which is told as a problem of its own.
            let armed = !jail.filter.failregex.is_empty();
            assert_eq!(matcher.is_armed(), armed, "{default}: jail `{}`", jail.name);
        }
    }
}

#[test]
fn a_mode_that_some_filters_lack_is_told_with_its_line() {
    let loaded = load_with("mode = extra", &["nginx-http-auth".to_owned()]);
    let told = errors(&loaded);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].contains("nginx-http-auth.conf:") && told[0].contains("`<mdre-extra>`"),
        "{}",
        told[0]
    );
}
