//! What an evacuation makes of its inputs: they change what is known, and decide nothing.

use super::action::{ActionId, ActionKind};
use super::carry::CarryNotes;
use super::input::{Failure, FailureKind, RecordFact, Reply, SideFacts};
use super::notes::{Beat, Issued, Saved};
use super::phase::Phase;
use super::spec::Side;
use super::state::Evacuation;
use crate::hypervisor::{DomainState, EventKind, JobFacts, JobPhase};

impl Evacuation {
    pub(super) fn abort(&mut self) {
        self.notes.aborted = true;
        // The guest may be waited for; a host's answer matters more than the time.
        let is_guest = |one: &Issued| matches!(one.kind, ActionKind::Guest { .. });
        if self.in_flight.as_ref().is_some_and(is_guest) {
            self.in_flight = None;
            self.outbox = None;
        }
    }

    pub(super) fn event(&mut self, side: Side, kind: &EventKind) {
        let pause_ms = self.limits.look_pause_ms;
        let now_ms = self.now_ms;
        if let Some(view) = self.views.get_mut(&side) {
            view.stirred(now_ms, pause_ms);
        }
        // The only news that no look shows.
        if let EventKind::UnplugRefused { alias } = kind
            && side == Side::Source
            && let Some(device) = self.device_of_alias(alias)
        {
            self.unplug_refused(device);
        }
    }

    /// The device that has this alias on the source.
    fn device_of_alias(&self, alias: &str) -> Option<usize> {
        let has = |device: &usize| {
            let nic = self.vf_nic(Side::Source, *device);
            nic.is_some_and(|nic| nic.alias == alias)
        };
        self.devices().find(has)
    }

    fn unplug_refused(&mut self, device: usize) {
        let notes = &mut self.notes.devices[device];
        if notes.unplug_asked_ms.take().is_some() {
            notes.unplug_refusals += 1;
            // It may be the only word of a request whose end is not known.
            notes.unplug_heard = notes.unplug_heard.max(notes.unplug_refusals);
        }
    }

    pub(super) fn migration_ended(&mut self, result: Result<(), Failure>) {
        self.notes
            .migration_end
            .get_or_insert((result, self.now_ms));
        self.touched(&Side::BOTH);
    }

    pub(super) fn touched(&mut self, sides: &[Side]) {
        for side in sides {
            if let Some(view) = self.views.get_mut(side) {
                view.touched(self.now_ms);
            }
        }
    }

    pub(super) fn done(&mut self, id: ActionId, reply: Reply) {
        let Some(busy) = self.in_flight.take_if(|busy| busy.id == id) else {
            return;
        };
        self.finish(busy, reply);
    }

    /// Judges the end of an action.
    pub(super) fn finish(&mut self, busy: Issued, reply: Reply) {
        let now_ms = self.now_ms;
        self.touched(busy.kind.touches());
        let key = busy.kind.key();
        let reply = settled(&busy.kind, reply);
        match (&busy.kind, &reply) {
            (ActionKind::Observe { side }, Reply::Observed(facts)) => {
                self.observed(*side, busy.issued_ms, facts);
            }
            (ActionKind::Observe { side }, Reply::Failed(failure)) => {
                if let Some(view) = self.views.get_mut(side) {
                    view.failed(now_ms, self.limits.look_every_ms, failure.clone());
                }
            }
            (ActionKind::Guest { .. }, Reply::Status(told)) => {
                for device in self.devices() {
                    self.notes.devices[device].guest = told.get(&device).cloned();
                }
            }
            // After a change, or a silence, what the guest said before is no news of now.
            (ActionKind::Guest { .. }, reply)
                if self.phase == Phase::Verify && !is_refusal_of_guest(reply) =>
            {
                for notes in &mut self.notes.devices {
                    notes.guest = None;
                }
                self.notes.guest_silence = match reply {
                    Reply::Failed(failure) => Some(failure.message.clone()),
                    _ => None,
                };
            }
            (ActionKind::Save { side, record }, Reply::Accepted) => {
                let saved = Saved {
                    stage: record.progress.stage,
                    migration_begun: record.progress.migration_begun,
                    at_ms: now_ms,
                };
                self.saved.insert(*side, saved);
                if matches!(self.phase, Phase::Claim | Phase::Takeover) {
                    self.notes.claimed = Some(*side);
                }
            }
            (ActionKind::Unclaim { side, token }, Reply::Accepted) => {
                self.unclaimed(*side, token);
            }
            (ActionKind::Clear { side }, _) => {
                self.saved.remove(side);
                if reply == Reply::Accepted {
                    self.notes.cleared.push(*side);
                } else if let Some(view) = self.views.get_mut(side) {
                    // It may be gone all the same, and another evacuation's be there by now.
                    view.look_anew(now_ms);
                }
            }
            (ActionKind::Detach { device, .. }, Reply::Accepted) => {
                self.notes.devices[*device].unplug_taken = true;
                self.notes.devices[*device].unplug_heard += 1;
            }
            (ActionKind::ReleaseVfs, Reply::Accepted) => self.notes.vf_claimed = false,
            (ActionKind::Detach { device, .. }, Reply::Failed(failure))
                if failure.kind == FailureKind::UnplugRefused =>
            {
                self.notes.devices[*device].unplug_taken = true;
                self.notes.devices[*device].unplug_heard += 1;
                self.unplug_refused(*device);
            }
            (ActionKind::Detach { device, .. }, Reply::Failed(failure))
                if failure.effect_unknown() =>
            {
                self.notes.devices[*device].unplug_taken = true;
            }
            (ActionKind::Detach { device, .. }, Reply::Failed(failure))
                if !self.notes.devices[*device].unplug_taken =>
            {
                // The hypervisor has asked nobody, so nothing can follow.
                self.notes.devices[*device].unplug_asked_ms = None;
                self.notes.devices[*device].unplug_last_ms = None;
            }
            (ActionKind::Attach { device, .. }, Reply::Accepted) => {
                let took_ms = now_ms.saturating_sub(busy.issued_ms);
                self.notes.devices[*device].plug_ms = Some(took_ms);
            }
            (ActionKind::Attach { device, .. }, Reply::Failed(failure)) => {
                let notes = &mut self.notes.devices[*device];
                notes.plug_failure = Some(failure.message.clone());
                if failure.effect_unknown() {
                    let unheard = (busy.kind.side(), busy.issued_ms);
                    notes.plug_unheard.get_or_insert(unheard);
                }
            }
            (ActionKind::Carry, Reply::Accepted) => self.notes.carry = CarryNotes::UnderWay,
            (ActionKind::Carry, Reply::Failed(failure)) => {
                self.notes.carry = CarryNotes::without(failure.message.clone());
            }
            (ActionKind::Migrate, Reply::Failed(failure)) if !failure.effect_unknown() => {
                self.migration_ended(Err(failure.clone()));
            }
            // Nobody tells the end of one whose start was not heard of, and a look shows whether it has to be repeated.
            (ActionKind::ResumeMemory, Reply::Failed(failure)) => {
                self.migration_ended(Err(failure.clone()));
            }
            _ => {}
        }
        if let Reply::Failed(failure) = &reply
            && failure.effect_unknown()
            && busy.kind.changes()
        {
            self.notes.doubt_until_ms = now_ms + self.limits.settle_ms;
            match busy.kind {
                ActionKind::Save { .. } | ActionKind::Claim { .. } => {
                    self.notes.record_doubt_until_ms = self.notes.doubt_until_ms;
                }
                ActionKind::Unclaim { .. } => {
                    self.notes.claim_doubt_until_ms = self.notes.doubt_until_ms;
                }
                _ => {}
            }
        }
        let tries = self.tries.entry(key).or_default();
        match reply {
            Reply::Failed(failure) => tries.failed(now_ms, failure, &self.limits),
            _ => tries.accepted(now_ms),
        }
    }

    fn observed(&mut self, side: Side, asked_ms: u64, facts: &SideFacts) {
        let every_ms = self.limits.look_every_ms;
        let tells_job = side == Side::Source || facts.job.phase == JobPhase::Completed;
        if tells_job && facts.job != JobFacts::default() {
            self.notes.job = Some(facts.job);
        }
        if self.is_foreign(side, facts) {
            self.notes.superseded = true;
        }
        if let Some(view) = self.views.get_mut(&side) {
            view.saw(asked_ms, self.now_ms, every_ms, facts.clone());
        }
        for device in self.devices() {
            let is_there = self.vf_nic(side, device).is_some();
            let notes = &mut self.notes.devices[device];
            if is_there {
                notes.plug_failure = None;
                if let Some((_, asked_ms)) = notes.plug_unheard.filter(|(at, _)| *at == side) {
                    let took_ms = self.now_ms.saturating_sub(asked_ms);
                    notes.plug_ms.get_or_insert(took_ms);
                }
            } else if side == Side::Source {
                notes.unplug_asked_ms = None;
                notes.unplug_last_ms = None;
            }
        }
        self.note_beat(side, facts);
        self.note_rivals(side, facts);
    }

    fn unclaimed(&mut self, side: Side, token: &str) {
        let owner = self.record.progress.owner.as_ref();
        if owner.is_some_and(|owner| owner.token == token) {
            self.notes.claim = None;
        } else {
            self.notes.rivals_removed += 1;
        }
        let view = self.views.get_mut(&side);
        if let Some(facts) = view.and_then(|view| view.facts.as_mut()) {
            facts.claims.retain(|claim| claim.token != token);
        }
    }

    fn note_rivals(&mut self, side: Side, facts: &SideFacts) {
        let there = |token: &str| facts.claims.iter().any(|claim| claim.token == token);
        let rivals = &mut self.notes.rivals;
        rivals.retain(|(at, token), _| *at != side || there(token));
        for claim in &facts.claims {
            let rival = (side, claim.token.clone());
            rivals.entry(rival).or_insert(self.now_ms);
        }
    }

    /// Another process wrote or removed the record after we wrote it.
    fn is_foreign(&self, side: Side, facts: &SideFacts) -> bool {
        let is_there = matches!(facts.state, DomainState::Running | DomainState::Paused);
        let deciding = matches!(self.phase, Phase::Claim | Phase::Takeover | Phase::Release);
        if !is_there || deciding || !self.saved.contains_key(&side) {
            return false;
        }
        match &facts.record {
            RecordFact::Present(record) => !self.is_ours(record),
            RecordFact::Absent => true,
            RecordFact::Unreadable(_) => true,
        }
    }

    fn note_beat(&mut self, side: Side, facts: &SideFacts) {
        let RecordFact::Present(record) = &facts.record else {
            return;
        };
        let now_ms = self.now_ms;
        let is_ours = self.is_ours(record);
        if let Some(recovery) = self.notes.recovery.as_mut().filter(|_| !is_ours) {
            let known = recovery.beats.get(&side).copied();
            recovery.owner_lives |= known.is_some_and(|known| record.beat > known.beat);
            let is_left = recovery.is_left(record);
            if known.is_none_or(|known| record.beat > known.beat || is_left != known.is_left) {
                let beat = Beat {
                    beat: record.beat,
                    is_left,
                    since_ms: now_ms,
                };
                recovery.beats.insert(side, beat);
            }
        }
    }
}

fn is_refusal_of_guest(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(failure) if failure.kind == FailureKind::AgentRefused)
}

/// A failure that says that what was wanted is so already. Not so of a device that shall come: only a look shows
/// that it is there, and where none does, another one is in its way.
fn settled(kind: &ActionKind, reply: Reply) -> Reply {
    let Reply::Failed(failure) = &reply else {
        return reply;
    };
    let is_so = match kind {
        ActionKind::Detach { .. } => failure.kind == FailureKind::AlreadyGone,
        ActionKind::Cancel | ActionKind::Clear { .. } | ActionKind::Unclaim { .. } => matches!(
            failure.kind,
            FailureKind::AlreadyGone | FailureKind::NoSuchDomain
        ),
        _ => false,
    };
    if is_so { Reply::Accepted } else { reply }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_said_to_be_there_already_has_to_be_seen() {
        let reply = |kind| Reply::Failed(Failure::new(kind, "it is so"));
        let side = Side::Source;
        let attach = ActionKind::Attach { side, device: 0 };
        let there = reply(FailureKind::AlreadyThere);
        assert_eq!(settled(&attach, there.clone()), there);
        let gone = reply(FailureKind::AlreadyGone);
        assert_eq!(settled(&ActionKind::Clear { side }, gone), Reply::Accepted);
    }
}
