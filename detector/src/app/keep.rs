//! The store as the one task uses it: told of everything, waited for by nobody.
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use super::{Daemon, TaskPlace, Telling};
use crate::{
    clock::{self, Clock},
    config::{JailName, StoreSettings},
    engine::{Ban, Engine, Lifted, PastPlace, Place as BanPlace, Timestamp},
    source::Positions,
    store::{self, ActionStanding, Loaded, News, State, Store, Task, Write},
};

/// How long the start waits for what is stored; what comes later is taken up then.
const OPENED: Duration = Duration::from_secs(5);
/// How long the end waits for the last writes.
const CLOSED: Duration = Duration::from_secs(10);
/// Bans, or counts, handed over in one turn.
const AT_ONCE: usize = 256;
/// Counts that one position may bring with it; a reader's next one comes a second later.
const WITH_POSITION: usize = 4096;
/// Room that is left to bans.
const KEPT_FREE: usize = 32_768;
/// Between two looks whether a write hangs, or whether all is to be written anew.
const LOOK: Duration = Duration::from_secs(10);
/// Between two looks whether there is room again.
const BREATH: Duration = Duration::from_millis(10);

/// Sources in the store are files and journals.
const FILE: &str = "file ";
const JOURNAL: &str = "journal ";

/// Writing everything anew, under way.
enum Anew {
    /// From this ban on.
    After(Option<BanPlace>),
    /// From what this action is to do on.
    Tasks(Option<TaskPlace>),
    /// From this past on.
    Past(Option<PastPlace>),
    /// Not under way.
    Not,
}

/// The store, where there is one.
pub(super) struct Keeper {
    store: Option<Store>,
    news: Option<mpsc::Receiver<News>>,
    late: Option<oneshot::Receiver<Loaded>>,
    anew: Anew,
    look: Instant,
    slow: bool,
}

impl Keeper {
    /// Opens the store in a state directory, and reads what it holds; without a directory nothing is stored.
    pub async fn open(
        dir: Option<PathBuf>,
        settings: StoreSettings,
        clock: Clock,
    ) -> (Keeper, Loaded) {
        let look = clock::monotonic() + LOOK;
        let mut keeper =
            Keeper { store: None, news: None, late: None, anew: Anew::Not, look, slow: false };
        let Some(dir) = dir else { return (keeper, Loaded::default()) };
        let (store, mut found, news) = match Store::start(dir.join(store::FILE), settings, clock) {
            Ok(started) => started,
            Err(error) => {
                tracing::error!("nothing is stored: there is no thread for it: {error}");
                return (keeper, Loaded::default());
            }
        };
        let loaded = match tokio::time::timeout(OPENED, &mut found).await {
            Ok(loaded) => loaded.unwrap_or_default(),
            Err(_) => {
                tracing::error!(
                    "the store does not open within {OPENED:?}: the start goes on without what it holds"
                );
                // Before anything else is handed over: what is stored is no beginning for it.
                store.begin_anew();
                keeper.late = Some(found);
                Loaded::default()
            }
        };
        (keeper.store, keeper.news) = (Some(store), Some(news));
        if keeper.late.is_some() {
            keeper.anew = Anew::After(None);
        }
        (keeper, loaded)
    }

    /// Whether anything is stored at all.
    pub fn is_on(&self) -> bool {
        self.store.is_some()
    }

    /// A ban was made, or moved its end; the kernel has it already.
    pub fn ban(&self, ban: &Arc<Ban>, tasks: Vec<Task>) {
        self.told(Write::Ban(ban.clone()), tasks);
    }

    pub fn lifted(&self, ban: &Arc<Ban>, why: Lifted, now: Timestamp, tasks: Vec<Task>) {
        let by_hand = (why == Lifted::ByHand).then_some(now);
        self.told(Write::Lifted { ban: ban.clone(), by_hand }, tasks);
    }

    fn told(&self, write: Write, tasks: Vec<Task>) {
        let Some(store) = &self.store else { return };
        store.write(match tasks.is_empty() {
            true => write,
            false => Write::Told(Box::new(write), tasks),
        });
    }

    /// Actions are to do this.
    pub fn tasks(&self, tasks: Vec<Task>) {
        if let (Some(store), false) = (&self.store, tasks.is_empty()) {
            store.write(Write::Tasks(tasks));
        }
    }

    /// These are done, or given up.
    pub fn tasks_over(&self, tasks: Vec<u64>) {
        if let (Some(store), false) = (&self.store, tasks.is_empty()) {
            store.write(Write::Done(tasks));
        }
    }

    pub fn standing(&self, standing: ActionStanding) {
        if let Some(store) = &self.store {
            store.write(Write::Standing(standing));
        }
    }

    /// Whether what bans were made for is kept longer than they hold.
    pub fn keep_evidence(&self, keep: bool) {
        if let Some(store) = &self.store {
            store.write(Write::KeepEvidence(keep));
        }
    }

    /// Somebody was pardoned, or everybody in a jail.
    pub fn pardoned(&self, jail: JailName, prefix: Option<IpNet>) {
        if let Some(store) = &self.store {
            store.write(Write::Pardoned(jail, prefix));
        }
    }

    /// Somebody logged in from there.
    pub fn logged_in(&self, prefix: IpNet, at: Timestamp) {
        if let Some(store) = &self.store {
            store.write(Write::LoggedIn(prefix, at));
        }
    }

    pub fn settings(&self, settings: StoreSettings) {
        if let Some(store) = &self.store {
            store.write(Write::Settings(settings));
        }
    }

    /// Hands over some of the counts that have changed.
    pub fn counted(&self, engine: &mut Engine) {
        let Some(store) = self.store.as_ref().filter(|store| store.room() > KEPT_FREE) else {
            return;
        };
        let changes = engine.changes(AT_ONCE);
        if !changes.is_empty() {
            store.write(Write::Counts(changes));
        }
    }

    /// So far a reader of these jails has read, and what it found is counted.
    pub fn cut(&self, engine: &mut Engine, jails: Vec<JailName>, positions: &Positions) {
        let Some(store) = &self.store else { return };
        // With a change missing it would say what never was; the lines are read again after a crash then.
        if store.is_behind() || engine.changed(&jails) > WITH_POSITION || store.room() < KEPT_FREE {
            return;
        }
        // What waits for an `ignorecommand` is read and not counted: it is read again after a crash.
        if engine.is_asking(&jails) {
            return;
        }
        while engine.changed(&jails) > 0 {
            store.write(Write::Counts(engine.changes(AT_ONCE)));
        }
        store.write(Write::Cut { jails, places: places(positions) });
    }

    /// Hears when what was handed over is stored; at once where it will not be.
    pub fn settled(&self) -> Option<oneshot::Receiver<()>> {
        self.store.as_ref().map(Store::settled)
    }

    /// When [`Keeper::go_on`] next has something to do.
    pub fn due(&self) -> Option<Instant> {
        let store = self.store.as_ref()?;
        Some(match self.anew {
            Anew::Not if store.wants_anew() => clock::monotonic(),
            Anew::After(_) | Anew::Tasks(_) | Anew::Past(_) if self.late.is_none() => {
                let now = clock::monotonic();
                if store.room() > KEPT_FREE { now } else { now + BREATH }
            }
            _ => self.look,
        })
    }

    /// Makes good what the store lacks, a handful at a time.
    pub fn go_on(&mut self, engine: &mut Engine, telling: &Telling) {
        let Some(store) = &self.store else { return };
        if self.look <= clock::monotonic() {
            self.look = clock::monotonic() + LOOK;
            let slow = matches!(store.status().state, State::Fails(why) if why.starts_with("slow"));
            if slow && !self.slow {
                tracing::error!(
                    "a write of the store hangs. Bans are made and enforced all the same"
                );
            }
            self.slow = slow;
        }
        if store.wants_anew() {
            // Also when that was under way: something more was lost.
            store.begin_anew();
            engine.note_changes(true);
            self.anew = Anew::After(None);
        }
        self.counted(engine);
        if self.late.is_some() || store.room() <= KEPT_FREE {
            return;
        }
        match &self.anew {
            Anew::Not => {}
            Anew::After(place) => {
                let (bans, last) = engine.bans().step(place.as_ref(), AT_ONCE);
                for ban in bans {
                    store.write(Write::Ban(ban));
                }
                self.anew = last.map_or(Anew::Tasks(None), |last| Anew::After(Some(last)));
            }
            Anew::Tasks(place) => {
                let (tasks, last) = telling.tasks_after(place.as_ref(), AT_ONCE);
                self.tasks(tasks);
                self.anew = last.map_or(Anew::Past(None), |last| Anew::Tasks(Some(last)));
            }
            Anew::Past(place) => {
                let (pasts, last) = engine.pasts(place.as_ref(), AT_ONCE);
                for (jail, prefix, past) in pasts {
                    store.write(Write::Past(jail, prefix, past));
                }
                self.anew = match last {
                    Some(last) => Anew::Past(Some(last)),
                    None => {
                        store.write(Write::Complete);
                        Anew::Not
                    }
                };
            }
        }
    }

    /// What is stored, when it comes after all.
    pub async fn late(&mut self) -> Loaded {
        let loaded = match &mut self.late {
            Some(late) => late.await.unwrap_or_default(),
            None => std::future::pending().await,
        };
        self.late = None;
        loaded
    }

    /// Where the store says what it has to say; nothing ever comes where there is none.
    pub fn news(&mut self) -> mpsc::Receiver<News> {
        self.news.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Stores the last counts and positions, and closes the file.
    pub async fn close(mut self, engine: &mut Engine, telling: &Telling, positions: &Positions) {
        if self.store.is_none() {
            return;
        }
        let jails: Vec<JailName> =
            engine.jails().iter().map(|jail| jail.settings().name.clone()).collect();
        let end = clock::monotonic() + CLOSED;
        loop {
            self.go_on(engine, telling);
            let done = matches!(self.anew, Anew::Not) && engine.changed(&jails) == 0;
            if done || self.store.as_ref().is_some_and(|store| !store.works()) {
                break;
            }
            if clock::monotonic() >= end {
                tracing::error!("the store is too slow: what was counted last is not stored");
                break;
            }
            if self.due().is_some_and(|due| due > clock::monotonic()) {
                tokio::time::sleep(BREATH).await;
            }
        }
        self.cut(engine, jails, positions);
        let Some(store) = self.store.take() else { return };
        let left = end.saturating_duration_since(clock::monotonic()).max(BREATH);
        let closed = tokio::task::spawn_blocking(move || store.close(left)).await;
        if !matches!(closed, Ok(true)) {
            tracing::error!(
                "the store could not be closed in time; its last writes may be missing"
            );
        }
    }

    /// How it is doing; `None`: nothing is stored.
    pub fn status(&self) -> Option<store::Status> {
        self.store.as_ref().map(Store::status)
    }
}

fn places(positions: &Positions) -> Vec<store::Place> {
    let text = |value: Result<String, serde_json::Error>| {
        value.expect("positions are plain data with texts for keys")
    };
    let files = positions.files.iter().map(|(path, position)| store::Place {
        source: format!("{FILE}{path}"),
        text: text(serde_json::to_string(position)),
    });
    let journals = positions.journals.iter().map(|(journal, position)| store::Place {
        source: format!("{JOURNAL}{journal}"),
        text: text(serde_json::to_string(position)),
    });
    files.chain(journals).collect()
}

/// What [`places`] made; one that cannot be read is left out, with a word.
pub(super) fn positions(places: &[store::Place]) -> Positions {
    let mut positions = Positions::default();
    for place in places {
        let read = if let Some(path) = place.source.strip_prefix(FILE) {
            serde_json::from_str(&place.text).map(|position| {
                positions.files.insert(path.to_owned(), position);
            })
        } else if let Some(journal) = place.source.strip_prefix(JOURNAL) {
            serde_json::from_str(&place.text).map(|position| {
                positions.journals.insert(journal.to_owned(), position);
            })
        } else {
            continue;
        };
        if let Err(error) = read {
            tracing::warn!(
                "how far `{}` was read cannot be understood: {error}; it is searched by time",
                place.source
            );
        }
    }
    positions
}

impl Daemon {
    /// Says what the store had to say, and keeps it for `status`.
    pub(super) fn store_says(&mut self, news: News) {
        if news.alarm {
            tracing::error!("{}", news.text);
            self.tell_event("alarm", &news.text);
        } else {
            tracing::info!("{}", news.text);
        }
    }
}
