//! From an event of `tracing` to a line of the log.
use std::{
    borrow::Cow,
    fmt::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tracing::{
    Event, Level as Loudness, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, layer::Context, prelude::*, registry::Registry, reload,
};

use super::{
    Log,
    line::{Level, Line, plain},
};
use crate::clock;

/// Makes lines of events.
struct Gather {
    log: Log,
    threshold: Arc<AtomicU8>,
}

/// Which lines are written, changed while the daemon runs.
pub(super) struct Threshold {
    level: Arc<AtomicU8>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Threshold {
    /// Lines of this level and louder.
    ///
    /// # Errors
    /// Words of the library that filters.
    pub fn set(&self, level: Level) -> Result<(), String> {
        let filter = EnvFilter::new(match level.0 {
            // `tracing` has no words between these; the rest is decided by the number.
            31.. => "error",
            26.. => "warn",
            11.. => "info",
            8.. => "debug",
            _ => "trace",
        });
        self.filter.reload(filter).map_err(|error| error.to_string())?;
        self.level.store(level.0, Ordering::Relaxed);
        Ok(())
    }
}

/// From now on everything that is said goes to `log`. `words` is one of fail2ban's levels, or a filter such as
/// `fail2xdp::source=debug`.
pub(super) fn install(log: Log, words: &str) -> Threshold {
    let known = Level::of(&words.to_ascii_uppercase());
    let filter = EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
        .parse_lossy(if known.is_some() { "" } else { words });
    let (filter, handle) = reload::Layer::new(filter);
    let threshold = Threshold { level: Arc::new(AtomicU8::new(0)), filter: handle };
    let gather = Gather { log, threshold: Arc::clone(&threshold.level) };
    tracing_subscriber::registry().with(filter).with(gather).init();
    if let Some(level) = known {
        // The registry lives as long as the process.
        let _ = threshold.set(level);
    }
    threshold
}

impl<S: Subscriber> Layer<S> for Gather {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said { keeps_fields: self.log.wants_fields(), ..Said::default() };
        event.record(&mut said);
        let level = match *event.metadata().level() {
            Loudness::ERROR => Level::ERROR,
            Loudness::WARN => Level::WARNING,
            Loudness::INFO if said.is_notice => Level::NOTICE,
            Loudness::INFO => Level::INFO,
            Loudness::DEBUG => Level::DEBUG,
            Loudness::TRACE => Level::TRACE,
        };
        if level.0 < self.threshold.load(Ordering::Relaxed) {
            return;
        }
        let target = event.metadata().target();
        let text = match plain(&said.text) {
            Cow::Borrowed(_) => said.text,
            Cow::Owned(escaped) => escaped,
        };
        let (at, logger, fields) = (clock::now(), logger(target), said.fields);
        self.log.say(Line { at, level, logger, text, fields });
    }
}

/// `fail2ban.actions` as it stands, of a module its room: `fail2xdp.source`.
fn logger(target: &'static str) -> Cow<'static, str> {
    let mut parts = target.split("::");
    match (parts.next(), parts.next()) {
        (Some(program), Some(room)) => Cow::Owned(format!("{program}.{room}")),
        _ => Cow::Borrowed(target),
    }
}

/// What an event consists of.
#[derive(Default)]
struct Said {
    text: String,
    is_notice: bool,
    /// Somebody wants single words; what is not ours has them in its text.
    keeps_fields: bool,
    fields: Vec<(&'static str, String)>,
}

impl Said {
    fn keep(&mut self, name: &'static str, value: impl fmt::Display) {
        if self.keeps_fields {
            self.fields.push((name, value.to_string()));
        }
    }
}

impl Visit for Said {
    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "notice" => self.is_notice = value,
            name => self.keep(name, value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text.push_str(value),
            name => self.keep(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // A string takes everything.
            "message" => drop(write!(self.text, "{value:?}")),
            name => self.keep(name, format_args!("{value:?}")),
        }
    }
}
