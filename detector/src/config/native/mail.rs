//! `mail[…]`, and `smtp.py[…]` of fail2ban.
use std::{path::PathBuf, time::Duration};

use lettre::Address;

use super::{MOST_WORDS, Params, SecretPlace};

/// Bans of one digest at the most; what is more waits for the next.
pub(super) const MOST_IN_DIGEST: usize = 1_000;
/// Where the system's mail program is, whichever it is.
const SENDMAIL: &str = "/usr/sbin/sendmail";

/// A mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// How it leaves this machine.
    pub transport: Transport,
    /// Whom it comes from, by name.
    pub sender_name: String,
    /// Whom it comes from, by address; one without a domain is of this machine.
    pub sender: String,
    /// Whom it goes to: at least one, addresses as the sender's.
    pub dest: Vec<String>,
    /// Lines of the log that it shows.
    pub matches: Option<MatchesOf>,
    /// It shows what this program says of the address, where it is.
    pub whois: Option<String>,
    /// One mail for all that happens within this time.
    pub digest: Option<Duration>,
    /// How long a delivery may take, and `whois`.
    pub timeout: Duration,
}

/// Whose lines of the log are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchesOf {
    /// Those that led to the ban.
    Ban,
    /// Of all bans of the address.
    Address,
    /// Of its bans in this jail.
    Jail,
}

/// How a mail leaves this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// To a server.
    Smtp {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
        /// Whether, and how, the connection is encrypted.
        tls: Tls,
        /// Who we are there.
        login: Option<Login>,
        /// Certificates that are trusted in place of the system's.
        ca_file: Option<PathBuf>,
    },
    /// To a program that takes it on its standard input. One without arguments is handed sender and recipients, as
    /// `sendmail` takes them.
    Program(Vec<String>),
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    No,
    /// From its beginning (SMTPS).
    Always,
    /// After `STARTTLS`, which the server must offer.
    StartTls,
}

/// Who we are to a mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: SecretPlace,
}

/// Reads one; `is_python`: with the defaults of fail2ban's `smtp.py`.
pub(super) fn read(params: &mut Params, is_python: bool) -> Mail {
    let sender = own(params.text("sender").unwrap_or("fail2ban"));
    if !is_address(sender) {
        params.fault("sender", &format!("`{sender}` is no mail address"), ADDRESS);
    }
    let sender_name = params.text("sendername").unwrap_or("Fail2Ban");
    if sender_name.len() > 200 || sender_name.contains(char::is_control) {
        params.fault("sendername", "it is no name", "write one line of at most 200 bytes");
    }
    let mut dest = params.words("dest");
    dest.iter_mut().for_each(|dest| *dest = own(dest).to_owned());
    if dest.is_empty() {
        dest.push("root".to_owned());
    }
    if dest.len() > MOST_WORDS {
        params.fault("dest", "these are too many", "write at most 100, or a mailing list");
    }
    if let Some(wrong) = dest.iter().find(|dest| !is_address(dest)) {
        params.fault("dest", &format!("`{wrong}` is no mail address"), ADDRESS);
    }
    let of = "write `matches`, `ipmatches` or `ipjailmatches`";
    let matches = params.read("matches", of, |word| match word {
        "matches" => Some(MatchesOf::Ban),
        "ipmatches" => Some(MatchesOf::Address),
        "ipjailmatches" => Some(MatchesOf::Jail),
        _ => None,
    });
    let whois =
        params.read(
            "whois",
            "write `yes`, `no`, or the whole path of a program",
            |word| match word.to_ascii_lowercase().as_str() {
                "1" | "on" | "true" | "yes" => Some(Some("whois".to_owned())),
                "0" | "off" | "false" | "no" => Some(None),
                _ => word.starts_with('/').then(|| Some(word.to_owned())),
            },
        );
    let whois = whois.flatten();
    let digest = params.span("digest", 1..=86_400);
    if whois.is_some() && digest.is_some() {
        params.fault("whois", "a digest is of too many to ask for each", "remove it, or `digest`");
    }
    Mail {
        transport: transport(params, is_python),
        sender_name: sender_name.to_owned(),
        sender: sender.to_owned(),
        dest,
        matches,
        whois,
        digest,
        timeout: params.span("timeout", 1..=600).unwrap_or(Duration::from_secs(60)),
    }
}

const ADDRESS: &str = "write addresses such as `root` or `admin@example.com`, separated by commas";

fn transport(params: &mut Params, is_python: bool) -> Transport {
    let program = params.text("mailcmd");
    let host = params.text("host");
    if let Some(program) = program {
        if host.is_some() {
            params.fault("mailcmd", "`host` is given as well", "keep one of the two");
        }
        let words = crate::config::shell_words(program).unwrap_or_default();
        if words.first().is_none_or(|word| !word.starts_with('/')) {
            params.fault(
                "mailcmd",
                "it names no program",
                "write a whole path, as in `/usr/sbin/sendmail -t`",
            );
        }
        return Transport::Program(words);
    }
    if host.is_none() && !is_python {
        return Transport::Program(vec![SENDMAIL.to_owned()]);
    }
    let (host, port) = split_port(host.unwrap_or("localhost"));
    let starttls = params.truth("ssl").unwrap_or(false);
    let tls = params.read("tls", "write `no`, `starttls` or `yes`", |word| {
        match word.to_ascii_lowercase().as_str() {
            "no" | "off" | "none" => Some(Tls::No),
            "starttls" => Some(Tls::StartTls),
            "yes" | "on" | "tls" => Some(Tls::Always),
            _ => None,
        }
    });
    let usual = match tls {
        Some(Tls::Always) => 465,
        Some(Tls::StartTls) => 587,
        _ => 25,
    };
    let own = params.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok());
    let port = match port {
        None => own.unwrap_or(usual),
        Some(text) => text.parse().ok().filter(|port| *port > 0).unwrap_or_else(|| {
            params.fault(
                "host",
                &format!("`{text}` is no port"),
                "write `host = mail.example.com:587`",
            );
            usual
        }),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        params.fault("host", "it is no host", "write `host = mail.example.com`");
    }
    let tls = tls.unwrap_or(if starttls { Tls::StartTls } else { Tls::No });
    let (user, password) = (params.text("user"), params.secret("password", "password_file"));
    let login = match (user, password) {
        (Some(user), Some(password)) => Some(Login { user: user.to_owned(), password }),
        (None, None) => None,
        (Some(_), None) => {
            params.fault(
                "user",
                "it has no password",
                "write `password_file = /etc/fail2xdp/mail.password`",
            );
            None
        }
        (None, Some(_)) => {
            params.needed("user", "write the name that the password belongs to");
            None
        }
    };
    Transport::Smtp { host: host.to_owned(), port, tls, login, ca_file: params.path("ca_file") }
}

/// `mail.example.com:587`, `[2001:db8::1]:25`, `2001:db8::1`.
fn split_port(host: &str) -> (&str, Option<&str>) {
    if let Some(rest) = host.strip_prefix('[')
        && let Some((address, port)) = rest.split_once(']')
    {
        return (address, port.strip_prefix(':'));
    }
    match host.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (host, None),
    }
}

/// `root@<fq-hostname>`, as fail2ban's `jail.conf` has it, is an address of this machine.
fn own(address: &str) -> &str {
    let local = ["@<fq-hostname>", "@<sh-hostname>"].iter().find_map(|it| address.strip_suffix(it));
    local.unwrap_or(address)
}

/// Whether it is a mail address; one without a domain is one of this machine.
fn is_address(text: &str) -> bool {
    match text.contains('@') {
        true => text.parse::<Address>().is_ok(),
        false => Address::new(text, "localhost").is_ok(),
    }
}
