//! What the fuzz targets do with their input; the tests do the same with the saved corpus.
#![allow(dead_code, reason = "each target uses one of them")]
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fail2xdp::{
    config::{self, ReadFault, Tree, Value},
    control::{MAX_MESSAGE, command::Command, message, read_pickle},
    engine::{Matcher, Timestamp, review_jail},
};

const ROOT: &str = "/f";

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

/// The first line is a failregex, the rest is a log.
pub fn translation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, log) = text.split_once('\n').unwrap_or((&text, ""));
    let pattern = pattern.trim().replace('%', "%%");
    let jail = "[j]\nenabled = true\nfilter = f\nlogpath = /x\naction = iptables\n";
    let filter =
        format!("[DEFAULT]\ne =\n[Definition]\nfailregex = %(e)s{pattern}\nmaxlines = 2\n");
    let files = [("jail.conf", jail.to_owned()), ("filter.d/f.conf", filter)];
    let files = files.map(|(name, text)| (Path::new(ROOT).join(name), text.into_bytes()));
    let Ok(loaded) = config::load(&Texts(files.into())) else { return };
    for jail in &loaded.settings.jails {
        let _ = review_jail(jail);
        let (mut matcher, _) = Matcher::new(jail, jiff::tz::TimeZone::UTC);
        let (now, mut found) = (Timestamp::from_micros(1_700_000_000_000_000), Vec::new());
        for line in log.lines().take(20) {
            matcher.line(line, Some(now), now, true, &mut found);
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
