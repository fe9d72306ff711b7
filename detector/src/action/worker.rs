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
    commands::{Commands, Failure, Listener, said},
    shell::{Mask, Shell},
    wire::{FromRunner, Level, Standing, Task},
};
use crate::{
    clock,
    command::Ran,
    config::{ActionKind, ActionSettings, BanTime, JailSettings, Properties, Settings},
    engine::Script,
};

/// The first pause before a task is tried again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// An action as the configuration has it, or `set … action …` has made it since.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub properties: Properties,
    /// Seconds that its jail bans for; -1 for ever.
    pub jail_ban_time: i64,
    /// Whether this machine speaks IPv6.
    pub ipv6: bool,
    /// How long a task that fails is tried again.
    pub retry: Duration,
}

impl Definition {
    /// As the configuration has it.
    pub(super) fn new(
        action: &ActionSettings,
        jail: &JailSettings,
        settings: &Settings,
        ipv6: bool,
    ) -> Definition {
        let jail_ban_time = match jail.ban_time {
            BanTime::Permanent => -1,
            BanTime::Seconds(seconds) => i64::from(seconds),
        };
        let ActionKind::Commands(given) = &action.kind;
        let (properties, retry) = (Properties::new(given), settings.action_retry);
        Definition { properties, jail_ban_time, ipv6, retry }
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
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
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
    pub standing: Standing,
    is_slow: bool,
    /// Its last task was given up: the next ones are not tried for long, so that they do not pile up behind one another.
    is_given_up: bool,
    stopping: watch::Receiver<bool>,
}

/// Tasks did not end: the runner stops.
struct Stopped;

impl Worker {
    pub(super) fn new(standing: Standing, stopping: watch::Receiver<bool>) -> Worker {
        Worker { standing, is_slow: false, is_given_up: false, stopping }
    }

    /// Until there will be no more of them, or the runner stops.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            let job = tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stopping| *stopping) => return,
                job = jobs.recv() => job,
            };
            let Some(job) = job else { return };
            // Whoever sent it will send it again.
            if job.outbox.is_closed() {
                continue;
            }
            let Ok(failed) = self.done(&job).await else { return };
            let lost = job.outbox.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let text = format!("{lost} lines of the log found no room");
                job.outbox.log(&job.task, Level::Warning, text);
            }
            let (seq, standing) = (job.task.seq, self.standing.clone());
            job.outbox.say(FromRunner::Done { seq, failed, standing }).await;
        }
    }

    /// Does a task; why it failed for good, if it did.
    async fn done(&mut self, job: &Job) -> Result<Option<String>, Stopped> {
        let begun = clock::monotonic();
        let mut pause = FIRST_PAUSE;
        loop {
            let Failure { why, hopeless } = match self.perform(job).await {
                Ok(()) => {
                    self.is_given_up = false;
                    return Ok(None);
                }
                Err(failure) => failure,
            };
            if hopeless || self.is_given_up || begun.elapsed() + pause > job.definition.retry {
                self.is_given_up = true;
                return Ok(Some(why));
            }
            let text = format!("{why}; it is tried again in {} s", pause.as_secs());
            job.outbox.log(&job.task, Level::Warning, text);
            self.wait(pause).await?;
            pause *= 2;
        }
    }

    async fn wait(&mut self, pause: Duration) -> Result<(), Stopped> {
        tokio::select! {
            _ = self.stopping.wait_for(|stopping| *stopping) => Err(Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    async fn perform(&mut self, job: &Job) -> Result<(), Failure> {
        let Job { task, definition, shell, outbox } = job;
        let mut log = Log { outbox, task };
        let (standing, is_slow) = (&mut self.standing, &mut self.is_slow);
        Commands::new(definition, shell, standing, is_slow, task, &mut log).await.perform().await
    }
}
