//! Native actions: who is told of bans without a command, and how.
//!
//! `mail[…]`, `webhook[…]` and `file[…]` mean these where the tree has no action file of that name; `smtp.py[…]` always means
//! the mail. Reading opens no file: what a parameter names is opened when it is needed, so that a new token counts at once.
mod mail;
mod params;
mod secret;
mod template;
mod webhook;
use std::{path::PathBuf, time::Duration};

pub use mail::{Login, Mail, MatchesOf, Tls, Transport};
use params::Params;
pub use secret::{HIDDEN, Secret};
pub use template::{Escape, Template};
pub use webhook::{Body, Preset, Webhook};

use super::options;

/// Longest list of recipients, headers, tags and the like.
pub(super) const MOST_WORDS: usize = 100;

/// A native action, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    /// What it is told of, in no order.
    pub on: Vec<Occasion>,
    /// Bans of an earlier run of the daemon are not told again.
    pub norestored: bool,
    /// What it does.
    pub channel: Channel,
    name: String,
    written: Vec<(String, Secret)>,
}

/// Where a native action tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A mail.
    Mail(Box<Mail>),
    /// A request to a web service.
    Webhook(Box<Webhook>),
    /// A line of JSON at the end of this file.
    File(PathBuf),
}

/// What a native action can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The jail has started.
    Start,
    /// The jail or the daemon stops.
    Stop,
    /// Somebody was banned.
    Ban,
    /// A ban ends later than was told.
    Prolong,
    /// A ban is over.
    Unban,
}

impl Occasion {
    const ALL: [Occasion; 5] =
        [Occasion::Start, Occasion::Stop, Occasion::Ban, Occasion::Prolong, Occasion::Unban];

    fn named(word: &str) -> Option<Occasion> {
        Some(match word {
            "start" => Occasion::Start,
            "stop" => Occasion::Stop,
            "ban" => Occasion::Ban,
            "prolong" => Occasion::Prolong,
            "unban" => Occasion::Unban,
            _ => return None,
        })
    }
}

/// How tasks of one action are gathered for one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Tasks of one delivery at the most, at least 1. Who hands tasks on keeps so many on their way.
    pub most: usize,
    /// How long the first of them waits for others, unless there are `most` sooner; zero: what is there goes at once.
    pub gather: Duration,
}

/// A secret in the configuration, or where it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// In the configuration itself.
    Here(Secret),
    /// The first line of a file, read at each use.
    File(PathBuf),
}

/// What is wrong with a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeFault {
    /// Which; `None` where one is missing.
    pub parameter: Option<String>,
    /// What is wrong; never holds a secret.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// The action cannot be used; else the parameter is left out.
    pub is_fatal: bool,
}

/// Whether a native action has this name.
pub fn is_native(name: &str) -> bool {
    matches!(name, "mail" | "webhook" | "file" | "smtp.py")
}

impl Native {
    /// Reads the parameters of the action called `name`, one that [`is_native`] knows. With all that is wrong with them:
    /// there is no action where one fault is fatal.
    pub fn read(name: &str, written: Vec<(String, Secret)>) -> (Option<Native>, Vec<NativeFault>) {
        let mut params = Params::new(&written);
        let (channel, default): (Channel, &[Occasion]) = match name {
            "webhook" => {
                let (webhook, default) = webhook::read(&mut params);
                (Channel::Webhook(Box::new(webhook)), default)
            }
            "file" => {
                let path = params.path("path");
                if path.is_none() {
                    params.needed("path", "write `path = /var/log/bans.json`, or another file");
                }
                (Channel::File(path.unwrap_or_default()), &Occasion::ALL)
            }
            _ => {
                let mail = mail::read(&mut params, name == "smtp.py");
                let default = &[Occasion::Start, Occasion::Stop, Occasion::Ban];
                (Channel::Mail(Box::new(mail)), default)
            }
        };
        let on = occasions(&mut params).unwrap_or_else(|| default.to_vec());
        let norestored = params.truth("norestored").unwrap_or(true);
        let faults = params.finish();
        let is_sound = faults.iter().all(|fault| !fault.is_fatal);
        let native = Native { on, norestored, channel, name: name.to_owned(), written };
        (is_sound.then_some(native), faults)
    }

    /// The same with one parameter changed or added.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with(&self, parameter: &str, value: &str) -> Result<Native, Vec<NativeFault>> {
        let mut written = self.written.clone();
        written.retain(|(name, _)| name != parameter);
        written.push((parameter.to_owned(), Secret::new(value)));
        let (native, mut faults) = Native::read(&self.name, written);
        // What was left out before is left out still.
        faults.retain(|fault| fault.is_fatal || fault.parameter.as_deref() == Some(parameter));
        native.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// What was written, secrets as [`HIDDEN`].
    pub fn properties(&self) -> Vec<(String, String)> {
        let shown =
            self.written.iter().map(|(name, value)| (name.clone(), shown(name, value.expose())));
        shown.collect()
    }

    /// Its name and [`Native::properties`], as they would be written.
    pub(super) fn in_words(&self) -> String {
        let properties =
            self.properties().into_iter().map(|(name, value)| format!("{name}={value}"));
        format!("{}[{}]", self.name, properties.collect::<Vec<_>>().join(", "))
    }

    /// How its tasks are gathered.
    pub fn batch(&self) -> Batch {
        let (most, gather) = match &self.channel {
            Channel::Mail(mail) => match mail.digest {
                Some(interval) => (mail::MOST_IN_DIGEST, interval),
                None => (1, Duration::ZERO),
            },
            Channel::Webhook(webhook) => (webhook.batch, webhook.gather),
            Channel::File(_) => (64, Duration::ZERO),
        };
        Batch { most, gather }
    }

    /// Whether it wants what the store has of the address over all jails.
    pub fn asks_for_address(&self) -> bool {
        match &self.channel {
            Channel::Mail(mail) => mail.matches == Some(MatchesOf::Address),
            Channel::Webhook(webhook) => webhook.mentions("of_address"),
            Channel::File(_) => false,
        }
    }

    /// The same within the jail.
    pub fn asks_for_jail(&self) -> bool {
        match &self.channel {
            Channel::Mail(mail) => mail.matches == Some(MatchesOf::Jail),
            Channel::Webhook(webhook) => webhook.mentions("of_jail"),
            Channel::File(_) => false,
        }
    }
}

/// Parameters that nobody is shown. Who knows a topic of ntfy reads it.
const SECRETS: [&str; 4] = ["password", "token", "headers", "topic"];

/// Whether a parameter holds a secret, or was to hold one: a slip in its name must not show it.
fn is_secret(parameter: &str) -> bool {
    let name = parameter.to_lowercase();
    let sounds_so = ["pass", "pwd", "token", "secret", "key", "auth"];
    !name.ends_with("_file")
        && (SECRETS.contains(&name.as_str())
            || options::meant(&name, &SECRETS).is_some()
            || sounds_so.iter().any(|word| name.contains(word)))
}

/// A parameter's value for whoever asks.
pub(super) fn shown(parameter: &str, value: &str) -> String {
    match parameter {
        parameter if is_secret(parameter) => HIDDEN.to_owned(),
        // Its path is what makes a webhook secret.
        "url" => {
            webhook::origin(value).map_or_else(|| HIDDEN.to_owned(), |it| format!("{it}/{HIDDEN}"))
        }
        _ => value.to_owned(),
    }
}

fn occasions(params: &mut Params) -> Option<Vec<Occasion>> {
    let mut on = Vec::new();
    for word in params.words("on") {
        match Occasion::named(&word) {
            Some(occasion) => on.push(occasion),
            None => params.fault(
                "on",
                &format!("`{word}` is nothing that happens"),
                "write some of `start`, `stop`, `ban`, `prolong` and `unban`",
            ),
        }
    }
    Some(on).filter(|on| !on.is_empty())
}
