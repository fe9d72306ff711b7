//! What the fuzz targets do with their input; the tests do the same with the saved corpus.
#![allow(dead_code, reason = "each target uses one of them")]
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fail2xdp::{
    config::{self, Formula, JailSettings, Known, Number, ReadFault, Tree, Value},
    control::{MAX_MESSAGE, command::Command, message, read_pickle},
    engine::{HitOutcome, MAX_EVIDENCE, MAX_LINES, Matcher, Timestamp, review_jail},
};
use jiff::tz::TimeZone;

const ROOT: &str = "/f";
/// 21 November 2026, 14:00 UTC.
const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);
/// Lines of a log that are tried.
const LINES: usize = 20;

struct Texts(BTreeMap<PathBuf, Vec<u8>>);

impl Tree for Texts {
    fn root(&self) -> &Path {
        Path::new(ROOT)
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(self.0.get(file).cloned())
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        let inside = self.0.keys().filter(|file| file.parent() == Some(folder));
        let names = inside.filter_map(|file| file.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }
}

/// Files behind one another, each begun by a line `=== NAME`; what stands before is `jail.conf`.
pub fn reader(data: &[u8]) {
    let mut files = BTreeMap::new();
    let mut current = Path::new(ROOT).join("jail.conf");
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"=== ").and_then(|name| std::str::from_utf8(name).ok()) {
            Some(name) if !name.contains('\0') => current = Path::new(ROOT).join(name.trim_end()),
            _ => files.entry(current.clone()).or_insert_with(Vec::new).extend_from_slice(line),
        }
    }
    let tree = Texts(files);
    if let Ok(loaded) = config::load(&tree) {
        for jail in &loaded.settings.jails {
            let _ = config::doubts(jail);
        }
    }
    if let Ok((commands, _)) = config::stream(&tree, &|pattern| vec![pattern.into()]) {
        for command in commands.into_iter().map(Value::List) {
            let _ = (command.to_string(), command.pretty());
        }
    }
}

/// The jail that reads with this filter, if it can be used.
fn one_jail(filter: String) -> Option<JailSettings> {
    let jail = "[j]\nenabled = true\nfilter = f\nlogpath = /x\naction = iptables\n";
    let files = [("jail.conf", jail.to_owned()), ("filter.d/f.conf", filter)];
    let files = files.map(|(name, text)| (Path::new(ROOT).join(name), text.into_bytes()));
    config::load(&Texts(files.into())).ok()?.settings.jails.into_iter().next()
}

/// The first line is a failregex, the rest is a log.
pub fn translation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, log) = text.split_once('\n').unwrap_or((&text, ""));
    let pattern = pattern.trim().replace('%', "%%");
    let filter =
        format!("[DEFAULT]\ne =\n[Definition]\nfailregex = %(e)s{pattern}\nmaxlines = 2\n");
    let Some(jail) = one_jail(filter) else { return };
    let _ = review_jail(&jail);
    let (mut matcher, _) = Matcher::new(&jail, TimeZone::UTC);
    let mut found = Vec::new();
    for line in log.lines().take(LINES) {
        matcher.line(line, Some(NOW), NOW, true, &mut found);
    }
}

/// The first line is a `datepattern`, `|` between its entries; the rest is a log. What is found lies within the line.
pub fn date(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let entries = lines.next().unwrap_or_default().replace('%', "%%").replace('|', "\n ");
    let filter =
        format!("[Definition]\nfailregex = ^(?P<fid>(?:.|\\n)*)\ndatepattern = {entries}\n");
    let Some(jail) = one_jail(filter) else { return };
    let (mut matcher, _) = Matcher::new(&jail, TimeZone::UTC);
    for line in lines.take(LINES) {
        let read = matcher.time_of(line, NOW);
        assert_eq!(read, matcher.time_of(line, NOW), "looking teaches");
        let mut found = Vec::new();
        matcher.line(line, None, NOW, true, &mut found);
        assert!(found.iter().all(|finding| finding.who.to_string().len() <= line.len() + 1));
    }
}

/// The first four lines are `prefregex`, `failregex`, `ignoreregex` and `maxlines`; the rest is a log. Nothing
/// grows beyond its bound, and who tests a filter hears what it finds at work. Of dates only one kind is known, for making
/// all of them takes most of the time.
pub fn filter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let mut option = || lines.next().unwrap_or_default().replace('%', "%%");
    let filter = format!(
        "[Definition]\nprefregex = {}\nfailregex = {}\nignoreregex = {}\nmaxlines = {}\n\
         datepattern = ^EPOCH\n",
        option(),
        option(),
        option(),
        option()
    );
    let Some(jail) = one_jail(filter) else { return };
    let (mut matcher, _) = Matcher::new(&jail, TimeZone::UTC);
    let (mut tested, _) = Matcher::new(&jail, TimeZone::UTC);
    let caught_up = data.len().is_multiple_of(2);
    for (nth, line) in lines.take(LINES).enumerate() {
        let given = (nth % 3 == 0).then_some(NOW);
        let mut found = Vec::new();
        matcher.line(line, given, NOW, caught_up, &mut found);
        // Lines without a date do not count while older ones are read.
        if caught_up {
            let seen = tested.inspect(line, given, NOW, false);
            let failures = seen.hits.into_iter().map(|hit| hit.outcome);
            let failures: Vec<HitOutcome> =
                failures.filter(|what| matches!(what, HitOutcome::Failure(_))).collect();
            let at_work = found.iter().map(|finding| HitOutcome::Failure(finding.who.clone()));
            assert_eq!(at_work.collect::<Vec<_>>(), failures);
        }
        for finding in found {
            assert!(finding.at <= NOW || caught_up);
            assert!(finding.lines.len() <= MAX_LINES as usize);
            assert!(finding.lines.iter().all(|line| line.len() <= MAX_EVIDENCE));
            assert!(finding.fields.iter().all(|(_, text)| text.len() <= MAX_EVIDENCE));
        }
    }
}

/// A message of fail2ban's protocol: what is read is written and read again as the same.
pub fn pickle(data: &[u8]) {
    let Ok(value) = read_pickle(data) else { return };
    let _ = value.to_string();
    let written = message(&value);
    // What was named again and again is written out.
    if written.len() <= MAX_MESSAGE {
        assert_eq!(read_pickle(&written), Ok(value.clone()));
    }
    if let Value::List(words) | Value::Tuple(words) = &value {
        let _ = Command::read(words).map(|command| command.is_for_group());
    }
}

/// A `bantime.formula`, for first and late bans.
pub fn formula(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let formula = match Formula::new(&text) {
        Ok(formula) => formula,
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.at), "{error}");
            return;
        }
    };
    for (time, count, factor) in [
        (600, 1, Number::Int(1)),
        (0, 40, Number::Float(0.5)),
        (u32::MAX, u32::MAX, Number::Int(-3)),
    ] {
        let _ = formula.value(&mut Known { time, count, factor, random: &mut || 0.99 });
    }
}
