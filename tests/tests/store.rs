//! Promise: whatever happens to the store, bans are made, enforced and lifted; the fault is told, and made good.
use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Daemon, Echo, FRIEND, Net, SERVER, Site, is_dropped, reaches, run, unit,
    until,
};
use rusqlite::Connection;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A file system of its own under the state directory; unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(site: &Site, size: &str) -> Disk {
        let state = site.path("state");
        let size = format!("size={size}");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &state.display().to_string()]);
        Disk(state)
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), &self.0.display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // By its full name, as `run` would panic while panicking.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A file system on which every write hangs; thawed at the end, for what hangs there cannot even be killed.
struct Frozen(String);

impl Frozen {
    #[track_caller]
    fn new(path: &str) -> Frozen {
        run("fsfreeze", &["--freeze", path]);
        Frozen(path.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::process::Command::new("fsfreeze").args(["--unfreeze", &self.0]).status();
    }
}

fn store(site: &Site) -> Value {
    site.json(&["status"])["store"].clone()
}

#[track_caller]
fn wait_state(site: &Site, part: &str) -> Value {
    until(SOON, &format!("the store's state tells `{part}`"), || {
        let store = store(site);
        store["state"].as_str()?.contains(part).then_some(store)
    })
}

fn stored(site: &Site) -> i64 {
    let file = Connection::open(site.path("state/fail2xdp.sqlite3")).expect("there is a store");
    file.query_row("SELECT count(*) FROM bans", [], |row| row.get(0)).expect("a number")
}

fn guard(site: &Site) -> String {
    site.jail("guard", "guard.log", "port = 2222\nmaxretry = 2\nbantime = 600")
}

/// Attackers are found and dropped, and whoever is unbanned is not dropped.
#[track_caller]
fn it_protects(net: &Net, site: &Site, echo: &Echo) {
    let mut log = site.log("guard.log");
    for _ in 0..2 {
        log.wrong_password(ATTACKER.v4);
        log.wrong_password(BYSTANDER.v4);
    }
    site.wait_banned(&unit(ATTACKER.v4));
    site.wait_banned(&unit(BYSTANDER.v4));
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    site.unban(&unit(BYSTANDER.v4));
    assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
}

/// Bans so many addresses by hand.
#[track_caller]
fn ban_many(site: &Site, count: u32) {
    let address = |nth| std::net::Ipv4Addr::from(0x6440_0000 + nth);
    let list: String = (0..count).map(|nth| format!("{}\n", address(nth))).collect();
    let list = fs::File::open(site.write("list", &list)).expect("it was written");
    let output = site.command(&["ban", "--json", "--jail", "guard", "-"]).stdin(list).output();
    let output = output.expect("the client runs");
    assert!(output.status.success(), "{output:?}");
}

/// How often the daemon said this.
fn times(daemon: &Daemon, what: &str) -> usize {
    daemon.said_times(what, 0).0
}

#[test]
fn a_full_disk_delays_no_ban_is_told_once_and_made_good() {
    let net = Net::new("full");
    let site = Site::new(&net);
    let disk = Disk::mount(&site, "1m");
    site.log("guard.log");
    site.jails(&guard(&site));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.wait_following("guard");
    ban_many(&site, 10_000);
    wait_state(&site, "full");
    it_protects(&net, &site, &echo);
    assert!(site.text(&["status"]).contains("ALARM: database or disk is full"));
    assert_eq!(times(&daemon, "the store fails"), 1);
    disk.remount("size=64m");
    let state = wait_state(&site, "works");
    assert_eq!((state["faults"].as_u64(), state["refused"].as_u64()), (Some(1), Some(0)));
    until(SOON, "everything is stored", || (stored(&site) == 10_001).then_some(()));
    assert_eq!(times(&daemon, "the store works again"), 1);
    daemon.terminate();
}

#[test]
fn on_a_disk_that_turned_read_only_it_starts_with_what_lies_there() {
    let net = Net::new("readonly");
    let site = Site::new(&net);
    let disk = Disk::mount(&site, "8m");
    site.log("guard.log");
    site.jails(&guard(&site));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.json(&["ban", &unit(FRIEND.v4), "--jail", "guard"]);
    daemon.terminate();
    fs::remove_dir_all(site.pins()).expect("the pins can be removed");
    disk.remount("ro");
    let daemon = site.start();
    assert!(is_dropped(&net.clients, FRIEND.v4, echo.address()), "{}", daemon.said());
    wait_state(&site, "ead-only");
    it_protects(&net, &site, &echo);
    disk.remount("rw");
    wait_state(&site, "works");
    until(SOON, "everything is stored", || (stored(&site) == 2).then_some(()));
    daemon.terminate();
}

#[test]
fn a_damaged_file_is_set_aside_and_built_anew() {
    let net = Net::new("damaged");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&guard(&site));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.json(&["ban", &unit(FRIEND.v4), "--jail", "guard"]);
    daemon.terminate();
    let damaged = "all that was written here is gone\n".repeat(300);
    site.write("state/fail2xdp.sqlite3", &damaged);
    let daemon = site.start();
    let state = wait_state(&site, "works");
    let aside = state["set_aside"].as_str().expect("it says where the damaged file lies");
    assert_eq!(fs::read_to_string(aside).expect("it lies there"), damaged, "as it was");
    assert!(is_dropped(&net.clients, FRIEND.v4, echo.address()), "the maps knew it");
    it_protects(&net, &site, &echo);
    until(SOON, "everything is stored", || (stored(&site) == 2).then_some(()));
    assert!(times(&daemon, "the file was damaged") == 1, "{}", daemon.said());
    daemon.terminate();
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let net = Net::new("newer");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&guard(&site));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    site.start().terminate();
    let path = site.path("state/fail2xdp.sqlite3");
    let file = Connection::open(&path).expect("there is a store");
    file.pragma_update(None, "user_version", 1000).expect("written");
    drop(file);
    let before = fs::read(&path).expect("it can be read");
    let daemon = site.start();
    wait_state(&site, "version 1000");
    it_protects(&net, &site, &echo);
    daemon.terminate();
    assert_eq!(fs::read(&path).expect("it can be read"), before);
}

#[test]
fn somebody_elses_lock_is_waited_for_without_anybody_waiting() {
    let net = Net::new("locked");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&guard(&site));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.wait_following("guard");
    let other = Connection::open(site.path("state/fail2xdp.sqlite3")).expect("there is a store");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    it_protects(&net, &site, &echo);
    wait_state(&site, "locked");
    other.execute_batch("ROLLBACK").expect("unlocked");
    drop(other);
    wait_state(&site, "works");
    until(SOON, "everything is stored", || (stored(&site) == 1).then_some(()));
    daemon.terminate();
}

#[test]
fn a_write_that_hangs_holds_up_nothing_and_is_told() {
    let net = Net::new("hangs");
    let site = Site::new(&net);
    let image = site.path("image");
    run("truncate", &["--size", "32m", &image.display().to_string()]);
    run("mkfs.ext4", &["-q", "-O", "^has_journal", &image.display().to_string()]);
    let state = site.path("state").display().to_string();
    run("mount", &["-o", "loop", &image.display().to_string(), &state]);
    let disk = Disk(site.path("state"));
    site.log("guard.log");
    site.jails(&guard(&site));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.wait_following("guard");
    let frozen = Frozen::new(&state);
    it_protects(&net, &site, &echo);
    until(SOON, "a write that hangs is told of", || {
        store(&site)["state"].as_str()?.contains("slow").then_some(())
    });
    drop(frozen);
    wait_state(&site, "works");
    until(SOON, "everything is stored", || (stored(&site) == 1).then_some(()));
    daemon.terminate();
    drop(disk);
}

#[test]
fn without_bpf_and_without_rights_bans_are_remembered_too() {
    let net = Net::new("nobody");
    let mut site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&guard(&site));
    site.open_to_nobody();
    let words = ["run", "--mode", "none"];
    let daemon = Daemon::start(site.command_of_nobody(&words));
    site.wait_following("guard");
    log.wrong_password(ATTACKER.v6);
    log.wrong_password(ATTACKER.v6);
    let before = site.wait_banned(&unit(ATTACKER.v6));
    daemon.terminate();
    let daemon = Daemon::start(site.command_of_nobody(&words));
    assert_eq!(site.bans(), [before]);
    daemon.terminate();
}

#[test]
fn a_long_list_of_bans_keeps_nobody_waiting() {
    let net = Net::new("list");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&guard(&site));
    let daemon = site.start_with(&["--mode", "none"]);
    ban_many(&site, 100_000);
    // As often as it can be asked while it lists: the longest wait is what a new ban would have waited.
    let longest = std::thread::scope(|scope| {
        let list = scope.spawn(|| site.bans().len());
        let mut longest = Duration::ZERO;
        while !list.is_finished() {
            let begun = std::time::Instant::now();
            assert!(site.text(&["ping"]).contains("pong"));
            longest = longest.max(begun.elapsed());
        }
        assert_eq!(list.join().expect("it is listed"), 100_000);
        longest
    });
    eprintln!("longest ping while 100,000 bans are listed: {longest:.2?}");
    assert!(longest < Duration::from_millis(400), "{longest:?}");
    daemon.terminate();
}
