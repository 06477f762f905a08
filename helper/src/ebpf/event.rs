//! Events of the kernel programs as the service uses them.

use tandem_ebpf::{
    EventKind, PORT_LINK_UP, PORT_STATE_KNOWN, PORT_TX_ENABLED, ParseError, RawEvent,
};

/// Something the kernel did, at the moment it did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A PCI device is about to leave.
    Warning {
        /// How the kernel learnt of it.
        cause: Cause,
        /// PCI address of the device; for a button press that of the slot's port,
        /// with the device below it. Empty when the kernel did not let it be read.
        pci_address: String,
    },
    /// A network device changed.
    Link {
        /// How.
        change: LinkChange,
        /// Which device.
        link: TracedLink,
    },
    /// A bond changed the state of one of its ports.
    BondPort {
        /// The new state; `None` when the kernel did not let it be read.
        state: Option<PortState>,
        /// The port.
        link: TracedLink,
    },
    /// The thread has done the fast path's part in user space.
    FastPath(FastPathReport),
}

/// What the fast path's thread did about an armed VF that leaves. Times are
/// in microseconds since the kernel's hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathReport {
    /// Ifindex of the bond.
    pub bond: u32,
    /// When its thread ran.
    pub woken_us: u64,
    /// Announcements that left through the standby.
    pub announced: u32,
    /// When the first lot of them had left: what the fabric needs to send the
    /// bond's frames to the standby.
    pub announced_us: u64,
    /// When the request for the switchover was about to be written.
    pub requested_us: u64,
    /// When the kernel had answered it. Far behind `requested_us` if the removal
    /// held RTNL.
    pub answered_us: u64,
    /// What came of the switchover.
    pub switchover: SwitchoverResult,
}

/// What came of the thread's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SwitchoverResult {
    /// The kernel made the standby the primary.
    Done,
    /// The kernel refused; its error number.
    Refused(i32),
    /// Not asked for: the thread ran so late that the fast path was over.
    TooLate,
    /// Not asked for: the fast path had been disarmed when the thread ran.
    Disarmed,
}

/// How the kernel learnt that a PCI device leaves, the earliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The attention button of a native `PCIe` slot was pressed.
    ButtonPress(Press),
    /// ACPI asked for the device's ejection.
    AcpiEject,
    /// The kernel begins to remove the device.
    PciStop,
    /// The device's driver is about to be removed.
    DriverRemove,
}

impl Cause {
    /// Whether the device leaves, as far as this warning tells.
    pub fn device_leaves(self) -> bool {
        match self {
            Self::ButtonPress(press) => press == Press::PowersOff,
            Self::AcpiEject | Self::PciStop | Self::DriverRemove => true,
        }
    }
}

/// What a press of the attention button leads to, by the controller's state before
/// it (`*_STATE` in drivers/pci/hotplug/pciehp.h, kernel 6.1 to 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Press {
    /// The slot powers off in 5 s.
    PowersOff,
    /// A power-off announced before is cancelled.
    CancelsPowerOff,
    /// The slot powers on in 5 s.
    PowersOn,
    /// A power-on announced before is cancelled.
    CancelsPowerOn,
    /// Nothing: the controller is busy or its state is unknown to Tandem.
    Ignored,
}

impl Press {
    fn from_state(state: u32) -> Self {
        match state {
            0 => Self::PowersOn,
            1 => Self::CancelsPowerOn,
            2 => Self::CancelsPowerOff,
            5 => Self::PowersOff,
            _ => Self::Ignored,
        }
    }
}

/// How a network device changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkChange {
    /// It was registered.
    Registered,
    /// It is about to be unregistered, its driver still runs. RTNL is taken, so no
    /// change of a bond can come before the end of it: the time from a warning to
    /// here is what a planned failover has.
    Unregistering,
    /// It was closed: its driver's `ndo_stop` has returned. Traffic ended somewhere
    /// between [`Self::Unregistering`] and here.
    Stopped,
    /// It gained its carrier.
    CarrierOn,
    /// It lost its carrier.
    CarrierOff,
}

/// A bond's view of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortState {
    /// The port's link is up.
    pub link_up: bool,
    /// The bond sends through the port: in active-backup mode, it is the active one.
    pub active: bool,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedLink {
    /// Its index in its network namespace.
    pub ifindex: u32,
    /// Its name at that moment.
    pub name: String,
    /// Name of its parent device: the PCI address of a PCI NIC, `virtio1` and the
    /// like for others. Empty without a parent, or when it could not be read.
    pub parent: String,
    /// Its current MAC.
    pub mac: [u8; 6],
    /// Its permanent MAC; zero where the driver has none.
    pub perm_mac: [u8; 6],
    /// Inode number of its network namespace, as in /proc/self/ns/net.
    pub netns_inum: u32,
}

impl Event {
    /// Reads one ring buffer record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let (kind, raw) = RawEvent::from_bytes(bytes)?;
        let link = |change| What::Link {
            change,
            link: TracedLink::from_raw(&raw),
        };
        let warning = |cause| What::Warning {
            cause,
            pci_address: text(&raw.device),
        };
        let what = match kind {
            EventKind::ButtonPress => warning(Cause::ButtonPress(Press::from_state(raw.detail))),
            EventKind::AcpiEject => warning(Cause::AcpiEject),
            EventKind::PciStop => warning(Cause::PciStop),
            EventKind::DriverRemove => warning(Cause::DriverRemove),
            EventKind::LinkRegistered => link(LinkChange::Registered),
            EventKind::LinkUnregistering => link(LinkChange::Unregistering),
            EventKind::LinkStopped => link(LinkChange::Stopped),
            EventKind::CarrierOn => link(LinkChange::CarrierOn),
            EventKind::CarrierOff => link(LinkChange::CarrierOff),
            EventKind::BondPortState => What::BondPort {
                state: (raw.detail & PORT_STATE_KNOWN != 0).then_some(PortState {
                    link_up: raw.detail & PORT_LINK_UP != 0,
                    active: raw.detail & PORT_TX_ENABLED != 0,
                }),
                link: TracedLink::from_raw(&raw),
            },
        };
        Ok(Self {
            boot_ns: raw.boot_ns,
            what,
        })
    }
}

impl TracedLink {
    fn from_raw(raw: &RawEvent) -> Self {
        Self {
            ifindex: raw.ifindex,
            name: text(&raw.name),
            parent: text(&raw.device),
            mac: raw.mac,
            perm_mac: raw.perm_mac,
            netns_inum: raw.netns_inum,
        }
    }
}

/// The text before the first NUL; bytes that are not UTF-8 are replaced.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_ebpf::EVENT_LEN;

    use super::*;

    fn record(kind: EventKind, detail: u32, device: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; EVENT_LEN];
        bytes[0..8].copy_from_slice(&42u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&(kind as u32).to_ne_bytes());
        bytes[12..16].copy_from_slice(&detail.to_ne_bytes());
        bytes[16..20].copy_from_slice(&3u32.to_ne_bytes());
        bytes[24..28].copy_from_slice(b"eth7");
        bytes[40..40 + device.len()].copy_from_slice(device);
        bytes[60..66].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        bytes
    }

    #[test]
    fn a_button_press_means_what_the_state_before_says() {
        for (state, press, leaves) in [
            (0, Press::PowersOn, false),
            (1, Press::CancelsPowerOn, false),
            (2, Press::CancelsPowerOff, false),
            (3, Press::Ignored, false),
            (4, Press::Ignored, false),
            (5, Press::PowersOff, true),
            (77, Press::Ignored, false),
        ] {
            let event = Event::from_bytes(&record(EventKind::ButtonPress, state, b"0000:00:02.0"));
            let cause = Cause::ButtonPress(press);
            assert_eq!(
                event.unwrap(),
                Event {
                    boot_ns: 42,
                    what: What::Warning {
                        cause,
                        pci_address: "0000:00:02.0".to_owned()
                    }
                }
            );
            assert_eq!(cause.device_leaves(), leaves);
        }
    }

    #[test]
    fn a_link_event_has_the_device() {
        let event = Event::from_bytes(&record(EventKind::CarrierOff, 0, b"virtio1")).unwrap();
        let What::Link { change, link } = event.what else {
            panic!("{event:?}");
        };
        assert_eq!(change, LinkChange::CarrierOff);
        assert_eq!((link.ifindex, link.name.as_str()), (3, "eth7"));
        assert_eq!(link.parent, "virtio1");
        assert_eq!(link.mac, [2, 0, 0, 0, 0, 9]);
        assert_eq!(link.perm_mac, [0; 6]);
    }

    #[test]
    fn a_port_state_that_was_not_read_is_unknown() {
        let state = |detail| {
            let event = Event::from_bytes(&record(EventKind::BondPortState, detail, b""));
            match event.unwrap().what {
                What::BondPort { state, .. } => state,
                what => panic!("{what:?}"),
            }
        };
        assert_eq!(state(0), None);
        assert_eq!(
            state(PORT_STATE_KNOWN | PORT_LINK_UP),
            Some(PortState {
                link_up: true,
                active: false
            })
        );
        assert_eq!(
            state(PORT_STATE_KNOWN | PORT_TX_ENABLED),
            Some(PortState {
                link_up: false,
                active: true
            })
        );
    }

    #[test]
    fn a_name_without_nul_ends_with_its_field() {
        let event = Event::from_bytes(&record(EventKind::PciStop, 0, &[b'x'; 20])).unwrap();
        let What::Warning { pci_address, .. } = event.what else {
            panic!("{event:?}");
        };
        assert_eq!(pci_address, "x".repeat(20));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..=EVENT_LEN * 2)) {
            let _ = Event::from_bytes(&bytes);
        }

        #[test]
        fn any_record_of_a_known_kind_parses(
            kind in 1u32..=EventKind::ALL.len() as u32,
            rest in proptest::collection::vec(any::<u8>(), EVENT_LEN),
        ) {
            let mut bytes = rest;
            bytes[8..12].copy_from_slice(&kind.to_ne_bytes());
            prop_assert!(Event::from_bytes(&bytes).is_ok());
        }
    }
}
