//! Promise: an action file gets from us what fail2ban's server gives it, tag by tag: bans found and made by hand, again and
//! restored, and their ends.
use std::{fs, path::Path, process::Command, time::Duration};

use fail2xdp_tests::{Daemon, Fail2ban, Log, binary, syslog_now, until};

const SOON: Duration = Duration::from_secs(30);

/// One line an event; matched lines have `~` for their ends.
const NOTE: &str = r#"[Definition]
actionstart = echo "start <name>" >> <out>
actionban = <note>
actionunban = <note>
actionstop = echo "stop <name>" >> <out>
[Init]
note = echo "%(what)s|<ip>|<fid>|<family>|<ip-rev>|<failures>|<time>|<bantime>|<bancount>|<restored>|<F-USER>|<F-PORT>|<F-NOSUCH>|<ipfailures>|<ipjailfailures>|<jail.banned>|<jail.banned_total>|<jail.found>|<jail.found_total>|<matches>|<ipmatches>|<ipjailmatches>" | tr '\n' '~' >> <out>; echo >> <out>
"#;

const JAILS: &str = "
[one]
enabled = true
filter = sshd
logpath = LOG
maxretry = 3
maxmatches = 2
action = pause
         note[out=\"OUT\"]
[two]
enabled = true
filter = sshd
logpath = LOG
maxretry = 2
bantime = 5
action = pause
         note[out=\"OUT\"]
";

fn noted(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("out")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Jails tell side by side: each one's order counts.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn an_action_file_is_told_the_same_by_both() {
    let place = tempfile::Builder::new().prefix("f2x-act-").tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    for folder in ["theirs", "ours"] {
        let jails = JAILS
            .replace("LOG", &at("log").display().to_string())
            .replace("OUT", &at(folder).join("out").display().to_string());
        Fail2ban::configure(&at(folder), &jails);
        // fail2ban stores a ban while its first action is run already, and shows what is stored by then.
        let pause = "[Definition]\nactionban = sleep 0.3\n";
        fs::write(at(folder).join("etc/action.d/pause.conf"), pause).expect("a file");
        let note = ["ban", "unban"].iter().fold(NOTE.to_owned(), |text, what| {
            let command =
                NOTE.split("note = ").nth(1).expect("it is there").trim().replace("%(what)s", what);
            text.replace(&format!("action{what} = <note>"), &format!("action{what} = {command}"))
        });
        let note = note.split("[Init]").next().expect("something stands before it");
        fs::write(at(folder).join("etc/action.d/note.conf"), note).expect("a file");
    }
    let mut log = Log::open(at("log"));
    let ours = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("--config").arg(at("ours/etc")).arg("--socket").arg(at("ours/control"));
        command.arg("--state").arg(at("ours/state")).args(words);
        command
    };
    let ask = |words: &[&str]| {
        let told = ours(words).output().expect("we start");
        assert!(told.status.success(), "{words:?}: {told:?}");
    };
    let start = || {
        (
            Fail2ban::start(&at("theirs"), ":/etc/localtime"),
            Daemon::start(ours(&["run", "--mode", "none"])),
        )
    };
    let both_have = |lines: usize| {
        let have = |folder| noted(&at(folder)).len() >= lines;
        until(SOON, &format!("both have {lines} lines"), || {
            (have("theirs") && have("ours")).then_some(())
        });
    };
    let mut session = 1000;
    let mut fail = |log: &mut Log, user: &str, from: &str| {
        session += 1;
        log.append(&format!(
            "{} host sshd[{session}]: Failed password for {user} from {from} port 50022 ssh2\n",
            syslog_now()
        ));
    };
    let (server, mut daemon) = start();
    both_have(2);
    // A ban of the short jail, one of the long, and the end of the first.
    fail(&mut log, "alice", "198.51.100.1");
    fail(&mut log, "bob", "198.51.100.1");
    both_have(3);
    fail(&mut log, "invalid user a\"b$(touch /f2x-never)'`;&", "198.51.100.1");
    both_have(4);
    both_have(5);
    // Once more, for the short jail has counted one: what was is shown with it.
    fail(&mut log, "carol", "198.51.100.1");
    both_have(6);
    both_have(7);
    for nth in 0..3 {
        fail(&mut log, &format!("user{nth}"), "2001:db8::7");
        if nth == 1 {
            both_have(8);
        }
    }
    both_have(9);
    both_have(10);
    for words in [
        ["set", "one", "banip", "198.51.100.9"],
        ["set", "one", "unbanip", "198.51.100.9"],
        ["set", "one", "unbanip", "2001:db8::7"],
    ] {
        let before = noted(&at("ours")).len();
        server.ask(&words);
        ask(&words);
        both_have(before + 1);
    }
    let (theirs, own) = (noted(&at("theirs")), noted(&at("ours")));
    // Of a ban by hand the time is that of the command.
    let timeless = |line: &String| {
        let mut tags: Vec<&str> = line.split('|').collect();
        if tags.get(1) == Some(&"198.51.100.9") {
            tags[6] = "NOW";
        }
        tags.join("|")
    };
    let of = |lines: &[String]| sorted(lines.iter().map(timeless).collect());
    assert_eq!(of(&own), of(&theirs));
    assert!(own.iter().any(|line| line.contains("$(touch /f2x-never)")), "{own:#?}");
    assert!(!Path::new("/f2x-never").exists());

    // Both begin again: who is banned still is told of once more, as restored.
    drop(server);
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait(SOON).success());
    for folder in ["theirs", "ours"] {
        fs::write(at(folder).join("out"), "").expect("it can be written");
    }
    let (_server, _daemon) = start();
    both_have(3);
    let bans = |folder| -> Vec<String> {
        sorted(noted(&at(folder)).into_iter().filter(|line| line.starts_with("ban")).collect())
    };
    let (own, theirs) = (bans("ours"), bans("theirs"));
    let counts = |line: &String| {
        // Whether what was restored counts as made since the start: with us it does not.
        line.split('|')
            .enumerate()
            .filter(|(nth, _)| !(15..19).contains(nth))
            .map(|(_, it)| it.to_owned())
            .collect::<Vec<_>>()
            .join("|")
    };
    assert_eq!(
        own.iter().map(counts).collect::<Vec<_>>(),
        theirs.iter().map(counts).collect::<Vec<_>>()
    );
}
