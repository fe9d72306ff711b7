//! The log, as the daemon sees it: where it goes, how full its queue is, whether it can be written.
use std::path::{Path, PathBuf};

use super::Daemon;
use crate::config::LogSettings;

/// What waits to be written to the log.
#[derive(Clone, Debug, Default)]
pub struct LogFill {
    /// Bytes.
    pub waiting: usize,
    /// At most so many.
    pub most: usize,
    /// Lines that found no room or could not be written, since the start.
    pub lost: u64,
    /// Why nothing can be written now.
    pub fault: Option<String>,
}

/// Where log lines go, as far as it can be changed while the daemon runs.
pub trait Logging: Send {
    /// Which lines are written from now on: one of fail2ban's levels, or its number.
    ///
    /// # Errors
    /// When there is no such level; nothing is changed.
    fn set_level(&mut self, level: &str) -> Result<(), String>;

    /// `STDERR`, `SYSLOG` … or a file.
    fn target(&self) -> &str;

    /// Writes elsewhere from now on: a `logtarget`, as a configuration has it.
    ///
    /// # Errors
    /// When nothing can be written there; nothing is changed.
    fn set_target(&mut self, target: &str) -> Result<(), String>;

    /// Where syslog listens; `None` for the system's place.
    fn syslog_socket(&self) -> Option<&Path>;

    /// Writes to the syslog server there, now if that is the target.
    ///
    /// # Errors
    /// When nobody listens there; nothing is changed.
    fn set_syslog_socket(&mut self, path: Option<PathBuf>) -> Result<(), String>;

    /// Writes where a configuration says.
    ///
    /// # Errors
    /// When nothing can be written there; the log goes on where it was.
    fn configure(&mut self, settings: &LogSettings) -> Result<(), String>;

    /// A file is opened anew; answers whether it is one.
    fn flush(&mut self) -> bool;

    /// What waits to be written.
    fn fill(&self) -> LogFill;
}

impl Daemon {
    /// Raises an alarm where the log cannot be written: who reads it alone would take it for peace.
    pub(super) fn look_at_log(&mut self) {
        let fault = self.log.fill().fault;
        if self.log_failed != fault.is_some() {
            self.log_failed = fault.is_some();
            match fault {
                Some(why) => self.tell_event("alarm", &format!("the log cannot be written: {why}")),
                None => self.tell_event("over", "the log can be written again"),
            }
        }
    }
}
