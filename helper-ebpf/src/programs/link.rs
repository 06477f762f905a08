//! Link watch and bond watch: what happens to network devices of interest.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use aya_log_ebpf::debug;
use tandem_ebpf::{EventKind, PORT_LINK_UP, PORT_STATE_KNOWN, PORT_TX_ENABLED, RawEvent};

use super::{
    MACS, emit, fast_path,
    kernel::{KernelPtr, offset, watch_parented},
};

/// `IFF_UP` of include/uapi/linux/if.h.
const IFF_UP: u32 = 1;
/// `RTM_NEWLINK` of include/uapi/linux/rtnetlink.h.
const RTM_NEWLINK: u32 = 16;
/// Bit of `net_device.state` (enum `netdev_state_t`, include/linux/netdevice.h 6.1 to 7.3).
const LINK_STATE_NOCARRIER: u64 = 1 << 2;

/// A `struct net_device` in the kernel.
#[derive(Clone, Copy)]
struct NetDevice(KernelPtr);

impl NetDevice {
    #[inline(always)]
    fn new(pointer: *const u8) -> Self {
        Self(KernelPtr::new(pointer))
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        self.0.load(offset(|l| &l.net_device_ifindex))
    }

    #[inline(always)]
    fn netns_inum(self) -> u32 {
        let net = self.0.follow(offset(|l| &l.net_device_net));
        net.load(offset(|l| &l.net_inum))
    }

    #[inline(always)]
    fn has_carrier(self) -> bool {
        let state: u64 = self.0.load(offset(|l| &l.net_device_state));
        state & LINK_STATE_NOCARRIER == 0
    }

    #[inline(always)]
    fn is_up(self) -> bool {
        let flags: u32 = self.0.load(offset(|l| &l.net_device_flags));
        flags & IFF_UP != 0
    }

    /// Hands the event to user space if the device is one of those watched.
    #[inline(always)]
    fn report(self, kind: EventKind, detail: u32) {
        let ifindex = self.ifindex();
        // Drivers set the carrier of devices that are not registered yet.
        if ifindex == 0 {
            return;
        }
        let parent = self.0.follow(offset(|l| &l.net_device_parent));
        let parented = !parent.is_null();
        let mac = self.0.load_bytes(offset(|l| &l.net_device_mac));
        let perm_mac = self.0.load_bytes(offset(|l| &l.net_device_perm_mac));
        let watched = (parented && watch_parented())
            || MACS.get_ptr(perm_mac).is_some()
            || MACS.get_ptr(mac).is_some();
        if !watched {
            return;
        }
        let mut event = RawEvent {
            detail,
            ifindex,
            mac,
            perm_mac,
            netns_inum: self.netns_inum(),
            name: self.0.load_bytes(offset(|l| &l.net_device_name)),
            ..RawEvent::EMPTY
        };
        if parented {
            let name = parent.follow(offset(|l| &l.device_name));
            event.device = name.probe_text();
        }
        emit(kind, event);
    }
}

/// `int register_netdevice(struct net_device *dev)` (`net/core/dev.c`)
#[fexit(function = "register_netdevice")]
fn link_registered(ctx: FExitContext) -> i32 {
    let device = NetDevice::new(ctx.arg(0));
    // After the arguments comes the return value.
    let error: i32 = ctx.arg(1);
    if error == 0 {
        device.report(EventKind::LinkRegistered, 0);
    } else {
        debug!(&ctx, "register_netdevice failed with {}", error);
    }
    0
}

/// `void unregister_netdevice_queue(struct net_device *dev, struct list_head *head)`
/// (`net/core/dev.c`); called with RTNL held, before the device is closed.
#[fentry(function = "unregister_netdevice_queue")]
fn link_unregistering(ctx: FEntryContext) -> i32 {
    let device = NetDevice::new(ctx.arg(0));
    fast_path::link_leaves(device.ifindex(), || device.netns_inum());
    device.report(EventKind::LinkUnregistering, 0);
    0
}

/// `void rtmsg_ifinfo(int type, struct net_device *dev, unsigned int change, …)`
/// (`net/core/rtnetlink.c`). Closing a device calls it right after the driver's
/// `ndo_stop` with `IFF_UP` among the changes and no longer among the flags
/// (`dev_close_many`, since 6.16 `netif_close_many`); that caller takes a list,
/// which a program cannot read as a typed pointer. Opening one calls it too (`dev_open` and
/// `__dev_notify_flags`, 6.12), and need not tell of a carrier that was there all the time.
#[fentry(function = "rtmsg_ifinfo")]
fn link_stopped(ctx: FEntryContext) -> i32 {
    let message: u32 = ctx.arg(0);
    let change: u32 = ctx.arg(2);
    if message == RTM_NEWLINK && change & IFF_UP != 0 {
        let device = NetDevice::new(ctx.arg(1));
        if device.is_up() {
            let carrier = device.has_carrier();
            fast_path::carrier_changed(device.ifindex(), || device.netns_inum(), carrier);
        } else {
            fast_path::link_stopped(device.ifindex(), || device.netns_inum());
            device.report(EventKind::LinkStopped, 0);
        }
    }
    0
}

/// `void netif_carrier_on(struct net_device *dev)` (`net/sched/sch_generic.c`);
/// does nothing when the carrier is there already.
#[fentry(function = "netif_carrier_on")]
fn carrier_on(ctx: FEntryContext) -> i32 {
    let device = NetDevice::new(ctx.arg(0));
    if !device.has_carrier() {
        // What is closed carries nothing; its opening is told of.
        let able = device.is_up();
        fast_path::carrier_changed(device.ifindex(), || device.netns_inum(), able);
        device.report(EventKind::CarrierOn, 0);
    }
    0
}

/// `void netif_carrier_off(struct net_device *dev)` (`net/sched/sch_generic.c`);
/// does nothing when there is no carrier.
#[fentry(function = "netif_carrier_off")]
fn carrier_off(ctx: FEntryContext) -> i32 {
    let device = NetDevice::new(ctx.arg(0));
    if device.has_carrier() {
        fast_path::carrier_changed(device.ifindex(), || device.netns_inum(), false);
        device.report(EventKind::CarrierOff, 0);
    }
    0
}

/// `void netdev_lower_state_changed(struct net_device *lower_dev, void *lower_state_info)`
/// (`net/core/dev.c`); the bonding driver passes a `struct netdev_lag_lower_state_info`
/// (`include/linux/netdevice.h`): one byte, bit 0 `link_up`, bit 1 `tx_enabled`.
#[fentry(function = "netdev_lower_state_changed")]
fn bond_port_state(ctx: FEntryContext) -> i32 {
    let info: *const u8 = ctx.arg(1);
    let detail = match KernelPtr::new(info).probe::<u8>() {
        Some(bits) => PORT_STATE_KNOWN | (u32::from(bits) & (PORT_LINK_UP | PORT_TX_ENABLED)),
        None => 0,
    };
    let device = NetDevice::new(ctx.arg(0));
    if detail & PORT_TX_ENABLED != 0 {
        fast_path::port_transmits(device.ifindex(), || device.netns_inum());
    }
    device.report(EventKind::BondPortState, detail);
    0
}
