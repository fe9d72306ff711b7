//! Spans of time as jail files write them: `600`, `10m`, `1d 12h`, `5*60`.

/// Longest text that is looked at.
const MAX_LENGTH: usize = 200;
/// What may stand anywhere between numbers and signs; line ends within brackets alone.
const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];
/// Deepest nesting of brackets and signs.
const MAX_DEPTH: u8 = 20;

/// A text that names no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no span of time")]
pub struct SpanError(pub String);

/// Names of units, and what fail2ban writes for them: what follows may go on from there.
const UNITS: [(&[&str], &str); 7] = [
    (&["d", "dd", "da", "day", "days"], "*86400"),
    (&["w", "ww", "we", "wee", "week", "weeks"], "*604800"),
    (&["mo", "mon", "month", "months"], "*2629800.0"),
    (&["y", "yy", "ye", "yea", "year", "years"], "*31557600.0"),
    (&["s", "ss", "se", "sec", "second", "seconds"], "*1"),
    (&["m", "mm", "mi", "min", "minute", "minutes"], "*60"),
    (&["h", "hh", "ho", "hou", "hour", "hours"], "*3600"),
];

/// Seconds named by a text in fail2ban's time grammar, possibly negative or with a fraction.
///
/// Units may be mixed and blanks between two numbers add; `+ - * / // % **` and brackets calculate. A month is a
/// twelfth of a year of 365.25 days.
///
/// ```
/// # use fail2xdp::config::seconds;
/// assert_eq!(seconds("1d12h30m"), Ok(131_400.0));
/// assert_eq!(seconds("(1h+1)*2"), Ok(7_202.0));
/// assert!(seconds("10 parsecs").is_err());
/// ```
pub fn seconds(text: &str) -> Result<f64, SpanError> {
    let fault = || SpanError(text.chars().take(MAX_LENGTH).collect());
    if text.len() > MAX_LENGTH {
        return Err(fault());
    }
    let chars = with_units(text);
    // As Python does: blanks before the first line, empty lines before and behind.
    let chars = chars.trim_start_matches(BLANKS).trim_end_matches('\n');
    let line = chars.trim_start_matches('\n');
    let is_indented = line.starts_with(BLANKS);
    let mut calculation = Calculation { rest: line, depth: 0, brackets: 0 };
    let value = calculation.sum().filter(|value| value.is_finite() && !is_indented);
    let value = value.ok_or_else(fault)?;
    if calculation.next().is_some() { Err(fault()) } else { Ok(value) }
}

/// A span in the words of fail2ban's log, of three units at most: `59m 50s`, `1h`, `2d 7h 15m`, `1y 3w 4d`. A year is
/// 365 days here; what is long is rounded.
///
/// ```
/// # use fail2xdp::config::span_in_words;
/// assert_eq!(span_in_words(1200), "20m");
/// assert_eq!(span_in_words(86_400 * 2 + 3_599), "2d 1h");
/// ```
pub fn span_in_words(seconds: u64) -> String {
    /// From so many seconds on: what is rounded to, and units of it.
    type Style = (u64, u64, &'static [(u64, &'static str)]);
    const STYLES: [Style; 5] = [
        (31_536_000, 86_400, &[(365, "y"), (7, "w"), (1, "d")]),
        (604_800, 3_600, &[(168, "w"), (24, "d"), (1, "h")]),
        (86_400, 60, &[(1_440, "d"), (60, "h"), (1, "m")]),
        (3_595, 10, &[(360, "h"), (6, "m")]),
        (0, 1, &[(60, "m"), (1, "s")]),
    ];
    let style = STYLES.iter().find(|(from, ..)| seconds >= *from).unwrap_or(&STYLES[4]);
    let (_, step, units) = style;
    let mut left = (seconds as f64 / *step as f64).round_ties_even() as u64;
    let mut words = Vec::new();
    for (size, name) in *units {
        if left >= *size {
            words.push(format!("{}{name}", left / size));
            left %= size;
        }
    }
    if words.is_empty() { "0".to_owned() } else { words.join(" ") }
}

/// The text with each unit as a factor and a `+` between two numbers.
fn with_units(text: &str) -> String {
    let mut spaced = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        // `1d12h`: a number begins after a letter.
        if c.is_ascii_digit() && spaced.ends_with(char::is_alphabetic) {
            spaced.push(' ');
        }
        spaced.push(c);
    }
    let mut replaced = String::new();
    let mut rest = spaced.as_str();
    while let Some(c) = rest.chars().next() {
        let word: &str = match rest.find(|c: char| !(c.is_alphanumeric() || c == '_')) {
            Some(end) => &rest[..end],
            None => rest,
        };
        let letters = word.rsplit(|c: char| c.is_ascii_digit()).next().unwrap_or(word);
        let unit = UNITS.iter().find(|(names, _)| names.contains(&letters));
        let after_number =
            letters.len() < word.len() || replaced.ends_with(|c: char| c.is_whitespace());
        if let Some((_, seconds)) = unit.filter(|_| after_number) {
            replaced.push_str(&word[..word.len() - letters.len()]);
            replaced.push_str(seconds);
            rest = &rest[word.len()..];
        } else {
            let length = word.len().max(c.len_utf8());
            replaced.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    joined(&replaced)
}

/// Writes `+` for the blanks between two digits; the second digit is not looked at again.
fn joined(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut joined = String::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        joined.push(c);
        at += 1;
        let blanks = chars[at..].iter().take_while(|c| c.is_whitespace()).count();
        if c.is_ascii_digit()
            && blanks > 0
            && let Some(&next) = chars.get(at + blanks).filter(|c| c.is_ascii_digit())
        {
            joined.push('+');
            joined.push(next);
            at += blanks + 1;
        }
    }
    joined
}

/// An arithmetic expression, read from the left with Python's precedence.
struct Calculation<'a> {
    rest: &'a str,
    depth: u8,
    /// How many are open.
    brackets: u32,
}

impl Calculation<'_> {
    fn next(&mut self) -> Option<char> {
        let is_blank = |c: char| BLANKS.contains(&c) || c == '\n' && self.brackets > 0;
        self.rest = self.rest.trim_start_matches(is_blank);
        self.rest.chars().next()
    }

    fn take(&mut self, sign: &str) -> bool {
        self.next();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.signed()?;
        loop {
            if self.take("//") {
                value = (value / self.signed()?).floor();
            } else if self.take("/") {
                value /= self.signed()?;
            } else if self.take("%") {
                let divisor = self.signed()?;
                value -= (value / divisor).floor() * divisor;
            } else if self.take("*") {
                value *= self.signed()?;
            } else {
                return Some(value);
            }
        }
    }

    fn signed(&mut self) -> Option<f64> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let value = match (self.take("-"), self.take("+")) {
            (true, false) => self.signed().map(|value| -value),
            (false, true) => self.signed(),
            (true, true) => self.signed().map(|value| -value),
            (false, false) => self.power(),
        };
        self.depth -= 1;
        value
    }

    fn power(&mut self) -> Option<f64> {
        let base = if self.take("(") {
            self.brackets += 1;
            let value = self.sum()?;
            let is_closed = self.take(")");
            self.brackets -= 1;
            is_closed.then_some(value)?
        } else {
            self.number()?
        };
        if self.take("**") { Some(base.powf(self.signed()?)) } else { Some(base) }
    }

    fn number(&mut self) -> Option<f64> {
        self.next();
        let end = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let whole = !number.contains('.');
        let leading_zero =
            whole && number.starts_with('0') && !number.trim_start_matches('0').is_empty();
        let stray = ["__", "._", "_."].iter().any(|stray| number.contains(stray));
        if leading_zero || stray || number.starts_with('_') || number.ends_with('_') {
            return None;
        }
        self.rest = rest;
        number.replace('_', "").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: f64) {
        assert_eq!(seconds(text), Ok(expect), "{text}");
    }

    #[test]
    fn spans_are_read_as_fail2ban_reads_them() {
        for ten_minutes in ["600", "10m", "10 M", " 10 min ", "5*120", "10minutes", "10 mi"] {
            check(ten_minutes, 600.0);
        }
        check("1d12h30m", 131_400.0);
        check("1d 12h 30m", 131_400.0);
        check("1h 30", 3_630.0);
        check("1h30", 3_630.0);
        check("30 1h", 3_630.0);
        check("1y 6mo", 47_336_400.0);
        check("1y-6mo", 15_778_800.0);
        check("1.5h", 5_400.0);
        check("1hour+30min", 5_400.0);
        check("-1", -1.0);
        check("- 1", -1.0);
        check("+5", 5.0);
        check("--1", 1.0);
        check("-1h", -3_600.0);
        check("(1h+1)*2", 7_202.0);
        check("2 * 3m", 360.0);
        check("1h*2", 7_200.0);
        check("2**10", 1_024.0);
        check("-2**2", -4.0);
        check("2**-1", 0.5);
        check("5//2", 2.0);
        check("7%4", 3.0);
        check("1_000", 1_000.0);
        check(".5", 0.5);
        check("1d1h1m1s", 90_061.0);
        check("1m 1s 1s", 62.0);
        check("3 min 4 sec", 184.0);
        check("1d 2h 3", 93_603.0);
        check("5 5 m", 305.0);
        check("1w", 604_800.0);
        check("2weeks", 1_209_600.0);
        check("0", 0.0);
    }

    #[test]
    fn everything_else_is_refused() {
        let deep = "(".repeat(100) + "1" + &")".repeat(100);
        for text in [
            "",
            " ",
            "h",
            "1ddd",
            "1minut",
            "010",
            "1 2 3",
            "1e3",
            "0x10",
            "1,5",
            "(1h)(2)",
            "1/0",
            "9**9**9",
            "10 parsecs",
            "(1",
            "1)",
            "1 +",
            "ten",
            "1__0",
            "_1",
            "__import__('os')",
            "1_h",
            "\u{661}h",
            &deep,
            &"9".repeat(1000),
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_told_as_fail2ban_tells_them() {
        let told = [
            (0, "0"),
            (59, "59s"),
            (3590, "59m 50s"),
            (3595, "1h"),
            (86_400 * 2 + 3_600 * 7 + 60 * 15, "2d 7h 15m"),
            (86_400 * 9 + 3_600, "1w 2d 1h"),
            (86_400 * 390, "1y 3w 4d"),
            (86_400 * 368, "1y 3d"),
        ];
        for (seconds, words) in told {
            assert_eq!(span_in_words(seconds), words);
        }
    }
}
