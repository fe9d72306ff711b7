//! Which files there are: sorted into chains, opened, and what is wrong with some.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    JournalState, NO_JOURNAL, PAUSE, Reader,
    header::Numbering,
    place::{Part, Refused, is_id},
    stream::{Spot, Start, Stream, Trouble},
};
use crate::{
    clock::monotonic,
    engine::Timestamp,
    source::{
        JournalProgress,
        files::{FileId, Watch},
        outbox::Stopped,
    },
};

/// Chains of one journal that are read at once, as of so many machines that send theirs; each costs descriptors and
/// memory. What is beyond is left out, and said.
const MAX_CHAINS: usize = 1024;

/// A file at which reading ends so often without coming further is given up.
const TRIES: u32 = 3;

/// What is wrong with files.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Files that cannot be read.
    refused: BTreeMap<PathBuf, Refusal>,
    /// How often reading has ended at a file.
    ends: BTreeMap<FileId, u32>,
    /// Files that are not opened any more. The next file may be given the same inode, so their numbers tell as well.
    given_up: BTreeSet<(FileId, Numbering, u64)>,
}

/// Why a file cannot be read.
#[derive(Clone, Debug)]
struct Refusal {
    why: String,
    since: Instant,
    /// It lasts. A file that is just being made looks the same for a moment.
    is_sure: bool,
}

impl Faults {
    /// Some file cannot be read.
    pub(super) fn are_there(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Some file cannot be read, and it is to be seen whether that lasts.
    pub(super) fn are_suspected(&self) -> bool {
        self.refused.values().any(|refusal| !refusal.is_sure)
    }
}

impl Reader {
    /// Looks for files and opens each chain that has changed, where reading goes on.
    pub(super) fn look(
        &mut self,
        streams: &mut Vec<Stream>,
        watch: &mut Watch,
    ) -> Result<(), Stopped> {
        watch.begin_round();
        self.place.watch(watch);
        watch.end_round();
        // Looked for only now that nothing can appear unseen.
        let (parts, mut refused) = self.place.parts();
        let is_empty = parts.is_empty();
        let mut chains: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        let there: BTreeSet<FileId> = parts.iter().map(|part| part.id).collect();
        self.faults.given_up.retain(|(id, ..)| there.contains(id));
        self.faults.ends.retain(|id, _| there.contains(id));
        let given_up = &self.faults.given_up;
        for part in parts.into_iter().filter(|part| !given_up.contains(&part.identity())) {
            let directory = part.path.parent().unwrap_or(Path::new("/")).display();
            chains.entry(format!("{directory}/{}", part.header.numbering)).or_default().push(part);
        }
        let mut open: BTreeMap<String, Stream> =
            streams.drain(..).map(|stream| (stream.key.clone(), stream)).collect();
        for stream in open.values() {
            self.spots.insert(stream.key.clone(), stream.spot.clone());
        }
        for (key, parts) in chains {
            if streams.len() == MAX_CHAINS {
                let why = std::io::Error::other(format!("over {MAX_CHAINS} writers"));
                let path = parts.into_iter().next().map(|part| part.path).unwrap_or_default();
                refused.push(Refused { path, why });
                continue;
            }
            let stream = open.remove(&key);
            streams.extend(self.renew(key, stream, parts, &mut refused)?);
        }
        for (key, stream) in open {
            streams.extend(self.renew(key, Some(stream), Vec::new(), &mut refused)?);
        }
        self.find_twins(streams);
        self.judge(is_empty, streams.is_empty(), refused)
    }

    /// The chain of these files as it is to be read from now on; `None`: everything in them was read, or nothing can be.
    fn renew(
        &mut self,
        key: String,
        mut stream: Option<Stream>,
        mut parts: Vec<Part>,
        refused: &mut Vec<Refused>,
    ) -> Result<Option<Stream>, Stopped> {
        let ids: BTreeSet<FileId> = parts.iter().map(|part| part.id).collect();
        let old = stream.as_mut().map(|stream| std::mem::take(&mut stream.parts));
        // Of files that were removed we read the rest.
        for part in old.into_iter().flatten() {
            if ids.contains(&part.id) || self.faults.given_up.contains(&part.identity()) {
                continue;
            }
            let header = part.header;
            match (part.removed(), self.spots.get_mut(&key)) {
                (Some(part), _) => parts.push(part),
                (None, Some(spot)) => {
                    self.counts.removed += spot.count_removed(&header, u64::MAX);
                }
                (None, None) => {}
            }
        }
        let now = (self.clock)();
        let since = self.jails.iter().map(|jail| jail.since(now)).min().unwrap_or(now);
        let is_first = !self.opened.contains(&key);
        let has_new = self.is_new.contains(&true);
        let mut spot = self.spots.get(&key).cloned();
        let (first, last) = numbers(&parts);
        if is_first && let Some(known) = spot.take_if(|known| known.number > last) {
            // An older copy was put back. Numbers begin anew, so the time must tell.
            let what = format!(
                "`{}` holds less than was read of it: it is read from that time on",
                directory(&key).display()
            );
            self.fault(what)?;
            let since = since.max(Timestamp::from_micros(known.micros.saturating_add(1)));
            return Ok(self.open(key, parts, Start { after: None, since: Some(since) }, refused));
        }
        let read_since = |spot: &Spot| spot.micros >= since.micros();
        let wanted = |part: &Part| {
            part.may_grow()
                || match &spot {
                    Some(spot) if !(is_first && has_new) => part.header.last > spot.number,
                    _ => part.header.last_micros >= since.micros(),
                }
        };
        if let Some(spot) = self.spots.get_mut(&key).filter(|spot| !is_first || read_since(spot)) {
            let before = first.unwrap_or(0).saturating_sub(1);
            self.counts.removed += before.saturating_sub(spot.number.max(spot.counted));
            spot.counted = spot.counted.max(before);
        }
        let parts: Vec<Part> = parts.into_iter().filter(wanted).collect();
        let ids: BTreeSet<FileId> = parts.iter().map(|part| part.id).collect();
        if let Some(mut same) = stream.take_if(|stream| !stream.is_hurt() && stream.ids() == ids) {
            same.parts = parts;
            same.spot.counted = self.spots.get(&key).map_or(0, |spot| spot.counted);
            return Ok(Some(same));
        }
        if parts.is_empty() {
            self.opened.insert(key);
            return Ok(None);
        }
        let after = spot.as_ref().map(|spot| spot.number);
        let start = match &spot {
            Some(_) if is_first && has_new => Start { after: None, since: Some(since) },
            Some(spot) if !is_first || read_since(spot) => Start { after, since: None },
            // What appears while we read is new, whatever its times say.
            None if self.caught_up => Start { after: None, since: None },
            _ => Start { after, since: Some(since) },
        };
        let known_until = match &stream {
            Some(stream) => stream.known_until,
            None => after.filter(|_| is_first && has_new),
        };
        let mut stream = self.open(key, parts, start, refused);
        if let Some(stream) = &mut stream {
            stream.known_until = known_until;
        }
        Ok(stream)
    }

    fn open(
        &mut self,
        key: String,
        parts: Vec<Part>,
        start: Start,
        refused: &mut Vec<Refused>,
    ) -> Option<Stream> {
        let spot = match start.after {
            Some(_) => self.spots.get(&key).cloned().unwrap_or_default(),
            None => Spot::default(),
        };
        self.opened.insert(key.clone());
        match Stream::open(key, parts, &self.matches, start, spot) {
            Ok((stream, left_out)) => {
                refused.extend(left_out);
                Some(stream)
            }
            Err(all) => {
                refused.extend(all);
                None
            }
        }
    }

    /// Directories of the same machine hold the same entries, in memory and on disk.
    fn find_twins(&self, streams: &mut [Stream]) {
        let keys: BTreeSet<String> = self.spots.keys().cloned().collect();
        let open = streams.iter().map(|stream| stream.key.clone());
        let keys: BTreeSet<String> = keys.into_iter().chain(open).collect();
        for stream in streams {
            let own = directory(&stream.key);
            let is_twin = |other: &Path| other != own && other.file_name() == own.file_name();
            let twins = machine(own).map(|_| keys.iter().filter(|key| is_twin(directory(key))));
            stream.twins = twins.into_iter().flatten().cloned().collect();
        }
    }

    /// Tells how the journal is doing and what of it cannot be read.
    fn judge(
        &mut self,
        is_empty: bool,
        is_idle: bool,
        refused: Vec<Refused>,
    ) -> Result<(), Stopped> {
        let state = match refused.first() {
            Some(Refused { why, .. }) if is_idle => JournalState::Unavailable(why.to_string()),
            None if is_empty => JournalState::Unavailable(NO_JOURNAL.to_owned()),
            _ => JournalState::Following,
        };
        let is_read = state == JournalState::Following;
        self.set_state(&state)?;
        let mut before = std::mem::take(&mut self.faults.refused);
        let was_sure = before.values().filter(|refusal| refusal.is_sure).count();
        for Refused { path, why } in refused {
            let new = || Refusal { why: why.to_string(), since: monotonic(), is_sure: false };
            let mut refusal = before.remove(&path).unwrap_or_else(new);
            if !refusal.is_sure && refusal.since.elapsed() >= PAUSE {
                refusal.is_sure = true;
                if is_read {
                    let why = &refusal.why;
                    self.fault(format!("`{}` cannot be read: {why}; the rest is", path.display()))?;
                }
            }
            self.faults.refused.insert(path, refusal);
        }
        let sure = self.faults.refused.iter().filter(|(_, refusal)| refusal.is_sure);
        if sure.clone().count() != was_sure || before.values().any(|refusal| refusal.is_sure) {
            let sure = sure.map(|(path, refusal)| (path.clone(), refusal.why.clone()));
            let unreadable: Vec<_> = sure.take(JournalProgress::SHOWN).collect();
            for jail in &self.jails {
                self.board.progress(&jail.name, |progress| {
                    progress.unreadable.clone_from(&unreadable);
                });
            }
        }
        Ok(())
    }

    /// Deals with a chain that cannot be read on: it is tried again, then what comes later is read, and in the end its
    /// damaged file is given up. Answers whether there is nothing to wait for, because its files were only removed.
    pub(super) fn face(&mut self, stream: &mut Stream, trouble: Trouble) -> Result<bool, Stopped> {
        let (ids, why) = match trouble {
            Trouble::Damaged(ids) => (ids, "it is damaged".to_owned()),
            Trouble::Failed(error) => (stream.ids().into_iter().collect(), error.to_string()),
        };
        let has_read = stream.hurt();
        let mut at_once = false;
        for id in ids {
            if stream.is_wiped(id) {
                at_once = true;
                continue;
            }
            let tries = self.faults.ends.entry(id).or_default();
            *tries = if has_read { 1 } else { *tries + 1 };
            let Some(over) = stream.pass_over(id, *tries) else { continue };
            if *tries >= TRIES || !over.grows {
                self.faults.given_up.insert(over.identity);
            }
            self.counts.passed_over += over.entries;
            let what = format!(
                "`{}` cannot be read on: {why}; up to {} entries in it are passed over",
                over.path.display(),
                over.entries
            );
            self.fault(what)?;
        }
        Ok(at_once)
    }
}

/// The lowest and the highest number that files hold.
fn numbers(parts: &[Part]) -> (Option<u64>, u64) {
    let first = parts.iter().map(|part| part.header.first).filter(|first| *first > 0).min();
    (first, parts.iter().map(|part| part.header.last).max().unwrap_or(0))
}

/// Where the files of a chain lie.
fn directory(key: &str) -> &Path {
    Path::new(key.rsplit_once('/').map_or("", |(directory, _)| directory))
}

/// Whether a directory is named by a machine.
fn machine(directory: &Path) -> Option<()> {
    let name = directory.file_name()?.to_str()?;
    is_id(name.split('.').next()?).then_some(())
}
