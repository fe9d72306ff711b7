//! The tree that is shipped, and input that nobody wrote on purpose.
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config_tree::ShippedTree;

fn shipped() -> Loaded {
    load(&ShippedTree).expect("the shipped tree")
}

#[test]
fn it_has_no_problem() {
    let loaded = shipped();
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.notes, Vec::<String>::new());
    assert!(!loaded.settings.fail2ban_tree);
    let names: Vec<_> = loaded.settings.jails.iter().map(|jail| jail.name.as_str()).collect();
    assert_eq!(names, ["sshd"]);
}

#[test]
fn its_sshd_jail_is_what_the_readme_says() {
    let jail = shipped().settings.jails.remove(0);
    assert_eq!(
        (jail.max_retry, jail.find_time.as_secs(), jail.ban_time),
        (5, 600, BanTime::Seconds(3600))
    );
    assert_eq!((jail.scope.to_string().as_str(), jail.ipv6_prefix), ("tcp:22", 64));
    assert_eq!(jail.filter.use_dns, UseDns::No);
    assert!(matches!(jail.source, SourceSettings::Auto { .. }), "{:?}", jail.source);
}

#[test]
fn one_line_changes_its_port() {
    let mut files: Vec<(String, String)> = Vec::new();
    for name in ["fail2xdp.conf", "jail.conf", "filter.d/sshd.conf", "action.d/xdp.conf"] {
        let bytes = ShippedTree.read(&ShippedTree.root().join(name)).expect(name).expect(name);
        files.push((name.to_owned(), String::from_utf8(bytes).expect("text")));
    }
    let texts = files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let tree =
        TextTree::new(texts.chain([("jail.local", "[sshd]\nport = 2222\nmode = aggressive\n")]));
    let loaded = load(&tree).expect("a configuration");
    assert_eq!(loaded.problems, []);
    let jail = &loaded.settings.jails[0];
    assert_eq!(jail.scope.to_string(), "tcp:2222");
    let normal = shipped().settings.jails.remove(0).filter.failregex.len();
    assert!(jail.filter.failregex.len() > normal);
}

#[test]
fn the_defaults_it_documents_are_those_in_use() {
    let bytes = ShippedTree
        .read(&ShippedTree.root().join("fail2xdp.conf"))
        .expect("readable")
        .expect("there");
    let text = String::from_utf8(bytes).expect("text");
    let is_option = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let options = text.lines().filter(|line| is_option(line)).count();
    assert_eq!(options, 11, "options in fail2xdp.conf");
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| if is_option(line) { line.trim_start_matches('#') } else { line })
        .collect();
    let written = load_with([
        ("fail2xdp.conf", uncommented.join("\n").as_str()),
        ("jail.conf", "[j]\nenabled = 1\n"),
    ]);
    let silent =
        load_with([("fail2xdp.conf", "[Definition]\n"), ("jail.conf", "[j]\nenabled = 1\n")]);
    let (written, silent) = (written.expect("settings"), silent.expect("settings"));
    assert_eq!(written.problems, []);
    assert_eq!(written.settings, silent.settings);
}

/// What in angle brackets the engine knows, and nothing that needs more than a linear-time engine.
#[test]
fn its_regexes_use_documented_features_only() {
    let filter = shipped().settings.jails.remove(0).filter;
    let regexes = filter.failregex.iter().chain(&filter.ignoreregex).chain(&filter.prefregex);
    let known: BTreeSet<&str> = [
        "HOST",
        "F-MLFID",
        "F-CONTENT",
        "F-USER",
        "F-NOFAIL",
        "F-ONCE",
        "F-MLFGAINED",
        "F-MLFFORGET",
    ]
    .into();
    for regex in regexes {
        let (value, place) = (&regex.value, regex.place.as_ref().expect("a place"));
        assert!(value.starts_with('^'), "{place}: not anchored: {value}");
        for forbidden in ["(?!", "(?=", "(?<", "(?P", "(?(", "\\1", "%("] {
            assert!(!value.contains(forbidden), "{place}: `{forbidden}` in {value}");
        }
        for tag in
            value.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag)
        {
            let tag = tag.trim_start_matches('/');
            assert!(known.contains(tag) || tag.starts_with('\\'), "{place}: `<{tag}>` in {value}");
        }
        let mut plain = value.replace("<HOST>", "(?P<host>[0-9a-fA-F:.]+)");
        for tag in known.iter().filter(|tag| **tag != "HOST") {
            let name = tag.trim_start_matches("F-").to_lowercase();
            plain = plain
                .replace(&format!("<{tag}>"), &format!("(?P<{name}>"))
                .replace(&format!("</{tag}>"), ")");
        }
        regex::Regex::new(&plain).unwrap_or_else(|error| panic!("{place}: {error}"));
    }
}

/// What a client may choose, such as a name, must not be taken for the address.
#[test]
fn nothing_that_a_client_chooses_stands_unanchored_before_the_address() {
    let filter = shipped().settings.jails.remove(0).filter;
    for Located { value, place } in &filter.failregex {
        let Some((before, after)) = value.split_once("<HOST>") else { continue };
        if before.contains(".*") {
            assert!(after.ends_with('$') && !after.contains(".*"), "{place:?}: {value}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut tree = TextTree::new([("jail.local", "[a]\nenabled=1\nfilter=f\nport=%(x)s\naction=iptables[port=%(port)s]\n")]);
        for name in ["jail.conf", "fail2xdp.conf", "filter.d/f.conf", "action.d/iptables.conf"] {
            tree.files.insert(Path::new(ROOT).join(name), bytes.clone());
        }
        let _ = load(&tree);
    }

    #[test]
    fn no_heap_of_our_own_words_makes_it_panic(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..80),
        filter in proptest::collection::vec(proptest::sample::select(WORDS), 0..60),
    ) {
        let jail = format!("[a]\nenabled = 1\n{}", words.concat());
        let filter = format!("[Definition]\n{}", filter.concat());
        let _ = load(&TextTree::new([
            ("jail.conf", jail.as_str()),
            ("filter.d/f.conf", filter.as_str()),
            ("action.d/iptables.conf", filter.as_str()),
        ]));
    }
}

const WORDS: &[&str] = &[
    "\n",
    "\n ",
    "=",
    " ",
    "\t",
    ";",
    "#",
    "[",
    "]",
    "\"",
    "'",
    ",",
    "%",
    "%%",
    "%(",
    ")s",
    "<",
    ">",
    "/",
    "?",
    "\\",
    "é",
    "\u{0}",
    "%(known/failregex)s",
    "%(a)s",
    "%(b/a)s",
    "%(default/a)s",
    "<a>",
    "<known/a>",
    "<a<b>>",
    "<b/a>",
    "<HOST>",
    "a = ",
    "b = ",
    "failregex = ",
    "filter = f",
    "filter = f[a=",
    "f[",
    "action = ",
    "iptables[",
    "port=",
    "xdp",
    "[a]",
    "[b]",
    "[Init]",
    "[Definition]",
    "[Init?family=inet6]",
    "[DEFAULT]",
    "[INCLUDES]",
    "before = jail.conf",
    "bantime = ",
    "findtime = ",
    "1d",
    "1h30",
    "-1",
    "9",
    "**",
    "(",
    ")",
    "//",
    "maxretry = ",
    "ignoreip = ",
    "::1/",
    "1.2.3.4/",
    "logpath = ",
    "journalmatch = ",
    "A=1",
    " + ",
    "backend = ",
    "systemd[",
    "usedns = ",
    "datepattern = ",
    "enabled = ",
    "name",
];
