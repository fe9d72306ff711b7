//! Findings become bans. Pure: an event and `now` in, effects out.
//!
//! Read [`Engine::handle`] first: everything that can ever happen is an [`Event`], everything that
//! ever follows an [`Effect`]. The rooms that act (kernel maps, log, socket) stand outside.
mod asking;
mod banning;
mod bans;
mod ceiling;
mod counter;
mod date;
mod evidence;
mod explain;
mod filter;
mod hearing;
mod history;
mod increment;
mod jail;
mod lingering;
mod names;
mod pattern;
mod review;
mod rules;
mod script;
mod types;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use asking::Asking;
pub use asking::{Answer, Question, QuestionTotals};
pub use bans::{BanTable, Place};
use ceiling::Ceiling;
pub use ceiling::{CeilingTotals, LOGIN_KEPT, MAX_LOGINS, Suspended};
pub use counter::Limits;
pub use date::{DateFault, UnknownCode, date_in_words};
use evidence::Evidence;
pub use explain::Standing;
pub use filter::{
    FilterError, Hit, HitOutcome, Inspection, MAX_EVIDENCE, MAX_LINES, MAX_SESSIONS, Matcher,
    MatcherCounts, NearMiss, NearMisses, PatternName, PatternState, SessionCounts, expand_tags,
};
pub use hearing::BY_HAND;
use history::History;
pub use history::{Past, PastPlace};
use increment::Random;
use ipnet::IpNet;
pub use jail::{Jail, JailTotals, ban_end};
pub use lingering::Lingering;
pub use names::NameTotals;
use names::Names;
pub use pattern::{Engine as PatternEngine, PatternError, SyntaxFault};
pub use review::{PatternReview, review_jail};
pub use script::{Meaning, Script, option_of, reversed};
pub use types::*;

use crate::config::{FormulaFault, Ignore, JailName, JailSettings};

/// Bans lifted in one turn: a mass expiry goes on in the next, so that a new ban never waits for it.
pub const LIFTED_AT_ONCE: usize = 64;

/// What can happen to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A filter found a failure.
    Finding(Finding),
    /// Somebody logged in.
    LoggedIn {
        /// From there.
        address: IpAddr,
        /// When.
        at: Timestamp,
    },
    /// The answer to [`Effect::Resolve`]; empty when the name has no address.
    Resolved {
        /// The name that was asked.
        name: Box<str>,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// The answer to [`Effect::Ask`].
    Answered {
        /// What was asked.
        question: Question,
        /// What came of it.
        answer: Answer,
    },
    /// This machine's addresses, whenever they change.
    OwnAddresses(Vec<IpAddr>),
    /// What the kernel never drops, whenever it changes: a ban of it would be none.
    AllowList(Vec<IpNet>),
    /// Somebody bans by hand. In a jail with `bantime.increment` it lasts longer for one who was banned before, if it
    /// would last `bantime` otherwise.
    Ban(Ban),
    /// Somebody lifts a jail's ban by hand, or every jail's.
    Unban {
        /// The prefix; everything banned within it is lifted too.
        prefix: IpNet,
        /// Only this jail's ban.
        jail: Option<JailName>,
    },
    /// Somebody lifts every ban, of one jail or of all.
    UnbanAll {
        /// Only this jail's bans.
        jail: Option<JailName>,
    },
    /// Time has passed: see [`Engine::next_wake`].
    Wake,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The ban holds: put it into the kernel's maps before anything else. Also when a live ban moved its end.
    Ban {
        /// The ban.
        ban: Arc<Ban>,
        /// A live ban of this jail moved to a later end.
        prolonged: bool,
        /// The last failure that led to it.
        failed_at: Timestamp,
    },
    /// The ban is over: take it out of the maps.
    Unban {
        /// The ban as it was.
        ban: Arc<Ban>,
        /// Why it is over.
        why: Lifted,
    },
    /// A failure was counted.
    Found {
        /// By which jail.
        jail: JailName,
        /// Of whom.
        who: FailureId,
        /// When it happened.
        at: Timestamp,
        /// Attempts counted so far.
        attempts: u32,
    },
    /// It counts for more, since this one was banned before: `bantime.increment` lowers the threshold.
    KnownOffender {
        /// In which jail.
        jail: JailName,
        /// Who.
        who: FailureId,
        /// When it happened.
        at: Timestamp,
        /// Bans before.
        bans: u32,
        /// Failures that it counts for.
        counts_for: u32,
        /// The threshold is reached by it.
        reached: bool,
    },
    /// The ban just made lasts longer, or shorter, than `bantime`, since its address was banned before.
    Increased {
        /// The ban.
        ban: Arc<Ban>,
        /// The last failure of the ban before it.
        last: Timestamp,
        /// Seconds of the jail's `bantime`.
        plain: u32,
    },
    /// `bantime.formula` has no value for this one: the ban lasts `bantime`.
    NotIncreased {
        /// By which jail.
        jail: JailName,
        /// Who.
        prefix: IpNet,
        /// Why.
        why: FormulaFault,
    },
    /// Somebody pardoned addresses that are not banned now: their bans of the past are forgotten.
    Pardoned {
        /// By which jail.
        jail: JailName,
        /// Who; `None`: everybody.
        prefix: Option<IpNet>,
    },
    /// A failure was not counted.
    Spared {
        /// By which jail.
        jail: JailName,
        /// Of whom.
        who: FailureId,
        /// Which rule spared it.
        by: SparedBy,
    },
    /// A failure of somebody who is banned already.
    AlreadyBanned {
        /// By which jail.
        jail: JailName,
        /// Who.
        prefix: IpNet,
        /// When.
        failed_at: Timestamp,
    },
    /// The threshold was reached by something that has no address: reported, never enforced.
    NoAddress {
        /// By which jail.
        jail: JailName,
        /// The text that was counted.
        text: Box<str>,
    },
    /// More bans are made than `ban_ceiling` a minute, or that is over.
    Ceiling {
        /// New bans within the last minute.
        bans: u32,
        /// It began.
        exceeded: bool,
    },
    /// A ban is not made, since more are made than `ban_ceiling` and this one would hurt most if all is a mistake.
    Suspended {
        /// By which jail.
        jail: JailName,
        /// Whose.
        prefix: IpNet,
        /// What makes it risky.
        why: Suspended,
    },
    /// Somebody logged in from there: remember it.
    LoggedIn {
        /// An IPv4 address, or a /64.
        prefix: IpNet,
        /// When.
        at: Timestamp,
    },
    /// Look this name up and answer with [`Event::Resolved`].
    Resolve {
        /// The name.
        name: Box<str>,
    },
    /// Run this `ignorecommand` and answer with [`Event::Answered`].
    Ask(Question),
    /// Too many failures wait for an `ignorecommand`: some count without its answer.
    Unasked {
        /// Whose.
        jail: JailName,
        /// How many did so far, of all jails.
        failures: u64,
    },
    /// The limit of pending failures was reached and the oldest were forgotten.
    Forgot {
        /// Whose.
        jail: JailName,
        /// How many addresses.
        addresses: usize,
    },
}

/// All jails and all bans.
pub struct Engine {
    jails: Vec<Jail>,
    index: HashMap<JailName, usize>,
    bans: BanTable,
    names: Names,
    own: Vec<IpAddr>,
    allowed: Vec<IpNet>,
    limits: Limits,
    evidence: Evidence,
    forgotten: u64,
    history: History,
    ceiling: Ceiling,
    lingering: lingering::Watch,
    asking: Asking,
    random: Random,
    /// Lifted by hand before a crash: what led to these bans may be read again.
    lifted: HashMap<(JailName, IpNet), Timestamp>,
    notes_changes: bool,
}

impl Engine {
    /// An engine with these jails and nothing banned yet.
    pub fn new(jails: &[JailSettings], limits: Limits) -> Engine {
        let mut engine = Engine {
            jails: Vec::new(),
            index: HashMap::new(),
            bans: BanTable::default(),
            names: Names::default(),
            own: Vec::new(),
            allowed: Vec::new(),
            evidence: Evidence::new(limits.evidence),
            forgotten: 0,
            history: History::new(limits.history, limits.purge_age),
            ceiling: Ceiling::new(limits.bans_a_minute),
            lingering: lingering::Watch::default(),
            asking: Asking::default(),
            random: Random::new(0),
            limits,
            lifted: HashMap::new(),
            notes_changes: false,
        };
        engine.place(jails.iter().map(|settings| Jail::new(settings.clone())).collect());
        engine
    }

    fn place(&mut self, mut jails: Vec<Jail>) {
        self.evidence.rules.begin();
        for jail in &mut jails {
            jail.number_rules(&mut self.evidence.rules);
        }
        self.index =
            jails.iter().enumerate().map(|(at, jail)| (jail.settings().name.clone(), at)).collect();
        self.jails = jails;
        self.names.keep(self.jails.iter().flat_map(|jail| &jail.settings().ignore).filter_map(
            |ignore| match &ignore.value {
                Ignore::Name(name) => Some(name.as_str()),
                Ignore::Net(_) => None,
            },
        ));
    }

    /// The configuration changed: jails that stay keep what they counted and banned, at their new settings;
    /// bans of jails that are gone are lifted, unless the jail is among `broken` (a mistake in the
    /// configuration must not free an attacker).
    pub fn reconfigure(
        &mut self,
        jails: &[JailSettings],
        broken: &[JailName],
        _now: Timestamp,
    ) -> Vec<Effect> {
        let mut old: HashMap<JailName, Jail> =
            self.jails.drain(..).map(|jail| (jail.settings().name.clone(), jail)).collect();
        let jails = jails
            .iter()
            .map(|settings| match old.remove(&settings.name) {
                Some(jail) => jail.with_settings(settings.clone()),
                None => Jail::new(settings.clone()),
            })
            .collect();
        self.place(jails);
        for jail in old.values_mut() {
            jail.clear(&mut self.evidence);
        }
        if self.notes_changes {
            self.note_changes(false);
        }
        let gone: Vec<JailName> = old.into_keys().filter(|name| !broken.contains(name)).collect();
        gone.iter()
            .flat_map(|name| self.bans.take_jail(name))
            .map(|ban| Effect::Unban { ban, why: Lifted::JailRemoved })
            .collect()
    }

    /// Other bounds, kept from the next failure on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.history.set_limits(limits.history, limits.purge_age);
        self.ceiling.set_most(limits.bans_a_minute);
        self.evidence.set_limit(limits.evidence);
    }

    /// Everything that happens, happens here.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Finding(finding) if self.is_echo(&finding, now) => {}
            Event::Finding(finding) => self.found(finding, now, &mut effects),
            Event::Answered { question, answer } => {
                self.answered(&question, answer, now, &mut effects);
            }
            Event::Resolved { name, addresses } => {
                for finding in self.names.resolved(&name, &addresses, now) {
                    self.found_each(&finding, &addresses, now, &mut effects);
                }
            }
            Event::LoggedIn { address, at } => self.logged_in(address, at, now, &mut effects),
            Event::OwnAddresses(addresses) => self.own = addresses,
            Event::AllowList(prefixes) => self.allowed = prefixes,
            Event::Ban(ban) => self.ban(ban, now, &mut effects),
            Event::Unban { prefix, jail } => self.unban(prefix, jail.as_ref(), &mut effects),
            Event::UnbanAll { jail } => self.unban_all(jail, &mut effects),
            Event::Wake => {
                let lapsed = self.bans.expire(now, LIFTED_AT_ONCE);
                effects.extend(
                    lapsed.into_iter().map(|ban| Effect::Unban { ban, why: Lifted::Expired }),
                );
                for jail in &mut self.jails {
                    jail.forget_lapsed(now, &mut self.evidence);
                }
                self.history.sweep(now);
                self.look_at_ceiling(now, &mut effects);
                effects
                    .extend(self.names.due(now).into_iter().map(|name| Effect::Resolve { name }));
            }
        }
        effects
    }

    /// A finding about a name counts for each of the name's addresses.
    fn found_each(
        &mut self,
        finding: &Finding,
        addresses: &[IpAddr],
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        for &address in addresses {
            let finding = Finding { who: FailureId::Address(address), ..finding.clone() };
            self.found(finding, now, effects);
        }
    }

    fn found(&mut self, finding: Finding, now: Timestamp, effects: &mut Vec<Effect>) {
        // A finding may still be on its way when a reload takes its jail away.
        let Some(&at) = self.index.get(&finding.jail) else { return };
        if let FailureId::Name(name) = &finding.who {
            let name = name.clone();
            if let Some(addresses) = self.names.known(&name, now).map(<[_]>::to_vec) {
                self.found_each(&finding, &addresses, now, effects);
            } else if self.names.wait_for(&name, finding) {
                effects.push(Effect::Resolve { name });
            }
            return;
        }
        if let Some(prefix) = finding.who.prefix() {
            let allowed = || {
                let entry = self.allowed.iter().find(|entry| entry.contains(&prefix))?;
                Some(SparedBy::AllowList(*entry))
            };
            let spared = self.jails[at].spares(prefix, &self.own, &self.names);
            if let Some(by) = spared.or_else(allowed) {
                self.cache(at, &finding, true, now);
                effects.push(Effect::Spared { jail: finding.jail, who: finding.who, by });
                return;
            }
        }
        if let Some(finding) = self.ask(at, finding, now, effects) {
            self.count(at, finding, now, effects);
        }
    }

    fn count(&mut self, at: usize, finding: Finding, now: Timestamp, effects: &mut Vec<Effect>) {
        let (who, jail_name, failed_at) = (finding.who.clone(), finding.jail.clone(), finding.at);
        self.watch_banned(at, &finding, now);
        if self.jails[at].is_new(&who) {
            self.make_room(effects);
        }
        let counted = self.jails[at].count(finding, now, &mut self.evidence);
        let found = Effect::Found {
            jail: jail_name,
            who: who.clone(),
            at: failed_at,
            attempts: counted.attempts,
        };
        effects.push(found);
        let outcome = match counted.outcome {
            jail::Outcome::Below => self.known_offender(at, who, failed_at.min(now), now, effects),
            outcome => outcome,
        };
        match outcome {
            jail::Outcome::Below => {}
            jail::Outcome::NoAddress(text) => {
                effects
                    .push(Effect::NoAddress { jail: self.jails[at].settings().name.clone(), text });
            }
            jail::Outcome::Ban(ban) => {
                let lifted = self.lifted.remove(&(ban.jail.clone(), ban.prefix));
                if let Some(at) = lifted.filter(|at| ban.since <= *at) {
                    let who = FailureId::Network(ban.prefix);
                    let by = SparedBy::LiftedSince;
                    effects.push(Effect::Spared { jail: ban.jail.clone(), who, by });
                    self.lifted.insert((ban.jail, ban.prefix), at);
                } else {
                    self.ban_found(ban, now, effects);
                }
            }
        }
    }

    /// Names found in logs, on their way to addresses.
    pub fn names(&self) -> NameTotals {
        self.names.totals()
    }

    /// Room for one more below the threshold.
    fn make_room(&mut self, effects: &mut Vec<Effect>) {
        if self.pending().addresses < self.limits.pending_failures {
            return;
        }
        let Some(jail) = self.jails.iter_mut().max_by_key(|jail| jail.currently_failed()) else {
            return;
        };
        let addresses = jail.forget_oldest(&mut self.evidence);
        self.forgotten += addresses as u64;
        effects.push(Effect::Forgot { jail: jail.settings().name.clone(), addresses });
    }

    /// What is kept of those below the threshold, and of those who were banned.
    pub fn pending(&self) -> PendingTotals {
        PendingTotals {
            addresses: self.jails.iter().map(Jail::currently_failed).sum(),
            most_addresses: self.limits.pending_failures,
            forgotten_addresses: self.forgotten,
            evidence: self.evidence.bytes(),
            most_evidence: self.limits.evidence,
            forgotten_lines: self.evidence.forgotten(),
            history: self.history.len(),
            most_history: self.history.most(),
            forgotten_history: self.history.forgotten(),
        }
    }

    /// Lifts bans that were taken over and that their jails would not make any more: `ignoreip` names the address by now.
    /// fail2ban leaves these out too when it restores its bans.
    pub fn lift_ignored(&mut self) -> Vec<Effect> {
        let mut lifted = Vec::new();
        for jail in &self.jails {
            for net in jail.spared(&self.own, &self.names) {
                lifted.extend(self.bans.take_within(net, Some(&jail.settings().name)));
            }
        }
        lifted.into_iter().map(|ban| Effect::Unban { ban, why: Lifted::Ignored }).collect()
    }

    /// Takes up what a jail knew of an address when it last ran; what is too old or of no jail is left.
    pub fn restore(&mut self, change: Change, now: Timestamp) {
        if let (Some(&at), Some(pending)) = (self.index.get(&change.jail), change.pending) {
            self.jails[at].restore(change.who, pending, now, &mut self.evidence);
        }
    }

    /// From now on notes whose counts change, for [`Engine::changes`]; with `all` as if everybody's just had.
    pub fn note_changes(&mut self, all: bool) {
        self.notes_changes = true;
        for jail in &mut self.jails {
            jail.note_changes(all);
        }
    }

    /// How many counts of these jails changed and were not given by [`Engine::changes`] yet.
    pub fn changed(&self, jails: &[JailName]) -> usize {
        jails.iter().filter_map(|jail| self.jail(jail)).map(Jail::changed).sum()
    }

    /// At most `most` counts that changed since they were last given.
    pub fn changes(&mut self, most: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        for jail in &mut self.jails {
            if jail.changed() > 0 {
                changes.extend(jail.changes(most - changes.len(), &self.evidence));
            }
            if changes.len() >= most {
                break;
            }
        }
        changes
    }

    /// When [`Event::Wake`] next has work; `None` when nothing is pending.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let jails = self.jails.iter().filter_map(Jail::next_forget);
        let sweep = self.history.next_sweep();
        self.bans
            .next_expiry()
            .into_iter()
            .chain(jails)
            .chain(sweep)
            .chain(self.names.next_due())
            .chain(self.ceiling.next_look())
            .min()
    }

    /// The jails, in the order of the configuration.
    pub fn jails(&self) -> &[Jail] {
        &self.jails
    }

    /// One jail.
    pub fn jail(&self, name: &JailName) -> Option<&Jail> {
        self.index.get(name).map(|&at| &self.jails[at])
    }

    /// Who is banned.
    pub fn bans(&self) -> &BanTable {
        &self.bans
    }

    /// Names to look up before the first line is read: those of `ignoreip`.
    pub fn names_to_resolve(&self) -> Vec<Box<str>> {
        self.names.unresolved()
    }
}

#[cfg(test)]
mod tests;
