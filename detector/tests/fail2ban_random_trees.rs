//! `-d` against fail2ban itself, for random trees.
//!
//! `FAIL2XDP_SEED` is the seed of the first tree, the following ones have the next numbers; `FAIL2XDP_TREES` is how
//! many. With `FAIL2XDP_FULL` there are many more of their own accord.
mod peer;
#[path = "trees/random.rs"]
mod random;
#[path = "trees/texts.rs"]
mod texts;
mod trees;
use std::{env, fs, path::Path, thread};

use fail2xdp::{
    config::{self, Value},
    config_tree::DirTree,
};
use serde_json::json;
use tempfile::TempDir;
use texts::ROOT;
use trees::{sorted_paths, without};

/// `fail2ban-client -d` for one directory a line, each in a process of its own, which may take a few seconds and some
/// memory: fail2ban has no bounds.
const JUDGE: &str = r#"
import resource
from fail2ban.client.fail2banclient import exec_command_line
for request in sys.stdin:
    root = json.loads(request)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(into, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.close(out)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
        resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
        code = 255
        try:
            exec_command_line(["fail2ban-client", "-c", root, "-d"])
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(into)
    text = open(out, encoding="utf-8").read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not text or "MemoryError" in text:
        text = "[too much]"
    # Else the next child would write it, too.
    print(json.dumps(text if text.startswith("[") else None), flush=True)
"#;

/// What we say of a value that grows too much.
const BOUNDS: [&str; 2] = ["it takes more than ", "it grows beyond "];

const TREES: u64 = 120;
const MANY: u64 = 2_000;
/// Trees that lie on the disk at once.
const AT_ONCE: usize = 250;

struct Tree {
    seed: u64,
    folder: TempDir,
}

fn unpack(seed: u64) -> Tree {
    let (texts, folder) = (random::tree(seed), tempfile::tempdir().expect("a directory"));
    for (file, text) in &texts.files {
        let inside = file.strip_prefix(ROOT).expect("a file of the tree");
        write(&folder.path().join(inside), text);
    }
    Tree { seed, folder }
}

fn write(file: &Path, text: &[u8]) {
    fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
    fs::write(file, text).expect("a file");
}

/// What fail2ban prints for each tree; `None` where it fails.
fn theirs(trees: &[&Tree]) -> Vec<Option<Vec<String>>> {
    let roots: Vec<_> = trees.iter().map(|tree| json!(tree.folder.path())).collect();
    let lines = |answer: serde_json::Value| {
        answer.as_str().map(|text| text.lines().map(str::to_owned).collect())
    };
    // Two of them at a time.
    let half = roots.split_at(roots.len() / 2);
    let answers = thread::scope(|scope| {
        let first = scope.spawn(|| peer::judge(JUDGE, half.0));
        let second = peer::judge(JUDGE, half.1);
        let mut answers = first.join().expect("a judge");
        answers.extend(second);
        answers
    });
    answers.into_iter().map(lines).collect()
}

/// What we print, and which jails we leave out for a reason of which fail2ban dies.
fn ours(tree: &Tree) -> Option<(Vec<String>, Vec<String>)> {
    let existing =
        |pattern: &str| glob::glob(pattern).map(|all| all.flatten().collect()).unwrap_or_default();
    let (commands, _) = config::stream(&DirTree::new(tree.folder.path()), &existing).ok()?;
    let left_out = commands.iter().filter_map(|command| left_out(command)).collect();
    let lines = commands.into_iter().map(|command| Value::List(command).to_string());
    Some((lines.collect(), left_out))
}

/// The jail that a `config-error` is about, unless fail2ban leaves it out as well.
fn left_out(command: &[Value]) -> Option<String> {
    let [Value::Text(verb), Value::Text(told)] = command else { return None };
    let (jail, why) =
        told.strip_prefix("Jail '")?.split_once("' skipped, because of wrong configuration: ")?;
    let shared = ["Unable to read ", "Invalid filter definition ", "Invalid action definition "];
    let alone = verb == "config-error" && !shared.iter().any(|words| why.starts_with(words));
    alone.then(|| jail.to_owned())
}

/// Whether we say that fail2ban would not start.
fn told(tree: &Tree) -> bool {
    let problems = match config::load(&DirTree::new(tree.folder.path())) {
        Ok(loaded) => loaded.problems,
        Err(problems) => problems,
    };
    let words = [
        "fail2ban would not start",
        "its default is used",
        "defaults are used",
        // In a jail's section, of which fail2ban dies even where that jail is off.
        "is neither an option nor a section: the jail does not run",
    ];
    problems.iter().any(|problem| words.iter().any(|words| problem.what.contains(words)))
}

fn difference(theirs: Vec<String>, ours: Vec<String>) -> Option<String> {
    let (theirs, ours) = (sorted_paths(theirs), sorted_paths(ours));
    let at = (0..theirs.len().max(ours.len())).find(|at| theirs.get(*at) != ours.get(*at))?;
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "nothing".to_owned());
    Some(format!("  fail2ban: {}\n  fail2xdp: {}", line(&theirs), line(&ours)))
}

/// How many trees ended how.
#[derive(Default)]
struct Tally {
    same: u64,
    /// fail2ban refuses all of it, we some jails; the rest is the same.
    without_some: u64,
    /// fail2ban refuses all of it for what does no harm, and we say so.
    kinder: u64,
    /// Both refuse it.
    refused: u64,
    /// It asks for more than we are willing to do.
    bounded: u64,
    wrong: Vec<String>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} same, {} without some jails, {} kinder, {} refused, {} bounded, {} wrong",
            self.same,
            self.without_some,
            self.kinder,
            self.refused,
            self.bounded,
            self.wrong.len()
        )
    }
}

fn compare(seeds: std::ops::Range<u64>, tally: &mut Tally) {
    let trees: Vec<Tree> = seeds.map(unpack).collect();
    let mut again = Vec::new();
    for (tree, theirs) in trees.iter().zip(theirs(&trees.iter().collect::<Vec<_>>())) {
        let mut wrong =
            |what: String| tally.wrong.push(format!("FAIL2XDP_SEED={}\n{what}", tree.seed));
        match (theirs, ours(tree)) {
            (Some(theirs), _) if theirs == ["[too much]"] => tally.bounded += 1,
            (_, Some((ours, _)))
                if ours.iter().any(|line| BOUNDS.iter().any(|it| line.contains(it))) =>
            {
                tally.bounded += 1;
            }
            (None, None) => tally.refused += 1,
            (Some(_), None) => wrong("we alone refuse all of it".to_owned()),
            (Some(theirs), Some((ours, _))) => match difference(theirs, ours) {
                None => tally.same += 1,
                Some(difference) => wrong(difference),
            },
            (None, Some((_, off))) if off.is_empty() => match told(tree) {
                true => tally.kinder += 1,
                false => wrong("fail2ban alone refuses all of it".to_owned()),
            },
            (None, Some((ours, off))) => {
                let sections = off
                    .iter()
                    .map(|jail| format!("[{jail}]\nenabled = false\nfilter =\nbackend = auto\n"));
                let sections: String = sections.collect();
                write(&tree.folder.path().join("jail.d/zz.local"), sections.as_bytes());
                again.push((tree, ours, off));
            }
        }
    }
    let theirs = theirs(&again.iter().map(|(tree, ..)| *tree).collect::<Vec<_>>());
    for ((tree, ours, off), theirs) in again.into_iter().zip(theirs) {
        let ours = off.iter().fold(ours, |lines, jail| without(lines, jail));
        match theirs.map(|theirs| {
            difference(off.iter().fold(theirs, |lines, jail| without(lines, jail)), ours)
        }) {
            Some(None) => tally.without_some += 1,
            None if told(tree) => tally.kinder += 1,
            difference => tally
                .wrong
                .push(format!("FAIL2XDP_SEED={} without {off:?}\n{difference:?}", tree.seed)),
        }
    }
}

#[test]
fn random_trees_make_the_same_commands() {
    let number = |name| env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let first = number("FAIL2XDP_SEED").unwrap_or(1);
    let usual = if env::var_os("FAIL2XDP_FULL").is_some() { MANY } else { TREES };
    let count = number("FAIL2XDP_TREES").unwrap_or(usual);
    println!("FAIL2XDP_SEED={first} FAIL2XDP_TREES={count}");
    let mut tally = Tally::default();
    let last = first + count;
    for begin in (first..last).step_by(AT_ONCE) {
        let told = tally.wrong.len();
        compare(begin..last.min(begin + AT_ONCE as u64), &mut tally);
        tally.wrong[told..].iter().for_each(|wrong| println!("{wrong}"));
    }
    println!("{tally:?}");
    assert!(tally.wrong.is_empty(), "{} of {count} trees differ", tally.wrong.len());
    assert!(tally.same * 2 > count, "too few are sound: {tally:?}");
}
