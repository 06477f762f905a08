//! What the kernel refused.

use std::io;

/// A part that a carry needs and did not get. The guest's tap is as without it then.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A call of the kernel.
    #[error("{what} of {device} failed: {error}")]
    Call {
        /// What was asked.
        what: &'static str,
        /// Of which network device.
        device: String,
        /// Why not.
        error: io::Error,
    },
    /// A copy of the descriptors that a tap is read by.
    #[error("tap {device} can't be read in the guest's place: {reason}")]
    Copy {
        /// Which tap.
        device: String,
        /// Why not.
        reason: String,
    },
    /// The programs' object, or one of its parts.
    #[error("the carry's programs cannot be loaded: {0}")]
    Object(String),
    /// A program on the device.
    #[error("the carry's program {program} cannot be attached to {device}: {reason}")]
    Attach {
        /// Which program.
        program: &'static str,
        /// To which network device.
        device: String,
        /// Why not.
        reason: String,
    },
}

impl KernelError {
    /// For use with `map_err`.
    pub(crate) fn call(what: &'static str, device: &str) -> impl FnOnce(io::Error) -> Self {
        let device = device.to_owned();
        move |error| Self::Call {
            what,
            device,
            error,
        }
    }
}
