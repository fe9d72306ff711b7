//! Which files are read, in which order, and what a fault in one costs.
use super::*;

#[test]
fn later_files_win_key_by_key() {
    let section = |value: &str| format!("[j]\nmaxretry = {value}\n");
    let (conf, d_conf, local, d_local) = (section("1"), section("2"), section("3"), section("4"));
    let mut files = vec![("jail.conf", "[j]\nenabled = true\nmaxretry = 1\nfindtime = 60\n")];
    for (name, text, expect) in [
        ("jail.conf", &conf, 1),
        ("jail.d/b.conf", &d_conf, 2),
        ("jail.local", &local, 3),
        ("jail.d/a.local", &d_local, 4),
    ] {
        if name != "jail.conf" {
            files.push((name, text));
        }
        let jail = jail("j", files.clone());
        assert_eq!(jail.max_retry, expect, "{name}");
        assert_eq!(jail.find_time.as_secs(), 60);
    }
}

#[test]
fn a_folder_is_read_in_the_order_of_its_names_and_hidden_or_other_files_not_at_all() {
    let files = [
        ("jail.conf", "[j]\nenabled = true\n"),
        ("jail.d/b.conf", "[j]\nmaxretry = 2\n"),
        ("jail.d/a.conf", "[j]\nmaxretry = 1\n"),
        ("jail.d/c.conf.bak", "[j]\nmaxretry = 7\n"),
        ("jail.d/.d.conf", "[j]\nmaxretry = 8\n"),
    ];
    assert_eq!(jail("j", files).max_retry, 2);
}

#[test]
fn any_option_of_a_jail_beats_every_default() {
    let files = [
        ("jail.conf", "[j]\nenabled = true\nmaxretry = 7\n"),
        ("jail.local", "[DEFAULT]\nmaxretry = 9\n"),
    ];
    assert_eq!(jail("j", files).max_retry, 7);
}

#[test]
fn includes_come_before_and_after_the_file_with_their_own_local() {
    let files = [
        (
            "jail.conf",
            "[INCLUDES]\nbefore = sub/first.conf\nafter = missing.local\n  last.conf\n[j]\nenabled=true\nb=self\nc=self\n",
        ),
        ("sub/first.conf", "[INCLUDES]\nbefore = deep.conf\n[j]\na=first\nb=first\n"),
        ("sub/first.local", "[j]\na=local\n"),
        ("sub/deep.conf", "[j]\na=deep\nd=deep\n"),
        ("last.conf", "[j]\nc=last\nfailregex = ^%(a)s %(b)s %(c)s %(d)s <HOST>\n"),
    ];
    let regexes = jail("j", files).filter.failregex;
    assert_eq!(regexes[0].value, "^local self last deep <HOST>");
}

#[test]
fn files_that_include_one_another_end() {
    let files = [
        ("jail.conf", "[INCLUDES]\nbefore = other.conf\n[j]\nenabled=true\nmaxretry=2\n"),
        ("other.conf", "[INCLUDES]\nbefore = jail.conf\nafter = other.conf\n[j]\nmaxretry=1\n"),
    ];
    assert_eq!(jail("j", files).max_retry, 2);
}

#[test]
fn includes_without_end_are_a_fault() {
    let names: Vec<String> = (0..30).map(|nth| format!("i{nth}.conf")).collect();
    let texts: Vec<String> =
        (1..31).map(|nth| format!("[INCLUDES]\nbefore = i{nth}.conf\n")).collect();
    let chain = names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str()));
    let deep = problems(chain.chain([("jail.conf", "[INCLUDES]\nbefore = i0.conf\n[j]\n")]));
    assert!(deep.contains("includes are nested more than 20 deep"), "{deep}");

    let fan = "[INCLUDES]\nbefore =".to_owned()
        + &names.iter().map(|name| format!(" {name}\n ")).collect::<String>();
    let wide = names.iter().map(|name| (name.as_str(), fan.as_str()));
    let wide = problems(wide.chain([("jail.conf", fan.as_str())]));
    assert!(
        wide.contains("more than 1000 files are included") || wide.contains("20 deep"),
        "{wide}"
    );
}

#[test]
fn an_include_may_use_variables_of_its_file() {
    let files = [
        (
            "jail.conf",
            "[DEFAULT]\nos = debian\n[INCLUDES]\nbefore = paths-%(os)s.conf\n[j]\nenabled=true\n",
        ),
        ("paths-debian.conf", "[j]\nmaxretry=42\n"),
    ];
    assert_eq!(jail("j", files).max_retry, 42);
}

#[test]
fn without_jails_there_is_nothing_to_read() {
    let problem = load(&TextTree::default()).expect_err("nothing there");
    assert_eq!(
        problem.iter().map(Problem::to_string).collect::<Vec<_>>(),
        [
            "there is no `jail.conf` in `/etc/x`; name the directory that holds it with `--config`, as in \
          `--config /etc/fail2ban`"
        ]
    );
}

#[test]
fn a_fault_disables_what_it_concerns() {
    let jails = "[a]\nenabled = true\nenabled = true\n[b]\nenabled = true\n[c]\nport 22\n[c]\n";
    let loaded = load_with([("jail.conf", jails)]).expect("jail b");
    assert_eq!(
        loaded.settings.jails.iter().map(|jail| jail.name.as_str()).collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!(problems([("jail.conf", jails)]), "\
error /etc/x/jail.conf:3: jail `a`: option `enabled` stands twice in section `a` of this file, first in line 2: the jail does not run; keep one of the two lines
error /etc/x/jail.conf:7: jail `c`: `port 22` is neither an option nor a section: the jail does not run; write `name = value`; indent the line if it continues the one above, or begin it with `#`
error /etc/x/jail.conf:8: jail `c`: section `c` stands twice in this file, first in line 6: the jail does not run; put the options of both under one header");
}

#[test]
fn a_fault_that_concerns_every_jail_is_fatal() {
    assert_eq!(
        problems([
            ("jail.local", "[DEFAULT]\nignoreip 192.0.2.1\n"),
            ("jail.conf", "[a]\nenabled = true\n")
        ]),
        "fatal /etc/x/jail.local:2: `ignoreip 192.0.2.1` is neither an option nor a section: nothing is used; \
         write `name = value`; indent the line if it continues the one above, or begin it with `#`"
    );
    assert_eq!(
        problems([("jail.conf", "enabled = true\n")]),
        "fatal /etc/x/jail.conf:1: `enabled = true` stands before the first section: nothing is used; write the \
         section's name above it, as in `[DEFAULT]` or `[sshd]`"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    struct Locked(TextTree);
    impl Tree for Locked {
        fn root(&self) -> &Path {
            self.0.root()
        }
        fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
            match file.ends_with("jail.local") {
                true => Err(ReadFault::System("permission denied".to_owned())),
                false => self.0.read(file),
            }
        }
        fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
            self.0.list(folder)
        }
    }
    let problems =
        load(&Locked(TextTree::new([("jail.conf", "[a]\n")]))).expect_err("no `jail.local`");
    assert_eq!(
        problems[0].to_string(),
        "`/etc/x/jail.local` cannot be read: permission denied: nothing is used; correct its owner or mode, or \
         remove it"
    );
    let long = " ".repeat(MAX_FILE + 1);
    let problems = load(&TextTree::new([("jail.conf", long.as_str())])).expect_err("too long");
    assert!(problems[0].what.contains("longer than"), "{}", problems[0]);
}
