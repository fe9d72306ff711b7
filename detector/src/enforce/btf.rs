//! Compares what pinned maps say of their keys and values with what this daemon's object says.
//!
//! Two layouts can have the same sizes and mean different things; the names and places of all fields tell them apart.
use std::{collections::HashMap, io, path::Path};

use aya_obj::{Map, Object};
use fail2xdp_common::map;

use super::{fault::EnforceError, sys};

/// The first of `maps` in `folder` whose types differ from those of `object`, with both descriptions.
///
/// `None` also where the kernel does not show types to this process: then sizes and layout version must do.
pub(super) fn difference(
    object: &[u8],
    folder: &Path,
    maps: &[&str],
) -> Result<Option<String>, EnforceError> {
    let wrong = |what: String| EnforceError::Object { what };
    let object = Object::parse(object).map_err(|fault| wrong(fault.to_string()))?;
    let own = object.btf.as_ref().ok_or_else(|| wrong("it carries no BTF".to_owned()))?.to_bytes();
    let own = Types::read(&own).ok_or_else(|| wrong("its BTF is damaged".to_owned()))?;
    let mut theirs: HashMap<u32, Vec<u8>> = HashMap::new();
    for &name in maps {
        let path = folder.join(name);
        let fault = |doing| {
            move |source: io::Error| EnforceError::Pin { doing, path: folder.join(name), source }
        };
        let Some(Map::Btf(wanted)) = object.maps.get(name) else {
            return Err(wrong(format!("it has no map `{name}`")));
        };
        let pinned = sys::open_pin(&path).map_err(fault("open"))?;
        let found = sys::map_types(&pinned).map_err(fault("describe"))?;
        // A ring buffer has neither keys nor values, and aya makes it without types.
        if name == map::EVENTS {
            continue;
        }
        if found.btf == 0 {
            return Ok(Some(format!("`{name}` has no types")));
        }
        let bytes = match theirs.entry(found.btf) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => match sys::btf(found.btf) {
                Ok(bytes) => unknown.insert(bytes),
                Err(_) => return Ok(None),
            },
        };
        let Some(types) = Types::read(bytes) else {
            return Ok(Some(format!("`{name}` has types that cannot be read")));
        };
        let sides =
            [(found.key, wanted.def.btf_key_type_id), (found.value, wanted.def.btf_value_type_id)];
        for (theirs, ours) in sides {
            let (theirs, ours) = (types.describe(theirs), own.describe(ours));
            if theirs != ours {
                return Ok(Some(format!("`{name}` holds `{theirs}`, not `{ours}`")));
            }
        }
    }
    Ok(None)
}

/// A BTF section, taken apart.
struct Types<'a> {
    /// By number: where each begins; number 0 is `void`.
    starts: Vec<usize>,
    types: &'a [u8],
    strings: &'a [u8],
}

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_TYPE_TAG: u32 = 18;

impl<'a> Types<'a> {
    fn read(bytes: &'a [u8]) -> Option<Types<'a>> {
        const MAGIC: u16 = 0xeb9f;
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let header = |at| word(bytes, at).map(|number| number as usize);
        let body = bytes.get(header(4)?..)?;
        let types = body.get(header(8)?..)?.get(..header(12)?)?;
        let strings = body.get(header(16)?..)?.get(..header(20)?)?;
        let mut starts = vec![usize::MAX];
        let mut at = 0;
        while at < types.len() {
            starts.push(at);
            let info = word(types, at + 4)?;
            let members = (info & 0xffff) as usize;
            // What follows the three common words, by kind; `linux/btf.h`.
            at += 12
                + match info >> 24 & 0x1f {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 15 | 19 => members * 12,
                    6 | 13 => members * 8,
                    2 | 7..=12 | 16 | 18 => 0,
                    _ => return None,
                };
        }
        Some(Types { starts, types, strings })
    }

    /// A type with the names, places and types of all its fields.
    fn describe(&self, number: u32) -> String {
        // Deeper than any value of ours, and an end for types that contain themselves.
        self.text(number, 8).unwrap_or_else(|| "?".to_owned())
    }

    fn text(&self, number: u32, depth: u32) -> Option<String> {
        if number == 0 {
            return Some("void".to_owned());
        }
        let at = *self.starts.get(number as usize)?;
        let depth = depth.checked_sub(1)?;
        let info = word(self.types, at + 4)?;
        let (members, kind) = (info & 0xffff, info >> 24 & 0x1f);
        let (name, size_or_type) = (self.name(word(self.types, at)?)?, word(self.types, at + 8)?);
        match kind {
            KIND_PTR => Some(format!("*{}", self.text(size_or_type, depth)?)),
            KIND_ARRAY => {
                let element = self.text(word(self.types, at + 12)?, depth)?;
                Some(format!("[{element}; {}]", word(self.types, at + 20)?))
            }
            KIND_STRUCT | KIND_UNION => {
                let fields: Option<Vec<String>> = (0..members as usize)
                    .map(|nth| {
                        let member = at + 12 + nth * 12;
                        let (field, of) =
                            (self.name(word(self.types, member)?)?, word(self.types, member + 4)?);
                        let bits = word(self.types, member + 8)?;
                        Some(format!("{field}@{}: {}", bits / 8, self.text(of, depth)?))
                    })
                    .collect();
                Some(format!("{name} {{ {} }}", fields?.join(", ")))
            }
            KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                self.text(size_or_type, depth)
            }
            KIND_INT => Some(format!("{name}:{size_or_type}")),
            _ => Some(format!("{name} of kind {kind}, {size_or_type}")),
        }
    }

    fn name(&self, at: u32) -> Option<&str> {
        let rest = self.strings.get(at as usize..)?;
        std::str::from_utf8(rest.split(|&byte| byte == 0).next()?).ok()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|raw| u32::from_ne_bytes(*raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::tables::object;

    fn types(of: &str) -> (String, String) {
        let object = Object::parse(object::plain()).unwrap();
        let bytes = object.btf.as_ref().unwrap().to_bytes();
        let Some(Map::Btf(map)) = object.maps.get(of) else { panic!("no map `{of}`") };
        let types = Types::read(&bytes).unwrap();
        (types.describe(map.def.btf_key_type_id), types.describe(map.def.btf_value_type_id))
    }

    #[test]
    fn every_field_of_a_value_is_described_with_its_place() {
        let (_, ban) = types(map::BANS_V4);
        assert_eq!(
            ban,
            "Ban { until@0: u32:4, id@4: u32:4, jail@8: u16:2, scope@10: u8:1, prefix_len@11: u8:1, flags@12: u32:4 }"
        );
        let (key, line) = types(map::HOSTS_V4);
        assert_eq!(key, "u32:4");
        assert_eq!(
            line,
            "LineV4 { head@0: [u64:8; 4], meta@32: [u32:4; 4], packets@48: [u32:4; 4] }"
        );
    }

    #[test]
    fn damage_is_no_panic() {
        let object = Object::parse(object::plain()).unwrap();
        let whole = object.btf.as_ref().unwrap().to_bytes();
        for length in 0..whole.len().min(400) {
            if let Some(types) = Types::read(&whole[..length]) {
                types.describe(1);
            }
        }
        assert!(Types::read(b"").is_none());
        let types = Types::read(&whole).unwrap();
        assert_eq!(types.describe(u32::MAX), "?");
    }
}
