//! Options by name, in the order written.
use std::collections::HashMap;

use super::text::Text;

/// Names and values. A value set again keeps its place in the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    list: Vec<(String, Text)>,
    index: HashMap<String, usize>,
}

impl Options {
    pub(super) fn get(&self, name: &str) -> Option<&Text> {
        self.index.get(name).map(|at| &self.list[*at].1)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Sets an option; answers with what it was before.
    pub(super) fn insert(&mut self, name: String, value: Text) -> Option<Text> {
        if let Some(at) = self.index.get(&name) {
            return Some(std::mem::replace(&mut self.list[*at].1, value));
        }
        self.index.insert(name.clone(), self.list.len());
        self.list.push((name, value));
        None
    }

    /// Sets an option that is not there yet.
    pub(super) fn insert_new(&mut self, name: &str, value: impl FnOnce() -> Text) {
        if !self.contains(name) {
            self.insert(name.to_owned(), value());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Text)> {
        self.list.iter().map(|(name, value)| (name, value))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.list.iter().map(|(name, _)| name)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Text> {
        self.list.iter().map(|(_, value)| value)
    }

    /// The same with all names in lower case: `%(name)s` knows no other.
    pub(super) fn lower(&self) -> Options {
        let mut lower = Options::default();
        for (name, value) in self.iter() {
            lower.insert(name.to_lowercase(), value.clone());
        }
        lower
    }
}

impl<'a> IntoIterator for &'a Options {
    type Item = (&'a String, &'a Text);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}
