//! Promise: it is always said which interface is protected how, nothing foreign is touched, and what was
//! attached can be taken away.
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Echo, Net, SERVER, Site, artifact, is_dropped, reaches, run, tool, until,
};
use serde_json::Value;

/// A jail on TCP port 2222 for bans by hand.
fn guard(site: &Site) {
    site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 1\nbantime = 600"));
}

/// An interface as `status` shows it.
#[track_caller]
fn interface(site: &Site, name: &str) -> Value {
    let status = site.json(&["status"]);
    let interfaces = status["enforcement"]["interfaces"].as_array().expect("it is a list").clone();
    interfaces
        .into_iter()
        .find(|interface| interface["name"] == name)
        .unwrap_or_else(|| panic!("no `{name}`: {status}"))
}

/// The XDP programs on the server's interfaces, as the kernel lists them.
#[track_caller]
fn attached(net: &Net) -> Vec<Value> {
    let output = net
        .server
        .command(tool("bpftool"))
        .args(["-j", "net", "show"])
        .output()
        .expect("bpftool runs");
    let listed: Value = serde_json::from_slice(&output.stdout).expect("bpftool prints JSON");
    listed[0]["xdp"].as_array().expect("it is a list").clone()
}

#[test]
fn two_interfaces_share_their_bans() {
    let net = Net::new("two");
    let site = Site::new(&net);
    guard(&site);
    net.wire("s1", "c1");
    net.server.ip("addr add 10.8.0.1/24 dev s1");
    net.clients.ip("addr add 10.8.0.2/24 dev c1");
    let other = |number| IpAddr::from(Ipv4Addr::new(10, 8, 0, number));
    let first = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let second = Echo::listen(&net.server, SocketAddr::new(other(1), 2222));
    let _daemon = site.start_with(&["--interface", "s0", "--interface", "s1"]);
    assert_eq!(
        (&interface(&site, "s0")["mode"], &interface(&site, "s1")["mode"]),
        (&"native".into(), &"native".into())
    );
    assert!(reaches(&net.clients, other(2), second.address()));
    site.json(&["ban", "10.9.0.2", "10.8.0.2", "--jail", "guard"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, first.address()));
    assert!(is_dropped(&net.clients, other(2), second.address()));
    assert!(reaches(&net.clients, BYSTANDER.v4, first.address()));
}

#[test]
fn an_interface_that_only_can_generic_is_protected_and_named() {
    let net = Net::new("generic");
    let site = Site::new(&net);
    guard(&site);
    net.server.ip("link add br0 type bridge");
    net.server.ip("link set br0 up");
    net.server.ip("link set s0 master br0");
    net.server.ip(&format!("addr del {}/24 dev s0", SERVER.v4));
    net.server.ip(&format!("addr add {}/24 dev br0", SERVER.v4));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let mut daemon = site.start_with(&["--interface", "br0"]);
    daemon.wait_for_line("generic", Duration::from_secs(1));
    let bridge = interface(&site, "br0");
    assert_eq!(bridge["mode"], "generic");
    assert!(bridge["reason"].is_string(), "why not native: {bridge}");
    let doctor = site.output(&["doctor", "--interface", "br0"]).stdout;
    let doctor = String::from_utf8_lossy(&doctor);
    assert!(doctor.contains("`br0` drops only behind the driver"), "{doctor}");
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
}

#[test]
fn native_or_nothing_means_nothing_where_the_driver_cannot() {
    let net = Net::new("native");
    let site = Site::new(&net);
    guard(&site);
    net.server.ip("link add br0 type bridge");
    let said = site.refused(&["run", "--interface", "br0", "--mode", "native"]);
    assert!(said.contains("br0") && said.contains("native"), "{said}");
    assert!(attached(&net).is_empty());
}

#[test]
fn a_link_without_ethernet_header_is_refused() {
    let net = Net::new("tun");
    let site = Site::new(&net);
    guard(&site);
    net.server.ip("tuntap add dev t0 mode tun");
    net.server.ip("link set t0 up");
    let said = site.refused(&["run", "--interface", "t0"]);
    assert!(said.contains("t0") && said.to_lowercase().contains("ethernet"), "{said}");
    assert!(attached(&net).is_empty());
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let net = Net::new("foreign");
    let site = Site::new(&net);
    guard(&site);
    let foreign = site.path("bpf/foreign").display().to_string();
    run(
        "bpftool",
        &["prog", "loadall", &artifact("ebpf/fail2xdp.o").display().to_string(), &foreign],
    );
    let attach = |pinned: &str, device: &str| {
        let mut bpftool = net.server.command(tool("bpftool"));
        bpftool.args(["net", "attach", "xdp", "pinned", pinned, "dev", device]);
        assert!(bpftool.status().expect("bpftool runs").success());
    };
    attach(&format!("{foreign}/ban"), "s0");
    let before = attached(&net);
    let id = before[0]["id"].as_u64().expect("a program has an id");
    let said = site.refused(&["run", "--interface", "s0"]);
    assert!(said.contains("s0") && said.contains(&id.to_string()), "names program {id}: {said}");
    assert_eq!(attached(&net), before, "nothing was replaced");
}

#[test]
fn a_second_instance_is_a_foreign_program_to_the_first() {
    let net = Net::new("second");
    let (one, two) = (Site::new(&net), Site::new(&net));
    guard(&one);
    guard(&two);
    let _daemon = one.start();
    let before = attached(&net);
    let id = before[0]["id"].as_u64().expect("a program has an id");
    let said = two.refused(&["run", "--interface", "s0"]);
    assert!(said.contains("s0") && said.contains(&id.to_string()), "names program {id}: {said}");
    assert_eq!(attached(&net), before, "nothing was replaced");
}

#[test]
fn an_interface_that_vanishes_is_protected_again_when_it_returns() {
    let net = Net::new("vanish");
    let site = Site::new(&net);
    guard(&site);
    let _daemon = site.start();
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    net.server.ip("link del s0");
    until(Duration::from_secs(5), "`s0` is gone", || {
        (interface(&site, "s0")["mode"] == "gone").then_some(())
    });
    net.wire("s0", "c0");
    net.server.ip(&format!("addr add {}/24 dev s0", SERVER.v4));
    net.add_client(ATTACKER);
    net.add_client(BYSTANDER);
    until(Duration::from_secs(5), "`s0` is back", || {
        (interface(&site, "s0")["mode"] == "native").then_some(())
    });
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
}

#[test]
fn stopping_keeps_the_bans_and_detaching_removes_everything() {
    let net = Net::new("detach");
    let site = Site::new(&net);
    guard(&site);
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let mut daemon = site.start();
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    let said = site.text(&["stop"]);
    assert!(
        said.contains('1') && said.contains("detach"),
        "says what stays and how it goes: {said}"
    );
    daemon.wait(Duration::from_secs(5));
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()), "a ban outlives the daemon");
    assert_eq!(attached(&net).len(), 1);

    // Neither a daemon nor a configuration is needed.
    fs::remove_dir_all(site.path("config")).expect("it is there");
    site.text(&["detach"]);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()));
    assert!(attached(&net).is_empty());
    assert!(!site.pins().exists());
}

#[test]
fn detaching_under_a_running_daemon_stops_it() {
    let net = Net::new("under");
    let site = Site::new(&net);
    guard(&site);
    let mut daemon = site.start();
    site.text(&["detach"]);
    assert!(daemon.wait(Duration::from_secs(5)).success());
    assert!(attached(&net).is_empty() && !site.pins().exists());
}

#[test]
fn a_daemon_told_so_leaves_nothing_behind() {
    let net = Net::new("leave");
    let site = Site::new(&net);
    guard(&site);
    let daemon = site.start_with(&["--interface", "s0", "--detach-on-exit"]);
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    assert!(daemon.terminate().success());
    assert!(attached(&net).is_empty() && !site.pins().exists());
}

#[test]
fn observing_drops_nothing_and_counts_everything() {
    let net = Net::new("observe");
    let site = Site::new(&net);
    guard(&site);
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let _daemon = site.start_with(&["--interface", "s0", "--observe"]);
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()));
    assert!(site.counted("would_drop") > 0 && site.counted("dropped") == 0);
}

#[test]
fn maps_can_be_read_by_people() {
    let net = Net::new("dump");
    let site = Site::new(&net);
    guard(&site);
    let _daemon = site.start();
    site.json(&["ban", "10.9.0.2", "--jail", "guard"]);
    let dump = run("bpftool", &["map", "dump", "pinned", &site.map("BANS_V4")]);
    assert!(dump.contains("until") && dump.contains("scope"), "named fields: {dump}");
    let listed =
        Command::new(tool("bpftool")).args(["prog", "show"]).output().expect("bpftool runs").stdout;
    assert!(String::from_utf8_lossy(&listed).contains("name ban"), "the program has its name");
}
