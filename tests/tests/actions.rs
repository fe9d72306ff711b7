//! Promise: actions are told of every ban and of its end, in order, whatever happens to daemon and runner; and whatever
//! happens to them, bans are made and enforced all the same.
use std::{
    fs::{self, File, OpenOptions},
    net::Ipv4Addr,
    process::Command,
    time::Duration,
};

use fail2xdp_tests::{Daemon, Log, Net, Site, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// Writes down all that it is told.
const TELL: &str = "[Definition]\n\
    actionstart = echo start <actname> >> <out>\n\
    actionstop = echo stop <actname> >> <out>\n\
    actionreload = echo reload <actname> <word> >> <out>\n\
    actionban = echo ban <ip> <restored> >> <out>\n\
    actionunban = echo unban <ip> >> <out>\n\
    [Init]\nword = one\n";

/// The same, and nothing of it before somebody opens the gate.
const GATED: &str = "[Definition]\n\
    actionban = : < <gate>; echo ban <ip> <restored> >> <out>\n\
    actionunban = : < <gate>; echo unban <ip> >> <out>\n\
    [Init]\ntimeout = 600\n";

/// A site without enforcement whose actions write into `out`.
fn quiet<'net>(net: &'net Net, settings: &str) -> Site<'net> {
    let site = Site::new(net);
    site.settings(&format!("[Definition]\nmode = none\n{settings}"));
    let (out, gate) = (site.path("out"), site.path("gate"));
    let place = format!("out = {}\ngate = {}\n", out.display(), gate.display());
    site.write("config/action.d/tell.conf", &format!("{TELL}{place}"));
    site.write("config/action.d/gated.conf", &format!("{GATED}{place}"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).expect("a FIFO");
    site
}

/// Who opens the gate for reading waits until this is there.
fn open_gate(site: &Site<'_>) -> File {
    OpenOptions::new().read(true).write(true).open(site.path("gate")).expect("the FIFO opens")
}

fn told(site: &Site<'_>) -> Vec<String> {
    let text = fs::read_to_string(site.path("out")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn wait_told(site: &Site<'_>, line: &str) -> Vec<String> {
    until(SOON, &format!("`{line}` is told"), || {
        Some(told(site)).filter(|told| told.iter().any(|known| known == line))
    })
}

/// How one action of a jail stands.
fn action(site: &Site<'_>, jail: &str, name: &str) -> Value {
    let status = site.json(&["status"]);
    let actions = status["actions"].as_array().expect("a list").clone();
    let is = |it: &Value| it["jail"] == jail && it["action"] == name;
    actions.into_iter().find(is).unwrap_or_else(|| panic!("no action {name}: {status}"))
}

fn address(nth: u32) -> String {
    Ipv4Addr::from(0xc612_0000 + nth).to_string()
}

fn fail(log: &mut Log, numbers: impl Iterator<Item = u32>) {
    let lines = numbers.map(|nth| Log::line_of(address(nth).parse().expect("an address")));
    log.append(&lines.collect::<String>());
}

/// The runner that this daemon has started.
fn runner_of(daemon: &Daemon) -> Pid {
    let pid = daemon.pid();
    let children = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let children = tasks.flatten().find_map(|task| {
            let children = fs::read_to_string(task.path().join("children")).ok()?;
            children.split_whitespace().find_map(|child| {
                let command = fs::read(format!("/proc/{child}/cmdline")).ok()?;
                let is_runner = String::from_utf8_lossy(&command).contains("action-runner");
                is_runner.then(|| child.parse::<i32>().ok()).flatten()
            })
        });
        children.and_then(Pid::from_raw)
    };
    until(SOON, "the runner is there", children)
}

/// What was told, each repetition left out.
fn once(told: &[String]) -> Vec<&str> {
    let mut seen = Vec::new();
    for line in told {
        if !seen.contains(&line.as_str()) {
            seen.push(line.as_str());
        }
    }
    seen
}

#[test]
fn a_restart_tells_first_who_is_free_again_then_who_is_not() {
    let net = Net::new("act-order");
    let site = quiet(&net, "");
    let jails = site.jail("short", "log", "maxretry = 1\nbantime = 3\naction = tell\n")
        + &site.jail("long", "log", "maxretry = 1\nbantime = 600\naction = tell[actname=long]\n");
    site.jails(&jails);
    let mut log = site.log("log");
    let daemon = site.start();
    fail(&mut log, 1..=1);
    // One ban each, of both jails.
    until(SOON, "both bans are told", || (told(&site).len() == 4).then_some(()));
    assert!(daemon.terminate().success());
    let before = told(&site);
    assert_eq!(before.iter().filter(|line| line.starts_with("stop ")).count(), 2, "{before:?}");
    assert!(!before.iter().any(|line| line.starts_with("unban")), "bans stay: {before:?}");
    let end = fail2xdp_tests::now() + 4.0;
    until(SOON, "the short ban is over", || (fail2xdp_tests::now() > end).then_some(()));

    fs::write(site.path("out"), "").expect("it can be written");
    let daemon = site.start();
    fail(&mut log, 2..=2);
    let line = |kind: &str, nth| format!("{kind} {}", address(nth));
    until(SOON, "all is told", || {
        let ban = told(&site).iter().filter(|it| **it == format!("{} 0", line("ban", 2))).count();
        (ban == 2).then_some(())
    });
    let told = told(&site);
    let at = |text: &str| {
        told.iter().position(|known| known == text).unwrap_or_else(|| panic!("{text}: {told:?}"))
    };
    assert_eq!(told.iter().filter(|it| **it == line("unban", 1)).count(), 1, "once: {told:?}");
    assert!(at("start tell") < at(&line("unban", 1)), "{told:?}");
    assert!(at("start long") < at(&format!("{} 1", line("ban", 1))), "{told:?}");
    assert!(at(&format!("{} 1", line("ban", 1))) < told.len() - 1, "restored before new: {told:?}");
    assert!(daemon.terminate().success());
    let daemon = site.start();
    until(SOON, "the runner is idle", || {
        (action(&site, "short", "tell")["waiting"] == 0).then_some(())
    });
    let unbans = self::told(&site).iter().filter(|it| **it == line("unban", 1)).count();
    assert_eq!(unbans, 1, "not by the next start again");
    drop(daemon);
}

#[test]
fn killed_with_a_full_queue_nothing_is_lost_and_the_order_is_kept() {
    let net = Net::new("act-kill");
    let site = quiet(&net, "");
    site.jails(&site.jail("one", "log", "maxretry = 1\nbantime = 600\naction = gated\n"));
    let mut log = site.log("log");
    let daemon = site.start();
    fail(&mut log, 1..=150);
    let waits = |many: u64| {
        until(SOON, "all wait", || {
            (action(&site, "one", "gated")["waiting"].as_u64() >= Some(many)).then_some(())
        });
    };
    waits(150);
    // The runner alone, then both.
    kill_process(runner_of(&daemon), Signal::KILL).expect("it lives");
    until(SOON, "another runner is there", || {
        let runner = &site.json(&["status"])["action_runner"];
        (runner["lost"] == 1 && runner["state"] == "works").then_some(())
    });
    site.unban(&address(7));
    waits(151);
    let rows = || {
        let place = site.path("state/fail2xdp.sqlite3");
        let store = rusqlite::Connection::open(place).expect("it opens");
        store
            .query_row("SELECT count(*) FROM action_queue", [], |row| row.get::<_, i64>(0))
            .expect("a number")
    };
    until(SOON, "all are stored", || (rows() == 151).then_some(()));
    let runner = runner_of(&daemon);
    daemon.kill();
    // It may have ended with its daemon.
    let _ = kill_process(runner, Signal::KILL);
    assert!(told(&site).is_empty(), "the gate is shut");

    let _gate = open_gate(&site);
    let daemon = site.start();
    let unban = format!("unban {}", address(7));
    wait_told(&site, &unban);
    until(SOON, "the queue is empty", || {
        (action(&site, "one", "gated")["waiting"] == 0).then_some(())
    });
    until(SOON, "no row is left", || (rows() == 0).then_some(()));
    let told = told(&site);
    let left: Vec<&str> = once(&told).into_iter().filter(|line| !line.ends_with(" 1")).collect();
    let mut expected: Vec<String> =
        (1..=150).map(|nth| format!("ban {} 0", address(nth))).collect();
    expected.push(unban);
    assert_eq!(left, expected);
    // Those that hold are restored after that.
    let restored = told.iter().filter(|line| line.ends_with(" 1")).count();
    assert_eq!(restored, 149, "{told:?}");
    assert!(told[told.len() - 149..].iter().all(|line| line.ends_with(" 1")), "{told:?}");
    drop(daemon);
}

#[test]
fn a_full_queue_loses_its_oldest_and_says_so() {
    let net = Net::new("act-full");
    let site = quiet(&net, "action_queue = 10\n");
    site.jails(&site.jail("one", "log", "maxretry = 1\nbantime = 600\naction = gated\n"));
    let mut log = site.log("log");
    let mut daemon = site.start();
    until(SOON, "the action is started", || {
        (action(&site, "one", "gated")["done"] == 1).then_some(())
    });
    fail(&mut log, 1..=200);
    until(SOON, "all but those at the runner and ten are dropped", || {
        (action(&site, "one", "gated")["dropped"] == 200 - 64 - 10).then_some(())
    });
    daemon.wait_for_line("action 'gated' falls behind: 64 of the oldest", SOON);
    let _gate = open_gate(&site);
    wait_told(&site, &format!("ban {} 0", address(200)));
    let expected = (1..=64).chain(191..=200).map(|nth| format!("ban {} 0", address(nth)));
    assert_eq!(told(&site), expected.collect::<Vec<_>>());
    assert_eq!(site.bans().len(), 200, "everybody is banned");
}

#[test]
fn a_reload_begins_ends_and_changes_actions() {
    let net = Net::new("act-reload");
    let site = quiet(&net, "");
    let jail = |actions: &str| {
        site.jails(&site.jail(
            "one",
            "log",
            &format!("maxretry = 1\nbantime = 600\naction = {actions}\n"),
        ));
    };
    jail("tell[actname=stays]\n  tell[actname=goes]");
    let mut log = site.log("log");
    let _daemon = site.start();
    fail(&mut log, 1..=2);
    until(SOON, "both are told", || (told(&site).len() == 6).then_some(()));
    jail(
        "tell[actname=stays, word=two]\n  tell[actname=comes]\n  tell[actname=flushes, actionflush=\"echo flush >> <out>\"]",
    );
    site.text(&["reload"]);
    let stop = wait_told(&site, "stop goes");
    let unbans = stop.iter().filter(|line| line.starts_with("unban ")).count();
    assert_eq!(unbans, 2, "the bans hold no longer for what is removed: {stop:?}");
    wait_told(&site, "reload stays two");
    wait_told(&site, "start comes");
    until(SOON, "what comes is told of the bans that hold", || {
        let restored = told(&site).iter().filter(|line| line.ends_with(" 1")).count();
        (restored == 4).then_some(())
    });
    fs::write(site.path("out"), "").expect("it can be written");
    site.text(&["unban", "--all"]);
    until(SOON, "all are free for each", || {
        let told = told(&site);
        let unbans = told.iter().filter(|line| line.starts_with("unban ")).count();
        (unbans == 4 && told.iter().any(|line| line == "flush")).then_some(())
    });
    // A jail that is gone takes its actions with it.
    fail(&mut log, 3..=3);
    wait_told(&site, &format!("ban {} 0", address(3)));
    site.jails("");
    site.text(&["reload"]);
    for action in ["stays", "comes", "flushes"] {
        wait_told(&site, &format!("stop {action}"));
    }
    until(SOON, "nothing is left to run", || {
        site.json(&["status"])["action_runner"].is_null().then_some(())
    });
}

#[test]
fn a_hundred_jails_with_hanging_actions_ban_all_the_same() {
    let net = Net::new("act-hang");
    let site = quiet(&net, "");
    site.settings("[Definition]\n");
    // A hundred times sshd's would take its time to be read.
    let filter = "[Definition]\nfailregex = Failed password for root from <HOST>\n";
    site.write("config/filter.d/small.conf", filter);
    let log = site.path("log");
    let jails = (0..100).map(|nth| {
        format!(
            "[j{nth}]\nenabled = true\nfilter = small\nbackend = pyinotify\nlogpath = {}\nmaxretry = 1\n\
             bantime = 600\naction = xdp\n  gated\n",
            log.display()
        )
    });
    site.jails(&jails.collect::<String>());
    let mut log = site.log("log");
    let _daemon = site.start();
    fail(&mut log, 1..=20);
    until(SOON, "all are banned by all", || (site.bans().len() == 2000).then_some(()));
    assert!(told(&site).is_empty(), "every action hangs");
    let status = site.json(&["status"]);
    let waiting: u64 = status["actions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["waiting"].as_u64())
        .sum();
    assert!(waiting >= 2000, "{waiting}");
}

#[test]
fn commands_are_changed_while_they_are_in_use() {
    let net = Net::new("act-set");
    let site = quiet(&net, "");
    site.jails(&site.jail("one", "log", "maxretry = 1\nbantime = 600\naction = tell\n"));
    let mut log = site.log("log");
    let daemon = site.start();
    let ask = |words: &str| site.text(&words.split(' ').collect::<Vec<_>>()).trim().to_owned();
    assert_eq!(ask("get one actions"), "The jail one has the following actions:\ntell");
    assert_eq!(ask("get one action tell timeout"), "60");
    assert_eq!(ask("set one action tell word changed"), "changed");
    let command = "echo <word> <ip> >> <out>";
    let set = ["set", "one", "action", "tell", "actionban", command];
    assert_eq!(site.text(&set).trim(), command);
    assert_eq!(ask("get one action tell actionban"), command);
    fail(&mut log, 1..=1);
    wait_told(&site, &format!("changed {}", address(1)));
    // The next runner is told, too.
    kill_process(runner_of(&daemon), Signal::KILL).expect("it lives");
    fail(&mut log, 2..=2);
    wait_told(&site, &format!("changed {}", address(2)));
    site.text(&["reload"]);
    fail(&mut log, 3..=3);
    wait_told(&site, &format!("ban {} 0", address(3)));
    let refused = site.refused(&["set", "one", "action", "nope", "actionban", "x"]);
    assert!(refused.contains("Invalid Action name"), "{refused}");
}

#[test]
fn where_nothing_is_to_be_run_nothing_runs() {
    let net = Net::new("act-none");
    let site = quiet(&net, "");
    site.jails(&site.jail("one", "log", "maxretry = 1\naction = xdp\n"));
    let daemon = site.start();
    assert!(site.json(&["status"])["action_runner"].is_null());
    let mut list = Command::new("pgrep");
    let list =
        list.args(["-P", &daemon.pid().to_string()]).output().expect("pgrep: install `procps`");
    assert!(list.stdout.is_empty(), "{list:?}");
}
