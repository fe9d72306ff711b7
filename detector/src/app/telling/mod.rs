//! Telling others of bans: what each action is to do, from the moment it is decided until the runner is done with it.
//!
//! The kernel has a ban before anything here hears of it, and nobody here waits: a task is a few words in a queue, a row
//! on the store's thread, a line on the link's. What is handed to the runner stays here until it says that it is done,
//! and is said again to the next runner.
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
use super::Daemon;
use crate::{
    action::wire::{FromRunner, Kind, Standing, ToRunner},
    clock::monotonic,
    config::{ActionSettings, JailName, JailSettings, Settings},
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
    asks: Asks,
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
            asks: Asks::default(),
            queue: Queue::default(),
            told_in: HashMap::new(),
            counts: Results::default(),
            failing: None,
        };
        action.look_at_settings();
        action
    }

    fn look_at_settings(&mut self) {
        let mentions = |tags: [&str; 2]| tags.iter().any(|tag| self.settings.mentions(tag));
        self.asks = Asks {
            of_address: mentions(["ipmatches", "ipfailures"]),
            of_jail: mentions(["ipjailmatches", "ipjailfailures"]),
        };
    }

    fn has(&self, command: &str) -> bool {
        self.settings.property(command).is_some_and(|text| !text.trim().is_empty())
    }

    fn no_restored(&self) -> bool {
        let is_true = |text: &str| {
            matches!(text.trim().to_ascii_lowercase().as_str(), "1" | "on" | "true" | "yes")
        };
        self.settings.property("norestored").is_some_and(is_true)
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
            if let Ok(standing) = serde_json::from_str(&text) {
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
                    let asks = action.asks;
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
    while let Some((next, freed)) = action.queue.next() {
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

impl Daemon {
    /// The configuration's actions, as they are from now on. Those that are gone are told so, those that are new begin;
    /// with `reloaded` the runner reads the configuration again, and those of jails in `restarted` begin anew.
    pub(super) fn actions_change(&mut self, reloaded: bool, restarted: &[JailName]) {
        let now = (self.clock)();
        let jails: Vec<JailSettings> = self.settings.jails.clone();
        self.telling.limit = self.settings.telling.queue as usize;
        self.telling.most_matches = self.settings.store.max_matches as usize;
        let mut old = std::mem::take(&mut self.telling.jails);
        let mut rows = Vec::new();
        let (mut begun, mut kept) = (Vec::new(), Vec::new());
        for jail in &jails {
            let mut before = old.remove(&jail.name).unwrap_or_default();
            let mut actions: Vec<Action> = Vec::new();
            for settings in &jail.actions {
                if actions.iter().any(|action| *action.name == settings.name) {
                    continue;
                }
                let known = before.iter().position(|action| *action.name == settings.name);
                match known.map(|at| before.remove(at)) {
                    Some(mut action) => {
                        if reloaded {
                            action.settings = settings.clone();
                            action.look_at_settings();
                        }
                        kept.push((jail.name.clone(), action.name.clone()));
                        actions.push(action);
                    }
                    None => {
                        let action = Action::new(settings);
                        begun.push((jail.name.clone(), action.name.clone()));
                        actions.push(action);
                    }
                }
            }
            self.telling.jails.insert(jail.name.clone(), actions);
            for action in before {
                rows.extend(self.action_leaves(&jail.name, action, true, now));
            }
        }
        for (jail, actions) in old {
            for action in actions {
                rows.extend(self.action_leaves(&jail, action, false, now));
            }
            self.telling.restored.remove(&jail);
        }
        if reloaded {
            self.telling.set.clear();
            self.telling.say(ToRunner::Reload);
        }
        for (jail, name) in kept {
            if restarted.contains(&jail) {
                self.tell_one(&jail, &name, Kind::Stop, now);
                self.action_begins(&jail, &name, now);
            } else if reloaded {
                self.tell_one(&jail, &name, Kind::Reload, now);
            }
        }
        for (jail, name) in begun {
            self.action_begins(&jail, &name, now);
        }
        self.keeper.tasks(rows);
        let asks =
            self.telling.jails.values().flatten().any(|action| action.asks != Asks::default());
        self.keeper.keep_evidence(asks);
        self.forget_dropped();
        self.telling.begin();
        self.telling.hand_over_all(self.engine.bans());
    }

    /// It is started, and told of the bans that hold.
    fn action_begins(&mut self, jail: &JailName, name: &str, now: Timestamp) {
        self.tell_one(jail, name, Kind::Start, now);
        self.announce(jail, Some(name));
    }

    /// Has an action told of the bans that its jail holds, or all actions of the jail, as restored ones.
    fn announce(&mut self, jail: &JailName, name: Option<&str>) {
        let mut bans: Vec<(Timestamp, IpNet)> =
            self.engine.bans().of_jail(jail).map(|ban| (ban.since, ban.prefix)).collect();
        if bans.is_empty() || self.telling.jails.get(jail).is_none_or(Vec::is_empty) {
            return;
        }
        bans.sort_unstable();
        let bans: Arc<[IpNet]> = bans.into_iter().map(|(_, prefix)| prefix).collect();
        self.telling.restored.entry(jail.clone()).or_default().extend(bans.iter());
        let mut seq = self.telling.seq(0);
        let actions = self.telling.jails.get_mut(jail).into_iter().flatten();
        for action in actions.filter(|action| name.is_none_or(|name| *action.name == *name)) {
            if !action.no_restored() {
                action.queue.push_restored(bans.clone(), seq);
                seq += bans.len() as u64;
            }
        }
        self.telling.next_seq = seq;
    }

    /// The bans of an earlier run are all known: each action is told of those that hold.
    pub(super) fn announce_restored(&mut self) {
        self.telling.begins = false;
        let jails: Vec<JailName> = self.telling.jails.keys().cloned().collect();
        for jail in jails {
            self.announce(&jail, None);
            self.telling.hand_over(&jail, self.engine.bans());
        }
    }

    /// Actions of this configuration begin; what an earlier run left comes first.
    pub(super) fn actions_begin(&mut self, standings: Vec<ActionStanding>, tasks: &[String]) {
        self.telling.recall_standings(standings);
        self.actions_change(false, &[]);
        self.telling.recall(tasks);
        self.forget_dropped();
    }

    /// An action is configured no longer: bans that hold are over for it, and it stops. The runner knows its commands until
    /// then.
    fn action_leaves(
        &mut self,
        jail: &JailName,
        mut action: Action,
        flush: bool,
        now: Timestamp,
    ) -> Vec<store::Task> {
        let counts = self.counts_of(jail);
        let telling = &mut self.telling;
        let mut rows = Vec::new();
        let mut push = |action: &mut Action, entry: Entry, bytes: &mut usize| {
            let entry = Arc::new(entry);
            if entry.is_kept() {
                rows.push(row(&entry));
            }
            *bytes += action.queue.push(entry);
        };
        let bans = self.engine.bans();
        if flush && bans.count_of(jail) > 0 {
            if action.has("actionflush") {
                let seq = telling.seq(1);
                let entry = tasks::plain(Kind::Flush, seq, jail, &action.name, counts, now);
                push(&mut action, entry, &mut telling.bytes);
            } else {
                let asks = action.asks;
                for ban in bans.of_jail(jail) {
                    let seq = telling.seq(1);
                    let restored =
                        telling.restored.get(jail).is_some_and(|it| it.contains(&ban.prefix));
                    let ticket = Some(Arc::new(tasks::ticket(ban, restored)));
                    let plain = tasks::plain(Kind::Unban, seq, jail, &action.name, counts, now);
                    push(&mut action, Entry { ticket, asks, ..plain }, &mut telling.bytes);
                }
            }
        }
        let seq = telling.seq(1);
        let entry = tasks::plain(Kind::Stop, seq, jail, &action.name, counts, now);
        push(&mut action, entry, &mut telling.bytes);
        telling.leaving.push((jail.clone(), action));
        rows
    }

    /// What the runner, or the link to it, has to say.
    pub(super) fn runner_says(&mut self, news: News) {
        match news {
            News::Up(number) => self.runner_is_up(number),
            News::Down(why) => {
                self.telling.lost += u64::from(self.telling.up.take().is_some());
                tracing::error!(
                    "the action runner is gone: {why}; another one is begun, what it was told is told again"
                );
                self.tell_event("alarm", &format!("the action runner is gone: {why}"));
                self.telling.fault = Some(why);
            }
            News::Said(said) => self.runner_said(said),
        }
    }

    fn runner_is_up(&mut self, number: u64) {
        let telling = &mut self.telling;
        telling.up = Some(number);
        telling.fault = None;
        let Some(link) = &telling.link else { return };
        for word in &telling.set {
            link.say(number, Word::Plain(word.clone()));
        }
        for (id, change) in &telling.changes {
            link.say(number, Word::Plain(set(*id, change)));
        }
        let actions = telling.jails.values().flatten();
        for action in actions.chain(telling.leaving.iter().map(|(_, action)| action)) {
            for entry in action.queue.out() {
                link.say(number, Word::Task(entry.clone()));
            }
        }
        telling.hand_over_all(self.engine.bans());
    }

    fn runner_said(&mut self, said: FromRunner) {
        match said {
            // The link has heard these.
            FromRunner::Hello { .. } | FromRunner::Pong => {}
            FromRunner::Read { problems } => {
                for problem in &problems {
                    tracing::error!("action runner: {problem}");
                }
                self.telling.fault = (!problems.is_empty()).then(|| problems.join("; "));
            }
            FromRunner::Log { jail, action, level, text } => {
                report::log(&jail, &action, level, &text)
            }
            FromRunner::Answer { id, refused } => self.change_answered(id, refused),
            FromRunner::Done { seq, failed, standing } => self.task_is_over(seq, failed, standing),
        }
    }

    fn task_is_over(&mut self, seq: u64, failed: Option<String>, standing: Standing) {
        let jail = JailName::new(&standing.jail);
        let telling = &mut self.telling;
        let leaving =
            telling.leaving.iter_mut().filter(|(of, _)| *of == jail).map(|(_, action)| action);
        let here = telling.jails.get_mut(&jail).into_iter().flatten();
        let mut named = leaving.chain(here).filter(|action| *action.name == *standing.action);
        let Some((entry, action)) =
            named.find_map(|action| Some((action.queue.done(seq)?, action)))
        else {
            // Of a runner before, which had done it after all.
            return;
        };
        match &failed {
            None => {
                action.counts.done += 1;
                action.counts.failed_in_a_row = 0;
                action.failing = None;
            }
            Some(why) => {
                report::failed(&standing, why);
                action.counts.failed += 1;
                action.counts.failed_in_a_row += 1;
                action.failing.clone_from(&failed);
            }
        }
        if entry.kind == Kind::Ban
            && standing.epoch > 0
            && let Some(prefix) =
                entry.ticket.as_ref().and_then(|ticket| tasks::prefix_of(&ticket.id))
        {
            action.told_in.insert(prefix, standing.epoch);
        }
        if entry.is_kept() {
            telling.gone.push(seq);
        }
        telling.leaving.retain(|(_, action)| !action.queue.is_empty());
        if telling.leaving.is_empty() && telling.jails.values().all(Vec::is_empty) {
            telling.end(link::End::Soon);
        }
        self.standing_is(standing);
        self.forget_dropped();
        self.telling.hand_over(&jail, self.engine.bans());
    }

    /// Remembers how an action stands, also across restarts.
    fn standing_is(&mut self, standing: Standing) {
        let key = (standing.jail.clone(), standing.action.clone());
        let mut all = self.telling.standings.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&key) == Some(&standing) {
            return;
        }
        let text = serde_json::to_string(&standing).expect("it is plain data");
        all.insert(key, standing.clone());
        drop(all);
        let Standing { jail, action, .. } = standing;
        self.keeper.standing(ActionStanding { jail, action, text });
    }

    /// Takes the rows out of tasks that are over.
    pub(super) fn forget_dropped(&mut self) {
        let gone = std::mem::take(&mut self.telling.gone);
        self.keeper.tasks_over(gone);
    }

    /// Has every action stop, and waits for that, but not for long; what was not done stays in the store.
    pub(super) async fn stop_actions(&mut self, news: &mut mpsc::Receiver<News>) {
        if self.telling.link.is_none() {
            return;
        }
        let now = (self.clock)();
        self.telling.ends = true;
        let all: Vec<(JailName, Arc<str>)> = self
            .telling
            .jails
            .iter()
            .flat_map(|(jail, actions)| actions.iter().map(|it| (jail.clone(), it.name.clone())))
            .collect();
        for (jail, name) in all {
            let counts = self.counts_of(&jail);
            let seq = self.telling.seq(1);
            let entry = Arc::new(tasks::plain(Kind::Stop, seq, &jail, &name, counts, now));
            let (Some(number), true) = (self.telling.up, self.telling.link.is_some()) else {
                break;
            };
            if let Some(action) = self.telling.action(&jail, &name) {
                // What waits goes on waiting, for the next run.
                action.queue.is_out(entry.clone());
            }
            if let Some(link) = &self.telling.link {
                link.say(number, Word::Task(entry));
            }
        }
        let end = monotonic() + STOPPED;
        let is_busy = |telling: &Telling| {
            telling.up.is_some()
                && telling.jails.values().flatten().any(|it| !it.queue.out().is_empty())
        };
        while is_busy(&self.telling) {
            match tokio::time::timeout_at(end.into(), news.recv()).await {
                Ok(Some(said)) => self.runner_says(said),
                _ => {
                    tracing::warn!(
                        "some actions did not stop within {STOPPED:?}; what they were not told they are told at the next start"
                    );
                    break;
                }
            }
        }
        self.telling.end(link::End::Now);
    }

    /// `set JAIL action NAME PROPERTY VALUE`: the answer comes later.
    pub(super) fn change_action(
        &mut self,
        jail: &JailName,
        action: &str,
        property: &str,
        value: &str,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (answer, answered) = oneshot::channel();
        let id = self.telling.next_change;
        self.telling.next_change += 1;
        let change = Change {
            jail: jail.clone(),
            action: action.to_owned(),
            property: property.to_owned(),
            value: value.to_owned(),
            answer,
        };
        // Who asked has gone meanwhile.
        self.telling.changes.retain(|_, change| !change.answer.is_closed());
        self.telling.say(set(id, &change));
        self.telling.changes.insert(id, change);
        answered
    }

    fn change_answered(&mut self, id: u64, refused: Option<String>) {
        let Some(change) = self.telling.changes.remove(&id) else { return };
        if refused.is_none() {
            let word = set(id, &change);
            let same = |known: &ToRunner| match (known, &word) {
                (
                    ToRunner::Set { jail, action, property, .. },
                    ToRunner::Set { jail: of, action: name, property: option, .. },
                ) => (jail, action, property) == (of, name, option),
                _ => false,
            };
            self.telling.set.retain(|known| !same(known));
            if self.telling.set.len() < MOST_SET {
                self.telling.set.push(word);
            }
            let Change { jail, action, property, value, .. } = &change;
            if let Some(known) = self.telling.action(jail, action) {
                known.settings.set_property(property, value);
                known.look_at_settings();
            }
            self.action_was_set(jail, action, property, value);
        }
        // Who asked may have gone.
        let _ = change.answer.send(refused.map_or(Ok(()), Err));
    }
}

fn set(id: u64, change: &Change) -> ToRunner {
    let Change { jail, action, property, value, .. } = change;
    ToRunner::Set {
        id,
        jail: jail.to_string(),
        action: action.clone(),
        property: property.clone(),
        value: value.clone(),
    }
}
