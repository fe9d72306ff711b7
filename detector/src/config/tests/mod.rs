//! The whole reader: small trees in, settings and problems out.
mod actions;
mod expansion;
mod files;
mod jails;
mod native;
mod reload;
mod server;
mod shipped;
mod sources;
use std::{collections::BTreeMap, path::Path};

use super::*;

/// A tree of texts, under `/etc/x`.
#[derive(Debug, Default)]
pub(super) struct TextTree {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

const ROOT: &str = "/etc/x";

impl TextTree {
    pub(super) fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> TextTree {
        let path =
            |(name, text): (&str, &str)| (Path::new(ROOT).join(name), text.as_bytes().to_vec());
        TextTree { files: files.into_iter().map(path).collect() }
    }
}

impl Tree for TextTree {
    fn root(&self) -> &Path {
        Path::new(ROOT)
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(self.files.get(file).cloned())
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        let inside = self.files.keys().filter(|file| file.parent() == Some(folder));
        Ok(inside
            .filter_map(|file| file.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }
}

/// A filter that any jail can use, an action so that nobody is warned of its absence, and some that send mail.
const PLAIN: [(&str, &str); 4] = [
    ("action.d/mail.conf", "[Definition]\nactionban = mail <ip>\n"),
    ("action.d/sendmail-whois.conf", "[Definition]\nactionban = mail <ip>\n"),
    ("filter.d/plain.conf", "[Definition]\nfailregex = ^plain <HOST>$\n"),
    (
        "jail.d/00-default.conf",
        "[DEFAULT]\nfilter = plain\nlogpath = /var/log/plain.log\naction = xdp[port=22]\n",
    ),
];

fn load_with<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Loaded, Vec<Problem>> {
    load(&TextTree::new(PLAIN.into_iter().chain(files)))
}

/// The problems as an operator sees them, each on a line.
fn problems<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let problems = match load_with(files) {
        Ok(loaded) => loaded.problems,
        Err(problems) => {
            let fatal = problems.iter().map(|problem| format!("fatal {problem}"));
            return fatal.collect::<Vec<_>>().join("\n");
        }
    };
    let shown = |problem: &Problem| match problem.severity {
        Severity::Warning => format!("warning {problem}"),
        Severity::Error => format!("error {problem}"),
    };
    problems.iter().map(shown).collect::<Vec<_>>().join("\n")
}

/// The jail of a configuration that is expected to hold together.
#[track_caller]
fn jail<'a>(name: &str, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> JailSettings {
    let loaded = load_with(files).expect("a configuration");
    let errors: Vec<_> = loaded.problems.iter().map(Problem::to_string).collect();
    let found = loaded.settings.jails.into_iter().find(|jail| jail.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no jail `{name}`: {errors:#?}"))
}

/// What the failregexes of jail `j` are, with the place of each, where `options` are its options.
#[track_caller]
fn check_failregex<'a>(
    options: &str,
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
    expect: &[&str],
) {
    let section = format!("[j]\nenabled = true\n{options}");
    let mut files: Vec<(&str, &str)> = files.into_iter().collect::<Vec<_>>();
    files.push(("jail.conf", &section));
    let shown = |regex: Located<String>| {
        let place = regex.place.map_or("?".to_owned(), |place| {
            let file = place.file.strip_prefix(ROOT).unwrap_or(&place.file).display().to_string();
            format!("{file}:{}", place.line)
        });
        format!("{place} {}", regex.value)
    };
    let found: Vec<String> = jail("j", files).filter.failregex.into_iter().map(shown).collect();
    assert_eq!(found, expect);
}

/// What becomes of one more option in jail `j`.
#[track_caller]
fn check_problem(option: &str, expect: &str) {
    let section = format!("[j]\nenabled = true\n{option}\n");
    assert_eq!(problems([("jail.conf", section.as_str())]), expect, "{option}");
}
