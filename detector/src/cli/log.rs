//! Log lines on their way out, which nobody may keep waiting for: not a terminal held by Ctrl-S, not a
//! journald that is behind, not a pager at the other end of a pipe.
//!
//! A thread of its own writes, many lines in one call. Its queue is bounded; lines that find it full are
//! lost, and their number is told where they are missing.
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::app::LogFill;

/// Bytes of lines that may wait: some two hundred thousand, more than end or begin in one second.
const WAITING: usize = 16 << 20;
/// How long a line waits for others.
const GATHER: Duration = Duration::from_millis(2);
/// Bytes written in one call, about.
const BATCH: usize = 64 << 10;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
    /// What comes from now on goes there.
    To(Box<dyn Write + Send>),
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
    /// Lines that found no room, not told yet.
    lost: AtomicU64,
    /// All of them since the start.
    lost_ever: AtomicU64,
}

impl Log {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Log> {
        Log::with_room(WAITING, Box::new(out))
    }

    fn with_room(room: usize, out: Box<dyn Write + Send>) -> io::Result<Log> {
        // Its length is bounded by the bytes in it: room set aside for as many lines would always be taken.
        let (queue, lines) = channel();
        let load = Arc::new(Load::default());
        let (log, writer) = (Log { queue, room, load: Arc::clone(&load) }, thread::Builder::new());
        writer.name("log".to_owned()).spawn(move || write_all(&lines, &load, out))?;
        Ok(log)
    }

    /// Writes elsewhere what is said from now on.
    pub(super) fn write_to(&self, out: Box<dyn Write + Send>) {
        // Without a writer nothing is written anywhere.
        let _ = self.queue.send(Message::To(out));
    }

    /// How full its queue is.
    pub(super) fn fill(&self) -> LogFill {
        LogFill {
            waiting: self.load.waiting.load(Ordering::Relaxed),
            most: self.room,
            lost: self.load.lost_ever.load(Ordering::Relaxed),
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

impl Write for &Log {
    /// Never waits and never fails: one call is one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let waiting = self.load.waiting.fetch_add(line.len(), Ordering::Relaxed);
        if waiting + line.len() > self.room
            || self.queue.send(Message::Line(line.to_vec())).is_err()
        {
            self.load.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.load.lost.fetch_add(1, Ordering::Relaxed);
            self.load.lost_ever.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'log> tracing_subscriber::fmt::MakeWriter<'log> for Log {
    type Writer = &'log Log;

    fn make_writer(&'log self) -> &'log Log {
        self
    }
}

fn write_all(lines: &Receiver<Message>, load: &Load, mut out: Box<dyn Write + Send>) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = lines.recv() {
        // While we wait nobody has to wake us: a thousand lines then cost one wake-up, not a thousand.
        thread::sleep(GATHER);
        let mut flushed = Vec::new();
        let mut next = Some(first);
        let mut elsewhere = None;
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(answer) => flushed.push(answer),
                Message::To(out) => elsewhere = Some(out),
            }
            next = if batch.len() < BATCH && elsewhere.is_none() {
                lines.try_recv().ok()
            } else {
                None
            };
        }
        let written = batch.len();
        let missing = load.lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let told = "log lines are missing here: whoever reads the log is too slow";
            batch.extend_from_slice(format!("{missing} {told}\n").as_bytes());
        }
        // A log that cannot be written is no reason to stop protecting, and there is nobody to tell.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        load.waiting.fetch_sub(written, Ordering::Relaxed);
        batch.clear();
        if let Some(elsewhere) = elsewhere {
            out = elsewhere;
        }
        for answer in flushed {
            // Who asked may have stopped waiting.
            let _ = answer.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Writes only when it may.
    struct Held {
        may: Receiver<()>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(io::Error::other)?;
            self.written.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_lost_is_told() {
        let (allow, may) = channel();
        let written = Arc::default();
        let log =
            Log::with_room(64, Box::new(Held { may, written: Arc::clone(&written) })).unwrap();
        for nth in 0..100 {
            (&log).write_all(format!("line {nth}\n").as_bytes()).unwrap();
        }
        for _ in 0..100 {
            allow.send(()).unwrap();
        }
        log.flush();
        let written = written.lock().unwrap().clone();
        assert!(written.starts_with("line 0\n"), "{written}");
        let told: u64 = written
            .lines()
            .filter_map(|line| line.split_once(" log lines are missing")?.0.parse::<u64>().ok())
            .sum();
        let kept = written.lines().filter(|line| line.starts_with("line ")).count() as u64;
        assert!(told > 0 && told + kept == 100, "{written}");
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let (allow, may) = channel();
        let written = Arc::default();
        let log = Log::start(Held { may, written: Arc::clone(&written) }).unwrap();
        for _ in 0..2 {
            allow.send(()).unwrap();
        }
        (&log).write_all(b"stopped\n").unwrap();
        log.flush();
        assert_eq!(*written.lock().unwrap(), "stopped\n");
    }
}
