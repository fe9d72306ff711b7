//! `name[param=value, …]`: filters, actions and backends with their parameters.
use std::sync::LazyLock;

use regex::Regex;

use super::{ordered::Options, text::Text};

/// A name with its parameters, values trimmed and without quotes. Of a parameter given twice the last counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) params: Options,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParamError {
    #[error("`{call}` has no `]` at its end")]
    NotClosed { call: String },
    #[error("`{call}` has no name before its brackets")]
    NoName { call: String },
    #[error("`{}` in `{call}` is no parameter", found.trim())]
    NoParameter { call: String, at: usize, found: String },
    #[error("`{}` in `{call}` follows the value of `{param}` without a comma", found.trim())]
    NoComma { call: String, at: usize, param: String, found: String },
}

/// How much of what was found is shown, in characters, as in fail2ban.
const SHOWN: usize = 25;

impl ParamError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        "write it as `name[param=value, other=\"value, with a comma\"]`"
    }

    /// The same in fail2ban's words.
    pub(super) fn as_fail2ban(&self) -> String {
        match self {
            ParamError::NotClosed { .. } | ParamError::NoName { .. } => {
                "unexpected option syntax".to_owned()
            }
            ParamError::NoParameter { at, found, .. } => {
                format!("expected option, wrong syntax at {at}: {found}")
            }
            ParamError::NoComma { at, param, found, .. } => {
                format!("unexpected syntax at {at} after option '{param}': {found}")
            }
        }
    }
}

/// Reads one call.
pub(super) fn read(text: &Text) -> Result<Call, ParamError> {
    let chars = text.as_str().trim();
    let call = || shortened(chars);
    let Some(bracket) = chars.find('[') else {
        return Ok(Call { name: chars.to_owned(), params: Options::default() });
    };
    let name = chars[..bracket].trim().to_owned();
    if name.is_empty() {
        return Err(ParamError::NoName { call: call() });
    }
    let Some(inner) = chars[bracket + 1..].strip_suffix(']') else {
        return Err(ParamError::NotClosed { call: call() });
    };
    // All ranges below are into `inner`; `shift` makes them ranges into `text`.
    let shift = text.len() - text.as_str().trim_start().len() + bracket + 1;
    let mut params = Options::default();
    let mut at = 0;
    while !inner[at..].trim().is_empty() {
        let rest = &inner[at..];
        let key_end = rest.find('=').ok_or_else(|| no_parameter(call(), inner, at))?;
        let key = rest[..key_end].trim();
        let plain = key.split_once('?').map_or(key, |(key, _)| key);
        if plain.is_empty()
            || !plain.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
        {
            return Err(no_parameter(call(), inner, at));
        }
        let begin = at;
        at += key_end + 1;
        // `x?family=inet6=value`: the condition holds a `=` of its own.
        let mut key = key.to_owned();
        if key.contains('?') {
            let condition_end =
                inner[at..].find('=').ok_or_else(|| no_parameter(call(), inner, begin))?;
            key = format!("{key}={}", inner[at..at + condition_end].trim());
            at += condition_end + 1;
        }
        let (value, end) = value(inner, at);
        let value = trimmed(inner, value);
        params.insert(key.clone(), text.slice(shift + value.start..shift + value.end));
        at = end;
        match next_separator(&inner[at..]) {
            Some(length) => at += length,
            None => {
                let (at, found) = shown(inner, at);
                return Err(ParamError::NoComma { call: call(), at, param: key, found });
            }
        }
    }
    Ok(Call { name, params })
}

fn no_parameter(call: String, inner: &str, at: usize) -> ParamError {
    let (at, found) = shown(inner, at);
    ParamError::NoParameter { call, at, found }
}

/// Where something wrong stands, in characters, and how it begins.
fn shown(inner: &str, at: usize) -> (usize, String) {
    (inner[..at].chars().count(), inner[at..].chars().take(SHOWN).collect())
}

/// The value that begins at `at`, and where it ends with its quotes. A quote that is never closed belongs to it; so does
/// one behind blanks, which fail2ban does not take for a quote, where reading it as one would lead nowhere.
fn value(inner: &str, at: usize) -> (std::ops::Range<usize>, usize) {
    let start = at + inner[at..].len() - inner[at..].trim_start().len();
    if let Some(quote) = inner[start..].chars().next().filter(|c| matches!(c, '"' | '\''))
        && let Some(length) = inner[start + 1..].find(quote)
    {
        let end = start + length + 2;
        if start == at || next_separator(&inner[end..]).is_some() {
            return (start + 1..end - 1, end);
        }
    }
    let end = inner[at..].find([',', ']']).map_or(inner.len(), |offset| at + offset);
    (at..end, end)
}

fn trimmed(inner: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let value = &inner[range.clone()];
    let start = range.start + value.len() - value.trim_start().len();
    start..start + value.trim().len()
}

/// The length of `,` or `][` with blanks around it; of everything where nothing follows.
fn next_separator(rest: &str) -> Option<usize> {
    let blank = rest.len() - rest.trim_start().len();
    match &rest[blank..] {
        "" => Some(rest.len()),
        found if found.starts_with(',') => Some(blank + 1),
        found => {
            let opened = found.strip_prefix(']')?.trim_start().strip_prefix('[')?;
            Some(rest.len() - opened.len())
        }
    }
}

/// Splits a list of calls at the blanks between them: brackets that hold nothing but parameters belong to the name
/// before them, anything else is a word.
pub(super) fn split(text: &Text) -> Vec<Text> {
    static CALL: LazyLock<Regex> = LazyLock::new(|| {
        let param = r#"[\w.-]+(?:\?\w+=\w+)?\s*=(?:"[^"]*"|'[^']*'|[^,\]]*)\s*(?:,|\]\s*\[)?\s*"#;
        let call = format!(r"(?s)([^\[\s]+(?:\s*\[\s*(?:{param})*\])?|\S+)\s*(?:\s|$)");
        Regex::new(&call).expect("a pattern that is always the same")
    });
    let calls = CALL.captures_iter(text.as_str()).filter_map(|call| call.get(1));
    calls.map(|call| text.slice(call.range())).collect()
}

/// Enough of a call to recognise it.
fn shortened(call: &str) -> String {
    match call.char_indices().nth(60) {
        None => call.to_owned(),
        Some((at, _)) => format!("{}…", &call[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match read(&Text::new(text, None)) {
            Err(error) => format!("! {error}"),
            Ok(call) => call.params.iter().fold(call.name, |shown, (key, value)| {
                format!("{shown} {key}={:?}", value.as_str())
            }),
        }
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(shown(text), expect, "{text}");
    }

    #[test]
    fn calls_are_read_as_fail2ban_reads_them() {
        check("a", "a");
        check("a[]", "a");
        check("a[x=1]", r#"a x="1""#);
        check("a[x=1, y=\"b, c]\", z='q\"']", r#"a x="1" y="b, c]" z="q\"""#);
        check("a[x=1][y=2]", r#"a x="1" y="2""#);
        check("a[p=\"x]", r#"a p="\"x""#);
        check("a[x=]", r#"a x="""#);
        check("a[x=1,]", r#"a x="1""#);
        check("a[x=1;y=2]", r#"a x="1;y=2""#);
        check("a[x=1\n,y=2]", r#"a x="1" y="2""#);
        check("a[x=\"1\n2\"]", r#"a x="1\n2""#);
        check("a[x=1, x=2]", r#"a x="2""#);
        check("a[x=a b]", r#"a x="a b""#);
        check("a[x-y_z.w=1]", r#"a x-y_z.w="1""#);
        check("a[x==1]", r#"a x="=1""#);
        check("a[x=\" p \", y= z ]", r#"a x="p" y="z""#);
        check("a[b?family=inet6=\"x y\", b=1]", r#"a b?family=inet6="x y" b="1""#);
        check(
            "nftables[type=allports][port=\"0:65535\", chain=\"<known/chain>\"]",
            r#"nftables type="allports" port="0:65535" chain="<known/chain>""#,
        );
    }

    #[test]
    fn blanks_around_the_sign_are_accepted_where_fail2ban_refuses() {
        check("a[ x = 1 , y = \"2\" ]", r#"a x="1" y="2""#);
        check(" a [x=1] ", r#"a x="1""#);
        check("a[x= \"1, y=\"2\"]", r#"a x="\"1" y="2""#);
    }

    #[test]
    fn wrong_syntax_is_said() {
        check("a[p]", "! `p` in `a[p]` is no parameter");
        check("a[p=", "! `a[p=` has no `]` at its end");
        check("a[x=1] junk", "! `a[x=1] junk` has no `]` at its end");
        check("[x=1]", "! `[x=1]` has no name before its brackets");
        check("a[,x=1]", "! `,x=1` in `a[,x=1]` is no parameter");
        check("a[x=\"a\"b]", "! `b` in `a[x=\"a\"b]` follows the value of `x` without a comma");
        check("a[y=[1]]", "! `]` in `a[y=[1]]` follows the value of `y` without a comma");
        check("a[x=1, y]", "! `y` in `a[x=1, y]` is no parameter");
    }

    #[track_caller]
    fn check_split(text: &str, expect: &[&str]) {
        let calls: Vec<String> =
            split(&Text::new(text, None)).iter().map(|call| call.as_str().to_owned()).collect();
        assert_eq!(calls, expect, "{text}");
    }

    #[test]
    fn calls_in_a_list_are_separated_by_blanks_outside_brackets() {
        check_split("a b", &["a", "b"]);
        check_split("a\n  b", &["a", "b"]);
        check_split("a[x=\"1 2\"] b", &["a[x=\"1 2\"]", "b"]);
        check_split("a[x=1, y=2]\n  b[z='] ']", &["a[x=1, y=2]", "b[z='] ']"]);
        check_split("a[x=1][y=2] c", &["a[x=1][y=2]", "c"]);
        check_split("a [x=1] b", &["a [x=1]", "b"]);
        check_split("  ", &[]);
        check_split("a[x=\"1] b", &["a[x=\"1]", "b"]);
    }
}
