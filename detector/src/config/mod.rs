//! fail2ban's configuration dialect: text in, checked settings and a list of problems out.
//!
//! ```text
//! Tree ─ ini ─ layers ─┬─ server ───────────────────────────┐
//!        lines  merged │                                    ├─ Settings, Problems
//!                      └─ jail ─┬─ definition ─ filter ─────┤
//!                               │  %(name)s <tag> name[x=y] │
//!                               └─ action, ignore, journal ─┘
//! ```
//!
//! The room opens no file: it asks a [`Tree`] for texts. An error disables what it concerns and nothing else: a
//! jail's section or filter that jail, `[DEFAULT]` everything. fail2ban would refuse to start in both cases.
//!
//! Everything is bounded: the length of a file and of an expanded value, the depth of includes, the number of
//! substitutions.
mod action;
mod by_hand;
mod changes;
mod definition;
mod doubts;
mod expand;
mod filter;
mod formula;
mod gone;
mod handed;
mod ignore;
mod ignorecommand;
mod increment;
mod ini;
mod jail;
mod journal;
mod layers;
mod log;
mod native;
mod options;
mod ordered;
mod params;
mod ports;
mod properties;
mod scope;
mod server;
mod settings;
mod source;
mod span;
mod stream;
mod tags;
#[cfg(test)]
mod tests;
mod text;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use action::is_firewall;
pub use by_hand::{
    bare_jail, ignore_cache, ignore_command, ignored, increment, journal_matches, shell_words,
};
pub use changes::changes;
pub use doubts::doubts;
pub use formula::{Formula, FormulaError, FormulaFault, Known, Number};
pub use ignore::{AddressError, network};
pub use jail::{BanTimeError, ban_time};
pub use log::log_target;
pub use native::*;
pub use properties::{Properties, PropertyError, replace as replace_tags};
pub use scope::{PortRange, Scope, ScopeError, Traffic};
pub use settings::*;
pub use source::encoding;
pub use span::{SpanError, seconds, span_in_words};
pub use stream::{Command, Value, stream};

use layers::{DEFAULT, Fault, FaultKind, Layers};

/// Longest file that is read, in bytes.
pub const MAX_FILE: usize = 4 << 20;

/// Where configuration files are: a directory, or a tree inside the binary.
pub trait Tree {
    /// The directory that holds `jail.conf`; paths handed to the other functions begin with it, unless a file
    /// names an absolute path.
    fn root(&self) -> &Path;

    /// A whole file; `None` where there is none. An implementation stops reading after [`MAX_FILE`] bytes.
    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault>;

    /// Names of what lies in a directory, in any order; none where there is no such directory.
    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault>;
}

/// Why a file that is there cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFault {
    /// More than [`MAX_FILE`] bytes.
    #[error("it is longer than {MAX_FILE} bytes")]
    TooLong,
    /// A directory stands where the file would.
    #[error("it is a directory")]
    Directory,
    /// What the system says.
    #[error("{0}")]
    System(String),
}

impl ReadFault {
    fn remedy(&self) -> &'static str {
        match self {
            ReadFault::TooLong => "split it, or check whether it is a configuration file at all",
            ReadFault::Directory => "rename it or remove it: directories are not looked into",
            ReadFault::System(_) => "correct its owner or mode, or remove it",
        }
    }
}

/// A configuration as read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What can be used.
    pub settings: Settings,
    /// What cannot, and what probably is not meant so, in the order found.
    pub problems: Vec<Problem>,
    /// What an operator should know though nothing is wrong, such as firewall actions that became XDP bans.
    pub notes: Vec<String>,
    /// The directory it was read from.
    pub place: PathBuf,
}

/// Reads and checks a whole configuration.
///
/// # Errors
///
/// When nothing can be used: there is no `jail.conf`, or a fault concerns every jail.
pub fn load(tree: &dyn Tree) -> Result<Loaded, Vec<Problem>> {
    let own = Layers::read(tree, "fail2xdp");
    let fail2ban = Layers::read(tree, "fail2ban");
    let jails = Layers::read(tree, "jail");
    let mut problems = fatal(tree, &jails);
    problems.extend(own.faults.iter().map(|fault| problem(fault, None, "nothing is used")));
    if !problems.is_empty() {
        return Err(problems);
    }
    problems.extend(fail2ban.faults.iter().map(|fault| problem(fault, None, "defaults are used")));
    for fault in jails.faults.iter().filter(|fault| !concerns_all(fault)) {
        let consequence = match fault.section {
            Some(_) => "the jail does not run",
            None => "it is left out",
        };
        problems.push(problem(fault, fault.section.as_deref(), consequence));
    }

    let server = server::read(&own, &fail2ban, &mut problems);
    let fail2ban_tree = !own.found();
    let mut reader = jail::Reader::new(tree, &jails, fail2ban_tree, &mut problems);
    let default_ban_time = reader.default_ban_time();
    let read = reader.all();
    let skip_without_logs = reader.skipped_without_logs(&read);
    let notes = reader.finish();

    if read.is_empty() && problems.iter().all(|problem| problem.severity == Severity::Warning) {
        let place = Place { file: Arc::clone(&jails.files[0]), line: 1 };
        let what = "no jail is enabled: nothing is looked for".to_owned();
        let remedy = "set `enabled = true` in a jail's section".to_owned();
        let (severity, place) = (Severity::Warning, Some(place));
        problems.push(Problem { severity, jail: None, place, what, remedy });
    }

    let mut enforce = server.enforce;
    enforce.allow.extend(jail::ignored_by_all(&jails, &read));
    let settings = Settings {
        jails: read,
        enforce,
        default_ban_time,
        log_level: server.log_level,
        log: server.log,
        allow_ipv6: server.allow_ipv6,
        skip_without_logs,
        store: server.store,
        compat_socket: server.compat_socket,
        counting: server.counting,
        telling: server.telling,
        metrics: server.metrics,
        action_user: server.action_user,
        action_retry: server.action_retry,
        fail2ban_tree,
    };
    Ok(Loaded { settings, problems, notes, place: tree.root().to_path_buf() })
}

fn concerns_all(fault: &Fault) -> bool {
    // A directory holds no option that could be missed.
    if matches!(fault.kind, FaultKind::Unreadable { fault: ReadFault::Directory, .. }) {
        return false;
    }
    fault.section.as_deref().is_none_or(|name| matches!(name, DEFAULT | "INCLUDES"))
}

/// What is wrong in the jail files and concerns every jail.
fn fatal(tree: &dyn Tree, jails: &Layers) -> Vec<Problem> {
    let faults = jails.faults.iter().filter(|fault| concerns_all(fault));
    let mut problems: Vec<Problem> =
        faults.map(|fault| problem(fault, None, "nothing is used")).collect();
    if !jails.found() && problems.is_empty() {
        let place = tree.root().display();
        let what = format!("there is no `jail.conf` in `{place}`");
        let remedy =
            "name the directory that holds it with `--config`, as in `--config /etc/fail2ban`"
                .to_owned();
        problems.push(Problem { severity: Severity::Error, jail: None, place: None, what, remedy });
    }
    problems
}

/// What a fault in the files means for an operator.
fn problem(fault: &Fault, jail: Option<&str>, consequence: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        jail: jail.map(JailName::new),
        place: fault.place.clone(),
        what: format!("{}: {consequence}", fault.kind),
        remedy: fault.kind.remedy().to_owned(),
    }
}
