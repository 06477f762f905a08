//! What all phases ask.

use super::step::Step;
use crate::evacuate::action::{ActionKey, ActionKind, GuestCall};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::SideFacts;
use crate::evacuate::progress::{Progress, Record, Stage};
use crate::evacuate::spec::{AgentUse, Side};
use crate::evacuate::state::Evacuation;
use crate::hypervisor::{DomainState, Nic};
use crate::words::printable;

/// Failures after which the guest counts as silent.
const AGENT_FAILURES: u32 = 2;
/// Failures of a reservation, or of the look into it, that may be an accident.
const VF_FAILURES: u32 = 3;
/// Failures after which a record that helps but is not needed is not written.
const RECORD_FAILURES: u32 = 3;

impl Evacuation {
    /// In this phase since, in ms.
    pub(super) fn in_phase_ms(&self) -> u64 {
        self.now_ms - self.entered_ms
    }

    /// A look at that host, as soon as one is due.
    pub(super) fn look(&self, side: Side) -> Step {
        let due_ms = self.view(side).next_look_ms;
        if self.now_ms >= due_ms {
            Step::Do(ActionKind::Observe { side })
        } else {
            Step::WaitUntil(due_ms)
        }
    }

    /// What is so there now; before that, a look.
    pub(super) fn peek(&self, side: Side) -> Result<&SideFacts, Step> {
        let current = self.view(side).current(self.now_ms);
        current.ok_or_else(|| self.look(side))
    }

    /// As [`Evacuation::peek`]; a host that can't be asked for long ends what was begun.
    pub(super) fn see(&self, side: Side, patience_ms: u64) -> Result<&SideFacts, Step> {
        if self.view(side).failing_for_ms() >= patience_ms {
            return Err(Step::Fail(self.unreachable(side)));
        }
        self.peek(side)
    }

    pub(super) fn unreachable(&self, side: Side) -> Cause {
        let why = self.view(side).failure.as_ref();
        let why = why.map_or("no look worked", |failure| failure.message.as_str());
        let message = format!("the {} can't be asked: {why}", side.as_str());
        Cause::new(CauseCode::Unreachable, message)
    }

    /// Where the domain runs could not be seen for too long.
    pub(in crate::evacuate) fn unclear(&self) -> Cause {
        let failing = Side::BOTH.into_iter();
        let failing = failing.filter(|side| self.view(*side).failure.is_some());
        let why: Vec<String> = failing.map(|side| self.unreachable(side).message).collect();
        let why = match why.as_slice() {
            [] => "neither host shows it running".to_owned(),
            some => some.join("; "),
        };
        let message = format!(
            "it can't be seen where domain {} runs: {why}",
            printable(&self.record.spec.domain)
        );
        Cause::new(CauseCode::Unclear, message)
    }

    /// Waits for the next look there, at most until `at_ms`.
    pub(super) fn wait(&self, side: Side, at_ms: u64) -> Step {
        Step::WaitUntil(at_ms.min(self.view(side).next_look_ms))
    }

    /// Does it, as soon as the wait after the last failure is over.
    pub(super) fn attempt(&self, kind: ActionKind) -> Step {
        let due_ms = self.tries(kind.key()).next_ms;
        if self.now_ms >= due_ms {
            Step::Do(kind)
        } else {
            Step::WaitUntil(due_ms)
        }
    }

    /// Claims the VF of a device that comes on the destination, or sees whether it could be claimed.
    pub(super) fn room_for(&self, device: usize, kind: ActionKind) -> Result<(), Step> {
        let tries = self.tries(kind.key());
        let wanted = self.record.spec.devices[device].destination.is_some();
        match tries.last {
            _ if tries.accepted_ms.is_some() || !wanted => Ok(()),
            Some(failure) if tries.failures >= VF_FAILURES || !failure.effect_unknown() => {
                Err(Step::Fail(Cause::of_vf(&failure)))
            }
            _ => Err(self.attempt(kind)),
        }
    }

    /// Nothing that timed out, or that a process which was killed asked for, can still take
    /// effect: a VF that is absent stays absent until it is plugged in.
    pub(super) fn is_certain(&self) -> Result<(), Step> {
        let until_ms = self.notes.doubt_until_ms;
        if self.now_ms < until_ms {
            return Err(Step::WaitUntil(until_ms));
        }
        Ok(())
    }

    pub(super) fn call(&self, side: Side, call: GuestCall) -> Step {
        self.attempt(ActionKind::Guest { side, call })
    }

    /// The guest is to be asked, and was not found silent in this phase.
    pub(super) fn asks_guest(&self, call: GuestCall) -> bool {
        self.record.spec.agent != AgentUse::Never
            && self.tries(ActionKey::Guest(call)).failures < AGENT_FAILURES
    }

    /// The evacuation may go on without what the guest should do.
    pub(super) fn guest_is_optional(&self) -> bool {
        self.record.spec.agent != AgentUse::Required
    }

    /// Numbers of all devices.
    pub(in crate::evacuate) fn devices(&self) -> std::ops::Range<usize> {
        0..self.record.spec.devices.len()
    }

    /// A device as that side's last look showed it.
    pub(in crate::evacuate) fn vf_nic(&self, side: Side, device: usize) -> Option<&Nic> {
        let identity = &self.record.spec.devices.get(device)?.vf(side)?.identity;
        let facts = self.view(side).facts.as_ref()?;
        facts.nics.iter().find(|nic| identity.is(nic))
    }

    /// Devices that should be on that side, and that its last look did not show.
    pub(in crate::evacuate) fn missing(&self, side: Side) -> Vec<usize> {
        let wanted = |device: &usize| self.record.spec.devices[*device].vf(side).is_some();
        let wanted = self.devices().filter(wanted);
        let missing = wanted.filter(|device| self.vf_nic(side, *device).is_none());
        missing.collect()
    }

    /// How many devices of no bond are missing where the domain stays.
    fn lacking(&self) -> u8 {
        let home = self.notes.residence.unwrap_or(Side::Source);
        let missing = self.missing(home).into_iter();
        let lacking = missing.filter(|device| !self.record.spec.devices[*device].is_of_bond());
        u8::try_from(lacking.count()).unwrap_or(u8::MAX)
    }

    /// The end of a phase that plugs in what it finds missing, one device after the other, each of which may
    /// take `each_ms`.
    pub(super) fn plugged_until_ms(&self, each_ms: u64) -> u64 {
        let all_ms = each_ms.saturating_mul(self.notes.to_plug.max(1));
        self.entered_ms.saturating_add(all_ms)
    }

    /// Their names, for people.
    pub(in crate::evacuate) fn names(&self, side: Side, devices: &[usize]) -> String {
        let names = devices.iter().map(|device| self.name(side, *device));
        names.collect::<Vec<_>>().join(", ")
    }

    /// A device's name, for people.
    pub(in crate::evacuate) fn name(&self, side: Side, device: usize) -> String {
        self.record.spec.devices[device].describe(side)
    }

    /// The guest has something to say of a device.
    pub(in crate::evacuate) fn has_bonds(&self) -> bool {
        self.record.spec.of_bonds().next().is_some()
    }

    pub(super) fn record_at(&self, stage: Stage) -> Record {
        let progress = &self.record.progress;
        let lacking = match stage {
            Stage::Degraded => self.lacking(),
            _ => 0,
        };
        Record {
            progress: Progress {
                stage,
                version: match lacking {
                    0 => progress.version,
                    _ => progress.version.max(Progress::LACKING),
                },
                lacking,
                migration_begun: self.notes.migration_begun || stage == Stage::Migrating,
                home: match stage {
                    Stage::Plugging | Stage::Degraded => self.notes.residence.or(progress.home),
                    _ => None,
                },
                ..progress.clone()
            },
            spec: self.record.spec.clone(),
            pace: self.record.pace,
        }
    }

    /// Writes that stage first: without the record, a kill could not be recovered from.
    pub(super) fn save_first(&self, side: Side, stage: Stage) -> Result<(), Step> {
        let record = self.record_at(stage);
        if self.is_saved(side, stage, record.progress.migration_begun) {
            return Ok(());
        }
        let tries = self.tries(ActionKey::Save(side));
        if tries.failures >= RECORD_FAILURES
            && let Some(failure) = tries.last
        {
            let message = failure.message;
            return Err(Step::Fail(Cause::new(CauseCode::RecordNotWritten, message)));
        }
        if self.now_ms < self.notes.record_doubt_until_ms {
            return Err(Step::WaitUntil(self.notes.record_doubt_until_ms));
        }
        let record = Box::new(record);
        Err(self.attempt(ActionKind::Save { side, record }))
    }

    /// Writes that stage if it can be: the older record and a look are enough to recover from.
    pub(super) fn try_save(&self, side: Side, stage: Stage) -> Result<(), Step> {
        match self.save_first(side, stage) {
            Err(Step::Fail(_)) => Ok(()),
            other => other,
        }
    }
}

/// The domain is there and has its memory.
pub(super) fn is_there(facts: &SideFacts) -> bool {
    matches!(facts.state, DomainState::Running | DomainState::Paused)
}

/// The domain has ended there, or never was.
pub(super) fn is_gone(facts: &SideFacts) -> bool {
    matches!(facts.state, DomainState::Absent | DomainState::ShutOff)
}
