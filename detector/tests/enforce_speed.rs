//! How long bans, adoption and growth take. The bounds are those promised, with room for a slow machine.
mod enforcing;
mod lab;

use std::time::{Duration, Instant};

use enforcing::{host, in_an_hour, maintain_until, now, options, pins, start};
use fail2xdp::{
    config::{JailName, Scope},
    enforce::{Notice, Options},
};
use ipnet::IpNet;

/// What an unoptimised build may take longer.
const SLACK: u32 = if cfg!(debug_assertions) { 40 } else { 4 };

/// Bans written and adopted; an unoptimised build takes its time for fewer.
const BANS: u32 = if cfg!(debug_assertions) { 20_000 } else { 95_000 };

#[test]
fn a_ban_is_in_the_kernel_within_a_millisecond_and_a_hundred_thousand_are_adopted_at_once() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let begun = Instant::now();
        let (mut enforcer, _) = start(&Options { initial_bans: 131_072, ..options(&["near"]) });
        println!("first start with room for 131,072: {:?}", begun.elapsed());
        let (jail, scope, until) = (JailName::new("sshd"), Scope::EveryPacket, in_an_hour());
        let mut took = Vec::new();
        let mut longest = Duration::ZERO;
        let begun = Instant::now();
        // Spread as attackers are.
        let spread = |nth: u32| {
            IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(
                nth.wrapping_mul(2_654_435_761) | 1 << 24,
            )))
        };
        for nth in 0..BANS {
            let before = Instant::now();
            enforcer.ban(spread(nth), &jail, &scope, until).unwrap();
            took.push(before.elapsed());
            if enforcer.next_due() <= Instant::now() {
                let before = Instant::now();
                enforcer.maintain(now());
                longest = longest.max(before.elapsed());
            }
        }
        println!("{BANS} bans: {:?}, {longest:?} the longest maintenance", begun.elapsed());
        took.sort_unstable();
        let p99 = took[took.len() * 99 / 100];
        println!(
            "one ban: p50 {:?}, p99 {p99:?}, most {:?}",
            took[took.len() / 2],
            took[took.len() - 1]
        );
        assert!(p99 <= Duration::from_millis(1) * SLACK / 2, "{p99:?}");
        drop(enforcer);
        let begun = Instant::now();
        let (enforcer, adopted) = start(&options(&["near"]));
        let adoption = begun.elapsed();
        println!("adoption of {}: {adoption:?}", adopted.len());
        assert!(adopted.len() > BANS as usize * 9 / 10);
        assert!(adoption <= Duration::from_millis(500) * SLACK, "{adoption:?}");
        drop(enforcer);
    });
}

#[test]
fn growth_takes_only_a_few_milliseconds_at_a_time() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&Options { initial_bans: 65_536, ..options(&["near"]) });
        let (jail, scope, until) = (JailName::new("sshd"), Scope::EveryPacket, in_an_hour());
        for nth in 0..49_151 {
            enforcer
                .ban(IpNet::from(std::net::IpAddr::from(host(nth))), &jail, &scope, until)
                .unwrap();
        }
        maintain_until(&mut enforcer, |enforcer, _| {
            enforcer.next_due() > Instant::now() + Duration::from_millis(100)
        });
        enforcer
            .ban(IpNet::from(std::net::IpAddr::from(host(49_151))), &jail, &scope, until)
            .unwrap();
        let begun = Instant::now();
        let mut steps = Vec::new();
        let mut done = false;
        while !done || enforcer.next_due() <= Instant::now() + Duration::from_millis(6) {
            std::thread::sleep(enforcer.next_due().saturating_duration_since(Instant::now()));
            let before = Instant::now();
            let told = enforcer.maintain(now());
            let swapped = told.iter().any(|notice| matches!(notice, Notice::Grown { .. }));
            if swapped {
                println!(
                    "all in after {:?}; the swap took {:?}",
                    begun.elapsed(),
                    before.elapsed()
                );
            } else {
                steps.push(before.elapsed());
            }
            done |= swapped;
        }
        steps.sort_unstable();
        let p99 = steps[steps.len() * 99 / 100];
        println!(
            "{} steps in {:?}: p99 {p99:?}, most {:?}",
            steps.len(),
            begun.elapsed(),
            steps[steps.len() - 1]
        );
        assert!(p99 <= Duration::from_millis(5) * SLACK / 2, "{p99:?}");
        assert_eq!(enforcer.status().load.v4.capacity, 131_072);
        assert!(pins().join("maps_2").exists());
    });
}
