//! Words for people: the same in `tandem status`, in the demo and wherever else a status is told.

use crate::input::RemovalStage;
use crate::status::{SwitchoverCause, Traffic};

/// Who carries the traffic.
pub fn carrier(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::None => "nobody",
        Traffic::Vf => "VF",
        Traffic::Standby => "standby",
        Traffic::Other => "another port",
    }
}

/// Why the traffic moved.
pub fn cause(cause: SwitchoverCause) -> &'static str {
    match cause {
        SwitchoverCause::Planned => "planned by the host",
        SwitchoverCause::Warned => "the kernel warned",
        SwitchoverCause::Abrupt => "without a warning",
        SwitchoverCause::Carrier => "carrier lost",
        SwitchoverCause::Operator => "requested by an operator",
        SwitchoverCause::Arrival => "a VF arrived",
    }
}

/// Who warned of a removal.
pub fn warning(stage: RemovalStage) -> &'static str {
    match stage {
        RemovalStage::ButtonPressed => "the slot's button",
        RemovalStage::ButtonCancelled => "the slot's button, cancelled",
        RemovalStage::EjectRequested => "ACPI's request to eject",
        RemovalStage::RemovalStarted => "the PCI core",
        RemovalStage::DriverStopping => "its driver",
    }
}
