//! Probes: what arrives of what was sent, in both directions.

mod analysis;
pub mod capture;
mod frames;
mod pair;
pub mod proto;
mod stream;

pub use analysis::{Count, Direction, FrameReport, Loss};
pub use capture::{Capture, Pause, Pauses};
pub use frames::{FrameOptions, FrameProbe};
pub use pair::ProbePair;
pub use stream::{StreamProbe, StreamReports};
