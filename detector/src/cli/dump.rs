//! `-d`: the configuration as the commands that `fail2ban-client -d` prints.
use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{Place, REFUSED, run::tree};
use crate::config::{self, Value};

/// The flags that print the configuration instead of doing anything.
#[derive(Args, Clone, Debug)]
pub struct DumpArgs {
    /// Print the configuration as read: one command a line, in the form of `fail2ban-client -d`
    #[arg(short = 'd', long = "dump")]
    dump: bool,
    /// The same, with every entry of a list on a line of its own
    #[arg(long = "dump-pretty", visible_alias = "dp")]
    pretty: bool,
}

impl DumpArgs {
    pub(super) fn wanted(&self) -> bool {
        self.dump || self.pretty
    }
}

pub(super) fn run(place: &Place, args: &DumpArgs) -> anyhow::Result<ExitCode> {
    print(place, args.pretty)
}

/// Prints the commands, each over several lines where that is `pretty`.
pub(super) fn print(place: &Place, pretty: bool) -> anyhow::Result<ExitCode> {
    let (commands, problems) =
        match config::stream(tree(place.config.as_deref())?.tree.as_ref(), &existing) {
            Ok(read) => read,
            Err(problems) => {
                for problem in problems {
                    eprintln!("{problem}");
                }
                println!("ERROR: The configuration stream failed because of the invalid syntax.");
                return Ok(ExitCode::from(REFUSED));
            }
        };
    for problem in problems {
        eprintln!("{problem}");
    }
    let is_any = |verb: &str| commands.iter().any(|command| command.first() == Some(&verb.into()));
    // As fail2ban: a failure where none of the jails that are on is sound.
    let code = match is_any("config-error") && !is_any("start") {
        true => ExitCode::from(REFUSED),
        false => ExitCode::SUCCESS,
    };
    let mut text = String::new();
    for command in commands.into_iter().map(Value::List) {
        text += &if pretty { command.pretty() } else { command.to_string() };
        text.push('\n');
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(code)
}

/// Files that a `logpath` names now, as a shell finds them: no wildcard means a leading dot, and `**` is no more than
/// `*`. What is no glob at all names nothing, and a link into nowhere is no file.
pub(super) fn existing(pattern: &str) -> Vec<PathBuf> {
    let mut pattern = pattern.to_owned();
    while pattern.contains("**") {
        pattern = pattern.replace("**", "*");
    }
    let is_dotted = |part: &OsStr| part.as_encoded_bytes().starts_with(b".");
    let is_hidden = |file: &PathBuf| {
        let mut parts = file.iter().zip(Path::new(&pattern));
        parts.any(|(part, wanted)| is_dotted(part) && !is_dotted(wanted))
    };
    let found = glob::glob(&pattern).into_iter().flatten().flatten();
    found.filter(|file| file.exists() && !is_hidden(file)).collect()
}
