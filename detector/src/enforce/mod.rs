//! Bans become entries in the XDP maps; program, maps and links outlive the daemon.
//!
//! [`Enforcer`] is the public face. One task drives it: [`Enforcer::ban`] and [`Enforcer::unban`] when they are decided,
//! [`Enforcer::maintain`] when [`Enforcer::next_due`] has come, [`Enforcer::link_changed`] with the news of [`watch`].
//!
//! ```text
//! none --start--> new set of maps -> program attached, all pinned
//! daemon gone     the kernel goes on: bans drop packets and end by themselves
//! start again     pinned maps compared and adopted, program swapped in the links
//!                 (of another layout: new maps filled first, then swapped)
//! detach          links, then program, then maps are removed
//! ```
mod attachments;
mod btf;
mod clock;
mod drops;
mod examine;
mod fault;
mod growth;
mod interfaces;
#[cfg(test)]
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod link;
mod load;
mod netlink;
mod notice;
mod pins;
mod protect;
mod salvage;
mod sessions;
mod set;
mod start;
mod sys;
pub mod tables;
mod upkeep;
mod watch;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use self::{
    attachments::Attachments,
    growth::Growth,
    pins::PinDir,
    protect::AllowList,
    set::{Blueprint, Set},
    tables::{Counters, Dropped, Hold, Load, Sizes, TableError},
    upkeep::Upkeep,
};
pub use self::{
    attachments::{InterfaceMode, InterfaceStatus},
    examine::{Sign, examine},
    fault::EnforceError,
    interfaces::{Device, Network, RunningXdp},
    link::Mode,
    notice::Notice,
    protect::Why,
    watch::{LinkChange, watch},
};
use crate::{
    config::{AttachMode, JailName, Scope},
    engine::{Timestamp, Until},
};

/// What enforcement is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interfaces to protect; empty means those of the default routes.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub mode: AttachMode,
    /// Where maps, program and links are pinned; on a BPF file system.
    pub pin_dir: PathBuf,
    /// Count what would be dropped, drop nothing.
    pub observe: bool,
    /// The jails that count what they would drop, and drop nothing.
    pub observing: Vec<String>,
    /// Never dropped, beside what must never be.
    pub allow: Vec<IpNet>,
    /// As `allow`, for reasons of their own; [`Enforcer::also_allow`] changes them.
    pub also_allow: Vec<(IpNet, Why)>,
    /// Put the remote ends of SSH sessions that are logged in now on the allow list.
    pub allow_sessions: bool,
    /// Bans a family at the most.
    pub max_bans: u32,
    /// Bans a family that new maps have room for.
    pub initial_bans: u32,
    /// Bans that are about to be put into new maps, IPv4 and IPv6: there is room for these and half as many more.
    pub expected: [u32; 2],
    /// Sampled drops a second and CPU.
    pub events_per_second: u32,
    /// Between two comparisons of the maps with the table of bans.
    pub compare_every: Duration,
    /// Load the object that reports rare events through aya-log.
    pub kernel_log: bool,
}

impl Options {
    /// New maps shall hold these at once.
    pub fn make_room_for(&mut self, prefixes: impl Iterator<Item = IpNet>) {
        self.expected = [0; 2];
        for prefix in prefixes {
            let count = &mut self.expected[usize::from(prefix.addr().is_ipv6())];
            *count = count.saturating_add(1);
        }
    }

    /// Sizes of new maps.
    fn sizes(&self) -> Sizes {
        let [v4, v6] = self.expected.map(|bans| {
            // Half as many more, or they would have to grow at once.
            let roomy = bans.saturating_mul(3) / 2;
            self.initial_bans.max(roomy).min(self.max_bans).max(bans)
        });
        Sizes::for_bans(v4, v6)
    }
}

/// A ban of an earlier daemon, found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// What is banned.
    pub prefix: IpNet,
    /// By whom.
    pub jail: JailName,
    /// Which packets are dropped.
    pub scope: Scope,
    /// Until when; it may be over already.
    pub until: Until,
}

/// What enforcement is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it only counts what it would drop.
    pub observe: bool,
    /// Where the maps in use are pinned.
    pub maps: PathBuf,
    /// Every interface that is or should be protected.
    pub interfaces: Vec<InterfaceStatus>,
    /// What became of packets; `None` where it cannot be read.
    pub counters: Option<Counters>,
    /// Bans and room for them.
    pub load: Load,
    /// The allow list.
    pub allowed: Vec<IpNet>,
    /// Bans refused because the maps were full, since the start.
    pub refused: u64,
}

/// Holds program, maps and links; what it made stays in the kernel when it is dropped.
#[derive(Debug)]
pub struct Enforcer {
    options: Options,
    set: Set,
    growth: Growth,
    attachments: Attachments,
    network: Network,
    sessions: Vec<IpAddr>,
    allow: AllowList,
    upkeep: Upkeep,
    notices: Vec<Notice>,
    refused: u64,
    // Last: its lock is given back when nothing here works on pins any more.
    pins: PinDir,
}

impl Enforcer {
    /// Bans a prefix for a jail, or changes what the jail's ban drops and when it ends. The kernel has it on return.
    ///
    /// # Errors
    ///
    /// [`EnforceError::Full`] beyond `max_bans`; [`EnforceError::Table`] where the kernel refuses.
    pub fn ban(
        &mut self,
        prefix: IpNet,
        jail: &JailName,
        scope: &Scope,
        until: Until,
    ) -> Result<(), EnforceError> {
        let hold =
            Hold { jail: jail.as_str().to_owned(), scope: scope.clone(), until: seconds(until) };
        if !self.has_room(prefix) {
            return Err(self.refuse(prefix));
        }
        match self.set.tables.ban(prefix, &hold) {
            Ok(_) => {}
            Err(TableError::Full { .. }) => {
                // Bans came faster than the maps grew: this one waits until they have.
                self.grow_now();
                match self.set.tables.ban(prefix, &hold) {
                    Ok(_) => {}
                    Err(TableError::Full { .. }) => return Err(self.refuse(prefix)),
                    Err(source) => {
                        return Err(EnforceError::Table { doing: "write the ban", source });
                    }
                }
            }
            Err(source) => return Err(EnforceError::Table { doing: "write the ban", source }),
        }
        if let Err(fault) = self.growth.ban(prefix, &hold, &self.set.tables) {
            self.notices.push(Notice::CannotGrow { why: attachments::chain(&fault) });
        }
        self.upkeep.written();
        self.consider_growth();
        Ok(())
    }

    /// Lifts a jail's ban of a prefix; one that is not there is lifted already.
    ///
    /// # Errors
    ///
    /// [`EnforceError::Table`] where the kernel refuses; the ban then still ends at its time.
    pub fn unban(&mut self, prefix: IpNet, jail: &JailName) -> Result<(), EnforceError> {
        if let Err(fault) = self.growth.unban(prefix, jail.as_str()) {
            self.notices.push(Notice::CannotGrow { why: attachments::chain(&fault) });
        }
        let lifted = self.set.tables.unban(prefix, jail.as_str());
        self.upkeep.written();
        lifted.map(drop).map_err(|source| EnforceError::Table { doing: "lift the ban", source })
    }

    /// The allow entry that a ban of this prefix would reach, and why it is on the list: one that covers the prefix,
    /// which is then not dropped, else the first within it.
    pub fn spares(&self, prefix: IpNet) -> Option<(IpNet, Why)> {
        self.allow.touching(prefix)
    }

    /// The allow entry that covers a prefix, and why it is there.
    pub fn allowance(&self, prefix: IpNet) -> Option<(IpNet, Why)> {
        self.allow.covering(prefix)
    }

    /// These are never dropped either, in the place of those told before.
    pub fn also_allow(&mut self, also: Vec<(IpNet, Why)>) {
        self.options.also_allow = also;
        self.renew_allow_list();
    }

    /// What the ban of a prefix has dropped; `None`: it is not banned.
    pub fn traffic(&self, prefix: IpNet) -> Option<Dropped> {
        self.set.tables.traffic(prefix)
    }

    /// The same with what came since the last look, whose packets count as of `now`.
    pub fn traffic_at(&self, prefix: IpNet, now: Timestamp) -> Option<Dropped> {
        self.set.tables.harvest_of(prefix, seconds(Until::At(now)));
        self.traffic(prefix)
    }

    /// Sampled drops that were not told: over the budget, or the buffer was full.
    pub fn suppressed_samples(&self) -> Option<u64> {
        self.set.tables.maps().suppressed_events().ok()
    }

    /// Each map's name, how many entries are in it where that is known, and for how many it has room.
    pub fn map_fills(&self) -> Vec<(&'static str, Option<u32>, u32)> {
        self.set.tables.fills()
    }

    /// Whether a jail's bans are only counted.
    pub fn observes(&self, jail: &str) -> bool {
        self.options.observe || self.options.observing.iter().any(|known| known == jail)
    }

    /// What enforcement is doing.
    pub fn status(&self) -> Status {
        Status {
            observe: self.options.observe,
            maps: self.set.folder.clone(),
            interfaces: self.interfaces(),
            counters: self.set.tables.counters().ok(),
            load: self.set.tables.load(),
            allowed: self.allow.entries().map(|(entry, _)| entry).collect(),
            refused: self.refused,
        }
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        let mut interfaces = self.attachments.status();
        for interface in interfaces.iter_mut().filter(|interface| interface.index != 0) {
            if let Ok((dropped, would_drop)) = self.set.tables.dropped_on(interface.index) {
                (interface.dropped, interface.would_drop) = (Some(dropped), Some(would_drop));
            }
        }
        interfaces
    }

    /// Takes over what can change while it runs: interfaces, allow list, observing, events and `max_bans`.
    ///
    /// Mode, pins and the object hold from the next start. Interfaces that are no longer named stay protected until
    /// then.
    pub fn reconfigure(&mut self, options: &Options) -> Vec<Notice> {
        let kept = self.options.clone();
        self.options = Options {
            mode: kept.mode,
            pin_dir: kept.pin_dir,
            kernel_log: kept.kernel_log,
            allow_sessions: kept.allow_sessions,
            also_allow: kept.also_allow,
            ..options.clone()
        };
        for set in [Some(&mut self.set), self.growth.filling()].into_iter().flatten() {
            set.tables.set_observe(options.observe);
            if let Err(fault) = set.set_observing(&options.observing) {
                self.notices.push(Notice::MapFault { what: attachments::chain(&fault) });
            }
            set.tables.set_events_per_second(options.events_per_second);
        }
        self.upkeep.compare_within(options.compare_every);
        self.attachments.want(options.interfaces.clone());
        self.link_changed(LinkChange::Network(Box::new(self.network.clone())))
    }

    /// Removes program, maps and links: nothing is enforced any longer.
    ///
    /// # Errors
    ///
    /// [`EnforceError::Pin`] names what could not be removed.
    pub fn detach(self) -> Result<Detached, EnforceError> {
        let Enforcer { pins, growth, .. } = self;
        drop(growth);
        pins.remove_all().map(Detached::of)
    }

    /// Whether one more ban of this family, or this very one again, is within `max_bans`.
    fn has_room(&self, prefix: IpNet) -> bool {
        let load = self.set.tables.load();
        let bans = if prefix.addr().is_ipv4() { load.v4.bans } else { load.v6.bans };
        bans < self.options.max_bans || !self.set.tables.holds(prefix).is_empty()
    }

    fn refuse(&mut self, prefix: IpNet) -> EnforceError {
        let load = self.set.tables.load();
        let bans = if prefix.addr().is_ipv4() { load.v4.bans } else { load.v6.bans };
        self.refused += 1;
        self.upkeep.refused(bans);
        EnforceError::Full { prefix, bans }
    }

    /// What a new set has to be like.
    fn blueprint(&self, now: Timestamp, at: Instant) -> Blueprint {
        Blueprint {
            object: start::object(&self.options),
            observe: self.options.observe,
            observing: self.options.observing.clone(),
            events_per_second: self.options.events_per_second,
            allow: self.allow.clone(),
            now: (now, at),
        }
    }
}

/// What was removed by [`detach`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Interfaces that were protected.
    pub interfaces: Vec<String>,
    /// Whether there was anything at all.
    pub anything: bool,
}

impl Detached {
    fn of(removed: pins::Removed) -> Detached {
        Detached {
            anything: removed.maps || !removed.interfaces.is_empty(),
            interfaces: removed.interfaces,
        }
    }
}

impl fmt::Display for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.anything, self.interfaces.as_slice()) {
            (false, _) => f.write_str("nothing was enforced"),
            (true, []) => f.write_str("maps removed; no interface was protected"),
            (true, interfaces) => write!(
                f,
                "no longer enforced on {}; program and maps removed",
                interfaces.join(", ")
            ),
        }
    }
}

/// Removes everything that a daemon pinned in `pin_dir`; needs neither daemon nor configuration.
///
/// # Errors
///
/// [`EnforceError::AnotherDaemon`] while a daemon runs: it would put back what is taken from under it.
pub fn detach(pin_dir: &Path) -> Result<Detached, EnforceError> {
    if !pin_dir.exists() {
        return Ok(Detached { interfaces: Vec::new(), anything: false });
    }
    PinDir::open(pin_dir)?.remove_all().map(Detached::of)
}

/// Whether an earlier daemon has left maps in `pin_dir`.
pub fn has_maps(pin_dir: &Path) -> bool {
    pins::current(pin_dir).is_some()
}

/// This machine's own addresses; needs no privilege.
///
/// # Errors
///
/// [`EnforceError::Netlink`].
pub fn own_addresses() -> Result<Vec<IpAddr>, EnforceError> {
    interfaces::addresses()
}

/// An end as the maps hold it: Unix seconds, rounded up so that no ban ends early; 0 means an empty slot there.
fn seconds(until: Until) -> u32 {
    match until {
        Until::Forever => u32::MAX,
        Until::At(time) => {
            let whole = time.micros().div_euclid(1_000_000)
                + i64::from(time.micros().rem_euclid(1_000_000) > 0);
            u32::try_from(whole.clamp(1, i64::from(u32::MAX - 1))).expect("clamped")
        }
    }
}

/// The end that [`seconds`] made this number from.
fn until(seconds: u32) -> Until {
    match seconds {
        u32::MAX => Until::Forever,
        seconds => Until::At(Timestamp::from_seconds(seconds.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_never_rounded_to_an_earlier_one() {
        let at = |micros| seconds(Until::At(Timestamp::from_micros(micros)));
        assert_eq!(at(100_000_000), 100);
        assert_eq!(at(100_000_001), 101);
        assert_eq!(at(i64::MAX), u32::MAX - 1);
        assert_eq!(at(i64::MIN), 1);
        assert_eq!(seconds(Until::Forever), u32::MAX);
        for end in [Until::Forever, Until::At(Timestamp::from_seconds(1_795_270_000))] {
            assert_eq!(until(seconds(end)), end);
        }
    }
}
