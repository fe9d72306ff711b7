//! A filter's or action's files with the parameters that a jail hands them.
use std::collections::BTreeMap;

use super::{
    expand::{Context, Lookup},
    layers::{DEFAULT, Layers},
    tags,
    text::Text,
};

const DEFINITION: &str = "Definition";
const INIT: &str = "Init";

/// What the files are for: the two kinds differ in what `%(name)s` reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[Init]` values answer `%(name)s` as well.
    Filter,
    /// Only parameters and `[Definition]` do.
    Action,
}

/// Options of one filter or action, expanded on demand.
pub(super) struct Definition<'a> {
    pub(super) layers: &'a Layers,
    /// Bracket parameters, already expanded in the jail.
    pub(super) params: &'a BTreeMap<String, Text>,
    pub(super) kind: Kind,
}

impl Definition<'_> {
    /// The option as it is used: parameter, else `[Init]`, else `[Definition]`, else `[DEFAULT]`, with every
    /// `%(name)s` and `<tag>` in it replaced.
    pub(super) fn get(&self, option: &str) -> Lookup {
        let Some(text) = self.without_tags(option)? else { return Ok(None) };
        tags::substitute(option, text, &|tag| self.tag(tag)).map(Some)
    }

    /// The same with its tags untouched.
    pub(super) fn without_tags(&self, option: &str) -> Lookup {
        let written = self.written(option).or_else(|| self.layers.own(DEFAULT, option));
        written.map(|raw| self.expand(raw)).transpose()
    }

    /// Whether the option comes from `[Init]` or a parameter rather than from `[Definition]`.
    pub(super) fn is_parameter(&self, option: &str) -> bool {
        self.params.contains_key(option) || self.layers.own(INIT, option).is_some()
    }

    /// Whether `[Definition]` itself sets the option.
    pub(super) fn defines(&self, option: &str) -> bool {
        self.layers.own(DEFINITION, option).is_some()
    }

    fn written(&self, option: &str) -> Option<&Text> {
        let files =
            || self.layers.own(INIT, option).or_else(|| self.layers.own(DEFINITION, option));
        self.params.get(option).or_else(files)
    }

    fn expand(&self, raw: &Text) -> Result<Text, super::expand::ExpandError> {
        let init = self.layers.section(INIT).filter(|_| self.kind == Kind::Filter);
        let both;
        let over: &[_] = match init {
            Some(init) => {
                both = [self.params, &init.options];
                &both
            }
            None => &[self.params],
        };
        let (layers, section) = (self.layers, DEFINITION);
        Context { layers, section, over, built_in: None, known: None }.expand(raw)
    }

    fn tag(&self, tag: &str) -> Lookup {
        if let Some(raw) = self.written(tag) {
            return self.expand(raw).map(Some);
        }
        // Exact names failed; fail2ban now asks the files without regard to case.
        let lower = tag.to_lowercase();
        let found = match tag.split_once('/') {
            None => self.layers.raw(DEFINITION, &lower),
            Some(("known", _)) => {
                let option = lower.split_once('/').map_or("", |(_, option)| option);
                let overridden =
                    self.layers.own(INIT, option).filter(|_| self.params.contains_key(option));
                let known = || self.layers.known(DEFINITION, option);
                overridden.or_else(known).or_else(|| self.layers.raw(DEFINITION, option))
            }
            Some((section, _)) => {
                let option = lower.split_once('/').map_or("", |(_, option)| option);
                let own = self.layers.section(section).and_then(|found| found.options.get(option));
                // A helper section's option is read in that section.
                return own
                    .map(|raw| Context::of_file(self.layers, section).expand(raw))
                    .transpose();
            }
        };
        found.map(|raw| self.expand(raw)).transpose()
    }
}
