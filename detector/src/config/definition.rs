//! A filter's or action's files with what a jail hands them, read in fail2ban's order.
//!
//! First every option gets its `%(name)s` replaced, then all of them their tags, at once. What a name or tag reaches:
//!
//! ```text
//!                               %(name)s                                         <tag>
//! [Definition]  what is handed on, [Definition], [DEFAULT]     parameter, [Init], what is looked for first,
//! [Init]        [Init], [DEFAULT]                              then whatever %(name)s reaches
//! ```
//!
//! What is handed on are the jail's options and above them the parameters. A filter is read twice. The first reading is
//! what its jail calls `known/…`; in it, of the jail's options only those are there that had to be known before.
use std::{
    cell::{OnceCell, RefCell},
    collections::{HashMap, HashSet},
};

use super::{
    expand::{Context, ExpandError, Lookup},
    layers::{DEFAULT, KNOWN, Layers, is_word},
    ordered::{Options, Ordered},
    tags,
    text::Text,
};

const DEFINITION: &str = "Definition";
const INIT: &str = "Init";
/// Begins the name of what `[Init]` says, whatever the parameters say.
const KNOWN_INIT: &str = "known/";

/// Options by name; one that is there without a value hides what comes after it.
pub(super) type Handed = Ordered<Option<Text>>;

/// What tags stand for that are no option's name: asked once, remembered by the second reading.
type Answers = HashMap<String, Option<Text>>;

/// The files of one name, and the parameters in brackets behind it.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) layers: Layers,
    /// Expanded in the jail already.
    pub(super) params: Options,
    /// The options that mean something.
    pub(super) wanted: &'static [&'static str],
    /// Tags that are left for later.
    pub(super) kept: &'static [&'static str],
}

/// One reading of the files.
#[derive(Debug)]
pub(super) struct Reading {
    /// Parameters, then what `[Init]` says besides: before any tag is replaced.
    given: Options,
    /// What `%(name)s` reaches beyond the files.
    handed: Handed,
    /// Every option before any tag is replaced.
    untagged: Ordered<Lookup>,
    options: Ordered<Lookup>,
    /// What could not be expanded though something else takes its place.
    hidden: Vec<(String, ExpandError)>,
    answers: RefCell<Answers>,
    /// The options with the tags that are left for later replaced, too.
    whole: OnceCell<Ordered<Lookup>>,
}

impl Definition {
    /// Reads the files in sight of these options of a jail.
    pub(super) fn read(&self, jail: &Handed) -> Reading {
        self.reading(jail, self.params.clone(), Answers::new(), false)
    }

    /// A filter's first reading: all of `[Definition]` is part of it, in sight of nothing else.
    pub(super) fn read_all(&self, jail: &Handed) -> Reading {
        self.reading(jail, self.params.clone(), Answers::new(), true)
    }

    /// A filter's second reading: what the first took from `[Init]` counts as a parameter.
    pub(super) fn read_again(&self, first: &Reading, jail: &Handed) -> Reading {
        self.reading(jail, first.given.clone(), first.answers.borrow().clone(), false)
    }

    fn reading(&self, jail: &Handed, mut given: Options, answers: Answers, all: bool) -> Reading {
        let mut untagged = Ordered::default();
        let is_handed = |option: &str| jail.contains(option) || given.contains(option);
        let mut handed = Handed::default();
        let params = given.iter().map(|(name, text)| (name, Some(text.clone())));
        for (name, text) in jail.iter().map(|(name, text)| (name, text.clone())).chain(params) {
            handed.insert(name.to_lowercase(), text);
        }
        let context = Context { over: Some(&handed), ..Context::of_file(&self.layers, DEFINITION) };
        for option in self.wanted.iter().filter(|option| !is_handed(option)) {
            match context.get(option) {
                _ if !self.exists() => untagged.insert((*option).to_owned(), Ok(None)),
                Ok(None) => continue,
                found => untagged.insert((*option).to_owned(), found),
            };
        }
        let mut broken = Vec::new();
        for (option, raw) in self.own(INIT) {
            let text = match Context::of_file(&self.layers, INIT).expand(raw) {
                Ok(text) => text,
                Err(error) => {
                    broken.push((option.clone(), error));
                    continue;
                }
            };
            if !option.starts_with(KNOWN_INIT) {
                given.insert(format!("{KNOWN_INIT}{option}"), text.clone());
            }
            given.insert_new(option, || text);
        }
        for (option, raw) in self.own(DEFINITION).filter(|_| all) {
            let text = || Context::of_file(&self.layers, DEFINITION).expand(raw).map(Some);
            untagged.insert_new(option, text);
        }
        let mut hidden = Vec::new();
        for (option, text) in &given {
            if let Some(Err(error)) = untagged.insert(option.clone(), Ok(Some(text.clone()))) {
                hidden.push((option.clone(), error));
            }
        }
        for (option, error) in broken {
            untagged.insert(format!("{KNOWN_INIT}{option}"), Err(error.clone()));
            if !given.contains(&option)
                && let Some(Err(error)) = untagged.insert(option.clone(), Err(error))
            {
                hidden.push((option, error));
            }
        }
        let answers = RefCell::new(answers);
        let mut options = untagged.clone();
        let varied = self.varied(&untagged);
        let is_kept = |tag: &str| self.kept.contains(&tag) || varied.contains(tag);
        tags::substitute(&mut options, &is_kept, &|tag| self.answer(&handed, &answers, tag));
        Reading { given, handed, untagged, options, hidden, answers, whole: OnceCell::new() }
    }

    /// Whether there is a section `[Definition]`.
    pub(super) fn exists(&self) -> bool {
        self.layers.section(DEFINITION).is_some()
    }

    /// Options of one section, its name in the files' own words left out.
    fn own(&self, section: &str) -> impl Iterator<Item = (&String, &Text)> {
        let options = self.layers.section(section).map(|section| section.options.iter());
        options.into_iter().flatten().filter(|(name, _)| *name != "__name__")
    }

    /// Options that have a variant for one address family, as in `blocktype?family=inet6`.
    fn varied<'a>(&self, options: &'a Ordered<Lookup>) -> HashSet<&'a str> {
        let sound = options.iter().filter(|(_, found)| found.is_ok());
        let variants = sound.filter_map(|(name, _)| name.split_once('?'));
        let valid = variants.filter(|(option, rest)| is_word(option) && !rest.is_empty());
        valid.map(|(option, _)| option).collect()
    }

    fn answer(&self, handed: &Handed, answers: &RefCell<Answers>, tag: &str) -> Lookup {
        if let Some(known) = answers.borrow().get(tag) {
            return Ok(known.clone());
        }
        let found = self.look_up(handed, tag)?;
        answers.borrow_mut().insert(tag.to_owned(), found.clone());
        Ok(found)
    }

    /// A tag that is no option's exact name.
    fn look_up(&self, handed: &Handed, tag: &str) -> Lookup {
        let get = |section: &str, option: &str| match self.layers.section(section) {
            None if section != DEFAULT => Ok(None),
            _ => Context::of_file(&self.layers, section).get(option),
        };
        let is_section = |name: &str| !name.is_empty() && is_word(&name.replace('-', "_"));
        if let Some((section, option)) = tag.split_once('/').filter(|(name, _)| is_section(name))
            && !option.is_empty()
            && !option.contains(char::is_whitespace)
        {
            let found = if section.eq_ignore_ascii_case("known") {
                let known = self.layers.section(DEFINITION).filter(|section| section.again);
                let remembered = format!("{KNOWN}{DEFINITION}");
                let context = Context::of_file(&self.layers, &remembered);
                match known.map(|_| context.get(option)).transpose()?.flatten() {
                    None => get(DEFINITION, option)?,
                    found => found,
                }
            } else if section.eq_ignore_ascii_case(DEFAULT) {
                get(DEFAULT, option)?
            } else {
                get(section, option)?
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        let context = Context { over: Some(handed), ..Context::of_file(&self.layers, DEFINITION) };
        if self.exists() { context.get(tag) } else { Ok(None) }
    }

    /// An option with its tags untouched, whether it means something to fail2ban or not.
    pub(super) fn untagged(&self, reading: &Reading, option: &str) -> Lookup {
        match reading.untagged.get(option) {
            Some(found) => found.clone(),
            None => self.answer(&reading.handed, &reading.answers, option),
        }
    }

    /// The same with all tags replaced, also those that are left for later.
    pub(super) fn whole(&self, reading: &Reading, option: &str) -> Lookup {
        let answer = |tag: &str| self.answer(&reading.handed, &reading.answers, tag);
        let whole = reading.whole.get_or_init(|| {
            let mut options = reading.untagged.clone();
            tags::substitute(&mut options, &|_| false, &answer);
            options
        });
        if let Some(found) = whole.get(option) {
            return found.clone();
        }
        let mut options = whole.clone();
        options.insert(option.to_owned(), answer(option));
        tags::substitute(&mut options, &|_| false, &answer);
        options.get(option).cloned().unwrap_or(Ok(None))
    }
}

impl Reading {
    /// An option as it is used. `None` where it is not set, or where there is no `[Definition]`.
    pub(super) fn get(&self, option: &str) -> Lookup {
        self.options.get(option).cloned().unwrap_or(Ok(None))
    }

    /// Among these options the first whose names cannot be expanded: fail2ban stops there, before it looks at any tag.
    pub(super) fn unexpanded(&self, options: &[&str]) -> Option<(&str, &ExpandError)> {
        let unexpanded = self
            .untagged
            .iter()
            .filter_map(|(option, it)| Some((option.as_str(), it.as_ref().err()?)));
        let mut wanted = unexpanded.filter(|(option, _)| options.contains(option));
        wanted.next()
    }

    /// All options as they are used, in fail2ban's order: one without a value is there for want of a `[Definition]`.
    pub(super) fn options(&self) -> impl Iterator<Item = (&String, &Lookup)> {
        self.options.iter().filter(|(name, _)| !name.starts_with(KNOWN_INIT))
    }

    /// Parameters, then what `[Init]` says besides, tags untouched.
    pub(super) fn given(&self) -> impl Iterator<Item = (&String, &Text)> {
        self.given.iter().filter(|(name, _)| !name.starts_with(KNOWN_INIT))
    }

    /// Options that cannot be expanded, though perhaps nobody asks for them.
    pub(super) fn faulty(&self) -> impl Iterator<Item = (&str, &ExpandError)> {
        let hidden = self.hidden.iter().map(|(option, error)| (option, error));
        let faulty =
            self.options.iter().filter_map(|(option, it)| Some((option, it.as_ref().err()?)));
        hidden
            .chain(faulty)
            .map(move |(option, error)| (option.strip_prefix(KNOWN_INIT).unwrap_or(option), error))
    }
}
