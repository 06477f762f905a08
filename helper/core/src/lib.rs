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
pub mod input;
pub mod link;
pub mod policy;
pub mod status;
pub mod types;

pub use action::{Action, ActionId, ActionKind};
pub use input::Input;
pub use link::Link;
pub use policy::Policy;
pub use status::Status;
pub use types::{IfName, Ifindex, Mac, PciAddress, Time};
