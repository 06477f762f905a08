//! Ports and frames, as the fast path's programs see them.

use aya_ebpf::{helpers::bpf_ktime_get_boot_ns, macros::map, maps::HashMap, programs::TcContext};
use tandem_ebpf::{MAC_LEN, MAX_BONDS, MAX_PORTS, PATH_CHECK_ETHERTYPE, Port};

/// `TCX_NEXT` and `TC_ACT_UNSPEC` (`bpf.h` and `pkt_cls.h` of include/uapi/linux): the next
/// program has its say, then the stack.
pub(super) const PASS: i32 = -1;
pub(super) const ETHERNET_HEADER_LEN: usize = 14;
/// First five bytes of the link-local groups of IEEE 802.1Q (LLDP, LACP, STP):
/// they are the port's own business, and no bridge floods them.
const LINK_LOCAL_GROUPS: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];

/// The ports that matter, by ifindex.
#[map]
static PORTS: HashMap<u32, Port> = HashMap::with_max_entries(MAX_PORTS, 0);

/// Ifindex of the port that each bond sends through, by the bond's; 0 when unknown.
#[map]
static TRANSMITTING: HashMap<u32, u32> = HashMap::with_max_entries(MAX_BONDS, 0);

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub(super) fn now_ns() -> u64 {
    #[expect(unsafe_code, reason = "kernel helper without arguments")]
    // SAFETY: bpf_ktime_get_boot_ns has no preconditions.
    unsafe {
        bpf_ktime_get_boot_ns()
    }
}

/// The port with this ifindex, if it matters.
#[inline(always)]
pub(super) fn port(ifindex: u32) -> Option<&'static Port> {
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: the value stays readable while the program runs; only the service
    // writes it, and a mix of two descriptions harms one frame at most.
    unsafe {
        PORTS.get(ifindex)
    }
}

/// The port that the bond sends through; 0 when unknown.
#[inline(always)]
pub(super) fn transmitting(bond: u32) -> u32 {
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: one aligned word.
    let port = unsafe { TRANSMITTING.get(bond) };
    port.copied().unwrap_or(0)
}

/// Notes which port the bond sends through, if the service asked for it.
#[inline(always)]
pub(super) fn set_transmitting(bond: u32, port: u32) {
    if let Some(value) = TRANSMITTING.get_ptr_mut(bond) {
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: one aligned word in a value that stays in place.
        unsafe {
            value.write_volatile(port);
        }
    }
}

/// A frame on its way through a device.
pub(super) struct Frame {
    /// The device's ifindex.
    pub(super) ifindex: u32,
    /// Broadcast or multicast.
    pub(super) group: bool,
    pub(super) target: [u8; MAC_LEN],
    pub(super) source: [u8; MAC_LEN],
    /// To a group that no bridge floods.
    pub(super) link_local: bool,
    path_check: bool,
    /// How many frames on the wire it stands for.
    pub(super) segments: u64,
}

impl Frame {
    /// `None` without a whole Ethernet header.
    #[inline(always)]
    pub(super) fn of(ctx: &TcContext) -> Option<Self> {
        let start = ctx.data();
        if start + ETHERNET_HEADER_LEN > ctx.data_end() {
            return None;
        }
        #[expect(unsafe_code, reason = "frames are reached by pointer")]
        // SAFETY: the header lies inside the frame, as checked, and an array of
        // bytes has no alignment; the context's fields are always readable.
        let (header, ifindex, segments) = unsafe {
            let header = *(start as *const [u8; ETHERNET_HEADER_LEN]);
            let skb = ctx.skb.skb;
            (header, (*skb).ifindex, (*skb).gso_segs)
        };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1] = header;
        Some(Self {
            ifindex,
            group: d0 & 1 != 0,
            target: [d0, d1, d2, d3, d4, d5],
            source: [s0, s1, s2, s3, s4, s5],
            link_local: [d0, d1, d2, d3, d4] == LINK_LOCAL_GROUPS,
            path_check: [e0, e1] == PATH_CHECK_ETHERTYPE,
            segments: u64::from(segments.max(1)),
        })
    }

    /// The guest itself sent it, through whichever port, and the network flooded it back.
    /// Its stack would take the announcement of an address for another station's.
    #[inline(always)]
    pub(super) fn is_own_echo(&self, port: &Port) -> bool {
        self.group && !self.link_local && !self.path_check && self.is_from(port.own_mac)
    }

    #[inline(always)]
    fn is_from(&self, mac: [u8; MAC_LEN]) -> bool {
        mac != [0; MAC_LEN] && self.source == mac
    }
}
