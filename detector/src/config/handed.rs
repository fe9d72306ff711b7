//! What fail2ban reads of a jail before it looks at anything: all of it is handed on to the filter and the actions.
use super::{
    Severity, Value,
    definition::Handed,
    filter::{FilterFiles, OPTIONS as FILTER},
    jail::{Jail, Refused, is_true},
    text::Text,
};

/// How an option is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Truth,
    Words,
}

/// A jail's options that fail2ban's server is told, in this order, but for those of its filter.
pub(super) const OPTIONS: [(&str, Kind); 17] = [
    ("maxretry", Kind::Number),
    ("maxmatches", Kind::Number),
    ("findtime", Kind::Text),
    ("bantime", Kind::Text),
    ("bantime.increment", Kind::Truth),
    ("bantime.factor", Kind::Text),
    ("bantime.formula", Kind::Text),
    ("bantime.multipliers", Kind::Text),
    ("bantime.maxtime", Kind::Text),
    ("bantime.rndtime", Kind::Text),
    ("bantime.overalljails", Kind::Truth),
    ("ignorecommand", Kind::Text),
    ("ignoreself", Kind::Truth),
    ("ignoreip", Kind::Words),
    ("ignorecache", Kind::Text),
    ("logtimezone", Kind::Text),
    ("logencoding", Kind::Text),
];

impl Jail<'_, '_> {
    /// What a filter's first reading knows of its jail.
    pub(super) fn handed_first(&mut self) -> Handed {
        let mut handed = Handed::default();
        handed.insert("enabled".to_owned(), Some(Text::new("True", None)));
        for (option, default) in [("backend", "auto"), ("filter", "")] {
            let text = self.text(option, None).ok().flatten();
            let text = text.unwrap_or_else(|| Text::new(default, None));
            handed.insert(option.to_owned(), Some(text));
        }
        handed
    }

    /// Hands all options on to the filter's second reading; answers with them, for the actions.
    ///
    /// # Errors
    /// When one cannot be expanded, for which fail2ban would not start: every such option is told.
    pub(super) fn hand_on(&mut self, filter: Option<&mut FilterFiles>) -> Result<Handed, Refused> {
        let handed = self.handed(filter.as_deref())?;
        if let Some(files) = filter {
            files.read_again(&handed);
        }
        Ok(handed)
    }

    fn handed(&mut self, filter: Option<&FilterFiles>) -> Result<Handed, Refused> {
        let mut handed = self.handed_first();
        handed.insert("action".to_owned(), Some(Text::new("", None)));
        let mut result = Ok(());
        let texts = ["filter", "backend", "logpath", "action"].map(|option| (option, Kind::Text));
        let of_filter = FILTER.map(|option| match option {
            "maxlines" => (option, Kind::Number),
            _ => (option, Kind::Text),
        });
        for (option, kind) in texts.into_iter().chain(OPTIONS).chain(of_filter) {
            let text = match self.text(option, filter) {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(refused) => {
                    result = Err(refused);
                    continue;
                }
            };
            if let Some(stranger) = self.stranger.take() {
                let what = format!(
                    "`{option}` takes {stranger} from the filter, of which fail2ban would not start"
                );
                let remedy = "nothing need be done here; for fail2ban's sake write the value out";
                self.tell(Severity::Warning, text.place(), what, remedy);
            }
            let shown = |value: Value| Text::new(&value.to_string(), text.place());
            let value = match kind {
                Kind::Text | Kind::Words => Some(text),
                Kind::Truth => Some(shown(is_true(text.as_str()).into())),
                Kind::Number => match Value::number(text.as_str()) {
                    Value::Nothing => None,
                    number => Some(shown(number)),
                },
            };
            handed.insert(option.to_owned(), value);
        }
        result.map(|()| handed)
    }
}
