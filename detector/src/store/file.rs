//! The database file: made, opened, brought up to date, and set aside when it is damaged.
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::engine::Timestamp;

/// How long a write waits for somebody else's lock, an administrator's `sqlite3` say.
const LOCK: Duration = Duration::from_secs(1);

/// Damaged files kept; with more than these the disk is to blame, and it would be filled with them.
const KEPT: usize = 16;

/// The files that make a database.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Each brings the schema of the version before it to its own; never changed once released.
const MIGRATIONS: [&str; 4] = [FIRST, SECOND, THIRD, FOURTH];

const FIRST: &str = "
    -- Times are microseconds since the Unix epoch, ends too; an end that is NULL is never.
    CREATE TABLE bans (
        jail TEXT NOT NULL, prefix TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER,
        failures INTEGER NOT NULL, scope TEXT NOT NULL, lines TEXT NOT NULL, round INTEGER NOT NULL,
        PRIMARY KEY (jail, prefix));
    CREATE TABLE history (
        jail TEXT NOT NULL, prefix TEXT NOT NULL, bans INTEGER NOT NULL, last INTEGER NOT NULL, until INTEGER,
        PRIMARY KEY (jail, prefix));
    CREATE INDEX history_until ON history (until);
    CREATE TABLE lifted (
        jail TEXT NOT NULL, prefix TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (jail, prefix));
    CREATE TABLE places (source TEXT PRIMARY KEY NOT NULL, place TEXT NOT NULL, at INTEGER NOT NULL);
    CREATE TABLE counts (
        jail TEXT NOT NULL, who TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        attempts INTEGER NOT NULL, failures INTEGER NOT NULL, lapses INTEGER NOT NULL, lines TEXT NOT NULL,
        PRIMARY KEY (jail, who));
    CREATE INDEX counts_lapses ON counts (lapses);
    CREATE TABLE notes (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL);
    CREATE VIEW banned AS SELECT prefix, jail, datetime(since / 1000000, 'unixepoch') AS since_utc,
        datetime(until / 1000000, 'unixepoch') AS until_utc, failures, scope FROM bans;
";

/// What a ban was found by, and of whom; the history asked for one prefix.
const SECOND: &str = "
    CREATE TABLE rules (
        id INTEGER PRIMARY KEY, nth INTEGER NOT NULL, text TEXT NOT NULL, file TEXT NOT NULL, line INTEGER NOT NULL,
        UNIQUE (nth, line, file, text));
    ALTER TABLE bans ADD COLUMN rule INTEGER;
    ALTER TABLE bans ADD COLUMN addresses TEXT NOT NULL DEFAULT '';
    CREATE INDEX history_prefix ON history (prefix);
";

/// Who logged in, an IPv4 address or a /64 each, and when last.
const THIRD: &str = "
    CREATE TABLE logins (prefix TEXT PRIMARY KEY NOT NULL, at INTEGER NOT NULL);
";

/// What actions have not been told yet, how they stand, and bans of the past for those that show them.
const FOURTH: &str = "
    CREATE TABLE action_queue (
        seq INTEGER PRIMARY KEY NOT NULL, jail TEXT NOT NULL, action TEXT NOT NULL, task TEXT NOT NULL,
        round INTEGER NOT NULL);
    CREATE TABLE action_standing (
        jail TEXT NOT NULL, action TEXT NOT NULL, standing TEXT NOT NULL, PRIMARY KEY (jail, action));
    CREATE TABLE evidence (
        jail TEXT NOT NULL, prefix TEXT NOT NULL, since INTEGER NOT NULL, failures INTEGER NOT NULL,
        lines TEXT NOT NULL, PRIMARY KEY (jail, prefix, since));
    CREATE INDEX evidence_prefix ON evidence (prefix);
    CREATE INDEX evidence_since ON evidence (since);
    ALTER TABLE bans ADD COLUMN fields TEXT NOT NULL DEFAULT '';
";

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The file cannot be made or read.
    #[error("cannot use `{}`: {source}", path.display())]
    Place { path: PathBuf, source: io::Error },
    /// Somebody newer wrote it.
    #[error(
        "`{}` has version {found} of its tables, this program knows {}: it is left as it is and nothing is stored; \
         start the newer program, or give this one another --state",
        path.display(), MIGRATIONS.len()
    )]
    Newer { path: PathBuf, found: usize },
    /// SQLite does not like it.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
}

impl FileError {
    /// The file's bytes are wrong: to wait would not help.
    pub fn is_damage(&self) -> bool {
        matches!(self, FileError::Sql(error) if is_damage(error))
    }
}

/// The file's bytes are wrong: to wait would not help.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    match error {
        InvalidColumnType(..) | FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) => true,
        // `Unknown` is what a table says that is gone, or is another one.
        error => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
        ),
    }
}

/// An open database.
#[derive(Debug)]
pub(super) struct File {
    pub sql: Connection,
    path: PathBuf,
    /// The file that `path` meant when it was opened.
    inode: u64,
    /// It held nothing.
    pub is_new: bool,
}

impl File {
    /// Opens the file, made where there is none, and brings its tables up to date.
    pub fn open(path: &Path) -> Result<File, FileError> {
        let place = |source| FileError::Place { path: path.to_owned(), source };
        // Made before SQLite does, so that nobody else can ever read it; what it puts beside it has the same mode.
        let mut options = OpenOptions::new();
        let made = options.read(true).append(true).create(true).mode(0o600).open(path);
        let inode = made.and_then(|file| file.metadata()).map_err(place)?.ino();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sql = Connection::open_with_flags(path, flags)?;
        sql.busy_timeout(LOCK)?;
        sql.pragma_update(None, "journal_mode", "WAL")?;
        // The last writes may be lost with the power, never with the process, and never in part.
        sql.pragma_update(None, "synchronous", "NORMAL")?;
        sql.pragma_update(None, "journal_size_limit", 16 << 20)?;
        sql.pragma_update(None, "cell_size_check", true)?;
        sql.set_prepared_statement_cache_capacity(32);
        let is_new = migrate(&sql, path)?;
        Ok(File { sql, path: path.to_owned(), inode, is_new })
    }

    /// Opens a file that lies where nothing can be written, to read what it holds but for the last writes.
    pub fn open_to_read(path: &Path) -> Result<File, FileError> {
        let place = |source| FileError::Place { path: path.to_owned(), source };
        let inode = fs::metadata(path).map_err(place)?.ino();
        let text = path.to_string_lossy();
        let escaped = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sql = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?;
        let found = version(&sql)?;
        if found > MIGRATIONS.len() {
            return Err(FileError::Newer { path: path.to_owned(), found });
        }
        Ok(File { sql, path: path.to_owned(), inode, is_new: false })
    }

    /// Whether the name still means this file: somebody may have removed it.
    pub fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode)
    }

    /// What is wrong inside, if anything. Reads all of it.
    pub fn fault(&self) -> rusqlite::Result<Option<String>> {
        let said: String = self.sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((said != "ok").then_some(said))
    }
}

fn version(sql: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = sql.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Answers whether the file was empty.
fn migrate(sql: &Connection, path: &Path) -> Result<bool, FileError> {
    let before = version(sql)?;
    let Some(missing) = MIGRATIONS.get(before..) else {
        return Err(FileError::Newer { path: path.to_owned(), found: before });
    };
    for (nth, statements) in missing.iter().enumerate() {
        let version = before + nth + 1;
        sql.execute_batch(&format!(
            "BEGIN IMMEDIATE; {statements}; PRAGMA user_version = {version}; COMMIT"
        ))
        .inspect_err(|_| {
            // Nothing more can be done where that fails too: the connection is given up.
            let _ = sql.execute_batch("ROLLBACK");
        })?;
    }
    Ok(before == 0)
}

/// Renames a damaged database, with what SQLite keeps beside it; answers its new name.
///
/// # Errors
/// When it cannot be renamed, or too many lie there already.
pub(super) fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let damaged = format!("{own}.damaged-");
    let lying = fs::read_dir(dir)?.flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with(&damaged) && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    if lying.count() >= KEPT {
        return Err(io::Error::other(format!(
            "{KEPT} damaged files lie in `{}` already: look at the disk, then remove them",
            dir.display()
        )));
    }
    let time = jiff::Timestamp::from_microsecond(now.micros()).map_err(io::Error::other)?;
    let stamp = time.strftime("%Y%m%d-%H%M%S");
    let free = (0..).map(|nth| match nth {
        0 => dir.join(format!("{damaged}{stamp}")),
        nth => dir.join(format!("{damaged}{stamp}.{nth}")),
    });
    let target = free.into_iter().find(|name| !name.exists()).expect("the numbers do not end");
    for part in PARTS {
        let with = |path: &Path| PathBuf::from(format!("{}{part}", path.display()));
        match fs::rename(with(path), with(&target)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(target)
}
