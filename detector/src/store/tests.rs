//! The store on real files, some of them on disks that are full, read-only, or written over.
use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::engine::{FailRegex, FailureId, Origin, Pending, Until};

const DEADLINE: Duration = Duration::from_secs(20);
const SETTINGS: StoreSettings =
    StoreSettings { purge_age: Duration::from_secs(86_400), max_matches: 3 };

fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

/// An open store, and what it found and says.
struct Bench {
    store: Store,
    loaded: Loaded,
    news: mpsc::Receiver<News>,
    runtime: Runtime,
}

fn start(path: &Path) -> Bench {
    start_at(path, now)
}

fn start_at(path: &Path, clock: Clock) -> Bench {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime for the test");
    let (store, loaded, news) =
        Store::start(path.to_owned(), SETTINGS, clock).expect("a thread for the test");
    let loaded = runtime.block_on(async { tokio::time::timeout(DEADLINE, loaded).await });
    let loaded = loaded.expect("it opens in time").expect("it says what it found");
    Bench { store, loaded, news, runtime }
}

impl Bench {
    fn write(&self, write: Write) {
        assert!(self.store.write(write), "there is room");
    }

    /// Whether what was handed over is stored.
    fn settled(&self) -> bool {
        let settled = self.store.settled();
        let settled =
            self.runtime.block_on(async { tokio::time::timeout(DEADLINE, settled).await });
        settled.expect("it is said in time").is_ok()
    }

    fn next_news(&mut self) -> News {
        let news =
            self.runtime.block_on(async { tokio::time::timeout(DEADLINE, self.news.recv()).await });
        news.unwrap_or_else(|_| panic!("no news; {:?}", self.store.status())).expect("it lives")
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&Store) -> bool) {
        let end = crate::clock::monotonic() + DEADLINE;
        while !holds(&self.store) {
            assert!(crate::clock::monotonic() < end, "{what}: {:?}", self.store.status());
            std::thread::yield_now();
        }
    }

    fn close(self) {
        assert!(self.store.close(DEADLINE));
    }
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = dir.path().join(FILE);
    (dir, path)
}

fn ban(nth: u32, since: i64, until: Until) -> Arc<Ban> {
    Arc::new(Ban {
        prefix: IpNet::from(IpAddr::from(nth.to_be_bytes())),
        jail: JailName::new("sshd"),
        scope: Arc::new("tcp:22".parse().expect("a scope")),
        since: Timestamp::from_seconds(since),
        until,
        failures: 5,
        count: 1,
        counted: true,
        lines: ["one", "two", "thrée", "four"].map(Into::into).to_vec(),
        origin: Origin {
            rule: Some(Arc::new(FailRegex { nth: 2, text: "^a <HOST>".into(), place: None })),
            addresses: vec!["2001:db8::1".parse().expect("an address")],
            fields: vec![("user".into(), "ro'ot".into())],
        },
    })
}

fn until(seconds: i64) -> Until {
    Until::At(Timestamp::from_seconds(seconds))
}

fn change(jail: &str, who: FailureId, attempts: u32) -> Change {
    let at = Timestamp::from_seconds(1_800_000_100);
    let pending = Pending {
        first: at,
        last: at,
        attempts,
        failures: attempts,
        lines: vec!["l".into()],
        origin: Origin::default(),
    };
    Change {
        jail: JailName::new(jail),
        who,
        pending: (attempts > 0).then_some(pending),
        lapses: at.plus(Duration::from_secs(600)),
    }
}

fn net(text: &str) -> FailureId {
    FailureId::Network(text.parse().expect("a network"))
}

fn at(offset: &str) -> Place {
    Place { source: "file /var/log/x".into(), text: offset.into() }
}

fn cut(jail: &str, offset: &str) -> Write {
    Write::Cut { jails: vec![JailName::new(jail)], places: vec![at(offset)] }
}

fn number(path: &Path, query: &str) -> i64 {
    let sql = Connection::open(path).expect("an administrator may look");
    sql.query_row(query, [], |row| row.get(0)).expect(query)
}

#[test]
fn what_is_written_is_found_again() {
    let (_dir, path) = place();
    let bench = start(&path);
    assert_eq!(bench.loaded, Loaded::default());
    let lasting = ban(1, 1_800_000_000, Until::Forever);
    bench.write(Write::Ban(lasting.clone()));
    bench.write(Write::Ban(ban(2, 1_800_000_000, until(1_800_000_600))));
    let prolonged = ban(2, 1_800_000_000, until(1_800_000_700));
    bench.write(Write::Ban(prolonged.clone()));
    let over = ban(3, 1_800_000_000, until(1_800_000_001));
    bench.write(Write::Ban(over.clone()));
    bench.write(Write::Lifted { ban: over, by_hand: None });
    let lifted = ban(4, 1_800_000_000, until(1_800_000_600));
    bench.write(Write::Ban(lifted.clone()));
    let (hand, jail) = (Timestamp::from_micros(1_800_000_002_500_000), lifted.jail.clone());
    bench.write(Write::Lifted { ban: lifted.clone(), by_hand: Some(hand) });
    let (from, then) = ("192.0.2.0/24".parse().expect("a network"), Timestamp::from_micros(5));
    for at in [Timestamp::from_micros(4), then, Timestamp::from_micros(1)] {
        bench.write(Write::LoggedIn(from, at));
    }
    assert!(bench.settled());
    bench.close();

    let bench = start(&path);
    let evidence = |ban: &Ban| Ban { lines: ban.lines[1..].to_vec(), ..ban.clone() };
    assert_eq!(bench.loaded.bans, [evidence(&lasting), evidence(&prolonged)]);
    assert_eq!(bench.loaded.lifted, [(jail, lifted.prefix, hand)]);
    assert_eq!(bench.loaded.logins, [(from, then)]);
    bench.close();
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(number(&path, "PRAGMA user_version"), 4);
}

#[test]
fn a_ban_counts_once_in_the_history_however_often_it_is_written() {
    let (_dir, path) = place();
    let bench = start(&path);
    for (since, count) in [(100, 1), (100, 1), (200, 2), (200, 2), (150, 2)] {
        let ban = ban(1, 1_800_000_000 + since, until(1_800_000_600));
        bench.write(Write::Ban(Arc::new(Ban { count, ..(*ban).clone() })));
    }
    let other = (*ban(1, 1_800_000_300, until(1_800_000_600))).clone();
    bench.write(Write::Ban(Arc::new(Ban { count: 3, counted: false, ..other })));
    assert!(bench.settled());
    assert_eq!(number(&path, "SELECT bans FROM history"), 2);
    assert_eq!(number(&path, "SELECT last / 1000000 FROM history"), 1_800_000_200);
    let ban = ban(1, 1_800_000_200, until(1_800_000_600));
    bench.write(Write::Lifted { ban, by_hand: Some(now()) });
    assert!(bench.settled());
    assert_eq!(number(&path, "SELECT count(*) FROM history"), 0, "pardoned");
    bench.close();
}

#[test]
fn counts_and_positions_are_stored_together_or_not_at_all() {
    let (_dir, path) = place();
    let bench = start(&path);
    let counts = vec![
        change("a", net("192.0.2.1/32"), 2),
        change("a", FailureId::Text("root".into()), 1),
        change("a", net("192.0.2.2/32"), 1),
        change("b", net("2001:db8::/64"), 1),
    ];
    bench.write(Write::Counts(counts.clone()));
    bench.write(Write::Counts(vec![change("a", net("192.0.2.2/32"), 0)]));
    assert!(bench.settled());
    assert_eq!(number(&path, "SELECT count(*) FROM counts"), 0, "no position came yet");
    bench.write(cut("a", "7"));
    bench.write(Write::Counts(vec![change("a", net("192.0.2.1/32"), 3)]));
    assert!(bench.settled());
    bench.close();
    let bench = start(&path);
    let mut found = bench.loaded.counts.clone();
    found.sort_by_key(|change| rows::who(&change.who));
    assert_eq!(found, counts[..2], "as of the position, and of its jail alone");
    assert_eq!(bench.loaded.places, [at("7")]);
    bench.close();
}

#[test]
fn everything_anew_leaves_nothing_old_behind() {
    let (_dir, path) = place();
    let bench = start(&path);
    for nth in 1..4 {
        bench.write(Write::Ban(ban(nth, 1_800_000_000, Until::Forever)));
    }
    let counts = vec![change("a", net("192.0.2.1/32"), 1), change("b", net("192.0.2.1/32"), 1)];
    bench.write(Write::Counts(counts));
    bench.write(cut("a", "1"));
    bench.write(cut("b", "1"));
    bench.store.begin_anew();
    bench.write(Write::Ban(ban(2, 1_800_000_000, Until::Forever)));
    bench.write(Write::Counts(vec![change("a", net("192.0.2.9/32"), 1)]));
    bench.write(cut("a", "2"));
    bench.write(Write::Complete);
    assert!(bench.settled());
    assert_eq!(number(&path, "SELECT count(*) FROM bans"), 1);
    assert_eq!(number(&path, "SELECT count(*) FROM counts WHERE jail = 'a'"), 1);
    assert_eq!(number(&path, "SELECT count(*) FROM counts WHERE jail = 'b'"), 1, "not cut yet");
    bench.close();
}

#[test]
fn a_newer_file_is_left_alone() {
    let (_dir, path) = place();
    start(&path).close();
    let sql = Connection::open(&path).expect("opened");
    sql.pragma_update(None, "user_version", 99).expect("written");
    drop(sql);
    let before = fs::read(&path).expect("read");
    let mut bench = start(&path);
    let news = bench.next_news();
    assert!(news.alarm && news.text.contains("has version 99"), "{news:?}");
    bench.write(Write::Ban(ban(1, 1, Until::Forever)));
    assert!(!bench.settled());
    assert!(matches!(bench.store.status().state, State::Off(_)));
    assert!(!bench.store.wants_anew(), "nobody should try");
    bench.close();
    assert_eq!(fs::read(&path).expect("read"), before);
}

/// A store with so many bans, closed.
fn filled(path: &Path, bans: u32) {
    let bench = start(path);
    for nth in 0..bans {
        bench.write(Write::Ban(ban(nth, 1_800_000_000, Until::Forever)));
    }
    assert!(bench.settled());
    bench.close();
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("opened");
    file.write_all_at(bytes, offset).expect("written");
}

/// The damaged file lies aside, and a new one holds what it is given anew.
#[track_caller]
fn is_rebuilt(mut bench: Bench, path: &Path) {
    let news = bench.next_news();
    assert!(news.alarm && news.text.contains("damaged"), "{news:?}");
    assert_eq!(bench.next_news(), News { alarm: false, text: "the store works again".into() });
    bench.wait("all is wanted anew", Store::wants_anew);
    let aside = bench.store.status().set_aside.expect("it says where the damaged file lies");
    assert!(aside.exists());
    bench.store.begin_anew();
    bench.write(Write::Ban(ban(7, 1_800_000_000, Until::Forever)));
    bench.write(Write::Complete);
    assert!(bench.settled());
    assert_eq!(bench.store.status().faults, 1);
    bench.close();
    assert_eq!(number(path, "SELECT count(*) FROM bans"), 1);
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    let (_dir, path) = place();
    fs::write(&path, "dear administrator, this is no database\n".repeat(200)).expect("written");
    let bench = start(&path);
    assert_eq!(bench.loaded, Loaded::default());
    is_rebuilt(bench, &path);
}

#[test]
fn of_a_file_damaged_in_the_middle_what_can_be_read_is_kept() {
    let (_dir, path) = place();
    filled(&path, 1000);
    let size = fs::metadata(&path).expect("it is there").len();
    overwrite(&path, size / 2, &[0xa5; 9000]);
    let bench = start(&path);
    assert!(!bench.loaded.bans.is_empty(), "what comes before the damage");
    assert!(bench.loaded.bans.len() <= 1000);
    is_rebuilt(bench, &path);
}

#[test]
fn a_table_that_is_gone_is_damage() {
    let (_dir, path) = place();
    filled(&path, 1000);
    Connection::open(&path).and_then(|sql| sql.execute_batch("DROP TABLE counts")).expect("done");
    let bench = start(&path);
    assert_eq!(bench.loaded.bans.len(), 1000);
    is_rebuilt(bench, &path);
}

#[test]
fn damage_while_it_runs_is_noticed_and_outlived() {
    let (_dir, path) = place();
    // More than SQLite keeps in memory.
    filled(&path, 20_000);
    let bench = start(&path);
    assert!(bench.settled());
    let size = fs::metadata(&path).expect("it is there").len();
    overwrite(&path, 4096, &vec![0xa5; size as usize - 4096]);
    for nth in 0..20_000 {
        bench.write(Write::Ban(ban(nth, 1_800_000_000, Until::Forever)));
    }
    is_rebuilt(bench, &path);
}

#[test]
fn a_file_that_is_removed_while_it_runs_is_made_anew() {
    let (_dir, path) = place();
    let mut bench = start(&path);
    bench.write(Write::Ban(ban(1, 1_800_000_000, Until::Forever)));
    assert!(bench.settled());
    for part in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{part}", path.display())).expect("removed");
    }
    bench.write(Write::Ban(ban(2, 1_800_000_000, Until::Forever)));
    let news = bench.next_news();
    assert!(news.alarm && news.text.contains("is gone"), "{news:?}");
    assert!(!bench.next_news().alarm, "and is made again");
    bench.wait("all is wanted anew", Store::wants_anew);
    assert!(path.exists());
    bench.close();
}

#[test]
fn somebody_elses_lock_is_outlived() {
    let (_dir, path) = place();
    filled(&path, 1000);
    let mut bench = start(&path);
    assert!(bench.settled());
    let other = Connection::open(&path).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    bench.write(Write::Ban(ban(5000, 1_800_000_000, Until::Forever)));
    let news = bench.next_news();
    assert!(news.alarm && news.text.contains("locked"), "{news:?}");
    assert!(!bench.settled(), "whoever asks now is told so at once");
    other.execute_batch("COMMIT").expect("unlocked");
    assert!(!bench.next_news().alarm);
    assert!(!bench.store.wants_anew(), "nothing was lost");
    assert!(bench.settled());
    assert_eq!(number(&path, "SELECT count(*) FROM bans"), 1001);
    bench.close();
}

/// A file system of its own; unmounted at the end.
struct Mount(TempDir);

impl Mount {
    fn new(options: &str) -> Mount {
        let mount = Mount(tempfile::tempdir().expect("a directory for the test"));
        mount.run("mount", &["-t", "tmpfs", "-o", options, "tmpfs"]);
        mount
    }

    fn run(&self, program: &str, words: &[&str]) {
        let done = Command::new(program).args(words).arg(self.0.path()).output();
        let done = done.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(done.status.success(), "{program} {words:?}, as root: {done:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_once_and_what_waits_is_written_when_there_is_room() {
    let mount = Mount::new("size=1m");
    let path = mount.0.path().join(FILE);
    let mut bench = start(&path);
    for nth in 0..20_000 {
        bench.write(Write::Ban(ban(nth, 1_800_000_000, Until::Forever)));
    }
    let news = bench.next_news();
    assert!(news.alarm && news.text.contains("full"), "{news:?}");
    for nth in 20_000..20_100 {
        bench.write(Write::Ban(ban(nth, 1_800_000_000, Until::Forever)));
    }
    bench.wait("it fails", |store| matches!(store.status().state, State::Fails(_)));
    mount.run("mount", &["-o", "remount,size=64m"]);
    assert!(!bench.next_news().alarm, "one fault, one end");
    assert!(bench.settled());
    assert!(!bench.store.wants_anew(), "nothing was lost");
    assert_eq!(bench.store.status().faults, 1);
    assert_eq!(number(&path, "SELECT count(*) FROM bans"), 20_100);
    bench.close();
}

#[test]
fn what_waits_for_a_full_disk_is_bounded_and_follows_anew() {
    let mount = Mount::new("size=1m");
    let path = mount.0.path().join(FILE);
    let mut bench = start(&path);
    for nth in 0..200_000 {
        // A daemon never waits; a test has the time.
        while !bench.store.write(Write::Ban(ban(nth, 1_800_000_000, Until::Forever))) {
            std::thread::yield_now();
        }
    }
    assert!(bench.next_news().alarm);
    bench.wait("writes are given up", |store| store.status().lost > 0);
    mount.run("mount", &["-o", "remount,size=64m"]);
    assert!(!bench.next_news().alarm);
    bench.wait("all is wanted anew", Store::wants_anew);
    bench.store.begin_anew();
    bench.write(Write::Ban(ban(3, 1_800_000_000, Until::Forever)));
    bench.write(Write::Complete);
    assert!(bench.settled());
    assert_eq!(number(&path, "SELECT count(*) FROM bans"), 1);
    bench.close();
}

#[test]
fn what_lies_on_a_disk_that_cannot_be_written_is_read_still() {
    let mount = Mount::new("size=8m");
    let path = mount.0.path().join(FILE);
    filled(&path, 1000);
    mount.run("mount", &["-o", "remount,ro"]);
    let mut bench = start(&path);
    assert_eq!(bench.loaded.bans.len(), 1000);
    let news = bench.next_news();
    assert!(news.alarm && news.text.contains("ead-only"), "{news:?}");
    bench.write(Write::Ban(ban(5000, 1_800_000_000, Until::Forever)));
    mount.run("mount", &["-o", "remount,rw"]);
    assert!(!bench.next_news().alarm);
    assert!(bench.settled());
    assert_eq!(number(&path, "SELECT count(*) FROM bans"), 1001);
    bench.close();
}

#[test]
fn more_than_may_wait_is_refused_and_counted() {
    let (_dir, path) = place();
    filled(&path, 1000);
    let bench = start(&path);
    assert!(bench.settled());
    let other = Connection::open(&path).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let ban = ban(1, 1_800_000_000, Until::Forever);
    // The writer takes what waits once, and is then held up by the lock for a second.
    let refused = (0..300_000).filter(|_| !bench.store.write(Write::Ban(ban.clone()))).count();
    assert!(refused > 0);
    assert_eq!(bench.store.status().refused, refused as u64);
    assert!(bench.store.is_behind());
    other.execute_batch("COMMIT").expect("unlocked");
    bench.wait("all is wanted anew", Store::wants_anew);
    bench.close();
}

#[test]
fn old_rows_go_and_those_of_live_bans_stay() {
    let (_dir, path) = place();
    let bench = start(&path);
    bench.write(Write::Ban(ban(1, 1_800_000_000, until(1_800_000_600))));
    bench.write(Write::Ban(ban(2, 1_800_000_000, Until::Forever)));
    let lifted = ban(3, 1_800_000_000, Until::Forever);
    bench.write(Write::Lifted { ban: lifted, by_hand: Some(now()) });
    bench.write(Write::Counts(vec![change("a", net("192.0.2.1/32"), 1)]));
    bench.write(cut("a", "1"));
    assert!(bench.settled());
    bench.close();
    let sql = Connection::open(&path).expect("opened");
    let old = [
        ("history", "until < ?1", 1_800_000_600 * 1_000_000i64),
        ("counts", "lapses < ?1", 1_800_000_701 * 1_000_000),
        ("lifted", "at < ?1", 1_800_000_001 * 1_000_000),
    ];
    for (table, condition, bound) in old {
        let deleted = rows::delete_some(&sql, table, condition, &bound, 500);
        let expect = usize::from(table != "history");
        assert_eq!(deleted.expect("deleted"), expect, "{table}");
    }
    let later = 1_800_000_601 * 1_000_000i64;
    let deleted = rows::delete_some(&sql, "history", "until < ?1", &later, 500);
    assert_eq!(deleted.expect("deleted"), 1, "the ban that does not end stays");
}

#[test]
fn evidence_is_bounded() {
    let (_dir, path) = place();
    let bench = start(&path);
    let long =
        Ban { lines: vec!["é".repeat(3000).into(); 3], ..(*ban(1, 1, Until::Forever)).clone() };
    bench.write(Write::Ban(Arc::new(long)));
    assert!(bench.settled());
    bench.close();
    let bench = start(&path);
    let lines: Vec<usize> = bench.loaded.bans[0].lines.iter().map(|line| line.len()).collect();
    assert_eq!(lines, [1024, 1024, 1024]);
    bench.close();
}

#[derive(Debug)]
struct Text(u64);

impl TaskText for Text {
    fn text(&self) -> String {
        format!("task {}", self.0)
    }
}

fn task(seq: u64) -> Task {
    Task { seq, jail: JailName::new("sshd"), action: "mail".into(), text: Arc::new(Text(seq)) }
}

#[test]
fn tasks_are_kept_until_they_are_over() {
    let (_dir, path) = place();
    let bench = start(&path);
    let banned = ban(1, 1_800_000_000, Until::Forever);
    bench.write(Write::Told(Box::new(Write::Ban(banned)), vec![task(7), task(8)]));
    bench.write(Write::Tasks(vec![task(9), task(10)]));
    bench.write(Write::Done(vec![8, 9]));
    let standing = ActionStanding { jail: "sshd".into(), action: "mail".into(), text: "s".into() };
    bench.write(Write::Standing(standing.clone()));
    bench.close();
    let bench = start(&path);
    assert_eq!(bench.loaded.bans.len(), 1);
    assert_eq!(bench.loaded.tasks, ["task 7", "task 10"]);
    assert_eq!(bench.loaded.standings, [standing]);
    // What is not given anew is over.
    bench.store.begin_anew();
    bench.write(Write::Tasks(vec![task(10), task(11)]));
    bench.write(Write::Complete);
    bench.close();
    assert_eq!(start(&path).loaded.tasks, ["task 10", "task 11"]);
}

#[test]
fn evidence_is_kept_for_who_asks_and_until_somebody_is_pardoned() {
    let (_dir, path) = place();
    let bench = start(&path);
    bench.write(Write::Ban(ban(1, 1_800_000_000, until(1_800_000_600))));
    bench.write(Write::KeepEvidence(true));
    for since in [1_800_000_700, 1_800_000_800] {
        let ban = ban(1, since, until(since + 60));
        bench.write(Write::Ban(ban.clone()));
        bench.write(Write::Lifted { ban, by_hand: None });
    }
    assert!(bench.settled());
    let evidence = Evidence::open(&path).expect("it opens");
    let of = |most| {
        let bans = evidence.of("0.0.0.1/32".parse().expect("a prefix"), most).expect("it is read");
        bans.into_iter()
            .map(|ban| (ban.since.seconds(), ban.failures, ban.lines.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(9), [(1_800_000_800, 5, 3), (1_800_000_700, 5, 3)]);
    assert_eq!(of(1).len(), 1);
    bench.write(Write::Pardoned(JailName::new("sshd"), None));
    assert!(bench.settled());
    assert!(of(9).is_empty());
}
