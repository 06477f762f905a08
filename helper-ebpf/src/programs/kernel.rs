//! Reading the kernel's structures at the offsets of this kernel.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes};
use tandem_ebpf::Layout;

/// Written by user space before loading; frozen afterwards.
#[expect(unsafe_code, reason = "user space finds the value by symbol name")]
// SAFETY: nothing else in the object defines this symbol.
#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout::UNRESOLVED;

/// 1: `bpf_probe_read_kernel` may be used. Under lockdown=confidentiality the kernel refuses
/// it, and names and states behind untyped pointers stay empty. Written by user space too.
#[expect(unsafe_code, reason = "user space finds the value by symbol name")]
// SAFETY: nothing else in the object defines this symbol.
#[unsafe(no_mangle)]
static MAY_PROBE_READ: u32 = 0;

/// Reads a value that user space wrote; the compiler must not fold the one in the source.
#[inline(always)]
fn frozen(value: &u32) -> u32 {
    #[expect(unsafe_code, reason = "volatile read of a constant")]
    // SAFETY: a reference is valid for reads.
    unsafe {
        core::ptr::from_ref(value).read_volatile()
    }
}

/// Offset of one member in bytes.
#[inline(always)]
pub(super) fn offset(select: fn(&Layout) -> &u32) -> usize {
    frozen(select(&LAYOUT)) as usize
}

#[inline(always)]
fn may_probe_read() -> bool {
    frozen(&MAY_PROBE_READ) != 0
}

/// A pointer into the kernel, typed in the verifier's eyes.
#[derive(Clone, Copy)]
pub(super) struct KernelPtr(*const u8);

impl KernelPtr {
    /// Wraps a program's argument.
    #[inline(always)]
    pub(super) fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    pub(super) fn is(self, other: Self) -> bool {
        self.0 == other.0
    }

    /// The address `offset` bytes further on.
    #[inline(always)]
    pub(super) fn at(self, offset: usize) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// Loads a member of a typed structure directly. The verifier refuses the
    /// program when no member of that size lies there; a bad address reads zero.
    #[inline(always)]
    pub(super) fn load<T: Copy>(self, offset: usize) -> T {
        #[expect(unsafe_code, reason = "kernel memory can only be read by address")]
        // SAFETY: checked by the verifier before the program runs; a fault yields zero.
        unsafe {
            self.at(offset).0.cast::<T>().read_volatile()
        }
    }

    /// Loads a pointer member of a typed structure.
    #[inline(always)]
    pub(super) fn follow(self, offset: usize) -> Self {
        Self(self.load::<*const u8>(offset))
    }

    /// Reads through an untyped pointer, where the kernel permits it.
    #[inline(always)]
    pub(super) fn probe<T>(self) -> Option<T> {
        if !may_probe_read() {
            return None;
        }
        #[expect(unsafe_code, reason = "kernel memory can only be read by address")]
        // SAFETY: the helper checks the address and reports a fault as an error.
        let value = unsafe { bpf_probe_read_kernel(self.0.cast::<T>()) };
        value.ok()
    }

    /// Reads a NUL-terminated string, cut off at `N - 1` bytes; empty when it
    /// cannot be read.
    #[inline(always)]
    pub(super) fn probe_text<const N: usize>(self) -> [u8; N] {
        let mut text = [0; N];
        if may_probe_read() {
            #[expect(unsafe_code, reason = "kernel memory can only be read by address")]
            // SAFETY: the helper checks the address, and fills the buffer with zeros
            // when it cannot read.
            let read = unsafe { bpf_probe_read_kernel_str_bytes(self.0, &mut text).is_ok() };
            if !read {
                text = [0; N];
            }
        }
        text
    }
}
