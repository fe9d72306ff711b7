//! Everything one daemon is given: configuration, socket, state, a bpffs of its own.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Daemon, Log, Net,
    run::{binary, output, repository, run, tool},
    wait::until,
};

/// The user without any rights.
const NOBODY: &str = "65534";

/// Long enough for anything the daemon does at once, also on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A daemon's place in the world; it outlives the daemons that run on it one after another.
///
/// Dropping it lifts all enforcement: the bpffs that holds the pins is unmounted, and with the last
/// reference to them program, maps and links go.
#[derive(Debug)]
pub struct Site<'net> {
    net: &'net Net,
    directory: TempDir,
    binary: PathBuf,
}

impl<'net> Site<'net> {
    /// The shipped configuration, without any jail enabled.
    #[track_caller]
    pub fn new(net: &'net Net) -> Site<'net> {
        let directory = tempfile::Builder::new()
            .prefix(&format!("f2x-{}-", std::process::id()))
            .tempdir()
            .expect("a temporary directory can be made");
        let site = Site { net, directory, binary: binary() };
        for name in ["config", "state", "bpf"] {
            fs::create_dir(site.path(name)).expect("the directory is new");
        }
        run("mount", &["-t", "bpf", "bpf", &site.path("bpf").display().to_string()]);
        copy(&repository().join("config"), &site.path("config"));
        site.write("config/jail.d/none.conf", "[sshd]\nenabled = no\n");
        site
    }

    /// Writes `jail.local`; jails that it does not enable stay off.
    #[track_caller]
    pub fn jails(&self, text: &str) {
        self.write("config/jail.local", text);
    }

    /// A section for `jail.local`: sshd's filter over a log of this site, with these further options.
    pub fn jail(&self, name: &str, log: &str, options: &str) -> String {
        let log = self.path(log);
        let log = log.display();
        format!(
            "[{name}]\nenabled = true\nfilter = sshd[count=logins]\nbackend = pyinotify\nlogpath = {log}\n{options}\n\n"
        )
    }

    /// Writes `fail2xdp.local`.
    #[track_caller]
    pub fn settings(&self, text: &str) {
        self.write("config/fail2xdp.local", text);
    }

    /// Opens a log in this site's directory.
    #[track_caller]
    pub fn log(&self, name: &str) -> Log {
        Log::open(self.path(name))
    }

    /// A path below this site's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the daemon pins.
    pub fn pins(&self) -> PathBuf {
        self.path("bpf/fail2xdp")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path("fail2xdp.sock")
    }

    /// Writes a file below this site's directory, making its parents.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it lies below the site"))
            .expect("directories can be made");
        fs::write(&path, text).expect("the site can be written");
        path
    }

    /// The flags that say where this site lies.
    pub fn flags(&self) -> Vec<String> {
        let place = |flag: &str, path: PathBuf| [flag.to_owned(), path.display().to_string()];
        [
            place("--config", self.path("config")),
            place("--socket", self.socket()),
            place("--state", self.path("state")),
            place("--pin", self.pins()),
        ]
        .concat()
    }

    /// `fail2xdp` in the server's namespace, told nothing of this site.
    pub fn command_without_flags(&self) -> Command {
        self.net.server.command(&self.binary)
    }

    /// `fail2xdp` on this site, in the server's namespace, not yet started.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.net.server.command(&self.binary);
        command.args(self.flags()).args(words);
        command
    }

    /// The same, started by the user nobody; [`Site::open_to_nobody`] comes first.
    #[track_caller]
    pub fn command_of_nobody(&self, words: &[&str]) -> Command {
        let mut command = self.net.server.command(tool("setpriv"));
        command
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"])
            .arg(&self.binary);
        command.args(self.flags()).args(words);
        command
    }

    /// The same as root, but first a line of shell changes a view of the file system that only it sees.
    #[track_caller]
    pub fn command_after(&self, change: &str, words: &[&str]) -> Command {
        let mut command = self.net.server.command(tool("unshare"));
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{change} && exec \"$0\" \"$@\"")).arg(&self.binary);
        command.args(self.flags()).args(words);
        command
    }

    /// Lets the user nobody live here: read, write, and run a copy of the daemon.
    #[track_caller]
    pub fn open_to_nobody(&mut self) {
        let copy = self.path("fail2xdp");
        // By a process of its own: a program that another test starts meanwhile would inherit our open copy, and
        // the kernel runs no file that somebody may write.
        run("cp", &[&self.binary.to_string_lossy(), &copy.to_string_lossy()]);
        self.binary = copy;
        for name in ["", "state"] {
            let nobody = NOBODY.parse().ok();
            std::os::unix::fs::chown(self.path(name), nobody, nobody).expect("tests run as root");
        }
    }

    /// Runs one verb to its end.
    #[track_caller]
    pub fn output(&self, words: &[&str]) -> Output {
        output(&mut self.command(words))
    }

    /// What a verb that succeeds prints.
    #[track_caller]
    pub fn text(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "`fail2xdp {}`: {}: {said}{complained}",
            words.join(" "),
            output.status
        );
        said
    }

    /// What a verb that fails says on stderr.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success(),
            "`fail2xdp {}` succeeded: {said}{complained}",
            words.join(" ")
        );
        complained
    }

    /// What a verb prints with `--json`.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let said = self.text(&[words, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| {
            panic!("`fail2xdp {} --json` is no JSON ({error}): {said}", words.join(" "))
        })
    }

    /// Starts the daemon on `s0` and waits until it protects.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        self.start_with(&["--interface", "s0"])
    }

    /// Starts the daemon with these further flags and waits until it protects.
    #[track_caller]
    pub fn start_with(&self, words: &[&str]) -> Daemon {
        Daemon::start(self.command(&[&["run"], words].concat()))
    }

    /// The bans as `bans --json` lists them.
    #[track_caller]
    pub fn bans(&self) -> Vec<Value> {
        self.json(&["bans"]).as_array().expect("`bans --json` is a list").clone()
    }

    /// The bans on a prefix, one for each jail that holds it.
    #[track_caller]
    pub fn bans_of(&self, prefix: &str) -> Vec<Value> {
        self.bans().into_iter().filter(|ban| ban["prefix"] == prefix).collect()
    }

    /// Waits until a prefix is banned and gives that ban.
    #[track_caller]
    pub fn wait_banned(&self, prefix: &str) -> Value {
        until(SOON, &format!("a ban on `{prefix}`"), || self.bans_of(prefix).pop())
    }

    /// Waits until no jail bans a prefix any more.
    #[track_caller]
    pub fn wait_unbanned(&self, prefix: &str, limit: Duration) {
        until(limit, &format!("no ban on `{prefix}`"), || {
            self.bans_of(prefix).is_empty().then_some(())
        });
    }

    /// The bans on a prefix are lifted by hand and are seen to be gone.
    #[track_caller]
    pub fn unban(&self, prefix: &str) {
        let lifted = self.json(&["unban", prefix])["lifted"].as_u64();
        assert_eq!(lifted, Some(1), "`unban {prefix}` lifts one ban");
        self.wait_unbanned(prefix, SOON);
    }

    /// Packets that the kernel counted under this name (`dropped`, `passed`, …).
    #[track_caller]
    pub fn counted(&self, counter: &str) -> u64 {
        let status = self.json(&["status"]);
        let packets = &status["enforcement"]["counters"][counter]["packets"];
        packets.as_u64().unwrap_or_else(|| panic!("no counter `{counter}` in {status}"))
    }

    /// Where one of the maps in use is pinned.
    #[track_caller]
    pub fn map(&self, name: &str) -> String {
        let status = self.json(&["status"]);
        let folder = status["enforcement"]["pins"].as_str();
        format!("{}/{name}", folder.unwrap_or_else(|| panic!("no pins in {status}")))
    }

    /// Waits until a jail follows all its log files.
    #[track_caller]
    pub fn wait_following(&self, jail: &str) {
        until(SOON, &format!("jail `{jail}` follows its files"), || {
            let jail = self.json(&["status", jail]);
            let files = jail["files"].as_array()?;
            let follows =
                |file: &Value| file["state"].to_string().to_lowercase().contains("following");
            (!files.is_empty() && files.iter().all(follows)).then_some(())
        });
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        output(Command::new(tool("umount")).arg("--lazy").arg(self.path("bpf")));
    }
}

/// Copies a directory tree.
#[track_caller]
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directories can be made");
    let entries =
        fs::read_dir(from).unwrap_or_else(|error| panic!("`{}`: {error}", from.display()));
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the shipped configuration can be copied");
        }
    }
}
