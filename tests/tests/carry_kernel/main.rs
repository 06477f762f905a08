//! The kernel's part of a carry on this machine's kernel, in network namespaces of its own: a sender behind a bridge,
//! guests' taps, and the hold in front of them.

#![expect(clippy::unwrap_used, reason = "everything in here is part of a test")]

mod alone;
mod arrival;
mod attached;
mod frames;
mod guest_tap;
mod halves;
mod hold;
mod lapsed;
mod network;
mod peer;
mod queues;
