//! What the file knows of the past, asked by somebody who waits: through a connection of its own that only reads.
use std::{path::Path, time::Duration};

use ipnet::IpNet;
use rusqlite::{Connection, OpenFlags, params, params_from_iter};

use crate::{
    config::JailName,
    engine::{Timestamp, Until},
};

/// How long somebody else's lock is waited for.
const LOCK: Duration = Duration::from_millis(500);

/// How often a jail has banned a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The jail.
    pub jail: JailName,
    /// The prefix.
    pub prefix: IpNet,
    /// Its bans that are remembered, one that holds now included.
    pub bans: u64,
    /// When the last of them began.
    pub last: Timestamp,
    /// When the last of them ended, or will.
    pub until: Until,
}

/// The history of these prefixes, as it stands in the file; at most 129 of them.
///
/// # Errors
///
/// In SQLite's words.
pub fn history(file: &Path, prefixes: &[IpNet]) -> Result<Vec<Earlier>, String> {
    read(file, prefixes).map_err(|error| error.to_string())
}

/// A ban that may be over, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierBan {
    /// By whom.
    pub jail: JailName,
    /// Its last failure.
    pub since: Timestamp,
    /// Failures that led to it.
    pub failures: u64,
    /// The last matched lines.
    pub lines: Vec<String>,
}

/// What is kept of bans, for who shows it with a later one.
#[derive(Debug)]
pub struct Evidence(Connection);

impl Evidence {
    /// Opens the file to read.
    ///
    /// # Errors
    ///
    /// In SQLite's words.
    pub fn open(file: &Path) -> Result<Evidence, String> {
        open(file).map(Evidence).map_err(|error| error.to_string())
    }

    /// Of the bans of this prefix, the newest first and at most `most`.
    ///
    /// # Errors
    ///
    /// In SQLite's words.
    pub fn of(&self, prefix: IpNet, most: usize) -> Result<Vec<EarlierBan>, String> {
        let read = || {
            let mut statement = self.0.prepare_cached(
                "SELECT jail, since, failures, lines FROM evidence WHERE prefix = ?1 ORDER BY since DESC, rowid LIMIT ?2",
            )?;
            let mut rows = statement.query(params![prefix.to_string(), most as i64])?;
            let mut bans = Vec::new();
            while let Some(row) = rows.next()? {
                let (jail, lines): (String, String) = (row.get(0)?, row.get(3)?);
                let (since, failures): (i64, i64) = (row.get(1)?, row.get(2)?);
                let lines = serde_json::from_str(&lines).unwrap_or_default();
                let (jail, since) = (JailName::new(&jail), Timestamp::from_micros(since));
                bans.push(EarlierBan { jail, since, failures: failures.unsigned_abs(), lines });
            }
            Ok(bans)
        };
        read().map_err(|error: rusqlite::Error| error.to_string())
    }
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(file, flags)?;
    sql.busy_timeout(LOCK)?;
    Ok(sql)
}

fn read(file: &Path, prefixes: &[IpNet]) -> rusqlite::Result<Vec<Earlier>> {
    let sql = open(file)?;
    let marks = vec!["?"; prefixes.len()].join(", ");
    let mut statement = sql.prepare(&format!(
        "SELECT jail, prefix, bans, last, until FROM history WHERE prefix IN ({marks}) ORDER BY last"
    ))?;
    let mut rows = statement.query(params_from_iter(prefixes.iter().map(IpNet::to_string)))?;
    let mut past = Vec::new();
    while let Some(row) = rows.next()? {
        let (jail, prefix): (String, String) = (row.get(0)?, row.get(1)?);
        let until: Option<i64> = row.get(4)?;
        // What was asked for by its text is a prefix.
        let Ok(prefix) = prefix.parse() else { continue };
        past.push(Earlier {
            jail: JailName::new(&jail),
            prefix,
            bans: row.get::<_, i64>(2)?.unsigned_abs(),
            last: Timestamp::from_micros(row.get(3)?),
            until: until.map_or(Until::Forever, |end| Until::At(Timestamp::from_micros(end))),
        });
    }
    Ok(past)
}
