//! The process: hears a daemon, sorts its tasks into the actions' queues, and tells what became of them.
use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixListener as StdListener,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Uid, geteuid};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    confine,
    shell::Shell,
    user::{self, RunAs},
    wire::{self, FromRunner, LONGEST_LINE, Standing, Task, ToRunner, VERSION},
    worker::{Definition, Doing, Job, Outbox, Worker},
};
use crate::config::{self, ActionSettings, AllowIpv6, JailName, Loaded, Settings, Severity, Tree};

/// How long running commands may go on when the runner is told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// Lines for the daemon that wait for it to read.
const OUTGOING: usize = 1024;
/// Tasks of one action that wait. A daemon keeps to its window, which is that of the largest batch at the most.
const QUEUE: usize = 65_536;

/// How a runner meets its daemon.
#[derive(Debug)]
pub enum Door {
    /// The daemon has started it and holds the other end.
    Inherited(OwnedFd),
    /// It waits for daemons, one after the other.
    Listen {
        /// The socket; mode 0600.
        path: PathBuf,
        /// A user beside root and its own whose daemon is served. `set … action …` is refused from it.
        daemon_user: Option<String>,
    },
}

/// What a runner needs.
pub struct Options {
    /// The same configuration as the daemon's.
    pub tree: Arc<dyn Tree + Send + Sync>,
    /// Whether this machine speaks IPv6, if it is to be found out.
    pub wants_ipv6: fn(AllowIpv6) -> bool,
    /// How it meets its daemon.
    pub door: Door,
}

/// Why a runner ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// It would have been able to change bans.
    #[error("cannot give up bpf(2): {0}")]
    Confine(io::Error),
    /// Nobody could reach it.
    #[error("cannot listen on `{path}`: {error}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// `--daemon-user` names nobody.
    #[error("there is no user `{0}`; name an existing one with --daemon-user")]
    NoUser(String),
    /// What the system says.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Serves until its daemon is gone, or for as long as it is let.
///
/// # Errors
/// What keeps it from serving.
pub fn run(options: Options) -> Result<(), RunnerError> {
    confine::give_up_bpf().map_err(RunnerError::Confine)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let (stop, stopping) = watch::channel(false);
        let mut runner = Runner::new(options.tree, options.wants_ipv6, stopping);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let serving = serve(&mut runner, options.door);
        let ended = tokio::select! {
            ended = serving => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        };
        // Nothing new begins; what runs may end, unless nobody is there to be told.
        stop.send_replace(true);
        runner.finish(GRACE).await;
        ended
    });
    // A look-up may hang in the resolver.
    runtime.shutdown_background();
    ended
}

async fn serve(runner: &mut Runner, door: Door) -> Result<(), RunnerError> {
    match door {
        Door::Inherited(fd) => {
            // Commands are not to have it.
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(io::Error::from)?;
            let stream = std::os::unix::net::UnixStream::from(fd);
            stream.set_nonblocking(true)?;
            runner.serve(UnixStream::from_std(stream)?).await;
            // Another runner will be told to do what is undone: it must not run beside what still runs here.
            runner.workers.abort_all();
            Ok(())
        }
        Door::Listen { path, daemon_user } => {
            let user = match daemon_user {
                None => None,
                Some(name) => Some(user::look_up(&name).ok_or(RunnerError::NoUser(name))?.uid),
            };
            let listener = listen(&path, user)
                .map_err(|error| RunnerError::Listen { path: path.clone(), error })?;
            eprintln!("fail2xdp action-runner listens on {}", path.display());
            loop {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred()?.uid();
                let is_known = peer == 0
                    || peer == geteuid().as_raw()
                    || user.is_some_and(|user| user.as_raw() == peer);
                match is_known {
                    true => runner.serve(stream).await,
                    false => eprintln!("a process of user {peer} is sent away"),
                }
            }
        }
    }
}

/// A socket that nobody else may open, not even for a moment.
fn listen(path: &Path, user: Option<Uid>) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::other("there is a file that is no socket"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::other("another action runner listens there"));
        }
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = StdListener::bind(path);
    rustix::process::umask(mask);
    let listener = bound?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    if let Some(user) = user {
        rustix::fs::chown(path, Some(user), None)?;
    }
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// An action's queue.
struct Entry {
    definition: Arc<Definition>,
    jobs: mpsc::Sender<Job>,
    /// The configuration has it no more; its last task is still to come.
    is_removed: bool,
}

/// An action by its jail and name.
type Key = (String, String);

struct Runner {
    tree: Arc<dyn Tree + Send + Sync>,
    wants_ipv6: fn(AllowIpv6) -> bool,
    stopping: watch::Receiver<bool>,
    /// `None` until a configuration was read.
    shell: Option<Arc<Shell>>,
    actions: HashMap<Key, Entry>,
    /// Tasks that wait for a configuration that can be read: a fault in it is no reason to lose them.
    waiting: Vec<(Task, Outbox)>,
    /// As read last.
    settings: Option<Settings>,
    /// Jails that cannot be read.
    broken: BTreeSet<String>,
    /// What the runner before this one knew of actions that have done nothing yet.
    standings: HashMap<Key, Standing>,
    workers: JoinSet<()>,
    /// What writes to the daemon that is served.
    writing: Option<JoinHandle<()>>,
}

impl Runner {
    fn new(
        tree: Arc<dyn Tree + Send + Sync>,
        wants_ipv6: fn(AllowIpv6) -> bool,
        stopping: watch::Receiver<bool>,
    ) -> Runner {
        Runner {
            tree,
            wants_ipv6,
            stopping,
            shell: None,
            actions: HashMap::new(),
            waiting: Vec::new(),
            settings: None,
            broken: BTreeSet::new(),
            standings: HashMap::new(),
            workers: JoinSet::new(),
            writing: None,
        }
    }

    /// Hears one daemon to its end.
    async fn serve(&mut self, stream: UnixStream) {
        let peer = stream.peer_cred().map(|peer| peer.uid());
        let may_set = peer.is_ok_and(|peer| peer == 0 || peer == geteuid().as_raw());
        let (read, mut write) = stream.into_split();
        let (lines, mut outgoing) = mpsc::channel::<FromRunner>(OUTGOING);
        self.writing = Some(tokio::spawn(async move {
            while let Some(line) = outgoing.recv().await {
                let Ok(mut line) = serde_json::to_vec(&line) else { continue };
                line.push(b'\n');
                if write.write_all(&line).await.is_err() {
                    return;
                }
            }
        }));
        let outbox = Outbox::new(lines);
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        while let Some(said) = next(&mut read, &mut line).await {
            if let Err(why) = self.hear(said, may_set, &outbox).await {
                eprintln!("the daemon is left: {why}");
                break;
            }
        }
        // Whoever still has a task of this daemon finds its box closed.
        if let Some(writing) = self.writing.take() {
            writing.abort();
            let _ = writing.await;
        }
    }

    async fn hear(
        &mut self,
        said: Result<ToRunner, String>,
        may_set: bool,
        outbox: &Outbox,
    ) -> Result<(), String> {
        match said? {
            ToRunner::Hello { version, standings } => {
                outbox.say(FromRunner::Hello { version: VERSION }).await;
                if version != VERSION {
                    return Err(format!("it speaks version {version}, this is {VERSION}"));
                }
                let key = |it: &Standing| (it.jail.clone(), it.action.clone());
                self.standings = standings.into_iter().map(|it| (key(&it), it)).collect();
                self.waiting.clear();
                self.read(outbox).await?;
            }
            ToRunner::Reload => self.read(outbox).await?,
            ToRunner::Do(task) => self.queue(task, outbox).await?,
            ToRunner::Set { id, jail, action, property, value } => {
                let refused = match may_set {
                    true => self.set((jail, action), &property, &value).err(),
                    false => Some(
                        "the daemon runs as another user than the action runner and may not change commands; change the configuration"
                            .to_owned(),
                    ),
                };
                outbox.say(FromRunner::Answer { id, refused }).await;
            }
            ToRunner::Add { jail, action } => self.add((jail, action)),
            ToRunner::Ping => outbox.say(FromRunner::Pong).await,
        }
        Ok(())
    }

    /// Reads the configuration.
    async fn read(&mut self, outbox: &Outbox) -> Result<(), String> {
        let tree = Arc::clone(&self.tree);
        let read = tokio::task::spawn_blocking(move || config::load(tree.as_ref())).await;
        let problems = match read {
            Ok(Ok(loaded)) => self.take(&loaded),
            Ok(Err(problems)) => problems.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        outbox.say(FromRunner::Read { problems }).await;
        for (task, outbox) in std::mem::take(&mut self.waiting) {
            self.queue(task, &outbox).await?;
        }
        Ok(())
    }

    /// Takes over what the configuration says of actions, and tells what is wrong.
    fn take(&mut self, loaded: &Loaded) -> Vec<String> {
        let settings = &loaded.settings;
        let user = RunAs::of(settings.action_user.as_deref());
        let mut problems = Vec::new();
        let faults = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let jails = faults.filter_map(|problem| problem.jail.as_ref());
        self.settings = Some(settings.clone());
        let is_there = |jail: &&JailName| settings.jails.iter().any(|known| known.name == **jail);
        self.broken = jails.filter(|jail| !is_there(jail)).map(ToString::to_string).collect();
        problems.extend(self.broken.iter().map(|jail| {
            format!(
                "jail '{jail}' is broken in the configuration: what its actions are to do waits"
            )
        }));
        if let RunAs::Nobody(why) = &user {
            problems.push(format!("{why}; until then no command is run"));
        }
        if self.shell.as_ref().is_none_or(|shell| shell.user != user) {
            self.shell = Some(Arc::new(Shell::new(user, false)));
        }
        let ipv6 = (self.wants_ipv6)(settings.allow_ipv6);
        self.actions.values_mut().for_each(|entry| entry.is_removed = true);
        for jail in &settings.jails {
            for action in &jail.actions {
                let definition = Definition::new(action, jail.ban_time, settings, ipv6);
                let definition = Arc::new(definition);
                let key = (jail.name.to_string(), action.name.clone());
                match self.actions.get_mut(&key) {
                    Some(entry) => {
                        entry.definition = definition;
                        entry.is_removed = false;
                    }
                    None => {
                        let entry = self.begin(&key, definition);
                        self.actions.insert(key, entry);
                    }
                }
            }
        }
        problems
    }

    fn begin(&mut self, key: &Key, definition: Arc<Definition>) -> Entry {
        let standing = self.standings.remove(key).unwrap_or_else(|| unknown(key));
        let (jobs, queue) = mpsc::channel(QUEUE);
        self.workers.spawn(Worker::new(standing, queue, self.stopping.clone()).run());
        Entry { definition, jobs, is_removed: false }
    }

    async fn queue(&mut self, task: Task, outbox: &Outbox) -> Result<(), String> {
        let key = (task.jail.clone(), task.action.clone());
        let too_many = format!("it hands over more than {QUEUE} tasks of one action");
        let entry = self.actions.get(&key);
        // The daemon goes on with what it has of a jail that is broken by now; who begins anew cannot.
        let waits = entry.is_none() && self.broken.contains(&task.jail);
        let Some(shell) = self.shell.as_ref().filter(|_| !waits) else {
            self.waiting.push((task, outbox.clone()));
            return if self.waiting.len() > QUEUE { Err(too_many) } else { Ok(()) };
        };
        let Some(entry) = entry else {
            let failed = Some(format!(
                "jail '{}' has no action '{}' in the configuration",
                task.jail, task.action
            ));
            outbox.say(FromRunner::Done { seq: task.seq, failed, standing: unknown(&key) }).await;
            return Ok(());
        };
        let is_last = entry.is_removed && task.kind == wire::Kind::Stop;
        let definition = Arc::clone(&entry.definition);
        let (shell, outbox) = (Arc::clone(shell), outbox.clone());
        let sent = entry.jobs.try_send(Job { task, definition, shell, outbox });
        if is_last {
            self.actions.remove(&key);
        }
        sent.map_err(|_| too_many)
    }

    /// An action without commands can do nothing: any daemon may have it.
    fn add(&mut self, key: Key) {
        let Some(settings) = &self.settings else { return };
        if self.actions.contains_key(&key) {
            return;
        }
        let jail = settings.jails.iter().find(|jail| jail.name.as_str() == key.0);
        let ban_time = jail.map_or(settings.default_ban_time, |jail| jail.ban_time);
        let action = ActionSettings::without_commands(&key.0, &key.1);
        let ipv6 = (self.wants_ipv6)(settings.allow_ipv6);
        let definition = Arc::new(Definition::new(&action, ban_time, settings, ipv6));
        let entry = self.begin(&key, definition);
        self.actions.insert(key, entry);
    }

    fn set(&mut self, key: Key, property: &str, value: &str) -> Result<(), String> {
        let entry = self.actions.get_mut(&key);
        let entry = entry.ok_or_else(|| format!("Invalid Action name: {}", key.1))?;
        let mut definition = Definition::clone(&entry.definition);
        match &mut definition.doing {
            Doing::Commands(recipe) => {
                recipe.properties.set(property, value).map_err(|error| error.to_string())?;
            }
            Doing::Native(native) => {
                *native = native.with(property, value).map_err(|faults| {
                    let faults = faults.iter().map(|it| format!("{}; {}", it.what, it.remedy));
                    faults.collect::<Vec<_>>().join("; ")
                })?;
            }
        }
        entry.definition = Arc::new(definition);
        Ok(())
    }

    /// Waits for what runs; then ends it.
    async fn finish(&mut self, grace: Duration) {
        self.actions.clear();
        self.waiting.clear();
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            self.workers.shutdown().await;
        }
        // Nobody holds the box any more: what is in it goes out.
        if let Some(writing) = self.writing.take() {
            let _ = tokio::time::timeout(grace, writing).await;
        }
    }
}

fn unknown((jail, action): &Key) -> Standing {
    Standing { jail: jail.clone(), action: action.clone(), ..Standing::default() }
}

/// The next thing said; `None` at the end.
async fn next(
    read: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> Option<Result<ToRunner, String>> {
    line.clear();
    let most = LONGEST_LINE as u64 + 1;
    match read.take(most).read_until(b'\n', line).await {
        Ok(0) => None,
        Ok(_) if !line.ends_with(b"\n") => match line.len() as u64 == most {
            true => Some(Err(format!("it says more than {LONGEST_LINE} bytes at once"))),
            false => None,
        },
        Ok(_) => Some(serde_json::from_slice(line).map_err(|error| error.to_string())),
        Err(error) => Some(Err(error.to_string())),
    }
}
