//! fail2ban's database: who is banned until when, and who was.
//!
//! Tables of its versions 3 and 4, which fail2ban 0.11 and later write; what each column holds was learned from files
//! that they wrote.
use std::path::Path;

use anyhow::{Context, bail};
use ipnet::IpNet;
use rusqlite::{Connection, OpenFlags, Row, types::ValueRef};
use serde_json::Value;

use crate::config;

/// Bytes of a row's evidence that are looked at.
const MOST_DATA: usize = 1 << 20;

/// One ban, live or over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Banned {
    pub jail: String,
    pub prefix: IpNet,
    /// Unix seconds.
    pub since: i64,
    /// Seconds; less than nothing is for ever.
    pub time: i64,
    pub failures: u32,
    /// How often it was banned, this ban included.
    pub count: u32,
    pub lines: Vec<Box<str>>,
}

impl Banned {
    /// The end in Unix seconds; `None`: there is none.
    pub fn end(&self) -> Option<i64> {
        (self.time >= 0).then(|| self.since.saturating_add(self.time))
    }
}

/// What the file holds.
#[derive(Debug, Default)]
pub(super) struct Database {
    /// The last ban of each address in each jail; over, too.
    pub last: Vec<Banned>,
    /// Every ban remembered, the oldest first.
    pub history: Vec<Banned>,
    /// Rows about something that is no address, such as a user name.
    pub not_addresses: u64,
}

/// Reads the file, and changes nothing in it; also while fail2ban runs.
pub(super) fn read(path: &Path) -> anyhow::Result<Database> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let about = || format!("cannot read fail2ban's database `{}`", path.display());
    let sql = Connection::open_with_flags(path, flags).with_context(about)?;
    sql.busy_timeout(std::time::Duration::from_secs(5)).with_context(about)?;
    let version: i64 = sql
        .query_row("SELECT version FROM fail2banDb LIMIT 1", [], |row| row.get(0))
        .with_context(about)?;
    if version < 3 {
        bail!(
            "fail2ban's database `{}` has version {version} of its tables: start fail2ban 0.11 or later on it once",
            path.display()
        );
    }
    let mut read = Database::default();
    let columns = "jail, ip, timeofban, bantime, data, bancount";
    let mut all = |query: String| {
        let mut rows = Vec::new();
        let mut statement = sql.prepare(&query)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            match banned(row)? {
                Some(banned) => rows.push(banned),
                None => read.not_addresses += 1,
            }
        }
        Ok::<_, rusqlite::Error>(rows)
    };
    read.history =
        all(format!("SELECT {columns} FROM bans ORDER BY timeofban")).with_context(about)?;
    read.last = match version {
        // Version 3 has no table of the last ones.
        3 => all(format!(
            "SELECT {columns} FROM bans GROUP BY jail, ip HAVING timeofban = max(timeofban)"
        )),
        _ => all(format!("SELECT {columns} FROM bips ORDER BY timeofban")),
    }
    .with_context(about)?;
    Ok(read)
}

/// `None`: whoever was banned has no address.
fn banned(row: &Row<'_>) -> rusqlite::Result<Option<Banned>> {
    let text = |column| -> rusqlite::Result<String> {
        Ok(match row.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            _ => String::new(),
        })
    };
    let Ok(prefix) = config::network(&text(1)?) else { return Ok(None) };
    let (failures, lines) = match row.get_ref(4)? {
        ValueRef::Text(data) | ValueRef::Blob(data) => evidence(data),
        _ => (0, Vec::new()),
    };
    Ok(Some(Banned {
        jail: text(0)?,
        prefix,
        since: row.get(2)?,
        time: row.get(3)?,
        failures,
        count: row.get(5)?,
        lines,
    }))
}

/// Failures and matched lines; a line may lie there in three parts: before the date, the date, after it.
fn evidence(data: &[u8]) -> (u32, Vec<Box<str>>) {
    let Some(Ok(data)) = data.get(..data.len().min(MOST_DATA)).map(serde_json::from_slice::<Value>)
    else {
        return (0, Vec::new());
    };
    let line = |line: &Value| match line {
        Value::String(text) => Some(text.as_str().into()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(Value::as_str).collect::<String>().into())
        }
        _ => None,
    };
    let lines = data["matches"].as_array().into_iter().flatten().filter_map(line).collect();
    let failures = data["failures"].as_u64().and_then(|count| u32::try_from(count).ok());
    (failures.unwrap_or(0), lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_read_in_either_form() {
        let data = br#"{"matches": [["", "2026-11-20 11:59:46", " bad 203.0.113.9"], "again"], "failures": 3, "ip4": "x"}"#;
        let (failures, lines) = evidence(data);
        assert_eq!(failures, 3);
        assert_eq!(lines, ["2026-11-20 11:59:46 bad 203.0.113.9".into(), "again".into()]);
        assert_eq!(evidence(b"{"), (0, Vec::new()));
        assert_eq!(evidence(b"[]"), (0, Vec::new()));
    }

    #[test]
    fn tables_of_both_versions_are_read() {
        for (version, last) in [(3, false), (4, true)] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("db");
            let sql = Connection::open(&path).expect("a file");
            let table = "(jail TEXT, ip TEXT, timeofban INTEGER, bantime INTEGER, bancount INTEGER, data JSON)";
            let bips = if last { format!("CREATE TABLE bips {table};") } else { String::new() };
            sql.execute_batch(&format!(
                "CREATE TABLE fail2banDb (version INTEGER); INSERT INTO fail2banDb VALUES ({version});
                 CREATE TABLE bans {table}; {bips}
                 INSERT INTO bans VALUES ('sshd', '192.0.2.1', 100, 60, 1, '{{}}'), ('sshd', 'root', 101, 60, 1, '{{}}'),
                 ('sshd', '192.0.2.1', 200, -1, 2, '{{\"failures\": 5}}');"
            ))
            .expect("tables");
            if last {
                sql.execute_batch("INSERT INTO bips SELECT * FROM bans WHERE timeofban = 200")
                    .expect("a row");
            }
            let read = read(&path).expect("a database");
            let times: Vec<(i64, u32)> =
                read.history.iter().map(|ban| (ban.since, ban.count)).collect();
            assert_eq!(times, [(100, 1), (200, 2)], "version {version}");
            assert_eq!(read.last.len(), 1, "version {version}");
            let ban = &read.last[0];
            assert_eq!((ban.since, ban.end(), ban.failures), (200, None, 5), "version {version}");
        }
    }

    #[test]
    fn what_is_no_such_database_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("db");
        let error = format!("{:#}", read(&path).expect_err("there is none"));
        assert!(
            error.contains("cannot read fail2ban's database") && error.contains("db"),
            "{error}"
        );
        std::fs::write(&path, "no database at all, though long enough for one").expect("a file");
        assert!(read(&path).is_err());
    }
}
