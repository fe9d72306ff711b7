//! Time from a log line's append to its ban in the kernel map, by the daemon as operators run it.
//!
//! `cargo xtask build --release`, then as root
//! `FAIL2XDP_BIN=$PWD/target/release/fail2xdp cargo bench -p fail2xdp-tests --bench latency [-- files|journal|actions]`.
//! Each sample is one failure of a new address in a jail with `maxretry = 1`: the clock runs from just before the line
//! is written until a lookup in the pinned `BANS_V4`, which is done again and again, finds the address.
use std::{
    fs::OpenOptions,
    io::Write,
    net::Ipv4Addr,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use aya::maps::{
    Map, MapData,
    lpm_trie::{Key, LpmTrie},
};
use fail2xdp_tests::{Log, LogTo, Net, Site, Sshd};

/// Samples of each kind.
const SAMPLES: u32 = 2000;

/// Other lines a second while it is busy.
const LOAD: u64 = 20_000;

/// Quiet before each sample.
const PAUSE: Duration = Duration::from_millis(4);

/// No sample takes longer, or something is broken.
const LIMIT: Duration = Duration::from_secs(10);

/// Where lines are written to.
#[derive(Clone, Debug)]
enum Feed {
    /// A log file, opened for appending.
    File(PathBuf),
    /// The native socket of a systemd-journald.
    Journal(PathBuf),
}

impl Feed {
    /// Something that takes text of whole lines, as often as one likes.
    fn open(&self) -> Box<dyn FnMut(&str) + Send> {
        match self {
            Feed::File(path) => {
                let file = OpenOptions::new().append(true).open(path);
                let mut file = file.expect("the log can be opened");
                Box::new(move |text| file.write_all(text.as_bytes()).expect("it can be written"))
            }
            Feed::Journal(path) => {
                let socket = UnixDatagram::unbound().expect("a socket");
                socket.connect(path).expect("journald listens");
                Box::new(move |text| {
                    for line in text.lines() {
                        // Without time and host, which are the journal's to say.
                        let message = line.split_once(": ").map_or(line, |(_, message)| message);
                        let entry = format!("SYSLOG_IDENTIFIER=sshd\nMESSAGE={message}\n");
                        socket.send(entry.as_bytes()).expect("journald takes it");
                    }
                })
            }
        }
    }
}

/// Lines that match nothing, at a steady rate, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    written: Arc<AtomicU64>,
    begin: Instant,
}

impl Load {
    fn start(feed: &Feed) -> Load {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let begin = Instant::now();
        let (mut write, told, count) = (feed.open(), Arc::clone(&stop), Arc::clone(&written));
        let line = Log::line_of(Ipv4Addr::new(192, 0, 2, 7).into());
        let line = line.replace("Failed password", "Accepted password");
        let thread = std::thread::spawn(move || {
            while !told.load(Relaxed) {
                let due = begin.elapsed().as_micros() as u64 * LOAD / 1_000_000;
                let lines = due.saturating_sub(count.load(Relaxed)).min(1000);
                write(&line.repeat(lines as usize));
                count.fetch_add(lines, Relaxed);
                sleep(Duration::from_millis(1));
            }
        });
        Load { stop, thread: Some(thread), written, begin }
    }

    /// Lines a second so far.
    fn rate(&self) -> u64 {
        (self.written.load(Relaxed) as f64 / self.begin.elapsed().as_secs_f64()) as u64
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
    }
}

type Bans = LpmTrie<MapData, [u8; 4], [u8; 16]>;

fn open_bans(site: &Site<'_>) -> Bans {
    let data = MapData::from_pin(site.map("BANS_V4")).expect("the map is pinned");
    Bans::try_from(Map::LpmTrie(data)).expect("it has these keys and values")
}

/// Takes the samples, in order of their length.
fn measure(mut write: impl FnMut(&str), bans: &Bans, first: u32) -> Vec<Duration> {
    let mut times = Vec::with_capacity(SAMPLES as usize);
    for number in 0..SAMPLES {
        sleep(PAUSE);
        let address = Ipv4Addr::from(0xc612_0000 + first + number);
        let key = Key::new(32, address.octets());
        let line = Log::line_of(address.into());
        let begin = Instant::now();
        write(&line);
        while bans.get(&key, 0).is_err() {
            assert!(begin.elapsed() < LIMIT, "{address} was never banned");
            std::hint::spin_loop();
        }
        times.push(begin.elapsed());
    }
    times.sort();
    times
}

fn report(what: &str, times: &[Duration]) {
    let at = |share: usize| times[(times.len() - 1) * share / 1000].as_secs_f64() * 1000.0;
    println!(
        "{what}: p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, worst {:.3} ms, {} samples",
        at(500),
        at(990),
        at(999),
        at(1000),
        times.len()
    );
}

/// Measures idle and busy.
fn run(name: &str, site: &Site<'_>, feed: &Feed) {
    let bans = open_bans(site);
    report(&format!("{name}, idle"), &measure(feed.open(), &bans, 0));
    let load = Load::start(feed);
    let times = measure(feed.open(), &bans, SAMPLES);
    let rate = load.rate();
    drop(load);
    report(&format!("{name}, {rate} other lines/s"), &times);
}

fn files() {
    let net = Net::new("lat-f");
    let site = Site::new(&net);
    let log = site.log("auth.log");
    site.jails(&site.jail("sshd", "auth.log", "maxretry = 1\nbantime = 600"));
    let _daemon = site.start();
    site.wait_following("sshd");
    run("files", &site, &Feed::File(log.path().to_owned()));
}

/// A hundred jails, each with a log and an action that hangs.
fn actions() {
    const JAILS: u32 = 100;
    let net = Net::new("lat-a");
    let site = Site::new(&net);
    let gate = site.path("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).expect("a FIFO");
    let hang = format!("[Definition]\nactionban = : < {}\n[Init]\ntimeout = 1h\n", gate.display());
    site.write("config/action.d/hang.conf", &hang);
    let options = "maxretry = 1\nbantime = 600\naction = xdp\n  hang";
    let jails = (0..JAILS).map(|nth| site.jail(&format!("j{nth}"), &format!("{nth}.log"), options));
    site.jails(&jails.collect::<String>());
    let logs: Vec<Log> = (0..JAILS).map(|nth| site.log(&format!("{nth}.log"))).collect();
    let _daemon = site.start();
    for nth in 0..JAILS {
        site.wait_following(&format!("j{nth}"));
    }
    let bans = open_bans(&site);
    let mut feeds: Vec<_> =
        logs.iter().map(|log| Feed::File(log.path().to_owned()).open()).collect();
    let mut turn = 0;
    let write = |text: &str| {
        turn += 1;
        feeds[turn % JAILS as usize](text);
    };
    report("a hundred jails with hanging actions", &measure(write, &bans, 0));
}

fn journal() {
    let net = Net::new("lat-j");
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::Journal);
    site.jails(&format!(
        "[sshd]\nenabled = true\nbackend = systemd[journalpath=\"{}\"]\n\
         journalmatch = SYSLOG_IDENTIFIER=sshd\nmaxretry = 1\nbantime = 600\n",
        sshd.journal().display()
    ));
    let _daemon = site.start();
    let feed = Feed::Journal(sshd.journal_socket());
    // journald makes its file, and the daemon finds it, with the first entries.
    let first = Ipv4Addr::new(198, 19, 255, 254);
    feed.open()(&Log::line_of(first.into()));
    site.wait_banned(&first.to_string());
    run("journal", &site, &feed);
}

fn main() {
    // Cargo says `--bench` too.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    if wants("files") {
        files();
    }
    if wants("actions") {
        actions();
    }
    if wants("journal") {
        journal();
    }
}
