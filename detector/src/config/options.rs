//! The options that exist, and the one that was probably meant.
use std::collections::HashSet;

use super::layers::Layers;

/// Options of a jail that mean something, here or to fail2ban, and the customary variables.
const JAIL: &[&str] = &[
    "action",
    "backend",
    "banaction",
    "banaction_allports",
    "bantime",
    "bantime.factor",
    "bantime.formula",
    "bantime.increment",
    "bantime.maxtime",
    "bantime.multipliers",
    "bantime.overalljails",
    "bantime.rndtime",
    "chain",
    "datepattern",
    "enabled",
    "failregex",
    "filter",
    "findtime",
    "ignorecache",
    "ignorecommand",
    "ignoreip",
    "ignoreregex",
    "ignoreself",
    "ipv6_prefix",
    "journalmatch",
    "logencoding",
    "logpath",
    "logtimezone",
    "maxlines",
    "maxmatches",
    "maxretry",
    "mode",
    "port",
    "prefregex",
    "protocol",
    "silence",
    "observe",
    "skip_if_nologs",
    "systemd_if_nologs",
    "usedns",
];

/// Options of one section that are looked at for slips; nobody writes more by hand.
pub(super) const MOST_LOOKED_AT: usize = 1_000;

/// The option that was meant, where `name` looks like a slip: one that exists nowhere, is used as a variable
/// nowhere, and is close to one that exists.
pub(super) fn meant_in_jail(name: &str, used: &HashSet<String>) -> Option<&'static str> {
    // `action_mw`, `banaction_allports`: a variant of an option is a variable by custom.
    let is_variant =
        JAIL.iter().any(|known| name.strip_prefix(known).is_some_and(|rest| rest.starts_with('_')));
    if used.contains(name) || is_variant { None } else { meant(name, JAIL) }
}

/// The closest of some names, where `name` is none of them and near enough to one.
pub(super) fn meant(name: &str, names: &[&'static str]) -> Option<&'static str> {
    const LONGEST: usize = 40;
    if names.contains(&name) || name.len() > LONGEST {
        return None;
    }
    let slips = match name.chars().count() {
        ..=5 => 1,
        6..=8 => 2,
        _ => 3,
    };
    let near = names
        .iter()
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, _)| *distance <= slips);
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Names used as `%(name)s`, `%(section/name)s`, `<name>` or `<section/name>` anywhere in the files.
pub(super) fn used(layers: &Layers) -> HashSet<String> {
    let mut used = HashSet::new();
    for section in layers.sections() {
        for text in section.options.values().chain(section.known.values()) {
            for part in text.as_str().split("%(").skip(1) {
                let name = part.split_once(')').map_or(part, |(name, _)| name);
                used.insert(name.rsplit('/').next().unwrap_or(name).to_lowercase());
            }
            for part in text.as_str().split('<').skip(1) {
                if let Some((name, _)) = part.split_once(['>', ' ']) {
                    used.insert(name.rsplit('/').next().unwrap_or(name).to_lowercase());
                }
            }
        }
    }
    used
}

/// Changes of one letter (dropped, added, other, swapped with its neighbour) from one name to the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let changed = usize::from(one[i - 1] != other[j - 1]);
            let mut least =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expect: Option<&str>) {
        assert_eq!(meant_in_jail(name, &HashSet::from(["maxretri".to_owned()])), expect, "{name}");
    }

    #[test]
    fn slips_are_recognised_and_variables_left_alone() {
        check("maxretries", Some("maxretry"));
        check("max_retry", Some("maxretry"));
        check("bantme", Some("bantime"));
        check("ingoreip", Some("ignoreip"));
        check("prot", Some("port"));
        check("maxretry", None);
        check("maxretri", None);
        check("tcpport", None);
        check("sshd_log", None);
        check("destemail", None);
        check("blocktype", None);
        check("action_mw", None);
    }
}
