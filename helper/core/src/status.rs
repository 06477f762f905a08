//! What is so and why: the one description of the guest's state that people,
//! programs and the host all get.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::input::{RemovalStage, Source};
use crate::link::Address;
use crate::policy::Origin;
use crate::types::{IfName, Ifindex, Mac, PciAddress, Time};

/// Everything known, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Grows with each change; the same number means the same status, but for deadlines.
    pub generation: u64,
    /// Where the policy came from.
    pub policy: Origin,
    /// What is wrong beyond a single bond, each with a remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// One entry for each bond of the policy, in its order.
    pub bonds: Vec<BondStatus>,
    /// Sources of observations.
    pub sources: Vec<SourceStatus>,
}

/// One bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct BondStatus {
    /// Name of the bond device.
    pub name: IfName,
    /// Its index, once it exists.
    pub ifindex: Option<Ifindex>,
    /// The MAC that the network sees.
    pub mac: Option<Mac>,
    /// Where it stands.
    pub state: BondState,
    /// Who carries the traffic.
    pub traffic: Traffic,
    /// In one sentence, why it stands there.
    pub reason: String,
    /// The standby, if it is present.
    pub standby: Option<PortStatus>,
    /// The VF, if it is present.
    pub vf: Option<PortStatus>,
    /// Addresses on the bond.
    pub addresses: Vec<Address>,
    /// What is wrong, each with a remedy.
    pub problems: Vec<Problem>,
    /// The kernel itself sends through the standby when the VF's removal begins,
    /// whether or not the service is in time.
    #[serde(default)]
    pub fast_path_armed: bool,
    /// When something is tried again or a wait ends, if either is due.
    pub next_deadline: Option<Time>,
    /// The last switchovers, oldest first; at most [`BondStatus::MAX_SWITCHOVERS`].
    pub switchovers: Vec<Switchover>,
    /// Switchovers since the service started.
    pub switchover_count: u64,
}

impl BondStatus {
    /// Switchovers that are remembered.
    pub const MAX_SWITCHOVERS: usize = 32;
}

/// Where a bond stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BondState {
    /// Neither the bond nor a NIC for it is there.
    Waiting,
    /// The bond is being created or its standby taken in.
    Assembling,
    /// The VF carries the traffic, the standby is ready.
    Accelerated,
    /// The standby carries the traffic, as asked or for want of a usable VF.
    Standby,
    /// A switchover is under way.
    SwitchingOver,
    /// The VF carries the traffic and there is no usable standby: a removal would cut the guest off.
    Unprotected,
    /// No port is usable; the guest is cut off.
    Down,
    /// It can't be done as configured; see the problems.
    Blocked,
}

/// Who carries a bond's traffic, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// Nobody.
    None,
    /// The VF.
    Vf,
    /// The standby.
    Standby,
    /// A port that is neither, in an adopted bond.
    Other,
}

/// One port, present or candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct PortStatus {
    /// Present name.
    pub name: IfName,
    /// Index.
    pub ifindex: Ifindex,
    /// Permanent MAC, or the present one where there is none.
    pub mac: Option<Mac>,
    /// PCI address.
    pub pci: Option<PciAddress>,
    /// Driver.
    pub driver: Option<String>,
    /// It is a port of the bond.
    pub enslaved: bool,
    /// It carries the bond's traffic.
    pub active: bool,
    /// It has a carrier.
    pub carrier: bool,
    /// Why it is not in use, if it is not.
    pub held: Option<Held>,
}

/// Why a port that is present is not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// Its carrier has to stay for the hold time first.
    Holding,
    /// It has no carrier.
    NoCarrier,
    /// It is about to be unplugged: the host asked.
    UnplugPrepared,
    /// It is about to be removed: the kernel warned.
    RemovalExpected,
    /// An operator moved the traffic to the standby.
    Operator,
    /// The kernel or its driver refused it; tried again later.
    Refused,
    /// Another NIC was chosen.
    NotChosen,
    /// None of its frames reached the standby through the network; tried again later.
    PathBroken,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// For programs.
    pub code: ProblemCode,
    /// The device it is about.
    pub device: Option<IfName>,
    /// What happened.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// No NIC matches the standby.
    StandbyMissing,
    /// The standby has no carrier.
    StandbyNoCarrier,
    /// More than one NIC matches the standby or the VF.
    AmbiguousMatch,
    /// A device of that name exists and is not a bond.
    NameTaken,
    /// The bond exists in another mode or with options that can't be changed.
    BondMismatch,
    /// A NIC belongs to another bond or bridge.
    PortTaken,
    /// The VF refused its MAC.
    MacRefused,
    /// The VF refused the bond's MTU.
    MtuRefused,
    /// Another action failed.
    ActionFailed,
    /// An action was acknowledged and changed nothing.
    NoEffect,
    /// The VF's carrier comes and goes.
    Flapping,
    /// The bonding driver is missing.
    BondingMissing,
    /// No port is usable.
    NothingUsable,
    /// The fast-path programs can't be attached: no fast path, and no gaps are measured.
    SwitchoverUnmeasured,
    /// The VF's frames do not reach the standby through the network.
    PathBroken,
    /// The configuration's files are wrong; what was read before stays in effect.
    ConfigurationRefused,
}

/// One switchover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Switchover {
    /// Number since the service started, from 1.
    pub number: u64,
    /// When the traffic was seen on the new port.
    pub at: Time,
    /// Who carried the traffic before.
    pub from: Traffic,
    /// Who carries it now.
    pub to: Traffic,
    /// Why.
    pub cause: SwitchoverCause,
    /// From the decision to the moment the new port was seen active, in µs;
    /// `None` if the kernel moved the traffic by itself.
    pub took_us: Option<u64>,
    /// From the first warning to the moment at which the link began to be unregistered, upon which
    /// its driver stops, or was closed before, in µs, once both are known. Where neither was seen, to
    /// the moment at which it was seen gone.
    pub lead_us: Option<u64>,
    /// The first warning of the removal, if there was one.
    pub warned_by: Option<RemovalStage>,
    /// From the warning to the moment the switchover was asked of the kernel, in µs,
    /// where the fast path did that.
    pub reaction_us: Option<u64>,
    /// What the kernel's own count says, once it is known.
    pub gap: Option<Gap>,
}

/// How long a bond was without frames in a switchover, counted in the kernel by the
/// frames to and from its MAC; it includes pauses of the traffic itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Gap {
    /// From the last frame received on the old port to the first one on the new port,
    /// in µs; 0 if they overlapped, `None` if either port had none.
    pub receive_us: Option<u64>,
    /// The same for frames sent, in µs.
    pub transmit_us: Option<u64>,
    /// Frames that arrived on the old port when another carried the traffic already.
    pub late_frames: u64,
    /// From the switchover, as the first frame sent through the new port or the first late one
    /// shows it, to the last late frame, in µs; `None` if there was none.
    pub drain_us: Option<u64>,
}

/// Why a switchover happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SwitchoverCause {
    /// The host asked before the VF left.
    Planned,
    /// The kernel warned before the VF left.
    Warned,
    /// The VF left without a word.
    Abrupt,
    /// A carrier was lost.
    Carrier,
    /// An operator asked.
    Operator,
    /// A VF came (back) and is ready.
    Arrival,
}

/// A source of observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct SourceStatus {
    /// Which.
    pub source: Source,
    /// How it fares.
    pub health: SourceHealth,
    /// Times it lost events and was read anew.
    pub lost: u64,
    /// Its parts one by one.
    pub parts: Vec<CheckItem>,
}

/// How a source fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SourceHealth {
    /// As it should be.
    Working,
    /// Some of its parts are missing.
    Partial,
    /// Missing.
    Missing {
        /// Why, and what follows from it.
        reason: String,
    },
}

/// One thing that was looked at, such as an eBPF program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct CheckItem {
    /// Its name.
    pub name: String,
    /// It works.
    pub ok: bool,
    /// Why not, or what of it is worth knowing.
    pub detail: String,
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

/// What a command brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// The bond it concerned.
    pub bond: IfName,
    /// True once nothing stands against what the command prepares (for
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
}
