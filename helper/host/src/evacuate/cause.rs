//! Why an evacuation did not end as it should.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input::{Failure, FailureKind};

/// Why, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[error("{message}")]
pub struct Cause {
    /// For programs.
    pub code: CauseCode,
    /// What happened, to which device, and what to do.
    pub message: String,
}

/// Kinds of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseCode {
    /// The operator stopped it.
    Aborted,
    /// A host can't be asked.
    Unreachable,
    /// The domain does not run on the source.
    NotRunning,
    /// It runs on the destination already, or something else of its name does.
    OnDestination,
    /// A migration of it is under way.
    MigrationUnderWay,
    /// Another job of the hypervisor has it, such as a backup.
    JobUnderWay,
    /// Another evacuation has it.
    Claimed,
    /// An earlier evacuation was interrupted.
    RecoveryNeeded,
    /// Its record can't be understood.
    RecordUnreadable,
    /// The record can't be written.
    RecordNotWritten,
    /// It could not be begun: an argument, a host out of reach.
    NotBegun,
    /// There is no such domain.
    NoSuchDomain,
    /// The destination's XML would cost it its bonds.
    BondsMissing,
    /// It can be recovered from another machine only.
    OtherMachine,
    /// There is nothing to recover.
    NothingToRecover,
    /// No VF is named for the destination.
    NoVfNamed,
    /// More than one NIC could be the VF.
    AmbiguousVf,
    /// A pass-through device would stay attached, and the hypervisor would refuse to migrate.
    DeviceStays,
    /// The hypervisor would refuse to migrate the domain as it is.
    NotMigratable,
    /// A disk lies where the destination can't have it.
    DiskNotShared,
    /// The guest would not know the destination's VF by its MAC.
    UnknownVf,
    /// The destination's VF does not exist or is taken.
    VfTaken,
    /// The guest does not answer.
    AgentMissing,
    /// What the guest sends is no protocol.
    AgentHostile,
    /// The guest said no.
    AgentRefused,
    /// The guest has no bond, or no standby that could carry the traffic.
    GuestNotReady,
    /// The hypervisor did not take the request to unplug, or said nothing of it: the guest never heard of it, or
    /// nobody knows whether it did.
    UnplugFailed,
    /// The guest refused the unplug.
    UnplugRefused,
    /// The guest did not release the VF in time.
    UnplugTimedOut,
    /// The migration failed.
    MigrationFailed,
    /// It was cancelled, and not by us.
    MigrationCancelled,
    /// It took too long.
    MigrationTimedOut,
    /// The VF can't be plugged in.
    PlugFailed,
    /// The guest does not use the VF.
    NotVerified,
    /// The domain does not run on either host.
    Stopped,
    /// Where the domain runs can't be seen.
    Unclear,
    /// Another process took the evacuation over.
    Superseded,
    /// It was interrupted before, and undone now.
    Interrupted,
}

impl Cause {
    /// Puts code and text together.
    pub fn new(code: CauseCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The guest's failure, by its kind.
    pub(super) fn of_agent(failure: &Failure) -> Self {
        let code = match failure.kind {
            FailureKind::AgentRefused => CauseCode::AgentRefused,
            FailureKind::AgentHostile => CauseCode::AgentHostile,
            _ => CauseCode::AgentMissing,
        };
        Self::new(code, failure.message.clone())
    }

    /// Why a device of the destination is not to be had, by its kind: a host that did not answer has not said that it is
    /// taken.
    pub(super) fn of_vf(failure: &Failure) -> Self {
        let code = match failure.effect_unknown() {
            true => CauseCode::Unreachable,
            false => CauseCode::VfTaken,
        };
        Self::new(code, failure.message.clone())
    }

    /// How a migration failed, by its kind.
    pub(super) fn of_migration(failure: &Failure) -> Self {
        let code = match failure.kind {
            FailureKind::Cancelled => CauseCode::MigrationCancelled,
            _ => CauseCode::MigrationFailed,
        };
        Self::new(code, failure.message.clone())
    }
}

/// What a domain's XML and the options show of what stands in the way, unless it does not run at all.
#[derive(Debug, Clone, Default)]
pub struct Obstacles {
    /// Whatever the guest says.
    pub certain: Vec<Cause>,
    /// VFs, by their numbers in the spec, that the XML's bonds do not mean. A guest with bonds of its own may know them.
    pub unknown_vfs: BTreeMap<usize, Cause>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_does_not_answer_has_not_said_that_a_vf_is_taken() {
        for (kind, code) in [
            (FailureKind::Refused, CauseCode::VfTaken),
            (FailureKind::TimedOut, CauseCode::Unreachable),
            (FailureKind::Unreachable, CauseCode::Unreachable),
        ] {
            assert_eq!(Cause::of_vf(&Failure::new(kind, "why")).code, code);
        }
    }
}
