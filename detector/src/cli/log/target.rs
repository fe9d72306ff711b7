//! `logtarget`, `syslogsocket`, `loglevel` and `flushlogs`: of the configuration at the start, and while the daemon runs.
use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Log,
    gather::{Threshold, install},
    line::{Level, Style},
    out::Out,
};
use crate::{
    app::{LogFill, Logging},
    config::{self, LogFormat, LogSettings, LogTarget},
};

/// Where syslog listens on Linux.
const SYSLOG: &str = "/dev/log";

/// The log and what decides of it.
pub(in crate::cli) struct Target {
    log: Log,
    threshold: Threshold,
    target: LogTarget,
    format: LogFormat,
    /// As `get logtarget` shows it.
    name: String,
    /// Where syslog listens; `None` for the system's place.
    syslog: Option<PathBuf>,
    /// Target and socket are those of the command line, which stand above a configuration.
    named: (bool, bool),
}

impl Target {
    /// From now on everything that is said goes to this log, which is written to standard error. `level` is one of
    /// fail2ban's, or a filter such as `fail2xdp::source=debug`.
    pub fn new(log: Log, level: &str) -> Target {
        let threshold = install(log.clone(), level);
        let (target, format) = (LogTarget::Stderr, LogFormat::default());
        let (name, named) = ("STDERR".to_owned(), (false, false));
        Target { log, threshold, target, format, name, syslog: None, named }
    }

    /// Writes where the command line says, if it does.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn name(&mut self, target: Option<&str>, socket: Option<&Path>) -> Result<(), String> {
        self.named = (target.is_some(), socket.is_some());
        self.syslog = socket.map(Path::to_owned);
        target.map_or(Ok(()), |target| self.set_target(target))
    }

    fn open(&self, target: &LogTarget, format: &LogFormat) -> Result<Out, String> {
        let (time, padding) = match target {
            LogTarget::Syslog { .. } => (false, false),
            LogTarget::SysOut => (false, true),
            _ => (true, true),
        };
        let style = Style::new(format, time, padding)?;
        let why = |error: io::Error| error.to_string();
        match target {
            LogTarget::Stdout | LogTarget::SysOut => Ok(Out::Stream(Box::new(io::stdout()), style)),
            LogTarget::Stderr => Ok(Out::Stream(Box::new(io::stderr()), style)),
            LogTarget::File(path) => Out::file(path, style).map_err(why),
            LogTarget::Journal => {
                Out::journal().map_err(|error| format!("there is no journald here ({error})"))
            }
            LogTarget::Syslog { facility } => {
                let path = self.syslog.as_deref().unwrap_or(Path::new(SYSLOG));
                let told = |error: io::Error| {
                    format!("no syslog server listens on `{}`: {error}", path.display())
                };
                Out::syslog(path, facility, style).map_err(told)
            }
        }
    }

    fn take(&mut self, target: LogTarget, format: LogFormat) -> Result<(), String> {
        let out = self.open(&target, &format)?;
        self.log.write_to(out);
        self.name = name_of(&target);
        (self.target, self.format) = (target, format);
        Ok(())
    }
}

fn name_of(target: &LogTarget) -> String {
    match target {
        LogTarget::Stdout => "STDOUT".to_owned(),
        LogTarget::Stderr => "STDERR".to_owned(),
        LogTarget::SysOut => "SYSOUT".to_owned(),
        LogTarget::Syslog { .. } => "SYSLOG".to_owned(),
        LogTarget::Journal => "SYSTEMD-JOURNAL".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

impl Logging for Target {
    fn set_level(&mut self, level: &str) -> Result<(), String> {
        let level = Level::of(level).ok_or_else(|| format!("Invalid log level '{level}'"))?;
        self.threshold.set(level)
    }

    fn target(&self) -> &str {
        &self.name
    }

    fn set_target(&mut self, target: &str) -> Result<(), String> {
        let (target, format) = config::log_target(target)?;
        self.take(target, format)
    }

    fn syslog_socket(&self) -> Option<&Path> {
        self.syslog.as_deref()
    }

    fn set_syslog_socket(&mut self, path: Option<PathBuf>) -> Result<(), String> {
        let before = std::mem::replace(&mut self.syslog, path);
        if !matches!(self.target, LogTarget::Syslog { .. }) {
            return Ok(());
        }
        let (target, format) = (self.target.clone(), self.format.clone());
        self.take(target, format).inspect_err(|_| self.syslog = before)
    }

    fn configure(&mut self, settings: &LogSettings) -> Result<(), String> {
        let (target_is_named, socket_is_named) = self.named;
        if !socket_is_named {
            self.syslog = settings.syslog_socket.as_ref().map(|socket| socket.value.clone());
        }
        if target_is_named {
            return Ok(());
        }
        let standard = || (LogTarget::Stderr, LogFormat::default());
        let (target, format) =
            settings.target.as_ref().map_or_else(standard, |target| target.value.clone());
        let told = format!("cannot log to `{}`", name_of(&target));
        self.take(target, format).map_err(|why| format!("{told}: {why}; it goes to {}", self.name))
    }

    fn flush(&mut self) -> bool {
        let is_file = matches!(self.target, LogTarget::File(_));
        if is_file {
            match self.open(&self.target, &self.format) {
                Ok(out) => self.log.write_to(out),
                Err(why) => tracing::error!("cannot open `{}` again: {why}", self.name),
            }
        }
        is_file
    }

    fn fill(&self) -> LogFill {
        self.log.fill()
    }
}
