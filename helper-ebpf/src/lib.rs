//! What Tandem's kernel programs and the service share: the event record, the
//! structure offsets that user space resolves, and the names of maps and
//! programs. `no_std`, and the same bytes on both sides of the ring buffer.
#![no_std]

mod carry;
mod event;
mod fast_path;
mod layout;

pub use carry::{
    CARRY_BEAT, CARRY_BEAT_NS, CARRY_CLOSED, CARRY_CLOSED_TO, CARRY_DRAIN, CARRY_EARLY,
    CARRY_GIVEN, CARRY_HELD, CARRY_HOLD, CARRY_HOLD_TAP, CARRY_LEASE_NS, CARRY_MODE, CARRY_PASSED,
    CARRY_WORDS,
};
pub use event::{DEVICE_NAME_LEN, EVENT_LEN, EventKind, MAC_LEN, ParseError, RawEvent};
pub use fast_path::{
    ArmedPorts, DUPLICATES_HOLD_NS, FAST_PATH_GRACE_NS, FAST_PATH_HOLD_NS,
    FAST_PATH_STOPPED_HOLD_NS, FastPathFlag, FrameCounts, KERNEL_ANNOUNCEMENT_INTERVAL_NS,
    LATE_PAUSE_NS, MAX_BONDS, MAX_KERNEL_ANNOUNCEMENTS, MAX_PORTS, Port, PortCounters,
    ROLE_STANDBY, ROLE_VF, ROLE_WATCHED, ROLES_COUNTED, TEST_FRAME_LEN, Test, WAKE_RECORD_LEN,
    WAKE_RING_BYTES, WakeRecord,
};
pub use layout::Layout;

/// Local Experimental Ethertype 1 of IEEE 802, which the frames of a path check
/// carry: a port has to receive what another port of the same bond has sent. Test frames
/// of the programs themselves carry it too.
pub const PATH_CHECK_ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Size of the event ring buffer in bytes: a power of two and a multiple of the
/// page size (kernel/bpf/ringbuf.c, `ringbuf_map_alloc`). Holds over 1300 events.
pub const RING_BYTES: u32 = 64 * 1024;
