//! Log lines on their way out, which nobody may keep waiting for: not a terminal held by Ctrl-S, not a
//! journald that is behind, not a pager at the other end of a pipe, not a disk that is full.
//!
//! A thread of its own writes, many lines in one call. Its queue is bounded; lines that find it full, or that cannot be
//! written, are lost, and their number is told where they are missing.
mod gather;
mod line;
mod out;
mod target;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use jiff::tz::TimeZone;

pub(super) use self::target::Target;
use self::{
    line::{Level, Line, Style, Times},
    out::Out,
};
use crate::{app::LogFill, clock, config::LogFormat};

/// Bytes of lines that may wait: some hundred thousand, more than end or begin in one second.
const WAITING: usize = 32 << 20;
/// How long a line waits for others.
const GATHER: Duration = Duration::from_millis(2);
/// Lines written in one call.
const BATCH: usize = 512;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Line),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
    /// What comes from now on goes there.
    To(Out),
}

/// Where log lines go. Clones share one queue.
#[derive(Clone)]
pub(super) struct Log {
    queue: Sender<Message>,
    room: usize,
    load: Arc<Load>,
}

/// What is on its way.
#[derive(Default)]
struct Load {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Lines that were lost, not told yet.
    lost: AtomicU64,
    /// All of them since the start.
    lost_ever: AtomicU64,
    /// Lines go to the journal.
    wants_fields: AtomicBool,
    /// Why nothing can be written now.
    fault: Mutex<Option<String>>,
}

impl Load {
    fn lose(&self, lines: usize) {
        self.lost.fetch_add(lines as u64, Ordering::Relaxed);
        self.lost_ever.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// Keeps why nothing can be written; says it once where somebody may read it.
    fn fault(&self, why: Option<String>, out: &Out) {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none()
            && let Some(why) = why.as_ref().filter(|_| !out.is_stream())
        {
            // A closed standard error is no reason to stop.
            let told = format!(
                "fail2xdp: the log cannot be written: {why}; lines are lost until it can\n"
            );
            let _ = io::Write::write_all(&mut io::stderr(), told.as_bytes());
        }
        *known = why;
    }
}

impl Log {
    /// Starts the thread that writes, to standard error first.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub(super) fn start() -> io::Result<Log> {
        let style = Style::new(&LogFormat::default(), true, true).expect("it is fail2ban's own");
        Log::with_room(WAITING, Out::Stream(Box::new(io::stderr()), style))
    }

    fn with_room(room: usize, out: Out) -> io::Result<Log> {
        // Its length is bounded by the bytes in it: room set aside for as many lines would always be taken.
        let (queue, lines) = channel();
        let load = Arc::new(Load::default());
        let (log, writer) = (Log { queue, room, load: Arc::clone(&load) }, thread::Builder::new());
        writer.name("log".to_owned()).spawn(move || write_all(&lines, &load, out))?;
        Ok(log)
    }

    /// Whether lines need single words beside their text.
    fn wants_fields(&self) -> bool {
        self.load.wants_fields.load(Ordering::Relaxed)
    }

    /// Writes elsewhere what is said from now on.
    fn write_to(&self, out: Out) {
        self.load.wants_fields.store(matches!(out, Out::Journal), Ordering::Relaxed);
        // Without a writer nothing is written anywhere.
        let _ = self.queue.send(Message::To(out));
    }

    /// Takes a line; never waits and never fails.
    fn say(&self, line: Line) {
        let size = line.size();
        let waiting = self.load.waiting.fetch_add(size, Ordering::Relaxed);
        if waiting + size > self.room || self.queue.send(Message::Line(line)).is_err() {
            self.load.waiting.fetch_sub(size, Ordering::Relaxed);
            self.load.lose(1);
        }
    }

    /// How full its queue is.
    fn fill(&self) -> LogFill {
        LogFill {
            waiting: self.load.waiting.load(Ordering::Relaxed),
            most: self.room,
            lost: self.load.lost_ever.load(Ordering::Relaxed),
            fault: self.load.fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Waits until what was said so far is written, but not for ever.
    pub(super) fn flush(&self) {
        let (answer, answered) = sync_channel(1);
        // Without a writer there is nothing to wait for; who does not read does not want to know.
        if self.queue.send(Message::Flush(answer)).is_ok() {
            let _ = answered.recv_timeout(LAST_LINES);
        }
    }
}

/// Writes the last lines when the daemon's work ends, however it ends.
pub(super) struct LastLines(pub(super) Log);

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.flush();
    }
}

fn write_all(lines: &Receiver<Message>, load: &Load, mut out: Out) {
    let mut times = Times::new(TimeZone::system());
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = lines.recv() {
        // While we wait nobody has to wake us: a thousand lines then cost one wake-up, not a thousand.
        thread::sleep(GATHER);
        let mut flushed = Vec::new();
        let mut next = Some(first);
        let mut elsewhere = None;
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.push(line),
                Message::Flush(answer) => flushed.push(answer),
                Message::To(out) => elsewhere = Some(out),
            }
            next = if batch.len() < BATCH && elsewhere.is_none() {
                lines.try_recv().ok()
            } else {
                None
            };
        }
        let size: usize = batch.iter().map(Line::size).sum();
        let missing = load.lost.load(Ordering::Relaxed);
        let told = usize::from(missing > 0);
        if missing > 0 {
            batch.push(missing_here(missing));
        }
        let (written, done) = out.write(&batch, &mut times);
        if written == batch.len() {
            load.lost.fetch_sub(missing, Ordering::Relaxed);
        } else {
            load.lose((batch.len() - told).saturating_sub(written));
        }
        load.fault(done.err().map(|error| error.to_string()), &out);
        load.waiting.fetch_sub(size, Ordering::Relaxed);
        batch.clear();
        if let Some(elsewhere) = elsewhere {
            out = elsewhere;
            load.fault(None, &out);
        }
        for answer in flushed {
            // Who asked may have stopped waiting.
            let _ = answer.try_send(());
        }
    }
}

fn missing_here(lines: u64) -> Line {
    Line {
        at: clock::now(),
        level: Level::WARNING,
        logger: "fail2xdp.log".into(),
        text: format!(
            "{lines} log lines are missing here: they could not be written, or not as fast as they came"
        ),
        fields: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Timestamp;

    /// Writes only when it may.
    struct Held {
        may: Receiver<()>,
        written: Arc<Mutex<String>>,
    }

    impl io::Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(io::Error::other)?;
            self.written.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn out(may: Receiver<()>, written: &Arc<Mutex<String>>) -> Out {
        let format = LogFormat { format: Some("%(message)s".into()), ..LogFormat::default() };
        let style = Style::new(&format, true, true).unwrap();
        Out::Stream(Box::new(Held { may, written: Arc::clone(written) }), style)
    }

    fn line(text: String) -> Line {
        let (at, logger) = (Timestamp::from_seconds(0), "fail2xdp.test".into());
        Line { at, level: Level::INFO, logger, text, fields: Vec::new() }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_lost_is_told() {
        let (allow, may) = channel();
        let written = Arc::default();
        let room = 8 * line("line 1".into()).size();
        let log = Log::with_room(room, out(may, &written)).unwrap();
        for nth in 0..100 {
            log.say(line(format!("line {nth}")));
        }
        for _ in 0..100 {
            allow.send(()).unwrap();
        }
        log.flush();
        log.say(line("line 100".into()));
        log.flush();
        let written = written.lock().unwrap().clone();
        assert!(written.starts_with("line 0\n"), "{written}");
        let told: u64 = written
            .lines()
            .filter_map(|line| line.split_once(" log lines are missing")?.0.parse::<u64>().ok())
            .sum();
        let kept = written.lines().filter(|line| line.starts_with("line ")).count() as u64;
        assert!(told > 0 && told + kept == 101, "{written}");
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let (allow, may) = channel();
        let written = Arc::default();
        let log = Log::with_room(WAITING, out(may, &written)).unwrap();
        for _ in 0..2 {
            allow.send(()).unwrap();
        }
        log.say(line("stopped".into()));
        log.flush();
        assert_eq!(*written.lock().unwrap(), "stopped\n");
    }
}
