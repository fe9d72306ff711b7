//! Every filter of Debian's fail2ban in each of its modes: all of its patterns compile, and which engine runs them is
//! written down.
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use fail2xdp::engine::{Matcher, PatternName};

mod peer;

/// What the filters' parameters may be, apart from their defaults.
const PARAMETERS: [(&str, &[&str]); 4] = [
    (
        "mode",
        &["normal", "auth", "rbl", "more", "ddos", "extra", "aggressive", "errors", "fallback"],
    ),
    ("publickey", &["any", "ignore", "invalid", "nofail"]),
    ("logging", &["logfile", "syslog", "all", "catalina", "webapp"]),
    ("logtype", &["file", "short", "journal", "rfc5424"]),
];

/// The values of a parameter that make another filter of it: those that options or sections are named after.
fn values(filter: &str, parameter: &str, known: &[&str]) -> Vec<String> {
    let folder = peer::config().join("filter.d");
    let mut text = fs::read_to_string(folder.join(format!("{filter}.conf"))).expect("a filter");
    for common in ["common.conf", "apache-common.conf", "nginx-error-common.conf"] {
        if text
            .lines()
            .any(|line| line.trim_start().starts_with("before") && line.ends_with(common))
        {
            text += &fs::read_to_string(folder.join(common)).unwrap_or_default();
        }
    }
    let names = |value: &str| {
        let named = [format!("-{value}"), format!("_{value}")];
        text.contains(&format!("<{parameter}>")) && named.iter().any(|named| text.contains(named))
    };
    known.iter().filter(|value| names(value)).map(|value| (*value).to_owned()).collect()
}

/// A line for each filter and, below it, one for each kind of it: how many patterns, on which engine, which parameters.
fn table() -> String {
    let mut out = String::new();
    for filter in peer::filters() {
        let mut kinds = vec![Vec::new()];
        for (parameter, known) in PARAMETERS {
            for value in values(&filter, parameter, known) {
                kinds.push(vec![(parameter.to_owned(), value)]);
            }
        }
        // Kinds with the same patterns are told once.
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for params in kinds {
            let Some(jail) = peer::try_jail(&filter, &params) else { continue };
            let (matcher, errors) = Matcher::new(&jail, jiff::tz::TimeZone::UTC);
            assert_eq!(errors, [], "{filter} {params:?}");
            assert!(matcher.is_armed(), "{filter} {params:?}");
            let shown = params.first().map_or("default".to_owned(), |(k, v)| format!("{k}={v}"));
            lines.entry(engines(&matcher)).or_default().push(shown);
        }
        writeln!(out, "{filter}").expect("a String");
        for (engines, kinds) in lines {
            writeln!(out, "    {engines} [{}]", kinds.join(", ")).expect("a String");
        }
    }
    out
}

fn engines(matcher: &Matcher) -> String {
    let count = |wanted: fn(&PatternName) -> bool| {
        matcher.patterns().filter(|pattern| wanted(&pattern.name)).count()
    };
    let tries: Vec<String> = matcher
        .patterns()
        .filter(|pattern| !pattern.linear)
        .map(|pattern| pattern.name.to_string())
        .collect();
    format!(
        "{} + {} + {}: {}",
        count(|name| matches!(name, PatternName::Prefix)),
        count(|name| matches!(name, PatternName::Fail(_))),
        count(|name| matches!(name, PatternName::Ignore(_))),
        if tries.is_empty() {
            "all linear".to_owned()
        } else {
            format!("tries: {}", tries.join(", "))
        }
    )
}

#[test]
fn every_filter_loads_in_all_its_modes_and_runs_on_the_engine_written_down() {
    let table = format!(
        "# fail2ban {}: prefregex + failregex + ignoreregex, and those that need an engine which tries again\n{}",
        peer::version(),
        table()
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/snapshots/fail2ban_{}_engines.txt", peer::version()));
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == table,
        "not as written in `{}`; if this is right, write there:\n{table}",
        path.display()
    );
}
