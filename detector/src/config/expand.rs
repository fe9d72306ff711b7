//! `%(name)s`: options that name others.
use super::{
    Place,
    layers::{DEFAULT, Layers},
    ordered::{Options, Ordered},
    text::Text,
};

/// Bytes of one value with everything in it expanded.
const MAX_EXPANDED: usize = 1 << 20;
/// Substitutions in one value, nested ones counted: a few lines could otherwise ask for billions.
const MAX_STEPS: usize = 4_096;
/// `%(a)s` that holds `%(b)s` that holds … (fail2ban's limit).
const MAX_DEPTH: u8 = 10;

/// A value that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub(super) struct ExpandError {
    /// Where the text stands that is at fault.
    pub(super) place: Option<Place>,
    pub(super) kind: ExpandFault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandFault {
    #[error("`{found}` is neither `%%` nor `%(name)s`")]
    Percent { found: String },
    #[error("`%({name})s` names no option of section `{section}` or `[DEFAULT]`")]
    Unknown { name: String, section: String },
    #[error("`%(…)s` is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("it grows beyond {MAX_EXPANDED} bytes")]
    TooLong,
    #[error("it takes more than {MAX_STEPS} substitutions")]
    TooMuch,
    #[error("`<{tag}>` refers to itself")]
    Circle { tag: String },
}

impl ExpandError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self.kind {
            ExpandFault::Percent { .. } => "write `%%` for a percent sign",
            ExpandFault::Unknown { .. } => "correct the name or define the option",
            ExpandFault::TooDeep => {
                "look for options that name one another; `%(known/…)s` reaches one file back only"
            }
            ExpandFault::TooLong | ExpandFault::TooMuch => {
                "look for options that name one another many times"
            }
            ExpandFault::Circle { .. } => "look for options that name one another",
        }
    }
}

/// What one expansion may still cost.
pub(super) struct Budget {
    steps: usize,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget { steps: MAX_STEPS }
    }

    /// Takes one step that leads to a text of `length` bytes.
    pub(super) fn spend(&mut self, length: usize) -> Result<(), ExpandFault> {
        self.steps = self.steps.checked_sub(1).ok_or(ExpandFault::TooMuch)?;
        if length > MAX_EXPANDED { Err(ExpandFault::TooLong) } else { Ok(()) }
    }
}

/// An option's text, if there is such an option.
pub(super) type Lookup = Result<Option<Text>, ExpandError>;

/// Where names are looked up.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) layers: &'a Layers,
    /// The section that is being read.
    pub(super) section: &'a str,
    /// Asked before the files, by names in lower case; what is there without a value is nothing.
    pub(super) over: Option<&'a Ordered<Option<Text>>>,
    /// Asked where the files know nothing.
    pub(super) built_in: Option<&'a Options>,
    /// Asked first for `%(known/…)s`. Its answers are expanded once more; a lonely `%` in one, of which fail2ban
    /// would die, makes it final.
    pub(super) known: Option<&'a dyn Fn(&str) -> Lookup>,
}

enum Found {
    /// May hold further names.
    Raw(Text),
    /// Holds none, whatever it looks like.
    Final(Text),
}

impl<'a> Context<'a> {
    /// Only the files themselves.
    pub(super) fn of_file(layers: &'a Layers, section: &'a str) -> Context<'a> {
        Context { layers, section, over: None, built_in: None, known: None }
    }

    /// The option, expanded.
    pub(super) fn get(&self, option: &str) -> Lookup {
        self.raw(option).map(|raw| self.expand(&raw)).transpose()
    }

    /// The option as written, whatever the case of its name.
    fn raw(&self, option: &str) -> Option<Text> {
        let lower = option.to_lowercase();
        if let Some(over) = self.over.and_then(|over| over.get(&lower)) {
            return over.clone();
        }
        let file = self.layers.raw(self.section, &lower);
        file.or_else(|| self.built_in?.get(&lower)).cloned()
    }

    /// The text with every `%(name)s` in it replaced.
    pub(super) fn expand(&self, raw: &Text) -> Result<Text, ExpandError> {
        let mut expanded = Text::default();
        self.expand_into(raw, None, 0, &mut expanded, &mut Budget::new())?;
        Ok(expanded)
    }

    fn expand_into(
        &self,
        raw: &Text,
        outer: Option<&Within<'_>>,
        depth: u8,
        out: &mut Text,
        budget: &mut Budget,
    ) -> Result<(), ExpandError> {
        let chars = raw.as_str();
        let within = Within { text: chars, outer };
        let mut at = 0;
        while let Some(percent) = chars[at..].find('%').map(|offset| at + offset) {
            out.push(raw, at..percent, depth);
            let fail = |kind| ExpandError { place: raw.place_at(percent), kind };
            let rest = &chars[percent + 1..];
            if rest.starts_with('%') {
                out.push(raw, percent..percent + 1, depth);
                at = percent + 2;
                continue;
            }
            let Some((name, _)) = rest
                .strip_prefix('(')
                .and_then(|rest| rest.split_once(")s"))
                .filter(|(name, _)| {
                    // A name ends at the first `)`, so one must not lie inside.
                    !name.is_empty() && !name.contains(')')
                })
            else {
                let found = format!("%{}", rest.chars().take(8).collect::<String>());
                return Err(fail(ExpandFault::Percent { found }));
            };
            at = percent + name.len() + "%()s".len();
            budget.spend(out.len()).map_err(fail)?;
            match self.find(name, &within)? {
                None => {
                    let (name, section) = (name.to_owned(), self.section.to_owned());
                    return Err(fail(ExpandFault::Unknown { name, section }));
                }
                Some(Found::Raw(text)) if text.as_str().contains('%') => {
                    if depth + 1 >= MAX_DEPTH {
                        return Err(fail(ExpandFault::TooDeep));
                    }
                    self.expand_into(&text, Some(&within), depth + 1, out, budget)?;
                }
                Some(Found::Raw(text) | Found::Final(text)) => {
                    out.push(&text, 0..text.len(), depth + 1)
                }
            }
            budget.spend(out.len()).map_err(fail)?;
        }
        out.push(raw, at..chars.len(), depth);
        Ok(())
    }

    fn find(&self, name: &str, within: &Within<'_>) -> Result<Option<Found>, ExpandError> {
        let lower = name.to_lowercase();
        // fail2ban finds no option in capitals there, unless the text names it in small letters as well.
        let name = if name != lower && within.names(&lower) { lower.as_str() } else { name };
        if lower == "__name__" {
            return Ok(Some(Found::Final(Text::new(self.section, None))));
        }
        if let Some(ask) = self.known
            && let Some(option) = lower.strip_prefix("known/")
            && let Some(text) = ask(option)?
        {
            let found = if is_well_formed(text.as_str()) { Found::Raw } else { Found::Final };
            return Ok(Some(found(text)));
        }
        if let Some(text) = self.raw(&lower) {
            return Ok(Some(Found::Raw(text)));
        }
        let is_word =
            |section: &str| section.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let Some((section, option)) =
            name.split_once('/').filter(|(section, _)| !section.is_empty() && is_word(section))
        else {
            return Ok(None);
        };
        // The option as written; in the section's name we do not mind capitals, unlike fail2ban.
        let default = || self.layers.own(DEFAULT, option);
        let found = if section.eq_ignore_ascii_case("known") {
            self.layers.known(self.section, option).or_else(default)
        } else if section.eq_ignore_ascii_case(DEFAULT) {
            default()
        } else {
            self.layers.section(section).and_then(|_| self.layers.raw(section, option))
        };
        Ok(found.cloned().map(Found::Raw))
    }
}

/// A text that is being expanded, and those that named it.
struct Within<'t> {
    text: &'t str,
    outer: Option<&'t Within<'t>>,
}

impl Within<'_> {
    /// Whether one of them holds this very `%(name)s`.
    fn names(&self, name: &str) -> bool {
        let reference = format!("%({name})s");
        let mut texts = std::iter::successors(Some(self), |within| within.outer);
        texts.any(|within| within.text.contains(&reference))
    }
}

/// Whether each `%` begins `%%` or `%(`.
pub(super) fn is_well_formed(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if !rest.starts_with(['%', '(']) {
            return false;
        }
        rest = &rest[1..];
    }
    true
}
