//! The picture of the guest that all inputs together draw.

pub(crate) mod identity;
pub(crate) mod matching;
pub(crate) mod picture;
pub(crate) mod readings;

pub(crate) use picture::{FastPathSupport, Warning, World};
