//! Lines beside fail2ban's own filter: random conversations of a server that does not exist, through prefregex, sessions,
//! joined lines, ignoreregex and alternates. Both must find the same failures, with the same users and lines.
use std::time::Duration;

use fail2xdp::{
    config::{JailSettings, Located, UseDns},
    engine::Matcher,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

mod peer;

use peer::{NOON, zone};

/// Reads a filter and lines; answers for each line with `[who, user, users, texts of the lines]`, or nothing.
const JUDGE: &str = r#"
for request in sys.stdin:
    request = json.loads(request)
    judge = Filter(None)
    judge.active, judge.returnRawHost = True, True
    judge.setUseDns(request["usedns"])
    judge.setMaxLines(request["maxlines"])
    if request["prefix"]:
        judge.prefRegex = request["prefix"]
    for regex in request["fail"]:
        judge.addFailRegex(regex)
    for regex in request["ignore"]:
        judge.addIgnoreRegex(regex)
    answers = []
    for line in request["lines"]:
        found = judge.processLine(("", "", line), 1124013600)
        if not found:
            answers.append(None)
            continue
        assert len(found) == 1
        fields = found[0][3]
        users = fields.get("users") or []
        lines = ["".join(line) for line in fields.get("matches", [])]
        answers.append([str(found[0][1]), fields.get("user") or None, sorted(users), lines])
    print(json.dumps(answers))
"#;

/// A filter, and what its server says: `{s}` is a session, `{u}` a user, `{a}` an address.
struct Kind {
    max_lines: u32,
    prefix: Option<&'static str>,
    fail: &'static [&'static str],
    ignore: &'static [&'static str],
    says: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    // A session in its prefix; content handed on.
    Kind {
        max_lines: 1,
        prefix: Some(r"^<F-MLFID>s\d+: </F-MLFID><F-CONTENT>.+</F-CONTENT>$"),
        fail: &[
            r"^<F-NOFAIL>open</F-NOFAIL> <ADDR>$",
            r"^<F-NOFAIL>key</F-NOFAIL>(?: <F-USER>\w+</F-USER>)? from <ADDR>$",
            r"^bad <F-USER>\w*</F-USER> from <ADDR>$",
            r"^locked(?: <F-USER>\w+</F-USER>)?(?: alias <F-ALT_USER>\w+</F-ALT_USER>)?$",
            r"^<F-MLFGAINED>ok</F-MLFGAINED> <F-USER>\w+</F-USER>$",
            r"^<F-MLFFORGET>bye</F-MLFFORGET> <ADDR>$",
            r"^<F-NOFAIL><F-MLFFORGET>closed</F-MLFFORGET></F-NOFAIL>$",
        ],
        ignore: &[],
        says: &[
            "s{s}: open {a}",
            "s{s}: key from {a}",
            "s{s}: key {u} from {a}",
            "s{s}: bad {u} from {a}",
            "s{s}: bad  from {a}",
            "s{s}: locked {u}",
            "s{s}: locked alias {u}",
            "s{s}: locked",
            "s{s}: ok {u}",
            "s{s}: bye {a}",
            "s{s}: closed",
            "s{s}: hello",
        ],
    },
    // Sessions in the failregexes; gained with an address; few ignoreregexes, which see the whole line first.
    Kind {
        max_lines: 1,
        prefix: None,
        fail: &[
            r"^<F-MLFID>s\d</F-MLFID> <F-NOFAIL>try</F-NOFAIL> <F-USER>\w+</F-USER>$",
            r"^<F-MLFID>s\d</F-MLFID> from <ADDR>$",
            r"^<F-MLFID>s\d</F-MLFID> no <F-USER>\w+</F-USER> <ADDR>$",
            r"^<F-MLFID>s\d</F-MLFID> <F-MLFGAINED>in</F-MLFGAINED>(?: <ADDR>)?$",
            r"^<F-MLFID>s\d</F-MLFID> <F-MLFFORGET><F-MLFGAINED>out</F-MLFGAINED></F-MLFFORGET>$",
        ],
        ignore: &["mallory"],
        says: &[
            "s{s} try {u}",
            "s{s} from {a}",
            "s{s} no {u} {a}",
            "s{s} in",
            "s{s} in {a}",
            "s{s} out",
            "s{s} try mallory",
        ],
    },
    // No sessions: more ignoreregexes than to be asked first, so they see the content.
    Kind {
        max_lines: 1,
        prefix: Some(r"^srv(?: \[<F-ALT_USER>\w+</F-ALT_USER>\])?: <F-CONTENT>.*</F-CONTENT>$"),
        // A field that takes no part must not stand in the prefix, too: 1.0.2 then forgets it, later releases do not.
        fail: &[r"^no (?:\w+ )?<SUBNET>(?: .*)?$", r"^who <F-ID>\S+</F-ID>"],
        ignore: &["^no alice", "^srv"],
        says: &[
            "srv: no {u} {a}",
            "srv: no {a}/24 x",
            "srv: no {a}/32",
            "srv [{u}]: no {a}",
            "srv: no alice {a}",
            "srv: who {u}",
            "srv: who {a}",
            "srv: ",
            "other: no {a}",
        ],
    },
    // Joined lines.
    Kind {
        max_lines: 4,
        prefix: None,
        fail: &[
            r"^s(?P<_s>\d) begin <F-USER>\w+</F-USER>$<SKIPLINES>^s(?P=_s) fail <ADDR>$",
            r"^s\d lone <ADDR>$",
            r"^two$\n^lines <ADDR>$",
        ],
        ignore: &["lone 192.0.2.1"],
        says: &["s{s} begin {u}", "s{s} fail {a}", "s{s} lone {a}", "two", "lines {a}", "noise"],
    },
    // Joined lines behind a prefix.
    Kind {
        max_lines: 3,
        prefix: Some(r"^log: (?:x|<F-CONTENT>.+</F-CONTENT>)$"),
        fail: &[r"^fail <ADDR>$", r"x <ADDR>"],
        ignore: &[],
        says: &["log: fail {a}", "log: x", "x {a}", "fail {a}"],
    },
];

const USERS: [&str; 3] = ["bob", "eve", "root"];
const ADDRESSES: [&str; 3] = ["192.0.2.1", "192.0.2.2", "198.51.100.7"];

fn conversation(rng: &mut StdRng, kind: &Kind) -> Vec<String> {
    let of = |rng: &mut StdRng, all: &[&'static str]| all[rng.random_range(0..all.len())];
    let lines = (0..rng.random_range(1..60)).map(|_| {
        of(rng, kind.says)
            .replace("{s}", &rng.random_range(0..3).to_string())
            .replace("{u}", of(rng, &USERS))
            .replace("{a}", of(rng, &ADDRESSES))
    });
    lines.collect()
}

fn jail(kind: &Kind) -> JailSettings {
    let mut jail = peer::jail("apache-pass", &[]);
    let located = |text: &&str| Located { value: (*text).to_owned(), place: None };
    jail.filter.prefregex = kind.prefix.as_ref().map(located);
    jail.filter.failregex = kind.fail.iter().map(located).collect();
    jail.filter.ignoreregex = kind.ignore.iter().map(located).collect();
    jail.filter.max_lines = kind.max_lines;
    jail.filter.use_dns = UseDns::No;
    jail.find_time = Duration::from_secs(600);
    jail.max_matches = 50;
    jail
}

/// What our matcher says of one line, in the judge's words.
fn answer(matcher: &mut Matcher, line: &str) -> Value {
    let mut found = Vec::new();
    matcher.line(line, Some(NOON), NOON, true, &mut found);
    let Some(finding) = found.first() else { return Value::Null };
    let of = |wanted: &'static str| {
        let fields = finding.fields.iter().filter(move |(name, _)| **name == *wanted);
        fields.map(|(_, text)| text.to_string()).filter(|text| !text.is_empty())
    };
    let mut users: Vec<String> = of("users").collect();
    users.sort();
    json!([finding.who.to_string(), of("user").next(), users, finding.lines])
}

#[test]
fn conversations_are_understood_as_fail2ban_understands_them() {
    let seed = std::env::var("FAIL2XDP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(6);
    let mut rng = StdRng::seed_from_u64(seed);
    let asked: Vec<(&Kind, Vec<String>)> = (0..200)
        .map(|nth| {
            let kind = &KINDS[nth % KINDS.len()];
            (kind, conversation(&mut rng, kind))
        })
        .collect();
    let requests: Vec<Value> = asked
        .iter()
        .map(|(kind, lines)| {
            json!({"prefix": kind.prefix, "fail": kind.fail, "ignore": kind.ignore, "usedns": "no",
                   "maxlines": kind.max_lines, "lines": lines})
        })
        .collect();
    let mut wrong = Vec::new();
    let mut failures = 0;
    for ((kind, lines), answers) in asked.iter().zip(peer::judge(JUDGE, &requests)) {
        let (mut matcher, errors) = Matcher::new(&jail(kind), zone());
        assert_eq!(errors, []);
        for (nth, line) in lines.iter().enumerate() {
            let (ours, theirs) = (answer(&mut matcher, line), &answers[nth]);
            failures += usize::from(!theirs.is_null());
            if ours != *theirs {
                let said = lines[..=nth].join("\n    ");
                wrong.push(format!("\n    {said}\n  ours   {ours}\n  theirs {theirs}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:{}", wrong.len(), asked.len(), wrong.join("\n"));
    assert!(failures > 800, "only {failures} failures: the conversations are too dull");
}
