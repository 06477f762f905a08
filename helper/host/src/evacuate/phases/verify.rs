//! The guest takes the VF into use. What it says only goes into the report.

use super::helpers::is_there;
use super::{Next, Phase, Step};
use crate::evacuate::action::{GuestCall, Task};
use crate::evacuate::input::FailureKind;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;

/// The record is written anew while the guest is waited for, so that nobody takes this process for dead.
fn sign_of_life(it: &Evacuation, side: Side) -> Result<(), Step> {
    let stage = match side {
        Side::Source => Stage::Restoring,
        Side::Destination => Stage::Plugging,
    };
    let is_here = it.view(side).facts.as_ref().is_some_and(is_there);
    match it.try_save(side, stage) {
        Err(save @ Step::Do(_)) if is_here => Err(save),
        _ => Ok(()),
    }
}

/// A guest that boots may be silent for long; the phase's limit ends it.
pub(super) fn next(it: &Evacuation) -> Next {
    let side = it.notes.residence.unwrap_or(Side::Source);
    let late = it.in_phase_ms() >= it.limits.verify_ms;
    if !it.record.spec.asks_guest(side) || late {
        return Ok(Step::Go(Phase::Release));
    }
    sign_of_life(it, side)?;
    let resumed = it.tries(Task::Guest(GuestCall::Resume));
    // It answers: its status tells whether it lacks the bond, as after a boot.
    let refused = resumed.last.as_ref();
    let refused = refused.is_some_and(|failure| failure.kind == FailureKind::AgentRefused);
    if resumed.accepted_ms.is_none() && !refused {
        if it.notes.aborted && resumed.failures > 0 {
            return Ok(Step::Go(Phase::Release));
        }
        return Ok(it.call(side, GuestCall::Resume));
    }
    let tries = it.tries(Task::Guest(GuestCall::Status));
    // Who wants to leave waits for one answer, and for no better one.
    let asked = tries.accepted_ms.is_some() || tries.failures > 0;
    if it.vf_nic(side).is_none() || (it.notes.aborted && asked) {
        return Ok(Step::Go(Phase::Release));
    }
    let Some(told_ms) = tries.accepted_ms else {
        return Ok(it.call(side, GuestCall::Status));
    };
    let guest = it.notes.guest.as_ref();
    if guest.is_some_and(|guest| guest.vf_active) {
        return Ok(Step::Go(Phase::Release));
    }
    // A guest that booted anew has forgotten the bond that the host gave it.
    let configured = it.tries(Task::Guest(GuestCall::Configure)).accepted_ms;
    let lacks_bond = guest.is_some_and(|guest| !guest.bond_known);
    if it.record.spec.configure && lacks_bond && configured.is_none_or(|at| at < told_ms) {
        return Ok(it.call(side, GuestCall::Configure));
    }
    if refused && it.now_ms >= resumed.next_ms {
        return Ok(it.call(side, GuestCall::Resume));
    }
    let again_ms = told_ms + it.limits.look_every_ms;
    if it.now_ms < again_ms {
        return Ok(Step::WaitUntil(again_ms));
    }
    Ok(it.call(side, GuestCall::Status))
}
