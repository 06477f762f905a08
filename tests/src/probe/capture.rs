//! What a packet socket in the guest saw of the frames on its ports, and how long a switchover from one port to
//! another was without frames by that: the measure that Tandem's own count is held against.
//!
//! A frame that arrives is seen before any tc program of the port, one that leaves after all of them and after the
//! port's queue (`__netif_receive_skb_core`, `__dev_queue_xmit` and `xmit_one`, net/core/dev.c, 6.12). So what a
//! program redirects is seen on the port that it arrived at, and on the port that it leaves by. A frame that
//! arrives is stamped when the stack comes to it: the capture in the guest sees to that.

use serde::{Deserialize, Serialize};

use super::proto::Datagram;

/// Enough of a frame for its number, in bytes.
pub const CAPTURED_BYTES: usize = 96;
/// Frames noted at most: minutes of a switchover at 1000 a second and with a TCP connection beside it.
pub const CAPTURE_LIMIT: usize = 1 << 20;

const ETHERNET_HEAD: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_UDP: u8 = 17;
const UDP_HEAD: usize = 8;

/// What to capture: every unicast frame of every interface but one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSpec {
    /// The frame probe whose frames are told from others.
    pub probe: u32,
    /// Ifindex of the bond, which sees each frame of its ports once more.
    pub bond: u32,
}

/// A unicast frame that passed a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured {
    /// When, by the guest's clock, in µs.
    pub at_us: u64,
    /// The port's ifindex.
    pub port: u32,
    /// Whether it left the guest.
    pub outgoing: bool,
    /// Its number, if it is the probe's.
    pub number: Option<u32>,
}

/// All that was captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// The frames, in the order in which the socket had them.
    pub frames: Vec<Captured>,
    /// Frames that found no room.
    pub missed: u64,
}

/// How long a switchover was without frames, in µs: from the last frame on the old port to the first on the new one;
/// 0 if they overlapped, nothing if either had none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pause {
    /// Of what the guest received.
    pub receive_us: Option<u64>,
    /// Of what it sent.
    pub transmit_us: Option<u64>,
}

/// The pauses of one switchover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Of all unicast frames: what Tandem reports, by its own definition.
    pub all: Pause,
    /// Of the probe's frames alone: longer, as other frames pass between them.
    pub probe: Pause,
}

/// The number of a frame, if it is the probe's.
pub fn number_of(frame: &[u8], probe: u32) -> Option<u32> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEAD)?;
    if !ethernet.ends_with(&ETHERTYPE_IPV4) || packet.get(9) != Some(&PROTOCOL_UDP) {
        return None;
    }
    let words = usize::from(packet.first()? & 0x0f);
    match Datagram::decode(probe, packet.get(words * 4 + UDP_HEAD..)?)? {
        Datagram::Numbered { sequence } => Some(sequence),
        Datagram::Hello { .. } => None,
    }
}

const RECORD_BYTES: usize = 17;
const OUTGOING_BIT: u8 = 1;
const NUMBERED_BIT: u8 = 2;

impl Captured {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let outgoing = if self.outgoing { OUTGOING_BIT } else { 0 };
        let numbered = self.number.map_or(0, |_| NUMBERED_BIT);
        bytes.extend(self.at_us.to_le_bytes());
        bytes.extend(self.port.to_le_bytes());
        bytes.extend(self.number.unwrap_or(0).to_le_bytes());
        bytes.push(outgoing | numbered);
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (at_us, rest) = bytes.split_first_chunk::<8>()?;
        let (port, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let flags = *rest.first()?;
        let number = u32::from_le_bytes(*number);
        Some(Self {
            at_us: u64::from_le_bytes(*at_us),
            port: u32::from_le_bytes(*port),
            outgoing: flags & OUTGOING_BIT != 0,
            number: (flags & NUMBERED_BIT != 0).then_some(number),
        })
    }
}

impl Capture {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.frames.len() * RECORD_BYTES);
        bytes.extend(self.missed.to_le_bytes());
        for frame in &self.frames {
            frame.encode(&mut bytes);
        }
        bytes
    }

    /// The capture that the bytes hold; nothing if they are cut short.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (missed, rest) = bytes.split_first_chunk::<8>()?;
        let records = rest.chunks(RECORD_BYTES);
        let frames = records.map(|record| Captured::decode(record.first_chunk()?));
        Some(Self {
            frames: frames.collect::<Option<_>>()?,
            missed: u64::from_le_bytes(*missed),
        })
    }

    /// The pauses of the switchover from one port to another.
    pub fn pauses(&self, old: u32, new: u32) -> Pauses {
        let of = |counts: fn(&Captured) -> bool| Pause {
            receive_us: self.pause(old, new, |frame| !frame.outgoing && counts(frame)),
            transmit_us: self.pause(old, new, |frame| frame.outgoing && counts(frame)),
        };
        Pauses {
            all: of(|_| true),
            probe: of(|frame| frame.number.is_some()),
        }
    }

    fn pause(&self, old: u32, new: u32, counts: impl Fn(&Captured) -> bool) -> Option<u64> {
        let times = |port| {
            let frames = self.frames.iter().filter(|frame| counts(frame));
            let frames = frames.filter(move |frame| frame.port == port);
            frames.map(|frame| frame.at_us)
        };
        Some(times(new).min()?.saturating_sub(times(old).max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::DATAGRAM_BYTES;
    use super::*;

    const OLD: u32 = 3;
    const NEW: u32 = 2;

    fn frame(protocol: u8, datagram: Datagram) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4);
        frame.push(0x45);
        frame.extend([0; 8]);
        frame.push(protocol);
        frame.extend([0; 2 + 4 + 4 + UDP_HEAD]);
        let mut head = [0; DATAGRAM_BYTES];
        datagram.encode(7, &mut head);
        frame.extend(head);
        frame
    }

    #[test]
    fn the_probes_frames_are_told_by_their_numbers() {
        let numbered = frame(PROTOCOL_UDP, Datagram::Numbered { sequence: 70_000 });
        assert_eq!(number_of(&numbered, 7), Some(70_000));
        assert!(numbered.len() <= CAPTURED_BYTES);
        assert_eq!(number_of(&numbered, 8), None);
        assert_eq!(number_of(&numbered[..numbered.len() - 1], 7), None);
        assert_eq!(number_of(&numbered[..10], 7), None);
        let tcp = frame(6, Datagram::Numbered { sequence: 3 });
        assert_eq!(number_of(&tcp, 7), None);
        let hello = frame(PROTOCOL_UDP, Datagram::Hello { heard: true });
        assert_eq!(number_of(&hello, 7), None);
    }

    fn received(port: u32, at_us: u64, number: Option<u32>) -> Captured {
        Captured {
            at_us,
            port,
            outgoing: false,
            number,
        }
    }

    fn sent(port: u32, at_us: u64, number: Option<u32>) -> Captured {
        Captured {
            outgoing: true,
            ..received(port, at_us, number)
        }
    }

    #[test]
    fn a_capture_survives_the_trip() {
        let capture = Capture {
            frames: vec![received(2, 1 << 50, None), sent(3, 9, Some(u32::MAX))],
            missed: 4,
        };
        let bytes = capture.encode();
        assert_eq!(Capture::decode(&bytes), Some(capture));
        assert_eq!(Capture::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Capture::decode(&[0; 7]), None);
    }

    #[test]
    fn a_pause_is_from_the_old_ports_last_frame_to_the_new_ones_first() {
        let capture = Capture {
            frames: vec![
                received(OLD, 100, Some(0)),
                sent(OLD, 150, Some(0)),
                received(OLD, 200, None),
                sent(NEW, 300, None),
                received(9, 350, Some(1)),
                // Late on the old port.
                received(OLD, 400, None),
                received(NEW, 900, None),
                received(NEW, 1_000, Some(2)),
                sent(NEW, 1_100, Some(1)),
            ],
            missed: 0,
        };
        let pauses = capture.pauses(OLD, NEW);
        let pause = |receive_us, transmit_us| Pause {
            receive_us: Some(receive_us),
            transmit_us: Some(transmit_us),
        };
        assert_eq!(pauses.all, pause(500, 150));
        assert_eq!(pauses.probe, pause(900, 950));
        assert_eq!(
            capture.pauses(NEW, OLD).all,
            pause(0, 0),
            "ports that overlap leave no pause"
        );
        assert_eq!(capture.pauses(OLD, 7), Pauses::default());
    }
}
