//! The programs that a device's frames pass one after the other (tcx), in their order.

use std::io;

use super::attach::Place;
use crate::ebpf::hooks::Program;

/// Most programs that the kernel has in one chain (`BPF_MPROG_MAX`, `include/linux/bpf_mprog.h`, 6.12).
const MAX_PROGRAMS: usize = 64;
/// `BPF_PROG_QUERY` of enum `bpf_cmd`, include/uapi/linux/bpf.h, 6.12.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` of enum `bpf_attach_type`, include/uapi/linux/bpf.h, 6.12.
const BPF_TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
const BPF_TCX_EGRESS: u32 = 47;

/// The part of `union bpf_attr` that is about `BPF_PROG_QUERY` (include/uapi/linux/bpf.h, 6.12).
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The programs of a place's chain by the kernel's number, first to last. Takes RTNL (`tcx_prog_query`,
/// kernel/bpf/tcx.c, 6.12), and `CAP_NET_ADMIN`.
///
/// # Errors
/// The device is gone, or the kernel has no such chains (before 6.6).
#[expect(unsafe_code, reason = "aya asks for more than the service may know")]
pub(super) fn programs(place: Place) -> io::Result<Vec<u32>> {
    let mut numbers = [0u32; MAX_PROGRAMS];
    let mut query = Query {
        target_ifindex: place.ifindex,
        attach_type: match place.program {
            Program::PortIngress => BPF_TCX_INGRESS,
            _ => BPF_TCX_EGRESS,
        },
        prog_ids: numbers.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: the attribute is complete and as long as said; the kernel writes at most `count` numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.count).unwrap_or(0);
    Ok(numbers.into_iter().take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_has_the_kernels_layout() {
        assert_eq!(std::mem::offset_of!(Query, prog_ids), 16);
        assert_eq!(std::mem::offset_of!(Query, count), 24);
        assert_eq!(std::mem::offset_of!(Query, prog_attach_flags), 32);
        assert_eq!(std::mem::offset_of!(Query, revision), 56);
        assert_eq!(size_of::<Query>(), 64);
    }
}
