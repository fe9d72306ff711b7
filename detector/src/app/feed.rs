//! What happens, in the words of `/v1/events`. Field names are stable, and those of `replay --json` where it has them.
use serde_json::{Value, json};

use super::{Daemon, act::shown, answers};
use crate::engine::{Ban, Effect, FailureId, Lifted, SparedBy, Suspended, Timestamp, Until};

impl Daemon {
    /// An effect as an event; `None` where nobody listens, or nobody would want to know.
    pub(super) fn event_of(&self, effect: &Effect) -> Option<Value> {
        if !self.feed.are_wanted() {
            return None;
        }
        let mut event = match effect {
            Effect::Ban { ban, prolonged, .. } => {
                self.ban_event(if *prolonged { "prolong" } else { "ban" }, ban)
            }
            Effect::Unban { ban, why } => {
                let mut event = self.ban_event("unban", ban);
                event["why"] = match why {
                    Lifted::Expired => "expired",
                    Lifted::ByHand => "by hand",
                    Lifted::JailRemoved => "jail removed",
                    Lifted::Ignored => "ignored by now",
                }
                .into();
                event
            }
            Effect::Found { jail, who, at, attempts } => json!({
                "event": "finding", "jail": jail.as_str(), "address": name_of(who), "at": seconds(*at),
                "failures": attempts, "ignored": null,
            }),
            Effect::Spared { jail, who, by } => json!({
                "event": "finding", "jail": jail.as_str(), "address": name_of(who), "at": null,
                "failures": null, "ignored": reason(by),
            }),
            Effect::AlreadyBanned { jail, prefix, .. } => {
                json!({ "event": "already banned", "jail": jail.as_str(), "address": shown(*prefix) })
            }
            Effect::NoAddress { jail, text } => {
                json!({ "event": "no address", "jail": jail.as_str(), "address": text })
            }
            Effect::Forgot { jail, addresses } => {
                json!({ "event": "forgotten", "jail": jail.as_str(), "count": addresses })
            }
            Effect::Suspended { jail, prefix, why } => json!({
                "event": "suspended", "jail": jail.as_str(), "address": shown(*prefix),
                "why": match why {
                    Suspended::Network => "network",
                    Suspended::LoggedIn(_) => "login",
                },
            }),
            Effect::Increased { ban, .. } => self.ban_event("increase", ban),
            // Of these the finding, or the ban that comes of them, tells.
            Effect::KnownOffender { .. }
            | Effect::NotIncreased { .. }
            | Effect::Pardoned { .. }
            | Effect::Unasked { .. }
            | Effect::Ceiling { .. }
            | Effect::LoggedIn { .. }
            | Effect::Ask(_)
            | Effect::Resolve { .. } => return None,
        };
        event["time"] = seconds((self.clock)());
        Some(event)
    }

    fn ban_event(&self, event: &str, ban: &Ban) -> Value {
        let rule = ban.origin.rule.as_deref();
        json!({
            "event": event,
            "jail": ban.jail.as_str(),
            "address": shown(ban.prefix),
            "since": seconds(ban.since),
            "until": match ban.until {
                Until::At(end) => seconds(end),
                Until::Forever => Value::Null,
            },
            "failures": ban.failures,
            "count": ban.count,
            "scope": ban.scope.to_string(),
            "observe": answers::observes(self, &ban.jail),
            "rule": rule.map(|rule| rule.nth + 1),
            "regex": rule.map(|rule| &*rule.text),
            "addresses": ban.origin.addresses,
            "lines": ban.lines,
        })
    }

    /// Something that the operator should hear, or a word about a source.
    pub(super) fn tell_event(&mut self, event: &str, what: &str) {
        if self.feed.are_wanted() {
            let time = seconds((self.clock)());
            self.feed.tell(&json!({ "event": event, "what": what, "time": time }));
        }
    }
}

fn name_of(who: &FailureId) -> String {
    match who {
        FailureId::Network(net) => shown(*net),
        who => who.to_string(),
    }
}

fn reason(by: &SparedBy) -> String {
    match by {
        SparedBy::OwnAddress => "ignoreself".into(),
        SparedBy::AllowList(net) => format!("allow {}", shown(*net)),
        SparedBy::IgnoreIp(net) => format!("ignoreip {}", shown(*net)),
        SparedBy::IgnoreName(name) => format!("ignoreip {name}"),
        SparedBy::Command => "ignorecommand".into(),
        SparedBy::EndsInThePast => "its ban would have ended already".into(),
        SparedBy::LiftedSince => "its ban was lifted by hand since".into(),
    }
}

/// Seconds since the epoch, with a fraction where there is one.
fn seconds(at: Timestamp) -> Value {
    match at.micros() % 1_000_000 {
        0 => json!(at.seconds()),
        _ => json!(at.micros() as f64 / 1e6),
    }
}
