//! Stories of those who come again: growing bans, lowered thresholds, pardon.
use super::{at, check, engine, failure, settings, told};
use crate::{config::*, engine::*};

fn growing(name: &str) -> JailSettings {
    let increment = Increment {
        factor: Number::Int(1),
        formula: None,
        multipliers: Vec::new(),
        max_time: None,
        random_time: 0.0,
        over_all_jails: false,
    };
    JailSettings { max_retry: 3, increment: Some(increment), ..settings(name) }
}

fn with(name: &str, change: impl FnOnce(&mut Increment)) -> JailSettings {
    let mut jail = growing(name);
    change(jail.increment.as_mut().expect("it grows"));
    jail
}

/// So many failures of 192.0.2.1, one a second, up to `last`; what the last one leads to.
fn fails(engine: &mut Engine, jail: &str, times: i64, last: i64) -> String {
    let mut said = String::new();
    for second in last - times + 1..=last {
        engine.handle(Event::Wake, at(second));
        said = told(&engine.handle(failure(jail, "192.0.2.1", second), at(second)));
    }
    said
}

#[test]
fn each_ban_lasts_twice_as_long_and_needs_fewer_failures() {
    let mut engine = engine(&[growing("sshd")]);
    assert_eq!(fails(&mut engine, "sshd", 3, 100), "found 3, ban 192.0.2.1/32 until 160");
    let second = fails(&mut engine, "sshd", 2, 200);
    assert_eq!(
        second, "found 3, ban 192.0.2.1/32 until 320, ban 2 grew from 60",
        "the first counted for two"
    );
    check(&mut engine, Event::Wake, 320, "unban 192.0.2.1/32 Expired");
    check(
        &mut engine,
        failure("sshd", "192.0.2.1", 400),
        400,
        "found 1, known, for 3!, ban 192.0.2.1/32 until 640, ban 3 grew from 60",
    );
    let ban = engine.bans().iter().next().expect("a ban").clone();
    assert_eq!((ban.count, ban.failures), (3, 2), "fail2ban counts the failure twice");
}

#[test]
fn who_is_banned_already_is_prolonged_by_the_plain_time_and_not_counted() {
    let mut engine = engine(&[growing("sshd")]);
    fails(&mut engine, "sshd", 3, 100);
    fails(&mut engine, "sshd", 2, 200);
    assert_eq!(fails(&mut engine, "sshd", 1, 210), "found 1, known, for 3!, already 192.0.2.1/32");
    assert_eq!(
        fails(&mut engine, "sshd", 1, 300),
        "found 1, known, for 3!, prolong 192.0.2.1/32 until 360"
    );
    check(&mut engine, Event::Wake, 360, "unban 192.0.2.1/32 Expired");
    let third = fails(&mut engine, "sshd", 1, 400);
    assert!(third.ends_with("until 640, ban 3 grew from 60"), "{third}");
}

#[test]
fn lines_that_are_read_again_make_nobody_worse() {
    let mut engine = engine(&[growing("sshd")]);
    fails(&mut engine, "sshd", 3, 100);
    check(&mut engine, failure("sshd", "192.0.2.1", 98), 130, "found 1");
    check(&mut engine, failure("sshd", "192.0.2.1", 99), 130, "found 2");
    check(&mut engine, failure("sshd", "192.0.2.1", 100), 130, "found 3, already 192.0.2.1/32");
    let past = engine.past(&JailName::new("sshd"), "192.0.2.1/32".parse().expect("one"), at(130));
    assert_eq!(past.map(|past| past.bans), Some(1));
}

#[test]
fn bans_of_all_jails_add_up_where_a_jail_wants_it() {
    let mut engine = engine(&[
        with("all", |increment| increment.over_all_jails = true),
        growing("other"),
        JailSettings { max_retry: 3, ..settings("plain") },
    ]);
    fails(&mut engine, "other", 3, 100);
    fails(&mut engine, "other", 2, 200);
    fails(&mut engine, "plain", 3, 400);
    fails(&mut engine, "plain", 3, 500);
    let first = fails(&mut engine, "all", 3, 600);
    assert_eq!(
        first, "found 3, ban 192.0.2.1/32 until 1080, ban 4 grew from 60",
        "2 of the one, 1 of the other, which does not count on"
    );
    let second = fails(&mut engine, "all", 1, 1200);
    assert!(second.ends_with("ban 8 grew from 60"), "its own 4 are among the sum: {second}");
}

#[test]
fn who_is_pardoned_begins_anew() {
    let mut engine = engine(&[growing("sshd"), growing("web")]);
    let one = || "192.0.2.1/32".parse::<IpNet>().expect("one");
    fails(&mut engine, "sshd", 3, 100);
    fails(&mut engine, "web", 3, 100);
    engine.handle(Event::Wake, at(160));
    let jail = Some(JailName::new("web"));
    let told_now = told(&engine.handle(Event::Unban { prefix: one(), jail }, at(161)));
    assert_eq!(told_now, "pardoned web Some(192.0.2.1/32)");
    assert_eq!(fails(&mut engine, "web", 3, 200), "found 3, ban 192.0.2.1/32 until 260");
    let lifted = told(&engine.handle(Event::Unban { prefix: one(), jail: None }, at(201)));
    assert_eq!(lifted, "unban 192.0.2.1/32 ByHand, pardoned sshd Some(192.0.2.1/32)");
    assert_eq!(fails(&mut engine, "sshd", 3, 300), "found 3, ban 192.0.2.1/32 until 360");
    engine.handle(Event::UnbanAll { jail: None }, at(301));
    assert_eq!(fails(&mut engine, "sshd", 3, 400), "found 3, ban 192.0.2.1/32 until 460");
}

#[test]
fn a_formula_without_a_value_costs_no_ban() {
    let formula = Formula::new("1 / (ban.Count - 1)").ok();
    let mut engine = engine(&[with("sshd", |increment| increment.formula = formula)]);
    fails(&mut engine, "sshd", 3, 100);
    assert_eq!(
        fails(&mut engine, "sshd", 2, 200),
        "found 3, no value: it divides by zero, ban 192.0.2.1/32 until 260"
    );
    engine.handle(Event::Wake, at(260));
    let third = fails(&mut engine, "sshd", 1, 300);
    assert!(third.ends_with("ban 192.0.2.1/32 until 360"), "the greater of 1 and 60: {third}");
}

#[test]
fn bans_for_ever_and_of_no_time_do_not_grow() {
    let permanent = JailSettings { ban_time: BanTime::Permanent, ..growing("a") };
    let mut engine = engine(&[permanent]);
    assert_eq!(fails(&mut engine, "a", 3, 100), "found 3, ban 192.0.2.1/32 until for ever");
}

#[test]
fn a_ban_by_hand_grows_unless_it_has_a_time_of_its_own() {
    let mut engine = engine(&[growing("sshd")]);
    let by_hand = |engine: &Engine, since, seconds| {
        Event::Ban(Ban {
            prefix: "192.0.2.1/32".parse().expect("one"),
            jail: JailName::new("sshd"),
            scope: engine.jails()[0].scope().clone(),
            since: at(since),
            until: ban_end(BanTime::Seconds(seconds), at(since)),
            failures: 0,
            count: 1,
            counted: true,
            lines: vec![],
            origin: Origin::default(),
        })
    };
    fails(&mut engine, "sshd", 3, 100);
    engine.handle(Event::Wake, at(160));
    let event = by_hand(&engine, 200, 60);
    check(&mut engine, event, 200, "ban 192.0.2.1/32 until 320, ban 2 grew from 60");
    engine.handle(Event::Wake, at(320));
    let event = by_hand(&engine, 400, 90);
    check(&mut engine, event, 400, "ban 192.0.2.1/32 until 490");
    assert_eq!(engine.bans().iter().next().map(|ban| ban.count), Some(3));
}

#[test]
fn what_is_stored_is_recalled() {
    let mut engine = engine(&[growing("sshd")]);
    let (jail, one) = (JailName::new("sshd"), "192.0.2.1/32".parse().expect("one"));
    let past = Past { bans: 4, last: at(100), until: Until::At(at(580)) };
    engine.recall(&jail, one, past, at(600));
    let ban = fails(&mut engine, "sshd", 1, 700);
    assert!(ban.ends_with("until 1660, ban 5 grew from 60"), "{ban}");
    assert_eq!(engine.pasts(None, 10).0[0].2.bans, 5);
    engine.recall(&jail, one, past, at(700));
    assert_eq!(engine.pasts(None, 10).0[0].2.bans, 5, "what is known is younger");
}

#[test]
fn bans_of_the_same_second_are_one_where_all_jails_count() {
    let mut engine =
        engine(&[growing("other"), with("all", |increment| increment.over_all_jails = true)]);
    fails(&mut engine, "other", 3, 100);
    let same = fails(&mut engine, "all", 3, 100);
    assert_eq!(same, "found 3, ban 192.0.2.1/32 until 220, ban 2 grew from 60");
    assert_eq!(
        engine.past(&JailName::new("all"), "192.0.2.1/32".parse().expect("one"), at(100)),
        None
    );
}
