//! What is reported must be so.

use tandem_host::evacuate::{
    CauseCode, DeviceOutcome, GuestVerdict, Leftover, Outcome, Side, Verdict,
};
use tandem_host::hypervisor::DomainState;

use crate::script::Agent;
use crate::stage::Stage;

/// So long after the guest began to use a VF, it has said so over a calm channel, in ms.
const KNOWN_AFTER_MS: u64 = 10_000;
/// The longest that a disturbed one adds while the guest is heard at all, in ms.
const LONGEST_SILENCE_MS: u64 = 35_000;

impl Stage {
    /// Compares a report with the world, at the moment it is given.
    pub(crate) fn judge(&mut self, process: usize) {
        let Some(outcome) = self.processes[process].outcome.clone() else {
            return;
        };
        let mut faults = Vec::new();
        // One that is refused for another's sake tells of a look, and the other may have moved it since.
        let refused = outcome.verdict == Verdict::Refused && self.processes.len() > 1;
        // So may one that has begun since this one's record is gone, or has no owner.
        let taken_up = self.is_taken_up(process);
        let is_anothers = |side: &Side| self.is_of_another(process, *side);
        let moved_on = taken_up || Side::BOTH.iter().any(is_anothers);
        if let Some(side) = outcome.runs_on.filter(|_| !refused && !moved_on) {
            self.judge_place(&outcome, side, &mut faults);
        }
        match outcome.verdict {
            Verdict::Done
                if outcome.runs_on != Some(Side::Destination)
                    || !(outcome.vf_attached || self.world.devices.is_empty()) =>
            {
                faults.push("done, and not on the destination with all its devices");
            }
            Verdict::RolledBack if outcome.runs_on != Some(Side::Source) => {
                faults.push("rolled back, and not on the source");
            }
            Verdict::RolledBack if self.lacks(&outcome, Side::Source) => {
                faults.push("rolled back, and without a device that it had");
            }
            Verdict::Stopped if !self.world.shut_down => {
                faults.push("stopped, and the guest runs");
            }
            Verdict::Refused if self.processes.len() == 1 && self.has_changed() => {
                faults.push("refused, and something was changed");
            }
            _ => {}
        }
        if outcome.devices.len() != self.world.devices.len() {
            faults.push("a device is left out of the report");
        }
        if !moved_on {
            self.judge_guest(process, &outcome, &mut faults);
        }
        if !taken_up {
            self.judge_leftovers(process, &outcome, &mut faults);
        }
        let text = faults.join("; ");
        if !faults.is_empty() {
            self.world
                .violations
                .push(format!("process {process}: {text}"));
        }
    }

    /// A recovery of the same evacuation has begun since.
    fn is_taken_up(&self, process: usize) -> bool {
        let name = self.evacuation(process);
        let mut later = self.processes[process + 1..].iter();
        later.any(|one| one.evacuation == name)
    }

    fn judge_place(&self, outcome: &Outcome, side: Side, faults: &mut Vec<&str>) {
        let there = |state| matches!(state, DomainState::Running | DomainState::Paused);
        let was_shut_down = self.world.shut_down;
        // A refusal was decided before the guest ended.
        if !there(self.world.host(side).state) && !was_shut_down {
            faults.push("it is said to run where it does not");
        }
        let may_differ = outcome.verdict == Verdict::Refused;
        let wrong = |(device, told): (usize, &DeviceOutcome)| {
            self.world.has(side, device) != told.attached && !told.unplug_may_follow
        };
        let mut devices = outcome.devices.iter().enumerate();
        if devices.any(wrong) && !may_differ && !was_shut_down {
            faults.push("it is said to have a device that it has not, or the other way round");
        }
    }

    /// A device is reported to be missing that it is to have there.
    fn lacks(&self, outcome: &Outcome, side: Side) -> bool {
        let devices = outcome.devices.iter().enumerate();
        let mut wanted = devices.filter(|(device, _)| self.world.wants(side, *device));
        wanted.any(|(_, told)| !told.attached)
    }

    fn has_changed(&self) -> bool {
        let runs_there = self.world.host(Side::Source).state == DomainState::Running;
        let as_was = |device: usize| {
            self.world.has(Side::Source, device) == self.world.wants(Side::Source, device)
        };
        let all = (0..self.world.devices.len()).all(as_was);
        let as_before = runs_there && all && !self.world.is_prepared();
        !as_before && !self.world.shut_down
    }

    /// An honest guest that answered is as it is reported to be.
    fn judge_guest(&self, process: usize, outcome: &Outcome, faults: &mut Vec<&str>) {
        let honest = self.world.script.agent == Agent::Good;
        let told = matches!(
            outcome.guest,
            GuestVerdict::UsesVf | GuestVerdict::UsesStandby
        );
        let settled = matches!(outcome.verdict, Verdict::Done | Verdict::RolledBack);
        if honest && told && settled && self.world.is_prepared() {
            faults.push("the guest was not told to take its VF again");
        }
        if honest && outcome.verdict == Verdict::Degraded {
            self.judge_degraded(process, outcome, faults);
        }
        let says_vf = outcome.guest == GuestVerdict::UsesVf;
        // One that booted since it was asked gets its bond by `serve`.
        let booted = !self.world.has_bond;
        let follows = outcome.unplug_may_follow || self.world.shut_down || booted;
        let is_so = self.world.uses_vf(self.now_ms);
        if honest && settled && says_vf && !is_so && !follows {
            faults.push("the guest is said to use a VF that it does not use");
        }
    }

    /// Degraded is a guest that does not use a VF, or can't be asked whether it does.
    fn judge_degraded(&self, process: usize, outcome: &Outcome, faults: &mut Vec<&str>) {
        let script = &self.world.script;
        let asker = &self.processes[process];
        let code = outcome.cause.as_ref().map(|cause| cause.code);
        // The operator did not want to wait for it, and that is said.
        if self.in_use_since_ms.is_none() || code == Some(CauseCode::Aborted) {
            return;
        }
        if asker.said_in_use == Some(true) && outcome.vf_attached {
            faults.push("degraded, and the guest said that it uses its VF");
        }
        let heard_ms = if script.channel_is_calm() {
            KNOWN_AFTER_MS
        } else {
            KNOWN_AFTER_MS + LONGEST_SILENCE_MS
        };
        // The guest is asked for one bond after the other.
        let heard_ms = heard_ms * self.world.devices.len() as u64;
        let asked = outcome.guest != GuestVerdict::Silent || script.channel_is_calm();
        if asker.used_ms > heard_ms && asked && outcome.vf_attached {
            faults.push("degraded, and the guest uses its VF");
        }
    }

    fn judge_leftovers(&self, process: usize, outcome: &Outcome, faults: &mut Vec<&str>) {
        if outcome.verdict == Verdict::Interrupted {
            return;
        }
        let name = self.evacuation(process);
        let claims = &self.world.host(Side::Destination).claims;
        let claimed = claims.iter().flatten().any(|by| *by == name);
        if claimed
            && !outcome.left.contains(&Leftover::VfClaim)
            && !self.is_left_to_another(outcome)
        {
            faults.push("the VF's reservation was left and not reported");
        }
        for (side, leftover) in [
            (Side::Source, Leftover::RecordOnSource),
            (Side::Destination, Leftover::RecordOnDestination),
        ] {
            let record = self.world.record(side);
            let is_own = record.is_some_and(|record| record.evacuation == name);
            let kept = outcome.recovery_needed && outcome.runs_on == Some(side);
            let is_kept = is_own || !self.own.is_empty();
            if kept && !is_kept && !self.world.shut_down {
                faults.push("a recovery is announced, and has no record to go by");
            }
            let told = kept || outcome.left.contains(&leftover) || self.is_left_to_another(outcome);
            if is_own && !told {
                faults.push("the record was left and not reported");
            }
        }
    }

    /// A recovery that was refused leaves all to the process that has it.
    fn is_left_to_another(&self, outcome: &Outcome) -> bool {
        outcome.verdict == Verdict::Refused && self.recoveries > 0
    }

    /// What must be true once everything has ended and the hosts answer again.
    pub(crate) fn judge_the_end(&mut self) -> Result<(), String> {
        for _ in 0..6 {
            let records = Side::BOTH.map(|side| self.world.record(side));
            let last = self.last_outcome();
            let hopeless = last.is_some_and(|one| one.verdict == Verdict::Degraded);
            let known = records.iter().any(Option::is_some) || !self.own.is_empty();
            if !known || (self.healed && hopeless) {
                break;
            }
            self.healed = true;
            self.recover_at_last()?;
        }
        let mut faults = Vec::new();
        if self.world.runs_on().is_none() && !self.world.shut_down {
            faults.push("the domain does not run");
        }
        let last = self.last_outcome();
        let degraded = last.is_some_and(|one| one.verdict == Verdict::Degraded);
        let records = Side::BOTH.map(|side| self.world.record(side));
        if records.iter().any(Option::is_some) && !degraded {
            faults.push("a record is left that no recovery removes");
        }
        let mut scripts = self.world.script.devices();
        let never = scripts.any(|one| one.attach_failures.contains(&u32::MAX));
        if degraded && self.healed && records.iter().any(Option::is_some) && !never {
            faults.push("a recovery could have plugged the VF in");
        }
        faults.extend(self.lost(last));
        let claims = &self.world.host(Side::Destination).claims;
        let mut ours = claims.iter().flatten().filter(|by| *by != "another domain");
        // A transient domain that has ended took its record along, and nobody is left who knows.
        let lost = self.world.shut_down;
        if ours.next().is_some() && !lost && !degraded && !self.claim_was_reported() {
            faults.push("the VF stays reserved");
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults.join("; "))
        }
    }

    /// The report that was given last.
    fn last_outcome(&self) -> Option<&Outcome> {
        let last = self.ended.last()?;
        self.processes[*last].outcome.as_ref()
    }

    /// A device that is not where it should be, although the last report says that all is well.
    fn lost(&self, last: Option<&Outcome>) -> Option<&'static str> {
        // A guest may still obey what an evacuation before the last one asked for, and that was said.
        let mut outcomes = self.processes.iter().filter_map(|one| one.outcome.as_ref());
        let may_follow = outcomes.any(|one| one.unplug_may_follow);
        let last = last.filter(|_| !may_follow && !self.world.shut_down)?;
        let side = match last.verdict {
            Verdict::Done => Side::Destination,
            Verdict::RolledBack => Side::Source,
            _ => return None,
        };
        let mut devices = 0..self.world.devices.len();
        let lost =
            devices.any(|device| self.world.wants(side, device) && !self.world.has(side, device));
        lost.then_some("a device is lost")
    }

    fn claim_was_reported(&self) -> bool {
        let outcomes = self.processes.iter().filter_map(|one| one.outcome.as_ref());
        outcomes
            .into_iter()
            .any(|one| one.left.contains(&Leftover::VfClaim))
    }
}
