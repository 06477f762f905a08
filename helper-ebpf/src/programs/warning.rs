//! Early warning: a PCI device is about to leave, and its driver still runs.

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use aya_log_ebpf::info;
use tandem_ebpf::{EventKind, RawEvent};

use super::{
    emit, fast_path,
    kernel::{KernelPtr, offset},
};

/// `ACPI_NOTIFY_EJECT_REQUEST` of include/acpi/actypes.h; hot-add notifies
/// through the same function with other values.
const ACPI_NOTIFY_EJECT_REQUEST: u32 = 3;

/// Reports the device whose `kobj.name` pointer is `name`. If it is an armed VF,
/// its bond's fast path begins first; not so at the press of a button, which leaves
/// the service 5 s.
#[inline(always)]
fn report(kind: EventKind, name: KernelPtr, detail: u32) {
    let device = name.probe_text();
    if kind != EventKind::ButtonPress {
        fast_path::device_leaves(kind, &device);
    }
    let event = RawEvent {
        detail,
        device,
        ..RawEvent::EMPTY
    };
    emit(kind, event);
}

/// `void pciehp_handle_button_press(struct controller *ctrl)`
/// (`drivers/pci/hotplug/pciehp_ctrl.c`): 5 s before power off, also called for
/// power on and for the second press that cancels either.
#[fentry(function = "pciehp_handle_button_press")]
fn warn_button_press(ctx: FEntryContext) -> i32 {
    let controller = KernelPtr::new(ctx.arg(0));
    let state: u8 = controller.load(offset(|l| &l.controller_state));
    let port = controller
        .follow(offset(|l| &l.controller_pcie))
        .follow(offset(|l| &l.pcie_device_port));
    let name = port.follow(offset(|l| &l.pci_dev_name));
    report(EventKind::ButtonPress, name, u32::from(state));
    0
}

/// `acpi_status acpi_hotplug_schedule(struct acpi_device *adev, u32 src)`
/// (`drivers/acpi/osl.c`): the ACPI device's first physical node is the PCI device.
#[fentry(function = "acpi_hotplug_schedule")]
fn warn_acpi_eject(ctx: FEntryContext) -> i32 {
    let source: u32 = ctx.arg(1);
    if source != ACPI_NOTIFY_EJECT_REQUEST {
        return 0;
    }
    let adev = KernelPtr::new(ctx.arg(0));
    let head_at = offset(|l| &l.acpi_device_first_node);
    let node = adev.follow(head_at);
    // The list's nodes are untyped for the verifier: from here on by helper.
    let dev = if node.is(adev.at(head_at)) {
        None
    } else {
        node.at(offset(|l| &l.acpi_node_to_dev))
            .probe::<*const u8>()
    };
    let name = dev.and_then(|dev| {
        KernelPtr::new(dev)
            .at(offset(|l| &l.device_name))
            .probe::<*const u8>()
    });
    match name {
        Some(name) => report(EventKind::AcpiEject, KernelPtr::new(name), source),
        None => info!(
            &ctx,
            "ACPI eject request for a device without a PCI function"
        ),
    }
    0
}

/// `void pci_stop_and_remove_bus_device(struct pci_dev *dev)` (`drivers/pci/remove.c`)
#[fentry(function = "pci_stop_and_remove_bus_device")]
fn warn_pci_stop(ctx: FEntryContext) -> i32 {
    let device = KernelPtr::new(ctx.arg(0));
    report(
        EventKind::PciStop,
        device.follow(offset(|l| &l.pci_dev_name)),
        0,
    );
    0
}

/// `void pci_device_remove(struct device *dev)` (`drivers/pci/pci-driver.c`): any
/// way for a PCI driver to leave its device, also unbinding through sysfs.
#[fentry(function = "pci_device_remove")]
fn warn_driver_remove(ctx: FEntryContext) -> i32 {
    let device = KernelPtr::new(ctx.arg(0));
    report(
        EventKind::DriverRemove,
        device.follow(offset(|l| &l.device_name)),
        0,
    );
    0
}
