//! Telling others of bans: what each action is to do, from the moment it is decided until the runner is done with it.
//!
//! The kernel has a ban before anything here hears of it, and nobody here waits: a task is a few words in a queue, a row
//! on the store's thread, a line on the link's. What is handed to the runner stays here until it says that it is done,
//! and is said again to the next runner.
mod configured;
mod hear;
mod link;
mod past;
mod queue;
mod report;
mod tasks;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::link::News;
use self::{
    link::{Link, Origin, Standings, Word},
    past::Pasts,
    queue::{Asks, Entry, Next, Queue},
};
use crate::{
    action::wire::{Standing, ToRunner, WINDOW},
    config::{ActionKind, ActionSettings, JailName, Settings, Wants},
    engine::{BanTable, Timestamp},
    store::{self, ActionStanding},
};

/// Bytes of all tasks that wait; beyond it the oldest of the longest queue goes.
const MOST_BYTES: usize = 64 << 20;
/// How long the end waits for actions to stop.
const STOPPED: Duration = Duration::from_secs(5);
/// Changes by `set JAIL action` that the next runner is told again, too.
const MOST_SET: usize = 4096;

/// Up to which task rows were written anew: the jail, which of its actions, the task's number.
pub(super) type TaskPlace = (JailName, usize, u64);

/// One action of a jail.
#[derive(Debug)]
struct Action {
    name: Arc<str>,
    settings: ActionSettings,
    wants: Wants,
    /// Tasks that the runner may have at once.
    window: usize,
    queue: Queue,
    /// The epoch in which bans were told, where it was not the first.
    told_in: HashMap<IpNet, u32>,
    counts: Results,
    /// Why the last task failed for good, while no other is done.
    failing: Option<String>,
}

/// What became of an action's tasks, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Results {
    done: u64,
    failed: u64,
    /// Failed one after the other, up to now.
    failed_in_a_row: u64,
    dropped: u64,
}

impl Action {
    fn new(settings: &ActionSettings) -> Action {
        let mut action = Action {
            name: settings.name.as_str().into(),
            settings: settings.clone(),
            wants: Wants::default(),
            window: WINDOW,
            queue: Queue::default(),
            told_in: HashMap::new(),
            counts: Results::default(),
            failing: None,
        };
        action.set(settings.clone());
        action
    }

    fn set(&mut self, settings: ActionSettings) {
        self.wants = settings.wants();
        self.window = match &settings.kind {
            ActionKind::Commands(_) => WINDOW,
            // What goes out as one shall be there.
            ActionKind::Native(native) => WINDOW.max(native.batch().most),
        };
        self.settings = settings;
    }

    fn asks(&self) -> Asks {
        Asks { of_address: self.wants.of_address, of_jail: self.wants.of_jail }
    }
}

/// `set JAIL action NAME PROPERTY VALUE`, asked and not answered yet.
struct Change {
    jail: JailName,
    action: String,
    property: String,
    value: String,
    answer: oneshot::Sender<Result<(), String>>,
}

/// All actions, and the runner.
pub(super) struct Telling {
    jails: BTreeMap<JailName, Vec<Action>>,
    /// No longer configured, with tasks that the runner has still.
    leaving: Vec<(JailName, Action)>,
    /// `action_queue`.
    limit: usize,
    bytes: usize,
    next_seq: u64,
    /// Dropped tasks, whose rows are to go.
    gone: Vec<u64>,
    /// Bans of an earlier run, as long as they hold.
    restored: HashMap<JailName, HashSet<IpNet>>,
    /// Bans that end now are of an earlier run, all of them.
    begins: bool,
    /// `unban --all` and the like: actions that can flush are not told of single bans.
    flushing: bool,
    /// When jails were last asked to look at their environments.
    checked: HashMap<JailName, Timestamp>,
    standings: Standings,
    /// An environment had to be made anew: some bans may have to be told again.
    has_epochs: bool,
    origin: Origin,
    file: Option<PathBuf>,
    most_matches: usize,
    link: Option<Link>,
    /// The number of the runner that is there.
    up: Option<u64>,
    /// Why there is none, or what is wrong with what it read.
    fault: Option<String>,
    /// Runners that went away, since the start.
    lost: u64,
    tell: mpsc::Sender<News>,
    /// Since the last reload: said again to the next runner.
    set: Vec<ToRunner>,
    changes: HashMap<u64, Change>,
    next_change: u64,
    /// Nothing but the end is told any more.
    ends: bool,
}

impl Telling {
    /// `words` name the configuration on a command line; `file` is the store's.
    pub fn new(
        settings: &Settings,
        words: Vec<OsString>,
        file: Option<PathBuf>,
        now: Timestamp,
    ) -> (Telling, mpsc::Receiver<News>) {
        let (tell, news) = mpsc::channel(link::SAID);
        let telling = Telling {
            jails: BTreeMap::new(),
            leaving: Vec::new(),
            limit: settings.telling.queue as usize,
            bytes: 0,
            // Greater than any of an earlier run, also where its rows cannot be read.
            next_seq: now.micros().max(1).unsigned_abs(),
            gone: Vec::new(),
            restored: HashMap::new(),
            begins: true,
            flushing: false,
            checked: HashMap::new(),
            standings: Standings::default(),
            has_epochs: false,
            origin: match &settings.telling.runner {
                Some(path) => Origin::Socket(path.clone()),
                None => Origin::Child(words),
            },
            file,
            most_matches: settings.store.max_matches as usize,
            link: None,
            up: None,
            fault: None,
            lost: 0,
            tell,
            set: Vec::new(),
            changes: HashMap::new(),
            next_change: 0,
            ends: false,
        };
        (telling, news)
    }

    fn seq(&mut self, many: usize) -> u64 {
        let seq = self.next_seq;
        self.next_seq += many as u64;
        seq
    }

    fn standing(&self, jail: &JailName, action: &str) -> Option<Standing> {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.get(&(jail.to_string(), action.to_owned())).cloned()
    }

    /// Takes up how actions stood when an earlier run heard of them last.
    fn recall_standings(&mut self, standings: Vec<ActionStanding>) {
        let mut all = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        for ActionStanding { jail, action, text } in standings {
            if let Ok(standing) = serde_json::from_str::<Standing>(&text) {
                self.has_epochs |= standing.epoch > 0;
                all.entry((jail, action)).or_insert(standing);
            }
        }
    }

    /// Takes up what actions were not told by an earlier run.
    pub fn recall(&mut self, tasks: &[String]) {
        let mut left: BTreeMap<(JailName, Arc<str>), Vec<Arc<Entry>>> = BTreeMap::new();
        for text in tasks {
            let Ok(task) = serde_json::from_str::<crate::action::wire::Task>(text) else {
                continue;
            };
            self.next_seq = self.next_seq.max(task.seq + 1);
            let (jail, action) = (JailName::new(&task.jail), Arc::from(task.action));
            let entry = Entry {
                seq: task.seq,
                jail: jail.clone(),
                action: Arc::clone(&action),
                kind: task.kind,
                at: task.at,
                counts: task.counts,
                ticket: task.ticket.map(Arc::from),
                asks: Asks::default(),
            };
            left.entry((jail, action)).or_default().push(Arc::new(entry));
        }
        for ((jail, name), entries) in left {
            match self.action(&jail, &name) {
                Some(action) => {
                    let asks = action.asks();
                    let entries = entries.into_iter().map(|entry| match Arc::try_unwrap(entry) {
                        Ok(entry) => Arc::new(Entry { asks, ..entry }),
                        Err(entry) => entry,
                    });
                    let bytes = action.queue.push_first(entries.collect());
                    self.bytes += bytes;
                }
                None => {
                    tracing::warn!(
                        "[{jail}] {} tasks of action '{name}' are left from before and dropped: it is no longer configured",
                        entries.len()
                    );
                    self.gone.extend(entries.iter().map(|entry| entry.seq));
                }
            }
        }
    }

    fn action(&mut self, jail: &JailName, name: &str) -> Option<&mut Action> {
        self.jails.get_mut(jail)?.iter_mut().find(|action| *action.name == *name)
    }

    /// Whether it is told of bans.
    pub fn has(&self, jail: &JailName, name: &str) -> bool {
        self.jails.get(jail).into_iter().flatten().any(|action| *action.name == *name)
    }

    /// The runner, and those after it, shall know an action that the configuration has not.
    pub fn add_by_hand(&mut self, jail: &JailName, action: &str) {
        let word = ToRunner::Add { jail: jail.to_string(), action: action.to_owned() };
        self.say(word.clone());
        if self.set.len() < MOST_SET {
            self.set.push(word);
        }
    }

    /// Begins the runner, if there is anything for it to do.
    fn begin(&mut self) {
        if self.link.is_some() || self.jails.values().all(Vec::is_empty) {
            return;
        }
        let pasts = Pasts::new(self.file.clone(), self.most_matches);
        match Link::start(self.origin.clone(), self.standings.clone(), pasts, self.tell.clone()) {
            Ok(link) => self.link = Some(link),
            Err(error) => {
                tracing::error!("no action runs: there is no thread for the runner: {error}");
                self.fault = Some(error.to_string());
            }
        }
    }

    fn say(&self, word: ToRunner) {
        if let (Some(link), Some(number)) = (&self.link, self.up) {
            link.say(number, Word::Plain(word));
        }
    }

    /// Hands over what there is room for.
    fn hand_over(&mut self, jail: &JailName, bans: &BanTable) {
        let (Some(number), Some(link), false) = (self.up, &self.link, self.ends) else { return };
        let leaving =
            self.leaving.iter_mut().filter(|(of, _)| of == jail).map(|(_, action)| action);
        for action in leaving.chain(self.jails.get_mut(jail).into_iter().flatten()) {
            hand_over(action, (link, number), jail, bans, &self.restored, &mut self.bytes);
        }
    }

    fn hand_over_all(&mut self, bans: &BanTable) {
        let leaving = self.leaving.iter().map(|(jail, _)| jail);
        let jails: HashSet<JailName> = self.jails.keys().chain(leaving).cloned().collect();
        for jail in jails {
            self.hand_over(&jail, bans);
        }
    }

    /// Tasks that the store lacks, after these; where to go on.
    pub fn tasks_after(
        &self,
        place: Option<&TaskPlace>,
        most: usize,
    ) -> (Vec<store::Task>, Option<TaskPlace>) {
        let mut tasks = Vec::new();
        let from = place.map(|(jail, ..)| jail.clone());
        let jails =
            self.jails.iter().filter(|(jail, _)| from.as_ref().is_none_or(|it| *jail >= it));
        for (jail, actions) in jails {
            for (nth, action) in actions.iter().enumerate() {
                let after = match place {
                    Some((of, at, _)) if of == jail && nth < *at => continue,
                    Some((of, at, seq)) if of == jail && nth == *at => *seq,
                    _ => 0,
                };
                for entry in action.queue.kept_after(after) {
                    if tasks.len() >= most {
                        let last = tasks.last().map_or(0, |task: &store::Task| task.seq);
                        let is_begun = tasks
                            .last()
                            .is_some_and(|task| task.jail == *jail && *task.action == *action.name);
                        let last = if is_begun { last } else { 0 };
                        return (tasks, Some((jail.clone(), nth, last)));
                    }
                    tasks.push(row(entry));
                }
            }
        }
        (tasks, None)
    }

    /// Ends the runner, if it is ours.
    fn end(&mut self, when: link::End) {
        self.up = None;
        if let Some(link) = self.link.take() {
            link.end(when);
        }
    }
}

fn row(entry: &Arc<Entry>) -> store::Task {
    store::Task {
        seq: entry.seq,
        jail: entry.jail.clone(),
        action: entry.action.clone(),
        text: entry.clone(),
    }
}

fn hand_over(
    action: &mut Action,
    (link, number): (&Link, u64),
    jail: &JailName,
    bans: &BanTable,
    restored: &HashMap<JailName, HashSet<IpNet>>,
    bytes: &mut usize,
) {
    while let Some((next, freed)) = action.queue.next(action.window) {
        *bytes = bytes.saturating_sub(freed);
        let entry = match next {
            Next::Task(entry) => entry,
            Next::Restored { prefix, seq } => {
                let holds = restored.get(jail).is_some_and(|known| known.contains(&prefix));
                let Some(ban) = bans.of(prefix, jail).filter(|_| holds) else { continue };
                Arc::new(tasks::restored(seq, ban, action, bans.count_of(jail)))
            }
        };
        action.queue.is_out(entry.clone());
        link.say(number, Word::Task(entry));
    }
}
