//! `mail[…]` and `smtp.py[…]`: to a server that stores mails, and through a real `sendmail`.
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    slice, thread,
    time::Duration,
};

use fail2xdp::{
    action::wire::{Kind, Past},
    config::{Batch, Native},
};
use serde_json::{Value, json};

use super::server::{Certificate, Server, ban, delivered, host, native, task, undelivered, with};

fn to(server: &Server, more: &[(&str, &str)]) -> Native {
    let port = server.port.to_string();
    let own = [("host", "localhost"), ("port", &*port), ("dest", "admin@example.com")];
    let is_own = |(name, _): &&(&str, &str)| !more.iter().any(|(more, _)| more == name);
    let own: Vec<_> = own.iter().filter(is_own).copied().collect();
    native("mail", &[&own, more].concat())
}

fn header<'a>(mail: &'a Value, name: &str) -> &'a str {
    let headers = mail["headers"].as_array().expect("a list").iter();
    let mut found = headers.filter(|header| header[0].as_str() == Some(name));
    let value = found.next().unwrap_or_else(|| panic!("no {name}: {mail}"))[1].as_str();
    assert!(found.next().is_none(), "{name} twice: {mail}");
    value.expect("text")
}

fn body(mail: &Value) -> &str {
    mail["body"].as_str().expect("text")
}

#[test]
fn start_stop_and_ban_are_told_as_fail2ban_tells_them() {
    let server = Server::smtp("no", "", "", None);
    let address = format!("localhost:{}", server.port);
    let action = native("smtp.py", &[("host", &address), ("dest", "a@example.com, b@example.com")]);
    let (name, host) = (host(), host());
    for (task, subject) in [
        (task(1, Kind::Start), format!("[Fail2Ban] sshd: started on {host}")),
        (ban(2, "192.0.2.1"), format!("[Fail2Ban] sshd: banned 192.0.2.1 from {host}")),
        (task(3, Kind::Stop), format!("[Fail2Ban] sshd: stopped on {host}")),
    ] {
        delivered(&action, &[task.clone(), super::server::task(4, Kind::Unban)]);
        let mail = server.told();
        assert_eq!(header(&mail, "Subject"), subject);
        assert_eq!(mail["to"], json!(["a@example.com", "b@example.com"]));
        assert_eq!(header(&mail, "To"), "a@example.com, b@example.com");
        assert!(header(&mail, "From").starts_with("Fail2Ban <fail2ban@"), "{mail}");
        assert_eq!(header(&mail, "Auto-Submitted"), "auto-generated");
        let id = format!("<fail2xdp.{}.1790000001500@", task.seq);
        assert!(header(&mail, "Message-ID").starts_with(&id), "{mail}");
        let _ = header(&mail, "Date");
        assert_eq!((&mail["hello"], &mail["encrypted"]), (&json!(name), &json!(false)));
        let said = body(&mail);
        assert!(said.contains("sshd") && !said.contains("Failed password"), "{said}");
        if task.kind == Kind::Ban {
            assert!(said.contains("192.0.2.1 was banned"), "{said}");
            assert!(said.contains("(600 seconds) after 5 failures in jail sshd"), "{said}");
        }
    }
    // Not told again, and not at all.
    let restored = with(ban(5, "192.0.2.2"), |ticket| ticket.restored = true);
    delivered(&action, &[restored, task(6, Kind::Unban)]);
    delivered(&action, &[ban(7, "192.0.2.3")]);
    assert!(header(&server.told(), "Subject").contains("192.0.2.3"));
}

#[test]
fn lines_are_of_the_ban_of_the_address_or_of_the_jail() {
    let server = Server::smtp("no", "", "", None);
    let past = |line: &str| Some(Past { failures: 9, matches: vec![line.into()] });
    let event = with(ban(1, "192.0.2.1"), |ticket| {
        ticket.matches = vec!["of this ban: é \u{1b}[31m \"quoted\" $(id)".into()];
        ticket.of_address = past("of the address");
        ticket.of_jail = past("of the jail");
    });
    for (matches, expect, asks) in [
        ("matches", "of this ban: é \u{fffd}[31m \"quoted\" $(id)", (false, false)),
        ("ipmatches", "of the address", (true, false)),
        ("ipjailmatches", "of the jail", (false, true)),
    ] {
        let action = to(&server, &[("matches", matches)]);
        assert_eq!((action.asks_for_address(), action.asks_for_jail()), asks);
        delivered(&action, slice::from_ref(&event));
        let mail = server.told();
        let said = body(&mail);
        assert!(said.contains(expect), "{said}");
        assert_eq!(said.matches("of th").count(), 1, "{said}");
    }
    // However much an attacker writes.
    let long = with(event, |ticket| ticket.matches = vec!["x".repeat(1 << 20); 1_000]);
    delivered(&to(&server, &[("matches", "matches")]), &[long]);
    let mail = server.told();
    assert!(body(&mail).len() < 512 << 10, "{} bytes", body(&mail).len());
    assert!(body(&mail).contains("(900 older lines are not shown)"));
}

#[test]
fn no_text_becomes_a_header() {
    let server = Server::smtp("no", "", "", None);
    let action = to(&server, &[("sendername", "Wächter \"of\" <logs>")]);
    let evil = "x\r\nBcc: victim@example.com\r\n\r\nbody";
    let mut event = ban(1, evil);
    event.jail = format!("jail {evil} é");
    delivered(&action, &[event]);
    let mail = server.told();
    let names: Vec<&str> = mail["headers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|header| header[0].as_str().expect("text"))
        .collect();
    assert!(!names.contains(&"Bcc"), "{names:?}");
    assert_eq!(mail["to"], json!(["admin@example.com"]));
    assert!(header(&mail, "From").contains("Wächter"), "{mail}");
    assert!(header(&mail, "Subject").contains("Bcc: victim@example.com"), "{mail}");
}

#[test]
fn a_digest_is_one_mail_of_all() {
    let server = Server::smtp("no", "", "", None);
    let action = to(&server, &[("digest", "10m")]);
    assert_eq!(action.batch(), Batch { most: 1_000, gather: Duration::from_secs(600) });
    let tasks: Vec<_> = (0..1_000).map(|at| ban(at, &format!("192.0.2.{}", at % 256))).collect();
    delivered(&action, &tasks);
    let mail = server.told();
    assert_eq!(
        header(&mail, "Subject"),
        format!("[Fail2Ban] 1000 events, 1000 of them bans, on {}", host())
    );
    assert_eq!(body(&mail).matches("was banned").count(), 1_000);
    assert!(body(&mail).len() < 512 << 10);
}

#[test]
fn a_connection_is_encrypted_and_the_certificate_checked() {
    let (ours, others) = (Certificate::make(), Certificate::make());
    for mode in ["starttls", "tls"] {
        let server = Server::smtp(mode, "me", "s3cr3t", Some(&ours));
        let tls = if mode == "tls" { "yes" } else { "starttls" };
        let login = [("tls", tls), ("user", "me"), ("password", "s3cr3t")];
        let of = |file: &str| to(&server, &[&login[..], &[("ca_file", file)]].concat());
        delivered(&of(ours.pem()), &[ban(1, "192.0.2.1")]);
        for action in [of(others.pem()), to(&server, &login)] {
            let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
            assert!(!fault.hopeless && fault.why.contains("certificate"), "{fault:?}");
        }
        let mail = server.told();
        assert_eq!((&mail["encrypted"], &mail["user"]), (&json!(true), &json!("me")), "{mode}");
    }
    // A server that does not offer it gets nothing.
    let server = Server::smtp("no", "", "", None);
    let action = to(&server, &[("tls", "starttls"), ("ca_file", ours.pem())]);
    let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert!(fault.why.contains("STARTTLS"), "{fault:?}");
}

#[test]
fn a_password_comes_from_a_file_and_is_never_shown() {
    let server = Server::smtp("no", "me", "s3cr3t", None);
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("password");
    fs::write(&file, "wr0ng\n").expect("a file");
    let place = file.to_str().expect("text");
    let action = to(&server, &[("user", "me"), ("password_file", place)]);
    let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert!(
        fault.hopeless && fault.why.contains("535") && !fault.why.contains("wr0ng"),
        "{fault:?}"
    );
    fs::write(&file, "s3cr3t\n").expect("a file");
    delivered(&action, &[ban(1, "192.0.2.1")]);
    assert_eq!(server.told()["user"], json!("me"));
    fs::remove_file(&file).expect("a file");
    let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert!(!fault.hopeless && fault.why.contains(place), "{fault:?}");
    let action = to(&server, &[("user", "me"), ("password", "s3cr3t")]);
    let shown = format!("{action:?} {:?}", action.properties());
    assert!(!shown.contains("s3cr3t") && shown.contains("***"), "{shown}");
}

#[test]
fn what_a_server_says_decides_whether_to_come_again() {
    let server = Server::smtp("no", "", "", None);
    for (dest, hopeless) in [("nobody@example.com", true), ("later@example.com", false)] {
        let fault = undelivered(&to(&server, &[("dest", dest)]), &[ban(1, "192.0.2.1")]);
        assert_eq!(fault.hopeless, hopeless, "{fault:?}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = gone.local_addr().expect("an address").port().to_string();
    drop(gone);
    let down = native("mail", &[("host", "127.0.0.1"), ("port", &port)]);
    let fault = undelivered(&down, &[ban(1, "192.0.2.1")]);
    assert!(!fault.hopeless && fault.why.contains(&port), "{fault:?}");
}

/// A server that says this to each line it gets, nothing after the last, and closes where it is told.
fn scripted(says: &'static [&'static str], closes: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut bytes = [0; 4096];
        for line in says {
            stream.write_all(line.as_bytes()).expect("a client");
            let _ = stream.read(&mut bytes);
        }
        while !closes && stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    port
}

#[test]
fn a_server_that_hangs_or_closes_is_left_and_tried_again() {
    const HELLO: &[&str] = &["220 x\r\n", "250 x\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"];
    for (says, closes) in
        [(&HELLO[..0], false), (&HELLO[..2], false), (HELLO, false), (HELLO, true)]
    {
        let port = scripted(says, closes).to_string();
        let action = native("mail", &[("host", "127.0.0.1"), ("port", &port), ("timeout", "1s")]);
        let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
        assert!(!fault.hopeless, "{fault:?}");
        assert_eq!(fault.why.contains("too slow"), !closes, "{fault:?}");
    }
}

/// The `sendmail` that a small mail program brings, handing mails to this server.
fn sendmail(folder: &Path, port: u16) -> String {
    let msmtp = ["/usr/bin/msmtp", "/usr/local/bin/msmtp"];
    let msmtp = msmtp.iter().find(|path| Path::new(path).exists());
    let msmtp = msmtp.expect("this test needs `msmtp`: install the package `msmtp`");
    let program = folder.join("sendmail");
    symlink(msmtp, &program).expect("a link");
    let settings = folder.join("msmtprc");
    fs::write(&settings, format!("account default\nhost 127.0.0.1\nport {port}\n"))
        .expect("a file");
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o600)).expect("a file");
    format!("{} --file={}", program.display(), settings.display())
}

#[test]
fn a_real_sendmail_takes_it() {
    let server = Server::smtp("no", "", "", None);
    let folder = tempfile::tempdir().expect("a directory");
    let sendmail = sendmail(folder.path(), server.port);
    let command = format!("{sendmail} -t -i --read-envelope-from");
    let own = [
        ("mailcmd", &*command),
        ("sender", "me@example.com"),
        ("dest", "a@example.com b@example.com"),
    ];
    delivered(
        &native("mail", &[&own[..], &[("matches", "matches")]].concat()),
        &[with(ban(1, "192.0.2.1"), |ticket| {
            ticket.matches = vec![".".into(), "From here".into()]
        })],
    );
    let mail = server.told();
    assert_eq!(
        (&mail["from"], &mail["to"]),
        (&json!("me@example.com"), &json!(["a@example.com", "b@example.com"]))
    );
    assert!(header(&mail, "Subject").contains("banned 192.0.2.1"));
    assert!(body(&mail).contains("\n.\nFrom here\n"), "{mail}");
    drop(server);
    let fault = undelivered(&native("mail", &own), &[ban(1, "192.0.2.1")]);
    // EX_TEMPFAIL or EX_UNAVAILABLE, as it likes.
    assert!(!fault.hopeless && fault.why.contains("returned"), "{fault:?}");
}

#[test]
fn a_program_alone_gets_sendmails_arguments() {
    let folder = tempfile::tempdir().expect("a directory");
    let (program, said) = (folder.path().join("sendmail"), folder.path().join("said"));
    let script = format!("#!/bin/sh\necho \"$@\" > {0}\ncat >> {0}\n", said.display());
    write_program(&program, &script);
    let path = program.to_str().expect("text");
    let action =
        native("mail", &[("mailcmd", path), ("dest", "root"), ("sender", "me@example.com")]);
    delivered(&action, &[ban(1, "192.0.2.1")]);
    let said = fs::read_to_string(said).expect("a mail");
    assert!(said.starts_with("-i -f me@example.com -- root@"), "{said}");
    assert!(!said.contains('\r'), "{said}");

    // Who is left behind and holds its pipes is not waited for.
    write_program(&program, "#!/bin/sh\nsleep 3 &\n");
    let action = native("mail", &[("mailcmd", path), ("timeout", "2s")]);
    delivered(&action, &[ban(1, "192.0.2.1")]);

    for (script, hopeless, why) in [
        ("exit 75", false, "returned 75"),
        ("echo 'no such user' >&2; exit 67", true, "returned 67: no such user"),
        ("sleep 100 & wait", false, "took longer than 1 s"),
        ("kill -9 $$", false, "a signal"),
    ] {
        write_program(&program, &format!("#!/bin/sh\n{script}\n"));
        let action = native("mail", &[("mailcmd", path), ("timeout", "1s")]);
        let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
        assert!(fault.hopeless == hopeless && fault.why.contains(why), "{fault:?}");
    }
    fs::remove_file(&program).expect("a file");
    let fault = undelivered(&native("mail", &[("mailcmd", path)]), &[ban(1, "192.0.2.1")]);
    assert!(!fault.hopeless && fault.why.contains("cannot start"), "{fault:?}");
}

fn write_program(path: &Path, script: &str) {
    // Under its name only when it is closed: what is open for writing cannot be run.
    let draft = path.with_extension("new");
    fs::write(&draft, script).expect("a file");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("a file");
    fs::rename(&draft, path).expect("a file");
}

#[test]
fn whois_is_asked_for_addresses_alone() {
    let server = Server::smtp("no", "", "", None);
    let folder = tempfile::tempdir().expect("a directory");
    let program = folder.path().join("whois");
    write_program(&program, "#!/bin/sh\necho \"owner of $*\"\nyes filler | head -c 1000000\n");
    let path = program.to_str().expect("text");
    let action = to(&server, &[("whois", path)]);
    delivered(&action, &[ban(1, "192.0.2.1")]);
    let mail = server.told();
    assert!(body(&mail).contains("owner of 192.0.2.1\n"), "{mail}");
    assert!(body(&mail).len() < 64 << 10, "{} bytes", body(&mail).len());
    delivered(&action, &[ban(2, "-h evil.example.com")]);
    let mail = server.told();
    assert!(!body(&mail).contains("owner of"), "{mail}");
    // Missing or slow: the mail is sent all the same.
    write_program(&program, "#!/bin/sh\nsleep 100\n");
    delivered(&to(&server, &[("whois", path), ("timeout", "1s")]), &[ban(3, "192.0.2.3")]);
    assert!(body(&server.told()).contains("took longer than 1 s"));
    fs::remove_file(&program).expect("a file");
    delivered(&to(&server, &[("whois", path)]), &[ban(4, "192.0.2.4")]);
    assert!(body(&server.told()).contains("cannot start"));
}
