//! The `bpf` system calls that aya keeps to itself: links made, changed, described and pinned by their numbers alone.
//!
//! aya's own attach falls back to one that cannot be pinned and hides the error number that tells why.
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Commands and constants of `include/uapi/linux/bpf.h`.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_BTF_GET_FD_BY_ID: libc::c_long = 19;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_XDP: u32 = 37;

/// Flags of `linux/if_link.h`.
pub(super) const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
pub(super) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// One `union bpf_attr`, as much of it as the commands here use; the rest counts as zero.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes {
    words: [u32; 12],
}

impl Attributes {
    fn new(words: &[u32]) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.words[..words.len()].copy_from_slice(words);
        attributes
    }

    /// Stores an address in the two words that begin at `at`.
    fn with_address<T: ?Sized>(mut self, at: usize, target: *const T) -> Attributes {
        let raw = (target.cast::<u8>() as u64).to_ne_bytes();
        let (first, second) = raw.split_at(4);
        for (word, half) in self.words[at..at + 2].iter_mut().zip([first, second]) {
            *word = u32::from_ne_bytes([half[0], half[1], half[2], half[3]]);
        }
        self
    }
}

/// # Safety
///
/// Addresses inside `attributes` must be valid for what `command` reads and writes there.
unsafe fn bpf(command: libc::c_long, attributes: &Attributes) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<Attributes>()` bytes of a live value; what its addresses point to is the
    // caller's promise.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

fn number(fd: &impl AsFd) -> u32 {
    // A descriptor is never negative while it is borrowed.
    fd.as_fd().as_raw_fd() as u32
}

/// # Safety
///
/// `answer` must be a descriptor that nobody else owns.
unsafe fn owned(answer: i32) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(answer) }
}

/// Attaches `program` to the interface by a link of its own; it ends with the last descriptor or pin.
pub(super) fn link_create(program: &impl AsFd, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    let attributes = Attributes::new(&[number(program), interface, BPF_XDP, flags]);
    // SAFETY: no addresses in the attributes; the answer is a new descriptor.
    unsafe { bpf(BPF_LINK_CREATE, &attributes).map(|fd| owned(fd)) }
}

/// Puts `program` in the place of the link's; no packet meets neither.
pub(super) fn link_update(link: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let attributes = Attributes::new(&[number(link), number(program)]);
    // SAFETY: no addresses in the attributes.
    unsafe { bpf(BPF_LINK_UPDATE, &attributes).map(drop) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Pins a map, program or link.
pub(super) fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let attributes = Attributes::new(&[0, 0, number(object)]).with_address(0, path.as_ptr());
    // SAFETY: the address is that of a C string which lives until the call returns.
    unsafe { bpf(BPF_OBJ_PIN, &attributes).map(drop) }
}

/// Opens a pinned map, program or link.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let attributes = Attributes::default().with_address(0, path.as_ptr());
    // SAFETY: the address is that of a C string which lives until the call returns; the answer is a new descriptor.
    unsafe { bpf(BPF_OBJ_GET, &attributes).map(|fd| owned(fd)) }
}

/// Words of `struct bpf_link_info`, `bpf_map_info` or `bpf_prog_info`; those the kernel does not know are zero.
fn info<const WORDS: usize>(object: &impl AsFd) -> io::Result<[u32; WORDS]> {
    #[repr(C, align(8))]
    struct Info<const WORDS: usize>([u32; WORDS]);
    let mut info = Info([0; WORDS]);
    let attributes = Attributes::new(&[number(object), (WORDS * 4) as u32])
        .with_address(2, std::ptr::from_mut(&mut info));
    // SAFETY: the address is that of a live value of exactly the length given beside it, and any words are valid.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes)? };
    Ok(info.0)
}

/// Runs an XDP program once on a packet of its own; what it made of the packet is written to `out`.
pub(super) fn test_run(program: &impl AsFd, packet: &[u8], out: &mut [u8]) -> io::Result<()> {
    let attributes = Attributes::new(&[number(program), 0, packet.len() as u32, out.len() as u32])
        .with_address(4, packet.as_ptr())
        .with_address(6, out.as_mut_ptr());
    // SAFETY: the addresses are those of live buffers of exactly the lengths given beside them.
    unsafe { bpf(BPF_PROG_TEST_RUN, &attributes).map(drop) }
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Id of its program.
    pub program: u32,
    /// The interface; `None`: it is gone, and the link can never be used again.
    pub interface: Option<u32>,
}

/// Describes an XDP link; an error of kind `InvalidData` for anything else.
pub(super) fn link_info(link: &impl AsFd) -> io::Result<LinkInfo> {
    const BPF_LINK_TYPE_XDP: u32 = 6;
    let words = info::<8>(link)?;
    if words[0] != BPF_LINK_TYPE_XDP {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(LinkInfo { program: words[2], interface: Some(words[4]).filter(|&index| index != 0) })
}

/// A map's own description of its keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapTypes {
    /// Id of the BTF that the types stand in; 0: the map has none.
    pub btf: u32,
    /// Number of the key's type in it.
    pub key: u32,
    /// Number of the value's type in it.
    pub value: u32,
}

/// Which types a map was made with.
pub(super) fn map_types(map: &impl AsFd) -> io::Result<MapTypes> {
    let words = info::<20>(map)?;
    Ok(MapTypes { btf: words[16], key: words[17], value: words[18] })
}

/// The BTF with this id, as it was loaded; the kernel shows it to `CAP_SYS_ADMIN` alone.
pub(super) fn btf(id: u32) -> io::Result<Vec<u8>> {
    // SAFETY: no addresses in the attributes; the answer is a new descriptor.
    let btf = unsafe { bpf(BPF_BTF_GET_FD_BY_ID, &Attributes::new(&[id])).map(|fd| owned(fd))? };
    // `struct bpf_btf_info`: where to put it (64 bits), and how much of it there is.
    let length = info::<4>(&btf)?[2];
    let mut bytes = vec![0u8; length as usize];
    #[repr(C, align(8))]
    struct Request([u32; 4]);
    let address = (bytes.as_mut_ptr() as u64).to_ne_bytes();
    let (first, second) = address.split_at(4);
    let word = |half: &[u8]| u32::from_ne_bytes([half[0], half[1], half[2], half[3]]);
    let mut request = Request([word(first), word(second), length, 0]);
    let attributes =
        Attributes::new(&[number(&btf), 16]).with_address(2, std::ptr::from_mut(&mut request));
    // SAFETY: the address is that of a live request of 16 bytes, which in turn holds that of a live buffer and the
    // buffer's length.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes)? };
    Ok(bytes)
}

/// A program's id.
#[cfg(test)]
pub(super) fn program_id(program: &impl AsFd) -> io::Result<u32> {
    info::<2>(program).map(|words| words[1])
}

/// The name of the program with this id; the kernel shows it to `CAP_SYS_ADMIN` alone.
pub(super) fn program_name(id: u32) -> Option<String> {
    let attributes = Attributes::new(&[id]);
    // SAFETY: no addresses in the attributes; the answer is a new descriptor.
    let program = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &attributes).map(|fd| owned(fd)) }.ok()?;
    Some(name_of(&info::<20>(&program).ok()?[16..20])).filter(|name| !name.is_empty())
}

fn name_of(words: &[u32]) -> String {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Loads a program of two instructions that answers every packet with `verdict`.
    pub(in crate::enforce) fn answer(verdict: i32, frags: bool) -> io::Result<OwnedFd> {
        const BPF_PROG_LOAD: libc::c_long = 5;
        const BPF_PROG_TYPE_XDP: u32 = 6;
        const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
        let code: [u64; 2] = [0xb7 | (verdict as u64) << 32, 0x95];
        let license = c"Dual MIT/GPL";
        #[repr(C, align(8))]
        struct Load([u32; 20]);
        let mut load = Load([0; 20]);
        load.0[0] = BPF_PROG_TYPE_XDP;
        load.0[1] = 2;
        load.0[2..4].copy_from_slice(&halves(code.as_ptr().cast()));
        load.0[4..6].copy_from_slice(&halves(license.as_ptr().cast()));
        load.0[11] = if frags { BPF_F_XDP_HAS_FRAGS } else { 0 };
        load.0[17] = BPF_XDP;
        // SAFETY: instructions and licence live until the call returns; the answer is a new descriptor.
        unsafe {
            let answer = libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_LOAD,
                std::ptr::from_ref(&load),
                size_of::<Load>(),
            );
            if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(answer as i32)) }
        }
    }

    fn halves(address: *const u8) -> [u32; 2] {
        let raw = (address as u64).to_ne_bytes();
        [
            u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]),
            u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        ]
    }

    #[test]
    fn an_object_of_another_kind_is_no_link() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(link_info(&file).is_err());
        assert!(open_pin(Path::new("/proc/self")).is_err());
        assert_eq!(
            c_path(Path::new(std::ffi::OsStr::from_bytes(b"a\0b"))).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
