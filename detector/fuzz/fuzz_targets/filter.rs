//! Any patterns, any lines: no panic, no hang, and nothing grows beyond its bound.
//!
//! The first four lines of the input are `prefregex`, `failregex`, `ignoreregex` and `maxlines`; the rest is a log.
#![no_main]
use std::path::Path;

use fail2xdp::{
    config::{self, ReadFault, Tree},
    engine::{MAX_EVIDENCE, MAX_LINES, Matcher, Timestamp},
};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);

/// A configuration of one jail and one filter.
struct OneFilter(String);

impl Tree for OneFilter {
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
    let mut option = || lines.next().unwrap_or_default().replace('%', "%%");
    let filter = format!(
        "[Definition]\nprefregex = {}\nfailregex = {}\nignoreregex = {}\nmaxlines = {}\n",
        option(),
        option(),
        option(),
        option()
    );
    let Ok(loaded) = config::load(&OneFilter(filter)) else { return };
    let Some(jail) = loaded.settings.jails.first() else { return };
    let (mut matcher, _) = Matcher::new(jail, jiff::tz::TimeZone::UTC);
    for (nth, line) in lines.enumerate() {
        let mut found = Vec::new();
        matcher.line(line, (nth % 3 == 0).then_some(NOW), NOW, nth % 2 == 0, &mut found);
        for finding in found {
            assert!(finding.at <= NOW || nth % 2 == 0);
            assert!(finding.lines.len() <= MAX_LINES as usize);
            assert!(finding.lines.iter().all(|line| line.len() <= MAX_EVIDENCE));
            assert!(finding.fields.iter().all(|(_, text)| text.len() <= MAX_EVIDENCE));
        }
    }
});
