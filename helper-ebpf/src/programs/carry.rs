//! A carry's hold: in front of a tap's queue, frames go into another tap instead, from which its process reads them.
//!
//! A process that has had no turn for [`CARRY_LEASE_NS`] holds nothing: frames pass, and what it has held comes late, if ever. A tap
//! that is closed stays so until the guest's first frame.
//!
//! In [`CARRY_DRAIN`] a frame passes only while nothing is held, so that none overtakes one that has yet to be given
//! back. The count of held frames is raised before the frame leaves for the other tap, and that of given ones after it
//! was given: whoever sees both equal sees a moment in which nothing was held.

use core::arch::asm;

use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    helpers::{bpf_ktime_get_ns, bpf_redirect},
    macros::{classifier, map},
    maps::Array,
    programs::TcContext,
};
use tandem_ebpf::{
    CARRY_BEAT, CARRY_CLOSED, CARRY_CLOSED_TO, CARRY_DRAIN, CARRY_EARLY, CARRY_GIVEN, CARRY_HELD,
    CARRY_HOLD, CARRY_HOLD_TAP, CARRY_LEASE_NS, CARRY_MODE, CARRY_PASSED, CARRY_WORDS,
};

use super::port::PASS;

/// The words of the tap that this object was loaded for.
#[map]
static CARRY: Array<u64> = Array::with_max_entries(CARRY_WORDS, 0);

/// One of them: it is aligned, stays in place, and nobody reaches it other than whole.
#[derive(Clone, Copy)]
struct Word(*mut u64);

impl Word {
    #[inline(always)]
    fn of(index: u32) -> Option<Self> {
        CARRY.get_ptr_mut(index).map(Self)
    }

    #[inline(always)]
    fn get(self) -> u64 {
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: see `Word`.
        unsafe {
            self.0.read_volatile()
        }
    }

    #[inline(always)]
    fn set(self, value: u64) {
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: see `Word`.
        unsafe {
            self.0.write_volatile(value);
        }
    }

    /// Counts one more, whatever other processors count at the same time. Rust's own atomics are not to be had for this
    /// machine, which its compiler takes for one without compare-and-swap.
    #[inline(always)]
    fn count(self) {
        #[expect(unsafe_code, reason = "an instruction of the kernel's machine")]
        // SAFETY: see `Word`; the instruction reaches nothing else.
        unsafe {
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) self.0, in(reg) 1_u64);
        }
    }
}

/// On a tap's egress: frames for the guest, in front of the tap's queue.
#[classifier]
fn carry_egress(_ctx: TcContext) -> i32 {
    let (Some(mode), Some(held), Some(given), Some(passed), Some(beat), Some(tap)) = (
        Word::of(CARRY_MODE),
        Word::of(CARRY_HELD),
        Word::of(CARRY_GIVEN),
        Word::of(CARRY_PASSED),
        Word::of(CARRY_BEAT),
        Word::of(CARRY_HOLD_TAP),
    ) else {
        return PASS;
    };
    let mode = mode.get();
    // However long its process stands still: what came before the guest has, it gets twice.
    if mode == CARRY_CLOSED {
        if let Some(dropped) = Word::of(CARRY_CLOSED_TO) {
            dropped.count();
        }
        return TC_ACT_SHOT;
    }
    let is_open = mode == CARRY_DRAIN && held.get() == given.get();
    if is_open || has_lapsed(beat) {
        passed.count();
        return PASS;
    }
    held.count();
    #[expect(unsafe_code, reason = "kernel helper")]
    // SAFETY: bpf_redirect takes plain numbers; a tap that is gone drops the frame.
    unsafe {
        bpf_redirect(tap.get() as u32, 0) as i32
    }
}

/// The process stands still, and nobody would give the frame back.
#[inline(always)]
fn has_lapsed(beat: Word) -> bool {
    #[expect(unsafe_code, reason = "kernel helper")]
    // SAFETY: it takes and changes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // The beat may be of a moment after that.
    now_ns.saturating_sub(beat.get()) > CARRY_LEASE_NS
}

/// On a tap's ingress: the guest's own frames. With the first of them the network learns that the guest is here.
#[classifier]
fn carry_ingress(_ctx: TcContext) -> i32 {
    if let (Some(mode), Some(held), Some(early)) = (
        Word::of(CARRY_MODE),
        Word::of(CARRY_HELD),
        Word::of(CARRY_EARLY),
    ) && early.get() == 0
    {
        early.set(held.get() + 1);
        if mode.get() == CARRY_CLOSED {
            mode.set(CARRY_HOLD);
        }
    }
    PASS
}
