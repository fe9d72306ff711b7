//! What the kernel logs, as journald and rsyslogd pass it on.
use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    Net, Site,
    run::{require, tool},
    wait::until,
};

/// A journald and a rsyslogd of our own that read the machine's kernel log; they end on drop.
///
/// The kernel's log is one for all namespaces, and packet filters of others than the first write to it only
/// when told so: as long as this lives they do. Whoever logs says little, with words that no other test says.
#[derive(Debug)]
pub struct KernelLog {
    room: PathBuf,
    readers: Child,
    permission: Child,
}

impl KernelLog {
    /// Starts both and waits until they have caught up.
    #[track_caller]
    pub fn start(net: &Net, site: &Site) -> KernelLog {
        require(&["systemd-journald", "rsyslogd", "unshare", "flock"]);
        let room = site.path("kernel");
        fs::create_dir(&room).expect("the site can be written");
        let kern_log = room.join("kern.log").display().to_string();
        let config = format!(
            "module(load=\"imkmsg\")\n\
             kern.* action(type=\"omfile\" file=\"{kern_log}\" template=\"RSYSLOG_TraditionalFileFormat\")\n"
        );
        fs::write(room.join("rsyslog.conf"), config).expect("the site can be written");
        let permission = permission();
        let mut command = net.server.command(tool("unshare"));
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "sh", "-c", include_str!("kernel_log.sh"), "kernel_log.sh"]);
        let said = fs::File::create(room.join("output")).expect("the room can be written");
        command.arg(&room).stdin(Stdio::null());
        command.stdout(said.try_clone().expect("descriptors are not short")).stderr(said);
        let readers =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut log = KernelLog { room, readers, permission };
        until(Duration::from_secs(15), "the kernel's log is read", || {
            if let Some(status) = log.readers.try_wait().expect("it is our child") {
                let said = fs::read_to_string(log.room.join("output")).unwrap_or_default();
                panic!("the readers ended ({status}): {said}");
            }
            let journals = fs::read_dir(log.journal()).ok()?.flatten().next();
            (journals.is_some() && log.kern_log().exists()).then_some(())
        });
        log
    }

    /// What rsyslogd writes.
    pub fn kern_log(&self) -> PathBuf {
        self.room.join("kern.log")
    }

    /// The directory that the journal lies below.
    pub fn journal(&self) -> PathBuf {
        self.room.join("journal")
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        // They may have ended by themselves; their whole process namespace ends with them.
        let _ = self.readers.kill();
        let _ = self.readers.wait();
        // The setting is put back when its input ends.
        drop(self.permission.stdin.take());
        let _ = self.permission.wait();
    }
}

/// A process that lets packet filters of all namespaces log, and forbids it again when its input ends: also
/// when we are killed. One at a time, over all tests that run.
#[track_caller]
fn permission() -> Child {
    const SETTING: &str = "/proc/sys/net/netfilter/nf_log_all_netns";
    const HOLD: &str =
        "old=$(cat $0) && echo 1 >$0 && echo granted && { read -r end; echo $old >$0; }";
    let mut command = Command::new(tool("flock"));
    command.args([SETTING, "sh", "-c", HOLD, SETTING]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start flock: {error}"));
    let mut answer = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut answer).expect("flock says something or ends");
    assert_eq!(answer, "granted\n", "`{SETTING}` can be set");
    child
}
