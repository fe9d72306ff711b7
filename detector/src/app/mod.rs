//! Wiring: the only file that knows every room. One task owns the engine and the kernel's maps; everything
//! else sends it messages.
//!
//! Order of start: control socket (so that a second daemon stops before it touches anything), what is stored, kernel
//! maps and links, bans that ended or were lost meanwhile, names of `ignoreip`, readers. Order of stop: readers, store,
//! socket; the kernel goes on.
mod act;
mod answers;
mod commands;
mod compat;
mod keep;
mod listing;
mod requests;
mod restore;
mod silence;

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;

use self::{
    commands::ByHand,
    compat::Compat,
    keep::Keeper,
    listing::Listing,
    requests::Next,
    silence::{News, Silence},
};
use crate::{
    clock::{self, Clock},
    config::{self, Problem, Scope, Settings, Tree},
    control::{self, Asked, command::Reload, wire},
    enforce::{self, EnforceError, Enforcer, LinkChange, Notice},
    engine::{Effect, Engine, Event, Limits, Matcher},
    source::{Positions, Readers, Report},
};

/// Findings and reports on their way from the readers; a reader that finds it full waits.
const REPORTS: usize = 4096;
/// Requests from the socket on their way; a client that finds it full waits.
const REQUESTS: usize = 64;
/// Reports worked off in one turn.
const REPORTS_AT_ONCE: usize = 64;
/// How long the socket has at the end to write its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long look-ups of `ignoreip` names may hold up the start.
const RESOLVE_AT_START: Duration = Duration::from_secs(5);
/// How often sources are looked at that may hide an attack.
const SOURCES_EVERY: Duration = Duration::from_secs(5);
/// How long the start waits for the readers' first word, so that it can say what was found.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What enforcement is told under a configuration.
pub type KernelOptions = Box<dyn Fn(&Settings) -> Option<enforce::Options> + Send>;

/// What the command line decides.
pub struct Options {
    /// Where the configuration comes from; read again at reload.
    pub tree: Arc<dyn Tree + Send + Sync>,
    /// The control socket.
    pub socket: PathBuf,
    /// No socket is no reason to stop: nobody named a place for it, and this user may write none.
    pub socket_optional: bool,
    /// The state directory, which is this daemon's alone; `None`: there is none, nothing is stored.
    pub state: Option<PathBuf>,
    /// Kernel side, as the command line overrides the configuration; `None`: no BPF at all.
    pub kernel: KernelOptions,
    /// Remove program and maps at the end.
    pub detach_on_exit: bool,
    /// The configuration, as read for this start.
    pub loaded: config::Loaded,
    /// Where log lines go.
    pub log: Box<dyn Logging>,
}

/// Where log lines go, as far as it can be changed while the daemon runs.
pub trait Logging: Send {
    /// Which lines are written from now on: one of fail2ban's levels, or its number.
    ///
    /// # Errors
    /// When there is no such level; nothing is changed.
    fn set_level(&mut self, level: &str) -> Result<(), String>;

    /// `STDERR`, or a file.
    fn target(&self) -> &str;

    /// Writes elsewhere from now on.
    ///
    /// # Errors
    /// When nothing can be written there; nothing is changed.
    fn set_target(&mut self, target: &str) -> Result<(), String>;

    /// Writes what waits. A file is opened anew; answers whether it is one.
    fn flush(&mut self) -> bool;
}

/// What came of an event.
#[derive(Debug, Default)]
struct Carried {
    /// Bans made or lifted.
    changed: usize,
    /// Why a ban could not be enforced, the last one's reason where several could not.
    refused: Option<EnforceError>,
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Bans that stay enforced.
    pub enforced: usize,
    /// Program and maps are gone.
    pub detached: bool,
}

/// The one task's state.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) enforcer: Option<Enforcer>,
    pub(crate) readers: Option<Readers>,
    pub(crate) settings: Settings,
    pub(crate) problems: Vec<Problem>,
    pub(crate) alarms: Vec<String>,
    /// Times that the maps differed from the table of bans, and were mended.
    pub(crate) repairs: u64,
    silence: Silence,
    /// When the sources are looked at next.
    sources_due: Instant,
    keeper: Keeper,
    listings: VecDeque<Listing>,
    tree: Arc<dyn Tree + Send + Sync>,
    kernel: KernelOptions,
    detach_on_exit: bool,
    clock: Clock,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    by_hand: Arc<Scope>,
    /// What commands have changed beside the settings.
    told: ByHand,
    log: Box<dyn Logging>,
}

/// Runs the daemon until it is told to stop; `ready` hears what it protects as soon as it does.
///
/// # Errors
/// When the socket is taken, or the kernel side cannot be set up.
pub async fn run(options: Options, ready: impl FnOnce(&wire::Status)) -> anyhow::Result<Ended> {
    let clock: Clock = clock::now;
    let (ask, mut asked) = mpsc::channel::<Asked>(REQUESTS);
    let ask_compat = ask.clone();
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let mut serving = None;
    match control::bind(&options.socket).await {
        Ok(listener) => {
            serving = Some(tokio::spawn(async move {
                if let Err(error) = control::serve(listener, ask, closed).await {
                    tracing::error!("the control socket is gone: {error}");
                }
            }));
        }
        Err(control::BindError::Place { path, source }) if options.socket_optional => {
            tracing::warn!(
                "no control socket: cannot make `{}`: {source}; name a place with --socket",
                path.display()
            );
        }
        Err(error) => return Err(error.into()),
    }
    let settings = options.loaded.settings;
    let compat = match &settings.compat_socket {
        Some(path) => Compat::open(path, ask_compat).await,
        None => None,
    };
    let (tell, mut links) = mpsc::channel(64);
    // Also without the kernel side: own addresses change, and a wall clock that steps moves every end.
    let _watch = enforce::watch(tell)
        .inspect_err(|error| tracing::error!("changes of network and clock go unnoticed: {error}"))
        .ok();
    let engine = Engine::new(&settings.jails, Limits::from(settings.counting));
    let (keeper, loaded) = Keeper::open(options.state, settings.store, clock).await;
    let (enforcer, adopted) = match (options.kernel)(&settings) {
        None => (None, Vec::new()),
        Some(mut kernel) => {
            kernel.make_room_for(loaded.bans.iter().map(|ban| ban.prefix));
            let (enforcer, adopted) = Enforcer::start(&kernel, clock())?;
            (Some(enforcer), adopted)
        }
    };
    let mut daemon = Daemon {
        engine,
        enforcer,
        readers: None,
        settings,
        problems: options.loaded.problems,
        alarms: Vec::new(),
        repairs: 0,
        silence: Silence::new(clock()),
        sources_due: clock::monotonic() + SOURCES_EVERY,
        keeper,
        listings: VecDeque::new(),
        tree: options.tree,
        kernel: options.kernel,
        detach_on_exit: options.detach_on_exit,
        clock,
        reports: mpsc::channel(REPORTS),
        events: mpsc::unbounded_channel(),
        by_hand: Arc::new(Scope::EveryPacket),
        told: ByHand::default(),
        log: options.log,
    };
    let positions = daemon.take_up(adopted, loaded);
    daemon.surroundings();
    daemon.resolve_ignored().await;
    daemon.start_readers(positions);
    daemon.first_look().await;
    // Before anybody hears that we are ready: from then on an order to stop is carried out in order.
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    ready(&answers::status(&daemon));

    let mut news = daemon.keeper.news();
    let detach = loop {
        let due = daemon.due();
        // Whichever is ready, in turn: a flood of findings must not keep bans from ending, nor the other
        // way round. Each turn is short.
        tokio::select! {
            Some(report) = daemon.reports.1.recv() => daemon.reports_from(report),
            Some(event) = daemon.events.1.recv() => {
                daemon.event(event);
            }
            Some(change) = links.recv() => daemon.link_changed(change),
            Some(news) = news.recv() => daemon.store_says(news),
            loaded = daemon.keeper.late() => daemon.take_up_late(loaded),
            Some(asked) = asked.recv() => match daemon.answer(asked).await {
                Next::GoOn => {}
                Next::Stop { detach } => break detach,
            },
            _ = interrupt.recv() => break daemon.detach_on_exit,
            _ = terminate.recv() => break daemon.detach_on_exit,
            _ = hangup.recv() => match daemon.reload(&Reload::default()).await {
                Ok(_) => tracing::info!("configuration reloaded"),
                Err(error) => tracing::error!("the configuration was not reloaded: {error}"),
            },
            () = std::future::ready(()), if !daemon.listings.is_empty() => daemon.list_on(),
            () = sleep_until(due) => daemon.wake(),
        }
    };
    let ended = daemon.finish(detach, &options.socket).await;
    // Who asked for the end shall have the answer before the process is gone.
    drop(close);
    drop(asked);
    if let Some(compat) = compat {
        compat.close().await;
    }
    if let Some(serving) = serving {
        let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
    }
    ended
}

impl Daemon {
    /// Everything the engine decides is carried out here: the kernel first, words after.
    fn event(&mut self, event: Event) -> Carried {
        let effects = self.engine.handle(event, (self.clock)());
        let mut carried = Carried::default();
        for effect in effects {
            match self.carry_out(effect) {
                Ok(changed) => carried.changed += usize::from(changed),
                Err(error) => carried.refused = Some(error),
            }
        }
        carried
    }

    /// This report, and what waits behind it, for one turn.
    fn reports_from(&mut self, report: Report) {
        self.report(report);
        for _ in 1..REPORTS_AT_ONCE {
            let Ok(report) = self.reports.1.try_recv() else { break };
            self.report(report);
        }
        self.keeper.counted(&mut self.engine);
    }

    fn link_changed(&mut self, change: LinkChange) {
        if let Some(enforcer) = &mut self.enforcer {
            let notices = enforcer.link_changed(change);
            self.notices(notices);
        }
        self.surroundings();
    }

    fn notices(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            self.repairs += u64::from(matches!(notice, Notice::Repaired { .. }));
            if notice.is_alarm() {
                tracing::error!("{notice}");
                self.alarms.push(notice.to_string());
                let surplus = self.alarms.len().saturating_sub(16);
                self.alarms.drain(..surplus);
            } else {
                tracing::info!("{notice}");
            }
        }
    }

    /// Tells the engine whom a ban must not or cannot hit.
    fn surroundings(&mut self) {
        match enforce::own_addresses() {
            Ok(addresses) => {
                self.event(Event::OwnAddresses(addresses));
            }
            Err(error) => tracing::error!("cannot tell this machine's own addresses: {error}"),
        }
        let allowed = match &self.enforcer {
            Some(enforcer) => enforcer.status().allowed,
            None => self.settings.enforce.allow.clone(),
        };
        self.event(Event::AllowList(allowed));
    }

    async fn resolve_ignored(&mut self) {
        let mut lookups = tokio::task::JoinSet::new();
        for name in self.engine.names_to_resolve() {
            lookups.spawn(async move { (resolve(&name).await, name) });
        }
        let all = async {
            while let Some(answer) = lookups.join_next().await {
                let Ok((addresses, name)) = answer else { continue };
                if addresses.is_empty() {
                    tracing::warn!("`{name}` of ignoreip has no address: it spares nobody");
                }
                self.event(Event::Resolved { name, addresses });
            }
        };
        if tokio::time::timeout(RESOLVE_AT_START, all).await.is_err() {
            tracing::warn!(
                "some names of ignoreip could not be looked up in {RESOLVE_AT_START:?}: they spare nobody yet"
            );
        }
    }

    /// Looks up names of `ignoreip` that are not known yet; nobody waits for it.
    fn look_up_ignored(&mut self) {
        for name in self.engine.names_to_resolve() {
            // A look-up cannot be refused.
            let _ = self.carry_out(Effect::Resolve { name });
        }
    }

    fn start_readers(&mut self, from: Positions) {
        let mut jails = Vec::new();
        for jail in self.settings.jails.iter().filter(|jail| !self.told.is_idle(&jail.name)) {
            let (matcher, faults) = Matcher::new(jail, TimeZone::system());
            for problem in faults.iter().map(|fault| fault.problem(&jail.name)) {
                tracing::error!("{problem}");
                self.problems.push(problem);
            }
            if !matcher.is_armed() {
                tracing::error!(
                    "[{}] the jail finds nothing: it has no usable failregex",
                    jail.name
                );
            }
            jails.push((jail.clone(), matcher));
        }
        self.readers = Some(Readers::start(jails, from, self.reports.0.clone(), self.clock));
    }

    /// Stops the readers, and hears them out: one that waits for room in the channel could not stop.
    async fn stop_readers(&mut self) -> Positions {
        let Some(readers) = self.readers.take() else { return Positions::default() };
        let mut stopping = tokio::task::spawn_blocking(|| readers.stop());
        let positions = loop {
            tokio::select! {
                Some(report) = self.reports.1.recv() => self.report(report),
                stopped = &mut stopping => break stopped.unwrap_or_default(),
            }
        };
        while let Ok(report) = self.reports.1.try_recv() {
            self.report(report);
        }
        positions
    }

    /// Hears the readers' first reports, so that the start can say which sources were found.
    async fn first_look(&mut self) {
        let deadline = tokio::time::Instant::now() + FIRST_LOOK;
        while !self.readers.as_ref().is_none_or(Readers::have_looked) {
            match tokio::time::timeout_at(deadline, self.reports.1.recv()).await {
                Ok(Some(report)) => self.report(report),
                _ => return,
            }
        }
    }

    /// When the engine or the kernel side next has something to do.
    fn due(&self) -> Option<Instant> {
        let now = (self.clock)();
        let of_engine = self.engine.next_wake().map(|due| {
            let micros = u64::try_from(due.micros() - now.micros()).unwrap_or(0);
            clock::monotonic() + Duration::from_micros(micros)
        });
        let of_kernel = self.enforcer.as_ref().map(Enforcer::next_due);
        of_engine
            .into_iter()
            .chain(of_kernel)
            .chain(self.keeper.due())
            .chain([self.sources_due])
            .min()
    }

    fn wake(&mut self) {
        let now = (self.clock)();
        if self.engine.next_wake().is_some_and(|due| due <= now) {
            self.event(Event::Wake);
        }
        if let Some(enforcer) = &mut self.enforcer
            && enforcer.next_due() <= clock::monotonic()
        {
            // Read anew: the engine's work may have taken a while, and a time that lags looks like a clock set back.
            let notices = enforcer.maintain((self.clock)());
            self.notices(notices);
        }
        if self.keeper.due().is_some_and(|due| due <= clock::monotonic()) {
            self.keeper.go_on(&mut self.engine);
        }
        if self.sources_due <= clock::monotonic() {
            self.look_at_sources();
        }
    }

    /// Looks for sources that may hide an attack.
    fn look_at_sources(&mut self) {
        self.sources_due = clock::monotonic() + SOURCES_EVERY;
        let Some(readers) = &self.readers else { return };
        let now = (self.clock)();
        let sources = silence::sources(&self.settings.jails, readers, now);
        for news in self.silence.look(&sources, now) {
            match news {
                News::Raised(what) => tracing::error!("{what}"),
                News::Over(what) => tracing::info!("{what}"),
            }
        }
    }

    async fn finish(mut self, detach: bool, socket: &std::path::Path) -> anyhow::Result<Ended> {
        let positions = self.stop_readers().await;
        self.keeper.close(&mut self.engine, &positions).await;
        let _ = std::fs::remove_file(socket);
        let enforced =
            if self.enforcer.is_some() && !detach { self.engine.bans().len() } else { 0 };
        match self.enforcer.take() {
            Some(enforcer) if detach => {
                enforcer.detach().context("cannot detach")?;
                Ok(Ended { enforced, detached: true })
            }
            _ => Ok(Ended { enforced, detached: false }),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        // A sleep takes a millisecond at least, also one that is over: bans that end by the thousand
        // cannot wait so long between two handfuls.
        Some(due) if due <= clock::monotonic() => tokio::task::yield_now().await,
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

async fn resolve(name: &str) -> Vec<IpAddr> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(addresses) => {
            let unique: HashSet<IpAddr> =
                addresses.map(|address| address.ip().to_canonical()).collect();
            unique.into_iter().collect()
        }
        Err(_) => Vec::new(),
    }
}
