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

use crate::{run::tool, wait::within};

/// Its configuration directory.
#[track_caller]
pub fn fail2ban_config() -> PathBuf {
    let aside = std::env::var_os("FAIL2XDP_FAIL2BAN_TREE").map(PathBuf::from);
    let config = aside.unwrap_or_else(|| PathBuf::from("/etc/fail2ban"));
    assert!(
        config.join("jail.conf").is_file(),
        "there is no fail2ban in `{}`: run `cargo xtask test`, which unpacks one, or unpack it with \
         `apt-get download fail2ban && dpkg -x fail2ban_*.deb DIR` and set FAIL2XDP_FAIL2BAN_TREE=DIR/etc/fail2ban",
        config.display()
    );
    config
}

/// The directory that its packages of Python lie in.
fn packages() -> PathBuf {
    let config = fail2ban_config();
    let root = config.parent().and_then(Path::parent).expect("`etc/fail2ban` below some directory");
    root.join("usr/lib/python3/dist-packages")
}

/// The sample logs that Debian's package brings.
#[track_caller]
pub fn fail2ban_samples() -> PathBuf {
    let samples = packages().join("fail2ban/tests/files/logs");
    assert!(
        samples.is_dir(),
        "this fail2ban brings no `{}`: take Debian's package 1.0.2",
        samples.display()
    );
    samples
}

/// Python with fail2ban at hand, running this script. It writes nothing beside fail2ban's files.
#[track_caller]
pub fn fail2ban(script: &str) -> Command {
    // The interpreter that Debian's programs name; another in `PATH` may be too new for them.
    let debian = Path::new("/usr/bin/python3");
    let python = if debian.exists() { debian.to_owned() } else { tool("python3") };
    let mut command = Command::new(python);
    command.arg("-c").arg(script);
    command.env("PYTHONPATH", packages()).env("PYTHONDONTWRITEBYTECODE", "1");
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
        packages().display(),
        folder.join("etc").display(),
        folder.join("sock").display()
    )
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
        command.arg("-f").arg("-c").arg(folder.join("etc")).arg("start").env("TZ", zone);
        // What it says there stands in its log, too.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("python3 starts: install the package `python3`");
        Fail2ban { folder: folder.to_owned(), child }
    }

    /// The bans so far. What has an address's shape and is none, such as 203.0.113.999, it bans as text;
    /// we do not, on purpose, so that is left out here.
    pub fn bans(&self) -> BTreeSet<ToldBan> {
        let parse = |line: &str| -> Option<ToldBan> {
            let mut words = line.split(' ');
            let (jail, address) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            Some((jail, address, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        let record = fs::read_to_string(self.folder.join("record")).unwrap_or_default();
        record.lines().filter_map(parse).collect()
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("fail2ban.log")).unwrap_or_default()
    }
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
