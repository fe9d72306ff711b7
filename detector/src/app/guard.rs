//! Who else is never dropped: what the files of `allow` list, and the name servers that this machine asks.
use std::{
    fs::{File, Metadata},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::{clock::Clock, config, enforce::Why, engine::Timestamp};

/// Where resolv.conf(5) and systemd-resolved.service(8) name the name servers; 127.0.0.53 stands for the latter's.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// A file that was written so recently may be half written, in microseconds.
const FRESH: i64 = 1_000_000;
/// Entries of all files together; the kernel's list holds 65,536 a family.
const MOST_ENTRIES: usize = 50_000;
/// Bytes read of a file.
const MOST_BYTES: u64 = 16 << 20;
/// Lines named of a file with lines that are no address.
const NAMED: usize = 3;

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Everything listed now; `None`: as before.
    pub listed: Option<Vec<(IpNet, Why)>>,
    /// What is wrong, for the operator.
    pub faults: Vec<String>,
}

/// What tells one state of a file from another.
type Stamp = (u64, u64, u64, i64, i64);

#[derive(Debug)]
struct Listed {
    path: PathBuf,
    why: Why,
    stamp: Option<Stamp>,
    /// Whether it could not be read at the last look; said once.
    lost: bool,
    entries: Vec<IpNet>,
}

/// Files with addresses that are never dropped.
#[derive(Debug)]
pub(super) struct Lists(Vec<Listed>);

impl Lists {
    /// These files of the configuration, and those that name this machine's name servers.
    pub fn new(files: &[PathBuf]) -> Lists {
        let listed = |path: PathBuf, why| Listed {
            path,
            why,
            stamp: None,
            lost: false,
            entries: Vec::new(),
        };
        let resolvers = RESOLVERS.iter().map(|path| listed(path.into(), Why::Resolver));
        Lists(files.iter().map(|path| listed(path.clone(), Why::Listed)).chain(resolvers).collect())
    }

    /// Reads the files that have changed; a file that cannot be read keeps what it listed.
    pub fn look(&mut self, now: Timestamp) -> Found {
        let mut found = Found::default();
        let mut changed = false;
        for list in &mut self.0 {
            match list.look(now, &mut found.faults) {
                Ok(news) => {
                    list.lost = false;
                    changed |= news;
                }
                // Where there is no such file, nobody named name servers in it.
                Err(error)
                    if list.why == Why::Resolver && error.kind() == io::ErrorKind::NotFound => {}
                Err(_) if list.lost => {}
                Err(error) => {
                    list.lost = true;
                    found.faults.push(format!(
                        "allow: cannot read `{}`: {error}; its {} entries of before stay allowed",
                        list.path.display(),
                        list.entries.len()
                    ));
                }
            }
        }
        if changed {
            let all =
                self.0.iter().flat_map(|list| list.entries.iter().map(|entry| (*entry, list.why)));
            let mut all: Vec<_> = all.collect();
            if all.len() > MOST_ENTRIES {
                found.faults.push(format!(
                    "allow: its files list {} entries: those after the first {MOST_ENTRIES} are not allowed",
                    all.len()
                ));
                all.truncate(MOST_ENTRIES);
            }
            found.listed = Some(all);
        }
        found
    }

    /// Looks every few seconds, on a thread of its own, for as long as somebody listens.
    pub fn watch(mut self, tell: mpsc::Sender<Found>, clock: Clock) {
        let watch = move || {
            while !tell.is_closed() {
                std::thread::sleep(LOOK);
                let found = self.look(clock());
                let news = found.listed.is_some() || !found.faults.is_empty();
                if news && tell.blocking_send(found).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("allow".to_owned()).spawn(watch) {
            tracing::error!("allow: changes of its files go unnoticed: {error}");
        }
    }
}

impl Listed {
    /// Whether it was read anew.
    fn look(&mut self, now: Timestamp, faults: &mut Vec<String>) -> io::Result<bool> {
        let mut file = File::open(&self.path)?;
        let meta = file.metadata()?;
        let stamp = stamp(&meta);
        if self.stamp == Some(stamp) {
            return Ok(false);
        }
        let age = now.micros() - meta.mtime().saturating_mul(1_000_000) - meta.mtime_nsec() / 1000;
        // At the first look nothing is known that could be kept.
        if self.stamp.is_some() && (0..FRESH).contains(&age) {
            return Ok(false);
        }
        let mut text = Vec::new();
        file.by_ref().take(MOST_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(io::Error::other(format!("larger than {} MiB", MOST_BYTES >> 20)));
        }
        let text = String::from_utf8_lossy(&text);
        let read = match self.why {
            Why::Resolver => name_servers(&text),
            _ => listed(&text, &self.path, faults),
        };
        self.stamp = Some(stamp);
        Ok(std::mem::replace(&mut self.entries, read) != self.entries)
    }
}

fn stamp(meta: &Metadata) -> Stamp {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}

/// One address or network a line, first; what follows it, and after `#` or `;`, is comment.
fn listed(text: &str, path: &Path, faults: &mut Vec<String>) -> Vec<IpNet> {
    let mut entries = Vec::new();
    let mut bad = Vec::new();
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        let content = line.split(['#', ';']).next().unwrap_or_default();
        let Some(word) = content.split([',', ' ', '\t', '\r']).find(|word| !word.is_empty()) else {
            continue;
        };
        match config::network(word) {
            Ok(entry) => entries.push(entry),
            Err(error) => bad.push(format!("{}:{number}: {error}", path.display())),
        }
    }
    if let Some(more) = bad.len().checked_sub(NAMED + 1) {
        bad.truncate(NAMED);
        bad.push(format!("and {} more lines", more + 1));
    }
    if !bad.is_empty() {
        faults.push(format!("allow: {}: these lines protect nobody", bad.join("; ")));
    }
    entries
}

/// The `nameserver` lines of resolv.conf(5).
fn name_servers(text: &str) -> Vec<IpNet> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // fe80::1%eth0 names the interface, too; link-local sources are never dropped anyway.
        address.split('%').next()?.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(server).map(|address| IpNet::from(address.to_canonical())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(entries: &[IpNet]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists_are_read_as_they_are_published() {
        let text = "\u{feff}# Ranges\n192.0.2.0/24\r\n2001:db8::/32 ; SBL1\n\n198.51.100.7,web,2026\n999.1.1.1\nhost\n";
        let mut faults = Vec::new();
        let read = listed(text, Path::new("/l"), &mut faults);
        assert_eq!(nets(&read), ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"]);
        assert_eq!(
            faults,
            [
                "allow: /l:6: `999.1.1.1` is no address; /l:7: `host` is no address: these lines protect nobody"
            ]
        );
        let mut faults = Vec::new();
        assert!(listed("a\nb\nc\nd\ne\n", Path::new("/l"), &mut faults).is_empty());
        assert!(
            faults[0].contains("/l:3: ") && faults[0].contains("and 2 more lines"),
            "{faults:?}"
        );
    }

    #[test]
    fn name_servers_are_those_of_resolv_conf() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver ::ffff:192.0.2.2\n\
                    nameserver fe80::1%eth0\noptions edns0\n";
        assert_eq!(nets(&name_servers(text)), ["192.0.2.1/32", "192.0.2.2/32", "fe80::1/128"]);
    }

    #[test]
    fn a_list_is_read_when_it_changed_and_kept_when_it_cannot_be_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cdn");
        let mut lists = Lists(vec![Listed {
            path: path.clone(),
            why: Why::Listed,
            stamp: None,
            lost: false,
            entries: Vec::new(),
        }]);
        let write = |text: &str, at: Timestamp| {
            std::fs::write(&path, text).expect("a file");
            let at = std::time::UNIX_EPOCH + Duration::from_micros(at.micros() as u64);
            File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(at))
                .expect("a time");
        };
        let begin = Timestamp::from_seconds(1_800_000_000);
        let found = lists.look(begin);
        assert!(found.listed.is_none() && found.faults[0].contains("cannot read"), "{found:?}");
        assert!(lists.look(begin).faults.is_empty(), "said once");

        write("192.0.2.0/24\n", begin);
        let one = Some(vec![("192.0.2.0/24".parse().expect("a network"), Why::Listed)]);
        assert_eq!(lists.look(begin).listed, one, "the first look waits for nothing");
        assert_eq!(lists.look(begin).listed, None, "nothing changed");

        let later = begin.plus(Duration::from_secs(60));
        write("", later);
        assert_eq!(lists.look(later).listed, None, "it is being written");
        assert_eq!(
            lists.look(later.plus(Duration::from_secs(1))).listed,
            Some(Vec::new()),
            "an empty list is one"
        );

        write("192.0.2.0/24\n", begin);
        assert_eq!(lists.look(later).listed, one);
        std::fs::remove_file(&path).expect("it is there");
        let gone = lists.look(later);
        assert!(
            gone.listed.is_none() && gone.faults[0].contains("its 1 entries of before stay"),
            "{gone:?}"
        );
    }
}
