//! Names of hosts: of who is banned, and of this machine. Looked up beside everything else, for a while at most.
use std::{
    collections::HashMap,
    ffi::CStr,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::clock;

/// How long an answer serves, as in fail2ban; that there is none is one.
const KEPT: Duration = Duration::from_secs(300);
/// How long one is waited for. What comes later serves the next who asks.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers at the most; beyond it all are forgotten.
const MOST: usize = 4096;
/// Look-ups at once: each holds a thread for as long as the resolver likes.
const AT_ONCE: usize = 16;

/// Names and when they were learnt, by address; this machine's own by none.
type Answers = HashMap<Option<IpAddr>, (Option<String>, Instant)>;

/// Names that were looked up.
#[derive(Debug)]
pub(super) struct Hosts {
    known: Arc<Mutex<Answers>>,
    gate: Arc<Semaphore>,
}

/// This machine's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnNames {
    /// `<sh-hostname>`.
    pub short: String,
    /// `<fq-hostname>`.
    pub full: String,
}

impl Hosts {
    pub(super) fn new() -> Hosts {
        Hosts { known: Arc::default(), gate: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The name of an address; `None` where it has none, or none came in time.
    pub(super) async fn name_of(&self, address: IpAddr) -> Option<String> {
        self.ask(Some(address), move || name_of(address)).await
    }

    /// This machine's names; the full one, where it is wanted.
    pub(super) async fn own(&self, is_full: bool) -> OwnNames {
        let short = own_name();
        if !is_full {
            return OwnNames { full: String::new(), short };
        }
        let asked = short.clone();
        let full = self.ask(None, move || full_name(&asked)).await;
        OwnNames { full: full.unwrap_or_else(|| short.clone()), short }
    }

    async fn ask(
        &self,
        key: Option<IpAddr>,
        look_up: impl FnOnce() -> Option<String> + Send + 'static,
    ) -> Option<String> {
        if let Some((name, at)) = self.lock().get(&key)
            && at.elapsed() < KEPT
        {
            return name.clone();
        }
        let known = Arc::clone(&self.known);
        let asked = async {
            let turn = Arc::clone(&self.gate).acquire_owned().await;
            let looking = spawn_blocking(move || {
                let name = look_up();
                learn(&known, key, name.clone());
                drop(turn);
                name
            });
            looking.await.ok().flatten()
        };
        match timeout(PATIENCE, asked).await {
            Ok(name) => name,
            // Nobody else waits for it, either.
            Err(_) => {
                learn(&self.known, key, None);
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn learn(known: &Mutex<Answers>, key: Option<IpAddr>, name: Option<String>) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(key, (name, clock::monotonic()));
}

/// As `hostname` prints it.
fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What the resolver calls the host of this name, where that has a dot.
fn full_name(name: &str) -> Option<String> {
    let address = (name, 0).to_socket_addrs().ok()?.next()?.ip();
    let full = name_of(address)?;
    // It becomes part of a command's text, whoever made it.
    let is_name = full.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    (is_name && full.contains('.')).then_some(full)
}

/// gethostbyaddr(3), by its successor.
fn name_of(address: IpAddr) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::NI_MAXHOST as usize];
    let at = SocketAddr::new(address, 0);
    let failed = match at {
        SocketAddr::V4(at) => {
            let to = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(at.ip().octets()) },
                sin_zero: [0; 8],
            };
            get_name((&raw const to).cast(), size_of_val(&to), &mut name)
        }
        SocketAddr::V6(at) => {
            let to = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: at.ip().octets() },
                sin6_scope_id: 0,
            };
            get_name((&raw const to).cast(), size_of_val(&to), &mut name)
        }
    };
    if failed != 0 {
        return None;
    }
    // SAFETY: getnameinfo(3) has ended the name with a NUL within the array.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}

fn get_name(
    address: *const libc::sockaddr,
    length: usize,
    name: &mut [libc::c_char],
) -> libc::c_int {
    // SAFETY: the address lives with its length in the caller, the name is as long as is said; no service is asked for.
    unsafe {
        libc::getnameinfo(
            address,
            length as libc::socklen_t,
            name.as_mut_ptr(),
            name.len() as libc::socklen_t,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_no_name_is_asked_for_once() {
        let hosts = Hosts::new();
        let nobody: IpAddr = "192.0.2.1".parse().expect("an address");
        hosts.lock().insert(Some(nobody), (Some("$(id).example".to_owned()), clock::monotonic()));
        assert_eq!(hosts.name_of(nobody).await.as_deref(), Some("$(id).example"));
        let local: IpAddr = "127.0.0.1".parse().expect("an address");
        assert!(hosts.name_of(local).await.is_some_and(|name| name.contains("localhost")));
        assert!(hosts.lock().contains_key(&Some(local)));
        assert!(!hosts.own(true).await.full.is_empty());
    }
}
