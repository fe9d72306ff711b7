//! Templates of what is sent: <https://docs.rs/minijinja> says what they may hold.
use std::io::{self, Write};

use minijinja::{
    Environment, Error, ErrorKind, Output, UndefinedBehavior, Value,
    value::{Serde, ValueKind},
};
use serde::Serialize;

/// Longest text that a template makes, in bytes.
pub const LONGEST_TEXT: usize = 1 << 20;

/// A template, and what its values are made safe for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// As written.
    pub text: String,
    /// What it makes.
    pub escape: Escape,
}

/// What a value is made safe for. An attacker chooses some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Plain text.
    Nothing,
    /// The inside of a string of JSON; lists and objects become JSON whole.
    Json,
    /// A form (`application/x-www-form-urlencoded`).
    Form,
    /// Slack's markup.
    Slack,
}

impl Escape {
    /// A text made safe.
    pub fn apply(self, text: &str) -> String {
        match self {
            Escape::Nothing => text.to_owned(),
            Escape::Json => {
                let quoted = serde_json::Value::from(text).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Escape::Form => form(text),
            Escape::Slack => slack(text),
        }
    }
}

impl Template {
    /// What is wrong with it; `None`: it can be read.
    pub fn fault(&self) -> Option<String> {
        environment(self.escape).template_from_str(&self.text).err().map(|error| error.to_string())
    }

    /// The text that it makes of these values.
    ///
    /// # Errors
    /// What is wrong with it, or that it makes more than [`LONGEST_TEXT`].
    pub fn render(&self, values: impl Serialize) -> Result<String, String> {
        let environment = environment(self.escape);
        let template =
            environment.template_from_str(&self.text).map_err(|error| error.to_string())?;
        let mut text = Bounded(Vec::new());
        template
            .render_captured_to(Value::from(Serde(values)), &mut text)
            .map_err(|error| error.to_string())?;
        String::from_utf8(text.0).map_err(|error| error.to_string())
    }
}

/// Where no more than [`LONGEST_TEXT`] fits.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_TEXT {
            return Err(io::Error::other("it makes more than 1 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment(escape: Escape) -> Environment<'static> {
    let mut environment = Environment::new();
    // A slip in a name is told and not sent as nothing.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_formatter(move |out, _, value| put(out, value, escape));
    environment
}

fn put(out: &mut Output<'_>, value: &Value, escape: Escape) -> Result<(), Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let text = match value.kind() {
        _ if value.is_safe() => value.to_string(),
        ValueKind::String => escape.apply(&value.to_string()),
        _ if escape == Escape::Json => json(value)?,
        _ => escape.apply(&value.to_string()),
    };
    out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
}

fn json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// A value of a form, <https://url.spec.whatwg.org/#application/x-www-form-urlencoded>.
fn form(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'*' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The three characters that mean something in its markup,
/// <https://docs.slack.dev/messaging/formatting-message-text>; nobody can be called by `<!channel>` then.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
