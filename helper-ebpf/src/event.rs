//! The record that a program writes into the ring buffer.

use core::fmt;

/// `ETH_ALEN` of `include/uapi/linux/if_ether.h`.
pub const MAC_LEN: usize = 6;
/// Room for a kernel device name, with its NUL. The longest PCI address,
/// `%04x:%02x:%02x.%d` with a 32-bit domain (drivers/pci/probe.c), has 16.
pub const DEVICE_NAME_LEN: usize = 20;
/// Length of one [`RawEvent`] in bytes.
pub const EVENT_LEN: usize = 40;

const KIND_AT: usize = 8;
const STATE_AT: usize = 12;
const IFINDEX_AT: usize = 16;
const DEVICE_AT: usize = 20;

const _: () = assert!(size_of::<RawEvent>() == EVENT_LEN);
const _: () = assert!(core::mem::offset_of!(RawEvent, ifindex) == IFINDEX_AT);
const _: () = assert!(core::mem::offset_of!(RawEvent, device) == DEVICE_AT);

/// One event as it lies in the ring buffer: fixed width, no padding, fields that
/// do not apply are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// `bpf_ktime_get_boot_ns`: nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// An [`EventKind`] as a number.
    pub kind: u32,
    /// State of a hot-plug controller before its button was pressed.
    pub state: u32,
    /// Index of the network device, in its own network namespace.
    pub ifindex: u32,
    /// Name of the bus device, NUL-terminated: the PCI address for a PCI device,
    /// for a network device that of its parent. Cut off when it is longer.
    pub device: [u8; DEVICE_NAME_LEN],
}

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A native `PCIe` slot's attention button was pressed; `device` is the slot's
    /// port.
    ButtonPress = 1,
    /// ACPI asked for the ejection of `device`.
    AcpiEject = 2,
    /// The kernel starts to remove the PCI device `device`, or to remove its driver.
    RemovalStarted = 3,
    /// A network device is about to be unregistered, with RTNL held from here on, or was
    /// closed.
    DriverStopping = 4,
    /// A network device lost its carrier.
    CarrierLost = 5,
}

impl EventKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::ButtonPress,
        Self::AcpiEject,
        Self::RemovalStarted,
        Self::DriverStopping,
        Self::CarrierLost,
    ];

    /// The kind with this number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Why bytes are not a [`RawEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The record has another length than [`EVENT_LEN`].
    Length {
        /// The record's length in bytes.
        found: usize,
    },
    /// The record names a kind that is not an [`EventKind`].
    Kind {
        /// The number found.
        found: u32,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found } => write!(
                f,
                "eBPF event has {found} bytes, expected {EVENT_LEN}: the object and the service differ"
            ),
            Self::Kind { found } => write!(
                f,
                "eBPF event has unknown kind {found}: the object and the service differ"
            ),
        }
    }
}

impl core::error::Error for ParseError {}

impl RawEvent {
    /// An event with every field zero.
    pub const EMPTY: Self = Self {
        boot_ns: 0,
        kind: 0,
        state: 0,
        ifindex: 0,
        device: [0; DEVICE_NAME_LEN],
    };

    /// Reads one ring buffer record; never panics, whatever the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<(EventKind, Self), ParseError> {
        let bytes: &[u8; EVENT_LEN] = bytes
            .try_into()
            .map_err(|_| ParseError::Length { found: bytes.len() })?;
        let event = Self {
            boot_ns: u64::from_ne_bytes(array(bytes, 0)),
            kind: u32::from_ne_bytes(array(bytes, KIND_AT)),
            state: u32::from_ne_bytes(array(bytes, STATE_AT)),
            ifindex: u32::from_ne_bytes(array(bytes, IFINDEX_AT)),
            device: array(bytes, DEVICE_AT),
        };
        match EventKind::from_number(event.kind) {
            Some(kind) => Ok((kind, event)),
            None => Err(ParseError::Kind { found: event.kind }),
        }
    }
}

/// `N` bytes from `at` on; callers stay inside the record (asserted above).
fn array<const N: usize>(bytes: &[u8; EVENT_LEN], at: usize) -> [u8; N] {
    core::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(event: &RawEvent) -> [u8; EVENT_LEN] {
        let mut bytes = [0; EVENT_LEN];
        bytes[0..8].copy_from_slice(&event.boot_ns.to_ne_bytes());
        bytes[8..12].copy_from_slice(&event.kind.to_ne_bytes());
        bytes[12..16].copy_from_slice(&event.state.to_ne_bytes());
        bytes[16..20].copy_from_slice(&event.ifindex.to_ne_bytes());
        bytes[20..40].copy_from_slice(&event.device);
        bytes
    }

    #[test]
    fn reads_back_what_the_kernel_wrote() {
        for kind in EventKind::ALL {
            let event = RawEvent {
                boot_ns: 0x0102_0304_0506_0708,
                kind: kind as u32,
                state: 5,
                ifindex: 7,
                device: *b"0000:01:00.0\0\0\0\0\0\0\0\0",
            };
            assert_eq!(RawEvent::from_bytes(&bytes_of(&event)), Ok((kind, event)));
        }
    }

    #[test]
    fn another_length_is_an_error() {
        let long = [0u8; EVENT_LEN + 8];
        for len in (0..EVENT_LEN).chain([EVENT_LEN + 1, EVENT_LEN + 8]) {
            assert_eq!(
                RawEvent::from_bytes(&long[..len]),
                Err(ParseError::Length { found: len })
            );
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        for found in [0, EventKind::ALL.len() as u32 + 1, u32::MAX] {
            let event = RawEvent {
                kind: found,
                ..RawEvent::EMPTY
            };
            assert_eq!(
                RawEvent::from_bytes(&bytes_of(&event)),
                Err(ParseError::Kind { found })
            );
        }
    }
}
