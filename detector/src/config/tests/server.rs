//! `fail2xdp.conf` and `fail2ban.conf`.
use super::*;

#[track_caller]
fn check(options: &str, expect: &str) {
    let own = format!("[Definition]\n{options}\n");
    assert_eq!(
        problems([("fail2xdp.conf", own.as_str()), ("jail.conf", "[j]\nenabled = 1\n")]),
        expect,
        "{options}"
    );
}

#[test]
fn our_options_are_read() {
    let own = "[Definition]\ninterface = eth0, eth1 eth0\nmode = Generic\nobserve = yes\nallow = 192.0.2.0/24\n 2001:db8::1 file:/etc/cdn\nwidest_ban = /8, 24\nallow_sessions = no\nmax_bans = 1_000\ninitial_bans = 100\nevents_per_second = 0\ncompare_every = 90s\nloglevel = debug\n";
    let settings = load_with([("fail2xdp.conf", own), ("jail.conf", "[j]\nenabled = 1\n")])
        .expect("settings")
        .settings;
    let allow = |net: &str, line| Located {
        value: net.parse().expect("a network"),
        place: Some(Place { file: Arc::new("/etc/x/fail2xdp.conf".into()), line }),
    };
    assert_eq!(
        settings.enforce,
        EnforceSettings {
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            mode: AttachMode::Generic,
            observe: true,
            allow: vec![allow("192.0.2.0/24", 5), allow("2001:db8::1/128", 6)],
            allow_files: vec!["/etc/cdn".into()],
            widest_ban: WidestBan { v4: 8, v6: 24 },
            allow_sessions: false,
            max_bans: 1_000,
            initial_bans: 100,
            events_per_second: 0,
            compare_every: std::time::Duration::from_secs(90),
        }
    );
    assert_eq!(settings.log_level, "DEBUG");
    assert!(!settings.fail2ban_tree);
}

#[test]
fn how_long_the_store_remembers_is_read_from_either_file() {
    let read = |own: &str, theirs: &str| {
        let (own, theirs) = (format!("[Definition]\n{own}"), format!("[Definition]\n{theirs}"));
        let files = [
            ("fail2xdp.conf", own.as_str()),
            ("fail2ban.conf", theirs.as_str()),
            ("jail.conf", "[j]\nenabled = 1\n"),
        ];
        let store = load_with(files).expect("settings").settings.store;
        (store.purge_age.as_secs(), store.max_matches)
    };
    assert_eq!(read("", ""), (86_400, 10));
    assert_eq!(read("", "dbpurgeage = 648000\ndbmaxmatches = 3\n"), (648_000, 3));
    assert_eq!(read("dbpurgeage = 2d\n", "dbpurgeage = 648000\n"), (172_800, 10));
    check(
        "dbpurgeage = soon",
        "error /etc/x/fail2xdp.conf:2: `dbpurgeage = soon` is no usable time; 1d is used; write a time such as `7d`",
    );
    check(
        "compare_every = 0",
        "error /etc/x/fail2xdp.conf:2: `compare_every = 0` is no usable time; 5m is used; write a time such as `7d`",
    );
}

#[test]
fn commands_of_actions_have_a_user_and_their_patience() {
    let read = |own: &str| {
        let own = format!("[Definition]\n{own}");
        let files = [("fail2xdp.conf", own.as_str()), ("jail.conf", "[j]\nenabled = 1\n")];
        let settings = load_with(files).expect("settings").settings;
        (settings.action_user, settings.action_retry.as_secs())
    };
    assert_eq!(read(""), (None, 30));
    assert_eq!(read("action_user = f2x\naction_retry = 2m\n"), (Some("f2x".to_owned()), 120));
    assert_eq!(read("action_retry = 0\n"), (None, 0));
    check(
        "action_retry = 2h",
        "error /etc/x/fail2xdp.conf:2: `action_retry = 2h` is no usable time; 30s is used; write a time such as `7d`",
    );
}

#[test]
fn of_a_fail2ban_tree_the_log_level_is_honoured() {
    let files = [
        ("fail2ban.conf", "[DEFAULT]\nloglevel = NOTICE\n[Definition]\n"),
        ("jail.conf", "[j]\nenabled = 1\n"),
    ];
    let settings = load_with(files).expect("settings").settings;
    assert!(settings.fail2ban_tree);
    assert_eq!(settings.log_level, "NOTICE");
    let own = files.into_iter().chain([("fail2xdp.local", "[Definition]\nloglevel = ERROR\n")]);
    assert_eq!(load_with(own).expect("settings").settings.log_level, "ERROR");
}

#[test]
fn mistakes_are_told_and_the_default_used() {
    check(
        "mode = fast",
        "error /etc/x/fail2xdp.conf:2: `mode = fast` is none; `auto` is used; write `auto`, `native`, `generic` or `none`",
    );
    check(
        "observe = perhaps",
        "error /etc/x/fail2xdp.conf:2: `observe = perhaps` is neither yes nor no; `no` is used; write `yes` or `no`",
    );
    check(
        "max_bans = 0",
        "error /etc/x/fail2xdp.conf:2: `max_bans = 0` is no usable number; 4194304 is used; write a number from 1 to 268435456",
    );
    check(
        "initial_bans = 11\nmax_bans = 10",
        "error /etc/x/fail2xdp.conf:2: `initial_bans = 11` is no usable number; 10 is used; write a number from 1 to 10",
    );
    check(
        "allow = 999.1.1.1",
        "error /etc/x/fail2xdp.conf:2: `allow`: `999.1.1.1` is no address; it protects nobody; write an address or a network, as in `192.0.2.1` or `2001:db8::/32`; names are looked up for a jail's `ignoreip` only",
    );
    check(
        "interface = a-name-that-is-too-long",
        "error /etc/x/fail2xdp.conf:2: `a-name-that-is-too-long` can be no interface's name; it is left out; take a name that `ip link` shows",
    );
    check(
        "interfces = eth0",
        "warning /etc/x/fail2xdp.conf:2: option `interfces` is not known; did you mean `interfaces`?",
    );
    check(
        "allow",
        "fatal /etc/x/fail2xdp.conf:2: `allow` is neither an option nor a section: nothing is used; write `name = value`; indent the line if it continues the one above, or begin it with `#`",
    );
    check(
        "loglevel = loud",
        "warning /etc/x/fail2xdp.conf:2: `loglevel = loud` is none; its default is used: `INFO`; write one of `CRITICAL`, `ERROR`, `WARNING`, `NOTICE`, `INFO`, `DEBUG`, `TRACEDEBUG`, `HEAVYDEBUG`",
    );
}

/// What of the log and of IPv6 these two files say.
fn log_and_ipv6(own: &str, theirs: &str) -> (String, AllowIpv6, String) {
    let (own, theirs) = (format!("[Definition]\n{own}"), format!("[Definition]\n{theirs}"));
    let files = [
        ("fail2xdp.conf", own.as_str()),
        ("fail2ban.conf", theirs.as_str()),
        ("jail.conf", "[j]\nenabled = 1\n"),
    ];
    let loaded = load_with(files).expect("settings");
    assert_eq!(loaded.problems, [], "{own} {theirs}");
    let settings = loaded.settings;
    let target = settings.log.target.map(|target| format!("{:?}", target.value.0));
    let socket = settings.log.syslog_socket.map(|socket| socket.value.display().to_string());
    let log = [target, socket].map(|said| said.unwrap_or_default()).join(" ");
    (log, settings.allow_ipv6, settings.log_level)
}

#[test]
fn where_the_log_goes_and_whether_ipv6_is_allowed_is_read_from_either_file() {
    let info = || "INFO".to_owned();
    assert_eq!(log_and_ipv6("", ""), (" ".to_owned(), AllowIpv6::Auto, info()));
    let theirs = "logtarget = SYSLOG[facility=mail]\nsyslogsocket = /run/log\nallowipv6 = off\n";
    let said = "Syslog { facility: \"mail\" } /run/log".to_owned();
    assert_eq!(log_and_ipv6("", theirs), (said, AllowIpv6::No, info()));
    let own = "logtarget = /var/log/x.log[datetime=off, padding=no]\nsyslogsocket = auto\nallowipv6 = Yes\n";
    let said = "File(\"/var/log/x.log\") ".to_owned();
    assert_eq!(log_and_ipv6(own, theirs), (said, AllowIpv6::Yes, info()));
    for (level, used) in [("warn", "WARNING"), ("Fatal", "CRITICAL"), ("25", "25"), ("msg", "18")] {
        let (.., said) = log_and_ipv6("", &format!("loglevel = {level}\n"));
        assert_eq!(said, used);
    }
}

#[test]
fn a_log_that_cannot_be_written_is_told() {
    check(
        "logtarget = fail2ban.log",
        "error /etc/x/fail2xdp.conf:2: `logtarget = fail2ban.log`: `fail2ban.log` is neither an absolute path nor one of the known words; its default is used; write a file's whole path, `STDOUT`, `STDERR`, `SYSOUT`, `SYSLOG` or `SYSTEMD-JOURNAL`",
    );
    check(
        "logtarget = SYSLOG[facility=me]",
        "error /etc/x/fail2xdp.conf:2: `logtarget = SYSLOG[facility=me]`: `me` is no facility of syslog; its default is used; write one such as `daemon`, `auth` or `local0`",
    );
    check(
        "logtarget = STDERR[datetime=maybe]",
        "error /etc/x/fail2xdp.conf:2: `logtarget = STDERR[datetime=maybe]`: `datetime = maybe` means neither on nor off; its default is used; write `on` or `off`",
    );
    check(
        "syslogsocket = dev/log",
        "error /etc/x/fail2xdp.conf:2: `syslogsocket = dev/log` is no path; the system's is used; write `auto`, or a socket's whole path such as `/dev/log`",
    );
    check(
        "allowipv6 = maybe",
        "error /etc/x/fail2xdp.conf:2: `allowipv6 = maybe` is none; `auto` is used; write `auto`, `yes` or `no`",
    );
    check(
        "allowipv6 = %(nobody)s",
        "error /etc/x/fail2xdp.conf:2: `allowipv6` cannot be expanded: `%(nobody)s` names no option of section `Definition` or `[DEFAULT]`; its default is used; correct the name or define the option",
    );
}
