//! Debian's fail2ban, run beside us: unpacked aside by `cargo xtask test`, or installed. Nothing of it is copied.
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::{
    net::Namespace,
    run::{output, tool},
    wait::within,
};

#[path = "../../detector/tests/peer/place.rs"]
mod place;

pub use place::config as fail2ban_config;

/// The sample logs that Debian's package brings.
#[track_caller]
pub fn fail2ban_samples() -> PathBuf {
    place::tests().join("files/logs")
}

/// Python with fail2ban at hand, running this script. It writes nothing beside fail2ban's files.
#[track_caller]
pub fn fail2ban(script: &str) -> Command {
    // The interpreter that Debian's programs name; another in `PATH` may be too new for them.
    let debian = Path::new("/usr/bin/python3");
    let python = if debian.exists() { debian.to_owned() } else { tool("python3") };
    let mut command = Command::new(python);
    command.arg("-c").arg(script);
    command.env("PYTHONPATH", place::packages()).env("PYTHONDONTWRITEBYTECODE", "1");
    // It prints the locale's encoding by whatever name the locale has for it.
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Runs fail2ban's server in the foreground.
const SERVER: &str = r#"
import sys
from fail2ban.client.fail2banserver import exec_command_line
sys.exit(exec_command_line(["fail2ban-server"] + sys.argv[1:]))
"#;

/// Runs commands through fail2ban's client, each given as a line of JSON, and answers each with its exit status and what
/// it printed on both streams. One process for all: Python takes long to start.
const CLIENT: &str = r#"
import io, json, sys
from fail2ban.client import fail2banclient
from fail2ban.client.fail2bancmdline import logSys
place = sys.argv[1:]
for line in sys.stdin:
    streams, logSys.handlers[:] = (sys.stdout, sys.stderr), []
    sys.stdout, sys.stderr = out, err = io.StringIO(), io.StringIO()
    try:
        status = 0 if fail2banclient.Fail2banClient().start(["fail2ban-client"] + place + json.loads(line)) else 255
    except SystemExit as end:
        status = end.code
    sys.stdout, sys.stderr = streams
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"#;

/// What a command of fail2ban's client ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Exit status.
    pub status: i64,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Debian's unmodified fail2ban-client, talking to one socket.
#[derive(Debug)]
pub struct Fail2banClient {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Fail2banClient {
    /// Starts it with the configuration in `folder/etc`, as [`Fail2ban::configure`] has written it.
    #[track_caller]
    pub fn start(folder: &Path) -> Fail2banClient {
        let mut command = fail2ban(CLIENT);
        command.arg("-c").arg(folder.join("etc")).arg("-s").arg(folder.join("sock"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts: install the package `python3`");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Fail2banClient { child, answers }
    }

    /// Runs one command.
    #[track_caller]
    pub fn run(&mut self, words: &[&str]) -> Told {
        let input = self.child.stdin.as_mut().expect("it is piped");
        writeln!(input, "{}", serde_json::json!(words)).expect("the client reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the client answers");
        let answer: serde_json::Value = serde_json::from_str(&line).expect(&line);
        let text = |nth: usize| answer[nth].as_str().expect("text").to_owned();
        Told { status: answer[0].as_i64().expect("a number"), out: text(1), err: text(2) }
    }
}

impl Drop for Fail2banClient {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Writes a program that is fail2ban's client for the server of `folder`, for tools that call it.
#[track_caller]
pub fn fail2ban_client_script(folder: &Path) -> String {
    format!(
        "#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH='{}' exec /usr/bin/python3 -c 'import sys\n\
         from fail2ban.client.fail2banclient import exec_command_line\n\
         exec_command_line([\"fail2ban-client\"] + sys.argv[1:])' -c '{}' -s '{}' \"$@\"\n",
        place::packages().display(),
        folder.join("etc").display(),
        folder.join("sock").display()
    )
}

/// Runs fail2ban's client once.
const ASK: &str = r#"
import sys
from fail2ban.client.fail2banclient import exec_command_line
sys.exit(exec_command_line(["fail2ban-client"] + sys.argv[1:]))
"#;

/// The same command, in a network namespace.
fn within_namespace(namespace: &Namespace, command: &Command) -> Command {
    let mut inside = namespace.command(command.get_program());
    inside.args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| inside.env(name, value));
    }
    inside
}

/// An action that writes down whom it is told to ban, and does no more.
const RECORD: &str = r#"
from fail2ban.server.action import ActionBase
class Action(ActionBase):
    def __init__(self, jail, name, path=None):
        super().__init__(jail, name)
        self.out = open(path, "a", buffering=1)
    def ban(self, info):
        self.out.write("%s %s %d %d\n" % (self._jail.name, info["ip"], info["time"], info["failures"]))
"#;

/// Plays logs to fail2ban's filters, failure counts and bans, without the threads and sockets of its server: of each jail
/// named, line by line, its clock set to the time that stands for the line in `JAIL.times`.
///
/// When lapsed failures are cleared away depends on how busy its server is. Here they are when we do it: every 20 seconds
/// from the first failure on.
const PLAYER: &str = r#"
import logging, sys
logging.disable(logging.CRITICAL)
from fail2ban.client.configurator import Configurator
from fail2ban.server import utils
from fail2ban.server.mytime import MyTime
from fail2ban.server.server import Server
utils.time = MyTime
folder, names = sys.argv[1], sys.argv[2:]
config = Configurator()
config.setBaseDir(folder + "/etc")
config.readAll()
assert config.getOptions()
config.convertToProtocol(allow_no_files=True)
server, added = Server(), set()
for command in config.getConfigStream():
    if command[0] == "add":
        added.add(command[1])
    elif command[1] not in added or command[0] == "start" or command[2] == "addlogpath":
        continue
    failed, why = server._Server__transm.proceed(command)
    assert not failed, (command, why)
for name in names:
    jail = server._Server__jails[name]
    reader, actions, counts = jail.filter, jail.actions, jail.filter.failManager
    reader.inOperation, reader.sleeptime = True, 0
    clear, counts.cleanup, forget = counts.cleanup, lambda time: None, None
    log = "%s/%s." % (folder, name)
    with open(log + "log", encoding="utf-8", newline="\n") as lines, open(log + "times") as times:
        for line, now in zip(lines, map(float, times)):
            # What ends on a line's second has ended: the line was written within it.
            MyTime.setTime(now + 0.001)
            actions._Actions__checkUnBan(sys.maxsize)
            MyTime.setTime(now)
            while forget is not None and forget <= now:
                clear(forget)
                forget = forget + 20 if counts.size() else None
            before = counts.getFailTotal()
            reader.processLineAndAdd(line.rstrip("\r\n"))
            if forget is None and counts.getFailTotal() > before:
                forget = now + 20
            if jail.hasFailTickets:
                actions._Actions__checkBan()
"#;

/// A ban as fail2ban and we both tell it: jail, address, Unix time of its last failure, failures.
pub type ToldBan = (String, IpAddr, i64, u64);

/// fail2ban's server with a socket, a database and an action of its own; dropping it ends it.
#[derive(Debug)]
pub struct Fail2ban {
    folder: PathBuf,
    child: Child,
}

impl Fail2ban {
    /// Writes a configuration with these jails into `folder/etc`, on which both programs can run. Debian's
    /// filters are used where they lie; bans are recorded and nothing else.
    #[track_caller]
    pub fn configure(folder: &Path, jails: &str) {
        let tree = folder.join("etc");
        fs::create_dir_all(tree.join("action.d")).expect("a directory");
        symlink(fail2ban_config().join("filter.d"), tree.join("filter.d")).expect("a link");
        fs::write(tree.join("action.d/record.py"), RECORD).expect("a file");
        let at = |name: &str| folder.join(name).display().to_string();
        let (log, socket, pid) = (at("fail2ban.log"), at("sock"), at("pid"));
        let server = format!(
            "[DEFAULT]\nloglevel = INFO\nlogtarget = {log}\nsyslogsocket = auto\nsocket = {socket}\n\
             pidfile = {pid}\ndbfile = {}\ndbpurgeage = 1d\n[Definition]\n",
            at("db.sqlite3")
        );
        fs::write(tree.join("fail2ban.conf"), server).expect("a file");
        let record = at("record");
        let defaults = format!(
            "[DEFAULT]\nbackend = polling\nusedns = no\nignoreself = false\nfindtime = 3600\n\
             bantime = 86400\naction = record.py[path=\"{record}\"]\n"
        );
        fs::write(tree.join("jail.conf"), defaults + jails).expect("a file");
    }

    /// Starts the server on that configuration, in this time zone.
    #[track_caller]
    pub fn start(folder: &Path, zone: &str) -> Fail2ban {
        let mut command = fail2ban(SERVER);
        command.env("TZ", zone);
        Fail2ban::spawn(command, folder)
    }

    /// Starts the server on the configuration `folder/etc`, in a network namespace.
    #[track_caller]
    pub fn start_in(namespace: &Namespace, folder: &Path) -> Fail2ban {
        Fail2ban::spawn(within_namespace(namespace, &fail2ban(SERVER)), folder)
    }

    #[track_caller]
    fn spawn(mut command: Command, folder: &Path) -> Fail2ban {
        command.arg("-f").arg("-c").arg(folder.join("etc")).arg("start");
        // What it says there stands in its log, too.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("python3 starts: install the package `python3`");
        Fail2ban { folder: folder.to_owned(), child }
    }

    /// Bans of these jails by fail2ban's own parts, each line of `folder/JAIL.log` read at the Unix time that stands for it
    /// in `folder/JAIL.times`.
    #[track_caller]
    pub fn play(folder: &Path, zone: &str, jails: &[&str]) -> BTreeSet<ToldBan> {
        let mut command = fail2ban(PLAYER);
        command.arg(folder).args(jails).env("TZ", zone);
        let said = output(&mut command);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        recorded(folder)
    }

    /// The bans so far.
    pub fn bans(&self) -> BTreeSet<ToldBan> {
        recorded(&self.folder)
    }

    /// What its client answers to these words.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> String {
        let mut command = fail2ban(ASK);
        command.arg("-c").arg(self.folder.join("etc")).args(words);
        let output = command.output().expect("python3 starts: install the package `python3`");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("fail2ban.log")).unwrap_or_default()
    }
}

/// The bans that the action wrote down. What has an address's shape and is none, such as 203.0.113.999, fail2ban bans
/// as text; we do not, on purpose, so that is left out here.
fn recorded(folder: &Path) -> BTreeSet<ToldBan> {
    let parse = |line: &str| -> Option<ToldBan> {
        let mut words = line.split(' ');
        let (jail, address) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        Some((jail, address, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    let record = fs::read_to_string(folder.join("record")).unwrap_or_default();
    record.lines().filter_map(parse).collect()
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let child = &mut self.child;
        let ended = within(Duration::from_secs(30), || child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- fail2ban said, newest first:\n{}\n---", last.join("\n"));
        }
    }
}
