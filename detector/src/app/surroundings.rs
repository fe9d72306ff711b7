//! Whom a ban must not or cannot hit: the allow list and its files, own addresses, the names of `ignoreip`.
use std::{collections::HashSet, net::IpAddr, time::Duration};

use tokio::sync::mpsc;

use super::{Daemon, guard};
use crate::{
    clock::Clock,
    config::{AllowIpv6, Settings},
    enforce,
    engine::{Effect, Event},
};

/// How long look-ups of `ignoreip` names may hold up the start.
const RESOLVE_AT_START: Duration = Duration::from_secs(5);

impl Daemon {
    /// The files of the allow list say something else than before, or cannot be read.
    pub(super) fn lists_say(&mut self, found: guard::Found) {
        found.faults.iter().for_each(|fault| tracing::error!("{fault}"));
        let Some(listed) = found.listed else { return };
        tracing::info!("allow: its files and the name servers are {} entries now", listed.len());
        self.listed = listed;
        if let Some(enforcer) = &mut self.enforcer {
            enforcer.also_allow(self.listed.clone());
        }
        self.surroundings();
    }

    /// Tells the engine whom a ban must not or cannot hit.
    pub(super) fn surroundings(&mut self) {
        match enforce::own_addresses() {
            Ok(addresses) => {
                self.event(Event::OwnAddresses(addresses));
            }
            Err(error) => tracing::error!("cannot tell this machine's own addresses: {error}"),
        }
        let allowed = match &self.enforcer {
            Some(enforcer) => enforcer.status().allowed,
            None => {
                let configured = self.settings.enforce.allow.iter().map(|entry| entry.value);
                configured.chain(self.listed.iter().map(|(entry, _)| *entry)).collect()
            }
        };
        self.event(Event::AllowList(allowed));
    }

    pub(super) async fn resolve_ignored(&mut self) {
        let mut lookups = tokio::task::JoinSet::new();
        for name in self.engine.names_to_resolve() {
            let allow_ipv6 = self.settings.allow_ipv6;
            lookups.spawn(async move { (resolve(&name, allow_ipv6).await, name) });
        }
        let all = async {
            while let Some(answer) = lookups.join_next().await {
                let Ok((addresses, name)) = answer else { continue };
                if addresses.is_empty() {
                    tracing::warn!("`{name}` of ignoreip has no address: it spares nobody");
                }
                self.event(Event::Resolved { name, addresses });
            }
        };
        if tokio::time::timeout(RESOLVE_AT_START, all).await.is_err() {
            tracing::warn!(
                "some names of ignoreip could not be looked up in {RESOLVE_AT_START:?}: they spare nobody yet"
            );
        }
    }

    /// Looks up names of `ignoreip` that are not known yet; nobody waits for it.
    pub(super) fn look_up_ignored(&mut self) {
        for name in self.engine.names_to_resolve() {
            // A look-up cannot be refused.
            let _ = self.carry_out(Effect::Resolve { name });
        }
    }
}

/// What the files of the allow list have now, and news of them.
pub(super) fn listed(
    settings: &Settings,
    clock: Clock,
) -> (Vec<(ipnet::IpNet, enforce::Why)>, mpsc::Receiver<guard::Found>) {
    let (tell, news) = mpsc::channel(1);
    let mut lists = guard::Lists::new(&settings.enforce.allow_files);
    let found = lists.look(clock());
    found.faults.iter().for_each(|fault| tracing::error!("{fault}"));
    lists.watch(tell, clock);
    (found.listed.unwrap_or_default(), news)
}

/// The addresses of a name, those of IPv6 only where they are wanted.
pub(super) async fn resolve(name: &str, allow_ipv6: AllowIpv6) -> Vec<IpAddr> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(addresses) => {
            let ipv6 = wants_ipv6(allow_ipv6);
            let addresses = addresses.map(|address| address.ip().to_canonical());
            let unique: HashSet<IpAddr> =
                addresses.filter(|address| ipv6 || address.is_ipv4()).collect();
            unique.into_iter().collect()
        }
        Err(_) => Vec::new(),
    }
}

/// Whether `allowipv6` wants it, or leaves it to this machine and it has it, as fail2ban finds out.
pub fn wants_ipv6(allow: AllowIpv6) -> bool {
    match allow {
        AllowIpv6::Yes => true,
        AllowIpv6::No => false,
        AllowIpv6::Auto => std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
            .is_ok_and(|disabled| disabled.trim() == "0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_have_the_families_that_are_wanted() {
        let of = async |name, allow| -> Vec<bool> {
            resolve(name, allow).await.iter().map(IpAddr::is_ipv6).collect()
        };
        assert_eq!(of("::1", AllowIpv6::Yes).await, [true]);
        assert!(of("::1", AllowIpv6::No).await.is_empty());
        assert_eq!(of("127.0.0.1", AllowIpv6::No).await, [false]);
    }
}
