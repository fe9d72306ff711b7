//! Listens, checks who asks, answers.
use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, DefaultBodyLimit, Path as UrlPath, State},
    http::{Request as HttpRequest, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ipnet::IpNet;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
};

use super::{
    AT_ONCE, Asked, Refusal, Request,
    command::{Class, Fault},
    door::{Door, Peer, prefix},
    events,
    limited::{Held, Limited},
    metrics, wire,
};
use crate::config::Value;

/// Who may look, ban and unban without being root.
const GROUP: &str = "fail2xdp";
/// A request's body: about 200,000 addresses.
const BODY: usize = 4 << 20;

/// How long a client may take for a request, from its first byte or the answer before it to its last.
const REQUEST: Duration = Duration::from_secs(10);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers on it.
    #[error("another daemon answers on `{}`: stop it (`fail2xdp stop`), or give this one its own --socket and --pin", .0.display())]
    Taken(PathBuf),
    /// The socket cannot be made there.
    #[error("cannot make the control socket `{}`: name another place with --socket", path.display())]
    Place {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the socket: open to root, and to the group `fail2xdp` where it exists. One that nobody answers on
/// is left from a crash and replaced.
///
/// # Errors
/// When another daemon answers there, or the place cannot be written.
pub async fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let fault = |source| BindError::Place { path: path.to_owned(), source };
    let listener = bind_private(path).await?;
    if let Some(group) = group_id(GROUP) {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(fault)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fault)?;
    }
    Ok(listener)
}

/// The same for nobody but who runs the daemon.
pub(super) async fn bind_private(path: &Path) -> Result<UnixListener, BindError> {
    let fault = |source| BindError::Place { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    match UnixStream::connect(path).await {
        Ok(_) => return Err(BindError::Taken(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(fault)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fault(error)),
    }
    // Nobody may connect between `bind` and the change of mode.
    let before = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound.map_err(fault)
}

/// The number of a group in /etc/group (group(5)).
fn group_id(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Refusal::NoSuchJail(_) | Refusal::Command(Fault { class: Class::UnknownJail, .. }) => {
                StatusCode::NOT_FOUND
            }
            Refusal::Invalid(_) | Refusal::Command(_) => StatusCode::BAD_REQUEST,
            Refusal::RootOnly => StatusCode::FORBIDDEN,
            Refusal::Failed(_) => StatusCode::CONFLICT,
        };
        let error = self.to_string();
        let (class, text) = match self {
            Refusal::Command(Fault { class, text }) => {
                (Some(class.python().1.to_owned()), Some(text))
            }
            _ => (None, None),
        };
        (status, Json(wire::Failure { error, class, text })).into_response()
    }
}

type Answer = Result<Json<wire::Reply>, Refusal>;
type Caller = ConnectInfo<Peer>;

/// Answers until the listener fails or the other end of `closed` is dropped; answers that are on their way then
/// are still written.
///
/// # Errors
/// When the socket cannot be served any longer.
pub async fn serve(
    listener: UnixListener,
    owner: mpsc::Sender<Asked>,
    closed: oneshot::Receiver<()>,
) -> io::Result<()> {
    let fixed = |request: Request| {
        move |State(door): State<Door>, ConnectInfo(peer): Caller| async move {
            door.ask(peer, request).await.map(Json)
        }
    };
    let routes = Router::new()
        .route("/v1/ping", get(fixed(Request::Ping)))
        .route("/v1/status", get(fixed(Request::Status)))
        .route("/v1/jails", get(fixed(Request::Jails)))
        .route("/v1/jails/{name}", get(jail))
        .route("/v1/events", get(events))
        .route("/v1/metrics", get(metrics))
        .route("/v1/bans", get(fixed(Request::Bans)).post(ban))
        .route("/v1/top", get(fixed(Request::Top)))
        .route("/v1/explain/{*address}", get(explain))
        .route("/v1/banned", get(fixed(Request::Banned)))
        .route("/v1/unban", post(unban))
        .route("/v1/reload", post(fixed(Request::Reload)))
        .route("/v1/confirm", post(fixed(Request::Confirm)))
        .route("/v1/stop", post(fixed(Request::Stop)))
        .route("/v1/detach", post(fixed(Request::Detach)))
        .route("/v1/command", post(command))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(whole))
        .with_state(Door::new(owner));
    let mut closed = std::pin::pin!(closed);
    let mut listener = Limited::new(listener);
    let (stop, stopped) = watch::channel(());
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            _ = &mut closed => break,
        };
        let peer = Peer::of(&connection.stream);
        let routes = routes.clone().layer(Extension(ConnectInfo(peer)));
        tokio::spawn(converse(connection, routes, stopped.clone()));
    }
    // Answers that are on their way are still written.
    drop(stopped);
    stop.send_replace(());
    stop.closed().await;
    Ok(())
}

/// One connection, until the client or the daemon ends it. Who takes longer than [`REQUEST`] to ask is cut off, so that
/// nobody holds a place by saying nothing; who listens to events may be silent.
async fn converse(connection: Held, routes: Router, mut stopped: watch::Receiver<()>) {
    let service = TowerToHyperService::new(routes);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .serve_connection(TokioIo::new(connection), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // A client that breaks off is no concern of anybody's.
        _ = &mut served => {}
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

/// Reads the body before anything else is done, and no longer than [`REQUEST`].
async fn whole(request: HttpRequest<Body>, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(REQUEST, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => next.run(HttpRequest::from_parts(head, body.into())).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

async fn jail(
    State(door): State<Door>,
    ConnectInfo(peer): Caller,
    UrlPath(name): UrlPath<String>,
) -> Answer {
    door.ask(peer, Request::Jail(name)).await.map(Json)
}

async fn events(State(door): State<Door>, ConnectInfo(peer): Caller) -> Result<Response, Refusal> {
    let (listener, lines) = events::pair();
    door.ask(peer, Request::Events(listener)).await?;
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::new(lines)).into_response())
}

async fn metrics(State(door): State<Door>, ConnectInfo(peer): Caller) -> Result<Response, Refusal> {
    match door.ask(peer, Request::Metrics).await? {
        wire::Reply::Metrics(text) => Ok(([(CONTENT_TYPE, metrics::KIND)], text).into_response()),
        other => Ok(Json(other).into_response()),
    }
}

async fn explain(
    State(door): State<Door>,
    ConnectInfo(peer): Caller,
    UrlPath(address): UrlPath<String>,
) -> Answer {
    door.ask(peer, Request::Explain(parse_one(&address)?)).await.map(Json)
}

async fn ban(
    State(door): State<Door>,
    ConnectInfo(peer): Caller,
    Json(order): Json<wire::BanOrder>,
) -> Answer {
    let mut banned = 0;
    for prefixes in parse(&order.prefixes)?.chunks(AT_ONCE) {
        let (prefixes, jail) = (prefixes.to_vec(), order.jail.clone());
        let request = Request::Ban { prefixes, jail, seconds: order.seconds, force: order.force };
        if let wire::Reply::Made(made) = door.ask(peer, request).await? {
            banned += made.banned;
        }
    }
    Ok(Json(wire::Reply::Made(wire::BansMade { banned })))
}

async fn unban(
    State(door): State<Door>,
    ConnectInfo(peer): Caller,
    Json(order): Json<wire::UnbanOrder>,
) -> Answer {
    if order.all {
        return door.ask(peer, Request::UnbanAll { jail: order.jail }).await.map(Json);
    }
    let mut lifted = 0;
    for prefixes in parse(&order.prefixes)?.chunks(AT_ONCE) {
        let request = Request::Unban { prefixes: prefixes.to_vec(), jail: order.jail.clone() };
        if let wire::Reply::Lifted(done) = door.ask(peer, request).await? {
            lifted += done.lifted;
        }
    }
    Ok(Json(wire::Reply::Lifted(wire::BansLifted { lifted })))
}

async fn command(
    State(door): State<Door>,
    ConnectInfo(peer): Caller,
    Json(order): Json<wire::CommandOrder>,
) -> Result<Json<wire::CommandAnswer>, Refusal> {
    let words: Vec<Value> = order.words.into_iter().map(Value::from).collect();
    Ok(Json(wire::CommandAnswer { value: door.command(peer, &words).await? }))
}

/// Reads a list of addresses and networks whole before any of it is carried out.
fn parse(prefixes: &[String]) -> Result<Vec<IpNet>, Refusal> {
    if prefixes.is_empty() {
        return Err(Refusal::Invalid("no address given".into()));
    }
    prefixes.iter().map(|text| parse_one(text)).collect()
}

fn parse_one(text: &str) -> Result<IpNet, Refusal> {
    prefix(text).ok_or_else(|| {
        Refusal::Invalid(format!(
            "`{text}` is no address: write 192.0.2.1, 2001:db8::1 or a network such as 192.0.2.0/24"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_address_refuses_the_whole_list() {
        let refused =
            parse(&["192.0.2.1".into(), "999.1.1.1".into()]).expect_err("999.1.1.1 is none");
        assert!(refused.to_string().contains("`999.1.1.1` is no address"), "{refused}");
    }
}
