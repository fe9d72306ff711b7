//! Real web servers in a namespace, and what a client sees of them.
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use crate::{
    Namespace, Net, SERVER, Site, connect,
    run::{require, run, tool},
    server::PASSWORD,
    wait::until,
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebServer {
    /// nginx.
    Nginx,
    /// Apache 2.4.
    Apache,
}

/// A running web server on ports 80 and 443 (plain HTTP on both) that lets in `alice` with the password
/// `correct horse`; ends on drop.
#[derive(Debug)]
pub struct Web {
    room: PathBuf,
    child: Child,
}

/// The `Authorization` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// None at all, as in a browser's first request.
    None,
    /// alice's password.
    Right,
    /// alice with another password.
    Wrong,
}

impl Web {
    /// Starts one on the server's machine and waits until it answers.
    #[track_caller]
    pub fn start(net: &Net, site: &Site, server: WebServer) -> Web {
        require(&["unshare", "openssl"]);
        let room = site.path("web");
        furnish(&room, server);
        // The servers' workers are nobody, and look into the site.
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        open(&site.path("")).and_then(|()| open(&room)).expect("tests run as root");
        let config = room.join("server.conf").display().to_string();
        let (program, words) = match server {
            WebServer::Nginx => ("nginx", ["-c", &config, "-g", "daemon off;"]),
            WebServer::Apache => ("apache2", ["-f", &config, "-D", "FOREGROUND"]),
        };
        let mut command = net.server.command(tool("unshare"));
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        // Their own /run and /var/log: before they have read their configuration they use the machine's.
        let around = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && \
                      mkdir -p /run/apache2 /var/log/nginx && exec \"$0\" \"$@\"";
        command.args(["--mount-proc", "sh", "-c", around]).arg(tool(program)).args(words);
        let said = fs::File::create(room.join("output")).expect("the room can be written");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut web = Web { room, child };
        web.wait_until_open(&net.server);
        web
    }

    /// Who asked for what, and how it was answered.
    pub fn access_log(&self) -> PathBuf {
        self.room.join("access.log")
    }

    /// What went wrong.
    pub fn error_log(&self) -> PathBuf {
        self.room.join("error.log")
    }

    /// Waits for the port, on the server's own machine so that no wire takes part.
    #[track_caller]
    fn wait_until_open(&mut self, server: &Namespace) {
        until(Duration::from_secs(15), "the web server listens on port 80", || {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                let said = fs::read_to_string(self.room.join("output")).unwrap_or_default();
                panic!("the server ended ({status}): {said}");
            }
            connect(server, SERVER.v4, SocketAddr::new(SERVER.v4, 80), PATIENCE).ok()
        });
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended by itself; its whole process namespace ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for a path and gives the status of the answer; `None` when none comes.
#[track_caller]
pub fn get(
    from: &Namespace,
    source: IpAddr,
    to: SocketAddr,
    path: &str,
    credentials: Credentials,
) -> Option<u16> {
    let authorization = match credentials {
        Credentials::None => "",
        Credentials::Right => "Authorization: Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==\r\n",
        Credentials::Wrong => "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n",
    };
    let mut stream = match connect(from, source, to, PATIENCE) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::TimedOut => return None,
        Err(error) => panic!("{source} to {to}: neither an answer nor silence but: {error}"),
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: www.example.com\r\n{authorization}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the send buffer has room");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
        Err(error) => panic!("{source} to {to}: neither an answer nor silence but: {error}"),
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Some(status.unwrap_or_else(|| panic!("{source} to {to}: no HTTP: {answer}")))
}

/// Writes the page, who may see it, and the configuration.
#[track_caller]
fn furnish(room: &Path, server: WebServer) {
    fs::create_dir_all(room.join("www")).expect("the site can be written");
    let write = |name: &str, text: &str| {
        fs::write(room.join(name), text).expect("the site can be written");
    };
    write("www/index.html", "a page\n");
    write("users", &format!("alice:{}", run("openssl", &["passwd", "-apr1", PASSWORD])));
    let text = match server {
        WebServer::Nginx => include_str!("nginx.conf"),
        WebServer::Apache => include_str!("apache.conf"),
    };
    write("server.conf", &text.replace("ROOM", &room.display().to_string()));
}
