//! Values that user space writes into the object's `.rodata` before it loads.
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
    /// `net_device.name`
    pub net_device_name: u32,
    /// `net_device.state`
    pub net_device_state: u32,
    /// `net_device.flags`
    pub net_device_flags: u32,
    /// `net_device.dev_addr_shadow`: a copy of the MAC inside the structure,
    /// there since 5.16; `dev_addr` itself is an untyped pointer.
    pub net_device_mac: u32,
    /// `net_device.perm_addr`
    pub net_device_perm_mac: u32,
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
        net_device_name: 0,
        net_device_state: 0,
        net_device_flags: 0,
        net_device_mac: 0,
        net_device_perm_mac: 0,
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

/// Switches of the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// 1: report every network device that has a parent device (hardware and
    /// paravirtual NICs), not only those whose MAC is in the filter map.
    pub watch_parented: u32,
    /// 1: `bpf_probe_read_kernel` may be used. Under lockdown=confidentiality the
    /// kernel refuses it, and names and states behind untyped pointers stay empty.
    pub may_probe_read: u32,
}

impl Settings {
    /// Everything off: what the object is built with.
    pub const OFF: Self = Self {
        watch_parented: 0,
        may_probe_read: 0,
    };
}

#[cfg(feature = "user")]
mod pod {
    use super::{Layout, Settings};

    #[expect(unsafe_code, reason = "aya writes the value as bytes into .rodata")]
    // SAFETY: only u32 fields, repr(C): no padding, every bit pattern is valid.
    unsafe impl aya::Pod for Layout {}

    #[expect(unsafe_code, reason = "aya writes the value as bytes into .rodata")]
    // SAFETY: only u32 fields, repr(C): no padding, every bit pattern is valid.
    unsafe impl aya::Pod for Settings {}
}
