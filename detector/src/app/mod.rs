//! Wiring: the only file that knows every room. One task owns the engine and the kernel's maps; everything
//! else sends it messages.
//!
//! Order of start: control socket (so that a second daemon stops before it touches anything), what is stored, kernel
//! maps and links, bans that ended or were lost meanwhile, names of `ignoreip`, bans of whom it names by now, readers.
//! Order of stop: readers, store, socket; the kernel goes on.
mod act;
mod answers;
mod commands;
mod compat;
mod explain;
mod feed;
mod give_ups;
mod guard;
mod keep;
mod listing;
mod logging;
mod measure;
mod requests;
mod restore;
mod silence;
mod skip;
mod surroundings;
mod telling;

use std::{
    collections::VecDeque,
    ffi::OsString,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use jiff::tz::TimeZone;
use tokio::sync::{Semaphore, mpsc};

pub(crate) use self::act::shown;
pub use self::logging::{LogFill, Logging};
pub(crate) use self::surroundings::wants_ipv6;
use self::{
    commands::ByHand,
    compat::Compat,
    give_ups::GiveUps,
    keep::Keeper,
    listing::Listing,
    requests::Next,
    silence::{News, Silence},
    telling::{TaskPlace, Telling},
};
use crate::{
    clock::{self, Clock},
    config::{self, Problem, Scope, Settings, Tree},
    control::{self, Asked, command::Reload, events::Events, wire},
    enforce::{self, EnforceError, Enforcer, LinkChange, Notice},
    engine::{Engine, Event, Limits, Matcher},
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
/// Runs of `ignorecommand` at once.
const COMMANDS: usize = 8;
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
    /// The command line names the log's level: a reload leaves it.
    pub level_is_named: bool,
    /// Remove program and maps at the end.
    pub detach_on_exit: bool,
    /// Detach and stop unless somebody confirms within this time that he is not locked out.
    pub confirm: Option<Duration>,
    /// The configuration, as read for this start.
    pub loaded: config::Loaded,
    /// The words of a command line that name this configuration.
    pub place: Vec<OsString>,
    /// Every text is searched by two engines, and a difference is told.
    pub verify_matching: bool,
    /// Where log lines go.
    pub log: Box<dyn Logging>,
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
    /// Because nobody confirmed in time.
    pub unconfirmed: bool,
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
    verify_matching: bool,
    give_ups: GiveUps,
    /// Failures that were lost for want of room while names were looked up, as said last.
    names_lost: u64,
    /// When the sources are looked at next.
    sources_due: Instant,
    /// When it detaches unless somebody confirms.
    pub(crate) confirm_by: Option<Instant>,
    /// News of the files of the allow list, and what they list.
    lists: mpsc::Receiver<guard::Found>,
    listed: Vec<(ipnet::IpNet, enforce::Why)>,
    keeper: Keeper,
    telling: Telling,
    listings: VecDeque<Listing>,
    /// Those who listen to events.
    feed: Events,
    requests: mpsc::WeakSender<Asked>,
    tree: Arc<dyn Tree + Send + Sync>,
    kernel: KernelOptions,
    level_is_named: bool,
    detach_on_exit: bool,
    clock: Clock,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    /// Lets so many of the operator's commands run at once.
    commands: Arc<Semaphore>,
    by_hand: Arc<Scope>,
    /// What commands have changed beside the settings.
    told: ByHand,
    log: Box<dyn Logging>,
    /// The log could not be written when it was looked at last.
    log_failed: bool,
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
    let requests = ask.downgrade();
    let mut serving = None;
    let metrics = options.loaded.settings.metrics.map(|address| (address, ask.clone()));
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
    if let Some((address, ask)) = metrics {
        match control::metrics::bind(address).await {
            Ok(listener) => {
                tokio::spawn(control::metrics::serve(listener, ask));
            }
            Err(error) => tracing::error!(
                "no metrics on {address}: {error}; name another `metrics` in fail2xdp.conf"
            ),
        }
    }
    let configured = skip::without_logs(options.loaded);
    let settings = configured.settings;
    let compat = match &settings.compat_socket {
        Some(path) => Compat::open(path, ask_compat).await,
        None => None,
    };
    let (tell, mut links) = mpsc::channel(64);
    // Also without the kernel side: own addresses change, and a wall clock that steps moves every end.
    let _watch = enforce::watch(tell)
        .inspect_err(|error| tracing::error!("changes of network and clock go unnoticed: {error}"))
        .ok();
    let mut engine = Engine::new(&settings.jails, Limits::from(&settings));
    // Of the system's own randomness: nobody outside shall know when a ban ends.
    engine.seed(RandomState::new().hash_one(clock::monotonic()));
    let file = options.state.as_ref().map(|dir| dir.join(crate::store::FILE));
    let (telling, mut told) = Telling::new(&settings, options.place, file, clock());
    let opening = Keeper::open(options.state, settings.store, clock);
    let (listed, lists) = surroundings::listed(&settings, clock);
    let kernel = (options.kernel)(&settings).map(|mut kernel| {
        kernel.also_allow.clone_from(&listed);
        kernel
    });
    let (keeper, loaded, enforcer, adopted) = match kernel {
        None => {
            let (keeper, loaded) = opening.await;
            (keeper, loaded, None, Vec::new())
        }
        // These maps are taken as they are: what is stored can be read meanwhile.
        Some(kernel) if enforce::has_maps(&kernel.pin_dir) => {
            let starting = tokio::task::spawn_blocking(move || Enforcer::start(&kernel, clock()));
            let ((keeper, loaded), started) = tokio::join!(opening, starting);
            let (enforcer, adopted) = started.context("the start of enforcement panicked")??;
            (keeper, loaded, Some(enforcer), adopted)
        }
        Some(mut kernel) => {
            let (keeper, loaded) = opening.await;
            kernel.make_room_for(loaded.bans.iter().map(|ban| ban.prefix));
            let (enforcer, adopted) = Enforcer::start(&kernel, clock())?;
            (keeper, loaded, Some(enforcer), adopted)
        }
    };
    let mut daemon = Daemon {
        engine,
        enforcer,
        readers: None,
        settings,
        problems: configured.problems,
        alarms: Vec::new(),
        repairs: 0,
        silence: Silence::new(clock()),
        verify_matching: options.verify_matching,
        give_ups: GiveUps::default(),
        names_lost: 0,
        sources_due: clock::monotonic() + SOURCES_EVERY,
        confirm_by: options.confirm.map(|time| clock::monotonic() + time),
        lists,
        listed,
        keeper,
        telling,
        listings: VecDeque::new(),
        feed: Events::default(),
        requests,
        tree: options.tree,
        kernel: options.kernel,
        level_is_named: options.level_is_named,
        detach_on_exit: options.detach_on_exit,
        clock,
        reports: mpsc::channel(REPORTS),
        events: mpsc::unbounded_channel(),
        commands: Arc::new(Semaphore::new(COMMANDS)),
        by_hand: Arc::new(Scope::EveryPacket),
        told: ByHand::default(),
        log: options.log,
        log_failed: false,
    };
    let last_bans = restore::last_moments(&loaded.bans);
    let positions = daemon.take_up(adopted, loaded);
    daemon.surroundings();
    daemon.resolve_ignored().await;
    daemon.lift_ignored();
    daemon.announce_restored();
    daemon.remind(&last_bans);
    daemon.start_readers(positions);
    daemon.first_look().await;
    // Before anybody hears that we are ready: from then on an order to stop is carried out in order.
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    // As fail2ban's server takes it.
    let mut flush = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
    ready(&answers::status(&daemon));

    let mut news = daemon.keeper.news();
    let mut unconfirmed = false;
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
            Some(news) = told.recv() => daemon.runner_says(news),
            loaded = daemon.keeper.late() => daemon.take_up_late(loaded),
            Some(asked) = asked.recv() => match daemon.answer(asked).await {
                Next::GoOn => {}
                Next::Stop { detach } => break detach,
            },
            Some(found) = daemon.lists.recv() => daemon.lists_say(found),
            () = sleep_until(daemon.confirm_by), if daemon.confirm_by.is_some() => {
                tracing::error!("nobody confirmed with `fail2xdp confirm`: nothing is enforced any longer");
                unconfirmed = true;
                break true;
            }
            _ = interrupt.recv() => break daemon.detach_on_exit,
            _ = terminate.recv() => break daemon.detach_on_exit,
            _ = hangup.recv() => match daemon.reload(&Reload::default()).await {
                Ok(_) => tracing::info!("configuration reloaded"),
                Err(error) => tracing::error!("the configuration was not reloaded: {error}"),
            },
            _ = flush.recv() => drop(daemon.log.flush()),
            () = std::future::ready(()), if !daemon.listings.is_empty() => daemon.list_on(),
            () = sleep_until(due) => daemon.wake(),
        }
    };
    if daemon.verify_matching {
        let (texts, differing) = daemon.give_ups.verified();
        tracing::info!(
            "two engines searched {texts} texts and said the same of all but {differing}"
        );
    }
    let ended = daemon.finish(detach, &options.socket, &mut told).await;
    let ended = ended.map(|ended| Ended { unconfirmed, ..ended });
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
            let told = self.event_of(&effect);
            match self.carry_out(effect) {
                Ok(changed) => {
                    carried.changed += usize::from(changed);
                    if let Some(event) = told {
                        self.feed.tell(&event);
                    }
                }
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
                self.tell_event("alarm", &notice.to_string());
                self.alarms.push(notice.to_string());
                let surplus = self.alarms.len().saturating_sub(16);
                self.alarms.drain(..surplus);
            } else {
                tracing::info!("{notice}");
            }
        }
    }

    fn start_readers(&mut self, from: Positions) {
        let mut jails = Vec::new();
        self.give_ups = GiveUps::default();
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
            if self.verify_matching {
                matcher.verify();
            }
            self.give_ups.watch(&jail.name, &matcher);
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
            self.keeper.go_on(&mut self.engine, &self.telling);
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
                News::Raised(what) => {
                    tracing::error!("{what}");
                    self.tell_event("alarm", &what);
                }
                News::Over(what) => {
                    tracing::info!("{what}");
                    self.tell_event("over", &what);
                }
            }
        }
        for what in self.give_ups.news(now) {
            tracing::warn!("{what}");
        }
        self.look_at_log();
        let lost = self.engine.names().lost;
        if lost > self.names_lost {
            tracing::warn!("{lost} failures are not counted: too many names were being looked up");
            self.names_lost = lost;
        }
    }

    async fn finish(
        mut self,
        detach: bool,
        socket: &Path,
        told: &mut mpsc::Receiver<telling::News>,
    ) -> anyhow::Result<Ended> {
        let positions = self.stop_readers().await;
        self.stop_actions(told).await;
        self.keeper.close(&mut self.engine, &self.telling, &positions).await;
        let _ = std::fs::remove_file(socket);
        let enforced =
            if self.enforcer.is_some() && !detach { self.engine.bans().len() } else { 0 };
        match self.enforcer.take() {
            Some(enforcer) if detach => {
                enforcer.detach().context("cannot detach")?;
                Ok(Ended { enforced, detached: true, unconfirmed: false })
            }
            _ => Ok(Ended { enforced, detached: false, unconfirmed: false }),
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
