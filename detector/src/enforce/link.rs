//! One `bpf_link` an interface: native where the driver can, generic where it cannot, nobody's program replaced.
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{
    fault::{EnforceError, Surroundings},
    interfaces::{self, Device, Network, RunningXdp},
    netlink::{self, Netlink},
    sys,
};
use crate::config::AttachMode;

/// How the program runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes anything of the frame.
    Native,
    /// In the network stack: works everywhere, costs several times as much.
    Generic,
}

impl Mode {
    /// `native` or `generic`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Mode::Native => sys::XDP_FLAGS_DRV_MODE,
            Mode::Generic => sys::XDP_FLAGS_SKB_MODE,
        }
    }
}

/// The program in its two forms.
#[derive(Debug)]
pub(super) struct Programs {
    /// For frames in several pieces; `None` before Linux 5.18.
    pub frags: Option<OwnedFd>,
    /// For frames in one piece.
    pub plain: OwnedFd,
}

impl Programs {
    /// The one that is tried first.
    pub fn first(&self) -> &OwnedFd {
        self.frags.as_ref().unwrap_or(&self.plain)
    }

    /// In the order they are tried: with frags large packets need no single buffer, and the MTU may stay.
    fn in_order(&self) -> impl Iterator<Item = &OwnedFd> {
        self.frags.iter().chain([&self.plain])
    }
}

/// Our program on an interface.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Number of the interface.
    pub index: u32,
    /// Its name when it was attached.
    pub name: String,
    /// How the program runs there.
    pub mode: Mode,
    /// Why it does not run natively, and what would change that.
    pub reason: Option<String>,
    link: OwnedFd,
    pin: PathBuf,
}

/// Why an attempt to attach did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may in a moment: the kernel still clears away a program that was just detached.
    Busy,
    /// The interface is gone again.
    Gone,
    /// It will not.
    Final(EnforceError),
}

impl Attachment {
    /// Attaches to `device` and pins the link in `folder`.
    pub fn new(
        device: &Device,
        network: &Network,
        wanted: AttachMode,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Attachment, Fault> {
        network.readable(device).map_err(Fault::Final)?;
        let (mode, reason, link) = match wanted {
            AttachMode::Native => (
                Mode::Native,
                None,
                native(device, network, programs)?.map_err(|reason| {
                    Fault::Final(EnforceError::Attach {
                        interface: device.name.clone(),
                        mode: "native",
                        reason,
                    })
                })?,
            ),
            AttachMode::Generic => (Mode::Generic, None, generic(device, programs)?),
            AttachMode::Auto | AttachMode::None => match native(device, network, programs)? {
                Ok(link) => (Mode::Native, None, link),
                Err(reason) => (Mode::Generic, Some(reason), generic(device, programs)?),
            },
        };
        let mut pin = folder.join(pin_name(&device.name));
        let holds =
            |link: &OwnedFd| sys::link_info(link).is_ok_and(|info| info.interface.is_some());
        if sys::open_pin(&pin).is_ok_and(|link| holds(&link)) {
            // An interface that had this name is protected under another now.
            pin = folder.join(format!("{}-{}", pin_name(&device.name), device.index));
        }
        let _ = std::fs::remove_file(&pin);
        match sys::pin(&link, &pin) {
            Ok(()) => Ok(Attachment {
                index: device.index,
                name: device.name.clone(),
                mode,
                reason,
                link,
                pin,
            }),
            Err(source) => Err(Fault::Final(EnforceError::NotPinned {
                interface: device.name.clone(),
                source,
            })),
        }
    }

    /// Takes over a pinned link whose interface is still there.
    pub fn adopt(link: OwnedFd, pin: PathBuf, device: &Device) -> Attachment {
        let mode = match device.xdp {
            Some(RunningXdp { mode: "generic", .. }) => Mode::Generic,
            _ => Mode::Native,
        };
        let reason = (mode == Mode::Generic).then(|| {
            "attached so by an earlier daemon; `fail2xdp detach` and a new start try native mode again".to_owned()
        });
        Attachment { index: device.index, name: device.name.clone(), mode, reason, link, pin }
    }

    /// Puts the program of `programs` in the place of the one that runs; no packet meets neither.
    ///
    /// `false`: the interface is gone.
    pub fn update(&self, programs: &Programs) -> Result<bool, EnforceError> {
        let mut last = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        for program in programs.in_order() {
            match sys::link_update(&self.link, program) {
                Ok(()) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => return Ok(false),
                Err(error) => last = error,
            }
        }
        let reason = format!("the running program cannot be exchanged: {last}");
        Err(EnforceError::Attach { interface: self.name.clone(), mode: self.mode.name(), reason })
    }

    /// Whether the link still holds on to its interface.
    pub fn is_severed(&self) -> bool {
        sys::link_info(&self.link).is_ok_and(|info| info.interface.is_none())
    }

    /// Removes the pin and with it, as this is the last descriptor, the program from the interface.
    pub fn detach(self) -> io::Result<()> {
        std::fs::remove_file(&self.pin)
    }
}

/// The file name of an interface's link: bpffs takes no dots.
pub(super) fn pin_name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// Native or the reason why not.
fn native(
    device: &Device,
    network: &Network,
    programs: &Programs,
) -> Result<Result<OwnedFd, String>, Fault> {
    let mut last = None;
    for program in programs.in_order() {
        match sys::link_create(program, device.index, Mode::Native.flags()) {
            Ok(link) => return Ok(Ok(link)),
            Err(error) => {
                fatal(device, &error)?;
                last = Some((program, error));
            }
        }
    }
    let (program, error) = last.expect("there is always the plain program to try");
    let words = drivers_words(device.index, program).unwrap_or_else(|| error.to_string());
    Ok(Err(match cure(&words, device, network.below(device)) {
        Some(cure) => format!("{words}; {cure}"),
        None => words,
    }))
}

fn generic(device: &Device, programs: &Programs) -> Result<OwnedFd, Fault> {
    let mut last = String::new();
    for program in programs.in_order() {
        match sys::link_create(program, device.index, Mode::Generic.flags()) {
            Ok(link) => return Ok(link),
            Err(error) => {
                fatal(device, &error)?;
                last = error.to_string();
            }
        }
    }
    Err(Fault::Final(EnforceError::Attach {
        interface: device.name.clone(),
        mode: "generic",
        reason: last,
    }))
}

/// Errors after which no other mode or program needs to be tried.
fn fatal(device: &Device, error: &io::Error) -> Result<(), Fault> {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            let now = Netlink::open()
                .and_then(|mut netlink| interfaces::devices(&mut netlink))
                .unwrap_or_default();
            let running = now.iter().find(|now| now.index == device.index).and_then(|now| now.xdp);
            Err(running.map_or(Fault::Busy, |running| Fault::Final(occupied(device, running))))
        }
        Some(libc::ENODEV | libc::ENXIO) => Err(Fault::Gone),
        Some(libc::EPERM | libc::EACCES) => Err(Fault::Final(Surroundings::observe().refusal())),
        _ => Ok(()),
    }
}

fn occupied(device: &Device, running: RunningXdp) -> EnforceError {
    let id = running.id;
    EnforceError::Occupied {
        interface: device.name.clone(),
        program: sys::program_name(id)
            .map_or_else(|| format!("id {id}"), |name| format!("`{name}`, id {id}")),
        mode: running.mode,
        off: match running.mode {
            "native" => "xdpdrv",
            "generic" => "xdpgeneric",
            _ => "xdpoffload",
        },
    }
}

/// Asks for the same by netlink, which answers with the driver's words; a `bpf_link` gives a number alone.
///
/// Nothing stays attached: where netlink succeeds against expectation, the program is taken off at once.
fn drivers_words(index: u32, program: &OwnedFd) -> Option<String> {
    use std::os::fd::AsRawFd;
    let request = |program: i32, flags: u32| {
        const IFLA_XDP: u16 = 43;
        const IFLA_XDP_FD: u16 = 1;
        const IFLA_XDP_FLAGS: u16 = 3;
        const NLA_F_NESTED: u16 = 0x8000;
        let mut nested = Vec::new();
        netlink::push_attribute(&mut nested, IFLA_XDP_FD, &program.to_ne_bytes());
        netlink::push_attribute(&mut nested, IFLA_XDP_FLAGS, &flags.to_ne_bytes());
        // `struct ifinfomsg`: the interface's number after family, type.
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        netlink::push_attribute(&mut body, NLA_F_NESTED | IFLA_XDP, &nested);
        body
    };
    let mut netlink = Netlink::open().ok()?;
    let attach =
        request(program.as_raw_fd(), sys::XDP_FLAGS_DRV_MODE | sys::XDP_FLAGS_UPDATE_IF_NOEXIST);
    match netlink.request(netlink::RTM_SETLINK, &attach) {
        Err(refusal) => Some(refusal.words.unwrap_or_else(|| refusal.error.to_string())),
        Ok(()) => {
            let _ = netlink.request(netlink::RTM_SETLINK, &request(-1, sys::XDP_FLAGS_DRV_MODE));
            Some("the driver takes a program only in the way that cannot be pinned".to_owned())
        }
    }
}

/// The command that makes native mode possible, where the driver's words tell which.
fn cure(words: &str, device: &Device, below: Option<&Device>) -> Option<String> {
    let name = &device.name;
    let said = words.to_ascii_lowercase();
    let says = |part: &str| said.contains(part);
    if says("mtu") || says("single-buffer") || says("linear frames") {
        // Room for a page without headroom and tail: what drivers without frags take.
        let mtu = if device.mtu > 3498 { 3498 } else { 1500 };
        let which = if says("peer") { format!("{name}'s peer") } else { name.clone() };
        Some(format!("cure: `ip link set dev {which} mtu {mtu}`"))
    } else if says("lro") || says("gro_hw") || says("hw-gro") || says("hw gro") {
        Some(format!("cure: `ethtool -K {name} lro off rx-gro-hw off`"))
    } else if says("csum") {
        Some(format!("cure: `ethtool -K {name} rx off`"))
    } else if says("peer tx queues") {
        Some("cure: fewer queues at its other end, `ethtool -L PEER tx 1`".to_owned())
    } else if says("queue") || says("channel") || says("ring") {
        Some(format!(
            "cure: fewer queues, `ethtool -L {name} combined N` with half of what `ethtool -l {name}` shows"
        ))
    } else {
        let below = below.filter(|_| says("does not support xdp") || says("not supported"))?;
        Some(format!("cure: protect the interface below it instead, `--interface {}`", below.name))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::enforce::{lab, sys::tests::answer};

    const PASS: i32 = 2;
    const DROP: i32 = 1;

    fn programs(verdict: i32) -> Programs {
        let plain = answer(verdict, false).expect("this test needs root to load an XDP program");
        Programs { frags: answer(verdict, true).ok(), plain }
    }

    #[track_caller]
    fn attach(name: &str, wanted: AttachMode, verdict: i32) -> Result<Attachment, Fault> {
        let network = Network::observe().unwrap();
        let device = network.by_name(name).expect("the laboratory made it");
        Attachment::new(device, &network, wanted, &programs(verdict), Path::new(lab::BPFFS))
    }

    #[track_caller]
    fn refusal(attempt: Result<Attachment, Fault>) -> String {
        match attempt {
            Err(Fault::Final(error)) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[track_caller]
    fn check_cure(words: &str, expect: Option<&str>) {
        let device = Device::ethernet(2, "eth0");
        assert_eq!(cure(words, &device, None).as_deref(), expect, "{words}");
    }

    #[test]
    fn what_drivers_say_leads_to_a_command() {
        let queues = "cure: fewer queues, `ethtool -L eth0 combined N` with half of what `ethtool -l eth0` shows";
        let offload = "cure: `ethtool -K eth0 lro off rx-gro-hw off`";
        check_cure(
            "MTU too large to enable XDP without frags",
            Some("cure: `ip link set dev eth0 mtu 1500`"),
        );
        check_cure("Can't set XDP while host is implementing GRO_HW/CSUM", Some(offload));
        check_cure("can't set XDP while LRO is on, disable LRO first", Some(offload));
        check_cure("the Rx/Tx channel count should be at most half of the maximum", Some(queues));
        check_cure("Underlying driver does not support XDP in native mode", None);
    }

    #[test]
    fn a_pin_has_no_dots_and_no_two_interfaces_share_one() {
        assert_eq!(pin_name("eth0"), "eth0");
        assert_eq!(pin_name("eth0.100"), "eth0%2e100");
        assert_ne!(pin_name("eth0.1"), pin_name("eth0%2e1"));
    }

    #[test]
    fn a_veth_runs_natively_and_nothing_slips_past() {
        lab::alone(|| {
            let peer = lab::Peer::new();
            peer.connect("near", "far");
            for address in ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap()) {
                assert!(lab::reaches(&peer, address));
                let attached = attach("near", AttachMode::Auto, DROP).unwrap();
                assert_eq!((attached.mode, &attached.reason), (Mode::Native, &None));
                assert!(
                    lab::is_cut_off(&peer, address),
                    "a packet went past a native program that drops everything"
                );
                attached.detach().unwrap();
                assert!(lab::reaches(&peer, address));
            }
        });
    }

    #[test]
    fn a_driver_without_xdp_runs_it_generically_and_says_why() {
        lab::alone(|| {
            lab::run("ip link add bridge0 type bridge");
            let attached = attach("bridge0", AttachMode::Auto, PASS).unwrap();
            assert_eq!(attached.mode, Mode::Generic);
            assert_eq!(
                attached.reason.as_deref(),
                Some("Underlying driver does not support XDP in native mode")
            );
            attached.detach().unwrap();
            let said = refusal(attach("bridge0", AttachMode::Native, PASS));
            assert!(
                said.starts_with("cannot attach to `bridge0` in native mode: Underlying driver"),
                "{said}"
            );
        });
    }

    #[test]
    fn an_interface_over_another_names_the_one_below_as_the_cure() {
        lab::alone(|| {
            lab::run("ip link add under type veth peer name far");
            lab::run("ip link add over link under type macvlan");
            let attached = attach("over", AttachMode::Auto, PASS).unwrap();
            let reason = attached.reason.expect("macvlan has no native mode");
            assert!(
                reason
                    .ends_with("cure: protect the interface below it instead, `--interface under`"),
                "{reason}"
            );
        });
    }

    #[test]
    fn a_drivers_own_words_come_with_the_command_that_cures_them() {
        lab::alone(|| {
            // Fewer queues here than there: veth refuses XDP with words of its own.
            lab::run(
                "ip link add few numrxqueues 1 numtxqueues 1 type veth peer name many numrxqueues 4 numtxqueues 4",
            );
            let attached = attach("few", AttachMode::Auto, PASS).unwrap();
            let reason = attached.reason.expect("refused natively");
            assert!(reason.starts_with("veth: XDP expects number of rx queues"), "{reason}");
            assert!(
                reason.ends_with("cure: fewer queues at its other end, `ethtool -L PEER tx 1`"),
                "{reason}"
            );
        });
    }

    #[test]
    fn a_link_without_ethernet_header_is_refused() {
        lab::alone(|| {
            lab::run("ip tuntap add dev tun0 mode tun");
            lab::run("ip link add wire type veth peer name far");
            let said = refusal(attach("tun0", AttachMode::Auto, PASS));
            assert!(
                said.contains("`tun0` carries no Ethernet frames (tun, no link layer)"),
                "{said}"
            );
            assert!(
                said.contains("one of `far`, `wire`") || said.contains("one of `wire`, `far`"),
                "{said}"
            );
        });
    }

    #[test]
    fn a_foreign_program_is_named_and_left_alone() {
        lab::alone(|| {
            lab::run("ip link add near type veth peer name far");
            for (mode, word) in [(Mode::Native, "native"), (Mode::Generic, "generic")] {
                let foreign = answer(PASS, false).unwrap();
                let index = Network::observe().unwrap().by_name("near").unwrap().index;
                let link = sys::link_create(&foreign, index, mode.flags()).unwrap();
                let id = sys::program_id(&foreign).unwrap();
                for wanted in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
                    let said = refusal(attach("near", wanted, PASS));
                    assert!(said.contains(&format!("id {id}, {word} mode")), "{said}");
                }
                assert_eq!(sys::link_info(&link).unwrap().program, id);
                assert_eq!(
                    Network::observe().unwrap().by_name("near").unwrap().xdp.unwrap().id,
                    id
                );
            }
        });
    }

    #[test]
    fn a_link_notices_that_its_interface_is_gone() {
        lab::alone(|| {
            lab::run("ip link add near.7 type veth peer name far");
            let attached = attach("near.7", AttachMode::Auto, PASS).unwrap();
            assert!(attached.update(&programs(PASS)).unwrap());
            assert!(!attached.is_severed());
            lab::run("ip link del near.7");
            assert!(attached.is_severed());
            assert!(!attached.update(&programs(PASS)).unwrap());
            lab::run("ip link add near.7 type veth peer name far");
            let attached = attach("near.7", AttachMode::Auto, PASS)
                .expect("the old pin does not stand in the way");
            lab::run("ip link set near.7 name other");
            lab::run("ip link add near.7 type veth peer name far2");
            attach("near.7", AttachMode::Auto, PASS)
                .expect("the pin of the renamed interface does not either");
            assert!(!attached.is_severed());
            assert!(lab::run("ip link show other").contains("xdp"));
        });
    }
}
