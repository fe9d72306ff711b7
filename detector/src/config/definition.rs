//! A filter's or action's files with the parameters that a jail hands them.
use std::{cell::RefCell, collections::HashMap};

use super::{
    expand::{Context, ExpandError, ExpandFault, Lookup},
    filter::OPTIONS as FILTER_OPTIONS,
    layers::{DEFAULT, KNOWN, Layers},
    options::MOST_LOOKED_AT,
    ordered::Options,
    tags,
    text::Text,
};

const DEFINITION: &str = "Definition";
const INIT: &str = "Init";

/// What the files are for: the kinds differ in what `%(name)s` reaches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind<'a> {
    /// Only parameters and `[Definition]` answer.
    Action,
    /// The same: fail2ban reads a filter twice, and the first reading is what the jail knows of it.
    FilterFirst,
    /// `[Init]` values answer as well; names that the first reading looked for without regard to case keep its answers.
    Filter(&'a Remembered),
}

/// Tags of a filter that no option has as its exact name, and what they stood for in the first reading.
pub(super) type Remembered = HashMap<String, Option<Text>>;

/// Bracket parameters, already expanded in the jail.
#[derive(Debug, Default)]
pub(super) struct Params {
    written: Options,
    /// `%(name)s` and a tag's second look-up know lower case only.
    lower: Options,
}

impl Params {
    pub(super) fn new(written: Options) -> Params {
        Params { lower: written.lower(), written }
    }

    pub(super) fn written(&self) -> &Options {
        &self.written
    }
}

/// Tags that an action's commands keep for run time.
const RUN_TIME: [&str; 5] = ["matches", "ipmatches", "ipjailmatches", "timeout", "bantime"];

/// Options of one filter or action, expanded on demand.
pub(super) struct Definition<'a> {
    pub(super) layers: &'a Layers,
    pub(super) params: &'a Params,
    pub(super) kind: Kind<'a>,
}

impl Definition<'_> {
    /// The option as it is used: parameter, else `[Init]`, else `[Definition]`, else `[DEFAULT]`, with every
    /// `%(name)s` and `<tag>` in it replaced.
    pub(super) fn get(&self, option: &str) -> Lookup {
        let Some(text) = self.without_tags(option)? else { return Ok(None) };
        // What has a variant for one address family is left alone, in a filter as well.
        let is_kept = |tag: &str| !matches!(self.kind, Kind::Action) && self.has_variant(tag);
        if is_kept(option) {
            return Ok(Some(text));
        }
        let lookup = |tag: &str| if is_kept(tag) { Ok(None) } else { self.tag(tag) };
        tags::substitute(option, text, &lookup).map(Some)
    }

    /// What [`Kind::Filter`] needs to know of the first reading, where the two differ: `self` is the first.
    pub(super) fn remembered(&self) -> Remembered {
        let seen = RefCell::new(Remembered::new());
        let [definition, init, default] =
            [DEFINITION, INIT, DEFAULT].map(|name| self.layers.section(name).map(|it| &it.options));
        let set = |name: &String| {
            [definition, default].into_iter().flatten().any(|options| options.contains(name))
        };
        if !init.into_iter().flat_map(Options::names).any(set) {
            return seen.into_inner();
        }
        let names = definition.into_iter().chain(init).flat_map(Options::names);
        for option in names.chain(self.params.written.names()).take(MOST_LOOKED_AT) {
            let Ok(Some(text)) = self.without_tags(option) else { continue };
            if self.has_variant(option) {
                continue;
            }
            let lookup = |tag: &str| match self.written(tag)? {
                Some(text) => Ok(Some(text)),
                None if self.has_variant(tag) => Ok(None),
                None => {
                    let found = self.looked_up(tag)?;
                    seen.borrow_mut().insert(tag.to_owned(), found.clone());
                    Ok(found)
                }
            };
            // A fault is told when the option is used.
            let _ = tags::substitute(option, text, &lookup);
        }
        seen.into_inner()
    }

    /// The same with those tags left that an action replaces when it runs: what is known only then, and whatever
    /// has a variant for one address family.
    pub(super) fn for_run_time(&self, option: &str) -> Lookup {
        let Some(text) = self.without_tags(option)? else { return Ok(None) };
        let is_kept = |tag: &str| RUN_TIME.contains(&tag) || self.has_variant(tag);
        if is_kept(option) {
            return Ok(Some(text));
        }
        let lookup = |tag: &str| if is_kept(tag) { Ok(None) } else { self.tag(tag) };
        tags::substitute(option, text, &lookup).map(Some)
    }

    fn has_variant(&self, option: &str) -> bool {
        // fail2ban sees no variant of a name with other signs.
        if !option.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return false;
        }
        let variant =
            |name: &String| name.strip_prefix(option).is_some_and(|rest| rest.starts_with('?'));
        let of = |section| self.layers.section(section).map(|section| &section.options);
        let definition = of(DEFINITION).filter(|_| matches!(self.kind, Kind::FilterFirst));
        let files = definition.into_iter().chain(of(INIT)).flat_map(Options::names);
        self.params.written.names().chain(files).any(variant)
    }

    /// Names of `[Init]`, in the order written.
    pub(super) fn init_names(&self) -> Vec<&str> {
        let init = self.layers.section(INIT).map(|section| &section.options);
        init.into_iter().flat_map(Options::names).map(String::as_str).collect()
    }

    /// Whether the option is set, in `[DEFAULT]` or elsewhere counts not.
    pub(super) fn has(&self, option: &str) -> bool {
        self.is_parameter(option) || self.layers.own(DEFINITION, option).is_some()
    }

    /// Whether there is a section `[Definition]`.
    pub(super) fn exists(&self) -> bool {
        self.layers.section(DEFINITION).is_some()
    }

    /// Options and parameters that cannot be expanded, though perhaps nobody asks for them.
    pub(super) fn faulty(&self) -> Vec<(String, ExpandError)> {
        let mut faulty = Vec::new();
        let definition = self.layers.section(DEFINITION).map(|section| &section.options);
        let init = self.layers.section(INIT).map(|section| &section.options);
        let files = definition.into_iter().chain(init).flat_map(Options::names);
        for name in files.chain(self.params.written.names()).take(MOST_LOOKED_AT) {
            let known = || match self.params.written.contains(name) {
                true => self.known_init(name),
                false => Ok(None),
            };
            let all = self.get(name).and_then(|_| self.defined(name)).and_then(|_| known());
            let Err(error) = all else { continue };
            // What costs much is not tried again and again.
            let costly = matches!(error.kind, ExpandFault::TooLong | ExpandFault::TooMuch);
            faulty.push((name.clone(), error));
            if costly {
                break;
            }
        }
        faulty
    }

    /// What `[Init]` says of an option for which there is a parameter.
    fn known_init(&self, option: &str) -> Lookup {
        let Some(text) = self.init(option)? else { return Ok(None) };
        tags::substitute(&format!("known/{option}"), text, &|tag| self.tag(tag)).map(Some)
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
        self.params.written.contains(option) || self.layers.own(INIT, option).is_some()
    }

    /// Whether `[Definition]` sets the option, be it through `[DEFAULT]` or a parameter in capitals.
    pub(super) fn defines(&self, option: &str) -> bool {
        let set = || self.layers.raw(DEFINITION, option).is_some();
        self.exists() && (self.params.lower.contains(option) || set())
    }

    /// Parameter, else `[Init]`, else `[Definition]`.
    fn written(&self, option: &str) -> Lookup {
        match (self.params.written.get(option), self.layers.own(INIT, option)) {
            // Expanded in the jail already: a percent sign in it is one.
            (Some(param), _) => Ok(Some(param.clone())),
            (None, Some(_)) => self.init(option),
            (None, None) => self.defined(option),
        }
    }

    /// An option of `[Definition]` itself.
    fn defined(&self, option: &str) -> Lookup {
        let own = self.layers.own(DEFINITION, option);
        // In a filter's first reading parameters reach only what the server is told.
        if matches!(self.kind, Kind::FilterFirst) && !FILTER_OPTIONS.contains(&option) {
            return own
                .map(|raw| Context::of_file(self.layers, DEFINITION).expand(raw))
                .transpose();
        }
        self.expand(self.params.lower.get(option).or(own))
    }

    /// An option of `[Init]`, which knows its own section before anything else and parameters last.
    fn init(&self, option: &str) -> Lookup {
        let context =
            Context { built_in: Some(&self.params.lower), ..Context::of_file(self.layers, INIT) };
        self.layers.own(INIT, option).map(|raw| context.expand(raw)).transpose()
    }

    fn expand(&self, raw: Option<&Text>) -> Lookup {
        let Some(raw) = raw else { return Ok(None) };
        let (layers, section, params) = (self.layers, DEFINITION, self.params);
        let has_init = matches!(self.kind, Kind::Filter(_)) && layers.section(INIT).is_some();
        let over = |name: &str| match has_init.then(|| params.written.get(name)) {
            Some(Some(param)) => Ok(Some(param.clone())),
            // A parameter in capitals comes after `[Init]`, unlike any other.
            Some(None) => Ok(self.init(name)?.or_else(|| params.lower.get(name).cloned())),
            None => Ok(params.lower.get(name).cloned()),
        };
        let known = |option: &str| self.init(option);
        let known: Option<&dyn Fn(&str) -> Lookup> = has_init.then_some(&known);
        Context { layers, section, over: Some(&over), built_in: None, known }.expand(raw).map(Some)
    }

    fn tag(&self, tag: &str) -> Lookup {
        if let Some(text) = self.written(tag)? {
            return Ok(Some(text));
        }
        match self.kind {
            Kind::Filter(first) if first.contains_key(tag) => Ok(first[tag].clone()),
            _ => self.looked_up(tag),
        }
    }

    /// A tag that is no option's exact name: fail2ban asks once more without regard to case, and not `[Init]`.
    fn looked_up(&self, tag: &str) -> Lookup {
        let lower = tag.to_lowercase();
        let Some((section, _)) = tag.split_once('/') else {
            let param = self.params.lower.get(&lower);
            return self.expand(param.or_else(|| self.layers.raw(DEFINITION, &lower)));
        };
        let option = lower.split_once('/').map_or("", |(_, option)| option);
        if section.eq_ignore_ascii_case("known") {
            // What `[Init]` had is known by its exact name alone.
            if tag == lower
                && let Some(text) = self.init(option)?
            {
                return Ok(Some(text));
            }
            // In the sight of known values, where no parameter is seen.
            let known = format!("{KNOWN}{DEFINITION}");
            return match self.layers.known(DEFINITION, option) {
                Some(raw) => Context::of_file(self.layers, &known).expand(raw).map(Some),
                None => Context::of_file(self.layers, DEFINITION).get(option),
            };
        }
        let is_default = section.eq_ignore_ascii_case(DEFAULT);
        let section = if is_default { DEFAULT } else { section };
        // A helper section's option is read in that section, which inherits from `[DEFAULT]`.
        match self.layers.section(section) {
            Some(_) => Context::of_file(self.layers, section).get(option),
            None => Ok(None),
        }
    }
}
