//! `get JAIL OPTION`.
use std::path::Path;

use super::{Daemon, Fault, texts};
use crate::{
    config::{
        BanTime, FilterSettings, Ignore, JailName, JailSettings, Located, LogPath, SourceSettings,
        UseDns, Value,
    },
    control::command::{Listed, Single},
    engine::{date_in_words, expand_tags},
    source::FileState,
};

impl Daemon {
    pub(super) async fn get_single(
        &mut self,
        jail: &JailName,
        option: &Single,
    ) -> Result<Value, Fault> {
        match option {
            Single::IgnoreCommand => {
                let command = self.spoken().await.option(jail, "ignorecommand");
                return Ok(command.cloned().unwrap_or(false.into()));
            }
            Single::IgnoreCache => return Ok(self.spoken().await.ignore_cache(jail)),
            Single::BanTimeExtra(name) => {
                return Ok(self.spoken().await.ban_time_extra(jail, name));
            }
            Single::LogEncoding => {
                let written = self.spoken().await.option(jail, "logencoding");
                let named = written.filter(
                    |name| matches!(name, Value::Text(name) if !name.is_empty() && name != "auto"),
                );
                return Ok(named.cloned().unwrap_or_else(|| "UTF-8".into()));
            }
            _ => {}
        }
        let jail = self.jail_settings(jail.as_str())?;
        let filter = &jail.filter;
        Ok(match option {
            Single::IgnoreSelf => jail.ignore_self.into(),
            Single::PrefRegex => {
                let regex = filter.prefregex.as_ref();
                regex.map_or_else(String::new, |regex| expanded(regex, filter)).into()
            }
            Single::UseDns => match filter.use_dns {
                UseDns::No => "no",
                UseDns::Yes => "yes",
                UseDns::Warn => "warn",
                UseDns::Raw => "raw",
            }
            .into(),
            Single::FindTime => seconds(jail.find_time.as_secs_f64()),
            Single::DatePattern => date_pattern(jail),
            Single::LogTimeZone => {
                let zone = filter.time_zone.as_ref();
                zone.map_or(Value::Nothing, |zone| zone.value.as_str().into())
            }
            Single::MaxMatches => i64::from(jail.max_matches).into(),
            Single::MaxRetry => i64::from(jail.max_retry).into(),
            Single::MaxLines => i64::from(filter.max_lines).into(),
            Single::BanTime => match jail.ban_time {
                BanTime::Permanent => (-1).into(),
                BanTime::Seconds(seconds) => i64::from(seconds).into(),
            },
            Single::IgnoreCommand
            | Single::IgnoreCache
            | Single::BanTimeExtra(_)
            | Single::LogEncoding => Value::Nothing,
        })
    }

    pub(super) fn get_listed(&self, name: &JailName, option: Listed) -> Result<Value, Fault> {
        let jail = self.jail_settings(name.as_str())?;
        let regexes = |regexes: &[Located<String>]| {
            texts(regexes.iter().map(|regex| expanded(regex, &jail.filter)))
        };
        Ok(match option {
            Listed::IgnoreIp => {
                // Single addresses come last, as in fail2ban.
                let (single, others): (Vec<_>, Vec<_>) = jail.ignore.iter().partition(|ignore| {
                    matches!(ignore.value, Ignore::Net(net) if net.prefix_len() == net.max_prefix_len())
                });
                texts(others.into_iter().chain(single).map(ignored))
            }
            Listed::LogPath => self.log_paths(name),
            Listed::JournalMatch => self.journal_matches(name),
            Listed::FailRegex => regexes(&jail.filter.failregex),
            Listed::IgnoreRegex => regexes(&jail.filter.ignoreregex),
        })
    }

    /// The log files that a jail reads, in the order in which it names them: what it waits for is none yet.
    pub(super) fn log_paths(&self, name: &JailName) -> Value {
        let jail = self.settings.jails.iter().find(|jail| jail.name == *name);
        let (paths, auto) = match jail.map(|jail| &jail.source) {
            Some(SourceSettings::Files { paths, .. }) => (paths, false),
            Some(SourceSettings::Auto { paths, .. }) => (paths, true),
            _ => return texts::<Value>([]),
        };
        let mut sources = self.readers.iter().flat_map(|readers| readers.sources());
        let known = sources.find(|source| source.jail == *name).map_or(Vec::new(), |it| it.files);
        // It has chosen the journal, or nothing yet.
        if auto && known.is_empty() {
            return texts::<Value>([]);
        }
        let mut read: Vec<String> = Vec::new();
        for LogPath { pattern, .. } in paths {
            let is_it = |path: &Path| {
                path == Path::new(pattern)
                    || glob::Pattern::new(pattern).is_ok_and(|it| it.matches_path(path))
            };
            let mut found = false;
            for (path, state) in known.iter().filter(|(path, _)| is_it(path)) {
                found = true;
                let path = path.display().to_string();
                if *state != FileState::Waiting && !read.contains(&path) {
                    read.push(path);
                }
            }
            // Readers that have just begun, or an idle jail's, have not told yet.
            if !found && Path::new(pattern).exists() {
                read.push(pattern.clone());
            }
        }
        texts(read)
    }

    /// The groups of `journalmatch` of a jail that reads the journal.
    pub(super) fn journal_matches(&self, name: &JailName) -> Value {
        let jail = self.settings.jails.iter().find(|jail| jail.name == *name);
        match jail.map(|jail| &jail.source) {
            Some(SourceSettings::Journal(journal) | SourceSettings::Auto { journal, .. }) => {
                let groups = journal.matches.iter();
                Value::List(groups.map(|terms| texts(terms.iter().map(String::as_str))).collect())
            }
            _ => texts::<Value>([]),
        }
    }
}

/// Whole seconds without a point.
pub(super) fn seconds(seconds: f64) -> Value {
    Value::Number(if seconds.fract() == 0.0 {
        format!("{seconds:.0}")
    } else {
        format!("{seconds:?}")
    })
}

fn expanded(regex: &Located<String>, filter: &FilterSettings) -> String {
    expand_tags(&regex.value, filter.use_dns)
}

fn ignored(ignore: &Located<Ignore>) -> String {
    match &ignore.value {
        Ignore::Net(net) => crate::app::act::shown(*net),
        Ignore::Name(name) => name.clone(),
    }
}

fn date_pattern(jail: &JailSettings) -> Value {
    match (&jail.source, jail.filter.date_patterns.as_slice()) {
        (SourceSettings::Journal(_), _) => Value::Nothing,
        // What fail2ban makes of it.
        (_, [pattern]) if pattern.value == "{NONE}" => {
            Value::Tuple(vec!["{UNB}^".into(), "^".into()])
        }
        (_, [pattern] | [pattern, _]) if !is_default(&pattern.value) => {
            Value::Tuple(vec![pattern.value.as_str().into(), date_in_words(&pattern.value).into()])
        }
        _ => Value::Tuple(vec![Value::Nothing, "Default Detectors".into()]),
    }
}

/// Whether the entry stands for many templates.
fn is_default(pattern: &str) -> bool {
    matches!(pattern.to_ascii_uppercase().as_str(), "{^LN-BEG}" | "{DEFAULT}")
}
