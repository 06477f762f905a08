//! The programs by topic, and the maps they share.

mod fast_path;
mod kernel;
mod link;
mod ports;
mod warning;

use aya_ebpf::{
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use tandem_ebpf::{EventKind, MAC_LEN, MAX_MACS, RING_BYTES, RawEvent};

/// Events for user space.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Number of events that found [`EVENTS`] full, per CPU, since the object was
/// loaded. Programs that preempt each other may lose a count, never all of them.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// MACs, current or permanent, whose devices are reported. The value has no meaning.
#[map]
static MACS: HashMap<[u8; MAC_LEN], u8> = HashMap::with_max_entries(MAX_MACS, 0);

/// Stamps the event with kind and time and hands it to user space, or counts it as lost.
#[inline(always)]
fn emit(kind: EventKind, mut event: RawEvent) {
    event.kind = kind as u32;
    #[expect(unsafe_code, reason = "kernel helper without arguments")]
    // SAFETY: bpf_ktime_get_boot_ns has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    event.boot_ns = now_ns;
    if EVENTS.output::<RawEvent>(&event, 0).is_err() {
        count_lost();
    }
}

#[inline(always)]
fn count_lost() {
    if let Some(counter) = LOST.get_ptr_mut(0) {
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: the kernel keeps this CPU's value valid, aligned and in place
        // while the map lives.
        unsafe {
            *counter = (*counter).wrapping_add(1);
        }
    }
}
