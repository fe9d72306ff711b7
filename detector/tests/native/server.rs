//! Servers on loopback, and what their clients told them.
use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use fail2xdp::{
    action::{
        native::{Undelivered, deliver},
        wire::{Counts, Kind, Task, Ticket},
    },
    config::{Native, Secret},
};
use serde_json::{Value, json};

/// A server of ours, ended with the test.
pub struct Server {
    child: Child,
    said: Receiver<String>,
    pub port: u16,
}

impl Server {
    fn start(script: &str, arguments: &[&str]) -> Server {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native").join(script);
        let mut child = Command::new("/usr/bin/python3")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(script)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs `/usr/bin/python3`: install the package `python3`");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("text");
        let Ok(port) = line.trim().parse() else {
            let mut error = String::new();
            let _ = child.stderr.take().expect("a pipe").read_to_string(&mut error);
            panic!("this test needs the package `python3-aiosmtpd` for mail: install it: {error}");
        };
        let (tell, told) = channel();
        // Always read: a server that waits for us answers nobody.
        thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|it| tell.send(it)));
        Server { child, said: told, port }
    }

    /// A web server that answers these, the last one for ever.
    pub fn http(answers: &Value) -> Server {
        Server::start("http_server.py", &[&answers.to_string()])
    }

    /// The same with TLS.
    pub fn https(answers: &Value, certificate: &Certificate) -> Server {
        let answers = answers.to_string();
        Server::start("http_server.py", &[&answers, certificate.pem(), certificate.key()])
    }

    /// A mail server; `tls` is `no`, `starttls` or `tls`.
    pub fn smtp(
        tls: &str,
        user: &str,
        password: &str,
        certificate: Option<&Certificate>,
    ) -> Server {
        let (pem, key) = certificate.map_or(("", ""), |it| (it.pem(), it.key()));
        Server::start("smtp_server.py", &[tls, user, password, pem, key])
    }

    /// The next thing that it was told: it has been, so nobody waits.
    pub fn told(&self) -> Value {
        let line = self.said.recv_timeout(Duration::from_secs(30)).expect("it was told something");
        serde_json::from_str(&line).expect("JSON")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate for `localhost` that nobody but the test trusts.
pub struct Certificate {
    _folder: tempfile::TempDir,
    pem: PathBuf,
    key: PathBuf,
}

impl Certificate {
    pub fn make() -> Certificate {
        let folder = tempfile::tempdir().expect("a directory");
        let (pem, key) = (folder.path().join("pem"), folder.path().join("key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&pem)
            .arg("-keyout")
            .arg(&key)
            .output()
            .expect("this test needs `openssl`: install the package `openssl`");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Certificate { _folder: folder, pem, key }
    }

    pub fn pem(&self) -> &str {
        self.pem.to_str().expect("text")
    }

    fn key(&self) -> &str {
        self.key.to_str().expect("text")
    }
}

/// A native action of these parameters.
#[track_caller]
pub fn native(name: &str, parameters: &[(&str, &str)]) -> Native {
    let written = parameters.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
    match Native::read(name, written.collect()) {
        (Some(native), faults) if faults.is_empty() => native,
        (_, faults) => panic!("{faults:?}"),
    }
}

/// Something that happened in jail `sshd` to 203.0.113.9.
pub fn task(seq: u64, kind: Kind) -> Task {
    let ticket = Ticket {
        id: "203.0.113.9".into(),
        failures: 5,
        time: 1_790_000_000.0,
        ban_time: 600,
        ban_count: 1,
        matches: vec!["Failed password for root from 203.0.113.9".into()],
        ..Ticket::default()
    };
    let is_of_nobody = matches!(kind, Kind::Start | Kind::Stop);
    Task {
        seq,
        jail: "sshd".into(),
        action: "tell".into(),
        kind,
        at: 1_790_000_001.5,
        counts: Counts::default(),
        ticket: (!is_of_nobody).then(|| Box::new(ticket)),
    }
}

/// A ban of this address.
pub fn ban(seq: u64, id: &str) -> Task {
    let mut task = task(seq, Kind::Ban);
    let ticket = task.ticket.as_mut().expect("somebody");
    ticket.id = id.into();
    task
}

/// The same changed.
pub fn with(mut task: Task, change: impl FnOnce(&mut Ticket)) -> Task {
    change(task.ticket.as_mut().expect("somebody"));
    task
}

#[track_caller]
pub fn delivered(native: &Native, tasks: &[Task]) {
    assert_eq!(deliver(native, tasks), Ok(()));
}

#[track_caller]
pub fn undelivered(native: &Native, tasks: &[Task]) -> Undelivered {
    deliver(native, tasks).expect_err("a delivery that fails")
}

/// The machine's name, as a mail shows it.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Taken, whatever was said.
pub fn fine() -> Value {
    json!([{ "status": 200 }])
}
