//! Promise: our log reads as fail2ban's does, wherever it goes; and nothing that happens to it stops us.
use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fail2xdp_tests::{
    Daemon, Fail2ban, Log, LogTo, Net, Site, Sshd, binary, fail2ban, fail2ban_config, run, until,
    within,
};
use serde_json::Value;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("f2x-log-").tempdir().expect("a directory")
}

/// A daemon without a kernel side on the configuration in `folder/etc`.
fn start(folder: &Path) -> Daemon {
    let mut command = Command::new(binary());
    command.args(["run", "--mode", "none", "--config"]).arg(folder.join("etc"));
    command.arg("--socket").arg(folder.join("ours")).arg("--state").arg(folder.join("state"));
    Daemon::start(command)
}

#[track_caller]
fn ask(folder: &Path, line: &str) -> String {
    let mut command = Command::new(binary());
    command.arg("--socket").arg(folder.join("ours")).args(line.split(' '));
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{line}: {said}");
    said.trim_end().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[track_caller]
fn holds(path: &Path, text: &str) -> String {
    until(SOON, &format!("`{text}` in {}", path.display()), || {
        Some(read(path)).filter(|read| read.contains(text))
    })
}

/// The lines that tell of failures and bans, without times and process ids, and how often each stands there.
fn told(log: &str) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for line in log.lines() {
        let is_of = |logger| line.contains(&format!(" fail2ban.{logger} "));
        let about = line.split_once(" [").is_some() && line.contains("]: ");
        let own = [": NOTICE  [", ": INFO    [", ": WARNING ["].iter().any(|it| line.contains(it));
        if !(["filter", "actions", "observer"].into_iter().any(is_of) && about && own) {
            continue;
        }
        let mut plain = String::new();
        // `2026-11-20 11:56:42,633`, `[6999]`: digits where no address stands.
        for word in line.split(' ') {
            let number = word.chars().all(|c| c.is_ascii_digit() || "-:,[])".contains(c));
            plain.push_str(if number && word.len() > 2 { "N" } else { word });
            plain.push(' ');
        }
        *told.entry(plain).or_default() += 1;
    }
    told
}

#[test]
fn our_log_says_what_fail2bans_says() {
    let (theirs, ours) = (folder(), folder());
    let log = theirs.path().join("auth.log");
    for place in [&theirs, &ours] {
        let jail = |name: &str, options: &str| {
            let log = log.display();
            format!("[{name}]\nenabled = true\nfilter = sshd\nlogpath = {log}\n{options}\n")
        };
        let own = place.path().join("fail2ban.log");
        let jails = jail("hold", "maxretry = 3\nignoreip = 203.0.113.50")
            + &jail(
                "grow",
                "maxretry = 1\nbantime = 4\nbantime.increment = true\nbantime.multipliers = 1 30",
            )
            + &format!(
                "[recidive]\nenabled = true\nfilter = recidive\nlogpath = {}\nmaxretry = 3\n",
                own.display()
            );
        Fail2ban::configure(place.path(), &jails);
        fs::write(own, "").expect("a log");
    }
    let mut log = Log::open(log);
    let daemon = start(ours.path());
    let server = Fail2ban::start(theirs.path(), ":/etc/localtime");
    let logs = [&theirs, &ours].map(|place| place.path().join("fail2ban.log"));
    holds(&logs[0], "'recidive' started");
    holds(&logs[1], "following");
    let mut fail = |address: &str, expected: &str, times: usize| {
        log.wrong_password(address.parse().expect("an address"));
        for path in &logs {
            until(SOON, &format!("{times} × `{expected}` in {}", path.display()), || {
                (read(path).matches(expected).count() >= times).then_some(())
            });
        }
    };
    fail("203.0.113.1", "[grow] Unban 203.0.113.1", 1);
    fail("203.0.113.1", "[grow] Increase Ban 203.0.113.1 (2 # 2m", 1);
    fail("203.0.113.1", "[hold] Ban 203.0.113.1", 1);
    fail("203.0.113.50", "[hold] Ignore 203.0.113.50 by ip", 1);
    // Three seconds after its ban at the least, so that it is said aloud.
    fail("2001:db8::7", "[grow] Unban 2001:db8::7", 1);
    for times in 3..=5 {
        fail("203.0.113.1", "[hold] Found 203.0.113.1", times + 1);
    }
    for path in &logs {
        holds(path, "[hold] 203.0.113.1 already banned");
        holds(path, "[recidive] Ban 203.0.113.1");
    }
    server.ask(&["set", "hold", "attempt", "198.51.100.9", "a line"]);
    ask(ours.path(), "set hold attempt 198.51.100.9 line");
    for path in &logs {
        holds(path, "INFO    [hold] Attempt 198.51.100.9 - ");
    }
    let said = || logs.clone().map(|path| told(&read(&path)));
    within(Duration::from_secs(5), || {
        let [theirs, ours] = said();
        (theirs == ours).then_some(())
    });
    let [theirs_said, ours_said] = said();
    assert!(theirs_said.len() > 12, "{theirs_said:#?}");
    assert_eq!(ours_said, theirs_said);

    assert!(daemon.terminate().success());
    let daemon = start(ours.path());
    holds(&logs[1], "NOTICE  [hold] Restore Ban 203.0.113.1\n");
    // What stands in our own log was heard by the daemon before: it is no evidence twice.
    let found = |what: &str| read(&logs[1]).matches(&format!("[recidive] Found {what}")).count();
    let before = found("203.0.113.1");
    log.wrong_password("203.0.113.99".parse().expect("an address"));
    holds(&logs[1], "[grow] Ban 203.0.113.99\n");
    until(SOON, "our own log is read up to there", || {
        let top: Value = serde_json::from_str(&ask(ours.path(), "top --json")).ok()?;
        let source = top["sources"].as_array()?.iter().find(|of| of["jail"] == "recidive")?;
        source["last"].as_i64().filter(|_| source["lag"] == 0)
    });
    assert_eq!((before > 2, found("203.0.113.1"), found("203.0.113.99")), (true, before, 1));
    drop((server, daemon));

    // What fail2ban's own filter finds in either: every ban that was made, and nothing else.
    let filter = fail2ban_config().join("filter.d/recidive.conf");
    let regex = "import sys\nfrom fail2ban.client.fail2banregex import exec_command_line\n\
                 exec_command_line(sys.argv[1:])";
    for path in &logs {
        let bans = read(path)
            .lines()
            .filter(|line| line.contains("] Ban ") && !line.contains("[recidive]"))
            .count();
        let found = format!(" {bans} matched, ");
        for mut command in [fail2ban(regex), Command::new(binary())] {
            if command.get_program() == binary() {
                command.arg("regex");
            }
            let output = command.arg(path).arg(&filter).output().expect("it starts");
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(bans >= 5 && report.contains(&found), "{bans}: {report}");
        }
    }
}

/// A tree with one jail over `one.log` whose bans nobody carries out, and this `[Definition]` of `fail2ban.conf`.
fn tree(folder: &Path, definition: &str, filter: &str) -> Log {
    let log = folder.join("one.log");
    let jail =
        format!("[one]\nenabled = true\nmaxretry = 1\n{filter}\nlogpath = {}\n", log.display());
    Fail2ban::configure(folder, &jail);
    fs::write(folder.join("etc/fail2ban.conf"), format!("[Definition]\n{definition}\n"))
        .expect("a file");
    Log::open(log)
}

#[test]
fn a_configuration_sends_the_log_to_syslog() {
    let place = folder();
    let path = |name: &str| place.path().join(name);
    let server = UnixDatagram::bind(path("dev-log")).expect("a socket");
    server.set_read_timeout(Some(SOON)).expect("a time");
    let definition = format!(
        "logtarget = SYSLOG[facility=local3]\nsyslogsocket = {}\nloglevel = NOTICE",
        path("dev-log").display()
    );
    let mut log = tree(place.path(), &definition, "filter = sshd");
    let _daemon = start(place.path());
    let heard = || {
        let mut message = [0; 1000];
        let length = server.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    log.wrong_password("192.0.2.1".parse().expect("an address"));
    let ban = heard();
    // local3.notice; below NOTICE nothing is said.
    assert!(ban.starts_with("<157>") && ban.ends_with("]: NOTICE [one] Ban 192.0.2.1"), "{ban}");
    assert!(ban.contains(" fail2ban.actions["), "{ban}");
    assert_eq!(ask(place.path(), "get logtarget"), "Current logging target is:\n`- SYSLOG");
    let other = UnixDatagram::bind(path("other")).expect("a socket");
    other.set_read_timeout(Some(SOON)).expect("a time");
    ask(place.path(), &format!("set syslogsocket {}", path("other").display()));
    ask(place.path(), "set one banip 192.0.2.2");
    let mut message = [0; 1000];
    let length = other.recv(&mut message).expect("a message");
    assert!(String::from_utf8_lossy(&message[..length]).ends_with("Ban 192.0.2.2"));
}

#[test]
fn the_journal_gets_every_word_in_a_field() {
    let net = Net::new("log-jnl");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::Journal);
    site.settings("[Definition]\nmode = none\nlogtarget = SYSTEMD-JOURNAL\n");
    site.jails(&site.jail("one", "one.log", "maxretry = 1"));
    let mut log = site.log("one.log");
    let view = format!(
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && ln -s {} /run/systemd/journal/socket",
        sshd.journal_socket().display()
    );
    let _daemon = Daemon::start(site.command_after(&view, &["run"]));
    site.wait_following("one");
    log.wrong_password("192.0.2.1".parse().expect("an address"));
    let directory = format!("--directory={}", sshd.journal().display());
    let entry: Value = until(SOON, "the journal has the ban", || {
        let said = run("journalctl", &[&directory, "--output=json", "FAIL2XDP_EVENT=ban"]);
        serde_json::from_str(said.lines().next()?).ok()
    });
    for (field, value) in [
        ("MESSAGE", "[one] Ban 192.0.2.1"),
        ("SYSLOG_IDENTIFIER", "fail2ban"),
        ("PRIORITY", "5"),
        ("LOGGER", "fail2ban.actions"),
        ("FAIL2XDP_JAIL", "one"),
        ("FAIL2XDP_ADDRESS", "192.0.2.1"),
    ] {
        assert_eq!(entry[field], value, "{entry}");
    }
}

/// A file system of 64 KiB; unmounted when dropped.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.display().to_string()]);
    }
}

#[test]
fn a_full_disk_is_told_and_stops_nothing() {
    let place = folder();
    let small = place.path().join("small");
    fs::create_dir(&small).expect("a directory");
    run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", &small.display().to_string()]);
    let small = Small(small);
    let target = small.0.join("our.log");
    let definition = format!("logtarget = {}", target.display());
    let mut log = tree(place.path(), &definition, "filter = sshd");
    let mut daemon = start(place.path());
    holds(&target, "following");
    // To the last byte.
    let filler = small.0.join("filler");
    run("sh", &["-c", &format!("cat /dev/zero > {} 2>/dev/null; true", filler.display())]);
    for nth in 1..=60 {
        log.wrong_password(format!("192.0.2.{nth}").parse().expect("an address"));
    }
    until(SOON, "all are banned all the same", || {
        (ask(place.path(), "get one banned").matches("192.0.2.").count() == 60).then_some(())
    });
    daemon.wait_for_line("the log cannot be written: No space left", SOON);
    let status =
        || -> Value { serde_json::from_str(&ask(place.path(), "status --json")).expect("JSON") };
    let log = status()["log"].clone();
    assert!(log["fault"].is_string() && log["lost"].as_u64() > Some(50), "{log}");
    assert!(ask(place.path(), "status").contains("cannot be written"));
    fs::remove_file(filler).expect("it is there");
    ask(place.path(), "set one banip 192.0.2.99");
    let said = holds(&target, "log lines are missing here");
    assert!(said.contains("Ban 192.0.2.99\n"), "{said}");
    let whole = |line: &str| line.starts_with("20") && line.contains("]: ");
    // One may be torn, where the disk was full; it does not tear the next.
    assert!(said.lines().filter(|line| !whole(line)).count() <= 1, "{said}");
    assert_eq!(status()["log"]["fault"], Value::Null);
}

#[test]
fn a_log_that_cannot_be_opened_is_told_and_stops_nothing() {
    let place = folder();
    let mut log = tree(place.path(), "logtarget = /proc/none/our.log", "filter = sshd");
    let mut daemon = start(place.path());
    daemon.wait_for_line("cannot log to `/proc/none/our.log`", SOON);
    log.wrong_password("192.0.2.1".parse().expect("an address"));
    daemon.wait_for_line("NOTICE  [one] Ban 192.0.2.1", SOON);
    assert_eq!(ask(place.path(), "get logtarget"), "Current logging target is:\n`- STDERR");
}

#[test]
fn a_log_that_is_renamed_is_begun_anew_and_nobody_forges_lines() {
    let place = folder();
    let target = place.path().join("our.log");
    let definition = format!("logtarget = {}", target.display());
    let filter = "filter =\nfailregex = evil <F-ID>.+</F-ID>$";
    let mut log = tree(place.path(), &definition, filter);
    let daemon = start(place.path());
    holds(&target, "following");
    let line = |text: &str| {
        let line = Log::line_of("192.0.2.1".parse().expect("an address"));
        format!("{}evil {text}\n", line.split_once("sshd").expect("a line of sshd").0)
    };
    log.append(&line("a\u{1b}[2Jb\rc\u{85}d\u{2028}e"));
    let said = holds(&target, "Found a\\u{1b}[2Jb\\rc\\u{85}d\\u{2028}e - ");
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    let rotated = place.path().join("our.log.1");
    fs::rename(&target, &rotated).expect("it is there");
    ask(place.path(), "set one banip 192.0.2.2");
    holds(&target, "Ban 192.0.2.2\n");
    fs::rename(&target, &rotated).expect("it is there");
    daemon.signal(rustix::process::Signal::USR1);
    until(SOON, "it is opened anew without a word", || target.exists().then_some(()));
}
