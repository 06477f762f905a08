//! The way of an event to user space.

use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use tandem_ebpf::{EventKind, RING_BYTES, RawEvent};

use super::port::now_ns;

/// Events for user space.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Number of events that found [`EVENTS`] full, per CPU, since the object was
/// loaded. Programs that preempt each other may lose a count, never all of them.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Stamps the event with kind and time and hands it to user space, or counts it as lost.
#[inline(always)]
pub(super) fn emit(kind: EventKind, mut event: RawEvent) {
    event.kind = kind as u32;
    event.boot_ns = now_ns();
    if EVENTS.output::<RawEvent>(&event, 0).is_err()
        && let Some(counter) = LOST.get_ptr_mut(0)
    {
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: the kernel keeps this CPU's value valid, aligned and in place
        // while the map lives.
        unsafe {
            *counter = (*counter).wrapping_add(1);
        }
    }
}
