//! Native actions: deliveries that need no command.
mod event;
mod file;
mod mail;
mod preset;
mod program;
mod webhook;
use std::{fs::File, io::Read, time::Duration};

use super::wire::{Kind, Task};
use crate::config::{Channel, Native, Occasion, Secret, SecretPlace};

/// Why something could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Undelivered {
    /// In words; never holds a secret.
    pub why: String,
    /// How long the other side wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Trying again would change nothing.
    pub hopeless: bool,
}

impl Undelivered {
    /// Something that may pass.
    fn passing(why: impl Into<String>) -> Undelivered {
        Undelivered { why: why.into(), retry_after: None, hopeless: false }
    }

    /// Something that will not.
    fn hopeless(why: impl Into<String>) -> Undelivered {
        Undelivered { why: why.into(), retry_after: None, hopeless: true }
    }
}

/// Tells what `tasks` are about, at most [`crate::config::Batch::most`] of them, all of one action, in the order of their
/// numbers. What the action is not told of is passed over. Blocks for as long as the action's `timeout`; for a mail with
/// `whois` twice as long, for an address on Cloudflare's list once a request, and longer than that only where a name is not
/// found or a mail server says its answer byte by byte. Some of it may have been delivered though the whole failed.
///
/// # Errors
/// What failed, and when to come again with all of it.
pub fn deliver(native: &Native, tasks: &[Task]) -> Result<(), Undelivered> {
    let wanted: Vec<&Task> = tasks.iter().filter(|task| is_told(native, task)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let host = host_name();
    match &native.channel {
        Channel::Mail(mail) => mail::deliver(mail, &wanted, &host),
        Channel::Webhook(webhook) => webhook::deliver(webhook, &wanted, &host),
        Channel::File(path) => file::deliver(path, &wanted, &host),
    }
}

/// Whether the action is told of such a task.
fn is_told(native: &Native, task: &Task) -> bool {
    let occasion = match task.kind {
        Kind::Start => Occasion::Start,
        Kind::Stop => Occasion::Stop,
        Kind::Ban => Occasion::Ban,
        Kind::Prolong => Occasion::Prolong,
        Kind::Unban => Occasion::Unban,
        Kind::Reload | Kind::Flush | Kind::Reban | Kind::Check => return false,
    };
    let is_restored = task.ticket.as_ref().is_some_and(|ticket| ticket.restored);
    let is_again = is_restored && matches!(occasion, Occasion::Ban | Occasion::Prolong);
    native.on.contains(&occasion) && !(native.norestored && is_again)
}

/// The name of this machine.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What is secret, read anew where it stands in a file: its first line.
fn secret(place: &SecretPlace) -> Result<Secret, Undelivered> {
    /// Longer ones are no secrets.
    const LONGEST: u64 = 64 << 10;
    let file = match place {
        SecretPlace::Here(secret) => return Ok(secret.clone()),
        SecretPlace::File(file) => file,
    };
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    let why = match read {
        Err(error) => error.to_string(),
        Ok(_) if text.trim().is_empty() => "it is empty".to_owned(),
        Ok(_) => return Ok(Secret::new(text.trim().lines().next().unwrap_or_default().trim())),
    };
    Err(Undelivered::passing(format!("cannot read {}: {why}", file.display())))
}
