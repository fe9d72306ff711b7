//! `logtarget`: where log lines go, as fail2ban writes it.
use std::path::PathBuf;

use super::{
    LogFormat, LogTarget,
    params::{self, ParamError},
    text::Text,
};

/// Facilities of syslog(3) that its servers agree on.
const FACILITIES: [&str; 20] = [
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "local0", "local1", "local2", "local3",
    "local4", "local5", "local6", "local7", "lpr", "mail", "news", "syslog", "user", "uucp",
];
/// fail2ban's facility.
const FACILITY: &str = "daemon";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogTargetError {
    #[error(transparent)]
    Call(#[from] ParamError),
    #[error("`{0}` is no option of it")]
    Option(String),
    #[error("`{option} = {value}` means neither on nor off")]
    Switch { option: String, value: String },
    #[error("`{0}` is no facility of syslog")]
    Facility(String),
    #[error("`{0}` is neither an absolute path nor one of the known words")]
    NoPath(String),
}

impl LogTargetError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            LogTargetError::Call(error) => error.remedy(),
            LogTargetError::Option(_) => "use `datetime`, `padding`, `format` or `facility`",
            LogTargetError::Switch { .. } => "write `on` or `off`",
            LogTargetError::Facility(_) => "write one such as `daemon`, `auth` or `local0`",
            LogTargetError::NoPath(_) => {
                "write a file's whole path, `STDOUT`, `STDERR`, `SYSOUT`, `SYSLOG` or `SYSTEMD-JOURNAL`"
            }
        }
    }
}

/// Reads `STDERR`, `SYSLOG[facility=mail]`, `/var/log/x.log[padding=off]` …
pub(super) fn target(text: &Text) -> Result<(LogTarget, LogFormat), LogTargetError> {
    let call = params::read(text)?;
    let (mut format, mut facility) = (LogFormat::default(), FACILITY.to_owned());
    for (option, value) in &call.params {
        let value = value.as_str();
        match option.as_str() {
            "datetime" => format.time = Some(switch(option, value)?),
            "padding" => format.padding = Some(switch(option, value)?),
            "format" => format.format = Some(value.to_owned()),
            "facility" => facility = value.to_ascii_lowercase(),
            _ => return Err(LogTargetError::Option(option.clone())),
        }
    }
    if !FACILITIES.contains(&facility.as_str()) {
        return Err(LogTargetError::Facility(facility));
    }
    let target = match call.name.to_ascii_uppercase().as_str() {
        "STDOUT" => LogTarget::Stdout,
        "STDERR" => LogTarget::Stderr,
        "SYSOUT" => LogTarget::SysOut,
        "SYSLOG" => LogTarget::Syslog { facility },
        "SYSTEMD-JOURNAL" => LogTarget::Journal,
        _ if call.name.starts_with('/') => LogTarget::File(PathBuf::from(&call.name)),
        _ => return Err(LogTargetError::NoPath(call.name)),
    };
    Ok((target, format))
}

/// Reads a `logtarget` that stands in no file.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn log_target(written: &str) -> Result<(LogTarget, LogFormat), String> {
    target(&Text::new(written, None)).map_err(|error| format!("{error}; {}", error.remedy()))
}

fn switch(option: &str, value: &str) -> Result<bool, LogTargetError> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Ok(true),
        "off" | "no" | "false" | "0" => Ok(false),
        _ => Err(LogTargetError::Switch { option: option.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &str) -> Result<(LogTarget, LogFormat), LogTargetError> {
        target(&Text::new(written, None))
    }

    #[test]
    fn targets_are_words_in_any_case_or_files() {
        let plain = |written: &str| read(written).map(|(target, _)| target);
        assert_eq!(plain("stdout"), Ok(LogTarget::Stdout));
        assert_eq!(plain("STDERR"), Ok(LogTarget::Stderr));
        assert_eq!(plain("SysOut"), Ok(LogTarget::SysOut));
        assert_eq!(plain("systemd-journal"), Ok(LogTarget::Journal));
        assert_eq!(plain("SYSLOG"), Ok(LogTarget::Syslog { facility: "daemon".to_owned() }));
        assert_eq!(
            plain("SYSLOG[facility=Mail]"),
            Ok(LogTarget::Syslog { facility: "mail".to_owned() })
        );
        assert_eq!(plain("/var/log/x.log"), Ok(LogTarget::File("/var/log/x.log".into())));
    }

    #[test]
    fn options_stand_in_brackets() {
        let (target, format) =
            read("/x.log[datetime=off, padding=on, format=\"%%(message)s\"]").expect("a target");
        assert_eq!(target, LogTarget::File("/x.log".into()));
        assert_eq!(
            (format.time, format.padding, format.format.as_deref()),
            (Some(false), Some(true), Some("%%(message)s"))
        );
        for wrong in ["log", "SYSLOG[facility=me]", "STDOUT[datetime=maybe]", "STDOUT[x=1]", "/x["]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
