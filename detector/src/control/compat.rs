//! fail2ban's own socket: pickled commands, each ended by a mark, one answer for each. For clients made for fail2ban;
//! root alone may use it.
use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{
    Asked,
    command::Fault,
    door::{Door, Peer},
    pickle,
    server::{BindError, bind_private},
};
use crate::config::Value;

/// Ends a message.
const END: &[u8] = b"<F2B_END_COMMAND>";
/// Says that no more will come.
const CLOSE: &[u8] = b"<F2B_CLOSE_COMMAND>";
/// Connections at once; more wait until one is closed.
const CONNECTIONS: usize = 256;
/// A client that sends nothing whole for so long is gone.
const WAIT: Duration = Duration::from_secs(10);
/// What is read and thrown away behind a message that cannot be read: so long, and so many bytes.
const DRAIN: Duration = Duration::from_secs(2);
const MOST_DRAINED: usize = 64 << 20;
/// Bytes read at once.
const BLOCK: usize = 16 << 10;

/// Makes the socket, for root alone.
///
/// # Errors
/// When somebody answers there, or the place cannot be written.
pub async fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let listener = bind_private(path).await?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private)
        .map_err(|source| BindError::Place { path: path.to_owned(), source })?;
    Ok(listener)
}

/// Answers until the listener fails or the other end of `closed` is dropped; answers that are on their way then are
/// still written.
///
/// # Errors
/// When the socket cannot be served any longer.
pub async fn serve(
    listener: UnixListener,
    owner: mpsc::Sender<Asked>,
    mut closed: oneshot::Receiver<()>,
) -> io::Result<()> {
    let door = Door::new(owner);
    let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    let (end, ending) = tokio::sync::watch::channel(());
    let mut clients = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit.map_err(io::Error::other)?,
            _ = &mut closed => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: those that are open go on, and close.
                    tracing::error!("fail2ban's socket takes no connection: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            },
            _ = &mut closed => break,
        };
        while clients.try_join_next().is_some() {}
        let (door, mut ending) = (door.clone(), ending.clone());
        clients.spawn(async move {
            let _permit = permit;
            // A client that breaks off has no more to be told.
            let _ = talk(stream, &door, &mut ending).await;
        });
    }
    drop(end);
    while clients.join_next().await.is_some() {}
    Ok(())
}

type Ending = tokio::sync::watch::Receiver<()>;

async fn talk(mut stream: UnixStream, door: &Door, ending: &mut Ending) -> io::Result<()> {
    let peer = Peer::of(&stream);
    let mut buffer = Vec::new();
    loop {
        let message = tokio::select! {
            message = timeout(WAIT, message(&mut stream, &mut buffer)) => message,
            _ = ending.changed() => return Ok(()),
        };
        let Ok(message) = message else {
            return send(&mut stream, &error("no whole command came in time")).await;
        };
        let answer = match message? {
            None => return Ok(()),
            Some(message) if message == CLOSE => return Ok(()),
            Some(_) if !peer.full => Ok(Err(Fault::plain("only root may use this socket"))),
            Some(message) => match pickle::read(&message) {
                Ok(command) => Ok(carry_out(door, peer, command).await),
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok(answer) => send(&mut stream, &pickle::answer(&answer)).await?,
            // What comes after a message that is none cannot be told from it.
            Err(wrong) => {
                send(&mut stream, &error(wrong)).await?;
                return drain(stream).await;
            }
        }
    }
}

async fn carry_out(door: &Door, peer: Peer, command: Value) -> Result<Value, Fault> {
    match command {
        Value::List(words) | Value::Tuple(words) => Ok(door.command(peer, &words).await?),
        _ => Err(Fault::plain("Invalid command")),
    }
}

/// What fail2ban's server says of a message that it cannot read.
fn error(wrong: impl std::fmt::Display) -> Vec<u8> {
    pickle::message(&Value::Text(format!("ERROR: {wrong}")))
}

/// The next message without its mark; `None` when no more comes. One that is too long is cut short, and read no
/// further.
async fn message(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut seen: usize = 0;
    loop {
        // The mark may have come in two pieces.
        let from = seen.saturating_sub(END.len());
        if let Some(at) = memchr::memmem::find(&buffer[from..], END) {
            let rest = buffer.split_off(from + at + END.len());
            let mut message = std::mem::replace(buffer, rest);
            message.truncate(from + at);
            return Ok(Some(message));
        }
        if buffer.len() > pickle::MAX_MESSAGE {
            return Ok(Some(std::mem::take(buffer)));
        }
        seen = buffer.len();
        buffer.reserve(BLOCK);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads on for a while what is thrown away: a client that is still writing would lose our answer otherwise.
async fn drain(mut stream: UnixStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut block = [0; BLOCK];
    let rest = async {
        let mut read = 0;
        while read < MOST_DRAINED {
            match stream.read(&mut block).await? {
                0 => break,
                more => read += more,
            }
        }
        Ok(())
    };
    timeout(DRAIN, rest).await.unwrap_or(Ok(()))
}

async fn send(stream: &mut UnixStream, answer: &[u8]) -> io::Result<()> {
    let write = async {
        stream.write_all(answer).await?;
        stream.write_all(END).await
    };
    timeout(WAIT, write).await.map_err(io::Error::from)?
}
