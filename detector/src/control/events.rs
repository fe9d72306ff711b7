//! `/v1/events`: what happens, as it happens, one JSON object a line.
//!
//! Nobody waits for a client: each has a queue of its own, and what finds it full is lost to that client, which is
//! told how much as soon as there is room.
use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::HttpBody;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use super::Refusal;

/// Clients that listen at once.
pub const CLIENTS: usize = 16;
/// Events that wait for one client.
pub const WAITING: usize = 4096;

/// The way to one client.
#[derive(Clone, Debug)]
pub struct Listener(Sender<Bytes>);

impl PartialEq for Listener {
    fn eq(&self, other: &Listener) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Listener {}

/// A client's end: the body of its answer.
#[derive(Debug)]
pub struct Lines(Receiver<Bytes>);

/// Makes both ends.
pub fn pair() -> (Listener, Lines) {
    let (sender, receiver) = channel(WAITING);
    (Listener(sender), Lines(receiver))
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[derive(Debug)]
struct Client {
    to: Listener,
    /// Events that found its queue full and that it was not told of.
    lost: u64,
}

/// Everybody who listens.
#[derive(Debug, Default)]
pub struct Events {
    clients: Vec<Client>,
    lost: u64,
}

impl Events {
    /// One more listens.
    ///
    /// # Errors
    /// [`Refusal::Failed`] when [`CLIENTS`] do already.
    pub fn subscribe(&mut self, listener: Listener) -> Result<(), Refusal> {
        self.forget_gone();
        if self.clients.len() >= CLIENTS {
            return Err(Refusal::Failed(format!("{CLIENTS} clients listen to events already")));
        }
        self.clients.push(Client { to: listener, lost: 0 });
        Ok(())
    }

    /// Whether anybody listens, so that an event is worth making.
    pub fn are_wanted(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Tells everybody.
    pub fn tell(&mut self, event: &Value) {
        let line = line(event);
        for client in &mut self.clients {
            client.tell(&line, &mut self.lost);
        }
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        self.clients.retain(|client| !client.to.0.is_closed());
    }

    /// How many listen.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Events that wait, of the client with the most.
    pub fn waiting(&self) -> usize {
        let waiting = |client: &Client| WAITING - client.to.0.capacity();
        self.clients.iter().map(waiting).max().unwrap_or(0)
    }

    /// Events that clients lost, since the start.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Client {
    fn tell(&mut self, line: &Bytes, lost: &mut u64) {
        if self.lost > 0 {
            let gap = json!({ "event": "lost", "count": self.lost });
            match self.to.0.try_send(self::line(&gap)) {
                Ok(()) => self.lost = 0,
                Err(_) => {
                    self.lost += 1;
                    *lost += 1;
                    return;
                }
            }
        }
        if let Err(TrySendError::Full(_)) = self.to.0.try_send(line.clone()) {
            self.lost += 1;
            *lost += 1;
        }
    }
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(lines: &mut Lines) -> Vec<String> {
        let mut texts = Vec::new();
        while let Ok(line) = lines.0.try_recv() {
            texts.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        texts
    }

    #[test]
    fn a_slow_client_loses_events_and_is_told_how_many_the_others_none() {
        let mut events = Events::default();
        assert!(!events.are_wanted());
        let (slow, mut slow_lines) = pair();
        let (quick, mut quick_lines) = pair();
        events.subscribe(slow).expect("room for one");
        events.subscribe(quick).expect("room for two");
        let mut got = 0;
        for nth in 0..WAITING + 10 {
            events.tell(&json!({ "nth": nth }));
            got += received(&mut quick_lines).len();
        }
        assert_eq!((got, events.lost(), events.waiting()), (WAITING + 10, 10, WAITING));
        assert_eq!(received(&mut slow_lines).len(), WAITING);
        events.tell(&json!({ "nth": "last" }));
        assert_eq!(
            received(&mut slow_lines),
            [r#"{"count":10,"event":"lost"}"#, r#"{"nth":"last"}"#]
        );
        drop(slow_lines);
        events.tell(&json!({}));
        assert_eq!(events.clients(), 1, "who is gone is forgotten");
    }

    #[test]
    fn so_many_listen_and_no_more() {
        let mut events = Events::default();
        let ends: Vec<Lines> = (0..CLIENTS)
            .map(|_| {
                let (listener, lines) = pair();
                events.subscribe(listener).expect("room");
                lines
            })
            .collect();
        assert!(events.subscribe(pair().0).is_err());
        drop(ends);
        assert!(events.subscribe(pair().0).is_ok(), "those are gone");
    }
}
