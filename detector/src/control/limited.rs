//! A listener that holds a bounded number of connections; more wait until one is closed.
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections at once, streams of events among them.
pub(super) const CONNECTIONS: usize = 1024;

/// The listener.
pub(super) struct Limited {
    listener: UnixListener,
    room: Arc<Semaphore>,
}

impl Limited {
    pub fn new(listener: UnixListener) -> Limited {
        Limited { listener, room: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

/// A connection, and its place among those that may be.
pub(super) struct Held {
    pub stream: UnixStream,
    _place: Option<OwnedSemaphorePermit>,
}

impl Limited {
    /// The next connection, as soon as there is one and room for it.
    pub async fn accept(&mut self) -> Held {
        // Nobody closes the semaphore.
        let _place = self.room.clone().acquire_owned().await.ok();
        // Waits where descriptors are short.
        let (stream, _) = Listener::accept(&mut self.listener).await;
        Held { stream, _place }
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
