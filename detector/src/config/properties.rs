//! What an action's commands come to before anybody is banned: its options and parameters put into one another.
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use super::{
    expand::{ExpandError, Lookup},
    jail::is_true,
    ordered::Ordered,
    span,
    stream::ACTION_OPTIONS,
    tags::{self, next_tag},
    text::Text,
};

/// How often a command is looked through for tags that came in with others (fail2ban's limit).
const MAX_ROUNDS: u8 = 26;
/// Values are kept of tags that only a ban fills in.
const RUN_TIME: [&str; 3] = ["matches", "ipmatches", "ipjailmatches"];
/// fail2ban has nothing in their place where they are not set, not even an empty command.
const UNSET: [&str; 4] =
    ["actionprolong", "actionstart_on_demand", "actionrepair_on_unban", "norestored"];
const TRUTHS: [&str; 3] = ["actionstart_on_demand", "actionrepair_on_unban", "norestored"];
/// Seconds that a command may take where `timeout` does not say.
const TIMEOUT: &str = "60";
/// The families that a name can be bound to: `name?family=inet6`.
const FAMILIES: [&str; 2] = ["inet4", "inet6"];
/// What the name of a parameter contains whose value nobody may see.
const SECRET: [&str; 6] = ["password", "passwd", "token", "secret", "apikey", "key"];
/// Bytes of the shortest value that is hidden: what is shorter protects nothing, and stands everywhere.
const SHORTEST_SECRET: usize = 3;

/// A command that cannot be made of its options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// An option in it cannot be expanded.
    #[error("{0}")]
    Expand(String),
    /// Tags bring in one another.
    #[error("its tags name one another without end")]
    Endless,
    /// No time.
    #[error("`{0}` is no time")]
    Time(String),
}

/// The options and parameters of one action of commands, as fail2ban's server has them.
#[derive(Clone, Debug)]
pub struct Properties {
    values: BTreeMap<String, String>,
    /// With all tags replaced: for no family, and for each of [`FAMILIES`].
    read: [OnceLock<Arc<Ordered<Lookup>>>; 3],
}

impl Properties {
    /// What the configuration says ([`super::ActionKind::Commands`]).
    pub fn new(given: &[(String, String)]) -> Properties {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for option in ACTION_OPTIONS.iter().filter(|option| !UNSET.contains(option)) {
            values.insert((*option).to_owned(), String::new());
        }
        values.insert("timeout".to_owned(), TIMEOUT.to_owned());
        let mut properties = Properties { values, read: Default::default() };
        for (name, value) in given {
            // A time that is none leaves the default; `check` has told of it.
            let _ = properties.set(name, value);
        }
        properties
    }

    /// Sets one. `bantime` is of the ban alone and cannot be set, as in fail2ban.
    ///
    /// # Errors
    /// [`PropertyError::Time`] for a `timeout` that is none.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), PropertyError> {
        let value = match name {
            "bantime" => return Ok(()),
            "timeout" => {
                span::seconds(value).map_err(|_| PropertyError::Time(value.to_owned()))?.to_string()
            }
            _ if TRUTHS.contains(&name) => {
                (if is_true(value) { "True" } else { "False" }).to_owned()
            }
            _ => value.to_owned(),
        };
        self.values.insert(name.to_owned(), value);
        self.read = Default::default();
        Ok(())
    }

    /// One as it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether there is such a command.
    pub fn has(&self, option: &str) -> bool {
        self.get(option).is_some_and(|command| !command.trim().is_empty())
    }

    /// Whether an option of this name is set to true.
    pub fn is_set(&self, option: &str) -> bool {
        self.get(option) == Some("True")
    }

    /// Whether this text stands in any of them.
    pub fn mentions(&self, text: &str) -> bool {
        self.values.values().any(|value| value.contains(text))
    }

    /// Seconds that a command may take.
    pub fn timeout(&self) -> f64 {
        self.get("timeout").and_then(|seconds| seconds.parse().ok()).unwrap_or(60.0)
    }

    /// Whether something in it depends on the family of who is banned.
    pub fn is_conditional(&self) -> bool {
        self.values.keys().any(|name| {
            name.split_once("?family=").is_some_and(|(name, _)| {
                !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
            })
        })
    }

    /// Whether it is started by the first ban of a family instead of by its jail.
    pub fn starts_on_demand(&self) -> bool {
        match self.get("actionstart_on_demand") {
            Some(value) => value == "True",
            None => self.is_conditional(),
        }
    }

    /// A command for a family (`inet4`, `inet6`; anything else is none) with everything in it that is known without a
    /// ban. `more` is asked for tags that no option or parameter is named after; what it does not know stays.
    ///
    /// # Errors
    /// What in the command cannot be expanded.
    pub fn command(
        &self,
        option: &str,
        family: &str,
        more: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, PropertyError> {
        let values = self.read(family);
        let value = |tag: &str| -> Result<Option<String>, PropertyError> {
            match values.get(tag) {
                Some(Ok(Some(text))) => Ok(Some(text.as_str().to_owned())),
                Some(Err(error)) => Err(PropertyError::Expand(error.to_string())),
                Some(Ok(None)) | None => Ok(more(tag)),
            }
        };
        let mut command = value(option)?.unwrap_or_default();
        for _ in 0..MAX_ROUNDS {
            let mut fault = None;
            let after = replace(&command, |_, tag| match value(tag) {
                Ok(value) => value,
                Err(error) => {
                    fault = Some(error);
                    None
                }
            });
            if let Some(error) = fault {
                return Err(error);
            }
            let is_over = after == command || !after.contains('<');
            command = after;
            if is_over {
                return Ok(command);
            }
        }
        Err(PropertyError::Endless)
    }

    /// Values of parameters that look like passwords by their names, the longest first.
    pub fn secrets(&self) -> Vec<&str> {
        let secret = |name: &str| {
            let name = name.to_ascii_lowercase();
            !ACTION_OPTIONS.contains(&&*name) && SECRET.iter().any(|word| name.contains(word))
        };
        let values = self.values.iter().filter(|(name, _)| secret(name));
        let values = values.map(|(_, value)| value.trim());
        let mut secrets: Vec<&str> = values.filter(|it| it.len() >= SHORTEST_SECRET).collect();
        secrets.sort_by_key(|value| std::cmp::Reverse(value.len()));
        secrets
    }

    fn read(&self, family: &str) -> &Ordered<Lookup> {
        let which = FAMILIES.iter().position(|known| *known == family);
        self.read[which.map_or(0, |at| at + 1)].get_or_init(|| {
            let suffix = which.map(|at| format!("?family={}", FAMILIES[at]));
            let mut values = Ordered::default();
            let text = |value: &str| -> Result<Option<Text>, ExpandError> {
                Ok(Some(Text::new(value, None)))
            };
            for (name, value) in &self.values {
                // What is written for the family goes before what is written for all.
                let own = suffix.as_ref().and_then(|suffix| self.get(&format!("{name}{suffix}")));
                values.insert(name.clone(), text(own.unwrap_or(value)));
                if let Some(name) = suffix.as_ref().and_then(|suffix| name.strip_suffix(suffix)) {
                    values.insert_new(name, || text(value));
                }
            }
            tags::substitute(&mut values, &|tag| RUN_TIME.contains(&tag), &|_| Ok(None));
            Arc::new(values)
        })
    }
}

/// The text with its tags replaced by what `value` says of each; what it does not know stays. It is also told what
/// stands between the tag and the one replaced before. What comes in is not looked at.
pub fn replace(text: &str, mut value: impl FnMut(&str, &str) -> Option<String>) -> String {
    let (mut out, mut at, mut search) = (String::new(), 0, 0);
    while let Some((open, close)) = next_tag(text, search) {
        search = close + 1;
        if let Some(value) = value(&text[at..open], &text[open + 1..close]) {
            out.push_str(&text[at..open]);
            out.push_str(&value);
            at = search;
        }
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(given: &[(&str, &str)]) -> Properties {
        let given: Vec<(String, String)> =
            given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Properties::new(&given)
    }

    #[track_caller]
    fn check(given: &[(&str, &str)], family: &str, expect: Result<&str, PropertyError>) {
        let command = properties(given)
            .command("actionban", family, &|tag| (tag == "br").then(|| "\n".to_owned()));
        assert_eq!(command.as_deref(), expect.as_ref().copied());
    }

    #[test]
    fn options_and_parameters_are_put_into_one_another() {
        check(&[("actionban", "a <b> <ip>"), ("b", "<c>!"), ("c", "d")], "", Ok("a d! <ip>"));
        check(&[("actionban", "a<br><none> <b c>")], "", Ok("a\n<none> <b c>"));
        check(&[("actionban", "<<x>y>"), ("x", "z"), ("zy", "1")], "", Ok("1"));
        check(&[], "", Ok(""));
        check(
            &[("actionban", "<timeout> <norestored>"), ("timeout", "1m")],
            "",
            Ok("60 <norestored>"),
        );
        check(&[("actionban", "<norestored>"), ("norestored", "1")], "", Ok("True"));
        check(&[("actionban", "<bantime>"), ("bantime", "1")], "", Ok("<bantime>"));
    }

    #[test]
    fn what_is_written_for_a_family_goes_first() {
        let given = [
            ("actionban", "<tool> <set> <only>"),
            ("tool", "t"),
            ("tool?family=inet6", "t6"),
            ("set", "for-<tool>"),
            ("only?family=inet4", "four"),
        ];
        check(&given, "inet4", Ok("t for-t four"));
        check(&given, "inet6", Ok("t6 for-t6 <only>"));
        check(&given, "", Ok("t for-t <only>"));
        assert!(properties(&given).starts_on_demand());
        assert!(!properties(&given[..2]).starts_on_demand());
        let off = [given[2], ("actionstart_on_demand", "false")];
        assert!(!properties(&off).starts_on_demand() && properties(&off).is_conditional());
    }

    #[test]
    fn a_circle_is_a_fault_of_its_command_alone() {
        let given = [("actionban", "<a>"), ("a", "<b>"), ("b", "<a>"), ("actionunban", "fine")];
        assert!(matches!(
            properties(&given).command("actionban", "", &|_| None),
            Err(PropertyError::Expand(_))
        ));
        let other = properties(&given).command("actionunban", "", &|_| None);
        assert_eq!(other.as_deref(), Ok("fine"));
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        let given = [
            ("actionban", "curl <apikey>"),
            ("apikey", "abc"),
            ("cf_Token", "longer"),
            ("key", "ab"),
            ("password", ""),
            ("user", "somebody"),
        ];
        assert_eq!(properties(&given).secrets(), ["longer", "abc"]);
    }

    #[test]
    fn a_timeout_is_a_time() {
        assert_eq!(properties(&[("timeout", "2m")]).timeout(), 120.0);
        assert_eq!(properties(&[("timeout", "soon")]).timeout(), 60.0);
        assert_eq!(
            properties(&[]).set("timeout", "soon"),
            Err(PropertyError::Time("soon".to_owned()))
        );
    }
}
