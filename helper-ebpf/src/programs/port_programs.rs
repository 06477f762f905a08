//! At the ports: frames counted and stamped, and
//! duplicates kept away from the guest's stack.

use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    macros::{classifier, map},
    maps::PerCpuHashMap,
    programs::TcContext,
};
use tandem_ebpf::{
    FrameCounts, LATE_PAUSE_NS, MAX_PORTS, Port, PortCounters, ROLE_STANDBY, ROLE_VF, ROLES_COUNTED,
};

use super::{
    fast_path,
    port::{Frame, PASS, now_ns, port, transmitting},
    test_frame,
};

/// `PACKET_OTHERHOST` of `include/uapi/linux/if_packet.h`: not for the MAC of the device.
const PACKET_OTHERHOST: u32 = 3;

/// What the watched ports carried, by ifindex.
#[map]
static COUNTERS: PerCpuHashMap<u32, PortCounters> = PerCpuHashMap::with_max_entries(MAX_PORTS, 0);

/// This CPU's counters of a port, of the current period.
#[inline(always)]
fn counters(port: &Port, ifindex: u32) -> Option<&'static mut PortCounters> {
    let counters = COUNTERS.get_ptr_mut(ifindex)?;
    #[expect(unsafe_code, reason = "map values are reached by pointer")]
    // SAFETY: this CPU's own value, and programs of this type don't interrupt each
    // other on a CPU (softirqs are off around them).
    let counters = unsafe { &mut *counters };
    if counters.epoch != port.epoch {
        *counters = PortCounters {
            epoch: port.epoch,
            ..PortCounters::default()
        };
    }
    Some(counters)
}

#[inline(always)]
fn count(traffic: &mut FrameCounts, frame: &Frame, now_ns: u64) {
    if frame.group {
        traffic.group_frames += frame.segments;
        return;
    }
    traffic.frames += frame.segments;
    traffic.last_boot_ns = now_ns;
    if traffic.first_boot_ns == 0 {
        traffic.first_boot_ns = now_ns;
    }
}

/// It arrived although it is for another station: the network floods what it does not know.
#[inline(always)]
fn is_of_others(ctx: &TcContext) -> bool {
    #[expect(unsafe_code, reason = "the context is reached by pointer")]
    // SAFETY: the context's fields are always readable.
    let kind = unsafe { (*ctx.skb.skb).pkt_type };
    kind == PACKET_OTHERHOST
}

/// On a port's ingress, before the bond sees the frame.
#[classifier]
fn port_ingress(ctx: TcContext) -> i32 {
    let Some(frame) = Frame::of(&ctx) else {
        return PASS;
    };
    let Some(port) = port(frame.ifindex) else {
        return PASS;
    };
    let is_standby = port.roles & ROLE_STANDBY != 0;
    if (is_standby || port.roles & ROLE_VF != 0)
        && test_frame::may_be_one(&ctx)
        && test_frame::reaches(&ctx, port.bond, is_standby)
    {
        return if is_standby {
            fast_path::have_vf_receive(port.bond)
        } else {
            TC_ACT_SHOT
        };
    }
    let echo = frame.is_own_echo(port);
    let taken_in = if is_standby {
        fast_path::receive(&frame, port.bond)
    } else {
        PASS
    };
    let leaving = port.roles & ROLE_VF != 0 && fast_path::has_begun(port.bond);
    // The frame came now, not when the announcement below has been sent.
    let now_ns = now_ns();
    let mut verdict = taken_in;
    if leaving {
        fast_path::announce(&ctx, &frame, port.bond, now_ns);
        if verdict == PASS {
            verdict = fast_path::receive_late(&frame, port.bond, now_ns);
        }
    }
    if port.roles & ROLES_COUNTED != 0
        && let Some(counters) = counters(port, frame.ifindex)
    {
        let transmitting = transmitting(port.bond);
        let late = taken_in == PASS && transmitting != 0 && transmitting != frame.ifindex;
        let traffic = if late {
            &mut counters.late
        } else {
            &mut counters.rx
        };
        if !is_of_others(&ctx) {
            if late && !frame.group && now_ns > traffic.last_boot_ns + LATE_PAUSE_NS {
                // What came before was no part of a switchover: the network did not know the bond for a moment.
                traffic.first_boot_ns = 0;
            }
            count(traffic, &frame, now_ns);
        }
        let flooded = late && frame.group && !frame.link_local && verdict == PASS;
        if echo || flooded && (leaving || now_ns < port.duplicates_until_ns) {
            counters.duplicates += frame.segments;
            return TC_ACT_SHOT;
        }
    }
    if echo {
        return TC_ACT_SHOT;
    }
    verdict
}

/// On a port's egress, after the bond chose the port.
#[classifier]
fn port_egress(ctx: TcContext) -> i32 {
    let Some(frame) = Frame::of(&ctx) else {
        return PASS;
    };
    let Some(port) = port(frame.ifindex) else {
        return PASS;
    };
    if port.roles & ROLE_STANDBY != 0 && fast_path::is_to_announce(&ctx, &frame, port.bond) {
        return fast_path::make_announcement(&ctx, frame.source);
    }
    if port.roles & ROLES_COUNTED != 0
        && let Some(counters) = counters(port, frame.ifindex)
    {
        count(&mut counters.tx, &frame, now_ns());
    }
    PASS
}
