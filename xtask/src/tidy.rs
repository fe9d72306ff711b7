//! Rules that clippy cannot see: who may know whom, what a pure room may not touch, and what has
//! no place in any file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// Longer files hold more than one noun.
const LONGEST: usize = 600;

/// Rooms that talk to the world. They exchange events and effects by way of `app.rs` and never
/// call one another.
const SHELL: [&str; 6] = ["source", "enforce", "control", "store", "action", "fleet"];

/// Rooms that are given text, events and the time, and answer: nothing else.
const PURE: [&str; 2] = ["engine", "config"];

/// What a pure room would reach the world by.
const WORLD: &[&str] = &[
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::os",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "File::open",
    "tokio",
    "rustix",
    "libc",
    "aya",
    "inotify",
    "systemd::",
];

/// Written so that this file does not find itself.
const NOWHERE: &[(&str, &str)] = &[
    (concat!("#[", "ignore"), "assert what happens today and say why it is wrong"),
    (concat!("todo", "!("), "finish it, or leave it out"),
    (concat!("unimplemented", "!("), "finish it, or leave it out"),
    (concat!("dbg", "!("), "use `tracing`"),
];

/// What each crate may know of ours.
const DEPENDENCIES: [(&str, &[&str]); 5] = [
    ("common", &[]),
    ("ebpf", &["fail2xdp-common"]),
    ("detector", &["fail2xdp-common"]),
    ("tests", &["fail2xdp", "fail2xdp-common"]),
    ("xtask", &[]),
];

/// Checks the repository; the error lists every place.
pub fn check_tree() -> Result<()> {
    let mut problems = Vec::new();
    for (package, allowed) in DEPENDENCIES {
        let manifest = sh::root().join(package).join("Cargo.toml");
        let text = fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        problems.extend(manifest_problems(package, &text, allowed));
        for file in sources(&sh::root().join(package))? {
            let text = fs::read_to_string(&file)?;
            let name = file.strip_prefix(sh::root()).unwrap_or(&file);
            problems.extend(file_problems(&name.to_string_lossy(), &text));
        }
    }
    if !problems.is_empty() {
        bail!("the tree breaks its rules:\n{}", problems.join("\n"));
    }
    Ok(())
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn manifest_problems(package: &str, text: &str, allowed: &[&str]) -> Vec<String> {
    let ours = text.lines().enumerate().filter_map(|(at, line)| {
        let name = line.split(['.', '=', ' ']).next()?.trim();
        let is_ours = name == "fail2xdp" || name.starts_with("fail2xdp-");
        (is_ours && !allowed.contains(&name)).then(|| {
            format!("{package}/Cargo.toml:{}: `{package}` may not depend on `{name}`", at + 1)
        })
    });
    ours.collect()
}

/// What is wrong in one file, each with its place.
fn file_problems(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let length = text.lines().count();
    if length > LONGEST {
        problems.push(format!("{path}: {length} lines, more than {LONGEST}: one noun a file"));
    }
    for (at, line) in text.lines().enumerate() {
        for (word, instead) in NOWHERE {
            if code(line).contains(word) {
                problems.push(format!("{path}:{}: `{word}`: {instead}", at + 1));
            }
        }
    }
    let Some(room) = room(path) else { return problems };
    let is_pure = PURE.contains(&room);
    for (at, line) in without_tests(path, text) {
        let line = code(line);
        if is_pure && let Some(word) = WORLD.iter().find(|word| mentions(line, word)) {
            problems.push(format!(
                "{path}:{at}: `{word}` in the pure room `{room}`: take what you need as an \
                 argument"
            ));
        }
        for other in rooms_named(path, line) {
            let is_shell = SHELL.contains(&other);
            if other != room && (is_shell || (room == "config" && other == "engine")) {
                problems.push(format!(
                    "{path}:{at}: room `{room}` names room `{other}`: let an event or an effect \
                     of `engine` carry it"
                ));
            }
        }
    }
    problems
}

/// The room that a file of the detector belongs to.
fn room(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("detector/src/")?;
    let room = rest.split('/').next()?.trim_end_matches(".rs");
    (PURE.contains(&room) || SHELL.contains(&room)).then_some(room)
}

/// The lines, numbered, up to the tests: those may read files and name whom they like.
fn without_tests<'a>(path: &str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let is_test = path.ends_with("tests.rs") || path.contains("/tests/");
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.take_while(move |(_, line)| !is_test && !line.starts_with("#[cfg(test)]"))
}

/// A line without its comment.
fn code(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line }
}

fn mentions(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open = word.ends_with(':');
        !before.is_some_and(is_name) && (open || !after.is_some_and(is_name))
    })
}

/// Rooms that a line names: `crate::room`, `crate::{room::…, …}`, and `super::room` in a file
/// whose `super` is the crate.
fn rooms_named<'a>(path: &str, line: &'a str) -> Vec<&'a str> {
    let top = path.strip_prefix("detector/src/").is_some_and(|rest| {
        let depth = rest.matches('/').count();
        depth == 0 || (depth == 1 && rest.ends_with("/mod.rs"))
    });
    let mut rooms = Vec::new();
    for root in ["crate::", "super::"] {
        if root == "super::" && !top {
            continue;
        }
        for (at, _) in line.match_indices(root) {
            let rest = &line[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => rooms.extend(names_in_group(group)),
                None => rooms.extend(first_name(rest)),
            }
        }
    }
    rooms.retain(|name| PURE.contains(name) || SHELL.contains(name));
    rooms
}

fn first_name(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// The first name of each path of a group of imports; what stands in inner groups belongs to
/// their path.
fn names_in_group(group: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(first_name(group[start..at].trim_start()));
                return names;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(first_name(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.extend(first_name(group[start..].trim_start()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_keeps_its_rules() {
        if let Err(problems) = check_tree() {
            panic!("{problems}");
        }
    }

    #[track_caller]
    fn check(path: &str, line: &str, expect: &str) {
        let problems = file_problems(path, line);
        match expect {
            "" => assert_eq!(problems, [""; 0]),
            _ => assert!(problems.iter().any(|problem| problem.contains(expect)), "{problems:?}"),
        }
    }

    #[test]
    fn a_pure_room_touches_nothing() {
        let engine = "detector/src/engine/jail.rs";
        check(engine, "let text = std::fs::read(path);", "`std::fs` in the pure room `engine`");
        check(engine, "let now = Timestamp::now();", "`Timestamp::now`");
        check("detector/src/config/ini.rs", "use tokio::sync;", "`tokio`");
        check("detector/src/config.rs", "use aya::maps;", "`aya`");
        check(engine, "// as std::fs would", "");
        check(engine, "let tokio_like = ayatollah(now);", "");
        check("detector/src/source/file.rs", "std::fs::read(path)", "");
        check(engine, "#[cfg(test)]\nmod tests { use std::fs; }", "");
        check("detector/src/engine/tests.rs", "use std::fs;", "");
    }

    #[test]
    fn rooms_of_the_shell_do_not_know_one_another() {
        let enforce = "detector/src/enforce/tables/mod.rs";
        check(enforce, "use crate::source::Report;", "room `enforce` names room `source`");
        check(enforce, "use crate::{engine::Ban, control, sys};", "names room `control`");
        check(enforce, "use crate::{engine::{control, source}, sys};", "");
        check(enforce, "use crate::engine::Ban;", "");
        check(enforce, "use crate::enforce::Maps;", "");
        check(enforce, "use super::source;", "");
        check("detector/src/enforce/mod.rs", "use super::source;", "names room `source`");
        check("detector/src/config/jail.rs", "use crate::engine::Ban;", "names room `engine`");
        check("detector/src/engine/jail.rs", "use crate::config::Span;", "");
        check("detector/src/app.rs", "use crate::{source, enforce};", "");
    }

    #[test]
    fn a_crate_knows_only_those_below_it() {
        let text = "[dependencies]\nfail2xdp.workspace = true\nanyhow = \"1\"\n";
        let problems = manifest_problems("xtask", text, &[]);
        assert_eq!(problems, ["xtask/Cargo.toml:2: `xtask` may not depend on `fail2xdp`"]);
        assert!(manifest_problems("tests", text, &["fail2xdp"]).is_empty());
    }

    #[test]
    fn unfinished_and_long_files_are_found() {
        check("ebpf/src/main.rs", concat!("todo", "!()"), "finish it");
        check("tests/tests/a.rs", concat!("#[", "ignore = \"slow\"]"), "assert what happens");
        check("common/src/lib.rs", &"\n".repeat(601), "601 lines");
        check("common/src/lib.rs", &"\n".repeat(600), "");
    }
}
