//! One action's queue: its tasks one after the other, each tried again for a while before it is given up.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    commands::{Commands, Failure, Listener, Recipe, said},
    native::Undelivered,
    shell::{Mask, Shell},
    wire::{FromRunner, Kind, Level, Standing, Task},
};
use crate::{
    clock,
    command::Ran,
    config::{ActionKind, ActionSettings, BanTime, Batch, Native, Properties, Settings},
    engine::Script,
};

/// The first pause before a task is tried again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of them for what is told without commands.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long another side may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// An action as the configuration has it, or `set … action …` has made it since.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub doing: Doing,
    /// How long a task that fails is tried again.
    pub retry: Duration,
}

/// What an action does.
#[derive(Clone, Debug)]
pub(super) enum Doing {
    /// It runs commands.
    Commands(Recipe),
    /// It tells without any.
    Native(Native),
}

impl Definition {
    /// As the configuration has it.
    pub(super) fn new(
        action: &ActionSettings,
        ban_time: BanTime,
        settings: &Settings,
        ipv6: bool,
    ) -> Definition {
        let doing = match &action.kind {
            ActionKind::Native(native) => Doing::Native(native.clone()),
            ActionKind::Commands(given) => Doing::Commands(Recipe {
                properties: Properties::new(given),
                jail_ban_time: match ban_time {
                    BanTime::Permanent => -1,
                    BanTime::Seconds(seconds) => i64::from(seconds),
                },
                ipv6,
            }),
        };
        Definition { doing, retry: settings.action_retry }
    }
}

/// A task, and the action as it was when the task came.
pub(super) struct Job {
    pub task: Task,
    pub definition: Arc<Definition>,
    pub shell: Arc<Shell>,
    pub outbox: Outbox,
}

/// The way to the daemon that a task came from.
#[derive(Clone)]
pub(super) struct Outbox {
    lines: mpsc::Sender<FromRunner>,
    /// Lines for its log that found no room.
    lost: Arc<AtomicU64>,
}

impl Outbox {
    pub(super) fn new(lines: mpsc::Sender<FromRunner>) -> Outbox {
        Outbox { lines, lost: Arc::default() }
    }

    /// Says it, as soon as there is room. A daemon that is gone hears nothing.
    pub(super) async fn say(&self, what: FromRunner) {
        let _ = self.lines.send(what).await;
    }

    /// A line for the log, where there is room.
    fn log(&self, task: &Task, level: Level, text: String) {
        let (jail, action) = (task.jail.clone(), task.action.clone());
        let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
        let line = FromRunner::Log { jail, action, level, text };
        if self.lines.try_send(line).is_err() && level != Level::Debug {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell_lost(&self, task: &Task) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.log(task, Level::Warning, format!("{lost} lines of the log found no room"));
        }
    }

    fn is_closed(&self) -> bool {
        self.lines.is_closed()
    }
}

/// Logs what a task's commands do.
struct Log<'a> {
    outbox: &'a Outbox,
    task: &'a Task,
}

impl Listener for Log<'_> {
    fn ran(&mut self, _: &str, script: &Script, ran: &Ran, mask: &Mask<'_>) {
        for (level, text) in said(self.task.seq, script, ran, mask) {
            self.say(level, text);
        }
    }

    fn say(&mut self, level: Level, text: String) {
        self.outbox.log(self.task, level, text);
    }
}

/// Does one action's tasks.
pub(super) struct Worker {
    standing: Standing,
    jobs: mpsc::Receiver<Job>,
    /// The next job, where it does not fit to those before it.
    next: Option<Job>,
    is_slow: bool,
    /// Its last task was given up: the next ones are not tried for long, so that they do not pile up behind one another.
    is_given_up: bool,
    stopping: watch::Receiver<bool>,
}

/// Why tasks are left as they are: who sent them sends them again.
enum Left {
    /// The runner stops.
    Stopped,
    /// The daemon that sent them is gone.
    Orphaned,
}

impl Worker {
    pub(super) fn new(
        standing: Standing,
        jobs: mpsc::Receiver<Job>,
        stopping: watch::Receiver<bool>,
    ) -> Worker {
        Worker { standing, jobs, next: None, is_slow: false, is_given_up: false, stopping }
    }

    /// Until there will be no more of them, or the runner stops.
    pub(super) async fn run(mut self) {
        while let Ok(Some(job)) = self.take().await {
            let definition = Arc::clone(&job.definition);
            let over = match &definition.doing {
                Doing::Commands(recipe) => {
                    self.done(&job, recipe).await.map(|failed| (vec![job], failed))
                }
                Doing::Native(native) => self.tell(job, native).await,
            };
            let (jobs, failed) = match over {
                Ok(over) => over,
                Err(Left::Orphaned) => continue,
                Err(Left::Stopped) => return,
            };
            for job in jobs {
                job.outbox.tell_lost(&job.task);
                let (seq, standing) = (job.task.seq, self.standing.clone());
                job.outbox.say(FromRunner::Done { seq, failed: failed.clone(), standing }).await;
            }
        }
    }

    /// The next job of a daemon that is still there: what another has sent it will send again.
    async fn take(&mut self) -> Result<Option<Job>, Left> {
        loop {
            let job = match self.next.take() {
                Some(job) => Some(job),
                None => tokio::select! {
                    biased;
                    _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Left::Stopped),
                    job = self.jobs.recv() => job,
                },
            };
            if job.as_ref().is_none_or(|job| !job.outbox.is_closed()) {
                return Ok(job);
            }
        }
    }

    /// Does a task by commands; why it failed for good, if it did.
    async fn done(&mut self, job: &Job, recipe: &Recipe) -> Result<Option<String>, Left> {
        let begun = clock::monotonic();
        let mut pause = FIRST_PAUSE;
        loop {
            let Job { task, shell, outbox, .. } = job;
            let mut log = Log { outbox, task };
            let (standing, is_slow) = (&mut self.standing, &mut self.is_slow);
            let commands = Commands::new(recipe, shell, standing, is_slow, task, &mut log).await;
            let Failure { why, hopeless } = match commands.perform().await {
                Ok(()) => {
                    self.is_given_up = false;
                    return Ok(None);
                }
                Err(failure) => failure,
            };
            if hopeless || self.is_given_up || begun.elapsed() + pause > job.definition.retry {
                self.is_given_up = true;
                if task.kind == Kind::Stop {
                    // It was to end, and what it began is not counted on.
                    self.standing.started.clear();
                }
                return Ok(Some(why));
            }
            let text = format!("{why}; it is tried again in {} s", pause.as_secs());
            outbox.log(task, Level::Warning, text);
            self.wait(pause, outbox).await?;
            pause *= 2;
        }
    }

    /// Tells of a job, and of those that are told together with it.
    async fn tell(
        &mut self,
        first: Job,
        native: &Native,
    ) -> Result<(Vec<Job>, Option<String>), Left> {
        let jobs = self.gather(first, native.batch()).await?;
        let failed = self.deliver(&jobs, native).await?;
        Ok((jobs, failed))
    }

    /// What is told together with the first: what comes in time. The end of the jail waits for nothing.
    async fn gather(&mut self, first: Job, batch: Batch) -> Result<Vec<Job>, Left> {
        let end = clock::monotonic() + batch.gather;
        let is_last = |job: &Job| job.task.kind == Kind::Stop;
        let mut jobs = vec![first];
        while jobs.len() < batch.most && !jobs.last().is_some_and(is_last) {
            let outbox = jobs[0].outbox.clone();
            let more = tokio::select! {
                more = self.take() => more?,
                () = tokio::time::sleep_until(end.into()) => break,
                () = outbox.lines.closed() => return Err(Left::Orphaned),
            };
            match more {
                Some(job) if Arc::ptr_eq(&job.definition, &jobs[0].definition) => jobs.push(job),
                Some(job) => {
                    self.next = Some(job);
                    break;
                }
                None => break,
            }
        }
        Ok(jobs)
    }

    /// Tells without a command, again and again until it is done or hopeless; what comes meanwhile waits at the daemon.
    async fn deliver(&mut self, jobs: &[Job], native: &Native) -> Result<Option<String>, Left> {
        let tasks: Arc<[Task]> = jobs.iter().map(|job| job.task.clone()).collect();
        let mut pause = FIRST_PAUSE;
        loop {
            let native = native.clone();
            let told = tokio::select! {
                told = jobs[0].shell.deliver(native, Arc::clone(&tasks)) => told,
                // A delivery cannot be ended; it is told again, and may have been twice.
                _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Left::Stopped),
            };
            let Err(Undelivered { why, retry_after, hopeless }) = told else { return Ok(None) };
            let Task { jail, action, .. } = &tasks[0];
            let why = format!("Failed to execute jail '{jail}' action '{action}': {why}");
            if hopeless {
                return Ok(Some(why));
            }
            let now = retry_after.unwrap_or(pause).min(LONGEST_WAIT);
            let text = format!("{why}; it is tried again in {} s", now.as_secs_f64());
            jobs[0].outbox.log(&tasks[0], Level::Warning, text);
            self.wait(now, &jobs[0].outbox).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn wait(&mut self, pause: Duration, outbox: &Outbox) -> Result<(), Left> {
        tokio::select! {
            () = outbox.lines.closed() => Err(Left::Orphaned),
            _ = self.stopping.wait_for(|stopping| *stopping) => Err(Left::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
