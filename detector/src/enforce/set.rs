//! One set: an object in the kernel, its maps pinned in one folder, and the table that writes them.
use std::{path::PathBuf, time::Instant};

use fail2xdp_common::map;

use super::{
    attachments::chain,
    btf,
    clock::Renewal,
    fault::EnforceError,
    load::{self, Loaded},
    pins::PinDir,
    protect::AllowList,
    tables::{Differences, Maps, Sizes, Tables},
};
use crate::engine::Timestamp;

/// What a set is made from.
#[derive(Clone, Debug)]
pub(super) struct Blueprint {
    /// The object.
    pub object: &'static [u8],
    /// Count what would be dropped, drop nothing.
    pub observe: bool,
    /// The jails that count what they would drop, and drop nothing.
    pub observing: Vec<String>,
    /// Sampled drops a second and CPU.
    pub events_per_second: u32,
    /// Who is never dropped.
    pub allow: AllowList,
    /// The wall clock, and when it was read.
    pub now: (Timestamp, Instant),
}

impl Blueprint {
    /// The wall clock at this moment.
    fn wall(&self) -> Timestamp {
        self.now.0.plus(self.now.1.elapsed())
    }
}

/// Maps, programs and table that belong together.
#[derive(Debug)]
pub(super) struct Set {
    /// Its number.
    pub number: u32,
    /// Where its maps are pinned.
    pub folder: PathBuf,
    /// The writer of its maps.
    pub tables: Tables,
    /// Its programs, its clock, its samples.
    pub object: Loaded,
    renewal: Renewal,
}

impl Set {
    /// Makes new maps of these sizes in `folder`, ready for bans and for packets, though attached to nothing.
    ///
    /// Takes 20 to 100 ms; `before` is the folder of the set that it shall follow.
    pub fn make(
        plan: &Blueprint,
        number: u32,
        folder: PathBuf,
        sizes: Sizes,
        before: Option<PathBuf>,
    ) -> Result<Set, EnforceError> {
        let (maps, object) = load::load(plan.object, &folder, sizes, before.as_deref())?;
        let tables = Tables::fresh(maps)
            .map_err(|source| EnforceError::Table { doing: "prepare the maps", source })?;
        Set::prepared(number, folder, tables, object, plan)
    }

    /// Takes over the maps pinned in `folder`, after comparing each one's shape, types and layout.
    ///
    /// # Errors
    ///
    /// `Ok(Err(why))` for maps that are not of this version; they have to be replaced.
    pub fn adopt(
        plan: &Blueprint,
        number: u32,
        folder: PathBuf,
    ) -> Result<Result<(Set, Differences), String>, EnforceError> {
        let sizes = match Maps::open(&folder) {
            Ok(maps) => maps.sizes(),
            Err(differs) => return Ok(Err(chain(&differs))),
        };
        if let Some(differs) = btf::difference(plan.object, &folder, &map::ALL)? {
            return Ok(Err(differs));
        }
        let (maps, object) = load::load(plan.object, &folder, sizes, None)?;
        let (tables, mended) = match Tables::adopt(maps) {
            Ok(adopted) => adopted,
            Err(differs) => return Ok(Err(chain(&differs))),
        };
        let set = Set::prepared(number, folder, tables, object, plan)?;
        Ok(Ok((set, mended)))
    }

    fn prepared(
        number: u32,
        folder: PathBuf,
        tables: Tables,
        object: Loaded,
        plan: &Blueprint,
    ) -> Result<Set, EnforceError> {
        let renewal = Renewal::done(Instant::now(), plan.wall());
        let mut set = Set { number, folder, tables, object, renewal };
        set.prepare(plan)?;
        Ok(set)
    }

    /// Clock, flags and allow list as this daemon wants them: before the first packet is judged by them.
    pub fn prepare(&mut self, plan: &Blueprint) -> Result<(), EnforceError> {
        self.set_clock(plan.wall())?;
        self.tables.set_observe(plan.observe);
        self.set_observing(&plan.observing)?;
        self.tables.set_events_per_second(plan.events_per_second);
        let stale: Vec<_> =
            self.tables.allowed().filter(|&entry| !plan.allow.contains(entry)).collect();
        plan.allow
            .entries()
            .try_for_each(|(entry, _)| self.tables.allow(entry))
            .map_err(allow_fault)?;
        stale.into_iter().try_for_each(|entry| self.tables.disallow(entry)).map_err(allow_fault)
    }

    /// From now on these jails only observe.
    pub fn set_observing(&mut self, jails: &[String]) -> Result<(), EnforceError> {
        self.tables
            .set_observing(jails.iter().map(String::as_str))
            .map_err(|source| EnforceError::Table { doing: "say which jails observe", source })
    }

    /// Makes the kernel's clock show `now`.
    pub fn set_clock(&mut self, now: Timestamp) -> Result<(), EnforceError> {
        let at = Instant::now();
        let sample = self.object.sampler.sample()?;
        let ticks = self.object.ticks;
        self.tables.set_clock(ticks.scale(), ticks.offset(sample.ticks, now));
        self.renewal = Renewal::done(at, now);
        Ok(())
    }

    /// When the clock was set last, and to what.
    pub fn renewal(&self) -> Renewal {
        self.renewal
    }

    /// Changes the allow list from `old` to `new`; what is new comes first.
    pub fn change_allow(&mut self, old: &AllowList, new: &AllowList) -> Result<(), EnforceError> {
        let (mut added, mut removed) = new.against(old);
        added.try_for_each(|entry| self.tables.allow(entry)).map_err(allow_fault)?;
        removed.try_for_each(|entry| self.tables.disallow(entry)).map_err(allow_fault)
    }

    /// Makes this the set in use, and its program the pinned one.
    pub fn install(&self, pins: &PinDir) -> Result<(), EnforceError> {
        pins.turn_to(self.number)?;
        pins.pin_program(self.object.programs.first())
    }
}

fn allow_fault(source: super::tables::TableError) -> EnforceError {
    EnforceError::Table { doing: "change the allow list", source }
}
