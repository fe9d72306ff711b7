//! Date templates as fail2ban-regex shows them: words for codes.
use super::{Detector, template::LINE_BEGIN};

/// Codes with their words; what is not here is shown as it is.
const WORDS: [(char, &str); 24] = [
    ('Y', "Year"),
    ('y', "Year2"),
    ('m', "Month"),
    ('d', "Day"),
    ('H', "24hour"),
    ('I', "12hour"),
    ('M', "Minute"),
    ('S', "Second"),
    ('p', "AMPM"),
    ('f', "Microseconds"),
    ('z', "Zone offset"),
    ('Z', "Zone name"),
    ('a', "DAY"),
    ('A', "DAYNAME"),
    ('b', "MON"),
    ('B', "MONTH"),
    ('j', "Yearday"),
    ('U', "Yearweek"),
    ('W', "Yearweek"),
    ('w', "Weekday"),
    ('l', "12hour"),
    ('c', "Date and time"),
    ('x', "Date"),
    ('X', "Time"),
];

impl Detector {
    /// The templates in the order in which they are tried, and how often each was found.
    pub(crate) fn shown(&self) -> Vec<(String, u64)> {
        self.templates.iter().map(|template| (notation(&template.name), template.hits)).collect()
    }
}

/// A template as fail2ban writes it.
fn notation(name: &str) -> String {
    // Where the day stands first no dot may follow.
    let separator = if name.contains("%d{sep}%") { "(?P<_sep>[-/])" } else { "(?P<_sep>[-/.])" };
    let name = name.replacen("{sep}", separator, 1).replace("{sep}", "(?P=_sep)");
    match name.strip_prefix(LINE_BEGIN) {
        Some(rest) => format!("{{^LN-BEG}}{rest}"),
        None => name,
    }
}

/// A date pattern with words for its codes, as fail2ban-regex shows it.
pub fn in_words(name: &str) -> String {
    let bare = name.strip_prefix("{^LN-BEG}").unwrap_or(name);
    let start = &name[..name.len() - bare.len()];
    match bare.to_ascii_uppercase().as_str() {
        "EPOCH" => return format!("{start}Epoch"),
        "LEPOCH" => return format!("{start}LongEpoch"),
        _ => {}
    }
    let mut shown = String::new();
    let mut rest = name;
    while let Some(at) = rest.find('%') {
        shown.push_str(&rest[..at]);
        let code = &rest[at + 1..];
        let (extra, code) = match code.strip_prefix("Ex") {
            Some(code) => ("Ex", code),
            None => ("", code),
        };
        let word = code.chars().next().and_then(|c| WORDS.iter().find(|(code, _)| *code == c));
        match word {
            Some((code_char, word)) => {
                shown.push_str(extra);
                shown.push_str(word);
                rest = &code[code_char.len_utf8()..];
            }
            None => {
                shown.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_words() {
        for (name, shown) in [
            ("%Y-%m-%d", "Year-Month-Day"),
            ("EPOCH", "Epoch"),
            ("{^LN-BEG}EPOCH", "{^LN-BEG}Epoch"),
            ("{^LN-BEG}%ExY{sep}%m{sep}%d", "{^LN-BEG}ExYear(?P<_sep>[-/.])Month(?P=_sep)Day"),
            ("%d{sep}%b{sep}%ExY", "Day(?P<_sep>[-/])MON(?P=_sep)ExYear"),
            (r"^(?:\W{0,2})?%H:%M:%S", "{^LN-BEG}24hour:Minute:Second"),
            ("%k %Q 100%", "%k %Q 100%"),
            ("(?: %z)", "(?: Zone offset)"),
        ] {
            assert_eq!(in_words(&notation(name)), shown);
        }
    }
}
