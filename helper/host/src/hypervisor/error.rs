//! What can go wrong at a hypervisor.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// The answer to one question or request; ends within the driver's own time limit.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, HostError>> + Send + 'a>>;

/// Why a hypervisor did not do, or answer, what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The hypervisor can't be asked at all; whether it acted is unknown.
    #[error("{host} can't be reached: {reason}; check that it runs and that you may use it")]
    Unreachable {
        /// The connection.
        host: String,
        /// The hypervisor's or system's words.
        reason: String,
    },
    /// There is no such domain.
    #[error("domain {domain} does not exist on {host}; `virsh list --all` shows those that do")]
    NoSuchDomain {
        /// The connection.
        host: String,
        /// The domain.
        domain: String,
    },
    /// What should be removed, detached or cancelled is not there.
    #[error("{what} of domain {domain} is not there any more; nothing was done")]
    AlreadyGone {
        /// The domain.
        domain: String,
        /// The device or job.
        what: String,
    },
    /// What should be attached is there already.
    #[error("{what} is in domain {domain} already; nothing was done")]
    AlreadyThere {
        /// The domain.
        domain: String,
        /// The device.
        what: String,
    },
    /// The guest said no to an unplug.
    #[error(
        "the guest of domain {domain} refuses to release {device}: {reason}; look at the guest's kernel log"
    )]
    UnplugRefused {
        /// The domain.
        domain: String,
        /// The device.
        device: String,
        /// The hypervisor's words.
        reason: String,
    },
    /// The migration ended without success. Where the domain runs is seen by looking.
    #[error("the migration of domain {domain} failed: {reason}")]
    MigrationFailed {
        /// The domain.
        domain: String,
        /// The hypervisor's words.
        reason: String,
    },
    /// The migration was cancelled.
    #[error("the migration of domain {domain} was cancelled")]
    Cancelled {
        /// The domain.
        domain: String,
    },
    /// No answer in time; whether the hypervisor acted is unknown.
    #[error("{host} did not answer `{what}` within {} s; it may still act on it", limit.as_secs_f32())]
    TimedOut {
        /// The connection.
        host: String,
        /// What was asked.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The hypervisor refused; nothing was changed.
    #[error("{host} refused `{what}`: {reason}")]
    Refused {
        /// The connection.
        host: String,
        /// What was asked.
        what: String,
        /// The hypervisor's words.
        reason: String,
    },
    /// The bonds or the progress in the domain's XML can't be understood.
    #[error("the XML of domain {domain}: {reason}")]
    InvalidXml {
        /// The domain.
        domain: String,
        /// What is wrong, with line and element.
        reason: String,
    },
    /// The hypervisor said something that this version can't make sense of.
    #[error("{host}: `{what}`: {reason}")]
    Other {
        /// The connection.
        host: String,
        /// What was asked.
        what: String,
        /// What happened.
        reason: String,
    },
}
