//! What the fast path's programs and the service share: which ports
//! are watched, what they carried, and how a bond's frames are redirected while the
//! bond itself has not followed yet.
//!
//! Each map has one writer wherever a lost update would matter: the service
//! describes ([`Port`], [`ArmedPorts`]), the programs decide in the moment
//! ([`PortCounters`], [`FastPathFlag`]).

use crate::event::MAC_LEN;

/// Ports that can be watched or armed at a time, in all bonds.
pub const MAX_PORTS: u32 = 256;

/// Bonds that can have a fast path at a time.
pub const MAX_BONDS: u32 = 64;

/// Size in bytes of the ring buffer that wakes the thread: one page, over 100 records.
pub const WAKE_RING_BYTES: u32 = 4096;

/// How long the fast path runs after the last sign of a removal, in nanoseconds. The
/// bond follows within 0.5 s of the first sign even on an emulated machine; after
/// this time the removal is taken for abandoned, and the VF carries on.
pub const FAST_PATH_HOLD_NS: u64 = 3_000_000_000;

/// How long the fast path runs after the VF was closed, in nanoseconds, unless its bond
/// follows before: a bound for a bond that never does.
pub const FAST_PATH_STOPPED_HOLD_NS: u64 = 30_000_000_000;

/// How long the fast path still runs once the bond has followed, in nanoseconds. The
/// bonding driver tells of a port's new state just before it accepts frames from
/// that port (`bond_set_slave_active_flags`, include/net/bonding.h, 6.1 to 7.3).
pub const FAST_PATH_GRACE_NS: u64 = 20_000_000;

/// How long duplicates are kept away after the service asked for it, in
/// nanoseconds: a bound for programs that outlive the service (they do under
/// clsact), which would not learn any more which port transmits.
pub const DUPLICATES_HOLD_NS: u64 = 60_000_000_000;

/// After such a pause, in nanoseconds, late frames belong to another story than those
/// before: the network did not know for a moment where the bond is.
pub const LATE_PAUSE_NS: u64 = 50_000_000;

/// Announcements that the programs themselves send in one run; one is enough where the
/// network loses none. While frames still arrive at the VF, the network has not learnt.
pub const MAX_KERNEL_ANNOUNCEMENTS: u32 = 32;

/// Shortest time between two of them, in nanoseconds: what loses one rather takes another
/// a moment later, and frames that arrive in one batch are not held up by one each.
pub const KERNEL_ANNOUNCEMENT_INTERVAL_NS: u64 = 2_000_000;

/// Bit of [`Port::roles`]: frames are counted.
pub const ROLE_WATCHED: u32 = 1 << 0;
/// Bit of [`Port::roles`]: an armed VF, whose frames are counted too.
pub const ROLE_VF: u32 = 1 << 1;
/// Bit of [`Port::roles`]: the standby of an armed VF.
pub const ROLE_STANDBY: u32 = 1 << 2;

/// Ports with one of these roles are counted on: a VF at work too, since after the warning it
/// is too late to learn when its last frame passed.
pub const ROLES_COUNTED: u32 = ROLE_WATCHED | ROLE_VF;

/// A port of a bond, by its ifindex; written by the service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Until when (`CLOCK_BOOTTIME`, nanoseconds) broadcast and multicast that
    /// arrives here is dropped while another port of the bond transmits.
    pub duplicates_until_ns: u64,
    /// Number of the counting period; counters of an earlier one are void.
    pub epoch: u64,
    /// Ifindex of the bond.
    pub bond: u32,
    /// Inode number of the network namespace that the ifindexes belong to.
    pub netns_inum: u32,
    /// `ROLE_*` bits.
    pub roles: u32,
    /// The bond's MAC; zero when unknown. Broadcast and multicast that comes from it was
    /// sent by the guest itself and flooded back by the network: it is dropped.
    pub own_mac: [u8; MAC_LEN],
    /// Keeps the size a multiple of eight; zero.
    pub padding: [u8; 6],
}

/// What passed a port in one direction. An aggregated frame (GRO, TSO) counts as
/// the frames it stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Unicast frames.
    pub frames: u64,
    /// Broadcast and multicast frames: announcements among them, and on a port
    /// that the fabric floods, those that another port gets as well.
    pub group_frames: u64,
    /// When the first unicast frame passed, in nanoseconds of `CLOCK_BOOTTIME`.
    pub first_boot_ns: u64,
    /// When the last unicast frame passed, in nanoseconds of `CLOCK_BOOTTIME`.
    pub last_boot_ns: u64,
}

/// One CPU's counters of a port, by its ifindex; written by the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// The counting period; see [`Port::epoch`].
    pub epoch: u64,
    /// Received, without those that count as late.
    pub rx: FrameCounts,
    /// Sent.
    pub tx: FrameCounts,
    /// Received while another port of the bond transmitted, and no fast path took them in.
    pub late: FrameCounts,
    /// Broadcast and multicast frames kept away from the stack, because the
    /// transmitting port gets them too or the guest itself sent them.
    pub duplicates: u64,
}

/// The ports of an armed fast path, by the bond's ifindex; written by the service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmedPorts {
    /// Ifindex of the VF.
    pub vf: u32,
    /// Ifindex of the standby.
    pub standby: u32,
    /// The bond's MAC: frames that come back from it are not delivered.
    pub mac: [u8; MAC_LEN],
    /// Keeps the size a multiple of four; zero.
    pub padding: [u8; 2],
}

/// Whether the fast path is running, by the bond's ifindex; written by the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathFlag {
    /// Until when the bond's frames take the standby, in nanoseconds of
    /// `CLOCK_BOOTTIME`.
    pub until_ns: u64,
    /// Until when frames that still arrive at the VF reach the guest although its bond
    /// has followed, in nanoseconds of `CLOCK_BOOTTIME`.
    pub late_until_ns: u64,
    /// When the programs may announce next, in nanoseconds of `CLOCK_BOOTTIME`.
    pub announce_at_ns: u64,
    /// 1: the VF's driver has stopped, so that broadcast and multicast reaches the
    /// guest through the standby only.
    pub vf_stopped: u32,
    /// Announcements that the programs were about to send in this run; see
    /// [`MAX_KERNEL_ANNOUNCEMENTS`].
    pub announced: u32,
}

impl FastPathFlag {
    /// Nothing is going on.
    pub const LOWERED: Self = Self {
        until_ns: 0,
        late_until_ns: 0,
        announce_at_ns: 0,
        vf_stopped: 0,
        announced: 0,
    };
}

/// Length in bytes of a test frame: the shortest that there is (IEEE 802.3, without its checksum). Behind the Ethernet
/// header with [`crate::PATH_CHECK_ETHERTYPE`] comes the number of its [`Test`] in the machine's order of bytes.
pub const TEST_FRAME_LEN: usize = 60;

/// How far the last test frame came that was sent through a bond, by the bond's ifindex. The service writes it anew for
/// each frame, the programs note where they have seen it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Test {
    /// By chance, so that nobody else's frame has it.
    pub number: u64,
    /// 1: it came to the program at the bond's egress.
    pub left_bond: u32,
    /// 1: it came to the program at the standby's ingress.
    pub reached_standby: u32,
    /// 1: it came to the program at the VF's ingress, where it ends.
    pub reached_vf: u32,
    /// Always 0.
    pub padding: u32,
}

/// Wakes the fast path's thread: an armed VF is about to leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeRecord {
    /// When the hook ran, in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Ifindex of the bond.
    pub bond: u32,
    /// Keeps the size a multiple of eight; zero.
    pub padding: u32,
}

/// Length of one [`WakeRecord`] in bytes.
pub const WAKE_RECORD_LEN: usize = 16;
const _: () = assert!(size_of::<WakeRecord>() == WAKE_RECORD_LEN);
const _: () = assert!(size_of::<Port>() == 40);
const _: () = assert!(size_of::<PortCounters>() == 112);
const _: () = assert!(size_of::<ArmedPorts>() == 16);
const _: () = assert!(size_of::<FastPathFlag>() == 32);
const _: () = assert!(size_of::<Test>() == 24);

impl WakeRecord {
    /// Reads one ring buffer record; `None` when it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; WAKE_RECORD_LEN] = bytes.try_into().ok()?;
        let [a, b, c, d, e, f, g, h, b0, b1, b2, b3, ..] = *bytes;
        Some(Self {
            boot_ns: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            bond: u32::from_ne_bytes([b0, b1, b2, b3]),
            padding: 0,
        })
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::{ArmedPorts, FastPathFlag, Port, PortCounters, Test};

    #[expect(unsafe_code, reason = "aya copies the value as bytes")]
    // SAFETY: only integers, repr(C), no padding (sizes asserted above): every bit
    // pattern is valid.
    unsafe impl aya::Pod for Port {}

    #[expect(unsafe_code, reason = "aya copies the value as bytes")]
    // SAFETY: as above.
    unsafe impl aya::Pod for PortCounters {}

    #[expect(unsafe_code, reason = "aya copies the value as bytes")]
    // SAFETY: as above.
    unsafe impl aya::Pod for ArmedPorts {}

    #[expect(unsafe_code, reason = "aya copies the value as bytes")]
    // SAFETY: as above.
    unsafe impl aya::Pod for FastPathFlag {}

    #[expect(unsafe_code, reason = "aya copies the value as bytes")]
    // SAFETY: as above.
    unsafe impl aya::Pod for Test {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_record_reads_back() {
        let mut bytes = [0; WAKE_RECORD_LEN];
        bytes[..8].copy_from_slice(&0x0102_0304_0506_0708u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        let record = WakeRecord {
            boot_ns: 0x0102_0304_0506_0708,
            bond: 7,
            padding: 0,
        };
        assert_eq!(WakeRecord::from_bytes(&bytes), Some(record));
        assert_eq!(WakeRecord::from_bytes(&bytes[1..]), None);
        assert_eq!(WakeRecord::from_bytes(&[0; WAKE_RECORD_LEN + 1]), None);
    }
}
