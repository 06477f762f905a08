//! Everything that the machine gives out: what to do, what to answer and what to tell.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::model::action::Action;
use crate::model::removal::RemovalStage;
use crate::model::status::{BondState, Problem, ProblemCode, Switchover, Traffic};
use crate::model::types::{CommandId, IfName, Mac, PciAddress, Time};

/// One thing that comes out of the machine. Only an action has an end to be reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Change or read the kernel; answered with `Input::Done`.
    Act(Action),
    /// Answer a command.
    Reply {
        /// The command.
        command: CommandId,
        /// The answer.
        result: Result<Answer, CommandError>,
    },
    /// Tell subscribers and the log.
    Notify(Event),
}

/// A command and what it is answered.
pub(crate) type Reply = (CommandId, Result<Answer, CommandError>);

/// What a command brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// The bond it concerned.
    pub bond: IfName,
    /// True once what the command prepares may be done (for
    /// prepare-unplug: the VF may leave now).
    pub ready: bool,
    /// Who carries the traffic.
    pub traffic: Traffic,
    /// The VF that was released, by permanent MAC.
    pub released: Option<Mac>,
    /// PCI address of the VF that was released.
    pub released_pci: Option<PciAddress>,
    /// What was done, in order, in words.
    pub done: Vec<String>,
}

/// Why a command brought nothing about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[error("{message}")]
pub struct CommandError {
    /// For programs.
    pub code: CommandErrorCode,
    /// What happened and what to do.
    pub message: String,
}

impl CommandError {
    pub(crate) fn new(code: CommandErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub(crate) fn not_allowed() -> Self {
        let message = "the guest's administrator lets the host only ask: host-may = \"none\" in its configuration";
        Self::new(CommandErrorCode::NotAllowed, message)
    }
}

/// Kinds of command errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CommandErrorCode {
    /// No bond of that name, or none at all.
    UnknownBond,
    /// Several bonds, and the command named none.
    BondNotNamed,
    /// The VF named is not there.
    UnknownVf,
    /// The standby is absent or has no carrier: the guest would be cut off.
    StandbyUnusable,
    /// Another command took its place.
    Superseded,
    /// It took too long.
    TimedOut,
    /// Too many commands are open.
    Busy,
    /// The kernel refused a step.
    Refused,
    /// The guest's administrator does not let the host do this (`host-may`).
    NotAllowed,
}

/// Pushed to subscribers as it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// A bond stands elsewhere than before.
    StateChanged {
        /// The bond.
        bond: IfName,
        /// Where it stands.
        state: BondState,
        /// Who carries the traffic.
        traffic: Traffic,
        /// Why, in one sentence.
        reason: String,
    },
    /// Traffic moved.
    SwitchedOver {
        /// The bond.
        bond: IfName,
        /// How.
        switchover: Switchover,
    },
    /// It is known how long the bond was without frames in its last switchover.
    SwitchoverMeasured {
        /// The bond.
        bond: IfName,
        /// The switchover, with its gap.
        switchover: Switchover,
    },
    /// A VF's removal was announced by the kernel.
    RemovalExpected {
        /// The bond.
        bond: IfName,
        /// The VF.
        vf: IfName,
        /// How the guest learnt of it.
        stage: RemovalStage,
        /// When.
        at: Time,
    },
    /// A VF is gone; closes the story of its removal.
    VfRemoved {
        /// The bond.
        bond: IfName,
        /// The VF's permanent MAC.
        mac: Option<Mac>,
        /// From the first warning until its driver began to stop, in µs, if there was a warning.
        lead_us: Option<u64>,
        /// What warned first.
        warned_by: Option<RemovalStage>,
    },
    /// A problem arose.
    ProblemRaised {
        /// The bond.
        bond: IfName,
        /// The problem.
        problem: Problem,
    },
    /// A problem is over.
    ProblemCleared {
        /// The bond.
        bond: IfName,
        /// Its code.
        code: ProblemCode,
    },
    /// A problem beyond a single bond arose, or is another than before.
    GeneralProblemRaised {
        /// The problem.
        problem: Problem,
    },
    /// A problem beyond a single bond is over.
    GeneralProblemCleared {
        /// Its code.
        code: ProblemCode,
    },
}
