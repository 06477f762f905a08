//! The kernel's part of a carry on this machine's kernel, in network namespaces of its own: a sender behind a bridge,
//! guests' taps, and the hold in front of them.

mod halves;
mod hold;
mod network;
