//! Test frames: whether the fast path's programs would run. What somebody else has attached before them may end a frame's
//! way through the programs of a device, or they were taken off: only a frame tells. It goes the way that
//! a frame of the bond and its answer would go while the fast path runs, and ends before it is on a wire.

use aya_ebpf::{macros::map, maps::HashMap, programs::TcContext};
use tandem_ebpf::{MAX_BONDS, PATH_CHECK_ETHERTYPE, Test};

use super::port::ETHERNET_HEADER_LEN;

/// The test of each armed bond, by its ifindex.
#[map]
static TESTS: HashMap<u32, Test> = HashMap::with_max_entries(MAX_BONDS, 0);

/// A frame of this `EtherType` may be a test; the others take no more time than this.
#[inline(always)]
pub(super) fn may_be_one(ctx: &TcContext) -> bool {
    #[expect(unsafe_code, reason = "the context is reached by pointer")]
    // SAFETY: the context's fields are always readable.
    let protocol = unsafe { (*ctx.skb.skb).protocol };
    // In the network's order (`struct __sk_buff`, include/uapi/linux/bpf.h, 6.12).
    protocol == u32::from(u16::from_ne_bytes(PATH_CHECK_ETHERTYPE))
}

/// The bond's test, if this frame is it.
#[inline(always)]
fn test_of(ctx: &TcContext, bond: u32) -> Option<*mut Test> {
    let test = TESTS.get_ptr_mut(bond)?;
    let number: u64 = ctx.load(ETHERNET_HEADER_LEN).ok()?;
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: an aligned word in a value that stays readable while the program runs.
    let wanted = unsafe { (&raw const (*test).number).read_volatile() };
    (number == wanted).then_some(test)
}

/// Notes where a test came.
macro_rules! note {
    ($test:ident.$place:ident) => {{
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: an aligned word in a value that stays in place.
        unsafe {
            (&raw mut (*$test).$place).write_volatile(1);
        }
    }};
}

/// Whether this is the bond's test on its way out, and notes that it came here.
#[inline(always)]
pub(super) fn leaves_bond(ctx: &TcContext, bond: u32) -> bool {
    let Some(test) = test_of(ctx, bond) else {
        return false;
    };
    note!(test.left_bond);
    true
}

/// Whether this is the bond's test at one of its ports, and notes that it came here.
#[inline(always)]
pub(super) fn reaches(ctx: &TcContext, bond: u32, is_standby: bool) -> bool {
    let Some(test) = test_of(ctx, bond) else {
        return false;
    };
    if is_standby {
        note!(test.reached_standby);
    } else {
        note!(test.reached_vf);
    }
    true
}
