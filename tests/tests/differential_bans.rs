//! Promise: bans that grow, known offenders, recidive and `ignorecommand` end as fail2ban has them: the same bans, at the
//! same times, after the same number of failures, counted the same, and over at the same second.
//!
//! fail2ban's own classes are driven here on a clock of ours, days in seconds: what its threads would do some time
//! later happens between two lines. Whatever the same tree leads to in `fail2xdp replay` is compared.
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use fail2xdp_tests::{Daemon, Fail2ban, Log, binary, fail2ban, now, until};
use serde_json::Value;

/// Reads the configuration of `folder/etc`, and then the log, with the clock half a second behind each line. Tells each
/// ban when its time is found, and each that is over, one JSON list a line.
const DRIVER: &str = r#"
import datetime, json, logging, os, sys
from fail2ban.client.configurator import Configurator
from fail2ban.server.actions import Actions
from fail2ban.server.jail import Jail
from fail2ban.server.mytime import MyTime
from fail2ban.server.observer import Observers, ObserverThread
from fail2ban.server.server import Server

folder = sys.argv[1]

def tell(*what):
    print(json.dumps(what))

class Now(ObserverThread):
    made = []
    def add(self, event, *args):
        if event == "failureFound":
            self.failureFound(*args)
        elif event == "banFound":
            # Looked at when the ban is made and logged.
            self.made.append(args)
    def add_timer(self, *args):
        pass
    def banFound(self, ticket, jail, btime):
        super().banFound(ticket, jail, btime)
        end = ticket.getEndOfBanTime(jail.actions.getBanTime())
        tell("ban", jail.name, str(ticket.getID()), ticket.getTime(), ticket.getAttempt(),
            ticket.getBanCount(), end, ticket.getMatches())

unban = Actions._Actions__unBan
def told_unban(self, ticket, *args, **kwargs):
    tell("unban", self._jail.name, str(ticket.getID()),
        ticket.getEndOfBanTime(self.banManager.getBanTime()))
    return unban(self, ticket, *args, **kwargs)
Actions._Actions__unBan = told_unban
Jail.isAlive = lambda self: True

lines = []
class Heard(logging.Handler):
    def emit(self, record):
        text = record.getMessage()
        if "] Ban " in text:
            at = datetime.datetime.fromtimestamp(MyTime.time()).strftime("%Y-%m-%d %H:%M:%S")
            lines.append("%s,500 fail2ban.actions        [1]: NOTICE  %s" % (at, text))
logging.getLogger("fail2ban.actions").addHandler(Heard())
logging.getLogger("fail2ban").setLevel(25)
logging.getLogger().addHandler(logging.NullHandler())

with open(os.path.join(folder, "auth.log")) as log:
    log = [line.rstrip("\n") for line in log]
clock = lambda line: datetime.datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() + 0.5
MyTime.setTime(clock(log[0]))

Observers.Main = Now()
config = Configurator()
config.setBaseDir(os.path.join(folder, "etc"))
config.readEarly()
config.getEarlyOptions()
config.readAll()
assert config.getOptions()
config.convertToProtocol()
server = Server()
transmitter = server._Server__transm
names = []
for command in config.getConfigStream():
    if command[0] == "start" or command[:2] in (["set", name] for name in
            ("syslogsocket", "loglevel", "logtarget", "allowipv6")):
        continue
    if command[:2] == ["set", "dbfile"]:
        command[2] = ":memory:"
    failed, value = transmitter.proceed(command)
    assert not failed, (command, value)
    if command[0] == "add":
        names.append(command[1])
jails = [server._Server__jails[name] for name in names]
for jail in jails:
    jail.filter.inOperation = True

def read(jail, line):
    jail.filter.processLineAndAdd(line)
    while jail.hasFailTickets:
        jail.actions._Actions__checkBan()
        while Now.made:
            Observers.Main.banFound(*Now.made.pop(0))
        while lines:
            line = lines.pop(0)
            for listening in jails:
                if listening.name.startswith("recidive"):
                    read(listening, line)

for line in log:
    MyTime.setTime(clock(line))
    server.getDatabase().purge()
    for jail in jails:
        jail.filter.performSvc(True)
        jail.actions._Actions__checkUnBan(1 << 30)
    for jail in jails:
        if not jail.name.startswith("recidive"):
            read(jail, line)
"#;

/// Jails of all kinds of growth, each over the same log.
const JAILS: &str = r#"
[plain]
bantime = 300

[grow]
maxretry = 5
bantime = 300
bantime.increment = true

[formula]
bantime = 120
bantime.increment = true
bantime.factor = 2.0 / 2.885385
bantime.formula = ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)
bantime.maxtime = 1d

[shifted]
maxretry = 4
bantime = 60
bantime.increment = true
bantime.factor = 3
bantime.formula = ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor // 2 + 7 * (ban.Count %% 3)
bantime.maxtime = 5h

[steps]
maxretry = 6
bantime = 200
bantime.increment = true
bantime.multipliers = 1 2 4 8 16
bantime.overalljails = true

[capped]
maxretry = 2
bantime = 400
bantime.increment = true
bantime.multipliers = 1 3
bantime.maxtime = 500

[wrong]
maxretry = 5
bantime = 100
bantime.increment = true
bantime.formula = ban.Time / (ban.Count - 2) * 3

[ever]
maxretry = 12
bantime = -1
bantime.increment = true

[asked]
bantime = 100
bantime.increment = true
ignorecommand = case <F-USER> in backup) exit 0;; esac; test '<ip>' = 203.0.113.7

[recidive]
filter = recidive
maxretry = 9
findtime = 1d
bantime = 6h

[recidive-few]
filter = recidive[_jailname="recidive.*"]
maxretry = 25
findtime = 1d
bantime = 1h
"#;

/// Who comes again, and for how long.
const ATTACKERS: i64 = 10;
const DAYS: i64 = 2;

/// Random numbers that are the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: i64) -> i64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as i64 % end
    }
}

/// Days of attackers who come again. Nobody stays away for about `findtime`: what has lapsed is cleared away
/// sooner or later there and here.
fn log(start: i64, seed: u64) -> String {
    let mut random = Random(seed);
    let mut lines: Vec<(i64, String)> = Vec::new();
    for attacker in 0..ATTACKERS {
        let address = match attacker % 4 {
            3 => format!("2001:db8::{attacker:x}"),
            _ => format!("203.0.113.{attacker}"),
        };
        let mut at = start + random.below(3600);
        while at < start + DAYS * 86_400 {
            for _ in 0..=random.below(7) {
                let user = ["root", "admin", "backup", "it's"][random.below(4) as usize];
                lines.push((at, format!("Failed password for {user} from {address} port 22 ssh2")));
                at += random.below(20) + 1;
            }
            at += match random.below(6) {
                0..=2 => random.below(400) + 50,
                3..=4 => random.below(4 * 3600) + 700,
                _ => random.below(30 * 3600) + 700,
            };
        }
    }
    lines.sort();
    let mut text = String::new();
    for (nth, (at, what)) in lines.iter().enumerate() {
        let time = jiff::Timestamp::from_second(*at).expect("of our days").strftime("%FT%T+00:00");
        let _ = writeln!(text, "{time} host sshd[{}]: {what}", nth + 1);
    }
    text
}

fn end(value: &Value) -> i64 {
    match value.as_f64() {
        // For ever, there and here.
        None => i64::MAX,
        Some(end) if end > 1e12 => i64::MAX,
        // Ours are whole seconds, never earlier than decided.
        Some(end) => end.ceil() as i64,
    }
}

/// The matched lines of a ban, where the jail does not grow: fail2ban keeps those of known offenders twice.
fn lines(jail: &str, lines: &Value) -> String {
    match jail {
        "plain" => format!(" {lines}"),
        _ => String::new(),
    }
}

/// What fail2ban tells: bans, and what is over.
fn theirs(folder: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut command = fail2ban(DRIVER);
    command.arg(folder).env("TZ", "UTC").stderr(Stdio::inherit());
    let output = command.output().expect("python3 starts: install the package `python3`");
    assert!(output.status.success(), "fail2ban fails");
    let (mut bans, mut over) = (BTreeSet::new(), BTreeSet::new());
    for line in String::from_utf8(output.stdout).expect("JSON is UTF-8").lines() {
        let told: Value = serde_json::from_str(line).expect("JSON");
        let (jail, address) = (told[1].as_str().expect("a name"), told[2].as_str().expect("one"));
        if told[0] == "ban" {
            let (time, failures) = (told[3].as_f64().expect("a time") as i64, &told[4]);
            let (count, end) = (&told[5], end(&told[6]));
            let lines = lines(jail, &told[7]);
            bans.insert(format!("{jail} {address} {time} {failures} #{count} {end}{lines}"));
        } else {
            over.insert(format!("{jail} {address} {}", end(&told[3])));
        }
    }
    (bans, over)
}

/// What `replay` tells.
fn ours(folder: &Path) -> (BTreeSet<String>, BTreeSet<String>, i64) {
    let output = Command::new(binary())
        .args(["replay", "--json", "--config"])
        .args([folder.join("etc"), folder.join("auth.log")])
        .env("TZ", "UTC")
        .stderr(Stdio::inherit())
        .output()
        .expect("we start");
    assert!(output.status.success(), "replay fails");
    let (mut bans, mut over, mut last) = (BTreeSet::new(), BTreeSet::new(), 0);
    for line in String::from_utf8(output.stdout).expect("JSON is UTF-8").lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let (jail, address) =
            (event["jail"].as_str().expect("a name"), event["address"].as_str().expect("one"));
        let (time, end) = (event["time"].as_f64().expect("a time") as i64, end(&event["until"]));
        match event["event"].as_str() {
            Some("ban") => {
                let (failures, count) = (&event["failures"], &event["count"]);
                let lines = lines(jail, &event["lines"]);
                bans.insert(format!("{jail} {address} {time} {failures} #{count} {end}{lines}"));
            }
            Some("unban") => {
                over.insert(format!("{jail} {address} {end}"));
            }
            Some("finding") => last = last.max(time),
            _ => {}
        }
    }
    (bans, over, last)
}

#[track_caller]
fn compare(
    what: &str,
    ours: &BTreeSet<String>,
    theirs: &BTreeSet<String>,
    folder: tempfile::TempDir,
) -> tempfile::TempDir {
    if ours == theirs {
        return folder;
    }
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).take(20).cloned().collect::<Vec<_>>().join("\n")
    };
    panic!(
        "{what}: {} and {} in `{}`; only ours:\n{}\nonly fail2ban's:\n{}",
        ours.len(),
        theirs.len(),
        folder.keep().display(),
        only(ours, theirs),
        only(theirs, ours)
    );
}

#[test]
fn bans_that_grow_are_fail2bans() {
    let seeds = if std::env::var_os("FAIL2XDP_FULL").is_some() { 1..=4 } else { 1..=1 };
    for seed in seeds {
        let folder = tempfile::tempdir().expect("a directory");
        let path = |name: &str| folder.path().join(name);
        let mut jails = String::new();
        for section in JAILS.trim().split("\n\n") {
            let (name, options) = section.split_once('\n').expect("options");
            let filter = if options.contains("filter =") { "" } else { "filter = sshd\n" };
            let find_time = if options.contains("findtime") { "" } else { "findtime = 600\n" };
            let log = path(if filter.is_empty() { "fail2ban.log" } else { "auth.log" });
            let log = log.display();
            let _ = writeln!(
                jails,
                "{name}\nenabled = true\nmaxmatches = 3\nlogpath = {log}\n{filter}{find_time}{options}"
            );
        }
        Fail2ban::configure(folder.path(), &jails);
        fs::write(path("auth.log"), log(now() as i64 - 4 * 86_400, seed)).expect("room for a log");
        fs::write(path("fail2ban.log"), "").expect("a file");
        let (our_bans, our_over, last) = ours(folder.path());
        let (their_bans, their_over) = theirs(folder.path());
        let folder = compare("bans", &our_bans, &their_bans, folder);
        // fail2ban's clock stops with the log.
        let until_then = |over: BTreeSet<String>| -> BTreeSet<String> {
            let ended = |told: &String| {
                told.rsplit(' ')
                    .next()
                    .and_then(|end| end.parse().ok())
                    .is_some_and(|end: i64| end <= last)
            };
            over.into_iter().filter(ended).collect()
        };
        let _folder = compare("bans over", &until_then(our_over), &until_then(their_over), folder);
        for jail in JAILS.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')) {
            let of_jail = our_bans.iter().filter(|ban| ban.starts_with(&format!("{jail} ")));
            let (bans, again) = of_jail.fold((0, 0), |(bans, again), ban| {
                (bans + 1, again + u32::from(!ban.contains("#1 ")))
            });
            eprintln!("seed {seed}: {jail}: {bans} bans, {again} of those banned before");
            assert!(bans >= 5, "`{jail}` makes too few bans");
        }
    }
}

/// Pasts are forgotten after 25 minutes, failures are counted for a day: a ban that begins to be counted before, and is made
/// after, is one more, of plain length.
#[test]
fn a_past_that_is_forgotten_while_failures_are_counted_still_counts() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name);
    let jail = format!(
        "[day]\nenabled = true\nfilter = sshd\nlogpath = {}\nmaxretry = 6\nfindtime = 1d\nbantime = 100\n\
         bantime.increment = true\n",
        path("auth.log").display()
    );
    Fail2ban::configure(folder.path(), &jail);
    fs::write(path("etc/fail2ban.local"), "[DEFAULT]\ndbpurgeage = 20m\n").expect("a file");
    let (start, mut random) = (now() as i64 - 4 * 86_400, Random(7));
    let mut lines = BTreeSet::new();
    for attacker in 0..ATTACKERS {
        let mut at = start;
        while at < start + 86_400 {
            lines.insert((at, format!("203.0.113.{attacker}")));
            at += [1, 30, 400, 1400][random.below(4) as usize] + random.below(200);
        }
    }
    let line = |(nth, (at, address)): (usize, &(i64, String))| {
        let time = jiff::Timestamp::from_second(*at).expect("of our days").strftime("%FT%T+00:00");
        format!("{time} host sshd[{nth}]: Failed password for root from {address} port 22 ssh2\n")
    };
    let log: String = lines.iter().enumerate().map(line).collect();
    fs::write(path("auth.log"), log).expect("room for a log");
    let (our_bans, ..) = ours(folder.path());
    let (their_bans, _) = theirs(folder.path());
    let _folder = compare("bans", &our_bans, &their_bans, folder);
    // JAIL ADDRESS TIME FAILURES #COUNT END
    let (mut late, mut grown) = (0, 0);
    for ban in our_bans.iter().filter(|ban| !ban.contains(" #1 ")) {
        let words: Vec<&str> = ban.split(' ').collect();
        let number = |nth: usize| words[nth].parse::<i64>().expect("seconds");
        *(if number(5) - number(2) == 100 { &mut late } else { &mut grown }) += 1;
    }
    eprintln!("{} bans, {grown} longer than the first, {late} as long", our_bans.len());
    assert!(late >= 5 && grown >= 5);
}

/// What fail2ban's database says of bad addresses.
const BAD: &str = r#"
import json, sqlite3, sys
rows = sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True).execute(
    "SELECT jail, ip, timeofban, bantime, bancount FROM bips ORDER BY jail, ip")
print(json.dumps([list(row) for row in rows]))
"#;

/// Long enough for whatever either of them does within a few seconds.
const SOON: Duration = Duration::from_secs(30);

/// The jails of both daemons, `recidive` reading `bans`.
fn live_jails(folder: &Path, bans: &Path) -> String {
    let log = |name: &str| folder.join(name).display().to_string();
    format!(
        "[grow]\nenabled = true\nfilter = sshd\nmaxretry = 2\nbantime = 2\nbantime.increment = true\n\
         logpath = {}\n[asked]\nenabled = true\nfilter = sshd\nmaxretry = 2\nlogpath = {}\n\
         ignorecommand = test <ip> = 203.0.113.7\nignorecache = key=\"<ip>\", max-count=2, max-time=1m\n\
         [failing]\nenabled = true\nfilter = sshd\nmaxretry = 2\nlogpath = {}\nignorecommand = /nowhere/at-all <ip>\n\
         [recidive]\nenabled = true\nfilter = recidive\nmaxretry = 2\nfindtime = 1d\nbantime = 1w\nlogpath = {}\n",
        log("grow.log"),
        log("asked.log"),
        log("asked.log"),
        bans.display()
    )
}

#[test]
fn the_daemon_counts_beside_fail2bans_server_and_after_a_restart() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name);
    let (mut grow, mut asked) = (Log::open(path("grow.log")), Log::open(path("asked.log")));
    Log::open(path("fail2ban.log"));
    Fail2ban::configure(folder.path(), &live_jails(folder.path(), &path("fail2ban.log")));
    // Nobody writes the log that our recidive would read.
    Fail2ban::configure(&path("ours"), &live_jails(folder.path(), &path("nobody/fail2ban.log")));
    let place = [("--config", "ours/etc"), ("--socket", "our.sock"), ("--state", "state")];
    let flags: Vec<String> = place
        .iter()
        .flat_map(|(flag, name)| [(*flag).to_owned(), path(name).display().to_string()])
        .collect();
    let ours = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(&flags).args(words).stderr(Stdio::inherit());
        command
    };
    let told = |words: &[&str]| -> Value {
        let said = ours(&[words, &["--json"]].concat()).output().expect("we start").stdout;
        serde_json::from_slice(&said).unwrap_or(Value::Null)
    };
    let start = || Daemon::start(ours(&["run", "--mode", "none"]));
    let mut daemon = start();
    let server = Fail2ban::start(folder.path(), ":/etc/localtime");
    until(SOON, "fail2ban follows the logs", || {
        (server.log().matches("Jail '").count() >= 8).then_some(())
    });
    let address = |last: u8| std::net::IpAddr::from([203, 0, 113, last]);
    for _ in 0..2 {
        asked.wrong_password(address(7));
        asked.wrong_password(address(8));
    }
    // Both are told of the next failure only when both have lifted the ban that the last one led to.
    for round in 1..=3u32 {
        for _ in 0..2u32.saturating_sub(round - 1).max(1) {
            grow.wrong_password(address(9));
        }
        let ban = until(SOON, "our ban", || {
            let bans = told(&["bans"]);
            bans.as_array()?.iter().find(|ban| ban["jail"] == "grow").cloned()
        });
        let lasts = ban["until"].as_i64().expect("an end") - ban["since"].as_i64().expect("one");
        assert_eq!((&ban["count"], lasts), (&round.into(), 1 << round), "{ban}");
        if round == 1 {
            // Four failures of two addresses: no answer is kept where no cache is.
            until(SOON, "the command that cannot run is told", || {
                let questions = told(&["status"])["questions"].clone();
                let failed = questions["failed"].as_u64()?;
                ((2..=4).contains(&failed) && questions["waiting"] == 0).then_some(())
            });
            // What recidive has heard in this second is not stored yet.
            daemon.kill();
            daemon = start();
        }
        if round == 2 {
            assert!(daemon.terminate().success());
            daemon = start();
        }
        until(SOON, "fail2ban lifts its ban", || {
            let unbans = server.log().matches("[grow] Unban 203.0.113.9").count();
            (unbans == round as usize).then_some(())
        });
        until(SOON, "we lift ours", || {
            let bans = told(&["bans"]);
            bans.as_array()?.iter().all(|ban| ban["jail"] != "grow").then_some(())
        });
    }
    let theirs = until(SOON, "fail2ban has banned whom it should", || {
        let jails: BTreeSet<String> = server.bans().into_iter().map(|ban| ban.0).collect();
        (jails.len() == 4).then(|| server.bans())
    });
    // What ours tell of their present, and fail2ban of its past.
    let database = path("db.sqlite3").display().to_string();
    let output = fail2ban(BAD).arg(&database).output().expect("python3 starts");
    let bad: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of_jail = |jail: &str| -> Vec<Value> {
        let rows = bad.as_array().expect("a list").iter();
        rows.filter(|row| row[0] == jail).cloned().collect()
    };
    assert_eq!(of_jail("grow")[0][4], 3, "{bad}");
    assert_eq!(of_jail("grow")[0][3], 8, "{bad}");
    let bans = told(&["bans"]);
    let ours_now: BTreeSet<(String, String, i64, u64)> = bans
        .as_array()
        .expect("a list")
        .iter()
        .map(|ban| {
            let text = |name: &str| ban[name].as_str().expect("a text").to_owned();
            let failures = ban["failures"].as_u64().expect("a number");
            (text("jail"), text("prefix"), ban["since"].as_i64().expect("a time"), failures)
        })
        .collect();
    let theirs_now: BTreeSet<(String, String, i64, u64)> = theirs
        .into_iter()
        .filter(|ban| ban.0 != "grow")
        .map(|(jail, address, at, failures)| (jail, address.to_string(), at, failures))
        .collect();
    // When each has seen the second ban may be another second.
    let timeless = |bans: &BTreeSet<(String, String, i64, u64)>| -> Vec<(String, String, u64)> {
        bans.iter().map(|(jail, who, _, failures)| (jail.clone(), who.clone(), *failures)).collect()
    };
    assert_eq!(timeless(&ours_now), timeless(&theirs_now));
    for (ours, theirs) in ours_now.iter().zip(&theirs_now) {
        let seen_apart = if ours.0 == "recidive" { 5 } else { 0 };
        assert!((ours.2 - theirs.2).abs() <= seen_apart, "{ours:?} and {theirs:?}");
    }
    assert_eq!(told(&["status", "recidive"])["hears_bans"], true);
    // Who is pardoned is nobody's old friend.
    assert!(ours(&["unban", "203.0.113.9"]).output().expect("we start").status.success());
    grow.wrong_password(address(9));
    grow.wrong_password(address(9));
    let ban = until(SOON, "our ban", || {
        let bans = told(&["bans"]);
        bans.as_array()?.iter().find(|ban| ban["jail"] == "grow").cloned()
    });
    assert_eq!(ban["count"], 1, "{ban}");
    drop(server);
}
