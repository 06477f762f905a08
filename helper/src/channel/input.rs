//! What comes over the channel.

use tandem_core::input::{CommandId, Input};
use tandem_core::policy::Policy;

/// What somebody on the channel wants, or what became of the host's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelInput {
    /// For the machine: a command, to be answered with [`super::Channel::reply`], or the
    /// health of the port to the host, told at each change and once at start.
    Input(Input),
    /// The host provides bonds; answer with [`super::Channel::configured`].
    Configure {
        /// Identity of the request.
        id: CommandId,
        /// Its origin is [`tandem_core::policy::Origin::Host`]. Not validated yet.
        policy: Policy,
    },
}
