//! The kernel's part of a carry, for one tap: programs in front of the tap's queue that hold what is for the guest, a tap
//! of its own to hold it in, and a packet socket that gives it back behind the programs.
//!
//! Where the guest's process can be asked for its descriptors of the tap, copies of them give what it has left in the tap's
//! queue when it stands still.
//!
//! Neither touches a queueing discipline of the guest's tap: to change one loses frames, as it is taken off the device
//! for a moment. All of it belongs to file descriptors of this process and goes with it, so that the tap is open then.
//! Takes `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_BPF`, and Linux 6.6 for tcx links.

mod arrival;
mod copy;
mod error;
mod guarded;
mod half;
mod hold;
mod hold_tap;
mod inject;
mod offloads;
mod stream_io;
mod sys;
mod tap_queue;

pub use arrival::{Closed, NotClosed};
pub use copy::TapCopy;
pub use error::KernelError;
pub use guarded::Guarded;
pub use half::{DestinationHalf, DrainEnd, Order, SourceHalf, Wait};
pub use hold::{Hold, LEASE_MS, Mode};
pub use hold_tap::HoldTap;
pub use inject::{Injected, Injector};
pub use stream_io::StreamIo;
