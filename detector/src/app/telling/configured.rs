//! Actions come and go with the configuration; what an earlier run left is taken up, and its bans are announced.
use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Action,
    queue::{Asks, Entry},
    row, tasks,
};
use crate::{
    action::wire::{Kind, ToRunner},
    app::Daemon,
    config::{JailName, JailSettings},
    engine::Timestamp,
    store::{self, ActionStanding},
};

impl Daemon {
    /// The configuration's actions, as they are from now on. Those that are gone are told so, those that are new begin;
    /// with `reloaded` the runner reads the configuration again, and those of jails in `restarted` begin anew.
    pub(in crate::app) fn actions_change(&mut self, reloaded: bool, restarted: &[JailName]) {
        let now = (self.clock)();
        let jails: Vec<JailSettings> = self.settings.jails.clone();
        self.telling.limit = self.settings.telling.queue as usize;
        self.telling.most_matches = self.settings.store.max_matches as usize;
        let mut old = std::mem::take(&mut self.telling.jails);
        let mut rows = Vec::new();
        let (mut begun, mut kept) = (Vec::new(), Vec::new());
        for jail in &jails {
            let mut before = old.remove(&jail.name).unwrap_or_default();
            let mut actions: Vec<Action> = Vec::new();
            for settings in &jail.actions {
                if actions.iter().any(|action| *action.name == settings.name) {
                    continue;
                }
                let known = before.iter().position(|action| *action.name == settings.name);
                match known.map(|at| before.remove(at)) {
                    Some(mut action) => {
                        if reloaded {
                            action.set(settings.clone());
                        }
                        kept.push((jail.name.clone(), action.name.clone()));
                        actions.push(action);
                    }
                    None => {
                        let action = Action::new(settings);
                        begun.push((jail.name.clone(), action.name.clone()));
                        actions.push(action);
                    }
                }
            }
            self.telling.jails.insert(jail.name.clone(), actions);
            for action in before {
                rows.extend(self.action_leaves(&jail.name, action, true, now));
            }
        }
        for (jail, actions) in old {
            for action in actions {
                rows.extend(self.action_leaves(&jail, action, false, now));
            }
            self.telling.restored.remove(&jail);
        }
        if reloaded {
            self.telling.set.clear();
            self.telling.say(ToRunner::Reload);
        }
        for (jail, name) in kept {
            if restarted.contains(&jail) {
                self.tell_one(&jail, &name, Kind::Stop, now);
                self.action_begins(&jail, &name, now);
            } else if reloaded {
                self.tell_one(&jail, &name, Kind::Reload, now);
            }
        }
        for (jail, name) in begun {
            self.action_begins(&jail, &name, now);
        }
        self.keeper.tasks(rows);
        let asks =
            self.telling.jails.values().flatten().any(|action| action.asks() != Asks::default());
        self.keeper.keep_evidence(asks);
        self.forget_dropped();
        self.telling.begin();
        self.telling.hand_over_all(self.engine.bans());
    }

    /// It is started, and told of the bans that hold.
    fn action_begins(&mut self, jail: &JailName, name: &str, now: Timestamp) {
        self.tell_one(jail, name, Kind::Start, now);
        self.announce(jail, Some(name));
    }

    /// Has an action told of the bans that its jail holds, or all actions of the jail, as restored ones.
    fn announce(&mut self, jail: &JailName, name: Option<&str>) {
        let mut bans: Vec<(Timestamp, IpNet)> =
            self.engine.bans().of_jail(jail).map(|ban| (ban.since, ban.prefix)).collect();
        if bans.is_empty() || self.telling.jails.get(jail).is_none_or(Vec::is_empty) {
            return;
        }
        bans.sort_unstable();
        let bans: Arc<[IpNet]> = bans.into_iter().map(|(_, prefix)| prefix).collect();
        self.telling.restored.entry(jail.clone()).or_default().extend(bans.iter());
        let mut seq = self.telling.seq(0);
        let actions = self.telling.jails.get_mut(jail).into_iter().flatten();
        for action in actions.filter(|action| name.is_none_or(|name| *action.name == *name)) {
            if action.wants.restored {
                action.queue.push_restored(bans.clone(), seq);
                seq += bans.len() as u64;
            }
        }
        self.telling.next_seq = seq;
    }

    /// The bans of an earlier run are all known: each action is told of those that hold.
    pub(in crate::app) fn announce_restored(&mut self) {
        self.telling.begins = false;
        let jails: Vec<JailName> = self.telling.jails.keys().cloned().collect();
        for jail in jails {
            self.announce(&jail, None);
            self.telling.hand_over(&jail, self.engine.bans());
        }
    }

    /// Actions of this configuration begin; what an earlier run left comes first.
    pub(in crate::app) fn actions_begin(
        &mut self,
        standings: Vec<ActionStanding>,
        tasks: &[String],
    ) {
        self.telling.recall_standings(standings);
        self.actions_change(false, &[]);
        self.telling.recall(tasks);
        self.forget_dropped();
    }

    /// An action is configured no longer: bans that hold are over for it, and it stops. The runner knows its commands until
    /// then.
    fn action_leaves(
        &mut self,
        jail: &JailName,
        mut action: Action,
        flush: bool,
        now: Timestamp,
    ) -> Vec<store::Task> {
        let counts = self.counts_of(jail);
        let telling = &mut self.telling;
        let mut rows = Vec::new();
        let bans = self.engine.bans();
        if flush && bans.count_of(jail) > 0 {
            let asks = action.asks();
            let flushes = action.wants.flush;
            let one_by_one = bans.of_jail(jail).filter(|_| !flushes).map(Some);
            for ban in one_by_one.chain(flushes.then_some(None)) {
                let kind = if flushes { Kind::Flush } else { Kind::Unban };
                let plain = tasks::plain(kind, telling.seq(1), jail, &action.name, counts, now);
                let of_jail = telling.restored.get(jail);
                let ticket = ban.map(|ban| {
                    let restored = of_jail.is_some_and(|known| known.contains(&ban.prefix));
                    Arc::new(tasks::ticket(ban, restored))
                });
                let entry = Arc::new(Entry { ticket, asks, ..plain });
                rows.push(row(&entry));
                telling.add(&mut action, entry);
            }
        }
        let stop = tasks::plain(Kind::Stop, telling.seq(1), jail, &action.name, counts, now);
        telling.add(&mut action, Arc::new(stop));
        telling.leaving.push((jail.clone(), action));
        rows
    }
}
