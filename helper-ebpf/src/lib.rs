//! What Tandem's kernel programs and the service share: the event record, the
//! structure offsets that user space resolves, and the names of maps and
//! programs. `no_std`, and the same bytes on both sides of the ring buffer.
#![no_std]

mod event;
mod fast_path;
mod layout;

pub use event::{DEVICE_NAME_LEN, EVENT_LEN, EventKind, IFNAME_LEN, MAC_LEN, ParseError, RawEvent};
pub use fast_path::{
    ArmedPorts, DUPLICATES_HOLD_NS, FAST_PATH_GRACE_NS, FAST_PATH_HOLD_NS,
    FAST_PATH_STOPPED_HOLD_NS, FastPathFlag, FrameCounts, KERNEL_ANNOUNCEMENT_INTERVAL_NS,
    LATE_PAUSE_NS, MAX_BONDS, MAX_KERNEL_ANNOUNCEMENTS, MAX_PORTS, Port, PortCounters,
    ROLE_STANDBY, ROLE_VF, ROLE_WATCHED, ROLES_COUNTED, WAKE_RECORD_LEN, WAKE_RING_BYTES,
    WakeRecord,
};
pub use layout::{Layout, Settings};

/// Local Experimental Ethertype 1 of IEEE 802, which the frames of a path check
/// carry: a port has to receive what another port of the same bond has sent.
pub const PATH_CHECK_ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Entries of the MAC filter map: more than any guest's bonds need.
pub const MAX_MACS: u32 = 64;

/// Size of the event ring buffer in bytes: a power of two and a multiple of the
/// page size (kernel/bpf/ringbuf.c, `ringbuf_map_alloc`). Holds over 800 events.
pub const RING_BYTES: u32 = 64 * 1024;

/// `detail` bit of [`EventKind::BondPortState`]: the two bits below are known.
pub const PORT_STATE_KNOWN: u32 = 1 << 31;
/// `detail` bit of [`EventKind::BondPortState`]: the bond sees the port's link up.
pub const PORT_LINK_UP: u32 = 1 << 0;
/// `detail` bit of [`EventKind::BondPortState`]: the bond sends through the port.
pub const PORT_TX_ENABLED: u32 = 1 << 1;
