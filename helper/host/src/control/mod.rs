//! The control socket of `tandem-host serve`: one line of JSON asks, lines of JSON answer.
//!
//! A channel takes one client at a time, and `serve` holds those of all guests. Whoever else wants
//! one asks for a lease first: `serve` hangs up, and leaves the guest alone for as long as the
//! connection that asked stays open, so that a tool that was killed gives it back.

mod carry;
mod client;
mod lease;
mod message;
mod tell;

use std::path::PathBuf;

use crate::files::default_folder;

pub use carry::{CarryEnd, CarryFigures};
pub use client::{ControlError, Watching};
pub use lease::LeaseClient;
pub use message::{ControlReply, ControlRequest, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, Shown};
pub use tell::tell_carry;

/// Where `serve` listens, unless told otherwise.
pub fn default_socket() -> PathBuf {
    default_folder().join("serve.sock")
}
