//! `check`: every mistake of a tree in one run, each with file, line, what happens now and what to do.
mod trees;
use std::{fs, path::Path, process::Command};

use fail2xdp::clock;
use serde_json::Value;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

fn check(root: &Path, flags: &[&str]) -> (i32, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_fail2xdp"))
        .arg("check")
        .arg("-c")
        .arg(root)
        .arg("--json")
        .args(flags)
        .output()
        .expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code().unwrap_or(-1), serde_json::from_str(&text).expect("JSON"))
}

/// Each problem as `severity file:line jail: what`.
fn problems(shown: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let problems = shown["problems"].as_array().expect("a list").iter().map(|problem| {
        assert!(!text(&problem["remedy"]).is_empty(), "{problem}");
        let file = text(&problem["file"]);
        let file = file.rsplit('/').next().unwrap_or("-").to_owned();
        let line = problem["line"].as_u64().unwrap_or(0);
        let (jail, what) = (text(&problem["jail"]), text(&problem["what"]));
        format!("{} {file}:{line} {jail}: {what}", text(&problem["severity"]))
    });
    problems.collect()
}

#[track_caller]
fn assert_told(problems: &[String], expect: &[&str]) {
    for expect in expect {
        let parts: Vec<&str> = expect.split(" … ").collect();
        let told = problems.iter().any(|problem| {
            problem.starts_with(parts[0]) && parts.iter().all(|part| problem.contains(part))
        });
        assert!(told, "`{expect}` is not among {problems:#?}");
    }
}

const MISTAKES: &str = r#"[DEFAULT]
filter = f
logpath = /etc/passwd
action = iptables-multiport[port=22]
maxretries = 3

[regex]
enabled = true
failregex = ^a (<HOST>$
            ^nobody$
            ^b <HOST>$
[time]
enabled = true
findtime = 10 parsecs
[log]
enabled = true
logpath = /nowhere/at all.log head
[filter]
enabled = true
filter = nosuch
[action]
enabled = true
action = nosuch
[never]
enabled = true
ignoreip = 0.0.0.0/1 128.0.0.0/1 ::/0
[half]
enabled = true
ignoreip = 0.0.0.0/0
[spares]
enabled = true
ignoreregex = .*
[forge]
enabled = true
failregex = ^user .* failed from <HOST>
            login of .* from <HOST>$
[udp]
enabled = true
action = iptables-multiport[port=53, protocol=udp]
[allows]
enabled = true
action = iptables-multiport[port=22, blocktype=ACCEPT]
[slip]
enabled = true
maxretyr = 3
bantime = 0
[off]
enabled = ture
[twice]
enabled = true
action = iptables-multiport[port=22]
         iptables-multiport[port=25]
         gone.py[x=1]
[param]
enabled = true
filter = f[mod=extra]
[broken]
enabled = true
port = %(nobody)s
action = iptables-multiport[port="%(port)s"]
[dates]
enabled = true
datepattern = %%Q
logtimezone = Nowhere
logencoding = nonsense
backend = nonsense
"#;

#[test]
fn every_mistake_is_told_in_one_run() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    write(
        root,
        &[
            ("jail.conf", MISTAKES),
            (
                "filter.d/f.conf",
                "[Definition]\nfailregex = ^f <HOST>$\nfailregx = ^g <HOST>$\nunused = 100%\n",
            ),
        ],
    );
    let (code, shown) = check(root, &[]);
    assert_eq!(code, 1);
    let told = problems(&shown);
    assert_told(
        &told,
        &[
            "warning jail.conf:5 -: option `maxretries`",
            "error jail.conf:9 regex: failregex 1 … not closed",
            "error jail.conf:10 regex: failregex 2 names nobody",
            "error jail.conf:14 time: `findtime`: `10 parsecs` … does not run",
            "warning jail.conf:17 log: there is no log `/nowhere/at all.log`",
            "error jail.conf:20 filter: there is no filter `nosuch`",
            "error jail.conf:23 action: there is no action `nosuch`",
            "error jail.conf:24 never: `ignoreip` covers every address",
            "warning jail.conf:27 half: `ignoreip` covers every IPv4 address",
            "error jail.conf:32 spares: ignoreregex 1 matches every line",
            "warning jail.conf:35 forge: failregex 1 lets any text stand before the address",
            "warning jail.conf:36 forge: failregex 2 may begin anywhere",
            "warning jail.conf:37 udp: the service answers on UDP",
            "error jail.conf:42 allows: action `iptables-multiport` lets banned addresses in",
            "warning jail.conf:45 slip: option `maxretyr`",
            "warning jail.conf:46 slip: `bantime` is 0",
            "warning jail.conf:48 off: `enabled = ture` means no",
            "warning jail.conf:52 twice: two actions are called `iptables-multiport`",
            "error jail.conf:53 twice: action `gone.py` has no file",
            "warning jail.conf:56 param: filter `f` makes no use of `mod`",
            "error jail.conf:59 broken: `action` cannot be expanded",
            "error jail.conf:66 dates: `backend = nonsense`",
            "warning f.conf:3 … option `failregx` of filter `f`",
            "warning f.conf:4 … `unused` of filter `f` cannot be expanded",
            "warning jail.conf:7 -: `usedns` takes host names for evidence",
        ],
    );
    let errors = told.iter().filter(|problem| problem.starts_with("error")).count();
    assert_eq!(shown["errors"], errors);
    assert_eq!(shown["warnings"], told.len() - errors);
}

#[test]
fn warnings_alone_are_no_failure() {
    let folder = tempfile::tempdir().expect("a directory");
    let jail = "[j]\nenabled = true\nfilter = f\nlogpath = /nowhere\naction = iptables\n";
    write(
        folder.path(),
        &[("jail.conf", jail), ("filter.d/f.conf", "[Definition]\nfailregex = ^f <ADDR>$\n")],
    );
    let (code, shown) = check(folder.path(), &[]);
    assert_eq!((code, &shown["errors"], &shown["warnings"]), (0, &0.into(), &1.into()), "{shown}");
}

#[test]
fn each_pattern_names_its_engine_and_the_reason() {
    let folder = tempfile::tempdir().expect("a directory");
    let jail = "[j]\nenabled = true\nfilter = f\nlogpath = /etc/passwd\naction = iptables\n";
    let filter = "[Definition]\nprefregex = ^p <F-CONTENT>.*</F-CONTENT>$\nfailregex = ^f <ADDR>$\n  ^g(?!x) <ADDR>$\ndatepattern = ^%%Y-%%m-%%d_\n";
    write(folder.path(), &[("jail.conf", jail), ("filter.d/f.conf", filter)]);
    let (_, shown) = check(folder.path(), &["-v"]);
    let patterns = shown["patterns"].as_array().expect("a list");
    let engines: Vec<_> = patterns
        .iter()
        .map(|it| format!("{}{} {} {}", it["option"], it["line"], it["engine"], it["needs"]))
        .collect();
    assert_eq!(
        engines,
        [
            r#""prefregex"2 "regex" []"#,
            r#""failregex"3 "regex" []"#,
            r#""failregex"4 "fancy-regex" ["a negative look-ahead `(?!…)`"]"#,
            r#""datepattern"5 "regex" []"#,
        ]
    );
}

#[test]
fn a_filter_that_matches_nothing_in_its_log_is_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    let now = clock::now().micros() / 1_000_000;
    let log = |name: &str, words: &str| {
        let lines: String =
            (0..50).map(|nth| format!("{} {words} {nth}\n", now - 100 + nth)).collect();
        (name.to_owned(), lines)
    };
    let logs = [
        log("hit.log", "bad 192.0.2.1"),
        log("miss.log", "fine"),
        ("undated.log".to_owned(), "bad 192.0.2.1\n".repeat(20)),
        ("old.log".to_owned(), format!("{} bad 192.0.2.1 1\n", now - 200_000).repeat(20)),
    ];
    let mut jails = "[DEFAULT]\nfilter = f\naction = iptables\nbackend = polling\n".to_owned();
    for (name, lines) in &logs {
        write(root, &[(name, lines)]);
        let jail = name.trim_end_matches(".log");
        jails += &format!("[{jail}]\nenabled = true\nlogpath = {}\n", root.join(name).display());
    }
    write(
        root,
        &[
            ("jail.conf", &jails),
            ("filter.d/f.conf", "[Definition]\nfailregex = ^ bad <ADDR> \\d+$\n"),
        ],
    );
    let (code, shown) = check(root, &["--deep"]);
    assert_eq!(code, 0, "{shown}");
    let told = problems(&shown);
    assert_told(
        &told,
        &[
            "warning jail.conf:8 miss: the filter matches nothing in the 50 lines of the last day",
            "warning jail.conf:11 undated: in none of 20 lines of its logs the filter finds a date",
        ],
    );
    assert!(!told.iter().any(|problem| problem.contains(" hit: ")), "{told:#?}");
}

#[test]
fn what_people_copy_from_old_guides_runs() {
    let all = trees::all();
    let tree = all.iter().find(|tree| tree.name == "old_guides").expect("the tree of old guides");
    let (code, shown) = check(tree.root(), &[]);
    assert_eq!(code, 1);
    let told = problems(&shown);
    let errors: Vec<_> = told.iter().filter(|problem| problem.starts_with("error")).collect();
    assert_told(
        &told,
        &[
            "error jail.local:16 sshd-ddos: there is no filter `sshd-ddos`: the jail does not run",
            "warning jail.local:19 nofilter: no `filter` is set",
        ],
    );
    assert_eq!(shown["jails"], 6, "{told:#?}");
    let remedies = shown["problems"].to_string();
    assert!(remedies.contains("write `filter = sshd[mode=ddos]`"), "{remedies}");
    assert_eq!(errors.len(), 1, "{errors:#?}");
}
