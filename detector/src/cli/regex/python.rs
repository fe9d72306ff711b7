//! Values as Python prints them, which scripts around fail2ban-regex read.
use std::fmt::Write;

/// A string in quotes: single ones, unless only these stand in it.
pub(super) fn string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c == quote => {
                shown.push('\\');
                shown.push(c);
            }
            // Writing to a string does not fail.
            c if (c as u32) < 0x20 || c == '\x7f' => drop(write!(shown, "\\x{:02x}", c as u32)),
            c => shown.push(c),
        }
    }
    shown.push(quote);
    shown
}

/// A dictionary of strings.
pub(super) fn dict(pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{}: {}", string(name), string(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

/// Seconds since the epoch, always with a fraction.
pub(super) fn seconds(at: crate::engine::Timestamp) -> String {
    format!("{:?}", at.micros() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_look_as_in_python() {
        for (text, shown) in [
            ("a", "'a'"),
            ("it's", "\"it's\""),
            ("it's \"x\"", "'it\\'s \"x\"'"),
            ("a\\b\n\x01é", "'a\\\\b\\n\\x01é'"),
        ] {
            assert_eq!(string(text), shown);
        }
        assert_eq!(seconds(crate::engine::Timestamp::from_seconds(7)), "7.0");
        assert_eq!(seconds(crate::engine::Timestamp::from_micros(1_500_000)), "1.5");
    }
}
