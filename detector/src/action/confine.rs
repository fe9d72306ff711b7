//! The right to bpf(2), given up for good: by the runner, and with it by every command.
use std::io;

use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// `PR_SET_SECCOMP` alone asks for `no_new_privs` where there is no CAP_SYS_ADMIN; mailers that are set-group-ID would fail
/// with it, so it is set only there.
const ADMIN: CapabilitySet = CapabilitySet::SYS_ADMIN;
const GIVEN_UP: [CapabilitySet; 2] = [CapabilitySet::BPF, CapabilitySet::PERFMON];

/// Kinds of system calls that this kernel takes, as linux/audit.h names them, and the number of bpf(2) among each.
#[cfg(target_arch = "x86_64")]
const CALLS: [(u32, u32); 2] = [(0xc000_003e, 321), (0x4000_0003, 357)];
#[cfg(target_arch = "aarch64")]
const CALLS: [(u32, u32); 2] = [(0xc000_00b7, 280), (0x4000_0028, 386)];

/// Bit of the numbers of x32, which are else those of x86-64.
const X32: u32 = 0x4000_0000;

/// Where the kernel tells a filter the number of the call, and its kind (`struct seccomp_data`).
const NUMBER: u32 = 0;
const KIND: u32 = 4;

/// From now on bpf(2) fails with EPERM in this thread, in threads that it makes, and in whatever they start. To be called
/// before there are others.
///
/// # Errors
/// What the kernel says.
pub(super) fn give_up_bpf() -> io::Result<()> {
    let mut held = capabilities(None)?;
    let is_admin = held.effective.contains(ADMIN);
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in GIVEN_UP {
            if capability_is_in_bounding_set(capability)? {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    for set in [&mut held.effective, &mut held.permitted, &mut held.inheritable] {
        GIVEN_UP.iter().for_each(|capability| set.remove(*capability));
    }
    set_capabilities(None, held)?;
    if !is_admin {
        rustix::thread::set_no_new_privs(true)?;
    }
    refuse()
}

/// Root can bpf(2) without those capabilities, too: a filter refuses the call itself.
fn refuse() -> io::Result<()> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let and = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    let back = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut program = Vec::new();
    for (kind, bpf) in CALLS {
        program.extend([
            step(load, KIND, 0),
            // Not of this kind: on to the next.
            step(equal, kind, 4),
            step(load, NUMBER, 0),
            step(and, !X32, 0),
            step(equal, bpf, 1),
            step(back, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
        ]);
    }
    program.push(step(back, libc::SECCOMP_RET_ALLOW, 0));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
