//! `-d` against fail2ban itself: the same commands for Debian's whole tree, and for trees that are awkward on purpose.
//!
//! Where the two differ on purpose:
//!
//! - **`dies JAIL`** fail2ban refuses the whole configuration because of one enabled jail; we leave out that jail, with
//!   a `config-error`. The rest must be what fail2ban prints with that jail switched off.
//! - **`alone JAIL`** the same where fail2ban refuses it even with that jail off.
//! - **`kinder`, `refused JAIL`** as [`DIFFERENCES`] explains for each tree.
//! - Files that a glob of `logpath` names come sorted from us, in the directory's order from fail2ban.
//! - `%(fail2ban_version)s` is our own version.
//! - A filter's parameter whose name is part of the word `datepattern` (`p`, `date`, `pattern`) is a command to
//!   fail2ban's server, which refuses it and does not start.
//! - Within `name[…]`, blanks may stand around `=` and before a comma.
mod trees;
use std::{collections::BTreeSet, fs, path::Path};

use trees::{
    Unpacked, copy_with, debian, fail2ban, fail2ban_exits, jails, ours, sorted_paths, we_exit,
    without,
};

/// Trees that are read otherwise on purpose, and why.
const DIFFERENCES: [(&str, &str); 11] = [
    ("bad_filter_name", "a jail that is off cannot keep the others from running"),
    ("byte_order_mark", "editors on Windows write a byte order mark, and mean nothing by it"),
    (
        "case",
        "a filter without `[Definition]` finds nothing: its jail is refused instead of run in vain",
    ),
    (
        "first_reading_fault",
        "what the second reading can expand is no mistake of the filter's user",
    ),
    ("init_fault", "a broken value that a parameter replaces does no harm"),
    (
        "section_capitals",
        "a section has one meaning however its name is written in `%(Section/option)s`",
    ),
    ("server_level", "a wrong log level cannot keep the jails from running: the default is used"),
    ("duplicate_in_jail", "one jail's fault cannot keep the others from running"),
    ("known_number", "a number in a filter is as good as a text"),
    (
        "known_percent",
        "a percent sign in a filter's value is no mistake of the jail that asks for it",
    ),
    ("unused_percent", "a broken value that nobody asks for does no harm"),
];

#[track_caller]
fn assert_same(name: &str, expect: Vec<String>, found: Vec<String>) {
    let (expect, found) = (sorted_paths(expect), sorted_paths(found));
    let first = expect.iter().zip(&found).find(|(expect, found)| expect != found);
    if let Some((expect, found)) = first {
        panic!("tree `{name}`:\nfail2ban: {expect}\nfail2xdp: {found}");
    }
    assert_eq!(expect.len(), found.len(), "tree `{name}`: {expect:#?} {found:#?}");
}

fn skipped_by_us(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.starts_with("['config-error'")).count()
}

fn compare(tree: &Unpacked) {
    let name = tree.name.as_str();
    let found = ours(tree.root(), "-d").unwrap_or_else(|| panic!("tree `{name}`: we fail"));
    let expect = fail2ban(tree.root(), "-d");
    if let Some(jail) = tree.remark("dies") {
        assert_eq!(expect, None, "tree `{name}`: fail2ban lives");
        let off = format!("[{jail}]\nenabled = false\n");
        fs::create_dir_all(tree.root().join("jail.d")).expect("a directory");
        fs::write(tree.root().join("jail.d/zz-off.local"), off).expect("a file");
        let rest = fail2ban(tree.root(), "-d");
        let rest = rest.unwrap_or_else(|| panic!("tree `{name}`: fail2ban dies without `{jail}`"));
        assert_eq!(skipped_by_us(&found), 1 + skipped_by_us(&rest), "tree `{name}`: {found:#?}");
        assert_same(name, rest, without(found, jail));
    } else if let Some(jail) = tree.remark("alone") {
        assert_eq!((expect, skipped_by_us(&found)), (None, 1), "tree `{name}`");
        assert!(found.iter().any(|line| line.starts_with("['start'")), "tree `{name}`");
        assert!(!without(found.clone(), jail).is_empty());
    } else if tree.remark("kinder").is_some() {
        assert_eq!((expect, skipped_by_us(&found)), (None, 0), "tree `{name}`: {found:#?}");
        assert!(found.iter().any(|line| line.starts_with("['start'")), "tree `{name}`");
    } else {
        let expect = expect.unwrap_or_else(|| panic!("tree `{name}`: fail2ban dies"));
        match tree.remark("refused") {
            Some(jail) => {
                assert_eq!(skipped_by_us(&found), 1, "tree `{name}`");
                assert_same(name, without(expect, jail), without(found, jail));
            }
            None => assert_same(name, expect, found),
        }
    }
}

#[test]
fn awkward_trees_make_the_same_commands() {
    let all = trees::all();
    assert!(all.len() >= 60, "{}", all.len());
    std::thread::scope(|scope| {
        for half in all.chunks(all.len().div_ceil(2)) {
            scope.spawn(|| half.iter().for_each(compare));
        }
    });
    let differing = all.iter().filter(|tree| {
        ["kinder", "refused", "alone"].iter().any(|kind| tree.remark(kind).is_some())
    });
    let differing: BTreeSet<&str> = differing.map(|tree| tree.name.as_str()).collect();
    assert_eq!(differing, DIFFERENCES.iter().map(|(name, _)| *name).collect());
}

/// What stands in `jail.conf`, and how many of its jails cannot run.
const EXITS: [(&str, &str, usize); 4] = [
    (
        "all jails are skipped",
        "[a]\nenabled = true\nfilter = no\n[b]\nenabled = true\naction = x[y\n",
        2,
    ),
    ("one of several is", "[a]\nenabled = true\nfilter = no\n[b]\nenabled = true\n", 1),
    ("no jail is on", "[a]\nfilter = no\n[b]\naction = x[y\n", 0),
    ("there is no jail", "[DEFAULT]\nfilter = no\n", 0),
];

#[test]
fn jails_that_are_skipped_tell_by_the_exit_code() {
    for (case, jails, skipped) in EXITS {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("jail.conf"), jails).expect("a file");
        let (expect, code) = fail2ban_exits(folder.path(), "-d");
        assert_eq!(skipped_by_us(&expect), skipped, "{case}: {expect:#?}");
        let (found, our_code) = we_exit(folder.path(), "-d");
        assert_same(case, expect, found);
        assert_eq!(our_code, code, "{case}");
    }
    // The only jail that is on is one of which fail2ban dies: the code is the same, and we print the rest.
    let folder = tempfile::tempdir().expect("a directory");
    let jail = "[a]\nenabled = true\nbantime = %(nobody)s\n";
    fs::write(folder.path().join("jail.conf"), jail).expect("a file");
    let (_, code) = fail2ban_exits(folder.path(), "-d");
    let (found, our_code) = we_exit(folder.path(), "-d");
    assert_eq!((our_code, skipped_by_us(&found)), (code, 1), "{found:#?}");
}

#[test]
fn globs_are_those_of_a_shell() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    fs::create_dir_all(root.join("logs/deeper")).expect("a directory");
    for name in ["a.log", ".hidden.log", "b.log", "deeper/c.log"] {
        fs::write(root.join("logs").join(name), "").expect("a file");
    }
    std::os::unix::fs::symlink("nowhere", root.join("logs/dangling.log")).expect("a link");
    std::os::unix::fs::symlink("a.log", root.join("logs/link.log")).expect("a link");
    let paths =
        ["*", "*.log", "**/*.log", ".h*", "[!a].log", "dangling.log", "[", "*/c.log", "deeper"];
    let jails: String = (paths.iter().enumerate())
        .map(|(nth, path)| {
            format!("[j{nth}]\nenabled = yes\nlogpath = {}/logs/{path}\n", root.display())
        })
        .collect();
    fs::write(root.join("jail.conf"), jails).expect("a file");
    assert_same(
        "globs",
        fail2ban(root, "-d").expect("fail2ban reads it"),
        ours(root, "-d").expect("so do we"),
    );
}

#[test]
fn a_file_that_is_no_text_is_not_used() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    fs::create_dir(root.join("filter.d")).expect("a directory");
    fs::write(root.join("jail.conf"), "[j]\nenabled = yes\nfilter = f\n[k]\nenabled = yes\n")
        .expect("a file");
    fs::write(root.join("filter.d/f.conf"), b"[Definition]\nfailregex = ^f\xfcr <HOST>\n")
        .expect("a file");
    let (expect, found) =
        (fail2ban(root, "-d").expect("jail k"), ours(root, "-d").expect("jail k"));
    assert_eq!((skipped_by_us(&expect), skipped_by_us(&found)), (1, 1), "{expect:#?} {found:#?}");
    assert_same("no text", without(expect, "j"), without(found, "j"));
}

fn compare_debian(default: &str, flag: &str) {
    let tree = debian();
    let enabled =
        jails(&tree).iter().map(|name| format!("[{name}]\nenabled = true\n")).collect::<String>();
    let copy = copy_with(&tree, "jail.local", &format!("[DEFAULT]\n{default}\n{enabled}"));
    let root: &Path = copy.path();
    let expect = fail2ban(root, flag).expect("fail2ban reads its own tree");
    assert!(expect.iter().filter(|line| line.starts_with("['start'")).count() > 80);
    assert_same(default, expect, ours(root, flag).expect("we read it"));
}

#[test]
fn debians_whole_tree_makes_the_same_commands() {
    for default in [
        "",
        "mode = aggressive",
        "backend = systemd",
        "usedns = no\nmaxretry = 2\nbantime.increment = true",
        "banaction = nftables[type=allports]\naction = %(action_mwl)s",
    ] {
        compare_debian(default, "-d");
    }
}

#[test]
fn debians_tree_is_laid_out_the_same() {
    compare_debian("", "--dump-pretty");
}

#[test]
fn the_tree_as_installed_makes_the_same_commands() {
    let tree = debian();
    assert_same(
        "debian",
        fail2ban(&tree, "-d").expect("fail2ban runs"),
        ours(&tree, "-d").expect("we run"),
    );
}
