//! Decides how an evacuation goes on: no I/O, no clock, no threads.
//!
//! [`Evacuation::handle`] learns something, [`Evacuation::next_action`] says what to do,
//! [`Evacuation::next_deadline`] when to hand in a tick, [`Evacuation::outcome`] how it ended.
//!
//! ```text
//! check -> claim -> prepare -> unplug -> migrate -> announce -> plug -> verify -> release
//!                      |         |         |  the point of no return: the domain runs on the
//!                      v         v         v  destination
//!                      +------ restore ----+--> verify -> release
//! ```
//!
//! Each phase is one of the evacuation; within it, every device goes through a room of its own, side by side
//! with the others, and the next phase begins once all of them are through.
//!
//! Level-triggered: what is so is what a fresh look at both hosts shows. Events only make a
//! look due, what the guest says is never the reason to touch the hypervisor, and an action
//! counts as done when its effect is seen. Each wait has a deadline, phases only follow the
//! arrows, so every evacuation ends.

mod action;
mod carry;
mod cause;
mod conclude;
mod input;
mod learn;
mod limits;
mod machine;
mod notes;
mod outcome;
mod phase;
mod phases;
mod progress;
mod spec;
mod state;
mod tries;
mod view;

pub use action::{Action, ActionId, ActionKind, GuestCall};
pub use carry::CarryOutcome;
pub use cause::{Cause, CauseCode, Obstacles};
pub use input::{
    ClaimFact, Failure, FailureKind, GuestStatus, Input, Namesake, RecordFact, Reply, SideFacts,
};
pub use limits::Limits;
pub use machine::Start;
pub use outcome::{DeviceOutcome, GuestVerdict, Leftover, Outcome, PhaseTime, Verdict};
pub use phase::Phase;
pub use progress::{Owner, PaceBefore, Progress, ProgressError, Record, Stage};
pub use spec::{AgentUse, Device, DeviceRole, MAX_DEVICES, Side, Spec, SpecError, Vf, VfIdentity};
pub use state::Evacuation;
