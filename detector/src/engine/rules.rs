//! The failregexes of all jails by number: what is counted names its rule by four bytes, however long it waits.
use std::{collections::HashMap, sync::Arc};

use super::FailRegex;
use crate::config::Located;

/// No rule is known.
pub(super) const NONE: u32 = 0;

/// The rules of this configuration and of the one before it.
#[derive(Debug, Default)]
pub(super) struct Rules {
    known: HashMap<u32, Known>,
    numbers: HashMap<Arc<FailRegex>, u32>,
    last: u32,
    configuration: u64,
}

#[derive(Debug)]
struct Known {
    rule: Arc<FailRegex>,
    /// The configuration that had it last.
    configuration: u64,
}

impl Rules {
    /// Another configuration: what neither it nor the one before has is forgotten.
    pub fn begin(&mut self) {
        let before = self.configuration;
        self.configuration += 1;
        self.known.retain(|_, known| known.configuration == before);
        let known = &self.known;
        self.numbers.retain(|_, number| known.contains_key(number));
    }

    /// The numbers of a jail's failregexes, in their order.
    pub fn numbers(&mut self, failregex: &[Located<String>]) -> Box<[u32]> {
        let rule = |(nth, regex): (usize, &Located<String>)| FailRegex {
            nth,
            text: regex.value.as_str().into(),
            place: regex.place.clone(),
        };
        failregex.iter().enumerate().map(rule).map(|rule| self.number(rule)).collect()
    }

    fn number(&mut self, rule: FailRegex) -> u32 {
        let number = match self.numbers.get(&rule) {
            Some(number) => *number,
            None => {
                self.last += 1;
                let rule = Arc::new(rule);
                self.numbers.insert(rule.clone(), self.last);
                let configuration = self.configuration;
                self.known.insert(self.last, Known { rule, configuration });
                self.last
            }
        };
        if let Some(known) = self.known.get_mut(&number) {
            known.configuration = self.configuration;
        }
        number
    }

    /// The rule of this number; `None` for [`NONE`], and for one of a configuration long gone.
    pub fn get(&self, number: u32) -> Option<&Arc<FailRegex>> {
        self.known.get(&number).map(|known| &known.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<Located<String>> {
        texts.iter().map(|text| Located { value: (*text).to_owned(), place: None }).collect()
    }

    #[test]
    fn a_rule_keeps_its_number_and_is_known_for_one_configuration_more() {
        let mut rules = Rules::default();
        rules.begin();
        let first = rules.numbers(&list(&["a", "b"]));
        assert_eq!(*first, [1, 2]);
        assert_eq!(*rules.numbers(&list(&["a"])), [1], "two jails with one filter share it");
        rules.begin();
        assert_eq!(*rules.numbers(&list(&["a", "c"])), [1, 3]);
        assert_eq!(rules.get(2).map(|rule| &*rule.text), Some("b"));
        rules.begin();
        assert_eq!(*rules.numbers(&list(&["a", "c"])), [1, 3]);
        assert_eq!((rules.get(2), rules.get(NONE)), (None, None));
        for turn in 0..100 {
            rules.begin();
            rules.numbers(&list(&[&turn.to_string()]));
        }
        assert_eq!((rules.known.len(), rules.numbers.len()), (2, 2), "it does not pile up");
    }
}
