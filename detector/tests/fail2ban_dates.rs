//! Dates beside fail2ban's own date detector: random lines in the manner of logs, many to a detector, so that what it
//! learns from one line shows in the next. Both must cut out the same bytes and read the same time.
use std::time::Duration;

use fail2xdp::{
    config::Located,
    engine::{FailureId, Matcher},
};
use jiff::civil::DateTime;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

mod peer;

use peer::{NOON, zone};

/// Reads `[patterns, lines, zone]`, one a line; answers with `[rest of the line, time read, time counted]` for each line. A line that fail2ban
/// fails to process answers with its error.
const JUDGE: &str = r#"
from fail2ban.server.datedetector import DateDetector
read = [None]
plain = DateDetector.getTime
def spied(self, *args, **kwargs):
    read[0] = plain(self, *args, **kwargs)
    return read[0]
DateDetector.getTime = spied
for request in sys.stdin:
    patterns, lines, zone = json.loads(request)
    judge = Filter(None)
    judge.inOperation, judge.active, judge.returnRawHost = True, True, True
    answers = []
    try:
        if patterns:
            judge.setDatePattern("\n".join(patterns))
        if zone:
            judge.setLogTimeZone(zone)
        judge.addFailRegex("^<F-ID>.*</F-ID>$")
    except Exception as error:
        print(json.dumps(repr(error)))
        continue
    for line in lines:
        read[0] = None
        try:
            found = judge.processLine(line)
            when = read[0] and read[0][0]
            answers.append([str(found[0][1]), when, found[0][2]] if found else None)
        except Exception as error:
            answers.append(repr(error))
    print(json.dumps(answers))
"#;

/// Forms in strftime's letters. What stands in braces is ours: `{ms}` three digits, `{us}` six, `{zone}`, `{tai}`,
/// `{ep}` Unix time, `{H}` the hour without its zero.
const FORMS: [&str; 40] = [
    "%b %e %H:%M:%S",
    "%b %d %H:%M:%S",
    "%b %d %H:%M:%S.{ms}",
    "%b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %Y %H:%M:%S",
    "%b %d %Y %H:%M:%S.{us}",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S,{ms}",
    "%Y-%m-%dT%H:%M:%S.{us}{zone}",
    "%Y-%m-%dT%H:%M:%S{zone}",
    "%Y-%m-%d %H:%M:%S {zone}",
    "%Y/%m/%d %H:%M:%S",
    "%Y.%m.%d %H:%M:%S",
    "%Y/%m-%d %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d-%m-%Y %H:%M:%S",
    "%d/%m/%y %H:%M:%S",
    "%d/%b/%Y:%H:%M:%S {zone}",
    "%d/%b/%Y:%H:%M:%S",
    "%d-%b-%Y %H:%M:%S.{ms}",
    "%m/%d/%Y:%H:%M:%S",
    "%m-%d-%Y %H:%M:%S.{ms}",
    "%m-%d-%Y {H}:%M:%S",
    "{ep}",
    "{ep}.{ms}",
    "audit({ep}.{ms}:{ms}):",
    "%H:%M:%S",
    "<%m/%d/%y@%H:%M:%S>",
    "%y%m%d %H:%M:%S",
    "%y%m%d  {H}:%M:%S",
    "%b %d, %Y %I:%M:%S %p",
    "%b-%d-%y %H:%M:%S",
    "%Y%m%dT%H%M%S",
    "%Y%m%d %H%M%S{zone}",
    "{zone} %b %d %H:%M:%S",
    "{zone} %a %b %d %H:%M:%S %Y",
    "{tai}",
    "no date {ms}",
];
const ZONES: [&str; 18] = [
    "Z", "UTC", "GMT", "+0100", "-05:30", "+02", "CET", "CEST", "EST", "MSK", "+1", "WORD", "é",
    "", "utc", "z", "Word", "cest",
];
const BEFORE: [&str; 14] =
    ["", "", "", "", "[", "<[", "(", " ", "x ", "host: ", "a1 [", "7 ", "é ", "<34>"];
const BEHIND: [&str; 10] =
    [" x", " x", "] x", ": x", " -0500 x", ".5 x", " 2004 x", "Z x", "x", ", 12 x"];

/// Values of `logtimezone`.
const HOMES: [&str; 9] =
    ["UTC", "GMT", "Z", "CET", "UTC+0200", "UTC-03:30", "MSK", "+0530", "EST+01"];

/// Entries of `datepattern`.
const PATTERNS: [&[&str]; 26] = [
    &["{DATE}"],
    &["^<\\d+>{DATE}"],
    &["{^LN-BEG}host: ({DATE})"],
    &["audit\\({EPOCH}"],
    &["{DEFAULT}"],
    &["{^LN-BEG}"],
    &["{NONE}", "{DEFAULT}"],
    &["EPOCH"],
    &["^EPOCH"],
    &["{^LN-BEG}EPOCH"],
    &["LEPOCH"],
    &["{^LN-BEG}LEPOCH"],
    &["TAI64N"],
    &["{UNB}%Y-%m-%d %H:%M:%S"],
    &["%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S"],
    &["^%Y-%m-%d[T ]%H:%M:%S(?:[.,]%f)?%z?"],
    &["{^LN-BEG}%ExY-%Exm-%Exd %ExH:%ExM:%ExS", "%b %d %H:%M:%S"],
    &["^[^\\[]*\\[({DATE})"],
    &["x {DATE}"],
    &["{^LN-BEG}{DATE}"],
    &["%a %b %d %k:%M:%S %Y"],
    &["\\[{EPOCH}\\]"],
    &["%b %d, %Y %I:%M:%S %p"],
    &["**%H:%M:%S**"],
    &["%y%m%d %k:%M:%S", "{^LN-BEG}"],
    &["(?:%Z )?%b %d %H:%M:%S(?: %Y)?"],
];

fn one_of<'a>(rng: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices[rng.random_range(0..choices.len())]
}

fn date(rng: &mut StdRng, form: &str) -> String {
    let at = NOON.seconds() + rng.random_range(-700 * 86_400_i64..=10 * 86_400);
    let at = if rng.random_ratio(1, 4) { NOON.seconds() + (at % 90_000) } else { at };
    let civil: DateTime =
        zone().to_datetime(jiff::Timestamp::from_second(at).expect("a time in range"));
    let form = form
        .replace("{ms}", &format!("{:03}", rng.random_range(0..1000)))
        .replace("{us}", &format!("{:06}", rng.random_range(0..1_000_000)))
        .replace("{zone}", one_of(rng, &ZONES))
        .replace("{tai}", &format!("@4{at:015x}2cd4ec44"))
        .replace("{ep}", &at.to_string())
        .replace("{H}", &civil.hour().to_string());
    civil.strftime(&form).to_string()
}

fn line(rng: &mut StdRng, form: &str, frame: (&str, &str)) -> String {
    let mut line = format!("{}{}{}", frame.0, date(rng, form), frame.1);
    if rng.random_ratio(1, 8) {
        let form = one_of(rng, &FORMS);
        line.push(' ');
        line.push_str(&date(rng, form));
    }
    // A byte added, taken away or changed.
    if rng.random_ratio(1, 6) {
        let at = rng.random_range(0..line.len());
        let new = one_of(rng, &["", "0", "9", " ", ":", "-", "a", "Z", "[", "/", "."]);
        if line.is_char_boundary(at) && line.is_char_boundary(at + 1) {
            line.replace_range(at..at + rng.random_range(0..=1), new);
        }
    }
    line.push_str(" end");
    line
}

/// What one detector is asked: patterns, lines, and the zone of lines that name none.
type Request = (Vec<&'static str>, Vec<String>, Option<&'static str>);

fn request(rng: &mut StdRng) -> Request {
    let patterns = if rng.random_ratio(1, 2) {
        Vec::new()
    } else {
        PATTERNS[rng.random_range(0..PATTERNS.len())].to_vec()
    };
    // Most logs have one form, some two or three.
    let forms: Vec<_> = (0..rng.random_range(1..=3))
        .map(|_| {
            let form = FORMS[rng.random_range(0..FORMS.len())];
            (form, (one_of(rng, &BEFORE), one_of(rng, &BEHIND)))
        })
        .collect();
    let lines = (0..rng.random_range(1..=12)).map(|_| {
        let (form, frame) = forms[rng.random_range(0..forms.len())];
        line(rng, form, frame)
    });
    let lines = lines.collect();
    let home = rng.random_ratio(1, 3).then(|| one_of(rng, &HOMES));
    (patterns, lines, home)
}

fn matcher(patterns: &[&str], home: Option<&str>) -> Option<Matcher> {
    let mut jail = peer::jail("apache-pass", &[]);
    let located = |text: &&str| Located { value: (*text).to_owned(), place: None };
    jail.filter.prefregex = None;
    jail.filter.failregex = vec![located(&"^<F-ID>.*</F-ID>$")];
    jail.filter.date_patterns = patterns.iter().map(located).collect();
    jail.filter.time_zone = home.as_ref().map(located);
    jail.find_time = Duration::from_secs(3_600 * 24 * 366 * 100);
    let (matcher, errors) = Matcher::new(&jail, zone());
    errors.is_empty().then_some(matcher)
}

/// What differs, one line each.
fn compare((patterns, lines, home): &Request, answers: &Value) -> Vec<String> {
    let Some(mut matcher) = matcher(patterns, *home) else {
        return match answers.is_string() {
            true => Vec::new(),
            false => vec![format!("{patterns:?}: refused here")],
        };
    };
    let Some(answers) = answers.as_array() else {
        return vec![format!("{patterns:?}: {answers} there")];
    };
    let mut wrong = Vec::new();
    for (line, answer) in lines.iter().zip(answers) {
        let read = matcher.time_of(line, NOON);
        let mut found = Vec::new();
        matcher.line(line, None, NOON, true, &mut found);
        let rest = found.first().map(|finding| match &finding.who {
            FailureId::Text(text) => text.to_string(),
            other => other.to_string(),
        });
        let read = read.map(|at| at.micros() as f64 / 1e6);
        let counted = found.first().map(|finding| finding.at.micros() as f64 / 1e6);
        let (their_rest, their_read) = (answer[0].as_str(), answer[1].as_f64());
        // A word that fail2ban's table of zones lacks makes it drop the line with an error.
        if answer.is_string() && read.is_none() {
            continue;
        }
        let same = |ours: Option<f64>, theirs: Option<f64>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => (ours - theirs).abs() < 1e-5,
            (None, None) => true,
            _ => false,
        };
        let same_time = same(read, their_read) && same(counted, answer[2].as_f64());
        if rest.as_deref() != their_rest || !same_time {
            let at = lines.iter().position(|known| known == line).unwrap_or(0);
            wrong.push(format!(
                "{patterns:?} {home:?}\n    {}\n  ours   {rest:?} {read:?} {counted:?}\n  theirs {answer}",
                lines[..=at].join("\n    ")
            ));
            // What follows differs because this did.
            break;
        }
    }
    wrong
}

#[test]
fn dates_are_found_and_read_as_fail2ban_does() {
    let seed = std::env::var("FAIL2XDP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(6);
    let mut rng = StdRng::seed_from_u64(seed);
    let requests: Vec<_> = (0..300).map(|_| request(&mut rng)).collect();
    let asked: Vec<Value> =
        requests.iter().map(|(patterns, lines, home)| json!([patterns, lines, home])).collect();
    let answers = peer::judge(JUDGE, &asked);
    let wrong: Vec<String> = requests
        .iter()
        .zip(&answers)
        .flat_map(|(request, answer)| compare(request, answer))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), requests.len(), wrong.join("\n"));
}
