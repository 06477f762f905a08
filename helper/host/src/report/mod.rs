//! What people and programs are told of an evacuation.

mod line;
mod outcome;
mod plan;

pub use line::ProgressLine;
pub use outcome::{left, text_of};
pub use plan::plan_text;
