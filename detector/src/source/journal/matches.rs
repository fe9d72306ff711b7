//! `journalmatch`: which entries the library should give, and which of them are which jail's.
use std::{collections::HashMap, io};

use systemd::Journal;

use crate::config::JournalTerms;

/// The terms of all jails that read one journal.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// Each term once.
    terms: HashMap<Vec<u8>, usize>,
    /// The longest term; longer data need not be looked up.
    longest: usize,
    /// Whether the current entry has the term.
    seen: Vec<bool>,
    jails: Vec<Wanted>,
}

/// What one jail wants to see.
#[derive(Debug)]
enum Wanted {
    Everything,
    /// One of the groups: of each field in it one of the terms.
    OneOf(Vec<Vec<Vec<usize>>>),
}

impl Matches {
    /// Adds the groups of the next jail; answers what is wrong with those that are left out.
    pub(crate) fn add_jail(&mut self, groups: &[JournalTerms]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wanted = Vec::new();
        for group in groups.iter().filter(|group| !group.is_empty()) {
            match group.iter().find(|term| field(term).is_none()) {
                Some(term) => problems.push(format!(
                    "journalmatch term `{term}` is not `FIELD=value`: its group is left out"
                )),
                None => wanted.push(self.group(group)),
            }
        }
        // A jail whose groups are all bad reads nothing, not everything.
        self.jails.push(if groups.iter().all(Vec::is_empty) {
            Wanted::Everything
        } else {
            Wanted::OneOf(wanted)
        });
        problems
    }

    fn group(&mut self, terms: &JournalTerms) -> Vec<Vec<usize>> {
        let mut fields: Vec<(&str, Vec<usize>)> = Vec::new();
        for term in terms {
            let next = self.terms.len();
            let id = *self.terms.entry(term.as_bytes().to_vec()).or_insert(next);
            self.seen.resize(self.terms.len(), false);
            self.longest = self.longest.max(term.len());
            let name = field(term).unwrap_or_default();
            match fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, ids)) => ids.push(id),
                None => fields.push((name, vec![id])),
            }
        }
        fields.into_iter().map(|(_, ids)| ids).collect()
    }

    /// Has the library give the entries that some jail wants.
    pub(crate) fn apply(&self, journal: &mut Journal) -> io::Result<()> {
        journal.match_flush()?;
        if self.jails.iter().any(|jail| matches!(jail, Wanted::Everything)) {
            return Ok(());
        }
        let mut by_id: Vec<&[u8]> = vec![&[]; self.terms.len()];
        for (term, id) in &self.terms {
            by_id[*id] = term;
        }
        for jail in &self.jails {
            let Wanted::OneOf(groups) = jail else { continue };
            for group in groups {
                journal.match_or()?;
                for id in group.iter().flatten() {
                    let term = String::from_utf8_lossy(by_id[*id]);
                    let (field, value) = term.split_once('=').unwrap_or((&term, ""));
                    journal.match_add(field, value)?;
                }
            }
        }
        Ok(())
    }

    /// Whether no jail can match anything; then the journal need not be read.
    pub(crate) fn are_empty(&self) -> bool {
        self.jails.iter().all(|jail| matches!(jail, Wanted::OneOf(groups) if groups.is_empty()))
    }

    /// Begins with another entry.
    pub(crate) fn begin(&mut self) {
        self.seen.fill(false);
    }

    /// Notes `FIELD=value` of the current entry.
    pub(crate) fn see(&mut self, data: &[u8]) {
        if data.len() <= self.longest
            && let Some(id) = self.terms.get(data)
        {
            self.seen[*id] = true;
        }
    }

    /// Whether a jail wants the current entry.
    pub(crate) fn wants(&self, jail: usize) -> bool {
        match &self.jails[jail] {
            Wanted::Everything => true,
            Wanted::OneOf(groups) => groups
                .iter()
                .any(|group| group.iter().all(|field| field.iter().any(|id| self.seen[*id]))),
        }
    }
}

/// The field of a term that journald can match: capitals, digits, underscores, and no address field (`__CURSOR`).
fn field(term: &str) -> Option<&str> {
    let (field, _) = term.split_once('=')?;
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let good = !field.is_empty() && !field.starts_with("__") && field.bytes().all(fits);
    good.then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups are separated by `+`.
    fn groups(text: &str) -> Vec<JournalTerms> {
        let terms = |group: &str| group.split_whitespace().map(str::to_owned).collect();
        if text.is_empty() { Vec::new() } else { text.split('+').map(terms).collect() }
    }

    #[track_caller]
    fn check(wanted: &str, entry: &str, expect: bool) {
        let mut matches = Matches::default();
        matches.add_jail(&groups("_UID=999"));
        assert_eq!(matches.add_jail(&groups(wanted)), [""; 0]);
        matches.begin();
        entry.split_whitespace().for_each(|data| matches.see(data.as_bytes()));
        assert_eq!((matches.wants(0), matches.wants(1)), (false, expect), "{wanted} on {entry}");
    }

    #[test]
    fn fields_are_anded_values_of_one_field_and_groups_are_ored() {
        check("", "A=1", true);
        check("A=1", "A=1 B=2", true);
        check("A=1", "A=12", false);
        check("A=1 B=2", "A=1", false);
        check("A=1 B=2", "B=2 A=1", true);
        check("A=1 A=2", "A=2", true);
        check("A=1 A=2 B=3", "A=2 B=4", false);
        check("A=1 B=2 + C=3", "C=3", true);
        check("A=1 B=2 + C=3", "A=1", false);
        check("A=", "A=", true);
    }

    #[test]
    fn a_bad_term_takes_its_group_with_it_and_never_means_everything() {
        let mut matches = Matches::default();
        let problems = matches.add_jail(&groups("sshd"));
        assert_eq!(
            problems,
            ["journalmatch term `sshd` is not `FIELD=value`: its group is left out"]
        );
        assert!(matches.are_empty());
        assert!(!matches.wants(0));
        assert_eq!(matches.add_jail(&groups("lower=1 + A=1 + __CURSOR=x")).len(), 2);
        matches.see(b"A=1");
        assert!(matches.wants(1) && !matches.are_empty());
    }
}
