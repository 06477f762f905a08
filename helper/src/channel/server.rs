//! [`Channel`]: all connections as one source of inputs.

use std::io;
use std::path::PathBuf;

use tandem_core::Status;
use tandem_core::input::CommandId;
use tandem_core::status::{Answer, CommandError, Event};
use tandem_wire::reply::{ConfigureError, Configured};

use super::{ChannelInput, ChannelOptions};

/// The socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket could not be made.
    #[error("socket {path}: {problem}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What happened and what to do.
        problem: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// All connections as one source of inputs. See the module's page.
#[derive(Debug)]
pub struct Channel {
    _options: ChannelOptions,
}

impl Channel {
    /// Opens socket and port; call within a tokio runtime. A port that is missing
    /// is no error: the first input says so.
    ///
    /// # Errors
    /// If the socket can't be made, or another instance serves it.
    pub fn open(options: ChannelOptions) -> Result<Self, ChannelError> {
        Ok(Self { _options: options })
    }

    /// The next thing that is wanted. Cancel-safe: nothing is lost if the future
    /// is dropped. Also carries out all reading and writing, so it has to be
    /// awaited again after each call of the other methods.
    pub async fn next(&mut self) -> ChannelInput {
        std::future::pending().await
    }

    /// What `tandem-status` answers from now on. Does nothing if the generation is
    /// the one already published.
    pub fn publish(&mut self, _status: &Status) {}

    /// Answers a [`ChannelInput::Command`]. Ignored if its client has left.
    pub fn reply(&mut self, _id: CommandId, _result: Result<Answer, CommandError>) {}

    /// Answers a [`ChannelInput::Configure`]. Ignored if its client has left.
    pub fn configured(&mut self, _id: CommandId, _result: Result<Configured, ConfigureError>) {}

    /// Sends an event to all who subscribed.
    pub fn notify(&mut self, _event: &Event) {}

    /// Looks for the port again, if it is not open: a virtio port has appeared.
    pub fn reopen_port(&mut self) {}
}
