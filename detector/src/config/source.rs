//! Where a jail's lines come from: `backend`, `logpath`, `logencoding`, `journalmatch`.
use encoding_rs::Encoding;

use super::{
    JournalSettings, Located, LogPath, Severity, SourceSettings,
    filter::FilterFiles,
    jail::{Jail, Refused, is_true},
    journal, params,
    text::Text,
};

/// `backend`.
pub(super) enum Backend {
    /// What there is.
    Auto,
    /// Log files; how they are watched is our business.
    Files,
    /// The journal that is named.
    Systemd(JournalSettings),
}

impl Backend {
    /// What filters call the lines of it.
    pub(super) fn logtype(&self) -> &'static str {
        match self {
            Backend::Auto | Backend::Files => "file",
            Backend::Systemd(_) => "journal",
        }
    }
}

/// What every encoding is tried as when none is named.
const AUTO: &str = "auto";

/// The name in the WHATWG Encoding Standard of what `logencoding` names, or `auto`.
pub fn encoding(text: &str) -> Option<String> {
    let label = text.trim().to_ascii_lowercase();
    if label == AUTO {
        return Some(label);
    }
    // Python knows many spellings, as `latin-1` or `utf_8`; the standard's labels have one each.
    let compact = label.replace(['-', '_'], "");
    let known =
        Encoding::for_label(label.as_bytes()).or_else(|| Encoding::for_label(compact.as_bytes()));
    let dashed = || Encoding::for_label(label.replace('_', "-").as_bytes());
    known.or_else(dashed).map(|encoding| encoding.name().to_owned())
}

impl Jail<'_, '_> {
    pub(super) fn backend(&mut self) -> Result<Backend, Refused> {
        let Some(text) =
            self.text("backend", None)?.filter(|text| !text.as_str().trim().is_empty())
        else {
            return Ok(Backend::Auto);
        };
        let call = match params::read(&text) {
            Ok(call) => call,
            Err(error) => {
                return Err(self.refuse(
                    text.place(),
                    format!("`backend`: {error}"),
                    error.remedy(),
                ));
            }
        };
        match call.name.to_ascii_lowercase().as_str() {
            "auto" => Ok(Backend::Auto),
            "pyinotify" | "polling" | "gamin" => Ok(Backend::Files),
            "systemd" => match journal::backend(&call) {
                Ok(settings) => Ok(Backend::Systemd(settings)),
                Err(error) => {
                    Err(self.refuse(text.place(), format!("`backend`: {error}"), error.remedy()))
                }
            },
            other => {
                let what = format!("`backend = {other}` is not known");
                Err(self.refuse(
                    text.place(),
                    what,
                    "write `auto`, `systemd`, `polling` or `pyinotify`",
                ))
            }
        }
    }

    pub(super) fn source(
        &mut self,
        backend: Backend,
        journalmatch: Option<Text>,
        filter: Option<&FilterFiles>,
    ) -> Result<SourceSettings, Refused> {
        let paths = self.log_paths(filter)?;
        let encoding = self.encoding(filter)?;
        let matches = match journalmatch.as_ref().map(journal::matches).transpose() {
            Ok(matches) => matches.unwrap_or_default(),
            Err(error) => {
                let place = journalmatch.and_then(|text| text.outermost(0..text.len()));
                return Err(self.refuse(place, format!("`journalmatch`: {error}"), error.remedy()));
            }
        };
        let journal = match backend {
            Backend::Systemd(settings) => {
                if matches.is_empty() {
                    let place = self.place_of("backend");
                    let what = "`journalmatch` is empty: every entry of the journal is examined"
                        .to_owned();
                    self.tell(
                        Severity::Warning,
                        place,
                        what,
                        "name the unit, as in `_SYSTEMD_UNIT=ssh.service`",
                    );
                }
                return Ok(SourceSettings::Journal(JournalSettings { matches, ..settings }));
            }
            Backend::Files => None,
            Backend::Auto if matches.is_empty() => None,
            Backend::Auto => {
                let wanted = self
                    .text("systemd_if_nologs", filter)?
                    .is_none_or(|text| is_true(text.as_str()));
                Some(JournalSettings { matches, ..JournalSettings::default() }).filter(|_| wanted)
            }
        };
        match (paths.is_empty(), journal) {
            (false, None) => Ok(SourceSettings::Files { paths, encoding }),
            (false, Some(journal)) => Ok(SourceSettings::Auto { paths, encoding, journal }),
            // fail2ban reads nothing where only a filter knows of the journal; a jail of ours reads it.
            (true, Some(journal)) if !self.is_fail2ban_tree() || self.sets("journalmatch") => {
                Ok(SourceSettings::Journal(journal))
            }
            (true, _) => {
                if filter.is_some() {
                    let place = self.place();
                    let what =
                        "neither `logpath` nor a journal is set: only bans by hand are possible"
                            .to_owned();
                    let remedy = "set `logpath`, or `backend = systemd` and `journalmatch`";
                    self.tell(Severity::Warning, place, what, remedy);
                }
                Ok(SourceSettings::Nothing)
            }
        }
    }

    fn log_paths(&mut self, filter: Option<&FilterFiles>) -> Result<Vec<LogPath>, Refused> {
        let lines = self.text("logpath", filter)?.map(|text| text.lines()).unwrap_or_default();
        let mut paths = Vec::new();
        for Located { value: line, place } in lines {
            let (path, mode) = line
                .rsplit_once(' ')
                .map_or((line.as_str(), None), |(path, mode)| (path.trim_end(), Some(mode)));
            let entry = |pattern: &str, tail| LogPath {
                pattern: pattern.to_owned(),
                tail,
                place: place.clone(),
            };
            if !line.starts_with('/') {
                let what = format!("`logpath`: `{line}` is no absolute path");
                let remedy = "begin it with `/`; it is looked for where the daemon was started";
                self.tell(Severity::Warning, place.clone(), what, remedy);
            }
            match mode {
                None | Some("head") => paths.push(entry(path, false)),
                Some("tail") => paths.push(entry(path, true)),
                Some(other) if other.starts_with('/') => {
                    paths.extend(line.split_whitespace().map(|path| entry(path, false)));
                    let what = "`logpath` holds several paths in one line".to_owned();
                    self.tell(
                        Severity::Warning,
                        place.clone(),
                        what,
                        "write each on a line of its own, for fail2ban's sake",
                    );
                }
                Some(_) => {
                    paths.push(entry(&line, false));
                    let what = format!("`logpath` holds a blank: `{line}` is taken as one path");
                    self.tell(Severity::Warning, place.clone(), what, "add ` head` behind it");
                }
            }
        }
        Ok(paths)
    }

    fn encoding(&mut self, filter: Option<&FilterFiles>) -> Result<String, Refused> {
        let Some(text) =
            self.text("logencoding", filter)?.filter(|text| !text.as_str().trim().is_empty())
        else {
            return Ok(AUTO.to_owned());
        };
        match encoding(text.as_str()) {
            Some(name) => Ok(name),
            None => {
                let label = text.as_str().trim().to_ascii_lowercase();
                let what = format!("`logencoding = {label}` is not known; `auto` is used");
                self.tell(
                    Severity::Error,
                    text.place(),
                    what,
                    "write a codec's name, as in `utf-8` or `latin1`",
                );
                Ok(AUTO.to_owned())
            }
        }
    }
}
