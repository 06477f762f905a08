//! Decisions of Tandem: which port of a bond carries the traffic, and what has
//! to be done next.
//!
//! Pure by construction: `no_std`, no I/O, no clock. Data flows one way, and so do the folders, each of
//! which imports only those before it:
//!
//! ```text
//! model     data only: inputs, policy, outputs, status
//! world     the picture of the guest that all inputs draw
//! bond      one bond: its facts, its history, its commands, and the one choice of who carries the traffic
//! plan      what is to be done about that choice, and whether it was
//! report    what is so and why: status, problems, news
//! machine   one turn through all of them for each input
//! ```
//!
//! [`Machine::handle`], [`Machine::next_output`], [`Machine::next_deadline`] and
//! [`Machine::status`] are the whole interface. Events only update the world;
//! the plan is computed anew from it each time, so a lost, repeated or reordered
//! event costs time and never correctness.
#![no_std]
extern crate alloc;

mod backoff;
mod bond;
mod machine;
mod model;
mod outbox;
mod plan;
mod report;
mod step;
#[cfg(test)]
mod tests;
pub mod words;
mod world;

/// Everything that the machine may want done.
pub mod action {
    pub use crate::model::action::{Action, ActionKind, Asking, BondOptions, GoOn, PathProof};
    pub use crate::model::types::ActionId;
}

/// Everything that the machine may learn.
pub mod input {
    pub use crate::model::input::{Command, Hold, Input, Outcome, PreparedVf, Request};
    pub use crate::model::removal::{Removal, RemovalStage};
    pub use crate::model::source::Source;
    pub use crate::model::types::CommandId;
}

/// What is so and why, and what of it is told and answered.
pub mod status {
    pub use crate::model::output::{Answer, CommandError, CommandErrorCode, Event};
    pub use crate::model::source::{CheckItem, SourceHealth, SourceStatus};
    pub use crate::model::status::{
        BondState, BondStatus, Gap, Held, PortStatus, Problem, ProblemCode, Status, Switchover,
        SwitchoverCause, Traffic, Unproved,
    };
}

pub use machine::{MAX_OPEN_COMMANDS, Machine};
pub use model::{fast_path, link, path, policy, types};
pub use world::matching::{Role, role_of};

pub use action::{Action, ActionId, ActionKind};
pub use input::Input;
pub use link::Link;
pub use model::output::Output;
pub use policy::Policy;
pub use status::Status;
pub use types::{IfName, Ifindex, Mac, PciAddress, Time};
