//! Decisions of Tandem: which port of a bond carries the traffic, and what has
//! to be done next.
//!
//! Pure by construction: `no_std`, no I/O, no clock. Data flows one way:
//!
//! ```text
//! Input -> World -> plan(World, Policy) -> Action
//!            |                               |
//!          Status                  Input::Done { action, outcome }
//! ```
//!
//! [`Machine::handle`], [`Machine::next_action`], [`Machine::next_deadline`] and
//! [`Machine::status`] are the whole interface. Events only update the world;
//! the plan is computed anew from it each time, so a lost, repeated or reordered
//! event costs time and never correctness.
#![no_std]
extern crate alloc;

pub mod action;
mod backoff;
mod commands;
mod effect;
pub mod fast_path;
mod goal;
pub mod input;
pub mod link;
mod machine;
mod matching;
mod memory;
mod news;
mod observe;
mod outbox;
mod plan;
pub mod policy;
mod problems;
mod refusal;
pub mod status;
mod status_view;
#[cfg(test)]
mod tests;
pub mod types;
mod validate;
mod view;
mod world;

pub use action::{Action, ActionId, ActionKind};
pub use input::Input;
pub use link::Link;
pub use machine::{MAX_OPEN_COMMANDS, Machine};
pub use matching::{Role, role_of};
pub use policy::Policy;
pub use status::Status;
pub use types::{IfName, Ifindex, Mac, PciAddress, Time};
