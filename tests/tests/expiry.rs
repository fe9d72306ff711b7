//! Promise: bans end on time and in masses without keeping new ones waiting.
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    panic::resume_unwind,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use fail2xdp_tests::{Log, Net, SERVER, Site, attack::ends_on_time, now, run, syslog_now, until};

/// Bans that lapse in the same second.
const MASS: u32 = 100_000;
/// Bans that show how fast this machine makes them.
const FEW: u32 = 5_000;

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
    socket.set_read_timeout(Some(Duration::from_millis(6))).expect("the timeout is not zero");
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
        // Room for the daemon: there are few processors.
        thread::sleep(Duration::from_micros(500));
        assert!(begun.elapsed() < Duration::from_secs(5), "{from} is not dropped");
    }
}

/// Lines of as many addresses in a row, all of this second.
fn lines(first: Ipv4Addr, count: u32) -> String {
    let now = syslog_now();
    let line = |nth| {
        let from = Ipv4Addr::from(u32::from(first) + nth);
        format!(
            "{now} host sshd[{}]: Failed password for root from {from} port 1 ssh2\n",
            nth + 2000
        )
    };
    (0..count).map(line).collect()
}

#[test]
fn a_hundred_thousand_ends_in_one_second_keep_no_new_ban_waiting() {
    let net = Net::new("mass");
    net.add_client_network("10.128.0.0/9");
    let site = Site::new(&net);
    let (mut few, mut mass) = (site.log("few.log"), site.log("mass.log"));
    site.log("fresh.log");
    let jail = |name: &str, lasting: i64| {
        let options = format!(
            "banaction = %(banaction_allports)s\nprotocol = all\nmaxretry = 1\nbantime = {lasting}"
        );
        site.jail(name, &format!("{name}.log"), &options)
    };
    let others = jail("few", 600) + &jail("fresh", 600);
    site.jails(&others);
    site.settings("[Definition]\ninitial_bans = 262144\n");
    let daemon = site.start();
    site.wait_following("few");
    site.wait_following("fresh");
    // The daemon's own words are counted: an answer with all the bans in it would cost more than they do.
    let wait_for_lines = |count: u32, what: &str, limit: Duration| {
        let (mut seen, mut from) = (0, 0);
        until(limit, &format!("{count} lines with `{what}`"), || {
            thread::sleep(Duration::from_millis(30));
            let (more, next) = daemon.said_times(what, from);
            (seen, from) = (seen + more, next);
            (seen == count as usize).then_some(())
        });
    };
    let begun = Instant::now();
    few.append(&lines(Ipv4Addr::new(100, 0, 0, 0), FEW));
    wait_for_lines(FEW, "[few] Ban ", Duration::from_secs(60));
    // Long enough to ban them all, and no longer than a test should wait.
    let lasting = 5 + (begun.elapsed().as_secs_f64() * f64::from(MASS / FEW) * 1.3) as i64;
    site.jails(&(others + &jail("mass", lasting)));
    site.json(&["reload"]);
    site.wait_following("mass");

    let socket = net
        .server
        .enter(|| UdpSocket::bind(SocketAddr::new(SERVER.v4, 7)))
        .expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("the timeout is not zero");
    let to = socket.local_addr().expect("it is bound");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| answer(&socket, &over));
        let end = Over(&over);
        let next = AtomicU32::new(0);
        // Lines of fresh addresses from four sides at once, until `enough`.
        let sample = |enough: &(dyn Fn() -> bool + Sync)| -> Vec<Duration> {
            thread::scope(|scope| {
                let samplers = [(); 4].map(|()| {
                    scope.spawn(|| {
                        let (mut log, mut times) = (site.log("fresh.log"), Vec::new());
                        while !enough() {
                            times.push(line_to_drop(
                                &net,
                                &mut log,
                                next.fetch_add(1, Ordering::Relaxed),
                                to,
                            ));
                        }
                        times
                    })
                });
                let times = samplers
                    .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
                times.concat()
            })
        };
        let idle = sample(&|| next.load(Ordering::Relaxed) >= 100);

        let at = now() as i64;
        let begun = Instant::now();
        mass.append(&lines(Ipv4Addr::new(100, 64, 0, 0), MASS));
        let limit = Duration::from_secs(lasting as u64 - 1);
        wait_for_lines(MASS, "[mass] Ban ", limit);
        let loaded = begun.elapsed();

        let seconds_left = || at + lasting - now() as i64;
        until(limit, "their end is near", || (seconds_left() <= 1).then_some(()));
        until(Duration::from_secs(5), "their end has come", || (seconds_left() <= 0).then_some(()));
        let due = Instant::now();
        let all_gone = AtomicBool::new(false);
        let (busy, lapsed) = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let end = Over(&all_gone);
                wait_for_lines(MASS, "[mass] Unban ", Duration::from_secs(10));
                drop(end);
                due.elapsed()
            });
            let busy = sample(&|| all_gone.load(Ordering::Relaxed));
            (busy, watch.join().expect("it only looks"))
        });
        assert_eq!(site.json(&["status", "mass"])["currently_banned"], 0);
        let dump = run("bpftool", &["-j", "map", "dump", "pinned", &site.map("BANS_V4")]);
        let dump: serde_json::Value = serde_json::from_str(&dump).expect("bpftool prints JSON");
        let left = dump.as_array().map_or(0, Vec::len);
        assert_eq!(
            left,
            FEW as usize + idle.len() + busy.len(),
            "and gone from the map, where only the fresh ones are"
        );
        drop(end);

        let p99 = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() * 99 / 100]
        };
        let (idle, count, busy) = (p99(idle), busy.len(), p99(busy));
        println!(
            "{MASS} lines banned in {loaded:?}, all gone {lapsed:?} after their end; line to drop: \
             p99 idle {idle:?}, while they lapse {busy:?} ({count} lines)"
        );
        assert!(lapsed < Duration::from_secs(3), "all are gone within 3 s, not {lapsed:?}");
        assert!(count >= 20, "too few lines to judge by: {count}");
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

/// Lets other threads end also when a promise is broken, else the scope would wait for ever.
struct Over<'flag>(&'flag AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
