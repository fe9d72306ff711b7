//! What of this machine stands in the way of enforcement, for `doctor`: looked at, not touched.
use std::path::Path;

use super::{
    EnforceError, Network, attachments::chain, fault::Surroundings, interfaces::Device, pins, sys,
};

/// Our programs, by the names that the kernel shows.
const OURS: [&str; 2] = ["ban", "ban_frags"];

/// How something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// As it should be.
    Good(String),
    /// Perhaps not as meant: what, and what to do.
    Doubt(String, String),
    /// In the way: what, with what to do in it.
    Fault(String),
    /// Who asks may not see it.
    Unseen(String),
}

/// What was looked at, and how it is; `wanted` are the interfaces to protect, none for those of the default routes.
pub fn examine(pin_dir: &Path, wanted: &[String]) -> Vec<(&'static str, Sign)> {
    let here = Surroundings::observe();
    let mut signs = vec![("kernel", verdict(here.precheck(), format!("Linux {}", here.release)))];
    let release = here.release.clone();
    let btf = if here.btf { Ok(()) } else { Err(EnforceError::NoBtf { release }) };
    signs.push(("btf", verdict(btf, "the kernel describes its types".into())));
    let is_root = rustix::process::geteuid().is_root();
    signs.push((
        "capabilities",
        match here.lacks_capabilities() {
            true if !is_root => Sign::Unseen(
                "whether the daemon may load BPF: ask as the user that it runs as, mostly root"
                    .into(),
            ),
            true => Sign::Fault(here.refusal().to_string()),
            false => Sign::Good("BPF may be loaded".into()),
        },
    ));
    let path = pin_dir.to_owned();
    let bpffs = match pins::is_on_bpffs(pin_dir) {
        true => Ok(()),
        false => Err(EnforceError::NotBpffs { path }),
    };
    signs.push(("bpffs", verdict(bpffs, format!("`{}` is on one", pin_dir.display()))));
    match Network::observe() {
        Ok(network) => interfaces(&network, wanted, &mut signs),
        Err(error) => signs.push(("interface", Sign::Unseen(chain(&error)))),
    }
    signs
}

fn verdict(result: Result<(), EnforceError>, good: String) -> Sign {
    result.map_or_else(|error| Sign::Fault(chain(&error)), |()| Sign::Good(good))
}

fn interfaces(network: &Network, wanted: &[String], signs: &mut Vec<(&'static str, Sign)>) {
    let default = network.default_devices.iter().filter_map(|index| network.by_index(*index));
    let mut protected: Vec<&Device> = Vec::new();
    for name in wanted {
        match network.by_name(name) {
            Some(device) => protected.push(device),
            None => signs.push(("interface", Sign::Fault(network.unknown(name).to_string()))),
        }
    }
    if wanted.is_empty() {
        protected = default.clone().collect();
        if protected.is_empty() {
            let what = "there is no default route, and no interface is named".to_owned();
            let remedy = "name the one to protect: `interface = …` in fail2xdp.conf".to_owned();
            signs.push(("interface", Sign::Doubt(what, remedy)));
        }
    }
    for device in &protected {
        let name = &device.name;
        signs.push((
            "interface",
            match network.readable(device) {
                Ok(()) => Sign::Good(format!("`{name}` carries Ethernet frames")),
                // What the Ethernet below carries is wrapped in PPPoE mostly, which the program does not read.
                Err(error) if device.is_ppp() => Sign::Fault(format!(
                    "{error}; if that carries PPPoE, bans have no effect there either: let the router before it \
                     make the connection, so that plain IP comes here"
                )),
                Err(error) => Sign::Fault(error.to_string()),
            },
        ));
        if let Some(xdp) = device.xdp
            && let Some(program) = sys::program_name(xdp.id)
            && !OURS.contains(&program.as_str())
        {
            let what = format!("`{name}` runs another XDP program, `{program}` (id {})", xdp.id);
            let remedy = "one interface runs one: `bpftool net` and `ip link` tell more";
            signs.push(("interface", Sign::Doubt(what, remedy.into())));
        }
    }
    // What comes through a tunnel is a frame of the tunnel to the interface that carries it.
    for device in network.devices.iter().filter(|device| !protected.contains(device)) {
        if network.readable(device).is_err() && device.is_up {
            let what = format!(
                "`{}` ({}) is not protected: bans have no effect on what comes through it",
                device.name,
                device.describe()
            );
            let remedy = "nothing need be done where you trust all who can reach you through it";
            signs.push(("tunnel", Sign::Doubt(what, remedy.into())));
        }
    }
}
