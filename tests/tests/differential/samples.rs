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
    let mut sessions: Vec<Vec<String>> = Vec::new();
    let (mut host, mut last) = (None, None);
    for line in text.lines() {
        if let Some(directive) = line.strip_prefix('#') {
            let told = directive.trim_start_matches(['#', ' ']).strip_prefix("failJSON:");
            let told: Option<Value> = told.and_then(|json| serde_json::from_str(json).ok());
            let named = told.as_ref().and_then(|told| told["host"].as_str());
            host = named.filter(|host| host.parse::<IpAddr>().is_ok()).map(str::to_owned);
            continue;
        }
        let host = host.take();
        let Some(rest) = date_length(line).map(|length| &line[length..]) else { continue };
        let mut rest = host.map_or(rest.to_owned(), |host| rest.replace(&host, "ADDR"));
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
