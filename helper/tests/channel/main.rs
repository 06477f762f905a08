//! The channel over its unix socket: commands, hostile peers, slow peers, limits.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod commands;
mod harness;
mod hostile;
mod limits;
mod socket;
mod versions;
