//! From bytes to text: `logencoding`.
use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How the bytes of a log become text. Bytes that mean nothing become U+FFFD, so that the rest of a line still matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Codec(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As the WHATWG defines it.
    Web(&'static Encoding),
    /// Bytes above 0x7F mean nothing. The WHATWG knows it as windows-1252, fail2ban does not.
    Ascii,
    /// Each byte is the code point of its number. The same holds.
    Latin1,
}

/// How a line end looks in the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// The byte 0x0A: UTF-8 and every encoding that has ASCII in it.
    Byte,
    /// 0x0A 0x00 at an even place.
    Utf16Little,
    /// 0x00 0x0A at an even place.
    Utf16Big,
}

impl LineEnd {
    /// Bytes of one line end.
    pub(crate) const fn width(self) -> usize {
        match self {
            LineEnd::Byte => 1,
            LineEnd::Utf16Little | LineEnd::Utf16Big => 2,
        }
    }
}

impl Codec {
    /// UTF-8, which is also what `auto` means.
    pub(crate) const AUTO: Codec = Codec(Kind::Web(UTF_8));

    /// `auto`, or a name by which the WHATWG knows an encoding, with `_` for `-` as Python has it.
    pub(crate) fn named(name: &str) -> Option<Codec> {
        if name.is_empty() || name.eq_ignore_ascii_case("auto") {
            return Some(Codec::AUTO);
        }
        let hyphens = name.replace('_', "-");
        let plain: String = hyphens.to_ascii_lowercase().replace('-', "");
        match plain.as_str() {
            "ascii" | "usascii" | "646" => return Some(Codec(Kind::Ascii)),
            "latin1" | "latin" | "l1" | "iso88591" | "88591" | "cp819" => {
                return Some(Codec(Kind::Latin1));
            }
            // The mark at the start of a file is taken off in any case.
            "utf8sig" => return Some(Codec::AUTO),
            _ => {}
        }
        let first_joined = hyphens.replacen('-', "", 1);
        let last_joined = hyphens.rsplit_once('-').map(|(a, b)| format!("{a}{b}"));
        [Some(name.to_owned()), Some(hyphens), Some(first_joined), last_joined]
            .iter()
            .flatten()
            .find_map(|label| Encoding::for_label(label.as_bytes()))
            .map(|encoding| Codec(Kind::Web(encoding)))
    }

    pub(crate) fn line_end(self) -> LineEnd {
        if self.0 == Kind::Web(UTF_16LE) {
            LineEnd::Utf16Little
        } else if self.0 == Kind::Web(UTF_16BE) {
            LineEnd::Utf16Big
        } else {
            LineEnd::Byte
        }
    }

    pub(crate) fn is_utf8(self) -> bool {
        self.0 == Kind::Web(UTF_8)
    }

    /// One line; borrowed where the bytes are text as they stand.
    pub(crate) fn text(self, line: &[u8]) -> Cow<'_, str> {
        let char_of = |byte: &u8| match self.0 {
            Kind::Latin1 => char::from(*byte),
            _ if byte.is_ascii() => char::from(*byte),
            _ => char::REPLACEMENT_CHARACTER,
        };
        match self.0 {
            Kind::Web(encoding) if encoding == UTF_8 => String::from_utf8_lossy(line),
            Kind::Web(encoding) => encoding.decode_without_bom_handling(line).0,
            Kind::Ascii | Kind::Latin1 => match std::str::from_utf8(line) {
                Ok(text) if text.is_ascii() => Cow::Borrowed(text),
                _ => Cow::Owned(line.iter().map(char_of).collect()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, line: &[u8], expect: &str) {
        let codec = Codec::named(name).unwrap_or_else(|| panic!("`{name}` is unknown"));
        assert_eq!(codec.text(line), expect);
    }

    #[test]
    fn encodings_go_by_the_names_python_and_the_web_give_them() {
        check("auto", "ä€".as_bytes(), "ä€");
        check("UTF-8", b"a\xffb", "a\u{fffd}b");
        check("utf8", b"a\xe2\x82", "a\u{fffd}");
        check("latin-1", b"caf\xe9", "café");
        check("latin_1", b"caf\xe9", "café");
        check("iso8859_15", b"\xa4", "€");
        check("cp1252", b"\x80", "€");
        check("utf_16_le", b"a\0\xac\x20", "a€");
        check("ascii", b"plain", "plain");
        check("us-ascii", b"caf\xe9 \xc3\xa9", "caf\u{fffd} \u{fffd}\u{fffd}");
        check("latin-1", b"\x80", "\u{80}");
        check("utf-8-sig", "ä".as_bytes(), "ä");
        check("utf-8", b"a\xf0\x9f\x98 \xed\xa0\x80b", "a\u{fffd} \u{fffd}\u{fffd}\u{fffd}b");
        assert_eq!(Codec::named("klingon"), None);
    }
}
