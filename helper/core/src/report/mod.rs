//! What is so and why, for people and programs.

pub(crate) mod bond;
mod errno;
pub(crate) mod network;
pub(crate) mod news;
pub(crate) mod problems;
pub(crate) mod refusal;
