//! What the engine decides becomes tasks.
use std::{cell::OnceCell, sync::Arc};

use ipnet::IpNet;

use super::{
    Action, Telling,
    queue::{Asks, Entry},
    row,
};
use crate::{
    action::wire::{Counts, Kind, Ticket},
    app::{Daemon, act::shown},
    config::JailName,
    engine::{Ban, BanTable, Event, Timestamp, Until},
    store,
};

/// A failure of who was banned so long ago makes actions look at their environments, as by fail2ban.
const ODD: i64 = 3;
/// A jail's actions look that often at the most, in seconds.
const CHECK_EVERY: i64 = 3;

/// A ban as actions see it.
pub(super) fn ticket(ban: &Ban, restored: bool) -> Ticket {
    let time = ban.since.micros() as f64 / 1e6;
    Ticket {
        id: shown(ban.prefix),
        ip: None,
        failures: ban.failures,
        time,
        ban_time: match ban.until {
            Until::Forever => -1,
            // The end was rounded up to a second.
            Until::At(end) => (end.micros() - ban.since.micros()).div_euclid(1_000_000),
        },
        // fail2ban counts a ban once more when it comes out of its database.
        ban_count: ban.count.saturating_add(restored.into()),
        restored,
        matches: ban.lines.iter().map(ToString::to_string).collect(),
        fields: ban
            .origin
            .fields
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        of_address: None,
        of_jail: None,
    }
}

/// Whom [`ticket`] was made for.
pub(super) fn prefix_of(id: &str) -> Option<IpNet> {
    id.parse().or_else(|_| id.parse::<std::net::IpAddr>().map(IpNet::from)).ok()
}

/// A task about nobody.
pub(super) fn plain(
    kind: Kind,
    seq: u64,
    jail: &JailName,
    action: &Arc<str>,
    counts: Counts,
    now: Timestamp,
) -> Entry {
    let (at, asks) = (now.micros() as f64 / 1e6, Asks::default());
    Entry { seq, jail: jail.clone(), action: action.clone(), kind, at, counts, ticket: None, asks }
}

/// An action hears of a ban of an earlier run.
pub(super) fn restored(seq: u64, ban: &Ban, action: &Action, banned: usize) -> Entry {
    let counts = Counts { banned: banned as u64, banned_total: banned as u64, ..Counts::default() };
    let plain = plain(Kind::Ban, seq, &ban.jail, &action.name, counts, ban.since);
    Entry { ticket: Some(Arc::new(ticket(ban, true))), asks: action.asks(), ..plain }
}

impl Telling {
    /// Adds a task for each action of the jail that is to have it; answers their rows.
    fn tell(
        &mut self,
        (kind, ban): (Kind, &Ban),
        counts: Counts,
        now: Timestamp,
        bans: &BanTable,
    ) -> Vec<store::Task> {
        let jail = &ban.jail;
        let Some(mut actions) = self.jails.get_mut(jail).map(std::mem::take) else {
            return Vec::new();
        };
        let mut of_jail = self.restored.get_mut(jail);
        let known = of_jail.as_mut().is_some_and(|known| match kind {
            Kind::Unban => known.remove(&ban.prefix),
            _ => known.contains(&ban.prefix),
        });
        let restored = known || self.begins;
        // One for all, made when the first of them is to have it.
        let about = OnceCell::new();
        let ticket = || about.get_or_init(|| Arc::new(ticket(ban, restored))).clone();
        let mut rows = Vec::new();
        for action in &mut actions {
            let wants = match kind {
                Kind::Unban => {
                    action.told_in.remove(&ban.prefix);
                    !(self.flushing && action.wants.flush)
                }
                Kind::Prolong => action.wants.prolong && (action.wants.restored || !restored),
                Kind::Check => action.wants.check,
                Kind::Reban => {
                    let epoch = self.standing(jail, &action.name).map_or(0, |it| it.epoch);
                    let told = action.told_in.get(&ban.prefix).copied().unwrap_or(0);
                    epoch > told
                        && action.told_in.insert(ban.prefix, epoch).is_none_or(|it| it < epoch)
                }
                _ => true,
            };
            if !wants {
                continue;
            }
            let plain = plain(kind, self.seq(1), jail, &action.name, counts, now);
            let about = (kind != Kind::Check).then(ticket);
            let entry = Arc::new(Entry { ticket: about, asks: action.asks(), ..plain });
            if entry.is_kept() {
                rows.push(row(&entry));
            }
            self.add(action, entry);
        }
        self.jails.insert(jail.clone(), actions);
        self.make_room();
        self.hand_over(jail, bans);
        rows
    }

    pub(super) fn add(&mut self, action: &mut Action, entry: Arc<Entry>) {
        let jail = entry.jail.clone();
        self.bytes += action.queue.push(entry);
        while action.queue.len() > self.limit
            && let Some((seq, bytes)) = action.queue.drop_oldest()
        {
            self.bytes = self.bytes.saturating_sub(bytes);
            self.gone.push(seq);
            dropped(&jail, action);
        }
    }

    /// Keeps to [`super::MOST_BYTES`] over all actions.
    fn make_room(&mut self) {
        while self.bytes > super::MOST_BYTES {
            let all = self
                .jails
                .iter_mut()
                .flat_map(|(jail, of)| of.iter_mut().map(move |it| (jail, it)));
            let Some((jail, longest)) = all.max_by_key(|(_, action)| action.queue.len()) else {
                return;
            };
            let Some((seq, bytes)) = longest.queue.drop_oldest() else { return };
            self.bytes = self.bytes.saturating_sub(bytes);
            self.gone.push(seq);
            dropped(jail, longest);
        }
    }
}

/// Said once, and at each doubling.
fn dropped(jail: &JailName, action: &mut Action) {
    action.counts.dropped += 1;
    let dropped = action.counts.dropped;
    if dropped.is_power_of_two() {
        tracing::error!(
            "[{jail}] action '{}' falls behind: {dropped} of the oldest that it was to do dropped so far",
            action.name
        );
    }
}

impl Daemon {
    pub(super) fn counts_of(&self, jail: &JailName) -> Counts {
        let banned = self.engine.bans().count_of(jail) as u64;
        let Some(jail) = self.engine.jail(jail) else {
            return Counts { banned, ..Counts::default() };
        };
        let totals = jail.totals();
        Counts {
            banned,
            banned_total: totals.banned,
            found: jail.currently_failed() as u64,
            found_total: totals.failed,
        }
    }

    /// Has a jail's actions told of a ban; answers the rows that belong into the transaction of the ban.
    pub(in crate::app) fn tell(&mut self, kind: Kind, ban: &Ban) -> Vec<store::Task> {
        if self.telling.jails.get(&ban.jail).is_none_or(Vec::is_empty) {
            return Vec::new();
        }
        let (counts, now) = (self.counts_of(&ban.jail), (self.clock)());
        self.telling.tell((kind, ban), counts, now, self.engine.bans())
    }

    /// The same where no other row goes with it.
    pub(in crate::app) fn tell_apart(&mut self, kind: Kind, ban: &Ban) {
        let rows = self.tell(kind, ban);
        self.keeper.tasks(rows);
        self.forget_dropped();
    }

    /// One action begins, stops, or reads its settings anew.
    pub(super) fn tell_one(&mut self, jail: &JailName, name: &str, kind: Kind, now: Timestamp) {
        let counts = self.counts_of(jail);
        let seq = self.telling.seq(1);
        let Some(action) = self.telling.action(jail, name) else { return };
        let bytes = action.queue.push(Arc::new(plain(kind, seq, jail, &action.name, counts, now)));
        self.telling.bytes += bytes;
    }

    /// Somebody fails who is banned: after a while fail2ban doubts that its actions' environments are still there.
    pub(in crate::app) fn doubt(&mut self, jail: &JailName, prefix: IpNet, failed_at: Timestamp) {
        if self.telling.jails.get(jail).is_none_or(Vec::is_empty) {
            return;
        }
        let Some(ban) = self.engine.bans().of(prefix, jail).cloned() else { return };
        let now = (self.clock)();
        let checked = self.telling.checked.get(jail);
        if failed_at.seconds() - ban.since.seconds() > ODD
            && checked.is_none_or(|at| now.seconds() > at.seconds() + CHECK_EVERY)
        {
            self.telling.checked.insert(jail.clone(), now);
            self.tell_apart(Kind::Check, &ban);
        }
        if self.telling.has_epochs {
            self.tell_apart(Kind::Reban, &ban);
        }
    }

    /// Carries an event out that lifts every ban of these jails: actions that can flush do so once.
    pub(in crate::app) fn flushing<T>(
        &mut self,
        jails: &[JailName],
        lift: impl FnOnce(&mut Daemon) -> T,
    ) -> T {
        let now = (self.clock)();
        let mut rows = Vec::new();
        for jail in jails.iter().filter(|jail| self.engine.bans().count_of(jail) > 0) {
            let counts = Counts { banned: 0, ..self.counts_of(jail) };
            let Some(mut actions) = self.telling.jails.get_mut(jail).map(std::mem::take) else {
                continue;
            };
            for action in actions.iter_mut().filter(|action| action.wants.flush) {
                let seq = self.telling.seq(1);
                let entry = Arc::new(plain(Kind::Flush, seq, jail, &action.name, counts, now));
                rows.push(row(&entry));
                self.telling.add(action, entry);
            }
            self.telling.jails.insert(jail.clone(), actions);
        }
        // Before the bans' own rows: whatever ends the daemon now, a flush too many harms nobody.
        self.keeper.tasks(rows);
        self.telling.flushing = true;
        let lifted = lift(self);
        self.telling.flushing = false;
        for jail in jails {
            self.telling.hand_over(jail, self.engine.bans());
        }
        self.forget_dropped();
        lifted
    }

    /// Lifts every ban of one jail or of all; how many.
    pub(in crate::app) fn unban_all(&mut self, jail: Option<JailName>) -> usize {
        let jails = match &jail {
            Some(jail) => vec![jail.clone()],
            None => self.telling.jails.keys().cloned().collect(),
        };
        self.flushing(&jails, |daemon| daemon.event(Event::UnbanAll { jail }).changed)
    }
}
