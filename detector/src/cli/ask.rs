//! One request to the daemon, from a command that has no runtime of its own.
use hyper::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Place;
use crate::control::client::{CallError, call};

/// What was answered: as it came, for `--json`, and read.
pub(super) struct Answer<T> {
    pub json: Value,
    pub read: T,
}

/// Asks with GET.
pub(super) fn get<T: DeserializeOwned>(place: &Place, path: &str) -> anyhow::Result<Answer<T>> {
    ask(place, Method::GET, path, &())
}

/// Asks with POST.
pub(super) fn post<T: DeserializeOwned>(
    place: &Place,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<Answer<T>> {
    ask(place, Method::POST, path, body)
}

fn ask<T: DeserializeOwned>(
    place: &Place,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<Answer<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let json = runtime.block_on(call(&place.socket, method, path, body))?;
    let read = T::deserialize(&json).map_err(|error| CallError::Broken(error.to_string()))?;
    Ok(Answer { json, read })
}

/// Prints an answer: as JSON where asked for, else as `text` says it.
pub(super) fn print<T>(place: &Place, answer: &Answer<T>, text: impl FnOnce(&T) -> String) {
    use std::io::Write;
    let shown = if place.json { answer.json.to_string() } else { text(&answer.read) };
    // Who reads through `head` closes early; that is no fault.
    let _ = writeln!(std::io::stdout(), "{}", shown.trim_end());
}
