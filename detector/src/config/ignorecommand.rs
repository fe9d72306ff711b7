//! `ignorecommand` and `ignorecache`: a program of the operator's that decides whom to spare.
use std::time::Duration;

use super::{
    IgnoreCache,
    filter::FilterFiles,
    jail::{Jail, Refused},
    params, span,
    text::Text,
};

/// Sizes of the cache, as in fail2ban, and the bound of the first.
const MAX_COUNT: u32 = 100;
const MOST_COUNT: u32 = 1_000_000;
const MAX_TIME: Duration = Duration::from_secs(300);
/// A year: the bound of `max-time`.
const LONGEST: f64 = 31_557_600.0;

/// What can be said about a failure; fields of the filter begin with `F-`.
const TAGS: [&str; 11] = [
    "ip", "fid", "ip-rev", "family", "time", "matches", "failures", "bantime", "bancount",
    "restored", "br",
];

/// The first tag of a command that nobody fills in.
pub(super) fn unknown_tag(command: &str) -> Option<&str> {
    tags(command).find(|tag| !(TAGS.contains(tag) || *tag == "sp" || tag.starts_with("F-")))
}

impl Jail<'_, '_> {
    /// The command, with tags that are known. One with others is not run: the shell would take `<x>` for files.
    pub(super) fn ignore_command(
        &mut self,
        filter: Option<&FilterFiles>,
    ) -> Result<Option<String>, Refused> {
        let Some(text) = self.set("ignorecommand", filter)? else { return Ok(None) };
        let command = text.as_str().trim().to_owned();
        match unknown_tag(&command) {
            None => Ok(Some(command)),
            Some(tag) => {
                let what = format!("`ignorecommand`: `<{tag}>` is not known here");
                let known: Vec<String> = TAGS.iter().map(|tag| format!("`<{tag}>`")).collect();
                let remedy = format!("known are {}, and `<F-…>`", known.join(", "));
                Err(self.refuse(text.outermost(0..text.len()), what, &remedy))
            }
        }
    }

    /// `key="<ip>", max-count=100, max-time=5m`.
    pub(super) fn ignore_cache(
        &mut self,
        filter: Option<&FilterFiles>,
    ) -> Result<Option<IgnoreCache>, Refused> {
        let Some(text) = self.set("ignorecache", filter)? else { return Ok(None) };
        const REMEDY: &str = "write it as `key=\"<ip>\", max-count=100, max-time=5m`";
        let call = Text::new(&format!("cache[{}]", text.as_str()), text.place());
        let call = params::read(&call).map_err(|error| {
            self.refuse(text.place(), format!("`ignorecache`: {error}"), REMEDY)
        })?;
        let (key, count, time) =
            (call.params.get("key"), call.params.get("max-count"), call.params.get("max-time"));
        let Some(key) = key else {
            return Err(self.refuse(text.place(), "`ignorecache` has no `key`", REMEDY));
        };
        let max_count =
            self.number_of("max-count of ignorecache", count.cloned(), MAX_COUNT, 1..=MOST_COUNT);
        let max_time = match time.map(|time| span::seconds(time.as_str())) {
            None => MAX_TIME,
            Some(Ok(seconds)) if (0.0..=LONGEST).contains(&seconds) => {
                Duration::from_secs_f64(seconds)
            }
            Some(_) => {
                let what = "`max-time` of `ignorecache` is no usable time";
                return Err(self.refuse(text.place(), what, REMEDY));
            }
        };
        Ok(Some(IgnoreCache { key: key.as_str().to_owned(), max_count, max_time }))
    }

    fn set(&mut self, option: &str, filter: Option<&FilterFiles>) -> Result<Option<Text>, Refused> {
        Ok(self.text(option, filter)?.filter(|text| !text.as_str().trim().is_empty()))
    }
}

/// What stands between `<` and `>` without a blank.
fn tags(text: &str) -> impl Iterator<Item = &str> {
    text.split('<').skip(1).filter_map(|piece| {
        let (tag, _) = piece.split_once('>')?;
        (!tag.is_empty() && !tag.contains(char::is_whitespace)).then_some(tag)
    })
}
