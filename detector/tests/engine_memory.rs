//! A million addresses below the threshold: what they cost is counted by the allocator, byte by byte.
use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use fail2xdp::{
    config::{self, JailName, ReadFault, Tree},
    engine::{Engine, Event, FailureId, Finding, Limits, Timestamp},
};

/// Counts what is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(in_use, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct OneFile;

impl Tree for OneFile {
    fn root(&self) -> &Path {
        Path::new("/etc/x")
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        let text = match file.strip_prefix("/etc/x").ok().and_then(Path::to_str) {
            Some("jail.conf") => {
                "[patient]\nenabled = yes\nfilter = plain\nmaxretry = 1000\nmaxmatches = 1000\n\
                 logpath = /var/log/x\naction = xdp[port=22]\n"
            }
            Some("filter.d/plain.conf") => "[Definition]\nfailregex = ^plain <HOST>$\n",
            _ => return Ok(None),
        };
        Ok(Some(text.as_bytes().to_vec()))
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadFault> {
        Ok(Vec::new())
    }
}

const MILLION: u32 = 1_000_000;

/// What a million addresses cost, in bytes, and the most while they came.
fn cost(address: impl Fn(u32) -> IpAddr) -> (usize, usize) {
    let settings = config::load(&OneFile).expect("a configuration").settings;
    let before = IN_USE.load(Relaxed);
    let limits = Limits { pending_failures: 2 * MILLION as usize, ..Limits::default() };
    let mut engine = Engine::new(&settings.jails, limits);
    let now = Timestamp::from_seconds(1_800_000_000);
    MOST.store(IN_USE.load(Relaxed), Relaxed);
    for nth in 0..MILLION + MILLION / 10 {
        let finding = Finding {
            jail: JailName::new("patient"),
            who: FailureId::Address(address(nth % MILLION)),
            at: now,
            lines: vec![
                format!(
                    "Nov 21 14:00:00 web sshd[{nth}]: Failed password for root from a patient host"
                )
                .into(),
            ],
            rule: 0,
            fields: Vec::new(),
        };
        engine.handle(Event::Finding(finding), now);
    }
    let pending = engine.pending();
    assert_eq!(pending.addresses, MILLION as usize);
    assert!(pending.evidence <= pending.most_evidence && pending.forgotten_lines > 0);
    (IN_USE.load(Relaxed) - before, MOST.load(Relaxed) - before)
}

/// One test: the allocator counts for the whole process.
#[test]
fn a_million_addresses_below_the_threshold_cost_150_bytes_each_at_most() {
    let v4 = cost(|nth| Ipv4Addr::from(nth | 1 << 24).into());
    let v6 = cost(|nth| Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(nth) << 64).into());
    for (family, (bytes, most)) in [("IPv4", v4), ("IPv6", v6)] {
        let each = bytes / MILLION as usize;
        println!("{family}: {each} bytes an address with its lines, {} MB at the most", most >> 20);
        assert!(each <= 150, "{family}: {each} bytes for each of a million");
    }
}
