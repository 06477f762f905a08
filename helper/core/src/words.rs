//! Words for people: the same in `tandem status`, in the demo and wherever else a status is told.

use crate::input::RemovalStage;
use crate::status::{HandoffCause, Traffic};

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
pub fn cause(cause: HandoffCause) -> &'static str {
    match cause {
        HandoffCause::Planned => "planned by the host",
        HandoffCause::Warned => "the kernel warned",
        HandoffCause::Abrupt => "without a warning",
        HandoffCause::Carrier => "carrier lost",
        HandoffCause::Operator => "asked for by an operator",
        HandoffCause::Arrival => "a VF came",
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
