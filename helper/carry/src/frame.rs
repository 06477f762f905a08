//! A frame as a tap with `IFF_VNET_HDR` gives it.

use alloc::sync::Arc;
use core::fmt;

/// Bytes before the Ethernet frame: `struct virtio_net_hdr`, which says what of checksum and segmentation is still to
/// be done (`include/uapi/linux/virtio_net.h`, 6.12). Both halves use it, so that a frame of many segments is carried as one.
pub const HEADER_BYTES: usize = 10;

/// The shortest frame in bytes: the header, two MACs and a type.
pub const MIN_FRAME_BYTES: usize = HEADER_BYTES + 14;

/// The longest frame in bytes: aggregated 64 KiB, with room for the headers before it, as QEMU reads from a tap
/// (`NET_BUFSIZE`, `include/net/net.h`, 8.2).
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + 68 * 1024;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A frame with its header. A copy shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// The frame of these bytes, the header first; `None` if they are too few or too many for one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (MIN_FRAME_BYTES..=MAX_FRAME_BYTES)
            .contains(&bytes.len())
            .then(|| Self(bytes.into()))
    }

    /// All bytes, the header first.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The frame without its header.
    pub fn ethernet(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }

    /// True if it goes to more than one: broadcast or multicast.
    pub fn is_group(&self) -> bool {
        self.ethernet()[0] & 1 != 0
    }

    /// Who sent it.
    pub fn source(&self) -> Mac {
        let mut mac = Mac::default();
        mac.copy_from_slice(&self.ethernet()[6..12]);
        mac
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_frame_is_none() {
        assert_eq!(Frame::new(&[0; MIN_FRAME_BYTES - 1]), None);
        let longest = alloc::vec![0; MAX_FRAME_BYTES];
        assert!(Frame::new(&longest).is_some());
        let longer = alloc::vec![0; MAX_FRAME_BYTES + 1];
        assert_eq!(Frame::new(&longer), None);
    }

    #[test]
    fn the_ethernet_frame_begins_after_the_header() {
        let mut bytes = [0; MIN_FRAME_BYTES];
        bytes[HEADER_BYTES] = 0x33;
        bytes[HEADER_BYTES + 6] = 0x52;
        let frame = Frame::new(&bytes).unwrap();
        assert!(frame.is_group());
        assert_eq!(frame.source(), [0x52, 0, 0, 0, 0, 0]);
        assert_eq!(frame.ethernet().len(), MIN_FRAME_BYTES - HEADER_BYTES);
    }
}
