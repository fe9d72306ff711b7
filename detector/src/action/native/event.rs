//! What happened, for a delivery: in JSON, and in a sentence. Attackers write some of it, so all of it is bounded.
use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use super::{Kind, Task, Undelivered};
use crate::{
    action::wire::{Past, Ticket},
    config::{Template, span_in_words},
};

/// Lines of the log that one event shows, the newest.
pub(super) const MOST_LINES: usize = 100;
/// Bytes of such a line, and of a value that was found in it.
const LONGEST_LINE: usize = 4096;
/// Values found in the lines.
const MOST_FIELDS: usize = 64;

/// A task in the words of the wire: the stable form of `file`, and of what templates see.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    event: Kind,
    seq: u64,
    jail: &'a str,
    action: &'a str,
    host: &'a str,
    at: f64,
    #[serde(flatten)]
    about: Option<About<'a>>,
}

/// Whom it is about.
#[derive(Serialize)]
struct About<'a> {
    id: Cow<'a, str>,
    ip: Cow<'a, str>,
    failures: u32,
    time: f64,
    ban_time: i64,
    ban_count: u32,
    restored: bool,
    matches: Vec<Cow<'a, str>>,
    /// Lines that were there and are not shown.
    #[serde(skip_serializing_if = "is_zero")]
    matches_left_out: usize,
    fields: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of_address: Option<Bounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of_jail: Option<Bounded<'a>>,
}

/// What the store has of an address.
#[derive(Serialize)]
struct Bounded<'a> {
    failures: u64,
    matches: Vec<Cow<'a, str>>,
}

fn bounded(past: &Past) -> Bounded<'_> {
    let Past { failures, matches } = past;
    Bounded { failures: *failures, matches: newest(matches).0 }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What several deliveries tell of each event.
pub(super) fn event<'a>(task: &'a Task, host: &'a str) -> Event<'a> {
    let about = task.ticket.as_deref().map(about);
    let Task { seq, jail, action, kind, at, counts: _, ticket: _ } = task;
    Event { event: *kind, seq: *seq, jail, action, host, at: *at, about }
}

/// What a template sees of an event: every name stands for something, also where nobody is meant.
#[derive(Serialize)]
struct Values<'a> {
    #[serde(flatten)]
    event: Event<'a>,
    sentence: String,
}

/// What a template makes of the events. Names stand for the first; `events` are all.
pub(super) fn render(
    template: &Template,
    tasks: &[&Task],
    host: &str,
) -> Result<String, Undelivered> {
    #[derive(Serialize)]
    struct All<'a> {
        #[serde(flatten)]
        first: Option<Values<'a>>,
        events: Vec<Values<'a>>,
    }
    let nobody = Ticket::default();
    let values = |task| {
        let mut event = event(task, host);
        event.about.get_or_insert_with(|| about(&nobody));
        Values { event, sentence: sentence(task, host) }
    };
    let events = tasks.iter().map(|task| values(task)).collect();
    let first = tasks.first().map(|task| values(task));
    template
        .render(All { first, events })
        .map_err(|error| Undelivered::hopeless(format!("the template: {error}")))
}

fn about(ticket: &Ticket) -> About<'_> {
    let Ticket {
        id,
        ip,
        failures,
        time,
        ban_time,
        ban_count,
        restored,
        matches,
        fields,
        of_address,
        of_jail,
    } = ticket;
    let (matches, matches_left_out) = newest(matches);
    let fields = fields.iter().take(MOST_FIELDS);
    About {
        id: shortened(id),
        ip: shortened(ip.as_ref().unwrap_or(id)),
        failures: *failures,
        time: *time,
        ban_time: *ban_time,
        ban_count: *ban_count,
        restored: *restored,
        matches,
        matches_left_out,
        fields: fields.map(|(name, value)| (name.as_str(), shortened(value))).collect(),
        of_address: of_address.as_ref().map(bounded),
        of_jail: of_jail.as_ref().map(bounded),
    }
}

/// The newest lines, shortened, and how many there were besides.
pub(super) fn newest(lines: &[String]) -> (Vec<Cow<'_, str>>, usize) {
    let left_out = lines.len().saturating_sub(MOST_LINES);
    (lines[left_out..].iter().map(|line| shortened(line)).collect(), left_out)
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.len() <= LONGEST_LINE {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("{}…", beginning(text, LONGEST_LINE))),
    }
}

/// So much of a text, in bytes, as whole characters.
pub(super) fn beginning(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whom a task is about: the address, or the text that was banned; empty where nobody is meant.
pub(super) fn whom(task: &Task) -> Cow<'_, str> {
    let ticket = task.ticket.as_deref();
    ticket.map_or(Cow::Borrowed(""), |ticket| shortened(ticket.ip.as_ref().unwrap_or(&ticket.id)))
}

/// How long a ban lasts, in words: `for 10m`, `for ever`.
pub(super) fn how_long(ticket: &Ticket) -> String {
    match u64::try_from(ticket.ban_time) {
        Ok(seconds) => format!("for {}", span_in_words(seconds)),
        Err(_) => "for ever".to_owned(),
    }
}

/// `1 failure`, `5 failures`.
pub(super) fn failures(ticket: &Ticket) -> String {
    match ticket.failures {
        1 => "1 failure".to_owned(),
        failures => format!("{failures} failures"),
    }
}

/// What happened, in one line: `[sshd] banned 203.0.113.9 for 10m after 5 failures on web`.
pub(super) fn sentence(task: &Task, host: &str) -> String {
    let (jail, whom) = (&task.jail, whom(task));
    let ticket = task.ticket.as_deref().cloned().unwrap_or_default();
    let what = match task.kind {
        Kind::Start => "started".to_owned(),
        Kind::Stop => "stopped".to_owned(),
        Kind::Ban => {
            format!("banned {whom} {} after {}", how_long(&ticket), failures(&ticket))
        }
        Kind::Prolong => format!("prolonged the ban of {whom}, {} now", how_long(&ticket)),
        Kind::Unban => format!("unbanned {whom}"),
        Kind::Reload | Kind::Flush | Kind::Reban | Kind::Check => "reloaded".to_owned(),
    };
    one_line(&format!("[{jail}] {what} on {host}"))
}

/// The text without anything that could move a cursor or begin a line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same that may hold lines.
pub(super) fn plain(text: &str) -> String {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.replace("\r\n", "\n").chars().map(|c| if is_odd(c) { '\u{fffd}' } else { c }).collect()
}
