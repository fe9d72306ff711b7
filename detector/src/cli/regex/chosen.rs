//! What the arguments name: a log, and patterns to look for in it.
use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
};

use super::{RegexArgs, python};
use crate::{
    cli::overlay::{Overlay, has_jail},
    config::{JailSettings, JournalSettings, Located, SourceSettings, Tree, UseDns},
    config_tree::DirTree,
    engine::date_in_words,
};

/// Characters of a line that are shown in the head of the report.
const SHOWN_OF_LINE: usize = 53;

/// Where the lines come from.
pub(super) enum Log {
    Lines(String),
    File(PathBuf),
    Stdin,
    Journal(JournalSettings),
}

/// What the patterns are.
enum What {
    Jail(String),
    Filter { name: String, options: Vec<(String, String)>, root: PathBuf },
    File(PathBuf),
    Literal,
}

/// A log and a jail to test with.
pub(super) struct Chosen {
    pub log: Log,
    pub jail: JailSettings,
    what: What,
}

impl Chosen {
    pub fn new(tree: &dyn Tree, args: &RegexArgs) -> anyhow::Result<Chosen> {
        let journal = args.log.strip_prefix("systemd-journal");
        let journal = journal.filter(|rest| rest.is_empty() || rest.starts_with('['));
        let backend = journal.map_or("polling".to_owned(), |params| format!("systemd{params}"));
        let mut options = vec![("enabled", "true".to_owned()), ("backend", backend)];
        if let Some(matches) = &args.journalmatch {
            options.push(("journalmatch", matches.clone()));
        }
        let (what, mut jail) = patterns(tree, &args.regex, &options)?;
        let filter = &mut jail.filter;
        let written = |text: &str| Located { value: text.to_owned(), place: None };
        if let Some(text) = &args.ignoreregex {
            filter.ignoreregex = match is_file(text) {
                true => of_file(Path::new(text), &options)?.filter.ignoreregex,
                false => vec![written(text)],
            };
        }
        if let Some(text) = &args.datepattern {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            filter.date_patterns = lines.map(written).collect();
        }
        if let Some(zone) = &args.timezone {
            filter.time_zone = Some(written(zone));
        }
        if let Some(use_dns) = args.usedns {
            filter.use_dns = use_dns;
        }
        if args.raw {
            filter.use_dns = UseDns::Raw;
        }
        if let Some(lines) = args.maxlines {
            filter.max_lines = lines.max(1);
        }
        let log = match (&jail.source, args.log.as_str()) {
            (SourceSettings::Journal(settings), _) if journal.is_some() => {
                Log::Journal(settings.clone())
            }
            (_, "-") => Log::Stdin,
            (_, text) if Path::new(text).is_file() => Log::File(text.into()),
            (_, text) => Log::Lines(text.to_owned()),
        };
        Ok(Chosen { log, jail, what })
    }

    /// The head of the report: what is used.
    pub fn used(&self, args: &RegexArgs) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "Use {name:>16} : {value}");
        };
        let filter = &self.jail.filter;
        let dates = |row: &mut dyn FnMut(&str, &str)| {
            for pattern in &filter.date_patterns {
                let words = match pattern.value.to_ascii_uppercase().as_str() {
                    "{^LN-BEG}" | "{DEFAULT}" => "Default Detectors".to_owned(),
                    _ => date_in_words(&pattern.value),
                };
                row("datepattern", &format!("{} : {words}", pattern.value));
            }
        };
        if args.datepattern.is_some() {
            dates(&mut row);
        }
        let literal = matches!(self.what, What::Literal);
        if args.maxlines.is_some() && literal {
            row("maxlines", &filter.max_lines.to_string());
        }
        match &self.what {
            What::Jail(name) => row("jail", name),
            What::Filter { name, options, root } => {
                row("  failregex filter file", &format!("{name}, basedir: {}", root.display()));
                if !options.is_empty() {
                    row("  filter options", &python::dict(options));
                }
            }
            What::File(path) => row("  failregex file", &path.display().to_string()),
            What::Literal => row("  failregex line", &args.regex),
        }
        if !literal {
            // Of a file it tells only what was chosen.
            let is_file = matches!(self.what, What::File(_));
            if !is_file || filter.max_lines > 1 || args.maxlines.is_some() {
                row("maxlines", &filter.max_lines.to_string());
            }
            if args.datepattern.is_none() {
                dates(&mut row);
            }
        }
        if let Some(text) = &args.ignoreregex {
            row(if is_file(text) { "ignoreregex file" } else { "ignoreregex line" }, text);
        }
        match &self.log {
            Log::File(path) => {
                row("log file", &path.display().to_string());
                row("encoding", &args.encoding);
            }
            Log::Stdin => {
                row("log file", "standard input");
                row("encoding", &args.encoding);
            }
            Log::Journal(settings) => {
                let _ = writeln!(text, "Use {:>16}", "systemd journal");
                let groups = settings.matches.iter().map(|group| group.join(" "));
                let matches = groups.collect::<Vec<_>>().join(" + ");
                let _ = writeln!(text, "Use {:>16} : {matches}", "journal match");
            }
            Log::Lines(lines) if lines.lines().count() > 1 => {
                let _ = writeln!(text, "Use      multi line : {} line(s)", lines.lines().count());
                for (nth, line) in lines.lines().enumerate() {
                    let _ = writeln!(text, "|  {}: {}", nth + 1, shown(line));
                }
                text.push_str("`-\n");
            }
            Log::Lines(line) => row("single line", &shown(line)),
        }
        text.push('\n');
        text
    }
}

fn shown(line: &str) -> String {
    if line.chars().count() <= SHOWN_OF_LINE {
        return line.to_owned();
    }
    let start: String = line.chars().take(SHOWN_OF_LINE - 3).collect();
    format!("{start}...")
}

/// A path that says of itself that it is one.
fn is_file(text: &str) -> bool {
    let path = Path::new(text);
    text.contains('/') && path.extension().is_some_and(|suffix| suffix == "conf") && path.is_file()
}

/// What `text` means: a jail, a filter with or without parameters, a filter's file, or a pattern itself.
fn patterns(
    tree: &dyn Tree,
    text: &str,
    options: &[(&str, String)],
) -> anyhow::Result<(What, JailSettings)> {
    if is_file(text) {
        return Ok((What::File(text.into()), of_file(Path::new(text), options)?));
    }
    let name = text.split('[').next().unwrap_or_default();
    let may_be_name = !name.is_empty() && !text.contains('\n') && !name.contains(['/', '<', '\\']);
    if may_be_name && name == text && has_jail(tree, name) {
        let jail = Overlay::over(tree, &[name], options).jail(name)?;
        return Ok((What::Jail(name.to_owned()), jail));
    }
    let file = |suffix: &str| tree.root().join(format!("filter.d/{name}.{suffix}"));
    let exists = |suffix: &str| tree.read(&file(suffix)).is_ok_and(|file| file.is_some());
    if may_be_name && (exists("conf") || exists("local")) {
        let mut options = options.to_vec();
        options.push(("filter", text.to_owned()));
        let jail = Overlay::instead(tree, name, &options).jail(name)?;
        let what = What::Filter {
            name: name.to_owned(),
            options: parameters(&text[name.len()..]),
            root: tree.root().to_owned(),
        };
        return Ok((what, jail));
    }
    let mut jail = Overlay::instead(tree, "regex", options).jail("regex")?;
    jail.filter.failregex = vec![Located { value: text.to_owned(), place: None }];
    Ok((What::Literal, jail))
}

fn of_file(path: &Path, options: &[(&str, String)]) -> anyhow::Result<JailSettings> {
    let path = std::path::absolute(path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new("/"));
    // In its place in a tree a filter finds what it includes from there.
    let (root, name) = match folder.parent() {
        Some(root) if folder.ends_with("filter.d") => (root, stem.clone()),
        _ => (folder, from_here(&folder.join(&stem))?),
    };
    let tree = DirTree::new(root);
    let mut options = options.to_vec();
    options.push(("filter", name));
    Overlay::instead(&tree, &stem, &options).jail(&stem)
}

/// How the configuration names a file outside its tree: by the way that leads there from the working directory.
fn from_here(path: &Path) -> io::Result<String> {
    let here = std::env::current_dir()?;
    let way = match path.strip_prefix(&here) {
        Ok(below) => below.to_owned(),
        Err(_) => {
            let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
            up.join(path.strip_prefix("/").unwrap_or(path))
        }
    };
    Ok(format!("./{}", way.display()))
}

/// `[a=x, b="y"]` as pairs, to be shown.
fn parameters(text: &str) -> Vec<(String, String)> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let mut pairs = Vec::new();
    let mut rest = inner;
    while let Some((name, value)) = rest.split_once('=') {
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let closed = quote.and_then(|quote| value[1..].split_once(quote));
        let (value, after) = match closed {
            Some((value, after)) => (value, after.trim_start().trim_start_matches(',')),
            None => value.split_once(',').unwrap_or((value, "")),
        };
        let name = name.trim().trim_start_matches([',', ']', '[', ' ']);
        pairs.push((name.to_owned(), value.trim().to_owned()));
        rest = after;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_shown_as_they_were_meant() {
        let pairs = parameters(r#"[mode=aggressive, x="a,b", y='c']"#);
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("mode", "aggressive"), ("x", "a,b"), ("y", "c")]);
        assert_eq!(parameters(""), []);
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(shown("short"), "short");
        assert_eq!(shown(&"x".repeat(60)), format!("{}...", "x".repeat(50)));
    }
}
