//! Stories of jails that listen to the others, and of an operator's command.
use std::time::Duration;

use super::{at, check, engine, failure, settings, told};
use crate::{config::*, engine::*};

/// fail2ban's own filter for its log, in short.
fn recidive(log: &str) -> JailSettings {
    let place = None;
    let regex = r"^\s*(?:\S+\s+)?(?:fail2ban\.actions\s*(?:\[\d+\])?:\s+)?NOTICE\s+\[(?!recidive\])(?:.*)\]\s+Ban\s+<HOST>\s*$";
    let failregex = vec![Located { value: regex.to_owned(), place }];
    let plain = settings("recidive");
    let paths = vec![LogPath { pattern: log.into(), tail: false, place: None }];
    JailSettings {
        filter: FilterSettings { name: "of-bans".into(), failregex, ..plain.filter },
        source: SourceSettings::Files { paths, encoding: "auto".into() },
        max_retry: 2,
        ban_time: BanTime::Seconds(3600),
        ..plain
    }
}

fn once(name: &str) -> JailSettings {
    JailSettings { max_retry: 1, ..settings(name) }
}

fn ban_lines(engine: &Engine, jail: &str) -> Vec<String> {
    let jail = JailName::new(jail);
    let bans = engine.bans().of_jail(&jail);
    bans.flat_map(|ban| ban.lines.iter().map(ToString::to_string).collect::<Vec<_>>()).collect()
}

#[test]
fn bans_of_other_jails_are_heard_though_nobody_writes_their_log() {
    let mut engine = engine(&[once("a"), recidive("/var/log/fail2ban.log"), once("b")]);
    assert!(engine.jails()[1].hears_bans() && !engine.jails()[0].hears_bans());
    check(
        &mut engine,
        failure("a", "192.0.2.1", 100),
        100,
        "found 1, ban 192.0.2.1/32 until 160, found 1",
    );
    check(
        &mut engine,
        failure("a", "192.0.2.1", 101),
        101,
        "found 1, prolong 192.0.2.1/32 until 161",
    );
    check(
        &mut engine,
        failure("b", "192.0.2.1", 110),
        110,
        "found 1, ban 192.0.2.1/32 until 170, found 2, ban 192.0.2.1/32 until 3710",
    );
    assert_eq!(ban_lines(&engine, "recidive"), ["[a] Ban 192.0.2.1", "[b] Ban 192.0.2.1"]);
}

#[test]
fn a_prefix_is_heard_as_a_prefix() {
    let mut engine = engine(&[once("a"), once("b"), recidive("/var/log/fail2xdp.log")]);
    engine.handle(failure("a", "2001:db8::1", 100), at(100));
    check(
        &mut engine,
        failure("b", "2001:db8::2", 110),
        110,
        "found 1, ban 2001:db8::/64 until 170, found 2, ban 2001:db8::/64 until 3710",
    );
    let jail = JailName::new("b");
    let behind: Vec<String> = engine
        .bans()
        .of_jail(&jail)
        .flat_map(|ban| ban.origin.addresses.clone())
        .map(|address| address.to_string())
        .collect();
    assert_eq!(behind, ["2001:db8::2"]);
}

#[test]
fn only_a_jail_that_reads_of_bans_listens() {
    let other = JailSettings {
        source: SourceSettings::Files {
            paths: vec![LogPath { pattern: "/var/log/app.log".into(), tail: false, place: None }],
            encoding: "auto".into(),
        },
        ..recidive("")
    };
    let mut engine = engine(&[once("a"), other]);
    check(&mut engine, failure("a", "192.0.2.1", 100), 100, "found 1, ban 192.0.2.1/32 until 160");
}

#[test]
fn our_own_log_says_what_was_heard_already() {
    let mut engine = engine(&[once("a"), once("b"), recidive("/var/log/fail2ban.log")]);
    let line = |seconds: i64, jail: &str, address: &str| {
        let failure = failure("recidive", address, seconds);
        let Event::Finding(finding) = failure else { unreachable!() };
        let text = format!(" fail2ban.actions [12]: NOTICE  [{jail}] Ban {address}");
        Event::Finding(Finding { lines: vec![text.into()], ..finding })
    };
    // fail2ban's own, of a time before ours.
    check(&mut engine, line(90, "a", "192.0.2.1"), 100, "found 1");
    engine.handle(failure("a", "192.0.2.9", 100), at(100));
    check(&mut engine, line(100, "a", "192.0.2.9"), 100, "");
    check(&mut engine, line(101, "a", "192.0.2.9"), 101, "");
    check(&mut engine, line(101, "manual", "192.0.2.9"), 101, "");
    // Nobody here has banned these, or not by then.
    check(&mut engine, line(102, "gone", "192.0.2.7"), 102, "found 1");
    check(&mut engine, line(102, "b", "192.0.2.8"), 102, "found 1");
    let said = told(&engine.handle(line(110, "a", "192.0.2.9"), at(110)));
    assert!(said.starts_with("found 2, ban"), "{said}");
    // What was read before that ban is no news either.
    check(&mut engine, line(110, "a", "192.0.2.9"), 111, "");
}

#[test]
fn a_ban_of_the_last_moments_is_told_again_where_it_was_not_counted() {
    let mut engine = engine(&[once("a"), recidive("/var/log/fail2ban.log")]);
    engine.handle(failure("a", "192.0.2.1", 100), at(100));
    let ban = engine.bans().iter().next().expect("a ban").clone();
    assert_eq!(told(&engine.remind(&ban, at(105))), "", "it is counted");
    let lost = Ban { prefix: "192.0.2.2/32".parse().expect("one"), ..ban };
    assert_eq!(told(&engine.remind(&lost, at(105))), "found 1");
    assert_eq!(told(&engine.remind(&lost, at(105))), "");
}

fn asking(command: &str) -> JailSettings {
    JailSettings { ignore_command: Some(command.into()), ..once("sshd") }
}

fn asked(effects: &[Effect]) -> Question {
    let question = |effect: &Effect| match effect {
        Effect::Ask(question) => Some(question.clone()),
        _ => None,
    };
    effects.iter().find_map(question).expect("a question")
}

#[test]
fn a_failure_waits_for_the_answer() {
    let mut engine = engine(&[asking("/bin/check <ip>")]);
    let effects = engine.handle(failure("sshd", "192.0.2.1", 100), at(100));
    assert_eq!(told(&effects), "ask /bin/check 192.0.2.1");
    let question = asked(&effects);
    check(&mut engine, failure("sshd", "192.0.2.1", 101), 101, "");
    assert_eq!(engine.questions().waiting, 2);
    assert!(engine.is_asking(&[JailName::new("sshd")]) && !engine.is_asking(&[]));
    let answer = |answer| Event::Answered { question: question.clone(), answer };
    check(&mut engine, answer(Answer::Ignore), 102, "spared Command, spared Command");
    engine.handle(failure("sshd", "192.0.2.1", 103), at(103));
    check(&mut engine, answer(Answer::Failed), 104, "found 1, ban 192.0.2.1/32 until 163");
    let QuestionTotals { waiting, failed, unasked } = engine.questions();
    assert_eq!((waiting, failed, unasked), (0, 1, 0));
    check(&mut engine, answer(Answer::Count), 105, "");
}

#[test]
fn answers_are_kept_as_long_as_the_cache_says() {
    let cache =
        IgnoreCache { key: "<F-USER>".into(), max_count: 2, max_time: Duration::from_secs(10) };
    let mut engine =
        engine(&[JailSettings { ignore_cache: Some(cache), ..asking("check <F-USER>") }]);
    let of_user = |user: &str, seconds: i64| {
        let Event::Finding(mut finding) = failure("sshd", "192.0.2.1", seconds) else {
            unreachable!()
        };
        finding.fields = vec![("user".into(), user.into())];
        Event::Finding(finding)
    };
    for user in ["a", "b", "c"] {
        let effects = engine.handle(of_user(user, 100), at(100));
        let (question, answer) = (asked(&effects), Answer::Ignore);
        engine.handle(Event::Answered { question, answer }, at(100));
    }
    check(&mut engine, of_user("c", 109), 109, "spared Command");
    check(&mut engine, of_user("a", 109), 109, "ask check a");
    check(&mut engine, of_user("c", 110), 110, "ask check c");
}

#[test]
fn no_text_of_a_log_is_ever_a_command() {
    let told = |command: &str, user: &str| {
        let mut engine = engine(&[asking(command)]);
        let Event::Finding(mut finding) = failure("sshd", "192.0.2.1", 100) else { unreachable!() };
        finding.fields = vec![("user".into(), user.into())];
        let question = asked(&engine.handle(Event::Finding(finding), at(100)));
        let variables: Vec<String> =
            question.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} | {}", question.script, variables.join(" "))
    };
    let evil = "$(reboot); 'x";
    assert_eq!(told("c <ip> <F-USER>", "bob"), "c 192.0.2.1 bob | ");
    assert_eq!(told("c <F-USER> x", evil), format!("c \"${{f2x_F_USER}}\" x | f2x_F_USER={evil}"));
    assert_eq!(told("c \"<F-USER>\"", evil), format!("c \"${{f2x_F_USER}}\" | f2x_F_USER={evil}"));
    assert_eq!(
        told("c 'a <F-USER>'", evil),
        format!("c 'a '\"${{f2x_F_USER}}\"'' | f2x_F_USER={evil}")
    );
    assert_eq!(
        told("c \\' <F-USER>", evil),
        format!("c \\' \"${{f2x_F_USER}}\" | f2x_F_USER={evil}")
    );
    assert_eq!(told("c <F-HOST> < /dev/null", evil), "c  < /dev/null | ");
    assert_eq!(told("c <family> <ip-rev> <failures>", ""), "c inet4 1.2.0.192. 0 | ");
}

#[test]
fn what_waits_is_bounded() {
    let mut engine = engine(&[asking("check <ip>")]);
    let mut unasked = 0;
    for nth in 0..20_000u32 {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + nth).to_string();
        let said = told(&engine.handle(failure("sshd", &address, 100), at(100)));
        unasked += u32::from(said.contains("ban"));
    }
    assert_eq!(engine.questions().waiting, 16_384);
    assert_eq!(
        (u64::from(unasked), engine.questions().unasked),
        (20_000 - 16_384, 20_000 - 16_384)
    );
}
