//! The start: what an earlier daemon left is adopted or replaced, then every interface is attached.
use std::{net::IpAddr, time::Instant};

use ipnet::IpNet;

use super::{
    Adopted, Enforcer, Options,
    attachments::{Attachments, chain},
    fault::{EnforceError, Surroundings},
    growth::Growth,
    interfaces::Network,
    notice::Notice,
    pins::PinDir,
    protect::AllowList,
    salvage, sessions,
    set::{Blueprint, Set},
    tables::{self, Hold},
    until,
    upkeep::Upkeep,
};
use crate::{config::JailName, engine::Timestamp};

/// The object that the options ask for.
pub(super) fn object(options: &Options) -> &'static [u8] {
    if options.kernel_log { tables::object::verbose() } else { tables::object::plain() }
}

impl Enforcer {
    /// Loads, adopts or replaces what is pinned, attaches, fills the allow list, sets the kernel's clock to `now`.
    ///
    /// The bans found in the kernel come back. What is worth telling comes with the first [`Enforcer::maintain`].
    ///
    /// # Errors
    ///
    /// What is lacking (kernel, capability, BPF file system, interface) with its remedy; then nothing is attached that
    /// was not before. One interface of several that cannot be protected is a [`Notice`] instead.
    pub fn start(
        options: &Options,
        now: Timestamp,
    ) -> Result<(Enforcer, Vec<Adopted>), EnforceError> {
        let at = Instant::now();
        // Before the pins: a kernel without BPF has no BPF file system, and mounting one is no cure.
        Surroundings::observe().precheck()?;
        let network = Network::observe()?;
        if let Some(name) = options.interfaces.first()
            && options.interfaces.iter().all(|name| network.by_name(name).is_none())
        {
            return Err(network.unknown(name));
        }
        let pins = PinDir::open(&options.pin_dir)?;
        let mut notices = Vec::new();
        let sessions =
            if options.allow_sessions { find_sessions(&mut notices) } else { Vec::new() };
        let allow = AllowList::of(&network, &options.allow, &options.also_allow, &sessions);
        let plan = Blueprint {
            object: object(options),
            observe: options.observe,
            observing: options.observing.clone(),
            events_per_second: options.events_per_second,
            allow: allow.clone(),
            now: (now, at),
        };
        let before = pins.current();
        let started = first_set(&pins, before, &plan, options, &mut notices);
        let attached = started.and_then(|set| {
            set.install(&pins)?;
            let mut attachments = Attachments::new(&pins, options.interfaces.clone(), options.mode);
            let mut told = attachments.adopt(&pins, &network, &set.object.programs)?;
            told.extend(attachments.follow(&network, &set.object.programs));
            while let Some(again) = attachments.again() {
                std::thread::sleep(again.saturating_duration_since(Instant::now()));
                told.extend(attachments.follow(&network, &set.object.programs));
            }
            match attachments.refusals() {
                reasons if attachments.is_empty() && !reasons.is_empty() => {
                    Err(EnforceError::NothingAttached { reasons })
                }
                _ => Ok((set, attachments, told)),
            }
        });
        let (set, attachments, told) = match attached {
            Ok(attached) => attached,
            Err(fault) => {
                // What did not exist before the attempt shall not exist after it.
                if before.is_none() {
                    let _ = pins.remove_all();
                }
                return Err(fault);
            }
        };
        notices.extend(told);
        pins.sweep(Some(set.number))?;
        let adopted = set
            .tables
            .bans()
            .flat_map(|(prefix, holds)| holds.into_iter().map(move |hold| (prefix, hold)));
        let adopted = adopted.map(|(prefix, hold)| adopted_ban(prefix, hold)).collect();
        let upkeep = Upkeep::new(Instant::now(), options.compare_every);
        let mut enforcer = Enforcer {
            options: options.clone(),
            pins,
            set,
            growth: Growth::Idle,
            attachments,
            network,
            sessions,
            allow,
            upkeep,
            notices,
            refused: 0,
        };
        enforcer.consider_growth();
        Ok((enforcer, adopted))
    }
}

/// The set of an earlier daemon where it fits, else a new one with its bans.
fn first_set(
    pins: &PinDir,
    before: Option<u32>,
    plan: &Blueprint,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<Set, EnforceError> {
    let Some(before) = before else {
        return Set::make(plan, 1, pins.make_set(1)?, options.sizes(), None);
    };
    let folder = pins.set(before);
    let why = match Set::adopt(plan, before, folder.clone())? {
        Ok((set, mended)) => {
            if !mended.is_none() {
                notices.push(Notice::Repaired { what: mended.to_string() });
            }
            let bans = set.tables.prefixes().count();
            if bans > 0 {
                notices.push(Notice::Adopted { bans });
            }
            return Ok(set);
        }
        Err(why) => why,
    };
    let old = salvage::bans(plan.object, &folder);
    let mut options = options.clone();
    options.make_room_for(old.iter().map(|ban| ban.prefix));
    let number = before + 1;
    let mut set = Set::make(plan, number, pins.make_set(number)?, options.sizes(), None)?;
    for ban in &old {
        for hold in &ban.holds {
            set.tables
                .ban(ban.prefix, hold)
                .map_err(|source| EnforceError::Table { doing: "carry a ban over", source })?;
        }
        set.tables.credit(ban.prefix, ban.dropped);
    }
    notices.push(Notice::Replaced { why, bans: old.len() });
    Ok(set)
}

fn find_sessions(notices: &mut Vec<Notice>) -> Vec<IpAddr> {
    match sessions::logged_in() {
        Ok(sessions) => {
            if !sessions.is_empty() {
                let addresses = sessions.iter().copied().map(IpNet::from).collect();
                notices.push(Notice::Sessions { addresses });
            }
            sessions
        }
        Err(error) => {
            notices.push(Notice::NoSessions { why: chain(&error) });
            Vec::new()
        }
    }
}

fn adopted_ban(prefix: IpNet, hold: Hold) -> Adopted {
    Adopted { prefix, jail: JailName::new(&hold.jail), scope: hold.scope, until: until(hold.until) }
}
