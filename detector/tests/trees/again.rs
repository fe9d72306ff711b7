//! Commands written back as a configuration tree: what was read once must be read again.
use std::collections::BTreeMap;

use fail2xdp::config::{Command, Value};

use crate::texts::Texts;

/// One jail's commands, sorted out. Of single values the last counts, lists add up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Jail {
    backend: String,
    single: BTreeMap<String, Value>,
    lists: BTreeMap<String, Vec<Value>>,
    /// Name, then options in their order; Python actions hold their three words.
    actions: Vec<(String, Vec<Value>)>,
}

/// What commands mean: server options, and jails by name in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    server: BTreeMap<String, Value>,
    jails: Vec<(String, Jail)>,
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Options of which there may be several.
const LISTS: [&str; 5] =
    ["addfailregex", "addignoreregex", "addjournalmatch", "addignoreip", "addlogpath"];

pub fn meaning(commands: &[Command]) -> Meaning {
    let mut meaning = Meaning::default();
    for command in commands {
        let words: Vec<String> = command.iter().map(text).collect();
        match (words[0].as_str(), command.len()) {
            ("set", 3) if !meaning.jails.iter().any(|(name, _)| *name == words[1]) => {
                meaning.server.insert(words[1].clone(), command[2].clone());
            }
            ("add", _) => {
                let jail = Jail { backend: words[2].clone(), ..Jail::default() };
                meaning.jails.push((words[1].clone(), jail));
            }
            ("set" | "multi-set", _) => {
                let Some((_, jail)) = meaning.jails.iter_mut().find(|(name, _)| *name == words[1])
                else {
                    panic!("no jail for {command:?}");
                };
                let (option, rest) = (words[2].as_str(), &command[3..]);
                if option == "addaction" {
                    jail.actions.push((words[3].clone(), rest[1..].to_vec()));
                } else if option == "action" {
                    let action = jail.actions.last_mut().expect("an action");
                    let Value::List(options) = &rest[1] else { panic!("{command:?}") };
                    action.1 = options.clone();
                    // Parameters come before `[Init]`; what was one may be written as the other.
                    action.1.sort_by_key(ToString::to_string);
                } else if LISTS.contains(&option) {
                    let list = jail.lists.entry(option.to_owned()).or_default();
                    match (option, rest) {
                        ("addignoreip", words) => list.extend(words.iter().cloned()),
                        ("addjournalmatch" | "addlogpath", words) => {
                            list.push(Value::List(words.to_vec()));
                        }
                        (_, [Value::List(regexes)]) => list.extend(regexes.iter().cloned()),
                        (_, regexes) => list.extend(regexes.iter().cloned()),
                    }
                } else {
                    jail.single.insert(option.to_owned(), rest[0].clone());
                }
            }
            _ => {}
        }
    }
    meaning
}

/// Whether a file can hold the value: not with blanks at its ends, and not some rare line ends.
fn can_be_written(value: &Value) -> bool {
    match value {
        Value::Text(text) => {
            let odd = |c: char| {
                c == '\r'
                    || c == '\u{feff}'
                    || (c.is_control() && c != '\n' && c != '\t')
                    || (c.is_whitespace() && !c.is_ascii())
            };
            text.trim() == text
                && !text.contains(odd)
                && text.lines().all(|line| line.trim() == line)
        }
        Value::List(values) => values.iter().all(can_be_written),
        _ => true,
    }
}

pub fn all_can_be_written(commands: &[Command]) -> bool {
    commands.iter().flatten().all(can_be_written)
}

/// What a value must look like in a file: percent signs doubled, and signs that begin a comment put in by name.
fn written(value: &Value) -> String {
    let text = text(value).replace('%', "%%");
    let mut out = String::new();
    for (nth, line) in text.split('\n').enumerate() {
        if nth > 0 {
            out.push_str("\n ");
        }
        let mut before = ' ';
        for (at, c) in line.chars().enumerate() {
            match c {
                '#' if at == 0 => out.push_str("%(hash)s"),
                ';' if before.is_whitespace() => out.push_str("%(semicolon)s"),
                c => out.push(c),
            }
            before = c;
        }
    }
    out
}

/// The variables that `written` uses.
const SIGNS: &str = "[DEFAULT]\nnothing =\nhash = %(nothing)s#\nsemicolon = %(nothing)s;\n";

/// A tree that means the same.
pub fn tree(meaning: &Meaning) -> Texts {
    let mut texts = Texts::default();
    let mut server =
        String::from("[Definition]\nnothing =\nhash = %(nothing)s#\nsemicolon = %(nothing)s;\n");
    for (option, value) in &meaning.server {
        match (option.as_str(), value) {
            ("thread", Value::Map(sizes)) => {
                server += &format!("[Thread]\nstacksize = {}\n[Definition]\n", sizes[0].1);
            }
            _ => server += &format!("{option} = {}\n", written(value)),
        }
    }
    texts.put(
        "fail2ban.conf",
        server.replace("[Definition]\n", "").replacen("", "[Definition]\n", 1),
    );
    let mut jails = SIGNS.to_owned();
    for (nth, (name, jail)) in meaning.jails.iter().enumerate() {
        jails += &format!(
            "[{name}]\nenabled = true\nbackend = {}\nfilter = f{nth}\n",
            written(&Value::Text(jail.backend.clone()))
        );
        let mut filter = format!("{SIGNS}[Definition]\n");
        let in_filter = ["usedns", "prefregex", "maxlines", "datepattern"];
        for (option, value) in &jail.single {
            let line = format!("{option} = {}\n", written(value));
            if in_filter.contains(&option.as_str()) { filter += &line } else { jails += &line }
        }
        for (option, values) in &jail.lists {
            let name = option.trim_start_matches("add");
            let lines: Vec<String> = values
                .iter()
                .map(|value| match value {
                    Value::List(words) if name == "journalmatch" => {
                        let quoted = words.iter().map(|word| format!("'{}'", text(word)));
                        written(&Value::Text(quoted.collect::<Vec<_>>().join(" ")))
                    }
                    Value::List(words) => {
                        written(&Value::Text(words.iter().map(text).collect::<Vec<_>>().join(" ")))
                    }
                    value => written(value),
                })
                .collect();
            let line = format!("{name} =\n {}\n", lines.join("\n "));
            if ["ignoreip", "logpath"].contains(&name) { jails += &line } else { filter += &line }
        }
        let mut calls = Vec::new();
        for (at, (act_name, options)) in jail.actions.iter().enumerate() {
            let file = format!("a{nth}-{at}");
            calls.push(format!("{file}[{}actname=\"{}\"]", own_name(options), act_name));
            texts.put(&format!("action.d/{file}.conf"), action(options));
        }
        jails += &format!("action = {}\n", calls.join("\n ").replace('%', "%%"));
        texts.put(&format!("filter.d/f{nth}.conf"), filter);
    }
    texts.put("jail.conf", jails);
    texts
}

fn own_name(options: &[Value]) -> String {
    let name = options.iter().find_map(|option| match option {
        Value::List(pair) if text(&pair[0]) == "name" => Some(text(&pair[1])),
        _ => None,
    });
    name.map(|name| format!("name=\"{name}\", ")).unwrap_or_default()
}

fn action(options: &[Value]) -> String {
    const COMMANDS: [&str; 13] = [
        "actionstart",
        "actionstart_on_demand",
        "actionstop",
        "actionflush",
        "actionreload",
        "actioncheck",
        "actionrepair",
        "actionrepair_on_unban",
        "actionban",
        "actionprolong",
        "actionreban",
        "actionunban",
        "norestored",
    ];
    let (mut definition, mut init) = (String::new(), String::new());
    let mut variants: BTreeMap<&str, String> = BTreeMap::new();
    let mut defined = options.is_empty();
    let pairs = options.iter().map(|option| match option {
        Value::List(pair) => (text(&pair[0]), &pair[1]),
        other => panic!("{other:?}"),
    });
    let pairs: Vec<(String, &Value)> = pairs.collect();
    for (name, value) in &pairs {
        let value = *value;
        let is_command = COMMANDS.contains(&name.as_str());
        match name.split_once('?') {
            _ if name == "name" || name == "actname" => {}
            Some((name, condition)) => {
                *variants.entry(condition).or_default() +=
                    &format!("{name} = {}\n", written(value));
            }
            None if is_command => {
                defined |= *value != Value::Nothing;
                if *value != Value::Nothing {
                    definition += &format!("{name} = {}\n", written(value));
                }
            }
            None => init += &format!("{name} = {}\n", written(value)),
        }
    }
    let nothing_defined = options
        .iter()
        .any(|option| matches!(option, Value::List(pair) if pair[1] == Value::Nothing));
    let head = if nothing_defined && !defined {
        String::new()
    } else {
        format!("[Definition]\n{definition}")
    };
    let variants: String = variants
        .iter()
        .map(|(condition, options)| format!("[Init?{condition}]\n{options}"))
        .collect();
    format!("{SIGNS}{head}[Init]\n{init}{variants}")
}
