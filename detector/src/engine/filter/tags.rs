//! fail2ban's tags in patterns: `<HOST>`, `<F-USER>…</F-USER>` and their kin become groups.
use std::fmt::Write;

/// Shape only: `999.1.1.1` passes here and fails when it is read. Digits of other scripts are in no
/// address, and a class that knows them costs kilobytes each time.
const IP4: &str = r"(?:::f{4,6}:)?(?P<ip4>[0-9]{1,3}(?:\.[0-9]{1,3}){3})";
/// With the zone that a link-local address carries in logs (`fe80::1%eth0`), outside the group. A single colon begins none
/// (`port :4022`), as in fail2ban 1.0; later ones take it for one.
const IP6: &str =
    r"(?P<ip6>(?:[0-9a-fA-F]{1,4}:{1,2}|::){1,7}(?:[0-9a-fA-F]{1,4}|:))(?:%[0-9A-Za-z_.-]+)?";
const DNS: &str = r"(?P<dns>[\w\-.^_]*\w)";
const CIDR: &str = r"(?P<cidr>[0-9]+)";
const ID: &str = r"(?P<fid>\S+)";
const PORT: &str = r"(?P<fport>\w+)";

/// What the names of skipped lines begin with; a number follows.
pub(super) const SKIPLINES: &str = "skiplines";

/// `pattern` with its tags as groups; without `names`, `<HOST>` matches addresses only. Tags that are
/// none of ours stay as they are.
pub(in crate::engine) fn expand(pattern: &str, names: bool) -> String {
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut open: Vec<&str> = Vec::new();
    let mut skipped = 0;
    let own_host = old_host(pattern);
    let mut rest = own_host.as_deref().unwrap_or(pattern);
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find('>') else { break };
        let tag = &rest[1..end];
        if replace(tag, names, &mut open, &mut skipped, &mut out) {
            rest = &rest[end + 1..];
        } else {
            // The next tag may begin within what was none.
            out.push('<');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    scope_flags(&out)
}

/// Before 0.10 a hand-written group `host` held the address, and guides still have it: it is a name or an address,
/// where nothing else in the pattern says whom it is about.
fn old_host(pattern: &str) -> Option<String> {
    const HOST: &str = "(?P<host>";
    let others =
        ["<HOST>", "<ADDR>", "<IP", "<DNS>", "<SUBNET>", "<F-", "(?P<ip", "(?P<dns>", "(?P<fid>"];
    let alone = pattern.contains(HOST) && !others.iter().any(|other| pattern.contains(other));
    alone.then(|| pattern.replace(HOST, "(?P<dns>"))
}

fn replace<'p>(
    tag: &'p str,
    names: bool,
    open: &mut Vec<&'p str>,
    skipped: &mut usize,
    out: &mut String,
) -> bool {
    let written = match tag {
        "IP4" | "F-IP4/" => out.write_str(IP4),
        "IP6" | "F-IP6/" => out.write_str(IP6),
        "DNS" | "F-DNS/" => out.write_str(DNS),
        "CIDR" | "F-CIDR/" => out.write_str(CIDR),
        "ADDR" | "F-ADDR/" => write!(out, r"\[?(?:{IP4}|{IP6})\]?"),
        "SUBNET" | "F-SUBNET/" => write!(out, r"\[?(?:{IP4}|{IP6})(?:/{CIDR})?\]?"),
        "HOST" if names => write!(out, r"(?:\[?(?:{IP4}|{IP6})\]?|{DNS})"),
        "HOST" => write!(out, r"\[?(?:{IP4}|{IP6})\]?"),
        "F-ID/" => out.write_str(ID),
        "F-PORT/" => out.write_str(PORT),
        "SKIPLINES" => {
            *skipped += 1;
            write!(out, r"\n(?P<{SKIPLINES}{}>(?:(?:.*\n)*?))", *skipped - 1)
        }
        _ => {
            let is_name = |name: &str| {
                !name.is_empty()
                    && name.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-'))
            };
            if let Some(name) = tag.strip_prefix("F-")
                && is_name(name)
            {
                open.push(name);
                let group = match name {
                    "ID" => "fid".to_owned(),
                    "PORT" => "fport".to_owned(),
                    name => name.to_ascii_lowercase(),
                };
                write!(out, "(?P<{group}>")
            } else if let Some(name) = tag.strip_prefix("/F-")
                && let Some(at) = open.iter().rposition(|known| *known == name)
            {
                open.remove(at);
                out.write_str(")")
            } else {
                return false;
            }
        }
    };
    written.expect("a String takes all text");
    true
}

/// Flags that stand first in a group apply to that group: `((?i)a)` and `(?:(?i)a)` become `(?i:a)`.
fn scope_flags(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('(') {
        let escaped = rest[..at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let inner = rest.strip_prefix("((?").or_else(|| rest.strip_prefix("(?:(?"));
        let flags = inner.map_or("", |inner| {
            let length = inner.bytes().take_while(u8::is_ascii_lowercase).count();
            if inner.as_bytes().get(length) == Some(&b')') { &inner[..length] } else { "" }
        });
        match inner {
            Some(inner) if !escaped && !flags.is_empty() => {
                out.push_str("(?");
                out.push_str(flags);
                out.push(':');
                rest = &inner[flags.len() + 1..];
            }
            _ => {
                out.push('(');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expect: &str) {
        assert_eq!(expand(pattern, true), expect);
    }

    #[test]
    fn tags_become_groups() {
        check("<F-USER>.*</F-USER>", "(?P<user>.*)");
        check("<F-ID>.*</F-ID> <F-PORT>x</F-PORT>", "(?P<fid>.*) (?P<fport>x)");
        check("<F-ALT_USER1>a</F-ALT_USER1>", "(?P<alt_user1>a)");
        check("<F-ID/> <F-PORT/>", r"(?P<fid>\S+) (?P<fport>\w+)");
        check("<CIDR>", "(?P<cidr>[0-9]+)");
        check(
            "a<SKIPLINES>b<SKIPLINES>",
            r"a\n(?P<skiplines0>(?:(?:.*\n)*?))b\n(?P<skiplines1>(?:(?:.*\n)*?))",
        );
    }

    #[test]
    fn a_hand_written_host_counts_where_nothing_else_does() {
        check(r"^(?:::f{4,6}:)?(?P<host>\S+)", r"^(?:::f{4,6}:)?(?P<dns>\S+)");
        check("(?P<host>x)(?P<fid>y)", "(?P<host>x)(?P<fid>y)");
    }

    #[test]
    fn what_is_no_tag_stays() {
        check("<NOSRV> <f-user> <F-user> a<b", "<NOSRV> <f-user> <F-user> a<b");
        check("</F-USER> <F-> <", "</F-USER> <F-> <");
        check("<<F-USER>a</F-USER>>", "<(?P<user>a)>");
        check("(?P<x>a)(?<=b)", "(?P<x>a)(?<=b)");
    }

    #[test]
    fn a_name_is_a_host_unless_names_are_off() {
        assert!(expand("<HOST>", true).contains("(?P<dns>"));
        assert!(!expand("<HOST>", false).contains("(?P<dns>"));
        assert!(expand("<DNS>", false).contains("(?P<dns>"));
    }

    #[test]
    fn flags_first_in_a_group_are_the_groups() {
        check("a((?i)b)c", "a(?i:b)c");
        check("a(?:(?is)b)c", "a(?is:b)c");
        check(r"\((?i)b", r"\((?i)b");
        check("((?:a))", "((?:a))");
        check("((?P<x>a))", "((?P<x>a))");
    }
}
