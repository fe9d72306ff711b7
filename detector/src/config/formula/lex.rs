//! The words of a formula.
use super::{FormulaError, value::Value};

/// A word, with its character from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub at: usize,
    pub word: Word,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Number(Value),
    Name(String),
    Sign(&'static str),
    End,
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Word::Number(_) => f.write_str("a number"),
            Word::Name(name) => write!(f, "`{name}`"),
            Word::Sign(sign) => write!(f, "`{sign}`"),
            Word::End => f.write_str("the end"),
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 29] = [
    "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "+", "-", "*", "/", "%", "<", ">", "(", ")",
    "[", "]", ",", ".", "|", "^", "&", "~", "=", ":", "!", "@",
];

/// The words of a text, `End` last.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FormulaError> {
    let mut tokens = Vec::new();
    let (mut rest, mut at) = (text, 1);
    // Within brackets a formula may go on in the next line, as in Python.
    let mut depth = 0usize;
    while let Some(c) = rest.chars().next() {
        let (word, length) = match c {
            ' ' | '\t' | '\x0c' => (None, 1),
            '\n' | '\r' if depth > 0 || rest.trim().is_empty() => (None, 1),
            '#' => (None, rest.find('\n').unwrap_or(rest.len())),
            '0'..='9' => number(rest, at).map(|(number, length)| (Some(number), length))?,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                number(rest, at).map(|(number, length)| (Some(number), length))?
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                let name = &rest[..end.unwrap_or(rest.len())];
                (Some(Word::Name(name.to_owned())), name.len())
            }
            _ => {
                let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) else {
                    let why = match c {
                        '\n' | '\r' => "a new line outside brackets".to_owned(),
                        '"' | '\'' => "a text, where only numbers are known".to_owned(),
                        c => format!("`{}` has no meaning", c.escape_default()),
                    };
                    return Err(FormulaError { at, why });
                };
                match *sign {
                    "(" | "[" => depth += 1,
                    ")" | "]" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                (Some(Word::Sign(sign)), sign.len())
            }
        };
        tokens.extend(word.map(|word| Token { at, word }));
        at += rest[..length].chars().count();
        rest = &rest[length..];
    }
    tokens.push(Token { at, word: Word::End });
    Ok(tokens)
}

/// A number and how many bytes it has: `600`, `1_000`, `0x10`, `.5`, `2.`, `1e3`.
fn number(text: &str, at: usize) -> Result<(Word, usize), FormulaError> {
    let wrong = |length: usize| {
        let why = format!("`{}` is no number", &text[..length]);
        Err(FormulaError { at, why })
    };
    let bytes = text.as_bytes();
    let mut length = 0;
    let digits = |mut length: usize, is: fn(&u8) -> bool| {
        let more = |length: usize| bytes.get(length).is_some_and(is);
        // An underscore stands between two digits only.
        while more(length) || (length > 0 && bytes.get(length) == Some(&b'_') && more(length + 1)) {
            length += 1;
        }
        length
    };
    let radix = match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => Some((16, u8::is_ascii_hexdigit as fn(&u8) -> bool)),
        Some("0o") => Some((8, (|c: &u8| matches!(c, b'0'..=b'7')) as fn(&u8) -> bool)),
        Some("0b") => Some((2, (|c: &u8| matches!(c, b'0' | b'1')) as fn(&u8) -> bool)),
        _ => None,
    };
    let value = if let Some((radix, is)) = radix {
        length = digits(2, is);
        let plain = text[2..length].replace('_', "");
        i128::from_str_radix(&plain, radix).map(Value::Int).ok()
    } else {
        length = digits(length, u8::is_ascii_digit);
        let whole = length;
        if bytes.get(length) == Some(&b'.') {
            length += 1;
            if bytes.get(length).is_some_and(u8::is_ascii_digit) {
                length = digits(length, u8::is_ascii_digit);
            }
        }
        if bytes.get(length).is_some_and(|c| matches!(c, b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
            if bytes.get(length + 1 + sign).is_some_and(u8::is_ascii_digit) {
                length = digits(length + 1 + sign, u8::is_ascii_digit);
            }
        }
        let plain = text[..length].replace('_', "");
        if length > whole {
            plain.parse().map(Value::Float).ok()
        } else if plain.len() > 1 && plain.starts_with('0') && plain.bytes().any(|c| c != b'0') {
            None
        } else {
            plain.parse().map(Value::Int).or_else(|_| plain.parse().map(Value::Float)).ok()
        }
    };
    // `2j`, `1m`, `0x`, `1_`: nothing that could be a word follows a number at once.
    let word = text[length..].find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let word = word.unwrap_or(text.len() - length);
    // Python takes `1if x else 2`; nobody writes it.
    match value {
        Some(value) if word == 0 => Ok((Word::Number(value), length)),
        _ => wrong(length + word),
    }
}
