//! What has to be remembered of a bond because the world doesn't show it.

pub(crate) mod attempts;
mod measure;
pub(crate) mod network;
pub(crate) mod path;
pub(crate) mod traffic;
pub(crate) mod vfs;
