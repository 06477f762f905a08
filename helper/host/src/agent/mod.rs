//! The host's end of a guest's agent channel. The hypervisor listens on a unix socket and takes one
//! client at a time; behind it is a guest that may be slow, silent, half through a message after a
//! migration, or hostile. Every wait and every byte has a bound, and nothing it says is trusted to
//! be true: what the host does is decided by what the hypervisor shows.

mod begun;
mod client;
mod error;
mod line_stream;
mod open;
#[cfg(test)]
mod tests;

pub use crate::words::printable;
pub use client::{Agent, ChannelLimits, Heard};
pub use error::AgentError;
