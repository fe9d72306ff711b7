//! `set JAIL OPTION …`: the running engine and the readers go by it at once.
use std::{net::IpAddr, time::Duration};

use jiff::tz::TimeZone;

use super::{Daemon, Fault, texts};
use crate::{
    app::act::{FILTER, local, name_of, say},
    config::{self, IgnoreCache, JailName, JailSettings, Located, SourceSettings, UseDns, Value},
    control::{
        Refusal,
        command::{Class, Listed, Single},
        wire,
    },
    engine::{Event, FailureId, FilterError, Finding, Matcher, Timestamp},
};

/// What has to begin anew after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anew {
    /// Counting alone.
    Counting,
    /// The readers, too: what they match or read has changed.
    Reading,
}

/// Bounds of what can be set, as in the configuration.
const MOST_MATCHES: u32 = 1000;

fn written(text: &str) -> Located<String> {
    Located { value: text.to_owned(), place: None }
}

fn lines(text: &str) -> Vec<Located<String>> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(written).collect()
}

/// The regexes of an option that is a list of them.
fn regexes(jail: &mut JailSettings, option: Listed) -> Option<&mut Vec<Located<String>>> {
    match option {
        Listed::FailRegex => Some(&mut jail.filter.failregex),
        Listed::IgnoreRegex => Some(&mut jail.filter.ignoreregex),
        _ => None,
    }
}

/// `yes`, `true`, `on` or `1`, as Python's fail2ban has it.
pub(super) fn is_true(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "1" | "on" | "true" | "yes")
}

impl Daemon {
    /// Changes a jail's settings, and what goes by them.
    async fn change(
        &mut self,
        name: &JailName,
        anew: Anew,
        change: impl FnOnce(&mut JailSettings) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(at) = self.settings.jails.iter().position(|jail| jail.name == *name) else {
            return Err(Fault::no_jail(name.as_str()));
        };
        let mut changed = self.settings.jails[at].clone();
        change(&mut changed)?;
        if changed == self.settings.jails[at] {
            return Ok(());
        }
        self.settings.jails[at] = changed;
        if anew == Anew::Reading {
            self.read_anew().await;
        }
        self.count_anew();
        Ok(())
    }

    pub(super) async fn set_single(
        &mut self,
        jail: &JailName,
        option: &Single,
        value: &str,
    ) -> Result<Value, Fault> {
        let counting = match option {
            Single::IgnoreSelf
            | Single::FindTime
            | Single::MaxMatches
            | Single::MaxRetry
            | Single::BanTime => Anew::Counting,
            Single::IgnoreCache => {
                let cache = config::ignore_cache(value).map(|(key, most, seconds)| IgnoreCache {
                    key,
                    max_count: u32::try_from(most).unwrap_or(1).max(1),
                    max_time: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
                });
                self.change(jail, Anew::Counting, |jail| {
                    jail.ignore_cache = cache;
                    Ok(())
                })
                .await?;
                self.spoken().await.put(jail, "ignorecache", value);
                return self.get_single(jail, option).await;
            }
            Single::IgnoreCommand => {
                let command = config::ignore_command(value).map_err(Fault::value)?;
                self.change(jail, Anew::Counting, |jail| {
                    jail.ignore_command = command;
                    Ok(())
                })
                .await?;
                self.spoken().await.set(jail, "ignorecommand", value);
                return self.get_single(jail, option).await;
            }
            Single::BanTimeExtra(name) => return self.set_ban_time_extra(jail, name, value).await,
            _ => Anew::Reading,
        };
        self.change(jail, counting, |jail| put(jail, option, value)).await?;
        if *option == Single::LogEncoding {
            // Shown as it was written, which is one of many names for it.
            self.spoken().await.put(jail, "logencoding", value);
        }
        self.get_single(jail, option).await
    }

    async fn set_ban_time_extra(
        &mut self,
        jail: &JailName,
        name: &str,
        value: &str,
    ) -> Result<Value, Fault> {
        let mut extras = self.spoken().await.ban_time_extras(jail);
        extras.retain(|(known, _)| known != name);
        if !value.is_empty() {
            extras.push((name.to_owned(), value.to_owned()));
        }
        let increment = config::increment(&extras).map_err(|problem| Fault::value(problem.what))?;
        self.change(jail, Anew::Counting, |jail| {
            jail.increment = increment;
            Ok(())
        })
        .await?;
        let spoken = self.spoken().await;
        spoken.put(jail, &format!("bantime.{name}"), value);
        Ok(spoken.ban_time_extra(jail, name))
    }

    pub(super) async fn add_to(
        &mut self,
        name: &JailName,
        option: Listed,
        values: &[String],
    ) -> Result<Value, Fault> {
        match option {
            Listed::IgnoreIp => {
                let mut more = Vec::new();
                for word in values.iter().filter(|word| !word.is_empty()) {
                    more.push(
                        config::ignored(word).map_err(|error| Fault::value(error.to_string()))?,
                    );
                }
                self.change(name, Anew::Counting, |jail| {
                    for ignore in more {
                        if jail.ignore.iter().all(|known| known.value != ignore) {
                            jail.ignore.push(Located { value: ignore, place: None });
                        }
                    }
                    Ok(())
                })
                .await?;
            }
            Listed::JournalMatch => {
                let groups = config::journal_matches(values).map_err(Fault::value)?;
                return self
                    .change_matches(name, |journal| {
                        journal.matches.extend(groups);
                        Ok(())
                    })
                    .await;
            }
            Listed::FailRegex | Listed::IgnoreRegex => {
                self.change(name, Anew::Reading, |jail| {
                    for regex in values {
                        if let Some(regexes) = regexes(jail, option) {
                            regexes.push(written(regex));
                        }
                        check(jail, option)?;
                    }
                    Ok(())
                })
                .await?;
            }
            Listed::LogPath => {}
        }
        self.get_listed(name, option)
    }

    pub(super) async fn remove_from(
        &mut self,
        name: &JailName,
        option: Listed,
        values: &[String],
    ) -> Result<Value, Fault> {
        match option {
            Listed::LogPath => {
                self.remove_log_path(name, values.first().map_or("", String::as_str)).await
            }
            Listed::JournalMatch => {
                self.change_matches(name, |journal| {
                    let is = |terms: &Vec<String>| *terms == values;
                    match journal.matches.iter().position(is) {
                        Some(at) => drop(journal.matches.remove(at)),
                        None => {
                            let values = texts(values.iter().map(String::as_str));
                            return Err(Fault::value(format!("Match {values} not found")));
                        }
                    }
                    Ok(())
                })
                .await
            }
            _ => {
                let word = values.first().map_or("", String::as_str);
                let absent = || Fault::value("list.remove(x): x not in list");
                let ignore = config::ignored(word).map_err(|_| absent())?;
                self.change(name, Anew::Counting, |jail| {
                    let at = jail.ignore.iter().position(|known| known.value == ignore);
                    jail.ignore.remove(at.ok_or_else(absent)?);
                    Ok(())
                })
                .await?;
                self.get_listed(name, option)
            }
        }
    }

    /// A number that is none of the list's changes nothing.
    pub(super) async fn remove_nth(
        &mut self,
        name: &JailName,
        option: Listed,
        nth: i64,
    ) -> Result<Value, Fault> {
        self.change(name, Anew::Reading, |jail| {
            if let Some(regexes) = regexes(jail, option) {
                let at = if nth < 0 { nth + regexes.len() as i64 } else { nth };
                match usize::try_from(at).ok().filter(|at| *at < regexes.len()) {
                    Some(at) => drop(regexes.remove(at)),
                    None => tracing::error!("there is no regular expression number {nth}"),
                }
            }
            Ok(())
        })
        .await?;
        self.get_listed(name, option)
    }

    pub(super) fn ban_ids(
        &mut self,
        jail: &JailName,
        ids: &[String],
        force: bool,
    ) -> Result<Value, Refusal> {
        let prefixes = ids
            .iter()
            .map(|id| config::network(id).map_err(|error| Fault::value(error.to_string())));
        let prefixes: Vec<_> = prefixes.collect::<Result<_, Fault>>()?;
        match self.ban(&prefixes, Some(jail.to_string()), None, force)? {
            wire::Reply::Made(made) => Ok((made.banned as i64).into()),
            _ => Ok(0.into()),
        }
    }

    /// Lifts bans, of one jail or of all; how many, and who was not banned.
    pub(super) fn unban(
        &mut self,
        ids: &[String],
        jail: Option<&JailName>,
    ) -> (Value, Vec<String>) {
        let (mut lifted, mut absent) = (0, Vec::new());
        for id in ids {
            let changed = match config::network(id) {
                Ok(prefix) => self.event(Event::Unban { prefix, jail: jail.cloned() }).changed,
                Err(_) => 0,
            };
            if changed == 0 {
                absent.push(id.clone());
            }
            lifted += changed as i64;
        }
        (lifted.into(), absent)
    }

    /// Counts a failure that no log tells of; 0 when the jail spares the address.
    pub(super) fn attempt(
        &mut self,
        jail: &JailName,
        id: &str,
        lines: Vec<String>,
    ) -> Result<Value, Refusal> {
        let who = match (id.parse::<IpAddr>(), config::network(id)) {
            (Ok(address), _) => FailureId::Address(address.to_canonical()),
            (Err(_), Ok(net)) => FailureId::Network(net),
            (_, Err(error)) => return Err(Fault::value(error.to_string()).into()),
        };
        let at = (self.clock)();
        let failed = |daemon: &Daemon| daemon.engine.jail(jail).map_or(0, |it| it.totals().failed);
        let before = failed(self);
        let mut lines: Vec<Vec<Box<str>>> =
            lines.into_iter().map(|line| vec![line.into()]).collect();
        if lines.is_empty() {
            lines.push(Vec::new());
        }
        let (shown, time) = (name_of(&who), local(at));
        say!(FILTER, info, "attempt", jail, shown, "Attempt {shown} - {time}");
        self.told.attempts = true;
        let carried = self.attempt_each(jail, &who, at, lines);
        self.told.attempts = false;
        carried?;
        Ok(i64::from(failed(self) > before).into())
    }

    fn attempt_each(
        &mut self,
        jail: &JailName,
        who: &FailureId,
        at: Timestamp,
        lines: Vec<Vec<Box<str>>>,
    ) -> Result<(), Refusal> {
        for lines in lines {
            let finding = Finding {
                jail: jail.clone(),
                who: who.clone(),
                at,
                lines,
                rule: 0,
                fields: Vec::new(),
            };
            let carried = self.event(Event::Finding(finding));
            if let Some(error) = carried.refused {
                return Err(Refusal::Failed(error.to_string()));
            }
        }
        Ok(())
    }
}

/// Sets one value; refused in fail2ban's words where it has some.
fn put(jail: &mut JailSettings, option: &Single, value: &str) -> Result<(), Fault> {
    let number = |least: u32, most: u32| {
        let number = value.parse::<i64>().unwrap_or(i64::from(least));
        u32::try_from(number.clamp(least.into(), most.into())).unwrap_or(least)
    };
    match option {
        Single::IgnoreSelf => jail.ignore_self = is_true(value),
        Single::MaxMatches => jail.max_matches = number(0, MOST_MATCHES),
        Single::MaxRetry => jail.max_retry = number(1, u32::MAX),
        Single::MaxLines => {
            if value.starts_with('-') || value == "0" {
                return Err(Fault::value("maxlines must be integer greater than zero"));
            }
            jail.filter.max_lines = number(1, crate::engine::MAX_LINES);
        }
        Single::FindTime => {
            let seconds =
                config::seconds(value).map_err(|error| Fault::value(error.to_string()))?;
            let time = Duration::try_from_secs_f64(seconds);
            jail.find_time =
                time.map_err(|_| Fault::value(format!("{value} is no time to look back")))?;
        }
        Single::BanTime => {
            jail.ban_time =
                config::ban_time(value).map_err(|error| Fault::value(error.to_string()))?;
        }
        Single::UseDns => {
            jail.filter.use_dns = match value.to_lowercase().as_str() {
                "yes" => UseDns::Yes,
                "warn" => UseDns::Warn,
                "raw" => UseDns::Raw,
                "no" => UseDns::No,
                other => {
                    tracing::error!("`usedns = {other}` is none; `no` is used");
                    UseDns::No
                }
            };
        }
        Single::LogEncoding => {
            let name = config::encoding(value)
                .ok_or_else(|| Fault::new(Class::Lookup, format!("unknown encoding: {value}")))?;
            if let SourceSettings::Files { encoding, .. } | SourceSettings::Auto { encoding, .. } =
                &mut jail.source
            {
                *encoding = name;
            }
        }
        Single::PrefRegex => {
            jail.filter.prefregex = Some(written(value)).filter(|regex| !regex.value.is_empty());
            whole(jail)?;
        }
        Single::DatePattern => {
            jail.filter.date_patterns = lines(value);
            whole(jail)?;
        }
        Single::LogTimeZone => {
            jail.filter.time_zone = Some(written(value)).filter(|zone| !zone.value.is_empty());
            whole(jail)?;
        }
        Single::IgnoreCommand | Single::IgnoreCache | Single::BanTimeExtra(_) => {}
    }
    Ok(())
}

/// Whether the filter's new parts can be used.
fn whole(jail: &JailSettings) -> Result<(), Fault> {
    let (_, faults) = Matcher::new(jail, TimeZone::system());
    let concerns = |fault: &&FilterError| {
        matches!(
            fault,
            FilterError::Prefix { .. } | FilterError::Date { .. } | FilterError::Zone { .. }
        )
    };
    match faults.iter().find(concerns) {
        Some(FilterError::Zone { zone, .. }) => {
            Err(Fault::value(format!("Unknown or unsupported time zone: '{zone}'")))
        }
        Some(fault) => Err(Fault::value(fault.to_string())),
        None => Ok(()),
    }
}

/// Whether the last regex of a list can be used.
fn check(jail: &mut JailSettings, option: Listed) -> Result<(), Fault> {
    let (_, faults) = Matcher::new(jail, TimeZone::system());
    let Some(regexes) = regexes(jail, option) else { return Ok(()) };
    let (last, text) = (regexes.len() - 1, regexes[regexes.len() - 1].value.clone());
    for fault in faults {
        match fault {
            FilterError::Nobody { nth, .. } if nth == last && option == Listed::FailRegex => {
                return Err(Fault::plain(format!("No failure-id group in '{text}'")));
            }
            FilterError::Fail { nth, source, .. } if nth == last && option == Listed::FailRegex => {
                return Err(unusable(&text, &source));
            }
            FilterError::Ignore { nth, source, .. }
                if nth == last && option == Listed::IgnoreRegex =>
            {
                return Err(unusable(&text, &source));
            }
            _ => {}
        }
    }
    Ok(())
}

fn unusable(regex: &str, why: &impl std::fmt::Display) -> Fault {
    Fault::plain(format!("Unable to compile regular expression '{regex}':\n{why}"))
}
