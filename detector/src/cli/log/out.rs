//! Where lines are written: a stream, a file, syslog, the journal.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::{Path, PathBuf},
};

use super::line::{Line, Style, Times, local};

/// The socket of journald that libsystemd writes to; without it, it says nothing and loses the lines.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// What syslog servers take at the least, in bytes (rsyslog's `maxMessageSize` is 8 KiB).
const SYSLOG_MESSAGE: usize = 8000;

/// A place for lines.
pub(super) enum Out {
    /// Standard output or error.
    Stream(Box<dyn Write + Send>, Style),
    /// A file.
    File(LogFile, Style),
    /// The server behind a socket.
    Syslog(Syslog),
    /// journald.
    Journal,
}

impl Out {
    /// A file, made where there is none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(path: &Path, style: Style) -> io::Result<Out> {
        Ok(Out::File(LogFile { file: open(path)?, path: path.to_owned(), torn: false }, style))
    }

    /// The server that listens on this socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn syslog(path: &Path, facility: &str, style: Style) -> io::Result<Out> {
        let socket = Syslog::connect(path)?;
        let facility = facility_code(facility);
        Ok(Out::Syslog(Syslog { socket, path: path.to_owned(), facility, style }))
    }

    /// The journal of this machine.
    ///
    /// # Errors
    /// When there is none.
    pub fn journal() -> io::Result<Out> {
        fs::metadata(JOURNAL).map(|_| Out::Journal)
    }

    /// Writes lines; how many were, and why not all.
    pub fn write(&mut self, lines: &[Line], times: &mut Times) -> (usize, io::Result<()>) {
        match self {
            Out::Stream(stream, style) => {
                let text = written(lines, style, times);
                match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
                    Ok(()) => (lines.len(), Ok(())),
                    Err(error) => (0, Err(error)),
                }
            }
            Out::File(file, style) => file.write(&written(lines, style, times), lines.len()),
            Out::Syslog(syslog) => each(lines, |line| syslog.send(line, times)),
            Out::Journal => each(lines, to_journal),
        }
    }

    /// Whether it is standard error itself, where else nobody would hear of its faults.
    pub fn is_stream(&self) -> bool {
        matches!(self, Out::Stream(..))
    }
}

fn written(lines: &[Line], style: &Style, times: &mut Times) -> String {
    let mut text = String::new();
    for line in lines {
        style.write(line, times, &mut text);
    }
    text
}

fn each(lines: &[Line], mut write: impl FnMut(&Line) -> io::Result<()>) -> (usize, io::Result<()>) {
    for (nth, line) in lines.iter().enumerate() {
        if let Err(error) = write(line) {
            return (nth, Err(error));
        }
    }
    (lines.len(), Ok(()))
}

/// A log file. Whoever rotates it need not tell us: one that lies under its name no longer is opened anew.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// It ends within a line, since the disk was full.
    torn: bool,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl LogFile {
    fn write(&mut self, text: &str, lines: usize) -> (usize, io::Result<()>) {
        self.follow_its_name();
        if self.torn {
            match self.file.write_all(b"\n") {
                Ok(()) => self.torn = false,
                Err(error) => return (0, Err(error)),
            }
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return self.stopped(text, rest, io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.stopped(text, rest, error),
            }
        }
        (lines, Ok(()))
    }

    fn stopped(&mut self, text: &str, rest: &[u8], why: io::Error) -> (usize, io::Result<()>) {
        let written = &text.as_bytes()[..text.len() - rest.len()];
        self.torn = written.last().is_some_and(|byte| *byte != b'\n');
        (written.iter().filter(|byte| **byte == b'\n').count(), Err(why))
    }

    fn follow_its_name(&mut self) {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let here = fs::metadata(&self.path).map(identity);
        let is_here =
            self.file.metadata().map(identity).is_ok_and(|it| here.is_ok_and(|at| at == it));
        // Where none can be made, the one that was moved away is better than nothing.
        if !is_here && let Ok(file) = open(&self.path) {
            (self.file, self.torn) = (file, false);
        }
    }
}

/// A connection to syslog, made anew when the server was.
pub(super) struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    facility: u8,
    style: Style,
}

impl Syslog {
    fn connect(path: &Path) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(socket)
    }

    /// A message as syslog(3) makes it, so that every server understands it.
    fn send(&mut self, line: &Line, times: &mut Times) -> io::Result<()> {
        let priority = self.facility * 8 + line.level.priority();
        let mut message =
            format!("<{priority}>{} ", local(line.at, &times.zone).strftime("%b %e %H:%M:%S"));
        self.style.write(line, times, &mut message);
        message.pop();
        let mut end = message.len().min(SYSLOG_MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = &message.as_bytes()[..end];
        if self.socket.send(message).is_ok() {
            return Ok(());
        }
        self.socket = Syslog::connect(&self.path)?;
        self.socket.send(message).map(drop)
    }
}

/// The number of a facility, as in syslog.h.
fn facility_code(name: &str) -> u8 {
    const NAMES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
        "authpriv", "ftp",
    ];
    match name.strip_prefix("local").and_then(|nth| nth.parse::<u8>().ok()) {
        Some(nth) => 16 + nth.min(7),
        None => NAMES.iter().position(|known| *known == name).unwrap_or(3) as u8,
    }
}

/// An entry with every word of the line in a field of its own.
fn to_journal(line: &Line) -> io::Result<()> {
    fs::metadata(JOURNAL)?;
    let mut fields = vec![
        format!("MESSAGE={}", line.text),
        format!("PRIORITY={}", line.level.priority()),
        format!("SYSLOG_IDENTIFIER={}", line.program()),
        format!("SYSLOG_PID={}", std::process::id()),
        format!("LOGGER={}", line.logger),
    ];
    for (name, value) in &line.fields {
        fields.push(format!("FAIL2XDP_{}={value}", name.to_ascii_uppercase()));
    }
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    systemd::journal::send(&fields).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::{cli::log::line::Level, config::LogFormat, engine::Timestamp};

    fn style() -> Style {
        Style::new(&LogFormat { time: Some(false), ..LogFormat::default() }, true, false)
            .expect("a style")
    }

    fn line(text: &str) -> Line {
        let (at, logger) = (Timestamp::from_seconds(0), "fail2ban.actions".into());
        Line { at, level: Level::NOTICE, logger, text: text.into(), fields: Vec::new() }
    }

    fn said(text: &str) -> String {
        format!("fail2ban.actions[{}]: NOTICE {text}\n", std::process::id())
    }

    #[test]
    fn a_file_that_is_renamed_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, rotated) = (folder.path().join("x.log"), folder.path().join("x.log.1"));
        let mut out = Out::file(&log, style()).expect("a file");
        assert!(out.write(&[line("one")], &mut Times::new(TimeZone::UTC)).1.is_ok());
        fs::rename(&log, &rotated).expect("it is there");
        assert_eq!(out.write(&[line("two"), line("three")], &mut Times::new(TimeZone::UTC)).0, 2);
        assert_eq!(fs::read_to_string(rotated).expect("a file"), said("one"));
        assert_eq!(fs::read_to_string(log).expect("a file"), said("two") + &said("three"));
    }

    #[test]
    fn syslog_gets_messages_of_syslog_3() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        assert!(Out::syslog(&path, "daemon", style()).is_err(), "nobody listens");
        let server = UnixDatagram::bind(&path).expect("a socket");
        let mut out = Out::syslog(&path, "mail", style()).expect("a server");
        let mut heard = |server: &UnixDatagram| {
            assert!(out.write(&[line("hello")], &mut Times::new(TimeZone::UTC)).1.is_ok());
            let mut message = [0; 200];
            let length = server.recv(&mut message).expect("a message");
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        let expected = format!("<21>Jan  1 00:00:00 {}", said("hello").trim_end());
        assert_eq!(heard(&server), expected);
        drop(server);
        fs::remove_file(&path).expect("it is there");
        let server = UnixDatagram::bind(&path).expect("a server that was started anew");
        assert_eq!(heard(&server), expected);
    }

    #[test]
    fn facilities_have_the_numbers_of_syslog_h() {
        let codes = ["kern", "daemon", "authpriv", "ftp", "local0", "local7"].map(facility_code);
        assert_eq!(codes, [0, 3, 10, 11, 16, 23]);
    }
}
