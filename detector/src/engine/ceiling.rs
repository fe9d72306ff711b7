//! A ceiling for new bans: above it something is wrong, an attack with forged evidence or a filter that takes everybody
//! for an attacker. Then what would hurt most if it is wrong is not banned: networks, and addresses whose users logged
//! in not long ago. Single bans go on, so that no flood switches protection off.
use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use super::{Ban, Timestamp};

/// The time that bans are counted over.
const WINDOW: Duration = Duration::from_secs(60);
/// How long a login is remembered.
pub const LOGIN_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Addresses whose logins are remembered; of more, those that logged in longest ago are forgotten.
pub const MAX_LOGINS: usize = 65_536;
/// A login that comes so soon after another one of the same address is not stored anew.
const SAME_LOGIN: Duration = Duration::from_secs(3600);
/// What is counted and banned as one of IPv6 at the most; what is wider is a network.
const UNIT_V6: u8 = 64;

/// Why a ban is not made for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// It is a network.
    Network,
    /// Somebody logged in from there, then.
    LoggedIn(Timestamp),
}

/// How the ceiling stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CeilingTotals {
    /// New bans a minute that are no reason for an alarm; 0: however many.
    pub most: u32,
    /// New bans within the last minute.
    pub bans: u32,
    /// There are, or were not long ago, more than that.
    pub is_exceeded: bool,
    /// Bans that were not made for that, since the daemon started.
    pub suspended: u64,
    /// Addresses whose logins are remembered.
    pub logins: usize,
    /// At most so many.
    pub most_logins: usize,
    /// Addresses whose logins were forgotten because there were more, since the daemon started.
    pub forgotten_logins: u64,
}

/// New bans of the last minute, and who logged in.
#[derive(Debug)]
pub(super) struct Ceiling {
    most: u32,
    /// Bans by the second in which they were made.
    seconds: VecDeque<(i64, u32)>,
    bans: u32,
    is_exceeded: bool,
    suspended: u64,
    logins: HashMap<IpNet, Timestamp>,
    forgotten: u64,
}

impl Ceiling {
    pub fn new(most: u32) -> Ceiling {
        Ceiling {
            most,
            seconds: VecDeque::new(),
            bans: 0,
            is_exceeded: false,
            suspended: 0,
            logins: HashMap::new(),
            forgotten: 0,
        }
    }

    pub fn set_most(&mut self, most: u32) {
        self.most = most;
    }

    /// Counts a new ban; `true`: with this one there are too many.
    pub fn count(&mut self, now: Timestamp) -> bool {
        self.forget(now);
        match self.seconds.back_mut() {
            // A clock that went back counts on in the second that it had reached.
            Some((second, bans)) if *second >= now.seconds() => *bans += 1,
            _ => self.seconds.push_back((now.seconds(), 1)),
        }
        self.bans += 1;
        if self.most == 0 || self.is_exceeded || self.bans <= self.most {
            return false;
        }
        self.is_exceeded = true;
        true
    }

    /// Whether it is over now: when there were no more than half as many within a minute.
    pub fn look(&mut self, now: Timestamp) -> bool {
        self.forget(now);
        if !self.is_exceeded || (self.most > 0 && self.bans > self.most / 2) {
            return false;
        }
        self.is_exceeded = false;
        true
    }

    /// When [`Ceiling::look`] may next have something to say.
    pub fn next_look(&self) -> Option<Timestamp> {
        let (second, _) = self.seconds.front().filter(|_| self.is_exceeded)?;
        Some(Timestamp::from_seconds(second + 1).plus(WINDOW))
    }

    fn forget(&mut self, now: Timestamp) {
        let old = now.minus(WINDOW).seconds();
        // Of a time that is yet to come it knows from a clock that went far back since.
        let to_come = now.plus(WINDOW).seconds();
        while let Some(&(second, bans)) = self.seconds.front()
            && (second <= old || second > to_come)
        {
            self.seconds.pop_front();
            self.bans -= bans;
        }
    }

    /// Why this ban is not made now, if it is not.
    pub fn suspends(&mut self, ban: &Ban, now: Timestamp) -> Option<Suspended> {
        if !self.is_exceeded {
            return None;
        }
        let single = if ban.prefix.addr().is_ipv4() { 32 } else { UNIT_V6 };
        let why = if ban.prefix.prefix_len() < single {
            Suspended::Network
        } else {
            let at = self.logins.get(&unit(ban.prefix.addr())).copied();
            Suspended::LoggedIn(at.filter(|at| at.plus(LOGIN_KEPT) > now)?)
        };
        self.suspended += 1;
        Some(why)
    }

    /// Somebody logged in from there; `true` when that is worth being stored.
    pub fn logged_in(&mut self, address: IpAddr, at: Timestamp, now: Timestamp) -> bool {
        let at = at.min(now);
        if at.plus(LOGIN_KEPT) <= now {
            return false;
        }
        let unit = unit(address);
        if let Some(known) = self.logins.get_mut(&unit) {
            let is_news = at >= known.plus(SAME_LOGIN);
            *known = at.max(*known);
            return is_news;
        }
        if self.logins.len() >= MAX_LOGINS {
            self.make_room(now);
        }
        self.logins.insert(unit, at);
        true
    }

    fn make_room(&mut self, now: Timestamp) {
        let before = self.logins.len();
        self.logins.retain(|_, at| at.plus(LOGIN_KEPT) > now);
        if self.logins.len() < before {
            return;
        }
        // A sixteenth at once: to look for the oldest takes a walk.
        let mut times: Vec<Timestamp> = self.logins.values().copied().collect();
        let (_, &mut oldest, _) = times.select_nth_unstable(MAX_LOGINS / 16);
        self.logins.retain(|_, at| *at > oldest);
        self.forgotten += (before - self.logins.len()) as u64;
    }

    pub fn totals(&self) -> CeilingTotals {
        CeilingTotals {
            most: self.most,
            bans: self.bans,
            is_exceeded: self.is_exceeded,
            suspended: self.suspended,
            logins: self.logins.len(),
            most_logins: MAX_LOGINS,
            forgotten_logins: self.forgotten,
        }
    }
}

/// What a login is remembered by: an IPv4 address, an IPv6 network of one customer.
pub(super) fn unit(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 32 } else { UNIT_V6 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::{JailName, Scope},
        engine::{Origin, Until},
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn ban(prefix: &str) -> Ban {
        Ban {
            prefix: prefix.parse().expect("a prefix"),
            jail: JailName::new("sshd"),
            scope: Arc::new(Scope::EveryPacket),
            since: at(0),
            until: Until::Forever,
            failures: 1,
            count: 1,
            counted: true,
            lines: Vec::new(),
            origin: Origin::default(),
        }
    }

    #[test]
    fn more_bans_a_minute_than_the_ceiling_are_told_once_and_when_it_is_over() {
        let mut ceiling = Ceiling::new(4);
        // One a fifteenth second is what the ceiling allows.
        for second in (0..600).step_by(15) {
            assert!(!ceiling.count(at(second)), "{second}");
        }
        assert!(!ceiling.count(at(600)));
        assert!(ceiling.count(at(601)));
        assert!(!ceiling.count(at(602)));
        assert!(!ceiling.look(at(640)), "they are too many still");
        let due = ceiling.next_look().expect("it is exceeded");
        assert!(due > at(602));
        assert!(ceiling.look(at(663)));
        assert_eq!((ceiling.look(at(664)), ceiling.next_look()), (false, None));
    }

    #[test]
    fn no_ceiling_is_never_reached() {
        let mut ceiling = Ceiling::new(0);
        assert!((0..100_000).all(|_| !ceiling.count(at(1))));
        assert_eq!(ceiling.suspends(&ban("192.0.2.0/24"), at(1)), None);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_keep_it_up() {
        let mut ceiling = Ceiling::new(1);
        ceiling.count(at(10_000));
        assert!(ceiling.count(at(10_000)));
        assert!(ceiling.look(at(100)));
    }

    #[test]
    fn only_what_is_risky_waits_and_only_above_the_ceiling() {
        let mut ceiling = Ceiling::new(1);
        assert!(ceiling.logged_in("192.0.2.7".parse().expect("one"), at(50), at(50)));
        assert!(ceiling.logged_in("2001:db8::7".parse().expect("one"), at(60), at(50)));
        let why = |ceiling: &mut Ceiling, prefix: &str| ceiling.suspends(&ban(prefix), at(100));
        assert_eq!(why(&mut ceiling, "192.0.2.0/24"), None);
        ceiling.count(at(99));
        ceiling.count(at(99));
        let login = |second| Some(Suspended::LoggedIn(at(second)));
        for (prefix, expected) in [
            ("192.0.2.0/24", Some(Suspended::Network)),
            ("2001:db8::/56", Some(Suspended::Network)),
            ("192.0.2.7/32", login(50)),
            ("2001:db8::/64", login(50)),
            ("2001:db8::1/128", login(50)),
            ("192.0.2.8/32", None),
            ("2001:db8:0:1::/64", None),
        ] {
            assert_eq!(why(&mut ceiling, prefix), expected, "{prefix}");
        }
        assert_eq!(ceiling.totals().suspended, 5);
        let later = at(50).plus(LOGIN_KEPT);
        ceiling.count(later);
        ceiling.count(later);
        assert_eq!(ceiling.suspends(&ban("192.0.2.7/32"), later), None, "it was too long ago");
    }

    #[test]
    fn logins_are_bounded_and_stored_once_an_hour() {
        let mut ceiling = Ceiling::new(1);
        let address = |nth: u32| IpAddr::from(nth.to_be_bytes());
        assert!(ceiling.logged_in(address(1), at(10), at(10)));
        assert!(!ceiling.logged_in(address(1), at(3000), at(3000)));
        assert!(ceiling.logged_in(address(1), at(6600), at(6600)));
        for nth in 2..=MAX_LOGINS as u32 + 1 {
            ceiling.logged_in(address(nth), at(7000 + i64::from(nth)), at(100_000));
        }
        let totals = ceiling.totals();
        assert!(totals.logins <= MAX_LOGINS && totals.forgotten_logins > 0, "{totals:?}");
        assert!(!ceiling.logins.contains_key(&unit(address(1))), "the oldest goes first");
        assert!(!ceiling.logged_in(address(9), at(0), at(0).plus(LOGIN_KEPT)), "too old");
    }
}
