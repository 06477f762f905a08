//! Probes: what arrives of what was sent, in both directions.

mod analysis;
mod frames;
pub mod proto;
mod stream;

pub use analysis::{Count, Direction, FrameReport};
pub use frames::{FrameOptions, FrameProbe};
pub use stream::{StreamProbe, StreamReports};
