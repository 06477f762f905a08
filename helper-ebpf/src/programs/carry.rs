//! A carry's hold: in front of a tap's queue, frames go into another tap instead, from which its process reads them.
//!
//! In [`CARRY_DRAIN`] a frame passes only while nothing is held, so that none overtakes one that has yet to be given
//! back. The count of held frames is raised before the frame leaves for the other tap, and that of given ones after it
//! was given: whoever sees both equal sees a moment in which nothing was held.

use core::sync::atomic::{AtomicU64, Ordering};

use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    helpers::bpf_redirect,
    macros::{classifier, map},
    maps::Array,
    programs::TcContext,
};
use tandem_ebpf::{
    CARRY_CLOSED, CARRY_CLOSED_TO, CARRY_DRAIN, CARRY_EARLY, CARRY_GIVEN, CARRY_HELD, CARRY_HOLD,
    CARRY_HOLD_TAP, CARRY_MODE, CARRY_WORDS,
};

use super::port::PASS;

/// The words of the tap that this object was loaded for.
#[map]
static CARRY: Array<u64> = Array::with_max_entries(CARRY_WORDS, 0);

#[inline(always)]
fn word(index: u32) -> Option<&'static AtomicU64> {
    let word = CARRY.get_ptr(index)?;
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: an aligned word in a value that stays in place, and nobody reaches it other than by whole words.
    Some(unsafe { &*word.cast::<AtomicU64>() })
}

/// On a tap's egress: frames for the guest, in front of the tap's queue.
#[classifier]
fn carry_egress(_ctx: TcContext) -> i32 {
    let (Some(mode), Some(held), Some(given), Some(tap)) = (
        word(CARRY_MODE),
        word(CARRY_HELD),
        word(CARRY_GIVEN),
        word(CARRY_HOLD_TAP),
    ) else {
        return PASS;
    };
    let mode = mode.load(Ordering::Relaxed);
    if mode == CARRY_CLOSED {
        if let Some(dropped) = word(CARRY_CLOSED_TO) {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        return TC_ACT_SHOT;
    }
    let nothing_held = held.load(Ordering::Relaxed) == given.load(Ordering::Relaxed);
    if mode == CARRY_DRAIN && nothing_held {
        return PASS;
    }
    held.fetch_add(1, Ordering::Relaxed);
    #[expect(unsafe_code, reason = "kernel helper")]
    // SAFETY: bpf_redirect takes plain numbers; a tap that is gone drops the frame.
    unsafe {
        bpf_redirect(tap.load(Ordering::Relaxed) as u32, 0) as i32
    }
}

/// On a tap's ingress: the guest's own frames. With the first of them the network learns that the guest is here.
#[classifier]
fn carry_ingress(_ctx: TcContext) -> i32 {
    if let (Some(mode), Some(held), Some(early)) =
        (word(CARRY_MODE), word(CARRY_HELD), word(CARRY_EARLY))
        && early.load(Ordering::Relaxed) == 0
    {
        early.store(held.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if mode.load(Ordering::Relaxed) == CARRY_CLOSED {
            mode.store(CARRY_HOLD, Ordering::Relaxed);
        }
    }
    PASS
}
