//! Debian's fail2ban where it lies: its filters as jails of ours, and itself as a judge. Read by tests, never copied.
#![allow(dead_code, reason = "each test uses a part of it")]
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use fail2xdp::{
    config::{self, JailSettings, ReadFault, Severity, Tree},
    config_tree::{DirTree, ShippedTree},
    engine::Timestamp,
};
use jiff::tz::TimeZone;
use serde_json::Value;

mod place;

pub use place::{config, tests};

/// The clock of fail2ban's samples and of the judge: 14 August 2005, 12:00 in Central Europe.
pub const NOON: Timestamp = Timestamp::from_seconds(1_124_013_600);

/// The zone of samples and judge: nearly Central Europe, where summer time ends an hour later.
pub fn zone() -> TimeZone {
    TimeZone::posix("CET-1CEST-2,M3.5.0,M10.5.0").expect("a POSIX zone")
}

/// fail2ban's filters, and one jail that uses one of them.
struct OneJail {
    filters: DirTree,
    jail: String,
    made_for_tests: PathBuf,
}

impl Tree for OneJail {
    fn root(&self) -> &Path {
        self.filters.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        if file == self.root().join("jail.conf") {
            return Ok(Some(self.jail.clone().into_bytes()));
        }
        if !file.starts_with(self.root().join("filter.d")) {
            return Ok(None);
        }
        let name = file.file_name().expect("a file's path");
        // Filters made for tests name the others' directory as it lies in the source tree.
        let own = self.made_for_tests.join(name);
        let stock = self.root().join("filter.d").join(name);
        self.filters.read(if own.is_file() { &own } else { &stock })
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        let filters = folder.starts_with(self.root().join("filter.d"));
        if filters { self.filters.list(folder) } else { Ok(Vec::new()) }
    }
}

/// `jail.conf` with a jail that has nothing but this filter with these parameters.
fn one_jail(filter: &str, params: &[(String, String)]) -> String {
    let params: Vec<String> =
        params.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let params = params.join(", ");
    format!(
        "[sample]\nenabled = true\nbackend = polling\nlogpath = /dev/null\nfilter = {filter}[{params}]\n"
    )
}

/// A jail that has nothing but this filter with these parameters.
pub fn jail(filter: &str, params: &[(String, String)]) -> JailSettings {
    try_jail(filter, params).unwrap_or_else(|| panic!("filter `{filter}` lacks some of {params:?}"))
}

/// The same; `None` where the filter has no option for one of the parameters.
pub fn try_jail(filter: &str, params: &[(String, String)]) -> Option<JailSettings> {
    let made_for_tests = tests().join("config/filter.d");
    let jail = one_jail(filter, params);
    let tree = OneJail { filters: DirTree::new(&config()), jail, made_for_tests };
    let loaded = config::load(&tree).expect("a configuration");
    let faults = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let faults: Vec<String> = faults.map(|problem| problem.what.clone()).collect();
    if faults.iter().any(|what| what.contains("the filter has no option")) {
        return None;
    }
    assert!(faults.is_empty(), "filter `{filter}` {params:?}: {faults:#?}");
    loaded.settings.jails.into_iter().next()
}

/// The shipped tree with a jail that has nothing but one of its filters.
struct Shipped(String);

impl Tree for Shipped {
    fn root(&self) -> &Path {
        ShippedTree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        match file.ends_with("jail.conf") {
            true => Ok(Some(self.0.clone().into_bytes())),
            false => ShippedTree.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        ShippedTree.list(folder)
    }
}

/// A jail that has nothing but our own filter of this name with these parameters.
pub fn shipped(filter: &str, params: &[(String, String)]) -> JailSettings {
    let jail = one_jail(filter, params) + "action = xdp\n";
    let loaded = config::load(&Shipped(jail)).expect("a configuration");
    let faults: Vec<String> = loaded.problems.into_iter().map(|problem| problem.what).collect();
    assert!(faults.is_empty(), "filter `{filter}` {params:?}: {faults:#?}");
    loaded.settings.jails.into_iter().next().expect("the jail is enabled")
}

/// fail2ban's release.
pub fn version() -> String {
    let file = tests().join("../version.py");
    let text = fs::read_to_string(&file).expect("fail2ban's version");
    let version = text.lines().find_map(|line| line.strip_prefix("version = "));
    version.expect("a line with the version").trim_matches('"').to_owned()
}

/// Names of the filters in `filter.d`, those that others only include left out.
pub fn filters() -> Vec<String> {
    let folder = config().join("filter.d");
    let entries = fs::read_dir(&folder).expect("filter.d");
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.expect("an entry of filter.d").path();
            let text = fs::read_to_string(&path).ok()?;
            let name = path.file_name()?.to_str()?.strip_suffix(".conf")?.to_owned();
            if name.ends_with("-common") {
                return None;
            }
            text.lines().any(|line| line.starts_with("failregex")).then_some(name)
        })
        .collect();
    names.sort();
    names
}

/// What a judge begins with: the clock, and a filter of fail2ban's own.
const JUDGE: &str = r#"
import json, logging, os, sys, time
os.environ["TZ"] = "CET-01CEST-02,M3.5.0,M10.5.0"
time.tzset()
logging.disable(logging.CRITICAL)
from fail2ban.server.filter import Filter
from fail2ban.server.mytime import MyTime
MyTime.setTime(1124013600)
"#;

/// Asks fail2ban itself: `script` reads a request a line from its standard input and answers with a line of JSON.
pub fn judge(script: &str, requests: &[Value]) -> Vec<Value> {
    let mut python = Command::new("python3")
        .args(["-c", &format!("{JUDGE}{script}")])
        .env("PYTHONPATH", place::packages())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, which runs fail2ban: install Debian's `python3`");
    let mut input = python.stdin.take().expect("a pipe");
    let asked: String = requests.iter().map(|request| format!("{request}\n")).collect();
    let asking = thread::spawn(move || input.write_all(asked.as_bytes()));
    let output = python.wait_with_output().expect("python3 ends");
    asking.join().expect("no panic").expect("fail2ban read everything");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("JSON");
    let answers: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(answers.len(), requests.len());
    answers
}
