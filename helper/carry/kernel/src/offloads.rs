//! What a tap takes in one piece: as the guest's driver has asked for, and each frame else is to be cut into segments before.
//! Into its queue the kernel cuts none by itself: what would become several frames there is dropped, and the sender hears that
//! the queue is full (`dev_direct_xmit` of net/core/dev.c, 6.12).

use std::io;

use rustix::net::{AddressFamily, SocketType, socket};
use tandem_carry::Frame;

use crate::sys;

/// `ETHTOOL_GSSET_INFO`, `ETHTOOL_GSTRINGS`, `ETHTOOL_GFEATURES`, `ETH_SS_FEATURES` (include/uapi/linux/ethtool.h, 6.12).
const COUNT: u32 = 0x37;
const NAMES: u32 = 0x1b;
const FEATURES: u32 = 0x3a;
const OF_FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN` (the same).
const NAME_BYTES: usize = 32;
/// Features that a kernel has at most, by far.
const MOST: u32 = 1024;
/// Names (`netdev_features_strings` of net/ethtool/common.c, 6.12), what a tap calls them, and the frames that want them
/// (`VIRTIO_NET_HDR_GSO_TCPV4` and others, `include/uapi/linux/virtio_net.h`).
const KNOWN: [(&str, libc::c_uint, u8); 3] = [
    ("tx-tcp-segmentation", libc::TUN_F_TSO4, 1),
    ("tx-tcp6-segmentation", libc::TUN_F_TSO6, 4),
    (
        "tx-udp-segmentation",
        libc::TUN_F_USO4 | libc::TUN_F_USO6,
        5,
    ),
];
const ECN: (&str, libc::c_uint) = ("tx-tcp-ecn-segmentation", libc::TUN_F_TSO_ECN);
/// Of a frame's kind (`VIRTIO_NET_HDR_GSO_ECN`, the same).
const WITH_ECN: u8 = 0x80;

/// What one tap takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offloads(libc::c_uint);

impl Offloads {
    /// As far as the kernel tells; what it does not, the tap does not take. A checksum is made in place, if the tap takes none that
    /// is still to be made.
    pub(crate) fn of(device: &str) -> Self {
        let on = features(device).unwrap_or_default();
        let has = |name: &str| on.iter().any(|one| one == name);
        let known = KNOWN.iter().map(|(name, flags, _)| (*name, *flags));
        let taken = known.chain([ECN]).filter(|(name, _)| has(name));
        Self(taken.fold(libc::TUN_F_CSUM, |all, (_, flags)| all | flags))
    }

    /// As `TUNSETOFFLOAD` takes them.
    pub(crate) const fn flags(self) -> libc::c_uint {
        self.0
    }

    /// True if it takes the frame as it is.
    pub(crate) fn take(self, frame: &Frame) -> bool {
        let kind = frame.bytes()[1];
        let ecn = kind & WITH_ECN == 0 || self.0 & ECN.1 != 0;
        let wanted = KNOWN.iter().find(|(_, _, one)| *one == kind & !WITH_ECN);
        !is_joined(frame) || (ecn && wanted.is_some_and(|(_, flags, _)| self.0 & flags != 0))
    }
}

/// True if it is to become several frames yet.
pub(crate) fn is_joined(frame: &Frame) -> bool {
    frame.bytes()[1] != 0
}

/// Names of the features that are turned on.
fn features(device: &str) -> io::Result<Vec<String>> {
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut count = bytes_of(&[COUNT, 0]);
    count.extend((1_u64 << OF_FEATURES).to_ne_bytes());
    let at = count.len();
    count.extend(0_u32.to_ne_bytes());
    sys::ethtool(&control, device, &mut count)?;
    let count = word(&count[at..]).min(MOST);

    let mut names = bytes_of(&[NAMES, OF_FEATURES, count]);
    let at_names = names.len();
    names.resize(at_names + count as usize * NAME_BYTES, 0);
    sys::ethtool(&control, device, &mut names)?;

    let blocks = count.div_ceil(u32::BITS);
    let mut states = bytes_of(&[FEATURES, blocks]);
    let at_states = states.len();
    // Available, requested, active, never changed.
    states.resize(at_states + blocks as usize * 16, 0);
    sys::ethtool(&control, device, &mut states)?;

    let is_on = |index: usize| {
        let active = at_states + index / 32 * 16 + 8;
        word(&states[active..]) >> (index % 32) & 1 != 0
    };
    let named = names[at_names..].chunks(NAME_BYTES).enumerate();
    Ok(named
        .filter(|(index, _)| is_on(*index))
        .map(|(_, name)| {
            let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
            String::from_utf8_lossy(&name).into_owned()
        })
        .collect())
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use tandem_carry::MIN_FRAME_BYTES;

    use super::*;

    #[test]
    fn a_frame_is_taken_whose_segments_the_guest_takes_in_one() {
        let frame = |kind: u8| {
            let mut bytes = [0; MIN_FRAME_BYTES];
            bytes[1] = kind;
            Frame::new(&bytes).unwrap()
        };
        let four = Offloads(libc::TUN_F_CSUM | libc::TUN_F_TSO4);
        let taken: Vec<u8> = (0..=u8::MAX)
            .filter(|kind| four.take(&frame(*kind)))
            .collect();
        assert_eq!(taken, [0, 1]);
        let with_ecn = Offloads(libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN);
        assert!(with_ecn.take(&frame(1 | WITH_ECN)));
        assert!(!with_ecn.take(&frame(5)) && Offloads::default().take(&frame(0)));
    }
}
