//! fail2ban's commands, carried out on the running daemon.
mod actions;
mod get;
mod question;
mod server;
mod set;
mod sources;

use std::{collections::HashSet, pin::Pin};

pub(super) use question::Question;

use self::actions::Spoken;
use super::Daemon;
use crate::{
    config::{JailName, JailSettings, SourceSettings, Value},
    control::{
        Refusal,
        command::{Command, Fault, Flavor, Get, Reload, Set},
    },
};

/// What commands have changed beside the settings.
#[derive(Default)]
pub(super) struct ByHand {
    /// Jails that read nothing now.
    idle: HashSet<JailName>,
    /// `attempt` is carried out: what it finds, nobody has found in a log.
    attempts: bool,
    /// Options that the settings hold in another form, as they were written; read when first asked for.
    spoken: Option<Spoken>,
}

impl ByHand {
    /// Whether `attempt` is carried out now.
    pub fn attempts(&self) -> bool {
        self.attempts
    }

    /// Whether the jail reads nothing now.
    pub fn is_idle(&self, jail: &JailName) -> bool {
        self.idle.contains(jail)
    }
}

/// An answer to come.
pub(super) type Later = Pin<Box<dyn Future<Output = Result<Value, Refusal>> + Send>>;

/// What came of a command.
pub(super) enum Done {
    /// This.
    Answer(Result<Value, Refusal>),
    /// This, and bans were made or lifted.
    Changed(Result<Value, Refusal>),
    /// Another process is asked.
    Later(Later),
    /// It takes a walk through all bans.
    List(Question),
    /// The daemon ends.
    Stop,
}

impl From<Result<Value, Fault>> for Done {
    fn from(answer: Result<Value, Fault>) -> Done {
        Done::Answer(answer.map_err(Refusal::from))
    }
}

/// A row of an answer: fail2ban has pairs for them.
fn row(name: &str, value: Value) -> Value {
    Value::Tuple(vec![name.into(), value])
}

fn texts<T: Into<Value>>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::List(texts.into_iter().map(Into::into).collect())
}

impl Daemon {
    /// Carries out one of fail2ban's commands.
    pub(super) async fn command(&mut self, command: Command) -> Done {
        let answer = match command {
            Command::Ping => Ok("pong".into()),
            Command::Version => Ok(env!("CARGO_PKG_VERSION").into()),
            Command::ServerStatus => Ok("Server ready".into()),
            Command::Echo(words) => Ok(Value::List(words)),
            // The socket sleeps; here nobody may.
            Command::Sleep(_) => Ok(Value::Nothing),
            Command::Status => Ok(self.jails_row()),
            Command::JailStatus { jail, flavor } => match self.jail_named(&jail) {
                Ok(jail) => return Done::List(Question::Status { jail, flavor }),
                Err(fault) => Err(fault),
            },
            Command::AllStatus(flavor) => return Done::List(Question::AllStatus(flavor)),
            Command::Stats => Ok(self.stats()),
            Command::Banned(ids) => return Done::List(Question::Banned(question::ids(&ids))),
            Command::Unban(ids) => return Done::Changed(Ok(self.unban(&ids, None).0)),
            Command::UnbanAll => {
                let lifted = self.unban_all(None);
                return Done::Changed(Ok((lifted as i64).into()));
            }
            Command::FlushLogs => {
                Ok(if self.log.flush() { "rolled over" } else { "flushed" }.into())
            }
            Command::ConfigError(text) => {
                tracing::error!("{text}");
                Ok(Value::Nothing)
            }
            Command::Reload(how) => {
                let reloaded = self.reload(&how).await;
                return Done::Answer(reloaded.map(|_| "OK".into()));
            }
            Command::Stop => return Done::Stop,
            Command::StopAll => {
                self.keep_jails(|_| false).await;
                Ok(Value::Nothing)
            }
            Command::StopJail(name) => self.stop_jail(&name).await,
            Command::StartJail(name) => self.start_jail(&name).await,
            Command::Add { jail, backend } => self.add_jail(&jail, &backend).await,
            Command::GetServer(option) => Ok(self.get_server(option)),
            Command::SetServer(option, value) => self.set_server(option, &value),
            Command::Get { jail, what } => return self.get_of(&jail, what).await,
            Command::Set { jail, what } => return self.set_of(&jail, what).await,
        };
        answer.into()
    }

    fn jails_row(&self) -> Value {
        let mut names: Vec<&str> =
            self.settings.jails.iter().map(|jail| jail.name.as_str()).collect();
        names.sort_unstable();
        let number = row("Number of jail", (names.len() as i64).into());
        Value::List(vec![number, row("Jail list", names.join(", ").into())])
    }

    /// Of each jail its backend, failures now and in all, bans now and in all.
    fn stats(&self) -> Value {
        let numbers =
            |now: usize, all: u64| Value::List(vec![(now as i64).into(), (all as i64).into()]);
        let mut jails: Vec<(String, Value)> = Vec::new();
        for jail in self.engine.jails() {
            let (settings, totals) = (jail.settings(), jail.totals());
            let backend = match settings.source {
                SourceSettings::Journal(_) => "systemd",
                SourceSettings::Files { .. } => "files",
                SourceSettings::Auto { .. } => "auto",
                SourceSettings::Nothing => "none",
            };
            let banned = self.engine.bans().count_of(&settings.name);
            let of_jail = vec![
                backend.into(),
                numbers(jail.currently_failed(), totals.failed),
                numbers(banned, totals.banned),
            ];
            jails.push((settings.name.to_string(), Value::List(of_jail)));
        }
        jails.sort_by(|one, other| one.0.cmp(&other.0));
        Value::Map(jails)
    }

    /// The name of a jail that is configured.
    fn jail_named(&self, name: &str) -> Result<JailName, Fault> {
        self.jail_settings(name).map(|jail| jail.name.clone())
    }

    fn jail_settings(&self, name: &str) -> Result<&JailSettings, Fault> {
        let jail = self.settings.jails.iter().find(|jail| jail.name.as_str() == name);
        jail.ok_or_else(|| Fault::no_jail(name))
    }

    async fn get_of(&mut self, name: &str, what: Get) -> Done {
        let jail = match self.jail_named(name) {
            Ok(jail) => jail,
            Err(fault) => return Err(fault).into(),
        };
        match what {
            Get::Banned(ids) => {
                let ids = question::ids(&ids);
                return Done::List(Question::JailBanned { jail, ids });
            }
            Get::BanIp { with_time } => return Done::List(Question::BanIp { jail, with_time }),
            Get::Single(option) => self.get_single(&jail, &option).await,
            Get::Listed(option) => self.get_listed(&jail, option),
            Get::Actions => self.actions(&jail).await,
            Get::Action { action, property } => {
                self.action_property(&jail, &action, &property).await
            }
            Get::ActionProperties(action) => self.action_properties(&jail, &action).await,
            Get::ActionMethods(action) => self.action_methods(&jail, &action).await,
        }
        .into()
    }

    async fn set_of(&mut self, name: &str, what: Set) -> Done {
        let jail = match self.jail_named(name) {
            Ok(jail) => jail,
            Err(fault) => return Err(fault).into(),
        };
        match what {
            Set::BanIp { ids, force } => return Done::Changed(self.ban_ids(&jail, &ids, force)),
            Set::UnbanIp { ids, report_absent } => {
                let (lifted, absent) = self.unban(&ids, Some(&jail));
                let answer =
                    if report_absent && !absent.is_empty() { texts(absent) } else { lifted };
                return Done::Changed(Ok(answer));
            }
            Set::Attempt { id, lines } => return Done::Changed(self.attempt(&jail, &id, lines)),
            Set::Idle(idle) => self.set_idle(&jail, idle).await,
            Set::Single(option, value) => self.set_single(&jail, &option, &value).await,
            Set::Add(option, values) => self.add_to(&jail, option, &values).await,
            Set::Remove(option, values) => self.remove_from(&jail, option, &values).await,
            Set::RemoveNth(option, nth) => self.remove_nth(&jail, option, nth).await,
            Set::AddLogPath { path, tail } => self.add_log_path(&jail, &path, tail).await,
            Set::AddAction { name, is_python } => self.add_action(&jail, &name, is_python).await,
            Set::DeleteAction(action) => self.delete_action(&jail, &action).await,
            Set::Action { action, property, value } => {
                return self.set_action_property(&jail, &action, &property, value).await;
            }
        }
        .into()
    }

    /// What a reload forgets before the jails have their new settings.
    /// Answers the jails that begin anew.
    pub(super) fn begin_reload(&mut self, how: &Reload) -> Vec<JailName> {
        let meant: Vec<JailName> = self
            .settings
            .jails
            .iter()
            .map(|jail| jail.name.clone())
            .filter(|name| how.jail.as_deref().is_none_or(|jail| jail == name.as_str()))
            .collect();
        self.told.spoken = None;
        for jail in &meant {
            self.told.idle.remove(jail);
            if how.unban {
                self.unban_all(Some(jail.clone()));
            }
        }
        if how.restart {
            // Away and back again: what was counted is forgotten, who is banned stays so.
            let others: Vec<JailSettings> = self
                .settings
                .jails
                .iter()
                .filter(|jail| !meant.contains(&jail.name))
                .cloned()
                .collect();
            self.engine.reconfigure(&others, &meant, (self.clock)());
            return meant;
        }
        Vec::new()
    }
}
