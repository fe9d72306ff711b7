//! Spans of time against fail2ban's own reading of them, for random texts of its grammar.
mod peer;
use fail2xdp::config::seconds;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;

/// What a request's text means to fail2ban, in seconds; `null` where it is no time.
const JUDGE: &str = r#"
import math, warnings
warnings.simplefilter("ignore")
for request in sys.stdin:
    try:
        found = float(MyTime.str2seconds(json.loads(request)))
        found = found if math.isfinite(found) else None
    except Exception:
        found = None
    print(json.dumps(found))
"#;

const SEED: u64 = 20_261_121;
const TEXTS: usize = 5_000;

const UNITS: &[&str] = &[
    "d", "dd", "da", "day", "days", "w", "ww", "we", "wee", "week", "weeks", "mo", "mon", "month",
    "months", "y", "yy", "ye", "yea", "year", "years", "s", "ss", "se", "sec", "second", "seconds",
    "m", "mm", "mi", "min", "minute", "minutes", "h", "hh", "ho", "hou", "hour", "hours", "D",
    "Min", "WEEKS",
];
/// Hardly a unit.
const SLIPS: &[&str] = &["ddd", "minut", "q", "mos", "hs", "_", "..", "0x1", ","];
const NUMBERS: &[&str] = &["0", "1", "5", "12", "007", "600", "1_0", "1.5", ".5", "3.", "2"];
const SIGNS: &[&str] = &["+", "-", "*", "/", "//", "%", " + ", " * ", "- ", "+-"];

fn text(rng: &mut StdRng) -> String {
    let mut text = String::new();
    let one = |rng: &mut StdRng, of: &[&'static str]| *of.choose(rng).expect("something");
    let (mut open, mut powers) = (0, 1);
    for _ in 0..rng.random_range(1..7) {
        match rng.random_range(0..24) {
            0 => text += one(rng, SLIPS),
            1 => {
                text += "(";
                open += 1;
            }
            // Of more than one Python would calculate for ever.
            2 if powers > 0 => {
                text += one(rng, &["2**3", "2 **2", "**2"]);
                powers -= 1;
            }
            3..=5 => text += one(rng, SIGNS),
            6..=8 => text += one(rng, &[" ", "  ", "\t", "\n"]),
            9..=12 => text += one(rng, NUMBERS),
            13 if open > 0 => {
                text += ")";
                open -= 1;
            }
            _ => {
                text += one(rng, NUMBERS);
                text += one(rng, &["", "", " "]);
                text += one(rng, UNITS);
            }
        }
    }
    text + &")".repeat(open)
}

#[test]
fn spans_are_those_of_fail2ban() {
    let mut rng = StdRng::seed_from_u64(SEED);
    let texts: Vec<String> = (0..TEXTS).map(|_| text(&mut rng)).collect();
    let requests: Vec<_> = texts.iter().map(|text| json!(text)).collect();
    let (mut sound, mut wrong) = (0, Vec::new());
    for (text, theirs) in texts.iter().zip(peer::judge(JUDGE, &requests)) {
        let (theirs, ours) = (theirs.as_f64(), seconds(text).ok());
        sound += usize::from(theirs.is_some());
        let is_same = match (theirs, ours) {
            (Some(theirs), Some(ours)) => (theirs - ours).abs() <= theirs.abs() * 1e-12,
            (theirs, ours) => theirs.is_none() && ours.is_none(),
        };
        if !is_same {
            wrong.push(format!("{text:?}: fail2ban {theirs:?}, we {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {TEXTS}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(sound > TEXTS / 4, "{sound} are times");
}
