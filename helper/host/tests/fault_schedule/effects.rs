//! What a call does once it reaches its host.

use tandem_host::evacuate::{
    ActionKind, Failure, FailureKind, Owner, Phase, Progress, Reply, Side,
};
use tandem_host::hypervisor::DomainState;

use crate::happen::Happening;
use crate::stage::Stage;
use crate::world::FakeHost;

impl Stage {
    pub(crate) fn effect(&mut self, process: usize, kind: ActionKind) -> Reply {
        let side = kind.side();
        let now_ms = self.now_ms;
        if self.world.host(side).down_until_ms > now_ms {
            let text = format!("the {} can't be reached", side.as_str());
            return Reply::Failed(Failure::new(FailureKind::Unreachable, text));
        }
        let evacuation = self.evacuation(process);
        let result = match kind {
            ActionKind::Observe { side } => {
                return Reply::Observed(Box::new(self.world.facts(side, now_ms)));
            }
            ActionKind::Claim { side, owner } => self.claim(side, &owner.token, Some(&*owner)),
            ActionKind::Unclaim { side, token } => self.claim(side, &token, None),
            ActionKind::Save { side, record } => {
                if self.is_in_other_hands(process, side) {
                    let text = format!("process {process} wrote over the record of another one");
                    self.world.violations.push(text);
                }
                let saved = self.save(side, Some(&record.progress));
                if saved.is_ok()
                    && record.progress.owner.is_none()
                    && let Some(after_ms) = self.world.script.taken_up_after_ms.take()
                {
                    self.at(now_ms + after_ms, Happening::TakeUp);
                }
                saved
            }
            ActionKind::Clear { side } => {
                if self.is_of_another(process, side) {
                    let text =
                        format!("process {process} removed the record of another evacuation");
                    self.world.violations.push(text);
                }
                self.save(side, None)
            }
            ActionKind::Attach { side, device } => self.world.attach(side, device, now_ms),
            ActionKind::ClaimVf { device } => {
                let claim = &mut self.world.host_mut(Side::Destination).claims[device];
                match claim {
                    Some(by) if *by != evacuation => {
                        Err(Failure::new(FailureKind::Refused, "the VF is taken"))
                    }
                    _ => {
                        *claim = Some(evacuation);
                        Ok(())
                    }
                }
            }
            ActionKind::CheckVf { device } => {
                match &self.world.host(Side::Destination).claims[device] {
                    Some(by) if *by != evacuation => {
                        Err(Failure::new(FailureKind::Refused, "the VF is taken"))
                    }
                    _ => Ok(()),
                }
            }
            ActionKind::ReleaseVfs => {
                for claim in &mut self.world.host_mut(Side::Destination).claims {
                    claim.take_if(|by| *by == evacuation);
                }
                Ok(())
            }
            ActionKind::Detach { device, .. } => self.world.detach(device).map(|after_ms| {
                let releases = self.world.devices[device].releases;
                if let Some(after_ms) = after_ms {
                    self.at(now_ms + after_ms, Happening::Released { device, releases });
                }
            }),
            ActionKind::Migrate => self.world.migrate(process, now_ms).map(|()| {
                self.at(now_ms + 50, Happening::Migration);
            }),
            ActionKind::ResumeMemory => self.world.resume_memory(process).map(|()| {
                self.at(now_ms + 50, Happening::Migration);
            }),
            ActionKind::Cancel => {
                if self.world.migration.is_some() {
                    self.world
                        .fail_migration(FailureKind::Cancelled, "cancelled");
                    Ok(())
                } else {
                    Err(Failure::new(
                        FailureKind::AlreadyGone,
                        "there is no migration",
                    ))
                }
            }
            ActionKind::Carry => self.world.carry(),
            ActionKind::Unpause { side } => {
                let host = self.world.host_mut(side);
                if host.state == DomainState::Paused {
                    host.state = DomainState::Running;
                }
                Ok(())
            }
            ActionKind::Guest { .. } => unreachable!("the guest is asked over its channel"),
        };
        match result {
            Ok(()) => Reply::Accepted,
            Err(failure) => Reply::Failed(failure),
        }
    }

    /// A migration keeps everybody from the domain's XML, as libvirt's job lock does.
    fn metadata(&mut self, side: Side) -> Result<&mut FakeHost, Failure> {
        if self.world.migration.is_some() {
            return Err(Failure::new(
                FailureKind::Other,
                "cannot acquire state change lock",
            ));
        }
        let host = self.world.host_mut(side);
        if host.state == DomainState::Absent {
            return Err(Failure::new(FailureKind::NoSuchDomain, "no such domain"));
        }
        Ok(host)
    }

    fn save(&mut self, side: Side, progress: Option<&Progress>) -> Result<(), Failure> {
        self.metadata(side)?.record = progress.map(Progress::to_text);
        Ok(())
    }

    /// The record of an evacuation that is not this process's stands there.
    pub(crate) fn is_of_another(&self, process: usize, side: Side) -> bool {
        let record = self.world.record(side);
        record.is_some_and(|record| record.evacuation != self.evacuation(process))
    }

    /// A process that cleans up finds the record of another evacuation there, or of a process that lives.
    fn is_in_other_hands(&self, process: usize, side: Side) -> bool {
        let cleans_up = self.processes[process].phase == Phase::Release;
        let record = self.world.record(side);
        let owner = record.and_then(|record| record.owner);
        let lives = |owner: Owner| {
            let mut others = self.processes.iter().enumerate();
            others.any(|(other, one)| other != process && one.drives_as(&owner.token))
        };
        cleans_up && (self.is_of_another(process, side) || owner.is_some_and(lives))
    }

    fn claim(&mut self, side: Side, token: &str, owner: Option<&Owner>) -> Result<(), Failure> {
        let rivals = &mut self.metadata(side)?.rivals;
        rivals.retain(|one| one.token != token);
        rivals.extend(owner.cloned());
        Ok(())
    }

    pub(crate) fn evacuation(&self, process: usize) -> String {
        let text = format!("evacuation {process}");
        let known = self.processes.get(process);
        known.map_or(text, |one| one.evacuation.clone())
    }
}
