//! Numbers for jails and scopes, and what the maps are told of them.
//!
//! A number keeps its meaning while a ban uses it. A scope is a bit in every word of `SCOPES`; jails
//! and scopes stand with their texts in `NAMES`, from which the next daemon reads them.
use std::{
    collections::{HashMap, HashSet},
    iter,
    ops::Range,
    sync::atomic::Ordering::SeqCst,
};

use fail2xdp_common::{
    capacity,
    name::{JAIL, NameKey, NamePiece, PIECE, SCOPE},
    scope_id, scope_row,
    value::Slot,
};

use super::{TableError, maps::Maps, observe};
use crate::config::{Scope, Traffic};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Something with a number.
#[derive(Clone, Debug)]
struct Numbered<T> {
    what: T,
    /// Bans that use it.
    uses: u64,
}

/// A scope and whether packets may still be judged by it.
#[derive(Clone, Debug)]
struct KnownScope {
    scope: Scope,
    /// When it was last let go, in grace periods; see [`Names::forget_before`].
    let_go: u64,
}

/// Which numbers mean what.
#[derive(Debug, Default)]
pub struct Names {
    jails: Vec<Option<Numbered<String>>>,
    jail_numbers: HashMap<String, u16>,
    scopes: Vec<Option<Numbered<KnownScope>>>,
    scope_numbers: HashMap<Scope, u8>,
    /// Jails that only observe, as far as slots are united.
    observed: HashSet<u16>,
    /// Grace periods that have passed, and that have been asked for.
    passed: u64,
    asked: u64,
}

/// The number of a scope, and what it enforces instead where no number was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeNumber {
    /// The number.
    pub id: u8,
    /// The wider scope it stands for.
    pub widened: Option<Scope>,
}

fn all_of(protocols: &[u8]) -> Scope {
    Scope::only(protocols.iter().map(|&protocol| Traffic { protocol, ports: Vec::new() }))
}

fn reserved() -> [Scope; scope_id::FIRST_FREE as usize] {
    [Scope::EveryPacket, all_of(&[TCP]), all_of(&[UDP]), all_of(&[ICMP, ICMPV6])]
}

impl Names {
    /// Jails and scopes of new maps: the reserved scopes alone. Tells the maps.
    ///
    /// # Errors
    /// [`TableError::Call`] or [`TableError::Full`].
    pub fn fresh(maps: &Maps) -> Result<Names, TableError> {
        let names = Names::reserved();
        for (id, scope) in reserved().iter().enumerate() {
            write_text(maps, SCOPE, id as u16, &scope.to_string())?;
        }
        names.mend_rows(maps);
        Ok(names)
    }

    fn reserved() -> Names {
        let mut names = Names { passed: 1, ..Names::default() };
        names.scopes.resize_with(scope_id::COUNT.into(), || None);
        for (id, scope) in reserved().into_iter().enumerate() {
            names.set_scope(id as u8, scope);
        }
        names
    }

    /// Jails and scopes as the maps tell them. A scope whose text is damaged is read from its bits.
    ///
    /// # Errors
    /// [`TableError::Call`].
    pub fn adopt(maps: &Maps) -> Result<Names, TableError> {
        let mut names = Names::reserved();
        for key in maps.names.keys()?.into_iter().filter(|key| key.piece == 0) {
            let Some(text) = read_text(maps, key.kind, key.id)? else { continue };
            match key.kind {
                JAIL => names.set_jail(key.id, text),
                SCOPE
                    if (scope_id::FIRST_FREE.into()..scope_id::COUNT.into()).contains(&key.id) =>
                {
                    if let Ok(scope) = text.parse() {
                        names.set_scope(key.id as u8, scope);
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// Makes sure that the numbers of an adopted slot have a meaning.
    pub fn adopt_slot(&mut self, maps: &Maps, slot: &Slot) {
        if self.jail_of(slot.jail).is_none() {
            self.set_jail(slot.jail, format!("jail-{}", slot.jail));
        }
        let id = slot.scope % scope_id::COUNT;
        if self.scopes[usize::from(id)].is_none() {
            self.set_scope(id, scope_of_rows(maps, id));
        }
    }

    fn set_jail(&mut self, id: u16, name: String) {
        if self.jails.len() <= usize::from(id) {
            self.jails.resize_with(usize::from(id) + 1, || None);
        }
        self.jail_numbers.insert(name.clone(), id);
        self.jails[usize::from(id)] = Some(Numbered { what: name, uses: 0 });
    }

    fn set_scope(&mut self, id: u8, scope: Scope) {
        self.scope_numbers.retain(|_, number| *number != id);
        self.scope_numbers.insert(scope.clone(), id);
        self.scopes[usize::from(id)] =
            Some(Numbered { what: KnownScope { scope, let_go: 0 }, uses: 0 });
    }

    /// The jail with this number.
    pub fn jail_of(&self, id: u16) -> Option<&str> {
        self.jails.get(usize::from(id))?.as_ref().map(|known| known.what.as_str())
    }

    /// The number of a jail that has one.
    pub fn number_of(&self, jail: &str) -> Option<u16> {
        self.jail_numbers.get(jail).copied()
    }

    /// The scope with this number.
    pub fn scope_of(&self, id: u8) -> Option<&Scope> {
        self.scopes.get(usize::from(id))?.as_ref().map(|known| &known.what.scope)
    }

    /// The number of a jail, from 1; given now if it has none.
    ///
    /// # Errors
    /// [`TableError::TooManyJails`], [`TableError::Full`] or [`TableError::Call`].
    pub fn jail(&mut self, maps: &Maps, jail: &str) -> Result<u16, TableError> {
        if let Some(id) = self.number_of(jail) {
            return Ok(id);
        }
        let never_used = u16::try_from(self.jails.len().max(1)).ok();
        let id = match never_used {
            Some(id) => id,
            None => {
                let unused = |(id, known): &(usize, &Option<Numbered<String>>)| {
                    let observed = self.observed.contains(&(*id as u16));
                    !observed && known.as_ref().is_none_or(|known| known.uses == 0)
                };
                let (id, _) = (self.jails.iter().enumerate().skip(1).find(unused))
                    .ok_or_else(|| TableError::TooManyJails { jail: jail.to_owned() })?;
                if let Some(gone) = self.jails[id].take() {
                    self.jail_numbers.remove(&gone.what);
                }
                id as u16
            }
        };
        write_text(maps, JAIL, id, jail)?;
        self.set_jail(id, jail.to_owned());
        Ok(id)
    }

    /// The number of a scope, given now if it has none. Where no bit is left, that of every port of its
    /// protocol, or of every packet where it names several.
    ///
    /// # Errors
    /// [`TableError::Full`] or [`TableError::Call`].
    pub fn scope(&mut self, maps: &Maps, scope: &Scope) -> Result<ScopeNumber, TableError> {
        if let Some(id) = self.scope_numbers.get(scope) {
            return Ok(ScopeNumber { id: *id, widened: None });
        }
        let free = |known: &Option<Numbered<KnownScope>>| match known {
            None => true,
            // A packet judged when the last ban with this scope went may still look its bit up.
            Some(known) => known.uses == 0 && known.what.let_go < self.passed,
        };
        let first_free = usize::from(scope_id::FIRST_FREE);
        // A bit without a past first, so that names of the past stay readable for longer.
        let unnamed = self.scopes.iter().skip(first_free).position(Option::is_none);
        let Some(id) = unnamed.or_else(|| self.scopes.iter().skip(first_free).position(free))
        else {
            let id = widened(scope);
            return Ok(ScopeNumber { id, widened: reserved().get(usize::from(id)).cloned() });
        };
        let id = (id + first_free) as u8;
        // The bit first, then its name: a name promises that the bit is whole.
        remove_text(maps, SCOPE, id.into())?;
        write_bit(maps, id, scope);
        write_text(maps, SCOPE, id.into(), &scope.to_string())?;
        self.set_scope(id, scope.clone());
        Ok(ScopeNumber { id, widened: None })
    }

    /// Whether a jail only observes.
    pub fn observes(&self, jail: u16) -> bool {
        self.observed.contains(&jail)
    }

    /// The jails that only observe.
    pub fn observed(&self) -> &HashSet<u16> {
        &self.observed
    }

    /// From now on these jails only observe.
    pub fn set_observed(&mut self, jails: HashSet<u16>) {
        self.observed = jails;
    }

    /// One slot for several, of which there is at least one: for those that drop, if any does; else for all. The
    /// first of them stands for the others, of those that only observe the first whose bit is set by now.
    ///
    /// # Errors
    /// [`TableError::Full`] or [`TableError::Call`].
    pub fn unite(&mut self, maps: &Maps, slots: &[Slot]) -> Result<Slot, TableError> {
        let dropping: Vec<Slot> =
            slots.iter().filter(|slot| !self.observes(slot.jail)).copied().collect();
        let kept = if dropping.is_empty() { slots } else { &dropping };
        let is_set = |slot: &&Slot| !dropping.is_empty() || observe::is_set(maps, slot.jail);
        let mut united = kept.iter().find(is_set).copied().unwrap_or(kept[0]);
        united.until = kept.iter().map(|slot| slot.until).max().unwrap_or(united.until);
        if kept.iter().any(|slot| slot.scope != united.scope) {
            let known = |slot: &Slot| self.scope_of(slot.scope).cloned();
            let scopes = kept.iter().map(|slot| known(slot).unwrap_or(Scope::EveryPacket));
            let scope = scopes.fold(Scope::NOTHING, Scope::union);
            united.scope = self.scope(maps, &scope)?.id;
        }
        Ok(united)
    }

    /// A ban uses these numbers.
    pub fn hold(&mut self, slots: &[Slot]) {
        for slot in slots {
            if let Some(Some(jail)) = self.jails.get_mut(usize::from(slot.jail)) {
                jail.uses += 1;
            }
            if let Some(Some(scope)) = self.scopes.get_mut(usize::from(slot.scope)) {
                scope.uses += 1;
            }
        }
    }

    /// A ban no longer uses these numbers.
    pub fn let_go(&mut self, slots: &[Slot]) {
        for slot in slots {
            if let Some(Some(jail)) = self.jails.get_mut(usize::from(slot.jail)) {
                jail.uses = jail.uses.saturating_sub(1);
            }
            if let Some(Some(scope)) = self.scopes.get_mut(usize::from(slot.scope)) {
                scope.uses = scope.uses.saturating_sub(1);
                scope.what.let_go = self.asked + 1;
            }
        }
    }

    /// A grace period begins: what is let go from now on waits for the next one.
    pub fn grace_begins(&mut self) {
        self.asked += 1;
    }

    /// The grace period that began last has passed.
    pub fn grace_passed(&mut self) {
        self.passed = self.asked + 1;
    }

    /// Brings every row of `SCOPES` to what it is to be; how many were not.
    pub fn mend_rows(&self, maps: &Maps) -> u64 {
        let mut wanted = vec![0u64; maps.scopes.entries() as usize];
        for (id, known) in self.scopes.iter().enumerate() {
            for rows in known.iter().flat_map(|known| rows_of(&known.what.scope)) {
                wanted[rows].iter_mut().for_each(|word| *word |= 1 << id);
            }
        }
        let mut changed = 0;
        for (row, wanted) in wanted.into_iter().enumerate() {
            let word = maps.scopes.word64(row * 8);
            if word.load(SeqCst) != wanted {
                maps.store64(word, wanted);
                changed += 1;
            }
        }
        changed
    }
}

/// The reserved scope that contains this one with the least besides.
fn widened(scope: &Scope) -> u8 {
    let Scope::Only(traffic) = scope else { return scope_id::EVERY_PACKET };
    let within = |protocols: &[u8]| traffic.iter().all(|share| protocols.contains(&share.protocol));
    match () {
        () if within(&[TCP]) => scope_id::TCP,
        () if within(&[UDP]) => scope_id::UDP,
        () if within(&[ICMP, ICMPV6]) => scope_id::ICMP,
        () => scope_id::EVERY_PACKET,
    }
}

/// The rows of `SCOPES` whose packets are in a scope. A protocol's row stands for packets that show no
/// port: they are in every scope of the protocol.
fn rows_of(scope: &Scope) -> Vec<Range<usize>> {
    let Scope::Only(traffic) = scope else { return iter::once(0..capacity::SCOPES).collect() };
    let mut rows = Vec::new();
    for share in traffic {
        let protocol = scope_row::PROTOCOL as usize + usize::from(share.protocol);
        rows.push(protocol..protocol + 1);
        let first = match share.protocol {
            TCP => 0,
            UDP => scope_row::UDP as usize,
            _ => continue,
        };
        let all = [(0, u16::MAX)];
        let ports = if share.ports.is_empty() { &all[..] } else { &share.ports[..] };
        rows.extend(
            ports.iter().map(|&(from, to)| first + usize::from(from)..first + usize::from(to) + 1),
        );
    }
    rows
}

/// Makes a bit that no ban uses stand for a scope. One step for a test that cuts the writer off: until
/// the scope has a name nothing depends on it.
fn write_bit(maps: &Maps, id: u8, scope: &Scope) {
    maps.step();
    let mask = 1u64 << (id % scope_id::COUNT);
    for row in 0..capacity::SCOPES {
        maps.scopes.word64(row * 8).fetch_and(!mask, SeqCst);
    }
    for row in rows_of(scope).into_iter().flatten() {
        maps.scopes.word64(row * 8).fetch_or(mask, SeqCst);
    }
}

/// What a scope's bits say it is.
fn scope_of_rows(maps: &Maps, id: u8) -> Scope {
    let has = |row: u32| maps.scopes.word64(row as usize * 8).load(SeqCst) >> id & 1 != 0;
    let ports = |first: u32| {
        (0..=u16::MAX)
            .filter(|port| has(first + u32::from(*port)))
            .map(|port| (port, port))
            .collect()
    };
    Scope::only(
        (0..=u8::MAX).filter(|protocol| has(scope_row::PROTOCOL + u32::from(*protocol))).map(
            |protocol| Traffic {
                protocol,
                ports: match protocol {
                    TCP => ports(0),
                    UDP => ports(scope_row::UDP),
                    _ => Vec::new(),
                },
            },
        ),
    )
}

/// The last piece first: who finds the first finds all.
fn write_text(maps: &Maps, kind: u16, id: u16, text: &str) -> Result<(), TableError> {
    let pieces: Vec<&[u8]> =
        if text.is_empty() { vec![&[]] } else { text.as_bytes().chunks(PIECE).collect() };
    for (nth, bytes) in pieces.into_iter().enumerate().rev() {
        let mut piece = NamePiece { length: text.len() as u32, text: [0; PIECE] };
        piece.text[..bytes.len()].copy_from_slice(bytes);
        maps.put(&maps.names, &NameKey { kind, id, piece: nth as u32 }, &piece)?;
    }
    Ok(())
}

fn read_text(maps: &Maps, kind: u16, id: u16) -> Result<Option<String>, TableError> {
    let (mut bytes, mut nth) = (Vec::new(), 0);
    loop {
        let Some(piece) = maps.names.get(&NameKey { kind, id, piece: nth })? else {
            return Ok(None);
        };
        bytes.extend(piece.text);
        nth += 1;
        if bytes.len() >= piece.length as usize {
            bytes.truncate(piece.length as usize);
            return Ok(String::from_utf8(bytes).ok());
        }
    }
}

/// The first piece first, for the same reason.
fn remove_text(maps: &Maps, kind: u16, id: u16) -> Result<(), TableError> {
    let mut nth = 0;
    while maps.remove(&maps.names, &NameKey { kind, id, piece: nth })? {
        nth += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scope: &str, row: u32, expected: bool) {
        let rows = rows_of(&scope.parse().expect(scope));
        assert_eq!(
            rows.iter().any(|rows| rows.contains(&(row as usize))),
            expected,
            "{scope}, row {row}"
        );
    }

    #[test]
    fn a_row_is_in_the_scopes_that_name_it() {
        let (udp, protocol) = (scope_row::UDP, scope_row::PROTOCOL);
        check("all", 22, true);
        check("all", protocol + 47, true);
        check("tcp:22", 22, true);
        check("tcp:22", 23, false);
        check("tcp:22", udp + 22, false);
        check("tcp:22", protocol + 6, true);
        check("tcp:22", protocol + 17, false);
        check("udp:50-60", udp + 60, true);
        check("udp:50-60", udp + 61, false);
        check("tcp", 65_535, true);
        check("icmp+icmpv6", protocol + 58, true);
        check("proto-47", protocol + 47, true);
        check("proto-47", 47, false);
    }

    #[test]
    fn a_scope_without_a_bit_becomes_every_port_of_its_protocol() {
        for (scope, id) in [
            ("tcp:22", scope_id::TCP),
            ("udp:53", scope_id::UDP),
            ("icmp", scope_id::ICMP),
            ("tcp:22+udp:53", scope_id::EVERY_PACKET),
            ("proto-47", scope_id::EVERY_PACKET),
        ] {
            assert_eq!(widened(&scope.parse().expect(scope)), id, "{scope}");
        }
    }
}
