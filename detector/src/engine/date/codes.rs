//! `%` codes: the letters of strptime with fail2ban's own, looser, patterns.
//!
//! Digits are those of ASCII: dates in other scripts' digits nobody could read as numbers here, and each
//! class that knows all scripts costs kilobytes.

/// Letters that no code has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has `%{0}`, which means nothing in a date pattern")]
pub struct UnknownCode(pub String);

const MONTHS: &str = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec";
const MONTHS_WHOLE: &str =
    "January|February|March|April|May|June|July|August|September|October|November|December";
const DAYS: &str = "Mon|Tue|Wed|Thu|Fri|Sat|Sun";
const DAYS_WHOLE: &str = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday";
const ABBREVIATION: &str = "[A-Z](?:[A-Z]{2,4})?";

/// `text` with its codes as named groups, and whether names of days or months make it deaf to case.
///
/// `%ExY` takes years of this century up to the decade of `year` + 3.
pub(super) fn expand(text: &str, year: i16) -> Result<(String, bool), UnknownCode> {
    let mut out = String::with_capacity(text.len() * 4);
    let mut named = false;
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let length = if rest.starts_with("Ex") { 3 } else { 1 };
        let code: String = rest.chars().take(length).collect();
        rest = &rest[code.len()..];
        named |= matches!(code.as_str(), "a" | "A" | "b" | "B" | "p" | "c");
        let composed = match code.as_str() {
            "c" => Some("%a %b %d %H:%M:%S %Y"),
            "x" => Some("%m/%d/%y"),
            "X" => Some("%H:%M:%S"),
            _ => None,
        };
        match composed {
            Some(text) => out.push_str(&expand(text, year)?.0),
            None => out.push_str(&group(&code, year).ok_or(UnknownCode(code))?),
        }
    }
    out.push_str(rest);
    Ok((out, named))
}

fn group(code: &str, year: i16) -> Option<String> {
    let (name, pattern) = match code {
        "%" => return Some("%".to_owned()),
        "Y" => ("Y", r"[0-9]{4}".to_owned()),
        "ExY" => ("Y", format!(r"20[0-{}][0-9]", ((year + 3) / 10 % 10).max(2))),
        "y" | "Exy" => ("y", r"[0-9]{2}".to_owned()),
        "m" => ("m", "0?[1-9]|1[0-2]".to_owned()),
        "Exm" => ("m", "0[1-9]|1[0-2]".to_owned()),
        "d" => ("d", r"[1-2][0-9]|[0 ]?[1-9]|3[0-1]".to_owned()),
        "Exd" => ("d", r"[1-2][0-9]|0[1-9]|3[0-1]".to_owned()),
        "H" => ("H", r"[0-1]?[0-9]|2[0-3]".to_owned()),
        "ExH" => ("H", r"[0-1][0-9]|2[0-3]".to_owned()),
        "k" => ("H", r" ?[0-2]?[0-9]".to_owned()),
        "Exk" => ("H", r" ?[0-1]?[0-9]|2[0-3]".to_owned()),
        "I" => ("I", "1[0-2]|0[1-9]|[1-9]".to_owned()),
        "l" => ("I", r" ?1?[0-9]".to_owned()),
        "Exl" => ("I", r" ?1[0-2]|[0-9]".to_owned()),
        "M" => ("M", r"[0-5]?[0-9]".to_owned()),
        "ExM" => ("M", r"[0-5][0-9]".to_owned()),
        "S" => ("S", r"[0-5]?[0-9]|6[0-1]".to_owned()),
        "ExS" => ("S", r"[0-5][0-9]|6[0-1]".to_owned()),
        "f" => ("f", "[0-9]{1,6}".to_owned()),
        "p" => ("p", "am|pm".to_owned()),
        "a" => ("a", DAYS.to_owned()),
        "A" => ("A", DAYS_WHOLE.to_owned()),
        "b" => ("b", MONTHS.to_owned()),
        "B" => ("B", MONTHS_WHOLE.to_owned()),
        "z" => ("z", r"Z|UTC|GMT|[+-][01][0-9](?::?[0-9]{2})?".to_owned()),
        "Exz" => {
            ("z", format!(r"(?:{ABBREVIATION})?[+-][01][0-9](?::?[0-9]{{2}})?|{ABBREVIATION}"))
        }
        "Z" => ("Z", "Z|[A-Z]{3,5}".to_owned()),
        "ExZ" => ("Z", ABBREVIATION.to_owned()),
        "j" => (
            "j",
            r"36[0-6]|3[0-5][0-9]|[1-2][0-9][0-9]|0[1-9][0-9]|00[1-9]|[1-9][0-9]|0[1-9]|[1-9]"
                .to_owned(),
        ),
        "U" => ("U", r"5[0-3]|[0-4][0-9]|[0-9]".to_owned()),
        "W" => ("W", r"5[0-3]|[0-4][0-9]|[0-9]".to_owned()),
        "w" => ("w", "[0-6]".to_owned()),
        "G" => ("G", r"[0-9]{4}".to_owned()),
        "u" => ("u", "[1-7]".to_owned()),
        "V" => ("V", r"5[0-3]|0[1-9]|[1-4][0-9]|[0-9]".to_owned()),
        _ => return None,
    };
    Some(format!("(?P<{name}>{pattern})"))
}
