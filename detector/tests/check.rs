//! `check`: every mistake of a tree in one run, each with file, line, what happens now and what to do.
mod trees;
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use fail2xdp::{
    clock, config,
    config_tree::DirTree,
    engine::{FailureId, Matcher, review_jail},
};
use serde_json::Value;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

fn check(root: &Path, flags: &[&str]) -> (i32, Value) {
    let (code, text) = in_words(root, &[flags, &["--json"]].concat());
    (code, serde_json::from_str(&text).expect("JSON"))
}

fn in_words(root: &Path, flags: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fail2xdp"))
        .arg("check")
        .arg("-c")
        .arg(root)
        .args(flags)
        .output()
        .expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text)
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
fn the_same_is_told_in_words_a_line_each() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    let filter = "[Definition]\nfailregex = ^f <HOST>$\n  ^g(?!x) <HOST>$\n";
    // A value over several lines, quoted in what is told.
    let jails = format!("{MISTAKES}[lines]\nenabled = true\nfindtime = one\n   two\n");
    write(root, &[("jail.conf", &jails), ("filter.d/f.conf", filter)]);
    let (code, shown) = check(root, &[]);
    let (code_of_words, words) = in_words(root, &["-v"]);
    assert_eq!((code, code_of_words), (1, 1));
    let mut lines: Vec<&str> = words.lines().collect();
    let last = format!(
        "{} jails, {} errors, {} warnings",
        shown["jails"], shown["errors"], shown["warnings"]
    );
    assert_eq!(lines.pop(), Some(last.as_str()));
    let engine = format!(
        "{}/filter.d/f.conf:3: jail `log`: failregex 2: fancy-regex (stopped after a number of tries), for a negative look-ahead `(?!…)`",
        root.display()
    );
    assert!(lines.contains(&engine.as_str()), "{engine}: {lines:#?}");
    let told: Vec<&str> = lines
        .into_iter()
        .filter(|line| line.starts_with("error: ") || line.starts_with("warning: "))
        .collect();
    let problems = shown["problems"].as_array().expect("a list");
    assert_eq!(told.len(), problems.len(), "{told:#?}");
    for (line, problem) in told.iter().zip(problems) {
        let text = |name: &str| problem[name].as_str().unwrap_or_default().replace('\n', "\\n");
        let place = format!("{}: {}:{}: ", text("severity"), text("file"), problem["line"]);
        let end = format!("{}; {}", text("what"), text("remedy"));
        assert!(line.starts_with(&place) && line.ends_with(&end), "{line}\n{problem}");
    }
    assert!(told.iter().any(|line| line.contains("`one\\ntwo` is no span of time")), "{told:#?}");
    // Warnings alone are no failure, and nothing is said where nothing is wrong.
    let good = "[j]\nenabled = true\nfilter = f\nlogpath = /etc/passwd\naction = iptables[port=22]\nusedns = no\n";
    write(root, &[("jail.conf", good)]);
    assert_eq!(in_words(root, &[]), (0, "1 jails, 0 errors, 0 warnings\n".to_owned()));
    write(root, &[("jail.conf", &good.replace("/etc/passwd", "/nowhere"))]);
    let (code, words) = in_words(root, &[]);
    assert!(code == 0 && words.ends_with("1 jails, 0 errors, 1 warnings\n"), "{code} {words}");
}

/// Patterns, a line of the service with `@` where the client's own text stands, what an attacker writes there, and
/// whether that gets another address banned.
const FORGERIES: [(&str, &str, &str, bool); 9] = [
    ("login of .* from <HOST>", "GET @ by 192.0.2.9", "login of x from 203.0.113.66", true),
    ("^login of .* from <HOST>", "login of u from 192.0.2.9 by @", "x from 203.0.113.66", true),
    ("^login of \\S+ from <HOST>$", "login of @ from 192.0.2.9", "x from 203.0.113.66", false),
    ("^login of .* from <HOST>$", "login of @ from 192.0.2.9", "x from 203.0.113.66", false),
    ("^<HOST> asked for .*", "192.0.2.9 asked for @", "203.0.113.66", false),
    ("^login of .*? from <HOST>", "login of @ from 192.0.2.9", "x from 203.0.113.66", true),
    ("^login of .*? from <HOST>.*$", "login of @ from 192.0.2.9", "x from 203.0.113.66", true),
    (
        "^login from <HOST>: .* failed$",
        "login from 192.0.2.9: @ failed",
        "x from 203.0.113.66",
        false,
    ),
    ("(?:user|login) from <HOST>", "GET @ by 192.0.2.9", "user from 203.0.113.66", true),
];

#[test]
fn what_a_client_can_forge_is_told_and_nothing_else() {
    for (pattern, line, text, forged) in FORGERIES {
        let folder = tempfile::tempdir().expect("a directory");
        let jail =
            "[j]\nenabled = true\nfilter = f\nlogpath = /x\naction = iptables\nusedns = no\n";
        let filter = format!("[Definition]\nfailregex = {pattern}\n");
        write(folder.path(), &[("jail.conf", jail), ("filter.d/f.conf", &filter)]);
        let loaded = config::load(&DirTree::new(folder.path())).expect("a configuration");
        let jail = &loaded.settings.jails[0];
        let (mut matcher, _) = Matcher::new(jail, jiff::tz::TimeZone::UTC);
        let (now, mut found) = (clock::now(), Vec::new());
        matcher.line(&line.replace('@', text), Some(now), now, true, &mut found);
        let other =
            found.iter().any(|it| it.who == FailureId::Address("203.0.113.66".parse().unwrap()));
        assert_eq!(other, forged, "{pattern}: {found:?}");
        let doubts = review_jail(jail).1;
        let told = doubts.iter().any(|doubt| doubt.what.contains("any address can be banned"));
        assert_eq!(told, forged, "{pattern}: {doubts:?}");
    }
}

#[test]
fn senders_that_anybody_can_forge_are_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let jails = "[DEFAULT]\nenabled = true\nlogpath = /etc/passwd\nfilter = f\nusedns = no\n\
                 [dns]\naction = iptables[port=53, protocol=udp]\n\
                 [all]\naction = iptables-allports[protocol=udp]\n\
                 [both]\naction = iptables[port=53, protocol=tcp]\n  iptables[name=u, port=53, protocol=udp]\n\
                 [tcp]\naction = iptables[port=53, protocol=tcp]\n\
                 [packets]\naction = iptables-allports\nfailregex = ^kernel: .* SRC=<ADDR> DST=\\S+$\n\
                 [prefix]\naction = iptables[port=22]\nfilter = p\n\
                 [names]\naction = iptables[port=22]\nfailregex = ^f <HOST>$\nusedns = warn\n";
    let files = [
        ("jail.conf", jails),
        ("filter.d/f.conf", "[Definition]\nfailregex = ^f <ADDR>$\n"),
        (
            "filter.d/p.conf",
            "[Definition]\nprefregex = app: <F-CONTENT>.+</F-CONTENT>$\nfailregex = ^f <ADDR>$\n",
        ),
    ];
    write(folder.path(), &files);
    let told = problems(&check(folder.path(), &[]).1);
    assert_told(
        &told,
        &[
            "warning jail.conf:6 -: the service answers on UDP … `dns`, `all`, `both`",
            "warning jail.conf:15 packets: the log is one of packets",
            "warning p.conf:2 prefix: prefregex 1 may begin anywhere",
            "warning jail.conf:21 names: `usedns` takes host names",
        ],
    );
    assert!(!told.iter().any(|problem| problem.contains(" tcp")), "{told:#?}");
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

/// Entries of one service, a second apart, the last of them now, as journald keeps them.
fn journal(file: &Path, now: i64, name: &str, message: &str) {
    const BOOT: &str = "0123456789abcdef0123456789abcdef";
    let entry = |ago: i64| {
        format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID={BOOT}\n_COMM={name}\nMESSAGE={message}\n\n",
            (now - ago) * 1_000_000
        )
    };
    let feed: String = (0..20).rev().map(entry).collect();
    let mut child = Command::new("/lib/systemd/systemd-journal-remote")
        .arg("-o")
        .args([file.as_os_str(), "-".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-journal-remote starts; install the package of that name");
    child.stdin.take().expect("a pipe").write_all(feed.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_filter_that_matches_nothing_in_the_journal_is_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let (root, now) = (folder.path(), clock::now().micros() / 1_000_000);
    for (name, ago, message) in
        [("hit", 0, "bad 192.0.2.1 1"), ("miss", 0, "fine"), ("old", 200_000, "fine")]
    {
        fs::create_dir(root.join(name)).expect("a directory");
        journal(&root.join(name).join("system.journal"), now - ago, name, message);
    }
    let jail = |name: &str| {
        let path = root.join(name);
        format!(
            "[{name}]\nenabled = true\nfilter = f\naction = iptables\njournalmatch = _COMM={name}\n\
             backend = systemd[journalpath={}]\n",
            path.display()
        )
    };
    let jails: String = ["hit", "miss", "old"].map(jail).concat();
    let filter = "[Definition]\nfailregex = bad <ADDR> \\d+$\n";
    write(root, &[("jail.conf", &jails), ("filter.d/f.conf", filter)]);
    let (code, shown) = check(root, &["--deep"]);
    assert_eq!(code, 0, "{shown}");
    let told = problems(&shown);
    assert_told(
        &told,
        &["warning jail.conf:7 miss: the filter matches nothing in the 20 lines of the last day"],
    );
    assert!(!told.iter().any(|problem| problem.contains("hit: the filter")), "{told:#?}");
}

/// Options, each with a value that something must be said of.
const WRONG: [(&str, &str); 22] = [
    ("findtime", "soon"),
    ("bantime", "soon"),
    ("bantime.maxtime", "soon"),
    ("bantime.rndtime", "soon"),
    ("bantime.factor", "many"),
    ("bantime.multipliers", "many"),
    ("maxretry", "few"),
    ("maxmatches", "few"),
    ("maxlines", "few"),
    ("usedns", "maybe"),
    ("ignoreip", "999.1.1.1"),
    ("logencoding", "nonsense"),
    ("logtimezone", "Nowhere"),
    ("logpath", "/nowhere/at.all"),
    ("backend", "nonsense"),
    ("failregex", "^(<ADDR>$"),
    ("ignoreregex", "^(x"),
    ("prefregex", "^(<F-CONTENT>.*</F-CONTENT>$"),
    ("datepattern", "{DATE}("),
    ("filter", "nosuch"),
    ("action", "nosuch"),
    ("silence", "never"),
];

#[test]
fn every_value_keeps_the_line_it_was_written_in() {
    let jail = |line: &str| {
        let given =
            ["filter = f", "logpath = /etc/passwd", "action = iptables", "backend = polling"];
        let name = line.split(" = ").next();
        let rest = given.iter().filter(|given| given.split(" = ").next() != name);
        let rest: String = rest.map(|line| format!("{line}\n")).collect();
        format!("[j]\n{line}\nenabled = true\nbantime.increment = true\n{rest}")
    };
    let filter = "[Definition]\nfailregex = ^f <ADDR>$\n";
    for (option, value) in WRONG {
        let folder = tempfile::tempdir().expect("a directory");
        let root = folder.path();
        let at_place = |place: &str| {
            let told = problems(&check(root, &[]).1);
            let told_there = told.iter().any(|problem| problem.contains(&format!(" {place} ")));
            assert!(told_there, "{option} at {place}: {told:#?}");
        };
        // As it stands, behind another line of the same file.
        write(
            root,
            &[("jail.conf", &jail(&format!("{option} = {value}"))), ("filter.d/f.conf", filter)],
        );
        at_place("jail.conf:2");
        // From a file that another one includes, by name.
        let jails =
            format!("[INCLUDES]\nbefore = inc.conf\n{}", jail(&format!("{option} = %(wrong)s")));
        let included = format!("[DEFAULT]\nx = 1\nwrong = {value}\n");
        write(root, &[("jail.conf", &jails), ("inc.conf", &included)]);
        let told = problems(&check(root, &[]).1);
        let there = |problem: &String| {
            problem.contains(" jail.conf:4 ") || problem.contains(" inc.conf:3 ")
        };
        assert!(told.iter().any(there), "{option} through a name: {told:#?}");
        // Of a jail's own parameter, where the filter takes it.
        if ["failregex", "ignoreregex", "prefregex", "datepattern", "maxlines", "usedns"]
            .contains(&option)
        {
            let jails = jail(&format!("filter = f[\n  {option}=\"{value}\"]"));
            write(root, &[("jail.conf", &jails)]);
            let told = problems(&check(root, &[]).1);
            let there = |problem: &String| {
                problem.contains(" jail.conf:3 ") || problem.contains(" jail.conf:2 ")
            };
            assert!(told.iter().any(there), "{option} as a parameter: {told:#?}");
        }
    }
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

#[test]
fn what_guides_for_other_distributions_say_runs() {
    let all = trees::all();
    let tree = all.iter().find(|tree| tree.name == "old_guides_centos").expect("that tree");
    let (code, shown) = check(tree.root(), &[]);
    assert_eq!((code, &shown["jails"]), (0, &5.into()), "{shown}");
    let loaded = config::load(&DirTree::new(tree.root())).expect("a configuration");
    let scopes: Vec<String> =
        loaded.settings.jails.iter().map(|jail| format!("{} {}", jail.name, jail.scope)).collect();
    assert_eq!(
        scopes,
        [
            "sshd tcp:22",
            "apache-auth tcp:80,443",
            "postfix tcp:25,465",
            "vsftpd tcp",
            "arch-sshd tcp"
        ]
    );
}

#[test]
fn a_jail_of_which_fail2ban_dies_is_named_with_file_and_line() {
    let (mut dying, mut beside) = (0, 0);
    for tree in trees::all() {
        let Some(jail) = tree.remark("dies").or_else(|| tree.remark("alone")) else { continue };
        let (code, shown) = check(tree.root(), &[]);
        let problems = shown["problems"].as_array().expect("a list");
        let concerns = |problem: &&Value| problem["jail"] == jail && problem["severity"] == "error";
        let problem = problems.iter().find(concerns);
        let problem = problem.unwrap_or_else(|| panic!("{}: {problems:#?}", tree.name));
        assert_eq!(code, 1, "{}", tree.name);
        let what = problem["what"].as_str().expect("words");
        assert!(what.ends_with("the jail does not run"), "{}: {problem}", tree.name);
        let file = problem["file"].as_str().expect("a file");
        let line = problem["line"].as_u64().expect("a line");
        let text = fs::read_to_string(file).expect("that file");
        assert!((1..=text.lines().count() as u64).contains(&line), "{}: {problem}", tree.name);
        dying += 1;
        beside += shown["jails"].as_u64().expect("a number");
    }
    assert!(dying >= 10 && beside >= 5, "{dying} {beside}");
}
