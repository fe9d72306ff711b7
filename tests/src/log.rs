//! A log file as a syslog daemon writes it.
use std::{
    fs::{File, OpenOptions},
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A log file, open for appending; it follows the file, not the name, through a rename.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens or makes the file.
    #[track_caller]
    pub fn open(path: impl Into<PathBuf>) -> Log {
        let path = path.into();
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Log { file: file.unwrap_or_else(|error| panic!("`{}`: {error}", path.display())), path }
    }

    /// Its path when opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends text as it is, in one write.
    #[track_caller]
    pub fn append(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).expect("the log can be written");
    }

    /// Appends what sshd says about a wrong password, with the time of now.
    #[track_caller]
    pub fn wrong_password(&mut self, from: IpAddr) {
        self.append(&Log::line_of(from));
    }

    /// What sshd says about a wrong password, as rsyslog writes it with the time of now.
    pub fn line_of(from: IpAddr) -> String {
        static SESSION: AtomicU32 = AtomicU32::new(1000);
        let session = SESSION.fetch_add(1, Ordering::Relaxed);
        let now = crate::syslog_now();
        format!(
            "{now} host sshd[{session}]: Failed password for root from {from} port 50022 ssh2\n"
        )
    }

    /// Makes the file empty, as `copytruncate` does.
    #[track_caller]
    pub fn truncate(&mut self) {
        self.file.set_len(0).expect("the log can be truncated");
    }
}
