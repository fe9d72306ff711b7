//! The other end of the socket: one request, one answer.
use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Full};
use hyper::{Method, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{
    command::{Class, Fault},
    wire,
};
use crate::config::Value;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No socket there.
    #[error("Failed to access socket path: {}. Is fail2xdp running?", .0.display())]
    NoSocket(PathBuf),
    /// A socket, and nobody behind it.
    #[error("Unable to contact server at {}. Is it running?", .0.display())]
    NobodyThere(PathBuf),
    /// Not for this user.
    #[error("Permission denied to socket: {}, (you must be root or in the group fail2xdp)", .0.display())]
    Denied(PathBuf),
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
    /// The connection broke, or the answer makes no sense.
    #[error("no usable answer from the daemon: {0}")]
    Broken(String),
}

/// Sends one request and reads the answer. A daemon that works on something long is waited for.
///
/// # Errors
/// When nobody answers, or the answer is a refusal.
pub async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: &impl serde::Serialize,
) -> Result<serde_json::Value, CallError> {
    let (status, text) = exchange(socket, method, path, body).await?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&text).map_err(|error| broken(&error));
    }
    match serde_json::from_slice::<wire::Failure>(&text) {
        Ok(failure) => Err(CallError::Refused(failure.error)),
        Err(_) => Err(CallError::Refused(String::from_utf8_lossy(&text).into_owned())),
    }
}

/// Sends one of fail2ban's commands; what the daemon refuses is an answer, too.
///
/// # Errors
/// When nobody answers.
pub async fn command(socket: &Path, words: &[String]) -> Result<Result<Value, Fault>, CallError> {
    let words = words.iter().map(|word| word.as_str().into()).collect();
    let order = wire::CommandOrder { words };
    let (status, text) = exchange(socket, Method::POST, "/v1/command", &order).await?;
    let mut answer: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| broken(&error))?;
    if status == StatusCode::OK {
        return Ok(Ok(answer["value"].take().into()));
    }
    let failure: wire::Failure = serde_json::from_value(answer).map_err(|error| broken(&error))?;
    let class = failure.class.as_deref().map_or(Class::Exception, Class::named);
    Ok(Err(Fault::new(class, failure.text.unwrap_or(failure.error))))
}

fn broken(error: &dyn std::fmt::Display) -> CallError {
    CallError::Broken(error.to_string())
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: &impl serde::Serialize,
) -> Result<(StatusCode, Bytes), CallError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CallError::NoSocket(socket.to_owned()),
        io::ErrorKind::PermissionDenied => CallError::Denied(socket.to_owned()),
        _ => CallError::NobodyThere(socket.to_owned()),
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    tokio::spawn(connection);
    let body = serde_json::to_vec(body).map_err(|error| broken(&error))?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "fail2xdp")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| broken(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = answer.status();
    let text = answer.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
    Ok((status, text))
}
