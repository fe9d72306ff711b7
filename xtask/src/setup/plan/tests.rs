use super::*;

/// Bare: git, a C compiler and rustup without a nightly.
fn debian_12() -> Machine {
    Machine {
        may_install: true,
        apt: Some(Apt { has_lists: true, rustc_web_llvm: Some(22), conflict: None }),
        missing: NEEDS
            .iter()
            .map(|need| need.package)
            .filter(|name| !["util-linux", "systemd"].contains(name))
            .collect(),
        missing_peers: PEERS.iter().map(|peer| peer.name).collect(),
        rustup: true,
        ..Machine::default()
    }
}

fn ubuntu() -> Machine {
    Machine {
        apt: Some(Apt { has_lists: true, rustc_web_llvm: None, conflict: None }),
        ..debian_12()
    }
}

fn nightly(llvm: u32, has_sources: bool) -> Option<Nightly> {
    Some(Nightly { name: "nightly".to_owned(), llvm, has_sources })
}

fn linker(version: (u32, u32), llvm: u32) -> Vec<Linker> {
    vec![Linker { path: "bpf-linker".into(), version, llvm }]
}

/// Plans and renders: the route, then one line a step.
#[track_caller]
fn check(machine: Machine, purpose: Purpose, wanted: Option<Route>, expect: &[&str]) {
    let lines = match plan(&machine, purpose, wanted) {
        Ok(plan) => std::iter::once(format!("{:?}", plan.route))
            .chain(plan.steps.iter().map(|step| match step {
                Step::Update => "update".to_owned(),
                Step::Install(packages) => format!("install {}", packages.join(" ")),
                Step::Nightly(name) => format!("fetch {name}"),
                Step::Sources(name) => format!("sources for {name}"),
                Step::Linker { llvm, from } => format!("linker {llvm} {from:?}"),
                Step::Unpack(peer) => format!("unpack {}", peer.name),
                Step::PythonTools => "python tools".to_owned(),
            }))
            .collect(),
        Err(error) => vec![error.to_string()],
    };
    assert_eq!(lines, expect);
}

const DEBIAN: &str = "install pkg-config libsystemd-dev rustc-web cargo-web rust-web-src \
                      llvm-22-dev libpolly-22-dev zlib1g-dev libzstd-dev";

#[test]
fn bare_debian_as_root_takes_the_packages() {
    check(debian_12(), Purpose::Build, None, &["Debian", DEBIAN, "linker 22 Debian"]);
}

#[test]
fn package_lists_are_fetched_first_where_there_are_none() {
    let mut machine = debian_12();
    machine.apt.as_mut().unwrap().has_lists = false;
    check(machine, Purpose::Build, None, &["Debian", "update", DEBIAN, "linker 22 Debian"]);
}

#[test]
fn without_root_rustup_leaves_the_least_to_be_done_by_hand() {
    check(
        Machine { may_install: false, ..debian_12() },
        Purpose::Build,
        None,
        &[
            "Rustup",
            "install pkg-config libsystemd-dev",
            "fetch nightly-2026-05-20",
            "linker 22 Toolchain(\"nightly-2026-05-20\")",
        ],
    );
}

#[test]
fn ubuntu_takes_rustup() {
    check(
        ubuntu(),
        Purpose::Build,
        None,
        &[
            "Rustup",
            "install pkg-config libsystemd-dev",
            "fetch nightly-2026-05-20",
            "linker 22 Toolchain(\"nightly-2026-05-20\")",
        ],
    );
}

#[test]
fn an_older_rustc_web_is_no_offer() {
    let mut machine = debian_12();
    machine.apt.as_mut().unwrap().rustc_web_llvm = Some(19);
    machine.missing.clear();
    check(
        machine.clone(),
        Purpose::Build,
        None,
        &["Rustup", "fetch nightly-2026-05-20", "linker 22 Toolchain(\"nightly-2026-05-20\")"],
    );
    check(
        machine,
        Purpose::Build,
        Some(Route::Debian),
        &["Debian's compiler cannot be used: the `rustc-web` on offer has LLVM 19, bpf-linker \
           wants 21 to 23: is the distribution's security archive among apt's sources?"],
    );
}

#[test]
fn installed_packages_are_never_removed() {
    let mut machine = debian_12();
    machine.apt.as_mut().unwrap().conflict = Some("rustc");
    machine.rustup = false;
    machine.missing.clear();
    check(
        machine.clone(),
        Purpose::Build,
        Some(Route::Debian),
        &["Debian's compiler cannot be used: `rustc-web` would remove the installed package \
           `rustc`"],
    );
    machine.rustup = true;
    machine.nightly = nightly(23, true);
    machine.linkers = linker((0, 13), 23);
    check(machine, Purpose::Build, None, &["Rustup"]);
}

#[test]
fn nothing_is_done_where_all_is_there() {
    let machine = Machine {
        missing: Vec::new(),
        missing_peers: Vec::new(),
        debian: Some(Compiler { llvm: 22 }),
        linkers: linker((0, 13), 22),
        ..debian_12()
    };
    check(machine.clone(), Purpose::Test, None, &["Debian"]);
    let machine = Machine { may_install: false, apt: None, ..machine };
    check(machine, Purpose::Build, None, &["Debian"]);
}

#[test]
fn a_nightly_with_sources_lacks_only_the_linker() {
    let machine = Machine { nightly: nightly(23, true), missing: Vec::new(), ..debian_12() };
    check(machine, Purpose::Build, None, &["Rustup", "linker 23 Toolchain(\"nightly\")"]);
}

#[test]
fn a_nightly_without_sources_gets_them() {
    let machine = Machine { nightly: nightly(22, false), missing: Vec::new(), ..ubuntu() };
    check(
        machine,
        Purpose::Build,
        None,
        &["Rustup", "sources for nightly", "linker 22 Toolchain(\"nightly\")"],
    );
}

#[test]
fn a_linker_with_an_older_llvm_or_release_is_not_used() {
    let base = Machine {
        missing: Vec::new(),
        debian: Some(Compiler { llvm: 22 }),
        nightly: None,
        ..debian_12()
    };
    let rebuilt = [
        "Debian",
        "install llvm-22-dev libpolly-22-dev zlib1g-dev libzstd-dev",
        "linker 22 Debian",
    ];
    for linkers in [linker((0, 13), 21), linker((0, 10), 22)] {
        check(Machine { linkers, ..base.clone() }, Purpose::Build, None, &rebuilt);
    }
    check(Machine { linkers: linker((0, 13), 23), ..base }, Purpose::Build, None, &["Debian"]);
}

#[test]
fn a_nightly_newer_than_the_linker_is_refused_with_the_cure() {
    let machine = Machine { nightly: nightly(24, true), missing: Vec::new(), ..ubuntu() };
    check(
        machine,
        Purpose::Build,
        None,
        &["bpf-linker 0.13.0 knows LLVM 21 to 23, the compiler has 24: run `rustup toolchain \
           install nightly-2026-05-20 --profile minimal --component rust-src`, then again with \
           `FAIL2XDP_NIGHTLY=nightly-2026-05-20`"],
    );
}

#[test]
fn tests_want_more_packages_and_peers_laid_aside() {
    let machine = Machine {
        debian: Some(Compiler { llvm: 22 }),
        linkers: linker((0, 13), 22),
        missing: vec!["sshpass", "hydra", "bpftool"],
        missing_peers: vec!["peers/fail2ban"],
        misses_python_tools: true,
        ..debian_12()
    };
    check(machine.clone(), Purpose::Build, None, &["Debian"]);
    check(machine.clone(), Purpose::Demo, None, &["Debian", "install sshpass"]);
    check(
        machine,
        Purpose::Test,
        None,
        &["Debian", "install sshpass bpftool hydra", "unpack peers/fail2ban", "python tools"],
    );
}

#[test]
fn another_system_is_told_what_to_install() {
    let machine = Machine {
        apt: None,
        missing: vec!["pkg-config", "libsystemd-dev"],
        nightly: nightly(22, true),
        linkers: linker((0, 13), 23),
        ..debian_12()
    };
    check(
        machine,
        Purpose::Build,
        None,
        &["this system has no apt: install what Debian calls `pkg-config`, `libsystemd-dev` \
           (Fedora: pkgconf-pkg-config, systemd-devel; Arch: pkgconf, systemd)"],
    );
    let machine = Machine { apt: None, rustup: false, missing: Vec::new(), ..debian_12() };
    check(
        machine,
        Purpose::Build,
        None,
        &["no compiler for the kernel object: install rustup (its nightly is used), or on Debian \
           run `cargo xtask setup` with package lists that offer `rustc-web`"],
    );
}
