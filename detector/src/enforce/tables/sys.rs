//! The system calls of this module, each behind a safe function.
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Entries read by one system call, where the kernel can.
const BATCH: usize = 4096;

/// The part of `union bpf_attr` that commands on elements read.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    unused: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that commands on many elements read.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// # Safety
/// `key` must point to as many readable bytes as the map's keys have or be null where the command
/// allows that, `value` to as many as the command reads or writes.
unsafe fn element(
    command: libc::c_int,
    map: BorrowedFd<'_>,
    key: *const u8,
    value: *mut u8,
) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        unused: 0,
        key: key.addr() as u64,
        value_or_next_key: value.addr() as u64,
        flags: 0,
    };
    // SAFETY: the attribute is the command's own and lives through the call; what it points to is the
    // caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<ElementAttr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A map whose keys and values have been compared with `K` and `V` when it was opened.
pub trait Typed<K: Pod, V: Pod> {
    /// The map.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// The value under `key`; for a trie that of the longest prefix covering it.
pub fn lookup<K: Pod, V: Pod>(map: &impl Typed<K, V>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    // SAFETY: `Typed` promises that the map's sizes are those of `K` and `V`.
    let result = unsafe {
        element(
            BPF_MAP_LOOKUP_ELEM,
            map.descriptor(),
            (&raw const *key).cast(),
            value.as_mut_ptr().cast(),
        )
    };
    // SAFETY: the kernel wrote a whole value, and any bytes make a `Pod`.
    Ok(found(result)?.then(|| unsafe { value.assume_init() }))
}

/// The values under `key` on each of `processors`, for a per-CPU map.
pub fn lookup_per_cpu<K: Pod, V: Pod + Default>(
    map: &impl Typed<K, V>,
    key: &K,
    processors: usize,
) -> io::Result<Vec<V>> {
    const {
        assert!(
            size_of::<V>().is_multiple_of(8),
            "the kernel rounds each CPU's value up to 8 bytes"
        )
    };
    let mut values = vec![V::default(); processors];
    // SAFETY: as in `lookup`; the kernel writes one value for each possible CPU.
    unsafe {
        element(
            BPF_MAP_LOOKUP_ELEM,
            map.descriptor(),
            (&raw const *key).cast(),
            values.as_mut_ptr().cast(),
        )?
    };
    Ok(values)
}

/// Puts `value` under `key`, in place of what was there.
pub fn update<K: Pod, V: Pod>(map: &impl Typed<K, V>, key: &K, value: &V) -> io::Result<()> {
    // SAFETY: as in `lookup`; an update only reads the value.
    unsafe {
        element(
            BPF_MAP_UPDATE_ELEM,
            map.descriptor(),
            (&raw const *key).cast(),
            (&raw const *value).cast_mut().cast(),
        )
    }
}

/// Takes out what is under `key`, a trie's prefix exactly; whether there was something.
pub fn delete<K: Pod, V: Pod>(map: &impl Typed<K, V>, key: &K) -> io::Result<bool> {
    // SAFETY: as in `lookup`; a deletion has no value.
    found(unsafe {
        element(
            BPF_MAP_DELETE_ELEM,
            map.descriptor(),
            (&raw const *key).cast(),
            std::ptr::null_mut(),
        )
    })
}

/// The key after `key`, or the first.
pub fn next_key<K: Pod, V: Pod>(map: &impl Typed<K, V>, key: Option<&K>) -> io::Result<Option<K>> {
    let key = key.map_or(std::ptr::null(), |key| (&raw const *key).cast());
    let mut next = MaybeUninit::<K>::uninit();
    // SAFETY: as in `lookup`; a null key asks for the first, the kernel writes a key.
    let result =
        unsafe { element(BPF_MAP_GET_NEXT_KEY, map.descriptor(), key, next.as_mut_ptr().cast()) };
    // SAFETY: the kernel wrote a whole key, and any bytes make a `Pod`.
    Ok(found(result)?.then(|| unsafe { next.assume_init() }))
}

/// Every key, read before anything else is done with the map: `get_next_key` of tries before Linux
/// 6.13 skips entries after a deletion.
pub fn keys<K: Pod, V: Pod>(map: &impl Typed<K, V>) -> io::Result<Vec<K>> {
    let mut keys: Vec<K> = Vec::new();
    while let Some(key) = next_key(map, keys.last())? {
        keys.push(key);
    }
    Ok(keys)
}

/// Every key with its value, read before anything else is done with the map.
pub fn entries<K: Pod, V: Pod>(map: &impl Typed<K, V>) -> io::Result<Vec<(K, V)>> {
    match entries_by_batch(map) {
        // Tries cannot before Linux 5.13.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
            let keys = keys(map)?.into_iter();
            keys.filter_map(|key| lookup(map, &key).map(|value| Some((key, value?))).transpose())
                .collect()
        }
        read => read,
    }
}

/// What the kernel says of an operation that a map does not have; no number of the C library's.
const ENOTSUPP: i32 = 524;

fn entries_by_batch<K: Pod, V: Pod>(map: &impl Typed<K, V>) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    let mut keys = vec![MaybeUninit::<K>::uninit(); BATCH];
    let mut values = vec![MaybeUninit::<V>::uninit(); BATCH];
    // Where the next batch begins: a key, in a trie and in a hash.
    let (mut from, mut to) = (MaybeUninit::<K>::uninit(), MaybeUninit::<K>::uninit());
    let mut is_first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if is_first { 0 } else { from.as_ptr().addr() as u64 },
            out_batch: to.as_mut_ptr().addr() as u64,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: BATCH as u32,
            map_fd: map.descriptor().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: `Typed` promises the sizes; keys and values have room for as many as said.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attr,
                size_of::<BatchAttr>(),
            )
        };
        let is_last = result < 0;
        if is_last {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error);
            }
        }
        let count = (attr.count as usize).min(BATCH);
        // SAFETY: the kernel wrote as many whole keys and values as it says, and any bytes make a `Pod`.
        let read = keys
            .iter()
            .zip(&values)
            .take(count)
            .map(|(key, value)| unsafe { (key.assume_init_read(), value.assume_init_read()) });
        entries.extend(read);
        if is_last {
            return Ok(entries);
        }
        std::mem::swap(&mut from, &mut to);
        is_first = false;
    }
}

/// Waits until no program that runs now can still hold what it read from a map: programs run inside
/// RCU's read side and this is `synchronize_rcu`. 10 to 16 ms.
///
/// # Errors
/// `EINVAL` with `nohz_full`, `ENOSYS` without `CONFIG_MEMBARRIER`, `EPERM` by a seccomp filter.
pub fn wait_for_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the command takes three numbers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A number that nobody can guess.
pub fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes come whole or not at all (getrandom(2)).
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(u64::from_ne_bytes(bytes)) }
}
