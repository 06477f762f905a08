//! The agent channel to the host and the local socket.
//!
//! One [`Channel`] serves the virtio-serial port and every client of the unix
//! socket with the same bytes. It never blocks and never wakes the service
//! without cause: a peer that doesn't read is no longer read from, its events are
//! dropped and counted, and everything kept for it has a bound.
//!
//! ```text
//! virtio.rs  unix.rs    transports: bytes, no waiting
//!       \     /
//!       peer.rs         one connection's turn: read once, serve, write
//!      /       \
//! session.rs  dispatcher.rs   lines -> calls, open commands, outgoing.rs | answers, inputs
//!          |
//!      server.rs        Channel: what the service sees
//! ```

mod dispatcher;
#[cfg(fuzzing)]
pub mod fuzzing;
mod input;
mod outgoing;
mod peer;
mod server;
mod session;
mod unix;
mod virtio;

pub use crate::runtime::SOCKET_PATH;
pub use input::ChannelInput;
pub use server::{Channel, ChannelOptions, MAX_CLIENTS};
pub use tandem_wire::PORT_NAME;
pub use unix::{ChannelError, connect};
