//! Values as Python writes them.
use std::fmt::{self, Write};

use serde::{Serialize, Serializer};

/// A Python literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `'text'`
    Text(String),
    /// A whole number, with as many digits as were written; one with a point or an exponent is a float.
    Number(String),
    /// `True` or `False`
    Truth(bool),
    /// `None`
    Nothing,
    /// `[…]`
    List(Vec<Value>),
    /// `(…)`
    Tuple(Vec<Value>),
    /// `{…}`
    Map(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Truth(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number.to_string())
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Nothing,
            serde_json::Value::Bool(truth) => Value::Truth(truth),
            serde_json::Value::Number(number) => Value::Number(number.to_string()),
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(values) => {
                Value::List(values.into_iter().map(Value::from).collect())
            }
            serde_json::Value::Object(entries) => {
                Value::Map(entries.into_iter().map(|(name, value)| (name, value.into())).collect())
            }
        }
    }
}

/// As JSON, which knows no tuples: they are lists there.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => to.serialize_str(text),
            Value::Number(number) => match (number.parse::<i64>(), number.parse::<f64>()) {
                (Ok(whole), _) => to.serialize_i64(whole),
                (_, Ok(float)) => to.serialize_f64(float),
                _ => to.serialize_str(number),
            },
            Value::Truth(truth) => to.serialize_bool(*truth),
            Value::Nothing => to.serialize_unit(),
            Value::List(values) | Value::Tuple(values) => to.collect_seq(values),
            Value::Map(entries) => {
                to.collect_map(entries.iter().map(|(name, value)| (name, value)))
            }
        }
    }
}

impl Value {
    /// A whole number as Python's `int` reads it, else `None`: `+5`, `1_000` and ` 7 ` are numbers.
    pub fn number(text: &str) -> Value {
        let text = text.trim();
        let (sign, digits) = match text.strip_prefix(['+', '-']) {
            Some(digits) => (if text.starts_with('-') { "-" } else { "" }, digits),
            None => ("", text),
        };
        let grouped = digits.split('_').all(|group| !group.is_empty());
        let plain: String = digits.chars().filter(|c| *c != '_').collect();
        if !grouped || !plain.bytes().all(|b| b.is_ascii_digit()) {
            return Value::Nothing;
        }
        match plain.trim_start_matches('0') {
            "" => Value::Number("0".to_owned()),
            significant => Value::Number(format!("{sign}{significant}")),
        }
    }

    /// The value as JSON: what a Python action gets as its arguments. Letters beyond ASCII are escaped.
    pub(super) fn json(options: &[(String, String)]) -> String {
        let mut json = String::from("{");
        for (nth, (name, value)) in options.iter().enumerate() {
            if nth > 0 {
                json.push_str(", ");
            }
            json_text(name, &mut json);
            json.push_str(": ");
            json_text(value, &mut json);
        }
        json.push('}');
        json
    }
}

fn json_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a String takes all text");
                }
            }
        }
    }
    out.push('"');
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write_text(text, f),
            Value::Number(number) => f.write_str(number),
            Value::Truth(true) => f.write_str("True"),
            Value::Truth(false) => f.write_str("False"),
            Value::Nothing => f.write_str("None"),
            Value::List(values) => {
                f.write_char('[')?;
                for (nth, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if nth > 0 { ", " } else { "" })?;
                }
                f.write_char(']')
            }
            Value::Tuple(values) => {
                f.write_char('(')?;
                for (nth, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if nth > 0 { ", " } else { "" })?;
                }
                f.write_str(if values.len() == 1 { ",)" } else { ")" })
            }
            Value::Map(entries) => {
                f.write_char('{')?;
                for (nth, (name, value)) in entries.iter().enumerate() {
                    f.write_str(if nth > 0 { ", " } else { "" })?;
                    write_text(name, f)?;
                    write!(f, ": {value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    f.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if !is_printed(c) => match u32::from(c) {
                code @ ..=0xff => write!(f, "\\x{code:02x}")?,
                code @ ..=0xffff => write!(f, "\\u{code:04x}")?,
                code => write!(f, "\\U{code:08x}")?,
            },
            c => f.write_char(c)?,
        }
    }
    f.write_char(quote)
}

/// Whether Python writes the character itself: no control or format character, no separator but the blank, nothing
/// private. The rare ranges that Unicode has not assigned are written as they are, unlike there.
fn is_printed(c: char) -> bool {
    let code = u32::from(c);
    let format = matches!(
        code,
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x8e2 | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
            | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe007f
    );
    let private = matches!(code, 0xe000..=0xf8ff | 0xf0000..=0x10ffff);
    c == ' ' || !(c.is_control() || c.is_whitespace() || format || private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(Value::from(text).to_string(), expect);
    }

    #[test]
    fn text_is_quoted_as_python_quotes_it() {
        check("a", "'a'");
        check("it's", "\"it's\"");
        check("it's \"q\"", "'it\\'s \"q\"'");
        check("\"q\"", "'\"q\"'");
        check("\\d\n\t\r", "'\\\\d\\n\\t\\r'");
        check("\0\u{7f}\u{a0}\u{e9}\u{200b}", "'\\x00\\x7f\\xa0\u{e9}\\u200b'");
        check("\u{1f600}\u{10ffff}", "'\u{1f600}\\U0010ffff'");
    }

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        let number = |text| Value::number(text).to_string();
        assert_eq!(
            ["+5", " 1_000 ", "-3", "007", "-0", "99999999999999999999"].map(number),
            ["5", "1000", "-3", "7", "0", "99999999999999999999"]
        );
        assert_eq!(["", "five", "5.0", "0x10", "1__0", "_1", "+", "- 1"].map(number), ["None"; 8]);
    }

    #[test]
    fn containers_and_json() {
        let list = Value::List(vec![Value::Truth(true), Value::Nothing, Value::from("x")]);
        assert_eq!(list.to_string(), "[True, None, 'x']");
        let map = Value::Map(vec![("stacksize".into(), Value::number("32"))]);
        assert_eq!(map.to_string(), "{'stacksize': 32}");
        let options = [("a".to_owned(), "\u{e9}\"\\\t\u{1f600}".to_owned())];
        assert_eq!(Value::json(&options), r#"{"a": "\u00e9\"\\\t\ud83d\ude00"}"#);
        assert_eq!(Value::json(&[]), "{}");
    }
}
