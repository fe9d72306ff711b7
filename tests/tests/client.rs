//! Promise: whoever controls fail2ban controls fail2xdp with the same words and reads the same answers: by Debian's own
//! client over fail2ban's socket, by ours, and by tools made for fail2ban.
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use fail2xdp_tests::{
    Daemon, Fail2ban, Fail2banClient, Told, binary, fail2ban_client_script, tool, until,
};
use tempfile::TempDir;

/// Every form of a command, right and wrong, in an order that makes sense. `~` stands for a blank inside a word, `LOGS`
/// for the directory of the logs. What begins with `*` is asked again until both agree: fail2ban bans on another thread.
const SCRIPT: &str = include_str!("client/script.txt");

/// Where we differ, and why; one that ends with a blank stands for all that begin so.
const DIFFERENCES: [(&str, &str); 16] = [
    ("version", "each says its own"),
    ("get dbfile", "each has its own"),
    ("set thread 1", "there is no stack size; Python's own error is no word for it"),
    ("set dbpurgeage x", "a time is calculated by a grammar, not by Python"),
    ("set one findtime x", "a time is calculated by a grammar, not by Python"),
    ("set one bantime x", "a time is calculated by a grammar, not by Python"),
    ("get one failregex", "what is shown is what is matched: groups of tags are our own"),
    ("set two addfailregex ^(broken~<HOST>$", "another engine words what is wrong with a pattern"),
    ("set two addignoreregex ^(broken", "another engine words what is wrong with a pattern"),
    ("set two datepattern %Q", "another engine words what is wrong with a date"),
    ("set two attempt", "Python's own error names a function of fail2ban's"),
    (
        "set two addignoreip not~a~name",
        "fail2ban looks such a name up at every failure, and spares nobody",
    ),
    (
        "set two banip 999.1.1.1",
        "what is no address is banned by fail2ban as text, which stops nobody",
    ),
    ("get one actionproperties none", "fail2ban lists fields of its own class besides"),
    ("get one action none nosuch", "Python's own error names a class of fail2ban's"),
    (
        "add three auto # again",
        "a slip in fail2ban 1.0.2: the name of its own exception is unknown to it",
    ),
];

const JAILS: &str = r"
[one]
enabled = true
filter = sshd
logpath = LOGS/one.log
ignoreip = 198.51.100.0/24 192.0.2.250
action = none
[two]
enabled = true
filter =
failregex = ^bad <F-ID>\S+</F-ID>$
            ^worse <F-ID>\S+</F-ID>$
ignoreregex = ^bad 192\.0\.2\.99$
logpath = LOGS/two.log
datepattern = ^%%Y-%%m-%%d %%H:%%M:%%S
findtime = 3600
bantime = 600
maxretry = 3
action = none
bantime.increment = true
bantime.factor = 2
bantime.maxtime = 1d
";

const ACTION: &str = "[Definition]\nactionban = true <ip>\nactionunban =\n[Init]\ntell = nobody\n";

/// Both servers on the same configuration: fail2ban's in `theirs`, ours in `ours`.
struct Both {
    place: TempDir,
    _fail2ban: Fail2ban,
    _daemon: Daemon,
}

/// Long enough for a server to be there, also on a busy machine.
const START: Duration = Duration::from_secs(30);

impl Both {
    #[track_caller]
    fn start() -> Both {
        let place = tempfile::Builder::new().prefix("f2x-client-").tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("logs")).expect("a directory");
        for log in ["one", "two", "three"] {
            fs::write(at(&format!("logs/{log}.log")), "").expect("a log");
        }
        let jails = JAILS.replace("LOGS", &at("logs").display().to_string());
        for folder in ["theirs", "ours"] {
            Fail2ban::configure(&at(folder), &jails);
            fs::write(at(folder).join("etc/action.d/none.conf"), ACTION).expect("a file");
        }
        let compat = "[Definition]\ncompat-socket = yes\n";
        fs::write(at("ours/etc/fail2xdp.conf"), compat).expect("a file");
        let mut daemon = Command::new(binary());
        daemon.args(["run", "--mode", "none", "--config"]).arg(at("ours/etc"));
        daemon.arg("--socket").arg(at("ours/control")).arg("--state").arg(at("ours/state"));
        let daemon = Daemon::start(daemon);
        let fail2ban = Fail2ban::start(&at("theirs"), "UTC");
        let mut client = Fail2banClient::start(&at("theirs"));
        until(START, "fail2ban answers with both jails", || {
            client.run(&["status"]).out.contains("one, two").then_some(())
        });
        Both { place, _fail2ban: fail2ban, _daemon: daemon }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Our own program under the name of fail2ban's, with the flags that lead to the daemon.
    fn own_client(&self) -> Command {
        let link = self.at("fail2ban-client");
        if !link.exists() {
            symlink(binary(), &link).expect("a link");
        }
        let mut command = Command::new(link);
        command.arg("-s").arg(self.at("ours/control")).arg("-c").arg(self.at("ours/etc"));
        command
    }

    /// The words of a line of the script.
    fn words(&self, line: &str) -> Vec<String> {
        let logs = self.at("logs").display().to_string();
        let line = line.split(" #").next().unwrap_or_default();
        line.split(' ').map(|word| word.replace('~', " ").replace("LOGS", &logs)).collect()
    }
}

/// What differs by its nature: times, process ids, the folders of the two.
fn without_place(text: &str) -> String {
    let text = text.replace("/ours/", "/theirs/");
    let mut shown = String::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let is_time = rest.len() >= 19
            && rest.is_char_boundary(19)
            && jiff::civil::DateTime::strptime("%F %T", &rest[..19]).is_ok();
        if is_time {
            shown += "TIME";
            rest = rest[19..].trim_start_matches(|c: char| c == ',' || c.is_ascii_digit());
        } else if let Some((pid, after)) =
            rest.strip_prefix('[').and_then(|it| it.split_once("]: "))
            && pid.len() > 2
            && pid.bytes().all(|byte| byte.is_ascii_digit())
        {
            rest = after;
        } else {
            shown.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    shown
}

/// Whether an entry of [`DIFFERENCES`] means this line.
fn is(entry: &str, line: &str) -> bool {
    line == entry || (entry.ends_with(' ') && line.starts_with(entry))
}

fn comparable(told: &Told) -> Told {
    Told { status: told.status, out: without_place(&told.out), err: without_place(&told.err) }
}

fn told(output: &Output) -> Told {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().map_or(-1, i64::from);
    Told { status, out: text(&output.stdout), err: text(&output.stderr) }
}

#[test]
fn every_command_form_answers_as_fail2ban() {
    let both = Both::start();
    let mut theirs = Fail2banClient::start(&both.at("theirs"));
    let mut ours = Fail2banClient::start(&both.at("ours"));
    let (mut wrong, mut differ) = (Vec::new(), Vec::new());
    let lines = SCRIPT.lines().filter(|line| !line.is_empty());
    for line in lines {
        let plain = line.strip_prefix('*').unwrap_or(line);
        let words = both.words(plain);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut both_told = || (comparable(&theirs.run(&words)), comparable(&ours.run(&words)));
        let (mut fail2ban, mut fail2xdp) = both_told();
        if line.starts_with('*') && fail2ban != fail2xdp {
            (fail2ban, fail2xdp) = until(START, &format!("both agree on `{plain}`"), || {
                Some(both_told()).filter(|(theirs, ours)| theirs == ours)
            });
        }
        let listed = DIFFERENCES.iter().any(|(command, _)| is(command, plain));
        if fail2ban == fail2xdp {
            continue;
        }
        differ.push(plain);
        // Whatever is said, it fails or works for both, but for what we refuse on purpose.
        if !listed {
            wrong.push(format!("{plain}\n  fail2ban: {fail2ban:?}\n  fail2xdp: {fail2xdp:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    for (command, why) in DIFFERENCES {
        let differs = differ.iter().any(|line| is(command, line));
        assert!(differs, "`{command}` ({why}) is listed and does not differ");
    }
}

#[test]
fn our_own_client_prints_what_debians_prints() {
    let both = Both::start();
    let mut debians = Fail2banClient::start(&both.at("ours"));
    for ban in ["set one banip 192.0.2.20 2001:db8::1", "set two attempt 192.0.2.10 a"] {
        let words = both.words(ban);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(debians.run(&words).status, 0, "{ban}");
    }
    let mut compared = 0;
    for line in SCRIPT.lines().filter(|line| !line.is_empty()) {
        let line = line.trim_start_matches('*');
        if line == "stop" {
            break;
        }
        let changes =
            ["set one", "set two", "add three", "start three", "stop", "unban ", "restart"];
        // What fails changes nothing, so both may try; what works is asked for once.
        let changes = changes.iter().any(|verb| line.starts_with(verb));
        let words = both.words(line);
        let output = both.own_client().args(&words).output().expect("it starts");
        let own = comparable(&told(&output));
        if changes && (own.status == 0 || line.contains("--report-absent")) {
            continue;
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut other = comparable(&debians.run(&words));
        // Debian's client reads its own files first and tells of them; ours asks the daemon to.
        if line.starts_with("reload") || line.starts_with("restart") {
            other.err.clone_from(&own.err);
            if own.status != 0 {
                other.out.clone_from(&own.out);
            }
        }
        assert_eq!(own, other, "{line}");
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
    // As a verb of ours, and as JSON.
    let verb = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("--socket").arg(both.at("ours/control")).args(words);
        let output = command.output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(verb(&["get", "two", "findtime"]), (Some(0), "3600\n".into()));
    assert_eq!(verb(&["get", "two", "findtime", "--json"]), (Some(0), "3600\n".into()));
    let (status, said) = verb(&["get", "nope", "findtime", "--json"]);
    assert_eq!(status, Some(255));
    assert_eq!(said, "{\"error\":\"Sorry but the jail 'nope' does not exist\"}\n");
    assert_eq!(verb(&["echo", "a", "--b", "--json"]).1, "[\"a\",\"--b\"]\n");
}

#[test]
fn tools_made_for_fail2ban_see_the_same() {
    let both = Both::start();
    let tools = std::env::var_os("FAIL2XDP_PYTHON_TOOLS").map(PathBuf::from);
    let tools = tools.filter(|tools| tools.is_dir()).expect(
        "the tools are missing: run `cargo xtask test`, which installs them, and sets FAIL2XDP_PYTHON_TOOLS",
    );
    for folder in ["theirs", "ours"] {
        write_program(
            &both.at(folder).join("bin/fail2ban-client"),
            &fail2ban_client_script(&both.at(folder)),
        );
        let mut client = Fail2banClient::start(&both.at(folder));
        client.run(&["set", "one", "banip", "192.0.2.20", "192.0.2.21"]);
    }
    // Our program in the place of Debian's.
    let own = format!(
        "#!/bin/sh\nexec '{}' -s '{}' \"$@\"\n",
        both.at("fail2ban-client").display(),
        both.at("ours/control").display()
    );
    both.own_client();
    write_program(&both.at("own/bin/fail2ban-client"), &own);
    let offenders = "import dataclasses, offenders_fail2ban as o\n\
                     for jail in o.get_jail_list():\n    print(jail, o.get_jail_status(jail))\n    print(o.get_jail_actions(jail))\n";
    for (tool, arguments) in [
        ("offenders", vec!["-c", offenders]),
        ("fail2slack", vec!["-m", "fail2slack", "--jails", "one", "two", "--identifier", "here"]),
    ] {
        let run = |folder: &str| {
            let bin = both.at(folder).join("bin");
            // We are root already, and a bare machine has none.
            let sudo = "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\nexec \"$@\"\n";
            write_program(&bin.join("sudo"), sudo);
            let path = format!("{}:/usr/bin:/bin", bin.display());
            let mut command = Command::new("/usr/bin/python3");
            command.args(&arguments).env("PATH", path).env("PYTHONPATH", &tools);
            let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("python3");
            let told = told(&output);
            assert_eq!(told.status, 0, "{tool} in {folder}: {told:?}");
            without_place(&told.out)
        };
        let theirs = run("theirs");
        assert!(theirs.contains("one") && theirs.contains("two"), "{tool}: {theirs}");
        assert_eq!(run("ours"), theirs, "{tool} through Debian's client");
        assert_eq!(run("own"), theirs, "{tool} through our client");
    }
}

fn write_program(path: &Path, text: &str) {
    tool("sh");
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("directories");
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}
