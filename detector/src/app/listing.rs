//! Answers that list bans: gathered a handful a turn, written on another thread. A hundred thousand bans would keep a
//! new one waiting for most of a second otherwise.
use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use tokio::sync::oneshot;

use super::{
    Daemon,
    act::shown,
    answers,
    commands::Question,
    silence::{self, State},
};
use crate::{
    config::JailName,
    control::{Refusal, wire},
    enforce::tables::Dropped,
    engine::{Ban, Place, Timestamp, Until},
};

/// Bans gathered in one turn.
const AT_ONCE: usize = 256;
/// Bans of each kind in a live view.
const TOP: usize = 64;

/// Where an answer goes.
pub(super) type Answer = oneshot::Sender<Result<wire::Reply, Refusal>>;

/// What is asked for.
pub(super) enum List {
    /// Every ban, with what it has dropped.
    Bans,
    /// Banned prefixes, by jail.
    Banned,
    /// The whole daemon, with each jail's banned prefixes.
    Status,
    /// Every jail, with its banned prefixes.
    Jails,
    /// One jail, with its banned prefixes.
    Jail(JailName),
    /// The whole daemon, and the bans that drop most or are newest.
    Top,
    /// What a command of fail2ban's asks.
    Asked(Question),
}

/// An answer that is being gathered.
pub(super) struct Listing {
    list: List,
    answer: Answer,
    place: Option<Place>,
    bans: Vec<Listed>,
}

pub(super) struct Listed {
    pub ban: Arc<Ban>,
    traffic: Option<Dropped>,
    observed: bool,
}

impl Listing {
    pub fn new(list: List, answer: Answer) -> Listing {
        Listing { list, answer, place: None, bans: Vec::new() }
    }
}

impl Daemon {
    /// Gathers some more of the first listing that waits; the last of them sends it off.
    pub(super) fn list_on(&mut self) {
        let Some(mut listing) = self.listings.pop_front() else { return };
        if listing.answer.is_closed() {
            return;
        }
        let (bans, last) = self.engine.bans().step(listing.place.as_ref(), AT_ONCE);
        let is_wanted = |ban: &Arc<Ban>| match &listing.list {
            List::Jail(jail) => ban.jail == *jail,
            List::Asked(question) => question.wants(ban),
            List::Bans | List::Banned | List::Status | List::Jails | List::Top => true,
        };
        let counts = matches!(listing.list, List::Bans | List::Top);
        let enforcer = self.enforcer.as_ref().filter(|_| counts);
        let listed = bans.into_iter().filter(is_wanted).map(|ban| Listed {
            traffic: enforcer.and_then(|enforcer| enforcer.traffic(ban.prefix)),
            observed: enforcer.is_some_and(|enforcer| enforcer.observes(ban.jail.as_str())),
            ban,
        });
        listing.bans.extend(listed);
        if matches!(listing.list, List::Top) && listing.bans.len() > 8 * TOP {
            listing.bans = keep_top(listing.bans);
        }
        if last.is_some() {
            listing.place = last;
            self.listings.push_front(listing);
        } else {
            self.send_off(listing);
        }
    }

    fn top(&self) -> wire::Top {
        let now = (self.clock)();
        let sources =
            self.readers.as_ref().map(|it| silence::sources(&self.settings.jails, it, now));
        let sources = sources.into_iter().flatten().map(|source| wire::Source {
            jail: source.jail.to_string(),
            name: source.name,
            state: match source.state {
                State::Read => "read".to_owned(),
                State::Awaited => "awaited".to_owned(),
                State::Gone => "gone".to_owned(),
                State::Unreadable(why) => why,
            },
            lag: u64::try_from(source.behind.as_millis()).unwrap_or(u64::MAX),
            last: source.last.map(Timestamp::seconds),
        });
        let (sources, status) = (sources.collect(), answers::status(self));
        let (busiest, newest) = (Vec::new(), Vec::new());
        wire::Top { at: now.micros() / 1000, status, sources, busiest, newest }
    }

    fn send_off(&self, listing: Listing) {
        let Listing { list, answer, bans, .. } = listing;
        let write: Box<dyn FnOnce(Vec<Listed>) -> wire::Reply + Send> = match list {
            List::Bans => Box::new(|bans| {
                let bans = bans
                    .iter()
                    .map(|listed| wire_ban(&listed.ban, listed.traffic, listed.observed));
                wire::Reply::Bans(bans.collect())
            }),
            List::Banned => {
                let jails = self.engine.jails().iter();
                let jails = jails.map(|jail| jail.settings().name.clone()).collect();
                Box::new(|bans| wire::Reply::Banned(banned(jails, &bans)))
            }
            List::Status => {
                let mut status = answers::status(self);
                Box::new(|bans| {
                    with_banned(&mut status.jails, &bans);
                    wire::Reply::Status(Box::new(status))
                })
            }
            List::Jails => {
                let jails = self.engine.jails().iter();
                let mut jails: Vec<wire::Jail> =
                    jails.map(|jail| answers::jail(self, jail)).collect();
                Box::new(|bans| {
                    with_banned(&mut jails, &bans);
                    wire::Reply::Jails(jails)
                })
            }
            List::Top => {
                let mut top = self.top();
                Box::new(|bans| {
                    let shown = |of: &mut dyn Iterator<Item = &Listed>| {
                        let of = of.take(TOP);
                        of.map(|it| wire_ban(&it.ban, it.traffic, it.observed)).collect()
                    };
                    top.newest = shown(&mut bans.iter().rev());
                    let mut bans: Vec<&Listed> = bans.iter().collect();
                    bans.sort_by_key(|listed| Reverse(packets(listed)));
                    top.busiest = shown(&mut bans.into_iter());
                    wire::Reply::Top(Box::new(top))
                })
            }
            List::Jail(name) => {
                let Some(jail) = self.engine.jail(&name) else {
                    // A reload may have taken it away meanwhile.
                    let _ = answer.send(Err(Refusal::NoSuchJail(name.to_string())));
                    return;
                };
                let mut jail = answers::jail(self, jail);
                Box::new(move |bans| {
                    jail.banned = bans.iter().map(|listed| shown(listed.ban.prefix)).collect();
                    wire::Reply::Jail(jail)
                })
            }
            List::Asked(question) => match self.answer_to(question) {
                Ok(write) => Box::new(|bans| wire::Reply::Value(write(bans))),
                Err(fault) => {
                    let _ = answer.send(Err(fault.into()));
                    return;
                }
            },
        };
        tokio::task::spawn_blocking(move || {
            // A client that did not wait for its answer has none.
            let _ = answer.send(Ok(write(in_order(bans))));
        });
    }
}

/// Packets that it dropped, or would have.
fn packets(listed: &Listed) -> u64 {
    listed.traffic.map_or(0, |traffic| traffic.packets + traffic.would_drop)
}

/// Those that drop most, and the newest.
fn keep_top(mut bans: Vec<Listed>) -> Vec<Listed> {
    bans.sort_by_key(|listed| Reverse(packets(listed)));
    let mut rest = bans.split_off(TOP);
    rest.sort_by_key(|listed| Reverse(listed.ban.since));
    rest.truncate(TOP);
    bans.append(&mut rest);
    bans
}

/// In the order of banning. A ban that moved its end while it was gathered was met twice.
fn in_order(mut bans: Vec<Listed>) -> Vec<Listed> {
    let key = |listed: &Listed| (listed.ban.since, listed.ban.prefix);
    bans.sort_by(|one, other| {
        key(one).cmp(&key(other)).then_with(|| one.ban.jail.cmp(&other.ban.jail))
    });
    bans.dedup_by(|one, other| key(one) == key(other) && one.ban.jail == other.ban.jail);
    bans
}

fn with_banned(jails: &mut [wire::Jail], bans: &[Listed]) {
    let mut of_jails = by_jail(bans);
    for jail in jails {
        jail.banned = of_jails.remove(jail.name.as_str()).unwrap_or_default();
    }
}

fn by_jail(bans: &[Listed]) -> HashMap<&str, Vec<String>> {
    let mut jails: HashMap<&str, Vec<String>> = HashMap::new();
    for Listed { ban, .. } in bans {
        jails.entry(ban.jail.as_str()).or_default().push(shown(ban.prefix));
    }
    jails
}

/// Jails that are configured first, in their order.
pub(super) fn banned(jails: Vec<JailName>, bans: &[Listed]) -> Vec<wire::BannedBy> {
    let mut of_jails = by_jail(bans);
    let mut banned: Vec<wire::BannedBy> = jails
        .iter()
        .map(|jail| wire::BannedBy {
            jail: jail.to_string(),
            banned: of_jails.remove(jail.as_str()).unwrap_or_default(),
        })
        .collect();
    let others = of_jails.into_iter();
    let mut others: Vec<wire::BannedBy> =
        others.map(|(jail, banned)| wire::BannedBy { jail: jail.to_owned(), banned }).collect();
    others.sort_by(|one, other| one.jail.cmp(&other.jail));
    banned.extend(others);
    banned
}

/// Without its rule.
pub(super) fn wire_ban(ban: &Ban, traffic: Option<Dropped>, observe: bool) -> wire::Ban {
    wire::Ban {
        prefix: shown(ban.prefix),
        jail: ban.jail.to_string(),
        since: ban.since.seconds(),
        until: match ban.until {
            Until::At(end) => Some(end.seconds()),
            Until::Forever => None,
        },
        failures: ban.failures,
        count: ban.count,
        scope: ban.scope.to_string(),
        packets: traffic.map(|traffic| traffic.packets),
        would_drop: traffic.map(|traffic| traffic.would_drop),
        observe,
        last_packet: traffic.and_then(|traffic| traffic.last_seen).map(i64::from),
        addresses: ban.origin.addresses.iter().map(ToString::to_string).collect(),
        rule: None,
        lines: ban.lines.iter().map(|line| line.to_string()).collect(),
    }
}
