//! A thread that tells of interfaces that come and go, addresses and default routes that change, and a wall clock that
//! is set.
use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use super::{
    fault::EnforceError,
    interfaces::{DefaultRoute, Network},
    netlink,
};

/// Something that enforcement must follow.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkChange {
    /// The network is now like this.
    Network(Box<Network>),
    /// The wall clock was set, or the machine comes out of suspend.
    ClockStepped,
}

/// Watches the network namespace of the calling thread for as long as somebody receives.
///
/// The network as it is comes first, then every change. A storm of changes is reported as its last state, and looking
/// costs at most a tenth of one CPU.
///
/// # Errors
///
/// Where the kernel gives no netlink socket or timer; then nothing is followed.
pub fn watch(to: tokio::sync::mpsc::Sender<LinkChange>) -> Result<(), EnforceError> {
    watch_with(move |change| to.blocking_send(change).is_ok())
}

/// As [`watch`]; ends when `report` answers `false`.
pub(super) fn watch_with(
    report: impl FnMut(LinkChange) -> bool + Send + 'static,
) -> Result<(), EnforceError> {
    let fault = |what| move |source: io::Error| EnforceError::Netlink { what, source };
    let socket = subscribe().map_err(fault("news of interfaces"))?;
    let timer = clock_alarm().map_err(|errno| fault("news of the wall clock")(errno.into()))?;
    let sensors = Sensors { socket, timer };
    let thread = std::thread::Builder::new().name("netlink".to_owned());
    thread
        .spawn(move || sensors.run(report))
        .map(drop)
        .map_err(fault("a thread for news of interfaces"))
}

fn subscribe() -> io::Result<Socket> {
    /// RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE.
    const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// A timer that never rings; the kernel cancels it when the wall clock is set.
fn clock_alarm() -> rustix::io::Result<OwnedFd> {
    let timer =
        timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    arm(&timer)?;
    Ok(timer)
}

fn arm(timer: &OwnedFd) -> rustix::io::Result<()> {
    let never = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: i64::from(i32::MAX) * 4, tv_nsec: 0 },
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)
        .map(drop)
}

/// What the thread looks at.
struct Sensors {
    socket: Socket,
    timer: OwnedFd,
}

impl Sensors {
    fn run(self, mut report: impl FnMut(LinkChange) -> bool) {
        let mut known = None;
        let mut stale = true;
        loop {
            if stale {
                let begun = Instant::now();
                match Network::observe() {
                    Ok(network) if known.as_ref() != Some(&network) => {
                        known = Some(network.clone());
                        if !report(LinkChange::Network(Box::new(network))) {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(fault) => tracing::warn!("{fault}; looking again at the next change"),
                }
                // On a router with a whole routing table or many containers looking is expensive: it must not be done
                // for every change there.
                let rest = begun.elapsed().saturating_mul(9).min(Duration::from_secs(10));
                if rest > Duration::from_millis(1) {
                    std::thread::sleep(rest);
                }
            }
            let sources = [self.socket.as_fd(), self.timer.as_fd()];
            let mut polled = sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            // Without a limit only a signal ends it early; what is read below does not block.
            let _ = poll(&mut polled, None);
            if self.clock_was_set() && !report(LinkChange::ClockStepped) {
                return;
            }
            stale = self.drain();
        }
    }

    fn clock_was_set(&self) -> bool {
        let mut expirations = [0; 8];
        match rustix::io::read(&self.timer, &mut expirations) {
            Err(rustix::io::Errno::AGAIN) => false,
            // ECANCELED: set. Anything else (it rang after all) deserves a look at the clock as well.
            _ => {
                if let Err(errno) = arm(&self.timer) {
                    tracing::warn!(
                        "news of the wall clock end here: {errno}; it is compared every minute"
                    );
                }
                true
            }
        }
    }

    /// Reads what has come; whether anything in it concerns us.
    fn drain(&self) -> bool {
        let mut concerns_us = false;
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => {
                    concerns_us |= netlink::messages(&datagram).any(|message| match message.kind {
                        // Routes come and go by the thousand on a router.
                        netlink::RTM_NEWROUTE | netlink::RTM_DELROUTE => {
                            DefaultRoute::read(message.body).is_some()
                        }
                        _ => true,
                    });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return concerns_us,
                // ENOBUFS: news were lost, which is news.
                Err(_) => concerns_us = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::enforce::lab;

    /// Far more than netlink ever takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[track_caller]
    fn until(news: &Receiver<LinkChange>, what: impl Fn(&Network) -> bool) -> Network {
        loop {
            match news.recv_timeout(PATIENCE).expect("news of the change") {
                LinkChange::Network(network) if what(&network) => return *network,
                _ => {}
            }
        }
    }

    #[test]
    fn every_change_of_the_network_is_told() {
        lab::alone(|| {
            let (to, news) = channel();
            watch_with(move |change| to.send(change).is_ok()).unwrap();
            until(&news, |network| network.by_name("lo").is_some());
            lab::run("ip link add near type veth peer name far");
            until(&news, |network| network.by_name("near").is_some());
            lab::run("ip addr add 192.0.2.7/24 dev near");
            until(&news, |network| network.addresses.contains(&"192.0.2.7".parse().unwrap()));
            lab::run("ip link set near up");
            lab::run("ip link set far up");
            lab::run("ip route add default via 192.0.2.1 dev near");
            let network = until(&news, |network| !network.default_devices.is_empty());
            assert_eq!(network.default_devices, [network.by_name("near").unwrap().index]);
            assert_eq!(network.gateways, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
            lab::run("ip -6 route add default via fd00::fe dev near onlink");
            until(&news, |network| network.gateways.contains(&"fd00::fe".parse().unwrap()));
            lab::run("ip link del near");
            until(&news, |network| {
                network.by_name("near").is_none() && network.default_devices.is_empty()
            });
        });
    }
}
