//! Packet bytes: every bounds check and every unsafe access to them.
use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use fail2xdp_common::report::ClockSample;

/// Types that any bytes make a value of.
///
/// # Safety
/// Integers and arrays of integers only.
pub unsafe trait Plain: Copy {}
// SAFETY: an integer, or an array of integers.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// Something that knows where a packet lies in memory.
pub trait Frame {
    /// Where its bytes begin and end.
    fn bounds(&self) -> (usize, usize);
}

/// A packet as the driver handed it over.
pub trait Packet: Frame {
    /// What the kernel knows of it.
    fn context(&self) -> &XdpContext;
    /// Bytes, Ethernet header included.
    fn length(&self) -> u64;
}

/// A packet that lies in one piece.
pub struct Whole(pub XdpContext);

/// Less than any driver's receive buffer.
const SMALLEST_BUFFER: u64 = 256;

/// A packet that may go on in further pieces; its headers lie in the first.
pub struct Pieces(pub XdpContext);

impl Frame for Whole {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.0.data(), self.0.data_end())
    }
}

impl Packet for Whole {
    #[inline(always)]
    fn context(&self) -> &XdpContext {
        &self.0
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        (self.0.data_end() - self.0.data()) as u64
    }
}

impl Frame for Pieces {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.0.data(), self.0.data_end())
    }
}

impl Packet for Pieces {
    #[inline(always)]
    fn context(&self) -> &XdpContext {
        &self.0
    }

    #[inline(always)]
    fn length(&self) -> u64 {
        // Asking the kernel costs 4 ns, which a flood of small packets would pay for nothing: drivers
        // fill a buffer of at least this size before they begin another piece.
        let first = (self.0.data_end() - self.0.data()) as u64;
        if first < SMALLEST_BUFFER {
            return first;
        }
        // SAFETY: the helper takes the context of the program that runs.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) }
    }
}

/// Where a packet lies, found in a subprogram of its own.
pub struct Span(usize, usize);

impl Span {
    /// Reads the bounds here and now. Volatile: else LLVM reads them in the caller and hands them over
    /// as numbers, which the verifier no longer takes for pointers ("pointer arithmetic prohibited").
    #[inline(always)]
    pub fn of(ctx: *mut xdp_md) -> Span {
        // SAFETY: the kernel hands the context to the program and to its global functions.
        unsafe {
            Span(
                (&raw const (*ctx).data).read_volatile() as usize,
                (&raw const (*ctx).data_end).read_volatile() as usize,
            )
        }
    }
}

impl Frame for Span {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.0, self.1)
    }
}

/// The value at `offset`; `None` where the packet is too short.
#[inline(always)]
pub fn read<T: Plain>(frame: &impl Frame, offset: usize) -> Option<T> {
    let (start, end) = frame.bounds();
    if start + offset + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the kernel keeps `start..end` readable while we run and the check above keeps us inside
    // it; the read needs no alignment; `Plain` promises that any bytes make a `T`.
    Some(unsafe { ((start + offset) as *const T).read_unaligned() })
}

/// A 16-bit number in network order.
#[inline(always)]
pub fn read_be16(frame: &impl Frame, offset: usize) -> Option<u16> {
    read(frame, offset).map(u16::from_be)
}

/// Puts the sample where the packet was; nothing where it is too short.
#[inline(always)]
pub fn overwrite(ctx: &XdpContext, sample: ClockSample) {
    let start = ctx.data();
    if start + size_of::<ClockSample>() <= ctx.data_end() {
        // SAFETY: XDP programs may write to the packet and the check above keeps us inside it.
        unsafe { (start as *mut ClockSample).write_unaligned(sample) }
    }
}
