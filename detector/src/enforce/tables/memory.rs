//! Memory of an array map, shared with the program.
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};

/// The values of an `mmap`able array, one after the other.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    mapped: usize,
}

// SAFETY: the memory belongs to the map, not to a thread; access is atomic.
unsafe impl Send for Memory {}

impl Memory {
    /// Maps `bytes` of values.
    ///
    /// # Errors
    /// That of `mmap`: `EPERM` for a map that is not `mmap`able, `EINVAL` for more bytes than it has.
    pub fn map(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Memory> {
        let mapped = bytes.next_multiple_of(4096);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Memory { start, bytes, mapped })
    }

    fn at<T>(&self, offset: usize) -> NonNull<T> {
        assert!(
            offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= self.bytes,
            "offset {offset} of {} bytes",
            self.bytes
        );
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.start.add(offset) }.cast()
    }

    /// The 64-bit word that begins at byte `offset`, which must be inside and a multiple of 8.
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside the mapping and aligned (the mapping begins on a page); the memory lives as
        // long as `self`, and the program and we only access it by whole words, ours atomic.
        unsafe { self.at::<AtomicU64>(offset).as_ref() }
    }

    /// The 32-bit word that begins at byte `offset`, which must be inside and a multiple of 4.
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `word64`.
        unsafe { self.at::<AtomicU32>(offset).as_ref() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole; every reference into it borrowed `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
    }
}
