//! Promise: the action runner does each action's tasks in order and different actions' side by side, hands texts that an
//! attacker wrote to commands as fail2ban does, and can neither be held up by a command nor change a ban.
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use fail2xdp::action::wire::{FromRunner, Kind, Level, Standing, Ticket, ToRunner, WINDOW};
use rustix::process::Signal;
use serde_json::json;

mod hostile;
#[path = "../peer/mod.rs"]
mod peer;
mod runner;

use runner::{Runner, SOON, Site, binary, ticket, until};

#[test]
fn one_actions_tasks_are_in_order_and_a_hanging_one_holds_no_other() {
    let hangs = "[Definition]\nactionban = echo $$ >> <out>/hanging; sleep 1000\n";
    let quick = "[Definition]\nactionban = echo <ip> >> <out>/quick\n";
    let names: Vec<String> = (0..30).map(|nth| format!("hangs{nth}")).collect();
    let mut jails: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "hangs")).collect();
    jails.push(("j", "quick"));
    let site = Site::new(&jails, &[("hangs", hangs), ("quick", quick)], "");
    let mut runner = Runner::start(&site);
    for name in &names {
        runner.task(name, "hangs", Kind::Ban, Some(ticket("192.0.2.1")));
    }
    let begun = Instant::now();
    let mut last = 0;
    for nth in 0..WINDOW {
        last = runner.task("j", "quick", Kind::Ban, Some(ticket(&format!("192.0.2.{nth}"))));
    }
    runner.succeeds(last);
    assert!(begun.elapsed() < SOON);
    let expect: String = (0..WINDOW).map(|nth| format!("192.0.2.{nth}\n")).collect();
    assert_eq!(site.read("quick"), expect);
    assert_eq!(runner.done.len(), WINDOW);
    until("all of them hang at once", || site.read("hanging").lines().count() == names.len());
    runner.say(&ToRunner::Ping);
    runner.hear(|said| *said == FromRunner::Pong);
    // Without its daemon it ends, and what hangs with it.
    runner.hang_up();
    assert!(runner.ends().success());
    let pids = site.read("hanging");
    until("they are ended", || pids.lines().all(is_gone));
}

fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_command_has_a_deadline_with_all_that_it_starts() {
    let hangs = "[Definition]\nactionban = echo said; sleep 1000 & echo $! > <out>/pid; wait\n[Init]\ntimeout = 1\n";
    let site = Site::new(&[("j", "hangs")], &[("hangs", hangs)], "action_retry = 0");
    let mut runner = Runner::start(&site);
    let task = runner.task("j", "hangs", Kind::Ban, Some(ticket("192.0.2.1")));
    let (failed, standing) = runner.over_with(task);
    assert_eq!(
        failed.as_deref(),
        Some(
            "Failed to execute ban jail 'j' action 'hangs' info 'ActionInfo({'ip': '192.0.2.1', 'fid': '192.0.2.1', \
             'family': 'inet4'})': Error banning 192.0.2.1"
        )
    );
    assert_eq!((standing.started.len(), standing.banned.len()), (0, 0));
    let said = |what: &str| {
        runner.log.iter().any(|(level, text)| *level == Level::Error && text.contains(what))
    };
    assert!(said("timed out after 1 seconds") && said("stdout: 'said'"), "{:#?}", runner.log);
    until("what it started is ended", || is_gone(site.read("pid").trim()));
}

#[test]
fn a_command_that_fails_is_tried_again_for_a_while() {
    let flaky =
        "[Definition]\nactionban = echo x >> <out>/tries; test $(wc -l < <out>/tries) -ge 4\n";
    let broken = "[Definition]\nactionban = echo x >> <out>/broken; false\n";
    let missing = "[Definition]\nactionban = /nowhere/at-all\n";
    let site = Site::new(
        &[("a", "flaky"), ("b", "broken"), ("c", "missing[apikey=TOPSECRET]")],
        &[
            ("flaky", flaky),
            ("broken", broken),
            ("missing", &(missing.to_owned() + "  <apikey>\n")),
        ],
        "action_retry = 2s",
    );
    let mut runner = Runner::start(&site);
    let flaky = runner.task("a", "flaky", Kind::Ban, Some(ticket("192.0.2.1")));
    let broken = [1, 2]
        .map(|nth| runner.task("b", "broken", Kind::Ban, Some(ticket(&format!("192.0.2.{nth}")))));
    let missing = runner.task("c", "missing", Kind::Ban, Some(ticket("192.0.2.1")));
    // Twice at once, and twice a second later.
    runner.succeeds(flaky);
    assert_eq!(site.read("tries").lines().count(), 4);
    let begun = Instant::now();
    assert!(runner.over_with(missing).0.is_some());
    let text = |runner: &Runner| format!("{:?} {:?}", runner.log, runner.done);
    assert!(text(&runner).contains("HINT on 127"), "{}", text(&runner));
    assert!(!text(&runner).contains("TOPSECRET"), "{}", text(&runner));
    assert!(begun.elapsed() < Duration::from_secs(1), "it was tried again");
    // The second one of a broken action is not waited for so long.
    assert!(broken.map(|task| runner.over_with(task).0.is_some()) == [true, true]);
    assert_eq!(site.read("broken").lines().count(), 6);
}

#[test]
fn no_command_may_bpf() {
    let tries = "[Definition]\n\
        actionban = bpftool map list > <out>/bpftool 2>&1; echo $? >> <out>/status\n\
        \x20           unshare -n sh -c 'iptables -A INPUT -s <ip> -j DROP && iptables -S INPUT' > <out>/iptables 2>&1\n\
        \x20           grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status > <out>/proc\n";
    let site = Site::new(&[("j", "tries")], &[("tries", tries)], "");
    let mut runner = Runner::start(&site);
    let task = runner.task("j", "tries", Kind::Ban, Some(ticket("192.0.2.1")));
    runner.succeeds(task);
    let bpftool = Command::new("bpftool").args(["map", "list"]).output();
    let bpftool = bpftool.expect("bpftool: install Debian's `bpftool`");
    assert!(bpftool.status.success(), "we may: {bpftool:?}");
    assert_ne!(site.read("status").trim(), "0");
    assert!(site.read("bpftool").contains("Operation not permitted"), "{}", site.read("bpftool"));
    assert!(
        site.read("iptables").contains("-A INPUT -s 192.0.2.1/32 -j DROP"),
        "{}",
        site.read("iptables")
    );
    let status = site.read("proc");
    let sets = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
    for (set, bits) in sets {
        let bits = u64::from_str_radix(bits, 16).expect("bits");
        assert_eq!(bits & (1 << 38 | 1 << 39), 0, "Cap{set}: {status}");
    }
    // Mailers that are set-group-ID go on working.
    assert!(status.contains("NoNewPrivs:\t0"), "{status}");
}

#[test]
fn commands_run_as_whom_the_operator_wants() {
    let tells = "[Definition]\nactionban = (id -un; id -G; echo $HOME; umask; ls /root) > <out>/ours/id 2>&1; true\n";
    let site = Site::new(&[("j", "tells")], &[("tells", tells)], "action_user = nobody");
    fs::create_dir(site.path("ours")).expect("a directory");
    fs::set_permissions(site.path("ours"), fs::Permissions::from_mode(0o777)).expect("a mode");
    fs::set_permissions(site.folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut runner = Runner::start(&site);
    let task = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    runner.succeeds(task);
    let lines = site.read("ours/id");
    let id = Command::new("id").args(["-G", "nobody"]).output().expect("id");
    let mut lines = lines.lines();
    assert_eq!(lines.next(), Some("nobody"));
    assert_eq!(lines.next(), Some(String::from_utf8_lossy(&id.stdout).trim()));
    assert!(lines.last().is_some_and(|line| line.contains("denied")));

    // Whom nobody knows runs nothing.
    fs::write(site.config().join("fail2xdp.conf"), "[Definition]\naction_user = no-such-user\n")
        .expect("a file");
    runner.say(&ToRunner::Reload);
    let problems = runner.problems();
    assert!(problems[0].contains("no-such-user"), "{problems:?}");
    let task = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    assert!(runner.over_with(task).0.is_some());
}

#[test]
fn a_reload_and_set_hold_for_what_comes_after() {
    let tells = |word: &str| {
        format!(
            "[Definition]\nactionban = echo {word} <x> >> <out>/log\nactionreload = echo again {word} >> <out>/log\n\
             actionstart = echo start >> <out>/log\nactionstop = echo stop >> <out>/log\n[Init]\nx = 1\n"
        )
    };
    let site = Site::new(&[("j", "tells")], &[("tells", &tells("one"))], "");
    let mut runner = Runner::start(&site);
    runner.task("j", "tells", Kind::Start, None);
    runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    site.action("tells", &tells("two"));
    runner.say(&ToRunner::Reload);
    assert_eq!(runner.problems(), Vec::<String>::new());
    runner.task("j", "tells", Kind::Reload, None);
    let set = |runner: &mut Runner, action: &str, property: &str, value: &str| {
        let [jail, action, property, value] = ["j", action, property, value].map(str::to_owned);
        runner.say(&ToRunner::Set { id: 7, jail, action, property, value });
        match runner.hear(|said| matches!(said, FromRunner::Answer { .. })) {
            FromRunner::Answer { id: 7, refused } => refused,
            other => panic!("{other:?}"),
        }
    };
    let out = site.path("log");
    let command = format!("echo set <ip> >> {}", out.display());
    assert_eq!(set(&mut runner, "tells", "actionban", &command), None);
    assert_eq!(
        set(&mut runner, "none", "actionban", ""),
        Some("Invalid Action name: none".to_owned())
    );
    assert_eq!(set(&mut runner, "tells", "timeout", "soon"), Some("`soon` is no time".to_owned()));
    let ban = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    runner.succeeds(ban);
    // An action that is gone is stopped as it was.
    fs::write(
        site.config().join("jail.conf"),
        "[j]\nenabled = true\nbackend = polling\naction = xdp\nlogpath = /x\n",
    )
    .expect("a file");
    runner.say(&ToRunner::Reload);
    runner.problems();
    let stop = runner.task("j", "tells", Kind::Stop, None);
    runner.succeeds(stop);
    let ban = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    let (failed, _) = runner.over_with(ban);
    assert_eq!(failed.as_deref(), Some("jail 'j' has no action 'tells' in the configuration"));
    assert_eq!(site.read("log"), "start\none 1\nagain two\nset 192.0.2.1\nstop\n");
}

#[test]
fn a_new_runner_goes_on_where_the_one_before_it_stood() {
    let tells = "[Definition]\nactionunban = echo unban <ip> >> <out>/log\nactionban = echo ban <ip> >> <out>/log\nnorestored = 1\n";
    let site = Site::new(&[("j", "tells")], &[("tells", tells)], "");
    let mut runner = Runner::start(&site);
    let task = runner.task("j", "tells", Kind::Unban, Some(ticket("192.0.2.1")));
    assert_eq!(runner.succeeds(task).banned, Vec::<String>::new());
    let restored = Ticket { restored: true, ..ticket("192.0.2.9") };
    runner.task("j", "tells", Kind::Ban, Some(restored));
    let task = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.2")));
    let standing = runner.succeeds(task);
    assert_eq!(standing.banned, ["inet4"]);
    runner.signal(Signal::KILL);
    runner.ends();
    let mut runner = Runner::start_with(&site, vec![standing]);
    let task = runner.task("j", "tells", Kind::Unban, Some(ticket("192.0.2.2")));
    runner.succeeds(task);
    let stop = runner.task("j", "tells", Kind::Stop, None);
    // Bans outlive a stop of the daemon, and are still to be lifted after it.
    assert_eq!(
        runner.succeeds(stop),
        Standing {
            started: Vec::new(),
            banned: vec!["inet4".to_owned()],
            jail: "j".into(),
            action: "tells".into(),
            epoch: 0
        }
    );
    assert_eq!(site.read("log"), "ban 192.0.2.2\nunban 192.0.2.2\n");
}

#[test]
fn a_runner_that_is_killed_leaves_no_command_behind() {
    let hangs = "[Definition]\nactionban = echo $$ > <out>/pid; while :; do sleep 0.1; done\n";
    let site = Site::new(&[("j", "hangs")], &[("hangs", hangs)], "");
    let mut runner = Runner::start(&site);
    runner.task("j", "hangs", Kind::Ban, Some(ticket("192.0.2.1")));
    until("it runs", || !site.read("pid").is_empty());
    runner.signal(Signal::KILL);
    runner.ends();
    until("it is ended", || is_gone(site.read("pid").trim()));
}

/// A reading that fails costs no event: what is to be told waits for one that succeeds.
#[test]
fn tasks_wait_for_a_configuration_that_can_be_read() {
    let tells = "[Definition]\nactionban = echo <ip> >> <out>/log\n";
    let site = Site::new(&[("j", "tells")], &[("tells", tells)], "");
    let jails = fs::read(site.config().join("jail.conf")).expect("jail.conf");
    fs::remove_file(site.config().join("jail.conf")).expect("jail.conf");
    let mut runner = Runner::start(&site);
    let tasks =
        ["192.0.2.1", "192.0.2.2"].map(|ip| runner.task("j", "tells", Kind::Ban, Some(ticket(ip))));
    fs::write(site.config().join("jail.conf"), jails).expect("jail.conf");
    runner.say(&ToRunner::Reload);
    for task in tasks {
        runner.succeeds(task);
    }
    assert_eq!(site.read("log"), "192.0.2.1\n192.0.2.2\n");
}

/// The daemon goes on with a jail as it was before its section broke; a runner that begins then must not answer that there
/// is no such action.
#[test]
fn tasks_of_a_broken_jail_wait_until_it_is_mended() {
    let tells = "[Definition]\nactionban = echo <ip> >> <out>/log\n";
    let site = Site::new(&[("j", "tells"), ("k", "tells")], &[("tells", tells)], "");
    let path = site.config().join("jail.conf");
    let jails = fs::read_to_string(&path).expect("jail.conf");
    fs::write(&path, jails.replacen("[j]", "[j]\nfilter = nowhere", 1)).expect("jail.conf");
    let mut runner = Runner::start(&site);
    let waits = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    let other = runner.task("k", "tells", Kind::Ban, Some(ticket("192.0.2.2")));
    runner.succeeds(other);
    assert_eq!(site.read("log"), "192.0.2.2\n");
    fs::write(&path, jails).expect("jail.conf");
    runner.say(&ToRunner::Reload);
    runner.succeeds(waits);
    assert_eq!(site.read("log"), "192.0.2.2\n192.0.2.1\n");
    let gone = runner.task("gone", "tells", Kind::Ban, Some(ticket("192.0.2.3")));
    let (failed, _) = runner.over_with(gone);
    assert!(failed.is_some_and(|why| why.contains("no action 'tells'")));
}

#[test]
fn told_to_end_it_ends_what_runs_and_begins_nothing() {
    let waits = "[Definition]\nactionban = echo begin <ip> >> <out>/log; while test ! -e <out>/go; do sleep 0.02; done; echo end <ip> >> <out>/log\n";
    let site = Site::new(&[("j", "waits")], &[("waits", waits)], "");
    let (mut runner, socket) = listening(&site, &[]);
    runner.hello(Vec::new());
    let first = runner.task("j", "waits", Kind::Ban, Some(ticket("192.0.2.1")));
    runner.task("j", "waits", Kind::Ban, Some(ticket("192.0.2.2")));
    until("it runs", || site.read("log").contains("begin"));
    runner.signal(Signal::TERM);
    until("it has heard", || UnixStream::connect(&socket).is_err());
    fs::write(site.path("go"), "").expect("a file");
    runner.succeeds(first);
    assert!(runner.ends().success());
    assert_eq!(site.read("log"), "begin 192.0.2.1\nend 192.0.2.1\n");
}

/// A runner that listens, with these words besides; and where.
fn listening(site: &Site, words: &[&str]) -> (Runner, PathBuf) {
    let socket = site.path("runner.sock");
    let mut command = Command::new(binary());
    command.args(["action-runner", "--config"]).arg(site.config()).args(words);
    let child = command.arg("--listen").arg(&socket).spawn().expect("the runner");
    until("it listens", || UnixStream::connect(&socket).is_ok());
    let stream = UnixStream::connect(&socket).expect("it listens");
    (Runner::over(stream, Some(child)), socket)
}

#[test]
fn an_environment_that_is_gone_is_made_anew_and_bans_before_it_are_told_again() {
    let tells = "[Definition]\nactionstart = touch <out>/env\nactioncheck = test -e <out>/env\n\
        actionrepair = touch <out>/env; echo repair >> <out>/log\n\
        actionban = test -e <out>/env && echo ban <ip> >> <out>/log\nactionreban = echo again <ip> >> <out>/log\n";
    let site = Site::new(&[("j", "tells")], &[("tells", tells)], "action_retry = 0");
    let mut runner = Runner::start(&site);
    let start = runner.task("j", "tells", Kind::Start, None);
    assert_eq!(runner.succeeds(start).started, [""]);
    let ban = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    assert_eq!(runner.succeeds(ban).epoch, 0);
    fs::remove_file(site.path("env")).expect("it was made");
    let ban = runner.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.2")));
    assert_eq!(runner.succeeds(ban).epoch, 1);
    let said = |level, what: &str| runner.log.iter().any(|it| it.0 == level && it.1 == what);
    assert!(said(Level::Error, "Invariant check failed. Trying to restore a sane environment"));
    let again = runner.task("j", "tells", Kind::Reban, Some(ticket("192.0.2.1")));
    runner.succeeds(again);
    fs::remove_file(site.path("env")).expect("it was made");
    let check = runner.task("j", "tells", Kind::Check, None);
    assert_eq!(runner.succeeds(check).epoch, 2);
    let log = "ban 192.0.2.1\nrepair\nban 192.0.2.2\nagain 192.0.2.1\nrepair\n";
    assert_eq!(site.read("log"), log);
}

#[test]
fn one_that_listens_serves_one_daemon_after_the_other_and_strangers_never() {
    let tells = "[Definition]\nactionban = echo <ip> >> <out>/log\n";
    let site = Site::new(&[("j", "tells")], &[("tells", tells)], "");
    fs::set_permissions(site.folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let (mut first, socket) = listening(&site, &["--daemon-user", "nobody"]);
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
    first.hello(Vec::new());
    let task = first.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.1")));
    first.succeeds(task);
    first.hang_up();
    let mut second = Runner::over(UnixStream::connect(&socket).expect("it listens"), None);
    second.hello(Vec::new());
    let task = second.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.2")));
    // It has lived on, and knows more than a daemon.
    assert_eq!(second.succeeds(task).banned, ["inet4"]);
    second.hang_up();
    assert_eq!(site.read("log"), "192.0.2.1\n192.0.2.2\n");
    // A daemon of the user that is named may hand over tasks, and change no command; another's may nothing.
    let connect = |user: u32| {
        let socket = socket.clone();
        let connecting = std::thread::spawn(move || {
            // These calls are of this thread alone.
            rustix::thread::set_thread_groups(&[]).expect("root's right");
            rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(user)).expect("root's right");
            UnixStream::connect(socket)
        });
        connecting.join().expect("no panic")
    };
    let id = Command::new("id").args(["-u", "nobody"]).output().expect("id");
    let nobody: u32 = String::from_utf8_lossy(&id.stdout).trim().parse().expect("a number");
    let mut third = Runner::over(connect(nobody).expect("it is let in"), None);
    third.hello(Vec::new());
    let task = third.task("j", "tells", Kind::Ban, Some(ticket("192.0.2.3")));
    third.succeeds(task);
    let [jail, action, property, value] = ["j", "tells", "actionban", "id"].map(str::to_owned);
    third.say(&ToRunner::Set { id: 1, jail, action, property, value });
    let answer = third.hear(|said| matches!(said, FromRunner::Answer { .. }));
    assert!(format!("{answer:?}").contains("runs as another user"), "{answer:?}");
    let stranger = connect(nobody - 1);
    assert!(stranger.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied));
}

/// `fail2xdp action test` with these words; whether it succeeds, and what it says.
fn action_test(site: &Site, words: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(binary());
    command.args(["action", "test"]).args(words).arg("--config").arg(site.config());
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_action_can_be_tried_out() {
    let tells = "[Definition]\n\
        actionstart = echo start > <out>/log\n\
        actionban = echo \"<matches>\" <F-USER> <bantime> with <apikey>; echo <ip> >> <out>/log; bpftool map list; exit <status>\n\
        actionunban = echo lifted <ip> >> <out>/log\n\
        [Init]\nstatus = 0\n";
    let site = Site::new(
        &[
            ("j", "xdp[port=22]\n  tells[apikey=TOPSECRET]"),
            ("k", "tells[status=3, apikey=OTHER]\n  file[path=/nowhere/x.json]"),
        ],
        &[("tells", tells)],
        "action_retry = 0",
    );
    let words = ["tells", "--jail", "j", "--ip", "192.0.2.1", "--unban"];
    let (succeeds, out, err) = action_test(&site, &words);
    assert!(succeeds, "{out}{err}");
    assert_eq!(site.read("log"), "start\n192.0.2.1\nlifted 192.0.2.1\n");
    for part in [
        "ban: done",
        "with ***",
        "a test of action tells for 192.0.2.1",
        "exit status: 0",
        "unban: done",
    ] {
        assert!(out.contains(part), "`{part}` is missing: {out}");
    }
    assert!(out.contains("Operation not permitted"), "it may bpf: {out}");
    assert!(!out.contains("TOPSECRET") && !err.contains("TOPSECRET"), "{out}{err}");

    let words = [
        "tells",
        "--jail",
        "k",
        "--ip",
        "2001:db8::1",
        "--json",
        "--field",
        "user=$(id)",
        "--line",
        "a'b",
    ];
    let (succeeds, out, _) = action_test(&site, &words);
    assert!(!succeeds, "{out}");
    let told: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let command = &told["tasks"][1]["commands"][0];
    assert_eq!(command["status"], 3, "{told}");
    assert_eq!(command["arguments"], json!(["a'b", "$(id)"]));
    assert!(
        command["stdout"].as_str().is_some_and(|it| it.starts_with("a'b $(id) 600 with")),
        "{told}"
    );
    assert!(
        told["tasks"][1]["failed"]
            .as_str()
            .is_some_and(|it| it.ends_with("Error banning 2001:db8::1"))
    );

    fs::remove_file(site.path("log")).expect("it was written");
    let words = ["tells", "--jail", "j", "--ip", "192.0.2.1", "--dry-run"];
    let (succeeds, out, _) = action_test(&site, &words);
    assert!(succeeds && out.contains("ban: would run") && !site.path("log").exists(), "{out}");

    let words = ["file", "--jail", "k", "--ip", "192.0.2.1"];
    let (succeeds, out, _) = action_test(&site, &words);
    assert!(!succeeds && out.contains("/nowhere"), "{out}");
    for (name, jail, why) in [
        ("xdp", "j", "it is an XDP ban (tcp:22)"),
        ("nothing", "j", "jail `j` has no action `nothing`; it has `tells`"),
        ("tells", "nowhere", "no jail `nowhere` is enabled"),
    ] {
        let (succeeds, _, err) = action_test(&site, &[name, "--jail", jail, "--ip", "192.0.2.1"]);
        assert!(!succeeds && err.contains(why), "{err}");
    }
    let (_, _, err) = action_test(&site, &["tells", "--jail", "j", "--ip", "somebody"]);
    assert!(err.contains("`somebody` is no address"), "{err}");
}

/// A delivery that fails is tried again until it succeeds; what waits meanwhile goes with it, in order.
#[test]
fn what_needs_no_command_waits_in_the_same_queues() {
    let site = Site::new(&[("j", "file[path=\"OUT/sub/bans.json\"]")], &[], "");
    let jail = fs::read_to_string(site.config().join("jail.conf")).expect("jail.conf");
    let jail = jail.replace("OUT", &site.folder.path().display().to_string());
    fs::write(site.config().join("jail.conf"), jail).expect("jail.conf");
    let mut runner = Runner::start(&site);
    let tasks = [1, 2, 3]
        .map(|nth| runner.task("j", "file", Kind::Ban, Some(ticket(&format!("192.0.2.{nth}")))));
    runner
        .hear(|said| matches!(said, FromRunner::Log { text, .. } if text.contains("tried again")));
    fs::create_dir(site.path("sub")).expect("a directory");
    for task in tasks {
        runner.succeeds(task);
    }
    let lines = site.read("sub/bans.json");
    let told: Vec<bool> = lines
        .lines()
        .zip(["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        .map(|(line, ip)| line.contains(ip))
        .collect();
    assert_eq!(told, [true; 3], "{lines}");
}
