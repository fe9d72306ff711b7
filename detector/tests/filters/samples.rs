//! Log lines of `tests/testdata` and what they must lead to; the format stands in its README.
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use fail2xdp::{
    config::{self, JailSettings, ReadFault, Tree},
    config_tree::ShippedTree,
    engine::{Finding, Matcher, Timestamp},
};
use jiff::tz::TimeZone;

/// 1 March 2026, 12:00 UTC.
pub const NOON: Timestamp = Timestamp::from_seconds(1_772_366_400);

/// The shipped tree with one jail on, with this option.
struct WithJail<'a> {
    jail: &'a str,
    option: &'a str,
}

impl Tree for WithJail<'_> {
    fn root(&self) -> &Path {
        ShippedTree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        match file.ends_with("jail.local") {
            true => {
                let WithJail { jail, option } = self;
                Ok(Some(format!("[{jail}]\nenabled = yes\n{option}\n").into_bytes()))
            }
            false => ShippedTree.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        ShippedTree.list(folder)
    }
}

/// The shipped jail of this name, in this mode.
#[track_caller]
pub fn jail(name: &str, mode: &str) -> JailSettings {
    with_option(name, &format!("mode = {mode}"))
}

/// The shipped jail of this name, with this option.
#[track_caller]
pub fn with_option(name: &str, option: &str) -> JailSettings {
    let loaded = config::load(&WithJail { jail: name, option }).expect("the shipped tree");
    assert_eq!(loaded.problems, [], "{name}, {option}");
    let mut jails = loaded.settings.jails.into_iter();
    let mut jail = jails.find(|jail| jail.name.as_str() == name).expect("the jail is enabled");
    // The cases lie within the hour before the clock's time; none of them is about `findtime`.
    jail.find_time = Duration::from_secs(7_200);
    jail
}

fn matcher(jail: &JailSettings) -> Matcher {
    let (matcher, errors) = Matcher::new(jail, TimeZone::UTC);
    assert!(errors.is_empty(), "{errors:#?}");
    matcher
}

/// Checks every line of `tests/testdata/FILE` against a jail; answers the failregexes that found
/// something.
#[track_caller]
pub fn check(name: &str, file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/testdata").join(file);
    let text = fs::read_to_string(&path).expect(file);
    let mut jail = jail(name, "normal");
    let mut matcher = matcher(&jail);
    let (mut wrong, mut lines, mut used) = (Vec::new(), 0, BTreeSet::new());
    for (nth, line) in text.lines().enumerate() {
        let option = ["mode", "filter"]
            .iter()
            .find_map(|option| Some((option, line.strip_prefix(option)?.strip_prefix(": ")?)));
        if let Some((option, value)) = option {
            jail = with_option(name, &format!("{option} = {value}"));
            matcher = self::matcher(&jail);
            continue;
        }
        if line.starts_with("## ") {
            matcher = self::matcher(&jail);
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (at, sign) = line.char_indices().find(|(_, c)| matches!(c, '|' | '@')).expect(line);
        let (expect, line) = (line[..at].trim(), line[at + 1..].trim_start());
        let given = (sign == '@').then(|| NOON.minus(Duration::from_secs(60)));
        let mut findings = Vec::new();
        matcher.line(line, given, NOON, false, &mut findings);
        let with_time = expect.contains(' ');
        let found: Vec<String> =
            findings.iter().map(|finding| describe(finding, with_time)).collect();
        let found = if found.is_empty() { "-".to_owned() } else { found.join(" and ") };
        let rule = findings.first().and_then(|finding| jail.filter.failregex.get(finding.rule));
        if found != expect {
            let rule = rule.and_then(|rule| rule.place.as_ref()).map(ToString::to_string);
            wrong.push(format!(
                "{file}:{}: {found} instead of {expect} ({rule:?}): {line}",
                nth + 1
            ));
        }
        used.extend(rule.map(|rule| rule.value.clone()));
        lines += 1;
    }
    assert!(lines > 10, "{file} holds {lines} lines");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    used
}

/// Whom a finding is about, and when.
fn describe(finding: &Finding, with_time: bool) -> String {
    let who = finding.who.to_string();
    if !with_time {
        return who;
    }
    let at = jiff::Timestamp::from_second(finding.at.seconds()).expect("a time of this century");
    format!("{who} {}", at.to_zoned(TimeZone::UTC).strftime("%H:%M:%S"))
}
