//! The domain stays on the source, and its devices are put back.

use super::helpers::is_gone;
use super::step::{Next, Step, side_by_side};
use super::verify;
use crate::evacuate::action::{ActionKey, ActionKind};
use crate::evacuate::phase::Phase;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;

pub(super) fn next(it: &Evacuation) -> Next {
    let side = Side::Source;
    let end_ms = it.plugged_until_ms(it.limits.restore_ms);
    let late = it.now_ms >= end_ms;
    if late && it.view(side).is_failing() {
        return Ok(Step::End);
    }
    let facts = it.peek(side)?;
    if is_gone(facts) && it.notes.migration_begun {
        // It does not stay here, as it seemed: both hosts are asked anew.
        return Ok(Step::Go(Phase::Migrate));
    }
    if is_gone(facts) {
        return Ok(Step::Go(Phase::Verify));
    }
    let missing = it.missing(side);
    if missing.is_empty() {
        return Ok(still_there(it));
    }
    if late {
        it.is_certain()?;
        return Ok(Step::Go(Phase::Verify));
    }
    it.try_save(side, Stage::Restoring)?;
    let room = |device: usize| Err(it.attempt(ActionKind::Attach { side, device }));
    let failures = |device: usize| it.tries(ActionKey::Attach(side, device)).failures;
    let plugged = it.is_certain();
    let plugged = plugged.and_then(|()| side_by_side(missing.into_iter(), room, failures));
    verify::meanwhile(it, side, plugged)?;
    Ok(still_there(it))
}

/// An unplug that was asked for and not refused may happen any moment: it is given some
/// time, so that what is reported stays true.
fn still_there(it: &Evacuation) -> Step {
    let asked = it.devices().filter_map(|device| {
        it.vf_nic(Side::Source, device)?;
        it.notes.devices[device].unplug_asked_ms
    });
    let settled_ms = asked.max().map(|at| at + it.limits.unplug_settle_ms);
    match settled_ms {
        Some(at_ms) if it.now_ms < at_ms => it.wait(Side::Source, at_ms),
        _ => Step::Go(Phase::Verify),
    }
}
