//! How an evacuation ended: what the last look showed, and nothing that was only hoped for.

use serde::{Deserialize, Serialize};

use super::carry::CarryOutcome;
use super::cause::{Cause, CauseCode};
use super::input::GuestStatus;
use super::phase::Phase;
use super::spec::Side;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// In one word.
    pub verdict: Verdict,
    /// The domain was looked at when it ended. If not, only verdict, cause and what a recovery has to do are known.
    pub looked: bool,
    /// Where the domain is; `None` if it runs nowhere or nobody could see.
    pub runs_on: Option<Side>,
    /// Where it was seen last, if it ended before that was certain: there a recovery finds it.
    #[serde(default)]
    pub last_seen_on: Option<Side>,
    /// It has its VF there, and every other device that it should have.
    pub vf_attached: bool,
    /// An unplug that was asked for was neither done nor refused: the guest may still do it.
    pub unplug_may_follow: bool,
    /// What the guest says of its VFs; of several, the worst.
    pub guest: GuestVerdict,
    /// The guest's last words of the first bond that is not as it should be, or else of the first.
    pub guest_status: Option<GuestStatus>,
    /// Each device by itself.
    #[serde(default)]
    pub devices: Vec<DeviceOutcome>,
    /// Why it did not end as it should.
    pub cause: Option<Cause>,
    /// What else stands in the way of one that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_causes: Vec<Cause>,
    /// What stops nothing, and may keep a VF from being used all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What could not be cleaned up.
    pub left: Vec<Leftover>,
    /// `tandem-host recover` has something to do.
    pub recovery_needed: bool,
    /// The phases in order.
    pub phases: Vec<PhaseTime>,
    /// How long the hypervisor stopped the guest, in ms.
    pub downtime_ms: Option<u64>,
    /// What became of the frames for the guest, if they were to be carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<CarryOutcome>,
}

/// How it ended for one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceOutcome {
    /// Its name for people, where the domain is now.
    pub device: String,
    /// Its bond, if it is the VF of one that has a name here.
    pub bond: Option<String>,
    /// It should be there.
    pub wanted: bool,
    /// It is.
    pub attached: bool,
    /// An unplug of it that was asked for was neither done nor refused.
    pub unplug_may_follow: bool,
    /// What the guest says of it.
    pub guest: GuestVerdict,
    /// The guest's last words of its bond.
    pub guest_status: Option<GuestStatus>,
    /// How plugging it in failed last, if it is not there.
    pub plug_failure: Option<String>,
    /// How long the hypervisor took to plug it in, in ms. With vfio the guest's memory is pinned meanwhile, and a standby
    /// that QEMU itself serves stands still.
    #[serde(default)]
    pub plug_ms: Option<u64>,
}

/// How it ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It runs on the destination, with all its devices.
    Done,
    /// It runs, without a VF in use or without another device.
    Degraded,
    /// It runs on the source as before.
    RolledBack,
    /// Nothing was begun.
    Refused,
    /// It was interrupted; a recovery finishes or undoes it.
    Interrupted,
    /// The domain runs nowhere.
    Stopped,
    /// Only checked: nothing was found that stands in the way.
    Ready,
}

/// What the guest says of the VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestVerdict {
    /// It was not asked.
    NotAsked,
    /// It gave no answer.
    Silent,
    /// The VF carries its traffic.
    UsesVf,
    /// The standby carries its traffic.
    UsesStandby,
}

/// Something that could not be cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftover {
    /// This process's claim in the domain's metadata.
    Claim,
    /// The reservation of the destination's VF.
    VfClaim,
    /// The record in the domain's metadata on the source.
    RecordOnSource,
    /// The same on the destination.
    RecordOnDestination,
}

/// How long a phase took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// In ms.
    pub ms: u64,
}

impl Outcome {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        let code = self.cause.as_ref().map(|cause| cause.code);
        match (self.verdict, code) {
            // Whoever wanted it recovered has what was wanted.
            (Verdict::Refused, Some(CauseCode::NothingToRecover)) => Verdict::Done.exit_code(),
            (verdict, _) => verdict.exit_code(),
        }
    }

    /// The report of an evacuation that did not run to an end, or at all.
    pub fn without_run(verdict: Verdict, cause: Cause) -> Self {
        Self {
            verdict,
            looked: false,
            runs_on: None,
            last_seen_on: None,
            vf_attached: false,
            unplug_may_follow: false,
            guest: GuestVerdict::NotAsked,
            guest_status: None,
            devices: Vec::new(),
            cause: Some(cause),
            more_causes: Vec::new(),
            warnings: Vec::new(),
            left: Vec::new(),
            recovery_needed: false,
            phases: Vec::new(),
            downtime_ms: None,
            carry: None,
        }
    }
}

impl Verdict {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done | Self::Ready => 0,
            Self::Stopped => 1,
            Self::Refused => 10,
            Self::RolledBack => 11,
            Self::Degraded => 12,
            Self::Interrupted => 13,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is found out at first sight, or another process ends it meanwhile.
    #[test]
    fn a_recovery_that_finds_nothing_to_do_is_none_that_failed() {
        let code = |cause| {
            let cause = Cause::new(cause, "why");
            Outcome::without_run(Verdict::Refused, cause).exit_code()
        };
        assert_eq!(code(CauseCode::NothingToRecover), 0);
        assert_eq!(code(CauseCode::Claimed), 10);
    }
}
