//! Which of the guest's NICs each numbered frame took, from what QEMU records of them, and how long a hand-over from
//! one to the other was without frames.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

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

/// What QEMU records of one NIC's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicRecord {
    /// The file.
    pub file: PathBuf,
    /// When it was begun, in s since 1970: the file's times count from there, by a clock that stands still with the
    /// guest (`dump_receive_iov`, net/dump.c, 10.0).
    pub begun_s: u64,
}

/// A probe's frames that passed one NIC, in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicFrames {
    to_guest: Vec<Passed>,
    from_guest: Vec<Passed>,
    /// When any frame over IPv4 left the guest, also those that are not the probe's.
    left_us: Vec<u64>,
}

/// A frame that passed a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Passed {
    number: u32,
    /// When, by the guest's virtual clock, in µs: the same for all its NICs.
    at_us: u64,
}

/// How long a hand-over was without frames, in µs: from the last frame on the old NIC to the first on the new one; 0
/// if they overlapped, nothing if either had none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pause {
    /// Of the probe's frames that the guest received, by the time its kernel took them in.
    pub receive_us: Option<u64>,
    /// Of all frames that it sent over IPv4, by the time they left the NICs.
    pub transmit_us: Option<u64>,
}

impl NicFrames {
    /// Those of a probe in a record that [`crate::Vm::record_nic`] began.
    pub fn read(record: &NicRecord, probe: u32) -> Result<Self> {
        let file = record.file.display();
        let bytes = std::fs::read(&record.file).with_context(|| format!("no {file}"))?;
        Self::parse(&bytes, record.begun_s, probe).with_context(|| format!("the record {file}"))
    }

    fn parse(bytes: &[u8], begun_s: u64, probe: u32) -> Result<Self> {
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
            let second = u64::from(word(at).unwrap_or(0)).saturating_sub(begun_s);
            let at_us = second * 1_000_000 + u64::from(word(at + 4).unwrap_or(0));
            if let Some((source, number)) = sender_of(frame, probe) {
                let passed = number.map(|number| Passed { number, at_us });
                match source == GUEST_V4 {
                    true => {
                        frames.left_us.push(at_us);
                        frames.from_guest.extend(passed);
                    }
                    false => frames.to_guest.extend(passed),
                }
            }
            at = end;
        }
        Ok(frames)
    }
}

/// The sender of a unicast frame over IPv4, and its number if it is the probe's.
fn sender_of(frame: &[u8], probe: u32) -> Option<(Ipv4Addr, Option<u32>)> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEAD)?;
    let is_group = ethernet.first()? & 1 != 0;
    if is_group || !ethernet.ends_with(&ETHERTYPE_IPV4) {
        return None;
    }
    let words = usize::from(packet.first()? & 0x0f);
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let payload = packet.get(words * 4 + UDP_HEAD..).unwrap_or(&[]);
    let number = match Datagram::decode(probe, payload) {
        Some(Datagram::Numbered { sequence }) => Some(sequence),
        Some(Datagram::Hello { .. }) | None => None,
    };
    Some((source.into(), number))
}

impl Pause {
    /// Of the hand-over from one NIC to another; `times` tells what the guest received when.
    pub fn between(old: &NicFrames, new: &NicFrames, times: &GuestTimes) -> Self {
        // The records may hold what was before the probe.
        let firsts = [&old.from_guest, &new.from_guest].map(|frames| frames.first());
        let begin = firsts.into_iter().flatten().map(|frame| frame.at_us).min();
        let left = |frames: &NicFrames| {
            let left = frames.left_us.iter().copied();
            left.filter(|at_us| Some(*at_us) >= begin)
                .collect::<Vec<_>>()
        };
        let (last_left, first_left) = (left(old).last().copied(), left(new).first().copied());

        let mut received = BTreeMap::new();
        for frame in &times.received {
            received.entry(frame.sequence).or_insert(frame.at_us);
        }
        let when = |frames: &[Passed], from_us: u64| {
            let frames = frames.iter().filter(|frame| frame.at_us >= from_us);
            let taken_in = frames.filter_map(|frame| received.get(&frame.number).copied());
            taken_in.collect::<Vec<u64>>()
        };
        // A bridge that has just learnt the MAC on the new NIC may send it a frame or two before it is in use.
        let in_use = last_left.min(first_left).unwrap_or(0);
        let last_received = when(&old.to_guest, 0).into_iter().max();
        let first_received = when(&new.to_guest, in_use).into_iter().min();
        let pause = |last: Option<u64>, first: Option<u64>| Some(first?.saturating_sub(last?));
        Self {
            receive_us: pause(last_received, first_received),
            transmit_us: pause(last_left, first_left),
        }
    }
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
            bytes.extend(2_u32.to_ne_bytes());
            bytes.extend(5_u32.to_ne_bytes());
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
        let frames = NicFrames::parse(&bytes, 1, 7).unwrap();
        let passed = |number| Passed {
            number,
            at_us: 1_000_005,
        };
        assert_eq!(frames.from_guest, [passed(70_000)]);
        assert_eq!(frames.left_us, [1_000_005; 2]);
        assert_eq!(frames.to_guest, [passed(3)]);
        assert_eq!(NicFrames::parse(&bytes, 1, 8).unwrap().to_guest, []);
        let cut = NicFrames::parse(&bytes[..bytes.len() - 1], 1, 7).unwrap();
        assert_eq!(cut.to_guest, []);
        assert!(NicFrames::parse(b"", 1, 7).is_err());
    }

    #[test]
    fn a_pause_is_from_the_old_nics_last_frame_to_the_new_ones_first() {
        let passed = |(number, at_us): &(u32, u64)| Passed {
            number: *number,
            at_us: *at_us,
        };
        let nic = |to_guest: &[(u32, u64)], from_guest: &[(u32, u64)], left_us: &[u64]| NicFrames {
            to_guest: to_guest.iter().map(passed).collect(),
            from_guest: from_guest.iter().map(passed).collect(),
            left_us: left_us.to_vec(),
        };
        // Number 2 was lost.
        let received = [(0, 1100), (1, 1200), (3, 1450), (4, 1500)];
        let received = received.map(|(sequence, at_us)| Received { sequence, at_us });
        let times = GuestTimes {
            probe: 7,
            received: received.to_vec(),
        };
        let old = nic(&[(0, 100), (2, 300)], &[(0, 150), (1, 250)], &[150, 250]);
        // Number 1 came while the NIC was not in use yet; what left it at 20 was before the probe.
        let new = nic(
            &[(1, 200), (3, 450), (4, 500)],
            &[(2, 400)],
            &[20, 350, 400],
        );
        let pause = Pause::between(&old, &new, &times);
        assert_eq!(
            (pause.receive_us, pause.transmit_us),
            (Some(350), Some(100))
        );
        let overlapping = nic(&[(3, 90), (4, 400)], &[(2, 240)], &[240]);
        let pause = Pause::between(&old, &overlapping, &times);
        assert_eq!((pause.receive_us, pause.transmit_us), (Some(400), Some(0)));
        let none = Pause::between(&old, &nic(&[(2, 400)], &[], &[]), &times);
        assert_eq!(none, Pause::default());
    }
}
