//! From a journal entry to the line that filters know from syslog files: `HOSTNAME IDENT[PID]: MESSAGE`.
use std::fmt::Write;

use crate::engine::Timestamp;

/// The fields of an entry that make its line and its time. Kept from entry to entry for its memory.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    host: Field,
    identifier: Field,
    command: Field,
    syslog_pid: Field,
    pid: Field,
    message: Field,
    source_time: Field,
    line: String,
}

/// A field's value; empty when the entry has none.
#[derive(Debug, Default)]
struct Field(Vec<u8>);

impl Field {
    fn set(&mut self, value: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(value);
    }

    /// Values of a field that an entry has several times are joined.
    fn join(&mut self, value: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b' ');
        }
        self.0.extend_from_slice(value);
    }

    fn is_missing(&self) -> bool {
        self.0.is_empty()
    }

    fn or<'a>(&'a self, other: &'a Field) -> &'a Field {
        if self.is_missing() { other } else { self }
    }
}

impl Entry {
    /// Begins with another entry.
    pub(crate) fn begin(&mut self) {
        let Entry { host, identifier, command, syslog_pid, pid, message, source_time, line } = self;
        for field in [host, identifier, command, syslog_pid, pid, message, source_time] {
            field.0.clear();
        }
        line.clear();
    }

    /// Takes `FIELD=value`.
    pub(crate) fn see(&mut self, data: &[u8]) {
        let Some(equals) = memchr::memchr(b'=', data) else { return };
        let (name, value) = (&data[..equals], &data[equals + 1..]);
        match name {
            b"MESSAGE" => self.message.join(value),
            b"_HOSTNAME" => self.host.set(value),
            b"SYSLOG_IDENTIFIER" => self.identifier.set(value),
            b"_COMM" => self.command.set(value),
            b"SYSLOG_PID" => self.syslog_pid.set(value),
            b"_PID" => self.pid.set(value),
            b"_SOURCE_REALTIME_TIMESTAMP" => self.source_time.set(value),
            _ => {}
        }
    }

    /// When it was logged, if the entry says so itself.
    pub(crate) fn source_time(&self) -> Option<Timestamp> {
        let micros = std::str::from_utf8(&self.source_time.0).ok()?.parse().ok()?;
        Some(Timestamp::from_micros(micros))
    }

    /// The line. `monotonic` gives the microseconds since boot, for the kernel's own messages.
    pub(crate) fn line(&mut self, monotonic: impl FnOnce() -> Option<u64>) -> &str {
        let Entry { host, identifier, command, syslog_pid, pid, message, line, .. } = self;
        line.push_str(&String::from_utf8_lossy(&host.0));
        let identifier = identifier.or(command);
        if !identifier.is_missing() {
            space(line);
            line.push_str(&String::from_utf8_lossy(&identifier.0));
            let pid = syslog_pid.or(pid);
            if !pid.is_missing() {
                line.push('[');
                line.push_str(&String::from_utf8_lossy(&pid.0));
                line.push(']');
            }
            line.push(':');
            if identifier.0 == b"kernel"
                && pid.is_missing()
                && let Some(micros) = monotonic()
            {
                // Writing to a string does not fail.
                let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
                let _ = write!(line, " [{seconds:5}.{rest:06}]");
            }
        }
        if !message.is_missing() {
            space(line);
            let text = String::from_utf8_lossy(&message.0);
            let mut parts = text.split('\n');
            line.push_str(parts.next().unwrap_or_default());
            for part in parts {
                line.push_str("\\n");
                line.push_str(part);
            }
        }
        line
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
        check(&["_HOSTNAME=web", "_COMM=a"], "web a:");
        check(&[], "");
    }

    #[test]
    fn newlines_are_escaped_and_lists_joined() {
        check(&["MESSAGE=one\ntwo\n", "MESSAGE=three"], "one\\ntwo\\n three");
    }

    #[test]
    fn the_kernel_adds_its_own_time() {
        check(
            &["_HOSTNAME=h", "SYSLOG_IDENTIFIER=kernel", "MESSAGE=x"],
            "h kernel: [   12.003045] x",
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
