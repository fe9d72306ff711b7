//! `get` and `set` of the server's own options.
use std::time::Duration;

use super::{Daemon, Fault, get};
use crate::{
    config::{self, Value},
    control::command::{Class, Server},
};

impl Daemon {
    pub(super) fn get_server(&self, option: Server) -> Value {
        let store = self.settings.store;
        let stored = |value: Value| if self.keeper.is_on() { value } else { Value::Nothing };
        match option {
            Server::LogLevel => self.settings.log_level.as_str().into(),
            Server::LogTarget => self.log.target().into(),
            Server::SyslogSocket => match self.log.syslog_socket() {
                Some(path) => path.display().to_string().into(),
                None => "auto".into(),
            },
            Server::AllowIpv6 => Value::Nothing,
            Server::Thread => Value::Map(vec![("stacksize".to_owned(), 0.into())]),
            Server::DbFile => match self.keeper.status() {
                Some(status) => status.path.display().to_string().into(),
                None => Value::Nothing,
            },
            Server::DbMaxMatches => stored(i64::from(store.max_matches).into()),
            Server::DbPurgeAge => stored(get::seconds(store.purge_age.as_secs_f64())),
        }
    }

    pub(super) fn set_server(&mut self, option: Server, value: &Value) -> Result<Value, Fault> {
        let text = match value {
            Value::Text(text) => text.clone(),
            other => other.to_string(),
        };
        match option {
            Server::LogLevel => {
                let level = text.to_uppercase();
                self.log.set_level(&level).map_err(Fault::value)?;
                self.settings.log_level = level;
            }
            Server::LogTarget => {
                self.log.set_target(&text).map_err(|why| {
                    tracing::error!("cannot log to `{text}`: {why}");
                    Fault::plain("Failed to change log target")
                })?;
            }
            Server::SyslogSocket => {
                let path = (!text.eq_ignore_ascii_case("auto")).then(|| text.into());
                self.log.set_syslog_socket(path).map_err(|why| {
                    tracing::error!("{why}");
                    Fault::plain("Failed to change syslog socket")
                })?;
            }
            Server::AllowIpv6 => {
                if !matches!(text.to_lowercase().as_str(), "auto" | "1" | "on" | "true" | "yes") {
                    return Err(Fault::value("fail2xdp always counts and bans IPv6 too"));
                }
                return Ok(value.clone());
            }
            Server::Thread => {
                return Err(Fault::value("fail2xdp has no stack size to set"));
            }
            Server::DbFile => {
                if self.get_server(Server::DbFile) != Value::Text(text) {
                    return Err(Fault::new(
                        Class::Runtime,
                        "Cannot change database when there are jails present",
                    ));
                }
            }
            Server::DbMaxMatches => {
                let number = match Value::number(&text) {
                    Value::Number(digits) => digits.parse().ok(),
                    _ => None,
                };
                self.settings.store.max_matches = number.ok_or_else(|| {
                    let text = Value::from(text.as_str());
                    Fault::value(format!("invalid literal for int() with base 10: {text}"))
                })?;
                self.keeper.settings(self.settings.store);
            }
            Server::DbPurgeAge => {
                let seconds =
                    config::seconds(&text).map_err(|error| Fault::value(error.to_string()))?;
                self.settings.store.purge_age = Duration::try_from_secs_f64(seconds)
                    .map_err(|_| Fault::value(format!("{text} is no age")))?;
                self.keeper.settings(self.settings.store);
            }
        }
        Ok(self.get_server(option))
    }
}
