//! What the engine promises, as short stories: events in, effects out.
mod again;
mod listening;
use std::time::Duration;

use super::*;
use crate::config::*;

fn settings(name: &str) -> JailSettings {
    JailSettings {
        name: JailName::new(name),
        place: None,
        filter: FilterSettings {
            name: name.into(),
            prefregex: None,
            failregex: Vec::new(),
            ignoreregex: Vec::new(),
            max_lines: 1,
            date_patterns: Vec::new(),
            use_dns: UseDns::No,
            time_zone: None,
        },
        source: SourceSettings::Nothing,
        max_retry: 3,
        find_time: Duration::from_secs(600),
        ban_time: BanTime::Seconds(60),
        increment: None,
        max_matches: 5,
        ignore: Vec::new(),
        ignore_self: true,
        ignore_command: None,
        ignore_cache: None,
        scope: "tcp:22".parse().expect("a scope"),
        actions: Vec::new(),
        ipv6_prefix: 64,
        silence: None,
        observe: false,
    }
}

fn engine(jails: &[JailSettings]) -> Engine {
    Engine::new(jails, Limits::default())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn failure(jail: &str, address: &str, seconds: i64) -> Event {
    Event::Finding(Finding {
        jail: JailName::new(jail),
        who: match address.parse() {
            Ok(address) => FailureId::Address(address),
            Err(_) => FailureId::Name(address.into()),
        },
        at: at(seconds),
        lines: vec![format!("failure at {seconds}").into()],
        rule: 0,
        fields: Vec::new(),
    })
}

/// What the effects say, without the details a story does not tell.
fn told(effects: &[Effect]) -> String {
    let until = |until: Until| match until {
        Until::At(end) => end.seconds().to_string(),
        Until::Forever => "for ever".into(),
    };
    let tell = |effect: &Effect| match effect {
        Effect::Ban { ban, prolonged: false, .. } => {
            format!("ban {} until {}", ban.prefix, until(ban.until))
        }
        Effect::Ban { ban, prolonged: true, .. } => {
            format!("prolong {} until {}", ban.prefix, until(ban.until))
        }
        Effect::Unban { ban, why } => format!("unban {} {why:?}", ban.prefix),
        Effect::Found { attempts, .. } => format!("found {attempts}"),
        Effect::KnownOffender { counts_for, reached, .. } => {
            format!("known, for {counts_for}{}", if *reached { "!" } else { "" })
        }
        Effect::Increased { ban, plain, .. } => format!("ban {} grew from {plain}", ban.count),
        Effect::NotIncreased { why, .. } => format!("no value: {why}"),
        Effect::Pardoned { jail, prefix } => format!("pardoned {jail} {prefix:?}"),
        Effect::Spared { by, .. } => format!("spared {by:?}"),
        Effect::AlreadyBanned { prefix, .. } => format!("already {prefix}"),
        Effect::NoAddress { text, .. } => format!("no address {text}"),
        Effect::Resolve { name } => format!("resolve {name}"),
        Effect::Ask(question) => format!("ask {}", question.script),
        Effect::Unasked { failures, .. } => format!("unasked {failures}"),
        Effect::Forgot { addresses, .. } => format!("forgot {addresses}"),
        Effect::Ceiling { exceeded, .. } => format!("ceiling {exceeded}"),
        Effect::Suspended { prefix, why, .. } => format!("suspended {prefix} {why:?}"),
        Effect::LoggedIn { prefix, .. } => format!("logged in {prefix}"),
    };
    effects.iter().map(tell).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(engine: &mut Engine, event: Event, now: i64, expect: &str) {
    assert_eq!(told(&engine.handle(event, at(now))), expect);
}

#[test]
fn maxretry_failures_make_a_ban_that_ends() {
    let mut engine = engine(&[settings("sshd")]);
    check(&mut engine, failure("sshd", "192.0.2.1", 100), 100, "found 1");
    check(&mut engine, failure("sshd", "192.0.2.2", 100), 100, "found 1");
    check(&mut engine, failure("sshd", "192.0.2.1", 101), 101, "found 2");
    check(
        &mut engine,
        failure("sshd", "192.0.2.1", 102),
        102,
        "found 3, ban 192.0.2.1/32 until 162",
    );
    assert_eq!(engine.bans().next_expiry(), Some(at(162)));
    check(&mut engine, Event::Wake, 161, "");
    check(&mut engine, Event::Wake, 162, "unban 192.0.2.1/32 Expired");
    check(&mut engine, failure("sshd", "192.0.2.1", 163), 163, "found 1");
}

#[test]
fn the_evidence_is_kept_with_the_ban() {
    let mut engine = engine(&[JailSettings { max_retry: 2, ..settings("sshd") }]);
    engine.handle(failure("sshd", "192.0.2.1", 1), at(1));
    engine.handle(failure("sshd", "192.0.2.1", 2), at(2));
    let bans: Vec<&Ban> = engine.bans().iter().collect();
    assert_eq!(bans[0].lines, ["failure at 1".into(), "failure at 2".into()]);
    assert_eq!((bans[0].failures, bans[0].since), (2, at(2)));
}

#[test]
fn ipv6_is_counted_and_banned_by_prefix() {
    let mut engine = engine(&[settings("sshd")]);
    check(&mut engine, failure("sshd", "2001:db8:0:1::1", 1), 1, "found 1");
    check(&mut engine, failure("sshd", "2001:db8:0:1::2", 1), 1, "found 2");
    check(&mut engine, failure("sshd", "2001:db8:0:2::1", 1), 1, "found 1");
    check(
        &mut engine,
        failure("sshd", "2001:db8:0:1:f::3", 1),
        1,
        "found 3, ban 2001:db8:0:1::/64 until 61",
    );
    let one = Event::Unban { prefix: "2001:db8:0:1::2/128".parse().expect("a prefix"), jail: None };
    check(&mut engine, one, 2, "unban 2001:db8:0:1::/64 ByHand");
}

#[test]
fn a_ban_ends_on_a_whole_second_never_early() {
    assert_eq!(ban_end(BanTime::Seconds(60), Timestamp::from_micros(1_500_000)), Until::At(at(62)));
    assert_eq!(ban_end(BanTime::Seconds(60), at(1)), Until::At(at(61)));
    assert_eq!(ban_end(BanTime::Permanent, at(1)), Until::Forever);
}

#[test]
fn ignored_addresses_are_never_counted() {
    let ignore = vec![
        Ignore::Net("192.0.2.0/24".parse().expect("a net")),
        Ignore::Name("home.example".into()),
    ];
    let ignore = ignore.into_iter().map(|value| Located { value, place: None }).collect();
    let mut engine = engine(&[JailSettings { ignore, max_retry: 1, ..settings("sshd") }]);
    let own = "198.51.100.1".parse().expect("an address");
    engine.handle(Event::OwnAddresses(vec![own]), at(0));
    check(&mut engine, failure("sshd", "192.0.2.77", 1), 1, "spared IgnoreIp(192.0.2.0/24)");
    check(&mut engine, failure("sshd", "198.51.100.1", 1), 1, "spared OwnAddress");
    assert_eq!(engine.names_to_resolve(), ["home.example".into()]);
    let home = vec!["203.0.113.9".parse().expect("an address")];
    check(&mut engine, Event::Resolved { name: "home.example".into(), addresses: home }, 1, "");
    check(
        &mut engine,
        failure("sshd", "203.0.113.9", 2),
        2,
        r#"spared IgnoreName("home.example")"#,
    );
    check(&mut engine, Event::Wake, 301, "resolve home.example");
    check(&mut engine, Event::Resolved { name: "home.example".into(), addresses: vec![] }, 302, "");
    check(
        &mut engine,
        failure("sshd", "203.0.113.9", 303),
        303,
        r#"spared IgnoreName("home.example")"#,
    );
}

#[test]
fn an_allowed_address_is_not_counted_towards_a_ban_that_would_be_none() {
    let mut engine = engine(&[JailSettings { max_retry: 1, ..settings("sshd") }]);
    engine.handle(Event::AllowList(vec!["192.0.2.0/28".parse().expect("a net")]), at(0));
    check(&mut engine, failure("sshd", "192.0.2.15", 1), 1, "spared AllowList(192.0.2.0/28)");
    check(&mut engine, failure("sshd", "192.0.2.16", 1), 1, "found 1, ban 192.0.2.16/32 until 61");
}

#[test]
fn a_name_in_a_log_is_looked_up_once_and_every_address_counted() {
    let mut engine = engine(&[JailSettings { max_retry: 2, ..settings("web") }]);
    check(&mut engine, failure("web", "bad.example", 1), 1, "resolve bad.example");
    check(&mut engine, failure("web", "bad.example", 2), 2, "");
    let addresses = vec!["192.0.2.1".parse().expect("v4"), "192.0.2.2".parse().expect("v4")];
    check(
        &mut engine,
        Event::Resolved { name: "bad.example".into(), addresses },
        3,
        "found 1, found 1, found 2, ban 192.0.2.1/32 until 62, found 2, ban 192.0.2.2/32 until 62",
    );
    check(&mut engine, failure("web", "none.example", 4), 4, "resolve none.example");
    check(&mut engine, Event::Resolved { name: "none.example".into(), addresses: vec![] }, 4, "");
    check(&mut engine, failure("web", "none.example", 5), 5, "");
}

#[test]
fn failures_that_find_no_room_while_names_are_looked_up_are_counted() {
    let mut engine = engine(&[JailSettings { max_retry: 9, ..settings("web") }]);
    let totals = engine.names();
    assert_eq!((totals.waiting, totals.lost), (0, 0));
    for nth in 0..totals.most_waiting + 3 {
        engine.handle(failure("web", &format!("n{nth}.example"), 1), at(1));
    }
    for _ in 0..100 {
        engine.handle(failure("web", "n0.example", 2), at(2));
    }
    // Sixty-four wait for one name.
    let totals = engine.names();
    assert_eq!((totals.waiting, totals.lost), (totals.most_waiting, 3 + 101 - 64));
}

#[test]
fn an_answer_about_a_name_serves_for_five_minutes() {
    let mut engine = engine(&[JailSettings { max_retry: 9, ..settings("web") }]);
    check(&mut engine, failure("web", "bad.example", 1), 1, "resolve bad.example");
    let addresses = vec!["192.0.2.1".parse().expect("v4")];
    check(&mut engine, Event::Resolved { name: "bad.example".into(), addresses }, 2, "found 1");
    check(&mut engine, failure("web", "bad.example", 3), 3, "found 2");
    check(&mut engine, failure("web", "bad.example", 301), 301, "found 3");
    check(&mut engine, failure("web", "bad.example", 302), 302, "resolve bad.example");
}

#[test]
fn jails_hold_a_prefix_apart_from_each_other() {
    let mut engine = engine(&[
        JailSettings { max_retry: 1, ..settings("a") },
        JailSettings { max_retry: 1, ..settings("b") },
    ]);
    check(&mut engine, failure("a", "192.0.2.1", 1), 1, "found 1, ban 192.0.2.1/32 until 61");
    check(&mut engine, failure("b", "192.0.2.1", 10), 10, "found 1, ban 192.0.2.1/32 until 70");
    check(&mut engine, Event::Wake, 61, "unban 192.0.2.1/32 Expired");
    assert_eq!(engine.bans().count_of(&JailName::new("b")), 1);
    let all = Event::Unban { prefix: "192.0.2.0/24".parse().expect("a net"), jail: None };
    check(&mut engine, all, 62, "unban 192.0.2.1/32 ByHand");
}

#[test]
fn a_late_failure_of_a_banned_address_prolongs_its_ban() {
    let mut engine = engine(&[JailSettings { max_retry: 1, ..settings("sshd") }]);
    check(
        &mut engine,
        failure("sshd", "192.0.2.1", 100),
        100,
        "found 1, ban 192.0.2.1/32 until 160",
    );
    check(&mut engine, failure("sshd", "192.0.2.1", 90), 101, "found 1, already 192.0.2.1/32");
    check(
        &mut engine,
        failure("sshd", "192.0.2.1", 130),
        130,
        "found 1, prolong 192.0.2.1/32 until 190",
    );
    check(&mut engine, Event::Wake, 160, "");
    check(&mut engine, Event::Wake, 190, "unban 192.0.2.1/32 Expired");
}

#[test]
fn old_failures_make_no_ban_that_is_over_already() {
    let mut engine = engine(&[JailSettings { max_retry: 1, ..settings("sshd") }]);
    check(&mut engine, failure("sshd", "192.0.2.1", 100), 161, "found 1, spared EndsInThePast");
}

#[test]
fn a_failure_from_the_future_counts_as_of_now() {
    let mut engine = engine(&[JailSettings { max_retry: 1, ..settings("sshd") }]);
    check(
        &mut engine,
        failure("sshd", "192.0.2.1", 5000),
        100,
        "found 1, ban 192.0.2.1/32 until 160",
    );
}

#[test]
fn a_mass_expiry_is_taken_in_portions() {
    let mut engine = engine(&[settings("sshd")]);
    for nth in 0..LIFTED_AT_ONCE as u32 + 1 {
        let ban = Ban {
            prefix: IpNet::from(IpAddr::from((0x0a00_0000 + nth).to_be_bytes())),
            jail: JailName::new("sshd"),
            scope: engine.jails()[0].scope().clone(),
            since: at(0),
            until: Until::At(at(60)),
            failures: 0,
            count: 1,
            counted: true,
            lines: vec![],
            origin: Origin::default(),
        };
        engine.handle(Event::Ban(ban), at(1));
    }
    assert_eq!(engine.handle(Event::Wake, at(60)).len(), LIFTED_AT_ONCE);
    assert_eq!(engine.next_wake(), Some(at(60)), "the rest is due at once");
    assert_eq!(engine.handle(Event::Wake, at(60)).len(), 1);
    assert!(engine.bans().is_empty());
}

#[test]
fn a_reload_keeps_what_stays_and_lifts_what_is_gone() {
    let once = |name| JailSettings { max_retry: 1, ..settings(name) };
    let mut engine = engine(&[once("kept"), once("gone"), once("broken"), settings("counting")]);
    for jail in ["kept", "gone", "broken"] {
        engine.handle(failure(jail, "192.0.2.1", 1), at(1));
    }
    engine.handle(failure("counting", "192.0.2.5", 1), at(1));
    let effects = engine.reconfigure(
        &[settings("counting"), once("kept")],
        &[JailName::new("broken")],
        at(2),
    );
    assert_eq!(told(&effects), "unban 192.0.2.1/32 JailRemoved");
    assert_eq!(engine.bans().count_of(&JailName::new("kept")), 1);
    assert_eq!(engine.bans().count_of(&JailName::new("broken")), 1);
    check(&mut engine, failure("counting", "192.0.2.5", 3), 3, "found 2");
    check(&mut engine, failure("gone", "192.0.2.9", 3), 3, "");
}

#[test]
fn a_text_that_is_no_address_is_reported_and_not_banned() {
    let mut engine = engine(&[JailSettings { max_retry: 1, ..settings("users") }]);
    let Event::Finding(mut finding) = failure("users", "192.0.2.1", 1) else {
        unreachable!("a finding was made")
    };
    finding.who = FailureId::Text("mallory".into());
    check(&mut engine, Event::Finding(finding), 1, "found 1, no address mallory");
    assert!(engine.bans().is_empty());
}

#[test]
fn what_the_kernel_refused_is_not_listed() {
    let mut engine = engine(&[JailSettings { max_retry: 1, ..settings("sshd") }]);
    let effects = engine.handle(failure("sshd", "192.0.2.1", 1), at(1));
    let Some(Effect::Ban { ban, .. }) = effects.last() else { panic!("no ban: {effects:?}") };
    engine.refused(ban, false);
    let totals = engine.jails()[0].totals();
    assert_eq!((totals.banned, totals.refused), (0, 1));
    assert!(engine.bans().is_empty());
    assert_eq!(engine.bans().next_expiry(), None);
}

#[test]
fn bans_taken_over_of_whom_their_jail_ignores_by_now_are_lifted() {
    let ignore = ["192.0.2.1/32", "198.51.100.0/24", "2001:db8::1/128"];
    let mut ignore: Vec<Ignore> =
        ignore.map(|net| Ignore::Net(net.parse().expect("a network"))).into();
    ignore.push(Ignore::Name("home.example".into()));
    let ignore = ignore.into_iter().map(|value| Located { value, place: None }).collect();
    let mut engine = engine(&[JailSettings { ignore, ..settings("sshd") }, settings("web")]);
    for jail in ["sshd", "web"] {
        for prefix in [
            "192.0.2.1/32",
            "192.0.2.2/32",
            "192.0.2.3/32",
            "192.0.2.4/32",
            "198.51.100.7/32",
            "2001:db8::/64",
            "192.0.2.0/24",
        ] {
            let ban = Ban {
                prefix: prefix.parse().expect("a network"),
                jail: JailName::new(jail),
                scope: Arc::new(Scope::EveryPacket),
                since: at(0),
                until: Until::Forever,
                failures: 0,
                count: 1,
                counted: true,
                lines: Vec::new(),
                origin: Origin::default(),
            };
            engine.adopt(ban, at(0));
        }
    }
    let address = |text: &str| text.parse().expect("an address");
    engine.handle(Event::OwnAddresses(vec![address("192.0.2.3")]), at(1));
    let addresses = vec![address("192.0.2.4")];
    engine.handle(Event::Resolved { name: "home.example".into(), addresses }, at(1));
    // `ignoreself` is the other jail's too. A network that is wider than what is ignored stays.
    assert_eq!(
        told(&engine.lift_ignored()),
        "unban 192.0.2.3/32 Ignored, unban 192.0.2.1/32 Ignored, unban 198.51.100.7/32 Ignored, \
         unban 2001:db8::/64 Ignored, unban 192.0.2.4/32 Ignored, unban 192.0.2.3/32 Ignored"
    );
    assert_eq!(engine.bans().len(), 8);
    assert_eq!(told(&engine.lift_ignored()), "");
}

#[test]
fn what_is_counted_is_bounded_over_all_jails_together() {
    let limits = Limits { pending_failures: 32, evidence: 4096, ..Limits::default() };
    let mut engine = Engine::new(&[settings("many"), settings("few")], limits);
    for nth in 0..30 {
        check(&mut engine, failure("many", &format!("192.0.2.{nth}"), nth), 100, "found 1");
    }
    check(&mut engine, failure("few", "192.0.2.1", 0), 100, "found 1");
    check(&mut engine, failure("few", "192.0.2.2", 0), 100, "found 1");
    check(&mut engine, failure("few", "192.0.2.2", 1), 100, "found 2");
    check(&mut engine, failure("few", "192.0.2.3", 2), 100, "forgot 1, found 1");
    check(&mut engine, failure("many", "192.0.2.0", 3), 100, "forgot 1, found 1");
    check(&mut engine, failure("many", "192.0.2.1", 3), 100, "forgot 1, found 1");
    check(&mut engine, failure("few", "192.0.2.1", 3), 100, "found 2");
    let pending = engine.pending();
    assert_eq!((pending.addresses, pending.forgotten_addresses), (32, 3));
    for nth in 0..100 {
        engine.handle(failure("few", "192.0.2.9", 1000 * nth), at(1000 * nth));
    }
    let pending = engine.pending();
    assert!(pending.evidence <= 4096, "{pending:?}");
    engine.reconfigure(&[], &[], at(0));
    assert_eq!(engine.pending().evidence, 0, "no jail, no lines");
}

#[test]
fn above_the_ceiling_only_what_is_risky_is_suspended() {
    let jail = JailSettings { max_retry: 1, ..settings("sshd") };
    let limits = Limits { bans_a_minute: 1, ..Limits::default() };
    let mut engine = Engine::new(&[jail], limits);
    let login = Event::LoggedIn { address: "192.0.2.9".parse().unwrap(), at: at(99) };
    check(&mut engine, login, 100, "logged in 192.0.2.9/32");
    engine.handle(failure("sshd", "192.0.2.1", 100), at(100));
    check(
        &mut engine,
        failure("sshd", "192.0.2.2", 100),
        100,
        "found 1, ban 192.0.2.2/32 until 160, ceiling true",
    );
    let login = Suspended::LoggedIn(at(99));
    let waits = format!("found 1, suspended 192.0.2.9/32 {login:?}");
    check(&mut engine, failure("sshd", "192.0.2.9", 101), 101, &waits);
    check(
        &mut engine,
        failure("sshd", "192.0.2.3", 101),
        101,
        "found 1, ban 192.0.2.3/32 until 161",
    );
    assert_eq!(engine.ceiling().suspended, 1);
    // The end of a ban that holds is moved all the same.
    check(
        &mut engine,
        failure("sshd", "192.0.2.3", 102),
        102,
        "found 1, prolong 192.0.2.3/32 until 162",
    );
    let calm = told(&engine.handle(Event::Wake, at(300)));
    assert!(calm.ends_with("ceiling false"), "{calm}");
    check(
        &mut engine,
        failure("sshd", "192.0.2.9", 301),
        301,
        "found 1, ban 192.0.2.9/32 until 361",
    );
}

#[test]
fn failures_of_one_who_is_banned_are_told() {
    let jail = JailSettings { max_retry: 2, ..settings("sshd") };
    let mut engine = engine(&[jail]);
    for seconds in [100, 101] {
        engine.handle(failure("sshd", "192.0.2.1", seconds), at(seconds));
    }
    // What came before the ban took hold, and what was read too late to tell.
    engine.handle(failure("sshd", "192.0.2.1", 108), at(108));
    engine.handle(failure("sshd", "192.0.2.1", 115), at(150));
    assert_eq!(engine.lingering(), []);
    engine.handle(failure("sshd", "192.0.2.1", 120), at(121));
    engine.handle(failure("sshd", "192.0.2.1", 130), at(131));
    let told = engine.lingering();
    assert_eq!((told.len(), told[0].failures, told[0].last), (1, 2, at(130)));
    engine.handle(Event::UnbanAll { jail: None }, at(132));
    assert_eq!(engine.lingering(), []);
}
