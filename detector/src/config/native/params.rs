//! The parameters of a native action while they are read.
use std::time::Duration;

use super::{NativeFault, Secret};
use crate::config::{options, span};

/// Parameters that every action has.
const ALWAYS: [&str; 2] = ["name", "actname"];
/// Longest value that is looked at, in bytes; templates are the longest.
const LONGEST_VALUE: usize = 64 << 10;

/// What was written. Who reads one asks for it by its name; what nobody has asked for is a slip.
pub(super) struct Params<'a> {
    written: &'a [(String, Secret)],
    asked: Vec<&'static str>,
    faults: Vec<NativeFault>,
}

impl<'a> Params<'a> {
    pub(super) fn new(written: &'a [(String, Secret)]) -> Params<'a> {
        Params { written, asked: ALWAYS.to_vec(), faults: Vec::new() }
    }

    /// A parameter without the blanks around it; an empty one counts as none.
    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        self.asked.push(name);
        let (_, value) = self.written.iter().find(|(written, _)| written == name)?;
        let value = value.expose().trim();
        if value.len() > LONGEST_VALUE {
            self.fault(name, "it is too long", "write at most 64 KiB, or name a file");
            return None;
        }
        Some(value).filter(|value| !value.is_empty())
    }

    /// One that cannot be left out; an empty text where it is.
    pub(super) fn needed(&mut self, name: &'static str, remedy: &str) -> &'a str {
        let text = self.text(name);
        if text.is_none() {
            self.faults.push(NativeFault {
                parameter: None,
                what: format!("`{name}` is missing"),
                remedy: remedy.to_owned(),
                is_fatal: true,
            });
        }
        text.unwrap_or_default()
    }

    /// What `read` makes of a parameter; where it makes nothing of it, that is told with the remedy.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        remedy: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = read(text);
        if value.is_none() {
            self.fault(name, "it means nothing here", remedy);
        }
        value
    }

    pub(super) fn truth(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "write `yes` or `no`", |text| match text.to_ascii_lowercase().as_str() {
            "1" | "on" | "true" | "yes" => Some(true),
            "0" | "off" | "false" | "no" => Some(false),
            _ => None,
        })
    }

    pub(super) fn number(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Option<usize> {
        let remedy = format!("write a number from {} to {}", range.start(), range.end());
        self.read(name, &remedy, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// A span of time within these seconds.
    pub(super) fn span(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<Duration> {
        let words = |seconds: &u32| span::span_in_words(u64::from(*seconds));
        let (least, most) = (words(range.start()), words(range.end()));
        let remedy = format!("write a span such as `10m`, from {least} to {most}");
        self.read(name, &remedy, |text| {
            let seconds = span::seconds(text).ok()?;
            let range = f64::from(*range.start())..=f64::from(*range.end());
            range.contains(&seconds).then(|| Duration::from_secs_f64(seconds))
        })
    }

    /// The path of a file, from the root.
    pub(super) fn path(&mut self, name: &'static str) -> Option<std::path::PathBuf> {
        self.read(name, "write a whole path, as in `/etc/ssl/own.pem`", |text| {
            (text.starts_with('/') && !text.contains('\0')).then(|| text.into())
        })
    }

    /// Words between commas or blanks.
    pub(super) fn words(&mut self, name: &'static str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    /// A text in the configuration, or in a file of its own (`…_file`), that nobody is shown.
    pub(super) fn secret(
        &mut self,
        name: &'static str,
        in_file: &'static str,
    ) -> Option<super::SecretPlace> {
        let file = self.path(in_file).map(super::SecretPlace::File);
        let here = self.text(name).map(Secret::new).map(super::SecretPlace::Here);
        if file.is_some() && here.is_some() {
            self.fault(in_file, &format!("`{name}` is given as well"), "keep one of the two");
        }
        here.or(file)
    }

    /// Tells what keeps the action from being used.
    pub(super) fn fault(&mut self, name: &str, what: &str, remedy: &str) {
        self.faults.push(NativeFault {
            parameter: Some(name.to_owned()),
            what: format!("`{name}`: {what}"),
            remedy: remedy.to_owned(),
            is_fatal: true,
        });
    }

    /// All that is wrong, with the parameters that nobody has asked for.
    pub(super) fn finish(mut self) -> Vec<NativeFault> {
        for (name, _) in self.written {
            // What the others mean is known only once the preset is.
            if self.asked.contains(&name.as_str()) {
                continue;
            }
            let remedy = match options::meant(name, &self.asked) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "remove it, or correct its name".to_owned(),
            };
            let what = format!("parameter `{name}` is not known here; it is left out");
            self.faults.push(NativeFault {
                parameter: Some(name.clone()),
                what,
                remedy,
                is_fatal: false,
            });
        }
        self.faults
    }
}
