//! Promise: whatever is wrong around it, the daemon says what and what to do, and goes on with the rest.
use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Daemon, Echo, Log, Net, SERVER, Site, is_dropped, reaches, run, until,
};

/// A jail that bans at the first failure.
fn jail(site: &Site, name: &str) -> String {
    site.jail(name, &format!("{name}.log"), "port = 2222\nmaxretry = 1\nbantime = 600")
}

/// The log's jail works: an attack on it is stopped.
#[track_caller]
fn works(site: &Site, name: &str, attacker: &str) {
    site.wait_following(name);
    site.log(&format!("{name}.log")).wrong_password(attacker.parse().expect("it is an address"));
    site.wait_banned(attacker);
}

/// How `status` shows a jail's one log.
#[track_caller]
fn file_state(site: &Site, name: &str) -> String {
    site.json(&["status", name])["files"][0]["state"].to_string()
}

#[test]
fn a_missing_log_is_waited_for() {
    let net = Net::new("missing");
    let site = Site::new(&net);
    site.log("good.log");
    site.jails(&(jail(&site, "absent") + &jail(&site, "good")));
    let _daemon = site.start();
    works(&site, "good", "192.0.2.1");
    assert!(file_state(&site, "absent").contains("waiting"), "{}", file_state(&site, "absent"));
    site.log("absent.log");
    works(&site, "absent", "192.0.2.2");
}

#[test]
fn a_machine_without_any_log_is_protected_once_it_has_one() {
    let net = Net::new("bare");
    let site = Site::new(&net);
    fs::remove_file(site.path("config/jail.d/none.conf")).expect("every site has it");
    let bare =
        "mount -t tmpfs none /var/log && { ! [ -d /run/log ] || mount -t tmpfs none /run/log; }";
    let mut daemon = Daemon::start(site.command_after(bare, &["run", "--interface", "s0"]));
    daemon.wait_for_line("waiting", Duration::from_secs(5));
    assert_eq!(site.json(&["status"])["jails"][0]["name"], "sshd", "as shipped");
    let lines = Log::line_of(ATTACKER.v4).repeat(5);
    let append = format!("printf %s '{lines}' >>/var/log/auth.log");
    run("nsenter", &["-t", &daemon.pid().to_string(), "-m", "sh", "-c", &append]);
    assert_eq!(site.wait_banned("10.9.0.2")["failures"], 5);
}

#[test]
fn a_log_that_may_not_be_read_is_said_and_read_once_it_may() {
    let net = Net::new("unreadable");
    let mut site = Site::new(&net);
    let secret = site.log("secret.log");
    site.log("good.log");
    site.jails(&(jail(&site, "secret") + &jail(&site, "good")));
    site.open_to_nobody();
    let mode = |mode| {
        fs::set_permissions(secret.path(), fs::Permissions::from_mode(mode)).expect("it is ours")
    };
    mode(0o600);
    let _daemon = Daemon::start(site.command_of_nobody(&["run", "--mode", "none"]));
    works(&site, "good", "192.0.2.1");
    until(Duration::from_secs(5), "the state says why", || {
        file_state(&site, "secret").to_lowercase().contains("permission").then_some(())
    });
    mode(0o644);
    works(&site, "secret", "192.0.2.2");
}

#[test]
fn an_unknown_interface_is_named() {
    let net = Net::new("iface");
    let site = Site::new(&net);
    site.log("good.log");
    site.jails(&jail(&site, "good"));
    let said = site.refused(&["run", "--interface", "nope0"]);
    assert!(said.contains("nope0") && said.contains("s0"), "names it and those there are: {said}");
}

#[test]
fn without_privileges_the_way_out_is_named_and_works() {
    let net = Net::new("nobody");
    let mut site = Site::new(&net);
    site.log("good.log");
    site.jails(&jail(&site, "good"));
    site.open_to_nobody();
    let output =
        site.command_of_nobody(&["run", "--interface", "s0"]).output().expect("setpriv runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("--mode none") && said.contains("CAP_"),
        "{said}"
    );
    let _daemon = Daemon::start(site.command_of_nobody(&["run", "--mode", "none"]));
    works(&site, "good", "192.0.2.1");
    let status = site.json(&["status"]);
    assert_eq!(status["enforcement"]["mode"], "none", "{status}");
}

#[test]
fn a_kernel_that_shows_no_type_information_protects_all_the_same() {
    let net = Net::new("btf");
    let site = Site::new(&net);
    site.log("good.log");
    site.jails(&jail(&site, "good"));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let hide = "mount -t tmpfs none /sys/kernel/btf";
    let _daemon = Daemon::start(site.command_after(hide, &["run", "--interface", "s0"]));
    works(&site, "good", "10.9.0.2");
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
}

#[test]
fn a_place_for_pins_that_is_no_bpffs_is_refused_with_the_cure() {
    let net = Net::new("bpffs");
    let site = Site::new(&net);
    site.log("good.log");
    site.jails(&jail(&site, "good"));
    let place = site.path("plain");
    let said = site.refused(&["run", "--interface", "s0", "--pin", &place.display().to_string()]);
    assert!(said.contains("mount -t bpf"), "{said}");
}

#[test]
fn mistakes_in_the_configuration_are_listed_with_their_place_and_stop_no_other_jail() {
    let net = Net::new("config");
    let site = Site::new(&net);
    site.log("good.log");
    let bad = "\
[junk]
this is no setting

[regex]
enabled = yes
filter = plain
logpath = /dev/null
failregex = ^(unclosed from <HOST>

[nobody]
enabled = yes
filter = plain
logpath = /dev/null
failregex = ^says nothing of anybody$

[time]
enabled = yes
filter = sshd
logpath = /dev/null
bantime = 10 parsecs

[filter]
enabled = yes
filter = no-such-filter
logpath = /dev/null

";
    site.write("config/filter.d/plain.conf", "[Definition]\nfailregex = ^refused <HOST>$\n");
    site.jails(&(bad.to_owned() + &jail(&site, "good")));
    let output = site.output(&["check"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for mistake in ["jail.local:2", "jail.local:8", "jail.local:14", "10 parsecs", "no-such-filter"]
    {
        assert!(said.contains(mistake), "`{mistake}` in {said}");
    }
    assert!(said.contains("<HOST>"), "the remedy for a regex that names nobody: {said}");
    let daemon = site.start();
    works(&site, "good", "192.0.2.1");
    let problems = site.json(&["status"])["problems"].to_string();
    assert!(problems.contains("jail.local:8"), "status goes on saying it: {problems}");
    assert!(daemon.said().contains("jail.local:8"), "and the daemon said it: {}", daemon.said());
}

#[test]
fn a_mistake_that_concerns_every_jail_refuses_the_start() {
    let net = Net::new("default");
    let site = Site::new(&net);
    site.log("good.log");
    // It may have been the address that must never be banned.
    site.jails(&("[DEFAULT]\nignoreip 192.0.2.1\n\n".to_owned() + &jail(&site, "good")));
    for words in [&["check"][..], &["run", "--interface", "s0"]] {
        let output = site.output(words);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(
            said.contains("jail.local:2") && said.contains("ignoreip 192.0.2.1"),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn a_configuration_that_is_right_passes_the_check() {
    let net = Net::new("right");
    let site = Site::new(&net);
    site.log("good.log");
    site.jails(&jail(&site, "good"));
    let output = site.output(&["check"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_is_no_address_is_never_banned() {
    let net = Net::new("octets");
    let site = Site::new(&net);
    let mut log = site.log("good.log");
    site.jails(&jail(&site, "good"));
    let _daemon = site.start();
    site.wait_following("good");
    for nonsense in
        ["999.1.1.1", "1.2.3", "1.2.3.4.5.6", "fd09::2::1", "0x7f.1", "", "::ffff:999.1.1.1"]
    {
        log.append(
            &Log::line_of("192.0.2.77".parse().expect("it is an address"))
                .replace("192.0.2.77", nonsense),
        );
    }
    log.append("\0\0\0\n\u{fffd}\n");
    log.append(&("x".repeat(3 << 20) + "\n"));
    works(&site, "good", "192.0.2.1");
    assert_eq!(site.bans().len(), 1, "{:?}", site.bans());
}

#[test]
fn a_full_map_is_said_and_keeps_what_it_holds() {
    let net = Net::new("full");
    let site = Site::new(&net);
    site.log("good.log");
    site.jails(&jail(&site, "good"));
    site.settings("[Definition]\nmax_bans = 64\ninitial_bans = 64\n");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let mut daemon = site.start();
    site.json(&["ban", "10.9.0.2", "--jail", "good"]);
    let many: Vec<String> = (0..100).map(|nth| format!("198.51.100.{nth}")).collect();
    let mut words = vec!["ban", "--jail", "good"];
    words.extend(many.iter().map(String::as_str));
    let said = site.refused(&words);
    assert!(said.contains("max_bans"), "names the limit and its setting: {said}");
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
    let held = site.bans().len();
    assert!((48..=64).contains(&held), "{held} bans");
    daemon.wait_for_line("max_bans", Duration::from_secs(2));
    // Room that comes back is used.
    site.json(&["unban", "198.51.100.0/24"]);
    works(&site, "good", "203.0.113.1");
}

#[test]
fn a_second_daemon_on_the_same_socket_or_pins_is_refused() {
    let net = Net::new("twice");
    let (site, other) = (Site::new(&net), Site::new(&net));
    site.log("good.log");
    other.log("good.log");
    site.jails(&jail(&site, "good"));
    other.jails(&jail(&other, "good"));
    let _daemon = site.start();
    let said = site.refused(&["run", "--interface", "s0"]);
    assert!(said.contains("another"), "{said}");
    let pins = site.pins().display().to_string();
    let said = other.refused(&["run", "--interface", "s0", "--pin", &pins]);
    assert!(said.contains(&pins), "names the pins: {said}");
    works(&site, "good", "192.0.2.1");
}

#[test]
fn a_socket_left_by_a_crash_is_replaced() {
    let net = Net::new("stale");
    let site = Site::new(&net);
    site.log("good.log");
    site.jails(&jail(&site, "good"));
    site.start().kill();
    assert!(site.socket().exists());
    let _daemon = site.start();
    works(&site, "good", "192.0.2.1");
}
