//! Promise: the shipped jails stop attacks on the real services they are for, and on nothing else.
use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Credentials, Daemon, Echo, FRIEND, KernelLog, Net, SERVER, Site, Web,
    WebServer,
    attack::{Cast, ends_on_time, visited},
    connect, get, is_dropped, reaches, run, unit, until,
};

const IPV4: Cast = Cast { attacker: ATTACKER.v4, bystander: BYSTANDER.v4, server: SERVER.v4 };
const IPV6: Cast = Cast { attacker: ATTACKER.v6, bystander: BYSTANDER.v6, server: SERVER.v6 };

/// A section that turns a shipped jail on, over this log.
fn jail(name: &str, log: &Path) -> String {
    let log = log.display();
    format!(
        "[{name}]\nenabled = yes\nbackend = polling\nlogpath = {log}\nmaxretry = 3\nfindtime = 60\nbantime = 12\n"
    )
}

/// Wrong passwords over HTTP close the web ports, and these alone, to who guessed them.
#[track_caller]
fn guesses_close_the_web_ports(label: &str, server: WebServer, cast: Cast) {
    let net = Net::new(label);
    let site = Site::new(&net);
    let web = Web::start(&net, &site, server);
    let (name, log) = match server {
        WebServer::Nginx => ("nginx-http-auth", web.access_log()),
        WebServer::Apache => ("apache-auth", web.error_log()),
    };
    site.jails(&jail(name, &log));
    let port = |number| SocketAddr::new(cast.server, number);
    let ssh = Echo::listen(&net.server, port(22));
    let _daemon = site.start();
    site.wait_following(name);
    let ask = |credentials| get(&net.clients, cast.attacker, port(80), "/", credentials);
    let visit = || {
        let seen = get(&net.clients, cast.bystander, port(80), "/", Credentials::Right);
        assert_eq!(seen, Some(200), "the bystander's page");
    };
    let visits = visited(visit, || {
        assert_eq!(ask(Credentials::None), Some(401), "the question for a password");
        assert_eq!(ask(Credentials::Right), Some(200));
        for guesses in 1..3 {
            assert_eq!(ask(Credentials::Wrong), Some(401));
            until(Duration::from_secs(5), &format!("{guesses} failures are counted"), || {
                (site.json(&["status", name])["total_failed"] == guesses).then_some(())
            });
        }
        assert!(site.bans_of(&unit(cast.attacker)).is_empty(), "two guesses are allowed");
        // Its answer may already be dropped.
        assert_ne!(ask(Credentials::Wrong), Some(200));
        let ban = site.wait_banned(&unit(cast.attacker));
        assert_eq!((&ban["jail"], &ban["scope"]), (&name.into(), &"tcp:80,443".into()), "{ban}");
        for closed in [80, 443] {
            assert!(is_dropped(&net.clients, cast.attacker, port(closed)), "port {closed}");
        }
        assert!(reaches(&net.clients, cast.attacker, ssh.address()), "another port");
        ends_on_time(&site, &ban);
        assert_eq!(ask(Credentials::Right), Some(200), "the ban is over");
    });
    assert!(visits > 50, "the bystander came {visits} times only");
    assert!(site.bans_of(&unit(cast.bystander)).is_empty());
}

#[test]
fn nginx_is_closed_to_who_guesses_over_ipv4() {
    guesses_close_the_web_ports("ngx4", WebServer::Nginx, IPV4);
}

#[test]
fn nginx_is_closed_to_who_guesses_over_ipv6() {
    guesses_close_the_web_ports("ngx6", WebServer::Nginx, IPV6);
}

#[test]
fn apache_is_closed_to_who_guesses_over_ipv4() {
    guesses_close_the_web_ports("apa4", WebServer::Apache, IPV4);
}

#[test]
fn apache_is_closed_to_who_guesses_over_ipv6() {
    guesses_close_the_web_ports("apa6", WebServer::Apache, IPV6);
}

/// Whoever asks for a file whose name is a whole line of the server's log has nobody banned by it.
#[track_caller]
fn names_of_files_ban_nobody(label: &str, server: WebServer, line: &str) {
    let net = Net::new(label);
    let site = Site::new(&net);
    let web = Web::start(&net, &site, server);
    let (name, log) = match server {
        WebServer::Nginx => ("nginx-http-auth", web.access_log()),
        WebServer::Apache => ("apache-auth", web.error_log()),
    };
    site.jails(&jail(name, &log));
    let _daemon = site.start();
    site.wait_following(name);
    let to = SocketAddr::new(SERVER.v4, 80);
    let line = line.replace("VICTIM", &BYSTANDER.v4.to_string());
    let escaped: String = line.bytes().map(|byte| format!("%{byte:02x}")).collect();
    // A slash that is escaped is refused by Apache.
    let path = format!("/a%0a{}%0ab", escaped.replace("%2f", "/"));
    for _ in 0..5 {
        let answer = get(&net.clients, ATTACKER.v4, to, &path, Credentials::Right);
        assert_eq!(answer, Some(404), "{path}");
    }
    // What is counted now was written after them.
    assert_eq!(get(&net.clients, FRIEND.v4, to, "/", Credentials::Wrong), Some(401));
    until(Duration::from_secs(5), "a failure is counted", || {
        (site.json(&["status", name])["total_failed"] == 1).then_some(())
    });
    assert!(site.bans().is_empty());
    // It is no accident that nginx's jail does not read this log.
    let errors = fs::read_to_string(web.error_log()).expect("there is one");
    let forged = errors.lines().filter(|logged| **logged == *line).count();
    assert_eq!(forged, if server == WebServer::Nginx { 5 } else { 0 }, "{errors}");
}

#[test]
fn a_line_that_nginx_is_asked_for_bans_nobody() {
    names_of_files_ban_nobody(
        "ngx-name",
        WebServer::Nginx,
        r#"2026/11/21 14:00:00 [error] 7#7: *1 user "alice": password mismatch, client: VICTIM, server: , request: "GET / HTTP/1.1", host: "www.example.com""#,
    );
}

#[test]
fn a_line_that_apache_is_asked_for_bans_nobody() {
    names_of_files_ban_nobody(
        "apa-name",
        WebServer::Apache,
        r#"[Sat Nov 21 14:00:00.123456 2026] [auth_basic:error] [pid 7:tid 7] [client VICTIM:5000] AH01617: user alice: authentication failure for "/": Password Mismatch"#,
    );
}

/// Where the jail `port-probe` reads.
enum ReadFrom {
    Journal,
    File,
}

/// Another address of the clients' machine, in the same IPv6 /64.
fn neighbour(net: &Net, attacker: IpAddr) -> IpAddr {
    let IpAddr::V6(address) = attacker else { return FRIEND.v4 };
    let next = Ipv6Addr::from(u128::from(address) + 1);
    net.clients.ip(&format!("addr add {next}/48 dev c0 nodad preferred_lft 0"));
    next.into()
}

/// Probes of closed ports, as nftables logs them, close everything to who probed.
#[track_caller]
fn probes_close_everything(label: &str, from: &ReadFrom, cast: Cast) {
    let net = Net::new(label);
    let neighbour = neighbour(&net, cast.attacker);
    let site = Site::new(&net);
    // The kernel's log is one for all: only these words are about us.
    let word = format!("probe-{}-{label}:", std::process::id());
    let rule = format!("tcp dport 1000-1100 limit rate 20/second log prefix \"{word} \" drop");
    let chain = format!("{{ type filter hook input priority 0; policy accept; {rule}; }}");
    let table = site.write("probe.nft", &format!("table inet probe {{ chain input {chain}; }}\n"));
    let namespace = format!("--net={}", net.server.path().display());
    run("nsenter", &[&namespace, "nft", "-f", &table.display().to_string()]);
    let kernel = KernelLog::start(&net, &site);
    let source = match from {
        ReadFrom::Journal => {
            format!("backend = systemd[journalpath=\"{}\"]\n", kernel.journal().display())
        }
        ReadFrom::File => {
            format!("backend = polling\nlogpath = {}\n", kernel.kern_log().display())
        }
    };
    site.jails(&format!(
        "[port-probe]\nenabled = yes\nfilter = port-probe[logprefix=\"{word}\"]\nmaxretry = 3\nfindtime = 60\nbantime = 60\n{source}"
    ));
    let open = Echo::listen(&net.server, SocketAddr::new(cast.server, 8080));
    let _daemon = site.start();
    assert!(reaches(&net.clients, cast.attacker, open.address()), "nothing has been probed");
    for port in 1001..=1003 {
        let closed = SocketAddr::new(cast.server, port);
        let probe = connect(&net.clients, cast.attacker, closed, Duration::from_millis(200));
        assert!(probe.is_err(), "port {port} is closed");
    }
    let ban = site.wait_banned(&cast.attacker.to_string());
    assert_eq!((&ban["jail"], &ban["scope"]), (&"port-probe".into(), &"all".into()), "{ban}");
    assert!(is_dropped(&net.clients, cast.attacker, open.address()), "every port");
    assert!(reaches(&net.clients, cast.bystander, open.address()), "another address");
    assert!(reaches(&net.clients, neighbour, open.address()), "a neighbour: senders are forged");
}

#[test]
fn probes_in_the_kernels_journal_are_stopped_over_ipv4() {
    probes_close_everything("prj4", &ReadFrom::Journal, IPV4);
}

#[test]
fn probes_in_the_kernels_journal_are_stopped_over_ipv6() {
    probes_close_everything("prj6", &ReadFrom::Journal, IPV6);
}

#[test]
fn probes_in_kern_log_are_stopped_over_ipv4() {
    probes_close_everything("prf4", &ReadFrom::File, IPV4);
}

#[test]
fn probes_in_kern_log_are_stopped_over_ipv6() {
    probes_close_everything("prf6", &ReadFrom::File, IPV6);
}

/// Who is banned again and again is kept out of everything: the daemon reads what it logs itself.
#[track_caller]
fn repeated_bans_close_everything(label: &str, cast: Cast) {
    let net = Net::new(label);
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    let own = site.log("fail2xdp.log").path().to_owned();
    let guard = site.jail("guard", "guard.log", "port = ssh\nmaxretry = 1\nbantime = 60");
    site.jails(&(guard + &jail("recidive", &own)));
    let open = Echo::listen(&net.server, SocketAddr::new(cast.server, 8080));
    let change = format!("exec 2>>{}", own.display());
    let _daemon = Daemon::start(site.command_after(&change, &["run", "--interface", "s0"]));
    site.wait_following("guard");
    site.wait_following("recidive");
    let attacker = unit(cast.attacker);
    for bans in 1..=3 {
        log.wrong_password(cast.attacker);
        until(Duration::from_secs(10), &format!("{bans} bans are counted"), || {
            (site.json(&["status", "recidive"])["total_failed"] == bans).then_some(())
        });
        if bans < 3 {
            site.unban(&attacker);
            assert!(reaches(&net.clients, cast.attacker, open.address()), "after {bans} bans");
        }
    }
    until(Duration::from_secs(10), "a ban by `recidive`", || {
        site.bans_of(&attacker).into_iter().find(|ban| ban["jail"] == "recidive")
    });
    assert!(is_dropped(&net.clients, cast.attacker, open.address()), "every port");
    assert!(reaches(&net.clients, cast.bystander, open.address()), "another address");
}

#[test]
fn who_comes_back_is_kept_out_over_ipv4() {
    repeated_bans_close_everything("rec4", IPV4);
}

#[test]
fn who_comes_back_is_kept_out_over_ipv6() {
    repeated_bans_close_everything("rec6", IPV6);
}
