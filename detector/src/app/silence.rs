//! Sources that may hide an attack: unreadable, gone, behind, or silent for longer than they should be.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    config::{JailName, JailSettings},
    engine::Timestamp,
    source::{FileState, JournalState, Readers},
};

/// A source is behind when what is read now was written so long ago.
pub(super) const BEHIND: Duration = Duration::from_secs(10);

/// A log that is gone for so long was not just rotated.
pub(super) const GONE: Duration = Duration::from_secs(10);

/// One source of one jail, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The jail.
    pub jail: JailName,
    /// A path, or `the journal`.
    pub name: String,
    /// Whether and how it is read.
    pub state: State,
    /// When the last line came; `None`: none since the start.
    pub last: Option<Timestamp>,
    /// How old is what is being read now.
    pub behind: Duration,
    /// `silence` of the jail; `None`: off.
    pub silence: Option<Duration>,
}

/// How a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is read.
    Read,
    /// It was never there; that is said at the start.
    Awaited,
    /// It was there and is no longer.
    Gone,
    /// It is there and cannot be read.
    Unreadable(String),
}

/// How every source of every jail is now.
pub(super) fn sources(jails: &[JailSettings], readers: &Readers, now: Timestamp) -> Vec<Source> {
    let progress = readers.progress();
    let mut sources = Vec::new();
    for status in readers.sources() {
        let silence = jails.iter().find(|jail| jail.name == status.jail).and_then(|it| it.silence);
        let jail = &status.jail;
        for (path, state) in &status.files {
            let file = progress.iter().find(|file| file.path == *path);
            sources.push(Source {
                jail: jail.clone(),
                name: path.display().to_string(),
                state: match state {
                    FileState::Following => State::Read,
                    FileState::Waiting => State::Awaited,
                    FileState::Gone => State::Gone,
                    FileState::Unreadable(why) => State::Unreadable(why.clone()),
                },
                last: file.and_then(|file| file.last_line),
                behind: file.map_or(Duration::ZERO, |file| file.behind(now)),
                silence,
            });
        }
        if let Some(journal) = &status.journal {
            let damaged = journal.progress.unreadable.first().map(|(path, why)| {
                format!(
                    "{} of its files, as {}: {why}",
                    journal.progress.unreadable.len(),
                    path.display()
                )
            });
            sources.push(Source {
                jail: jail.clone(),
                name: "the journal".into(),
                state: match (&journal.state, damaged) {
                    (JournalState::Following, None) => State::Read,
                    (JournalState::Following, Some(damaged)) => State::Unreadable(damaged),
                    (JournalState::Unavailable(_), _) => State::Awaited,
                },
                last: journal.progress.last_entry,
                behind: journal.progress.behind(now),
                silence,
            });
        }
    }
    sources
}

/// What can be wrong with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Unreadable,
    Gone,
    Behind,
    Silent,
}

/// News of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Something began to be wrong.
    Raised(String),
    /// It is over.
    Over(String),
}

type Key = (JailName, String, Fault);

/// What is wrong now.
#[derive(Debug)]
pub(super) struct Silence {
    started: Timestamp,
    gone_since: BTreeMap<(JailName, String), Timestamp>,
    /// Sources that were read at the last look or before.
    known: BTreeSet<(JailName, String)>,
    alarms: BTreeMap<Key, String>,
    raised: u64,
}

impl Silence {
    /// Nothing yet.
    pub fn new(started: Timestamp) -> Silence {
        Silence {
            started,
            gone_since: BTreeMap::new(),
            known: BTreeSet::new(),
            alarms: BTreeMap::new(),
            raised: 0,
        }
    }

    /// What is wrong now with the sources of one jail.
    pub fn alarms_of(&self, jail: &JailName) -> Vec<String> {
        let of_jail = self.alarms.iter().filter(|((of, ..), _)| of == jail);
        of_jail.map(|(_, what)| what.clone()).collect()
    }

    /// When it began to look.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Alarms raised since the start.
    pub fn raised(&self) -> u64 {
        self.raised
    }

    /// Looks at every source; what is no longer among them is forgotten without a word.
    pub fn look(&mut self, sources: &[Source], now: Timestamp) -> Vec<News> {
        let place = |source: &Source| (source.jail.clone(), source.name.clone());
        let was_known = std::mem::take(&mut self.known);
        let was_gone = std::mem::take(&mut self.gone_since);
        for source in sources {
            let place = place(source);
            let known = source.state == State::Read || was_known.contains(&place);
            if source.state == State::Gone || (source.state == State::Awaited && known) {
                let since = was_gone.get(&place).copied().unwrap_or(now);
                self.gone_since.insert(place.clone(), since);
            }
            if known {
                self.known.insert(place);
            }
        }
        let mut alarms = BTreeMap::new();
        for source in sources {
            for (fault, what) in self.faults(source, now) {
                alarms.insert((source.jail.clone(), source.name.clone(), fault), what);
            }
        }
        let mut news = Vec::new();
        for (key, what) in &alarms {
            if !self.alarms.contains_key(key) {
                news.push(News::Raised(format!("[{}] {what}", key.0)));
            }
        }
        self.raised += news.len() as u64;
        for (key, what) in &self.alarms {
            let here = sources.iter().any(|source| source.jail == key.0 && source.name == key.1);
            if !alarms.contains_key(key) && here {
                news.push(News::Over(format!("[{}] no longer: {what}", key.0)));
            }
        }
        // The words of the moment an alarm was raised stay: "for 61 s" is no news a second later.
        for (key, what) in &mut alarms {
            if let Some(known) = self.alarms.get(key) {
                known.clone_into(what);
            }
        }
        self.alarms = alarms;
        news
    }

    fn faults(&self, source: &Source, now: Timestamp) -> Vec<(Fault, String)> {
        let name = &source.name;
        let mut faults = Vec::new();
        match &source.state {
            State::Unreadable(why) => {
                faults.push((Fault::Unreadable, format!("{name} cannot be read: {why}")));
            }
            State::Gone | State::Awaited => {
                let since = self.gone_since.get(&(source.jail.clone(), name.clone()));
                if since.is_some_and(|since| since.plus(GONE) <= now) {
                    faults.push((Fault::Gone, format!("{name} is gone: nothing is read of it")));
                }
            }
            State::Read => {}
        }
        if source.behind > BEHIND {
            let seconds = source.behind.as_secs();
            faults.push((
                Fault::Behind,
                format!("{name} is read {seconds} s late: more is written than can be read"),
            ));
        }
        if let Some(silence) = source.silence {
            let since = source.last.unwrap_or(self.started);
            if since.plus(silence) <= now {
                let seconds = (now.micros() - since.micros()) / 1_000_000;
                faults.push((
                    Fault::Silent,
                    format!(
                        "{name} has been silent for {seconds} s: does the service still log there?"
                    ),
                ));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(state: State) -> Source {
        Source {
            jail: JailName::new("sshd"),
            name: "/var/log/auth.log".into(),
            state,
            last: None,
            behind: Duration::ZERO,
            silence: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    /// Looks at each second in turn; what is news then.
    #[track_caller]
    fn check(looks: &[(i64, Source)], expected: &[(i64, &str)]) {
        let mut silence = Silence::new(at(0));
        let mut found = Vec::new();
        for (second, source) in looks {
            for news in silence.look(std::slice::from_ref(source), at(*second)) {
                let text = match news {
                    News::Raised(text) => format!("+{text}"),
                    News::Over(text) => format!("-{text}"),
                };
                found.push((*second, text));
            }
        }
        let found: Vec<_> = found.iter().map(|(second, text)| (*second, text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unreadable_source_is_said_once_and_when_it_is_over() {
        let bad = || source(State::Unreadable("permission denied".into()));
        check(
            &[(1, source(State::Read)), (2, bad()), (3, bad()), (4, source(State::Read))],
            &[
                (2, "+[sshd] /var/log/auth.log cannot be read: permission denied"),
                (4, "-[sshd] no longer: /var/log/auth.log cannot be read: permission denied"),
            ],
        );
    }

    #[test]
    fn a_rotation_is_no_loss_and_an_awaited_log_is_none() {
        let gone = || source(State::Gone);
        check(&[(1, gone()), (10, gone()), (11, source(State::Read)), (12, gone())], &[]);
        check(&[(1, source(State::Awaited)), (1000, source(State::Awaited))], &[]);
        check(
            &[(1, source(State::Read)), (2, source(State::Awaited)), (12, source(State::Awaited))],
            &[(12, "+[sshd] /var/log/auth.log is gone: nothing is read of it")],
        );
        check(
            &[(1, gone()), (11, gone())],
            &[(11, "+[sshd] /var/log/auth.log is gone: nothing is read of it")],
        );
    }

    #[test]
    fn a_source_that_falls_behind_is_said() {
        let late = |seconds| Source { behind: Duration::from_secs(seconds), ..source(State::Read) };
        check(
            &[(1, late(10)), (2, late(11)), (3, late(60)), (4, late(0))],
            &[
                (
                    2,
                    "+[sshd] /var/log/auth.log is read 11 s late: more is written than can be read",
                ),
                (
                    4,
                    "-[sshd] no longer: /var/log/auth.log is read 11 s late: more is written than can be read",
                ),
            ],
        );
    }

    #[test]
    fn silence_is_counted_from_the_last_line_or_the_start() {
        let heard = |last: Option<i64>| Source {
            last: last.map(at),
            silence: Some(Duration::from_secs(60)),
            ..source(State::Read)
        };
        let silent =
            "+[sshd] /var/log/auth.log has been silent for 60 s: does the service still log there?";
        check(&[(59, heard(None)), (60, heard(None))], &[(60, silent)]);
        check(&[(60, heard(Some(30))), (90, heard(Some(30)))], &[(90, silent)]);
        check(&[(1000, source(State::Read))], &[]);
    }

    #[test]
    fn a_source_that_is_no_longer_read_is_forgotten() {
        let mut silence = Silence::new(at(0));
        let jail = JailName::new("sshd");
        silence.look(&[source(State::Unreadable("x".into()))], at(1));
        assert_eq!(silence.alarms_of(&jail).len(), 1);
        assert_eq!(silence.look(&[], at(2)), []);
        assert_eq!((silence.alarms_of(&jail).len(), silence.raised()), (0, 1));
    }
}
