//! What the runner says: tasks that are over, changes that were made, its comings and goings; and its end.
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{
    Change, MOST_SET, News, STOPPED, Telling,
    link::{self, Word},
    report, tasks,
};
use crate::{
    action::wire::{FromRunner, Kind, Standing, ToRunner},
    app::Daemon,
    clock::monotonic,
    config::JailName,
    store::ActionStanding,
};

impl Daemon {
    /// What the runner, or the link to it, has to say.
    pub(in crate::app) fn runner_says(&mut self, news: News) {
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
        self.telling.has_epochs |= standing.epoch > 0;
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
    pub(in crate::app) fn forget_dropped(&mut self) {
        let gone = std::mem::take(&mut self.telling.gone);
        self.keeper.tasks_over(gone);
    }

    /// Has every action stop, and waits for that, but not for long; what was not done stays in the store.
    pub(in crate::app) async fn stop_actions(&mut self, news: &mut mpsc::Receiver<News>) {
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
    pub(in crate::app) fn change_action(
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
                let mut settings = known.settings.clone();
                settings.set(property, value);
                known.set(settings);
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
