//! Where commands of all actions run: a few at once, none for longer than its deadline, whoever hangs out of the others' way.
use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    hosts::Hosts,
    native::{self, Undelivered},
    user::RunAs,
    wire::Task,
};
use crate::{
    command::{self, Ended, Order, Ran},
    config::{Native, Value},
    engine::Script,
};

/// Commands that run at once.
const AT_ONCE: usize = 8;
/// A command that runs for longer gives its turn to another, and so does the next one of the same action at once.
const SLOW: Duration = Duration::from_millis(250);
/// Commands at once, the slow ones counted.
const MOST_AT_ONCE: usize = 256;
/// Characters of a command, and lines of its output, that are told.
const TOLD: usize = 4096;
const TOLD_LINES: usize = 40;

/// Runs commands for all actions.
pub(super) struct Shell {
    pub hosts: Hosts,
    /// Whom they run as.
    pub user: RunAs,
    /// Nothing is run, and everything succeeds.
    pub dry: bool,
    turns: Semaphore,
    all: Semaphore,
}

impl Shell {
    pub(super) fn new(user: RunAs, dry: bool) -> Shell {
        let (turns, all) = (Semaphore::new(AT_ONCE), Semaphore::new(MOST_AT_ONCE));
        Shell { hosts: Hosts::new(), user, dry, turns, all }
    }

    /// Runs a command; `is_slow` is whether this action's last one was, and becomes whether this one is.
    pub(super) async fn run(&self, script: &Script, deadline: Duration, is_slow: &mut bool) -> Ran {
        let ended =
            |ended| Ran { ended, stdout: Vec::new(), stderr: Vec::new(), took: Duration::ZERO };
        if self.dry {
            return ended(Ended::Status(0));
        }
        let user = match &self.user {
            RunAs::Ourselves => None,
            RunAs::Other(user) => Some(user),
            // Never as somebody else than the operator wants.
            RunAs::Nobody(why) => {
                return ended(Ended::Unstarted(std::io::Error::other(why.clone())));
            }
        };
        // Neither gate is ever closed.
        let _place = self.all.acquire().await;
        let mut turn = if *is_slow { None } else { self.turns.acquire().await.ok() };
        let order =
            Order { script: &script.text, arguments: &script.arguments, user, ..Order::default() };
        let running = command::run(&order, deadline);
        tokio::pin!(running);
        if turn.is_some() {
            match tokio::time::timeout(SLOW, &mut running).await {
                Ok(ran) => return ran,
                Err(_) => drop(turn.take()),
            }
        }
        let ran = running.await;
        *is_slow = ran.took > SLOW;
        ran
    }

    /// Tells without a command.
    pub(super) async fn deliver(
        &self,
        native: Native,
        tasks: Arc<[Task]>,
    ) -> Result<(), Undelivered> {
        let _place = self.all.acquire().await;
        let telling = tokio::task::spawn_blocking(move || native::deliver(&native, &tasks));
        telling.await.unwrap_or_else(|error| {
            Err(Undelivered { why: error.to_string(), retry_after: None, hopeless: true })
        })
    }
}

/// What an operator sees of texts: never the values of parameters that are secret.
pub(super) struct Mask<'a>(pub Vec<&'a str>);

impl Mask<'_> {
    pub(super) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret) {
                text = text.replace(secret, "***");
            }
        }
        text
    }
}

/// A command as fail2ban shows it: its text, or a list where values stand beside it.
pub(super) fn shown(script: &Script, mask: &Mask<'_>) -> String {
    let text = match script.arguments.is_empty() {
        true => mask.hide(&script.text),
        false => {
            let words = std::iter::once(&script.text).chain(&script.arguments);
            Value::List(words.map(|word| mask.hide(word).into()).collect()).to_string()
        }
    };
    shortened(&text)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TOLD) {
        None => text.to_owned(),
        Some((end, _)) => format!("{} … ({} bytes more)", &text[..end], text.len() - end),
    }
}

/// The lines of what a command said, each as fail2ban shows it.
pub(super) fn lines(said: &[u8], mask: &Mask<'_>) -> Vec<String> {
    let text = mask.hide(&String::from_utf8_lossy(said));
    let shown = |line: &str| shortened(&Value::from(line).to_string());
    let mut lines: Vec<String> = text.lines().take(TOLD_LINES).map(shown).collect();
    let more = text.lines().count().saturating_sub(TOLD_LINES);
    if more > 0 {
        lines.push(format!("… ({more} lines more)"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_shown() {
        let secret = "it's \\ secret";
        let mask = Mask(vec![secret]);
        let long = "x".repeat(TOLD - 5);
        let plain = Script { text: format!("{long}{secret}"), ..Script::default() };
        let listed = Script {
            text: format!("tell {secret}"),
            arguments: vec![secret.to_owned()],
            ..Script::default()
        };
        let said = format!("{secret}\n{long}{secret}\n");
        let told =
            [shown(&plain, &mask), shown(&listed, &mask), lines(said.as_bytes(), &mask).concat()];
        for text in told {
            assert!(text.contains("*") && !text.contains("it"), "{text}");
        }
    }
}
