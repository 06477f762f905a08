//! Messages as bytes: a byte that says which, the length of what follows in four bytes, and that; numbers with their
//! highest byte first. What is read was written by another host, and is taken for hostile.

use alloc::vec::Vec;

use crate::frame::{Frame, MAX_FRAME_BYTES};
use crate::message::{CarryCause, Message, Versions};

/// What a stream begins with, within the first [`Message::Hello`].
const MAGIC: [u8; 8] = *b"tdmcarry";
const HEAD_BYTES: usize = 5;
const NUMBER_BYTES: usize = 8;

/// The longest message in bytes: a frame with its number.
pub const MAX_MESSAGE_BYTES: usize = HEAD_BYTES + NUMBER_BYTES + MAX_FRAME_BYTES;

const HELLO: u8 = 1;
const HOLD: u8 = 2;
const FRAME: u8 = 3;
const STOPPED: u8 = 4;
const RESUMED: u8 = 5;
const ACK: u8 = 6;
const SYNC_REQUEST: u8 = 7;
const SYNC: u8 = 8;
const DONE: u8 = 9;
const ABORT: u8 = 10;
const LEFT: u8 = 11;
const HAND_OVER: u8 = 12;

/// Bytes that are no message. Nothing after them can be understood: the stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// No such message in this version.
    #[error("message {kind} of the stream is unknown")]
    Unknown {
        /// Its first byte.
        kind: u8,
    },
    /// A length that this message cannot have.
    #[error("message {kind} of the stream cannot be {bytes} bytes long")]
    Length {
        /// Its first byte.
        kind: u8,
        /// The length that was told.
        bytes: u32,
    },
    /// Not a stream of a carry, or a value that this message cannot have.
    #[error("message {kind} of the stream has a value that it cannot have")]
    Value {
        /// Its first byte.
        kind: u8,
    },
}

impl Message {
    /// Appends the message's bytes, at most [`MAX_MESSAGE_BYTES`].
    pub fn write(&self, to: &mut Vec<u8>) {
        let head = to.len();
        to.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Self::Hello { versions } => {
                to.extend_from_slice(&MAGIC);
                to.extend_from_slice(&versions.min.to_be_bytes());
                to.extend_from_slice(&versions.max.to_be_bytes());
            }
            Self::Frame { number, frame } | Self::Left { number, frame } => {
                to.extend_from_slice(&number.to_be_bytes());
                to.extend_from_slice(frame.bytes());
            }
            Self::Stopped { ours } => to.push(u8::from(*ours)),
            Self::Ack { number } => to.extend_from_slice(&number.to_be_bytes()),
            Self::Sync { last } | Self::Done { last } => to.extend_from_slice(&last.to_be_bytes()),
            Self::Abort { cause } => to.push(cause.byte()),
            Self::Hold | Self::Resumed | Self::SyncRequest | Self::HandOver => {}
        }
        // A message is far shorter than 4 GiB.
        let bytes = u32::try_from(to.len() - head - HEAD_BYTES).unwrap_or(u32::MAX);
        to[head + 1..head + HEAD_BYTES].copy_from_slice(&bytes.to_be_bytes());
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::Hold => HOLD,
            Self::Frame { .. } => FRAME,
            Self::Stopped { .. } => STOPPED,
            Self::Resumed => RESUMED,
            Self::Ack { .. } => ACK,
            Self::SyncRequest => SYNC_REQUEST,
            Self::Sync { .. } => SYNC,
            Self::Done { .. } => DONE,
            Self::Abort { .. } => ABORT,
            Self::Left { .. } => LEFT,
            Self::HandOver => HAND_OVER,
        }
    }

    fn read(kind: u8, body: &[u8]) -> Result<Self, StreamError> {
        let length = || StreamError::Length {
            kind,
            bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        let number = || number_of(body).ok_or_else(length);
        Ok(match (kind, body) {
            (HELLO, rest) => hello(rest).ok_or(StreamError::Value { kind })?,
            (HOLD, []) => Self::Hold,
            (FRAME | LEFT, [number @ .., _]) if number.len() >= NUMBER_BYTES => {
                let (number, bytes) = body.split_at(NUMBER_BYTES);
                let number = number_of(number).ok_or_else(length)?;
                let frame = Frame::new(bytes).ok_or_else(length)?;
                match kind {
                    FRAME => Self::Frame { number, frame },
                    _ => Self::Left { number, frame },
                }
            }
            (STOPPED, [ours @ 0..=1]) => Self::Stopped { ours: *ours == 1 },
            (RESUMED, []) => Self::Resumed,
            (ACK, _) => Self::Ack { number: number()? },
            (SYNC_REQUEST, []) => Self::SyncRequest,
            (HAND_OVER, []) => Self::HandOver,
            (SYNC, _) => Self::Sync { last: number()? },
            (DONE, _) => Self::Done { last: number()? },
            (ABORT, [cause]) => Self::Abort {
                cause: CarryCause::of_byte(*cause),
            },
            (STOPPED, [_]) => return Err(StreamError::Value { kind }),
            _ => return Err(length()),
        })
    }
}

/// Newer versions may append to the first message, which has to be understood before the version is known.
fn hello(body: &[u8]) -> Option<Message> {
    let rest = body.strip_prefix(&MAGIC)?;
    let [a, b, c, d, ..] = *rest else {
        return None;
    };
    let versions = Versions {
        min: u16::from_be_bytes([a, b]),
        max: u16::from_be_bytes([c, d]),
    };
    (versions.min <= versions.max).then_some(Message::Hello { versions })
}

fn number_of(body: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(body.try_into().ok()?))
}

/// The longest that follows a message's head; `None` if there is no such message.
const fn longest_body(kind: u8) -> Option<usize> {
    match kind {
        HELLO => Some(256),
        FRAME | LEFT => Some(NUMBER_BYTES + MAX_FRAME_BYTES),
        HOLD | STOPPED | RESUMED | ACK | SYNC_REQUEST | SYNC | DONE | ABORT | HAND_OVER => {
            Some(NUMBER_BYTES)
        }
        _ => None,
    }
}

impl CarryCause {
    const fn byte(self) -> u8 {
        match self {
            Self::OtherHalf => 0,
            Self::HoldTooLong => 1,
            Self::TooMuch => 2,
            Self::StopRefused => 3,
            Self::MigrationFailed => 4,
            Self::NeverResumed => 5,
            Self::StreamEnded => 6,
            Self::Foreign => 7,
            Self::NoCommonVersion => 8,
            Self::NothingGiven => 9,
        }
    }

    /// A newer half may have a cause that this one does not know.
    const fn of_byte(byte: u8) -> Self {
        match byte {
            1 => Self::HoldTooLong,
            2 => Self::TooMuch,
            3 => Self::StopRefused,
            4 => Self::MigrationFailed,
            5 => Self::NeverResumed,
            6 => Self::StreamEnded,
            7 => Self::Foreign,
            8 => Self::NoCommonVersion,
            9 => Self::NothingGiven,
            _ => Self::OtherHalf,
        }
    }
}

/// Cuts bytes into messages. Holds at most one, so at most [`MAX_MESSAGE_BYTES`].
#[derive(Debug, Default)]
pub struct Decoder {
    held: Vec<u8>,
    broken: Option<StreamError>,
}

impl Decoder {
    /// A decoder for a stream's beginning.
    pub const fn new() -> Self {
        Self {
            held: Vec::new(),
            broken: None,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next message. `None` once all bytes are taken; half
    /// a message is kept for the next call.
    ///
    /// # Errors
    /// At the first bytes that are no message, and ever after; all bytes are taken then.
    pub fn next_message(&mut self, input: &mut &[u8]) -> Result<Option<Message>, StreamError> {
        let result = match self.broken {
            Some(error) => Err(error),
            None => self.read(input),
        };
        if let Err(error) = result {
            self.broken = Some(error);
            self.held = Vec::new();
            *input = &[];
        }
        result
    }

    /// How many bytes of half a message are held.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, StreamError> {
        self.fill(HEAD_BYTES, input);
        let Some(&[kind, a, b, c, d]) = self.held.get(..HEAD_BYTES) else {
            return Ok(None);
        };
        let bytes = u32::from_be_bytes([a, b, c, d]);
        let longest = longest_body(kind).ok_or(StreamError::Unknown { kind })?;
        let body = usize::try_from(bytes).ok().filter(|body| *body <= longest);
        let body = body.ok_or(StreamError::Length { kind, bytes })?;
        self.fill(HEAD_BYTES + body, input);
        if self.held.len() < HEAD_BYTES + body {
            return Ok(None);
        }
        let message = Message::read(kind, &self.held[HEAD_BYTES..])?;
        self.held.clear();
        Ok(Some(message))
    }

    fn fill(&mut self, to_bytes: usize, input: &mut &[u8]) {
        let missing = to_bytes.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.held.extend_from_slice(taken);
        *input = rest;
    }
}
