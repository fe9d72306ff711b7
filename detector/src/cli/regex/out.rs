//! `-o`: failures alone, in the form asked for.
use std::{
    fmt::Write as _,
    io::{self, Write},
    net::IpAddr,
};

use super::{
    python,
    tally::{Failure, Tally},
};
use crate::engine::{FailureId, Timestamp};

/// What is printed of a failure.
pub(super) enum Format {
    Row,
    Id,
    Ip,
    Lines,
    Matches,
    /// One field.
    Field(String),
    /// A text with tags.
    Text(String),
}

impl Format {
    pub fn new(text: &str) -> Format {
        match text {
            "row" => Format::Row,
            "id" | "fid" => Format::Id,
            "ip" => Format::Ip,
            "msg" => Format::Lines,
            "matches" => Format::Matches,
            _ if text.contains('<') => Format::Text(text.to_owned()),
            _ => Format::Field(text.to_ascii_lowercase()),
        }
    }

    pub fn print(
        &self,
        failure: &Failure,
        tally: &mut Tally,
        now: Timestamp,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        match self {
            Format::Row => {
                let at = failure.at.map_or("None".to_owned(), python::seconds);
                let who = python::string(&failure.who.to_string());
                writeln!(to, "[{who},\t{at},\t{}],", fields(failure))
            }
            Format::Id => writeln!(to, "{}", failure.who),
            Format::Ip => writeln!(to, "{}", address(failure)),
            Format::Lines => failure.lines.iter().try_for_each(|line| writeln!(to, "{line}")),
            Format::Matches => writeln!(to, "{}", matches(failure, tally, now)),
            Format::Field(name) => {
                writeln!(to, "{}", value(failure, name).unwrap_or("None".to_owned()))
            }
            Format::Text(text) => writeln!(to, "{}", expanded(text, failure, now)),
        }
    }
}

/// The address, apart from the key that is banned where both were named.
fn address(failure: &Failure) -> String {
    let named = |name: &str| {
        let field =
            failure.fields.iter().find(|(known, text)| **known == *name && !text.is_empty());
        field.map(|(_, text)| text)
    };
    let has_id = named("fid").is_some();
    let other = named("ip4").or(named("ip6")).filter(|_| has_id);
    match other.map(|text| text.parse::<IpAddr>()) {
        Some(Ok(address)) => address.to_canonical().to_string(),
        _ => failure.who.to_string(),
    }
}

/// A field; users, of which a session may have several, as a set.
fn value(failure: &Failure, name: &str) -> Option<String> {
    let mut values = failure.fields.iter().filter(|(known, _)| **known == *name);
    if name == "users" {
        return Some(set(values.map(|(_, text)| &**text))).filter(|set| set != "{}");
    }
    values.next().map(|(_, text)| text.to_string())
}

fn set<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    format!("{{{}}}", texts.map(python::string).collect::<Vec<_>>().join(", "))
}

/// All fields as a dictionary: those that the patterns name, then what the session added.
fn fields(failure: &Failure) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut done: Vec<&str> = Vec::new();
    let others = failure.fields.iter().map(|(name, _)| name);
    for name in failure.names.iter().chain(others) {
        if done.contains(&&**name) || matches!(&**name, "mlfforget" | "mlfgained") {
            continue;
        }
        done.push(name);
        let text = match (&**name, value(failure, name)) {
            ("users", Some(users)) => users,
            (_, Some(text)) => python::string(&text),
            (_, None) => "None".to_owned(),
        };
        shown.push(format!("{}: {text}", python::string(name)));
    }
    format!("{{{}}}", shown.join(", "))
}

/// The lines, each taken apart around its date.
fn matches(failure: &Failure, tally: &mut Tally, now: Timestamp) -> String {
    let parts = failure.lines.iter().map(|line| {
        let date = tally.matcher.date_of(line, now);
        let parts = [&line[..date.start], &line[date.clone()], &line[date.end..]];
        format!("({})", parts.map(python::string).join(", "))
    });
    format!("[{}]", parts.collect::<Vec<_>>().join(", "))
}

/// The text with its tags replaced; those that nobody knows stay.
fn expanded(text: &str, failure: &Failure, now: Timestamp) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let tag = rest[1..].find(['<', '>', ' ']).map(|end| &rest[1..=end]);
        let Some(tag) = tag.filter(|tag| rest.as_bytes().get(tag.len() + 1) == Some(&b'>')) else {
            shown.push('<');
            rest = &rest[1..];
            continue;
        };
        let known = known(tag, failure, now);
        rest = &rest[tag.len() + 2..];
        match known {
            Some(value) => shown.push_str(&value),
            // Writing to a string does not fail.
            None => drop(write!(shown, "<{tag}>")),
        }
    }
    shown.push_str(rest);
    shown
}

fn known(tag: &str, failure: &Failure, now: Timestamp) -> Option<String> {
    let of_address = |text: fn(IpAddr) -> String| match failure.who {
        FailureId::Address(address) => text(address),
        FailureId::Network(net) => text(net.addr()),
        FailureId::Name(_) | FailureId::Text(_) => String::new(),
    };
    if let Some(name) = tag.strip_prefix("F-")
        && name.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-'))
    {
        let name = match name {
            "ID" => "fid".to_owned(),
            "PORT" => "fport".to_owned(),
            name => name.to_ascii_lowercase(),
        };
        return Some(value(failure, &name).unwrap_or_default());
    }
    Some(match tag {
        "ip" => address(failure),
        "fid" => failure.who.to_string(),
        "family" => match of_address(|address| family(address).to_owned()) {
            none if none.is_empty() => "None".to_owned(),
            family => family,
        },
        "ip-rev" => of_address(reversed),
        "time" => python::seconds(failure.at.unwrap_or(now)),
        "failures" => "1".to_owned(),
        "matches" | "msg" => failure.lines.join("\n"),
        "br" => "\n".to_owned(),
        "sp" => " ".to_owned(),
        _ => return None,
    })
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "inet4" } else { "inet6" }
}

/// The address as names in `in-addr.arpa` and `ip6.arpa` begin.
fn reversed(address: IpAddr) -> String {
    let mut shown = String::new();
    match address {
        IpAddr::V4(address) => {
            for byte in address.octets().iter().rev() {
                let _ = write!(shown, "{byte}.");
            }
        }
        IpAddr::V6(address) => {
            for byte in address.octets().iter().rev() {
                let _ = write!(shown, "{:x}.{:x}.", byte & 15, byte >> 4);
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        let pairs = [("ip4", "192.0.2.1"), ("user", "it's"), ("users", "a"), ("users", "b")];
        Failure {
            who: FailureId::Address(IpAddr::from([192, 0, 2, 1])),
            at: Some(Timestamp::from_seconds(5)),
            fields: pairs.iter().map(|&(name, text)| (name.into(), text.into())).collect(),
            names: vec!["ip4".into(), "ip6".into(), "user".into()],
            lines: vec!["one".into(), "two".into()],
        }
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(expanded(text, &failure(), Timestamp::from_seconds(9)), expect);
    }

    #[test]
    fn tags_are_replaced_and_others_stay() {
        check("<ip> <time> <F-USER>", "192.0.2.1 5.0 it's");
        check("<nope> <F-NOPE>| <F-user> < <ip", "<nope> | <F-user> < <ip");
        check("<<ip>> <family> <ip-rev>", "<192.0.2.1> inet4 1.2.0.192.");
        check("<matches><br><F-USERS><sp><failures>", "one\ntwo\n{'a', 'b'} 1");
    }

    #[test]
    fn a_row_is_what_python_reads() {
        let row = "{'ip4': '192.0.2.1', 'ip6': None, 'user': \"it's\", 'users': {'a', 'b'}}";
        assert_eq!(fields(&failure()), row);
    }
}
