//! Any `datepattern`, any lines: no panic, no hang; what is found lies within the line and within time.
//!
//! The first line of the input is the pattern, `|` between its entries; the rest is a log.
#![no_main]
use std::path::Path;

use fail2xdp::{
    config::{self, ReadFault, Tree},
    engine::{Matcher, Timestamp},
};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);

/// A configuration of one jail whose filter takes every line.
struct OneDate(String);

impl Tree for OneDate {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        const JAIL: &str = "[x]\nenabled = true\nfilter = x\nbackend = polling\nlogpath = /log\n";
        Ok(match file.to_str() {
            Some("/jail.conf") => Some(JAIL.into()),
            Some("/filter.d/x.conf") => Some(self.0.clone().into_bytes()),
            _ => None,
        })
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadFault> {
        Ok(Vec::new())
    }
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let entries = lines.next().unwrap_or_default().replace('%', "%%").replace('|', "\n ");
    let filter =
        format!("[Definition]\nfailregex = ^(?P<fid>(?:.|\\n)*)\ndatepattern = {entries}\n");
    let Ok(loaded) = config::load(&OneDate(filter)) else { return };
    let Some(jail) = loaded.settings.jails.first() else { return };
    let (mut matcher, _) = Matcher::new(jail, jiff::tz::TimeZone::UTC);
    for line in lines {
        let read = matcher.time_of(line, NOW);
        assert_eq!(read, matcher.time_of(line, NOW), "looking teaches");
        let mut found = Vec::new();
        matcher.line(line, None, NOW, true, &mut found);
        assert!(found.iter().all(|finding| finding.who.to_string().len() <= line.len() + 1));
    }
});
