//! The control socket: HTTP with JSON under `/v1/` on a Unix socket.
//!
//! The server knows nothing of jails or maps: it checks who asks, turns a request into a [`Request`],
//! hands it to the one task that owns the answers, and writes what comes back. `curl --unix-socket` works.
pub mod client;
pub mod command;
mod compat;
mod door;
pub mod events;
pub mod explained;
mod limited;
pub mod metrics;
mod pickle;
mod server;
pub mod wire;

pub use compat::{bind as bind_compat, serve as serve_compat};
use ipnet::IpNet;
pub use pickle::{MAX_MESSAGE, PickleError, message, read as read_pickle};
pub use server::{BindError, bind, serve};
use tokio::sync::oneshot;

use self::command::{Command, Fault};

/// Prefixes handed to the answering task in one request; a longer list comes in several, so that a new
/// finding never waits for it.
pub const AT_ONCE: usize = 256;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `GET /v1/ping`
    Ping,
    /// `GET /v1/status`
    Status,
    /// `GET /v1/jails`
    Jails,
    /// `GET /v1/jails/NAME`
    Jail(String),
    /// `GET /v1/metrics`
    Metrics,
    /// `GET /v1/events`: this one listens from now on.
    Events(events::Listener),
    /// `GET /v1/bans`
    Bans,
    /// `GET /v1/top`: what a live view shows.
    Top,
    /// `GET /v1/explain/ADDRESS`: an address, or a network.
    Explain(IpNet),
    /// `GET /v1/banned`: who is banned, by jail.
    Banned,
    /// `POST /v1/bans`
    Ban {
        /// Whom, at most [`AT_ONCE`].
        prefixes: Vec<IpNet>,
        /// On behalf of this jail; `None`: by hand, every packet.
        jail: Option<String>,
        /// For so many seconds, -1 for ever; `None`: the jail's `bantime`.
        seconds: Option<i64>,
        /// Also what the allow list spares.
        force: bool,
    },
    /// `POST /v1/unban`
    Unban {
        /// Whom, at most [`AT_ONCE`], with everything banned within.
        prefixes: Vec<IpNet>,
        /// Only this jail's bans.
        jail: Option<String>,
    },
    /// `POST /v1/unban` with `all`
    UnbanAll {
        /// Only this jail's bans.
        jail: Option<String>,
    },
    /// `POST /v1/reload`
    Reload,
    /// `POST /v1/confirm`
    Confirm,
    /// `POST /v1/stop`
    Stop,
    /// `POST /v1/detach`
    Detach,
    /// `POST /v1/command`: one of fail2ban's.
    Command(Command),
}

impl Request {
    /// May somebody other than root ask this? Looking, banning and unbanning, yes.
    fn is_for_group(&self) -> bool {
        match self {
            Request::Reload | Request::Confirm | Request::Stop | Request::Detach => false,
            Request::Command(command) => command.is_for_group(),
            _ => true,
        }
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such jail.
    #[error("Sorry but the jail '{0}' does not exist")]
    NoSuchJail(String),
    /// Something in the request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Not for this user.
    #[error("only root may do this")]
    RootOnly,
    /// The request is right and was not carried out.
    #[error("{0}")]
    Failed(String),
    /// A command of fail2ban's was not carried out.
    #[error("{0}")]
    Command(#[from] Fault),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        match refusal {
            Refusal::NoSuchJail(name) => Fault::no_jail(&name),
            Refusal::Command(fault) => fault,
            other => Fault::plain(other.to_string()),
        }
    }
}

/// A request on its way to the task that answers.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<wire::Reply, Refusal>>,
}
