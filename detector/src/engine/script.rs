//! A command for the shell with what an attacker may have written in it: the text goes to the shell as it stands in the
//! configuration, and every value that the shell could take for more than a word is handed over beside it.
use std::{borrow::Cow, net::IpAddr};

use crate::config::replace_tags;

/// Bytes of one value: the kernel takes 128 KiB an argument (`MAX_ARG_STRLEN`).
pub const LONGEST_VALUE: usize = 120 << 10;
/// Bytes of all values of a command: the kernel takes 2 MiB of arguments and environment together.
pub const LONGEST_VALUES: usize = 1 << 20;
/// Bytes of a value that may stand in the command's text, which is an argument, too.
const LONGEST_WORD: usize = 4 << 10;
/// What makes a value more than a word, as fail2ban has it.
const SPECIAL: &str = "\\#&;`|*?~<>^()[]{}$'\"\n\r";

/// What a tag stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// Ours: it becomes part of the command's text.
    Text(Cow<'a, str>),
    /// Anybody's.
    Value(Cow<'a, str>),
}

/// A command, ready to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// For `sh -c`.
    pub text: String,
    /// The arguments behind it, the first of them `$0`.
    pub arguments: Vec<String>,
    /// Tags whose value was cut because it is longer than the kernel takes.
    pub cut: Vec<String>,
}

impl Script {
    /// The command with its tags replaced: by what `tag` knows, then those of the form `<F-USER>` by what `field` has under
    /// `USER`, or nothing. Values are never looked through for tags.
    ///
    /// A value with a sign that means something to the shell, or a long one, becomes the variable `$f2bV_TAG`; others stand in
    /// the text. NUL, which no argument can hold, is left out.
    pub fn new<'a>(
        command: &str,
        mut tag: impl FnMut(&str) -> Option<Meaning<'a>>,
        mut field: impl FnMut(&str) -> Option<Cow<'a, str>>,
    ) -> Script {
        let mut values = Values::default();
        let mut text = replace_tags(command, |_, name| match tag(name)? {
            Meaning::Text(text) => Some(text.into_owned()),
            Meaning::Value(value) => Some(values.put(name, value)),
        });
        if text.contains("<F-") {
            text = replace_tags(&text, |_, name| {
                let is_name =
                    |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "_-".contains(c);
                let name = name.strip_prefix("F-").filter(|it| !it.is_empty())?;
                if !name.chars().all(is_name) {
                    return None;
                }
                let value = field(name).unwrap_or_default();
                Some(values.put(&format!("F_{}", option_of(name)), value))
            });
        }
        if !values.known.is_empty() {
            let mut head = String::new();
            for (nth, (name, _)) in values.known.iter().enumerate() {
                // `$10` would be `$1` with a 0 behind it.
                let braces = if nth < 10 { ("", "") } else { ("{", "}") };
                head += &format!("{name}=${}{nth}{} ", braces.0, braces.1);
            }
            text = format!("{head}\n{text}");
        }
        let arguments = values.known.into_iter().map(|(_, value)| value).collect();
        Script { text, arguments, cut: values.cut }
    }
}

#[derive(Default)]
struct Values {
    known: Vec<(String, String)>,
    bytes: usize,
    cut: Vec<String>,
}

impl Values {
    /// What stands in the command for a value.
    fn put(&mut self, tag: &str, value: Cow<'_, str>) -> String {
        let value = if value.contains('\0') { value.replace('\0', "").into() } else { value };
        let is_word = value.len() <= LONGEST_WORD && !value.contains(|c| SPECIAL.contains(c));
        if is_word {
            return value.into_owned();
        }
        let is_plain = |c: char| c.is_alphanumeric() || c == '_';
        let name = format!("f2bV_{}", tag.replace(|c| !is_plain(c), "_"));
        if !self.known.iter().any(|(known, _)| *known == name) {
            let most = LONGEST_VALUE.min(LONGEST_VALUES - self.bytes);
            let kept = newest(&value, most);
            if kept.len() < value.len() {
                self.cut.push(tag.to_owned());
            }
            self.bytes += kept.len();
            self.known.push((name.clone(), kept.to_owned()));
        }
        format!("${name}")
    }
}

/// The last lines that fit; of a single line that does not, its beginning.
pub(super) fn newest(value: &str, most: usize) -> &str {
    if value.len() <= most {
        return value;
    }
    let mut from = value.len() - most;
    while !value.is_char_boundary(from) {
        from += 1;
    }
    let is_start = value[..from].ends_with('\n');
    match value[from..].find('\n') {
        _ if is_start => &value[from..],
        Some(end) if from + end + 1 < value.len() => &value[from + end + 1..],
        _ => {
            let last = value.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
            let mut end = (last + most).min(value.len());
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            &value[last..end]
        }
    }
}

/// The name under which a ban has the field `F-USER`: `user`.
pub fn option_of(field: &str) -> String {
    match field {
        "ID" => "fid".to_owned(),
        "PORT" => "fport".to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

/// As the domains of addresses are written, the least part first, with a dot behind each.
pub fn reversed(address: IpAddr) -> String {
    let parts: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().rev().map(u8::to_string).collect(),
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev();
            nibbles.flat_map(|byte| [byte & 15, byte >> 4]).map(|it| format!("{it:x}")).collect()
        }
    };
    parts.join(".") + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(command: &str, value: &str) -> Script {
        Script::new(
            command,
            |tag| match tag {
                "x" | "x-y" => Some(Meaning::Value(value.to_owned().into())),
                "br" => Some(Meaning::Text("\n".into())),
                _ => None,
            },
            |field| (field == "USER").then(|| value.to_owned().into()),
        )
    }

    #[track_caller]
    fn check(command: &str, value: &str, text: &str, arguments: &[&str]) {
        let script = script(command, value);
        assert_eq!((script.text.as_str(), script.cut.len()), (text, 0));
        assert_eq!(script.arguments, arguments);
    }

    #[test]
    fn plain_values_stand_in_the_text_and_others_beside_it() {
        check("a <x> b", "1.2.3.4", "a 1.2.3.4 b", &[]);
        check("a <x> <x>", "$(id)", "f2bV_x=$0 \na $f2bV_x $f2bV_x", &["$(id)"]);
        check(
            "<x-y> <F-USER>",
            "a;b",
            "f2bV_x_y=$0 f2bV_F_user=$1 \n$f2bV_x_y $f2bV_F_user",
            &["a;b", "a;b"],
        );
        check("a <F-NONE>|<none>|<F-lower>|<br>|<x", "v", "a |<none>|<F-lower>|\n|<x", &[]);
    }

    #[test]
    fn values_are_not_looked_through_for_tags() {
        check("<x>", "<F-USER>", "f2bV_x=$0 \n$f2bV_x", &["<F-USER>"]);
    }

    #[test]
    fn no_argument_holds_a_nul() {
        check("<x>", "a\0b", "ab", &[]);
        check("<x>", "a\0;b", "f2bV_x=$0 \n$f2bV_x", &["a;b"]);
    }

    #[test]
    fn what_is_too_long_keeps_its_newest_lines() {
        let lines: String = (0..40_000).map(|nth| format!("line {nth}\n")).collect();
        let script = script("<x>", &lines);
        assert_eq!(script.cut, ["x"]);
        let kept = &script.arguments[0];
        assert!(kept.len() <= LONGEST_VALUE && kept.len() > LONGEST_VALUE - 20);
        assert!(kept.starts_with("line ") && kept.ends_with("line 39999\n"));
        assert_eq!(newest("äöü", 3), "ä");
        assert_eq!(newest("first\nsecond", 4), "seco");
        assert_eq!(newest("first\nsecond", 6), "second");
        assert_eq!(newest("first\nsecond\n", 5), "secon");
    }

    #[test]
    fn long_values_do_not_make_the_text_too_long() {
        let long = "x".repeat(LONGEST_WORD + 1);
        check("<x> <x>", &long, "f2bV_x=$0 \n$f2bV_x $f2bV_x", &[&long]);
        check("<x>", &long[1..], &long[1..], &[]);
    }

    #[test]
    fn more_than_ten_values_have_their_places() {
        let tags: Vec<String> = (0..12).map(|nth| format!("<t{nth}>")).collect();
        let value = |tag: &str| Some(Meaning::Value(format!("${tag}").into()));
        let script = Script::new(&tags.join(" "), value, |_| None);
        assert!(
            script.text.contains("f2bV_t9=$9 f2bV_t10=${10} f2bV_t11=${11} "),
            "{}",
            script.text
        );
    }

    #[test]
    fn addresses_are_reversed_as_their_domains_are() {
        assert_eq!(reversed("192.0.2.1".parse().expect("one")), "1.2.0.192.");
        assert_eq!(
            reversed("2001:db8::1".parse().expect("one")),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2."
        );
    }
}
