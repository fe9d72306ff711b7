//! What outlives the daemon beside the kernel's maps: bans with their evidence, how often each address was banned,
//! how far every source was read, and what was counted by then. One SQLite file, one thread that writes it.
//!
//! The engine's table is the truth, the file a copy of it. A write never keeps anybody waiting: it goes into a bounded
//! queue, and what finds no room there or no disk is made good later by a copy of everything ([`Write::Anew`]).
//!
//! Counts and positions are stored together, in one transaction for the jails of one reader: whatever the daemon dies
//! of, what it finds in the file at its next start is a state that it once was in, and the lines since then are read
//! again. So no line counts twice and none is missed, though the counts are up to a second old.
mod file;
mod look;
mod queue;
mod rows;
mod status;
#[cfg(test)]
mod tests;
mod writer;

use std::{path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

pub use self::{
    look::{Earlier, EarlierBan, Evidence, history},
    status::{News, State, Status},
};
use self::{queue::Queue, status::Shared, writer::Writer};
use crate::{
    clock::Clock,
    config::{JailName, StoreSettings},
    engine::{Ban, Change, Past, Timestamp},
};

/// The file's name in the state directory.
pub const FILE: &str = "fail2xdp.sqlite3";

/// Writes that may wait for the thread that makes them.
pub const MOST_WAITING: usize = queue::MOST;

/// News on their way to the daemon; the status keeps what finds no room.
const NEWS: usize = 64;

/// How far a source was read, in the words of whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The source's name, unique among all.
    pub source: String,
    /// How far it was read.
    pub text: String,
}

/// Something for an action to do, as it stands in the file until it is done.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its number, unlike any other's.
    pub seq: u64,
    /// The jail.
    pub jail: JailName,
    /// Its action.
    pub action: Arc<str>,
    /// All of it.
    pub text: Arc<dyn TaskText>,
}

/// Puts a task into a text, on the thread that writes it: who makes a task has no time for that.
pub trait TaskText: std::fmt::Debug + Send + Sync {
    /// The task, in the words of whoever reads it.
    fn text(&self) -> String;
}

/// How an action stands, in the words of whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionStanding {
    /// The jail.
    pub jail: String,
    /// Its action.
    pub action: String,
    /// How it stands.
    pub text: String,
}

/// What a start finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Bans that were live, with their evidence; some may be over by now.
    pub bans: Vec<Ban>,
    /// Bans of the past, as they are remembered.
    pub history: Vec<(JailName, IpNet, Past)>,
    /// Bans lifted by hand not long ago.
    pub lifted: Vec<(JailName, IpNet, Timestamp)>,
    /// Who logged in, and when last.
    pub logins: Vec<(IpNet, Timestamp)>,
    /// How far every source was read.
    pub places: Vec<Place>,
    /// What was counted by then.
    pub counts: Vec<Change>,
    /// What actions were not told, in the order of its numbers.
    pub tasks: Vec<String>,
    /// How they stood.
    pub standings: Vec<ActionStanding>,
    /// Rows that could not be read.
    pub unreadable: u64,
}

/// What is to be written.
#[derive(Debug)]
pub enum Write {
    /// A ban was made, or moved its end.
    Ban(Arc<Ban>),
    /// A ban is over.
    Lifted {
        /// The ban as it was.
        ban: Arc<Ban>,
        /// Somebody lifted it, then: old failures must not bring it back, and it is no longer held against the address.
        by_hand: Option<Timestamp>,
    },
    /// Somebody was pardoned who is not banned, or with `None` everybody in this jail: their past is forgotten.
    Pardoned(JailName, Option<IpNet>),
    /// What is remembered of an address's bans.
    Past(JailName, IpNet, Past),
    /// Somebody logged in from there. Not given anew after writes were lost: who comes again is stored again.
    LoggedIn(IpNet, Timestamp),
    /// Counts changed; they wait in memory for the next `Cut` that names their jail.
    Counts(Vec<Change>),
    /// So far was read, and every change of these jails' counts up to there was given: they belong together.
    Cut {
        /// The jails of one reader.
        jails: Vec<JailName>,
        /// How far it has read.
        places: Vec<Place>,
    },
    /// A write, and what actions are to do about it: in the file there are both or neither.
    Told(Box<Write>, Vec<Task>),
    /// Actions are to do this.
    Tasks(Vec<Task>),
    /// These tasks are over, done or given up.
    Done(Vec<u64>),
    /// How an action stands now.
    Standing(ActionStanding),
    /// Everything follows anew: each ban as `Ban`, each task, each past, then `Complete`; each count, and its jail's next
    /// `Cut`.
    Anew,
    /// Every ban and task was given since `Anew`: what is stored beyond these is over.
    Complete,
    /// What to keep was changed.
    Settings(StoreSettings),
    /// From now on the failures and lines of bans are kept for as long as their history, or not.
    KeepEvidence(bool),
    /// Says when everything before it is in the file; dropped when that fails.
    Settled(oneshot::Sender<()>),
}

/// The daemon's end of the store.
#[derive(Debug)]
pub struct Store {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the file, or makes it, on a thread of its own; what it holds comes through the first channel, what goes
    /// wrong and is well again through the second.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(
        path: PathBuf,
        settings: StoreSettings,
        clock: Clock,
    ) -> std::io::Result<(Store, oneshot::Receiver<Loaded>, mpsc::Receiver<News>)> {
        let (queue, shared) = (Arc::new(Queue::default()), Arc::new(Shared::new(path.clone())));
        let (loaded, found) = oneshot::channel();
        let (tell, news) = mpsc::channel(NEWS);
        let writer = Writer::new(path, settings, clock, queue.clone(), shared.clone(), tell);
        let thread =
            std::thread::Builder::new().name("store".into()).spawn(move || writer.run(loaded))?;
        Ok((Store { queue, shared, thread: Some(thread) }, found, news))
    }

    /// Hands a write over; `false`, and counted: there is no room for it.
    pub fn write(&self, write: Write) -> bool {
        let taken = self.queue.push(write);
        if !taken {
            self.shared.refused();
        }
        taken
    }

    /// Writes that there is room for.
    pub fn room(&self) -> usize {
        self.queue.room()
    }

    /// Whether writes were lost and can be made good now, by [`Store::begin_anew`].
    pub fn wants_anew(&self) -> bool {
        self.shared.wants_anew()
    }

    /// Whether writes were lost: what is stored is not what is, until all of it was given anew.
    pub fn is_behind(&self) -> bool {
        self.shared.is_behind()
    }

    /// Whether it stores at present.
    pub fn works(&self) -> bool {
        self.status().state == State::Works
    }

    /// From here on everything is given anew: each ban as [`Write::Ban`], each past as
    /// [`Write::Past`], and then [`Write::Complete`]; and every count.
    pub fn begin_anew(&self) {
        self.shared.anew_begun();
        self.write(Write::Anew);
    }

    /// Hears when everything handed over so far is in the file; an error: it is not going to be for now.
    pub fn settled(&self) -> oneshot::Receiver<()> {
        let (tell, settled) = oneshot::channel();
        self.write(Write::Settled(tell));
        settled
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.shared.status(self.queue.len())
    }

    /// Writes what was handed over and closes the file; `false` when that took longer than `limit`, and it is left to
    /// itself.
    pub fn close(mut self, limit: Duration) -> bool {
        self.queue.close();
        let Some(thread) = self.thread.take() else { return true };
        let end = crate::clock::monotonic() + limit;
        while !thread.is_finished() {
            if crate::clock::monotonic() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        thread.join().is_ok()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
    }
}
