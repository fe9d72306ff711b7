//! Who asks, and the way to the one task that answers.
use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
};

use super::{
    AT_ONCE, Asked, Refusal, Request,
    command::{Command, Fault, Set},
    wire,
};
use crate::config::Value;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Root, or the user the daemon runs as.
    pub full: bool,
}

impl Peer {
    /// By the kernel's word.
    pub fn of(stream: &UnixStream) -> Peer {
        let uid = stream.peer_cred().map(|peer| peer.uid());
        Peer { full: uid.is_ok_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw()) }
    }
}

/// Where requests go. Clones share one queue.
#[derive(Clone)]
pub(super) struct Door(mpsc::Sender<Asked>);

impl Door {
    pub fn new(owner: mpsc::Sender<Asked>) -> Door {
        Door(owner)
    }

    pub async fn ask(&self, peer: Peer, request: Request) -> Result<wire::Reply, Refusal> {
        if !peer.full && !request.is_for_group() {
            return Err(Refusal::RootOnly);
        }
        let (answer, answered) = oneshot::channel();
        let gone = || Refusal::Failed("the daemon is stopping".into());
        self.0.send(Asked { request, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Carries out one of fail2ban's commands.
    pub async fn command(&self, peer: Peer, words: &[Value]) -> Result<Value, Refusal> {
        match Command::read(words)? {
            Command::Sleep(milliseconds) if peer.full => {
                // Nobody else need wait for it.
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                Ok(Value::Nothing)
            }
            Command::Unban(ids) => self.in_parts(peer, &ids, Command::Unban).await,
            Command::Set { jail, what: Set::BanIp { ids, force } } => {
                let part =
                    |ids| Command::Set { jail: jail.clone(), what: Set::BanIp { ids, force } };
                // One that is none refuses the whole list, before any of it is carried out.
                if let Some(wrong) = ids.iter().find(|id| prefix(id).is_none()) {
                    return Err(Fault::value(format!("'{wrong}' is no address")).into());
                }
                self.in_parts(peer, &ids, part).await
            }
            Command::Set { jail, what: Set::UnbanIp { ids, report_absent } } => {
                let part = |ids| {
                    let what = Set::UnbanIp { ids, report_absent };
                    Command::Set { jail: jail.clone(), what }
                };
                self.in_parts(peer, &ids, part).await
            }
            command => self.value(peer, command).await,
        }
    }

    async fn value(&self, peer: Peer, command: Command) -> Result<Value, Refusal> {
        match self.ask(peer, Request::Command(command)).await? {
            wire::Reply::Value(value) => Ok(value),
            _ => Err(Refusal::Failed("the answer is none to a command".into())),
        }
    }

    /// A long list in several requests, so that a new finding never waits for it. Answers are numbers, which are added
    /// up, or absent addresses, which are gathered.
    async fn in_parts(
        &self,
        peer: Peer,
        ids: &[String],
        part: impl Fn(Vec<String>) -> Command,
    ) -> Result<Value, Refusal> {
        let mut sum = 0;
        let mut absent: Vec<Value> = Vec::new();
        // Also an empty list asks once: the jail may not exist.
        let parts = if ids.is_empty() { vec![Vec::new()] } else { parts(ids) };
        for ids in parts {
            match self.value(peer, part(ids)).await? {
                Value::Number(number) => sum += number.parse::<i64>().unwrap_or(0),
                Value::List(more) => absent.extend(more),
                _ => {}
            }
        }
        if absent.is_empty() {
            Ok(sum.into())
        } else {
            Err(Fault::value(format!("not banned: {}", Value::List(absent))).into())
        }
    }
}

fn parts(ids: &[String]) -> Vec<Vec<String>> {
    ids.chunks(AT_ONCE).map(<[String]>::to_vec).collect()
}

/// An address or network, host bits cleared, IPv4 in its own form.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => text.parse::<IpNet>().ok().map(|net| net.trunc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        assert_eq!(prefix(text).map(|net| net.to_string()).as_deref(), expect);
    }

    #[test]
    fn a_prefix_is_an_address_or_a_network() {
        check("192.0.2.1", Some("192.0.2.1/32"));
        check("192.0.2.77/24", Some("192.0.2.0/24"));
        check("2001:DB8::5", Some("2001:db8::5/128"));
        check("::ffff:192.0.2.1", Some("192.0.2.1/32"));
        check("999.1.1.1", None);
        check("192.0.2.1/33", None);
        check("host.example", None);
    }
}
