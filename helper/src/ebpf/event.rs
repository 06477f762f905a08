//! A record of the kernel programs is an input of the machine in one step.

use tandem_core::input::{Input, Removal, RemovalStage};
use tandem_core::{Ifindex, PciAddress, Time};
use tandem_ebpf::{EventKind, ParseError, RawEvent};

/// The machine's input for a record of the ring buffer; `None` if it does not concern the machine.
pub(crate) fn input(bytes: &[u8]) -> Result<Option<Input>, ParseError> {
    let (kind, event) = RawEvent::from_bytes(bytes)?;
    tracing::debug!(?kind, ?event, "a kernel program reports");
    let at = Time(event.boot_ns / 1000);
    let stage = match kind {
        EventKind::ButtonPress => pressed(event.state),
        EventKind::AcpiEject => Some(RemovalStage::EjectRequested),
        EventKind::RemovalStarted => Some(RemovalStage::RemovalStarted),
        EventKind::DriverStopping => Some(RemovalStage::DriverStopping),
        EventKind::CarrierLost => {
            let ifindex = Ifindex(event.ifindex);
            let is_named = event.device[0] != 0;
            return Ok(is_named.then_some(Input::CarrierLost { ifindex, at }));
        }
    };
    let removal = |(stage, pci)| Input::Removal(Removal { stage, pci, at });
    // A NIC without PCI function (virtio under MMIO, say) has no address to match.
    Ok(stage.zip(address(&event.device)).map(removal))
}

/// What a press of the attention button leads to, by the controller's state before
/// it (`*_STATE` in drivers/pci/hotplug/pciehp.h, kernel 6.1 to 7.3).
fn pressed(state: u32) -> Option<RemovalStage> {
    match state {
        // Power goes off in 5 s.
        5 => Some(RemovalStage::ButtonPressed),
        // A power-off announced before is cancelled.
        2 => Some(RemovalStage::ButtonCancelled),
        // Power goes on in 5 s (0), or not after all (1); the controller is busy.
        _ => None,
    }
}

/// The PCI address that stands before the first NUL.
fn address(device: &[u8]) -> Option<PciAddress> {
    let name = device.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_ebpf::EVENT_LEN;

    use super::*;

    fn record(kind: EventKind, state: u32, device: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; EVENT_LEN];
        bytes[0..8].copy_from_slice(&6_000_000u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&(kind as u32).to_ne_bytes());
        bytes[12..16].copy_from_slice(&state.to_ne_bytes());
        bytes[16..20].copy_from_slice(&3u32.to_ne_bytes());
        bytes[20..20 + device.len()].copy_from_slice(device);
        bytes
    }

    fn removal(stage: RemovalStage, pci: &str) -> Option<Input> {
        Some(Input::Removal(Removal {
            stage,
            pci: pci.parse().unwrap(),
            at: Time(6_000),
        }))
    }

    #[test]
    fn a_warning_names_device_and_moment() {
        for (kind, stage) in [
            (EventKind::AcpiEject, RemovalStage::EjectRequested),
            (EventKind::RemovalStarted, RemovalStage::RemovalStarted),
            (EventKind::DriverStopping, RemovalStage::DriverStopping),
        ] {
            let found = input(&record(kind, 0, b"0000:02:00.0")).unwrap();
            assert_eq!(found, removal(stage, "0000:02:00.0"));
        }
    }

    #[test]
    fn a_button_press_means_what_the_state_before_says() {
        for (state, stage) in [
            (0, None),
            (1, None),
            (2, Some(RemovalStage::ButtonCancelled)),
            (3, None),
            (4, None),
            (5, Some(RemovalStage::ButtonPressed)),
            (77, None),
        ] {
            let found = input(&record(EventKind::ButtonPress, state, b"0000:00:02.0")).unwrap();
            assert_eq!(
                found,
                stage.and_then(|stage| removal(stage, "0000:00:02.0"))
            );
        }
    }

    #[test]
    fn a_device_without_pci_address_is_nothing() {
        for device in [&b"virtio1"[..], b"", &[b'x'; 20], &[0xff; 20]] {
            let found = input(&record(EventKind::DriverStopping, 0, device)).unwrap();
            assert_eq!(found, None, "{device:?}");
        }
        let lost = |device| input(&record(EventKind::CarrierLost, 0, device)).unwrap();
        let (ifindex, at) = (Ifindex(3), Time(6_000));
        assert_eq!(lost(b"virtio1"), Some(Input::CarrierLost { ifindex, at }));
        assert_eq!(lost(b""), None, "its parent could not be read");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..=EVENT_LEN * 2)) {
            let _ = input(&bytes);
        }

        #[test]
        fn any_record_of_a_known_kind_is_taken(
            kind in 1u32..=EventKind::ALL.len() as u32,
            rest in proptest::collection::vec(any::<u8>(), EVENT_LEN),
        ) {
            let mut bytes = rest;
            bytes[8..12].copy_from_slice(&kind.to_ne_bytes());
            prop_assert!(input(&bytes).is_ok());
        }
    }
}
