//! From what a machine has to the steps that it lacks. Pure: facts in, steps out, nothing is run.

use std::path::PathBuf;

/// The linker's release that the kernel object is built with.
pub const LINKER: &str = "0.13.0";
/// Releases of LLVM that bpf-linker of that release can be built against (its Cargo features).
pub const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// The nightly that `setup` fetches when rustup has none: a fixed day, for a fixed result.
pub const NIGHTLY: &str = "nightly-2026-05-20";
/// LLVM's release in [`NIGHTLY`].
pub const NIGHTLY_LLVM: u32 = 22;

/// What the tools are wanted for; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// `build` and `run`.
    Build,
    /// `demo`: namespaces, a real sshd and a client that guesses.
    Demo,
    /// `test`: everything the tests run beside us.
    Test,
}

/// Which compiler builds the kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Route {
    /// Debian's packages `rustc-web`, `cargo-web` and `rust-web-src`
    Debian,
    /// A nightly toolchain of rustup with `rust-src`
    Rustup,
}

/// A system package, and how one sees that what it brings is there, whoever brought it.
#[derive(Debug, PartialEq, Eq)]
pub struct Need {
    /// The package's name in Debian and Ubuntu.
    pub package: &'static str,
    /// What it is needed for.
    pub purpose: Purpose,
    /// How its presence is seen.
    pub proof: Proof,
}

/// How one sees that a package's content is there.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// A program of this name is on `PATH` or in an `sbin` directory.
    Program(&'static str),
    /// One of these files exists.
    File(&'static [&'static str]),
    /// pkg-config knows this library.
    Library(&'static str),
}

const fn need(package: &'static str, purpose: Purpose, proof: Proof) -> Need {
    Need { package, purpose, proof }
}

/// Every system package that a verb may want, the eBPF toolchain's own apart.
pub const NEEDS: &[Need] = &[
    need("pkg-config", Purpose::Build, Proof::Program("pkg-config")),
    need("libsystemd-dev", Purpose::Build, Proof::Library("libsystemd")),
    need("iproute2", Purpose::Demo, Proof::Program("ip")),
    need("util-linux", Purpose::Demo, Proof::Program("nsenter")),
    need("openssh-server", Purpose::Demo, Proof::Program("sshd")),
    need("openssh-client", Purpose::Demo, Proof::Program("ssh")),
    need("sshpass", Purpose::Demo, Proof::Program("sshpass")),
    need("rsyslog", Purpose::Demo, Proof::Program("rsyslogd")),
    need("bpftool", Purpose::Test, Proof::Program("bpftool")),
    need("hydra", Purpose::Test, Proof::Program("hydra")),
    need("nftables", Purpose::Test, Proof::Program("nft")),
    need("iptables", Purpose::Test, Proof::Program("iptables-save")),
    need("ipset", Purpose::Test, Proof::Program("ipset")),
    need("nginx", Purpose::Test, Proof::Program("nginx")),
    // The program without the service: nothing that could start.
    need("apache2-bin", Purpose::Test, Proof::Program("apache2")),
    need(
        "systemd",
        Purpose::Test,
        Proof::File(&["/lib/systemd/systemd-journald", "/usr/lib/systemd/systemd-journald"]),
    ),
    need(
        "systemd-journal-remote",
        Purpose::Test,
        Proof::File(&[
            "/lib/systemd/systemd-journal-remote",
            "/usr/lib/systemd/systemd-journal-remote",
        ]),
    ),
    need("qemu-system-x86", Purpose::Test, Proof::Program("qemu-system-x86_64")),
    need("busybox-static", Purpose::Test, Proof::Program("busybox")),
    need("python3", Purpose::Test, Proof::Program("python3")),
    need("cpio", Purpose::Test, Proof::Program("cpio")),
    need("openssl", Purpose::Test, Proof::Program("openssl")),
    // Installs the tools of [`PYTHON_TOOLS`].
    need(
        "python3-pip",
        Purpose::Test,
        Proof::File(&["/usr/lib/python3/dist-packages/pip/__init__.py"]),
    ),
    // Runs fail2ban's own filters and dates, which ours are held against.
    need("python3", Purpose::Test, Proof::Program("python3")),
    need("binutils", Purpose::Test, Proof::Program("strip")),
    need("xz-utils", Purpose::Test, Proof::Program("xz")),
    need("zstd", Purpose::Test, Proof::Program("zstd")),
    need("logrotate", Purpose::Test, Proof::Program("logrotate")),
    // Terminals for `top`.
    need("tmux", Purpose::Test, Proof::Program("tmux")),
    need("procps", Purpose::Test, Proof::Program("ps")),
    need("perl", Purpose::Test, Proof::Program("perl")),
    // Reads our metrics as Prometheus does.
    need(
        "python3-prometheus-client",
        Purpose::Test,
        Proof::File(&["/usr/lib/python3/dist-packages/prometheus_client/parser.py"]),
    ),
    // Takes the mails of our actions, and a `sendmail` that hands them to it. Neither is a service.
    need(
        "python3-aiosmtpd",
        Purpose::Test,
        Proof::File(&["/usr/lib/python3/dist-packages/aiosmtpd/controller.py"]),
    ),
    need("msmtp", Purpose::Test, Proof::Program("msmtp")),
];

/// A package whose files are laid aside, never installed: no service, nothing in `/etc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The directory below `target`.
    pub name: &'static str,
    /// The package, as each distribution calls it. One that only names the newest kernel means
    /// that kernel, and the modules that come with it.
    pub packages: &'static [&'static str],
}

/// Tools made for fail2ban, from PyPI, and what they need; laid aside, for tests that run them against us.
pub const PYTHON_TOOLS: &[&str] = &[
    "offenders==0.4.1",
    "fail2slack==0.5.0",
    "requests==2.32.3",
    "validators==0.34.0",
    "idna==3.10",
    "urllib3==2.2.3",
    "certifi==2024.8.30",
    "charset-normalizer==3.4.0",
];

/// What tests read or boot without installing it.
pub const PEERS: &[Peer] = &[
    Peer { name: "peers/fail2ban", packages: &["fail2ban"] },
    Peer { name: "guest-kernel", packages: KERNELS },
    // Made for no other.
    #[cfg(target_arch = "x86_64")]
    Peer { name: "user-mode-linux", packages: &["user-mode-linux"] },
];

/// Small kernels for virtual machines: Debian's, then Ubuntu's.
const KERNELS: &[&str] = if cfg!(target_arch = "aarch64") {
    &["linux-image-cloud-arm64", "linux-image-virtual"]
} else {
    &["linux-image-cloud-amd64", "linux-image-virtual"]
};

/// What was found on a machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Whether packages can be installed without asking: we are root, or sudo wants no password.
    pub may_install: bool,
    /// The package manager, where it is apt.
    pub apt: Option<Apt>,
    /// Packages of [`NEEDS`] whose proof fails.
    pub missing: Vec<&'static str>,
    /// Names of [`PEERS`] that are not laid aside yet.
    pub missing_peers: Vec<&'static str>,
    /// The tools of [`PYTHON_TOOLS`] are not laid aside yet.
    pub misses_python_tools: bool,
    /// `/usr/bin/rustc` with its library's sources.
    pub debian: Option<Compiler>,
    /// Whether rustup is there.
    pub rustup: bool,
    /// The nightly that would be used.
    pub nightly: Option<Nightly>,
    /// Every bpf-linker found, in the order they would be tried.
    pub linkers: Vec<Linker>,
}

/// What apt says.
#[derive(Clone, Debug, Default)]
pub struct Apt {
    /// Package lists were fetched, so that it knows what exists.
    pub has_lists: bool,
    /// LLVM's release behind the `rustc-web` on offer; without lists, what this distribution is
    /// known to offer.
    pub rustc_web_llvm: Option<u32>,
    /// An installed package that `rustc-web` would remove.
    pub conflict: Option<&'static str>,
}

/// A compiler that can build for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Its release of LLVM.
    pub llvm: u32,
}

/// A nightly toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nightly {
    /// Its name for `cargo +NAME`.
    pub name: String,
    /// Its release of LLVM.
    pub llvm: u32,
    /// Whether it has the component `rust-src`.
    pub has_sources: bool,
}

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// Its own release, major and minor.
    pub version: (u32, u32),
    /// Its release of LLVM.
    pub llvm: u32,
}

impl Linker {
    /// Whether it can read what a compiler of this LLVM writes: bitcode is only readable by the
    /// same or a newer LLVM.
    pub fn fits(&self, llvm: u32) -> bool {
        self.version >= (0, 13) && self.llvm >= llvm
    }
}

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch package lists; what comes after is planned anew with them.
    Update,
    /// Install system packages.
    Install(Vec<String>),
    /// Fetch the nightly with its sources.
    Nightly(String),
    /// Add the sources to the nightly that is there.
    Sources(String),
    /// Build bpf-linker.
    Linker {
        /// The LLVM it is built against.
        llvm: u32,
        /// Whose.
        from: LlvmFrom,
    },
    /// Lay a package's files aside.
    Unpack(Peer),
    /// Lay the tools of [`PYTHON_TOOLS`] aside.
    PythonTools,
}

/// Whose LLVM the linker uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LlvmFrom {
    /// Debian's `llvm-N-dev`.
    Debian,
    /// The library that comes with this toolchain of rustup: the very one its rustc uses.
    Toolchain(String),
}

/// The steps, and the compiler they lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which compiler builds the kernel object.
    pub route: Route,
    /// What is missing, in order.
    pub steps: Vec<Step>,
}

/// Why no plan leads to a kernel object.
#[derive(Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// Neither compiler is there, and nothing that could fetch one.
    NoCompiler,
    /// Debian's compiler was asked for and cannot be had.
    NoDebian(String),
    /// The compiler's LLVM is one that the linker cannot be built against.
    Llvm(u32),
    /// Packages are missing, and the package manager is not apt.
    NoApt(Vec<String>),
}

impl std::fmt::Display for NoPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCompiler => write!(
                f,
                "no compiler for the kernel object: install rustup (its nightly is used), \
                 or on Debian run `cargo xtask setup` with package lists that offer `rustc-web`"
            ),
            Self::NoDebian(why) => write!(f, "Debian's compiler cannot be used: {why}"),
            Self::Llvm(llvm) => write!(
                f,
                "bpf-linker {LINKER} knows LLVM {} to {}, the compiler has {llvm}: \
                 run `rustup toolchain install {NIGHTLY} --profile minimal --component rust-src`, \
                 then again with `FAIL2XDP_NIGHTLY={NIGHTLY}`",
                LINKER_LLVM.start(),
                LINKER_LLVM.end()
            ),
            Self::NoApt(packages) => write!(
                f,
                "this system has no apt: install what Debian calls `{}` (Fedora: \
                 pkgconf-pkg-config, systemd-devel; Arch: pkgconf, systemd)",
                packages.join("`, `")
            ),
        }
    }
}

impl std::error::Error for NoPlan {}

/// What a machine lacks for a purpose.
///
/// The compiler that needs least is chosen: one that can be used as it is, then one that lacks
/// only the linker, then Debian's packages where apt offers them and we may install them, then
/// rustup's nightly. A plan that begins with [`Step::Update`] is a guess:
/// ask again when the lists are there.
pub fn plan(machine: &Machine, purpose: Purpose, wanted: Option<Route>) -> Result<Plan, NoPlan> {
    let needs = NEEDS.iter().filter(|need| need.purpose <= purpose).map(|need| need.package);
    let mut packages: Vec<String> =
        needs.filter(|name| machine.missing.contains(name)).map(str::to_owned).collect();
    let route = match wanted {
        Some(route) => route,
        None => choose(machine)?,
    };
    let mut steps = Vec::new();
    match route {
        Route::Debian => debian(machine, &mut packages, &mut steps)?,
        Route::Rustup => rustup(machine, &mut steps)?,
    }
    if !packages.is_empty() {
        let Some(apt) = &machine.apt else { return Err(NoPlan::NoApt(packages)) };
        steps.insert(0, Step::Install(packages));
        if !apt.has_lists {
            steps.insert(0, Step::Update);
        }
    }
    if purpose >= Purpose::Test && machine.apt.is_some() {
        let peers = PEERS.iter().filter(|peer| machine.missing_peers.contains(&peer.name));
        steps.extend(peers.copied().map(Step::Unpack));
    }
    if purpose >= Purpose::Test && machine.misses_python_tools {
        steps.push(Step::PythonTools);
    }
    Ok(Plan { route, steps })
}

fn choose(machine: &Machine) -> Result<Route, NoPlan> {
    let linked = |llvm: u32| machine.linkers.iter().any(|linker| linker.fits(llvm));
    let buildable = |llvm: u32| LINKER_LLVM.contains(&llvm);
    let sourced = machine.nightly.as_ref().filter(|nightly| nightly.has_sources);
    if machine.debian.is_some_and(|compiler| linked(compiler.llvm)) {
        Ok(Route::Debian)
    } else if sourced.is_some_and(|nightly| linked(nightly.llvm)) {
        Ok(Route::Rustup)
    } else if machine.debian.is_some_and(|compiler| buildable(compiler.llvm)) {
        Ok(Route::Debian)
    } else if sourced.is_some_and(|nightly| buildable(nightly.llvm)) {
        Ok(Route::Rustup)
    } else if machine.rustup && !machine.may_install {
        // Packages would have to be installed by hand; a toolchain of rustup needs no root.
        Ok(Route::Rustup)
    } else if machine.apt.as_ref().is_some_and(|apt| offer(apt).is_ok()) {
        Ok(Route::Debian)
    } else if machine.rustup {
        Ok(Route::Rustup)
    } else {
        Err(NoPlan::NoCompiler)
    }
}

/// LLVM's release behind the `rustc-web` that apt would install.
fn offer(apt: &Apt) -> Result<u32, String> {
    if let Some(package) = apt.conflict {
        return Err(format!("`rustc-web` would remove the installed package `{package}`"));
    }
    match apt.rustc_web_llvm {
        Some(llvm) if LINKER_LLVM.contains(&llvm) => Ok(llvm),
        Some(llvm) => Err(format!(
            "the `rustc-web` on offer has LLVM {llvm}, bpf-linker wants {} to {}: \
             is the distribution's security archive among apt's sources?",
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        )),
        None => Err("apt offers no `rustc-web`".to_owned()),
    }
}

fn debian(
    machine: &Machine,
    packages: &mut Vec<String>,
    steps: &mut Vec<Step>,
) -> Result<(), NoPlan> {
    let llvm = match (machine.debian, &machine.apt) {
        (Some(compiler), _) => compiler.llvm,
        (None, None) => return Err(NoPlan::NoDebian("this system has no apt".to_owned())),
        (None, Some(apt)) => {
            packages.extend(["rustc-web", "cargo-web", "rust-web-src"].map(str::to_owned));
            offer(apt).map_err(NoPlan::NoDebian)?
        }
    };
    if !machine.linkers.iter().any(|linker| linker.fits(llvm)) {
        if !LINKER_LLVM.contains(&llvm) {
            return Err(NoPlan::Llvm(llvm));
        }
        packages.extend([format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]);
        packages.extend(["zlib1g-dev", "libzstd-dev"].map(str::to_owned));
        steps.push(Step::Linker { llvm, from: LlvmFrom::Debian });
    }
    Ok(())
}

fn rustup(machine: &Machine, steps: &mut Vec<Step>) -> Result<(), NoPlan> {
    let (name, llvm) = match &machine.nightly {
        Some(nightly) => {
            if !nightly.has_sources {
                steps.push(Step::Sources(nightly.name.clone()));
            }
            (nightly.name.clone(), nightly.llvm)
        }
        None if machine.rustup => {
            steps.push(Step::Nightly(NIGHTLY.to_owned()));
            (NIGHTLY.to_owned(), NIGHTLY_LLVM)
        }
        None => return Err(NoPlan::NoCompiler),
    };
    if !machine.linkers.iter().any(|linker| linker.fits(llvm)) {
        if !LINKER_LLVM.contains(&llvm) {
            return Err(NoPlan::Llvm(llvm));
        }
        steps.push(Step::Linker { llvm, from: LlvmFrom::Toolchain(name) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
