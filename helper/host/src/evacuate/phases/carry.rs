//! The carry around a migration: begun before it, waited for after it, and needed by nothing.

use super::helpers::is_gone;
use super::step::Step;
use crate::evacuate::action::{ActionKey, ActionKind};
use crate::evacuate::carry::CarryNotes;
use crate::evacuate::input::SideFacts;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::hypervisor::DomainState;

/// Before the migration: the halves stand ready, or it is known why not.
pub(super) fn begin(it: &Evacuation) -> Result<(), Step> {
    match it.notes.carry {
        CarryNotes::Wanted => Err(Step::Do(ActionKind::Carry)),
        _ => Ok(()),
    }
}

/// After it: the halves hand on what the network still brings to the source, until it is quiet there.
pub(super) fn end(it: &Evacuation) -> Result<(), Step> {
    let until_ms = it.entered_ms.saturating_add(it.limits.carry_ms);
    let waits = it.notes.migration_begun && it.notes.carry == CarryNotes::UnderWay;
    if waits && it.now_ms < until_ms {
        return Err(Step::WaitUntil(until_ms));
    }
    Ok(())
}

/// The domain has arrived and stands still, as a carry's own stop leaves it. The carry has it run at once: who still stands
/// still after a while has nobody else. Nor has a domain whose evacuation is recovered; it ran when that began.
pub(super) fn is_stopped_on_arrival(
    it: &Evacuation,
    source: Option<&SideFacts>,
    destination: Option<&SideFacts>,
) -> bool {
    let paused = destination.is_some_and(|facts| facts.state == DomainState::Paused);
    paused && source.is_some_and(is_gone) && may_have_stopped_it(it)
}

/// Its stop may be a carry's.
fn may_have_stopped_it(it: &Evacuation) -> bool {
    let carried = !matches!(it.notes.carry, CarryNotes::NotWanted | CarryNotes::Wanted);
    it.notes.migration_begun && (carried || it.notes.recovery.is_some())
}

/// Has it run, once it has stood still for long enough.
pub(super) fn resume(it: &Evacuation) -> Step {
    let ended_ms = it.notes.migration_end.as_ref().map_or(0, |(_, at)| *at);
    let due_ms = ended_ms.saturating_add(it.limits.carry_resume_ms);
    let side = Side::Destination;
    if it.now_ms < due_ms {
        return it.wait(side, due_ms);
    }
    let due_ms = it.tries(ActionKey::Unpause(side)).next_ms;
    if it.now_ms < due_ms {
        return it.wait(side, due_ms);
    }
    Step::Do(ActionKind::Unpause { side })
}
