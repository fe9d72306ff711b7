//! One line of JSON an event, for log shippers.
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::{Task, Undelivered, event};

/// Appends the events with one write. The file is opened each time, so one that was rotated is left alone; of what a full
/// disk cut nothing stays. Who else writes to it through us waits.
pub(super) fn deliver(path: &Path, tasks: &[&Task], host: &str) -> Result<(), Undelivered> {
    let mut lines = Vec::new();
    for task in tasks {
        serde_json::to_writer(&mut lines, &event::event(task, host))
            .map_err(|error| Undelivered::hopeless(error.to_string()))?;
        lines.push(b'\n');
    }
    append(path, &lines)
        .map_err(|error| Undelivered::passing(format!("cannot write {}: {error}", path.display())))
}

fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        // A pipe that nobody reads is an error, and no reason to wait.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    let before = file.metadata()?.len();
    let written = file.write(lines);
    match written {
        Ok(count) if count == lines.len() => Ok(()),
        Ok(_) => {
            cut(&file, before)?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        Err(error) => Err(error),
    }
}

/// Takes back half a line. A pipe or device keeps it: it has no length.
fn cut(file: &File, length: u64) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(length) } else { Ok(()) }
}
