//! Probes: what arrives of what was sent, in both directions.

mod analysis;
mod frames;
mod nics;
mod pair;
pub mod proto;
mod stream;

pub use analysis::{Count, Direction, FrameReport, GuestTimes, Loss};
pub use frames::{FrameOptions, FrameProbe};
pub(crate) use nics::RECORDED_BYTES;
pub use nics::{NicFrames, NicRecord, Pause};
pub use pair::ProbePair;
pub use stream::{StreamProbe, StreamReports};
