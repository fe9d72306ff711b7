//! A line of the log, and how it looks: as fail2ban's, so that whatever reads that log reads ours.
//!
//! What fail2ban says too bears the name of its logger (`fail2ban.actions`); what is ours alone the room that says it
//! (`fail2xdp.source`).
use std::{borrow::Cow, fmt::Write};

use jiff::tz::TimeZone;

use crate::{config::LogFormat, engine::Timestamp};

/// How loud a line is: a number of fail2ban's, 50 the loudest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(pub u8);

impl Level {
    pub const ERROR: Level = Level(40);
    pub const WARNING: Level = Level(30);
    pub const NOTICE: Level = Level(25);
    pub const INFO: Level = Level(20);
    pub const DEBUG: Level = Level(10);
    pub const TRACE: Level = Level(7);

    /// By fail2ban's word or number; `None` where there is no such level.
    pub fn of(word: &str) -> Option<Level> {
        Some(match word {
            "CRITICAL" => Level(50),
            "ERROR" => Level::ERROR,
            "WARNING" => Level::WARNING,
            "NOTICE" => Level::NOTICE,
            "INFO" => Level::INFO,
            "MSG" => Level(18),
            "DEBUG" => Level::DEBUG,
            "TRACEDEBUG" => Level::TRACE,
            "HEAVYDEBUG" => Level(5),
            number => Level(number.parse().ok()?),
        })
    }

    fn name(self) -> &'static str {
        match self.0 {
            50.. => "CRITICAL",
            40.. => "ERROR",
            30.. => "WARNING",
            25.. => "NOTICE",
            18.. => "INFO",
            10.. => "DEBUG",
            _ => "TRACE",
        }
    }

    /// The same in syslog(3) and the journal.
    pub fn priority(self) -> u8 {
        match self.0 {
            50.. => 2,
            40.. => 3,
            30.. => 4,
            25.. => 5,
            18.. => 6,
            _ => 7,
        }
    }
}

/// Something said.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub at: Timestamp,
    pub level: Level,
    /// Who says it.
    pub logger: Cow<'static, str>,
    /// Without control characters: whoever writes into our logs by way of his own names writes no second line.
    pub text: String,
    /// The same in single words, for the journal.
    pub fields: Vec<(&'static str, String)>,
}

impl Line {
    /// What it takes while it waits, about.
    pub fn size(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(_, value)| 48 + value.len()).sum();
        size_of::<Line>() + self.text.len() + fields
    }

    /// `fail2ban` or `fail2xdp`.
    pub fn program(&self) -> &str {
        self.logger.split('.').next().unwrap_or_default()
    }
}

/// `text` with every control character escaped, as `\n` or `\u{1b}`.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    // Some terminals take U+2028 and U+2029 for ends of lines, too.
    let harmless = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}');
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match harmless(c) {
            true => escaped.push(c),
            false => escaped.extend(c.escape_default()),
        }
    }
    Cow::Owned(escaped)
}

/// How lines look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Value),
}

/// A value in the words of Python's `%` operator: `%(name)-24.10s`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    what: What,
    left: bool,
    zeros: bool,
    width: usize,
    most: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Time,
    Created,
    Milliseconds,
    Name,
    Process,
    LevelName,
    LevelNumber,
    Message,
}

impl What {
    fn of(name: &str) -> Option<What> {
        Some(match name {
            "asctime" => What::Time,
            "created" => What::Created,
            "msecs" => What::Milliseconds,
            "name" => What::Name,
            "process" => What::Process,
            "levelname" => What::LevelName,
            "levelno" => What::LevelNumber,
            "message" => What::Message,
            _ => return None,
        })
    }
}

impl Style {
    /// As `logtarget` says; `time` and `padding` are what its target has by itself.
    ///
    /// # Errors
    /// Names what its `format` asks for and a line does not have.
    pub fn new(format: &LogFormat, time: bool, padding: bool) -> Result<Style, String> {
        if let Some(format) = format.format.as_deref().filter(|format| !format.is_empty()) {
            return Style::read(format);
        }
        let time = if format.time.unwrap_or(time) { "%(asctime)s " } else { "" };
        let rest = match format.padding.unwrap_or(padding) {
            true => "%(name)-24s[%(process)d]: %(levelname)-7s %(message)s",
            false => "%(name)s[%(process)d]: %(levelname)s %(message)s",
        };
        Style::read(&format!("{time}{rest}"))
    }

    fn read(format: &str) -> Result<Style, String> {
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some((text, after)) = rest.split_once('%') {
            if let Some(after) = after.strip_prefix('%') {
                pieces.push(Piece::Text(format!("{text}%")));
                rest = after;
                continue;
            }
            pieces.push(Piece::Text(text.to_owned()));
            let (value, after) = Value::read(after)
                .ok_or_else(|| format!("`{format}`: `%{after}` is nothing that a line has"))?;
            pieces.push(Piece::Value(value));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Style { pieces })
    }

    /// Appends a line to what is written, its end included.
    pub fn write(&self, line: &Line, times: &mut Times, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(value) => value.write(line, times, out),
            }
        }
        out.push('\n');
    }
}

impl Value {
    /// What stands behind a `%`, and what follows it.
    fn read(text: &str) -> Option<(Value, &str)> {
        let (name, mut rest) = text.strip_prefix('(')?.split_once(')')?;
        let mut value =
            Value { what: What::of(name)?, left: false, zeros: false, width: 0, most: None };
        loop {
            match rest.chars().next()? {
                '-' => value.left = true,
                '0' => value.zeros = true,
                '+' | ' ' | '#' => {}
                _ => break,
            }
            rest = &rest[1..];
        }
        (value.width, rest) = digits(rest);
        if let Some(after) = rest.strip_prefix('.') {
            let (most, after) = digits(after);
            (value.most, rest) = (Some(most), after);
        }
        rest = rest.strip_prefix(['s', 'd', 'i', 'f', 'r'])?;
        Some((value, rest))
    }

    fn write(&self, line: &Line, times: &mut Times, out: &mut String) {
        let text = match self.what {
            What::Message => Cow::Borrowed(&*line.text),
            What::Name => Cow::Borrowed(&*line.logger),
            What::LevelName => Cow::Borrowed(line.level.name()),
            What::LevelNumber => Cow::Owned(line.level.0.to_string()),
            What::Process => Cow::Borrowed(&*times.process),
            What::Time => {
                let (second, milliseconds) = (times.second(line.at), milliseconds(line.at));
                Cow::Owned(format!("{second},{milliseconds:03}"))
            }
            What::Created => Cow::Owned(format!("{:.6}", line.at.micros() as f64 / 1e6)),
            What::Milliseconds => Cow::Owned(milliseconds(line.at).to_string()),
        };
        let numeric = matches!(self.what, What::Created | What::Milliseconds);
        let end = match self.most {
            Some(most) if !numeric => text.char_indices().nth(most).map(|(at, _)| at),
            _ => None,
        };
        let text = &text[..end.unwrap_or(text.len())];
        let width = self.width;
        // A string takes everything.
        let _ = match (self.left, self.zeros) {
            (true, _) => write!(out, "{text:<width$}"),
            (false, true) => write!(out, "{text:0>width$}"),
            (false, false) => write!(out, "{text:>width$}"),
        };
    }
}

/// Local time in words, which is the same for all lines of a second, and who we are.
pub(super) struct Times {
    pub zone: TimeZone,
    second: i64,
    text: String,
    process: String,
}

impl Times {
    pub fn new(zone: TimeZone) -> Times {
        let process = std::process::id().to_string();
        Times { zone, second: i64::MIN, text: String::new(), process }
    }

    fn second(&mut self, at: Timestamp) -> &str {
        let second = at.micros().div_euclid(1_000_000);
        if second != self.second {
            self.second = second;
            self.text = local(at, &self.zone).strftime("%F %T").to_string();
        }
        &self.text
    }
}

/// The number that a text begins with, no more than a line could need, and the rest.
fn digits(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].parse().unwrap_or(0).min(1000), &text[end..])
}

fn milliseconds(at: Timestamp) -> i64 {
    at.micros().rem_euclid(1_000_000) / 1000
}

pub(super) fn local(at: Timestamp, zone: &TimeZone) -> jiff::Zoned {
    jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default().to_zoned(zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, logger: &'static str, text: &str) -> Line {
        let at = Timestamp::from_micros(1_795_176_002_633_900);
        let (logger, text) = (logger.into(), plain(text).into_owned());
        Line { at, level, logger, text, fields: Vec::new() }
    }

    #[track_caller]
    fn check(format: &LogFormat, line: &Line, expected: &str) {
        let mut out = String::new();
        let style = Style::new(format, true, true).expect("a style");
        style.write(line, &mut Times::new(TimeZone::UTC), &mut out);
        assert_eq!(out, expected.replace("PID", &std::process::id().to_string()) + "\n");
    }

    #[test]
    fn lines_look_as_fail2bans() {
        let plain = LogFormat::default();
        check(
            &plain,
            &line(Level::NOTICE, "fail2ban.actions", "[j1] Ban 192.0.2.1"),
            "2026-11-20 12:00:02,633 fail2ban.actions        [PID]: NOTICE  [j1] Ban 192.0.2.1",
        );
        check(
            &plain,
            &line(Level::WARNING, "fail2xdp.source", "x"),
            "2026-11-20 12:00:02,633 fail2xdp.source         [PID]: WARNING x",
        );
        let bare = LogFormat { time: Some(false), padding: Some(false), format: None };
        check(&bare, &line(Level::INFO, "fail2ban.filter", "x"), "fail2ban.filter[PID]: INFO x");
    }

    #[test]
    fn a_format_is_pythons() {
        let own = |format: &str| LogFormat { format: Some(format.into()), ..LogFormat::default() };
        let said = line(Level::ERROR, "fail2ban.actions", "hello");
        check(
            &own("%(levelno)03d|%(levelname)-7.3s|%(message)8s|100%%"),
            &said,
            "040|ERR    |   hello|100%",
        );
        check(&own("%(created).3f %(msecs)03d"), &said, "1795176002.633900 633");
        for wrong in ["%(thread)d", "%(name)", "%s", "%"] {
            assert!(Style::new(&own(wrong), true, true).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_writes_a_second_line() {
        assert_eq!(
            plain("a\nb\r\u{1b}[2J\u{85}\u{2028}\té"),
            "a\\nb\\r\\u{1b}[2J\\u{85}\\u{2028}\\té"
        );
        assert!(matches!(plain("plain äöü"), Cow::Borrowed(_)));
    }

    #[test]
    fn levels_have_words_and_numbers() {
        let known = ["CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"];
        for word in known {
            assert_eq!(Level::of(word).map(Level::name), Some(word));
        }
        assert_eq!((Level::of("25"), Level::of("LOUD")), (Some(Level::NOTICE), None));
    }
}
