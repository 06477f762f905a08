//! What announces that a PCI device is about to be removed.

use serde::{Deserialize, Serialize};

use crate::model::types::{PciAddress, Time};

/// A stage of a PCI device's removal, as the eBPF monitor saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Removal {
    /// How far it is.
    pub stage: RemovalStage,
    /// The device, or the slot's port above it for [`RemovalStage::ButtonPressed`].
    pub pci: PciAddress,
    /// When the kernel was there.
    pub at: Time,
}

/// How far a removal is. The order is the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RemovalStage {
    /// pciehp saw the attention button; power goes off 5 s later unless it is
    /// pressed again (`pciehp_handle_button_press`, `drivers/pci/hotplug/pciehp_ctrl.c`, 6.12).
    ButtonPressed,
    /// pciehp saw the button again and keeps the device.
    ButtonCancelled,
    /// ACPI asks for ejection (`acpi_hotplug_schedule`, drivers/acpi/osl.c, 6.12).
    EjectRequested,
    /// The PCI core removes the device (`pci_stop_and_remove_bus_device`, drivers/pci/remove.c, 6.12).
    RemovalStarted,
    /// The driver takes its network device down. After a warning this is the removal:
    /// frames are lost from here on. Without one somebody just took the link down.
    DriverStopping,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}
