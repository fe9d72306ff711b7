//! Files, their writers, the tailer, and what is known of every line.
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};

use super::{
    Action, Between, Log, Setting, Text,
    parts::{Collector, Content, Fate, LineInfo, Tally, Writer},
};
use crate::{
    config::JailName,
    source::{
        Kit, Report,
        board::Board,
        files::{Codec, FilePositions, Files, Pattern, Wanted, Watch},
        jail::Jail,
        outbox::{Outbox, Stop},
        tests::{NOW, now},
    },
};

/// The logs: one by its name, two by a glob, one by a symlink.
pub const NAMES: [&str; 4] = ["a.log", "b.site", "c.site", "link"];

/// What the symlink may lead to.
const TARGETS: [&str; 2] = ["data/x", "data/y"];

/// Steps in which the tailer comes to rest, whatever has happened.
const REST: usize = 400;

pub struct World {
    pub(super) setting: Setting,
    pub(super) dir: TempDir,
    pub(super) tailer: Option<Files>,
    pub(super) reports: Option<Receiver<Report>>,
    pub(super) collected: Arc<Mutex<Vec<String>>>,
    pub(super) saved: FilePositions,
    pub(super) lines: Vec<LineInfo>,
    pub(super) numbers: HashMap<String, usize>,
    pub(super) contents: Vec<Content>,
    pub(super) writers: Vec<Option<Writer>>,
    pub(super) tally: Tally,
    /// What the link leads to.
    pub(super) target: usize,
    /// The time that each log bore when `logrotate` began.
    pub(super) checked: [Option<SystemTime>; NAMES.len()],
    /// What is copied or compressed next is done in pieces, and this happens between them.
    pub(super) slowly: Option<Between>,
}

impl World {
    pub fn new(setting: Setting) -> World {
        let dir = match setting.disk {
            true => tempfile::tempdir(),
            false => tempfile::tempdir_in("/dev/shm"),
        };
        let dir = dir.expect("a directory for the test, and one in /dev/shm");
        fs::create_dir(dir.path().join("data")).expect("made");
        let mut world = World {
            setting,
            dir,
            tailer: None,
            reports: None,
            collected: Arc::default(),
            saved: FilePositions::new(),
            lines: Vec::new(),
            numbers: HashMap::new(),
            contents: Vec::new(),
            writers: Vec::new(),
            tally: Tally::default(),
            target: 0,
            checked: [None; NAMES.len()],
            slowly: None,
        };
        std::os::unix::fs::symlink(world.path(TARGETS[0]), world.path("link")).expect("made");
        world.writers.resize_with(NAMES.len(), || None);
        world.reopen(0);
        world.reopen(3);
        world.start();
        world.save();
        world
    }

    pub fn act(&mut self, action: Action) -> Result<(), String> {
        let few = |log: Log| log % self.setting.logs;
        match action {
            Action::Write(log, text) => self.write(few(log), text),
            Action::Rename(log, pack, create) => self.rename(few(log), pack, create),
            Action::Reopen(log) => self.reopen(few(log)),
            Action::Check(log) => self.check(few(log)),
            Action::Copy(log, pack) => self.copy(few(log), pack),
            Action::Slowly(between) => self.slowly = Some(between),
            Action::Truncate(log) => self.truncate(few(log)),
            Action::Regrow(log) => self.regrow(few(log)),
            Action::Recreate(log) => self.recreate(few(log)),
            Action::Relink if self.setting.logs == NAMES.len() => self.relink(),
            Action::Relink => {}
            Action::Step(steps) => (0..steps).for_each(|_| self.step(self.setting.polling)),
            Action::Look => self.step(true),
            Action::Save => self.save(),
            Action::Stop => self.stop(),
            Action::Kill => self.kill(),
            Action::Start => self.start(),
        }
        self.compare().map_err(|error| format!("{error}\nafter {action:?}"))
    }

    /// Lets everything come to rest, and says what was not as it must be.
    pub fn end(mut self) -> Result<Tally, String> {
        self.start();
        for log in 0..self.setting.logs {
            self.reopen(log);
        }
        self.rest()?;
        self.compare()?;
        for line in &self.lines {
            let missed = line.fate == Fate::Read && line.read == 0;
            if missed {
                let places: Vec<_> =
                    line.places.iter().map(|place| &self.contents[*place]).collect();
                return Err(format!(
                    "`{}` was never read; it lies in {places:?}",
                    short(&line.text)
                ));
            }
            match line.fate {
                Fate::Read => self.tally.read += 1,
                Fate::Lost => self.tally.lost += 1,
                Fate::Open => self.tally.open += 1,
            }
        }
        Ok(self.tally)
    }

    /// Steps until there is nothing more to do.
    pub(super) fn rest(&mut self) -> Result<(), String> {
        let mut steps = 0;
        for _ in 0..3 {
            self.step(true);
            while self.tailer.as_ref().is_some_and(Files::has_more) {
                self.step(false);
                steps += 1;
                if steps > REST {
                    return Err("the tailer does not come to rest".into());
                }
            }
        }
        Ok(())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a log lies: for the symlink, its target.
    pub(super) fn log_path(&self, log: Log) -> PathBuf {
        self.path(if NAMES[log] == "link" { TARGETS[self.target] } else { NAMES[log] })
    }

    pub(super) fn start(&mut self) {
        if self.tailer.is_some() {
            return;
        }
        self.leave_open_what_is_unknown();
        let (to, reports) = channel(1000);
        let outbox = Outbox::new(to, Arc::new(Stop::new()), Arc::new(AtomicU64::new(0)));
        let watch = if self.setting.polling { Watch::polling } else { Watch::new };
        let kit = Kit { outbox, board: Board::new::<Collector>(&[]), clock: now, watch };
        let collector = Box::new(Collector(Arc::clone(&self.collected)));
        let jail = Jail::new(JailName::new("j"), Duration::from_secs(600), collector);
        let glob = if self.setting.wide { "?.site*" } else { "?.site" };
        let wanted = [NAMES[0], glob, "link"].map(|name| Wanted {
            pattern: Pattern::new(&self.path(name)),
            tail: false,
            jail: 0,
        });
        let wanted = wanted.into_iter().collect();
        let saved = self.saved.clone();
        let mut tailer = Files::new(vec![jail], vec![Codec::AUTO], wanted, saved, true, kit);
        tailer.first_look().expect("nobody stops it");
        (self.tailer, self.reports) = (Some(tailer), Some(reports));
        self.tally.starts += 1;
    }

    pub(super) fn step(&mut self, late: bool) {
        let Some(tailer) = &mut self.tailer else { return };
        tailer.step(late).expect("nobody stops it");
    }

    pub(super) fn save(&mut self) {
        let Some(tailer) = &self.tailer else { return };
        let positions = tailer.positions().expect("all can be read");
        // As a store would: through text and back.
        let text = serde_json::to_string(&positions).expect("positions are plain data");
        self.saved = serde_json::from_str(&text).expect("as it was written");
        self.collect().expect("compared after each action");
        for line in &mut self.lines {
            line.saved = line.read;
        }
        for content in 0..self.contents.len() {
            self.contents[content].saved = self.is_held(&self.contents[content].path);
        }
    }

    pub(super) fn stop(&mut self) {
        self.save();
        self.kill();
    }

    pub(super) fn kill(&mut self) {
        if self.tailer.is_none() {
            return;
        }
        self.collect().expect("compared after each action");
        (self.tailer, self.reports) = (None, None);
        for content in 0..self.contents.len() {
            if self.contents[content].deleted {
                self.vanish(content);
            }
        }
        for line in self.lines.iter_mut().filter(|line| !line.places.is_empty()) {
            line.read = line.saved;
        }
    }

    /// What a start with the saved positions does not find may be read or not.
    fn leave_open_what_is_unknown(&mut self) {
        for at in 0..self.lines.len() {
            let known = self.lines[at].places.iter().any(|place| self.is_known(*place));
            let line = &mut self.lines[at];
            if !known && line.read == 0 && !line.places.is_empty() {
                line.fate = Fate::Open;
            }
        }
        for content in 0..self.contents.len() {
            self.contents[content].unknown |= !self.is_known(content);
        }
    }

    /// Whether a start with the saved positions finds this file.
    fn is_known(&self, content: usize) -> bool {
        let content = &self.contents[content];
        let name = self.path(NAMES[content.log]);
        let bears_the_name = content.path == self.log_path(content.log);
        // Beside a symlink's target only files of that name are looked for.
        let target = self.log_path(content.log).display().to_string();
        let found = content.saved || content.path.display().to_string().starts_with(&target);
        bears_the_name || (found && self.saved.contains_key(&*name.to_string_lossy()))
    }

    /// Whether the tailer has this file open.
    pub(super) fn is_held(&self, path: &Path) -> bool {
        let Some(tailer) = &self.tailer else { return false };
        File::open(path).is_ok_and(|file| tailer.holds(&file))
    }

    /// A file's content is gone: what was only there and has not been read is lost.
    pub(super) fn vanish(&mut self, content: usize) {
        self.collect().expect("compared after each action");
        self.contents[content].half.clear();
        for line in std::mem::take(&mut self.contents[content].lines) {
            let line = &mut self.lines[line];
            line.places.remove(&content);
            if line.places.is_empty() && line.read == 0 {
                line.fate = Fate::Lost;
            }
        }
    }

    /// Deletes a file, which may stay open.
    pub(super) fn delete(&mut self, content: usize) {
        let path = self.contents[content].path.clone();
        let held = self.is_held(&path);
        fs::remove_file(&path).expect("it is there");
        self.contents[content].deleted = true;
        if !held {
            self.vanish(content);
        }
    }

    pub(super) fn content_at(&self, path: &Path) -> Option<usize> {
        self.contents.iter().rposition(|content| content.path == path && !content.deleted)
    }

    pub(super) fn reopen(&mut self, log: Log) {
        if self.writers[log].as_ref().is_some_and(|writer| writer.half) {
            self.write(log, Text::Lines(0));
        }
        let path = self.log_path(log);
        let content = match self.content_at(&path) {
            Some(content) => content,
            None => self.create(log, path.clone()),
        };
        let file = OpenOptions::new().append(true).open(&path).expect("opened");
        self.writers[log] = Some(Writer { file, content, half: false });
    }

    pub(super) fn create(&mut self, log: Log, path: PathBuf) -> usize {
        File::create_new(&path).expect("it was not there");
        let (lines, half) = (Vec::new(), String::new());
        self.contents.push(Content {
            path,
            log,
            lines,
            half,
            deleted: false,
            unknown: false,
            saved: false,
        });
        self.contents.len() - 1
    }

    pub(super) fn write(&mut self, log: Log, text: Text) {
        if self.writers[log].is_none() {
            self.reopen(log);
        }
        let half = self.writers[log].as_ref().is_some_and(|writer| writer.half);
        let mut bytes = if half { format!("rest {}\n", self.number()) } else { String::new() };
        let (count, padding) = match text {
            Text::Lines(count) => (count, 0),
            Text::Burst => (90, 900),
            Text::Half => (0, 0),
        };
        for _ in 0..count {
            bytes += &format!("@{NOW} {}{:padding$}\n", self.number(), "");
        }
        if matches!(text, Text::Half) {
            bytes += &format!("@{NOW} half {} ", self.number());
        }
        let Some(writer) = &mut self.writers[log] else { return };
        writer.half = matches!(text, Text::Half);
        writer.file.write_all(bytes.as_bytes()).expect("written");
        let content = writer.content;
        self.append(content, &bytes);
    }

    /// A number that no other text has.
    fn number(&mut self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string()
    }

    fn append(&mut self, content: usize, bytes: &str) {
        let whole = std::mem::take(&mut self.contents[content].half) + bytes;
        let mut lines = whole.split('\n').collect::<Vec<_>>();
        self.contents[content].half = lines.pop().unwrap_or("").to_owned();
        // A deleted file that the tailer has not open is nobody's.
        let gone = self.contents[content].deleted && !self.is_open(content);
        for text in lines {
            let number = self.lines.len();
            let (fate, places) = match gone {
                true => (Fate::Lost, BTreeSet::new()),
                false => (Fate::Read, BTreeSet::from([content])),
            };
            let fate = if self.contents[content].unknown { Fate::Open } else { fate };
            let text = text.to_owned();
            self.numbers.insert(text.clone(), number);
            self.lines.push(LineInfo { text, fate, places, read: 0, saved: 0 });
            if !gone {
                self.contents[content].lines.push(number);
            }
        }
    }

    /// Whether the tailer has a deleted file open, which its writer has too.
    fn is_open(&self, content: usize) -> bool {
        let writer = self.writers.iter().flatten().find(|writer| writer.content == content);
        let Some(tailer) = &self.tailer else { return false };
        writer.is_some_and(|writer| tailer.holds(&writer.file))
    }

    fn relink(&mut self) {
        // What it led to for so short that nobody saw it may be found when it leads there again.
        for content in 0..self.contents.len() {
            let Content { log, path, deleted, .. } = &self.contents[content];
            if *log != 3 || *deleted || self.is_held(path) {
                continue;
            }
            for line in self.contents[content].lines.clone() {
                let line = &mut self.lines[line];
                if line.read == 0 {
                    line.fate = Fate::Open;
                }
            }
            self.contents[content].unknown = true;
        }
        self.target = 1 - self.target;
        let target = self.path(TARGETS[self.target]);
        std::os::unix::fs::symlink(target, self.path("new")).expect("made");
        fs::rename(self.path("new"), self.path("link")).expect("renamed");
        self.reopen(3);
    }

    /// Takes note of what was read.
    pub(super) fn collect(&mut self) -> Result<(), String> {
        for text in self.collected.lock().expect("one thread").drain(..) {
            let Some(number) = self.numbers.get(&text) else {
                return Err(format!("`{}` was read and never written", short(&text)));
            };
            self.lines[*number].read += 1;
        }
        Ok(())
    }

    /// Nothing was read that must not be.
    fn compare(&mut self) -> Result<(), String> {
        self.collect()?;
        for line in &self.lines {
            let most = if line.fate == Fate::Lost { 0 } else { 1 };
            if line.read > most.max(line.saved) {
                let places: Vec<_> =
                    line.places.iter().map(|place| &self.contents[*place].path).collect();
                let text = short(&line.text);
                return Err(format!(
                    "`{text}` was read {} times; it lies in {places:?}",
                    line.read
                ));
            }
        }
        while let Some(report) = self.reports.as_mut().and_then(|it| it.try_recv().ok()) {
            match report {
                // Truncation that loses something is told.
                Report::Fault { what, .. } if what.contains("truncated with") => {}
                // Others on this machine have all of it: it is done without.
                Report::Fault { source, .. } if source == "inotify" => {}
                Report::Fault { source, what } => return Err(format!("{source}: {what}")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn short(line: &str) -> &str {
    line.trim_end()
}
