//! Data only: what the machine learns, what it gives out, and what both are about.

pub(crate) mod action;
pub mod fast_path;
pub(crate) mod input;
pub mod link;
pub(crate) mod output;
pub mod path;
pub mod policy;
pub(crate) mod removal;
pub(crate) mod source;
pub(crate) mod status;
pub mod types;
mod validate;
