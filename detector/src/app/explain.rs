//! `explain`: all that is known of an address, in one answer.
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Daemon, act::shown, answers, listing, listing::Answer, requests::SETTLED};
use crate::{
    config::{Ignore, Located, Place},
    control::{
        explained::{Allowed, Explained, Past, Rule, Spared, Standing},
        wire,
    },
    enforce::Why,
    engine::{self, FailRegex, SparedBy, Timestamp, Until},
    store,
};

impl Daemon {
    /// Gathers what the task knows, and has the history read by another thread.
    pub(super) fn explain(&self, prefix: IpNet, answer: Answer) {
        let mut explained = self.explained(prefix);
        let file = self.keeper.status().map(|store| store.path);
        // A ban of a moment ago is part of the history.
        let settled = self.keeper.settled();
        tokio::spawn(async move {
            if let Some(settled) = settled {
                let _ = tokio::time::timeout(SETTLED, settled).await;
            }
            match history(file, prefix).await {
                Ok(past) => explained.history = Some(past),
                Err(fault) => explained.history_fault = Some(fault),
            }
            // A client that did not wait for its answer has none.
            let _ = answer.send(Ok(wire::Reply::Explained(Box::new(explained))));
        });
    }

    fn explained(&self, prefix: IpNet) -> Explained {
        let bans: Vec<wire::Ban> = self
            .engine
            .bans()
            .covering(prefix)
            .map(|ban| {
                let traffic = self.enforcer.as_ref();
                let traffic = traffic.and_then(|it| it.traffic_at(ban.prefix, (self.clock)()));
                let observe = answers::observes(self, &ban.jail);
                let rule = ban.origin.rule.as_deref().map(rule);
                wire::Ban { rule, ..listing::wire_ban(ban, traffic, observe) }
            })
            .collect();
        let is_address = prefix.prefix_len() == prefix.max_prefix_len();
        let jails = self.engine.standing(prefix.addr()).map(|mut standing| {
            if !standing.prefix.contains(&prefix) {
                standing.pending = None;
            }
            standing.spared.take_if(|_| !is_address);
            self.standing(standing)
        });
        Explained {
            address: shown(prefix),
            banned: !bans.is_empty(),
            bans,
            allowed: self.allowance(prefix),
            jails: jails.collect(),
            history: None,
            history_fault: None,
        }
    }

    fn allowance(&self, prefix: IpNet) -> Option<Allowed> {
        let configured = &self.settings.enforce.allow;
        let (entry, why) = match &self.enforcer {
            Some(enforcer) => enforcer.allowance(prefix)?,
            None => {
                let entry = configured.iter().find(|entry| entry.value.contains(&prefix))?;
                (entry.value, Why::Configured)
            }
        };
        let written = configured.iter().find(|known| known.value.trunc() == entry);
        let place =
            written.filter(|_| why == Why::Configured).and_then(|entry| place(&entry.place));
        Some(Allowed { entry: shown(entry), reason: why.to_string(), place })
    }

    fn standing(&self, standing: engine::Standing<'_>) -> Standing {
        let engine::Standing { jail, prefix, spared, pending } = standing;
        let settings = jail.settings();
        let spared = spared.map(|by| {
            let written = |wanted: &Ignore| {
                let entry: Option<&Located<Ignore>> =
                    settings.ignore.iter().find(|entry| entry.value == *wanted);
                entry.and_then(|entry| place(&entry.place))
            };
            match by {
                SparedBy::IgnoreIp(net) => Spared {
                    by: format!("ignoreip {}", shown(net)),
                    place: written(&Ignore::Net(net)),
                },
                SparedBy::IgnoreName(name) => {
                    Spared { by: format!("ignoreip {name}"), place: written(&Ignore::Name(name)) }
                }
                SparedBy::Command => Spared { by: "ignorecommand".into(), place: None },
                _ => Spared { by: "ignoreself".into(), place: None },
            }
        });
        let mut told = Standing {
            jail: settings.name.to_string(),
            place: place(&settings.place),
            prefix: shown(prefix),
            max_retry: settings.max_retry,
            find_time: settings.find_time.as_secs(),
            attempts: 0,
            failures: 0,
            first: None,
            last: None,
            rule: None,
            addresses: Vec::new(),
            lines: Vec::new(),
            spared,
        };
        if let Some(pending) = pending {
            told.attempts = pending.attempts;
            told.failures = pending.failures;
            told.first = Some(pending.first.seconds());
            told.last = Some(pending.last.seconds());
            told.rule = pending.origin.rule.as_deref().map(rule);
            told.addresses = pending.origin.addresses.iter().map(ToString::to_string).collect();
            told.lines = pending.lines.iter().map(|line| line.to_string()).collect();
        }
        told
    }
}

fn place(place: &Option<Place>) -> Option<String> {
    place.as_ref().map(Place::to_string)
}

fn rule(rule: &FailRegex) -> Rule {
    let FailRegex { nth, text, place: written } = rule;
    Rule { number: nth + 1, regex: text.to_string(), place: place(written) }
}

/// What is remembered of this prefix and of those that it lies in.
async fn history(file: Option<PathBuf>, prefix: IpNet) -> Result<Vec<Past>, String> {
    let file = file.ok_or("nothing is stored: there is no state directory")?;
    let wider = (0..=prefix.prefix_len())
        .filter_map(|length| Some(IpNet::new(prefix.addr(), length).ok()?.trunc()));
    let wider: Vec<IpNet> = wider.collect();
    let read = tokio::task::spawn_blocking(move || store::history(&file, &wider));
    let past = read.await.map_err(|error| error.to_string())??;
    Ok(past.into_iter().map(past_ban).collect())
}

fn past_ban(past: store::Earlier) -> Past {
    let until = match past.until {
        Until::At(end) => Some(Timestamp::seconds(end)),
        Until::Forever => None,
    };
    Past {
        jail: past.jail.to_string(),
        prefix: shown(past.prefix),
        bans: past.bans,
        last: past.last.seconds(),
        until,
    }
}
