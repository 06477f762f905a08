//! The cases, each on a clean kernel.

pub(super) mod addressing;
pub(super) mod bonds;
pub(super) mod refusals;
pub(super) mod traffic;
