//! What both sides of a probe agree on: its description, its datagrams, its log.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One side of a frame probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSpec {
    /// Names the probe: both sides have the same number, and strangers' datagrams another.
    pub probe: u32,
    /// The address this side sends from and receives at.
    pub local: SocketAddr,
    /// The other side's address.
    pub remote: SocketAddr,
    /// Datagrams a second.
    pub rate_hz: u32,
    /// Size of a datagram's payload, in bytes; at least [`DATAGRAM_BYTES`].
    pub payload_bytes: u16,
}

/// One end of a stream probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSpec {
    /// Names the probe.
    pub probe: u32,
    /// Listens at, or connects to, this address.
    pub role: StreamRole,
    /// Time between two records, in ms.
    pub interval_ms: u32,
}

/// Which end of a stream probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamRole {
    /// Waits for the other end at this address.
    Listen(SocketAddr),
    /// Connects to the other end at this address.
    Connect(SocketAddr),
}

/// How a stream probe fares, as one end sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Whether the connection was made.
    pub connected: bool,
    /// Why it is over; nothing while it lives.
    pub broken: Option<String>,
    /// Records sent.
    pub sent: u64,
    /// Records received, each the one after the last.
    pub received: u64,
    /// The longest time between two received records, in ms.
    pub longest_stall_ms: u64,
    /// The time since the last received record, in ms.
    pub silent_ms: u64,
}

/// Size of what a datagram says, in bytes; padding may follow.
pub const DATAGRAM_BYTES: usize = 16;
const MAGIC: u32 = 0x7461_6e64;

/// What a datagram of a frame probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram {
    /// Sent before counting begins.
    Hello {
        /// Whether the sender has heard the other side.
        heard: bool,
    },
    /// A counted frame.
    Numbered {
        /// Its number, from 0.
        sequence: u32,
    },
}

impl Datagram {
    /// Writes it to the head of `buffer`.
    pub fn encode(self, probe: u32, buffer: &mut [u8; DATAGRAM_BYTES]) {
        let (kind, value) = match self {
            Self::Hello { heard } => (0_u32, u32::from(heard)),
            Self::Numbered { sequence } => (1, sequence),
        };
        for (place, word) in buffer.chunks_exact_mut(4).zip([MAGIC, probe, kind, value]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads one of this probe's datagrams; nothing if it is something else.
    pub fn decode(probe: u32, bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            let bytes = bytes.get(index * 4..index * 4 + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        if word(0)? != MAGIC || word(1)? != probe {
            return None;
        }
        match word(2)? {
            0 => Some(Self::Hello {
                heard: word(3)? != 0,
            }),
            1 => Some(Self::Numbered { sequence: word(3)? }),
            _ => None,
        }
    }
}

/// What one side of a frame probe sent and received. Times are of that side's monotonic clock, in µs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SideLog {
    /// When each number was sent, in order from 0.
    pub sent: Vec<Sent>,
    /// What arrived, in order of arrival.
    pub received: Vec<Received>,
}

/// A frame that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// When, in µs.
    pub at_us: u64,
    /// Whether the kernel took it.
    pub accepted: bool,
}

/// A frame that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub sequence: u32,
    /// When, in µs.
    pub at_us: u64,
}

const REFUSED_BIT: u64 = 1 << 63;

impl SideLog {
    /// The log as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.sent.len() * 8 + self.received.len() * 12);
        bytes.extend((self.sent.len() as u64).to_le_bytes());
        for sent in &self.sent {
            let refused = if sent.accepted { 0 } else { REFUSED_BIT };
            bytes.extend((sent.at_us | refused).to_le_bytes());
        }
        for received in &self.received {
            bytes.extend(received.sequence.to_le_bytes());
            bytes.extend(received.at_us.to_le_bytes());
        }
        bytes
    }

    /// The log that the bytes hold; nothing if they are cut short.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<8>()?;
        let split = usize::try_from(u64::from_le_bytes(*count))
            .ok()?
            .checked_mul(8)?;
        let (sent, received) = rest.split_at_checked(split)?;
        if received.len() % 12 != 0 {
            return None;
        }
        let long = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
        let sent = sent.chunks_exact(8).map(|bytes| {
            let word = long(bytes)?;
            Some(Sent {
                at_us: word & !REFUSED_BIT,
                accepted: word & REFUSED_BIT == 0,
            })
        });
        let received = received.chunks_exact(12).map(|bytes| {
            let sequence = u32::from_le_bytes(bytes[..4].try_into().ok()?);
            Some(Received {
                sequence,
                at_us: long(&bytes[4..])?,
            })
        });
        Some(Self {
            sent: sent.collect::<Option<_>>()?,
            received: received.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_and_logs_survive_the_trip() {
        for datagram in [
            Datagram::Hello { heard: true },
            Datagram::Numbered { sequence: 70_000 },
        ] {
            let mut buffer = [0; DATAGRAM_BYTES];
            datagram.encode(9, &mut buffer);
            assert_eq!(Datagram::decode(9, &buffer), Some(datagram));
            assert_eq!(Datagram::decode(8, &buffer), None);
            assert_eq!(Datagram::decode(9, &buffer[..15]), None);
        }
        let log = SideLog {
            sent: vec![
                Sent {
                    at_us: 5,
                    accepted: true,
                },
                Sent {
                    at_us: 9,
                    accepted: false,
                },
            ],
            received: vec![Received {
                sequence: 1,
                at_us: 7,
            }],
        };
        let bytes = log.encode();
        assert_eq!(SideLog::decode(&bytes), Some(log));
        assert_eq!(SideLog::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(SideLog::decode(&[0xff; 8]), None);
    }
}
