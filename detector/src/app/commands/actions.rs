//! What a configuration says of actions, and options that only it has as they were written.
//!
//! What enforces bans is the kernel's; the other actions are the runner's, which is told of changes.
use std::{collections::HashMap, path::PathBuf, time::Duration};

use super::{Daemon, Done, Fault, get, set, texts};
use crate::{
    config::{self, ActionSettings, JailName, Scope, Value},
    control::{Refusal, command::Class},
};

/// The commands that fail2ban's client makes of the configuration, as far as settings do not hold them.
#[derive(Default)]
pub(super) struct Spoken {
    options: HashMap<(JailName, String), Value>,
    actions: HashMap<JailName, Vec<Action>>,
}

struct Action {
    name: String,
    /// A Python file, or our own.
    kind: Kind,
    properties: Vec<(String, Value)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commands,
    Python,
}

/// Properties that every action of commands has, with their values.
const OWN: [(&str, &str); 10] = [
    ("actionban", ""),
    ("actioncheck", ""),
    ("actionflush", ""),
    ("actionreban", ""),
    ("actionreload", ""),
    ("actionrepair", ""),
    ("actionstart", ""),
    ("actionstop", ""),
    ("actionunban", ""),
    ("timeout", "60"),
];

/// What fail2ban's class for such actions can be called by.
const METHODS: [&str; 15] = [
    "ban",
    "clearAllParams",
    "consistencyCheck",
    "escapeTag",
    "executeCmd",
    "flush",
    "invalidateBanEpoch",
    "prolong",
    "reban",
    "reload",
    "replaceDynamicTags",
    "replaceTag",
    "start",
    "stop",
    "unban",
];
/// How long the runner's answer is waited for.
const ANSWERED: Duration = Duration::from_secs(5);

/// A property as it is shown once it is set: times are seconds.
fn shown_as(property: &str, value: &str) -> Result<Value, Fault> {
    match property {
        "timeout" => match config::seconds(value) {
            Ok(seconds) => Ok(get::seconds(seconds)),
            Err(error) => Err(Fault::value(error.to_string())),
        },
        _ => Ok(value.into()),
    }
}

impl Spoken {
    fn read(commands: Vec<config::Command>) -> Spoken {
        let mut spoken = Spoken::default();
        for command in commands {
            let text = |nth: usize| match command.get(nth) {
                Some(Value::Text(text)) => text.as_str(),
                _ => "",
            };
            let jail = JailName::new(text(1));
            match (text(0), text(2)) {
                ("set", "addaction") => {
                    let kind = if command.len() > 4 { Kind::Python } else { Kind::Commands };
                    let action = Action { name: text(3).to_owned(), kind, properties: Vec::new() };
                    spoken.actions.entry(jail).or_default().push(action);
                }
                ("multi-set", "action") => {
                    let actions = spoken.actions.entry(jail).or_default();
                    let action = actions.iter_mut().find(|action| action.name == text(3));
                    if let (Some(action), Some(Value::List(properties))) = (action, command.get(4))
                    {
                        action.properties = properties.iter().filter_map(property).collect();
                    }
                }
                ("set", option @ ("ignorecommand" | "ignorecache" | "logencoding")) => {
                    if let Some(value) = command.get(3) {
                        spoken.options.insert((jail, option.to_owned()), value.clone());
                    }
                }
                ("set", option) if option.starts_with("bantime.") => {
                    if let Some(value) = command.get(3) {
                        spoken.options.insert((jail, option.to_owned()), value.clone());
                    }
                }
                _ => {}
            }
        }
        spoken
    }

    pub fn option(&self, jail: &JailName, option: &str) -> Option<&Value> {
        self.options.get(&(jail.clone(), option.to_owned()))
    }

    pub fn put(&mut self, jail: &JailName, option: &str, value: &str) {
        if value.is_empty() {
            self.options.remove(&(jail.clone(), option.to_owned()));
        } else {
            self.set(jail, option, value);
        }
    }

    /// The same for what may be empty.
    pub fn set(&mut self, jail: &JailName, option: &str, value: &str) {
        self.options.insert((jail.clone(), option.to_owned()), value.into());
    }

    /// `['<ip>', 100, 300]`: the key, the most entries, and how long they last.
    pub fn ignore_cache(&self, jail: &JailName) -> Value {
        let Some(Value::Text(text)) = self.option(jail, "ignorecache") else {
            return Value::Nothing;
        };
        let Some(cache) = config::ignore_cache(text) else { return Value::Nothing };
        let (key, most, longest) = cache;
        Value::List(vec![key.into(), most.into(), get::seconds(longest)])
    }

    /// The options `bantime.…` as written, without that word.
    pub fn ban_time_extras(&self, jail: &JailName) -> Vec<(String, String)> {
        let of_jail = self.options.iter().filter(|((of, _), _)| of == jail);
        let extras = of_jail.filter_map(|((_, option), value)| {
            let name = option.strip_prefix("bantime.")?;
            let value = match value {
                Value::Text(text) => text.clone(),
                other => other.to_string(),
            };
            Some((name.to_owned(), value))
        });
        extras.collect()
    }

    pub fn ban_time_extra(&self, jail: &JailName, name: &str) -> Value {
        let Some(value) = self.option(jail, &format!("bantime.{name}")) else {
            return Value::Nothing;
        };
        let Value::Text(text) = value else { return value.clone() };
        match name {
            "increment" => set::is_true(text).into(),
            "maxtime" | "rndtime" => match config::seconds(text) {
                Ok(seconds) => get::seconds(seconds),
                Err(_) => value.clone(),
            },
            _ => value.clone(),
        }
    }

    fn action(&self, jail: &JailName, name: &str) -> Result<&Action, Fault> {
        let mut actions = self.actions.get(jail).into_iter().flatten();
        actions
            .find(|action| action.name == name)
            .ok_or_else(|| Fault::new(Class::Key, format!("Invalid Action name: {name}")))
    }
}

fn property(pair: &Value) -> Option<(String, Value)> {
    match pair {
        Value::List(pair) => match pair.as_slice() {
            [Value::Text(name), value] => Some((name.clone(), value.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Files that a `logpath` names do not matter here.
fn no_files(_: &str) -> Vec<PathBuf> {
    Vec::new()
}

impl Daemon {
    /// What the configuration says beside the settings; read when it is first asked for.
    pub(super) async fn spoken(&mut self) -> &mut Spoken {
        if self.told.spoken.is_none() {
            let tree = self.tree.clone();
            let read =
                tokio::task::spawn_blocking(move || config::stream(tree.as_ref(), &no_files));
            let spoken = match read.await {
                Ok(Ok((commands, _))) => Spoken::read(commands),
                // A configuration that cannot be read any more says nothing.
                _ => Spoken::default(),
            };
            self.told.spoken = Some(spoken);
        }
        self.told.spoken.get_or_insert_default()
    }

    pub(super) async fn actions(&mut self, jail: &JailName) -> Result<Value, Fault> {
        let actions = self.spoken().await.actions.get(jail).into_iter().flatten();
        Ok(texts(actions.map(|action| action.name.as_str())))
    }

    pub(super) async fn action_property(
        &mut self,
        jail: &JailName,
        action: &str,
        property: &str,
    ) -> Result<Value, Fault> {
        let found = self.spoken().await.action(jail, action)?;
        if let Some((_, value)) = found.properties.iter().find(|(name, _)| name == property) {
            return Ok(value.clone());
        }
        match OWN.iter().find(|(name, _)| *name == property) {
            Some(("timeout", seconds)) if found.kind == Kind::Commands => {
                Ok(Value::number(seconds))
            }
            Some((_, value)) if found.kind == Kind::Commands => Ok((*value).into()),
            _ => Err(Fault::plain(format!("action '{action}' has no property '{property}'"))),
        }
    }

    pub(super) async fn action_properties(
        &mut self,
        jail: &JailName,
        action: &str,
    ) -> Result<Value, Fault> {
        let found = self.spoken().await.action(jail, action)?;
        let own = OWN.iter().map(|(name, _)| *name).filter(|_| found.kind == Kind::Commands);
        let mut names: Vec<&str> =
            found.properties.iter().map(|(name, _)| name.as_str()).chain(own).collect();
        names.sort_unstable();
        names.dedup();
        Ok(texts(names))
    }

    pub(super) async fn action_methods(
        &mut self,
        jail: &JailName,
        action: &str,
    ) -> Result<Value, Fault> {
        let found = self.spoken().await.action(jail, action)?;
        match found.kind {
            Kind::Commands => Ok(texts(METHODS)),
            Kind::Python => Err(Fault::plain(format!(
                "action '{action}' has no methods: fail2xdp runs no Python"
            ))),
        }
    }

    /// The runner changes it, and only for a daemon that may.
    pub(super) async fn set_action_property(
        &mut self,
        jail: &JailName,
        action: &str,
        property: &str,
        value: Option<String>,
    ) -> Done {
        if let Err(fault) = self.spoken().await.action(jail, action) {
            return Err(fault).into();
        }
        let refused = if METHODS.contains(&property) {
            Some(format!(
                "'{property}' of action '{action}' cannot be called: bans are told as they are made"
            ))
        } else if !self.telling.has(jail, action) {
            Some(format!(
                "'{property}' of action '{action}' would change nothing: the ban itself is made in the kernel"
            ))
        } else {
            None
        };
        let (value, shown) = match (refused, value) {
            (Some(why), _) => return Err(Fault::plain(why)).into(),
            (None, None) => return Err(Fault::new(Class::Index, "list index out of range")).into(),
            (None, Some(value)) => match shown_as(property, &value) {
                Ok(shown) => (value, shown),
                Err(fault) => return Err(fault).into(),
            },
        };
        let answer = self.change_action(jail, action, property, &value);
        Done::Later(Box::pin(async move {
            let failed = |why: &str| Refusal::Failed(why.to_owned());
            match tokio::time::timeout(ANSWERED, answer).await {
                Ok(Ok(Ok(()))) => Ok(shown),
                Ok(Ok(Err(why))) => Err(Fault::plain(why).into()),
                Ok(Err(_)) => Err(failed("the daemon ends")),
                Err(_) => {
                    Err(failed("the action runner does not answer; `fail2xdp doctor` may say why"))
                }
            }
        }))
    }

    /// The runner has changed an option or parameter.
    pub(in crate::app) fn action_was_set(
        &mut self,
        jail: &JailName,
        action: &str,
        property: &str,
        value: &str,
    ) {
        let Some(spoken) = &mut self.told.spoken else { return };
        let Ok(shown) = shown_as(property, value) else { return };
        let actions = spoken.actions.get_mut(jail).into_iter().flatten();
        for action in actions.filter(|known| known.name == action) {
            match action.properties.iter_mut().find(|(name, _)| name == property) {
                Some((_, known)) => *known = shown.clone(),
                None => action.properties.push((property.to_owned(), shown.clone())),
            }
        }
    }

    /// `xdp` bans every packet; any other has no commands until it is given some.
    pub(super) async fn add_action(
        &mut self,
        jail: &JailName,
        action: &str,
        is_python: bool,
    ) -> Result<Value, Fault> {
        if is_python {
            return Err(Fault::plain(format!("action '{action}': fail2xdp runs no Python")));
        }
        if action != "xdp" {
            if self.telling.has(jail, action) {
                return Err(Fault::value(format!("Action {action} already exists")));
            }
            let (kind, properties) = (Kind::Commands, Vec::new());
            let spoken = Action { name: action.to_owned(), kind, properties };
            self.spoken().await.actions.entry(jail.clone()).or_default().push(spoken);
            let known = self.settings.jails.iter_mut().find(|known| known.name == *jail);
            let settings = ActionSettings::without_commands(jail.as_str(), action);
            known.into_iter().for_each(|jail| jail.actions.push(settings.clone()));
            self.telling.add_by_hand(jail, action);
            self.actions_change(false, &[]);
            return Ok(action.into());
        }
        if let Some(jail) = self.settings.jails.iter_mut().find(|known| known.name == *jail) {
            if !jail.scope.is_nothing() {
                return Err(Fault::value("Action xdp already exists"));
            }
            jail.scope = Scope::EveryPacket;
        }
        self.count_anew();
        Ok(action.into())
    }

    /// An action is told that no ban holds any more, and stops. What bans in the kernel is taken away by stopping the jail,
    /// or in the configuration.
    pub(super) async fn delete_action(
        &mut self,
        jail: &JailName,
        action: &str,
    ) -> Result<Value, Fault> {
        self.spoken().await.action(jail, action)?;
        if !self.telling.has(jail, action) {
            return Err(Fault::plain(format!(
                "action '{action}' stays: change `action` of the jail in the configuration, and reload"
            )));
        }
        if let Some(settings) = self.settings.jails.iter_mut().find(|known| known.name == *jail) {
            settings.actions.retain(|known| known.name != action);
        }
        if let Some(actions) = self.spoken().await.actions.get_mut(jail) {
            actions.retain(|known| known.name != action);
        }
        self.actions_change(false, &[]);
        Ok(Value::Nothing)
    }
}
