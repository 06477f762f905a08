//! The agent channel's bytes: framing and messages, for the guest and for the host.
//!
//! Pure by construction: `no_std`, no I/O, no clock. Bytes go in, frames and
//! messages come out, and the other way round. Both sides take what they read
//! for hostile: every line, identity and list has a bound.
//!
//! The dialect is the QEMU guest agent's (QEMU, `docs/interop/qemu-ga-ref`): one
//! JSON object a line, byte 0xFF to resynchronise, and pushed events as in QMP.
//!
//! ```text
//! host -> guest   {"execute": "tandem-status", "id": 1}
//! guest -> host   {"return": {...}, "id": 1}
//!                 {"error": {"class": "GenericError", "desc": "..."}, "id": 1}
//!                 {"event": "switched-over", "timestamp": {...}, "data": {...}}
//! ```
#![no_std]
extern crate alloc;

pub mod event;
pub mod framing;
pub mod from_guest;
pub mod message;
pub mod reply;
#[cfg(feature = "schema")]
pub mod schema;

pub use event::{EventMessage, Pushed, Timestamp};
pub use framing::{Decoder, FrameError, SENTINEL};
pub use from_guest::{FromGuest, ReplyError};
pub use message::{Call, CallError, Id, RequestLine};
pub use reply::ErrorBody;

/// Version of the messages. Grows when a program that knows the former version
/// would misread the new one; new commands, keys and events don't count.
pub const PROTOCOL: u32 = 1;

/// Name of the virtio-serial port.
pub const PORT_NAME: &str = "org.tandem.agent.0";

/// Longest line in bytes, without its end, that the guest takes from the host.
/// A policy of 32 bonds with a dozen VFs and addresses each fits in.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Longest line in bytes, without its end, that the host takes from a guest.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;
