//! From a journal entry to the line that filters know from syslog files: `HOSTNAME IDENT[PID]: MESSAGE`.
use std::fmt::Write;

use crate::engine::Timestamp;

/// Bytes of a message that are read, as of a line in a file.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// A field's name is no longer: journald refuses one of more than 64 bytes, and every name asked for is shorter.
const LONGEST_NAME: usize = 64;

/// Memory for one entry that is kept for the next one.
const BLOCK: usize = 64 << 10;

/// Bytes of any other field that are read: journald makes them, or keeps them as short.
const MAX_NAME: usize = 4096;

/// The fields of an entry that make its line and its time. Kept from entry to entry for its memory.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    host: Field,
    identifier: Field,
    command: Field,
    syslog_pid: Field,
    pid: Field,
    message: Field,
    has_message: bool,
    source_time: Field,
    source_monotonic: Field,
    /// A field was longer than what is read of it.
    cut: bool,
    line: String,
}

/// A field's value; empty when the entry has none.
#[derive(Debug, Default)]
struct Field(Vec<u8>);

impl Field {
    /// Keeps the first value that says something; answers whether it was cut.
    fn set(&mut self, value: &[u8]) -> bool {
        self.is_missing() && self.add(value, MAX_NAME)
    }

    fn add(&mut self, value: &[u8], at_most: usize) -> bool {
        let room = at_most.saturating_sub(self.0.len());
        self.0.extend_from_slice(&value[..value.len().min(room)]);
        value.len() > room
    }

    fn is_missing(&self) -> bool {
        self.0.is_empty()
    }

    fn or<'a>(&'a self, other: &'a Field) -> &'a Field {
        if self.is_missing() { other } else { self }
    }

    fn number<N: std::str::FromStr>(&self) -> Option<N> {
        std::str::from_utf8(&self.0).ok()?.trim().parse().ok()
    }
}

impl Entry {
    /// Begins with another entry.
    pub(crate) fn begin(&mut self) {
        let fields = [
            &mut self.host,
            &mut self.identifier,
            &mut self.command,
            &mut self.syslog_pid,
            &mut self.pid,
            &mut self.message,
            &mut self.source_time,
            &mut self.source_monotonic,
        ];
        fields.into_iter().for_each(|field| field.0.clear());
        // What one huge message took is not kept for ever.
        self.message.0.shrink_to(BLOCK);
        self.line.clear();
        self.line.shrink_to(BLOCK);
        self.has_message = false;
        self.cut = false;
    }

    /// Takes `FIELD=value`.
    pub(crate) fn see(&mut self, data: &[u8]) {
        let name = &data[..data.len().min(LONGEST_NAME)];
        let Some(equals) = memchr::memchr(b'=', name) else { return };
        let (name, value) = (&data[..equals], &data[equals + 1..]);
        self.cut |= match name {
            b"MESSAGE" => {
                // Values of a field that an entry has several times are joined.
                let joined = std::mem::replace(&mut self.has_message, true);
                (joined && self.message.add(b" ", MAX_MESSAGE))
                    | self.message.add(value, MAX_MESSAGE)
            }
            b"_HOSTNAME" => self.host.set(value),
            b"SYSLOG_IDENTIFIER" => self.identifier.set(value),
            b"_COMM" => self.command.set(value),
            b"SYSLOG_PID" => self.syslog_pid.set(value),
            b"_PID" => self.pid.set(value),
            b"_SOURCE_REALTIME_TIMESTAMP" => self.source_time.set(value),
            b"_SOURCE_MONOTONIC_TIMESTAMP" => self.source_monotonic.set(value),
            _ => false,
        };
    }

    /// Whether a field was longer than what is read of it.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// When it was logged, if the entry says so itself.
    pub(crate) fn source_time(&self) -> Option<Timestamp> {
        self.source_time.number().map(Timestamp::from_micros)
    }

    /// The line. `monotonic` gives the microseconds since boot, for the kernel's own messages that do not tell.
    ///
    /// As fail2ban renders it, down to the blank before an empty message; but it fails over a host or an identifier
    /// that an entry has twice, of which this takes the first.
    pub(crate) fn line(&mut self, monotonic: impl FnOnce() -> Option<u64>) -> &str {
        let line = &mut self.line;
        line.clear();
        push(line, &self.host.0);
        let identifier = self.identifier.or(&self.command);
        if !identifier.is_missing() {
            space(line);
            let begin = line.len();
            push(line, &identifier.0);
            let says = |pid: &&Field| !pid.is_missing() && pid.number::<i64>() != Some(0);
            if let Some(pid) = [&self.syslog_pid, &self.pid].into_iter().find(says) {
                line.push('[');
                match pid.number::<i64>() {
                    // Writing to a string does not fail.
                    Some(number) => drop(write!(line, "{number}")),
                    None => push(line, &pid.0),
                }
                line.push(']');
            }
            line.push(':');
            if &line[begin..] == "kernel:" {
                let micros = self.source_monotonic.number::<u64>().or_else(monotonic);
                if let Some(micros) = micros {
                    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
                    let _ = write!(line, " [{seconds:5}.{rest:06}]");
                }
            }
        }
        space(line);
        push(line, &self.message.0);
        line
    }
}

/// Appends text; whatever a writer put into a field, the line stays one line.
fn push(line: &mut String, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\n');
    line.push_str(parts.next().unwrap_or_default());
    for part in parts {
        line.push_str("\\n");
        line.push_str(part);
    }
}

fn space(line: &mut String) {
    if !line.is_empty() {
        line.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[&str], expect: &str) {
        let mut entry = Entry::default();
        // Nothing of the entry before may show.
        entry.see(b"MESSAGE=before");
        entry.see(b"_PID=1");
        entry.line(|| None);
        entry.begin();
        fields.iter().for_each(|data| entry.see(data.as_bytes()));
        assert_eq!(entry.line(|| Some(12_003_045)), expect);
    }

    #[test]
    fn an_entry_reads_like_a_line_of_syslog() {
        check(
            &["_HOSTNAME=web", "SYSLOG_IDENTIFIER=sshd", "_PID=7", "MESSAGE=Failed password"],
            "web sshd[7]: Failed password",
        );
        check(
            &["_HOSTNAME=web", "_COMM=su", "SYSLOG_PID=8", "_PID=9", "MESSAGE=x"],
            "web su[8]: x",
        );
        check(&["SYSLOG_IDENTIFIER=a", "_COMM=b", "MESSAGE=x"], "a: x");
        check(&["_HOSTNAME=web", "MESSAGE=x"], "web x");
        check(&["_PID=7", "MESSAGE=x"], "x");
        check(&["_HOSTNAME=web", "_COMM=a"], "web a: ");
        check(
            &["_HOSTNAME=w", "SYSLOG_IDENTIFIER=", "_COMM=a", "SYSLOG_PID=", "_PID=5", "MESSAGE="],
            "w a[5]: ",
        );
        check(&[], "");
    }

    #[test]
    fn newlines_are_escaped_and_lists_joined() {
        check(&["MESSAGE=one\ntwo\n", "MESSAGE=three"], "one\\ntwo\\n three");
        check(&["_HOSTNAME=w", "SYSLOG_IDENTIFIER=a\nb", "MESSAGE=x"], "w a\\nb: x");
        check(&["MESSAGE=", "MESSAGE=x", "MESSAGE="], " x ");
        check(&["MESSAGE=a\r\nb\tc\0d  "], "a\r\\nb\tc\0d  ");
    }

    #[test]
    fn process_numbers_are_numbers_where_they_can_be() {
        for (said, shown) in [
            ("007", "a[7]: x"),
            (" 12 ", "a[12]: x"),
            ("-5", "a[-5]: x"),
            ("abc", "a[abc]: x"),
            ("0", "a[9]: x"),
        ] {
            let said = format!("SYSLOG_PID={said}");
            check(&["SYSLOG_IDENTIFIER=a", &said, "_PID=9", "MESSAGE=x"], shown);
        }
        check(&["SYSLOG_IDENTIFIER=a", "_PID=0", "MESSAGE=x"], "a: x");
    }

    #[test]
    fn what_is_no_text_is_replaced_and_what_is_huge_is_cut() {
        let mut entry = Entry::default();
        entry.see(b"MESSAGE=a\xff\xfeb \xe2\x82 c");
        assert_eq!(entry.line(|| None), "a\u{fffd}\u{fffd}b \u{fffd} c");
        assert!(!entry.is_cut());
        entry.begin();
        for _ in 0..3 {
            entry.see(&[b"MESSAGE=", &*vec![b'x'; MAX_MESSAGE / 2]].concat());
        }
        assert_eq!((entry.line(|| None).len(), entry.is_cut()), (MAX_MESSAGE, true));
        entry.begin();
        assert!(entry.line(|| None).is_empty() && !entry.is_cut());
        assert!(entry.line.capacity() <= 2 * BLOCK && entry.message.0.capacity() <= 2 * BLOCK);
        entry.see(&[b"SYSLOG_IDENTIFIER=", &*vec![b'y'; 9000]].concat());
        assert_eq!((entry.line(|| None).len(), entry.is_cut()), (MAX_NAME + 2, true));
    }

    #[test]
    fn the_kernel_adds_its_own_time() {
        check(
            &["_HOSTNAME=h", "SYSLOG_IDENTIFIER=kernel", "MESSAGE=x"],
            "h kernel: [   12.003045] x",
        );
        check(
            &["SYSLOG_IDENTIFIER=kernel", "_SOURCE_MONOTONIC_TIMESTAMP=345678000009", "MESSAGE=x"],
            "kernel: [345678.000009] x",
        );
        check(&["SYSLOG_IDENTIFIER=kernel", "_PID=3", "MESSAGE=x"], "kernel[3]: x");
    }

    #[test]
    fn the_source_time_is_in_microseconds() {
        let mut entry = Entry::default();
        entry.see(b"_SOURCE_REALTIME_TIMESTAMP=1700000000123456");
        assert_eq!(entry.source_time(), Some(Timestamp::from_micros(1_700_000_000_123_456)));
        entry.begin();
        entry.see(b"_SOURCE_REALTIME_TIMESTAMP=soon");
        assert_eq!(entry.source_time(), None);
    }
}
