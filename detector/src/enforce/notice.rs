//! What enforcement tells of itself between requests.
use std::{fmt, path::PathBuf};

use ipnet::IpNet;

use super::link::Mode;

/// Something the operator may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The program runs on an interface.
    Attached {
        /// The interface.
        interface: String,
        /// How it runs.
        mode: Mode,
        /// Why not natively, and the cure where one is known.
        reason: Option<String>,
    },
    /// An interface is not protected.
    NotAttached {
        /// The interface.
        interface: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A protected interface is gone.
    Vanished {
        /// The interface.
        interface: String,
    },
    /// An interface that was asked for is not there yet.
    Waiting {
        /// The interface.
        interface: String,
    },
    /// There is no default route, and no interface was named.
    NoDefaultRoute,
    /// Bans of an earlier daemon were found in the kernel.
    Adopted {
        /// Prefixes.
        bans: usize,
    },
    /// The pins of an earlier daemon could not be used as they are.
    Replaced {
        /// What differs.
        why: String,
        /// Prefixes carried over into new maps.
        bans: usize,
    },
    /// Sessions could not be looked for.
    NoSessions {
        /// Why not.
        why: String,
    },
    /// The remote ends of logged-in SSH sessions are never dropped.
    Sessions {
        /// Who.
        addresses: Vec<IpNet>,
    },
    /// The maps now have room for more bans.
    Grown {
        /// Bans a family.
        room: u32,
        /// Where they are pinned.
        folder: PathBuf,
    },
    /// The maps could not be made larger.
    CannotGrow {
        /// Why not.
        why: String,
    },
    /// Bans were refused because the maps are full.
    Refused {
        /// How many since the last notice.
        bans: u64,
        /// How many of its family the maps hold.
        room: u32,
    },
    /// The wall clock was set.
    ClockStepped {
        /// By how many milliseconds; negative is back.
        millis: i64,
    },
    /// The kernel's clock could not be set.
    ClockFault {
        /// Why not.
        why: String,
    },
    /// Many packets cannot be judged, so bans may not hold for them.
    Unjudged {
        /// Share of the last minute's packets, in percent.
        percent: u8,
        /// Those neither IPv4 nor IPv6.
        not_ip: u64,
        /// Those too short to show a source.
        unreadable: u64,
    },
    /// The maps differed from the table and were mended.
    Repaired {
        /// What differed.
        what: String,
    },
    /// Maps could not be read or written.
    MapFault {
        /// What was tried, and why it did not work.
        what: String,
    },
}

impl Notice {
    /// Whether something that should be enforced is not, or may not be.
    pub fn is_alarm(&self) -> bool {
        use Notice::{
            Adopted, Attached, CannotGrow, ClockFault, ClockStepped, Grown, MapFault,
            NoDefaultRoute, NoSessions, NotAttached, Refused, Repaired, Replaced, Sessions,
            Unjudged, Vanished, Waiting,
        };
        match self {
            NotAttached { .. } | Vanished { .. } | Waiting { .. } | NoDefaultRoute => true,
            CannotGrow { .. }
            | Refused { .. }
            | ClockFault { .. }
            | Unjudged { .. }
            | MapFault { .. } => true,
            Attached { .. }
            | Adopted { .. }
            | Replaced { .. }
            | NoSessions { .. }
            | Sessions { .. } => false,
            Grown { .. } | ClockStepped { .. } | Repaired { .. } => false,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Attached { interface, mode, reason: None } => {
                write!(f, "`{interface}` is protected in {} mode", mode.name())
            }
            Notice::Attached { interface, mode, reason: Some(reason) } => {
                write!(f, "`{interface}` is protected in {} mode, not natively: {reason}", mode.name())
            }
            Notice::NotAttached { interface, why } => write!(f, "`{interface}` is NOT protected: {why}"),
            Notice::Vanished { interface } => write!(f, "`{interface}` is gone; it is protected again when it comes back"),
            Notice::Waiting { interface } => write!(f, "no interface `{interface}` yet: waiting for it"),
            Notice::NoDefaultRoute => {
                f.write_str("no default route, so nothing is protected yet: waiting for one; `--interface NAME` names one")
            }
            Notice::Adopted { bans } => write!(f, "{bans} bans of the daemon before are enforced and go on"),
            Notice::Replaced { why, bans } => {
                write!(f, "the maps of the daemon before are replaced ({why}); {bans} of its bans go on")
            }
            Notice::NoSessions { why } => {
                write!(f, "cannot look for logged-in SSH sessions: {why}; put your own address into `allow`")
            }
            Notice::Sessions { addresses } => {
                f.write_str("never dropped, for an SSH session is logged in from there:")?;
                addresses.iter().try_for_each(|address| write!(f, " {}", address.addr()))
            }
            Notice::Grown { room, folder } => {
                write!(f, "room for {room} bans a family now, in `{}`", folder.display())
            }
            Notice::CannotGrow { why } => write!(f, "the maps cannot be made larger: {why}"),
            Notice::Refused { bans, room } => {
                write!(f, "{bans} bans were NOT enforced: the maps hold {room} of their family; raise `max_bans`")
            }
            Notice::ClockStepped { millis } => {
                write!(f, "the wall clock was set by {millis} ms; ends of bans follow it")
            }
            Notice::ClockFault { why } => write!(f, "ends of bans may drift: {why}"),
            Notice::Unjudged { percent, not_ip, unreadable } => write!(
                f,
                "{percent} % of the last minute's packets cannot be judged ({not_ip} not IP, {unreadable} unreadable): \
                 bans do not hold for them; is another interface the right one?"
            ),
            Notice::Repaired { what } => write!(f, "the kernel's maps differed from the ban table and were mended: {what}"),
            Notice::MapFault { what } => f.write_str(what),
        }
    }
}
