//! Promise: bans end on time and in masses without keeping new ones waiting.
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use fail2xdp_tests::{Log, Net, SERVER, Site, attack::ends_on_time, now, run, syslog_now, until};

/// Bans that lapse in the same second.
const MASS: u32 = 100_000;
/// Seconds that they last.
const LASTING: i64 = 25;

/// An address of the clients' network 10.128.0.0/9 that nothing else uses.
fn fresh(nth: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + nth)
}

/// A UDP service that sends every datagram back, until `over`.
fn answer(socket: &UdpSocket, over: &AtomicBool) {
    let mut datagram = [0; 16];
    while !over.load(Ordering::Relaxed) {
        // A timeout is a chance to look whether it is over.
        if let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], from);
        }
    }
}

/// Appends a line about a fresh address that is talking to the server, and says how long it could go on.
#[track_caller]
fn line_to_drop(net: &Net, log: &mut Log, nth: u32, to: SocketAddr) -> Duration {
    let from = IpAddr::from(fresh(nth));
    let socket =
        net.clients.enter(|| UdpSocket::bind((from, 0))).expect("the network is the clients' own");
    socket.connect(to).expect("a route leads there");
    socket.set_read_timeout(Some(Duration::from_millis(10))).expect("the timeout is not zero");
    let heard = |nth: u32| {
        socket.send(&nth.to_be_bytes()).expect("the wire is up");
        socket.recv(&mut [0; 16]).is_ok()
    };
    until(Duration::from_secs(2), "it is answered before its line", || heard(0).then_some(()));
    let line = Log::line_of(from);
    let begun = Instant::now();
    log.append(&line);
    loop {
        let sent = Instant::now();
        // One lost datagram may be a slow answer; three are a ban.
        if !heard(1) && !heard(2) && !heard(3) {
            return sent - begun;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{from} is not dropped");
    }
}

#[test]
fn a_hundred_thousand_ends_in_one_second_keep_no_new_ban_waiting() {
    let net = Net::new("mass");
    net.add_client_network("10.128.0.0/9");
    let site = Site::new(&net);
    let (mut mass, mut fresh_log) = (site.log("mass.log"), site.log("fresh.log"));
    let jail = |name: &str, lasting: i64| {
        let options = format!(
            "banaction = %(banaction_allports)s\nprotocol = all\nmaxretry = 1\nbantime = {lasting}"
        );
        site.jail(name, &format!("{name}.log"), &options)
    };
    site.jails(&(jail("mass", LASTING) + &jail("fresh", 600)));
    let _daemon = site.start();
    site.wait_following("mass");
    site.wait_following("fresh");

    let socket = net
        .server
        .enter(|| UdpSocket::bind(SocketAddr::new(SERVER.v4, 7)))
        .expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("the timeout is not zero");
    let to = socket.local_addr().expect("it is bound");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| answer(&socket, &over));
        let end = End(&over);
        let mut samples = 0..;
        let mut sample =
            |log: &mut Log| line_to_drop(&net, log, samples.next().expect("endless"), to);
        let idle: Vec<Duration> = (0..50).map(|_| sample(&mut fresh_log)).collect();

        let at = now() as i64;
        let stamp = syslog_now();
        let lines: String = (0..MASS)
            .map(|nth| {
                let from = Ipv4Addr::from(0x6440_0000 + nth);
                format!(
                    "{stamp} host sshd[{}]: Failed password for root from {from} port 1 ssh2\n",
                    nth + 2000
                )
            })
            .collect();
        let begun = Instant::now();
        mass.append(&lines);
        let banned = || site.json(&["status", "mass"])["currently_banned"].as_u64();
        until(Duration::from_secs(LASTING as u64 - 5), "all of them are banned", || {
            (banned() == Some(MASS.into())).then_some(())
        });
        let loaded = begun.elapsed();

        let seconds_left = || at + LASTING - now() as i64;
        until(Duration::from_secs(LASTING as u64), "their end is near", || {
            (seconds_left() <= 1).then_some(())
        });
        let mut busy = Vec::new();
        while seconds_left() > -4 {
            busy.push(sample(&mut fresh_log));
        }
        assert_eq!(banned(), Some(0), "all are gone within 3 s");
        let dump = run("bpftool", &["-j", "map", "dump", "pinned", &site.map("BANS_V4")]);
        let dump: serde_json::Value = serde_json::from_str(&dump).expect("bpftool prints JSON");
        let left = dump.as_array().map_or(0, Vec::len);
        assert_eq!(
            left,
            idle.len() + busy.len(),
            "and gone from the map, where only the fresh ones are"
        );
        drop(end);

        let p99 = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() * 99 / 100]
        };
        let (idle, count, busy) = (p99(idle), busy.len(), p99(busy));
        println!(
            "{MASS} lines banned in {loaded:?}; line to drop p99: idle {idle:?}, while all lapse {busy:?} ({count} lines)"
        );
        assert!(count >= 100, "too few lines for a p99: {count}");
        assert!(busy < Duration::from_millis(20), "p99 {busy:?}, idle {idle:?}");
    });
}

#[test]
fn a_ban_by_hand_ends_on_its_second() {
    let net = Net::new("hand");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222"));
    let _daemon = site.start();
    site.json(&["ban", "192.0.2.7", "2001:db8::/64", "--jail", "guard", "--for", "5"]);
    let (v4, v6) = (site.wait_banned("192.0.2.7"), site.wait_banned("2001:db8::/64"));
    assert_eq!(v4["until"], v6["until"], "both were asked for at once");
    ends_on_time(&site, &v4);
    assert!(site.bans().is_empty(), "the other one ends with it");
}

/// Lets the answering thread end also when a promise is broken, else the scope would wait for ever.
struct End<'flag>(&'flag AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
