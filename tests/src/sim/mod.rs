//! Simulation of the pure core: a fake kernel with the bonding driver's rules,
//! observers that lose, repeat and reorder, an executor that fails, and the
//! design's invariants checked after each step. And the stories told with it.
//! The contract suite holds the fake kernel against a real one.

mod born;
pub mod chaos;
pub mod contract;
pub mod fake;
mod kernel;
pub mod oracle;
pub mod real;
pub mod rng;
pub mod stage;
pub mod story;

pub use kernel::Kernel;
pub use stage::{Disorder, Stage};
