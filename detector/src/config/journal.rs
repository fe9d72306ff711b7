//! `backend` and `journalmatch`: which journal, and which of its entries.
use std::path::PathBuf;

use super::{JournalSettings, JournalTerms, params::Call, ports::words, text::Text};

/// Terms of one `journalmatch`: more are a mistake.
const MAX_TERMS: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JournalError {
    #[error("`{0}` is no journal match")]
    NoTerm(String),
    #[error("a quote in `{0}` is never closed")]
    OpenQuote(String),
    #[error("`journalmatch` holds more than {MAX_TERMS} terms")]
    TooMany,
    #[error("`journalflags = {0}` is no number")]
    NoFlags(String),
    #[error("`{0}` is no parameter of the systemd backend")]
    NoParameter(String),
}

impl JournalError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            JournalError::NoTerm(_) => {
                "write `FIELD=value`, with the field's name in capitals, or `+`"
            }
            JournalError::OpenQuote(_) => "add the closing quote",
            JournalError::TooMany => "match fewer entries by name",
            JournalError::NoFlags(_) => {
                "write 1 (local), 2 (runtime), 4 (system), 8 (user) or their sum"
            }
            JournalError::NoParameter(_) => {
                "use `journalpath`, `journalfiles`, `journalflags`, `namespace` or `rotated`"
            }
        }
    }
}

/// The groups of a `journalmatch`, joined by OR: one a line, more where `+` stands.
pub(super) fn matches(text: &Text) -> Result<Vec<JournalTerms>, JournalError> {
    let mut all = Vec::new();
    let mut terms = 0;
    for line in text.lines() {
        let more = groups(shell_words(&line.value)?.into_iter())?;
        terms += more.iter().map(Vec::len).sum::<usize>();
        if terms > MAX_TERMS {
            return Err(JournalError::TooMany);
        }
        all.extend(more);
    }
    Ok(all)
}

/// The groups of one line, which `+` separates.
pub(super) fn groups(
    words: impl Iterator<Item = String>,
) -> Result<Vec<JournalTerms>, JournalError> {
    let mut groups: Vec<JournalTerms> = Vec::new();
    let mut group = Vec::new();
    for (terms, word) in words.enumerate() {
        if word == "+" {
            groups.extend(Some(std::mem::take(&mut group)).filter(|group| !group.is_empty()));
            continue;
        }
        let field = word.split_once('=').map_or("", |(field, _)| field);
        let is_field =
            field.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        // What begins with two underscores is an entry's address, which journald does not match.
        if field.is_empty() || !is_field || field.starts_with("__") {
            return Err(JournalError::NoTerm(word));
        }
        group.push(word);
        if terms >= MAX_TERMS {
            return Err(JournalError::TooMany);
        }
    }
    groups.extend(Some(group).filter(|group| !group.is_empty()));
    Ok(groups)
}

/// Splits a line as a shell does: blanks outside quotes separate, a backslash protects.
pub(super) fn shell_words(line: &str) -> Result<Vec<String>, JournalError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => {
                let next = chars.next().ok_or_else(|| JournalError::OpenQuote(line.to_owned()))?;
                let word = word.get_or_insert_default();
                // Inside double quotes a backslash protects only itself and the quote.
                if quote.is_some() && !matches!(next, '"' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(JournalError::OpenQuote(line.to_owned()));
    }
    words.extend(word);
    Ok(words)
}

/// Which journal `systemd[…]` names.
pub(super) fn backend(call: &Call) -> Result<JournalSettings, JournalError> {
    let mut journal = JournalSettings::default();
    for (name, value) in &call.params {
        let value = value.as_str().trim();
        match name.as_str() {
            "journalpath" => journal.directory = Some(PathBuf::from(value)),
            "journalfiles" => journal.files = words(value).map(str::to_owned).collect(),
            "journalflags" => {
                let flags = value.parse().map_err(|_| JournalError::NoFlags(value.to_owned()))?;
                journal.flags = Some(flags);
            }
            "namespace" => journal.namespace = Some(value.to_owned()),
            // Rotated files are part of the journal that libsystemd shows.
            "rotated" => {}
            _ => return Err(JournalError::NoParameter(name.clone())),
        }
    }
    Ok(journal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[&[&str]]) {
        let mut value = Text::default();
        for (nth, line) in text.lines().enumerate() {
            let file = std::sync::Arc::new(PathBuf::from("f"));
            value.push_line(line, super::super::Place { file, line: nth as u32 + 1 });
        }
        assert_eq!(matches(&value).expect(text), expect, "{text}");
    }

    #[test]
    fn terms_are_grouped_by_line_and_plus() {
        check(
            "_SYSTEMD_UNIT=sshd.service + _COMM=sshd",
            &[&["_SYSTEMD_UNIT=sshd.service"], &["_COMM=sshd"]],
        );
        check("A=1 B=2\nC=3", &[&["A=1", "B=2"], &["C=3"]]);
        check("\"A=1 2\" B='x y' C=a\\ b D=\"q\\\"\"", &[&["A=1 2", "B=x y", "C=a b", "D=q\""]]);
        check("+ A=1 + + B= +", &[&["A=1"], &["B="]]);
        check("", &[]);
    }

    #[test]
    fn what_is_no_match_is_said() {
        for wrong in ["sshd", "=x", "__CURSOR=x", "unit=ssh", "A=1 b", "A='1", "A=1\\"] {
            assert!(matches(&Text::new(wrong, None)).is_err(), "{wrong}");
        }
        assert_eq!(
            matches(&Text::new(&"A=1 ".repeat(MAX_TERMS + 1), None)),
            Err(JournalError::TooMany)
        );
    }
}
