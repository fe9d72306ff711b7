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
    assert_eq!(options, 26, "options in fail2xdp.conf");
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

/// The shipped tree and a `jail.local`.
struct WithLocal<'a>(&'a str);

impl Tree for WithLocal<'_> {
    fn root(&self) -> &Path {
        ShippedTree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        match file.ends_with("jail.local") {
            true => Ok(Some(self.0.as_bytes().to_vec())),
            false => ShippedTree.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        ShippedTree.list(folder)
    }
}

/// Every shipped jail, enabled, in a mode that all filters with modes have.
fn all_jails(mode: &str) -> Vec<JailSettings> {
    let local = format!("[DEFAULT]\nenabled = yes\nmode = {mode}\n");
    let loaded = load(&WithLocal(&local)).expect("the shipped tree");
    assert_eq!(loaded.problems, [], "mode {mode}");
    loaded.settings.jails
}

/// Each jail, what its bans drop, and the prefix that IPv6 is counted and banned by.
const JAILS: &[(&str, &str, u8)] = &[
    ("sshd", "tcp:22", 64),
    ("nginx-http-auth", "tcp:80,443", 64),
    ("nginx-botsearch", "tcp:80,443", 64),
    ("nginx-bad-request", "tcp:80,443", 64),
    ("nginx-limit-req", "tcp:80,443", 64),
    ("apache-auth", "tcp:80,443", 64),
    ("apache-noscript", "tcp:80,443", 64),
    ("postfix", "tcp:25,465,587", 64),
    ("postfix-sasl", "tcp:25,110,143,465,587,993,995", 64),
    ("dovecot", "tcp:110,143,465,587,993,995,4190", 64),
    ("exim", "tcp:25,465,587", 64),
    ("vsftpd", "tcp:20-21,989-990", 64),
    ("proftpd", "tcp:20-21,989-990", 64),
    ("mysqld-auth", "tcp:3306", 64),
    ("pam-generic", "tcp", 64),
    ("recidive", "all", 64),
    ("port-probe", "all", 128),
];

#[test]
fn every_jail_can_be_enabled_and_closes_its_own_ports() {
    let jails = all_jails("normal");
    let are: Vec<_> = jails
        .iter()
        .map(|jail| (jail.name.to_string(), jail.scope.to_string(), jail.ipv6_prefix))
        .collect();
    let expect: Vec<_> = JAILS
        .iter()
        .map(|&(name, scope, prefix)| (name.to_owned(), scope.to_owned(), prefix))
        .collect();
    assert_eq!(are, expect);
    for jail in jails {
        assert_eq!(jail.filter.use_dns, UseDns::No, "{}", jail.name);
        assert!(!jail.filter.failregex.is_empty(), "{}", jail.name);
        assert!(matches!(jail.source, SourceSettings::Auto { .. }), "{}", jail.name);
    }
}

#[test]
fn mails_are_sent_as_fail2ban_users_ask_for_them() {
    for (action, matches) in [("action_mw", None), ("action_mwl", Some(MatchesOf::Ban))] {
        // As fail2ban's own file names the sender.
        let local = format!("[DEFAULT]\naction = %({action})s\nsender = root@<fq-hostname>\n");
        let loaded = load(&WithLocal(&local)).expect("the shipped tree");
        assert_eq!(loaded.problems, [], "{action}");
        let jail = &loaded.settings.jails[0];
        assert_eq!(jail.scope.to_string(), "tcp:22");
        let [ActionSettings { kind: ActionKind::Native(native), .. }] = &jail.actions[..] else {
            panic!("{:?}", jail.actions)
        };
        let Channel::Mail(mail) = &native.channel else { panic!("{native:?}") };
        assert_eq!((mail.sender.as_str(), mail.matches), ("root", matches));
        assert_eq!((&mail.dest[..], mail.whois.is_some()), (&["root".to_owned()][..], true));
    }
}

/// What in angle brackets the engine knows, and nothing that needs more than a linear-time engine.
#[test]
fn its_regexes_use_documented_features_only() {
    let known: BTreeSet<&str> = [
        "HOST",
        "ADDR",
        "IP4",
        "SUBNET",
        "F-MLFID",
        "F-CONTENT",
        "F-USER",
        "F-ALT_USER",
        "F-NOFAIL",
        "F-ONCE",
        "F-MLFGAINED",
        "F-MLFFORGET",
    ]
    .into();
    let is_tag = |text: &&str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-/".contains(&b))
    };
    for mode in ["normal", "aggressive"] {
        for filter in all_jails(mode).into_iter().map(|jail| jail.filter) {
            let ignored = &filter.ignoreregex;
            let regexes = filter.failregex.iter().chain(&filter.prefregex);
            assert!(regexes.clone().all(|regex| regex.value.starts_with('^')), "{}", filter.name);
            for regex in regexes.chain(ignored) {
                let (value, place) = (&regex.value, regex.place.as_ref().expect("a place"));
                for forbidden in ["(?!", "(?=", "(?<", "(?P", "(?(", "\\1", "%("] {
                    assert!(!value.contains(forbidden), "{place}: `{forbidden}` in {value}");
                }
                let tags = value.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
                for tag in tags.map(|(tag, _)| tag).filter(is_tag) {
                    let tag = tag.trim_start_matches('/');
                    assert!(known.contains(tag), "{place}: `<{tag}>` in {value}");
                }
                regex::Regex::new(&plain(value, &known))
                    .unwrap_or_else(|error| panic!("{place}: {error}"));
            }
        }
    }
}

/// A pattern whose tags have become groups.
fn plain(pattern: &str, tags: &BTreeSet<&str>) -> String {
    let mut plain = pattern.to_owned();
    for tag in ["<HOST>", "<ADDR>", "<IP4>", "<SUBNET>"] {
        plain = plain.replace(tag, "(?P<host>[0-9a-fA-F:./]+)");
    }
    for tag in tags {
        let name = tag.trim_start_matches("F-").to_lowercase();
        plain = plain
            .replace(&format!("<{tag}>"), &format!("(?P<{name}>"))
            .replace(&format!("</{tag}>"), ")");
    }
    plain
}

/// What a client may choose, such as a name, must not be taken for the address.
#[test]
fn nothing_that_a_client_chooses_stands_unanchored_before_the_address() {
    for filter in all_jails("aggressive").into_iter().map(|jail| jail.filter) {
        for Located { value, place } in &filter.failregex {
            let address = ["<HOST>", "<ADDR>", "<IP4>", "<SUBNET>"];
            let halves = address.iter().find_map(|tag| value.split_once(tag));
            let Some((before, after)) = halves else { continue };
            if before.contains(".*") {
                assert!(after.ends_with('$') && !after.contains(".*"), "{place:?}: {value}");
            }
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
    "webhook[",
    "smtp.py[",
    "file[",
    "url = ",
    "url=http://x",
    "preset=slack",
    "body={{ ip }}",
    "{%% for",
    "digest=",
    "host=[::1]:",
    "path=/",
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
