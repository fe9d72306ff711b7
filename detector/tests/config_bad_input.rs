//! Configuration that nobody should write: bounded time, a clear message, and the rest goes on.
#[path = "trees/texts.rs"]
mod texts;
use std::{
    fs,
    time::{Duration, Instant},
};

use fail2xdp::{
    config::{self, Loaded, Problem, Tree},
    config_tree::DirTree,
};
use texts::Texts;

/// Far more than any of it takes, far less than a loop without end.
const AT_MOST: Duration = Duration::from_secs(60);

const FILTER: &str = "[Definition]\nfailregex = ^g <ADDR>$\n";
/// A jail that must run whatever stands beside it.
const GOOD: &str =
    "[good]\nenabled = true\nfilter = g\nlogpath = /x.log\naction = iptables[port=22]\n";

fn load(tree: &dyn Tree) -> Result<Loaded, Vec<Problem>> {
    let start = Instant::now();
    let loaded = config::load(tree);
    assert!(start.elapsed() < AT_MOST, "{:?}", start.elapsed());
    let start = Instant::now();
    let _ = config::stream(tree, &|_| Vec::new());
    assert!(start.elapsed() < AT_MOST, "-d: {:?}", start.elapsed());
    loaded
}

/// The jail `good` runs beside jail `bad`, of which something like `expect` is told.
#[track_caller]
fn check<'a>(bad: &str, files: impl IntoIterator<Item = (&'a str, Vec<u8>)>, expect: &str) {
    let mut texts = Texts::default();
    texts.put(
        "jail.conf",
        format!("{GOOD}[bad]\nenabled = true\nlogpath = /x.log\naction = iptables[port=22]\n{bad}"),
    );
    texts.put("filter.d/g.conf", FILTER);
    for (name, bytes) in files {
        texts.put(name, bytes);
    }
    let loaded = load(&texts).expect("a configuration");
    let names: Vec<_> = loaded.settings.jails.iter().map(|jail| jail.name.as_str()).collect();
    assert!(names.contains(&"good"), "{names:?}");
    let told: Vec<String> = loaded.problems.iter().map(Problem::to_string).collect();
    assert!(told.iter().any(|problem| problem.contains(expect)), "`{expect}` in {told:#?}");
    assert!(told.iter().all(|problem| problem.len() < 1_000), "{told:#?}");
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn circles_and_bombs_disable_their_jail_alone() {
    check("filter = g\nbantime = %(bantime)s\n", [], "nested more than 10 deep");
    check(
        "filter = g\nbantime = %(a)s\na = %(b)s%(b)s\nb = %(a)s%(a)s\n",
        [],
        "nested more than 10 deep",
    );
    let circle = [
        (
            "filter.d/c.conf",
            text(
                "[INCLUDES]\nbefore = d.conf\n[Definition]\nfailregex = <one> <ADDR>\none = <two>\ntwo = x<one>\n",
            ),
        ),
        ("filter.d/d.conf", text("[INCLUDES]\nbefore = c.conf\nafter = d.conf\n")),
    ];
    check("filter = c\n", circle, "refers to itself");
    let chain = (0..50).map(|nth| {
        let include = format!("[INCLUDES]\nbefore = chain{}.conf\n", nth + 1);
        (format!("filter.d/chain{nth}.conf"), include.into_bytes())
    });
    let chain: Vec<_> = chain.collect();
    let files = chain.iter().map(|(name, bytes)| (name.as_str(), bytes.clone()));
    check("filter = chain0\n", files, "nested more than 20 deep");
    // Each file includes the ten of the next row.
    let row = |nth: usize| (0..10).map(|at| format!("row{nth}-{at}.conf\n ")).collect::<String>();
    let fan: Vec<_> = (0..6)
        .flat_map(|nth| (0..10).map(move |at| (nth, at)))
        .map(|(nth, at)| {
            let include = format!("[INCLUDES]\nbefore = {}\n", row(nth + 1));
            (format!("filter.d/row{nth}-{at}.conf"), include.into_bytes())
        })
        .collect();
    let files = fan.iter().map(|(name, bytes)| (name.as_str(), bytes.clone()));
    check("filter = row0-0\n", files, "more than 1000 files are included");
    let tenfold = |name: usize| format!("<t{name}>").repeat(10);
    let bomb: String = (0..9).map(|nth| format!("t{nth} = {}\n", tenfold(nth + 1))).collect();
    let bomb = format!("[Definition]\nfailregex = <t0> <ADDR>\n{bomb}t9 = xxxxxxxxxx\n");
    check("filter = b\n", [("filter.d/b.conf", bomb.into_bytes())], "cannot be expanded");
    // Each of a hundred thousand options needs all that follow.
    let chain: String = (0..100_000).map(|nth| format!("t{nth} = <t{}>x\n", nth + 1)).collect();
    let chain = format!("[Definition]\nfailregex = <t0> <ADDR>\n{chain}").into_bytes();
    check("filter = c\n", [("filter.d/c.conf", chain)], "takes more than 4096 substitutions");
}

#[test]
fn what_is_too_long_is_refused_by_name() {
    let long = format!("[Definition]\nfailregex = ^{} <ADDR>\n", "x".repeat(10 << 20));
    check(
        "filter = long\n",
        [("filter.d/long.conf", long.into_bytes())],
        "longer than 4194304 bytes",
    );
    let many = format!("[Definition]\nfailregex = ^{} <ADDR>\n", "x".repeat(2 << 20));
    check(
        "filter = long\n",
        [("filter.d/long.conf", many.into_bytes())],
        "a pattern of more than 262144 bytes; it is left out",
    );
    let lines: String = (0..200_000).map(|nth| format!(" ^line {nth} <ADDR>\n")).collect();
    check(
        "filter = lines\n",
        [("filter.d/lines.conf", format!("[Definition]\nfailregex =\n{lines}").into_bytes())],
        "holds more than 2000 patterns; the rest is left out",
    );
}

#[test]
fn many_long_files_are_not_all_read() {
    let long = format!("[Definition]\n# {}\n", "x".repeat(3 << 20)).into_bytes();
    let names: Vec<String> = (0..30).map(|nth| format!("filter.d/long.d/{nth}.conf")).collect();
    let files = names.iter().map(|name| (name.as_str(), long.clone()));
    check("filter = long\n", files, "more than 67108864 bytes are read");
}

#[test]
fn a_hundred_thousand_sections_are_read() {
    let off: String = (0..100_000).map(|nth| format!("[s{nth}]\nenabled = no\n")).collect();
    check("filter = none\n", [("jail.d/many.conf", off.into_bytes())], "there is no filter `none`");
    let sections: String = (0..100_000).map(|nth| format!("[s{nth}]\na = 1\n")).collect();
    let filter = format!("{sections}[Definition]\nfailregex = ^<s5/a> (<ADDR>\n").into_bytes();
    check("filter = wide\nbantime = x\n", [("filter.d/wide.conf", filter)], "no span of time");
    let options: String = (0..100_000).map(|nth| format!("option{nth} = 1\n")).collect();
    check(&format!("filter = none\n{options}"), [], "there is no filter `none`");
    let on: String =
        (0..2_000).map(|nth| format!("[s{nth}]\nenabled = yes\nfilter = none{nth}\n")).collect();
    check(
        "filter = none\n",
        [("jail.d/many.conf", on.into_bytes())],
        "there is no filter `none1999`",
    );
}

#[test]
fn bytes_that_are_no_text_stay_with_their_jail() {
    check(
        "filter = n\n",
        [("filter.d/n.conf", b"[Definition]\nfailregex = \0(<ADDR>\n\0\n".to_vec())],
        "`\\u{0}`",
    );
    check(
        "filter = u\n",
        [("filter.d/u.conf", b"[Definition]\nfailregex = \xff <ADDR>\n".to_vec())],
        "is not UTF-8",
    );
    check("filter = w\n", [("filter.d/w.conf", b"\xff\xfe[\0D\0]\0\n\0".to_vec())], "filter `w`");
    check("filter = \0\n", [], "there is no filter `\\u{0}`");
    check("filter = g\nmaxretry = \u{661}\n", [], "is no number");
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    for name in ["filter.d/dir.conf", "jail.d/dir.conf", "action.d/dir.conf"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    fs::write(root.join("filter.d/g.conf"), FILTER).expect("a file");
    let bad =
        "[bad]\nenabled = true\nfilter = dir\n[act]\nenabled = true\nfilter = g\naction = dir\n";
    fs::write(root.join("jail.conf"), format!("{GOOD}{bad}")).expect("a file");
    std::os::unix::fs::symlink("nowhere", root.join("jail.d/dangling.conf")).expect("a link");
    let loaded = load(&DirTree::new(root)).expect("a configuration");
    let names: Vec<_> = loaded.settings.jails.iter().map(|jail| jail.name.as_str()).collect();
    assert_eq!(names, ["good"]);
    let told: Vec<String> = loaded.problems.iter().map(Problem::to_string).collect();
    for expect in ["jail.d/dir.conf", "filter.d/dir.conf", "action.d/dir.conf"] {
        let tells =
            |problem: &&String| problem.contains(expect) && problem.contains("is a directory");
        assert_eq!(told.iter().filter(tells).count(), 1, "{expect} in {told:#?}");
    }
    // What may have held the address that must never be banned is no detail.
    std::os::unix::fs::symlink("/dev/zero", root.join("jail.local")).expect("a link");
    let problems = load(&DirTree::new(root)).expect_err("nothing is used");
    assert!(problems[0].to_string().contains("no regular file"), "{problems:?}");
}
