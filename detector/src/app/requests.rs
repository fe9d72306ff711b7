//! What the socket asks, carried out.
use std::collections::HashSet;

use super::{
    Daemon,
    act::shown,
    commands::Done,
    listing::{Answer, List, Listing},
    skip,
};
use crate::{
    config::{self, JailName, JailSettings, Problem, Severity},
    control::{
        Asked, Refusal, Request,
        command::{Fault, Reload},
        wire,
    },
    engine::{BY_HAND, Ban, Event, Limits, Origin, ban_end},
};

/// How long an answer about bans waits until they are stored; the kernel has them before.
pub(super) const SETTLED: std::time::Duration = std::time::Duration::from_secs(1);

/// What follows a request.
pub(super) enum Next {
    GoOn,
    Stop { detach: bool },
}

impl Daemon {
    pub(super) async fn answer(&mut self, asked: Asked) -> Next {
        let mut next = Next::GoOn;
        let mut changes = false;
        let answer = match asked.request {
            Request::Ping => Ok(wire::Reply::Pong(wire::Pong { reply: "pong".into() })),
            Request::Status => return self.list(List::Status, asked.answer),
            Request::Bans => return self.list(List::Bans, asked.answer),
            Request::Banned => return self.list(List::Banned, asked.answer),
            Request::Top => return self.list(List::Top, asked.answer),
            Request::Jails => return self.list(List::Jails, asked.answer),
            Request::Metrics => Ok(wire::Reply::Metrics(self.measure())),
            Request::Events(listener) => {
                self.feed.subscribe(listener).map(|()| wire::Reply::Subscribed)
            }
            Request::Explain(prefix) => {
                self.explain(prefix, asked.answer);
                return Next::GoOn;
            }
            Request::Jail(name) => match self.engine.jail(&JailName::new(&name)) {
                Some(_) => return self.list(List::Jail(JailName::new(&name)), asked.answer),
                None => Err(Refusal::NoSuchJail(name)),
            },
            Request::Ban { prefixes, jail, seconds, force } => {
                self.ban(&prefixes, jail, seconds, force)
            }
            Request::Unban { prefixes, jail } => self.known(jail).map(|jail| {
                let unban =
                    |prefix: &ipnet::IpNet| Event::Unban { prefix: *prefix, jail: jail.clone() };
                let lifted = prefixes.iter().map(|prefix| self.event(unban(prefix)).changed).sum();
                wire::Reply::Lifted(wire::BansLifted { lifted })
            }),
            Request::UnbanAll { jail } => self
                .known(jail)
                .map(|jail| wire::Reply::Lifted(wire::BansLifted { lifted: self.unban_all(jail) })),
            Request::Reload => self.reload(&Reload::default()).await.map(wire::Reply::Reloaded),
            Request::Command(command) => match self.command(command).await {
                Done::Answer(answer) => answer.map(wire::Reply::Value),
                Done::Changed(answer) => {
                    changes = true;
                    answer.map(wire::Reply::Value)
                }
                Done::Later(answer) => {
                    tokio::spawn(async move {
                        // A client that did not wait for its answer has none.
                        let _ = asked.answer.send(answer.await.map(wire::Reply::Value));
                    });
                    return Next::GoOn;
                }
                Done::List(question) => return self.list(List::Asked(question), asked.answer),
                Done::Stop => {
                    next = Next::Stop { detach: self.detach_on_exit };
                    Ok(wire::Reply::Value(config::Value::Nothing))
                }
            },
            Request::Confirm => Ok(wire::Reply::Confirmed(wire::Confirmed {
                waited: self.confirm_by.take().is_some(),
            })),
            Request::Stop | Request::Detach => {
                let detached = self.detach_on_exit || asked.request == Request::Detach;
                next = Next::Stop { detach: detached };
                let enforced =
                    if detached || self.enforcer.is_none() { 0 } else { self.engine.bans().len() };
                Ok(wire::Reply::Stopping(wire::Stopping { enforced, detached }))
            }
        };
        changes |= matches!(
            answer,
            Ok(wire::Reply::Made(wire::BansMade { banned: 1.. })
                | wire::Reply::Lifted(wire::BansLifted { lifted: 1.. }))
        );
        match changes.then(|| self.keeper.settled()).flatten() {
            // What somebody was told to be done shall not be undone by a crash.
            Some(settled) => {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(SETTLED, settled).await;
                    let _ = asked.answer.send(answer);
                });
            }
            // A client that did not wait for its answer has none.
            None => drop(asked.answer.send(answer)),
        }
        next
    }

    /// Answered over the next turns.
    fn list(&mut self, list: List, answer: Answer) -> Next {
        self.listings.push_back(Listing::new(list, answer));
        Next::GoOn
    }

    /// A jail that is configured, or at least holds bans.
    fn known(&self, jail: Option<String>) -> Result<Option<JailName>, Refusal> {
        let Some(name) = jail else { return Ok(None) };
        let jail = JailName::new(&name);
        if self.engine.jail(&jail).is_some() || self.engine.bans().count_of(&jail) > 0 {
            Ok(Some(jail))
        } else {
            Err(Refusal::NoSuchJail(name))
        }
    }

    pub(super) fn ban(
        &mut self,
        prefixes: &[ipnet::IpNet],
        jail: Option<String>,
        seconds: Option<i64>,
        force: bool,
    ) -> Result<wire::Reply, Refusal> {
        let now = (self.clock)();
        let own_time = match seconds {
            None => None,
            Some(-1) => Some(config::BanTime::Permanent),
            Some(seconds) => match u32::try_from(seconds) {
                Ok(seconds) if seconds > 0 => Some(config::BanTime::Seconds(seconds)),
                _ => {
                    return Err(Refusal::Invalid(format!(
                        "a ban of {seconds} seconds: give a positive number, or -1"
                    )));
                }
            },
        };
        let (name, scope, jail_time) = match jail {
            None => (JailName::new(BY_HAND), self.by_hand.clone(), self.settings.default_ban_time),
            Some(name) => match self.engine.jail(&JailName::new(&name)) {
                Some(jail) => {
                    (jail.settings().name.clone(), jail.scope().clone(), jail.settings().ban_time)
                }
                None => return Err(Refusal::NoSuchJail(name)),
            },
        };
        if !force && let Some(why) = prefixes.iter().find_map(|prefix| self.risk(*prefix)) {
            return Err(Refusal::Invalid(why));
        }
        let until = ban_end(own_time.unwrap_or(jail_time), now);
        let mut banned = 0;
        for prefix in prefixes {
            let carried = self.event(Event::Ban(Ban {
                prefix: *prefix,
                jail: name.clone(),
                scope: scope.clone(),
                since: now,
                until,
                failures: 0,
                count: 1,
                counted: true,
                lines: Vec::new(),
                origin: Origin::default(),
            }));
            banned += carried.changed;
            if let Some(error) = carried.refused {
                let prefix = shown(*prefix);
                return Err(Refusal::Failed(format!(
                    "{prefix} and what follows it is not banned: {error}"
                )));
            }
        }
        Ok(wire::Reply::Made(wire::BansMade { banned }))
    }

    /// Why a ban of this prefix needs `--force`.
    fn risk(&self, prefix: ipnet::IpNet) -> Option<String> {
        let widest = self.settings.enforce.widest_ban.of(prefix);
        let spared = self.enforcer.as_ref().and_then(|enforcer| enforcer.spares(prefix));
        match spared {
            Some((entry, why)) if entry.contains(&prefix) => Some(format!(
                "{} is on the allow list ({}: {why}) and would not be dropped; --force lists the ban all the same",
                shown(prefix),
                shown(entry)
            )),
            Some((entry, why)) => Some(format!(
                "{} covers {}, which is on the allow list ({why}); --force bans the rest of it",
                shown(prefix),
                shown(entry)
            )),
            None if prefix.prefix_len() < widest => Some(format!(
                "{} is wider than `widest_ban` (/{widest}); --force bans it all the same",
                shown(prefix)
            )),
            None => None,
        }
    }

    /// Reads the configuration again. What cannot be used changes nothing; a jail that has become broken
    /// goes on as it was.
    pub(super) async fn reload(&mut self, how: &Reload) -> Result<wire::Reloaded, Refusal> {
        let tree = self.tree.clone();
        let load = move || config::load(tree.as_ref()).map(skip::without_logs);
        let loaded = tokio::task::spawn_blocking(load)
            .await
            .map_err(|error| Refusal::Failed(format!("reading the configuration failed: {error}")))?
            .map_err(|problems| {
                let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
                Refusal::Failed(format!("the configuration is kept as it was: {}", told.join("; ")))
            })?;
        let mut settings = loaded.settings;
        self.problems = loaded.problems;
        let broken: HashSet<JailName> = self
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .filter_map(|problem| problem.jail.clone())
            .filter(|name| settings.jails.iter().all(|jail| jail.name != *name))
            .collect();
        let kept: Vec<JailSettings> = self
            .settings
            .jails
            .iter()
            .filter(|jail| broken.contains(&jail.name))
            .cloned()
            .collect();
        for jail in &kept {
            tracing::error!(
                "[{}] is broken in the new configuration and goes on with the old one",
                jail.name
            );
        }
        settings.jails.extend(kept);
        if let Some(name) = &how.jail {
            settings.jails = self.one_changed(name, settings.jails, how.if_exists)?;
        }
        let changes = config::changes(&self.settings, &settings);
        for change in &changes {
            tracing::info!("reload: {change}");
            self.tell_event("reload", change);
        }
        let positions = self.stop_readers().await;
        let broken: Vec<JailName> = broken.into_iter().collect();
        let restarted = self.begin_reload(how);
        self.jails_change(&settings.jails, &broken);
        let level = std::mem::replace(&mut self.settings, settings).log_level;
        if self.level_is_named {
            self.settings.log_level = level;
        } else if let Err(error) = self.log.set_level(&self.settings.log_level) {
            tracing::error!("the log goes on at the level it had: {error}");
        }
        if let Err(why) = self.log.configure(&self.settings.log) {
            tracing::error!("{why}");
        }
        self.actions_change(true, &restarted);
        self.keeper.settings(self.settings.store);
        self.engine.set_limits(Limits::from(&self.settings));
        (self.listed, self.lists) = super::surroundings::listed(&self.settings, self.clock);
        if let (Some(enforcer), Some(options)) = (&mut self.enforcer, (self.kernel)(&self.settings))
        {
            enforcer.also_allow(self.listed.clone());
            let notices = enforcer.reconfigure(&options);
            self.notices(notices);
        }
        self.surroundings();
        self.resolve_ignored().await;
        self.start_readers(positions);
        let problems = self.problems.iter().map(Problem::to_string).collect();
        Ok(wire::Reloaded { jails: self.settings.jails.len(), changes, problems })
    }

    /// The engine goes on with these jails.
    pub(super) fn jails_change(&mut self, jails: &[JailSettings], broken: &[JailName]) {
        let stays = |name: &JailName| jails.iter().any(|jail| jail.name == *name);
        let of_engine = self.engine.jails().iter().map(|jail| jail.settings().name.clone());
        let gone: Vec<JailName> =
            of_engine.filter(|name| !stays(name) && !broken.contains(name)).collect();
        self.flushing(&gone, |daemon| {
            for effect in daemon.engine.reconfigure(jails, broken, (daemon.clock)()) {
                // Lifting cannot be refused.
                let _ = daemon.carry_out(effect);
            }
        });
    }

    /// The jails as they are, but for the one that is read again.
    fn one_changed(
        &self,
        name: &str,
        read: Vec<JailSettings>,
        if_exists: bool,
    ) -> Result<Vec<JailSettings>, Fault> {
        let named = |jail: &JailSettings| jail.name.as_str() == name;
        let Some(new) = read.into_iter().find(named) else {
            return Err(Fault::plain(format!("No section: '{name}'")));
        };
        let mut jails = self.settings.jails.clone();
        match jails.iter_mut().find(|jail| named(jail)) {
            Some(jail) => *jail = new,
            None if if_exists => jails.push(new),
            None => return Err(Fault::no_jail(name)),
        }
        Ok(jails)
    }
}
