//! Which interfaces run the program, and which should.
use std::{
    collections::{HashMap, HashSet},
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use fail2xdp_common::report::Counter;

use super::{
    fault::EnforceError,
    interfaces::{Device, Network},
    link::{Attachment, Fault, Mode, Programs},
    notice::Notice,
    pins::PinDir,
    sys,
};
use crate::config::AttachMode;

/// How the program runs on an interface that it should run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// Not at all: the interface is not there, or refused.
    Gone,
}

/// An interface that is or should be protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its number; 0 when it is not there.
    pub index: u32,
    /// How the program runs on it.
    pub mode: InterfaceMode,
    /// Why not natively, or why not at all.
    pub reason: Option<String>,
    /// What was dropped there, since the maps were made; together with an interface whose index leaves the same
    /// remainder.
    pub dropped: Option<Counter>,
    /// What would have been, by those who only observe.
    pub would_drop: Option<Counter>,
}

/// The kernel needs a moment after a detachment; this often it is asked again.
const RETRY: Duration = Duration::from_millis(20);
/// Then the interface counts as refused.
const RETRIES: u32 = 50;

/// The interfaces of one daemon.
#[derive(Debug)]
pub(super) struct Attachments {
    folder: PathBuf,
    /// Names asked for; empty: those of the default routes.
    wanted: Vec<String>,
    mode: AttachMode,
    attached: Vec<Attachment>,
    /// What was refused, and for which state of the interface: another state is worth another attempt.
    refused: HashMap<u32, (Device, String)>,
    /// Names that were said to be missing.
    missed: HashSet<String>,
    no_route_said: bool,
    busy: HashMap<u32, u32>,
    again: Option<Instant>,
}

impl Attachments {
    /// None yet.
    pub fn new(pins: &PinDir, wanted: Vec<String>, mode: AttachMode) -> Attachments {
        Attachments {
            folder: pins.links_dir(),
            wanted,
            mode,
            attached: Vec::new(),
            refused: HashMap::new(),
            missed: HashSet::new(),
            no_route_said: false,
            busy: HashMap::new(),
            again: None,
        }
    }

    /// Changes which interfaces are asked for.
    pub fn want(&mut self, wanted: Vec<String>) {
        self.wanted = wanted;
        self.missed.clear();
    }

    /// Takes over the links that an earlier daemon pinned and swaps the program in them; links of interfaces that are
    /// gone or no longer wanted are removed.
    pub fn adopt(
        &mut self,
        pins: &PinDir,
        network: &Network,
        programs: &Programs,
    ) -> Result<Vec<Notice>, EnforceError> {
        let mut notices = Vec::new();
        for (link, pin) in pins.links()? {
            let remove = |source| EnforceError::Pin { doing: "remove", path: pin.clone(), source };
            let Some(info) = sys::link_info(&link).ok().filter(|info| info.interface.is_some())
            else {
                std::fs::remove_file(&pin).map_err(remove)?;
                continue;
            };
            let device = info.interface.and_then(|index| network.by_index(index));
            // A number alone may be that of another network namespace's interface.
            let Some(device) = device
                .filter(|device| device.xdp.is_some_and(|running| running.id == info.program))
            else {
                continue;
            };
            if !self.desired(network).iter().any(|desired| desired.index == device.index) {
                std::fs::remove_file(&pin).map_err(remove)?;
                continue;
            }
            let attachment = Attachment::adopt(link, pin.clone(), device);
            let fits = match self.mode {
                AttachMode::Native => attachment.mode == Mode::Native,
                AttachMode::Generic => attachment.mode == Mode::Generic,
                AttachMode::Auto | AttachMode::None => true,
            };
            if fits {
                notices.extend(self.swap(attachment, programs));
            } else {
                attachment.detach().map_err(remove)?;
            }
        }
        Ok(notices)
    }

    /// Puts another program in place on every interface.
    pub fn update(&mut self, network: &Network, programs: &Programs) -> Vec<Notice> {
        let before = std::mem::take(&mut self.attached);
        let mut notices: Vec<Notice> =
            before.into_iter().flat_map(|attachment| self.swap(attachment, programs)).collect();
        notices.extend(self.follow(network, programs));
        notices
    }

    /// Swaps the program of one link. Where that fails the interface is let go, to be attached anew by `follow`: with
    /// the old program it would go by maps that nobody writes any more.
    fn swap(&mut self, attachment: Attachment, programs: &Programs) -> Option<Notice> {
        let interface = attachment.name.clone();
        match attachment.update(programs) {
            Ok(true) => {
                let (mode, reason) = (attachment.mode, attachment.reason.clone());
                self.attached.push(attachment);
                return Some(Notice::Attached { interface, mode, reason });
            }
            Ok(false) => {}
            Err(fault) => tracing::warn!("`{interface}`: {}; it is attached anew", chain(&fault)),
        }
        // Gone with its interface is as good.
        let _ = attachment.detach();
        None
    }

    /// Brings attachments in line with the network: what is gone is let go, what is wanted and there is attached.
    pub fn follow(&mut self, network: &Network, programs: &Programs) -> Vec<Notice> {
        let mut notices = Vec::new();
        for mut attachment in std::mem::take(&mut self.attached) {
            match network.by_index(attachment.index) {
                Some(device) if !attachment.is_severed() => {
                    attachment.name.clone_from(&device.name);
                    self.attached.push(attachment);
                }
                _ => {
                    notices.push(Notice::Vanished { interface: attachment.name.clone() });
                    let _ = attachment.detach();
                }
            }
        }
        self.refused.retain(|&index, _| network.by_index(index).is_some());
        self.busy.retain(|&index, _| network.by_index(index).is_some());
        self.again = None;
        for device in self.desired(network) {
            let known = self.refused.get(&device.index).is_some_and(|(state, _)| state == device);
            if !known && !self.attached.iter().any(|attachment| attachment.index == device.index) {
                notices.extend(self.attach(device, network, programs));
            }
        }
        for name in &self.wanted {
            if network.by_name(name).is_some() {
                self.missed.remove(name);
            } else if self.missed.insert(name.clone()) {
                notices.push(Notice::Waiting { interface: name.clone() });
            }
        }
        let no_route = self.wanted.is_empty()
            && network.default_devices.is_empty()
            && self.attached.is_empty();
        if no_route && !self.no_route_said {
            notices.push(Notice::NoDefaultRoute);
        }
        self.no_route_said = no_route;
        notices
    }

    fn desired<'a>(&self, network: &'a Network) -> Vec<&'a Device> {
        if self.wanted.is_empty() {
            network.default_devices.iter().filter_map(|&index| network.by_index(index)).collect()
        } else {
            self.wanted.iter().filter_map(|name| network.by_name(name)).collect()
        }
    }

    fn attach(
        &mut self,
        device: &Device,
        network: &Network,
        programs: &Programs,
    ) -> Option<Notice> {
        let interface = device.name.clone();
        let why = match Attachment::new(device, network, self.mode, programs, &self.folder) {
            Ok(attachment) => {
                self.refused.remove(&device.index);
                self.busy.remove(&device.index);
                let (mode, reason) = (attachment.mode, attachment.reason.clone());
                self.attached.push(attachment);
                return Some(Notice::Attached { interface, mode, reason });
            }
            // The watch will tell.
            Err(Fault::Gone) => return None,
            Err(Fault::Busy) => {
                let attempts = self.busy.entry(device.index).or_default();
                *attempts += 1;
                if *attempts <= RETRIES {
                    self.again = Some(Instant::now() + RETRY);
                    return None;
                }
                "the kernel says that it is busy, and shows no program there; `ip link set dev NAME down` and `up` frees it"
                    .to_owned()
            }
            Err(Fault::Final(fault)) => chain(&fault),
        };
        self.refused.insert(device.index, (device.clone(), why.clone()));
        Some(Notice::NotAttached { interface, why })
    }

    /// When a busy interface wants to be tried again.
    pub fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Whether any interface runs the program.
    pub fn is_empty(&self) -> bool {
        self.attached.is_empty()
    }

    /// The reasons of all interfaces that refused.
    pub fn refusals(&self) -> Vec<String> {
        self.refused.values().map(|(_, why)| why.clone()).collect()
    }

    /// Every interface that is or should be protected.
    pub fn status(&self) -> Vec<InterfaceStatus> {
        let attached = self.attached.iter().map(|attachment| InterfaceStatus {
            name: attachment.name.clone(),
            index: attachment.index,
            mode: match attachment.mode {
                Mode::Native => InterfaceMode::Native,
                Mode::Generic => InterfaceMode::Generic,
            },
            reason: attachment.reason.clone(),
            dropped: None,
            would_drop: None,
        });
        let refused = self.refused.values().map(|(device, why)| InterfaceStatus {
            name: device.name.clone(),
            index: device.index,
            mode: InterfaceMode::Gone,
            reason: Some(why.clone()),
            dropped: None,
            would_drop: None,
        });
        let missed = self.missed.iter().map(|name| InterfaceStatus {
            name: name.clone(),
            index: 0,
            mode: InterfaceMode::Gone,
            reason: Some("not there; waiting for it".to_owned()),
            dropped: None,
            would_drop: None,
        });
        let mut all: Vec<InterfaceStatus> = attached.chain(refused).chain(missed).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

/// An error with all its causes, for a line of log.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}
