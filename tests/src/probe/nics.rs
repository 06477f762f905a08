//! Which of the guest's NICs each numbered frame took, from what QEMU records of them, and how long a hand-over from
//! one to the other was without frames.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::analysis::GuestTimes;
use super::proto::Datagram;
use crate::net::GUEST_V4;

/// Enough of a frame for its number, in bytes.
pub(crate) const RECORDED_BYTES: u32 = 96;
/// The head of a file and of a record in it, in bytes (pcap-savefile(5)).
const FILE_HEAD: usize = 24;
const RECORD_HEAD: usize = 16;
/// As a machine of the recorder's own byte order reads it.
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET_HEAD: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const UDP_HEAD: usize = 8;

/// The numbers of a probe's frames that passed one NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicFrames {
    to_guest: BTreeSet<u32>,
    from_guest: BTreeSet<u32>,
}

/// How long a hand-over was without frames, by the guest's clock, in µs: from the last frame on the old NIC to the
/// first on the new one; 0 if they overlapped, nothing if either had none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pause {
    /// As the guest received them.
    pub receive_us: Option<u64>,
    /// As the guest sent them.
    pub transmit_us: Option<u64>,
}

impl NicFrames {
    /// Those of a probe in a record that [`crate::Vm::record_nic`] began.
    pub fn read(record: &Path, probe: u32) -> Result<Self> {
        let bytes = std::fs::read(record).with_context(|| format!("no {}", record.display()))?;
        Self::parse(&bytes, probe).with_context(|| format!("the record {}", record.display()))
    }

    fn parse(bytes: &[u8], probe: u32) -> Result<Self> {
        let word = |at: usize| {
            let word = bytes.get(at..at + 4)?.first_chunk::<4>()?;
            Some(u32::from_ne_bytes(*word))
        };
        ensure!(word(0) == Some(PCAP_MAGIC), "it is no packet capture");
        let mut frames = Self::default();
        let mut at = FILE_HEAD;
        // A record that is still being written ends it.
        while let Some(length) = word(at + 8) {
            let start = at + RECORD_HEAD;
            let end = start.saturating_add(usize::try_from(length)?);
            let Some(frame) = bytes.get(start..end) else {
                break;
            };
            match numbered(frame, probe) {
                Some((source, number)) if source == GUEST_V4 => {
                    frames.from_guest.insert(number);
                }
                Some((_, number)) => {
                    frames.to_guest.insert(number);
                }
                None => {}
            }
            at = end;
        }
        Ok(frames)
    }
}

/// The sender and the number of a frame, if it is the probe's, over IPv4.
fn numbered(frame: &[u8], probe: u32) -> Option<(Ipv4Addr, u32)> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEAD)?;
    if !ethernet.ends_with(&ETHERTYPE_IPV4) {
        return None;
    }
    let words = usize::from(packet.first()? & 0x0f);
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let payload = packet.get(words * 4 + UDP_HEAD..)?;
    match Datagram::decode(probe, payload)? {
        Datagram::Numbered { sequence } => Some((source.into(), sequence)),
        Datagram::Hello { .. } => None,
    }
}

impl Pause {
    /// Of the hand-over from one NIC to another.
    pub fn between(old: &NicFrames, new: &NicFrames, times: &GuestTimes) -> Self {
        let received = |numbers: &BTreeSet<u32>| {
            let of_nic = times.received.iter();
            let of_nic = of_nic.filter(|frame| numbers.contains(&frame.sequence));
            of_nic.map(|frame| frame.at_us).collect::<Vec<_>>()
        };
        let sent = |numbers: &BTreeSet<u32>| {
            let numbers = numbers.iter();
            let at = numbers.filter_map(|number| times.sent_us.get(usize::try_from(*number).ok()?));
            at.copied().collect::<Vec<_>>()
        };
        Self {
            receive_us: pause_us(&received(&old.to_guest), &received(&new.to_guest)),
            transmit_us: pause_us(&sent(&old.from_guest), &sent(&new.from_guest)),
        }
    }
}

fn pause_us(old: &[u64], new: &[u64]) -> Option<u64> {
    Some(new.iter().min()?.saturating_sub(*old.iter().max()?))
}

#[cfg(test)]
mod tests {
    use super::super::proto::{DATAGRAM_BYTES, Received};
    use super::*;
    use crate::net::CLIENT_V4;

    fn record(frames: &[(Ipv4Addr, Datagram)]) -> Vec<u8> {
        let mut bytes = PCAP_MAGIC.to_ne_bytes().to_vec();
        bytes.resize(FILE_HEAD, 0);
        for (source, datagram) in frames {
            let mut frame = vec![0; 12];
            frame.extend(ETHERTYPE_IPV4);
            frame.push(0x45);
            frame.extend([0; 11]);
            frame.extend(source.octets());
            frame.extend([0; 4 + UDP_HEAD]);
            let mut head = [0; DATAGRAM_BYTES];
            datagram.encode(7, &mut head);
            frame.extend(head);
            bytes.extend([0; 8]);
            let length = u32::try_from(frame.len()).unwrap();
            bytes.extend(length.to_ne_bytes());
            bytes.extend(1000_u32.to_ne_bytes());
            bytes.extend(frame);
        }
        bytes
    }

    #[test]
    fn a_record_tells_the_numbers_of_each_direction() {
        let numbered = |sequence| Datagram::Numbered { sequence };
        let bytes = record(&[
            (GUEST_V4, Datagram::Hello { heard: true }),
            (GUEST_V4, numbered(70_000)),
            (CLIENT_V4, numbered(3)),
        ]);
        let frames = NicFrames::parse(&bytes, 7).unwrap();
        assert_eq!(frames.from_guest, BTreeSet::from([70_000]));
        assert_eq!(frames.to_guest, BTreeSet::from([3]));
        assert_eq!(NicFrames::parse(&bytes, 8).unwrap(), NicFrames::default());
        let cut = NicFrames::parse(&bytes[..bytes.len() - 1], 7).unwrap();
        assert_eq!(cut.to_guest, BTreeSet::new());
        assert!(NicFrames::parse(b"", 7).is_err());
    }

    #[test]
    fn a_pause_is_from_the_old_nics_last_frame_to_the_new_ones_first() {
        let nic = |to_guest: &[u32], from_guest: &[u32]| NicFrames {
            to_guest: to_guest.iter().copied().collect(),
            from_guest: from_guest.iter().copied().collect(),
        };
        let received = |sequence, at_us| Received { sequence, at_us };
        let times = GuestTimes {
            probe: 7,
            // Number 2 was lost.
            received: vec![received(0, 100), received(1, 200), received(3, 450)],
            sent_us: vec![1000, 2000, 3000],
        };
        let pause = Pause::between(&nic(&[0, 1, 2], &[0, 2]), &nic(&[3], &[1]), &times);
        assert_eq!(pause.receive_us, Some(250));
        assert_eq!(pause.transmit_us, Some(0), "both were in use");
        let none = Pause::between(&nic(&[0], &[0]), &nic(&[2], &[9]), &times);
        assert_eq!(none, Pause::default());
    }
}
