//! Failures of those who are banned already: what a ban drops is not what they send. They come through a proxy, by
//! another interface, or to a port that the ban leaves open.
use std::{collections::HashMap, time::Duration};

use ipnet::IpNet;

use super::{Ban, BanTable, Engine, Finding, Timestamp};
use crate::config::JailName;

/// What a service says so soon after a ban is about what came before it.
const GRACE: Duration = Duration::from_secs(10);
/// A line that is read so late proves nothing: the ban may be younger than it.
const FRESH: Duration = Duration::from_secs(30);
/// Bans that are watched at once.
const MOST: usize = 1024;

/// Somebody whose failures are found though he is banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lingering {
    /// Who.
    pub prefix: IpNet,
    /// Banned by this jail, which finds them, too.
    pub jail: JailName,
    /// Failures found since the ban.
    pub failures: u64,
    /// When the last of them happened.
    pub last: Timestamp,
}

/// Those who are found still, and how often.
#[derive(Debug, Default)]
pub(super) struct Watch {
    found: HashMap<(JailName, IpNet), (u64, Timestamp)>,
}

impl Watch {
    /// A failure of one whom this ban holds.
    fn note(&mut self, ban: &Ban, at: Timestamp, now: Timestamp, bans: &BanTable) {
        if at <= ban.since.plus(GRACE) || at.plus(FRESH) < now {
            return;
        }
        let key = (ban.jail.clone(), ban.prefix);
        if self.found.len() >= MOST && !self.found.contains_key(&key) {
            self.found.retain(|(jail, prefix), _| bans.of(*prefix, jail).is_some());
            if self.found.len() >= MOST {
                return;
            }
        }
        let (failures, last) = self.found.entry(key).or_insert((0, at));
        *failures += 1;
        *last = at.max(*last);
    }
}

impl Engine {
    /// Notes a failure of one who is banned by the same jail.
    pub(super) fn watch_banned(&mut self, at: usize, finding: &Finding, now: Timestamp) {
        let jail = &self.jails[at];
        if let Some(prefix) = jail.prefix_of(&finding.who)
            && let Some(ban) = self.bans.of(prefix, &jail.settings().name)
        {
            self.lingering.note(ban, finding.at, now, &self.bans);
        }
    }

    /// Those whose failures are found though they are banned, most failures first.
    pub fn lingering(&self) -> Vec<Lingering> {
        let banned =
            self.lingering.found.iter().filter(|((jail, of), _)| self.bans.of(*of, jail).is_some());
        let told = banned.map(|((jail, prefix), (failures, last))| Lingering {
            prefix: *prefix,
            jail: jail.clone(),
            failures: *failures,
            last: *last,
        });
        let mut told: Vec<Lingering> = told.collect();
        told.sort_by(|a, b| b.failures.cmp(&a.failures).then(a.prefix.cmp(&b.prefix)));
        told
    }
}
