//! Promise: a ban closes the ports of its jail and no other.
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Echo, Net, SERVER, Site, connect, is_dropped, reaches, unit,
};

/// Sends a few bytes and waits for them to come back.
fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    stream.set_read_timeout(Some(Duration::from_millis(1500))).expect("the timeout is not zero");
    stream.write_all(b"still").expect("the send buffer has room");
    stream.read_exact(&mut back).is_ok()
}

#[track_caller]
fn check(label: &str, attacker: IpAddr, bystander: IpAddr, server: IpAddr) {
    let net = Net::new(label);
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 2\nbantime = 60"));
    let echoes_closed = Echo::listen(&net.server, SocketAddr::new(server, 2222));
    let echoes_open = Echo::listen(&net.server, SocketAddr::new(server, 8080));
    let (closed, open) = (echoes_closed.address(), echoes_open.address());
    let _daemon = site.start();
    site.wait_following("guard");
    let mut on_closed =
        connect(&net.clients, attacker, closed, Duration::from_secs(1)).expect("not banned yet");
    let mut on_open =
        connect(&net.clients, attacker, open, Duration::from_secs(1)).expect("not banned yet");

    log.wrong_password(attacker);
    log.wrong_password(attacker);
    let ban = site.wait_banned(&unit(attacker));
    assert_eq!(ban["scope"], "tcp:2222", "{ban}");

    assert!(is_dropped(&net.clients, attacker, closed), "the jail's port");
    assert!(!echoes(&mut on_closed), "an established connection to it");
    assert!(reaches(&net.clients, attacker, open), "another port");
    assert!(echoes(&mut on_open), "an established connection to that");
    assert!(reaches(&net.clients, bystander, closed), "another address");
    let (there, here) = (SocketAddr::new(server, 2222), SocketAddr::new(attacker, 0));
    let receiver = net.server.enter(|| UdpSocket::bind(there)).expect("the port is free in UDP");
    let sender = net.clients.enter(|| UdpSocket::bind(here)).expect("the address is the client's");
    receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("the timeout is not zero");
    sender.send_to(b"datagram", there).expect("the wire is up");
    assert!(receiver.recv(&mut [0; 16]).is_ok(), "the same port of another protocol");
}

#[test]
fn a_banned_ipv4_address_reaches_the_other_ports() {
    check("port4", ATTACKER.v4, BYSTANDER.v4, SERVER.v4);
}

#[test]
fn a_banned_ipv6_address_reaches_the_other_ports() {
    check("port6", ATTACKER.v6, BYSTANDER.v6, SERVER.v6);
}
