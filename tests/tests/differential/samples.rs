//! What fail2ban's own sample logs say, with other addresses, ready to be said anew.
use std::{fs, net::IpAddr};

use fail2xdp_tests::{fail2ban_config, fail2ban_samples};
use serde_json::Value;

/// Samples with fewer dated lines say too little.
const FEWEST: usize = 5;

/// One filter's sample lines, those of one process together: `DATE` for the date, `ADDR` for who it is about, `PID`.
pub struct Samples {
    pub filter: String,
    pub sessions: Vec<Vec<String>>,
}

impl Samples {
    /// The sessions' texts.
    pub fn texts(&self) -> Vec<Vec<&str>> {
        self.sessions.iter().map(|lines| lines.iter().map(String::as_str).collect()).collect()
    }
}

/// The samples of every filter of Debian's whose logs begin with a date as syslog or ISO 8601 writes it.
pub fn samples() -> Vec<Samples> {
    let mut all = Vec::new();
    for entry in fs::read_dir(fail2ban_samples()).expect("a directory").flatten() {
        let filter = entry.file_name().into_string().expect("sample files have plain names");
        if !fail2ban_config().join(format!("filter.d/{filter}.conf")).is_file() {
            continue;
        }
        let bytes = fs::read(entry.path()).expect("it can be read");
        let sessions = without_who_and_when(&String::from_utf8_lossy(&bytes));
        if sessions.iter().map(Vec::len).sum::<usize>() >= FEWEST {
            all.push(Samples { filter, sessions });
        }
    }
    all.sort_by(|one, other| one.filter.cmp(&other.filter));
    all
}

fn without_who_and_when(text: &str) -> Vec<Vec<String>> {
    let told = text.lines().filter_map(|line| {
        let directive = line.strip_prefix('#')?.trim_start_matches(['#', ' ']);
        let told: Value = serde_json::from_str(directive.strip_prefix("failJSON:")?).ok()?;
        told["host"].as_str().filter(|host| host.parse::<IpAddr>().is_ok()).map(str::to_owned)
    });
    let mut hosts: Vec<String> = told.collect();
    // None that another one begins with comes before it.
    hosts.sort_by_key(|host| std::cmp::Reverse(host.len()));
    hosts.dedup();
    let mut sessions: Vec<Vec<String>> = Vec::new();
    let mut last = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(length) = date_length(line) else { continue };
        let mut rest = line[length..].to_owned();
        for host in &hosts {
            rest = rest.replace(&format!("::ffff:{host}"), "ADDR").replace(host, "ADDR");
        }
        let process = process(&rest).map(str::to_owned);
        if let Some(process) = &process {
            rest = rest.replacen(process, "[PID]", 1);
        }
        let line = format!("DATE{rest}");
        match sessions.last_mut() {
            Some(session) if process.is_some() && process == last => session.push(line),
            _ => sessions.push(vec![line]),
        }
        last = process;
    }
    sessions
}

/// The first `[4711]` in a line.
fn process(line: &str) -> Option<&str> {
    let starts = line.match_indices('[').map(|(at, _)| &line[at..]);
    let mut ends = starts.filter_map(|rest| rest.find(']').map(|end| &rest[..=end]));
    ends.find(|text| text.len() > 2 && text[1..text.len() - 1].bytes().all(|b| b.is_ascii_digit()))
}

/// Bytes of the date that `line` begins with.
fn date_length(line: &str) -> Option<usize> {
    // A digit, a letter, or itself.
    let has_shape = |shape: &str| {
        line.len() > shape.len()
            && shape.bytes().zip(line.bytes()).all(|(shape, byte)| match shape {
                b'0' => byte.is_ascii_digit(),
                b'_' => byte.is_ascii_digit() || byte == b' ',
                b'a' => byte.is_ascii_alphabetic(),
                other => other == byte,
            })
    };
    let shapes = ["aaa _0 00:00:00", "0000-00-00 00:00:00", "0000-00-00T00:00:00"];
    let length = shapes.into_iter().find(|shape| has_shape(shape))?.len();
    // Fractions and zones belong to the date, too.
    let rest = &line[length..];
    let more = rest.find(|c: char| !(c.is_ascii_digit() || ".,+:Z-".contains(c)));
    let more = more.filter(|more| rest[..*more].contains(|c: char| c.is_ascii_digit()));
    Some(length + more.unwrap_or(0))
}
