//! Lines of one session (`<F-MLFID>`) taken together.
//!
//! A server tells in one line who connected and in another that the login failed. What lines of the
//! same session say is merged until there is a failure with an address:
//!
//! - a line marked *nofail* only adds what it knows;
//! - a failure without an address waits (*pending*) for the line that has it;
//! - *gained* (a login that succeeded) drops what is pending, unless several users were tried;
//! - *forget* ends the session;
//! - *once*, which fail2ban does not know, is a failure only where the session had none: a server that
//!   tells of one login in three lines is counted once.
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    cut,
    identify::{Fields, Identity, field, identify},
};
use crate::{config::UseDns, engine::Timestamp};

/// Sessions remembered at once, the oldest going first. fail2ban has 100, which a flood of connections
/// turns over before a login can fail.
pub const MAX_SESSIONS: usize = 1000;
/// How long a session is remembered from its first line: seconds.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(300);
/// Bytes of text in all sessions; beyond it the oldest go, too.
const MAX_BYTES: usize = 4 << 20;
/// Users told apart in one session; more than one is all that matters.
const MAX_USERS: usize = 8;
/// Bytes of an identifier that are kept; of the rest a hash.
const MAX_KEY: usize = 256;

/// How many sessions a jail remembers, for whoever watches it from another thread.
#[derive(Debug, Default)]
pub struct SessionCounts {
    /// Now, of [`MAX_SESSIONS`].
    pub held: AtomicUsize,
    /// Forgotten before their time for want of room.
    pub lost: AtomicU64,
}

/// The sessions of a jail.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) counts: Arc<SessionCounts>,
    by_id: HashMap<Key, Session>,
    order: VecDeque<(Timestamp, Key)>,
    bytes: usize,
}

/// A session's identifier, bounded whatever the log says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    text: Box<str>,
    rest: u64,
}

impl Key {
    fn new(text: &str) -> Key {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let (text, rest) = cut(text, MAX_KEY);
        let rest = match rest {
            "" => 0,
            rest => BuildHasherDefault::<DefaultHasher>::default().hash_one(rest),
        };
        Key { text: text.into(), rest }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    since: Timestamp,
    fields: Fields,
    users: Vec<Box<str>>,
    nofail: bool,
    gained: bool,
    pending: bool,
    /// It had a failure that was reported.
    failed: bool,
    /// Lines of a failure, delivered or waiting for an address.
    matches: Vec<Box<str>>,
    /// Lines that alone are no failure.
    saved: Vec<Box<str>>,
}

impl Session {
    fn new(since: Timestamp) -> Session {
        Session {
            since,
            fields: Fields::new(),
            users: Vec::new(),
            nofail: false,
            gained: false,
            pending: false,
            failed: false,
            matches: Vec::new(),
            saved: Vec::new(),
        }
    }

    /// Bytes of text in it.
    fn size(&self) -> usize {
        let fields = self.fields.iter().map(|(name, text)| name.len() + text.len());
        let texts = self.users.iter().chain(&self.matches).chain(&self.saved);
        fields.chain(texts.map(|text| text.len())).sum()
    }
}

/// What a line did to its session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// Nothing to report: with `pending`, until a line tells whom it is about.
    NoFailure {
        /// A failure of somebody unknown.
        pending: bool,
    },
    /// A failure with the session's fields and lines; without an address in them it is pending.
    Failure { fields: Fields, lines: Vec<Box<str>> },
}

impl Sessions {
    /// Takes in a match with these fields, found in these lines; keeps at most `most` lines of a kind.
    pub(super) fn merge(
        &mut self,
        mut fields: Fields,
        lines: &[Box<str>],
        most: usize,
        use_dns: UseDns,
        now: Timestamp,
    ) -> Merged {
        let key = Key::new(field(&fields, "mlfid").unwrap_or_default());
        let gained = field(&fields, "mlfgained").is_some();
        let nofail = gained || field(&fields, "nofail").is_some();
        let forget = field(&fields, "mlfforget").is_some();
        let once = field(&fields, "once").is_some();
        let user = field(&fields, "user").map(Box::from);
        fields
            .retain(|(name, _)| !matches!(&**name, "mlfforget" | "mlfgained" | "nofail" | "once"));

        self.drop_old(now);
        let known = self.by_id.remove(&key);
        self.bytes -= known.as_ref().map_or(0, Session::size);
        let was_known = known.is_some();
        let mut session = known.unwrap_or_else(|| Session::new(now));
        if was_known {
            let previous = session.nofail || session.gained;
            session.pending &= !gained;
            if !previous && !session.pending {
                session.matches.clear();
            }
            // A line's address takes the place of an earlier one, of whatever family: a process that
            // speaks for all its clients would else have one blamed for another.
            let whose = |name: &str| matches!(name, "ip4" | "ip6" | "dns" | "cidr");
            // What only looks like an address takes no place but its own, as in fail2ban.
            let names_somebody = identify(&fields, use_dns) != Identity::NotAnAddress
                && fields.iter().any(|(name, text)| whose(name) && !text.is_empty());
            session.fields.retain(|(known, _)| {
                !(names_somebody && whose(known)) && fields.iter().all(|(name, _)| known != name)
            });
        }
        session.fields.append(&mut fields);
        session.nofail = nofail;
        session.gained = gained;
        if let Some(user) = user
            && !session.users.contains(&user)
            && session.users.len() < MAX_USERS
        {
            session.users.push(user);
        }

        if std::mem::take(&mut session.pending) || session.users.len() > 1 {
            session.nofail = false;
            session.gained = false;
        }
        session.nofail |= once && session.failed;
        if !session.nofail {
            let mut all = std::mem::take(&mut session.saved);
            all.append(&mut session.matches);
            all.extend_from_slice(lines);
            keep_last(&mut all, most);
            session.matches = all;
        } else if !forget {
            session.saved.extend_from_slice(lines);
            keep_last(&mut session.saved, most);
        }

        let merged = if session.nofail {
            Merged::NoFailure { pending: false }
        } else if identify(&session.fields, use_dns) == Identity::Missing {
            session.pending = true;
            Merged::NoFailure { pending: true }
        } else {
            session.failed = true;
            let mut fields = session.fields.clone();
            fields.extend(session.users.iter().map(|user| ("users".into(), user.clone())));
            Merged::Failure { fields, lines: session.matches.clone() }
        };
        if !forget {
            if !was_known {
                self.make_room();
                self.order.push_back((now, key.clone()));
            }
            self.bytes += session.size();
            self.by_id.insert(key, session);
            while self.bytes > MAX_BYTES && self.by_id.len() > 1 {
                self.lose_oldest();
            }
        }
        self.counts.held.store(self.by_id.len(), Relaxed);
        merged
    }

    fn drop_old(&mut self, now: Timestamp) {
        while let Some((since, _)) = self.order.front()
            && (since.plus(LIFETIME) <= now || *since > now.plus(LIFETIME))
        {
            self.drop_oldest();
        }
    }

    fn make_room(&mut self) {
        // Forgotten sessions leave their place in the order behind, which must not grow either.
        while self.by_id.len() >= MAX_SESSIONS || self.order.len() >= 4 * MAX_SESSIONS {
            self.lose_oldest();
        }
    }

    fn lose_oldest(&mut self) {
        let before = self.by_id.len();
        self.drop_oldest();
        self.counts.lost.fetch_add((before - self.by_id.len()) as u64, Relaxed);
    }

    fn drop_oldest(&mut self) {
        let Some((since, key)) = self.order.pop_front() else { return };
        if self.by_id.get(&key).is_some_and(|session| session.since == since)
            && let Some(session) = self.by_id.remove(&key)
        {
            self.bytes -= session.size();
        }
    }
}

/// Drops the first so that at most `most` remain.
fn keep_last(lines: &mut Vec<Box<str>>, most: usize) {
    lines.drain(..lines.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(id: usize, text: &str) -> Fields {
        vec![
            ("mlfid".into(), format!("{text}{id}").into()),
            ("nofail".into(), "x".into()),
            ("user".into(), text.into()),
        ]
    }

    #[test]
    fn long_texts_take_room_from_old_sessions() {
        let mut sessions = Sessions::default();
        let text = "x".repeat(4096);
        for id in 0..3 * MAX_SESSIONS {
            let now = Timestamp::from_micros(id as i64);
            sessions.merge(open(id, &text), &[text.as_str().into()], 5, UseDns::No, now);
            let bytes: usize = sessions.by_id.values().map(Session::size).sum();
            assert_eq!(sessions.bytes, bytes);
            assert!(bytes <= MAX_BYTES && sessions.by_id.len() <= MAX_SESSIONS);
        }
        assert!(sessions.by_id.len() > 100);
        assert_eq!(sessions.counts.held.load(Relaxed), sessions.by_id.len());
        let lost = sessions.counts.lost.load(Relaxed) as usize;
        assert_eq!(lost + sessions.by_id.len(), 3 * MAX_SESSIONS);
        assert!(sessions.by_id.keys().all(|key| key.text.len() <= MAX_KEY));
    }

    #[test]
    fn places_of_forgotten_sessions_do_not_pile_up() {
        let mut sessions = Sessions::default();
        for id in 0..20 * MAX_SESSIONS {
            let mut fields = open(id, "x");
            sessions.merge(fields.clone(), &[], 5, UseDns::No, Timestamp::from_seconds(0));
            fields.push(("mlfforget".into(), "x".into()));
            sessions.merge(fields, &[], 5, UseDns::No, Timestamp::from_seconds(0));
        }
        assert_eq!((sessions.by_id.len(), sessions.bytes), (0, 0));
        assert!(sessions.order.len() <= 4 * MAX_SESSIONS);
    }
}
