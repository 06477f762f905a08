//! What user space writes into the object's `.rodata` before it loads.
//!
//! The section is frozen then, so the verifier takes each value as a constant:
//! typed kernel pointers can be read at these offsets directly, and code behind
//! a switch that is off is removed.

/// Offsets in bytes into structures of the running kernel, from its BTF.
///
/// Only programs whose offsets all resolved are loaded; the others' stay zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `net_device.ifindex`
    pub net_device_ifindex: u32,
    /// `net_device.state`
    pub net_device_state: u32,
    /// `net_device.flags`
    pub net_device_flags: u32,
    /// `net_device.nd_net.net`
    pub net_device_net: u32,
    /// `net_device.dev.parent`
    pub net_device_parent: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `device.kobj.name`
    pub device_name: u32,
    /// `pci_dev.dev.kobj.name`
    pub pci_dev_name: u32,
    /// `controller.pcie` (drivers/pci/hotplug/pciehp.h)
    pub controller_pcie: u32,
    /// `controller.state`
    pub controller_state: u32,
    /// `pcie_device.port`
    pub pcie_device_port: u32,
    /// `acpi_device.physical_node_list.next`
    pub acpi_device_first_node: u32,
    /// From `acpi_device_physical_node.node` to `.dev`
    pub acpi_node_to_dev: u32,
}

impl Layout {
    /// Nothing resolved yet: what the object is built with.
    pub const UNRESOLVED: Self = Self {
        net_device_ifindex: 0,
        net_device_state: 0,
        net_device_flags: 0,
        net_device_net: 0,
        net_device_parent: 0,
        net_inum: 0,
        device_name: 0,
        pci_dev_name: 0,
        controller_pcie: 0,
        controller_state: 0,
        pcie_device_port: 0,
        acpi_device_first_node: 0,
        acpi_node_to_dev: 0,
    };
}

#[cfg(feature = "user")]
mod pod {
    use super::Layout;

    #[expect(unsafe_code, reason = "aya writes the value as bytes into .rodata")]
    // SAFETY: only u32 fields, repr(C): no padding, every bit pattern is valid.
    unsafe impl aya::Pod for Layout {}
}
