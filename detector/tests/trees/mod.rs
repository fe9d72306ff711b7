//! Configuration trees kept as one text each, and fail2ban itself as the judge of what they mean.
//!
//! A `.tree` file begins with a line of explanation, may then say in lines beginning with `!` how fail2ban and we
//! differ, and goes on with files, each below a line `=== PATH`, with `crlf` or `bom` behind it where the file has
//! Windows line ends or a byte order mark.
#![allow(dead_code, reason = "each test uses some of it")]
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// One tree, unpacked.
pub struct Unpacked {
    pub name: String,
    pub folder: TempDir,
    /// What stands behind each `!`.
    pub remarks: Vec<String>,
}

impl Unpacked {
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The word behind a remark such as `dies j`.
    pub fn remark(&self, kind: &str) -> Option<&str> {
        self.remarks.iter().find_map(|remark| match remark.split_once(' ') {
            Some((found, rest)) if found == kind => Some(rest),
            None if remark == kind => Some(""),
            _ => None,
        })
    }
}

/// All trees, by name.
pub fn all() -> Vec<Unpacked> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/testdata/trees");
    let entries = fs::read_dir(&folder).expect("the folder of trees");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "tree"));
    files.sort();
    files.iter().map(|file| unpack(file)).collect()
}

fn unpack(file: &Path) -> Unpacked {
    let text = fs::read_to_string(file).expect("a tree");
    let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
    let (folder, mut remarks) = (tempfile::tempdir().expect("a directory"), Vec::new());
    let mut parts = text.split("=== ");
    let head = parts.next().unwrap_or("");
    remarks.extend(head.lines().filter_map(|line| line.strip_prefix("! ")).map(str::to_owned));
    for part in parts {
        let (path, content) = part.split_once('\n').expect("a path's line ends");
        let (mut path, mut content) = (path, content.to_owned());
        while let Some((rest, flag @ ("crlf" | "bom"))) = path.rsplit_once(' ') {
            content = match flag {
                "crlf" => content.replace('\n', "\r\n"),
                _ => format!("\u{feff}{content}"),
            };
            path = rest;
        }
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    Unpacked { name, folder, remarks }
}

/// Debian's configuration: unpacked aside, or installed.
pub fn debian() -> PathBuf {
    let aside = env::var_os("FAIL2XDP_FAIL2BAN_TREE").map(PathBuf::from);
    let tree = aside.unwrap_or_else(|| PathBuf::from("/etc/fail2ban"));
    assert!(
        tree.join("jail.conf").is_file(),
        "there is no fail2ban in `{}`: run `cargo xtask test`, which unpacks one, or unpack it with \
         `apt-get download fail2ban && dpkg -x fail2ban_*.deb DIR` and set FAIL2XDP_FAIL2BAN_TREE=DIR/etc/fail2ban",
        tree.display()
    );
    tree
}

/// The names of all jails in `jail.conf`.
pub fn jails(tree: &Path) -> Vec<String> {
    let text = fs::read_to_string(tree.join("jail.conf")).expect("jail.conf");
    let names = text.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    names.filter(|name| !matches!(*name, "DEFAULT" | "INCLUDES")).map(str::to_owned).collect()
}

/// Copies a tree, links and all, and puts one more file beside it.
pub fn copy_with(tree: &Path, file: &str, content: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    copy(tree, folder.path());
    fs::write(folder.path().join(file), content).expect("a file");
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).expect("a directory");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

/// What `fail2ban-client -c TREE FLAG` prints, and its exit code.
pub fn fail2ban_exits(tree: &Path, flag: &str) -> (Vec<String>, i32) {
    let root = debian().join("../..");
    let output = Command::new("python3")
        .arg(root.join("usr/bin/fail2ban-client"))
        .arg("-c")
        .args([tree.as_os_str(), flag.as_ref()])
        .current_dir(tree)
        .env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1")
        .output()
        .expect("python3 starts; install it, or run `cargo xtask test`");
    let (text, code) = printed(&output);
    assert!(
        code != 0 || text.first().is_some_and(|line| line.starts_with('[')),
        "fail2ban does not run: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (text, code)
}

/// The same of our own program.
pub fn we_exit(tree: &Path, flag: &str) -> (Vec<String>, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_fail2xdp"))
        .arg("-c")
        .args([tree.as_os_str(), flag.as_ref()])
        .current_dir(tree)
        .output()
        .expect("the program starts");
    printed(&output)
}

fn printed(output: &Output) -> (Vec<String>, i32) {
    let text = str::from_utf8(&output.stdout).expect("UTF-8");
    let code = output.status.code().expect("it ends by itself");
    (text.lines().map(str::to_owned).collect(), code)
}

/// What fail2ban prints, line by line; `None` where it fails.
pub fn fail2ban(tree: &Path, flag: &str) -> Option<Vec<String>> {
    let (lines, code) = fail2ban_exits(tree, flag);
    (code == 0).then_some(lines)
}

/// What we print; `None` where we cannot say anything.
pub fn ours(tree: &Path, flag: &str) -> Option<Vec<String>> {
    let (lines, _) = we_exit(tree, flag);
    lines.first().is_some_and(|line| line.starts_with('[')).then_some(lines)
}

/// The lines with those that a glob made sorted.
pub fn sorted_paths(mut lines: Vec<String>) -> Vec<String> {
    let is_path = |line: &String| line.contains("', 'addlogpath', '");
    let mut at = 0;
    while at < lines.len() {
        let length = lines[at..].iter().take_while(|line| is_path(line)).count();
        lines[at..at + length].sort();
        at += length.max(1);
    }
    lines
}

/// Lines that do not concern the jail.
pub fn without(lines: Vec<String>, jail: &str) -> Vec<String> {
    let mark = format!("', '{jail}'");
    // The quotes are escaped where what follows holds both kinds.
    let skipped = [format!("Jail '{jail}' skipped"), format!("Jail \\'{jail}\\' skipped")];
    let concerns = |line: &String| {
        line.contains(&mark)
            || line.starts_with("['config-error'") && skipped.iter().any(|it| line.contains(it))
    };
    lines.into_iter().filter(|line| !concerns(line)).collect()
}
