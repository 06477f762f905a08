//! Words for people: the same in `tandem status`, in the demo and wherever else a status is told.

use crate::input::RemovalStage;
use crate::policy::HostMay;
use crate::status::{SwitchoverCause, Traffic};

/// Who carries the traffic.
pub fn carrier(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::None => "nobody",
        Traffic::Vf => "VF",
        Traffic::Standby => "standby",
        Traffic::Other => "another port",
        Traffic::Unknown => "unknown",
    }
}

/// What the host may not do; `None` where it may do all.
pub fn host_may(what: HostMay) -> Option<&'static str> {
    match what {
        HostMay::Bonds => None,
        HostMay::Commands => Some("the host may not define bonds"),
        HostMay::None => Some("the host may only ask"),
        HostMay::Unknown => Some("only a newer version knows what the host may do"),
    }
}

/// Why the traffic moved.
pub fn cause(cause: SwitchoverCause) -> &'static str {
    match cause {
        SwitchoverCause::Planned => "planned by the host",
        SwitchoverCause::Warned => "the kernel warned",
        SwitchoverCause::Abrupt => "without a warning",
        SwitchoverCause::Carrier => "carrier lost",
        SwitchoverCause::PathLost => "its frames did not pass",
        SwitchoverCause::Operator => "requested by an operator",
        SwitchoverCause::Arrival => "a VF arrived",
        SwitchoverCause::Unknown => "for a reason that a newer guest knows",
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
        RemovalStage::Unknown => "something that a newer guest knows",
    }
}
