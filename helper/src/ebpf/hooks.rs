//! The programs of the object, what they hook and what they read there.

use std::fmt;

use tandem_ebpf::Layout;

use super::btf::{Btf, BtfError};

/// One program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// Warns of a press on a `PCIe` slot's attention button.
    WarnButtonPress,
    /// Warns of an ACPI eject request.
    WarnAcpiEject,
    /// Warns when the kernel begins to remove a PCI device.
    WarnPciStop,
    /// Warns when a PCI driver is about to be removed.
    WarnDriverRemove,
    /// Reports registered network devices.
    LinkRegistered,
    /// Reports network devices about to be unregistered.
    LinkUnregistering,
    /// Reports network devices that were closed.
    LinkStopped,
    /// Reports carrier gained.
    CarrierOn,
    /// Reports carrier lost.
    CarrierOff,
    /// Reports states of bond ports.
    BondPortState,
    /// Counts what a port receives, keeps duplicates away, and delivers what the
    /// fast path brings in.
    PortIngress,
    /// Counts what a port sends.
    PortEgress,
    /// Sends a bond's frames through its standby while the fast path runs.
    BondEgress,
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Before a kernel function.
    Entry,
    /// After a kernel function.
    Exit,
    /// Where frames pass; attached while a port is watched or a VF armed ([`super::fast_path`]).
    Traffic,
}

/// Structures that a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    NetDevice,
    PciehpController,
    AcpiDevice,
    PciDevice,
    Device,
    /// Nothing but frames.
    Frames,
}

impl Program {
    /// Every program, in the order in which they are attached.
    pub const ALL: [Self; 13] = [
        Self::WarnButtonPress,
        Self::WarnAcpiEject,
        Self::WarnPciStop,
        Self::WarnDriverRemove,
        Self::LinkRegistered,
        Self::LinkUnregistering,
        Self::LinkStopped,
        Self::CarrierOn,
        Self::CarrierOff,
        Self::BondPortState,
        Self::PortIngress,
        Self::PortEgress,
        Self::BondEgress,
    ];

    /// Those that run where frames pass.
    pub const TRAFFIC: [Self; 3] = [Self::PortIngress, Self::PortEgress, Self::BondEgress];

    /// Its name in the object and in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::WarnButtonPress => "warn_button_press",
            Self::WarnAcpiEject => "warn_acpi_eject",
            Self::WarnPciStop => "warn_pci_stop",
            Self::WarnDriverRemove => "warn_driver_remove",
            Self::LinkRegistered => "link_registered",
            Self::LinkUnregistering => "link_unregistering",
            Self::LinkStopped => "link_stopped",
            Self::CarrierOn => "carrier_on",
            Self::CarrierOff => "carrier_off",
            Self::BondPortState => "bond_port_state",
            Self::PortIngress => "port_ingress",
            Self::PortEgress => "port_egress",
            Self::BondEgress => "bond_egress",
        }
    }

    /// The kernel function it hooks; for programs where frames pass, which way.
    pub fn function(self) -> &'static str {
        match self {
            Self::WarnButtonPress => "pciehp_handle_button_press",
            Self::WarnAcpiEject => "acpi_hotplug_schedule",
            Self::WarnPciStop => "pci_stop_and_remove_bus_device",
            Self::WarnDriverRemove => "pci_device_remove",
            Self::LinkRegistered => "register_netdevice",
            Self::LinkUnregistering => "unregister_netdevice_queue",
            Self::LinkStopped => "rtmsg_ifinfo",
            Self::CarrierOn => "netif_carrier_on",
            Self::CarrierOff => "netif_carrier_off",
            Self::BondPortState => "netdev_lower_state_changed",
            Self::PortIngress => "tc ingress of a port",
            Self::PortEgress => "tc egress of a port",
            Self::BondEgress => "tc egress of a bond",
        }
    }

    pub(super) fn point(self) -> Point {
        match self {
            Self::LinkRegistered => Point::Exit,
            Self::PortIngress | Self::PortEgress | Self::BondEgress => Point::Traffic,
            _ => Point::Entry,
        }
    }

    pub(super) fn reads(self) -> Reads {
        match self {
            Self::WarnButtonPress => Reads::PciehpController,
            Self::WarnAcpiEject => Reads::AcpiDevice,
            Self::WarnPciStop => Reads::PciDevice,
            Self::WarnDriverRemove => Reads::Device,
            Self::LinkRegistered
            | Self::LinkUnregistering
            | Self::LinkStopped
            | Self::CarrierOn
            | Self::CarrierOff
            | Self::BondPortState => Reads::NetDevice,
            Self::PortIngress | Self::PortEgress | Self::BondEgress => Reads::Frames,
        }
    }

    /// Whether it can tell nothing without reading through untyped pointers.
    pub(super) fn needs_probe_read(self) -> bool {
        !matches!(self.reads(), Reads::NetDevice | Reads::Frames)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Reads {
    /// Fills in the offsets of its structures, as they are in the kernel of `btf`.
    pub(super) fn resolve(self, btf: &Btf, layout: &mut Layout) -> Result<(), BtfError> {
        match self {
            Self::NetDevice => net_device(btf, layout),
            Self::PciehpController => pciehp_controller(btf, layout),
            Self::AcpiDevice => acpi_device(btf, layout),
            Self::PciDevice => {
                let pci_dev = btf.argument("pci_stop_and_remove_bus_device", 0)?;
                layout.pci_dev_name = btf.member(pci_dev, "dev.kobj.name")?.offset;
                Ok(())
            }
            Self::Device => {
                let device = btf.argument("pci_device_remove", 0)?;
                layout.device_name = btf.member(device, "kobj.name")?.offset;
                Ok(())
            }
            Self::Frames => Ok(()),
        }
    }
}

fn net_device(btf: &Btf, layout: &mut Layout) -> Result<(), BtfError> {
    let device = btf.argument("register_netdevice", 0)?;
    let offset = |path| Ok::<_, BtfError>(btf.member(device, path)?.offset);
    layout.net_device_ifindex = offset("ifindex")?;
    layout.net_device_name = offset("name")?;
    layout.net_device_state = offset("state")?;
    layout.net_device_flags = offset("flags")?;
    layout.net_device_mac = offset("dev_addr_shadow")?;
    layout.net_device_perm_mac = offset("perm_addr")?;
    layout.net_device_net = offset("nd_net.net")?;
    layout.net_device_parent = offset("dev.parent")?;
    let net = btf.target(device, "nd_net.net")?;
    layout.net_inum = btf.member(net, "ns.inum")?.offset;
    let parent = btf.target(device, "dev.parent")?;
    layout.device_name = btf.member(parent, "kobj.name")?.offset;
    Ok(())
}

fn pciehp_controller(btf: &Btf, layout: &mut Layout) -> Result<(), BtfError> {
    let controller = btf.argument("pciehp_handle_button_press", 0)?;
    layout.controller_state = btf.member(controller, "state")?.offset;
    layout.controller_pcie = btf.member(controller, "pcie")?.offset;
    let pcie = btf.target(controller, "pcie")?;
    layout.pcie_device_port = btf.member(pcie, "port")?.offset;
    let port = btf.target(pcie, "port")?;
    layout.pci_dev_name = btf.member(port, "dev.kobj.name")?.offset;
    Ok(())
}

fn acpi_device(btf: &Btf, layout: &mut Layout) -> Result<(), BtfError> {
    let adev = btf.argument("acpi_hotplug_schedule", 0)?;
    layout.acpi_device_first_node = btf.member(adev, "physical_node_list.next")?.offset;
    let node = btf.structure("acpi_device_physical_node")?;
    let list = btf.member(node, "node")?.offset;
    let dev = btf.member(node, "dev")?.offset;
    // The list runs through `node`; the kernel puts it first, but need not.
    layout.acpi_node_to_dev = dev.wrapping_sub(list);
    let device = btf.target(node, "dev")?;
    layout.device_name = btf.member(device, "kobj.name")?.offset;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_object() {
        let object = super::super::OBJECT;
        for program in Program::ALL {
            let section = match program.point() {
                Point::Entry => format!("fentry/{}\0", program.function()),
                Point::Exit => format!("fexit/{}\0", program.function()),
                Point::Traffic => "classifier\0".to_owned(),
            };
            for text in [format!("{}\0", program.name()), section] {
                assert!(
                    object
                        .windows(text.len())
                        .any(|window| window == text.as_bytes()),
                    "the object has no {text:?}"
                );
            }
        }
    }

    #[test]
    fn net_device_resolves_on_this_machines_kernel_if_it_shows_its_types() {
        let Ok(btf) = Btf::from_kernel() else {
            assert!(!std::path::Path::new(super::super::btf::KERNEL_BTF).exists());
            return;
        };
        let mut layout = Layout::UNRESOLVED;
        Reads::NetDevice.resolve(&btf, &mut layout).unwrap();
        assert_ne!(layout.net_device_ifindex, 0);
        assert_ne!(layout.net_device_mac, layout.net_device_perm_mac);
    }
}
