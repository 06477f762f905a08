//! Why an action fails, and what the machine is told then.

use std::io;

use tandem_core::input::Outcome;

use crate::netlink::request::{RequestError, io_reason};

/// Why an action failed. The text is a reason only: the machine says before it which action failed on which
/// device, and after it the error number.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// A device it was meant for is not there.
    #[error("the device is gone")]
    Gone,
    /// The action's own request failed.
    #[error("{}", _0.reason())]
    Request(#[from] RequestError),
    /// A step on the way failed.
    #[error("cannot {step}: {}", error.reason())]
    Step {
        /// What was being done.
        step: String,
        /// Why it failed.
        error: RequestError,
    },
    /// It can't be done as things are.
    #[error("{message}")]
    Refused {
        /// The error number that fits.
        errno: i32,
        /// What is in the way.
        message: String,
    },
    /// A packet could not be sent.
    #[error("cannot {step}: {}", io_reason(error))]
    Send {
        /// What was being done.
        step: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl ActError {
    /// For `map_err`: names the step that failed.
    pub(super) fn at(step: impl Into<String>) -> impl FnOnce(RequestError) -> Self {
        move |error| Self::Step {
            step: step.into(),
            error,
        }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        let errno = match &self {
            Self::Gone => return Outcome::Gone,
            Self::Request(RequestError::TimedOut)
            | Self::Step {
                error: RequestError::TimedOut,
                ..
            } => return Outcome::TimedOut,
            Self::Request(error) | Self::Step { error, .. } => error.errno(),
            Self::Refused { errno, .. } => *errno,
            Self::Send { error, .. } => error.raw_os_error().unwrap_or(0),
        };
        Outcome::Failed {
            errno,
            message: self.to_string(),
        }
    }
}
