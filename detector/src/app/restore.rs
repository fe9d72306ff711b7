//! The start, as far as it concerns bans of an earlier daemon: those in the maps are taken over, those that ended
//! meanwhile lifted, those that the kernel has lost put back. All before the first source is read.
use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Daemon,
    act::{ACTIONS, say, shown},
    keep,
};
use crate::{
    config::JailName,
    enforce::Adopted,
    engine::{Ban, Event, Origin, Past, Timestamp},
    source::Positions,
    store::Loaded,
};

/// Bans that are put back before the next ones are told of.
const AT_ONCE: usize = 256;
/// How long before a crash a ban may have been heard of by a jail whose counts were not stored any more.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// The last bans that an earlier daemon made.
pub(super) fn last_moments(bans: &[Ban]) -> Vec<Ban> {
    let Some(newest) = bans.iter().map(|ban| ban.since).max() else { return Vec::new() };
    let recent = |ban: &&Ban| ban.since >= newest.minus(LAST_MOMENTS);
    let mut recent: Vec<Ban> = bans.iter().filter(recent).cloned().collect();
    recent.sort_by_key(|ban| (ban.since, ban.prefix));
    recent
}

impl Daemon {
    /// Jails that listen to the others may not have counted their last bans.
    pub(super) fn remind(&mut self, bans: &[Ban]) {
        let now = (self.clock)();
        for ban in bans {
            for effect in self.engine.remind(ban, now) {
                // What the kernel refuses is told by whoever carries it out.
                let _ = self.carry_out(effect);
            }
        }
    }

    /// Brings maps, store and ban table together, and takes up what was counted; answers how far sources were read.
    pub(super) fn take_up(&mut self, adopted: Vec<Adopted>, loaded: Loaded) -> Positions {
        let now = (self.clock)();
        if self.keeper.is_on() {
            self.engine.note_changes(false);
        }
        if loaded.unreadable > 0 {
            tracing::warn!("{} rows of the store cannot be understood", loaded.unreadable);
        }
        self.actions_begin(loaded.standings, &loaded.tasks);
        self.recall(loaded.history, now);
        for (prefix, at) in loaded.logins {
            self.engine.recall_login(prefix, at, now);
        }
        let missing = self.adopt(adopted, loaded.bans, now);
        let (over, live): (Vec<Ban>, Vec<Ban>) =
            missing.into_iter().partition(|ban| ban.is_over(now));
        for ban in over {
            self.engine.adopt(ban, now);
        }
        // In the order of their ends.
        while self.engine.bans().next_expiry().is_some_and(|end| end <= now) {
            self.event(Event::Wake);
        }
        self.put_back(live);
        for (jail, prefix, at) in loaded.lifted {
            self.engine.was_lifted(prefix, jail, at);
        }
        for count in loaded.counts {
            self.engine.restore(count, now);
        }
        keep::positions(&loaded.places)
    }

    /// What is stored came only now: bans that nobody else knows are put back, the rest is younger here.
    pub(super) fn take_up_late(&mut self, loaded: Loaded) {
        let now = (self.clock)();
        self.telling.recall(&loaded.tasks);
        self.forget_dropped();
        self.recall(loaded.history, now);
        for (prefix, at) in loaded.logins {
            self.engine.recall_login(prefix, at, now);
        }
        let unknown = |ban: &Ban| self.engine.bans().of(ban.prefix, &ban.jail).is_none();
        let live = loaded.bans.into_iter().filter(|ban| unknown(ban) && !ban.is_over(now));
        let live: Vec<Ban> = live.collect();
        self.put_back(live);
        self.announce_restored();
    }

    /// Lifts bans of an earlier daemon whom `ignoreip` spares by now.
    pub(super) fn lift_ignored(&mut self) {
        for effect in self.engine.lift_ignored() {
            // Lifting cannot be refused.
            let _ = self.carry_out(effect);
        }
    }

    fn recall(&mut self, history: Vec<(JailName, IpNet, Past)>, now: Timestamp) {
        for (jail, prefix, past) in history {
            self.engine.recall(&jail, prefix, past, now);
        }
    }

    /// Takes over what the maps hold, with the evidence that is stored; answers what is stored and not in the maps.
    fn adopt(&mut self, adopted: Vec<Adopted>, stored: Vec<Ban>, now: Timestamp) -> Vec<Ban> {
        if adopted.is_empty() {
            return stored;
        }
        let key = |ban: &Ban| (ban.jail.clone(), ban.prefix);
        let mut stored: HashMap<(JailName, IpNet), Ban> =
            stored.into_iter().map(|ban| (key(&ban), ban)).collect();
        for Adopted { prefix, jail, scope, until } in adopted {
            let known = stored.remove(&(jail.clone(), prefix));
            let is_stored =
                known.as_ref().is_some_and(|ban| ban.until == until && *ban.scope == scope);
            let ban = match known {
                // Thousands of bans share one scope.
                Some(ban) if is_stored => ban,
                Some(ban) => Ban { scope: Arc::new(scope), until, ..ban },
                None => {
                    let past = self.engine.past(&jail, prefix, now);
                    let count = past.map_or(0, |past| past.bans).saturating_add(1);
                    let (scope, since, counted) = (Arc::new(scope), now, true);
                    let (lines, origin) = (Vec::new(), Origin::default());
                    Ban {
                        prefix,
                        jail,
                        scope,
                        since,
                        until,
                        failures: 0,
                        count,
                        counted,
                        lines,
                        origin,
                    }
                }
            };
            if !is_stored && !ban.is_over(now) {
                self.keeper.ban(&Arc::new(ban.clone()), Vec::new());
            }
            self.engine.adopt(ban, now);
        }
        stored.into_values().collect()
    }

    /// Puts back bans that the kernel has lost, as it does at a reboot.
    fn put_back(&mut self, mut bans: Vec<Ban>) {
        let now = (self.clock)();
        bans.sort_by_key(|ban| (ban.since, ban.prefix));
        let (engine, enforcer) = (&mut self.engine, &mut self.enforcer);
        let (tell, entered) = mpsc::channel();
        // The maps take most of the time: a thread of their own halves it.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut bans = bans.into_iter();
                while bans.len() > 0 {
                    let entered: Vec<_> = bans
                        .by_ref()
                        .take(AT_ONCE)
                        .map(|ban| {
                            let done = enforcer.as_mut().map_or(Ok(()), |enforcer| {
                                enforcer.ban(ban.prefix, &ban.jail, &ban.scope, ban.until)
                            });
                            (ban, done)
                        })
                        .collect();
                    // It is received to the end.
                    let _ = tell.send(entered);
                }
            });
            for (ban, done) in entered.into_iter().flatten() {
                let shown = shown(ban.prefix);
                if let Err(error) = done {
                    tracing::error!("[{}] {shown} is NOT banned again: {error}", ban.jail);
                    continue;
                }
                say!(ACTIONS, notice, "restore", ban.jail, shown, "Restore Ban {shown}");
                engine.adopt(ban, now);
            }
        });
    }
}
