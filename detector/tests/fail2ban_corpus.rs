//! fail2ban's own sample logs through our engine, with its own filters.
//!
//! Each sample says of a line whether it is a failure, whose, when, and with which fields. What the format means is
//! written down in fail2ban's manual for filter authors; the clock stands at noon of 14 August 2005, in Central Europe.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use fail2xdp::{
    config::JailSettings,
    engine::{Finding, Matcher, Timestamp},
};
use fail2xdp::{config::Tree, config_tree::ShippedTree};
use jiff::civil::DateTime;
use serde_json::Value;

mod peer;

use peer::{NOON, zone};

/// Where we differ on purpose: the sample, the address it expects, and why we find nothing.
/// Numbers with leading zeros are decimal to some readers and octal to others; no tool takes such a text for an
/// address, and fail2ban bans it as a text, in vain.
const DIFFERENCES: [(&str, &str, &str); 3] = [
    ("sshd", "192.030.0.6", "no address: a number with a leading zero"),
    ("zzz-sshd-obsolete-multiline", "192.030.0.6", "no address: a number with a leading zero"),
    ("zzz-generic-example", "192.0.2.09", "no address: a number with a leading zero"),
];

/// Filter parameters with what the samples add for the test alone.
type Options = BTreeMap<String, String>;

/// What is compared of a failure.
#[derive(Clone, Copy, PartialEq)]
enum Compare {
    /// Whatever the sample says of it.
    All,
    WhoAndWhen,
    /// That some failregex matches, whatever comes of it.
    Matched,
}

/// One sample with the files it goes on in.
struct Run {
    filter: String,
    /// Of which filter of this name, with these parameters.
    jail: fn(&str, &[(String, String)]) -> JailSettings,
    compare: Compare,
    /// One for each set of parameters, kept from file to file.
    matchers: HashMap<Vec<(String, String)>, Matcher>,
    common: Options,
    sets: Vec<Options>,
    wrong: Vec<Wrong>,
    positive: usize,
    negative: usize,
    differences: BTreeSet<(String, String)>,
}

/// A check that did not end as expected.
struct Wrong {
    file: String,
    line: usize,
    what: String,
}

impl Run {
    fn new(filter: &str, jail: fn(&str, &[(String, String)]) -> JailSettings) -> Run {
        Run {
            filter: filter.to_owned(),
            jail,
            compare: Compare::All,
            matchers: HashMap::new(),
            common: Options::new(),
            sets: Vec::new(),
            wrong: Vec::new(),
            positive: 0,
            negative: 0,
            differences: BTreeSet::new(),
        }
    }

    fn files(mut self) -> Run {
        let logs = peer::tests().join("files/logs");
        let mut files = vec![logs.join(&self.filter)];
        while !files.is_empty() {
            let next = self.file(&files.remove(0));
            files.extend(next.into_iter().map(|name| logs.join(name)));
        }
        self
    }

    /// Runs one file; the files that it names to go on in.
    fn file(&mut self, path: &PathBuf) -> Vec<String> {
        let bytes = fs::read(path).expect("a sample");
        let text = String::from_utf8_lossy(&bytes);
        let mut more = Vec::new();
        let mut skipping = false;
        let mut lines = text.split('\n').enumerate();
        while let Some((mut nth, mut line)) = lines.next() {
            let mut expect = Value::Null;
            if let Some((kind, json)) = directive(line) {
                let value: Value = serde_json::from_str(json).expect(line);
                match kind {
                    "fileOptions" => self.common = options(&value),
                    "addFILE" => more.push(value.as_str().expect(line).to_owned()),
                    "filterOptions" => {
                        let one = std::slice::from_ref(&value);
                        let sets = value.as_array().map_or(one, Vec::as_slice);
                        self.sets = sets
                            .iter()
                            .map(|set| {
                                let mut all = self.common.clone();
                                all.extend(options(set));
                                all
                            })
                            .collect();
                        let last = self.sets.iter().rev().find_map(|set| set.get("test.condition"));
                        skipping =
                            last.is_some_and(|condition| !self.holds(condition, &Options::new()));
                    }
                    _ => {
                        expect = value;
                        (nth, line) = lines.next().expect("a line behind its expectation");
                    }
                }
                if expect.is_null() {
                    continue;
                }
            } else if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            if skipping {
                continue;
            }
            if self.sets.is_empty() {
                self.sets.push(Options::new());
            }
            let line = line.trim_end_matches('\r');
            for set in self.sets.clone() {
                let constraint = expect["constraint"].as_str();
                if constraint.is_some_and(|constraint| !self.holds(constraint, &set)) {
                    continue;
                }
                if let Err(what) = self.line(&set, line, &expect) {
                    let file = path.file_name().expect("a name").to_string_lossy().into_owned();
                    let what = format!("{} {set:?}: {what}\n    {line}\n    {expect}", self.filter);
                    self.wrong.push(Wrong { file, line: nth + 1, what });
                }
            }
        }
        more
    }

    /// Whether `name == 'sshd'`, `opts.get('mode') != 'extra'` and the like hold.
    fn holds(&self, condition: &str, set: &Options) -> bool {
        let (left, equal, right) = match (condition.split_once("=="), condition.split_once("!=")) {
            (Some((left, right)), _) => (left, true, right),
            (_, Some((left, right))) => (left, false, right),
            _ => panic!("a condition of a kind not seen before: {condition}"),
        };
        let text = |quoted: &str| quoted.trim().trim_matches(['\'', '"']).to_owned();
        let left = match left.trim() {
            "name" => Some(self.filter.clone()),
            option => {
                let option = option.strip_prefix("opts.get(").and_then(|o| o.strip_suffix(')'));
                set.get(&text(option.expect(condition))).cloned()
            }
        };
        (left == Some(text(right))) == equal
    }

    fn line(&mut self, set: &Options, line: &str, expect: &Value) -> Result<(), String> {
        let params: Vec<(String, String)> = set
            .iter()
            .filter(|(name, _)| !name.starts_with("test."))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let matcher = self.matchers.entry(params).or_insert_with_key(|params| {
            let mut jail = (self.jail)(&self.filter, params);
            jail.find_time = Duration::from_secs(3_600 * 24 * 366 * 100);
            jail.max_matches = 50;
            let (matcher, errors) = Matcher::new(&jail, zone());
            assert!(errors.is_empty(), "{} {params:?}: {errors:#?}", self.filter);
            matcher
        });
        let mut text = line.to_owned();
        let mut given = None;
        if set.get("logtype").is_some_and(|logtype| logtype == "journal") {
            given = Some(NOON);
            text = set.get("test.prefix-line").cloned().unwrap_or_default() + line;
        }
        if self.compare == Compare::Matched {
            let hits = matcher.inspect(&text, given, NOON, false).hits;
            self.positive += usize::from(expect["match"].as_bool() == Some(true));
            let missed = hits.is_empty() && expect["match"].as_bool() == Some(true);
            return if missed { Err("not matched".to_owned()) } else { Ok(()) };
        }
        let written = given.or_else(|| matcher.time_of(&text, NOON));
        let mut found = Vec::new();
        matcher.line(&text, given, NOON, false, &mut found);
        // Without a session such a line counts, in fail2ban too; its samples leave it out.
        found.retain(|finding| finding.fields.iter().all(|(name, _)| **name != *"nofail"));
        if expect["match"].as_bool() != Some(true) {
            self.negative += 1;
            return match found.first() {
                None => Ok(()),
                Some(finding) => Err(format!("found, though it is no failure: {finding:?}")),
            };
        }
        if matcher.counts().gave_up > 0 {
            return Err("a pattern gave up".to_owned());
        }
        self.positive += 1;
        let host = expect["host"].as_str().unwrap_or_default();
        if DIFFERENCES.iter().any(|(name, address, _)| *name == self.filter && *address == host) {
            self.differences.insert((self.filter.clone(), host.to_owned()));
            return if found.is_empty() {
                Ok(())
            } else {
                Err("no longer a difference".to_owned())
            };
        }
        let finding = found.first().ok_or("not found")?;
        let mut who = expect.clone();
        who.as_object_mut().expect("an object").retain(|key, _| key == "host" || key == "time");
        agree(if self.compare == Compare::All { expect } else { &who }, finding, written)
    }
}

/// Compares what was found with what was expected.
fn agree(expect: &Value, finding: &Finding, written: Option<Timestamp>) -> Result<(), String> {
    for (key, value) in expect.as_object().into_iter().flatten() {
        let of_this_name = finding.fields.iter().filter(|(name, _)| **name == **key);
        let mut texts: Vec<String> = of_this_name.map(|(_, text)| text.to_string()).collect();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut wanted: Vec<String> = match value {
            Value::Array(values) => values.iter().map(text).collect(),
            Value::Null => Vec::new(),
            value => vec![text(value)],
        };
        match key.as_str() {
            "time" | "match" | "desc" | "constraint" => continue,
            "host" if texts.is_empty() => {
                texts.push(finding.who.to_string());
                if let Some(address) = value.as_str().and_then(|text| text.parse().ok()) {
                    let address: IpAddr = address;
                    wanted = vec![address.to_string()];
                }
            }
            "attempts" => texts.push(finding.lines.len().to_string()),
            _ => {}
        }
        texts.sort();
        wanted.sort();
        if texts != wanted {
            return Err(format!("{key} is {texts:?}: {finding:?}"));
        }
    }
    let Some(time) = expect["time"].as_str() else { return Ok(()) };
    let time = DateTime::strptime("%Y-%m-%dT%H:%M:%S%.f", time).expect(time);
    let time = zone().to_timestamp(time).expect("a time in range");
    let time = Timestamp::from_micros(time.as_microsecond());
    // Times ahead of the clock count as of now.
    if finding.at != time.min(NOON) || written.is_some_and(|written| written != time) {
        return Err(format!(
            "off by {} s, counted {} s off",
            written.map_or(0, |at| at.seconds() - time.seconds()),
            finding.at.seconds() - time.seconds()
        ));
    }
    Ok(())
}

/// `#failJSON: …` and its kin.
fn directive(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix('#')?.trim_start_matches('#');
    let (kind, json) = rest.strip_prefix(' ').unwrap_or(rest).split_once(':')?;
    let known = ["failJSON", "fileOptions", "filterOptions", "addFILE"].contains(&kind);
    (known && !json.is_empty()).then_some((kind, json))
}

fn options(value: &Value) -> Options {
    let all = value.as_object().expect("options are an object");
    all.iter().map(|(k, v)| (k.clone(), v.as_str().expect("a text").to_owned())).collect()
}

/// The samples: all that have a filter of their name.
fn samples() -> Vec<String> {
    let stock = peer::config().join("filter.d");
    let made_for_tests = peer::tests().join("config/filter.d");
    let entries = fs::read_dir(peer::tests().join("files/logs")).expect("sample logs");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| {
            [&stock, &made_for_tests]
                .iter()
                .any(|folder| folder.join(format!("{name}.conf")).is_file())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn every_sample_line_is_judged_as_fail2ban_judges_it() {
    let (mut positive, mut negative) = (0, 0);
    let mut differences = BTreeSet::new();
    let mut wrong = Vec::new();
    let samples = samples();
    for name in &samples {
        let run = Run::new(name, peer::jail).files();
        positive += run.positive;
        negative += run.negative;
        differences.extend(run.differences);
        let told = run.wrong.iter();
        wrong.extend(told.map(|Wrong { file, line, what }| format!("{file}:{line} {what}")));
    }
    println!("{} samples, {positive} failures, {negative} others", samples.len());
    assert!(
        wrong.is_empty(),
        "{} of {} checks:\n{}",
        wrong.len(),
        positive + negative,
        wrong.join("\n")
    );
    assert_eq!(differences.len(), DIFFERENCES.len(), "differences that no sample shows");
    // Fewer would mean that the harness skips what it should not.
    assert!(samples.len() >= 91 && positive >= 1_317 && negative >= 310);
}

/// Lines of which our filter takes another for the culprit than fail2ban's, or nobody: the sample, what tells the line, what
/// comes of it, and why. In each the client has written a line of another into its own; whoever reads it as fail2ban does can be made to
/// ban anybody.
const SHIPPED_DIFFERENCES: [(&str, &str, &str, &str); 3] = [
    (
        "sshd",
        "user test from 127.0.0.1 port 58946 ssh2: from 10.10.1.2 port 55555 ssh2",
        "host is [\"10.10.1.2\"]",
        "since 2013 sshd writes nothing behind `ssh2` of a password, so this is a client at 10.10.1.2, of that name",
    ),
    (
        "nginx-http-auth",
        "client: 127.0.0.1, server: test, request",
        "host is [\"127.0.0.1\"]",
        "a name ends at its first colon (RFC 7617), so this is a client at 127.0.0.1, with that `Host`",
    ),
    (
        "pam-generic",
        "ruser= rhost=192.0.2.2 user=test rhost=192.0.2.152",
        "not found",
        "a client at 192.0.2.152 whose name begins with a blank has the same line: nobody is counted",
    ),
];

#[test]
fn the_shipped_filters_find_what_fail2bans_of_their_names_find() {
    let filters = ShippedTree.list(&ShippedTree.root().join("filter.d")).expect("the shipped tree");
    let samples = samples();
    let (mut positive, mut negative, mut compared) = (0, 0, 0);
    let (mut wrong, mut differ) = (Vec::new(), BTreeSet::new());
    for name in filters.iter().filter_map(|file| file.strip_suffix(".conf")) {
        if !samples.iter().any(|sample| sample == name) {
            continue;
        }
        let run = Run { compare: Compare::WhoAndWhen, ..Run::new(name, peer::shipped) }.files();
        compared += 1;
        positive += run.positive;
        negative += run.negative;
        for Wrong { file, line, what } in run.wrong {
            let known = SHIPPED_DIFFERENCES.iter().find(|(sample, text, outcome, _)| {
                *sample == name && what.contains(text) && what.contains(outcome)
            });
            match known {
                Some((sample, text, ..)) => differ.extend([(*sample, *text)]),
                None => wrong.push(format!("{file}:{line} {what}")),
            }
        }
    }
    println!("{compared} filters, {positive} failures, {negative} others");
    assert!(wrong.is_empty(), "{} checks:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(differ.len(), SHIPPED_DIFFERENCES.len(), "differences that no sample shows");
    // Fewer would mean that the harness skips what it should not.
    assert!(compared >= 15, "{compared} filters, {positive} failures, {negative} others");
}

/// The shipped sshd jail counts a login once: lines that tell of it again are matched, and count no more.
#[test]
fn the_shipped_sshd_jail_passes_over_no_line_that_fail2ban_counts() {
    fn logins(filter: &str, params: &[(String, String)]) -> JailSettings {
        let count = ("count".to_owned(), "logins".to_owned());
        peer::shipped(filter, &[params, &[count]].concat())
    }
    let run = Run { compare: Compare::Matched, ..Run::new("sshd", logins) }.files();
    let wrong: Vec<String> = run
        .wrong
        .into_iter()
        .map(|Wrong { file, line, what }| format!("{file}:{line} {what}"))
        .collect();
    assert!(
        wrong.is_empty() && run.positive >= 200,
        "{} lines:\n{}",
        run.positive,
        wrong.join("\n")
    );
}
