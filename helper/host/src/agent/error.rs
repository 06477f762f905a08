//! What can go wrong on the way to a guest.

use std::path::PathBuf;
use std::time::Duration;

use tandem_wire::NoCommonProtocol;
use tandem_wire::reply::ErrorBody;

use crate::words::printable;

/// Why a guest could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The socket can't be opened.
    #[error(
        "the channel's socket {} can't be opened: {cause}; does the domain run, and has it a channel named {}?",
        path.display(),
        tandem_wire::PORT_NAME
    )]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// The socket is not the domain's.
    #[error("the channel's socket {} is not used: {reason}", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// Whose it is, and what to do.
        reason: String,
    },
    /// Another program on this host has the channel.
    #[error(
        "another tandem-host has had the channel of domain {domain} for more than {} s; wait for its end",
        limit.as_secs_f32()
    )]
    Leased {
        /// The domain.
        domain: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The guest does not answer. Normal while it is paused.
    #[error(
        "the guest did not answer `{command}` within {} s; is tandem running there (`systemctl status tandem`), \
         and does no other client hold the channel?",
        limit.as_secs_f32()
    )]
    Silent {
        /// What was asked.
        command: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The hypervisor hung up, as when the domain ends.
    #[error("the channel was closed; has the domain stopped or left this host?")]
    Closed,
    /// The guest refused; its own words.
    #[error("the guest refused `{command}`: {}", printable(&refusal.desc))]
    Refused {
        /// What was asked.
        command: &'static str,
        /// The guest's words and code.
        refusal: ErrorBody,
    },
    /// The guest answered something else than was asked for.
    #[error(
        "the guest's answer to `{command}` makes no sense: {}",
        printable(reason)
    )]
    NotUnderstood {
        /// What was asked.
        command: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The guest speaks other messages than this version.
    #[error(transparent)]
    OtherProtocol(#[from] NoCommonProtocol),
    /// The guest sends and sends, and nothing of it is of use.
    #[error(
        "the guest sent more than {bytes} bytes that nobody asked for; something else talks on its channel"
    )]
    Floods {
        /// The bound.
        bytes: usize,
    },
}
