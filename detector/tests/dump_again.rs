//! Whatever is read, `-d` of it read again gives the same.
#[path = "trees/again.rs"]
mod again;
#[path = "trees/texts.rs"]
mod texts;
mod trees;
use std::path::PathBuf;

use again::{Meaning, all_can_be_written, meaning, tree};
use fail2xdp::{
    config::{Command, Tree, stream},
    config_tree::DirTree,
};
use proptest::prelude::*;
use texts::Texts;

/// Files are taken as they are named, so that nothing depends on this machine's.
fn as_named(pattern: &str) -> Vec<PathBuf> {
    vec![PathBuf::from(pattern)]
}

fn read(tree: &dyn Tree) -> Option<Vec<Command>> {
    stream(tree, &as_named).ok().map(|(commands, _)| commands)
}

/// Jails with actions in Python are left out: their parameters are known as JSON only.
fn again(commands: &[Command]) -> Meaning {
    let copy = tree(&meaning(commands));
    let commands = read(&copy).unwrap_or_else(|| panic!("{copy:#?}"));
    meaning(&commands)
}

fn check(name: &str, commands: Vec<Command>) {
    assert!(all_can_be_written(&commands), "{name}");
    assert_eq!(again(&commands), meaning(&commands), "{name}: {:#?}", tree(&meaning(&commands)));
}

#[test]
fn awkward_trees_are_read_again() {
    let mut checked = 0;
    for tree in trees::all() {
        // Names of sections and actions that only their own tree can write, blanks that only a substitution leaves.
        let own = ["odd_sections", "python_action", "action_overrides", "blanks_in_patterns"];
        if own.contains(&tree.name.as_str()) {
            continue;
        }
        check(&tree.name, read(&DirTree::new(tree.root())).expect("a tree"));
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn debians_tree_is_read_again() {
    let root = trees::debian();
    let enabled: String =
        trees::jails(&root).iter().map(|name| format!("[{name}]\nenabled = true\n")).collect();
    let copy = trees::copy_with(&root, "jail.local", &enabled);
    check("debian", read(&DirTree::new(copy.path())).expect("a tree"));
}

fn value() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => "[a-z0-9]{1,6}",
        1 => Just("%%".to_owned()),
        1 => "%\\((a|b|c|known/a|default/b|j/c|__name__)\\)s",
        1 => "<(a|b|c|known/a|HOST|ip|F-USER|helper/a|m-<b>)>",
        1 => "[ ;#\"'\\\\,=:\\[\\]\u{e9}%]{1,3}",
        1 => Just("\n  ".to_owned()),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn section(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::btree_map(prop::sample::select(names), value(), 0..6).prop_map(|options| {
        options.iter().map(|(name, value)| format!("{name} = {value}\n")).collect()
    })
}

const JAIL: &[&str] = &[
    "a",
    "b",
    "c",
    "maxretry",
    "failregex",
    "ignoreip",
    "bantime",
    "usedns",
    "maxlines",
    "ignoreregex",
    "logencoding",
];
const FILTER: &[&str] =
    &["a", "b", "c", "failregex", "prefregex", "datepattern", "maxlines", "m-x"];
const ACTION: &[&str] = &["a", "b", "c", "actionban", "actionstart", "norestored", "timeout"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn generated_trees_are_read_again(
        default in section(JAIL), jail in section(JAIL), local in section(JAIL),
        filter in section(FILTER), init in section(FILTER), helper in section(FILTER),
        action in section(ACTION), action_init in section(ACTION), variant in section(&["a", "b"]),
        param in "[a-z0-9<>%]{0,5}",
    ) {
        let mut texts = Texts::default();
        let call = format!("filter = f[a=\"{param}\"]\naction = act[b=\"{param}\"]\n");
        texts.put("jail.conf", format!("[DEFAULT]\n{default}[j]\nenabled = true\n{call}{jail}"));
        texts.put("jail.local", format!("[j]\n{local}"));
        texts.put("filter.d/f.conf", format!("[Definition]\n{filter}[Init]\n{init}[helper]\n{helper}"));
        texts.put("action.d/act.conf", format!("[Definition]\n{action}[Init]\n{action_init}[Init?family=inet6]\n{variant}"));
        let commands = read(&texts);
        prop_assume!(commands.is_some());
        let commands = commands.unwrap_or_default();
        prop_assume!(all_can_be_written(&commands));
        prop_assert_eq!(again(&commands), meaning(&commands));
    }
}
