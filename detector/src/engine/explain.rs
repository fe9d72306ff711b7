//! What every jail knows of one address.
use ipnet::IpNet;

use super::{Engine, Jail, Pending, SparedBy};

/// How an address stands with a jail.
pub struct Standing<'e> {
    /// The jail.
    pub jail: &'e Jail,
    /// What it counts and bans as one with the address: the address itself, or its IPv6 prefix.
    pub prefix: IpNet,
    /// Why its failures are not counted.
    pub spared: Option<SparedBy>,
    /// What was counted and led to no ban yet.
    pub pending: Option<Pending>,
}

impl Engine {
    /// How an address stands with each jail, in the order of the configuration.
    pub fn standing(&self, address: std::net::IpAddr) -> impl Iterator<Item = Standing<'_>> {
        self.jails.iter().map(move |jail| {
            let (prefix, pending) = jail.standing(address, &self.evidence);
            let spared = jail.spares(IpNet::from(address), &self.own, &self.names);
            Standing { jail, prefix, spared, pending }
        })
    }
}
