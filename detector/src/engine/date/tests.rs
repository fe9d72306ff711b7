//! The clock stands at 2005-08-14 12:00:00 in a zone with the rules of Central Europe.
use std::cell::RefCell;

use jiff::tz::TimeZone;
use proptest::{prelude::*, test_runner::TestRunner};

use super::{template::Template, *};

const NOW: Timestamp = Timestamp::from_seconds(1_124_013_600);

fn zone() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a POSIX zone")
}

fn detector(entries: &[&str]) -> Detector {
    let (detector, faults) = Detector::new(entries, zone());
    assert_eq!(faults, []);
    detector
}

/// The date's local time as text, and the line without the date.
fn read(detector: &mut Detector, line: &str) -> (String, String) {
    match detector.find(line, NOW) {
        None => ("none".to_owned(), line.to_owned()),
        Some(Dated { cut, at, .. }) => {
            let when = at.map_or("undated".to_owned(), |at| {
                let at = jiff::Timestamp::from_microsecond(at.micros()).expect("in range");
                zone().to_datetime(at).to_string().replace('T', " ")
            });
            (when, format!("{}{}", &line[..cut.start], &line[cut.end..]))
        }
    }
}

#[track_caller]
fn check(entries: &[&str], line: &str, when: &str, rest: &str) {
    let (found, left) = read(&mut detector(entries), line);
    assert_eq!((found.as_str(), left.as_str()), (when, rest), "{entries:?} on {line:?}");
}

#[test]
fn the_default_templates_read_what_logs_write() {
    let cases = [
        // Bound to the beginning, up to two marks before.
        ("2005-01-23 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("2005/01/23 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("2005.01.23 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("2005-01/23 21:59:59 x", "none", "2005-01/23 21:59:59 x"),
        ("2005-01-23T21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("2005-01-23T21:59:59.012 x", "2005-01-23 21:59:59", " x"),
        ("2005-01-23T20:59:59.252Z x", "2005-01-23 21:59:59", " x"),
        ("2005-01-23T15:59:59-05:00 x", "2005-01-23 21:59:59", " x"),
        ("2005-01-23 21:59:59,099 x", "2005-01-23 21:59:59", " x"),
        ("2005-01-23 15:59:59 -0500: x", "2005-01-23 21:59:59", ": x"),
        ("2005-01-23 20:59:59 UTC x", "2005-01-23 21:59:59", " x"),
        ("2005-01-23 21:59:59 Zebra", "2005-01-23 21:59:59", " Zebra"),
        ("[2005-01-23 21:59:59] x", "2005-01-23 21:59:59", "[] x"),
        ("<[2005-01-23 21:59:59]> x", "2005-01-23 21:59:59", "<[]> x"),
        ("Jan 23 21:59:59 host x", "2005-01-23 21:59:59", " host x"),
        ("jan 23 21:59:59 host x", "2005-01-23 21:59:59", " host x"),
        ("Jan  3 21:59:59 host x", "2005-01-03 21:59:59", " host x"),
        ("Jan 23 21:59:59.011 host", "2005-01-23 21:59:59", " host"),
        ("Sun Jan 23 21:59:59 2005 x", "2005-01-23 21:59:59", " x"),
        ("Sun Jan 23 2005 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("23/01/2005 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("23/01/05 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("05/06/2005 17:23:25 x", "2005-06-05 17:23:25", " x"),
        ("23/Jan/2005:21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("23/Jan/2005:21:59:59 +0100 x", "2005-01-23 21:59:59", " x"),
        ("23-Jan-2005 21:59:59.02 x", "2005-01-23 21:59:59", " x"),
        ("01/23/2005:21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("01-23-2005 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("21:59:59 x", "2005-08-13 21:59:59", " x"),
        ("11:59:59 x", "2005-08-14 11:59:59", " x"),
        ("<01/23/05@21:59:59> x", "2005-01-23 21:59:59", " x"),
        ("050123 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("050123  1:59:59 x", "2005-01-23 01:59:59", " x"),
        ("Jan 23, 2005 9:59:59 PM x", "2005-01-23 21:59:59", " x"),
        ("Jan 23, 2005 12:59:59 am x", "2005-01-23 00:59:59", " x"),
        ("Jan-23-05 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("20050123T215959 x", "2005-01-23 21:59:59", " x"),
        ("20050123  215959 x", "2005-01-23 21:59:59", " x"),
        ("20050123-21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("UTC Sun Jan 23 20:59:59 2005 x", "2005-01-23 21:59:59", " x"),
        ("+0100 Jan 23 21:59:59 x", "2005-01-23 21:59:59", " x"),
        ("1106513999 x", "2005-01-23 21:59:59", " x"),
        ("[1106513999.50] x", "2005-01-23 21:59:59", "[.50] x"),
        ("1106513999.500 x", "2005-01-23 21:59:59.5", " x"),
        ("[1106513999] x", "2005-01-23 21:59:59", "[] x"),
        ("type=A msg=audit(1106513999.000:7): x", "2005-01-23 21:59:59", "type=A msg=audit(:7): x"),
        ("@4000000041f4104f00000000 x", "2005-01-23 21:59:59", " x"),
        // Elsewhere in the line.
        ("x [23/Jan/2005:21:59:59 +0100] y", "2005-01-23 21:59:59", "x [] y"),
        ("host: 2005-01-23 21:59:59 y", "2005-01-23 21:59:59", "host:  y"),
        // No dates.
        ("no date at all", "none", "no date at all"),
        ("2099-01-23 21:59:59 x", "none", "2099-01-23 21:59:59 x"),
        ("1234567 x", "none", "1234567 x"),
        ("", "none", ""),
    ];
    for (line, when, rest) in cases {
        check(&[], line, when, rest);
    }
}

#[test]
fn a_missing_year_is_the_last_that_does_not_lie_ahead() {
    check(&[], "Aug 14 11:59:59 x", "2005-08-14 11:59:59", " x");
    check(&[], "Aug 15 11:59:59 x", "2005-08-15 11:59:59", " x"); // within a day
    check(&[], "Aug 15 12:00:01 x", "2004-08-15 12:00:01", " x");
    check(&[], "Dec 31 23:59:59 x", "2004-12-31 23:59:59", " x");
}

#[test]
fn a_date_that_does_not_exist_is_cut_out_all_the_same() {
    check(&[], "Feb 29 11:00:00 x", "undated", " x");
    check(&[], "2005-02-30 11:00:00 x", "undated", " x");
}

#[test]
fn hours_around_a_change_of_the_clock_are_read() {
    // 02:30 did not exist on the day the clock went forward; on the day it went back the first counts.
    check(&[], "2005-03-27 02:30:00 x", "2005-03-27 03:30:00", " x");
    check(&[], "2005-10-30 02:30:00 x", "2005-10-30 02:30:00", " x");
    let mut dates = detector(&[]);
    let at = |dated: Option<Dated>| dated.and_then(|dated| dated.at).map(Timestamp::seconds);
    assert_eq!(at(dates.find("2005-10-30 02:30:00 x", NOW)), Some(1_130_632_200));
    assert_eq!(at(dates.find("2005-10-30 03:30:00 x", NOW)), Some(1_130_639_400));
}

#[test]
fn a_zone_beside_the_date_wins_over_logtimezone() {
    let mut dates = detector(&[]);
    assert!(dates.set_zone("UTC+0200"));
    let mut seconds = |line: &str| dates.find(line, NOW).and_then(|d| d.at).map(Timestamp::seconds);
    assert_eq!(seconds("2005-01-23 21:59:59 x"), Some(1_106_510_399));
    assert_eq!(seconds("2005-01-23 21:59:59Z x"), Some(1_106_517_599));
    assert!(!dates.set_zone("Europe/Nowhere"));
}

#[test]
fn datepattern_has_forms_of_its_own() {
    check(&[r"^L %d/%m/%Y"], "L 23/01/2005 x", "2005-01-23 00:00:00", " x");
    check(
        &[r"^[^\[]*\[({DATE})"],
        "a [23/Jan/2005:21:59:59 +0100] x",
        "2005-01-23 21:59:59",
        "a [] x",
    );
    check(
        &[r#"^<co ts="{DATE}"\s+"#],
        r#"<co ts="2005-01-23 21:59:59"  x"#,
        "2005-01-23 21:59:59",
        "x",
    );
    check(&["{^LN-BEG}"], "[2005-01-23 21:59:59] x", "2005-01-23 21:59:59", "[] x");
    check(&["{^LN-BEG}"], "x 2005-01-23 21:59:59", "none", "x 2005-01-23 21:59:59");
    check(&["{^LN-BEG}"], "21:59:59 x", "2005-08-13 21:59:59", " x");
    check(&["{^LN-BEG}%Y%m%d %H%M%S"], "[20050123 215959] x", "2005-01-23 21:59:59", "[] x");
    check(&["{NONE}"], "2005-01-23 21:59:59 x", "undated", "2005-01-23 21:59:59 x");
    check(&["^WARNING:()**", "{^LN-BEG}"], "WARNING: x", "undated", "WARNING: x");
    check(&["^WARNING:()**", "{^LN-BEG}"], "2005-01-23 21:59:59 x", "2005-01-23 21:59:59", " x");
    check(&["EPOCH"], "1106513999 x", "2005-01-23 21:59:59", " x");
    check(&["^EPOCH"], "[1106513999] x", "2005-01-23 21:59:59", "[] x");
    check(&["{^LN-BEG}LEPOCH"], "1106513999500 x", "2005-01-23 21:59:59.5", " x");
    check(&["LEPOCH"], "1106513999500001 y", "2005-01-23 21:59:59.500001", " y");
    check(&[r#"time="{EPOCH}""#], r#"x time="1106513999" y"#, "2005-01-23 21:59:59", "x  y");
    check(
        &[r#"time="({EPOCH})""#],
        r#"x time="1106513999" y"#,
        "2005-01-23 21:59:59",
        r#"x time="" y"#,
    );
    check(&["tai64n"], "x @4000000041f4104f00000000 y", "2005-01-23 21:59:59", "x  y");
    check(&["%Y-%j"], "2005-023 x", "2005-01-23 00:00:00", " x");
    check(&["%Y week %W %a"], "2005 week 03 Sun x", "2005-01-23 00:00:00", " x");
    check(&["%Y week %U %a"], "2005 week 04 Sun x", "2005-01-23 00:00:00", " x");
    check(&["%G-W%V-%u"], "2005-W03-7 x", "2005-01-23 00:00:00", " x");
    check(&["%Y-%m-%d %H:%M:%S %ExZ"], "2005-01-23 20:59:59 WET x", "2005-01-23 21:59:59", " x");
    check(&["%d%%%m%%%Y"], "23%01%2005 x", "2005-01-23 00:00:00", " x");
    check(&["{UNB}%Y%m%d"], "x20050123x", "2005-01-23 00:00:00", "xx");
    check(&["%Y%m%d"], "x20050123x", "none", "x20050123x");
    check(&["**%Y%m%d**"], "x20050123x", "2005-01-23 00:00:00", "xx");
    check(&[r"\$%Y\$"], "a $2004$ x", "2004-08-14 00:00:00", "a  x");
    check(&["%j"], "300 x", "2004-10-27 00:00:00", " x");
    check(&["(?i)day %Y-%m-%d"], "Day 2005-01-23 x", "2005-01-23 00:00:00", " x");
    check(&["%Y-%m-%d$"], "2005-01-23 2005-01-24", "2005-01-24 00:00:00", "2005-01-23 ");
    check(&["ISO8601"], "2005-01-23 21:59:59 x", "none", "2005-01-23 21:59:59 x");
}

#[test]
fn an_entry_that_cannot_be_used_leaves_the_others() {
    let (mut dates, faults) = Detector::new(&["%Q", "(%Y", "%Y-%m-%d", "%Y-%m-%d"], zone());
    let faults: Vec<_> = faults.into_iter().map(|(nth, fault)| (nth, fault.to_string())).collect();
    assert_eq!(
        faults,
        [
            (0, "has `%Q`, which means nothing in a date pattern".to_owned()),
            (1, "has a group that is not closed, at character 1 of the expanded pattern, near `((?P<Y>[0-9`".to_owned()),
            (3, "stands there twice".to_owned()),
        ]
    );
    assert_eq!(read(&mut dates, "2005-01-23 x").0, "2005-01-23 00:00:00");
}

#[test]
fn what_a_date_means_is_learned() {
    let mut dates = detector(&[]);
    assert_eq!(read(&mut dates, "x 07-08-2005 21:59:59 y").0, "2005-08-07 21:59:59");
    let mut dates = detector(&[]);
    assert_eq!(read(&mut dates, "x 07-17-2005 21:59:59 y").0, "2005-07-17 21:59:59");
    assert_eq!(read(&mut dates, "x 07-08-2005 21:59:59 y").0, "2005-07-08 21:59:59");
}

#[test]
fn places_are_counted_in_characters() {
    let mut dates = detector(&[]);
    assert_eq!(read(&mut dates, "é Sun Aug 14 11:42:51 2005 x").0, "2005-08-14 11:42:51");
    // In the same place, whatever stands before it.
    assert_eq!(
        read(&mut dates, "Z Sun Aug 14 11:42:51 2005 x"),
        ("2005-08-14 11:42:51".to_owned(), "Z  x".to_owned())
    );
}

#[test]
fn peeking_teaches_nothing() {
    let mut dates = detector(&[]);
    assert!(dates.peek("x 07-17-2005 21:59:59 y", NOW).is_some());
    assert_eq!(read(&mut dates, "x 07-08-2005 21:59:59 y").0, "2005-08-07 21:59:59");
}

#[test]
fn a_template_in_use_moves_to_the_front() {
    let mut dates = detector(&[]);
    for _ in 0..3 {
        read(&mut dates, "x [23/Jan/2005:21:59:59 +0100] y");
        read(&mut dates, "1106513999 x");
    }
    let names: Vec<_> =
        dates.templates.iter().take(2).map(|template| template.name.as_str()).collect();
    assert!(names.contains(&"{^LN-BEG}EPOCH"), "{names:?}");
}

#[track_caller]
fn agree(template: &Template, line: &str) {
    if let Some(found) = hot::find(template.hot().expect("has a reader by hand"), line) {
        assert_eq!(Some(found), template.find_from(line, 0), "{line:?}");
    }
}

/// Lines that begin like a date of the common forms, whole or a little off.
fn nearly_a_date() -> impl Strategy<Value = String> {
    let digits = "[0-3 ]?[0-9]{1,2}";
    let clock = format!("{digits}:{digits}:{digits}");
    let behind = "([ .,:\\]ZUG+\\-_a0é]|[.,][0-9]{0,8}|[ ]?[+-][0-2][0-9]:?[0-9]{0,2}|[ ](20)?[0-9]{2,4}|[ ]?UTC|[ ]?Z){0,3}( x)?";
    let forms = [
        format!("(Jan|feb|Mar|Dec|Abc|é) {digits} {clock}{behind}"),
        format!("20[0-3][0-9][-/.]{digits}[-/.]{digits}[T ]{clock}{behind}"),
        format!("20[0-2][0-9]-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9]{behind}"),
        format!("(Jan|feb|Mar|Dec) [ 1-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]{behind}"),
    ];
    proptest::sample::select(forms.to_vec())
        .prop_flat_map(|form| proptest::string::string_regex(&form).expect("a pattern"))
}

#[test]
fn dates_read_by_hand_are_those_of_the_pattern() {
    let templates = list::defaults(2005);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(2_000));
    let outcome = runner.run(&nearly_a_date(), |line| {
        agree(&templates[0], &line);
        agree(&templates[1], &line);
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
}

#[test]
fn no_line_panics() {
    let dates = RefCell::new(detector(&["{DEFAULT}", "%Y %j %U %W %V %G %u %a %p %I %Exz"]));
    let lines = prop_oneof!["\\PC{0,60}", "[0-9:/.@\\[ TZ+-]{0,40}", nearly_a_date()];
    let outcome = TestRunner::new(ProptestConfig::with_cases(300)).run(&lines, |line| {
        if let Some(Dated { cut, .. }) = dates.borrow_mut().find(&line, NOW) {
            prop_assert!(line.get(cut).is_some());
        }
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_datepattern_panics(
        entry in "(\\^|\\{\\^LN-BEG\\}|\\{UNB\\}|\\*\\*)?([ (){}*$\\\\é]|%Y|%d|%Ex|%b|\\{DATE\\}|\\{EPOCH\\}|EPOCH|LEPOCH|\\(\\)){0,4}",
        line in "[0-9 é/-]{0,20}",
    ) {
        let (mut dates, _) = Detector::new(&[&entry], zone());
        if let Some(Dated { cut, .. }) = dates.find(&line, NOW) {
            prop_assert!(line.get(cut).is_some());
        }
    }
}
