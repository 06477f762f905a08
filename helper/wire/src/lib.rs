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
mod protocol;
pub mod reply;
#[cfg(feature = "schema")]
pub mod schema;
pub mod words;

pub use event::{EventMessage, Pushed, Timestamp};
pub use framing::{Decoder, FrameError, SENTINEL};
pub use from_guest::{FromGuest, ReplyError};
pub use message::{Call, CallError, Id, RequestLine};
pub use protocol::{
    FEATURES, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, NoCommonProtocol, PORT_NAME, PROTOCOL, PROTOCOLS,
    Protocols, agree,
};
pub use reply::ErrorBody;
