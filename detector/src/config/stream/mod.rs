//! The configuration as the list of commands that `fail2ban-client -d` prints.
//!
//! fail2ban's client turns its files into commands for its server; the commands are the best witness of what a tree
//! means, so ours must be the same. Where fail2ban dies of one jail, that jail alone is left out here, with a
//! `config-error` that says why.
mod action;
mod jail;
mod pretty;
mod value;
use std::path::PathBuf;

pub(super) use action::OPTIONS as ACTION_OPTIONS;
pub use value::Value;

use super::{Problem, Tree, expand::Context, fatal, jail::Reader, layers::Layers};

/// One command: its words.
pub type Command = Vec<Value>;

/// The section of `fail2ban.conf` that counts.
const SERVER: &str = "Definition";

/// All commands that the tree's files make, and what is wrong in the jails that were left out. `paths` answers which
/// files a `logpath` names.
///
/// # Errors
///
/// What concerns every jail, as for [`load`](super::load).
pub fn stream(
    tree: &dyn Tree,
    paths: &dyn Fn(&str) -> Vec<PathBuf>,
) -> Result<(Vec<Command>, Vec<Problem>), Vec<Problem>> {
    let jails = Layers::read(tree, "jail");
    let problems = fatal(tree, &jails);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut problems = Vec::new();
    let mut commands = server(&Layers::read(tree, "fail2ban"));
    let fail2ban_tree = !Layers::read(tree, "fail2xdp").found();
    let mut reader = Reader::new(tree, &jails, fail2ban_tree, &mut problems);
    let mut starts = Vec::new();
    for name in reader.names() {
        match jail::commands(&mut reader, &name, paths) {
            Ok(None) => {}
            Ok(Some(more)) => {
                commands.extend(more);
                starts.push(words(["start", name.as_str()]));
            }
            Err(jail::Skipped(reason)) => {
                let reason =
                    format!("Jail '{name}' skipped, because of wrong configuration: {reason}");
                commands.push(words(["config-error", reason.as_str()]));
            }
        }
    }
    commands.extend(starts);
    Ok((commands, problems))
}

fn words<const N: usize>(words: [&str; N]) -> Command {
    words.map(Value::from).to_vec()
}

/// What `fail2ban.conf` says to the server. What cannot be expanded has its default.
fn server(files: &Layers) -> Vec<Command> {
    let text = |section, option| Context::of_file(files, section).get(option).ok().flatten();
    let mut commands = Vec::new();
    let stack = files.own("Thread", "stacksize").and_then(|_| text("Thread", "stacksize"));
    if let Some(stack) = stack {
        let size = ("stacksize".to_owned(), Value::number(stack.as_str()));
        commands.push(vec!["set".into(), "thread".into(), Value::Map(vec![size])]);
    }
    let found = files.section(SERVER).is_some();
    for (option, default) in [
        ("syslogsocket", "auto"),
        ("loglevel", "INFO"),
        ("logtarget", "/var/log/fail2ban.log"),
        ("allowipv6", "auto"),
        ("dbfile", "/var/lib/fail2ban/fail2ban.sqlite3"),
        ("dbmaxmatches", ""),
        ("dbpurgeage", "1d"),
    ] {
        let written = text(SERVER, option).filter(|_| found);
        let value = match (option, written) {
            ("dbmaxmatches", Some(text)) => Value::number(text.as_str()),
            ("dbmaxmatches", None) if found => continue,
            ("dbmaxmatches", None) => Value::Nothing,
            (_, Some(text)) => text.as_str().into(),
            (_, None) => default.into(),
        };
        commands.push(vec!["set".into(), option.into(), value]);
    }
    commands
}
