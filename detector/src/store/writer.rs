//! The thread that writes: one transaction for all that waits, faults outlived, old rows purged in small steps.
use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{
    ActionStanding, Loaded, News, Place, State, Task, Write,
    file::{self, File, FileError},
    queue::{self, Queue},
    rows,
    status::{SLOW, Shared},
};
use crate::{
    clock::{Clock, monotonic},
    config::{JailName, StoreSettings},
    engine::{Ban, Change, LOGIN_KEPT, Past, Timestamp},
};

/// Rows that wait for a file that cannot be written; with more they are given up, and follow anew when it can.
const KEPT: usize = queue::MOST;
/// Counts that wait for their jail's next cut; with more they are given up, and follow anew.
const STAGED: usize = 1 << 20;
/// Before a file that failed is tried again; doubles up to the longer one.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_LATEST: Duration = Duration::from_secs(60);
/// Between two looks for old rows, and after one that found many.
const PURGE: Duration = Duration::from_secs(60);
const PURGE_ON: Duration = Duration::from_millis(100);
/// Rows deleted at once.
const PURGED: usize = 500;
/// How long a ban lifted by hand is remembered: as long as lines that led to it may be read again.
const LIFTED_KEPT: Duration = Duration::from_secs(86_400);
/// How long a source that nobody reads any longer is remembered.
const PLACE_KEPT: Duration = Duration::from_secs(90 * 86_400);
/// How much the thread stands back once the start no longer waits for it: who detects and enforces goes first where
/// processors are few.
const NICE: i32 = 10;
/// The name of the number of the last copy of everything, among the notes.
const ROUND: &str = "round";

/// One change of the file.
enum Step {
    Ban(Arc<Ban>, i64),
    Lifted(Arc<Ban>, Option<Timestamp>),
    Pardoned(JailName, Option<IpNet>),
    Past(JailName, IpNet, Past),
    LoggedIn(IpNet, Timestamp),
    Cut { places: Vec<Place>, forget: Vec<JailName>, counts: Vec<Change> },
    Task(Task, i64),
    Done(Vec<u64>),
    Standing(ActionStanding),
    Evidence(Arc<Ban>),
    Complete(i64),
}

pub(super) struct Writer {
    path: PathBuf,
    settings: StoreSettings,
    keeps_evidence: bool,
    clock: Clock,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    tell: mpsc::Sender<News>,
    file: Option<File>,
    off: bool,
    steps: Vec<Step>,
    rows: usize,
    staged: HashMap<JailName, HashMap<String, Change>>,
    staged_rows: usize,
    /// The jails whose counts are whole in the file; `None`: all are.
    whole: Option<HashSet<JailName>>,
    /// Writes were lost: nothing is worth writing until all of it comes anew.
    incomplete: bool,
    round: i64,
    retry: (Instant, Duration),
    purge: Instant,
    settled: Vec<oneshot::Sender<()>>,
}

impl Writer {
    pub fn new(
        path: PathBuf,
        settings: StoreSettings,
        clock: Clock,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
        tell: mpsc::Sender<News>,
    ) -> Writer {
        let now = monotonic();
        Writer {
            path,
            settings,
            keeps_evidence: false,
            clock,
            queue,
            shared,
            tell,
            file: None,
            off: false,
            steps: Vec::new(),
            rows: 0,
            staged: HashMap::new(),
            staged_rows: 0,
            whole: None,
            incomplete: false,
            round: 0,
            retry: (now, RETRY),
            purge: now + PURGE,
            settled: Vec::new(),
        }
    }

    /// Until the queue is closed and what was in it is written, or cannot be.
    pub fn run(mut self, loaded: oneshot::Sender<Loaded>) {
        let mut loaded = Some(loaded);
        loop {
            if self.file.is_none() && !self.off && self.retry.0 <= monotonic() {
                self.open(&mut loaded);
            }
            let due = match &self.file {
                // Tried at once, whether or not there is something to write.
                Some(_) if self.fails() => monotonic(),
                Some(_) => self.purge,
                None => self.retry.0,
            };
            let wait = if self.off { PURGE } else { due.saturating_duration_since(monotonic()) };
            let (writes, closed) = self.queue.take(wait);
            self.stage(writes);
            self.write_out();
            if self.file.is_some() && self.purge <= monotonic() {
                self.purge();
            }
            if closed {
                return;
            }
        }
    }

    fn open(&mut self, loaded: &mut Option<oneshot::Sender<Loaded>>) {
        let opened = File::open(&self.path).and_then(|file| {
            self.round = rows::noted(&file.sql, ROUND)?;
            Ok(file)
        });
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                if error.is_damage() {
                    give(loaded, self.salvage());
                    return self.damaged(&error.to_string());
                }
                if let FileError::Newer { .. } = error {
                    self.off = true;
                    give(loaded, Loaded::default());
                    return self.state(State::Off(error.to_string()));
                }
                // Where nothing can be written what is there can be read still. Somebody's lock is waited for.
                if !is_locked(&error) {
                    give(loaded, self.salvage());
                }
                return self.failed(&error.to_string());
            }
        };
        if loaded.is_some() {
            let (found, read) = rows::load(&file.sql);
            if let Err(error) = read {
                if file::is_damage(&error) {
                    give(loaded, found);
                    return self.damaged(&error.to_string());
                }
                return self.failed(&error.to_string());
            }
            give(loaded, found);
            if let Err(error) = rows::forget_rules(&file.sql)
                && !file::is_damage(&error)
            {
                return self.failed(&error.to_string());
            }
            match file.fault() {
                Ok(None) => {}
                Ok(Some(fault)) => return self.damaged(&fault),
                Err(error) if file::is_damage(&error) => return self.damaged(&error.to_string()),
                Err(error) => return self.failed(&error.to_string()),
            }
        } else if file.is_new {
            self.lose();
        }
        self.file = Some(file);
        if let State::Opening = self.shared.status(0).state {
            self.state(State::Works);
        }
    }

    /// What can be read of a file that cannot be written.
    fn salvage(&self) -> Loaded {
        match File::open_to_read(&self.path) {
            Ok(file) => rows::load(&file.sql).0,
            Err(_) => Loaded::default(),
        }
    }

    fn stage(&mut self, writes: VecDeque<Write>) {
        for write in writes {
            self.stage_one(write);
        }
        if self.file.is_none() && self.rows > KEPT || self.staged_rows > STAGED {
            self.lose();
        }
    }

    fn stage_one(&mut self, write: Write) {
        match write {
            Write::Settings(settings) => self.settings = settings,
            Write::KeepEvidence(keeps) => self.keeps_evidence = keeps,
            Write::Settled(tell) => self.settled.push(tell),
            Write::Anew => self.begin_anew(),
            _ if self.off => {}
            _ if self.incomplete => self.shared.lost(1),
            Write::Ban(ban) => {
                if self.keeps_evidence {
                    self.push(Step::Evidence(ban.clone()), 1);
                }
                self.push(Step::Ban(ban, self.round), 1);
            }
            Write::Told(write, tasks) => {
                self.stage_one(*write);
                self.tasks(tasks);
            }
            Write::Tasks(tasks) => self.tasks(tasks),
            Write::Done(tasks) => self.push(Step::Done(tasks), 1),
            Write::Standing(standing) => self.push(Step::Standing(standing), 1),
            Write::Lifted { ban, by_hand } => self.push(Step::Lifted(ban, by_hand), 1),
            Write::Pardoned(jail, prefix) => self.push(Step::Pardoned(jail, prefix), 1),
            Write::Past(jail, prefix, past) => self.push(Step::Past(jail, prefix, past), 1),
            Write::LoggedIn(prefix, at) => self.push(Step::LoggedIn(prefix, at), 1),
            Write::Complete => self.push(Step::Complete(self.round), 1),
            Write::Counts(changes) => self.counted(changes),
            Write::Cut { jails, places } => self.cut(&jails, places),
        }
    }

    fn tasks(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            self.push(Step::Task(task, self.round), 1);
        }
    }

    fn push(&mut self, step: Step, rows: usize) {
        self.steps.push(step);
        self.rows += rows;
    }

    fn begin_anew(&mut self) {
        // What was handed over before it still holds, but for counts that some may be missing of.
        (self.staged, self.staged_rows) = (HashMap::new(), 0);
        self.incomplete = false;
        self.whole = Some(HashSet::new());
        self.round += 1;
    }

    fn counted(&mut self, changes: Vec<Change>) {
        for change in changes {
            let of_jail = self.staged.entry(change.jail.clone()).or_default();
            let is_new = of_jail.insert(rows::who(&change.who), change).is_none();
            self.staged_rows += usize::from(is_new);
        }
    }

    fn cut(&mut self, jails: &[JailName], places: Vec<Place>) {
        let counts: Vec<Change> = jails
            .iter()
            .filter_map(|jail| self.staged.remove(jail))
            .flat_map(HashMap::into_values)
            .collect();
        self.staged_rows -= counts.len();
        let forget = match &mut self.whole {
            None => Vec::new(),
            Some(whole) => {
                jails.iter().filter(|&jail| whole.insert(jail.clone())).cloned().collect()
            }
        };
        let rows = counts.len() + places.len();
        self.push(Step::Cut { places, forget, counts }, rows);
    }

    /// One transaction for all that is staged; without a file it waits.
    fn write_out(&mut self) {
        let fails = self.fails();
        if let Some(file) = &mut self.file
            && (!self.steps.is_empty() || fails)
        {
            let begun = monotonic();
            self.shared.busy(Some(begun));
            let now = (self.clock)();
            let matches = self.settings.max_matches as usize;
            let written = if file.is_in_place() {
                transaction(&mut file.sql, &self.steps, matches, now)
                    .map_err(|error| (file::is_damage(&error), error.to_string()))
            } else {
                self.lose();
                Err((false, format!("`{}` is gone or was replaced", self.path.display())))
            };
            self.shared.busy(None);
            match written {
                Ok(()) => {
                    self.steps.clear();
                    self.rows = 0;
                    self.shared.committed();
                    self.retry.1 = RETRY;
                    self.state(State::Works);
                    let took = monotonic() - begun;
                    if took >= SLOW {
                        let text =
                            format!("the store is slow: one write took {} s", took.as_secs());
                        self.say(true, text);
                    }
                }
                Err((true, why)) => self.damaged(&why),
                Err((false, why)) => self.failed(&why),
            }
        }
        let stored = self.file.is_some() && !self.incomplete;
        for tell in self.settled.drain(..).filter(|_| stored) {
            // Who asked may have gone.
            let _ = tell.send(());
        }
    }

    fn fails(&self) -> bool {
        matches!(self.shared.status(0).state, State::Fails(_))
    }

    fn purge(&mut self) {
        let Some(file) = &self.file else { return };
        let now = (self.clock)();
        let before = |age: Duration| now.minus(age).micros();
        let old = [
            ("history", rows::FORGOTTEN, before(self.settings.purge_age)),
            ("counts", "lapses < ?1", before(Duration::ZERO)),
            ("lifted", "at < ?1", before(LIFTED_KEPT)),
            ("places", "at < ?1", before(PLACE_KEPT)),
            ("logins", "at < ?1", before(LOGIN_KEPT)),
            ("evidence", "since < ?1", before(self.settings.purge_age)),
        ];
        let mut most = 0;
        let deleted = old.iter().try_for_each(|(table, condition, value)| {
            most = most.max(rows::delete_some(&file.sql, table, condition, value, PURGED)?);
            Ok(())
        });
        self.purge = monotonic() + if most < PURGED { PURGE } else { PURGE_ON };
        match deleted {
            Ok(()) => {}
            Err(error) if file::is_damage(&error) => self.damaged(&error.to_string()),
            Err(error) => self.failed(&error.to_string()),
        }
    }

    /// The file is put aside, and a new one made of what the daemon knows.
    fn damaged(&mut self, why: &str) {
        // First of all closed: what is renamed must not be written any more.
        self.file = None;
        self.lose();
        match file::set_aside(&self.path, (self.clock)()) {
            Ok(to) => {
                self.shared.set_aside(to.clone());
                self.failed(&format!(
                    "the file was damaged ({why}); it lies in `{}` now, and a new one is made",
                    to.display()
                ));
                self.retry.0 = monotonic();
            }
            Err(error) => {
                self.failed(&format!(
                    "the file is damaged ({why}) and cannot be set aside: {error}"
                ));
            }
        }
    }

    /// Tried again after a while.
    fn failed(&mut self, why: &str) {
        self.file = None;
        self.retry = (monotonic() + self.retry.1, (self.retry.1 * 2).min(RETRY_LATEST));
        self.state(State::Fails(why.to_owned()));
    }

    /// Gives up what waits: all of it has to come anew.
    fn lose(&mut self) {
        self.shared.lost(self.rows + self.staged_rows);
        self.forget();
        self.incomplete = true;
    }

    fn forget(&mut self) {
        self.steps = Vec::new();
        self.staged = HashMap::new();
        (self.rows, self.staged_rows) = (0, 0);
    }

    fn state(&self, state: State) {
        let text = match &state {
            State::Fails(why) => format!(
                "the store fails: {why}. Bans are made and enforced all the same; it is tried again"
            ),
            State::Off(why) => format!("nothing is stored: {why}"),
            State::Opening | State::Works => "the store works again".to_owned(),
        };
        let before = self.shared.state(state.clone());
        match (before, state) {
            (None, _) | (Some(State::Fails(_)), State::Fails(_)) => {}
            (Some(State::Opening), State::Works) => {}
            (Some(_), state) => self.say(state != State::Works, text),
        }
    }

    fn say(&self, alarm: bool, text: String) {
        // The status keeps what finds no room.
        let _ = self.tell.try_send(News { alarm, text });
    }
}

fn give(to: &mut Option<oneshot::Sender<Loaded>>, loaded: Loaded) {
    if let Some(to) = to.take() {
        // The daemon may have ended.
        let _ = to.send(loaded);
        // Of this thread alone, as Linux has it (setpriority(2)); where it is refused nothing is lost.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    }
}

fn is_locked(error: &FileError) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    let FileError::Sql(error) = error else { return false };
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

fn transaction(
    sql: &mut Connection,
    steps: &[Step],
    matches: usize,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let mut rules = rows::RuleNumbers::new();
    let all = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps {
        match step {
            Step::Ban(ban, round) => rows::ban(&all, ban, matches, *round, &mut rules)?,
            Step::Lifted(ban, by_hand) => rows::lifted(&all, ban, *by_hand)?,
            Step::Pardoned(jail, prefix) => rows::pardoned(&all, jail, *prefix)?,
            Step::Past(jail, prefix, past) => rows::past(&all, jail, *prefix, past)?,
            Step::LoggedIn(prefix, at) => rows::login(&all, *prefix, *at)?,
            Step::Cut { places, forget, counts } => {
                for jail in forget {
                    all.execute("DELETE FROM counts WHERE jail = ?1", [jail.as_str()])?;
                }
                counts.iter().try_for_each(|change| rows::count(&all, change))?;
                places.iter().try_for_each(|place| rows::place(&all, place, now))?;
            }
            Step::Task(task, round) => rows::task(&all, task, *round)?,
            Step::Done(tasks) => tasks.iter().try_for_each(|seq| rows::done(&all, *seq))?,
            Step::Standing(standing) => rows::standing(&all, standing)?,
            Step::Evidence(ban) => rows::evidence(&all, ban, matches)?,
            Step::Complete(round) => {
                all.execute("DELETE FROM bans WHERE round < ?1", [round])?;
                all.execute("DELETE FROM action_queue WHERE round < ?1", [round])?;
                rows::note(&all, ROUND, *round)?;
            }
        }
    }
    // Also where there is nothing else to write: it shows that writing is possible.
    rows::note(&all, "written", now.micros())?;
    all.commit()
}
