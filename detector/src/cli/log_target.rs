//! `set logtarget`, `set loglevel` and `flushlogs`, on the log of the running daemon.
use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

use tracing_subscriber::EnvFilter;

use super::log::Log;
use crate::app::Logging;

/// Takes another filter into use.
pub(super) type Refilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send>;

/// The log and what decides of it.
pub(super) struct Target {
    log: Log,
    name: String,
    refilter: Refilter,
}

impl Target {
    /// A log that is written to standard error.
    pub fn new(log: Log, refilter: Refilter) -> Target {
        Target { log, name: "STDERR".to_owned(), refilter }
    }
}

/// What of the log is written at fail2ban's level; `None` where there is no such level. A number is one of its own: 50
/// is CRITICAL, 10 DEBUG.
pub(super) fn filter(level: &str) -> Option<EnvFilter> {
    let level = match level {
        "CRITICAL" | "ERROR" => "error",
        "WARNING" => "warn",
        "NOTICE" | "INFO" | "MSG" => "info",
        "DEBUG" => "debug",
        "TRACEDEBUG" | "HEAVYDEBUG" => "trace",
        number => match number.parse::<u32>().ok()? {
            40.. => "error",
            30..=39 => "warn",
            18..=29 => "info",
            10..=17 => "debug",
            0..=9 => "trace",
        },
    };
    Some(EnvFilter::new(level))
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Logging for Target {
    fn set_level(&mut self, level: &str) -> Result<(), String> {
        let filter = filter(level).ok_or_else(|| format!("Invalid log level '{level}'"))?;
        (self.refilter)(filter)
    }

    fn target(&self) -> &str {
        &self.name
    }

    fn set_target(&mut self, target: &str) -> Result<(), String> {
        // Options in brackets say how a line looks; ours looks the same everywhere.
        let name = target.split('[').next().unwrap_or_default().trim();
        match name.to_uppercase().as_str() {
            "STDERR" => self.log.write_to(Box::new(io::stderr())),
            "STDOUT" | "SYSOUT" => self.log.write_to(Box::new(io::stdout())),
            "SYSLOG" | "SYSTEMD-JOURNAL" => {
                return Err("this version writes to a file, STDOUT or STDERR".to_owned());
            }
            _ if !Path::new(name).is_absolute() => {
                return Err("a file is named by its whole path".to_owned());
            }
            _ => {
                let file = open(name).map_err(|error| error.to_string())?;
                self.log.write_to(Box::new(file));
            }
        }
        self.name = name.to_owned();
        Ok(())
    }

    fn flush(&mut self) -> bool {
        if !Path::new(&self.name).is_absolute() {
            return false;
        }
        match open(&self.name) {
            Ok(file) => self.log.write_to(Box::new(file)),
            Err(error) => tracing::error!("cannot open `{}` again: {error}", self.name),
        }
        true
    }
}
