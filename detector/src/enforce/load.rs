//! Brings an object into the kernel: maps of the wanted sizes, pinned, and the programs that read them.
use std::{
    error::Error,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{ProgramError, Xdp},
};
use fail2xdp_common::{clock as ticking, map, program, report::ClockSample};

use super::{
    clock::Ticks,
    drops::Drops,
    fault::{EnforceError, Surroundings},
    link::Programs,
    sys,
    tables::{Maps, Sizes},
};

/// Maps that two sets share while the daemon moves from one to the other, so that counts go on.
const SHARED: [&str; 3] = [map::COUNTERS, map::EVENT_WINDOW, map::EVENTS];

/// An object in the kernel, beside its maps.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Its programs, attached to nothing.
    pub programs: Programs,
    /// What it says of single packets.
    pub drops: Drops,
    /// Its clock.
    pub sampler: Sampler,
    /// What the programs take for time.
    pub ticks: Ticks,
}

/// Runs the program that reads the kernel's clocks.
#[derive(Debug)]
pub(super) struct Sampler(OwnedFd);

impl Sampler {
    /// All clocks at one moment.
    pub fn sample(&self) -> Result<ClockSample, EnforceError> {
        // The least that a test run takes is an Ethernet header.
        let mut packet = [0; 64];
        sys::test_run(&self.0, &[0; 64], &mut packet).map_err(EnforceError::Clock)?;
        let mut words = packet
            .chunks_exact(8)
            .map(|raw| u64::from_ne_bytes(raw.try_into().expect("eight bytes")));
        let mut next = || words.next().unwrap_or(0);
        Ok(ClockSample { jiffies: next(), nanoseconds: next(), ticks: next() })
    }
}

/// Loads `object` with its maps pinned in `folder`: those already there are taken as they are, the others made for
/// `sizes`. The few that count packets are taken from `before`, the set that holds until now.
///
/// Which clock the programs read is decided by a sample; only where jiffies cannot be trusted is the object loaded a
/// second time.
///
/// # Errors
///
/// What the kernel lacks or refuses, named as far as it can be told.
pub(super) fn load(
    object: &[u8],
    folder: &Path,
    sizes: Sizes,
    before: Option<&Path>,
) -> Result<(Maps, Loaded), EnforceError> {
    if Surroundings::observe().version() < (5, 11) {
        // Maps count against it there. Where it may not be raised, making a map says so.
        let unlimited = rustix::process::Rlimit { current: None, maximum: None };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
    }
    let (maps, mut loaded) = load_with(object, folder, sizes, before, ticking::JIFFIES)?;
    loaded.ticks = Ticks::of(loaded.sampler.sample()?);
    match loaded.ticks {
        Ticks::Jiffies { .. } => Ok((maps, loaded)),
        // The pins of the first loading are taken over by the second.
        Ticks::Coarse => load_with(object, folder, sizes, before, ticking::COARSE),
    }
}

fn load_with(
    object: &[u8],
    folder: &Path,
    sizes: Sizes,
    before: Option<&Path>,
    clock: u8,
) -> Result<(Maps, Loaded), EnforceError> {
    let mut loader = EbpfLoader::new();
    loader.override_global(ticking::GLOBAL, &clock, true);
    for (name, entries) in sizes.entries() {
        loader.map_max_entries(name, entries);
    }
    for name in map::ALL {
        match before.filter(|_| SHARED.contains(&name)) {
            None => loader.map_pin_path(name, folder.join(name)),
            Some(before) => {
                let path = folder.join(name);
                if !path.exists() {
                    let shared = sys::open_pin(&before.join(name))
                        .map_err(|source| pin_fault("open", before, name, source))?;
                    sys::pin(&shared, &path)
                        .map_err(|source| pin_fault("pin a map as", folder, name, source))?;
                }
                loader.map_pin_path(name, path)
            }
        };
    }
    let mut ebpf = loader.load(object).map_err(diagnose)?;
    let maps = Maps::of(&ebpf)
        .map_err(|source| EnforceError::Table { doing: "use the maps of the object", source })?;
    let plain = load_program(&mut ebpf, program::BAN)
        .map_err(|source| unverified(program::BAN, &source))?;
    let frags = match load_program(&mut ebpf, program::BAN_FRAGS) {
        Ok(frags) => Some(frags),
        // Linux before 5.18 does not know the flag.
        Err(source) if root_errno(&source) == Some(libc::EINVAL) => None,
        Err(source) => return Err(unverified(program::BAN_FRAGS, &source)),
    };
    let sampler = load_program(&mut ebpf, program::SAMPLE_CLOCK);
    let sampler = Sampler(sampler.map_err(|source| unverified(program::SAMPLE_CLOCK, &source))?);
    let drops = Drops::of(&mut ebpf, &maps)?;
    let programs = Programs { frags, plain };
    Ok((maps, Loaded { programs, drops, sampler, ticks: Ticks::Coarse }))
}

fn pin_fault(doing: &'static str, folder: &Path, name: &str, source: io::Error) -> EnforceError {
    EnforceError::Pin { doing, path: folder.join(name), source }
}

/// Verifies a program and keeps it by a descriptor of its own.
fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd, ProgramError> {
    let program: &mut Xdp =
        ebpf.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
    program.load()?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// Why a program was not accepted.
fn unverified(program: &str, error: &ProgramError) -> EnforceError {
    let surroundings = Surroundings::observe();
    match (error, root_errno(error)) {
        (ProgramError::UnexpectedProgramType, _) => {
            EnforceError::Object { what: format!("it has no XDP program `{program}`") }
        }
        (_, Some(libc::EPERM)) => surroundings.refusal(),
        // The verifier's word for what it allows with CAP_PERFMON alone, and for a program that is wrong.
        (_, Some(libc::EACCES)) if surroundings.lacks_capabilities() => surroundings.refusal(),
        (ProgramError::LoadError { .. }, _) if !surroundings.btf => {
            EnforceError::NoBtf { release: surroundings.release }
        }
        (ProgramError::LoadError { io_error, verifier_log }, _) => EnforceError::Verifier {
            program: program.to_owned(),
            words: last_words(&verifier_log.to_string(), io_error),
        },
        (other, _) => {
            EnforceError::Verifier { program: program.to_owned(), words: other.to_string() }
        }
    }
}

/// What the verifier's closing statistics begin with.
const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];

/// The verifier's verdict: it stands before the closing statistics of a log that may have thousands of lines.
fn last_words(log: &str, error: &io::Error) -> String {
    let counts = |line: &str| STATISTICS.iter().any(|begins| line.starts_with(begins));
    let said = log.lines().rev().find(|line| !line.trim().is_empty() && !counts(line));
    said.map_or_else(|| error.to_string(), |line| format!("{} ({error})", line.trim()))
}

/// What is behind an error of the loader.
fn diagnose(error: EbpfError) -> EnforceError {
    let refused = matches!(root_errno(&error), Some(libc::EPERM | libc::EACCES));
    let surroundings = Surroundings::observe();
    if refused {
        return surroundings.refusal();
    }
    if aya::features().btf().is_none() {
        return EnforceError::NoBtf { release: surroundings.release };
    }
    match error {
        EbpfError::ParseError(fault) => EnforceError::Object { what: fault.to_string() },
        other => EnforceError::Load(other),
    }
}

/// The number of the system call's error at the bottom of a chain.
fn root_errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    let mut found = None;
    while let Some(error) = cause {
        found = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).or(found);
        cause = error.source();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_at_the_bottom_of_a_chain_is_found() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        let outer = EnforceError::Netlink { what: "the routes", source: refused };
        assert_eq!(root_errno(&outer), Some(libc::EPERM));
        assert_eq!(
            root_errno(&EnforceError::UnknownInterface {
                name: String::new(),
                known: String::new()
            }),
            None
        );
    }

    #[test]
    fn the_verifiers_verdict_is_found_in_its_log() {
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let log = "0: R1=ctx()\n7: (61) r2 = *(u32 *)(r1 +0)\ninvalid access to packet\nverification time 398 usec\nstack depth 0+0\nprocessed 12 insns (limit 1000000)\n\n";
        assert!(last_words(log, &error).starts_with("invalid access to packet (Permission denied"));
        assert!(last_words("", &error).starts_with("Permission denied"));
    }

    #[test]
    fn what_is_no_object_is_said_to_be_none() {
        let said = diagnose(EbpfLoader::new().load(b"no ELF").unwrap_err()).to_string();
        assert!(said.contains("the embedded XDP object") || said.contains("missing"), "{said}");
    }
}
