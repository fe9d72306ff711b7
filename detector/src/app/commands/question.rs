//! Commands whose answer takes a walk through all bans.
use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::{Fault, Flavor, row, texts};
use crate::{
    app::{
        Daemon,
        act::shown,
        answers,
        listing::{self, Listed},
    },
    config::{JailName, Value},
    engine::{Ban, Timestamp, Until},
};

/// What is asked.
pub(in crate::app) enum Question {
    /// Everybody, by jail; or the jails that ban each of these.
    Banned(Vec<Id>),
    /// A jail's, or whether each of these is among them.
    JailBanned {
        /// The jail.
        jail: JailName,
        /// Whom to look for.
        ids: Vec<Id>,
    },
    /// A jail's, in the order of their ends.
    BanIp {
        /// The jail.
        jail: JailName,
        /// With their times.
        with_time: bool,
    },
    /// The same of every jail.
    AllStatus(Flavor),
    /// A jail's counts, sources and bans.
    Status {
        /// The jail.
        jail: JailName,
        /// How much of it.
        flavor: Flavor,
    },
}

/// The last second that Python's calendar has.
const NEVER: &str = "9999-12-31 23:59:59";

type Write = Box<dyn FnOnce(Vec<Listed>) -> Value + Send>;

impl Question {
    /// Whether this ban is part of the answer.
    pub fn wants(&self, ban: &Ban) -> bool {
        match self {
            Question::Banned(ids) => ids.is_empty() || ids.iter().any(|id| covers(ban, id)),
            Question::JailBanned { jail, ids } => {
                ban.jail == *jail && (ids.is_empty() || ids.iter().any(|id| covers(ban, id)))
            }
            Question::BanIp { jail, .. } => ban.jail == *jail,
            Question::AllStatus(flavor) => *flavor != Flavor::Short,
            Question::Status { jail, flavor } => ban.jail == *jail && *flavor != Flavor::Short,
        }
    }
}

/// Somebody to look for; `None` is no address, and nobody's ban.
pub(in crate::app) type Id = Option<IpNet>;

/// Reads whom to look for.
pub(super) fn ids(texts: &[String]) -> Vec<Id> {
    let id = |text: &String| -> Id {
        let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address()).ok()
    };
    texts.iter().map(id).collect()
}

/// Whether it is the ban of this address, or of the prefix that holds it.
fn covers(ban: &Ban, id: &Id) -> bool {
    id.is_some_and(|id| ban.prefix.contains(&id))
}

fn names(bans: &[Listed]) -> Value {
    texts(bans.iter().map(|listed| shown(listed.ban.prefix)))
}

impl Daemon {
    /// What makes the answer of the bans that the question wants.
    pub(in crate::app) fn answer_to(&self, question: Question) -> Result<Write, Fault> {
        Ok(match question {
            Question::Banned(ids) => {
                let jails = self.settings.jails.iter().map(|jail| jail.name.clone()).collect();
                Box::new(move |bans| {
                    let of_jails = listing::banned(jails, &bans);
                    if ids.is_empty() {
                        let of_jails = of_jails.into_iter();
                        return Value::List(
                            of_jails
                                .map(|of| Value::Map(vec![(of.jail, texts(of.banned))]))
                                .collect(),
                        );
                    }
                    let jails_of = |id: &Id| {
                        let ban = |name: &str| {
                            let mut bans = bans.iter();
                            bans.any(|listed| {
                                listed.ban.jail.as_str() == name && covers(&listed.ban, id)
                            })
                        };
                        texts(of_jails.iter().map(|of| of.jail.as_str()).filter(|name| ban(name)))
                    };
                    Value::List(ids.iter().map(jails_of).collect())
                })
            }
            Question::JailBanned { jail, ids } => {
                self.jail_named(jail.as_str())?;
                Box::new(move |bans| {
                    let is = |id: &Id| {
                        Value::from(i64::from(bans.iter().any(|listed| covers(&listed.ban, id))))
                    };
                    match ids.as_slice() {
                        [] => names(&bans),
                        [id] => is(id),
                        ids => Value::List(ids.iter().map(is).collect()),
                    }
                })
            }
            Question::BanIp { jail, with_time } => {
                self.jail_named(jail.as_str())?;
                Box::new(move |mut bans| {
                    bans.sort_by_key(|listed| listed.ban.until);
                    if with_time {
                        texts(bans.iter().map(|listed| timed(&listed.ban, &TimeZone::system())))
                    } else {
                        names(&bans)
                    }
                })
            }
            Question::Status { jail, flavor } => self.jail_rows(&jail, flavor)?,
            Question::AllStatus(flavor) => {
                let mut names: Vec<&JailName> =
                    self.settings.jails.iter().map(|jail| &jail.name).collect();
                names.sort_unstable();
                let write = |name: &JailName| Ok((name.clone(), self.jail_rows(name, flavor)?));
                let jails = names.into_iter().map(write).collect::<Result<Vec<_>, Fault>>()?;
                let mut rows = match self.jails_row() {
                    Value::List(rows) => rows,
                    other => vec![other],
                };
                Box::new(move |mut bans| {
                    let of_jails = jails.into_iter().map(|(name, write)| {
                        let of_jail = bans.extract_if(.., |listed| listed.ban.jail == name);
                        let of_jail = of_jail.collect();
                        (name.to_string(), write(of_jail))
                    });
                    let of_jails = Value::Map(of_jails.collect());
                    rows.push(row("Status for the jails", of_jails));
                    Value::List(rows)
                })
            }
        })
    }

    fn jail_rows(&self, name: &JailName, flavor: Flavor) -> Result<Write, Fault> {
        let Some(jail) = self.engine.jail(name) else { return Err(Fault::no_jail(name.as_str())) };
        let jail = answers::jail(self, jail);
        let source = match &jail.journal {
            Some(_) if jail.files.is_empty() => row("Journal matches", self.journal_matches(name)),
            _ => row("File list", self.log_paths(name)),
        };
        let filter = Value::List(vec![
            row("Currently failed", (jail.currently_failed as i64).into()),
            row("Total failed", (jail.total_failed as i64).into()),
            source,
        ]);
        Ok(Box::new(move |bans| {
            let mut actions = vec![
                row("Currently banned", (jail.currently_banned as i64).into()),
                row("Total banned", (jail.total_banned as i64).into()),
            ];
            if flavor != Flavor::Short {
                actions.push(row("Banned IP list", names(&bans)));
            }
            if flavor == Flavor::Cymru {
                // What fail2ban shows where it cannot ask.
                let unasked = || texts(["error"]);
                for name in ["Banned ASN list", "Banned Country list", "Banned RIR list"] {
                    actions.push(row(name, unasked()));
                }
            }
            Value::List(vec![row("Filter", filter), row("Actions", Value::List(actions))])
        }))
    }
}

/// As `get JAIL banip --with-time` shows a ban.
fn timed(ban: &Ban, zone: &TimeZone) -> String {
    let time = |at: Timestamp| match jiff::Timestamp::from_second(at.seconds()) {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%F %T").to_string(),
        Err(_) => NEVER.to_owned(),
    };
    let (length, end) = match ban.until {
        // A ban ends with a whole second, which may be a little later than this.
        Until::At(end) => {
            let length = (end.micros() - ban.since.micros()).div_euclid(1_000_000);
            (length, time(Timestamp::from_seconds(ban.since.seconds() + length)))
        }
        Until::Forever => (-1, NEVER.to_owned()),
    };
    format!("{} \t{} + {length} = {end}", shown(ban.prefix), time(ban.since))
}
