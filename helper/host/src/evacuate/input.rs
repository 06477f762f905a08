//! What an evacuation learns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::ActionId;
use super::carry::CarryOutcome;
use super::progress::{Owner, Progress};
use super::spec::Side;
use crate::hypervisor::{DomainState, EventKind, HostError, JobFacts, Nic};

/// Something learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The operator wants to stop: roll back if that is still possible.
    Abort,
    /// Something happened on a host; it only means that a look is due.
    Event {
        /// Where.
        side: Side,
        /// What, of this domain.
        kind: EventKind,
    },
    /// The handle on the migration says how it ended. Where the domain runs, a look shows.
    MigrationEnded(Result<(), Failure>),
    /// The carry is over; what became of it.
    Carried(Box<CarryOutcome>),
    /// An action ended.
    Done {
        /// Which.
        action: ActionId,
        /// How.
        reply: Reply,
    },
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What a look showed.
    Observed(Box<SideFacts>),
    /// What the guest says of its bonds, by the number of their VF in the spec.
    Status(BTreeMap<usize, GuestStatus>),
    /// It was accepted.
    Accepted,
    /// It was not, or nobody knows.
    Failed(Failure),
}

/// What a look at one host shows of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideFacts {
    /// Whether it runs.
    pub state: DomainState,
    /// Its NICs and PCI host devices.
    pub nics: Vec<Nic>,
    /// Its migration.
    pub job: JobFacts,
    /// The record in its metadata.
    pub record: RecordFact,
    /// Who claims it at this moment.
    pub claims: Vec<ClaimFact>,
    /// Of the destination: another domain that keeps this one away.
    pub in_the_way: Option<Namesake>,
}

/// A domain that a hypervisor does not tell from the evacuated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namesake {
    /// It has its name, and this UUID of its own.
    OfName(String),
    /// It has its UUID, and this name of its own.
    OfUuid(String),
}

/// A claim as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFact {
    /// Whose it is.
    pub token: String,
    /// Who that is; `None` if it is not understood.
    pub owner: Option<Owner>,
}

/// A record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordFact {
    /// None.
    Absent,
    /// This one.
    Present(Box<Progress>),
    /// One that this version does not understand; why.
    Unreadable(String),
}

/// What the guest says of the bond. Believed for reports only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GuestStatus {
    /// It has the bond.
    pub bond_known: bool,
    /// The standby could carry the traffic.
    pub standby_usable: bool,
    /// The VF carries the traffic.
    pub vf_active: bool,
    /// It would use the destination's VF, by bonds of its own; `None` if its bonds are the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knows_vf: Option<bool>,
    /// The longest gap of the last two switchovers as the guest measured it, in µs.
    pub gap_us: Option<u64>,
    /// Why it stands there, in the guest's words; shortened.
    pub reason: String,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// For decisions.
    pub kind: FailureKind,
    /// For people: what happened, to which device, and what to do.
    pub message: String,
}

/// Kinds of failures that lead to different decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The host can't be asked; it may or may not have acted.
    Unreachable,
    /// No answer in time; it may still act.
    TimedOut,
    /// There is no such domain.
    NoSuchDomain,
    /// What should go is gone.
    AlreadyGone,
    /// What should come is there.
    AlreadyThere,
    /// The guest said no to the unplug.
    UnplugRefused,
    /// The migration failed.
    MigrationFailed,
    /// It was cancelled.
    Cancelled,
    /// The host said no; nothing was changed.
    Refused,
    /// The guest does not answer.
    AgentSilent,
    /// What the guest sends is no protocol.
    AgentHostile,
    /// The guest said no.
    AgentRefused,
    /// Anything else.
    Other,
}

impl Failure {
    /// Puts kind and text together.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Whether the host acted, or still acts, is unknown.
    pub(super) fn effect_unknown(&self) -> bool {
        matches!(self.kind, FailureKind::Unreachable | FailureKind::TimedOut)
    }
}

impl From<&HostError> for Failure {
    fn from(error: &HostError) -> Self {
        let kind = match error {
            HostError::Unreachable { .. } => FailureKind::Unreachable,
            HostError::NoSuchDomain { .. } => FailureKind::NoSuchDomain,
            HostError::AlreadyGone { .. } => FailureKind::AlreadyGone,
            HostError::AlreadyThere { .. } => FailureKind::AlreadyThere,
            HostError::UnplugRefused { .. } => FailureKind::UnplugRefused,
            HostError::MigrationFailed { .. } => FailureKind::MigrationFailed,
            HostError::Cancelled { .. } => FailureKind::Cancelled,
            HostError::TimedOut { .. } => FailureKind::TimedOut,
            HostError::Refused { .. } => FailureKind::Refused,
            HostError::InvalidXml { .. } | HostError::Other { .. } => FailureKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}
