//! The carry: frames for a guest that migrates are held and carried after it, so that they come late instead of
//! never. This package decides, and has the bytes of the stream between the two halves.
//!
//! Pure by construction: `no_std`, no I/O, no clock. Inputs go in with the moment they were learnt, actions and
//! messages come out:
//!
//! ```text
//! frame        a frame as a tap gives it, and the bounds of all that is kept
//! message      what the halves say to each other
//! stream       that as bytes, and back
//! twins        which native frame is the copy of a carried one
//! queue        frames that wait, within their bounds
//! total        what was lost between the halves
//! source       the half on the host that the guest leaves
//! destination  the half on the host that it goes to
//! ```
//!
//! The order of things: the source holds shortly *before* the guest's stop, as the guest's process may take a frame from its
//! tap's queue after that; it has the guest stopped, sweeps what is in that queue, whoever stopped it, and sends that and then
//! what it holds to the destination. The destination lets nothing
//! through to its tap until the guest runs there; then come the carried frames, then what the network brought by
//! itself, then the tap is open. What the network still brings to the source follows until it is quiet there.
//!
//! Whatever fails, both taps end up open, as in a plain migration: a half that gives up gives back what it holds, and
//! what holds frames in the kernel is owned by the half's process.
#![no_std]
extern crate alloc;

pub mod destination;
mod frame;
mod limits;
mod message;
mod queue;
pub mod source;
mod stream;
mod total;
mod twins;

pub use destination::Destination;
pub use frame::{Frame, HEADER_BYTES, MAX_FRAME_BYTES, MIN_FRAME_BYTES, Mac};
pub use limits::{ANSWER_MS, Limits, MAX_OWN_MACS};
pub use message::{CarryCause, Message, NoCommonVersion, VERSIONS, Versions, agree};
pub use source::Source;
pub use stream::{Decoder, MAX_MESSAGE_BYTES, StreamError};
pub use total::{Received, Sent, lost_between};
