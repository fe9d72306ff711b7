//! One jail's commands: its filter's, its own, its actions'.
use std::path::PathBuf;

use super::{
    super::{
        JailName,
        definition::Handed,
        filter::{FilterError, FilterFiles, OPTIONS as FILTER},
        handed::{Kind, OPTIONS as JAIL},
        jail::{Jail, Reader, Refused, is_true},
        journal, params,
        text::Text,
    },
    Command, Value, action, words,
};

/// What must be set before any regex.
const FIRST: [&str; 3] = ["usedns", "prefregex", "maxlines"];

/// The jail is left out; in fail2ban's words where it has some.
pub(super) struct Skipped(pub(super) String);

/// A jail being put into commands.
pub(super) struct Writer<'w, 'r, 'a> {
    pub(super) jail: &'w mut Jail<'r, 'a>,
    pub(super) filter: Option<FilterFiles>,
    pub(super) handed: Handed,
    pub(super) commands: Vec<Command>,
    /// What fail2ban notices only when it has read everything else.
    late: Option<Skipped>,
}

/// The commands of the jail that is named; `None` for one that is not enabled.
pub(super) fn commands(
    reader: &mut Reader<'_>,
    name: &JailName,
    paths: &dyn Fn(&str) -> Vec<PathBuf>,
) -> Result<Option<Vec<Command>>, Skipped> {
    reader.sound(name).map_err(|fault| Skipped(fault.to_string()))?;
    let Some(mut jail) = reader.jail(name) else { return Ok(None) };
    let handed = Handed::default();
    let mut writer =
        Writer { jail: &mut jail, filter: None, handed, commands: Vec::new(), late: None };
    if !writer.text("enabled")?.is_some_and(|text| is_true(text.as_str())) {
        return Ok(None);
    }
    let backend = writer.text("backend")?.unwrap_or_else(|| Text::new("auto", None));
    writer.command("add", backend.as_str().into());
    writer.commands[0] = words(["add", name.as_str(), backend.as_str()]);
    let journal = backend.as_str().starts_with("systemd");
    writer.filter = writer.filter_files(if journal { "journal" } else { "file" })?;
    let handed = writer.jail.hand_on(writer.filter.as_mut());
    writer.handed = handed.map_err(|Refused| writer.skipped())?;
    writer.filter_commands()?;
    writer.own_commands()?;
    if !journal {
        writer.log_paths(paths)?;
    }
    action::commands(&mut writer)?;
    match writer.late {
        Some(skipped) => Err(skipped),
        None => Ok(Some(writer.commands)),
    }
}

impl Writer<'_, '_, '_> {
    /// `set JAIL option value`.
    pub(super) fn command(&mut self, option: &str, value: Value) {
        let jail = self.jail.name.as_str().into();
        self.commands.push(vec!["set".into(), jail, option.into(), value]);
    }

    /// The jail's option, expanded.
    pub(super) fn text(&mut self, option: &str) -> Result<Option<Text>, Skipped> {
        let text = self.jail.text(option, self.filter.as_ref());
        text.map_err(|Refused| self.skipped())
    }

    /// The reason told last.
    pub(super) fn skipped(&self) -> Skipped {
        Skipped(self.jail.last_told())
    }

    fn filter_files(&mut self, logtype: &str) -> Result<Option<FilterFiles>, Skipped> {
        let text = self.text("filter")?.unwrap_or_default();
        if text.as_str().trim().is_empty() {
            return Ok(None);
        }
        let call = params::read(&text).map_err(|error| {
            let (call, error) = (Value::from(text.as_str()), error.as_fail2ban());
            Skipped(format!("Invalid filter definition {call}: {error}"))
        })?;
        let handed = self.jail.handed_first();
        let files = FilterFiles::read(self.jail.tree(), call, logtype, &handed);
        files.map(Some).map_err(|error| match error {
            FilterError::Missing { name } => {
                Skipped(format!("Unable to read the filter {}", Value::from(name.as_str())))
            }
            other => Skipped(other.to_string()),
        })
    }

    /// The filter's options, where the jail's do not take their place, after those of the jail that come first.
    fn filter_commands(&mut self) -> Result<(), Skipped> {
        for option in FIRST {
            if let Some(text) = self.text(option)? {
                self.filter_option(option, &text)?;
            }
        }
        let Some(filter) = self.filter.take() else { return Ok(()) };
        let of_filter = filter.reading().options();
        let mut options: Vec<_> =
            of_filter.filter(|(option, _)| FILTER.contains(&option.as_str())).collect();
        options.sort_by_key(|(option, _)| (*option != "usedns", !FIRST.contains(&option.as_str())));
        for (option, found) in options {
            match found {
                Ok(None) => {}
                Ok(Some(text)) => self.filter_option(option, text)?,
                Err(error) => {
                    self.jail.cannot_expand(option, error.clone());
                    return Err(self.skipped());
                }
            }
        }
        self.filter = Some(filter);
        Ok(())
    }

    /// The jail's own options.
    fn own_commands(&mut self) -> Result<(), Skipped> {
        for option in FILTER.into_iter().filter(|option| !FIRST.contains(option)) {
            if let Some(text) = self.text(option)? {
                self.filter_option(option, &text)?;
            }
        }
        for (option, kind) in JAIL {
            let Some(text) = self.text(option)? else { continue };
            match kind {
                Kind::Text => self.command(option, text.as_str().into()),
                Kind::Number => self.command(option, Value::number(text.as_str())),
                Kind::Truth => self.command(option, Value::Truth(is_true(text.as_str()))),
                Kind::Words => {
                    let jail = self.jail.name.clone();
                    let mut command = words(["set", jail.as_str(), "addignoreip"]);
                    // No other blanks separate them there.
                    let entries = text.as_str().split([' ', ',', '\n']).map(str::trim);
                    command.extend(entries.filter(|entry| !entry.is_empty()).map(Value::from));
                    self.commands.push(command);
                }
            }
        }
        Ok(())
    }

    fn filter_option(&mut self, option: &str, text: &Text) -> Result<(), Skipped> {
        match option {
            "failregex" | "ignoreregex" => {
                let lines: Vec<Value> = text
                    .as_str()
                    .split('\n')
                    .filter(|line| !line.is_empty())
                    .map(Value::from)
                    .collect();
                let add = format!("add{option}");
                match <[Value; 1]>::try_from(lines) {
                    Ok([line]) => self.command(&add, line),
                    Err(lines) if lines.is_empty() => {}
                    Err(lines) => {
                        self.command(&add, Value::List(lines));
                        if let Some([set, ..]) = self.commands.last_mut().map(Vec::as_mut_slice) {
                            *set = "multi-set".into();
                        }
                    }
                }
            }
            "maxlines" => match Value::number(text.as_str()) {
                Value::Nothing => {}
                number => self.command(option, number),
            },
            "journalmatch" => {
                // A line of blanks, which a substitution may leave, is a match of no words.
                for line in text.as_str().split('\n').filter(|line| !line.is_empty()) {
                    let terms = match journal::shell_words(line) {
                        Ok(terms) => terms,
                        Err(error) => {
                            self.late = Some(Skipped(error.to_string()));
                            continue;
                        }
                    };
                    let jail = self.jail.name.clone();
                    let mut command = words(["set", jail.as_str(), "addjournalmatch"]);
                    command.extend(terms.iter().map(|term| Value::from(term.as_str())));
                    self.commands.push(command);
                }
            }
            _ => self.command(option, text.as_str().into()),
        }
        Ok(())
    }

    fn log_paths(&mut self, paths: &dyn Fn(&str) -> Vec<PathBuf>) -> Result<(), Skipped> {
        let lines = self.text("logpath")?.map(|text| text.lines()).unwrap_or_default();
        for line in lines {
            let (path, end) = match line.value.rsplit_once(' ') {
                Some((path, end)) => (path.trim_end(), end),
                None => (line.value.as_str(), "head"),
            };
            for file in paths(path) {
                let (jail, file) = (self.jail.name.clone(), file.display().to_string());
                self.commands.push(words(["set", jail.as_str(), "addlogpath", &file, end]));
            }
        }
        Ok(())
    }
}
