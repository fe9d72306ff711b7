//! Reads the bans out of maps that cannot be adopted whole: those of another layout, or with a map that is damaged.
//!
//! The tries hold every ban, so they and the names are enough; what stands in front of them may be anything.
use std::{collections::HashMap, path::Path};

use aya::{
    Pod,
    maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use fail2xdp_common::{
    map,
    name::{JAIL, NameKey, NamePiece, PIECE, SCOPE},
    value::{BAN_HAS_MORE, Ban, INHERITED, MoreSlots, Slot},
};
use ipnet::IpNet;

use super::{
    btf,
    tables::{Dropped, Hold, Maps, Tables},
};
use crate::config::Scope;

/// A ban that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Salvaged {
    /// What is banned.
    pub prefix: IpNet,
    /// By whom, for which packets, until when.
    pub holds: Vec<Hold>,
    /// What it has dropped, where that can be told.
    pub dropped: Dropped,
}

/// Every ban in `folder` that can be read without doubt.
pub(super) fn bans(object: &[u8], folder: &Path) -> Vec<Salvaged> {
    // Sizes alone would not do: the same bytes may mean something else in another version.
    let needed = [map::BANS_V4, map::BANS_V6, map::MORE_SLOTS, map::NAMES];
    if !matches!(btf::difference(object, folder, &needed), Ok(None)) {
        return Vec::new();
    }
    match Maps::open(folder).and_then(Tables::adopt) {
        Ok((tables, _)) => {
            let found = tables.bans().map(|(prefix, holds)| Salvaged {
                prefix,
                holds,
                dropped: tables.traffic(prefix).unwrap_or_default(),
            });
            found.collect()
        }
        Err(_) => read(folder).unwrap_or_default(),
    }
}

fn read(folder: &Path) -> Result<Vec<Salvaged>, MapError> {
    let open = |name: &str| MapData::from_pin(folder.join(name));
    let names = Names::read(&Map::HashMap(open(map::NAMES)?))?;
    let more = Map::HashMap(open(map::MORE_SLOTS)?);
    let more: aya::maps::HashMap<_, u32, MoreSlots> = (&more).try_into()?;
    let mut found = Vec::new();
    let mut keep = |prefix: Option<IpNet>, ban: Ban| {
        let first = Slot { until: ban.until, jail: ban.jail, scope: ban.scope, mark: 0 };
        let further = if ban.flags & BAN_HAS_MORE == 0 { None } else { more.get(&ban.id, 0).ok() };
        let slots = [first].into_iter().chain(further.into_iter().flat_map(|more| more.slots));
        let holds = slots
            .filter(|slot| slot.until != 0 && slot.mark & INHERITED == 0)
            .map(|slot| names.hold(slot))
            .collect();
        found.extend(prefix.map(|prefix| Salvaged { prefix, holds, dropped: Dropped::default() }));
    };
    each::<[u8; 4]>(open(map::BANS_V4)?, |key, ban| keep(net(key.prefix_len(), key.data()), ban))?;
    each::<[u8; 16]>(open(map::BANS_V6)?, |key, ban| keep(net(key.prefix_len(), key.data()), ban))?;
    Ok(found)
}

fn each<K: Pod>(trie: MapData, mut keep: impl FnMut(Key<K>, Ban)) -> Result<(), MapError> {
    let trie = Map::LpmTrie(trie);
    let trie: LpmTrie<_, K, Ban> = (&trie).try_into()?;
    for entry in trie.iter() {
        let (key, ban) = entry?;
        keep(key, ban);
    }
    Ok(())
}

fn net<K: Into<std::net::IpAddr>>(length: u32, address: K) -> Option<IpNet> {
    IpNet::new(address.into(), u8::try_from(length).ok()?).ok()
}

/// Texts by kind and number.
struct Names(HashMap<(u16, u16), String>);

impl Names {
    fn read(map: &Map) -> Result<Names, MapError> {
        let pieces: aya::maps::HashMap<_, NameKey, NamePiece> = map.try_into()?;
        let mut texts: HashMap<(u16, u16), Vec<u8>> = HashMap::new();
        for entry in pieces.iter() {
            let (key, piece) = entry?;
            let text = texts.entry((key.kind, key.id)).or_default();
            // The longest name has as many pieces as a map of names has entries; a damaged length is cut to that.
            let length = (piece.length as usize).min(PIECE * 1024);
            text.resize(length, 0);
            let at = (key.piece as usize).saturating_mul(PIECE).min(length);
            let fits = (length - at).min(PIECE);
            text[at..at + fits].copy_from_slice(&piece.text[..fits]);
        }
        let texts =
            texts.into_iter().map(|(key, text)| (key, String::from_utf8_lossy(&text).into_owned()));
        Ok(Names(texts.collect()))
    }

    /// A ban of a jail whose name is lost goes on under its number; one whose scope is lost drops every packet.
    fn hold(&self, slot: Slot) -> Hold {
        let jail = self.0.get(&(JAIL, slot.jail)).cloned();
        let scope = self.0.get(&(SCOPE, slot.scope.into())).and_then(|text| text.parse().ok());
        Hold {
            jail: jail.unwrap_or_else(|| format!("jail-{}", slot.jail)),
            scope: scope.unwrap_or(Scope::EveryPacket),
            until: slot.until,
        }
    }
}
