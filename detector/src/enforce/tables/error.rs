//! What can go wrong with maps.
use std::{io, path::PathBuf};

/// Why the maps could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A map holds as much as it can.
    #[error(
        "map `{map}` is full: it holds {entries} entries; raise `max_bans` or lift bans that are no longer needed"
    )]
    Full {
        /// Its name.
        map: &'static str,
        /// How many entries it was made for.
        entries: u32,
    },
    /// Every number a jail can have is in use.
    #[error(
        "no number is left for jail `{jail}`: 65,535 jails hold bans; lift those of jails that are gone"
    )]
    TooManyJails {
        /// The jail that asked.
        jail: String,
    },
    /// The object or folder has no such map.
    #[error(
        "there is no map `{map}`: the kernel object is of another version, build it again with `cargo xtask build`"
    )]
    Missing {
        /// Its name.
        map: &'static str,
    },
    /// A pinned map cannot be opened.
    #[error("cannot open the pinned map `{}`", path.display())]
    Open {
        /// Where it is pinned.
        path: PathBuf,
        /// Why.
        source: aya::maps::MapError,
    },
    /// A map cannot be pinned.
    #[error("cannot pin map `{map}` as `{}`", path.display())]
    Pin {
        /// Its name.
        map: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: aya::pin::PinError,
    },
    /// A map is not what its name promises.
    #[error(
        "map `{map}` has another shape than this version's: {what}; `fail2xdp detach` removes it"
    )]
    Shape {
        /// Its name.
        map: &'static str,
        /// What differs.
        what: String,
    },
    /// Maps of another version, or never finished.
    #[error("the maps are of layout {found}, this version's is {wanted}: new ones must be made")]
    Layout {
        /// What `CONFIG` says; 0 for maps whose preparation was cut short.
        found: u32,
        /// [`fail2xdp_common::config::LAYOUT`].
        wanted: u32,
    },
    /// A system call on a map failed.
    #[error("cannot {action} map `{map}`")]
    Call {
        /// What was tried, as in "cannot read map".
        action: &'static str,
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel gives no random numbers.
    #[error("cannot draw the secret numbers of the maps")]
    Random(#[source] io::Error),
    /// The number of processors is not to be had.
    #[error("cannot tell how many processors there are, which `COUNTERS` needs: is /sys mounted?")]
    Processors(#[source] io::Error),
}
