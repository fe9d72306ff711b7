//! Promise: the same logs and jails lead fail2ban's server and `fail2xdp replay` to the same bans, of the same addresses,
//! at the same times, after the same number of failures.
//!
//! fail2ban judges a log's lines against the time of now, and takes those of the last `findtime` as they are. So the logs
//! are made here, of the last 40 minutes, and `findtime` is an hour.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fail2xdp_tests::{Fail2ban, ToldBan, binary, until};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

/// Seconds that the logs span, up to a minute ago.
const SPAN: i64 = 2400;
/// Whom every jail bans last of all, so that the end of its log is known to be reached.
const LAST: &str = "198.51.100.250";
/// Zone of the lines that name none.
const ZONE: &str = "Europe/Berlin";

/// Random numbers that are the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    /// The `n`th attacker, a few of whom send most: the rank falls off as Zipf has it.
    fn attacker(&mut self) -> String {
        let part = (self.next() % (1 << 20)) as f64 / f64::from(1 << 20);
        let rank = (3000f64.powf(part)) as usize;
        match rank % 4 {
            0 => format!("2001:db8:{:x}::{:x}", rank % 7, rank),
            1 => format!("2001:DB8:0:{:X}:0:0:0:{:x}", rank % 5, rank),
            _ => format!("203.0.{}.{}", 113 + rank / 250, rank % 250),
        }
    }
}

/// How a log writes its times.
#[derive(Clone, Copy)]
enum Dates {
    /// `Nov 21 17:00:00`, in local time.
    Syslog,
    /// `2026-11-21T17:00:00.123456+01:00`.
    Iso,
    /// `2026/11/21 17:00:00`, in local time.
    Slashes,
    /// `21/Nov/2026:17:00:00 +0000` in another zone than ours.
    Clf,
    /// `[Sat Nov 21 17:00:00.123456 2026]`, in local time.
    Apache,
    /// `1795283678.123`.
    Epoch,
}

impl Dates {
    fn write(self, at: i64, random: &mut Random) -> String {
        let time = Timestamp::from_second(at).expect("of our days");
        let here = time.to_zoned(TimeZone::get(ZONE).expect("a zone that is known"));
        let micros = random.below(1_000_000);
        match self {
            Dates::Syslog => here.strftime("%b %e %H:%M:%S").to_string(),
            Dates::Iso => format!("{}.{micros:06}{}", here.strftime("%FT%T"), here.strftime("%:z")),
            Dates::Slashes => here.strftime("%Y/%m/%d %H:%M:%S").to_string(),
            Dates::Clf => {
                let there = time.to_zoned(TimeZone::get("America/St_Johns").expect("a zone"));
                there.strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
            }
            Dates::Apache => {
                format!(
                    "[{}.{micros:06} {}]",
                    here.strftime("%a %b %d %H:%M:%S"),
                    here.strftime("%Y")
                )
            }
            Dates::Epoch => format!("{at}.{:03}", micros / 1000),
        }
    }
}

/// A service with its jail.
struct Service {
    jail: &'static str,
    filter: &'static str,
    options: &'static str,
    dates: Dates,
    /// What it says of an attack, of which `DATE`, `ADDR`, `USER` and `PID` are replaced; several lines of a session are
    /// strewn among those of others.
    attacks: &'static [&'static [&'static str]],
    noise: &'static [&'static str],
}

const SERVICES: [Service; 8] = [
    Service {
        jail: "sshd",
        filter: "sshd",
        options: "maxretry = 5",
        dates: Dates::Syslog,
        attacks: &[
            &["DATE web sshd[PID]: Failed password for USER from ADDR port 22 ssh2"],
            &[
                "DATE web sshd[PID]: Invalid user USER from ADDR port 4022",
                "DATE web sshd[PID]: Failed password for invalid user USER from ADDR port 4022 ssh2",
                "DATE web sshd[PID]: Connection closed by invalid user USER ADDR port 4022 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: User USER not allowed because account is locked",
                "DATE web sshd[PID]: Connection closed by ADDR port 33 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: Failed publickey for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Accepted publickey for USER from ADDR port 22 ssh2",
            ],
            &[
                "DATE web sshd[PID]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=ADDR  user=USER",
                "DATE web sshd[PID]: Failed password for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Connection closed by ADDR port 22 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: Failed publickey for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Failed publickey for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Disconnecting: Too many authentication failures for USER [preauth]",
            ],
        ],
        noise: &[
            "DATE web sshd[PID]: Server listening on 0.0.0.0 port 22.",
            "DATE web CRON[PID]: pam_unix(cron:session): session opened for user USER(uid=0) by (uid=0)",
            "DATE web kernel: [ 12.345678] eth0: link becomes ready",
        ],
    },
    Service {
        jail: "sshd-aggressive",
        filter: "sshd[mode=aggressive]",
        options: "maxretry = 3\nmaxmatches = 1",
        dates: Dates::Iso,
        attacks: &[
            &[
                "DATE web sshd[PID]: Connection from ADDR port 2222",
                "DATE web sshd[PID]: Connection closed by ADDR port 2222 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: Connection from ADDR port 2222",
                "DATE web sshd[PID]: kex_exchange_identification: Connection closed by remote host",
            ],
            &[
                "DATE web sshd[PID]: Unable to negotiate with ADDR port 2222: no matching host key type found. Their offer: ssh-dss [preauth]",
            ],
            &[
                "DATE web sshd[PID]: error: maximum authentication attempts exceeded for USER from ADDR port 22 ssh2 [preauth]",
            ],
        ],
        noise: &["DATE web sshd[PID]: Received signal 15; terminating."],
    },
    Service {
        jail: "nginx-http-auth",
        filter: "nginx-http-auth",
        options: "maxretry = 4",
        dates: Dates::Slashes,
        attacks: &[
            &[
                "DATE [error] PID#0: *PID user \"USER\": password mismatch, client: ADDR, server: example.org, request: \"GET / HTTP/1.1\", host: \"example.org\"",
            ],
            &[
                "DATE [error] PID#0: *PID user \"USER\" was not found in \"/etc/nginx/htpasswd\", client: ADDR, server: example.org, request: \"GET / HTTP/1.1\", host: \"example.org\"",
            ],
        ],
        noise: &[
            "DATE [error] PID#0: *PID open() \"/srv/x\" failed (2: No such file or directory), client: ADDR, server: example.org",
        ],
    },
    Service {
        jail: "nginx-botsearch",
        filter: "nginx-botsearch",
        options: "maxretry = 2",
        dates: Dates::Clf,
        attacks: &[
            &[
                "ADDR - - [DATE] \"GET /phpmyadmin/scripts/setup.php HTTP/1.1\" 404 47 \"-\" \"-\" \"-\"",
            ],
            &["ADDR - USER [DATE] \"POST /wp-login.php HTTP/1.1\" 404 564 \"-\" \"Mozilla\" \"-\""],
        ],
        noise: &[
            "ADDR - - [DATE] \"GET /index.html HTTP/1.1\" 200 4711 \"-\" \"Mozilla\" \"-\"",
            "ADDR - - [DATE] \"GET /favicon.ico HTTP/1.1\" 404 12 \"-\" \"Mozilla\" \"-\"",
        ],
    },
    Service {
        jail: "apache-auth",
        filter: "apache-auth",
        options: "maxretry = 3",
        dates: Dates::Apache,
        attacks: &[
            &[
                "DATE [auth_basic:error] [pid PID:tid 1] [client ADDR:51000] AH01618: user USER not found: /secret",
            ],
            &[
                "DATE [auth_basic:error] [pid PID] [client ADDR:51000] AH01617: user USER: authentication failure for \"/secret\": Password Mismatch",
            ],
        ],
        noise: &["DATE [core:notice] [pid PID:tid 1] AH00094: Command line: '/usr/sbin/apache2'"],
    },
    Service {
        jail: "postfix-sasl",
        filter: "postfix[mode=auth]",
        options: "maxretry = 3",
        dates: Dates::Syslog,
        attacks: &[
            &[
                "DATE mail postfix/smtpd[PID]: warning: unknown[ADDR]: SASL LOGIN authentication failed: UGFzc3dvcmQ6",
            ],
            &[
                "DATE mail postfix/submission/smtpd[PID]: warning: host.example[ADDR]: SASL PLAIN authentication failed: generic failure",
            ],
        ],
        noise: &["DATE mail postfix/smtpd[PID]: connect from unknown[ADDR]"],
    },
    Service {
        jail: "dovecot",
        filter: "dovecot",
        options: "maxretry = 5\nmaxmatches = 0",
        dates: Dates::Syslog,
        attacks: &[
            &[
                "DATE mail dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<USER>, method=PLAIN, rip=ADDR, lip=10.0.0.1, TLS",
            ],
            &[
                "DATE mail dovecot: pop3-login: Aborted login (auth failed, 2 attempts in 9 secs): user=<USER>, method=PLAIN, rip=ADDR, lip=10.0.0.1",
            ],
        ],
        noise: &[
            "DATE mail dovecot: imap-login: Login: user=<USER>, method=PLAIN, rip=ADDR, lip=10.0.0.1, mpid=PID, TLS",
        ],
    },
    Service {
        jail: "squid",
        filter: "squid",
        options: "maxretry = 2\nmaxmatches = 10",
        dates: Dates::Epoch,
        attacks: &[
            &[
                "DATE     PID ADDR TCP_DENIED/403 4099 GET http://www.example.com/USER - HIER_NONE/- text/html",
            ],
            &["DATE     0 ADDR NONE/405 3364 GET http://www.example.com/ - HIER_NONE/- text/html"],
        ],
        noise: &[
            "DATE     PID ADDR TCP_MISS/200 4099 GET http://www.example.com/USER - HIER_DIRECT/192.0.2.80 text/html",
        ],
    },
];

/// A log of `count` lines with times from `start` on.
fn log(service: &Service, count: usize, start: i64, random: &mut Random) -> String {
    let mut text = String::new();
    // Lines of sessions that have begun.
    let mut open: Vec<Vec<String>> = Vec::new();
    let (mut pid, mut written) = (100_000, 0);
    while written < count {
        if open.len() < 12 {
            pid += 1;
            let noise = random.below(3) == 0;
            let lines: &[&str] = match noise {
                true => std::slice::from_ref(&service.noise[random.below(service.noise.len())]),
                false => service.attacks[random.below(service.attacks.len())],
            };
            let address = random.attacker();
            let user =
                random.one_of(&["root", "admin", "bob", "it's", "ünï", "a b", "x from y", "%s"]);
            let fill = |line: &&str| {
                let line = line.replace("ADDR", &address).replace("USER", user);
                line.replace("PID", &pid.to_string())
            };
            open.push(lines.iter().rev().map(fill).collect());
        }
        let nth = random.below(open.len());
        let line = open[nth].pop().expect("only sessions with lines stay open");
        if open[nth].is_empty() {
            open.swap_remove(nth);
        }
        let at = start + SPAN * written as i64 / count as i64;
        let date = service.dates.write(at, random);
        let line = if random.below(10) == 0 { mutated(&line, random) } else { line };
        let _ = writeln!(text, "{}", line.replacen("DATE", &date, 1));
        written += 1;
    }
    // Somebody who is banned by whatever kind of attack the jail knows.
    for nth in 0..12 {
        let attack = service.attacks[nth % service.attacks.len()];
        for line in attack {
            let date = service.dates.write(start + SPAN, random);
            let line = line.replace("ADDR", LAST).replace("USER", "last");
            let _ = writeln!(
                text,
                "{}",
                line.replace("PID", &(200_000 + nth).to_string()).replacen("DATE", &date, 1)
            );
        }
    }
    text
}

/// A line with an accident or two; its date stays whole, since what is without one is read by the clock.
fn mutated(line: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = line.chars().collect();
    for _ in 0..=random.below(2) {
        let at = random.below(chars.len());
        let near_date = |at: usize, chars: &[char]| {
            let text: String =
                chars[at.saturating_sub(5)..(at + 5).min(chars.len())].iter().collect();
            text.contains("DATE") || text.contains("ATE") || text.contains("DAT")
        };
        if near_date(at, &chars) {
            continue;
        }
        match random.below(5) {
            0 => drop(chars.remove(at)),
            1 => chars.insert(
                at,
                random
                    .one_of(&["x", " ", "9", ":", "\"", "ß", "[", "\t"])
                    .chars()
                    .next()
                    .expect("one"),
            ),
            2 => {
                chars[at] = random
                    .one_of(&["x", " ", "0", ".", "]", "\u{1F980}", "=", "<"])
                    .chars()
                    .next()
                    .expect("one")
            }
            3 if !chars[at..].iter().collect::<String>().contains("DATE") => chars.truncate(at + 1),
            _ => {
                let again: Vec<char> = chars[at..(at + 7).min(chars.len())].to_vec();
                chars.splice(at..at, again);
            }
        }
    }
    chars.into_iter().collect()
}

/// The jails of these services.
fn jails(folder: &Path, services: &[&Service]) -> String {
    let mut jails = String::new();
    for Service { jail, filter, options, .. } in services {
        let log = folder.join(format!("{jail}.log"));
        let _ = writeln!(
            jails,
            "[{jail}]\nenabled = true\nfilter = {filter}\n{options}\nlogpath = {}",
            log.display()
        );
    }
    jails
}

/// Bans by fail2ban's server, which reads until every jail has banned the last one.
fn theirs(folder: &Path, services: &[&Service]) -> BTreeSet<ToldBan> {
    let server = Fail2ban::start(folder, ZONE);
    let last: IpAddr = LAST.parse().expect("an address");
    until(Duration::from_secs(500), "fail2ban has read all logs", || {
        let bans = server.bans();
        let jails: BTreeSet<&str> =
            bans.iter().filter(|ban| ban.1 == last).map(|ban| ban.0.as_str()).collect();
        (jails.len() == services.len()).then_some(bans)
    })
}

/// Bans by `fail2xdp replay`.
fn ours(folder: &Path, services: &[&Service]) -> BTreeSet<ToldBan> {
    let mut bans = BTreeSet::new();
    for service in services {
        let log = folder.join(format!("{}.log", service.jail));
        let output = Command::new(binary())
            .args(["replay", "--json", "--jail", service.jail, "--config"])
            .arg(folder.join("etc"))
            .arg(log)
            .env("TZ", ZONE)
            .stderr(Stdio::inherit())
            .output()
            .expect("we start");
        assert!(output.status.success(), "{}", service.jail);
        for line in String::from_utf8(output.stdout).expect("JSON is UTF-8").lines() {
            let event: Value = serde_json::from_str(line).expect("JSON");
            if event["event"] == "ban" {
                let address = event["address"].as_str().and_then(|text| text.parse().ok());
                let time = event["time"].as_f64().expect("a number") as i64;
                let jail = event["jail"].as_str().expect("a name").to_owned();
                let failures = event["failures"].as_u64().expect("a number");
                bans.insert((jail, address.expect("an address"), time, failures));
            }
        }
    }
    bans
}

/// Makes the logs, has both read them, and compares.
fn compare(services: &[&Service], lines_each: usize, seed: u64) {
    let folder = tempfile::tempdir().expect("a directory");
    Fail2ban::configure(folder.path(), &jails(folder.path(), services));
    let start = fail2xdp_tests::now() as i64 - SPAN - 60;
    for (nth, service) in services.iter().enumerate() {
        let mut random = Random(seed * 1000 + nth as u64 + 1);
        let text = log(service, lines_each, start, &mut random);
        fs::write(folder.path().join(format!("{}.log", service.jail)), text)
            .expect("room for a log");
    }
    let began = Instant::now();
    let ours = ours(folder.path(), services);
    let our_time = began.elapsed();
    let began = Instant::now();
    let theirs = theirs(folder.path(), services);
    let their_time = began.elapsed();
    let lines = lines_each * services.len();
    eprintln!(
        "seed {seed}: {lines} lines, {} bans; we took {our_time:?}, fail2ban {their_time:?}",
        ours.len()
    );
    let wrong: Vec<String> = ours
        .symmetric_difference(&theirs)
        .map(|ban| {
            format!("{} {ban:?}", if ours.contains(ban) { "only we" } else { "only fail2ban" })
        })
        .collect();
    if !wrong.is_empty() {
        let kept = folder.keep();
        panic!(
            "seed {seed}: {} bans differ of {}; the logs are in `{}`:\n{}",
            wrong.len(),
            theirs.len(),
            kept.display(),
            wrong[..wrong.len().min(30)].join("\n")
        );
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (jail, ..) in &ours {
        *counts.entry(jail).or_default() += 1;
    }
    assert!(
        counts.len() == services.len() && counts.values().all(|bans| *bans > 5),
        "too few bans: {counts:?}"
    );
}

#[test]
fn generated_logs_lead_to_the_same_bans() {
    let services: Vec<&Service> = SERVICES.iter().collect();
    let full = std::env::var_os("FAIL2XDP_FULL").is_some();
    let (lines, seeds) = if full { (32_000, 1..=2) } else { (3_000, 1..=1) };
    for seed in seeds {
        compare(&services, lines, seed);
    }
}
