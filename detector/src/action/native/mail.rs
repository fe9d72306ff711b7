//! A mail: to an SMTP server, or to the `sendmail` of this machine.
use std::{
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lettre::{
    Address, Message,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{Certificate, CertificateStore, SmtpConnection, TlsParameters},
        extension::ClientId,
    },
};

use super::{Kind, Task, Undelivered, event, program, secret};
use crate::{
    action::wire::Ticket,
    clock,
    config::{Login, Mail, MatchesOf, Tls, Transport},
};

/// Longest text of a mail, in bytes; what is more is left out, and the mail says so.
const LONGEST_BODY: usize = 256 << 10;
/// Bytes of what `whois` says that are shown.
const LONGEST_WHOIS: u64 = 32 << 10;

pub(super) fn deliver(mail: &Mail, tasks: &[&Task], host: &str) -> Result<(), Undelivered> {
    let message = message(mail, tasks, host)?;
    match &mail.transport {
        Transport::Program(words) => hand_over(mail, words, &message),
        Transport::Smtp { host: server, port, tls, login, ca_file } => {
            let tls_parameters = match tls {
                Tls::No => None,
                _ => Some(parameters(server, ca_file.as_deref())?),
            };
            let deadline = clock::monotonic() + mail.timeout;
            let session = Session { server, port: *port, tls: *tls, deadline, host };
            session.send(tls_parameters.as_ref(), login.as_ref(), &message)
        }
    }
}

/// One conversation with a server.
struct Session<'a> {
    server: &'a str,
    port: u16,
    tls: Tls,
    deadline: Instant,
    host: &'a str,
}

impl Session<'_> {
    fn send(
        &self,
        tls: Option<&TlsParameters>,
        login: Option<&Login>,
        message: &Message,
    ) -> Result<(), Undelivered> {
        let failed = |error: Error| self.failed(&error);
        // Read first: without it nobody need be asked.
        let login = login.map(|login| {
            let password = secret(&login.password)?;
            Ok(Credentials::new(login.user.clone(), password.expose().to_owned()))
        });
        let login = login.transpose()?;
        let hello = ClientId::Domain(self.host.to_owned());
        let at_once = tls.filter(|_| self.tls == Tls::Always);
        let address = (self.server, self.port);
        let mut connection =
            SmtpConnection::connect(address, Some(self.left()), &hello, at_once, None)
                .map_err(failed)?;
        if let Some(tls) = tls.filter(|_| self.tls == Tls::StartTls) {
            self.limit(&mut connection)?;
            connection.starttls(tls, &hello).map_err(failed)?;
        }
        if let Some(login) = login {
            self.limit(&mut connection)?;
            connection.auth(DEFAULT_MECHANISMS, &login).map_err(failed)?;
        }
        self.limit(&mut connection)?;
        connection.send(message.envelope(), &message.formatted()).map_err(failed)?;
        // It was taken: whatever the server says to the farewell.
        let _ = self.limit(&mut connection).map(|()| connection.quit());
        Ok(())
    }

    fn left(&self) -> Duration {
        // A timeout of zero would mean none at all.
        self.deadline.saturating_duration_since(clock::monotonic()).max(Duration::from_millis(1))
    }

    /// Lets the server answer within what is left.
    fn limit(&self, connection: &mut SmtpConnection) -> Result<(), Undelivered> {
        let limited = connection.set_timeout(Some(self.left()));
        limited.map_err(|error| Undelivered::passing(error.to_string()))
    }

    fn failed(&self, error: &Error) -> Undelivered {
        let (server, port) = (self.server, self.port);
        let why = match is_timeout(error) {
            true => format!("mail server {server}:{port} was too slow"),
            false => format!("mail server {server}:{port}: {}", in_words(error)),
        };
        Undelivered { why, retry_after: None, hopeless: error.is_permanent() }
    }
}

/// A socket's timeout, which it calls by two names.
fn is_timeout(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|it| it.downcast_ref::<io::Error>());
    let kind = cause.map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}

/// An error with its causes, in one bounded line.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some say their cause themselves.
        let text = error.to_string();
        if !words.contains(&text) {
            let _ = write!(words, ": {text}");
        }
        cause = error.source();
    }
    event::one_line(event::beginning(&words, 400))
}

fn parameters(
    server: &str,
    ca_file: Option<&std::path::Path>,
) -> Result<TlsParameters, Undelivered> {
    let failed = |error: Error| Undelivered::passing(in_words(&error));
    let mut builder = TlsParameters::builder(server.to_owned());
    if let Some(file) = ca_file {
        let pem = fs::read(file).map_err(|error| {
            Undelivered::passing(format!("cannot read {}: {error}", file.display()))
        })?;
        let own = Certificate::from_pem(&pem).map_err(failed)?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(own);
    }
    builder.build_rustls().map_err(failed)
}

/// Hands the mail to a program.
fn hand_over(mail: &Mail, words: &[String], message: &Message) -> Result<(), Undelivered> {
    let mut words = words.to_vec();
    if words.len() == 1 {
        words.push("-i".to_owned());
        if let Some(sender) = message.envelope().from() {
            words.extend(["-f".to_owned(), sender.to_string()]);
        }
        words.push("--".to_owned());
        words.extend(message.envelope().to().iter().map(ToString::to_string));
    }
    let text = String::from_utf8_lossy(&message.formatted()).replace("\r\n", "\n");
    let ended = program::run(&words, text.as_bytes(), 0, mail.timeout);
    let ended = ended.map_err(Undelivered::passing)?;
    let Some(code) = ended.code.filter(|code| *code != 0) else {
        return match ended.code {
            Some(_) => Ok(()),
            None => Err(Undelivered::passing(format!("{} was ended by a signal", words[0]))),
        };
    };
    let said = String::from_utf8_lossy(&ended.errors);
    let said = event::one_line(said.trim().lines().next().unwrap_or(""));
    let why = format!("{} returned {code}: {said}", words[0]);
    // sysexits.h: wrong usage, wrong data, no such user, no permission.
    let hopeless = matches!(code, 64 | 65 | 67 | 77);
    Err(Undelivered { why, retry_after: None, hopeless })
}

/// The mail itself. What an attacker wrote stands in the body alone, or in a header that holds one line of plain text.
fn message(mail: &Mail, tasks: &[&Task], host: &str) -> Result<Message, Undelivered> {
    let wrong = |error: &dyn std::error::Error| Undelivered::hopeless(error.to_string());
    let address = |text: &str| address(text, host).map_err(|error| wrong(&error));
    let name = Some(mail.sender_name.clone()).filter(|name| !name.is_empty());
    // The same however often it is delivered, so that it can be shown once.
    let first =
        tasks.first().map_or_else(String::new, |it| format!("{}.{:.0}", it.seq, it.at * 1e3));
    let now = clock::now().micros();
    let mut builder = Message::builder()
        .from(Mailbox::new(name, address(&mail.sender)?))
        .date(std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(now).unwrap_or(0)))
        .message_id(Some(format!("<fail2xdp.{first}@{}>", domain(host))))
        .subject(subject(tasks, host))
        .header(ContentType::TEXT_PLAIN)
        .raw_header(automatic());
    for dest in &mail.dest {
        builder = builder.to(Mailbox::new(None, address(dest)?));
    }
    builder.body(body(mail, tasks, host)).map_err(|error| wrong(&error))
}

/// So that nobody's holiday is announced to us, RFC 3834.
fn automatic() -> HeaderValue {
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    HeaderValue::new(name, "auto-generated".to_owned())
}

/// An address; without a domain it is one of this machine, as a mail program would have it.
fn address(text: &str, host: &str) -> Result<Address, lettre::address::AddressError> {
    match text.rsplit_once('@') {
        Some(_) => text.parse(),
        None => Address::new(text, domain(host)),
    }
}

/// The machine's name where that can be part of an address.
fn domain(host: &str) -> &str {
    if Address::new("a", host).is_ok() { host } else { "localhost" }
}

fn subject(tasks: &[&Task], host: &str) -> String {
    let subject = match tasks {
        [task] => {
            let (jail, whom) = (&task.jail, event::whom(task));
            match task.kind {
                Kind::Start => format!("{jail}: started on {host}"),
                Kind::Stop => format!("{jail}: stopped on {host}"),
                Kind::Unban => format!("{jail}: unbanned {whom} from {host}"),
                Kind::Prolong => format!("{jail}: ban of {whom} prolonged on {host}"),
                _ => format!("{jail}: banned {whom} from {host}"),
            }
        }
        tasks => {
            let bans = tasks.iter().filter(|task| task.kind == Kind::Ban).count();
            format!("{} events, {bans} of them bans, on {host}", tasks.len())
        }
    };
    event::one_line(event::beginning(&format!("[Fail2Ban] {subject}"), 300))
}

fn body(mail: &Mail, tasks: &[&Task], host: &str) -> String {
    let mut body = String::new();
    for (at, task) in tasks.iter().enumerate() {
        if body.len() > LONGEST_BODY {
            let _ = write!(body, "\n{} more events are not shown.\n", tasks.len() - at);
            break;
        }
        if at > 0 {
            body.push_str("\n\n");
        }
        one(mail, task, host, &mut body);
    }
    event::plain(&body)
}

/// What is said of one event.
fn one(mail: &Mail, task: &Task, host: &str, body: &mut String) {
    let (jail, whom) = (&task.jail, event::whom(task));
    let at =
        jiff::Timestamp::from_second(task.at as i64).map_or(String::new(), |at| at.to_string());
    let _ = match (task.kind, task.ticket.as_deref()) {
        (Kind::Start, _) => writeln!(body, "{at}: jail {jail} has started on {host}."),
        (Kind::Stop, _) => writeln!(body, "{at}: jail {jail} has stopped on {host}."),
        (Kind::Unban, _) => {
            writeln!(body, "{at}: the ban of {whom} in jail {jail} on {host} is over.")
        }
        (Kind::Prolong, Some(ticket)) => {
            let (long, seconds) = (event::how_long(ticket), ticket.ban_time);
            writeln!(
                body,
                "{at}: the ban of {whom} in jail {jail} on {host} now lasts {long} ({seconds} seconds)."
            )
        }
        (_, Some(ticket)) => ban(mail, task, ticket, (&at, host), body),
        _ => Ok(()),
    };
}

fn ban(
    mail: &Mail,
    task: &Task,
    ticket: &Ticket,
    (at, host): (&str, &str),
    body: &mut String,
) -> std::fmt::Result {
    let (jail, whom) = (&task.jail, event::whom(task));
    let (long, seconds) = (event::how_long(ticket), ticket.ban_time);
    let failures = event::failures(ticket);
    writeln!(
        body,
        "{at}: {whom} was banned on {host} {long} ({seconds} seconds) after {failures} in jail {jail}."
    )?;
    if ticket.ban_count > 1 {
        writeln!(body, "It was banned {} times by now.", ticket.ban_count)?;
    }
    if let Some(program) = &mail.whois {
        writeln!(body, "\nwhois {whom}:\n\n{}", whois(program, &whom, mail.timeout))?;
    }
    let own = &ticket.matches;
    let (title, lines) = match mail.matches {
        None => return Ok(()),
        Some(MatchesOf::Ban) => ("Lines that led to the ban", own),
        Some(MatchesOf::Address) => {
            ("Lines of all its bans", ticket.of_address.as_ref().map_or(own, |past| &past.matches))
        }
        Some(MatchesOf::Jail) => (
            "Lines of all its bans in this jail",
            ticket.of_jail.as_ref().map_or(own, |past| &past.matches),
        ),
    };
    let (lines, left_out) = event::newest(lines);
    writeln!(body, "\n{title}:\n")?;
    for line in lines {
        writeln!(body, "{line}")?;
    }
    if left_out > 0 {
        writeln!(body, "({left_out} older lines are not shown)")?;
    }
    Ok(())
}

/// What `whois` says of an address, or why it says nothing. Only an address is ever handed to it.
fn whois(program: &str, whom: &str, deadline: Duration) -> String {
    if whom.parse::<IpAddr>().is_err() && whom.parse::<IpNet>().is_err() {
        return "(it is no address)".to_owned();
    }
    let words = [program, whom].map(str::to_owned);
    match program::run(&words, b"", LONGEST_WHOIS, deadline) {
        Ok(ended) => String::from_utf8_lossy(&ended.output).trim().to_owned(),
        Err(why) => format!("({why})"),
    }
}
