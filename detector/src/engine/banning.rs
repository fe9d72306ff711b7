//! Bans made, prolonged, lifted and pardoned.
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Ban, CeilingTotals, Effect, Engine, FailureId, Lifted, Past, PastPlace, Random, SparedBy,
    Timestamp, bans, ceiling, increment, jail,
};
use crate::config::{BanTime, JailName};

impl Engine {
    /// A failure of one who was banned before counts for more: for 2, 3, 5, 9 … by the number of bans. Not one that is
    /// no newer than the last of them, which was read before.
    pub(super) fn known_offender(
        &mut self,
        at: usize,
        who: FailureId,
        failed_at: Timestamp,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> jail::Outcome {
        let jail = &mut self.jails[at];
        let settings = jail.settings();
        let (name, max_retry) = (settings.name.clone(), settings.max_retry);
        let past = (settings.increment.is_some())
            .then(|| self.history.of(&name, jail.prefix_of(&who)?, now))
            .flatten();
        let Some(past) = past.filter(|past| failed_at > past.last) else {
            return jail::Outcome::Below;
        };
        let counts_for = (1 << (past.bans.clamp(1, increment::MOST_DOUBLINGS) - 1)) + 1;
        let counts_for = max_retry.min(counts_for);
        if counts_for <= 1 {
            return jail::Outcome::Below;
        }
        let counted = jail.count_more(&who, (counts_for - 1, past.bans), &mut self.evidence);
        let reached = !matches!(counted.outcome, jail::Outcome::Below);
        let (jail, bans) = (name, past.bans);
        effects.push(Effect::KnownOffender { jail, who, at: failed_at, bans, counts_for, reached });
        counted.outcome
    }

    /// A ban that a jail decides on; above the ceiling those wait that are risky.
    pub(super) fn ban_found(&mut self, ban: Ban, now: Timestamp, effects: &mut Vec<Effect>) {
        let is_new = self.bans.of(ban.prefix, &ban.jail).is_none();
        if !is_new {
            return self.ban(ban, now, effects);
        }
        if let Some(why) = self.ceiling.suspends(&ban, now) {
            effects.push(Effect::Suspended { jail: ban.jail, prefix: ban.prefix, why });
            return;
        }
        let (prefix, jail) = (ban.prefix, ban.jail.clone());
        self.ban(ban, now, effects);
        if self.bans.of(prefix, &jail).is_some() && self.ceiling.count(now) {
            let bans = self.ceiling.totals().bans;
            effects.push(Effect::Ceiling { bans, exceeded: true });
        }
    }

    pub(super) fn look_at_ceiling(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.ceiling.look(now) {
            let bans = self.ceiling.totals().bans;
            effects.push(Effect::Ceiling { bans, exceeded: false });
        }
    }

    pub(super) fn logged_in(
        &mut self,
        address: IpAddr,
        at: Timestamp,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if self.ceiling.logged_in(address, at, now) {
            effects.push(Effect::LoggedIn { prefix: ceiling::unit(address), at });
        }
    }

    /// Takes up a login that was stored.
    pub fn recall_login(&mut self, prefix: IpNet, at: Timestamp, now: Timestamp) {
        self.ceiling.logged_in(prefix.addr(), at, now);
    }

    /// How the ceiling of new bans stands.
    pub fn ceiling(&self) -> CeilingTotals {
        self.ceiling.totals()
    }

    pub(super) fn ban(&mut self, mut ban: Ban, now: Timestamp, effects: &mut Vec<Effect>) {
        if ban.is_over(now) {
            let who = FailureId::Network(ban.prefix);
            effects.push(Effect::Spared { jail: ban.jail, who, by: SparedBy::EndsInThePast });
            return;
        }
        // A ban that holds only moves its end, by the plain time: it is none more.
        let is_new = self.bans.of(ban.prefix, &ban.jail).is_none();
        let grown = if is_new { self.grow(&mut ban, now, effects) } else { None };
        if grown.is_some() && ban.is_over(now) {
            let who = FailureId::Network(ban.prefix);
            effects.push(Effect::Spared { jail: ban.jail, who, by: SparedBy::EndsInThePast });
            return;
        }
        let failed_at = ban.since;
        match self.bans.put(ban) {
            bans::Put::New(ban) => {
                if let Some(&at) = self.index.get(&ban.jail) {
                    self.jails[at].count_ban();
                }
                self.remember(&ban, now);
                effects.push(Effect::Ban { ban: ban.clone(), prolonged: false, failed_at });
                effects.extend(grown.map(|(last, plain)| Effect::Increased {
                    ban: ban.clone(),
                    last,
                    plain,
                }));
                self.overheard(&ban, now, effects);
            }
            bans::Put::Later(ban) => {
                effects.push(Effect::Ban { ban, prolonged: true, failed_at });
            }
            bans::Put::Already(ban) => {
                let (jail, prefix) = (ban.jail.clone(), ban.prefix);
                effects.push(Effect::AlreadyBanned { jail, prefix, failed_at });
            }
        }
    }

    /// Counts the ban, and gives it the end that its address has earned. The last failure of the ban before, and the
    /// plain time, where they make a difference.
    fn grow(
        &mut self,
        ban: &mut Ban,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Option<(Timestamp, u32)> {
        // Of a past that was forgotten while these failures were counted the number stays, and lengthens nothing.
        let noted = std::mem::replace(&mut ban.count, 1);
        ban.counted = true;
        let settings = self.jails[*self.index.get(&ban.jail)?].settings();
        let increment = settings.increment.as_ref()?;
        ban.count = noted;
        let past = if increment.over_all_jails {
            self.history.over_all(ban.prefix, now)
        } else {
            self.history.of(&ban.jail, ban.prefix, now)
        }?;
        ban.count = noted.max(past.bans.saturating_add(1));
        ban.counted = ban.since > past.last;
        let BanTime::Seconds(plain @ 1..) = settings.ban_time else { return None };
        // Somebody chose another time by hand.
        if ban.until != jail::ban_end(settings.ban_time, ban.since) {
            return None;
        }
        match increment::seconds(increment, plain, past.bans, &mut self.random) {
            Ok(seconds) if seconds == f64::from(plain) => None,
            Ok(seconds) => {
                ban.until = increment::end(ban.since, seconds);
                Some((past.last, plain))
            }
            Err(why) => {
                let (jail, prefix) = (ban.jail.clone(), ban.prefix);
                effects.push(Effect::NotIncreased { jail, prefix, why });
                None
            }
        }
    }

    /// Enters a ban in the history, unless that knows a later one.
    fn remember(&mut self, ban: &Ban, now: Timestamp) {
        let known = self.history.of(&ban.jail, ban.prefix, now);
        if ban.counted && known.is_none_or(|known| ban.since > known.last) {
            let past = Past { bans: ban.count, last: ban.since, until: ban.until };
            self.history.enter(&ban.jail, ban.prefix, past, now);
        }
    }

    /// Lifts what is banned within `prefix` and pardons who was banned: their next ban is a first one.
    pub(super) fn unban(
        &mut self,
        prefix: IpNet,
        jail: Option<&JailName>,
        effects: &mut Vec<Effect>,
    ) {
        for ban in self.bans.take_within(prefix, jail) {
            self.history.forget(&ban.jail, ban.prefix);
            effects.push(Effect::Unban { ban, why: Lifted::ByHand });
        }
        let jails: Vec<JailName> = match jail {
            Some(jail) => vec![jail.clone()],
            None => self.history.jails().cloned().collect(),
        };
        for jail in jails {
            let unit = self.jail(&jail).and_then(|of| of.prefix_of(&FailureId::Network(prefix)));
            if self.history.forget(&jail, unit.unwrap_or(prefix)) {
                effects.push(Effect::Pardoned { jail, prefix: unit.or(Some(prefix)) });
            }
        }
    }

    /// The same for everybody, in one jail or in all.
    pub(super) fn unban_all(&mut self, jail: Option<JailName>, effects: &mut Vec<Effect>) {
        let jails: Vec<JailName> = match jail {
            Some(jail) => vec![jail],
            None => {
                let all = self.bans.jails().chain(self.history.jails());
                all.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect()
            }
        };
        for jail in jails {
            let lifted = self.bans.take_jail(&jail).into_iter();
            effects.extend(lifted.map(|ban| Effect::Unban { ban, why: Lifted::ByHand }));
            self.history.forget_jail(&jail);
            effects.push(Effect::Pardoned { jail, prefix: None });
        }
    }

    /// Takes over a ban that the kernel's maps hold since before the daemon started; one that has lapsed
    /// meanwhile is lifted by the next [`Event::Wake`](super::Event::Wake).
    pub fn adopt(&mut self, ban: Ban, now: Timestamp) {
        self.remember(&ban, now);
        self.bans.put(ban);
    }

    /// Takes up a past that was stored; what is known here is younger.
    pub fn recall(&mut self, jail: &JailName, prefix: IpNet, past: Past, now: Timestamp) {
        if self.history.of(jail, prefix, now).is_none() {
            self.history.enter(jail, prefix, past, now);
        }
    }

    /// What is remembered of a prefix's bans by one jail.
    pub fn past(&self, jail: &JailName, prefix: IpNet, now: Timestamp) -> Option<Past> {
        self.history.of(jail, prefix, now)
    }

    /// Those who were banned and are remembered, after `place`, and where the next step goes on.
    pub fn pasts(
        &self,
        place: Option<&PastPlace>,
        most: usize,
    ) -> (Vec<(JailName, IpNet, Past)>, Option<PastPlace>) {
        self.history.step(place, most)
    }

    /// Where the chance of `bantime.rndtime` begins: the same seed makes the same bans. Who knows it knows every end.
    pub fn seed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// This ban was lifted by hand before the daemon crashed: failures up to then, read again, do not bring it back.
    pub fn was_lifted(&mut self, prefix: IpNet, jail: JailName, at: Timestamp) {
        self.lifted.insert((jail, prefix), at);
    }

    /// Forgets a ban that could not be enforced, or no longer than before (`prolonged`), so that what is listed is what
    /// is enforced.
    pub fn refused(&mut self, ban: &Ban, prolonged: bool) {
        self.bans.take(ban.prefix, &ban.jail);
        if let Some(&at) = self.index.get(&ban.jail) {
            self.jails[at].refuse_ban(!prolonged);
        }
    }
}
