//! The rows of the tables, written and read.
use std::{collections::HashMap, path::PathBuf, str::FromStr, sync::Arc};

use ipnet::IpNet;
use rusqlite::{Connection, Row, ToSql, params};

use super::{ActionStanding, Loaded, Place, Task};
use crate::{
    config::{JailName, Place as Written, Scope},
    engine::{Ban, Change, FailRegex, FailureId, Origin, Past, Pending, Timestamp, Until},
};

/// Bytes of one matched line that are kept, and of all lines together.
const LINE: usize = 1024;
const LINES: usize = 8192;

/// What the engine remembers no longer of the history: a past is kept for three times the length of its last ban.
pub(super) const FORGOTTEN: &str = "until < ?1 AND 3 * until - 2 * last < ?1";

/// A text that is no address begins with this in `counts.who`.
const TEXT: char = '=';

/// Numbers of failregexes, as far as they were asked for in one transaction.
pub(super) type RuleNumbers = HashMap<Arc<FailRegex>, i64>;

/// Enters a ban, or moves its end; in the history it stands with the end that it was given.
pub(super) fn ban(
    sql: &Connection,
    ban: &Ban,
    matches: usize,
    round: i64,
    rules: &mut RuleNumbers,
) -> rusqlite::Result<()> {
    let (jail, prefix) = (ban.jail.as_str(), ban.prefix.to_string());
    let (since, until) = (ban.since.micros(), end(ban.until));
    let rule = ban.origin.rule.as_ref().map(|rule| number_of(sql, rule, rules)).transpose()?;
    sql.prepare_cached(
        "INSERT INTO bans (jail, prefix, since, until, failures, scope, lines, round, rule, addresses, fields)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT DO UPDATE SET since = excluded.since, until = excluded.until, failures = excluded.failures,
         scope = excluded.scope, lines = excluded.lines, round = excluded.round, rule = excluded.rule,
         addresses = excluded.addresses, fields = excluded.fields",
    )?
    .execute(params![
        jail,
        prefix,
        since,
        until,
        ban.failures,
        ban.scope.to_string(),
        text_of(&ban.lines, matches),
        round,
        rule,
        addresses_of(&ban.origin),
        fields_of(&ban.origin)
    ])?;
    if ban.counted {
        let found = Past { bans: ban.count, last: ban.since, until: ban.until };
        past(sql, &ban.jail, ban.prefix, &found)?;
    }
    Ok(())
}

/// Enters a ban's failures and lines, to be shown with later bans of its address.
pub(super) fn evidence(sql: &Connection, ban: &Ban, matches: usize) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "INSERT OR IGNORE INTO evidence (jail, prefix, since, failures, lines) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        ban.jail.as_str(),
        ban.prefix.to_string(),
        ban.since.micros(),
        ban.failures,
        text_of(&ban.lines, matches)
    ])?;
    Ok(())
}

/// Enters a task.
pub(super) fn task(sql: &Connection, task: &Task, round: i64) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "INSERT OR REPLACE INTO action_queue (seq, jail, action, task, round) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        task.seq.cast_signed(),
        task.jail.as_str(),
        &*task.action,
        task.text.text(),
        round
    ])?;
    Ok(())
}

/// Takes a task out.
pub(super) fn done(sql: &Connection, seq: u64) -> rusqlite::Result<()> {
    let mut delete = sql.prepare_cached("DELETE FROM action_queue WHERE seq = ?1")?;
    delete.execute([seq.cast_signed()]).map(drop)
}

/// Enters how an action stands.
pub(super) fn standing(sql: &Connection, standing: &ActionStanding) -> rusqlite::Result<()> {
    let ActionStanding { jail, action, text } = standing;
    sql.prepare_cached(
        "INSERT OR REPLACE INTO action_standing (jail, action, standing) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![jail, action, text])?;
    Ok(())
}

/// Enters what is remembered of an address, unless something later is.
pub(super) fn past(
    sql: &Connection,
    jail: &JailName,
    prefix: IpNet,
    past: &Past,
) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "INSERT INTO history (jail, prefix, bans, last, until) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET bans = excluded.bans, last = excluded.last, until = excluded.until
         WHERE excluded.last > last",
    )?
    .execute(params![
        jail.as_str(),
        prefix.to_string(),
        past.bans,
        past.last.micros(),
        end(past.until)
    ])?;
    Ok(())
}

/// Enters a login.
pub(super) fn login(sql: &Connection, prefix: IpNet, at: Timestamp) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "INSERT INTO logins (prefix, at) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET at = excluded.at WHERE excluded.at > at",
    )?
    .execute(params![prefix.to_string(), at.micros()])?;
    Ok(())
}

/// Forgets the past of an address, or of all that a jail has banned.
pub(super) fn pardoned(
    sql: &Connection,
    jail: &JailName,
    prefix: Option<IpNet>,
) -> rusqlite::Result<()> {
    for table in ["history", "evidence"] {
        match prefix {
            Some(prefix) => sql
                .prepare_cached(&format!("DELETE FROM {table} WHERE jail = ?1 AND prefix = ?2"))?
                .execute(params![jail.as_str(), prefix.to_string()])?,
            None => sql
                .prepare_cached(&format!("DELETE FROM {table} WHERE jail = ?1"))?
                .execute([jail.as_str()])?,
        };
    }
    Ok(())
}

/// The number of a failregex, given now if it has none.
fn number_of(
    sql: &Connection,
    rule: &Arc<FailRegex>,
    known: &mut RuleNumbers,
) -> rusqlite::Result<i64> {
    if let Some(number) = known.get(rule) {
        return Ok(*number);
    }
    let number = stored_number_of(sql, rule)?;
    known.insert(rule.clone(), number);
    Ok(number)
}

fn stored_number_of(sql: &Connection, rule: &FailRegex) -> rusqlite::Result<i64> {
    let file = rule.place.as_ref().map_or(String::new(), |place| place.file.display().to_string());
    let line = rule.place.as_ref().map_or(0, |place| place.line);
    let key = params![rule.nth as i64, line, file, rule.text];
    let known = "SELECT id FROM rules WHERE nth = ?1 AND line = ?2 AND file = ?3 AND text = ?4";
    match sql.prepare_cached(known)?.query_row(key, |row| row.get(0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => {}
        found => return found,
    }
    sql.prepare_cached("INSERT INTO rules (nth, line, file, text) VALUES (?1, ?2, ?3, ?4)")?
        .insert(key)
}

/// Takes out the failregexes that no ban names.
pub(super) fn forget_rules(sql: &Connection) -> rusqlite::Result<()> {
    let used = "SELECT rule FROM bans WHERE rule IS NOT NULL";
    sql.execute(&format!("DELETE FROM rules WHERE id NOT IN ({used})"), []).map(drop)
}

/// Takes a ban out; one that was lifted by hand is held against nobody.
pub(super) fn lifted(
    sql: &Connection,
    ban: &Ban,
    by_hand: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let key = params![ban.jail.as_str(), ban.prefix.to_string()];
    sql.prepare_cached("DELETE FROM bans WHERE jail = ?1 AND prefix = ?2")?.execute(key)?;
    if let Some(at) = by_hand {
        pardoned(sql, &ban.jail, Some(ban.prefix))?;
        sql.prepare_cached("INSERT OR REPLACE INTO lifted (jail, prefix, at) VALUES (?1, ?2, ?3)")?
            .execute(params![ban.jail.as_str(), ban.prefix.to_string(), at.micros()])?;
    }
    Ok(())
}

pub(super) fn count(sql: &Connection, change: &Change) -> rusqlite::Result<()> {
    let (jail, who) = (change.jail.as_str(), who(&change.who));
    let Some(pending) = &change.pending else {
        let mut delete = sql.prepare_cached("DELETE FROM counts WHERE jail = ?1 AND who = ?2")?;
        return delete.execute(params![jail, who]).map(drop);
    };
    sql.prepare_cached(
        "INSERT OR REPLACE INTO counts (jail, who, first, last, attempts, failures, lapses, lines)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        jail,
        who,
        pending.first.micros(),
        pending.last.micros(),
        pending.attempts,
        pending.failures,
        change.lapses.micros(),
        text_of(&pending.lines, usize::MAX)
    ])?;
    Ok(())
}

pub(super) fn place(sql: &Connection, place: &Place, now: Timestamp) -> rusqlite::Result<()> {
    sql.prepare_cached("INSERT OR REPLACE INTO places (source, place, at) VALUES (?1, ?2, ?3)")?
        .execute(params![place.source, place.text, now.micros()])?;
    Ok(())
}

/// Notes a number under a name.
pub(super) fn note(sql: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("INSERT OR REPLACE INTO notes (name, value) VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}

pub(super) fn noted(sql: &Connection, name: &str) -> rusqlite::Result<i64> {
    let found = sql.query_row("SELECT value FROM notes WHERE name = ?1", [name], |row| row.get(0));
    match found {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(0),
        found => found,
    }
}

/// Deletes at most `most` rows of `table` for which `condition` holds of `?1`; answers how many.
pub(super) fn delete_some(
    sql: &Connection,
    table: &str,
    condition: &str,
    value: &dyn ToSql,
    most: usize,
) -> rusqlite::Result<usize> {
    sql.prepare_cached(&format!(
        "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {condition} LIMIT {most})"
    ))?
    .execute([value])
}

/// Reads everything that a start wants. A row that cannot be understood is counted and left; what is read of a damaged
/// file before the damage is kept, and told with the error.
pub(super) fn load(sql: &Connection) -> (Loaded, rusqlite::Result<()>) {
    let mut loaded = Loaded::default();
    let mut texts = Texts::default();
    let read = (|| {
        each(sql, "SELECT id, nth, text, file, line FROM rules", |row| texts.rule(row))?;
        // First what would be missed most.
        const BANS: &str = "SELECT jail, prefix, since, bans.until, failures, scope, lines, rule, addresses, history.bans, fields
             FROM bans LEFT JOIN history USING (jail, prefix)";
        each(sql, BANS, |row| {
            let ban = texts.ban(row)?;
            loaded.unreadable += u64::from(ban.is_none());
            loaded.bans.extend(ban);
            Ok(())
        })?;
        each(sql, "SELECT jail, prefix, last, until, bans FROM history", |row| {
            let (prefix, last): (String, i64) = (row.get(1)?, row.get(2)?);
            let (jail, until, bans) = (texts.jail(row.get(0)?), until(row.get(3)?), row.get(4)?);
            let past = Past { bans, last: Timestamp::from_micros(last), until };
            let found = prefix.parse().ok();
            loaded.unreadable += u64::from(found.is_none());
            loaded.history.extend(found.map(|prefix| (jail, prefix, past)));
            Ok(())
        })?;
        each(sql, "SELECT jail, prefix, at FROM lifted", |row| {
            let (prefix, at): (String, i64) = (row.get(1)?, row.get(2)?);
            let jail = texts.jail(row.get(0)?);
            let found = prefix.parse().ok();
            loaded.unreadable += u64::from(found.is_none());
            loaded.lifted.extend(found.map(|prefix| (jail, prefix, Timestamp::from_micros(at))));
            Ok(())
        })?;
        each(sql, "SELECT prefix, at FROM logins", |row| {
            let (prefix, at): (String, i64) = (row.get(0)?, row.get(1)?);
            let found = prefix.parse().ok();
            loaded.unreadable += u64::from(found.is_none());
            loaded.logins.extend(found.map(|prefix| (prefix, Timestamp::from_micros(at))));
            Ok(())
        })?;
        each(sql, "SELECT task FROM action_queue ORDER BY seq", |row| {
            loaded.tasks.push(row.get(0)?);
            Ok(())
        })?;
        each(sql, "SELECT jail, action, standing FROM action_standing", |row| {
            let (jail, action, text) = (row.get(0)?, row.get(1)?, row.get(2)?);
            loaded.standings.push(ActionStanding { jail, action, text });
            Ok(())
        })?;
        let (mut places, mut counts) = (Vec::new(), Vec::new());
        each(sql, "SELECT source, place FROM places", |row| {
            places.push(Place { source: row.get(0)?, text: row.get(1)? });
            Ok(())
        })?;
        each(
            sql,
            "SELECT jail, who, first, last, attempts, failures, lapses, lines FROM counts",
            |row| {
                let count = texts.count(row)?;
                loaded.unreadable += u64::from(count.is_none());
                counts.extend(count);
                Ok(())
            },
        )?;
        // Both or neither: one without the other would count lines twice, or miss them.
        (loaded.places, loaded.counts) = (places, counts);
        Ok(())
    })();
    (loaded, read)
}

fn each(
    sql: &Connection,
    query: &str,
    mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = sql.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(next) = rows.next()? {
        row(next)?;
    }
    Ok(())
}

/// Names and scopes that many rows share.
#[derive(Default)]
struct Texts {
    jails: HashMap<String, JailName>,
    scopes: HashMap<String, Option<Arc<Scope>>>,
    rules: HashMap<i64, Arc<FailRegex>>,
}

impl Texts {
    fn jail(&mut self, name: String) -> JailName {
        self.jails.entry(name).or_insert_with_key(|name| JailName::new(name)).clone()
    }

    fn rule(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let (nth, text, file): (u32, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let line: u32 = row.get(4)?;
        let place = (line > 0).then(|| Written { file: Arc::new(PathBuf::from(file)), line });
        let rule = FailRegex { nth: nth as usize, text: text.into(), place };
        self.rules.insert(row.get(0)?, Arc::new(rule));
        Ok(())
    }

    fn ban(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<Ban>> {
        let (prefix, scope, lines): (String, String, String) =
            (row.get(1)?, row.get(5)?, row.get(6)?);
        let scope = self.scopes.entry(scope);
        let scope = scope.or_insert_with_key(|text| Scope::from_str(text).ok().map(Arc::new));
        let (Ok(prefix), Some(scope)) = (prefix.parse::<IpNet>(), scope.clone()) else {
            return Ok(None);
        };
        let (rule, addresses): (Option<i64>, String) = (row.get(7)?, row.get(8)?);
        Ok(Some(Ban {
            prefix,
            jail: self.jail(row.get(0)?),
            scope,
            since: Timestamp::from_micros(row.get(2)?),
            until: until(row.get(3)?),
            failures: row.get(4)?,
            count: row.get::<_, Option<u32>>(9)?.unwrap_or(1),
            counted: true,
            lines: lines_of(&lines),
            origin: Origin {
                rule: rule.and_then(|rule| self.rules.get(&rule).cloned()),
                addresses: addresses.split(' ').flat_map(str::parse).collect(),
                fields: serde_json::from_str(&row.get::<_, String>(10)?).unwrap_or_default(),
            },
        }))
    }

    fn count(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<Change>> {
        let (who, lines): (String, String) = (row.get(1)?, row.get(7)?);
        let who = match who.strip_prefix(TEXT) {
            Some(text) => FailureId::Text(text.into()),
            None => match who.parse() {
                Ok(prefix) => FailureId::Network(prefix),
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(Change {
            jail: self.jail(row.get(0)?),
            who,
            pending: Some(Pending {
                first: Timestamp::from_micros(row.get(2)?),
                last: Timestamp::from_micros(row.get(3)?),
                attempts: row.get(4)?,
                failures: row.get(5)?,
                lines: lines_of(&lines),
                origin: Origin::default(),
            }),
            lapses: Timestamp::from_micros(row.get(6)?),
        }))
    }
}

/// Whom a count is of, as it stands in the file.
pub(super) fn who(who: &FailureId) -> String {
    match who {
        FailureId::Address(address) => IpNet::from(*address).to_string(),
        FailureId::Network(net) => net.to_string(),
        FailureId::Name(text) | FailureId::Text(text) => format!("{TEXT}{text}"),
    }
}

fn end(until: Until) -> Option<i64> {
    match until {
        Until::At(end) => Some(end.micros()),
        Until::Forever => None,
    }
}

fn until(end: Option<i64>) -> Until {
    end.map_or(Until::Forever, |end| Until::At(Timestamp::from_micros(end)))
}

/// The last lines as a JSON list; long ones are cut.
fn text_of(lines: &[Box<str>], most: usize) -> String {
    let mut room = LINES;
    let mut kept: Vec<&str> = Vec::new();
    for line in lines.iter().rev().take(most) {
        let mut end = line.len().min(LINE).min(room);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = &line[..end];
        room -= line.len();
        kept.push(line);
        if room == 0 {
            break;
        }
    }
    kept.reverse();
    serde_json::to_string(&kept).expect("texts can be written as JSON")
}

fn addresses_of(origin: &Origin) -> String {
    let texts: Vec<String> = origin.addresses.iter().map(ToString::to_string).collect();
    texts.join(" ")
}

/// Most bans have none.
fn fields_of(origin: &Origin) -> String {
    if origin.fields.is_empty() {
        return String::new();
    }
    serde_json::to_string(&origin.fields).expect("texts can be written as JSON")
}

/// Lines that cannot be read are none: a ban holds without its evidence.
fn lines_of(text: &str) -> Vec<Box<str>> {
    serde_json::from_str(text).unwrap_or_default()
}
