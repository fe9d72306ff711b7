//! A jail's options.
use super::*;

#[test]
fn what_is_not_set_has_the_servers_defaults() {
    let jail = jail("j", [("jail.conf", "[j]\nenabled = true\n")]);
    assert_eq!(
        (jail.max_retry, jail.find_time.as_secs(), jail.ban_time),
        (3, 600, BanTime::Seconds(600))
    );
    assert_eq!((jail.max_matches, jail.ignore_self, jail.ipv6_prefix), (5, true, 128));
    assert_eq!((jail.filter.use_dns, jail.filter.max_lines), (UseDns::Warn, 1));
}

#[test]
fn a_tree_of_ours_counts_ipv6_by_64() {
    let files = [
        ("fail2xdp.conf", "[Definition]\n"),
        ("jail.conf", "[j]\nenabled = true\n[k]\nenabled = on\nipv6_prefix = /56\n"),
    ];
    assert_eq!(jail("j", files).ipv6_prefix, 64);
    assert_eq!(jail("k", files).ipv6_prefix, 56);
}

#[test]
fn numbers_and_spans_that_are_none_are_told() {
    check_problem(
        "maxretry = many",
        "warning /etc/x/jail.conf:3: jail `j`: `maxretry = many` is no number; 3 is used; write a whole number",
    );
    check_problem(
        "maxretry = 0",
        "warning /etc/x/jail.conf:3: jail `j`: `maxretry = 0` is out of range; 1 is used; write a number from 1 to 4294967295",
    );
    check_problem(
        "bantime = 10 parsecs",
        "error /etc/x/jail.conf:3: jail `j`: `bantime`: `10 parsecs` is no span of time: the jail does not run; write seconds, or a span such as `10m`, `1h30m`, `1w`",
    );
    check_problem(
        "bantime = -5",
        "error /etc/x/jail.conf:3: jail `j`: `bantime`: -5 seconds lie in the past: the jail does not run; write a span such as `10m`, or -1 for no end",
    );
    check_problem(
        "findtime = 0",
        "error /etc/x/jail.conf:3: jail `j`: `findtime` is 0 seconds, and no failure could count: the jail does not run; write a span such as `10m`, at most 100 years",
    );
    check_problem(
        "ipv6_prefix = 129",
        "error /etc/x/jail.conf:3: jail `j`: `ipv6_prefix = 129` is no prefix length; 128 is used; write a number from 1 to 128, as in `64`",
    );
    check_problem("bantime = -1", "");
}

#[test]
fn addresses_that_are_none_are_told_and_spare_nobody() {
    check_problem(
        "ignoreip = 192.0.2.1, 999.1.1.1\n  host.example 2001:db8::/32",
        "error /etc/x/jail.conf:3: jail `j`: `ignoreip`: `999.1.1.1` is no address; it spares nobody; write an address, a network such as `192.0.2.0/24`, or a host name",
    );
    let files = [
        (
            "jail.conf",
            "[j]\nenabled = true\nignoreip = 192.0.2.1, 999.1.1.1\n  host.example 2001:db8::/32 file:/etc/x/more\n",
        ),
        ("more", "# ours\n198.51.100.0/24 # office\n1.2.3\n"),
    ];
    let ignore: Vec<_> = jail("j", files)
        .ignore
        .iter()
        .map(|ignore| match &ignore.value {
            Ignore::Net(net) => net.to_string(),
            Ignore::Name(name) => name.clone(),
        })
        .collect();
    assert_eq!(ignore, ["192.0.2.1/32", "host.example", "2001:db8::/32", "198.51.100.0/24"]);
    assert!(problems(files).contains("/etc/x/more:3: jail `j`: `ignoreip`: `1.2.3` is no address"));
}

#[test]
fn ignoreip_that_every_jail_inherits_is_known_to_the_kernel() {
    let allow = |more: &str| {
        let jails = format!(
            "[DEFAULT]\nignoreip = 192.0.2.0/24 host.example\n[a]\nenabled=true\n[b]\nenabled=true\n{more}"
        );
        load_with([("jail.conf", jails.as_str())]).expect("jails").settings.enforce.allow
    };
    assert_eq!(
        allow("").iter().map(|net| net.value.to_string()).collect::<Vec<_>>(),
        ["192.0.2.0/24"]
    );
    assert_eq!(allow("ignoreip = 192.0.2.0/24\n"), []);
}

#[test]
fn every_mistake_of_a_jail_is_told_at_once() {
    let jail = "[j]\nenabled = 1\nfilter = nosuch\nbantime = x\nignoreip = 1.2.3\nport = 1\naction = xdp[port=nosuch]\n";
    let lines: Vec<u32> = load_with([("jail.conf", jail)])
        .expect("settings")
        .problems
        .iter()
        .filter_map(|problem| problem.place.as_ref().map(|place| place.line))
        .collect();
    assert_eq!(lines, [3, 4, 5, 7, 7]);
}

#[test]
fn slips_of_the_pen_are_told_where_nothing_uses_the_name() {
    check_problem(
        "maxretries = 2",
        "warning /etc/x/jail.conf:3: jail `j`: option `maxretries` is not known and used by no other; did you mean `maxretry`?",
    );
    check_problem("maxretries = 2\nmaxretry = %(maxretries)s", "");
    check_problem("my_ports = 1,2", "");
}

#[test]
fn filters_that_are_not_there_or_broken_disable_their_jail() {
    check_problem(
        "filter = nosuch",
        "error /etc/x/jail.conf:3: jail `j`: there is no filter `nosuch`: the jail does not run; write `filter.d/nosuch.conf`, or correct `filter`",
    );
    check_problem(
        "filter = plain[x",
        "error /etc/x/jail.conf:3: jail `j`: `filter`: `plain[x` has no `]` at its end: the jail does not run; write it as `name[param=value, other=\"value, with a comma\"]`",
    );
    let broken = [
        ("filter.d/f.conf", "[Definition]\nfailregex = a\nfailregex = b\n"),
        ("jail.conf", "[j]\nenabled=1\nfilter=f\n"),
    ];
    assert_eq!(
        problems(broken),
        "error /etc/x/filter.d/f.conf:3: jail `j`: filter `f`: option `failregex` stands twice in section `Definition` of this file, first in line 2: the jail does not run; keep one of the two lines"
    );
    let lower = [
        ("filter.d/f.conf", "[definition]\nfailregex = a\n"),
        ("jail.conf", "[j]\nenabled=1\nfilter=f\n"),
    ];
    assert_eq!(
        problems(lower),
        "error /etc/x/jail.conf:3: jail `j`: filter `f` has no section `[Definition]`: the jail does not run; write the section's name exactly so"
    );
    check_problem(
        "filter =",
        "warning /etc/x/jail.conf:3: jail `j`: no `filter` is set: only bans by hand are possible; set `filter` to the name of a file in `filter.d`",
    );
}

#[test]
fn a_jails_own_options_replace_its_filters() {
    let filter = (
        "filter.d/f.conf",
        "[Definition]\nfailregex = ^x <HOST>\nignoreregex = ^i\nprefregex = ^p\ndatepattern = d1\n  d2\njournalmatch = A=1\nmaxlines = 3\n",
    );
    let read = |options: &str| {
        let section = format!("[j]\nenabled=1\nfilter=f\n{options}\n");
        jail("j", [filter, ("jail.conf", section.as_str())])
    };
    let inherited = read("").filter;
    assert_eq!(
        (inherited.max_lines, inherited.ignoreregex.len(), inherited.date_patterns.len()),
        (3, 1, 2)
    );
    assert_eq!(inherited.prefregex.map(|regex| regex.value).as_deref(), Some("^p"));
    let own = read("ignoreregex =\nprefregex =\nmaxlines = 7\nfailregex = ^y <HOST>").filter;
    assert_eq!((own.max_lines, own.ignoreregex.len(), own.prefregex), (7, 0, None));
    assert_eq!(own.failregex[0].value, "^y <HOST>");
}

#[test]
fn what_a_filter_says_in_init_meets_the_jails_own_by_two_exceptions() {
    let filter = (
        "filter.d/f.conf",
        "[Definition]\nfailregex = ^x <HOST>\n[Init]\njournalmatch = A=1\nmaxlines = 3\n",
    );
    let section = "[j]\nenabled=1\nfilter=f\nbackend=systemd\njournalmatch = B=2\nmaxlines = 9\n";
    let jail = jail("j", [filter, ("jail.conf", section)]);
    let SourceSettings::Journal(journal) = jail.source else { panic!("{:?}", jail.source) };
    assert_eq!(journal.matches, [["A=1"], ["B=2"]]);
    assert_eq!(jail.filter.max_lines, 3);
}

#[test]
fn what_cannot_be_answered_yet_never_bans_the_wrong_one() {
    check_problem("ignorecommand = /bin/true <ip> '<F-USER>'", "");
    check_problem(
        "ignorecommand = /bin/true <ip-host>",
        "error /etc/x/jail.conf:3: jail `j`: `ignorecommand`: `<ip-host>` is not known here: the jail does not run; known are `<ip>`, `<fid>`, `<ip-rev>`, `<family>`, `<time>`, `<matches>`, `<failures>`, `<bantime>`, `<bancount>`, `<restored>`, `<br>`, and `<F-…>`",
    );
    check_problem("ignorecache = key=\"<F-USER>@<ip>\", max-time=1h", "");
    check_problem(
        "ignorecache = max-count=5",
        "error /etc/x/jail.conf:3: jail `j`: `ignorecache` has no `key`: the jail does not run; write it as `key=\"<ip>\", max-count=100, max-time=5m`",
    );
    check_problem("ignorecommand =", "");
    check_problem("bantime.increment = true", "");
    check_problem(
        "usedns = maybe",
        "error /etc/x/jail.conf:3: jail `j`: `usedns = maybe` is none; `no` is used; write `yes`, `warn`, `no` or `raw`",
    );
}

#[test]
fn growing_ban_times_are_read_and_checked() {
    let options = "[j]\nenabled = true\nbantime.increment = yes\nbantime.factor = 3 / 2\nbantime.multipliers = 1 2 4\n\
        bantime.maxtime = 5w\nbantime.rndtime = 10m\nbantime.overalljails = on\nbantime.formula = ban.Time * 2\n";
    let increment = jail("j", [("jail.conf", options)]).increment.expect("an increment");
    let formula = increment.formula.as_ref().map(Formula::text);
    assert_eq!((increment.factor, formula), (Number::Float(1.5), Some("ban.Time * 2")));
    assert_eq!(increment.multipliers, [1.0, 2.0, 4.0]);
    assert_eq!((increment.max_time, increment.random_time), (Some(3_024_000.0), 600.0));
    assert!(increment.over_all_jails);
    let off = "[j]\nenabled = true\nbantime.increment = no\nbantime.maxtime = nonsense\n";
    assert_eq!(jail("j", [("jail.conf", off)]).increment, None);
    for (option, what) in [
        ("factor = two", "`bantime.factor = two` is no usable number"),
        ("factor = 1m", "`bantime.factor = 1m` is no usable number"),
        ("multipliers = 1, 2", "`bantime.multipliers = 1, 2` is no list of numbers"),
        (
            "formula = ban.Time * 2 ban.Count",
            "`bantime.formula` cannot be calculated: `ban` where an operator or the end should be at character 14",
        ),
        ("maxtime = soon", "`bantime.maxtime`: `soon` is no span of time"),
        ("rndtime = -1", "`bantime.rndtime` is -1 seconds"),
    ] {
        let section = format!("[j]\nenabled = 1\nbantime.increment = 1\nbantime.{option}\n");
        let told = problems([("jail.conf", section.as_str())]);
        let expect = format!("error /etc/x/jail.conf:4: jail `j`: {what}: the jail does not run");
        assert!(told.contains(&expect), "{told}");
    }
}

#[test]
fn a_word_that_neither_enables_nor_disables_is_told() {
    let section = [("jail.conf", "[j]\nenabled = ture\n")];
    assert!(problems(section).starts_with(
        "warning /etc/x/jail.conf:2: jail `j`: `enabled = ture` means no: the jail is off; write `true` or `false`"
    ));
}

#[test]
fn a_filter_that_is_gone_names_what_took_its_place() {
    let section = "[j]\nenabled = true\nfilter = sshd-ddos\n[k]\nenabled = true\n";
    let files = [("jail.conf", section)];
    assert!(problems(files).starts_with(
        "error /etc/x/jail.conf:3: jail `j`: there is no filter `sshd-ddos`: the jail does not run; \
        its work is done by `sshd[mode=ddos]` now: write `filter = sshd[mode=ddos]`"
    ));
    assert_eq!(load_with(files).expect("jail k").settings.jails.len(), 1);
}
