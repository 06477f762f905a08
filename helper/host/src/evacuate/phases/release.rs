//! A last look, for the report; then claims and record are removed.

use super::carry;
use super::helpers::is_there;
use super::step::{Next, Step};
use crate::evacuate::action::{ActionKey, ActionKind};
use crate::evacuate::input::RecordFact;
use crate::evacuate::phase::Phase;
use crate::evacuate::progress::{Progress, Stage};
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::evacuate::tries::Tries;

/// Tries at cleaning up; what is left behind is reported.
const FAILURES: u32 = 3;
/// Times that a VF which leaves late is put back.
const RESTORES: u32 = 2;

pub(super) fn next(it: &Evacuation) -> Next {
    carry::end(it)?;
    // The time that the carry took does not count.
    let begun_ms = it.notes.carry_over_ms.unwrap_or(0).max(it.entered_ms);
    let late = it.now_ms >= begun_ms + it.limits.release_ms;
    let home = it.notes.residence.unwrap_or(Side::Source);
    if it.in_phase_ms() < it.limits.settle_ms {
        // What timed out may still take effect, and the report shall be true.
        it.is_certain()?;
    }
    if !has_looked(it, home) {
        if late {
            return Ok(Step::End);
        }
        return Ok(it.look(home));
    }
    if vf_left_late(it, home) {
        return Ok(Step::Go(Phase::Restore));
    }
    release_vf(it)?;
    it.clear_claims(home)?;
    clear(it, other(home), home)?;
    if it.keeps_record() {
        keep(it, home)?;
    } else {
        clear(it, home, home)?;
    }
    Ok(Step::End)
}

fn has_looked(it: &Evacuation, side: Side) -> bool {
    let view = it.view(side);
    view.looked_anew && !view.is_failing()
}

/// An unplug that was given up happened after all. Not if another evacuation may have begun since: the record is its own by
/// then, or was removed as far as anybody knows.
fn vf_left_late(it: &Evacuation, home: Side) -> bool {
    let Some(facts) = it.view(home).facts.as_ref() else {
        return false;
    };
    let is_ours = match &facts.record {
        RecordFact::Present(record) => it.is_of_this_evacuation(record),
        _ => [ActionKey::Clear(home), ActionKey::Save(home)]
            .iter()
            .all(|key| it.tries(*key).failures == 0),
    };
    let mut missing = it.missing(home).into_iter();
    let left = missing.any(|device| it.notes.devices[device].was_back);
    home == Side::Source && is_there(facts) && is_ours && it.notes.restores < RESTORES && left
}

fn release_vf(it: &Evacuation) -> Result<(), Step> {
    let tries = it.tries(ActionKey::ReleaseVfs);
    if !it.notes.vf_claimed || tries.failures >= FAILURES {
        return Ok(());
    }
    Err(it.attempt(ActionKind::ReleaseVfs))
}

/// The domain runs without a device, which a recovery may plug in: nobody owns that now.
fn keep(it: &Evacuation, home: Side) -> Result<(), Step> {
    let tries = it.tries(ActionKey::Save(home));
    if tries.accepted_ms.is_some() || tries.failures >= FAILURES {
        return Ok(());
    }
    if tries.failures > 0 {
        // A recovery begins as soon as it sees a record without an owner.
        is_seen_since(it, home, &tries)?;
    }
    let is_kept = match it.view(home).facts.as_ref().map(|facts| &facts.record) {
        Some(RecordFact::Present(record)) => {
            let goes_on = tries.failures > 0 && record.beat > it.record.progress.beat;
            goes_on || it.is_handed_on(record) || !it.is_of_this_evacuation(record)
        }
        Some(RecordFact::Unreadable(_)) => true,
        Some(RecordFact::Absent) | None => false,
    };
    if is_kept {
        return Ok(());
    }
    let mut record = Box::new(it.record_at(Stage::Degraded));
    record.progress.owner = None;
    Err(it.attempt(ActionKind::Save { side: home, record }))
}

/// What timed out has taken effect by then, or never will; only a look of then tells whose record is there.
fn is_seen_since(it: &Evacuation, side: Side, tries: &Tries) -> Result<(), Step> {
    it.is_certain()?;
    if it.now_ms < tries.next_ms {
        return Err(Step::WaitUntil(tries.next_ms));
    }
    it.peek(side).map(|_| ())
}

fn clear(it: &Evacuation, side: Side, home: Side) -> Result<(), Step> {
    let tries = it.tries(ActionKey::Clear(side));
    if tries.accepted_ms.is_some() || tries.failures >= FAILURES {
        return Ok(());
    }
    let view = it.view(side);
    if !has_looked(it, side) {
        let gives_up = view.is_failing() && it.in_phase_ms() >= it.limits.unreachable_ms;
        return if gives_up { Ok(()) } else { Err(it.look(side)) };
    }
    if side != home && view.facts.as_ref().is_some_and(is_there) {
        // Whoever goes on with the domain there needs it.
        return Ok(());
    }
    match view.facts.as_ref().map(|facts| &facts.record) {
        Some(RecordFact::Present(record)) if it.is_of_this_evacuation(record) => {
            if tries.failures > 0 {
                is_seen_since(it, side, &tries)?;
            }
            Err(it.attempt(ActionKind::Clear { side }))
        }
        _ => Ok(()),
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Source => Side::Destination,
        Side::Destination => Side::Source,
    }
}

impl Evacuation {
    /// A last look at that host was made for the report.
    pub(in crate::evacuate) fn has_last_look(&self, side: Side) -> bool {
        self.phase == Phase::Release && has_looked(self, side)
    }

    /// The domain runs without a device that it should have there.
    pub(in crate::evacuate) fn keeps_record(&self) -> bool {
        let Some(home) = self.notes.residence else {
            return false;
        };
        let runs = self.view(home).facts.as_ref().is_some_and(is_there);
        let began = self.notes.touched || self.notes.recovery.is_some();
        runs && began && !self.missing(home).is_empty()
    }

    /// Our record, that of a domain without a device, which nobody owns any more.
    pub(in crate::evacuate) fn is_handed_on(&self, record: &Progress) -> bool {
        let is_left = record.owner.is_none() && record.stage == Stage::Degraded;
        is_left && record.evacuation == self.record.progress.evacuation
    }

    /// Our own record, or what a process that was killed left of it.
    pub(in crate::evacuate) fn is_of_this_evacuation(&self, record: &Progress) -> bool {
        let took_over = self.notes.recovery.is_some()
            && (self.notes.claimed.is_some() || self.notes.residence.is_none());
        self.is_ours(record) || (took_over && record.evacuation == self.record.progress.evacuation)
    }
}
