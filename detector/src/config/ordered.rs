//! Values by name, in the order written.
use std::collections::HashMap;

use super::text::Text;

/// Options as written.
pub(super) type Options = Ordered<Text>;

/// Names and values. A value set again keeps its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ordered<V> {
    list: Vec<(String, V)>,
    index: HashMap<String, usize>,
}

impl<V> Default for Ordered<V> {
    fn default() -> Ordered<V> {
        Ordered { list: Vec::new(), index: HashMap::new() }
    }
}

impl<V> Ordered<V> {
    pub(super) fn get(&self, name: &str) -> Option<&V> {
        self.index.get(name).map(|at| &self.list[*at].1)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Sets a value; answers with what it was before.
    pub(super) fn insert(&mut self, name: String, value: V) -> Option<V> {
        if let Some(at) = self.index.get(&name) {
            return Some(std::mem::replace(&mut self.list[*at].1, value));
        }
        self.index.insert(name.clone(), self.list.len());
        self.list.push((name, value));
        None
    }

    /// Sets a value that is not there yet.
    pub(super) fn insert_new(&mut self, name: &str, value: impl FnOnce() -> V) {
        if !self.contains(name) {
            self.insert(name.to_owned(), value());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The one at that place in the order.
    pub(super) fn at(&self, place: usize) -> Option<(&str, &V)> {
        self.list.get(place).map(|(name, value)| (name.as_str(), value))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.list.iter().map(|(name, value)| (name, value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.list.iter().map(|(_, value)| value)
    }
}

impl<'a, V> IntoIterator for &'a Ordered<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}
