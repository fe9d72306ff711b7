//! Promise: what a command changes is changed in the running daemon at once: in what it reads, matches, counts and bans.
use std::{fs, path::PathBuf, process::Command, time::Duration};

use fail2xdp_tests::{Daemon, Fail2ban, Log, binary, tool, until};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// A daemon with one jail, `one`, over `one.log`.
struct Bench {
    place: TempDir,
    daemon: Daemon,
}

impl Bench {
    #[track_caller]
    fn start() -> Bench {
        let place = tempfile::Builder::new().prefix("f2x-effect-").tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        fs::write(at("one.log"), "").expect("a log");
        let log = at("one.log").display().to_string();
        let jail =
            format!("[one]\nenabled = true\nfilter = sshd\nlogpath = {log}\naction = none\n");
        Fail2ban::configure(place.path(), &jail);
        fs::write(at("etc/action.d/none.conf"), "[Definition]\nactionban = true\n")
            .expect("a file");
        let mut daemon = Command::new(binary());
        daemon.args(["run", "--mode", "none", "--config"]).arg(at("etc"));
        daemon.arg("--socket").arg(at("control")).arg("--state").arg(at("state"));
        let mut bench = Bench { daemon: Daemon::start(daemon), place };
        bench.daemon.wait_for_line("following", SOON);
        bench.ask("set one maxretry 1");
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Asks by one of fail2ban's commands, whose words hold no blanks but `~`.
    #[track_caller]
    fn ask(&self, line: &str) -> String {
        let words = line.split(' ').map(|word| word.replace('~', " "));
        let mut command = Command::new(binary());
        let output = command.arg("--socket").arg(self.at("control")).args(words).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {said}{complained}");
        said
    }

    #[track_caller]
    fn wait_banned(&self, address: &str) {
        until(SOON, &format!("{address} is banned"), || {
            (self.ask(&format!("get one banned {address}")) == "1").then_some(())
        });
    }

    /// The daemon has read so far: what stands before was read, too.
    #[track_caller]
    fn reads_up_to(&self, log: &mut Log, marker: &str) {
        log.wrong_password(marker.parse().expect("it is an address"));
        self.wait_banned(marker);
    }

    #[track_caller]
    fn is_free(&self, address: &str) {
        assert_eq!(self.ask(&format!("get one banned {address}")), "0", "{address}");
    }
}

/// A line with the time of now that only a regex of the test's own matches.
fn evil(address: &str) -> String {
    let line = Log::line_of("192.0.2.1".parse().expect("it is an address"));
    let (head, _) = line.split_once("sshd").expect("a line of sshd");
    format!("{head}evil: {address}\n")
}

#[test]
fn patterns_are_matched_from_now_on() {
    let bench = Bench::start();
    let mut log = Log::open(bench.at("one.log"));
    log.append(&evil("192.0.2.1"));
    bench.reads_up_to(&mut log, "192.0.2.2");
    bench.is_free("192.0.2.1");
    let regexes = bench.ask("get one failregex").lines().count();
    bench.ask("set one prefregex ");
    bench.ask("set one addfailregex evil:~<HOST>$");
    log.append(&evil("192.0.2.3"));
    bench.wait_banned("192.0.2.3");
    bench.ask("set one addignoreregex evil:~192\\.0\\.2\\.4");
    log.append(&evil("192.0.2.4"));
    log.append(&evil("192.0.2.5"));
    bench.wait_banned("192.0.2.5");
    bench.is_free("192.0.2.4");
    bench.ask("set one delfailregex -1");
    assert_eq!(bench.ask("get one failregex").lines().count(), regexes);
    // The configuration is what a reload goes back to.
    bench.ask("reload one");
    bench.ask("set one maxretry 1");
    log.append(&evil("192.0.2.6"));
    bench.reads_up_to(&mut log, "192.0.2.7");
    bench.is_free("192.0.2.6");
    assert_eq!(bench.ask("get one ignoreregex"), "No regular expression is defined");
}

#[test]
fn files_and_times_and_counts_are_taken_at_once() {
    let bench = Bench::start();
    let (mut log, mut more) = (Log::open(bench.at("one.log")), Log::open(bench.at("more.log")));
    let path = bench.at("more.log").display().to_string();
    bench.ask(&format!("set one addlogpath {path}"));
    more.wrong_password("192.0.2.1".parse().expect("an address"));
    bench.wait_banned("192.0.2.1");
    bench.ask(&format!("set one dellogpath {path}"));
    more.wrong_password("192.0.2.2".parse().expect("an address"));
    bench.reads_up_to(&mut log, "192.0.2.3");
    bench.is_free("192.0.2.2");

    bench.ask("set one bantime 2h");
    bench.reads_up_to(&mut log, "192.0.2.4");
    let bans = bench.ask("get one banip --with-time");
    let ban = bans.lines().find(|line| line.starts_with("192.0.2.4 ")).expect("it is banned");
    assert!(ban.contains(" + 7200 = "), "{ban}");
    bench.ask("set one maxretry 2");
    log.wrong_password("192.0.2.5".parse().expect("an address"));
    until(SOON, "it is counted", || {
        bench.ask("status one").contains("Currently failed:\t1").then_some(())
    });
    bench.is_free("192.0.2.5");
    log.wrong_password("192.0.2.5".parse().expect("an address"));
    bench.wait_banned("192.0.2.5");
    assert_eq!(bench.ask("set one attempt 192.0.2.6 a b"), "1");
    bench.wait_banned("192.0.2.6");
    assert_eq!(bench.ask("set one unbanip 192.0.2.6 192.0.2.5"), "2");
    bench.is_free("192.0.2.6");
}

#[test]
fn who_is_spared_and_what_is_idle() {
    let bench = Bench::start();
    let mut log = Log::open(bench.at("one.log"));
    bench.ask("set one addignoreip 192.0.2.0/25");
    log.wrong_password("192.0.2.1".parse().expect("an address"));
    bench.reads_up_to(&mut log, "192.0.2.200");
    bench.is_free("192.0.2.1");
    bench.ask("set one delignoreip 192.0.2.0/25");
    bench.reads_up_to(&mut log, "192.0.2.1");
    // An idle jail reads nothing, and misses nothing.
    assert_eq!(bench.ask("set one idle on"), "True");
    log.wrong_password("192.0.2.2".parse().expect("an address"));
    let total = bench.ask("status one short");
    assert_eq!(bench.ask("set one idle off"), "False");
    bench.wait_banned("192.0.2.2");
    assert_ne!(bench.ask("status one short"), total);
}

#[test]
fn a_jail_is_made_used_and_removed() {
    let bench = Bench::start();
    let mut log = Log::open(bench.at("new.log"));
    let path = bench.at("new.log").display().to_string();
    let told = bench.at("told");
    let tell = format!("echo~<ip>~>>~{}", told.display());
    for (line, said) in [
        ("add new polling", "Added jail new"),
        ("set new maxretry 2", "2"),
        ("set new addfailregex password~for~.*~from~<HOST>", ""),
        (&format!("set new addlogpath {path}"), ""),
        ("set new addaction xdp", "xdp"),
        ("set new addaction tell", "tell"),
        (&format!("set new action tell actionban {tell}"), &tell.replace('~', " ")),
        ("get new actions", ""),
        ("start new", "Jail started"),
        ("status", ""),
    ] {
        let answer = bench.ask(line);
        assert!(said.is_empty() || answer == said, "{line}: {answer}");
    }
    for _ in 0..2 {
        log.wrong_password("192.0.2.9".parse().expect("an address"));
    }
    until(SOON, "the new jail bans", || (bench.ask("get new banip") == "192.0.2.9").then_some(()));
    assert_eq!(bench.ask("banned 192.0.2.9"), "[['new']]");
    let is_told = || fs::read_to_string(&told).is_ok_and(|text| text == "192.0.2.9\n");
    until(SOON, "its action is told", || is_told().then_some(()));
    assert_eq!(bench.ask("stop new"), "Jail stopped");
    assert_eq!(bench.ask("banned 192.0.2.9"), "[[]]", "its bans went with it");
    assert!(bench.ask("status").contains("Number of jail:\t1"));
}

#[test]
fn the_log_goes_where_it_is_told() {
    let mut bench = Bench::start();
    let (first, second) = (bench.at("first.log"), bench.at("second.log"));
    let target = bench.ask(&format!("set logtarget {}", first.display()));
    assert_eq!(target, format!("Current logging target is:\n`- {}", first.display()));
    bench.ask("set one banip 192.0.2.1");
    let holds = |path: &PathBuf, text: &str| {
        let read = fs::read_to_string(path).unwrap_or_default();
        until(SOON, &format!("`{text}` in {}: {read}", path.display()), || {
            fs::read_to_string(path).ok().filter(|read| read.contains(text))
        })
    };
    holds(&first, "Ban 192.0.2.1");
    fs::rename(&first, &second).expect("it is there");
    assert_eq!(bench.ask("flushlogs"), "logs: rolled over");
    bench.ask("set one banip 192.0.2.2");
    let log = holds(&first, "Ban 192.0.2.2");
    assert!(!log.contains("192.0.2.1"), "{log}");
    bench.ask("set loglevel ERROR");
    bench.ask("set one banip 192.0.2.3");
    bench.ask("set loglevel INFO");
    bench.ask("set logtarget STDERR");
    bench.ask("set one banip 192.0.2.4");
    bench.daemon.wait_for_line("Ban 192.0.2.4", SOON);
    let all = fs::read_to_string(&first).expect("it is there") + &bench.daemon.said();
    assert!(!all.contains("Ban 192.0.2.3"), "{all}");
}

#[test]
fn all_jails_are_shown_at_once() {
    let bench = Bench::start();
    bench.ask("set one banip 192.0.2.1");
    let all = bench.ask("status --all");
    assert!(all.contains("`- Status for the jails:\n   `- Jail: one\n"), "{all}");
    assert!(all.ends_with("`- Banned IP list:\t192.0.2.1"), "{all}");
    assert!(!bench.ask("status --all short").contains("192.0.2.1"));
    let stats = bench.ask("stats");
    assert!(stats.contains(" one      ║ files    ║   0 │   0 ║   1 │   1"), "{stats}");
}

#[test]
fn fail2bans_server_by_its_name_runs_in_the_foreground() {
    let place = tempfile::Builder::new().prefix("f2x-server-").tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let jail = "[one]\nenabled = true\nfilter = sshd\nlogpath = /none.log\naction = none\n";
    Fail2ban::configure(place.path(), jail);
    fs::write(at("etc/action.d/none.conf"), "[Definition]\nactionban = true\n").expect("a file");
    fs::write(at("etc/fail2xdp.conf"), "[Definition]\nmode = none\n").expect("a file");
    std::os::unix::fs::symlink(binary(), at("fail2ban-server")).expect("a link");
    // It works in the usual state directory: one of its own here.
    let mut command = Command::new(tool("unshare"));
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs tmpfs /var/lib && exec \"$0\" \"$@\"");
    command.arg(at("fail2ban-server")).args(["-xf", "-c"]).arg(at("etc"));
    command.arg("-s").arg(at("control")).arg("--logtarget").arg(at("named.log"));
    command.args(["--loglevel=DEBUG", "start"]);
    let daemon = Daemon::start(command);
    let ask = |words: &[&str]| {
        let output = Command::new(binary()).arg("--socket").arg(at("control")).args(words).output();
        String::from_utf8(output.expect("it starts").stdout).expect("text")
    };
    assert_eq!(ask(&["ping"]), "Server replied: pong\n");
    // What the command line names stands above the configuration, after a reload as well.
    assert_eq!(ask(&["reload"]), "OK\n");
    let target = ask(&["get", "logtarget"]);
    assert!(target.contains(&at("named.log").display().to_string()), "{target}");
    assert!(ask(&["get", "loglevel"]).contains("DEBUG"));
    let logged = fs::read_to_string(at("named.log")).expect("the log is there");
    assert!(logged.contains("begins"), "{logged}");
    assert!(daemon.terminate().success());
}
