//! Answers as fail2ban's client prints them.
use std::fmt::Write;

use crate::config::Value;

/// The text of an answer to these words. What has no text of its own is printed as Python prints the value.
pub fn text(words: &[String], answer: &Value) -> String {
    let word = |nth: usize| words.get(nth).map_or("", String::as_str);
    match word(0) {
        "ping" => return format!("Server replied: {}", plain(answer)),
        "version" => return plain(answer),
        "start" => return "Jail started".to_owned(),
        "stop" if *answer == Value::Nothing => {
            return if words.len() == 1 { "Shutdown successful" } else { "Jail stopped" }
                .to_owned();
        }
        "add" => return format!("Added jail {}", plain(answer)),
        "flushlogs" => return format!("logs: {}", plain(answer)),
        "echo" => return joined(items(answer), " "),
        "status" if matches!((word(1), word(2)), ("--all", how) if how != "stats") => {
            return all_status(answer);
        }
        "stats" | "statistic" | "statistics" => return stats(answer),
        "status" if word(1) == "--all" => return stats(answer),
        "status" => return status(words, answer),
        _ => {}
    }
    match word(1) {
        "syslogsocket" => return format!("Current syslog socket is:\n`- {}", plain(answer)),
        "logtarget" => return format!("Current logging target is:\n`- {}", plain(answer)),
        "loglevel" => return format!("Current logging level is {answer}"),
        "dbfile" | "dbpurgeage" if *answer == Value::Nothing => {
            return "Database currently disabled".to_owned();
        }
        "dbfile" => return format!("Current database file is:\n`- {}", plain(answer)),
        "dbpurgeage" => return format!("Current database purge age is:\n`- {answer}seconds"),
        _ => {}
    }
    match word(2) {
        "logpath" | "addlogpath" | "dellogpath" => {
            let none = "No file is currently monitored";
            list("Current monitored log file(s):", none, items(answer), false)
        }
        "ignoreip" | "addignoreip" | "delignoreip" => {
            let none = "No IP address/network is ignored";
            list("These IP addresses/networks are ignored:", none, items(answer), false)
        }
        "failregex" | "addfailregex" | "delfailregex" | "ignoreregex" | "addignoreregex"
        | "delignoreregex" => {
            let none = "No regular expression is defined";
            list("The following regular expression are defined:", none, items(answer), true)
        }
        "logencoding" => format!("Current log encoding is set to:\n{}", plain(answer)),
        "journalmatch" | "addjournalmatch" | "deljournalmatch" => match items(answer) {
            [] => "No journal match filter set".to_owned(),
            groups => {
                let groups: Vec<String> =
                    groups.iter().map(|group| joined(items(group), " ")).collect();
                format!("Current match filter:\n{}", groups.join(" + "))
            }
        },
        "datepattern" => {
            let shown = match items(answer) {
                [Value::Nothing, name] => plain(name),
                [pattern, name] => format!("{} ({})", plain(pattern), plain(name)),
                _ => "Not set/required".to_owned(),
            };
            format!("Current date pattern set to: {shown}")
        }
        "actions" if items(answer).is_empty() => format!("No actions for jail {}", word(1)),
        "actions" => {
            let names = joined(items(answer), ", ");
            format!("The jail {} has the following actions:\n{names}", word(1))
        }
        what @ ("actionproperties" | "actionmethods") => {
            let (jail, action) = (word(1), word(3));
            let what = what.trim_start_matches("action");
            match items(answer) {
                [] => format!("No {what} for jail {jail} action {action}"),
                names => {
                    let names = joined(names, ", ");
                    format!("The jail {jail} action {action} has the following {what}:\n{names}")
                }
            }
        }
        "banip" if word(0) == "get" => {
            let separator = match words.get(3).map(String::as_str) {
                None => " ",
                Some("--with-time") => "\n",
                Some(separator) => separator,
            };
            joined(items(answer), separator)
        }
        _ => plain(answer),
    }
}

/// Text without its quotes; everything else as Python shows it.
fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => other.to_string(),
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::List(values) | Value::Tuple(values) => values,
        _ => &[],
    }
}

fn joined(values: &[Value], separator: &str) -> String {
    values.iter().map(plain).collect::<Vec<_>>().join(separator)
}

/// The branch before the `nth` of so many entries.
fn branch(nth: usize, of: usize) -> &'static str {
    if nth + 1 == of { "`-" } else { "|-" }
}

fn list(head: &str, none: &str, entries: &[Value], numbered: bool) -> String {
    if entries.is_empty() {
        return none.to_owned();
    }
    let mut text = head.to_owned();
    for (nth, entry) in entries.iter().enumerate() {
        let number = if numbered { format!("[{nth}]: ") } else { String::new() };
        // Writing to a string does not fail.
        let _ = write!(text, "\n{} {number}{}", branch(nth, entries.len()), plain(entry));
    }
    text
}

/// Rows of names and values, or of names and rows.
fn status(words: &[String], answer: &Value) -> String {
    let value = |value: &Value| match value {
        Value::List(values) => joined(values, " "),
        other => plain(other),
    };
    let sections = items(answer);
    let Some(jail) = words.get(1) else {
        let mut text = "Status".to_owned();
        for (nth, row) in sections.iter().enumerate() {
            if let [name, what] = items(row) {
                let branch = branch(nth, sections.len());
                let _ = write!(text, "\n{branch} {}:\t{}", plain(name), value(what));
            }
        }
        return text;
    };
    let mut text = format!("Status for the jail: {jail}");
    rows_of_jail(answer, "", &mut text);
    text
}

/// Sections of rows, each line behind this stem.
fn rows_of_jail(answer: &Value, stem: &str, text: &mut String) {
    let value = |value: &Value| match value {
        Value::List(values) => joined(values, " "),
        other => plain(other),
    };
    let sections = items(answer);
    for (nth, section) in sections.iter().enumerate() {
        let [name, rows] = items(section) else { continue };
        // Writing to a string does not fail, here and below.
        let _ = write!(text, "\n{stem}{} {}", branch(nth, sections.len()), plain(name));
        let inner = if nth + 1 == sections.len() { "   " } else { "|  " };
        let rows = items(rows);
        for (nth, row) in rows.iter().enumerate() {
            if let [name, what] = items(row) {
                let branch = branch(nth, rows.len());
                let _ = write!(text, "\n{stem}{inner}{branch} {}:\t{}", plain(name), value(what));
            }
        }
    }
}

/// `status --all`, as fail2ban prints it since 1.1.
fn all_status(answer: &Value) -> String {
    let mut text = "Status".to_owned();
    for row in items(answer) {
        let [name, what] = items(row) else { continue };
        let Value::Map(jails) = what else {
            let _ = write!(text, "\n|- {}:\t{}", plain(name), plain(what));
            continue;
        };
        let _ = write!(text, "\n`- {}:", plain(name));
        for (nth, (jail, rows)) in jails.iter().enumerate() {
            let last = nth + 1 == jails.len();
            let _ = write!(text, "\n   {} Jail: {jail}", branch(nth, jails.len()));
            rows_of_jail(rows, if last { "      " } else { "   |  " }, &mut text);
        }
    }
    text
}

/// `stats`, as fail2ban prints it since 1.1.
fn stats(answer: &Value) -> String {
    let Value::Map(jails) = answer else { return plain(answer) };
    if jails.is_empty() {
        return "No jails found.".to_owned();
    }
    let mut widths = [8, 8, 3, 3, 3, 3];
    let rows: Vec<[String; 6]> = jails
        .iter()
        .map(|(jail, numbers)| {
            let mut row: [String; 6] = Default::default();
            row[0].clone_from(jail);
            let flat = items(numbers).iter().flat_map(|value| match items(value) {
                [] => std::slice::from_ref(value),
                values => values,
            });
            for (cell, value) in row[1..].iter_mut().zip(flat) {
                *cell = plain(value);
            }
            for (width, cell) in widths.iter_mut().zip(&row) {
                *width = cell.chars().count().max(*width);
            }
            row
        })
        .collect();
    let [jail, backend, a, b, c, d] = widths;
    let (filter, actions) = (a + b + 3, c + d + 3);
    let bar = |width: usize, of: &str| of.repeat(width + 2);
    let rule = |cross: &str| {
        let bars = [jail, backend, filter, actions].map(|width| bar(width, "═"));
        bars.join(cross)
    };
    let mut text = format!(
        " {:jail$} ║ {:backend$} ║ {:filter$} ║ {:actions$}\n",
        "", "", "Filter", "Actions"
    );
    let (left, right) = (bar(filter, "─"), bar(actions, "─"));
    let _ = writeln!(text, " {:jail$} ║ {:backend$} ╟{left}╫{right}", "Jail", "Backend");
    let (cur, tot) = ("cur", "tot");
    let _ = writeln!(
        text,
        " {:jail$} ║ {:backend$} ║ {cur:>a$} │ {tot:>b$} ║ {cur:>c$} │ {tot:>d$}\n{}",
        "",
        "",
        rule("╬")
    );
    for [name, reads, failed, all_failed, banned, all_banned] in &rows {
        let _ = writeln!(
            text,
            " {name:jail$} ║ {reads:backend$} ║ {failed:>a$} │ {all_failed:>b$} ║ {banned:>c$} │ {all_banned:>d$}"
        );
    }
    text + &rule("╩")
}
