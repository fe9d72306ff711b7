//! A jail's filter: the files, the jail's parameters, and the jail's own options that replace the filter's.
use std::collections::BTreeSet;

use super::{
    FilterSettings, Located, Severity, Tree, UseDns,
    definition::{Definition, Handed, Reading},
    expand::{ExpandError, Lookup},
    gone,
    jail::{Jail, Refused},
    layers::{Fault, Layers},
    options,
    params::{self, Call},
    text::Text,
};

/// What of a filter means something, in the order in which fail2ban's server is told.
pub(super) const OPTIONS: [&str; 7] =
    ["usedns", "prefregex", "maxlines", "ignoreregex", "failregex", "datepattern", "journalmatch"];

/// Patterns of one option, and bytes of each: every line of a log is tried against all of them.
const MOST_REGEXES: usize = 2_000;
const LONGEST_REGEX: usize = 256 << 10;

/// Bound of `maxlines`: so many lines are matched again with each new one.
const MOST_LINES: u32 = 1_000;

/// A filter's files with the parameters of one jail.
pub(super) struct FilterFiles {
    pub(super) name: String,
    pub(super) definition: Definition,
    first: Reading,
    /// `None` until the jail's options are known.
    second: Option<Reading>,
}

/// A filter that keeps its jail from running.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("there is no filter `{name}`")]
    Missing { name: String },
    #[error("filter `{name}`: {}", fault.kind)]
    Fault { name: String, fault: Box<Fault> },
    #[error("filter `{name}` has no section `[Definition]`")]
    NoDefinition { name: String },
}

impl FilterError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> String {
        match self {
            FilterError::Missing { name } => match gone::replacement(name) {
                Some(now) => format!("its work is done by `{now}` now: write `filter = {now}`"),
                None => format!("write `filter.d/{name}.conf`, or correct `filter`"),
            },
            FilterError::Fault { fault, .. } => fault.kind.remedy().to_owned(),
            FilterError::NoDefinition { .. } => "write the section's name exactly so".to_owned(),
        }
    }
}

impl FilterFiles {
    /// Reads the files that `call` names, in sight of what is known of the jail. `logtype` tells the filter what its
    /// lines look like.
    pub(super) fn read(
        tree: &dyn Tree,
        call: Call,
        logtype: &str,
        jail: &Handed,
    ) -> Result<FilterFiles, FilterError> {
        let Call { name, mut params } = call;
        let mut layers = Layers::read_in(tree, "filter.d", &name);
        if !layers.faults.is_empty() {
            return Err(FilterError::Fault { name, fault: Box::new(layers.faults.swap_remove(0)) });
        }
        if !layers.found() {
            return Err(FilterError::Missing { name });
        }
        if layers.section("Definition").is_none() {
            return Err(FilterError::NoDefinition { name });
        }
        let unset = params.get("logtype").is_none_or(|text| text.as_str().is_empty());
        if unset && layers.own("Definition", "logtype").is_none() {
            params.insert("logtype".to_owned(), Text::new(logtype, None));
        }
        let definition = Definition { layers, params, wanted: &OPTIONS, kept: &[] };
        let first = definition.read_all(jail);
        Ok(FilterFiles { name, definition, first, second: None })
    }

    /// Reads the files once more, in sight of all options of the jail.
    pub(super) fn read_again(&mut self, jail: &Handed) {
        self.second = Some(self.definition.read_again(&self.first, jail));
    }

    /// The filter as it is used.
    pub(super) fn reading(&self) -> &Reading {
        self.second.as_ref().unwrap_or(&self.first)
    }

    /// What the jail calls `known/…`: the filter's options as first read.
    pub(super) fn known(&self, option: &str) -> Lookup {
        self.first.get(option)
    }

    /// The option as the jail uses it: the jail's own replaces the filter's `[Definition]`. What comes from
    /// `[Init]` or a parameter stays: fail2ban sends both to its server, where lists add up, and of single values
    /// the filter's comes last, but for `datepattern`.
    pub(super) fn overridden(
        &self,
        option: &str,
        jail: Option<Text>,
    ) -> Result<Option<Text>, ExpandError> {
        let (jail, given) = match (jail, self.reading().get(option)?) {
            (Some(jail), Some(given)) => (jail, given),
            (jail, given) => return Ok(jail.or(given)),
        };
        match option {
            "journalmatch" | "failregex" | "ignoreregex" => {
                let mut both = given;
                if !both.as_str().is_empty() && !jail.as_str().is_empty() {
                    both.push_empty_line();
                }
                both.push(&jail, 0..jail.len(), 0);
                Ok(Some(both))
            }
            "maxlines" | "usedns" | "prefregex" => Ok(Some(given)),
            _ => Ok(Some(jail)),
        }
    }
}

impl Jail<'_, '_> {
    /// Reads the files of the filter that `filter` names.
    pub(super) fn filter_files(&mut self, logtype: &str) -> Result<Option<FilterFiles>, Refused> {
        let text = self.text("filter", None)?.unwrap_or_default();
        if text.as_str().trim().is_empty() {
            let what = "no `filter` is set: only bans by hand are possible".to_owned();
            self.tell(
                Severity::Warning,
                text.place().or_else(|| self.place()),
                what,
                "set `filter` to the name of a file in `filter.d`",
            );
            return Ok(None);
        }
        let place = text.outermost(0..text.len());
        let call = match params::read(&text) {
            Ok(call) => call,
            Err(error) => {
                return Err(self.refuse(place, format!("`filter`: {error}"), error.remedy()));
            }
        };
        let handed = self.handed_first();
        match FilterFiles::read(self.tree(), call, logtype, &handed) {
            Ok(files) => Ok(Some(files)),
            Err(error) => {
                let at = match &error {
                    FilterError::Fault { fault, .. } => fault.place.clone(),
                    _ => place.or_else(|| self.place()),
                };
                Err(self.refuse(at, &error, &error.remedy()))
            }
        }
    }

    /// Tells what nobody uses of some files, and what keeps fail2ban from starting all the same.
    pub(super) fn tell_unused<'f>(
        &mut self,
        files: &str,
        faulty: impl Iterator<Item = (&'f str, &'f ExpandError)>,
        is_used: impl Fn(&str) -> bool,
    ) {
        let mut told = BTreeSet::new();
        for (option, error) in faulty.take(options::MOST_LOOKED_AT) {
            if !is_used(option) && told.insert(option) {
                let what = format!(
                    "`{option}` of {files} cannot be expanded: {error}; fail2ban would not start"
                );
                self.tell(Severity::Warning, error.place.clone(), what, error.remedy());
            }
        }
    }

    /// Tells slips in the filter's files, and parameters that it does not know.
    pub(super) fn look_into(&mut self, files: &FilterFiles) {
        let definition = &files.definition;
        let faulty = files.first.faulty().chain(files.reading().faulty());
        // What is used is told when it is.
        let is_used =
            |option: &str| OPTIONS.contains(&option) && files.reading().get(option).is_err();
        self.tell_unused(&format!("filter `{}`", files.name), faulty, is_used);
        let used = options::used(&definition.layers);
        for section in definition.layers.sections() {
            for (name, text) in section.options.iter().take(options::MOST_LOOKED_AT) {
                let Some(meant) = options::meant(name, &OPTIONS).filter(|_| !used.contains(name))
                else {
                    continue;
                };
                let what = format!(
                    "option `{name}` of filter `{}` is not known and used by no other",
                    files.name
                );
                let remedy = format!("did you mean `{meant}`?");
                self.tell(Severity::Warning, text.place(), what, &remedy);
            }
        }
        // `mode=normal` of `[DEFAULT]` reaches every filter, also those that have no modes.
        if !self.sets_itself("filter") {
            return;
        }
        for (name, text) in &definition.params {
            let known = used.contains(&name.to_lowercase())
                || OPTIONS.contains(&name.as_str())
                || definition
                    .layers
                    .sections()
                    .iter()
                    .any(|section| section.options.contains(name));
            if !known && !matches!(name.as_str(), "logtype" | "mode") {
                let what = format!("filter `{}` makes no use of `{name}`", files.name);
                self.tell(
                    Severity::Warning,
                    text.place(),
                    what,
                    "correct the parameter's name, or remove it",
                );
            }
        }
    }

    /// What the jail looks for.
    pub(super) fn filter(
        &mut self,
        files: Option<&FilterFiles>,
    ) -> Result<FilterSettings, Refused> {
        let failregex = self.regexes("failregex", files)?;
        let ignoreregex = self.regexes("ignoreregex", files)?;
        let date_patterns =
            self.overridden("datepattern", files)?.map(|text| text.lines()).unwrap_or_default();
        let prefregex =
            self.overridden("prefregex", files)?.filter(|text| !text.as_str().trim().is_empty());
        let max_lines = self.overridden("maxlines", files)?;
        let max_lines = self.number_of("maxlines", max_lines, 1, 1..=MOST_LINES);
        if let Some(files) = files
            && failregex.is_empty()
        {
            let what = format!("filter `{}` has no `failregex`: nothing is looked for", files.name);
            self.tell(Severity::Warning, self.place(), what, "add one, or remove the jail");
        }
        let use_dns = match self.overridden("usedns", files)? {
            None => UseDns::Warn,
            Some(text) => match text.as_str().trim().to_ascii_lowercase().as_str() {
                "yes" | "1" | "on" | "true" => UseDns::Yes,
                "warn" => UseDns::Warn,
                "raw" => UseDns::Raw,
                "no" | "0" | "off" | "false" => UseDns::No,
                other => {
                    let what = format!("`usedns = {other}` is none; `no` is used");
                    self.tell(
                        Severity::Error,
                        text.place(),
                        what,
                        "write `yes`, `warn`, `no` or `raw`",
                    );
                    UseDns::No
                }
            },
        };
        let time_zone =
            self.text("logtimezone", files)?.filter(|text| !text.as_str().trim().is_empty());
        Ok(FilterSettings {
            name: files.map_or_else(String::new, |files| files.name.clone()),
            prefregex: prefregex.map(|text| Located {
                value: text.as_str().trim_matches('\n').to_owned(),
                ..text.located()
            }),
            failregex,
            ignoreregex,
            max_lines,
            date_patterns,
            use_dns,
            time_zone: time_zone.map(|text| text.located()),
        })
    }

    /// The lines of a list of regexes.
    fn regexes(
        &mut self,
        option: &str,
        files: Option<&FilterFiles>,
    ) -> Result<Vec<Located<String>>, Refused> {
        let mut regexes =
            self.overridden(option, files)?.map(|text| text.whole_lines()).unwrap_or_default();
        // `<regex-<mode>>` with a mode that the filter does not have would look for that very text, for ever.
        let unknown = |line: &Located<String>| {
            let tag = line.value.trim().strip_prefix('<').and_then(|tag| tag.strip_suffix('>'));
            tag.is_some_and(|tag| {
                !tag.contains(['<', '>', ' ']) && !tag.contains(|c: char| c.is_ascii_uppercase())
            })
        };
        for line in regexes.extract_if(.., |line| unknown(line)) {
            let what = format!(
                "`{option}`: the filter has no option `{}`; the line is left out",
                line.value
            );
            let remedy = "correct the filter's parameters, above all `mode`";
            self.tell(Severity::Error, line.place, what, remedy);
        }
        for line in regexes.extract_if(.., |line| line.value.len() > LONGEST_REGEX) {
            let what = format!(
                "`{option}` holds a pattern of more than {LONGEST_REGEX} bytes; it is left out"
            );
            self.tell(Severity::Error, line.place, what, "split it into several");
        }
        if let Some(first) = regexes.get(MOST_REGEXES) {
            let place = first.place.clone();
            let what =
                format!("`{option}` holds more than {MOST_REGEXES} patterns; the rest is left out");
            self.tell(
                Severity::Error,
                place,
                what,
                "put alternatives into one pattern, as in `(?:one|two)`",
            );
            regexes.truncate(MOST_REGEXES);
        }
        Ok(regexes)
    }
}
