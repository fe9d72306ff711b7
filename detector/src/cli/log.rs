//! Log lines on their way out, which nobody may keep waiting for: not a terminal held by Ctrl-S, not a
//! journald that is behind, not a pager at the other end of a pipe.
//!
//! A thread of its own writes, many lines in one call. Its queue is bounded; lines that find it full are
//! lost, and their number is told where they are missing.
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::clock;

/// Lines that may wait: a second of a heavy attack.
const WAITING: usize = 16_384;
/// Bytes written in one call, about.
const BATCH: usize = 64 << 10;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
}

/// Where log lines go. Clones share one queue.
#[derive(Clone)]
pub(super) struct Log {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Log> {
        Log::with_room(WAITING, out)
    }

    fn with_room(lines: usize, out: impl Write + Send + 'static) -> io::Result<Log> {
        let (queue, waiting) = sync_channel(lines);
        let lost = Arc::new(AtomicU64::new(0));
        let missing = Arc::clone(&lost);
        let writer = thread::Builder::new().name("log".to_owned());
        writer.spawn(move || write_all(&waiting, &missing, out))?;
        Ok(Log { queue, lost })
    }

    /// Waits until what was said so far is written, but not for ever.
    pub(super) fn flush(&self) {
        let end = clock::monotonic() + LAST_LINES;
        let (answer, answered) = sync_channel(1);
        let mut request = Message::Flush(answer);
        loop {
            match self.queue.try_send(request) {
                Ok(()) => break,
                Err(TrySendError::Full(refused)) if clock::monotonic() < end => request = refused,
                // Whoever does not read by then does not want to know.
                Err(_) => return,
            }
            thread::sleep(Duration::from_millis(5));
        }
        // The same.
        let _ = answered.recv_timeout(end.saturating_duration_since(clock::monotonic()));
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
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
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

fn write_all(waiting: &Receiver<Message>, lost: &AtomicU64, mut out: impl Write) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = waiting.recv() {
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(answer) => flushed.push(answer),
            }
            next = if batch.len() < BATCH { waiting.try_recv().ok() } else { None };
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let told = "log lines are missing here: whoever reads the log is too slow";
            batch.extend_from_slice(format!("{missing} {told}\n").as_bytes());
        }
        // A log that cannot be written is no reason to stop protecting, and there is nobody to tell.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        for answer in flushed {
            // Who asked may have stopped waiting.
            let _ = answer.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// Writes only when it may.
    struct Held {
        may: mpsc::Receiver<()>,
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
        let (allow, may) = mpsc::channel();
        let written = Arc::default();
        let log = Log::with_room(8, Held { may, written: Arc::clone(&written) }).unwrap();
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
        let (allow, may) = mpsc::channel();
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
