//! Host names: looked up by the shell, off the hot path; what is known of them lives here.
use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use super::{Finding, Timestamp};

/// How long an answer serves, as in fail2ban.
const SERVES: Duration = Duration::from_secs(300);
/// Answers kept, as in fail2ban.
const ANSWERS: usize = 1000;
/// Findings that wait for one name.
const WAITING_EACH: usize = 64;
/// Names that are being looked up at once.
const WAITING: usize = 256;

struct Answer {
    addresses: Vec<IpAddr>,
    at: Timestamp,
}

/// Names of `ignoreip`, and names found in logs.
#[derive(Default)]
pub(super) struct Names {
    /// Names of `ignoreip`; an answer stays until a newer one comes.
    ignored: HashMap<Box<str>, Option<Answer>>,
    /// Names from logs, those without an address too; the oldest go first.
    logged: HashMap<Box<str>, Answer>,
    logged_order: VecDeque<Box<str>>,
    waiting: HashMap<Box<str>, Vec<Finding>>,
    /// Findings that found no room in `waiting`.
    lost: u64,
}

/// Names from logs on their way to addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTotals {
    /// Being looked up.
    pub waiting: usize,
    /// More are not looked up at once.
    pub most_waiting: usize,
    /// Findings that were not counted because too many waited.
    pub lost: u64,
}

impl Names {
    /// These are the names of `ignoreip`; what is known of them is kept.
    pub fn keep<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut old = std::mem::take(&mut self.ignored);
        self.ignored = names.map(|name| (name.into(), old.remove(name).flatten())).collect();
    }

    /// The addresses of a name of `ignoreip`, as far as known.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        match self.ignored.get(name) {
            Some(Some(answer)) => &answer.addresses,
            _ => &[],
        }
    }

    /// The address is one of the name's, as far as known.
    pub fn is(&self, name: &str, address: IpNet) -> bool {
        self.addresses(name).iter().any(|known| IpNet::from(*known) == address)
    }

    /// Names of `ignoreip` never looked up yet.
    pub fn unresolved(&self) -> Vec<Box<str>> {
        self.ignored
            .iter()
            .filter(|(_, answer)| answer.is_none())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Names of `ignoreip` whose answer is old; each is asked once until its answer comes.
    pub fn due(&mut self, now: Timestamp) -> Vec<Box<str>> {
        let mut due = Vec::new();
        for (name, answer) in &mut self.ignored {
            if let Some(answer) = answer
                && answer.at.plus(SERVES) <= now
            {
                answer.at = now;
                due.push(name.clone());
            }
        }
        due
    }

    /// When [`Names::due`] next has something.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.ignored.values().flatten().map(|answer| answer.at.plus(SERVES)).min()
    }

    /// The addresses of a name found in a log, none perhaps, as long as the last answer serves.
    pub fn known(&self, name: &str, now: Timestamp) -> Option<&[IpAddr]> {
        let answer = self.logged.get(name)?;
        (answer.at.plus(SERVES) > now).then_some(&answer.addresses)
    }

    /// A finding about a name waits for its addresses. True when somebody must look the name up.
    pub fn wait_for(&mut self, name: &str, finding: Finding) -> bool {
        if let Some(waiting) = self.waiting.get_mut(name) {
            if waiting.len() < WAITING_EACH {
                waiting.push(finding);
            } else {
                self.lost += 1;
            }
            return false;
        }
        if self.waiting.len() >= WAITING {
            self.lost += 1;
            return false;
        }
        self.waiting.insert(name.into(), vec![finding]);
        true
    }

    /// How the look-ups are doing.
    pub fn totals(&self) -> NameTotals {
        NameTotals { waiting: self.waiting.len(), most_waiting: WAITING, lost: self.lost }
    }

    /// An answer came: the findings that waited for it.
    pub fn resolved(&mut self, name: &str, addresses: &[IpAddr], now: Timestamp) -> Vec<Finding> {
        if let Some(known) = self.ignored.get_mut(name) {
            // A failed look-up must not unprotect an address that was known.
            match known {
                Some(answer) if addresses.is_empty() => answer.at = now,
                _ => *known = Some(Answer { addresses: addresses.to_vec(), at: now }),
            }
        }
        let waiting = self.waiting.remove(name).unwrap_or_default();
        if !waiting.is_empty() {
            let answer = Answer { addresses: addresses.to_vec(), at: now };
            if self.logged.insert(name.into(), answer).is_none() {
                self.logged_order.push_back(name.into());
            }
            while self.logged_order.len() > ANSWERS
                && let Some(oldest) = self.logged_order.pop_front()
            {
                self.logged.remove(&oldest);
            }
        }
        waiting
    }
}
