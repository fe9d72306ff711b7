//! `run`: the daemon in the foreground.
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    Place,
    log::{LastLines, Log, Target},
};
use crate::{
    app::{self, Logging},
    config::{self, AttachMode, Problem, Severity, Tree},
    config_tree::{DirTree, ShippedTree},
    control::wire,
    enforce,
};

const OWN_TREE: &str = "/etc/fail2xdp";
const FAIL2BAN_TREE: &str = "/etc/fail2ban";

#[derive(Args, Debug, Default)]
pub(super) struct RunArgs {
    /// Remove program and maps at the end, so that nothing stays behind
    #[arg(long)]
    detach_on_exit: bool,
    /// Detach and stop, with exit status 1, unless `fail2xdp confirm` comes within this time, as `60s` or `5m`:
    /// for a first try on a machine far away
    #[arg(long, value_name = "TIME")]
    confirm: Option<String>,
    /// Count what would be dropped, drop nothing
    #[arg(long)]
    observe: bool,
    /// Load the program that also logs rare events of the kernel side (through aya-log)
    #[arg(long)]
    kernel_log: bool,
    /// Search every text twice, by our own matcher and by the engines behind it, and log where they differ; costs CPU time
    #[arg(long)]
    verify_matching: bool,
    /// Say more in the log: `debug`, `trace`, or a filter such as `fail2xdp::source=debug`
    #[arg(long, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// Write the log there, whatever the configuration says: `STDERR`, `SYSLOG`, a file, as `logtarget` has it
    #[arg(long, value_name = "TARGET")]
    pub(super) log_target: Option<String>,
    /// Where syslog listens, whatever `syslogsocket` says
    #[arg(long, value_name = "PATH")]
    pub(super) syslog_socket: Option<PathBuf>,
}

/// Where the configuration comes from.
pub(super) struct Chosen {
    pub tree: Arc<dyn Tree + Send + Sync>,
    /// In words.
    pub name: String,
    /// A word to the operator about the choice.
    pub hint: Option<String>,
}

/// `--config`, else `/etc/fail2xdp` where it exists, else the tree inside the binary.
pub(super) fn tree(config: Option<&Path>) -> anyhow::Result<Chosen> {
    let dir = match config {
        Some(dir) if !dir.is_dir() => bail!("--config `{}` is no directory", dir.display()),
        Some(dir) => Some(dir.to_path_buf()),
        None => Some(PathBuf::from(OWN_TREE)).filter(|dir| dir.is_dir()),
    };
    if let Some(dir) = dir {
        return Ok(Chosen {
            name: dir.display().to_string(),
            tree: Arc::new(DirTree::new(&dir)),
            hint: None,
        });
    }
    let hint = Path::new(FAIL2BAN_TREE).is_dir().then(|| {
        format!("{FAIL2BAN_TREE} exists and is not used; to run it as it stands: fail2xdp run --config {FAIL2BAN_TREE}")
    });
    Ok(Chosen { tree: Arc::new(ShippedTree), name: "the tree inside the binary".into(), hint })
}

pub(super) fn run(place: &Place, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let chosen = tree(place.config.as_deref())?;
    let mut loaded = match config::load(chosen.tree.as_ref()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            report(&problems);
            bail!("nothing of the configuration in {} can be used", chosen.name);
        }
    };
    let log = Log::start().context("there is no thread for the log")?;
    let _last_lines = LastLines(log.clone());
    if let Some(level) = &args.log {
        let is_word = level.chars().all(char::is_alphabetic);
        loaded.settings.log_level = if is_word { level.to_uppercase() } else { level.clone() };
    }
    let mut log = Target::new(log, &loaded.settings.log_level);
    report(&loaded.problems);
    for note in &loaded.notes {
        eprintln!("note: {note}");
    }
    if let Some(hint) = &chosen.hint {
        eprintln!("{hint}");
    }
    let (target, socket) = (args.log_target.as_deref(), args.syslog_socket.as_deref());
    log.name(target, socket).map_err(anyhow::Error::msg).context("cannot log as asked")?;
    if let Err(why) = log.configure(&loaded.settings.log) {
        eprintln!("error: {why}");
    }
    let logged = log.target().to_owned();
    tracing::info!("fail2xdp {} begins", env!("CARGO_PKG_VERSION"));
    let confirm = args.confirm.as_deref().map(confirm_time).transpose()?;
    let one_at_a_time = lock_state(&place.state)?;
    allow_many_files();
    let options = app::Options {
        tree: chosen.tree,
        socket: place.socket.clone(),
        // What an ordinary user lacks first is the right to load BPF: that is the error to show.
        socket_optional: !rustix::process::geteuid().is_root(),
        state: one_at_a_time.is_some().then(|| place.state.clone()),
        kernel: kernel_options(place, args),
        level_is_named: args.log.is_some(),
        detach_on_exit: args.detach_on_exit,
        verify_matching: args.verify_matching,
        confirm,
        loaded,
        place: place.config.iter().flat_map(|dir| ["--config".into(), dir.into()]).collect(),
        log: Box::new(log),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(app::run(options, |status| {
        print!("{}", banner(status, &chosen.name, &logged, place, args.detach_on_exit));
        if let Some(time) = &args.confirm {
            println!(
                "  {:<13} `fail2xdp confirm` within {time}, or it detaches and stops",
                "confirm"
            );
        }
        // A pipe that nobody reads any longer is no reason to stop protecting.
        let _ = std::io::Write::flush(&mut std::io::stdout());
    }))?;
    match ended {
        app::Ended { unconfirmed: true, .. } => {
            println!("nobody confirmed: stopped and detached");
            return Ok(ExitCode::FAILURE);
        }
        app::Ended { detached: true, .. } => println!("stopped and detached: nothing stays behind"),
        app::Ended { enforced: 0, .. } => println!("stopped"),
        app::Ended { enforced, .. } => {
            println!("stopped: {enforced} bans stay enforced; `fail2xdp detach` lifts them");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn confirm_time(text: &str) -> anyhow::Result<std::time::Duration> {
    let seconds = config::seconds(text).with_context(|| format!("--confirm {text}"))?;
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => bail!("--confirm {text}: give a time such as `60s`"),
    }
}

/// Kernel side as the command line overrides the configuration; `None` with mode `none`.
fn kernel_options(place: &Place, args: &RunArgs) -> app::KernelOptions {
    let (interfaces, pin_dir, mode) = (place.interface.clone(), place.pin.clone(), place.mode);
    let (observe, kernel_log) = (args.observe, args.kernel_log);
    Box::new(move |settings| {
        let configured = &settings.enforce;
        let mode = mode.unwrap_or(configured.mode);
        (mode != AttachMode::None).then(|| enforce::Options {
            interfaces: if interfaces.is_empty() {
                configured.interfaces.clone()
            } else {
                interfaces.clone()
            },
            mode,
            pin_dir: pin_dir.clone(),
            observe: observe || configured.observe,
            observing: observing(settings),
            allow: configured.allow.iter().map(|entry| entry.value).collect(),
            also_allow: Vec::new(),
            allow_sessions: configured.allow_sessions,
            max_bans: configured.max_bans,
            initial_bans: configured.initial_bans,
            expected: [0; 2],
            events_per_second: configured.events_per_second,
            compare_every: configured.compare_every,
            kernel_log,
        })
    })
}

/// The jails that count what they would drop, and drop nothing.
fn observing(settings: &config::Settings) -> Vec<String> {
    let jails = settings.jails.iter().filter(|jail| jail.observe);
    jails.map(|jail| jail.name.to_string()).collect()
}

/// Errors first: they are what does not run.
fn report(problems: &[Problem]) {
    for severity in [Severity::Error, Severity::Warning] {
        for problem in problems.iter().filter(|problem| problem.severity == severity) {
            eprintln!(
                "{}: {problem}",
                if severity == Severity::Error { "error" } else { "warning" }
            );
        }
    }
}

/// Every followed log holds a descriptor, and the usual soft limit of 1024 is there for select(2) alone.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// Two daemons in one state directory would each undo what the other writes.
pub(super) fn lock_state(state: &Path) -> anyhow::Result<Option<std::fs::File>> {
    let open = || {
        std::fs::create_dir_all(state)?;
        let lock = state.join("lock");
        match std::fs::File::options().create(true).append(true).open(&lock) {
            // It was made when the disk could be written still; it can be locked all the same.
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                std::fs::File::open(&lock)
            }
            opened => opened,
        }
    };
    let file = match open() {
        Ok(file) => file,
        Err(error) if !rustix::process::geteuid().is_root() => {
            tracing::warn!(
                "no state directory: `{}`: {error}; name a place with --state",
                state.display()
            );
            return Ok(None);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot use the state directory `{}`", state.display()));
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "another daemon works in `{}`: stop it (`fail2xdp stop`), or give this one its own --state, --socket and --pin",
            state.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).context("cannot lock the state directory")
        }
    }
}

/// What is protected, how to watch it, what Ctrl-C does.
fn banner(
    status: &wire::Status,
    tree: &str,
    log: &str,
    place: &Place,
    detach_on_exit: bool,
) -> String {
    let mut text = format!("fail2xdp {} is ready\n", status.version);
    let mut row = |name: &str, what: &str| {
        let _ = writeln!(text, "  {name:<13} {what}");
    };
    row("configuration", tree);
    if status.jails.is_empty() {
        row("jails", "none: bans by hand only");
    }
    for jail in &status.jails {
        row("jail", &format!("{} (bans {})", jail.name, jail.scope));
        for file in &jail.files {
            row("", &format!("  {}: {}", file.path, file.state));
        }
        if let Some(state) = &jail.journal {
            row("", &format!("  journal {}: {state}", jail.journal_matches.join(" + ")));
        }
        if jail.files.is_empty() && jail.journal.is_none() {
            row("", "  no source yet: waiting");
        }
    }
    let enforcement = &status.enforcement;
    if enforcement.mode == "none" {
        row("enforcement", "none: finds and reports, drops nothing");
    }
    for interface in &enforcement.interfaces {
        let reason =
            interface.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        row("interface", &format!("{} ({} XDP{reason})", interface.name, interface.mode));
    }
    if enforcement.observe {
        row("observe", "counts what it would drop, drops nothing");
    }
    if !enforcement.allowed.is_empty() {
        row("never drops", &enforcement.allowed.join(", "));
    }
    row("bans", &format!("{} enforced", status.bans));
    match &status.store {
        Some(store) if store.state == "works" => row("store", &store.path),
        Some(store) => row("store", &format!("{}: {}", store.path, store.state)),
        None => row("store", "none: what is counted is lost at the end"),
    }
    if log != "STDERR" {
        row("log", log);
    }
    let socket = if place.socket == Path::new("/run/fail2xdp/fail2xdp.sock") {
        String::new()
    } else {
        format!(" --socket {}", place.socket.display())
    };
    row("watch", &format!("fail2xdp{socket} status | bans"));
    if let Some(pins) = &enforcement.pins {
        row("", &format!("bpftool map dump pinned {pins}/BANS_V4"));
    }
    let end = match (enforcement.mode.as_str(), detach_on_exit) {
        ("none", _) => "stops",
        (_, true) => "stops and detaches: nothing stays behind",
        (_, false) => "stops; bans stay enforced until they end, or `fail2xdp detach`",
    };
    row("Ctrl-C", end);
    text
}
