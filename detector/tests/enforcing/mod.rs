//! What the tests of enforcement share: options, bans, and packets whose fate is counted.
#![allow(dead_code, reason = "each test file uses some of it")]
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fail2xdp::{
    config::{AttachMode, JailName, Scope},
    enforce::{Adopted, EnforceError, Enforcer, Notice, Options},
    engine::{Timestamp, Until},
};
use ipnet::IpNet;

use crate::lab;

pub fn pins() -> PathBuf {
    Path::new(lab::BPFFS).join("f2x-test")
}

pub fn options(interfaces: &[&str]) -> Options {
    Options {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        mode: AttachMode::Auto,
        pin_dir: pins(),
        observe: false,
        observing: Vec::new(),
        allow: Vec::new(),
        also_allow: Vec::new(),
        allow_sessions: false,
        max_bans: 4_194_304,
        initial_bans: 1024,
        expected: [0; 2],
        events_per_second: 0,
        compare_every: Duration::from_secs(300),
        kernel_log: false,
    }
}

pub fn now() -> Timestamp {
    fail2xdp::clock::now()
}

pub fn in_an_hour() -> Until {
    Until::At(now().plus(Duration::from_secs(3600)))
}

#[track_caller]
pub fn start(options: &Options) -> (Enforcer, Vec<Adopted>) {
    match Enforcer::start(options, now()) {
        Ok(started) => started,
        Err(fault) => panic!("{}", chain(&fault)),
    }
}

#[track_caller]
pub fn refused(options: &Options) -> String {
    match Enforcer::start(options, now()) {
        Ok(_) => panic!("started, and should not have"),
        Err(fault) => chain(&fault),
    }
}

pub fn chain(fault: &EnforceError) -> String {
    let mut said = fault.to_string();
    let mut cause = std::error::Error::source(fault);
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

pub fn prefix(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| {
        IpNet::from(text.parse::<std::net::IpAddr>().expect("an address or prefix"))
    })
}

/// The `nth` of a family of addresses.
pub fn host(nth: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 + nth)
}

#[track_caller]
pub fn ban(enforcer: &mut Enforcer, prefix_: &str) {
    ban_until(enforcer, prefix_, in_an_hour());
}

#[track_caller]
pub fn ban_until(enforcer: &mut Enforcer, prefix_: &str, until: Until) {
    enforcer.ban(prefix(prefix_), &JailName::new("sshd"), &Scope::EveryPacket, until).unwrap();
}

/// Drives maintenance until `done`, as the daemon's loop does.
#[track_caller]
pub fn maintain_until(
    enforcer: &mut Enforcer,
    mut done: impl FnMut(&Enforcer, &[Notice]) -> bool,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        notices.extend(enforcer.maintain(now()));
        if done(enforcer, &notices) {
            return notices;
        }
        assert!(Instant::now() < patience, "it never came; told so far: {notices:?}");
        std::thread::sleep(
            enforcer
                .next_due()
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(50)),
        );
    }
}

/// How many of the TCP packets from `sources`, sent by the peer through `far`, were dropped.
#[track_caller]
pub fn dropped_of(enforcer: &Enforcer, peer: &lab::Peer, sources: Vec<Ipv4Addr>, port: u16) -> u64 {
    let counted = |enforcer: &Enforcer| {
        let counters = enforcer.status().counters.expect("counters can be read");
        (
            counters.dropped.packets,
            counters.passed.packets + counters.would_drop.packets + counters.spared.packets,
        )
    };
    let (dropped, passed) = counted(enforcer);
    let sent = sources.len() as u64;
    peer.there(move || {
        let wire = lab::Wire::new("far");
        sources.into_iter().for_each(|source| wire.send(&lab::tcp_frame(source, port)));
    });
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        let (dropped_now, passed_now) = counted(enforcer);
        // Neighbour discovery may pass as well.
        if dropped_now - dropped + passed_now - passed >= sent {
            return dropped_now - dropped;
        }
        assert!(
            Instant::now() < patience,
            "{} of {sent} packets were seen",
            dropped_now - dropped + passed_now - passed
        );
        std::thread::yield_now();
    }
}
