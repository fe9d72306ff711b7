//! Maps grow while bans go on, and none is lost or passes meanwhile.
mod enforcing;
mod lab;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use enforcing::{
    ban, dropped_of, host, in_an_hour, maintain_until, now, options, pins, prefix, start,
};
use fail2xdp::{
    config::{JailName, Scope},
    enforce::{EnforceError, Enforcer, Notice, Options},
};
use ipnet::IpNet;

fn grown(notices: &[Notice]) -> usize {
    notices.iter().filter(|notice| matches!(notice, Notice::Grown { .. })).count()
}

/// Whether only one set of maps is left: counts are carried over, the old set is gone.
fn settled() -> bool {
    let sets = std::fs::read_dir(pins())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("maps_"));
    sets.count() == 1
}

#[test]
fn maps_double_at_three_quarters_and_every_ban_goes_on() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        for nth in 0..767 {
            ban(&mut enforcer, &host(nth).to_string());
        }
        let told = enforcer.maintain(now());
        assert_eq!(grown(&told), 0);
        assert_eq!(enforcer.status().load.v4.capacity, 1024);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(5), host(5)], 22), 2);
        ban(&mut enforcer, &host(767).to_string());
        // Bans and unbans of that time reach both sets.
        let told = maintain_until(&mut enforcer, |_, told| grown(told) == 1);
        assert!(!told.iter().any(Notice::is_alarm), "{told:?}");
        maintain_until(&mut enforcer, |_, _| settled());
        let status = enforcer.status();
        assert_eq!((status.load.v4.bans, status.load.v4.capacity), (768, 2048));
        assert_eq!(status.load.v6.capacity, 1024, "the other family has room");
        assert_eq!(status.maps, pins().join("maps_2"));
        assert_eq!(std::fs::read_link(pins().join("maps")).unwrap().to_str(), Some("maps_2"));
        assert_eq!(enforcer.traffic(prefix("11.0.0.5")).unwrap().packets, 2, "counts go on");
        assert_eq!(dropped_of(&enforcer, &peer, (0..800).map(host).collect(), 22), 768);
        assert_eq!(
            status.counters.unwrap().dropped.packets,
            2,
            "and so do the counters of packets"
        );
        drop(enforcer);
        let (_enforcer, adopted) = start(&options(&["near"]));
        assert_eq!(adopted.len(), 768);
    });
}

#[test]
fn no_packet_of_a_banned_source_passes_while_maps_grow_again_and_again() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        let first: IpNet = prefix("11.0.0.0");
        ban(&mut enforcer, "11.0.0.0");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let flood = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                peer.there(move || {
                    let (wire, frame) = (lab::Wire::new("far"), lab::tcp_frame(host(0), 22));
                    let mut sent = 0u64;
                    while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                        wire.send(&frame);
                        sent += 1;
                    }
                    sent
                })
            });
            let (jail, scope_) = (JailName::new("sshd"), Scope::EveryPacket);
            let mut lifted = HashSet::new();
            let mut growths = 0;
            for nth in 1..8000u32 {
                enforcer
                    .ban(
                        IpNet::from(std::net::IpAddr::from(host(nth))),
                        &jail,
                        &scope_,
                        in_an_hour(),
                    )
                    .unwrap();
                if nth % 7 == 0 {
                    let gone = nth - nth % 100;
                    enforcer
                        .unban(IpNet::from(std::net::IpAddr::from(host(gone.max(1)))), &jail)
                        .unwrap();
                    lifted.insert(gone.max(1));
                }
                if enforcer.next_due() <= Instant::now() {
                    growths += grown(&enforcer.maintain(now()));
                }
            }
            growths += grown(&maintain_until(&mut enforcer, |_, _| settled()));
            stop.send(()).unwrap();
            assert!(growths >= 3, "{growths} growths");
            // One lifted before is banned again when its turn comes.
            let banned: HashSet<u32> =
                (0..8000).filter(|nth| !lifted.contains(nth) || nth % 100 != 0).collect();
            for nth in 0..8000 {
                let known =
                    enforcer.traffic(IpNet::from(std::net::IpAddr::from(host(nth)))).is_some();
                assert!(known || lifted.contains(&nth), "{} was lost", host(nth));
            }
            assert!(banned.len() > 7000);
            flood.join().unwrap()
        });
        let dropped = enforcer.traffic(first).unwrap().packets;
        let passed = enforcer.status().counters.unwrap().passed.packets;
        assert!(flood > 1000, "only {flood} packets were sent");
        assert_eq!(enforcer.status().counters.unwrap().dropped.packets, flood);
        // A count in a line may be lost at the very moment of the swap; no packet may.
        assert!(dropped <= flood && dropped > flood / 2, "{dropped} of {flood} counted");
        assert!(passed < 100, "{passed} packets passed, more than neighbour discovery sends");
    });
}

#[test]
fn bans_that_come_faster_than_the_maps_grow_wait_for_the_room() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        let (mut enforcer, _) = start(&options(&["near"]));
        // No maintenance in between.
        for nth in 0..5000 {
            ban(&mut enforcer, &host(nth).to_string());
        }
        let load = enforcer.status().load.v4;
        assert_eq!(load.bans, 5000);
        assert!(load.capacity >= 5000);
    });
}

#[test]
fn a_full_table_refuses_further_bans_counts_them_and_raises_an_alarm() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&Options { max_bans: 1000, ..options(&["near"]) });
        for nth in 0..1000 {
            ban(&mut enforcer, &host(nth).to_string());
        }
        let refused = enforcer
            .ban(prefix("12.0.0.1"), &JailName::new("sshd"), &Scope::EveryPacket, in_an_hour())
            .unwrap_err();
        assert!(matches!(refused, EnforceError::Full { bans: 1000, .. }), "{refused}");
        assert!(refused.to_string().contains("`max_bans` allows no more"), "{refused}");
        ban(&mut enforcer, "11.0.0.1");
        ban(&mut enforcer, "2001:db8::1");
        assert_eq!(enforcer.status().refused, 1);
        enforcer.unban(prefix("11.0.0.1"), &JailName::new("sshd")).unwrap();
        ban(&mut enforcer, "12.0.0.1");
        assert_eq!(
            dropped_of(&enforcer, &peer, vec!["12.0.0.1".parse().unwrap(), host(1), host(2)], 22),
            2
        );
        let alarm = maintain_until(&mut enforcer, |_, told| {
            told.iter().any(|notice| matches!(notice, Notice::Refused { .. }))
        });
        assert!(alarm.iter().any(Notice::is_alarm));
    });
}

#[test]
fn a_crash_while_growing_leaves_one_whole_set() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&options(&["near"]));
        for nth in 0..900 {
            ban(&mut enforcer, &host(nth).to_string());
        }
        // The thread that prepares the larger set has begun.
        let patience = Instant::now() + Duration::from_secs(10);
        while !pins().join("maps_2").exists() {
            assert!(Instant::now() < patience);
        }
        drop(enforcer);
        let (mut enforcer, adopted): (Enforcer, _) = start(&options(&["near"]));
        assert_eq!(adopted.len(), 900);
        maintain_until(&mut enforcer, |_, told| grown(told) == 1);
        assert_eq!(dropped_of(&enforcer, &peer, (0..900).map(host).collect(), 22), 900);
    });
}
