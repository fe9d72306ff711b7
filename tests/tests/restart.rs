//! Promise: whatever ends the daemon, and whenever: every line counts once, every ban holds until its end.
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::resume_unwind,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Daemon, Echo, FRIEND, Log, Net, SERVER, Siege, Site, is_dropped, now,
    reaches, run, unit, until, within,
};
use rusqlite::Connection;

/// Daemons that are killed side by side, and how often each is in an ordinary run, and in a full one.
const SIEGES: u64 = 4;
const KILLS: u32 = 125;
const KILLS_FULL: u32 = 500;

/// Lines that are written for each life of the daemon, and those of them that it reads in a second at the least.
const LINES_A_LIFE: u32 = 300;
const LINES_A_SECOND: u64 = 500;

/// Addresses that attack.
const ADDRESSES: u64 = 300;
/// Failures that make a ban.
const MAX_RETRY: u32 = 3;

/// Numbers that look like chance and repeat with their seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// `$FAIL2XDP_SEED`, else another one each time; printed, so that a failure can be repeated.
fn seed() -> u64 {
    let given = std::env::var("FAIL2XDP_SEED").ok();
    let seed = given.map_or_else(
        || (now() * 1e6) as u64,
        |text| text.parse().expect("FAIL2XDP_SEED is a number"),
    );
    eprintln!("repeat with FAIL2XDP_SEED={seed}");
    seed
}

/// Lets a thread end also when a promise is broken, else its scope would wait for ever.
struct End<'flag>(&'flag AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn pause(time: Duration) {
    let begun = Instant::now();
    until(time + Duration::from_secs(5), "time passes", || (begun.elapsed() >= time).then_some(()));
}

fn attacker(nth: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0xc612_0000 + nth as u32))
}

fn store(site: &Site) -> Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    Connection::open_with_flags(site.path("state/fail2xdp.sqlite3"), flags)
        .expect("there is a store")
}

fn number(store: &Connection, query: &str) -> i64 {
    store.query_row(query, [], |row| row.get(0)).expect(query)
}

/// What a jail has counted of each address, as it is stored.
fn attempts(store: &Connection, jail: &str) -> BTreeMap<String, u64> {
    let mut query =
        store.prepare("SELECT who, attempts FROM counts WHERE jail = ?1").expect("a query");
    let rows = query
        .query_map([jail], |row| Ok((row.get(0)?, row.get::<_, u32>(1)?.into())))
        .expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// Prefix and end of each ban that is stored.
fn stored_bans(store: &Connection) -> BTreeMap<String, i64> {
    let mut query = store.prepare("SELECT prefix, until / 1000000 FROM bans").expect("a query");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// Prefix and end of each ban that is listed.
fn listed_bans(site: &Site) -> BTreeMap<String, i64> {
    let bans = site.bans();
    let listed: BTreeMap<String, i64> = bans
        .iter()
        .map(|ban| {
            let prefix = ban["prefix"].as_str().expect("a prefix");
            (format!("{prefix}/32"), ban["until"].as_i64().expect("an end"))
        })
        .collect();
    assert_eq!(listed.len(), bans.len(), "no ban is listed twice");
    listed
}

fn bans_in_the_map(site: &Site) -> usize {
    let dump = run("bpftool", &["-j", "map", "dump", "pinned", &site.map("BANS_V4")]);
    let dump: serde_json::Value = serde_json::from_str(&dump).expect("bpftool prints JSON");
    dump.as_array().map_or(0, Vec::len)
}

/// Writes failures of many addresses in bursts until `over`, no more than so many for each of the daemon's `lives`: on
/// a loaded machine it would never catch up. Now and then the log is rotated.
fn attack(
    site: &Site,
    mut chance: Chance,
    (over, lives): (&AtomicBool, &AtomicU32),
    written: &Mutex<BTreeMap<String, u64>>,
) {
    let mut total = 0;
    let path = site.path("guard.log");
    let mut log = site.log("guard.log");
    let (mut turned, mut rotations) = (Instant::now(), 0);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(chance.below(6)));
        if total > LINES_A_LIFE * lives.load(Ordering::Relaxed) {
            continue;
        }
        let mut text = String::new();
        let mut lines = written.lock().expect("nobody panics with it");
        for _ in 0..=chance.below(20) {
            total += 1;
            let who = attacker(chance.below(ADDRESSES));
            text += &Log::line_of(who);
            *lines.entry(format!("{who}/32")).or_default() += 1;
        }
        drop(lines);
        // Also lines that are written in two parts.
        let cut = chance.below(text.len() as u64) as usize;
        log.append(&text[..cut]);
        log.append(&text[cut..]);
        if turned.elapsed() > Duration::from_secs(3) && chance.below(10) == 0 {
            rotations += 1;
            rotate(&path, rotations);
            log = site.log("guard.log");
            turned = Instant::now();
        }
    }
}

/// As logrotate does with dates for names; nothing is deleted, however long a daemon takes to come.
fn rotate(path: &Path, nth: u32) {
    let rotated = format!("{}-{nth:06}", path.display());
    fs::rename(path, rotated).expect("the log can be renamed");
}

#[test]
fn killed_at_any_moment_no_line_counts_twice_or_never_and_no_ban_is_lost_or_doubled() {
    let kills = if std::env::var_os("FAIL2XDP_FULL").is_some() { KILLS_FULL } else { KILLS };
    let seed = seed();
    thread::scope(|scope| {
        for nth in 0..SIEGES {
            scope.spawn(move || besiege(nth, seed.wrapping_add(nth << 32), kills));
        }
    });
}

/// One daemon under attack, killed so often at moments that the seed chooses.
fn besiege(nth: u64, seed: u64, kills: u32) {
    let mut chance = Chance(seed);
    let net = Net::new(&format!("kill{nth}"));
    let site = Site::new(&net);
    site.log("guard.log");
    let jail = |name: &str, port: u16, retries: u32| {
        let options = format!(
            "port = {port}\nmaxretry = {retries}\nfindtime = 1d\nbantime = 6h\nmaxmatches = 3"
        );
        site.jail(name, "guard.log", &options)
    };
    // The second one never bans: what it counts is every line there ever was.
    site.jails(&(jail("guard", 2222, MAX_RETRY) + &jail("count", 2223, 1_000_000)));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let written: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let daemon = site.start();
    site.json(&["ban", &unit(ATTACKER.v4), "--jail", "guard", "--for", "6h"]);
    let siege = Siege::begin(&net.clients, ATTACKER.v4, echo.address());

    let mut ends: BTreeMap<String, i64> = BTreeMap::new();
    let mut said: HashMap<String, u32> = HashMap::new();
    let mut heard = |daemon: &Daemon| {
        for line in daemon.said().lines() {
            if let Some((_, who)) = line.split_once("[guard] Ban ") {
                *said.entry(who.trim().to_owned()).or_default() += 1;
            }
        }
    };
    let (over, lives) = (AtomicBool::new(false), AtomicU32::new(1));
    thread::scope(|scope| {
        let end = End(&over);
        let lines = Chance(seed ^ 1);
        let attack = scope.spawn(|| attack(&site, lines, (&over, &lives), &written));
        heard(&daemon);
        daemon.kill();
        for nth in 0..kills {
            let mut daemon = Daemon::spawn(site.command(&["run", "--interface", "s0"]));
            // Half of them before they have found their way, half while they work.
            if chance.below(2) == 0 {
                pause(Duration::from_millis(chance.below(150)));
            } else {
                daemon.wait_for_line("ready", Duration::from_secs(20));
                if nth % 5 == 0 {
                    let listed = listed_bans(&site);
                    for (prefix, end) in &ends {
                        // A late failure moves an end, never back.
                        assert!(listed.get(prefix) >= Some(end), "{prefix} after {nth} kills");
                    }
                    ends = listed;
                }
                pause(Duration::from_millis(chance.below(400)));
            }
            heard_and_killed(daemon, &mut heard);
            lives.fetch_add(1, Ordering::Relaxed);
        }
        drop(end);
        attack.join().unwrap_or_else(|panic| resume_unwind(panic));
    });

    let daemon = site.start();
    let written = written.into_inner().expect("nobody panicked with it");
    let total: u64 = written.values().sum();
    let database = store(&site);
    let counted =
        || number(&database, "SELECT coalesce(sum(attempts), 0) FROM counts WHERE jail = 'count'");
    let limit = Duration::from_secs(30 + total / LINES_A_SECOND);
    if within(limit, || (counted() >= total as i64).then_some(())).is_none() {
        let status = site.json(&["status"]);
        let places = number(&database, "SELECT count(*) FROM places");
        let logs = run("ls", &["-lai", &site.path("").display().to_string()]);
        panic!("{} of {total} lines are counted; {places} places; {status:#}\n{logs}", counted());
    }
    let listed = listed_bans(&site);
    assert_eq!(bans_in_the_map(&site), listed.len(), "maps and list agree");
    heard(&daemon);
    daemon.terminate();

    assert_eq!(attempts(&database, "count"), written, "each line was counted once");
    let left: BTreeMap<String, u64> = written
        .iter()
        .map(|(who, lines)| (who.clone(), lines % u64::from(MAX_RETRY)))
        .filter(|(_, left)| *left > 0)
        .collect();
    assert_eq!(attempts(&database, "guard"), left, "and towards a ban");
    let banned = written.values().filter(|lines| **lines >= u64::from(MAX_RETRY)).count();
    assert_eq!(listed.len(), banned + 1, "each that reached the threshold, and the one by hand");
    for (prefix, end) in &ends {
        assert!(listed.get(prefix) >= Some(end), "{prefix} ends as it was decided");
    }
    assert_eq!(stored_bans(&database), listed, "store and list agree");
    assert_eq!(number(&database, "SELECT max(bans) FROM history"), 1, "no ban counts twice");
    for (who, times) in said {
        assert_eq!(times, 1, "{who} was banned {times} times");
    }
    let seen = siege.end();
    assert!(seen.tried > 50 && seen.opened == 0, "no packet of a banned address passed: {seen:?}");
    eprintln!("{kills} kills, {total} lines of {} addresses, {banned} bans", written.len());
}

/// Hears a daemon out that is killed.
fn heard_and_killed(daemon: Daemon, heard: &mut impl FnMut(&Daemon)) {
    daemon.signal(rustix::process::Signal::KILL);
    let mut daemon = daemon;
    daemon.wait(Duration::from_secs(5));
    heard(&daemon);
}

/// Takes the kernel's side away, as a reboot does.
fn reboot(site: &Site) {
    fs::remove_dir_all(site.pins()).expect("the pins can be removed");
}

#[test]
fn after_a_reboot_bans_are_back_before_the_first_line_is_read() {
    let net = Net::new("reboot");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    let short = site.jail("short", "guard.log", "port = 2222\nmaxretry = 1\nbantime = 3");
    let long = site.jail("long", "guard.log", "port = 2222\nmaxretry = 2\nbantime = 600");
    site.jails(&(short + &long));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.wait_following("long");
    log.wrong_password(BYSTANDER.v4);
    log.wrong_password(ATTACKER.v4);
    log.wrong_password(ATTACKER.v4);
    until(Duration::from_secs(10), "three bans", || (site.bans().len() == 3).then_some(()));
    let before = site.bans();
    let kept = before.iter().find(|ban| ban["jail"] == "long").expect("it is there").clone();
    assert_eq!(kept["lines"].as_array().map(Vec::len), Some(2));
    // These end in another order than they were made in.
    for seconds in [4, 2, 3] {
        let who = format!("192.0.2.{seconds}");
        site.json(&["ban", &who, "--jail", "short", "--for", &seconds.to_string()]);
    }
    daemon.kill();
    reboot(&site);
    assert!(reaches(&net.clients, ATTACKER.v4, echo.address()), "nothing drops any more");
    let killed = now();
    let short = Duration::from_secs(15);
    until(short, "the short ones are over", || (now() > killed + 5.1).then_some(()));

    let daemon = site.start();
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
    let said = daemon.said();
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("no `{what}` in {said}"));
    let ended = [2, 3, 4].map(|seconds| at(&format!("[short] Unban 192.0.2.{seconds}")));
    assert!(ended.is_sorted() && ended[2] < at("[long] Restore Ban 10.9.0.2"), "{said}");
    assert!(at("[short] Unban 10.9.0.3") < at("[long] Restore Ban 10.9.0.2"), "{said}");
    assert!(at("[long] Restore Ban 10.9.0.2") < at("following"), "{said}");
    let mut again = site.bans();
    assert_eq!(again.len(), 1, "those that were over are not back: {again:?}");
    let mut again = again.remove(0);
    again["packets"] = kept["packets"].clone();
    assert_eq!(again, kept, "with its evidence");
    daemon.terminate();
    assert_eq!(number(&store(&site), "SELECT count(*) FROM bans"), 1);
}

#[test]
fn a_ban_lifted_by_hand_does_not_come_back_from_old_lines() {
    let net = Net::new("lifted");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 2\nbantime = 600"));
    for _ in 0..5 {
        let daemon = site.start();
        site.wait_following("guard");
        log.wrong_password(ATTACKER.v4);
        log.wrong_password(ATTACKER.v4);
        site.wait_banned(&unit(ATTACKER.v4));
        site.unban(&unit(ATTACKER.v4));
        // The reader has not told yet how far it is: the lines are read again.
        daemon.kill();
        log.wrong_password(BYSTANDER.v4);
        log.wrong_password(BYSTANDER.v4);
        let daemon = site.start();
        site.wait_banned(&unit(BYSTANDER.v4));
        assert!(site.bans_of(&unit(ATTACKER.v4)).is_empty(), "{}", daemon.said());
        site.unban(&unit(BYSTANDER.v4));
        daemon.terminate();
        // A second has passed: log lines know no less.
        let second = now().floor();
        until(Duration::from_secs(3), "the next second", || (now() >= second + 1.0).then_some(()));
    }
}

#[test]
fn bans_of_whom_the_jail_ignores_by_now_are_lifted_at_the_start() {
    let net = Net::new("ignored");
    let site = Site::new(&net);
    site.log("guard.log");
    let jail = |name: &str, port: u16, ignore: &str| {
        let options = format!("port = {port}\nbantime = 600\nignoreip = {ignore}");
        site.jail(name, "guard.log", &options)
    };
    let both = |ignore: &str| site.jails(&(jail("guard", 2222, ignore) + &jail("other", 2223, "")));
    let [port, other] =
        [2222, 2223].map(|port| Echo::listen(&net.server, SocketAddr::new(SERVER.v4, port)));
    both("");
    let daemon = site.start();
    let (named, network) = (unit(ATTACKER.v4), unit(FRIEND.v6));
    for jail in ["guard", "other"] {
        site.json(&["ban", &named, &network, &unit(BYSTANDER.v4), "--jail", jail]);
    }
    daemon.terminate();
    for is_booted in [false, true] {
        // Two addresses that are banned, one of them with its neighbours, and a network that holds nobody banned.
        both(&format!("{named} {} 192.0.2.0/24", FRIEND.v6));
        if is_booted {
            reboot(&site);
        }
        let daemon = site.start();
        assert!(reaches(&net.clients, ATTACKER.v4, port.address()), "{}", daemon.said());
        assert!(is_dropped(&net.clients, ATTACKER.v4, other.address()));
        assert!(is_dropped(&net.clients, BYSTANDER.v4, port.address()));
        assert_eq!(site.bans().len(), 4);
        assert!(site.bans_of(&network).iter().all(|ban| ban["jail"] == "other"));
        let said = daemon.said();
        let lifted = said.find(&format!(
            "[guard] the ban of {named} was lifted since its jail ignores it by now"
        ));
        assert!(lifted.is_some() && lifted < said.find("following"), "{said}");
        // As before, for the next round.
        site.json(&["ban", &named, &network, "--jail", "guard"]);
        daemon.terminate();
    }
}

#[test]
fn counts_go_on_through_a_stop() {
    let net = Net::new("counts");
    let site = Site::new(&net);
    let mut log = site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 3\nbantime = 600"));
    let failed = || site.json(&["status", "guard"])["currently_failed"].as_u64();
    let daemon = site.start();
    site.wait_following("guard");
    log.wrong_password(ATTACKER.v6);
    log.wrong_password(ATTACKER.v6);
    until(Duration::from_secs(10), "it is counted", || {
        (site.json(&["status", "guard"])["total_failed"] == 2).then_some(())
    });
    daemon.terminate();
    let _daemon = site.start();
    assert_eq!(failed(), Some(1), "known before any line is read");
    assert!(site.bans().is_empty());
    log.wrong_password(ATTACKER.v6);
    let ban = site.wait_banned(&unit(ATTACKER.v6));
    assert_eq!(ban["failures"], 3);
    assert_eq!(ban["lines"].as_array().map(Vec::len), Some(3), "{ban}");
}

#[test]
fn enforcement_never_pauses_through_stop_kill_and_start_with_a_hundred_thousand_bans() {
    const BANS: u32 = 100_000;
    let net = Net::new("many");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nbantime = 6h"));
    site.settings("[Definition]\ninitial_bans = 262144\n");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    let list: String =
        (0..BANS).map(|nth| format!("{}\n", Ipv4Addr::from(0x6440_0000 + nth))).collect();
    let list = site.write("list", &list);
    let begun = Instant::now();
    let mut command = site.command(&["ban", "--jail", "guard", "10.9.0.2", "-", "--json"]);
    let list = fs::File::open(list).expect("it was written");
    let output = command.stdin(list).output().expect("the client runs");
    assert!(output.status.success(), "{output:?}");
    eprintln!("{BANS} bans by hand and stored: {:.2?}", begun.elapsed());
    let dropped = site.counted("dropped");
    let siege = Siege::begin(&net.clients, ATTACKER.v4, echo.address());
    let started = |what: &str| {
        let begun = Instant::now();
        let daemon = site.start();
        eprintln!("{what}: ready in {:.2?}", begun.elapsed());
        assert_eq!(site.json(&["status"])["bans"], BANS + 1);
        assert!(reaches(&net.clients, BYSTANDER.v4, echo.address()));
        daemon
    };
    let begun = Instant::now();
    daemon.terminate();
    eprintln!("stop: {:.2?}", begun.elapsed());
    started("start after a stop").kill();
    let daemon = started("start after a kill");
    assert_eq!(bans_in_the_map(&site), BANS as usize + 1);
    until(Duration::from_secs(10), "it has been tried", || (siege.tried() > 200).then_some(()));
    let seen = siege.end();
    assert!(seen.tried > 200 && seen.opened == 0, "{seen:?}");
    let dropped = site.counted("dropped") - dropped;
    assert!(dropped >= u64::from(seen.tried), "each was counted: {dropped} of {seen:?}");
    daemon.kill();
    reboot(&site);
    let daemon = started("start after a reboot");
    assert_eq!(bans_in_the_map(&site), BANS as usize + 1);
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    daemon.terminate();
}

#[test]
fn what_the_kernel_has_lost_is_put_back_and_what_it_alone_knows_is_stored() {
    let net = Net::new("agree");
    let site = Site::new(&net);
    site.log("guard.log");
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nbantime = 600"));
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let daemon = site.start();
    site.json(&["ban", "10.9.0.2", "10.9.0.3", "--jail", "guard"]);
    daemon.kill();
    let map = format!("{}/maps/BANS_V4", site.pins().display());
    run(
        "bpftool",
        &["map", "delete", "pinned", &map, "key", "32", "0", "0", "0", "10", "9", "0", "2"],
    );
    let file = Connection::open(site.path("state/fail2xdp.sqlite3")).expect("there is a store");
    file.execute("DELETE FROM bans WHERE prefix = '10.9.0.3/32'", []).expect("deleted");
    drop(file);
    let daemon = site.start();
    assert_eq!(site.bans().len(), 2, "{}", daemon.said());
    for who in [ATTACKER.v4, BYSTANDER.v4] {
        assert!(is_dropped(&net.clients, who, echo.address()));
    }
    daemon.terminate();
    assert_eq!(number(&store(&site), "SELECT count(*) FROM bans"), 2);
}
