//! What can go wrong in enforcement, each with what to do about it.
use std::{io, path::PathBuf};

/// Why enforcement cannot do what was asked.
///
/// Messages name the thing and the remedy; the operator reads them as they are.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The kernel lacks what the program needs.
    #[error(
        "kernel {release} is too old{}: boot Linux 5.10 or later to enforce; `--mode none` detects and reports without it", lacks(*version)
    )]
    OldKernel {
        /// What `uname -r` says.
        release: String,
        /// Its major and minor number.
        version: (u32, u32),
    },
    /// The kernel was built without the `bpf` system call.
    #[error(
        "kernel {release} was built without BPF (`CONFIG_BPF_SYSCALL`): boot the distribution's kernel to enforce; `--mode none` detects and reports without it"
    )]
    NoBpf {
        /// What `uname -r` says.
        release: String,
    },
    /// The kernel was built without a description of its own types. The verifier looks the argument of global
    /// functions up there (`btf_get_prog_ctx_type` in `kernel/bpf/btf.c`).
    #[error(
        "kernel {release} was built without BTF (`CONFIG_DEBUG_INFO_BTF`; there is no `/sys/kernel/btf/vmlinux`): boot the distribution's kernel to enforce; `--mode none` detects and reports without it"
    )]
    NoBtf {
        /// What `uname -r` says.
        release: String,
    },
    /// The process may not load BPF programs.
    #[error(
        "not allowed to load the XDP program: {missing} missing; run as root, or give the service `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON`; `--mode none` detects and reports without any of them"
    )]
    NotPermitted {
        /// The capabilities that this process lacks.
        missing: String,
    },
    /// The capabilities are there, and the kernel refuses all the same.
    #[error(
        "the kernel refuses BPF although every capability is there ({cause}); `--mode none` detects and reports without BPF"
    )]
    Refused {
        /// What is known to forbid it: a container's seccomp filter, kernel lockdown.
        cause: String,
    },
    /// Kernels before 5.11 charge maps to the locked-memory limit.
    #[error(
        "the locked-memory limit of {limit} bytes is too small for the maps on kernel {release}: run with `ulimit -l unlimited`, or `LimitMEMLOCK=infinity` in the service"
    )]
    LockedMemory {
        /// The limit in bytes.
        limit: u64,
        /// What `uname -r` says.
        release: String,
    },
    /// The pin directory is not on a BPF file system.
    #[error("`{}` is not on a BPF file system, so bans could not outlive the daemon: mount it with `mount -t bpf bpf /sys/fs/bpf`", path.display())]
    NotBpffs {
        /// The directory asked for.
        path: PathBuf,
    },
    /// A directory, symlink or pin could not be made, read or removed.
    #[error("cannot {doing} `{}`", path.display())]
    Pin {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another daemon works with the same pins.
    #[error("another fail2xdp{} holds the pins in `{}`: stop it first, or give this one its own `--pin` directory", holder(*pid), path.display())]
    AnotherDaemon {
        /// The pin directory.
        path: PathBuf,
        /// Its process, where the kernel tells.
        pid: Option<u32>,
    },
    /// The object is not one of ours, or damaged.
    #[error(
        "the embedded XDP object does not fit this daemon: {what}; build both together with `cargo xtask build`"
    )]
    Object {
        /// What is missing or wrong.
        what: String,
    },
    /// Loading maps or program failed for another reason.
    #[error("cannot load the XDP program")]
    Load(#[source] aya::EbpfError),
    /// The verifier refused a program.
    #[error(
        "the kernel's verifier refuses `{program}`: {words}; please report this with the output of `uname -a`"
    )]
    Verifier {
        /// The program's name.
        program: String,
        /// The last words of the verifier's log, or the system call's error.
        words: String,
    },
    /// No interface of that name.
    #[error("no interface `{name}` here: there are {known}")]
    UnknownInterface {
        /// The name asked for.
        name: String,
        /// The interfaces that exist, each in backticks.
        known: String,
    },
    /// The program reads Ethernet frames, and this link has none.
    #[error(
        "`{interface}` carries no Ethernet frames ({kind}), so its packets cannot be read: {instead}"
    )]
    NoEthernet {
        /// The interface asked for.
        interface: String,
        /// Kind of link.
        kind: String,
        /// Which interface to use in its place.
        instead: String,
    },
    /// Somebody else's XDP program is there; it was left alone.
    #[error(
        "`{interface}` already runs another XDP program ({program}, {mode} mode); nothing was replaced: `ip link set dev {interface} {off} off` removes it, where it was not attached through a pinned link"
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// Its id, and its name where it may be read.
        program: String,
        /// `native`, `generic` or `hardware`.
        mode: &'static str,
        /// The word of `ip link` for that mode.
        off: &'static str,
    },
    /// The interface takes the program neither natively nor generically.
    #[error("cannot attach to `{interface}` in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// The driver's words where it has some, and the cure where one is known.
        reason: String,
    },
    /// Attached, and the link would not have survived the daemon: undone.
    #[error(
        "the attachment to `{interface}` cannot be pinned, so it would end with the daemon; it was taken back"
    )]
    NotPinned {
        /// The interface.
        interface: String,
        /// Why not.
        source: io::Error,
    },
    /// No interface is left to protect.
    #[error("no interface can be protected: {}", reasons.join("; "))]
    NothingAttached {
        /// Why not, one for each interface.
        reasons: Vec<String>,
    },
    /// Netlink failed.
    #[error("cannot ask the kernel for {what}")]
    Netlink {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The maps are full and may not grow further.
    #[error(
        "`{prefix}` is not enforced: {bans} bans of its family fill the maps, and `max_bans` allows no more"
    )]
    Full {
        /// The prefix refused.
        prefix: ipnet::IpNet,
        /// Bans in the maps.
        bans: u32,
    },
    /// A map could not be read or written.
    #[error("cannot {doing}")]
    Table {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: super::tables::TableError,
    },
    /// Reading the kernel's clock failed.
    #[error("cannot compare the kernel's clock with the wall clock")]
    Clock(#[source] io::Error),
}

/// The first release that enforcement is tried on.
const OLDEST: (u32, u32) = (5, 10);

/// What enforcement is built on, and the release of Linux that brought it.
const NEEDS: [((u32, u32), &str); 4] = [
    ((5, 5), "maps in memory that processes share"),
    ((5, 6), "global functions in BPF programs"),
    ((5, 8), "the BPF ring buffer"),
    ((5, 9), "links that hold an XDP program"),
];

/// What a kernel of this version does not have, as an aside.
fn lacks(version: (u32, u32)) -> String {
    let missing = NEEDS.iter().filter(|(since, _)| version < *since);
    let missing: Vec<String> =
        missing.map(|((major, minor), what)| format!("{what} (Linux {major}.{minor})")).collect();
    if missing.is_empty() { String::new() } else { format!(" (it lacks {})", missing.join(", ")) }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// What the process and the kernel are, where that explains a refusal.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// `CapEff` of `/proc/self/status`.
    pub capabilities: u64,
    /// `uname -r`.
    pub release: String,
    /// `/sys/kernel/security/lockdown`, where it can be read.
    pub lockdown: Option<String>,
    /// Whether a seccomp filter stands between us and the kernel.
    pub seccomp: bool,
    /// The locked-memory limit in bytes; `None`: unlimited.
    pub locked_memory: Option<u64>,
    /// Whether the kernel has the BPF file system, which it has exactly when it has the system call.
    pub bpf: bool,
    /// Whether the kernel describes its own types.
    pub btf: bool,
}

/// Bits of `CapEff`, from `include/uapi/linux/capability.h`.
const CAP_NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: (u32, &str) = (38, "CAP_PERFMON");
const CAP_BPF: (u32, &str) = (39, "CAP_BPF");

impl Surroundings {
    /// Reads them from this process.
    pub fn observe() -> Surroundings {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        Surroundings {
            capabilities: field("CapEff:")
                .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
                .unwrap_or(0),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            lockdown: std::fs::read_to_string("/sys/kernel/security/lockdown").ok(),
            seccomp: field("Seccomp:").is_some_and(|mode| mode != "0"),
            locked_memory: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            bpf: knows_bpf(std::fs::read_to_string("/proc/filesystems").ok().as_deref()),
            btf: std::path::Path::new("/sys/kernel/btf/vmlinux").exists(),
        }
    }

    /// Major and minor number of the kernel.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers =
            self.release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    fn missing(&self) -> Vec<&'static str> {
        let has = |bit: u32| self.capabilities >> bit & 1 != 0;
        // CAP_SYS_ADMIN implies the two that were split from it, and not CAP_NET_ADMIN.
        [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON]
            .into_iter()
            .filter(|&(bit, name)| !has(bit) && (name == CAP_NET_ADMIN.1 || !has(CAP_SYS_ADMIN)))
            .map(|(_, name)| name)
            .collect()
    }

    /// Whether a capability that enforcement needs is missing.
    pub fn lacks_capabilities(&self) -> bool {
        !self.missing().is_empty()
    }

    /// What can be said before anything is tried: a kernel that is too old, or has no BPF.
    pub fn precheck(&self) -> Result<(), EnforceError> {
        let (release, version) = (self.release.clone(), self.version());
        if version < OLDEST {
            return Err(EnforceError::OldKernel { release, version });
        }
        if !self.bpf {
            return Err(EnforceError::NoBpf { release });
        }
        Ok(())
    }

    /// The reason behind an EPERM or EACCES of the `bpf` system call.
    pub fn refusal(&self) -> EnforceError {
        let missing = self.missing();
        if !missing.is_empty() {
            let verb = if missing.len() == 1 { "is" } else { "are" };
            return EnforceError::NotPermitted {
                missing: format!("{} {verb}", missing.join(", ")),
            };
        }
        match (&self.lockdown, self.locked_memory) {
            (_, Some(limit)) if self.version() < (5, 11) => {
                EnforceError::LockedMemory { limit, release: self.release.clone() }
            }
            (Some(state), _) if !state.contains("[none]") => EnforceError::Refused {
                cause: format!("kernel lockdown is on: `{}`", state.trim()),
            },
            _ if self.seccomp => EnforceError::Refused {
                cause: "a seccomp filter is active: in a container allow the `bpf` system call"
                    .to_owned(),
            },
            _ => EnforceError::Refused {
                cause: "a security module may forbid it: see `dmesg`".to_owned(),
            },
        }
    }
}

/// Whether `/proc/filesystems` names `bpf`. What cannot be read proves nothing.
fn knows_bpf(filesystems: Option<&str>) -> bool {
    filesystems.is_none_or(|list| list.lines().any(|line| line.split('\t').nth(1) == Some("bpf")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(capabilities: &[u32], release: &str) -> Surroundings {
        Surroundings {
            capabilities: capabilities.iter().fold(0, |set, bit| set | 1 << bit),
            release: release.to_owned(),
            lockdown: None,
            seccomp: false,
            locked_memory: Some(65_536),
            bpf: true,
            btf: true,
        }
    }

    #[track_caller]
    fn check(given: &Surroundings, expect: &str) {
        let said = given.precheck().err().unwrap_or_else(|| given.refusal()).to_string();
        assert!(said.contains(expect), "`{said}` lacks `{expect}`");
    }

    #[test]
    fn a_refusal_names_the_missing_capability_and_the_way_without() {
        check(&surroundings(&[12, 38], "6.1.0"), "CAP_BPF is missing");
        check(&surroundings(&[12, 39], "6.1.0"), "CAP_PERFMON is missing");
        check(&surroundings(&[], "6.1.0"), "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON are missing");
        check(&surroundings(&[21], "6.1.0"), "CAP_NET_ADMIN is missing");
        check(&surroundings(&[], "6.1.0"), "`--mode none`");
    }

    #[test]
    fn with_every_capability_the_cause_is_looked_for_elsewhere() {
        check(&surroundings(&[12, 21], "5.10.0-30-amd64"), "LimitMEMLOCK=infinity");
        check(&surroundings(&[12, 21], "6.1.0"), "security module");
        let locked = Surroundings {
            lockdown: Some("none integrity [confidentiality]\n".into()),
            ..surroundings(&[12, 21], "6.1.0")
        };
        check(&locked, "lockdown");
        check(&Surroundings { seccomp: true, ..surroundings(&[12, 38, 39], "6.1.0") }, "seccomp");
    }

    #[test]
    fn an_old_kernel_is_named_before_anything_is_tried() {
        check(&surroundings(&[21, 12], "4.19.0-27-amd64"), "kernel 4.19.0-27-amd64 is too old");
        check(
            &surroundings(&[21, 12], "5.7.19"),
            "5.7.19 is too old (it lacks the BPF ring buffer (Linux 5.8), links that hold an XDP program (Linux 5.9)): boot Linux 5.10",
        );
        check(&surroundings(&[21, 12], "5.9.16"), "5.9.16 is too old: boot Linux 5.10 or later");
        assert!(surroundings(&[], "5.10.0").precheck().is_ok());
        assert!(surroundings(&[], "6.18.44-fc-v669").precheck().is_ok());
    }

    #[test]
    fn a_kernel_without_bpf_is_named_and_an_unreadable_list_is_no_proof() {
        let without =
            Surroundings { bpf: knows_bpf(Some("nodev\tsysfs\n")), ..surroundings(&[], "6.1.0") };
        check(&without, "kernel 6.1.0 was built without BPF (`CONFIG_BPF_SYSCALL`)");
        assert!(knows_bpf(Some("nodev\tsysfs\nnodev\tbpf\n\text4\n")));
        assert!(knows_bpf(None));
    }
}
