//! `get JAIL …` and `set JAIL …`.
use super::{Fault, Words, asked, integer, word};
use crate::config::Value;

/// Options of a jail that hold one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Single {
    /// `ignoreself`
    IgnoreSelf,
    /// `ignorecommand`
    IgnoreCommand,
    /// `ignorecache`
    IgnoreCache,
    /// `logencoding`
    LogEncoding,
    /// `prefregex`
    PrefRegex,
    /// `usedns`
    UseDns,
    /// `findtime`
    FindTime,
    /// `datepattern`
    DatePattern,
    /// `logtimezone`
    LogTimeZone,
    /// `maxmatches`
    MaxMatches,
    /// `maxretry`
    MaxRetry,
    /// `maxlines`
    MaxLines,
    /// `bantime`
    BanTime,
    /// `bantime.NAME`
    BanTimeExtra(String),
}

impl Single {
    fn named(name: &str) -> Option<Single> {
        Some(match name {
            "ignoreself" => Single::IgnoreSelf,
            "ignorecommand" => Single::IgnoreCommand,
            "ignorecache" => Single::IgnoreCache,
            "logencoding" => Single::LogEncoding,
            "prefregex" => Single::PrefRegex,
            "usedns" => Single::UseDns,
            "findtime" => Single::FindTime,
            "datepattern" => Single::DatePattern,
            "logtimezone" => Single::LogTimeZone,
            "maxmatches" => Single::MaxMatches,
            "maxretry" => Single::MaxRetry,
            "maxlines" => Single::MaxLines,
            "bantime" => Single::BanTime,
            _ => Single::BanTimeExtra(name.strip_prefix("bantime.")?.to_owned()),
        })
    }

    fn is_number(&self) -> bool {
        matches!(self, Single::MaxMatches | Single::MaxRetry | Single::MaxLines)
    }
}

/// Options of a jail that are lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// `ignoreip`
    IgnoreIp,
    /// `logpath`
    LogPath,
    /// `journalmatch`
    JournalMatch,
    /// `failregex`
    FailRegex,
    /// `ignoreregex`
    IgnoreRegex,
}

impl Listed {
    fn named(name: &str) -> Option<Listed> {
        Some(match name {
            "ignoreip" => Listed::IgnoreIp,
            "logpath" => Listed::LogPath,
            "journalmatch" => Listed::JournalMatch,
            "failregex" => Listed::FailRegex,
            "ignoreregex" => Listed::IgnoreRegex,
            _ => return None,
        })
    }
}

/// What can be asked of a jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Get {
    /// One value.
    Single(Single),
    /// A list.
    Listed(Listed),
    /// `banned [ID…]`
    Banned(Vec<String>),
    /// `banip [SEPARATOR|--with-time]`; the client writes the separator.
    BanIp {
        /// With since when, how long and until when.
        with_time: bool,
    },
    /// `actions`
    Actions,
    /// `action ACTION PROPERTY`
    Action {
        /// The action.
        action: String,
        /// Of which this is asked.
        property: String,
    },
    /// `actionproperties ACTION`
    ActionProperties(String),
    /// `actionmethods ACTION`
    ActionMethods(String),
}

impl Get {
    pub(super) fn read(words: Words<'_>) -> Result<Get, Fault> {
        let name = words.text(0)?;
        if let Some(option) = Single::named(&name) {
            return Ok(Get::Single(option));
        }
        if let Some(option) = Listed::named(&name) {
            return Ok(Get::Listed(option));
        }
        Ok(match name.as_str() {
            "banned" => Get::Banned(asked(words)?),
            "banip" => {
                Get::BanIp { with_time: words.text(1).is_ok_and(|word| word == "--with-time") }
            }
            "actions" => Get::Actions,
            "action" => Get::Action { action: words.text(1)?, property: words.text(2)? },
            "actionproperties" => Get::ActionProperties(words.text(1)?),
            "actionmethods" => Get::ActionMethods(words.text(1)?),
            _ => {
                return Err(Fault::plain("Invalid command (no get action or not yet implemented)"));
            }
        })
    }
}

/// What can be done to a jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// `idle on|off`
    Idle(bool),
    /// A new value.
    Single(Single, String),
    /// `addignoreip X…`, `addjournalmatch TERM…`, `addfailregex R`, `addignoreregex R`
    Add(Listed, Vec<String>),
    /// `delignoreip X`, `dellogpath F`, `deljournalmatch TERM…`
    Remove(Listed, Vec<String>),
    /// `delfailregex N`, `delignoreregex N`; a negative one counts from the end.
    RemoveNth(Listed, i64),
    /// `addlogpath F [tail|head]`
    AddLogPath {
        /// The file.
        path: String,
        /// Begin at its end.
        tail: bool,
    },
    /// `attempt ID [LINE…]`
    Attempt {
        /// Who failed.
        id: String,
        /// What is told of it.
        lines: Vec<String>,
    },
    /// `banip [--force] ID…`
    BanIp {
        /// Whom.
        ids: Vec<String>,
        /// Also what the allow list spares.
        force: bool,
    },
    /// `unbanip [--report-absent] ID…`
    UnbanIp {
        /// Whom.
        ids: Vec<String>,
        /// Who was not banned is a fault.
        report_absent: bool,
    },
    /// `addaction NAME [FILE JSON]`
    AddAction {
        /// Its name.
        name: String,
        /// A file with Python follows.
        is_python: bool,
    },
    /// `delaction NAME`
    DeleteAction(String),
    /// `action ACTION PROPERTY VALUE`, or a method of that name with its arguments.
    Action {
        /// The action.
        action: String,
        /// What is set or called.
        property: String,
        /// What it becomes, or the arguments; `None` where nothing follows.
        value: Option<String>,
    },
}

impl Set {
    pub(super) fn read(words: Words<'_>) -> Result<Set, Fault> {
        let name = words.text(0)?;
        if let Some(option) = Single::named(&name) {
            let value = words.at(1)?;
            let value = if option.is_number() { integer(value)?.to_string() } else { word(value) };
            return Ok(Set::Single(option, value));
        }
        Ok(match name.as_str() {
            "idle" => match words.text(1)?.as_str() {
                "on" => Set::Idle(true),
                "off" => Set::Idle(false),
                _ => {
                    return Err(Fault::plain("Invalid idle option, must be 'on' or 'off'"));
                }
            },
            "addlogpath" => add_log_path(words)?,
            "addignoreip" => Set::Add(Listed::IgnoreIp, words.texts(1)),
            "delignoreip" => Set::Remove(Listed::IgnoreIp, vec![words.text(1)?]),
            "dellogpath" => Set::Remove(Listed::LogPath, vec![words.text(1)?]),
            "addjournalmatch" => Set::Add(Listed::JournalMatch, words.texts(1)),
            "deljournalmatch" => Set::Remove(Listed::JournalMatch, words.texts(1)),
            "addfailregex" => Set::Add(Listed::FailRegex, vec![words.text(1)?]),
            "delfailregex" => Set::RemoveNth(Listed::FailRegex, integer(words.at(1)?)?),
            "addignoreregex" => Set::Add(Listed::IgnoreRegex, vec![words.text(1)?]),
            "delignoreregex" => Set::RemoveNth(Listed::IgnoreRegex, integer(words.at(1)?)?),
            "attempt" => Set::Attempt { id: attempted(words)?, lines: words.texts(2) },
            "banip" => {
                let force = words.text(1).is_ok_and(|word| word == "--force");
                Set::BanIp { ids: words.texts(1 + usize::from(force)), force }
            }
            "unbanip" => {
                let report_absent = words.text(1)? == "--report-absent";
                Set::UnbanIp { ids: words.texts(1 + usize::from(report_absent)), report_absent }
            }
            "addaction" => {
                Set::AddAction { name: words.text(1)?, is_python: words.text(2).is_ok() }
            }
            "delaction" => Set::DeleteAction(words.text(1)?),
            "action" => Set::Action {
                action: words.text(1)?,
                property: words.text(2)?,
                value: words.text(3).ok(),
            },
            _ => {
                let name = Value::from(name.as_str());
                return Err(Fault::plain(format!(
                    "Invalid command {name} (no set action or not yet implemented)"
                )));
            }
        })
    }
}

fn add_log_path(words: Words<'_>) -> Result<Set, Fault> {
    let path = words.text(1)?;
    let tail = match words.texts(2).as_slice() {
        [] => false,
        [end] if end.eq_ignore_ascii_case("tail") => true,
        [end] if end.eq_ignore_ascii_case("head") => false,
        [_] => return Err(Fault::value("File option must be 'head' or 'tail'")),
        _ => return Err(Fault::value("Only one file can be added at a time")),
    };
    Ok(Set::AddLogPath { path, tail })
}

fn attempted(words: Words<'_>) -> Result<String, Fault> {
    words.text(1).map_err(|_| Fault::plain("`attempt` needs an address"))
}
