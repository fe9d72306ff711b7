//! Promise: `doctor` names what keeps attackers from being found or stopped, with a remedy, without a daemon and without
//! root, too.
use std::{fs, os::unix::fs::PermissionsExt, process::Output, time::Duration};

use fail2xdp_tests::{Net, Site, syslog_ago, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// What it found, as severity, area and words; and its exit status.
fn told(output: &Output) -> (i32, Vec<[String; 3]>) {
    let said = String::from_utf8_lossy(&output.stdout);
    let answer: Value = serde_json::from_str(&said).unwrap_or_else(|error| {
        panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr))
    });
    let findings = answer["findings"].as_array().expect("a list").clone();
    let word = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let words = findings.iter().map(|finding| {
        let what = format!("{} {}", word(finding, "what"), word(finding, "remedy"));
        [word(finding, "severity"), word(finding, "area"), what]
    });
    (output.status.code().expect("it ended by itself"), words.collect())
}

/// Fails unless there is a finding of this kind with these words.
#[track_caller]
fn finds(findings: &[[String; 3]], severity: &str, area: &str, words: &str) {
    let found = findings
        .iter()
        .any(|[how, of, what]| how == severity && of == area && what.contains(words));
    assert!(found, "no {severity} about {area} with `{words}`: {findings:#?}");
}

#[test]
fn without_a_daemon_it_names_what_is_in_the_way() {
    let net = Net::new("doc");
    let mut site = Site::new(&net);
    site.jails(&(site.jail("one", "one.log", "") + &site.jail("two", "none.log", "")));
    let log = site.log("one.log").path().to_owned();
    net.server.ip("tuntap add dev t0 mode tun");
    net.server.ip("link set t0 up");
    net.server.ip("route add default dev t0");
    let (status, found) = told(&site.output(&["doctor", "--json"]));
    assert_eq!(status, 1, "{found:#?}");
    finds(&found, "error", "interface", "`t0` carries no Ethernet frames (tun, no link layer)");
    finds(&found, "error", "interface", "protect the Ethernet interface that carries it, `s0`");
    finds(&found, "ok", "bpffs", "bpf");
    finds(&found, "ok", "kernel", "Linux ");
    finds(&found, "ok", "btf", "");
    finds(&found, "ok", "capabilities", "");
    finds(&found, "warning", "daemon", "no daemon answers");
    finds(&found, "warning", "sources", "[two] none of its logs exists");
    // With the right interface the tunnel is a doubt, and other pins are another matter.
    let pins = site.path("elsewhere").display().to_string();
    let (_, found) = told(&site.output(&["doctor", "--json", "--interface", "s0", "--pin", &pins]));
    finds(&found, "ok", "interface", "`s0`");
    finds(&found, "warning", "tunnel", "`t0`");
    finds(&found, "error", "bpffs", "mount -t bpf bpf /sys/fs/bpf");
    let (_, found) = told(&site.output(&["doctor", "--json", "--interface", "s7"]));
    finds(&found, "error", "interface", "no interface `s7` here");

    // A log of another time zone, and one that nobody writes to.
    let line = "host sshd[1]: Failed password for root from 192.0.2.1 port 1 ssh2\n";
    fs::write(&log, format!("{} {line}", syslog_ago(5 * 3600))).expect("a log");
    let (_, found) = told(&site.output(&["doctor", "--json"]));
    finds(&found, "warning", "clock", "dated 300 minutes in the past");
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = fs::File::options().append(true).open(&log).expect("a log");
    file.set_modified(old).expect("its time");
    let (_, found) = told(&site.output(&["doctor", "--json"]));
    finds(&found, "warning", "sources", "[one] nobody wrote to its logs for ");

    // Without root it says what it cannot see, and no more.
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).expect("its mode");
    site.open_to_nobody();
    let output = site.command_of_nobody(&["doctor", "--json"]).output().expect("it starts");
    let (status, found) = told(&output);
    assert_eq!(status, 1, "{found:#?}");
    finds(&found, "unseen", "capabilities", "ask as the user");
    finds(&found, "unseen", "sources", "one.log` may not be read by this user");
    let text = String::from_utf8(site.output(&["doctor"]).stdout).expect("UTF-8");
    assert!(text.contains("error    interface     `t0`") && text.contains(" -> "), "{text}");
}

#[test]
fn a_running_daemon_tells_who_is_found_though_banned() {
    let net = Net::new("doc-run");
    let site = Site::new(&net);
    site.jails(&site.jail("one", "one.log", "port = 2222\nmaxretry = 2\n"));
    let mut log = site.log("one.log");
    let _daemon = site.start_with(&["--interface", "s0"]);
    site.wait_following("one");
    let (status, found) = told(&site.output(&["doctor", "--json", "--interface", "s0"]));
    assert_eq!(status, 0, "{found:#?}");
    finds(&found, "ok", "driver", "`s0` drops in the driver");
    finds(&found, "ok", "sources", "every log is there");
    // Banned for what was half a minute ago: what comes now comes after the ban.
    let then = syslog_ago(30);
    let line = "host sshd[1]: Failed password for root from 192.0.2.1 port 1 ssh2\n";
    log.append(&format!("{then} {line}{then} {line}"));
    site.wait_banned("192.0.2.1");
    for _ in 0..3 {
        log.wrong_password("192.0.2.1".parse().expect("an address"));
    }
    let lingering = until(SOON, "the daemon knows", || {
        let lingering = site.json(&["status"])["lingering"].clone();
        (lingering[0]["failures"] == 3).then_some(lingering)
    });
    assert_eq!((&lingering[0]["jail"], &lingering[0]["dropped"]), (&"one".into(), &0.into()));
    let (status, found) = told(&site.output(&["doctor", "--json", "--interface", "s0"]));
    assert_eq!(status, 1, "{found:#?}");
    finds(&found, "error", "bans", "192.0.2.1 is banned by [one] and was found 3 times since");
    finds(&found, "error", "bans", "a proxy or CDN in front of the service");
    site.unban("192.0.2.1");
    let (status, found) = told(&site.output(&["doctor", "--json", "--interface", "s0"]));
    assert_eq!(status, 0, "{found:#?}");
    // A log that is gone is told by the daemon.
    fs::rename(log.path(), site.path("moved")).expect("it is there");
    until(SOON, "the daemon misses its log", || {
        let (status, found) = told(&site.output(&["doctor", "--json", "--interface", "s0"]));
        (status == 1 && found.iter().any(|[_, area, _]| area == "sources")).then_some(())
    });
}
