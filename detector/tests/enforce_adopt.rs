//! Bans outlive the daemon, and the next one takes them over.
mod enforcing;
mod lab;

use std::{
    collections::BTreeSet,
    fs,
    net::UdpSocket,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use enforcing::{
    ban, ban_until, dropped_of, host, in_an_hour, maintain_until, now, options, pins, prefix,
    refused, start,
};
use fail2xdp::{
    config::{JailName, Scope},
    enforce::{self, Enforcer, InterfaceMode, Mode, Notice},
    engine::{Timestamp, Until},
};

/// The entry of the allow list that a ban of the prefix would reach.
fn allowed_by(enforcer: &Enforcer, reached: &str) -> Option<ipnet::IpNet> {
    enforcer.spares(prefix(reached)).map(|(entry, _)| entry)
}

#[test]
fn a_banned_source_is_dropped_natively_until_it_is_unbanned() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, adopted) = start(&options(&["near"]));
        assert_eq!(adopted, []);
        assert_eq!(enforcer.status().interfaces[0].mode, InterfaceMode::Native);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 0);
        ban(&mut enforcer, "11.0.0.1");
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 1);
        assert_eq!(enforcer.traffic(prefix("11.0.0.1")).unwrap().packets, 1);
        enforcer.unban(prefix("11.0.0.1"), &JailName::new("sshd")).unwrap();
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 0);
    });
}

#[test]
fn bans_outlive_the_daemon_and_the_next_one_finds_them_unchanged() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        let end = Timestamp::from_seconds(now().seconds() + 3600);
        let scope: Scope = "tcp:22,80-90+udp:53".parse().unwrap();
        ban_until(&mut enforcer, "11.0.0.1", Until::At(end));
        ban_until(&mut enforcer, "2001:db8::/64", Until::Forever);
        enforcer.ban(prefix("11.0.0.2"), &JailName::new("other"), &scope, Until::At(end)).unwrap();
        enforcer
            .ban(prefix("11.0.0.2"), &JailName::new("third"), &Scope::EveryPacket, Until::Forever)
            .unwrap();
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 1);
        drop(enforcer);

        // Nobody is there, and the packet does not pass.
        peer.there(|| lab::Wire::new("far").send(&lab::tcp_frame(host(1), 22)));

        let (mut enforcer, adopted) = start(&options(&["near"]));
        let told = enforcer.maintain(now());
        assert!(told.contains(&Notice::Adopted { bans: 3 }), "{told:?}");
        let found: BTreeSet<String> = adopted
            .iter()
            .map(|ban| {
                let end_is = if ban.until == Until::At(end) { "end" } else { "ever" };
                format!("{} {} {} {end_is}", ban.prefix, ban.jail, ban.scope)
            })
            .collect();
        let expect = [
            "11.0.0.1/32 sshd all end",
            "11.0.0.2/32 other tcp:22,80-90+udp:53 end",
            "11.0.0.2/32 third all ever",
            "2001:db8::/64 sshd all ever",
        ];
        assert_eq!(found, expect.map(str::to_owned).into());
        assert_eq!(enforcer.traffic(prefix("11.0.0.1")).unwrap().packets, 2);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2), host(3)], 22), 2);
    });
}

#[test]
fn a_second_daemon_on_the_same_pins_is_refused() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        let (enforcer, _) = start(&options(&["near"]));
        let said = refused(&options(&["near"]));
        assert!(said.contains("another fail2xdp (process "), "{said}");
        assert!(enforce::detach(&pins()).unwrap_err().to_string().contains("another fail2xdp"));
        drop(enforcer);
        start(&options(&["near"]));
    });
}

#[test]
fn detaching_leaves_nothing_pinned_and_nothing_attached() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        ban(&mut enforcer, "10.0.0.2");
        assert!(lab::is_cut_off(&peer, "10.0.0.1".parse().unwrap()));
        drop(enforcer);
        let detached = enforce::detach(&pins()).unwrap();
        assert_eq!(detached.to_string(), "no longer enforced on near; program and maps removed");
        assert!(!pins().exists());
        assert!(!lab::run("ip link show near").contains("xdp"), "the program is still attached");
        assert!(lab::reaches(&peer, "10.0.0.1".parse().unwrap()));
        assert_eq!(enforce::detach(&pins()).unwrap().to_string(), "nothing was enforced");

        let (enforcer, adopted) = start(&options(&["near"]));
        assert_eq!(adopted, []);
        assert_eq!(enforcer.detach().unwrap().interfaces, ["near"]);
        assert!(!pins().exists());
    });
}

#[test]
fn maps_of_another_shape_are_replaced_and_their_bans_go_on() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        let long = "a-jail-with-a-name-that-is-longer-than-the-sixty-bytes-of-one-piece-of-text";
        ban(&mut enforcer, "11.0.0.1");
        enforcer
            .ban(
                prefix("11.0.0.1"),
                &JailName::new(long),
                &"tcp:22,25".parse().unwrap(),
                Until::Forever,
            )
            .unwrap();
        ban(&mut enforcer, "2001:db8::/48");
        drop(enforcer);
        // A map of the same name with another value: what an older or newer version might have left.
        let counters = pins().join("maps_1/COUNTERS");
        fs::remove_file(&counters).unwrap();
        let map = "type percpu_array key 4 value 8 entries 8 name COUNTERS";
        lab::run(&format!("bpftool map create {} {map}", counters.display()));
        let (mut enforcer, adopted) = start(&options(&["near"]));
        let told = enforcer.maintain(now());
        let replaced = told.iter().find_map(|notice| match notice {
            Notice::Replaced { why, bans } => Some((why.clone(), *bans)),
            _ => None,
        });
        let (why, bans) = replaced.unwrap_or_else(|| panic!("{told:?}"));
        assert!(why.contains("COUNTERS"), "{why}");
        assert_eq!(bans, 2);
        let mut found: Vec<String> = adopted
            .iter()
            .map(|ban| format!("{} {} {}", ban.prefix, ban.jail, ban.scope))
            .collect();
        found.sort();
        let second = format!("11.0.0.1/32 {long} tcp:22,25");
        assert_eq!(found, [second.as_str(), "11.0.0.1/32 sshd all", "2001:db8::/48 sshd all"]);
        assert_eq!(enforcer.status().maps, pins().join("maps_2"));
        assert!(!pins().join("maps_1").exists());
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 1);
    });
}

#[test]
fn no_packet_of_a_banned_source_passes_while_daemons_follow_one_another() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        assert!(lab::reaches(&peer, "10.0.0.1".parse().unwrap()));
        let (mut enforcer, _) = start(&options(&["near"]));
        ban(&mut enforcer, "10.0.0.2");
        let target = UdpSocket::bind("10.0.0.1:0").unwrap();
        let address = target.local_addr().unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (flood, mut enforcer) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                peer.there(move || {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    let mut sent = 0u64;
                    while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                        sent += u64::from(socket.send_to(b"banned", address).is_ok());
                    }
                    sent
                })
            });
            for round in 0..6 {
                drop(enforcer);
                if round == 3 {
                    // This one cannot adopt: it fills new maps first.
                    let counters = pins().join("maps_1/COUNTERS");
                    fs::remove_file(&counters).unwrap();
                    let map = "type percpu_array key 4 value 8 entries 8 name COUNTERS";
                    lab::run(&format!("bpftool map create {} {map}", counters.display()));
                }
                let adopted;
                (enforcer, adopted) = start(&options(&["near"]));
                assert_eq!(adopted.len(), 1);
            }
            stop.send(()).unwrap();
            (flood.join().unwrap(), enforcer)
        });
        target.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(target.recv(&mut [0; 16]).is_err(), "a packet of a banned source passed");
        assert!(flood > 1000, "only {flood} packets were sent");
        enforcer.unban(prefix("10.0.0.2"), &JailName::new("sshd")).unwrap();
        assert!(lab::reaches(&peer, "10.0.0.1".parse().unwrap()));
    });
}

#[test]
fn bans_that_cannot_be_read_without_doubt_are_not_guessed() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        let (mut enforcer, _) = start(&options(&["near"]));
        ban(&mut enforcer, "11.0.0.1");
        drop(enforcer);
        // The same sizes, and nothing that says what the bytes mean.
        let bans = pins().join("maps_1/BANS_V4");
        fs::remove_file(&bans).unwrap();
        let map = "type lpm_trie key 8 value 16 entries 1040 name BANS_V4 flags 1";
        lab::run(&format!("bpftool map create {} {map}", bans.display()));
        let (mut enforcer, adopted) = start(&options(&["near"]));
        assert_eq!(adopted, []);
        let told = enforcer.maintain(now());
        let replaced = |notice: &Notice| matches!(notice, Notice::Replaced { why, bans: 0 } if why.contains("BANS_V4"));
        assert!(told.iter().any(replaced), "{told:?}");
    });
}

#[test]
fn what_a_crash_left_is_cleared_away() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        let (mut enforcer, _) = start(&options(&["near"]));
        ban(&mut enforcer, "11.0.0.1");
        drop(enforcer);
        let map = "type hash key 4 value 8 entries 8 name stray";
        fs::create_dir(pins().join("maps_2")).unwrap();
        lab::run(&format!("bpftool map create {} {map}", pins().join("maps_2/BANS_V4").display()));
        std::os::unix::fs::symlink("maps_2", pins().join("maps_next")).unwrap();
        let (mut enforcer, adopted) = start(&options(&["near"]));
        assert_eq!(adopted.len(), 1);
        let told = enforcer.maintain(now());
        assert!(told.contains(&Notice::Adopted { bans: 1 }), "{told:?}");
        assert!(!pins().join("maps_2").exists());
        assert_eq!(fs::read_link(pins().join("maps")).unwrap(), Path::new("maps_1"));
    });
}

#[test]
fn observing_counts_and_drops_nothing() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&enforce::Options { observe: true, ..options(&["near"]) });
        ban(&mut enforcer, "11.0.0.1");
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 0);
        assert_eq!(enforcer.status().counters.unwrap().would_drop.packets, 1);
        drop(enforcer);
        let (enforcer, _) = start(&options(&["near"]));
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 1);
    });
}

#[test]
fn who_is_allowed_is_never_dropped_and_the_list_follows_the_configuration() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        peer.run("ip addr add 11.0.0.9/32 dev far");
        let allowing = enforce::Options { allow: vec![prefix("11.0.0.1")], ..options(&["near"]) };
        let (mut enforcer, _) = start(&allowing);
        ban(&mut enforcer, "11.0.0.0/24");
        ban(&mut enforcer, "11.0.0.1");
        assert_eq!(allowed_by(&enforcer, "11.0.0.1"), Some(prefix("11.0.0.1")));
        assert_eq!(allowed_by(&enforcer, "10.0.0.1"), Some(prefix("10.0.0.1")), "an own address");
        assert_eq!(allowed_by(&enforcer, "11.0.0.0/24"), Some(prefix("11.0.0.1")), "it is within");
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 1);
        assert_eq!(enforcer.status().counters.unwrap().spared.packets, 1);
        drop(enforcer);
        let (enforcer, _) = start(&options(&["near"]));
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 2);
    });
}

#[test]
fn a_changed_configuration_is_taken_over_without_a_new_start() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        lab::run("ip link add second type veth peer name dnoces");
        let (mut enforcer, _) = start(&options(&["near"]));
        ban(&mut enforcer, "11.0.0.0/24");
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 2);
        let allowing =
            enforce::Options { allow: vec![prefix("11.0.0.1")], ..options(&["near", "second"]) };
        enforcer.reconfigure(&allowing);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 1);
        assert!(lab::run("ip link show second").contains("xdp"));
        enforcer.reconfigure(&enforce::Options { observe: true, ..options(&["near"]) });
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 0);
        assert!(enforcer.status().observe);
    });
}

#[test]
fn a_ban_ends_on_time_with_the_daemon_dead() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        let end = Timestamp::from_seconds(now().seconds() + 2);
        ban_until(&mut enforcer, "10.0.0.2", Until::At(end));
        drop(enforcer);
        assert!(lab::is_cut_off(&peer, "10.0.0.1".parse().unwrap()));
        let rest = u64::try_from((end.micros() - now().micros()).max(0)).unwrap();
        std::thread::sleep(Duration::from_micros(rest) + Duration::from_millis(20));
        assert!(lab::reaches(&peer, "10.0.0.1".parse().unwrap()), "the ban holds past its end");
    });
}

#[test]
fn an_end_follows_the_wall_clock_when_it_is_set() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        ban_until(&mut enforcer, "11.0.0.1", Until::At(now().plus(Duration::from_secs(1800))));
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 1);
        let hour = Duration::from_secs(3600);
        let told = enforcer.maintain(now().plus(hour));
        assert!(told.iter().any(|notice| matches!(notice, Notice::ClockStepped { millis } if (3_599_990..3_600_010).contains(millis))), "{told:?}");
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 0, "over, an hour later");
        enforcer.maintain(now());
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 1, "back again");
        enforcer.maintain(now().minus(hour));
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 1);
    });
}

#[test]
fn an_interface_that_vanishes_is_protected_again_when_it_comes_back() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        lab::run("ip link add spare type veth peer name eraps");
        let (to, mut news) = tokio::sync::mpsc::channel(16);
        let (mut enforcer, _) = start(&options(&["near", "spare"]));
        enforce::watch(to).unwrap();
        ban(&mut enforcer, "11.0.0.1");
        let mut follow = |enforcer: &mut Enforcer, mode: InterfaceMode| {
            maintain_until(enforcer, |_, _| true);
            loop {
                let status = enforcer.status();
                if status.interfaces.iter().find(|one| one.name == "near").unwrap().mode == mode {
                    return;
                }
                let change = news.blocking_recv().expect("the watch goes on");
                enforcer.link_changed(change);
            }
        };
        follow(&mut enforcer, InterfaceMode::Native);
        lab::run("ip link del near");
        follow(&mut enforcer, InterfaceMode::Gone);
        peer.connect("near", "far");
        follow(&mut enforcer, InterfaceMode::Native);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 1);
    });
}

#[test]
fn links_of_interfaces_that_are_gone_or_no_longer_wanted_are_let_go() {
    lab::alone(|| {
        for pair in ["one", "two", "three"] {
            lab::run(&format!("ip link add {pair} type veth peer name {pair}p"));
        }
        let (enforcer, _) = start(&options(&["one", "two", "three"]));
        drop(enforcer);
        lab::run("ip link del three");
        let (enforcer, _) = start(&options(&["one"]));
        let links: Vec<_> = fs::read_dir(pins().join("links"))
            .unwrap()
            .map(|link| link.unwrap().file_name())
            .collect();
        assert_eq!(links, ["one"]);
        assert!(!lab::run("ip link show two").contains("xdp"));
        assert_eq!(enforcer.status().interfaces.len(), 1);
    });
}

#[test]
fn the_interfaces_of_the_default_routes_are_chosen() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        lab::run("ip link add six type veth peer name xis");
        lab::run("ip addr add fd01::1/64 dev six nodad");
        lab::run("ip link set six up");
        lab::run("ip link set xis up");
        let (mut enforcer, _) = start(&options(&[]));
        assert!(enforcer.maintain(now()).contains(&Notice::NoDefaultRoute));
        drop(enforcer);
        lab::run("ip route add default via 10.0.0.2");
        lab::run("ip -6 route add default via fd01::2 dev six");
        let (mut enforcer, _) = start(&options(&[]));
        let mut told = enforcer.maintain(now());
        told.retain(|notice| matches!(notice, Notice::Attached { .. }));
        let attached = |name: &str| Notice::Attached {
            interface: name.into(),
            mode: Mode::Native,
            reason: None,
        };
        assert_eq!(told, [attached("near"), attached("six")]);
        assert_eq!(allowed_by(&enforcer, "10.0.0.2"), Some(prefix("10.0.0.2")), "the gateway");
        assert_eq!(allowed_by(&enforcer, "fd01::2"), Some(prefix("fd01::2")), "the gateway");
    });
}

#[test]
fn sampled_drops_and_the_programs_own_log_reach_the_log() {
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Page {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let page = Page::default();
        let writer = page.clone();
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _log = tracing::subscriber::set_default(log);
        let telling =
            enforce::Options { events_per_second: 5, kernel_log: true, ..options(&["near"]) };
        let (mut enforcer, _) = start(&telling);
        ban(&mut enforcer, "11.0.0.1");
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1); 50], 22), 50);
        let told = || String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        maintain_until(&mut enforcer, |_, _| told().contains("kernel: ban "));
        let samples = told().matches("dropped 11.0.0.1, tcp port 22, 60 bytes on near").count();
        // At most so many a second and CPU.
        assert!((1..=20).contains(&samples), "{samples} samples in {}", told());
    });
}

#[test]
fn bans_in_many_jails_come_back_to_each() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        let (mut enforcer, _) = start(&options(&["near"]));
        for jail in 0..7 {
            enforcer
                .ban(
                    prefix("11.0.0.1"),
                    &JailName::new(&format!("jail{jail}")),
                    &Scope::EveryPacket,
                    in_an_hour(),
                )
                .unwrap();
        }
        drop(enforcer);
        let (_enforcer, adopted) = start(&options(&["near"]));
        let jails: BTreeSet<String> = adopted.iter().map(|ban| ban.jail.to_string()).collect();
        assert_eq!(jails.len(), 7, "{jails:?}");
    });
}
