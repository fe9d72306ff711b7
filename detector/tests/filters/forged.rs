//! Promise: whatever a client writes into a line of a service's log, no shipped jail counts anybody but the client.
//!
//! The lines are those of `tests/testdata` with holes where a client's text stands. What is put there is made of
//! pieces of these very lines, about the victim.
use std::cell::RefCell;

use fail2xdp::engine::Matcher;
use jiff::tz::TimeZone;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::samples::{self, NOON};

const CLIENT: &str = "192.0.2.1";
const VICTIM: &str = "6.6.6.6";
/// How many lines are tried.
const TRIES: u32 = 10_000;

/// What a service does to a client's text before it writes it.
///
/// All keep lines apart but nginx in its error.log, which no shipped jail reads, and MySQL and MariaDB: no
/// filter can tell a whole line that a client wrote. Their cases show it.
#[derive(Clone, Copy, Debug)]
enum Clean {
    /// Nothing else.
    Line,
    /// nginx's access.log: quotes, backslashes and control characters are escaped.
    Escaped,
    /// The name in HTTP's basic authentication ends at a colon.
    ToColon,
    /// Both.
    ToColonEscaped,
    /// Letters, digits, dots and hyphens, or an address in brackets.
    HostName,
}

use Clean::{Escaped, HostName, Line, ToColon, ToColonEscaped};

/// A line of a log; each `{}` is a hole.
struct Shape {
    jails: &'static [&'static str],
    text: &'static str,
    holes: &'static [Clean],
}

const fn shape(
    jails: &'static [&'static str],
    text: &'static str,
    holes: &'static [Clean],
) -> Shape {
    Shape { jails, text, holes }
}

const SSH: &[&str] = &["sshd"];
const NGINX: &[&str] =
    &["nginx-http-auth", "nginx-botsearch", "nginx-bad-request", "nginx-limit-req"];
const APACHE: &[&str] = &["apache-auth", "apache-noscript"];
const MAIL: &[&str] = &["postfix", "postfix-sasl", "dovecot"];
const EXIM: &[&str] = &["exim"];
const FTP: &[&str] = &["vsftpd", "proftpd"];
const SQL: &[&str] = &["mysqld-auth"];
const AUTH: &[&str] = &["pam-generic"];
const OWN: &[&str] = &["recidive"];

const SHAPES: &[Shape] = &[
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Failed password for invalid user {} from ADDR port 5000 ssh2",
        &[Line; 1],
    ),
    shape(SSH, "Mar  1 11:00:00 web sshd[7]: Invalid user {} from ADDR port 5000", &[Line; 1]),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: input_userauth_request: invalid user {} [preauth]",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Connection closed by invalid user {} ADDR port 5000 [preauth]",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Disconnected from invalid user {} ADDR port 5000 [preauth]",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Disconnecting invalid user {} ADDR port 5000: Change of username or service not allowed: ({},ssh-connection) -> ({},ssh-connection) [preauth]",
        &[Line; 3],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: error: maximum authentication attempts exceeded for invalid user {} from ADDR port 5000 ssh2 [preauth]",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Bad protocol version identification '{}' from ADDR port 5000",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: error: kex_exchange_identification: client sent invalid protocol identifier \"{}\"",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: banner exchange: Connection from ADDR port 5000: invalid format",
        &[Line; 0],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Received disconnect from ADDR port 5000:11: {} [preauth]",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Unable to negotiate with ADDR port 5000: no matching host key type found. Their offer: {} [preauth]",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Failed keyboard-interactive/pam for invalid user {} from ADDR port 5000 ssh2",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: error: PAM: Authentication failure for illegal user {} from ADDR",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Failed publickey for root from ADDR port 5000 ssh2: ED25519-CERT SHA256:AAAA ID {} (serial 0) CA ED25519 SHA256:BBBB",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Failed hostbased for invalid user {} from ADDR port 5000 ssh2: RSA SHA256:AAAA, client user \"{}\", client host \"{}\"",
        &[Line; 3],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: Failed publickey for invalid user {} from ADDR port 5000 ssh2: RSA SHA256:AAAA",
        &[Line; 1],
    ),
    shape(
        SSH,
        "Mar  1 11:00:00 web sshd[7]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=ADDR  user={}",
        &[Line; 1],
    ),
    shape(
        NGINX,
        "ADDR - {} [01/Mar/2026:11:00:00 +0000] \"GET /wp-login.php{} HTTP/1.1\" 401 153 \"{}\" \"{}\"",
        &[ToColonEscaped, Escaped, Escaped, Escaped],
    ),
    shape(
        NGINX,
        "ADDR - - [01/Mar/2026:11:00:00 +0000] \"{}\" 400 153 \"-\" \"{}\"",
        &[Escaped; 2],
    ),
    shape(
        NGINX,
        "2026/03/01 11:00:00 [error] 7#7: *1 user \"{}\": password mismatch, client: ADDR, server: example.com, request: \"GET {} HTTP/1.1\", host: \"{}\", referrer: \"{}\"",
        &[ToColon, Line, Line, Line],
    ),
    shape(
        NGINX,
        "2026/03/01 11:00:00 [error] 7#7: *1 user \"{}\" was not found in \"/etc/nginx/users\", client: ADDR, server: example.com, request: \"GET {} HTTP/1.1\", host: \"{}\"",
        &[ToColon, Line, Line],
    ),
    shape(
        NGINX,
        "2026/03/01 11:00:00 [error] 7#7: *1 open() \"/var/www/{}\" failed (2: No such file or directory), client: ADDR, server: example.com, request: \"GET {} HTTP/1.1\", host: \"{}\", referrer: \"{}\"",
        &[Line; 4],
    ),
    shape(
        NGINX,
        "2026/03/01 11:00:00 [error] 7#7: *1 limiting requests, excess: 1.000 by zone \"one\", client: ADDR, server: example.com, request: \"GET {} HTTP/1.1\", host: \"{}\"",
        &[Line; 2],
    ),
    shape(
        APACHE,
        "[Sun Mar 01 11:00:00.123456 2026] [auth_basic:error] [pid 7:tid 7] [client ADDR:5000] AH01617: user {}: authentication failure for \"{}\": Password Mismatch, referer: {}",
        &[ToColon, Line, Line],
    ),
    shape(
        APACHE,
        "[Sun Mar 01 11:00:00.123456 2026] [core:info] [pid 7:tid 7] [client ADDR:5000] AH00128: File does not exist: /var/www/{}, referer: {}",
        &[Line; 2],
    ),
    shape(
        APACHE,
        "[Sun Mar 01 11:00:00.123456 2026] [php:error] [pid 7:tid 7] [client ADDR:5000] script '/var/www/{}.php' not found or unable to stat",
        &[Line],
    ),
    shape(
        APACHE,
        "[Sun Mar 01 11:00:00 2026] [error] [client ADDR] user {} not found: /{}, referer: {}",
        &[ToColon, Line, Line],
    ),
    shape(
        APACHE,
        "[Sun Mar 01 11:00:00 2026] [error] [client ADDR] File does not exist: /var/www/{}, referer: {}",
        &[Line; 2],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[ADDR]: 554 5.7.1 <{}>: Relay access denied; from=<{}> to=<{}> proto=ESMTP helo=<{}>",
        &[Line; 4],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web postfix/smtpd[7]: warning: unknown[ADDR]: SASL {} authentication failed: authentication failure, sasl_username={}",
        &[Line; 2],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web postfix/smtpd[7]: warning: non-SMTP command from unknown[ADDR]: {}",
        &[Line],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web postfix/postscreen[7]: PREGREET 9 after 0 from [ADDR]:5000: {}",
        &[Line],
    ),
    shape(MAIL, "Mar  1 11:00:00 web postfix/cleanup[7]: 4ABC: message-id=<{}>", &[Line]),
    shape(
        MAIL,
        "Mar  1 11:00:00 web postfix/qmgr[7]: 4ABC: from=<{}>, size=1, nrcpt=1 (queue active)",
        &[Line],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web dovecot: imap-login: Disconnected: Aborted login by logging out (auth failed, 1 attempts in 2 secs): user=<{}>, method=PLAIN, rip=ADDR, lip=192.0.2.10, session=<bDBs>",
        &[Line],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web dovecot: imap-login: Disconnected: Connection closed (tried to use unsupported auth mechanism): user=<>, method={}, rip=ADDR, lip=192.0.2.10, TLS, session=<bDBs>",
        &[Line],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web dovecot: auth: sql({},ADDR,<bDBs>): unknown user (given password: {})",
        &[Line; 2],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web auth: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser={} rhost=ADDR  user={}",
        &[Line; 2],
    ),
    shape(
        MAIL,
        "Mar  1 11:00:00 web dovecot: imap(alice)<7><bDBs>: save: box={}, uid=1, msgid=<{}>, size=7",
        &[Line; 2],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 plain authenticator failed for ({}) [ADDR]: 535 Incorrect authentication data (set_id={})",
        &[HostName, Line],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 H=({}) [ADDR] F=<{}> rejected RCPT <{}>: relay not permitted",
        &[HostName, Line, Line],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 rejected EHLO from [ADDR]: syntactically invalid argument(s): {}",
        &[Line],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 SMTP call from [ADDR] dropped: too many unrecognized commands (last was \"{}\")",
        &[Line],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 SMTP protocol synchronization error (next input sent too soon: pipelining was not advertised): rejected \"{}\" H=({}) [ADDR] next input=\"{}\"",
        &[Line, HostName, Line],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 SMTP protocol error in \"AUTH {}\" H=({}) [ADDR] AUTH command used when not advertised",
        &[Line, HostName],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 H=({}) [ADDR] sender verify fail for <{}>: Unrouteable address",
        &[HostName, Line],
    ),
    shape(
        EXIM,
        "2026-03-01 11:00:00 1vMf3a-0000Ab-1C <= {} H=({}) [ADDR] P=esmtp S=1 id={}",
        &[Line, HostName, Line],
    ),
    shape(FTP, "Sun Mar  1 11:00:00 2026 [pid 7] [{}] FAIL LOGIN: Client \"ADDR\"", &[Line]),
    shape(
        FTP,
        "Mar  1 11:00:00 web vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser={} rhost=ADDR  user={}",
        &[Line; 2],
    ),
    shape(
        FTP,
        "Sun Mar  1 11:00:00 2026 [pid 7] [ftp] OK LOGIN: Client \"ADDR\", anon password \"{}\"",
        &[Line],
    ),
    shape(
        FTP,
        "Sun Mar  1 11:00:00 2026 [pid 7] [ftp] FTP command: Client \"ADDR\", \"{}\"",
        &[Line],
    ),
    shape(
        FTP,
        "Sun Mar  1 11:00:00 2026 [pid 7] [ftp] OK MKDIR: Client \"ADDR\", \"/{}\"",
        &[Line],
    ),
    shape(
        FTP,
        "2026-03-01 11:00:00,123 web proftpd[7] 192.0.2.10 (ADDR[ADDR]): USER {} (Login failed): Incorrect password",
        &[Line],
    ),
    shape(
        FTP,
        "2026-03-01 11:00:00,123 web proftpd[7] 192.0.2.10 (ADDR[ADDR]): USER {}: no such user found from ADDR [ADDR] to 192.0.2.10:21",
        &[Line],
    ),
    shape(
        SQL,
        "2026-03-01 11:00:00 7 [Warning] Access denied for user '{}'@'ADDR' (using password: YES)",
        &[Line],
    ),
    shape(
        SQL,
        "2026-03-01 11:00:00 7 [Warning] Access denied for user '{}'@'ADDR' to database '{}'",
        &[Line; 2],
    ),
    shape(
        SQL,
        "2026-03-01 11:00:00 7 [Warning] Aborted connection 7 to db: '{}' user: '{}' host: 'ADDR' (Got an error)",
        &[Line; 2],
    ),
    shape(
        AUTH,
        "Mar  1 11:00:00 web vsftpd[7]: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser={} rhost=ADDR  user={}",
        &[Line; 2],
    ),
    shape(
        AUTH,
        "Mar  1 11:00:00 web vsftpd[7]: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser={} rhost=ADDR ",
        &[Line],
    ),
    shape(
        AUTH,
        "Mar  1 11:00:00 web sshd[7]: Failed password for invalid user {} from ADDR port 5000 ssh2",
        &[Line],
    ),
    shape(
        OWN,
        "2026-03-01 11:00:00,123 fail2ban.filter         [7]: INFO    [users] Found {} - 2026-03-01 11:00:00",
        &[Line],
    ),
    shape(
        OWN,
        "2026-03-01 11:00:00,123 fail2xdp.app            [7]: WARNING [users] `{}` reached the threshold and has no address to ban",
        &[Line],
    ),
    shape(OWN, "2026-03-01 11:00:00,123 fail2ban.actions        [7]: NOTICE  [sshd] Ban ADDR", &[]),
];

impl Clean {
    fn apply(self, text: &str) -> String {
        let line: String = text.chars().filter(|c| !c.is_control()).collect();
        let to_colon = || line.split(':').next().unwrap_or_default().to_owned();
        let escaped = |text: &str| text.replace('\\', "\\x5C").replace('"', "\\x22");
        match self {
            Line => line,
            Escaped => escaped(&line),
            ToColon => to_colon(),
            ToColonEscaped => escaped(&to_colon()),
            HostName if line.contains(VICTIM) => format!("[{VICTIM}]"),
            HostName => {
                line.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect()
            }
        }
    }
}

/// A line of this shape with these texts in its holes.
fn fill(shape: &Shape, address: &str, texts: &[String]) -> String {
    let mut parts = shape.text.split("{}");
    let mut line = parts.next().unwrap_or_default().replace("ADDR", address);
    for ((part, clean), text) in parts.zip(shape.holes).zip(texts.iter().cycle()) {
        line.push_str(&clean.apply(text));
        line.push_str(&part.replace("ADDR", address));
    }
    line
}

/// A piece of a line about the victim: from a character on, so long.
fn piece() -> impl Strategy<Value = String> {
    let all = || (0..SHAPES.len()).prop_map(|nth| fill(&SHAPES[nth], VICTIM, &["x".to_owned()]));
    let cut = (all(), any::<proptest::sample::Index>(), any::<proptest::sample::Index>());
    let cut = cut.prop_map(|(line, from, to)| {
        let line = line.as_bytes();
        let from = from.index(line.len());
        let to = from + to.index(line.len() - from) + 1;
        String::from_utf8_lossy(&line[from..to]).into_owned()
    });
    // Whole ends of lines, and those that end with the address, get through more often than what breaks off.
    let end = (all(), any::<proptest::sample::Index>())
        .prop_map(|(line, from)| line[from.index(line.len())..].to_owned());
    let to_address = (all(), any::<proptest::sample::Index>()).prop_map(|(line, from)| {
        let to = line.rfind(VICTIM).map_or(line.len(), |at| at + VICTIM.len());
        line[from.index(to)..to].to_owned()
    });
    prop_oneof![cut, end, to_address, "[\\[\\]<>(){}'\", =:;]{1,3}"]
}

struct Reader {
    jail: &'static str,
    matcher: Matcher,
}

#[test]
fn nobody_but_the_client_is_ever_counted() {
    let mut readers = Vec::new();
    let mut names: Vec<&str> = SHAPES.iter().flat_map(|shape| shape.jails).copied().collect();
    names.sort_unstable();
    names.dedup();
    for jail in names {
        let mut options = vec!["mode = normal", "mode = aggressive"];
        if jail == "sshd" {
            options.push("filter = sshd[mode=aggressive, publickey=any]");
        }
        for option in options {
            let jail_with = samples::with_option(jail, option);
            let (matcher, errors) = Matcher::new(&jail_with, TimeZone::UTC);
            assert!(errors.is_empty(), "{errors:?}");
            readers.push(Reader { jail, matcher });
        }
    }
    let readers = RefCell::new(readers);
    let texts = vec(vec(piece(), 0..4).prop_map(|pieces| pieces.concat()), 4);
    let found = RefCell::new(0);
    let config = Config { cases: TRIES, failure_persistence: None, ..Config::default() };
    let forged = TestRunner::new(config).run(&(0..SHAPES.len(), texts), |(nth, texts)| {
        let shape = &SHAPES[nth];
        let line = fill(shape, CLIENT, &texts);
        for reader in readers.borrow_mut().iter_mut() {
            if !shape.jails.contains(&reader.jail) {
                continue;
            }
            let mut findings = Vec::new();
            reader.matcher.line(&line, None, NOON, false, &mut findings);
            for finding in findings {
                prop_assert_eq!(finding.who.to_string(), CLIENT, "{}: {}", reader.jail, line);
                *found.borrow_mut() += 1;
            }
        }
        Ok(())
    });
    if let Err(error) = forged {
        panic!("{error}");
    }
    // Had the lines lost their form, nothing would have been proven.
    let found = *found.borrow();
    assert!(found > TRIES / 10, "{found} lines of {TRIES} counted the client");
}
