//! An action tried out: run for real about a ban that is made up, and everything that happens shown.
use std::{io, time::Duration};

use super::{
    commands::{Commands, Listener},
    confine,
    shell::{Mask, Shell},
    user::RunAs,
    wire::{Counts, Kind, Level, Standing, Task, Ticket},
    worker::{Definition, Doing},
};
use crate::{
    clock,
    command::{Ended, Ran},
    config::{ActionSettings, JailSettings, Native, Settings},
    engine::Script,
};

/// What is tried.
pub struct Trial<'a> {
    /// The whole configuration.
    pub settings: &'a Settings,
    /// The jail.
    pub jail: &'a JailSettings,
    /// The action.
    pub action: &'a ActionSettings,
    /// Whether this machine speaks IPv6.
    pub ipv6: bool,
    /// What is done, in this order, and whom it is about.
    pub tasks: Vec<(Kind, Ticket)>,
    /// Unix seconds.
    pub now: f64,
    /// Commands are shown and not run.
    pub dry: bool,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Commands would have rights that they do not have when a daemon runs them.
    #[error("cannot give up bpf(2): {0}")]
    Confine(io::Error),
    /// `action_user` cannot be had.
    #[error("{0}")]
    User(String),
    /// What the system says.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// What became of one task.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The task.
    pub kind: Kind,
    /// Its commands.
    pub steps: Vec<Step>,
    /// What was said besides.
    pub said: Vec<(Level, String)>,
    /// Why it failed, in fail2ban's words.
    pub failed: Option<String>,
}

/// A command. The values of parameters that are secret are not in it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The option that it is of, such as `actionban`.
    pub option: String,
    /// For `sh -c`.
    pub text: String,
    /// What stands behind it: `$0`, `$1` …
    pub arguments: Vec<String>,
    /// How it ended, in words.
    pub ended: String,
    /// Its exit status, if it ended by itself.
    pub status: Option<i32>,
    /// What it wrote, as far as it is kept.
    pub stdout: String,
    /// The same of errors.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// Collects what is run.
#[derive(Default)]
struct Notes {
    steps: Vec<Step>,
    said: Vec<(Level, String)>,
}

impl Listener for Notes {
    fn ran(&mut self, option: &str, script: &Script, ran: &Ran, mask: &Mask<'_>) {
        let text = |bytes: &[u8]| mask.hide(&String::from_utf8_lossy(bytes));
        self.steps.push(Step {
            option: option.to_owned(),
            text: mask.hide(&script.text),
            arguments: script.arguments.iter().map(|value| mask.hide(value)).collect(),
            ended: ran.ended.to_string(),
            status: match ran.ended {
                Ended::Status(status) => Some(status),
                _ => None,
            },
            stdout: text(&ran.stdout),
            stderr: text(&ran.stderr),
            took: ran.took,
        });
    }

    fn say(&mut self, level: Level, text: String) {
        self.said.push((level, text));
    }
}

impl Trial<'_> {
    /// Does it. This process cannot bpf(2) afterwards, unless nothing is run.
    ///
    /// # Errors
    /// What keeps commands from running as a daemon's would.
    pub fn run(self) -> Result<Vec<Tried>, TrialError> {
        let user = RunAs::of(self.settings.action_user.as_deref());
        if !self.dry {
            confine::give_up_bpf().map_err(TrialError::Confine)?;
            if let RunAs::Nobody(why) = user {
                return Err(TrialError::User(why));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tried = runtime.block_on(self.perform(user));
        runtime.shutdown_background();
        Ok(tried)
    }

    async fn perform(self, user: RunAs) -> Vec<Tried> {
        let definition = Definition::new(self.action, self.jail.ban_time, self.settings, self.ipv6);
        let shell = Shell::new(user, self.dry);
        let (jail, action) = (self.jail.name.to_string(), self.action.name.clone());
        let mut standing = Standing { jail, action, ..Standing::default() };
        let (mut is_slow, mut tried) = (false, Vec::new());
        for (seq, (kind, ticket)) in self.tasks.into_iter().enumerate() {
            let is_about_somebody = !matches!(
                kind,
                Kind::Start | Kind::Stop | Kind::Reload | Kind::Flush | Kind::Check
            );
            let task = Task {
                seq: seq as u64,
                jail: standing.jail.clone(),
                action: standing.action.clone(),
                kind,
                at: self.now,
                counts: Counts { banned: 1, banned_total: 1, ..Counts::default() },
                ticket: is_about_somebody.then(|| Box::new(ticket)),
            };
            let mut notes = Notes::default();
            let failed = match &definition.doing {
                Doing::Commands(recipe) => {
                    let (standing, is_slow) = (&mut standing, &mut is_slow);
                    let commands =
                        Commands::new(recipe, &shell, standing, is_slow, &task, &mut notes);
                    commands.await.perform().await.err().map(|failure| failure.why)
                }
                Doing::Native(native) => deliver(native, task, &shell, &mut notes).await,
            };
            tried.push(Tried { kind, steps: notes.steps, said: notes.said, failed });
        }
        tried
    }
}

/// Tells without a command; why it failed, if it did.
async fn deliver(native: &Native, task: Task, shell: &Shell, notes: &mut Notes) -> Option<String> {
    let parameters =
        native.properties().into_iter().map(|(name, value)| format!("{name} = {value}\n"));
    let (text, begun) = (parameters.collect(), clock::monotonic());
    let told = match shell.dry {
        true => Ok(()),
        false => shell.deliver(native.clone(), [task].into()).await,
    };
    let failed = told.err().map(|undelivered| undelivered.why);
    notes.steps.push(Step {
        option: "deliver".to_owned(),
        text,
        arguments: Vec::new(),
        ended: failed
            .clone()
            .unwrap_or_else(|| "delivered, unless it is not told of this".to_owned()),
        status: None,
        stdout: String::new(),
        stderr: String::new(),
        took: begun.elapsed(),
    });
    failed
}
