//! Promise: whatever arrives on the sockets has a clear answer, and neither the daemon nor detection waits for it.
use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use fail2xdp_tests::{Daemon, Fail2ban, Log, binary, run, tool};
use tempfile::TempDir;

/// Ends a message of fail2ban's protocol.
const END: &[u8] = b"<F2B_END_COMMAND>";
/// `["ping"]` and `["status", "one"]`, as Python pickles them.
const PING: &[u8] = b"\x80\x04\x95\x0c\0\0\0\0\0\0\0]\x94\x8c\x04ping\x94a.";
const STATUS: &[u8] = b"\x80\x04\x95\x14\0\0\0\0\0\0\0]\x94(\x8c\x06status\x94\x8c\x03one\x94e.";

/// Long enough for any answer, also on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A daemon with one jail and both sockets.
struct Bench {
    place: TempDir,
    daemon: Daemon,
}

impl Bench {
    #[track_caller]
    fn start() -> Bench {
        let place = tempfile::Builder::new().prefix("f2x-bad-").tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        fs::write(at("one.log"), "").expect("a log");
        let log = at("one.log").display().to_string();
        let jail = format!(
            "[one]\nenabled = true\nfilter = sshd\nlogpath = {log}\nmaxretry = 1\naction = none\n"
        );
        Fail2ban::configure(place.path(), &jail);
        fs::write(at("etc/action.d/none.conf"), "[Definition]\nactionban = true\n")
            .expect("a file");
        let compat = "[Definition]\ncompat-socket = yes\nlogtarget = STDERR\n";
        fs::write(at("etc/fail2xdp.conf"), compat).expect("a file");
        let mut daemon = Command::new(binary());
        daemon.args(["run", "--mode", "none", "--config"]).arg(at("etc"));
        daemon.arg("--socket").arg(at("control")).arg("--state").arg(at("state"));
        let daemon = Daemon::start(daemon);
        Bench { place, daemon }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn connect(&self, socket: &str) -> UnixStream {
        let stream = UnixStream::connect(self.at(socket)).expect("the daemon listens");
        stream.set_read_timeout(Some(SOON)).expect("a time");
        stream
    }

    /// Sends this and reads until the daemon closes, or sends the end mark.
    #[track_caller]
    fn say(&self, socket: &str, parts: &[&[u8]]) -> String {
        let mut stream = self.connect(socket);
        for part in parts {
            // Who is refused may be refused before all is said.
            if stream.write_all(part).is_err() {
                break;
            }
        }
        answer(&mut stream)
    }

    /// It lives, and answers at once.
    #[track_caller]
    fn lives(&self) {
        let start = Instant::now();
        assert!(self.say("sock", &[PING, END]).contains("pong"));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    /// From a line in the log to its ban in the daemon's words.
    #[track_caller]
    fn detects(&mut self, log: &mut Log, address: &str) -> Duration {
        let start = Instant::now();
        log.wrong_password(address.parse().expect("it is an address"));
        self.daemon.wait_for_line(&format!("Ban {address}"), SOON);
        start.elapsed()
    }

    fn control(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--socket").arg(self.at("control")).args(words);
        command
    }
}

fn answer(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let mut block = [0; 4096];
    while !answer.ends_with(END) {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&block[..read]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_no_command_has_a_clear_answer() {
    let bench = Bench::start();
    let deep = [vec![b']'; 100], vec![b'a'; 99], vec![b'.']].concat();
    let bomb =
        [b"(X\0\0\x08\0".as_slice(), &vec![b'x'; 1 << 19], b"q\0", &b"h\0".repeat(9000), b"l."]
            .concat();
    let long = vec![b'x'; 10 << 20];
    let cases: [(&[u8], &str); 9] = [
        (b"nonsense", "ERROR: opcode"),
        (b"", "ERROR: the message is cut short"),
        (b"\x80\x04]", "ERROR: the message is cut short"),
        (b"cos\nsystem\n(S'touch /tmp/x'\ntR.", "only plain data"),
        (&deep, "lists in one another"),
        (&bomb, "the values take more than"),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", "ERROR: "),
        (b"I1\n.", "Invalid command"),
        (b"].", "list index out of range"),
    ];
    for (message, expect) in cases {
        let said = bench.say("sock", &[message, END]);
        assert!(
            said.contains(expect),
            "{}: {said}",
            String::from_utf8_lossy(&message[..message.len().min(40)])
        );
    }
    let said = bench.say("sock", &[&long, END]);
    assert!(said.contains("longer than 1048576 bytes"), "10 MB: {said}");
    // Two commands behind one another have two answers; half a command has none.
    let mut stream = bench.connect("sock");
    stream.write_all(&[PING, END, STATUS, END, &PING[..9]].concat()).expect("it listens");
    assert!(answer(&mut stream).contains("pong"));
    assert!(answer(&mut stream).contains("Currently failed"));
    stream.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(answer(&mut stream), "");
    // The control socket.
    let http = |body: &str| {
        let request = format!(
            "POST /v1/command HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        bench.say("control", &[request.as_bytes()])
    };
    for (body, expect) in [
        ("{\"words\": [\"nonsense\"]}", "Invalid command"),
        ("{\"words\": []}", "Sorry but the command is invalid"),
        ("{\"words\": \"status\"}", "422"),
        ("{\"words\"", "400"),
        (&format!("{{\"words\": [\"{}\"]}}", "x".repeat(10 << 20)), "413"),
        ("{\"words\": [\"get\", \"one\", \"maxretry\"]}", "{\"value\":1}"),
    ] {
        let said = http(body);
        assert!(said.contains(expect), "{}: {said}", &body[..body.len().min(60)]);
    }
    bench.lives();
}

#[test]
fn two_hundred_clients_slow_nothing() {
    let mut bench = Bench::start();
    let mut log = Log::open(bench.at("one.log"));
    bench.daemon.wait_for_line("following", SOON);
    let quiet = (1..=5).map(|nth| bench.detects(&mut log, &format!("192.0.2.{nth}")));
    let quiet = quiet.max().expect("five");
    // Half of them hang in the middle of a command, on either socket; half ask as fast as they are answered.
    let hanging: Vec<UnixStream> = (0..100)
        .map(|nth| {
            let (socket, half): (_, &[u8]) = match nth % 2 {
                0 => ("sock", &STATUS[..10]),
                _ => ("control", b"POST /v1/command HTTP/1.1\r\ncontent-length: 50\r\n\r\n{"),
            };
            let mut stream = bench.connect(socket);
            stream.write_all(half).expect("it listens");
            stream
        })
        .collect();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let socket = bench.at("sock");
    let loud = thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut stream = UnixStream::connect(&socket).expect("it listens");
                stream.set_read_timeout(Some(SOON)).expect("a time");
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&[STATUS, END].concat()).expect("it listens");
                    assert!(answer(&mut stream).contains("Currently failed"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let loud = (6..=45).map(|nth| bench.detects(&mut log, &format!("192.0.2.{nth}"))).max();
        bench.lives();
        stop.store(true, Ordering::Relaxed);
        loud.expect("forty")
    });
    let answered = answered.load(Ordering::Relaxed);
    println!("detection: {quiet:?} quiet, {loud:?} with {answered} answers meanwhile");
    assert!(answered > 200, "{answered}");
    assert!(loud < quiet * 3 + Duration::from_millis(300), "quiet {quiet:?}, loud {loud:?}");
    drop(hanging);
    bench.lives();
}

#[test]
fn a_client_that_hangs_is_let_go() {
    let bench = Bench::start();
    let mut stream = bench.connect("sock");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    stream.write_all(&STATUS[..10]).expect("it listens");
    // Who says nothing, half a head, or half a body, to our own socket.
    let says: [&[u8]; 3] = [
        b"",
        b"GET /v1/ping HTTP/1.1\r\nHost:",
        b"POST /v1/bans HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{",
    ];
    let mut hanging = says.map(|half| {
        let mut stream = bench.connect("control");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
        stream.write_all(half).expect("it listens");
        stream
    });
    assert!(answer(&mut stream).contains("no whole command came in time"));
    for stream in &mut hanging {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the daemon closes it");
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
    bench.lives();
}

#[test]
fn other_users_are_refused() {
    let bench = Bench::start();
    let mode = |name: &str| bench.at(name).metadata().expect("it is there").permissions().mode();
    assert_eq!(mode("sock") & 0o777, 0o600);
    // As if the modes were wrong: who asks is known all the same.
    for (name, mode) in [("", 0o755), ("sock", 0o666), ("control", 0o666)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(bench.at(name), mode).expect("it is ours");
    }
    let copy = bench.at("fail2xdp");
    run("cp", &[&binary().to_string_lossy(), &copy.to_string_lossy()]);
    let nobody = |program: &std::ffi::OsStr, words: &[&str]| {
        let mut command = Command::new(tool("setpriv"));
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        let output = command.arg(program).args(words).output().expect("setpriv runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let ask = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect({:?}); s.sendall({}); print(s.recv(999))",
        bench.at("sock").display().to_string(),
        "b']X\\x04\\0\\0\\0pinga.<F2B_END_COMMAND>'"
    );
    let said = nobody("/usr/bin/python3".as_ref(), &["-c", &ask]);
    assert!(said.contains("only root may use this socket"), "{said}");
    let control = bench.at("control").display().to_string();
    let words = |words: &[&'static str]| {
        nobody(copy.as_os_str(), &[&["--socket", control.as_str()], words].concat())
    };
    assert_eq!(words(&["get", "one", "maxretry"]), "1\n");
    assert_eq!(words(&["set", "one", "banip", "192.0.2.1"]), "1\n");
    for command in [
        &["set", "one", "addlogpath", "/etc/shadow"][..],
        &["set", "one", "bantime", "1"],
        &["set", "logtarget", "/tmp/x"],
        &["stop", "one"],
        &["reload", "one"],
        &["get", "one", "action", "none", "actionban"],
    ] {
        let said = words(command);
        assert!(said.contains("only root may do this"), "{command:?}: {said}");
    }
    assert!(bench.control(&["status", "one"]).output().expect("it starts").status.success());
}
