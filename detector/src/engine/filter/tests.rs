//! Traces of whole filters. The clock stands at 2026-11-21 14:00:00 UTC.
use proptest::prelude::*;

use super::*;
use crate::{
    config::{BanTime, FilterSettings, Located, Place, Scope, SourceSettings},
    engine::FailureId,
};

const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);

fn located(text: &str) -> Located<String> {
    Located { value: text.to_owned(), place: None }
}

/// A jail with these patterns, one a line: `prefix:`, `ignore:`, `date:`, `lines:`, `dns:`, `zone:`,
/// else a failregex.
fn jail(patterns: &str) -> JailSettings {
    let mut filter = FilterSettings {
        name: "test".to_owned(),
        prefregex: None,
        failregex: Vec::new(),
        ignoreregex: Vec::new(),
        max_lines: 1,
        date_patterns: Vec::new(),
        use_dns: UseDns::Warn,
        time_zone: None,
    };
    for line in patterns.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("prefix", text)) => filter.prefregex = Some(located(text)),
            Some(("ignore", text)) => filter.ignoreregex.push(located(text)),
            Some(("date", text)) => filter.date_patterns.push(located(text)),
            Some(("lines", text)) => filter.max_lines = text.parse().expect("a number"),
            Some(("zone", text)) => filter.time_zone = Some(located(text)),
            Some(("dns", "no")) => filter.use_dns = UseDns::No,
            Some(("dns", "raw")) => filter.use_dns = UseDns::Raw,
            _ => filter.failregex.push(located(line)),
        }
    }
    JailSettings {
        name: JailName::new("test"),
        place: None,
        filter,
        source: SourceSettings::Nothing,
        max_retry: 5,
        find_time: Duration::from_secs(600),
        ban_time: BanTime::Seconds(600),
        increment: None,
        max_matches: 10,
        ignore: Vec::new(),
        ignore_self: true,
        ignore_command: None,
        ignore_cache: None,
        scope: Scope::EveryPacket,
        actions: Vec::new(),
        ipv6_prefix: 128,
        silence: None,
        observe: false,
    }
}

fn matcher(patterns: &str) -> Matcher {
    let (matcher, errors) = Matcher::new(&jail(patterns), TimeZone::UTC);
    assert_eq!(errors, []);
    matcher
}

fn feed(matcher: &mut Matcher, line: &str) -> Option<Finding> {
    let mut out = Vec::new();
    matcher.line(line, None, NOW, true, &mut out);
    assert!(out.len() <= 1);
    out.pop()
}

/// What each line of `lines` gives: `-`, or who failed and the number of lines, fields as asked.
#[track_caller]
fn check(patterns: &str, lines: &[&str], expect: &[&str]) {
    let mut matcher = matcher(patterns);
    let found: Vec<String> = lines
        .iter()
        .map(|line| match feed(&mut matcher, line) {
            None => "-".to_owned(),
            Some(finding) => {
                let mut text = format!("{} ({})", finding.who, finding.lines.len());
                for name in ["user", "users"] {
                    for (_, user) in finding.fields.iter().filter(|(known, _)| **known == *name) {
                        text.push_str(&format!(" {name}={user}"));
                    }
                }
                text
            }
        })
        .collect();
    assert_eq!(found, expect, "{lines:#?}");
}

#[test]
fn the_date_is_cut_out_before_patterns_look() {
    check("^ host x <HOST>$", &["Nov 21 14:00:00 host x 192.0.2.1"], &["192.0.2.1 (1)"]);
    check(r"^\[\] x <HOST>$", &["[2026-11-21 14:00:00] x 192.0.2.1"], &["192.0.2.1 (1)"]);
    check(r"x <HOST>\s$", &["Nov 21 14:00:00 host x 192.0.2.1"], &["192.0.2.1 (1)"]);
}

#[test]
fn the_first_failregex_that_matches_decides() {
    check(
        "fail for (?P<user>a) from <HOST>\nfail for (?P<user>[ab]) from <HOST>",
        &["fail for a from 192.0.2.1", "fail for b from 192.0.2.2"],
        &["192.0.2.1 (1) user=a", "192.0.2.2 (1) user=b"],
    );
}

#[test]
fn a_prefix_hands_on_its_content() {
    let patterns = r"
        prefix: ^app\[<F-USER>\d+</F-USER>\]: <F-CONTENT>.+</F-CONTENT>$
        ^fail <HOST>$
        ^bad (?:user (?P<user>\w+) )?<HOST>$";
    check(
        patterns,
        &[
            "app[7]: fail 192.0.2.1",
            "app: fail 192.0.2.1",
            "app[7]: bad user eve 192.0.2.1",
            "app[7]: bad 192.0.2.1",
        ],
        &["192.0.2.1 (1) user=7", "-", "192.0.2.1 (1) user=eve", "192.0.2.1 (1) user=7"],
    );
}

#[test]
fn ignoreregex_sees_the_content_unless_there_are_many_failregexes() {
    let few = r"
        prefix: ^app: <F-CONTENT>.+</F-CONTENT>$
        ^fail <HOST>$
        ignore: ^app: fail 192\.0\.2\.1$";
    check(few, &["app: fail 192.0.2.1"], &["192.0.2.1 (1)"]);
    let many = format!("{few}\na <HOST>\nb <HOST>\nc <HOST>");
    check(&many, &["app: fail 192.0.2.1", "app: fail 192.0.2.2"], &["-", "192.0.2.2 (1)"]);
    let content = few.replace("^app: fail 192", "^fail 192");
    check(&content, &["app: fail 192.0.2.1", "app: fail 192.0.2.2"], &["-", "192.0.2.2 (1)"]);
}

#[test]
fn an_ignored_line_is_not_tried_further() {
    let mut matcher = matcher("x <HOST>\ny <HOST>\nignore: x");
    assert_eq!(feed(&mut matcher, "x 192.0.2.1 y 192.0.2.2"), None);
    assert_eq!(matcher.counts().ignored, 1);
    assert_eq!(matcher.counts().matched, 0);
}

#[test]
fn who_failed_may_be_written_in_many_ways() {
    check(
        "^from <HOST> x$",
        &[
            "from 192.0.2.1 x",
            "from ::ffff:192.0.2.1 x",
            "from [192.0.2.1] x",
            "from 2001:DB8::1 x",
            "from [2001:db8::1] x",
            "from fe80::1%eth0 x",
            "from attacker.example x",
            "from  x",
        ],
        &[
            "192.0.2.1 (1)",
            "192.0.2.1 (1)",
            "192.0.2.1 (1)",
            "2001:db8::1 (1)",
            "2001:db8::1 (1)",
            "fe80::1 (1)",
            "attacker.example (1)",
            "-",
        ],
    );
    check(
        "dns: no\n^from <HOST> x$",
        &["from attacker.example x", "from 192.0.2.1 x"],
        &["-", "192.0.2.1 (1)"],
    );
    check(
        "^from <SUBNET> x$",
        &["from 192.0.2.1/24 x", "from 192.0.2.1 x"],
        &["192.0.2.0/24 (1)", "192.0.2.1 (1)"],
    );
    check("^user <F-ID>.+</F-ID> from <HOST>$", &["user bob from 192.0.2.1"], &["bob (1)"]);
}

#[test]
fn a_text_that_is_no_address_makes_no_finding() {
    let mut matcher = matcher("dns: no\n^from <HOST> x$");
    for line in ["from 999.1.1.1 x", "from 12:34:56 x", "from 1::2::3 x"] {
        assert_eq!(feed(&mut matcher, line), None, "{line}");
    }
    assert_eq!(matcher.counts().not_an_address, 3);
}

/// A filter in the manner of sshd's, with the words of a server that does not exist.
const SESSIONS: &str = r"
    prefix: ^<F-MLFID> host srv\[\d+\]: </F-MLFID><F-CONTENT>.+</F-CONTENT>$
    ^<F-NOFAIL>Open</F-NOFAIL> from <HOST>$
    ^<F-NOFAIL>Key</F-NOFAIL> of <F-USER>\w+</F-USER> from <HOST>$
    ^Password of <F-USER>\w+</F-USER> from <HOST>$
    ^Locked <F-USER>\w+</F-USER>$
    ^Wrong user <F-USER>\w+</F-USER> from <HOST>$
    ^<F-NOFAIL><F-MLFFORGET>Closed</F-MLFFORGET></F-NOFAIL> by <HOST>$
    ^<F-MLFFORGET>Broken</F-MLFFORGET>$
    ^<F-ONCE>Too many</F-ONCE> from <HOST>$
    ^<F-MLFFORGET><F-MLFGAINED>Accepted</F-MLFGAINED></F-MLFFORGET> <F-USER>\w+</F-USER> from <HOST>$";

/// One session's lines and what each gives.
#[track_caller]
fn session(lines: &[(&str, &str)]) {
    let texts: Vec<String> =
        lines.iter().map(|(text, _)| format!("Nov 21 14:00:00 host srv[7]: {text}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expect: Vec<&str> = lines.iter().map(|(_, expect)| *expect).collect();
    check(SESSIONS, &texts, &expect);
}

#[test]
fn lines_of_a_session_are_taken_together() {
    // The address was in an earlier line.
    session(&[
        ("Open from 192.0.2.1", "-"),
        ("Locked bob", "192.0.2.1 (2) user=bob users=bob"),
        ("Closed by 192.0.2.1", "-"),
    ]);
    // The address comes later: the failure waits for it.
    session(&[("Locked bob", "-"), ("Closed by 192.0.2.1", "192.0.2.1 (2) user=bob users=bob")]);
    // Success drops what is no failure by itself.
    session(&[("Key of bob from 192.0.2.1", "-"), ("Accepted bob from 192.0.2.1", "-")]);
    session(&[
        ("Password of bob from 192.0.2.1", "192.0.2.1 (1) user=bob users=bob"),
        ("Password of bob from 192.0.2.1", "192.0.2.1 (1) user=bob users=bob"),
        ("Accepted bob from 192.0.2.1", "-"),
    ]);
    // Two users: trying names is a failure.
    session(&[
        ("Key of a from 192.0.2.1", "-"),
        ("Key of b from 192.0.2.1", "192.0.2.1 (2) user=b users=a users=b"),
        ("Closed by 192.0.2.1", "192.0.2.1 (1) user=b users=a users=b"),
    ]);
    // Success among several users tried is one more line of the failure.
    session(&[
        ("Key of a from 192.0.2.1", "-"),
        ("Accepted b from 192.0.2.1", "192.0.2.1 (2) user=b users=a users=b"),
    ]);
    // What was no failure goes along with the one that follows.
    session(&[
        ("Key of a from 192.0.2.1", "-"),
        ("Key of a from 192.0.2.1", "-"),
        ("Broken", "192.0.2.1 (3) user=a users=a"),
    ]);
    // Each failure counts.
    session(&[
        ("Wrong user bob from 192.0.2.1", "192.0.2.1 (1) user=bob users=bob"),
        ("Password of bob from 192.0.2.1", "192.0.2.1 (1) user=bob users=bob"),
        ("Closed by 192.0.2.1", "-"),
    ]);
    // After the end of a session the next begins with nothing.
    session(&[("Open from 192.0.2.1", "-"), ("Closed by 192.0.2.1", "-"), ("Locked bob", "-")]);
    session(&[("Broken", "-"), ("Open from 192.0.2.1", "-")]);
}

#[test]
fn a_login_told_of_in_several_lines_counts_once() {
    session(&[
        ("Too many from 192.0.2.1", "192.0.2.1 (1)"),
        ("Too many from 192.0.2.1", "-"),
        ("Password of a from 192.0.2.1", "192.0.2.1 (2) user=a users=a"),
        ("Too many from 192.0.2.1", "-"),
    ]);
    session(&[
        ("Key of a from 192.0.2.1", "-"),
        ("Too many from 192.0.2.1", "192.0.2.1 (2) user=a users=a"),
    ]);
}

#[test]
fn one_client_is_not_blamed_for_another_of_the_same_process() {
    session(&[
        ("Wrong user a from 192.0.2.1", "192.0.2.1 (1) user=a users=a"),
        ("Too many from 2001:db8::1", "-"),
        ("Password of a from 2001:db8::1", "2001:db8::1 (2) user=a users=a"),
        ("Password of a from 192.0.2.2", "192.0.2.2 (1) user=a users=a"),
        ("Password of a from [2001:db8::2]", "2001:db8::2 (1) user=a users=a"),
    ]);
}

#[test]
fn what_only_looks_like_an_address_takes_its_own_place_alone() {
    check(
        "^<F-MLFID>s\\d</F-MLFID> bad <ADDR>$\n^<F-MLFID>s\\d</F-MLFID> bye .* port <ADDR>$",
        &["s1 bad 192.0.2.1", "s1 bye x port 40:22", "s2 bye x port 40:22", "s1 bad 192.0.2.999"],
        &["192.0.2.1 (1)", "192.0.2.1 (1)", "-", "-"],
    );
    check(
        "^<F-MLFID>s\\d</F-MLFID> bad <ADDR>$\n^<F-MLFID>s\\d</F-MLFID> bye .* port <ADDR>$",
        &["s1 bad ::1", "s1 bye x port :4022"],
        &["::1 (1)", "-"],
    );
}

#[test]
fn sessions_are_kept_apart_and_end_after_five_minutes() {
    let mut matcher = matcher(SESSIONS);
    let mut out = Vec::new();
    let mut line = |text: &str, seconds: i64| {
        matcher.line(text, None, NOW.plus(Duration::from_secs(seconds as u64)), true, &mut out);
        out.pop().map(|finding| finding.who.to_string())
    };
    assert_eq!(line("Nov 21 14:00:00 host srv[1]: Open from 192.0.2.1", 0), None);
    assert_eq!(line("Nov 21 14:00:00 host srv[2]: Locked bob", 0), None);
    assert_eq!(line("Nov 21 14:04:00 host srv[1]: Locked bob", 240).as_deref(), Some("192.0.2.1"));
    assert_eq!(line("Nov 21 14:05:00 host srv[1]: Locked bob", 300), None);
}

#[test]
fn a_flood_of_sessions_pushes_out_the_oldest() {
    let mut matcher = matcher(SESSIONS);
    for pid in 0..=MAX_SESSIONS * 3 {
        feed(&mut matcher, &format!("Nov 21 14:00:00 host srv[{pid}]: Open from 192.0.2.1"));
    }
    let last = MAX_SESSIONS * 3;
    assert!(feed(&mut matcher, &format!("Nov 21 14:00:00 host srv[{last}]: Locked bob")).is_some());
    assert!(feed(&mut matcher, "Nov 21 14:00:00 host srv[0]: Locked bob").is_none());
}

#[test]
fn without_a_session_nofail_means_nothing() {
    check("^<F-NOFAIL>x</F-NOFAIL> <HOST>$", &["x 192.0.2.1"], &["192.0.2.1 (1)"]);
}

#[test]
fn joined_lines_are_searched_together() {
    let patterns = r"
        lines: 4
        ^begin (\d+)$<SKIPLINES>^end \1 <HOST>$";
    check(
        patterns,
        &["begin 1", "begin 2", "other", "end 1 192.0.2.1", "end 2 192.0.2.2", "end 2 192.0.2.3"],
        &["-", "-", "-", "192.0.2.1 (2)", "192.0.2.2 (2)", "-"],
    );
}

#[test]
fn evidence_is_the_line_as_read_within_bounds() {
    let mut matcher = matcher("^ x <HOST>");
    let line = format!("Nov 21 14:00:00 x 192.0.2.1 {}", "é".repeat(100_000));
    let finding = feed(&mut matcher, &line).expect("found");
    assert_eq!(finding.lines.len(), 1);
    assert!(finding.lines[0].starts_with("Nov 21 14:00:00 x 192.0.2.1 é"));
    assert!((MAX_EVIDENCE - 1..=MAX_EVIDENCE).contains(&finding.lines[0].len()));
    assert_eq!(finding.who, FailureId::Address("192.0.2.1".parse().expect("an address")));
}

#[test]
fn a_failure_happened_when_the_line_says() {
    let at = |line: &str, given: Option<i64>, caught_up: bool| {
        let mut out = Vec::new();
        let mut matcher = matcher("x <HOST>");
        let given = given.map(|ago| Timestamp::from_seconds(NOW.seconds() - ago));
        matcher.line(line, given, NOW, caught_up, &mut out);
        out.pop().map(|finding| finding.at.seconds() - NOW.seconds())
    };
    assert_eq!(at("Nov 21 13:59:50 x 192.0.2.1", None, true), Some(-10));
    assert_eq!(at("Nov 21 13:55:00 x 192.0.2.1", None, true), Some(0));
    assert_eq!(at("Nov 21 13:55:00 x 192.0.2.1", None, false), Some(-300));
    assert_eq!(at("Nov 21 13:45:00 x 192.0.2.1", None, false), None);
    assert_eq!(at("x 192.0.2.1", None, true), Some(0));
    assert_eq!(at("x 192.0.2.1", None, false), None);
    assert_eq!(at("x 192.0.2.1", Some(5), true), Some(-5));
    // The journal's own time counts, not what the text says.
    assert_eq!(at("Nov 21 13:59:50 x 192.0.2.1", Some(300), false), Some(-300));
}

#[test]
fn lines_that_do_not_count_are_counted() {
    let mut matcher = matcher("x <HOST>");
    let mut out = Vec::new();
    matcher.line("x 192.0.2.1", None, NOW, false, &mut out);
    matcher.line("Nov 21 13:45:00 x 192.0.2.1", None, NOW, false, &mut out);
    matcher.line("Nov 21 13:55:00 y", None, NOW, false, &mut out);
    matcher.line("Nov 21 13:55:00 x 192.0.2.1", None, NOW, false, &mut out);
    let counts = matcher.counts();
    assert_eq!(out.len(), 1);
    assert_eq!((counts.lines, counts.matched, counts.undated, counts.too_old), (4, 2, 1, 1));
}

#[test]
fn one_bad_pattern_does_not_disarm_the_others() {
    let mut settings = jail("a <HOST>\nb (<HOST>\nc\nignore: [\ndate: %Q\nzone: Nowhere");
    let place = Place { file: std::sync::Arc::new("filter.d/x.conf".into()), line: 7 };
    settings.filter.failregex[1].place = Some(place.clone());
    let (mut matcher, errors) = Matcher::new(&settings, TimeZone::UTC);
    assert!(matcher.is_armed());
    assert!(feed(&mut matcher, "a 192.0.2.1").is_some());
    assert_eq!(errors[0].place(), Some(&place));
    let told: Vec<String> =
        errors.iter().map(|error| error.problem(&settings.name).to_string()).collect();
    assert_eq!(
        told,
        [
            "filter.d/x.conf:7: jail `test`: failregex 2 has a group that is not closed, at character 3 of the expanded pattern, near `b ((?:\\[?(?:(`; the others are used; complete it, or write a backslash before the character if it is meant as such",
            "jail `test`: failregex 3 names nobody and is left out; add `<HOST>`, `<ADDR>`, `<F-ID>…</F-ID>` or `<F-MLFID>…</F-MLFID>`",
            "jail `test`: ignoreregex 1 has a `[` that is not closed, at character 1 of the expanded pattern, near `[`, so what it should spare is counted; complete it, or write a backslash before the character if it is meant as such",
            "jail `test`: datepattern 1 has `%Q`, which means nothing in a date pattern; it is left out; write `%%` for a percent sign",
            "jail `test`: `logtimezone = Nowhere` names no time zone, so lines without a zone are read in this machine's; write `UTC`, an abbreviation such as `CET`, or an offset such as `UTC+0200`",
        ]
    );
}

#[test]
fn a_filter_that_can_find_nothing_is_not_armed() {
    let (mut matcher, errors) = Matcher::new(&jail("a (<HOST>"), TimeZone::UTC);
    assert_eq!(errors.len(), 1);
    assert!(!matcher.is_armed());
    assert_eq!(feed(&mut matcher, "a 192.0.2.1"), None);
    // Without its prefix a failregex would match what was never meant.
    let (mut matcher, errors) = Matcher::new(&jail("prefix: ^(\n<HOST>"), TimeZone::UTC);
    assert_eq!(errors.len(), 1);
    assert!(!matcher.is_armed());
    assert_eq!(feed(&mut matcher, "a 192.0.2.1"), None);
    assert_eq!(matcher.inspect("a 192.0.2.1", None, NOW, true).hits, []);
}

#[test]
fn a_prefix_may_name_whom_it_is_about() {
    check(
        "prefix: ^<HOST>: <F-CONTENT>.*</F-CONTENT>$\n^fail$",
        &["192.0.2.1: fail"],
        &["192.0.2.1 (1)"],
    );
}

#[test]
fn a_hostile_line_is_given_up_and_counted() {
    let mut matcher = matcher(r"^(?:a|aa)+(?!c)c <HOST>$");
    let start = std::time::Instant::now();
    assert_eq!(feed(&mut matcher, &format!("{}c 192.0.2.1", "a".repeat(8_000))), None);
    assert_eq!(matcher.counts().gave_up, 1);
    let stopped: Vec<_> = matcher.patterns().filter(|pattern| pattern.gave_up() > 0).collect();
    let [PatternState { name, linear: false, .. }] = stopped[..] else { panic!("{stopped:?}") };
    assert_eq!(name.to_string(), "failregex 1");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn a_matcher_can_move_to_its_readers_thread() {
    fn movable<T: Send>(_: &T) {}
    movable(&matcher("<HOST>"));
}

#[test]
fn a_field_is_filled_by_other_names_of_its_own_pattern() {
    let patterns = r"
        prefix: ^<F-USER>\w+</F-USER>: <F-CONTENT>.*</F-CONTENT>$
        ^(?:as <F-ALT_USER>\w+</F-ALT_USER> )?fail <HOST>$";
    let lines = ["bob: fail 192.0.2.1", "bob: as eve fail 192.0.2.1"];
    check(patterns, &lines, &["192.0.2.1 (1) user=bob", "192.0.2.1 (1) user=eve"]);
}

#[test]
fn a_date_that_does_not_exist_stays_while_the_last_one_serves() {
    let (never, line) = ("^ fail <HOST>$", "2026-02-30 14:00:00 fail 192.0.2.1");
    check(never, &[line], &["192.0.2.1 (1)"]);
    check(never, &["2026-11-21 13:59:30 ok", line], &["-", "-"]);
    check(r"^\S+ \S+ fail <HOST>$", &["2026-11-21 13:59:30 ok", line], &["-", "192.0.2.1 (1)"]);
}

#[test]
fn a_log_without_dates_is_read_as_of_now() {
    let mut matcher = matcher("date: {NONE}\nfail <HOST>$");
    let mut out = Vec::new();
    matcher.line("2001-01-01 00:00:00 fail 192.0.2.1", None, NOW, false, &mut out);
    assert_eq!(out.first().map(|finding| finding.at), Some(NOW));
    assert_eq!(matcher.counts().undated, 0);
}

#[test]
fn any_line_is_taken_without_a_panic() {
    let patterns =
        format!("{SESSIONS}\nlines: 3\nfail (?!x)<HOST>\nignore: y\n<SKIPLINES>end <HOST>");
    let matcher = std::cell::RefCell::new(matcher(&patterns));
    let lines = prop_oneof![
        "\\PC{0,80}",
        "Nov 21 1[0-9]:00:00 host srv\\[[0-9]\\]: (Open|Locked|Closed|Key of) (by|from)? ?\\PC{0,20}",
        "(fail|end|\n) [0-9a-f:.%\\[\\]/]{0,40}",
    ];
    let config = ProptestConfig::with_cases(1000);
    let outcome = proptest::test_runner::TestRunner::new(config).run(&lines, |line| {
        feed(&mut matcher.borrow_mut(), &line);
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
}
