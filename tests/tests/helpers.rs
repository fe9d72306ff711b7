//! The helpers tell the truth where no daemon runs: what they call dropped is so, what they log is real.
use std::{net::SocketAddr, time::Duration};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Echo, FRIEND, Guest, Kernel, LogTo, Login, Net, SERVER, Siege, Site, Sshd,
    flood, guess, hold_session, is_dropped, reaches, run, ssh_continues, ssh_opened, sweep, until,
};

#[test]
fn every_client_reaches_the_server_until_a_route_swallows_it() {
    let net = Net::new("reach");
    for (source, server) in [(ATTACKER.v4, SERVER.v4), (BYSTANDER.v6, SERVER.v6)] {
        let echo = Echo::listen(&net.server, SocketAddr::new(server, 2222));
        assert!(reaches(&net.clients, source, echo.address()));
        net.server.ip(&format!("route add blackhole {source}"));
        assert!(is_dropped(&net.clients, source, echo.address()));
        let other = if source.is_ipv4() { BYSTANDER.v4 } else { ATTACKER.v6 };
        assert!(reaches(&net.clients, other, echo.address()), "only one address was swallowed");
    }
}

#[test]
fn a_siege_tells_open_from_dropped() {
    let net = Net::new("siege");
    net.add_client_network("10.128.0.0/9");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let source = "10.129.2.3".parse().expect("it is an address");
    let besieged = || {
        let siege = Siege::begin(&net.clients, source, echo.address());
        std::thread::sleep(Duration::from_millis(500));
        siege.end()
    };
    let open = besieged();
    assert!(open.tried > 30 && open.opened + 3 >= open.tried, "{open:?}");
    net.server.ip("route add blackhole 10.129.2.3");
    let dropped = besieged();
    assert!(dropped.tried > 30 && dropped.opened == 0, "{dropped:?}");
}

#[test]
fn a_held_session_is_logged_in() {
    let net = Net::new("held");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::File);
    let mut session = hold_session(&net.clients, FRIEND.v6, SERVER.v6);
    let expect = format!("Accepted password for alice from {}", FRIEND.v6);
    until(Duration::from_secs(2), &expect, || sshd.logged().contains(&expect).then_some(()));
    assert!(session.try_wait().expect("it is our child").is_none());
    session.kill().expect("it runs");
    session.wait().expect("it is our child");
}

#[test]
fn a_server_logs_guesses_to_a_file() {
    let net = Net::new("file");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::File);
    for (attacker, server) in [(ATTACKER.v4, SERVER.v4), (ATTACKER.v6, SERVER.v6)] {
        assert_eq!(guess(&net.clients, attacker, server, false), Login::Denied);
        assert_eq!(guess(&net.clients, attacker, server, true), Login::Accepted);
        let expect = format!("Failed password for alice from {attacker} port");
        until(Duration::from_secs(2), &expect, || sshd.logged().contains(&expect).then_some(()));
        assert!(ssh_continues(&mut ssh_opened(
            &net.clients,
            attacker,
            SocketAddr::new(server, 22)
        )));
    }
    let passwords = site.write("passwords", "1\n2\n3\n4\n5\n6\n7\n8\n");
    let mut hydra = flood(&net.clients, SERVER.v6, &passwords, Duration::from_secs(20));
    let expect = format!("Failed password for root from {} port", ATTACKER.v6);
    until(Duration::from_secs(5), &expect, || {
        (sshd.logged().matches(&expect).count() >= 8).then_some(())
    });
    hydra.wait().expect("it is our child");
}

#[test]
fn a_server_logs_guesses_to_a_journal_as_its_unit() {
    let net = Net::new("journal");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::Journal);
    assert_eq!(guess(&net.clients, BYSTANDER.v6, SERVER.v6, false), Login::Denied);
    let journal = sshd.journal().display().to_string();
    let expect = format!("Failed password for alice from {} port", BYSTANDER.v6);
    until(Duration::from_secs(5), &expect, || {
        let entries =
            run("journalctl", &["-q", "-D", &journal, "-o", "cat", "_SYSTEMD_UNIT=ssh.service"]);
        entries.contains(&expect).then_some(())
    });
}

#[test]
fn a_sweep_takes_away_what_a_killed_run_left_also_a_frozen_disk() {
    let mut dead = std::process::Command::new("true").spawn().expect("it runs");
    dead.wait().expect("it is our child");
    let left = std::env::temp_dir().join(format!("f2x-{}-left", dead.id()));
    let (image, state) = (left.join("image"), left.join("state"));
    std::fs::create_dir_all(&state).expect("made");
    let [image, state] = [image, state].map(|path| path.display().to_string());
    run("truncate", &["--size", "32m", &image]);
    run("mkfs.ext4", &["-q", "-O", "^has_journal", &image]);
    run("mount", &["-o", "loop", &image, &state]);
    run("fsfreeze", &["--freeze", &state]);
    // Somebody hangs there, as a daemon that nobody could kill.
    let mut hangs = std::process::Command::new("touch").arg(format!("{state}/file")).spawn();
    sweep();
    assert!(!left.exists(), "{}", left.display());
    hangs.as_mut().expect("it runs").wait().expect("it is our child");
}

#[test]
fn a_guest_has_a_clock_of_its_own() {
    let said = Guest::new(Kernel::Cloud, "")
        .boot("/bin/ip link add v0 type veth peer v1 && date -s @1800000000 && date +%s");
    assert!(said.ends_with("1800000000\n"), "{said}");
}
