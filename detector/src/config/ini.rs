//! One file: sections, options, comments, continuation lines, as Python's `configparser` reads them (strict).
use std::{collections::HashMap, path::PathBuf, sync::Arc};

use super::{Place, text::Text};

/// A file as written. What could not be read is told in `faults`; the rest is there all the same.
#[derive(Debug, Default)]
pub(super) struct Ini {
    pub(super) sections: Vec<IniSection>,
    pub(super) faults: Vec<IniFault>,
    /// Its length.
    pub(super) bytes: usize,
}

/// A `[section]` with its options in the order written, names lower-cased.
#[derive(Debug)]
pub(super) struct IniSection {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) options: Vec<(String, Text)>,
}

/// What is wrong in one line, and in which section.
#[derive(Debug)]
pub(super) struct IniFault {
    pub(super) place: Place,
    /// `None` where the line stands before the first section, or begins one without a name.
    pub(super) section: Option<String>,
    pub(super) kind: IniFaultKind,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IniFaultKind {
    #[error("`{line}` stands before the first section")]
    NoSection { line: String },
    #[error("section `{name}` stands twice in this file, first in line {first}")]
    SectionTwice { name: String, first: u32 },
    #[error(
        "option `{name}` stands twice in section `{section}` of this file, first in line {first}"
    )]
    OptionTwice { name: String, section: String, first: u32 },
    #[error("`{line}` is neither an option nor a section")]
    NoOption { line: String },
    #[error("`{line}` begins a section and has no `]`")]
    OpenHeader { line: String },
    #[error("`{line}` is not UTF-8 text")]
    NotText { line: String },
}

impl IniFaultKind {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            IniFaultKind::NoSection { .. } => {
                "write the section's name above it, as in `[DEFAULT]` or `[sshd]`"
            }
            IniFaultKind::SectionTwice { .. } => "put the options of both under one header",
            IniFaultKind::OptionTwice { .. } => "keep one of the two lines",
            IniFaultKind::NoOption { .. } => {
                "write `name = value`; indent the line if it continues the one above, or begin it with `#`"
            }
            IniFaultKind::OpenHeader { .. } => "close it, as in `[sshd]`",
            IniFaultKind::NotText { .. } => "save the file as UTF-8",
        }
    }
}

impl Ini {
    /// Reads a whole file. Never fails: bytes that are no UTF-8 matter outside comments only.
    pub(super) fn read(bytes: &[u8], file: &Arc<PathBuf>) -> Ini {
        let (ini, seen) = (Ini { bytes: bytes.len(), ..Ini::default() }, HashMap::new());
        let mut reader = Reader { ini, seen, file, indent: 0, in_option: false, current: None };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (nth, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = u32::try_from(nth + 1).unwrap_or(u32::MAX);
            reader.line(&String::from_utf8_lossy(line), std::str::from_utf8(line).is_ok(), number);
        }
        for section in &mut reader.ini.sections {
            section.options.iter_mut().for_each(|(_, value)| value.trim_end());
        }
        reader.ini
    }
}

struct Reader<'a> {
    ini: Ini,
    /// Index of each section and the first line of each of its options.
    seen: HashMap<String, (usize, HashMap<String, u32>)>,
    file: &'a Arc<PathBuf>,
    /// Indentation of the line that began the option.
    indent: usize,
    /// A deeper line continues the last option of the current section.
    in_option: bool,
    /// Index of the current section.
    current: Option<usize>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str, is_text: bool, number: u32) {
        let (content, commented) = without_comment(line);
        if content.is_empty() {
            if !commented && let Some((_, value)) = self.open_option() {
                value.push_empty_line();
            }
            return;
        }
        let place = Place { file: Arc::clone(self.file), line: number };
        if !is_text {
            let line = content.to_owned();
            self.fault(place.clone(), IniFaultKind::NotText { line });
        }
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        if indent > self.indent
            && let Some((_, value)) = self.open_option()
        {
            value.push_line(content, place);
            return;
        }
        self.indent = indent;
        self.in_option = false;
        if let Some(name) = header(content) {
            self.open_section(name, place);
        } else {
            self.open_new_option(content, place);
        }
    }

    fn open_option(&mut self) -> Option<&mut (String, Text)> {
        let section = self.current.filter(|_| self.in_option)?;
        self.ini.sections.get_mut(section)?.options.last_mut()
    }

    fn open_section(&mut self, name: &str, place: Place) {
        if let Some((index, _)) = self.seen.get(name) {
            let index = *index;
            self.current = Some(index);
            // `[DEFAULT]` may be opened again, as in `configparser`.
            if name != super::layers::DEFAULT {
                let first = self.ini.sections[index].place.line;
                self.fault(place, IniFaultKind::SectionTwice { name: name.to_owned(), first });
            }
            return;
        }
        let index = self.ini.sections.len();
        self.seen.insert(name.to_owned(), (index, HashMap::new()));
        self.ini.sections.push(IniSection { name: name.to_owned(), place, options: Vec::new() });
        self.current = Some(index);
    }

    fn open_new_option(&mut self, content: &str, place: Place) {
        let Some(section) = self.current else {
            self.fault(place, IniFaultKind::NoSection { line: shortened(content) });
            return;
        };
        let (name, value) = match content.split_once(['=', ':']) {
            Some((name, value)) if !name.trim().is_empty() => {
                (name.trim().to_lowercase(), value.trim())
            }
            // What follows belongs to a section that is not known.
            _ if content.starts_with('[') => {
                let kind = IniFaultKind::OpenHeader { line: shortened(content) };
                self.ini.faults.push(IniFault { place, section: None, kind });
                return;
            }
            _ => {
                self.fault(place, IniFaultKind::NoOption { line: shortened(content) });
                return;
            }
        };
        if let Some((_, lines)) = self.seen.get_mut(&self.ini.sections[section].name) {
            let first = *lines.entry(name.clone()).or_insert(place.line);
            if first != place.line {
                let section = self.ini.sections[section].name.clone();
                self.fault(
                    place.clone(),
                    IniFaultKind::OptionTwice { name: name.clone(), section, first },
                );
            }
        }
        let mut text = Text::default();
        text.push_line(value, place);
        self.ini.sections[section].options.push((name, text));
        self.in_option = true;
    }

    fn fault(&mut self, place: Place, kind: IniFaultKind) {
        let section = self.current.map(|index| self.ini.sections[index].name.clone());
        self.ini.faults.push(IniFault { place, section, kind });
    }
}

/// The line without its comment and surrounding blanks, and whether there was a comment.
fn without_comment(line: &str) -> (&str, bool) {
    let trimmed = line.trim();
    if trimmed.starts_with(['#', ';']) {
        return ("", true);
    }
    // Only `;` after a blank begins a comment inside a line; `#` never does.
    let mut before = None;
    for (at, char) in trimmed.char_indices() {
        if char == ';' && before.is_some_and(char::is_whitespace) {
            return (trimmed[..at].trim_end(), true);
        }
        before = Some(char);
    }
    (trimmed, false)
}

/// The section named by a header; what follows its last `]` is ignored.
fn header(content: &str) -> Option<&str> {
    let (name, _) = content.strip_prefix('[')?.rsplit_once(']')?;
    Some(name).filter(|name| !name.is_empty())
}

/// Enough of a line to recognise it.
fn shortened(line: &str) -> String {
    const ENOUGH: usize = 60;
    match line.char_indices().nth(ENOUGH) {
        None => line.to_owned(),
        Some((at, _)) => format!("{}…", &line[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Ini {
        Ini::read(text, &Arc::new(PathBuf::from("x.conf")))
    }

    /// Sections as `[name] option=value@line …`, faults as `! line section: what`.
    fn shown(text: &[u8]) -> String {
        let ini = read(text);
        let mut lines = Vec::new();
        for section in &ini.sections {
            let mut line = format!("[{}]", section.name);
            for (name, value) in &section.options {
                let at = value.place().map_or(0, |place| place.line);
                line += &format!(" {name}={:?}@{at}", value.as_str());
            }
            lines.push(line);
        }
        for fault in &ini.faults {
            let section = fault.section.as_deref().unwrap_or("-");
            lines.push(format!("! {} {section}: {}", fault.place.line, fault.kind));
        }
        lines.join("\n")
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(shown(text.as_bytes()), expect);
    }

    #[test]
    fn option_names_are_lower_cased_and_section_names_are_not() {
        check(
            "[Definition]\nFailRegex = X\n[definition]\na=b",
            "[Definition] failregex=\"X\"@2\n[definition] a=\"b\"@4",
        );
    }

    #[test]
    fn the_first_delimiter_separates() {
        check(
            "[a]\nx = 1\ny: 2\nz=a:b=c\nw:a=b\nempty =",
            "[a] x=\"1\"@2 y=\"2\"@3 z=\"a:b=c\"@4 w=\"a=b\"@5 empty=\"\"@6",
        );
    }

    #[test]
    fn only_a_semicolon_after_a_blank_begins_a_comment_in_a_line() {
        check(
            "[a]\nx = foo # bar\ny = a;b\nz = a ; b\nt = a\t;b\n; whole\n# whole\n  # whole",
            "[a] x=\"foo # bar\"@2 y=\"a;b\"@3 z=\"a\"@4 t=\"a\"@5",
        );
    }

    #[test]
    fn deeper_lines_continue_and_comments_among_them_vanish() {
        check("[a]\nx = 1\n  2\n# comment\n\n\t3\n\n\ny = 4", "[a] x=\"1\\n2\\n\\n3\"@2 y=\"4\"@9");
        check("[a]\n  x = 1\n    2\n  y = 3", "[a] x=\"1\\n2\"@2 y=\"3\"@4");
        check("[a]\nx =\n  [b]\n  y = 3", "[a] x=\"\\n[b]\\ny = 3\"@2");
    }

    #[test]
    fn line_ends_and_marks_of_other_systems_are_accepted() {
        check("\u{feff}[a]\r\nx = 1\r\n  2\r\n", "[a] x=\"1\\n2\"@2");
    }

    #[test]
    fn twice_in_one_file_is_a_fault_except_for_default() {
        check(
            "[a]\nx = 1\nX = 2",
            concat!(
                "[a] x=\"1\"@2 x=\"2\"@3\n",
                "! 3 a: option `x` stands twice in section `a` of this file, first in line 2"
            ),
        );
        check(
            "[a]\n[b]\n[a]",
            "[a]\n[b]\n! 3 a: section `a` stands twice in this file, first in line 1",
        );
        check("[DEFAULT]\nx=1\n[DEFAULT]\ny=2", "[DEFAULT] x=\"1\"@2 y=\"2\"@4");
    }

    #[test]
    fn stray_lines_are_faults_of_the_section_they_stand_in() {
        check("x = 1", "! 1 -: `x = 1` stands before the first section");
        check(
            "[a]\nx = 1\n[b\ny = 2",
            "[a] x=\"1\"@2 y=\"2\"@4\n! 3 -: `[b` begins a section and has no `]`",
        );
        check("[a]\nenabled true", "[a]\n! 2 a: `enabled true` is neither an option nor a section");
        check("[a]\n= true", "[a]\n! 2 a: `= true` is neither an option nor a section");
        check(
            "[a\nx=1",
            "! 1 -: `[a` stands before the first section\n! 2 -: `x=1` stands before the first section",
        );
    }

    #[test]
    fn bytes_that_are_no_text_matter_outside_comments_only() {
        assert_eq!(shown(b"[a]\n# f\xfcr\nx = 1"), "[a] x=\"1\"@3");
        let value = shown(b"[a]\nx = f\xfcr");
        assert_eq!(value, "[a] x=\"f\u{fffd}r\"@2\n! 2 a: `x = f\u{fffd}r` is not UTF-8 text");
    }
}
