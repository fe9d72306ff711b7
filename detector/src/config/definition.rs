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
        match self.written(option)? {
            None => self.expand(self.layers.own(DEFAULT, option)),
            written => Ok(written),
        }
    }

    /// Whether the option comes from `[Init]` or a parameter rather than from `[Definition]`.
    pub(super) fn is_parameter(&self, option: &str) -> bool {
        self.params.contains_key(option) || self.layers.own(INIT, option).is_some()
    }

    /// Whether `[Definition]` itself sets the option.
    pub(super) fn defines(&self, option: &str) -> bool {
        self.layers.own(DEFINITION, option).is_some()
    }

    /// Parameter, else `[Init]`, else `[Definition]`.
    fn written(&self, option: &str) -> Lookup {
        match (self.params.get(option), self.layers.own(INIT, option)) {
            (Some(param), _) => self.expand(Some(param)),
            (None, Some(_)) => self.init(option),
            (None, None) => self.expand(self.layers.own(DEFINITION, option)),
        }
    }

    /// An option of `[Init]`, which knows its own section before anything else and parameters last.
    fn init(&self, option: &str) -> Lookup {
        let context =
            Context { built_in: Some(self.params), ..Context::of_file(self.layers, INIT) };
        self.layers.own(INIT, option).map(|raw| context.expand(raw)).transpose()
    }

    fn expand(&self, raw: Option<&Text>) -> Lookup {
        let Some(raw) = raw else { return Ok(None) };
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
        let known = |option: &str| self.init(option);
        let known: Option<&dyn Fn(&str) -> Lookup> = init.is_some().then_some(&known);
        Context { layers, section, over, built_in: None, known }.expand(raw).map(Some)
    }

    fn tag(&self, tag: &str) -> Lookup {
        if let Some(text) = self.written(tag)? {
            return Ok(Some(text));
        }
        // Exact names failed; fail2ban now asks without regard to case, and not `[Init]`.
        let lower = tag.to_lowercase();
        let Some((section, _)) = tag.split_once('/') else {
            let param = self.params.get(&lower);
            return self.expand(param.or_else(|| self.layers.raw(DEFINITION, &lower)));
        };
        let option = lower.split_once('/').map_or("", |(_, option)| option);
        if section == "known" {
            if let Some(text) = self.init(option)? {
                return Ok(Some(text));
            }
            let known = self.layers.known(DEFINITION, option);
            return self.expand(known.or_else(|| self.layers.raw(DEFINITION, option)));
        }
        // A helper section's option is read in that section, which inherits from `[DEFAULT]`.
        match self.layers.section(section) {
            Some(_) => Context::of_file(self.layers, section).get(option),
            None => Ok(None),
        }
    }
}
