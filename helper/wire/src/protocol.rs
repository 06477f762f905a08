//! Version, name and bounds of the channel.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Versions of the messages that this program speaks. The highest grows when a program that knows only
/// the former one would misread the new one, as it would if a default of the policy changed: keys that have
/// it are not written. New commands, keys, words and events don't count.
pub const PROTOCOLS: Protocols = Protocols { min: 1, max: 1 };

/// The version that is spoken until both sides have agreed on a higher one: the lowest.
pub const PROTOCOL: u32 = PROTOCOLS.min;

/// What a guest of this version can do that an earlier one of the same messages may not, by name.
pub const FEATURES: [&str; 1] = [
    // Keys of `tandem-configure` and of a request that it does not know are passed over and named in the answer.
    "names-ignored-keys",
];

/// A range of versions of the messages, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Protocols {
    /// The lowest.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { min, max } if min == max => write!(f, "{min}"),
            Self { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

/// Guest and host share no version of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the guest speaks version {guest} of the messages, the host {host}: update {}",
    if guest.max < host.min { "tandem in the guest" } else { "tandem-host on the host" }
)]
pub struct NoCommonProtocol {
    /// What the guest speaks.
    pub guest: Protocols,
    /// What the host speaks.
    pub host: Protocols,
}

/// The highest version that both speak.
///
/// # Errors
/// If there is none.
pub fn agree(guest: Protocols, host: Protocols) -> Result<u32, NoCommonProtocol> {
    let highest = guest.max.min(host.max);
    let lowest = guest.min.max(host.min);
    (lowest <= highest)
        .then_some(highest)
        .ok_or(NoCommonProtocol { guest, host })
}

/// Name of the virtio-serial port.
pub const PORT_NAME: &str = "org.tandem.agent.0";

/// Longest line in bytes, without its end, that the guest takes from the host.
/// A policy of 32 bonds with a dozen VFs and addresses each fits in.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Longest line in bytes, without its end, that the host takes from a guest.
/// A status of 32 bonds with all the switchovers that are remembered fits in.
pub const MAX_REPLY_BYTES: usize = 512 * 1024;
