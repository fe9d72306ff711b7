//! What cannot be enforced says why and what to do, and leaves everything as it was.
mod enforcing;
mod lab;

use std::{path::PathBuf, time::Duration};

use enforcing::{
    ban, chain, dropped_of, host, maintain_until, now, options, pins, prefix, refused, start,
};
use fail2xdp::{
    config::AttachMode,
    enforce::{self, EnforceError, Enforcer, InterfaceMode, LinkChange, Notice, Options},
};

#[track_caller]
fn check(options: &Options, expect: &[&str]) {
    let said = refused(options);
    for part in expect {
        assert!(said.contains(part), "`{said}` lacks `{part}`");
    }
}

#[test]
fn an_unknown_interface_is_named_with_those_that_exist() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        check(&options(&["eth9"]), &["no interface `eth9`", "`near`", "`far`", "`lo`"]);
        assert!(!pins().exists(), "a start that fails leaves no pins");
    });
}

#[test]
fn one_unknown_interface_of_several_is_waited_for() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        let (to, mut news) = tokio::sync::mpsc::channel(16);
        let (mut enforcer, _) = start(&options(&["near", "later"]));
        let told = enforcer.maintain(now());
        assert!(told.contains(&Notice::Waiting { interface: "later".into() }), "{told:?}");
        enforce::watch(to).unwrap();
        lab::run("ip link add later type veth peer name retal");
        let is_attached = |enforcer: &Enforcer| {
            enforcer
                .status()
                .interfaces
                .iter()
                .any(|one| one.name == "later" && one.mode == InterfaceMode::Native)
        };
        while !is_attached(&enforcer) {
            let change = news.blocking_recv().expect("the watch goes on");
            enforcer.link_changed(change);
        }
    });
}

#[test]
fn a_link_without_ethernet_header_is_refused_with_the_device_to_use() {
    lab::alone(|| {
        lab::run("ip tuntap add dev tun0 mode tun");
        lab::run("ip link add near type veth peer name far");
        lab::run("ip addr add 10.0.0.1/24 dev near");
        lab::run("ip link set near up");
        lab::run("ip link set far up");
        lab::run("ip route add default via 10.0.0.2");
        check(
            &options(&["tun0"]),
            &[
                "`tun0` carries no Ethernet frames (tun, no link layer)",
                "protect the Ethernet interface that carries it, `near`",
            ],
        );
        assert!(!pins().exists());
        // Beside one that can be protected it is a notice.
        let (mut enforcer, _) = start(&options(&["tun0", "near"]));
        let told = enforcer.maintain(now());
        assert!(
            told.iter().any(|notice| notice.is_alarm()
                && notice.to_string().contains("`tun0` is NOT protected"))
        );
    });
}

#[test]
fn a_foreign_program_stays_and_is_named() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        // Another fail2xdp with its own pins is as foreign as any.
        let (first, _) = start(&options(&["near"]));
        let other = Options { pin_dir: pins().with_file_name("f2x-other"), ..options(&["near"]) };
        check(&other, &["`near` already runs another XDP program (`ban", "nothing was replaced"]);
        assert!(!other.pin_dir.exists());
        drop(first);
        let (mut first, _) = start(&options(&["near"]));
        ban(&mut first, "11.0.0.1");
        assert_eq!(dropped_of(&first, &peer, vec![host(1)], 22), 1);
    });
}

#[test]
fn an_interface_is_taken_as_soon_as_the_foreign_program_leaves() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        lab::run("ip link add second type veth peer name dnoces");
        let (foreign, _) = start(&options(&["near"]));
        let (to, mut news) = tokio::sync::mpsc::channel(16);
        let other =
            Options { pin_dir: pins().with_file_name("f2x-other"), ..options(&["near", "second"]) };
        let (mut enforcer, _) = start(&other);
        enforce::watch(to).unwrap();
        foreign.detach().unwrap();
        let mode = |enforcer: &Enforcer| {
            enforcer.status().interfaces.into_iter().find(|one| one.name == "near").unwrap().mode
        };
        let patience = std::time::Instant::now() + Duration::from_secs(10);
        while mode(&enforcer) != InterfaceMode::Native {
            assert!(std::time::Instant::now() < patience, "{:?}", enforcer.status().interfaces);
            if let Ok(change) = news.try_recv() {
                enforcer.link_changed(change);
            }
            enforcer.maintain(now());
        }
    });
}

#[test]
fn a_driver_without_xdp_is_served_generically_and_adopted_so() {
    lab::alone(|| {
        lab::run("ip link add bridge0 type bridge");
        for _ in 0..2 {
            let (enforcer, _) = start(&options(&["bridge0"]));
            let status = enforcer.status();
            assert_eq!(status.interfaces[0].mode, InterfaceMode::Generic);
            assert!(status.interfaces[0].reason.is_some(), "{:?}", status.interfaces);
        }
        check(
            &Options { mode: AttachMode::Native, ..options(&["bridge0"]) },
            &[
                "cannot attach to `bridge0` in native mode",
                "Underlying driver does not support XDP in native mode",
            ],
        );
    });
}

#[test]
fn generic_mode_drops_as_well() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (mut enforcer, _) = start(&Options { mode: AttachMode::Generic, ..options(&["near"]) });
        ban(&mut enforcer, "11.0.0.1");
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 1);
        drop(enforcer);
        // Native from now on: another mode cannot be swapped in, so it is attached anew.
        let (enforcer, adopted) =
            start(&Options { mode: AttachMode::Native, ..options(&["near"]) });
        assert_eq!(adopted.len(), 1);
        assert_eq!(enforcer.status().interfaces[0].mode, InterfaceMode::Native);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1)], 22), 1);
    });
}

#[test]
fn pins_outside_a_bpf_file_system_are_refused_with_the_mount_command() {
    lab::alone(|| {
        let elsewhere = Options { pin_dir: PathBuf::from("/proc/f2x"), ..options(&["lo"]) };
        check(&elsewhere, &["not on a BPF file system", "mount -t bpf bpf /sys/fs/bpf"]);
    });
}

#[test]
fn without_capabilities_the_missing_ones_are_named() {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        lab::run("mkdir /sys/fs/bpf/f2x-test");
        // One after the other, since what was dropped does not come back.
        lab::drop_capabilities(&[CAP_SYS_ADMIN, CAP_PERFMON]);
        check(&options(&["near"]), &["CAP_PERFMON is missing", "--mode none", "run as root"]);
        lab::drop_capabilities(&[CAP_NET_ADMIN]);
        check(&options(&["near"]), &["CAP_NET_ADMIN, CAP_PERFMON are missing"]);
        lab::drop_capabilities(&[CAP_BPF]);
        check(&options(&["near"]), &["CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON are missing"]);
        assert!(!enforce::own_addresses().unwrap().is_empty(), "own addresses need no privilege");
    });
}

#[test]
fn an_address_that_comes_is_allowed_and_one_that_goes_is_not() {
    lab::alone(|| {
        let peer = lab::Peer::new();
        peer.connect("near", "far");
        let (to, mut news) = tokio::sync::mpsc::channel(16);
        let (mut enforcer, _) = start(&options(&["near"]));
        enforce::watch(to).unwrap();
        ban(&mut enforcer, "11.0.0.0/24");
        let mut follow = |enforcer: &mut Enforcer, allowed: bool| {
            while enforcer.spares(prefix("11.0.0.1")).is_some() != allowed {
                let change: LinkChange = news.blocking_recv().expect("the watch goes on");
                enforcer.link_changed(change);
            }
        };
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 2);
        lab::run("ip addr add 11.0.0.1/32 dev near");
        follow(&mut enforcer, true);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 1);
        lab::run("ip addr del 11.0.0.1/32 dev near");
        follow(&mut enforcer, false);
        assert_eq!(dropped_of(&enforcer, &peer, vec![host(1), host(2)], 22), 2);
    });
}

#[test]
fn errors_tell_their_causes() {
    let fault = EnforceError::NotPinned {
        interface: "near".into(),
        source: std::io::Error::from_raw_os_error(libc::ENOSPC),
    };
    assert!(chain(&fault).contains("No space left"), "{}", chain(&fault));
}

#[test]
fn maintenance_without_anything_to_do_sleeps_for_seconds() {
    lab::alone(|| {
        lab::run("ip link add near type veth peer name far");
        let (mut enforcer, _) = start(&options(&["near"]));
        ban(&mut enforcer, "11.0.0.1");
        let idle = |enforcer: &Enforcer| {
            enforcer.next_due().saturating_duration_since(std::time::Instant::now())
                > Duration::from_secs(1)
        };
        maintain_until(&mut enforcer, |enforcer, _| idle(enforcer));
    });
}
