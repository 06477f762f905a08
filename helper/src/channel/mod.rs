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
mod outgoing;
mod peer;
mod server;
mod session;
mod unix;
mod virtio;

use std::path::PathBuf;

use tandem_core::Policy;
use tandem_core::input::{Command, CommandId};
use tandem_core::status::{CheckItem, SourceHealth};

pub use crate::runtime::SOCKET_PATH;
pub use server::{Channel, ChannelError, MAX_CLIENTS};
pub use tandem_wire::PORT_NAME;
pub use unix::connect;

/// Where the channel listens.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// Path of the unix socket for the local command line; `None` for no socket.
    pub socket: Option<PathBuf>,
    /// Name of the virtio-serial port; `None` for no port.
    pub port: Option<String>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            socket: Some(PathBuf::from(SOCKET_PATH)),
            port: Some(PORT_NAME.to_owned()),
        }
    }
}

/// What somebody on the channel wants, or what became of the host's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelInput {
    /// For the machine; answer with [`Channel::reply`].
    Command(Command),
    /// The host provides bonds; answer with [`Channel::configured`].
    Configure {
        /// Identity of the request.
        id: CommandId,
        /// Its origin is [`tandem_core::policy::Origin::Host`]. Not validated yet.
        policy: Policy,
    },
    /// The port to the host is in another state than before; also once at start.
    Health {
        /// Missing if there is no port; [`Channel::ports_changed`] tries again.
        health: SourceHealth,
        /// The port, with who has it open.
        parts: Vec<CheckItem>,
    },
}
