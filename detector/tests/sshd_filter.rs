//! The shipped sshd filter, line by line, on the cases of `tests/testdata/sshd`.
use std::{fs, path::Path, time::Duration};

use fail2xdp::{
    config::{self, JailSettings, ReadFault, Tree},
    config_tree::ShippedTree,
    engine::{Matcher, Timestamp},
};

/// 1 March 2026, 12:00 UTC.
const NOON: Timestamp = Timestamp::from_seconds(1_772_366_400);

/// The shipped tree with another mode.
struct WithMode<'a>(&'a str);

impl Tree for WithMode<'_> {
    fn root(&self) -> &Path {
        ShippedTree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        match file.ends_with("jail.local") {
            true => Ok(Some(format!("[sshd]\nmode = {}\n", self.0).into_bytes())),
            false => ShippedTree.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        ShippedTree.list(folder)
    }
}

fn jail(mode: &str) -> JailSettings {
    let loaded = config::load(&WithMode(mode)).expect("the shipped tree");
    assert_eq!(loaded.problems, [], "mode {mode}");
    let mut jails = loaded.settings.jails.into_iter();
    let mut jail = jails.find(|jail| jail.name.as_str() == "sshd").expect("an sshd jail");
    // The cases lie within the hour before the clock's time; none of them is about `findtime`.
    jail.find_time = Duration::from_secs(7_200);
    jail
}

fn matcher(jail: &JailSettings) -> Matcher {
    let (matcher, errors) = Matcher::new(jail, jiff::tz::TimeZone::UTC);
    assert!(errors.is_empty(), "{errors:#?}");
    matcher
}

#[track_caller]
fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/testdata/sshd").join(file);
    let text = fs::read_to_string(&path).expect(file);
    let mut jail = jail("normal");
    let mut matcher = matcher(&jail);
    let (mut wrong, mut lines) = (Vec::new(), 0);
    for (nth, line) in text.lines().enumerate() {
        if let Some(mode) = line.strip_prefix("mode: ") {
            jail = self::jail(mode);
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
        let found: Vec<String> = findings.iter().map(|finding| finding.who.to_string()).collect();
        let found = if found.is_empty() { "-".to_owned() } else { found.join(" ") };
        if found != expect {
            let rule = findings.first().and_then(|finding| jail.filter.failregex.get(finding.rule));
            let rule = rule.and_then(|rule| rule.place.clone()).map(|place| place.to_string());
            wrong.push(format!(
                "{file}:{}: {found} instead of {expect} ({rule:?}): {line}",
                nth + 1
            ));
        }
        lines += 1;
    }
    assert!(lines > 10, "{file} holds {lines} lines");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_shape_of_openssh_is_counted_once_an_attempt() {
    check("openssh.txt");
}

#[test]
fn who_does_nothing_wrong_is_not_counted() {
    check("spared.txt");
}

#[test]
fn nobody_can_have_somebody_else_counted() {
    check("forged.txt");
}
