//! Which jail reads what, and the threads that do it.
use std::{
    os::{fd::BorrowedFd, unix::fs::MetadataExt},
    path::Path,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use super::{
    FileState, JournalState, Kit, Positions, Report,
    files::{Codec, Files, Pattern, Wanted},
    group::{MAX_THREADS, group},
    jail::Jail,
    journal::{NO_JOURNAL, Place, Reader},
};
use crate::{
    config::{JournalSettings, JournalTerms, LogPath, SourceSettings},
    engine::Timestamp,
};

/// How often sources that are waited for are looked for, beside being watched for.
const RETRY: Duration = Duration::from_secs(10);

/// A log that was not written to for so long is not in use: cron alone writes to `auth.log` every hour.
const STALE: Duration = Duration::from_secs(48 * 3600);

/// Log files as a jail wants them.
#[derive(Debug)]
struct LogFiles {
    paths: Vec<(Pattern, bool)>,
    encoding: String,
}

impl LogFiles {
    fn new(paths: &[LogPath], encoding: String) -> LogFiles {
        let pattern = |path: &LogPath| (Pattern::new(Path::new(&path.pattern)), path.tail);
        LogFiles { paths: paths.iter().map(pattern).collect(), encoding }
    }

    /// When one of them was last written to; `None` if there are none.
    fn last_written(&self) -> Option<Timestamp> {
        let expand = |(pattern, _): &(Pattern, bool)| pattern.expand(&mut |_, _| {});
        let paths = self.paths.iter().flat_map(expand);
        let seconds = paths.filter_map(|path| Some(path.metadata().ok()?.mtime()));
        seconds.max().map(Timestamp::from_seconds)
    }
}

/// A journal as a jail wants it.
#[derive(Debug)]
struct JournalEntries {
    place: Place,
    groups: Vec<JournalTerms>,
}

impl JournalEntries {
    fn new(settings: JournalSettings) -> JournalEntries {
        JournalEntries { place: Place::new(&settings), groups: settings.matches }
    }
}

/// A jail and where its lines may come from.
#[derive(Debug)]
pub(crate) struct Candidate {
    jail: Jail,
    files: Option<LogFiles>,
    journal: Option<JournalEntries>,
}

impl Candidate {
    /// `None` for a jail that reads nothing.
    pub(crate) fn new(jail: Jail, source: SourceSettings) -> Option<Candidate> {
        let (files, journal) = match source {
            SourceSettings::Files { paths, encoding } => {
                (Some(LogFiles::new(&paths, encoding)), None)
            }
            SourceSettings::Journal(journal) => (None, Some(JournalEntries::new(journal))),
            SourceSettings::Auto { paths, encoding, journal } => {
                (Some(LogFiles::new(&paths, encoding)), Some(JournalEntries::new(journal)))
            }
            SourceSettings::Nothing => return None,
        };
        Some(Candidate { jail, files, journal })
    }

    /// Of two kinds of source leaves the one that is there: files before the journal, never both, because what
    /// journald holds is written to files too, and each attempt would count twice. A file that has not been written to
    /// for long comes last: where syslog was given up its old files lie about, and waiting for them would miss
    /// everything.
    fn choose(&mut self, kit: &Kit) {
        let (Some(files), Some(journal)) = (&self.files, &self.journal) else { return };
        let written = files.last_written();
        let in_use = written.is_some_and(|time| time >= (kit.clock)().minus(STALE));
        if in_use || (written.is_some() && !journal.place.exists()) {
            self.journal = None;
            kit.board.no_journal(&self.jail.name);
        } else if journal.place.exists() {
            self.files = None;
            kit.board.no_files(&self.jail.name);
        }
    }

    fn is_chosen(&self) -> bool {
        self.files.is_none() || self.journal.is_none()
    }
}

/// Starts reader threads.
pub(crate) struct Starter {
    kit: Kit,
    threads: Vec<JoinHandle<Positions>>,
}

impl Starter {
    pub(crate) fn new(kit: Kit) -> Starter {
        Starter { kit, threads: Vec::new() }
    }

    pub(crate) fn into_threads(self) -> Vec<JoinHandle<Positions>> {
        self.threads
    }

    /// Starts what the jails need; one more thread waits for those whose sources are still to be chosen.
    ///
    /// `first` says that the sources may have been there before us.
    pub(crate) fn start(&mut self, mut jails: Vec<Candidate>, from: &Positions, first: bool) {
        jails.iter_mut().for_each(|jail| jail.choose(&self.kit));
        let (chosen, open): (Vec<_>, Vec<_>) = jails.into_iter().partition(Candidate::is_chosen);
        let (mut files, mut journals) = (Vec::new(), Vec::new());
        for Candidate { jail, files: paths, journal } in chosen {
            if let Some(paths) = paths {
                files.push((jail, paths));
            } else if let Some(journal) = journal {
                journals.push((jail, journal));
            }
        }
        self.start_files(files, from, first);
        self.start_journals(journals, from);
        if !open.is_empty() {
            self.start_waiting(open, from);
        }
    }

    fn start_files(&mut self, jails: Vec<(Jail, LogFiles)>, from: &Positions, first: bool) {
        let patterns: Vec<Vec<Pattern>> = jails
            .iter()
            .map(|(_, files)| files.paths.iter().map(|(pattern, _)| pattern.clone()).collect())
            .collect();
        let mut jails: Vec<Option<(Jail, LogFiles)>> = jails.into_iter().map(Some).collect();
        for members in group(&patterns, MAX_THREADS) {
            let (mut own, mut codecs, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
            for (jail, files) in members.into_iter().filter_map(|member| jails[member].take()) {
                let number = own.len();
                codecs.push(Codec::named(&files.encoding).unwrap_or_else(|| {
                    let what = format!(
                        "jail `{}`: encoding `{}` is unknown, reading UTF-8 instead",
                        jail.name, files.encoding
                    );
                    self.fault("logencoding", what);
                    Codec::AUTO
                }));
                let paths = files.paths.into_iter();
                wanted.extend(paths.map(|(pattern, tail)| Wanted { pattern, tail, jail: number }));
                own.push(jail);
            }
            let stored = from.files.clone();
            let reader = Files::new(own, codecs, wanted, stored, first, self.kit.clone());
            self.spawn("files", move || Positions { files: reader.run(), ..Positions::default() });
        }
    }

    fn start_journals(&mut self, jails: Vec<(Jail, JournalEntries)>, from: &Positions) {
        type Members = Vec<(Jail, Vec<JournalTerms>)>;
        let mut places: Vec<(Place, Members)> = Vec::new();
        for (jail, JournalEntries { place, groups }) in jails {
            match places.iter_mut().find(|(known, _)| *known == place) {
                Some((_, jails)) => jails.push((jail, groups)),
                None => places.push((place, vec![(jail, groups)])),
            }
        }
        for (place, jails) in places {
            let key = place.to_string();
            let position = from.journals.get(&key).cloned();
            let (reader, problems) = Reader::new(place, jails, position, self.kit.clone());
            for what in problems {
                self.fault("journalmatch", what);
            }
            self.spawn("journal", move || Positions {
                journals: reader.run().map(|position| (key, position)).into_iter().collect(),
                ..Positions::default()
            });
        }
    }

    fn start_waiting(&mut self, open: Vec<Candidate>, from: &Positions) {
        let kit = self.kit.clone();
        let from = from.clone();
        self.spawn("waiting", move || wait(open, &from, kit));
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() -> Positions + Send + 'static) {
        match Builder::new().name(name.to_owned()).spawn(work) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => self.fault(name, format!("no thread for this reader: {error}")),
        }
    }

    fn fault(&self, source: &str, what: String) {
        self.kit.outbox.tell(Report::Fault { source: source.to_owned(), what });
    }
}

/// Waits until something appears for each jail to read, and starts that. Answers how far all of it was read.
fn wait(mut open: Vec<Candidate>, from: &Positions, kit: Kit) -> Positions {
    for Candidate { jail, files, journal } in &open {
        for (pattern, _) in files.iter().flat_map(|files| &files.paths) {
            let (path, state) = (pattern.text().to_owned(), FileState::Waiting);
            kit.board.file(&jail.name, &path, &state);
            kit.outbox.tell(Report::File { path, state });
        }
        if let Some(journal) = journal {
            let state = JournalState::Unavailable(NO_JOURNAL.to_owned());
            kit.board.journal(&jail.name, &state);
            kit.outbox.tell(Report::Journal { journal: journal.place.to_string(), state });
        }
    }
    let stop = kit.outbox.stop();
    let mut watch = (kit.watch)();
    let mut starter = Starter::new(kit.clone());
    while !open.is_empty() && !stop.is_ordered() {
        watch.begin_round();
        for Candidate { files, journal, .. } in &open {
            for (pattern, _) in files.iter().flat_map(|files| &files.paths) {
                pattern.expand(&mut |dir, name| watch.directory(dir, name));
            }
            journal.iter().for_each(|journal| journal.place.watch(&mut watch));
        }
        watch.end_round();
        // Looked for only now that nothing can appear unseen.
        open.iter_mut().for_each(|jail| jail.choose(&kit));
        let chosen: Vec<Candidate> = open.extract_if(.., |jail| jail.is_chosen()).collect();
        if !chosen.is_empty() {
            starter.start(chosen, from, false);
            continue;
        }
        let fds: Vec<BorrowedFd<'_>> = watch.fd().into_iter().collect();
        stop.sleep(&fds, Some(RETRY));
        watch.take();
    }
    join(starter.into_threads())
}

/// Waits for threads to end and puts together how far they came.
pub(crate) fn join(threads: Vec<JoinHandle<Positions>>) -> Positions {
    let mut positions = Positions::default();
    for thread in threads {
        match thread.join() {
            Ok(read) => positions.merge(read),
            Err(_) => tracing::error!("a reader thread panicked; its positions are lost"),
        }
    }
    positions
}
