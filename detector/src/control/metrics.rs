//! `/v1/metrics`: numbers in Prometheus' text format, version 0.0.4, on the control socket and, where configured, on
//! an address of its own.
//!
//! The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
use std::{convert::Infallible, fmt::Write, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request as HttpRequest, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
};

use super::{Asked, Request, wire};

/// What the text is.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Connections to the address at once.
const CONNECTIONS: usize = 16;
/// How long one of them may take.
const LONGEST: Duration = Duration::from_secs(10);
/// After an accept that failed: it would fail again at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Families of samples, written one after another.
#[derive(Debug, Default)]
pub struct Metrics(String);

impl Metrics {
    /// Numbers that only grow, by name, what they count, and their samples.
    pub fn counter(&mut self, name: &str, help: &str) -> Samples<'_> {
        debug_assert!(name.ends_with("_total"));
        self.family(name, "counter", help)
    }

    /// Numbers that go up and down.
    pub fn gauge(&mut self, name: &str, help: &str) -> Samples<'_> {
        self.family(name, "gauge", help)
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) -> Samples<'_> {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP fail2xdp_{name} {}", help.replace('\\', r"\\"));
        let _ = writeln!(self.0, "# TYPE fail2xdp_{name} {kind}");
        Samples { text: &mut self.0, name: format!("fail2xdp_{name}") }
    }

    /// The whole text.
    pub fn text(self) -> String {
        self.0
    }
}

/// One family.
pub struct Samples<'m> {
    text: &'m mut String,
    name: String,
}

impl Samples<'_> {
    /// Adds a sample with these labels.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
        self
    }

    /// Adds the only sample.
    pub fn one(&mut self, value: f64) {
        self.add(&[], value);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Answers `GET /metrics` on a TCP address, until the daemon ends. It has no other path, and asks nobody who they are.
pub async fn serve(listener: TcpListener, owner: mpsc::Sender<Asked>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let owner = owner.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, owner.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that hangs, or breaks off, is no concern of anybody's.
            let _ = tokio::time::timeout(LONGEST, connection).await;
            drop(permit);
        });
    }
}

async fn answer(
    request: HttpRequest<Incoming>,
    owner: mpsc::Sender<Asked>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let status = |code: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = code;
        response
    };
    if !matches!(request.uri().path(), "/metrics" | "/v1/metrics") {
        return Ok(status(StatusCode::NOT_FOUND, "only /metrics is here\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n"));
    }
    let (tell, told) = oneshot::channel();
    let asked = Asked { request: Request::Metrics, answer: tell };
    let text = match owner.send(asked).await {
        Ok(()) => told.await,
        Err(_) => return Ok(status(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping\n")),
    };
    let Ok(Ok(wire::Reply::Metrics(text))) = text else {
        return Ok(status(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping\n"));
    };
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(KIND));
    Ok(response)
}

/// Listens on the address that the configuration names.
///
/// # Errors
/// What the system says.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_written_as_prometheus_reads_it() {
        let mut metrics = Metrics::default();
        metrics
            .counter("jail_bans_total", "Bans made, a \\ in it.")
            .add(&[("jail", "sshd")], 3.0)
            .add(&[("jail", "a \"b\"\\\nc"), ("x", "é")], 0.5);
        metrics.gauge("bans", "Live bans.").one(1e9);
        assert_eq!(
            metrics.text(),
            "# HELP fail2xdp_jail_bans_total Bans made, a \\\\ in it.\n\
             # TYPE fail2xdp_jail_bans_total counter\n\
             fail2xdp_jail_bans_total{jail=\"sshd\"} 3\n\
             fail2xdp_jail_bans_total{jail=\"a \\\"b\\\"\\\\\\nc\",x=\"é\"} 0.5\n\
             # HELP fail2xdp_bans Live bans.\n\
             # TYPE fail2xdp_bans gauge\n\
             fail2xdp_bans 1000000000\n"
        );
    }
}
