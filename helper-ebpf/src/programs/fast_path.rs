//! The fast path: from the first sign that an armed VF leaves until its bond has
//! followed, the bond's frames take the standby. All of it happens in the kernel,
//! so it needs neither the service nor RTNL, which the removal may hold by then.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_RB_FORCE_WAKEUP, TC_ACT_SHOT},
    helpers::{bpf_redirect, bpf_skb_change_tail},
    macros::{classifier, map},
    maps::{HashMap, RingBuf},
    programs::TcContext,
};
use tandem_ebpf::{
    ArmedPorts, DEVICE_NAME_LEN, FAST_PATH_GRACE_NS, FAST_PATH_HOLD_NS, FAST_PATH_STOPPED_HOLD_NS,
    FastPathFlag, KERNEL_ANNOUNCEMENT_INTERVAL_NS, MAC_LEN, MAX_BONDS, MAX_KERNEL_ANNOUNCEMENTS,
    ROLE_STANDBY, ROLE_VF, WAKE_RING_BYTES, WakeRecord,
};

use super::{
    port::{self, Frame, PASS, now_ns, transmitting},
    test_frame,
};

/// The armed ports, by the bond's ifindex.
#[map]
static ARMED: HashMap<u32, ArmedPorts> = HashMap::with_max_entries(MAX_BONDS, 0);

/// Those whose fast path runs, by the bond's ifindex.
#[map]
static FLAGS: HashMap<u32, FastPathFlag> = HashMap::with_max_entries(MAX_BONDS, 0);

/// Names of the bus devices whose leaving is a sign, and the bond: the VF's PCI
/// address, and that of the port above it.
#[map]
static DEVICES: HashMap<[u8; DEVICE_NAME_LEN], u32> = HashMap::with_max_entries(2 * MAX_BONDS, 0);

/// Whether the standby with this ifindex can carry frames: 1 if so.
#[map]
static CARRIERS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_BONDS, 0);

/// Wakes the fast path's thread.
#[map]
static WAKE: RingBuf = RingBuf::with_byte_size(WAKE_RING_BYTES, 0);

#[inline(always)]
fn armed_ports(bond: u32) -> Option<&'static ArmedPorts> {
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: the value stays readable while the program runs; the service writes
    // it before the fast path is armed, and not again.
    unsafe {
        ARMED.get(bond)
    }
}

/// Until when the fast path runs, and whether the VF has stopped; `None` when it does not.
#[inline(always)]
fn going_on(bond: u32, now_ns: impl FnOnce() -> u64) -> Option<bool> {
    let flag = FLAGS.get_ptr(bond)?;
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: aligned words in a value that stays in place.
    let (until_ns, vf_stopped) = unsafe {
        (
            (&raw const (*flag).until_ns).read_volatile(),
            (&raw const (*flag).vf_stopped).read_volatile(),
        )
    };
    (until_ns != 0 && now_ns() < until_ns).then_some(vf_stopped != 0)
}

#[inline(always)]
fn has_carrier(standby: u32) -> bool {
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: one aligned word.
    let carrier = unsafe { CARRIERS.get(standby) };
    carrier.copied() == Some(1)
}

/// Starts or prolongs the fast path's run for a bond; the first sign wakes the thread.
#[inline(always)]
fn raise(bond: u32) {
    let Some(armed_ports) = armed_ports(bond) else {
        return;
    };
    // The bond has left the VF already, for whichever port, or could not follow.
    let active = transmitting(bond);
    if active != 0 && active != armed_ports.vf || !has_carrier(armed_ports.standby) {
        return;
    }
    let Some(flag) = FLAGS.get_ptr_mut(bond) else {
        return;
    };
    let now_ns = now_ns();
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: aligned words in a value that stays in place.
    let first = unsafe {
        let first = (&raw const (*flag).until_ns).read_volatile() <= now_ns;
        if first {
            (&raw mut (*flag).vf_stopped).write_volatile(0);
            (&raw mut (*flag).announced).write_volatile(0);
            (&raw mut (*flag).announce_at_ns).write_volatile(0);
        }
        (&raw mut (*flag).late_until_ns).write_volatile(now_ns + FAST_PATH_HOLD_NS);
        (&raw mut (*flag).until_ns).write_volatile(now_ns + FAST_PATH_HOLD_NS);
        first
    };
    if first {
        let record = WakeRecord {
            boot_ns: now_ns,
            bond,
            padding: 0,
        };
        // A full ring means that the thread has not run for over 100 removals: it
        // is not there, and the fast path goes on without.
        let _ = WAKE.output::<WakeRecord>(&record, u64::from(BPF_RB_FORCE_WAKEUP));
    }
}

/// Ends the fast path's run for a bond at the given time, if it runs.
#[inline(always)]
fn lower(bond: u32, end_ns: u64) {
    if let Some(flag) = FLAGS.get_ptr_mut(bond) {
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: one aligned word in a value that stays in place.
        unsafe {
            let until = &raw mut (*flag).until_ns;
            if until.read_volatile() > end_ns {
                until.write_volatile(end_ns);
            }
        }
    }
}

/// A bus device is about to leave.
#[inline(always)]
pub(super) fn device_leaves(name: &[u8; DEVICE_NAME_LEN]) {
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: one aligned word.
    let bond = unsafe { DEVICES.get(name) };
    if let Some(bond) = bond {
        raise(*bond);
    }
}

/// The bond and the roles of a port, if it matters.
#[inline(always)]
fn armed(ifindex: u32, netns_inum: impl FnOnce() -> u32) -> Option<(u32, u32)> {
    let port = port::port(ifindex)?;
    (port.netns_inum == netns_inum()).then_some((port.bond, port.roles))
}

/// A network device is about to be unregistered.
#[inline(always)]
pub(super) fn link_leaves(ifindex: u32, netns_inum: impl FnOnce() -> u32) {
    if let Some((bond, roles)) = armed(ifindex, netns_inum) {
        if roles & ROLE_VF != 0 {
            raise(bond);
        }
        if roles & ROLE_STANDBY != 0 {
            set_carrier(ifindex, false);
        }
    }
}

/// A network device was closed.
#[inline(always)]
pub(super) fn link_stopped(ifindex: u32, netns_inum: impl FnOnce() -> u32) {
    if let Some((bond, roles)) = armed(ifindex, netns_inum) {
        if roles & ROLE_VF != 0 {
            vf_stopped(bond);
        }
        if roles & ROLE_STANDBY != 0 {
            set_carrier(ifindex, false);
        }
    }
}

/// Nothing leads back to a VF that is closed: unless the bond has followed already, the fast
/// path runs until it has, which may take as long as RTNL is held.
#[inline(always)]
fn vf_stopped(bond: u32) {
    let Some(armed_ports) = armed_ports(bond) else {
        return;
    };
    let followed = transmitting(bond) == armed_ports.standby;
    let Some(flag) = FLAGS.get_ptr_mut(bond) else {
        return;
    };
    let now_ns = now_ns();
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: aligned words in a value that stays in place.
    unsafe {
        (&raw mut (*flag).vf_stopped).write_volatile(1);
        let until = &raw mut (*flag).until_ns;
        if !followed && until.read_volatile() > now_ns {
            until.write_volatile(now_ns + FAST_PATH_STOPPED_HOLD_NS);
        }
    }
}

/// A network device gained or lost its carrier, or was opened and has it or not.
#[inline(always)]
pub(super) fn carrier_changed(ifindex: u32, netns_inum: impl FnOnce() -> u32, carrier: bool) {
    if let Some((_, roles)) = armed(ifindex, netns_inum)
        && roles & ROLE_STANDBY != 0
    {
        set_carrier(ifindex, carrier);
    }
}

#[inline(always)]
fn set_carrier(standby: u32, carrier: bool) {
    if let Some(value) = CARRIERS.get_ptr_mut(standby) {
        #[expect(unsafe_code, reason = "map values are reached by pointer")]
        // SAFETY: one aligned word in a value that stays in place.
        unsafe {
            value.write_volatile(u32::from(carrier));
        }
    }
}

/// A bond sends through this port, maybe since before: its state is told anew with each change
/// of its link too (`bond_commit_link_state`, `drivers/net/bonding/bond_main.c`, 6.1 to 7.3).
#[inline(always)]
pub(super) fn port_transmits(ifindex: u32, netns_inum: impl FnOnce() -> u32) {
    if let Some((bond, roles)) = armed(ifindex, netns_inum)
        && transmitting(bond) != ifindex
    {
        port::set_transmitting(bond, ifindex);
        if roles & ROLE_STANDBY != 0 {
            lower(bond, now_ns() + FAST_PATH_GRACE_NS);
        } else if roles & ROLE_VF != 0 {
            lower(bond, 0);
        }
        // A third port is what the kernel takes when it is the first to know, in the order in which ports joined
        // (`bond_find_best_slave`, drivers/net/bonding/bond_main.c, 6.12). The network was told of the port that is
        // armed, and the bond is asked to go there: until it has, nothing changes.
    }
}

/// What becomes of a frame on the standby's ingress while the fast path runs; [`PASS`] when
/// it is none of the fast path's business. No `Option`: its place for what is not there may be
/// copied, which the verifier of 6.1 takes for a read of what was never written.
#[inline(always)]
pub(super) fn receive(frame: &Frame, bond: u32) -> i32 {
    let (Some(vf_stopped), Some(armed_ports)) = (going_on(bond, now_ns), armed_ports(bond)) else {
        return PASS;
    };
    // What was sent through the VF a moment ago, flooded back by the fabric.
    if frame.source == armed_ports.mac {
        return PASS;
    }
    let active = transmitting(bond);
    let third = active != 0 && active != armed_ports.vf && active != armed_ports.standby;
    // The bond takes it in at the port that it still has.
    if frame.group && (!vf_stopped || third) {
        return PASS;
    }
    redirect(bond, u64::from(BPF_F_INGRESS))
}

/// The removal of the bond's VF began a moment ago; the bond may have followed since.
#[inline(always)]
pub(super) fn has_begun(bond: u32) -> bool {
    let Some(flag) = FLAGS.get_ptr(bond) else {
        return false;
    };
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: one aligned word in a value that stays in place.
    let late_until_ns = unsafe { (&raw const (*flag).late_until_ns).read_volatile() };
    late_until_ns != 0 && now_ns() < late_until_ns
}

/// What becomes of a frame on the ingress of a VF that leaves: one that was under way when
/// the bond followed is delivered, though the bond calls the VF inactive by then. It does so
/// before it calls the standby active, so that this begins with the fast path
/// (`bond_change_active_slave`, `drivers/net/bonding/bond_main.c`, 6.1 to 7.3). A frame for
/// many is delivered until the bond has followed: from then on the bond takes it at the standby.
#[inline(always)]
pub(super) fn receive_late(frame: &Frame, bond: u32, now_ns: u64) -> i32 {
    let Some(armed_ports) = armed_ports(bond) else {
        return PASS;
    };
    let follows = going_on(bond, || now_ns).is_some();
    let active = transmitting(bond);
    let wanted = if frame.group {
        follows && active == armed_ports.vf && !frame.link_local
    } else {
        follows || active == armed_ports.standby
    };
    // As on the standby: nothing that comes back from the guest itself.
    if wanted && frame.source != armed_ports.mac {
        redirect(bond, u64::from(BPF_F_INGRESS))
    } else {
        PASS
    }
}

/// Where a frame's source MAC is.
const SOURCE_AT: usize = MAC_LEN;
/// Length of an announcement, most of it padding: a frame that waits for its checksum to be filled in is not cut
/// before that place (`__bpf_skb_min_len`, net/core/filter.c, 6.12), and an aggregated one of TCP over IPv6, in a
/// tunnel too, has that place beyond the 60 bytes of the shortest frame.
const ANNOUNCEMENT_LEN: usize = 128;

/// A frame for the bond's own MAC that still arrives at a VF that leaves: the network has
/// not learnt where the bond is. Has it told from the standby, by way of a clone of the
/// frame: a program cannot make a frame out of nothing. [`make_announcement`] rewrites the
/// clone; until there its source is the bond's MAC, so that it teaches the network nothing
/// wrong even if that program should be missing.
#[inline(always)]
pub(super) fn announce(ctx: &TcContext, frame: &Frame, bond: u32, now_ns: u64) {
    let Some(armed_ports) = armed_ports(bond) else {
        return;
    };
    let for_the_bond = frame.target == armed_ports.mac && frame.source != armed_ports.mac;
    // After a removal that was abandoned the VF transmits again.
    let moves = transmitting(bond) == armed_ports.standby || going_on(bond, || now_ns).is_some();
    if !for_the_bond || !moves || !has_carrier(armed_ports.standby) || !may_announce(bond, now_ns) {
        return;
    }
    if ctx.store(SOURCE_AT, &armed_ports.mac, 0).is_ok() {
        // Whatever comes of it, more frames come while the network has not learnt.
        let _ = ctx.clone_redirect(armed_ports.standby, 0);
        // The frame is its own by now (`bpf_clone_redirect`, net/core/filter.c, 6.12), so
        // that this needs no memory. The stack does not look at the source of what is for it.
        let _ = ctx.store(SOURCE_AT, &frame.source, 0);
    }
}

/// Counts the announcements of one run up to their bound, and keeps them apart.
#[inline(always)]
fn may_announce(bond: u32, now_ns: u64) -> bool {
    let Some(flag) = FLAGS.get_ptr_mut(bond) else {
        return false;
    };
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: aligned words in a value that stays in place. Two CPUs may count one
    // announcement for both of theirs, which the bounds need not be exact for.
    unsafe {
        let (announced, at_ns) = (&raw mut (*flag).announced, &raw mut (*flag).announce_at_ns);
        let before = announced.read_volatile();
        let may = before < MAX_KERNEL_ANNOUNCEMENTS && now_ns >= at_ns.read_volatile();
        if may {
            announced.write_volatile(before + 1);
            at_ns.write_volatile(now_ns + KERNEL_ANNOUNCEMENT_INTERVAL_NS);
        }
        may
    }
}

/// A frame on the standby's egress is a clone that [`announce`] made: only such a one comes
/// from the bond's MAC and has arrived at the VF.
#[inline(always)]
pub(super) fn is_to_announce(ctx: &TcContext, frame: &Frame, bond: u32) -> bool {
    #[expect(unsafe_code, reason = "the context is reached by pointer")]
    // SAFETY: the context's fields are always readable.
    let arrived_at = unsafe { (*ctx.skb.skb).ingress_ifindex };
    if arrived_at == 0 {
        return false;
    }
    armed_ports(bond)
        .is_some_and(|armed_ports| arrived_at == armed_ports.vf && frame.source == armed_ports.mac)
}

/// Makes the clone an announcement: a reverse ARP request from the bond's
/// MAC (RFC 903), which nobody answers. A VLAN tag stays, as it lies beside the frame.
#[inline(always)]
pub(super) fn make_announcement(ctx: &TcContext, mac: [u8; MAC_LEN]) -> i32 {
    let [m0, m1, m2, m3, m4, m5] = mac;
    let mut bytes = [0; ANNOUNCEMENT_LEN];
    #[rustfmt::skip]
    let said = [
        // To all, from the bond, reverse ARP: Ethernet, IPv4, their lengths, a request.
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, m0, m1, m2, m3, m4, m5, 0x80, 0x35,
        0, 1, 8, 0, 6, 4, 0, 3,
        // Sender and target: MAC and no address.
        m0, m1, m2, m3, m4, m5, 0, 0, 0, 0, m0, m1, m2, m3, m4, m5,
    ];
    let mut i = 0;
    while i < said.len() {
        bytes[i] = said[i];
        i += 1;
    }
    #[expect(unsafe_code, reason = "kernel helper")]
    // SAFETY: the context is valid; the helper checks the length.
    let resized = unsafe { bpf_skb_change_tail(ctx.skb.skb, ANNOUNCEMENT_LEN as u32, 0) };
    if resized != 0 || ctx.store(0, &bytes, 0).is_err() {
        return TC_ACT_SHOT;
    }
    PASS
}

/// The end of a test frame's way.
#[inline(always)]
pub(super) fn have_vf_receive(bond: u32) -> i32 {
    match armed_ports(bond) {
        Some(armed_ports) => redirect(armed_ports.vf, u64::from(BPF_F_INGRESS)),
        None => TC_ACT_SHOT,
    }
}

/// On the bond's egress.
#[classifier]
fn bond_egress(ctx: TcContext) -> i32 {
    #[expect(unsafe_code, reason = "the context is reached by pointer")]
    // SAFETY: the context's fields are always readable.
    let bond = unsafe { (*ctx.skb.skb).ifindex };
    if test_frame::may_be_one(&ctx)
        && let Some(armed_ports) = armed_ports(bond)
        && test_frame::leaves_bond(&ctx, bond)
    {
        return redirect(armed_ports.standby, u64::from(BPF_F_INGRESS));
    }
    if going_on(bond, now_ns).is_none() {
        return PASS;
    }
    match armed_ports(bond) {
        Some(armed_ports) if has_carrier(armed_ports.standby) => redirect(armed_ports.standby, 0),
        _ => PASS,
    }
}

#[inline(always)]
fn redirect(ifindex: u32, flags: u64) -> i32 {
    #[expect(unsafe_code, reason = "kernel helper")]
    // SAFETY: bpf_redirect has no preconditions; it checks the device later.
    let verdict = unsafe { bpf_redirect(ifindex, flags) };
    verdict as i32
}
