//! fail2ban's commands: words in, a typed command out. Pure; who carries them out stands elsewhere.
//!
//! What is wrong in the words alone is refused here, in the order and the words of fail2ban's server, so a jail that
//! does not exist is found out only after them.
mod fault;
mod jail;
mod text;

pub use fault::{Class, Fault};
pub use jail::{Get, Listed, Set, Single};
pub use text::text;

use crate::config::Value;

/// One command of fail2ban's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ping`
    Ping,
    /// `version`
    Version,
    /// `server-status`
    ServerStatus,
    /// `echo A B`
    Echo(Vec<Value>),
    /// `status`
    Status,
    /// `status JAIL [FLAVOR]`
    JailStatus {
        /// The jail.
        jail: String,
        /// How much of it.
        flavor: Flavor,
    },
    /// `status --all [FLAVOR]`
    AllStatus(Flavor),
    /// `stats`: every jail's counts.
    Stats,
    /// `banned [ID…]`; without one: everybody, by jail.
    Banned(Vec<String>),
    /// `unban ID…`
    Unban(Vec<String>),
    /// `unban --all`
    UnbanAll,
    /// `flushlogs`
    FlushLogs,
    /// `sleep SECONDS`, in milliseconds.
    Sleep(u64),
    /// `config-error TEXT`
    ConfigError(String),
    /// `reload …`
    Reload(Reload),
    /// `stop`
    Stop,
    /// `stop --all`
    StopAll,
    /// `stop JAIL`
    StopJail(String),
    /// `start JAIL`
    StartJail(String),
    /// `add JAIL [BACKEND]`
    Add {
        /// The new jail.
        jail: String,
        /// Where it reads.
        backend: String,
    },
    /// `get OPTION`
    GetServer(Server),
    /// `set OPTION VALUE`
    SetServer(Server, Value),
    /// `get JAIL …`
    Get {
        /// The jail.
        jail: String,
        /// What of it.
        what: Get,
    },
    /// `set JAIL …`
    Set {
        /// The jail.
        jail: String,
        /// What of it.
        what: Set,
    },
}

/// How much `status JAIL` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Everything but what asks the network.
    Basic,
    /// Without the list of addresses.
    Short,
    /// With who announces the addresses, as Team Cymru tells it.
    Cymru,
}

/// What `reload` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Only this jail.
    pub jail: Option<String>,
    /// Stop the jails first: what they counted is forgotten.
    pub restart: bool,
    /// Lift their bans first.
    pub unban: bool,
    /// A jail that does not run is no mistake.
    pub if_exists: bool,
}

/// Options of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `loglevel`
    LogLevel,
    /// `logtarget`
    LogTarget,
    /// `syslogsocket`
    SyslogSocket,
    /// `allowipv6`; can only be set.
    AllowIpv6,
    /// `thread`
    Thread,
    /// `dbfile`
    DbFile,
    /// `dbmaxmatches`
    DbMaxMatches,
    /// `dbpurgeage`
    DbPurgeAge,
}

impl Server {
    fn named(name: &str) -> Option<Server> {
        Some(match name {
            "loglevel" => Server::LogLevel,
            "logtarget" => Server::LogTarget,
            "syslogsocket" => Server::SyslogSocket,
            "allowipv6" => Server::AllowIpv6,
            "thread" => Server::Thread,
            "dbfile" => Server::DbFile,
            "dbmaxmatches" => Server::DbMaxMatches,
            "dbpurgeage" => Server::DbPurgeAge,
            _ => return None,
        })
    }
}

/// The words of a command, of which some may be missing.
#[derive(Clone, Copy)]
struct Words<'a>(&'a [Value]);

impl<'a> Words<'a> {
    fn at(self, nth: usize) -> Result<&'a Value, Fault> {
        self.0.get(nth).ok_or_else(Fault::too_short)
    }

    fn text(self, nth: usize) -> Result<String, Fault> {
        Ok(word(self.at(nth)?))
    }

    fn texts(self, from: usize) -> Vec<String> {
        self.0.iter().skip(from).map(word).collect()
    }

    fn rest(self, from: usize) -> Words<'a> {
        Words(self.0.get(from..).unwrap_or_default())
    }
}

/// A value where a word is expected.
fn word(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A whole number, as Python reads one.
fn integer(value: &Value) -> Result<i64, Fault> {
    let text = word(value);
    let number = match Value::number(&text) {
        Value::Number(digits) => digits.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        let text = Value::from(text.as_str());
        Fault::value(format!("invalid literal for int() with base 10: {text}"))
    })
}

impl Command {
    /// Reads a command.
    ///
    /// # Errors
    /// What fail2ban's server answers to words that make no command.
    pub fn read(words: &[Value]) -> Result<Command, Fault> {
        let words = Words(words);
        Ok(match words.text(0)?.as_str() {
            "ping" => Command::Ping,
            "version" => Command::Version,
            "server-status" => Command::ServerStatus,
            "echo" => Command::Echo(words.0[1..].to_vec()),
            "status" => status(words)?,
            "stats" | "statistic" | "statistics" => Command::Stats,
            "banned" => Command::Banned(asked(words)?),
            "unban" if words.0.len() > 1 => match words.texts(1) {
                ids if ids == ["--all"] => Command::UnbanAll,
                ids => Command::Unban(ids),
            },
            "flushlogs" => Command::FlushLogs,
            "sleep" => sleep(words.at(1)?)?,
            "config-error" => Command::ConfigError(words.text(1)?),
            "reload" => Command::Reload(reload(words.rest(1))?),
            "stop" => match words.texts(1).as_slice() {
                [] => Command::Stop,
                [all, ..] if all == "--all" => Command::StopAll,
                [jail, ..] => Command::StopJail(jail.clone()),
            },
            "start" => Command::StartJail(words.text(1)?),
            "add" => add(words)?,
            "get" => get(words.rest(1))?,
            "set" => set(words.rest(1))?,
            "multi-set" | "server-stream" => {
                return Err(Fault::plain(
                    "fail2xdp reads its configuration itself and takes none over this socket: use `fail2ban-client reload`",
                ));
            }
            _ => return Err(Fault::plain("Invalid command")),
        })
    }

    /// May somebody other than root give it? Looking, banning and unbanning, yes; not what names a file or a command,
    /// nor an action's parameters, which hold passwords.
    pub fn is_for_group(&self) -> bool {
        match self {
            Command::Ping
            | Command::Version
            | Command::ServerStatus
            | Command::Echo(_)
            | Command::Status
            | Command::JailStatus { .. }
            | Command::AllStatus(_)
            | Command::Stats
            | Command::Banned(_)
            | Command::Unban(_)
            | Command::UnbanAll
            | Command::GetServer(_) => true,
            Command::Get { what, .. } => !matches!(what, Get::Action { .. }),
            Command::Set { what, .. } => matches!(what, Set::BanIp { .. } | Set::UnbanIp { .. }),
            Command::FlushLogs
            | Command::Sleep(_)
            | Command::ConfigError(_)
            | Command::Reload(_)
            | Command::Stop
            | Command::StopAll
            | Command::StopJail(_)
            | Command::StartJail(_)
            | Command::Add { .. }
            | Command::SetServer(..) => false,
        }
    }
}

/// Addresses that can be looked for at once: each is compared with each ban.
const MOST_ASKED: usize = 1024;

/// The addresses to look for, behind the first word.
fn asked(words: Words<'_>) -> Result<Vec<String>, Fault> {
    let ids = words.texts(1);
    if ids.len() > MOST_ASKED {
        return Err(Fault::value(format!("more than {MOST_ASKED} addresses at once")));
    }
    Ok(ids)
}

fn status(words: Words<'_>) -> Result<Command, Fault> {
    let flavor = |flavor: &String| match flavor.as_str() {
        "short" => Flavor::Short,
        "cymru" => Flavor::Cymru,
        _ => Flavor::Basic,
    };
    Ok(match words.texts(1).as_slice() {
        [] => Command::Status,
        [all] if all == "--all" => Command::AllStatus(Flavor::Basic),
        [all, stats] if all == "--all" && stats == "stats" => Command::Stats,
        [all, how] if all == "--all" => Command::AllStatus(flavor(how)),
        [jail] => Command::JailStatus { jail: jail.clone(), flavor: Flavor::Basic },
        [jail, how] => Command::JailStatus { jail: jail.clone(), flavor: flavor(how) },
        _ => return Err(Fault::plain("Invalid command (no status)")),
    })
}

/// The longest `sleep`, in seconds: fail2ban's client waits no longer for a server.
const LONGEST_SLEEP: f64 = 30.0;

fn sleep(value: &Value) -> Result<Command, Fault> {
    let text = word(value);
    match text.trim().parse::<f64>() {
        Ok(seconds) if seconds < 0.0 => Err(Fault::value("sleep length must be non-negative")),
        Ok(seconds) if seconds.is_finite() => {
            Ok(Command::Sleep((seconds.min(LONGEST_SLEEP) * 1000.0) as u64))
        }
        _ => {
            let text = Value::from(text.as_str());
            Err(Fault::value(format!("could not convert string to float: {text}")))
        }
    }
}

/// As an operator writes it (`--unban sshd`), or as fail2ban's client puts it on the wire: the jail, a list of options
/// and what it has read of its own configuration, which is not ours.
fn reload(words: Words<'_>) -> Result<Reload, Fault> {
    let mut reload = Reload::default();
    let on_the_wire = match words.0 {
        [jail, Value::List(options), ..] => Some((word(jail), options)),
        _ => None,
    };
    let texts = match on_the_wire {
        Some((jail, options)) => options.iter().map(word).chain([jail]).collect(),
        None => words.texts(0),
    };
    let mut rest = texts.as_slice();
    while let [first, others @ ..] = rest {
        match first.as_str() {
            "--restart" => reload.restart = true,
            "--unban" => reload.unban = true,
            "--if-exists" => reload.if_exists = true,
            "--all" if others.is_empty() => {}
            jail if others.is_empty() => reload.jail = Some(jail.to_owned()),
            _ => {
                let unexpected =
                    Value::List(rest.iter().map(|text| text.as_str().into()).collect());
                return Err(Fault::plain(format!(
                    "Unexpected argument(s) for reload: {unexpected}"
                )));
            }
        }
        rest = others;
    }
    Ok(reload)
}

fn add(words: Words<'_>) -> Result<Command, Fault> {
    let jail = words.text(1)?;
    if jail == "--all" {
        return Err(Fault::plain("Reserved name '--all'"));
    }
    let backend = words.text(2).unwrap_or_else(|_| "auto".to_owned());
    Ok(Command::Add { jail, backend })
}

fn get(words: Words<'_>) -> Result<Command, Fault> {
    let name = words.text(0)?;
    match Server::named(&name) {
        Some(option) if option != Server::AllowIpv6 => Ok(Command::GetServer(option)),
        _ => Ok(Command::Get { what: Get::read(words.rest(1))?, jail: name }),
    }
}

fn set(words: Words<'_>) -> Result<Command, Fault> {
    let name = words.text(0)?;
    match Server::named(&name) {
        Some(option) => Ok(Command::SetServer(option, words.at(1)?.clone())),
        None => Ok(Command::Set { what: Set::read(words.rest(1))?, jail: name }),
    }
}

#[cfg(test)]
mod tests;
