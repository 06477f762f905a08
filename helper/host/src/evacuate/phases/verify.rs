//! The guest takes its VFs into use. What it says only goes into the report.

use super::helpers::is_there;
use super::step::{Next, Step, side_by_side};
use crate::evacuate::action::{ActionKey, GuestCall};
use crate::evacuate::input::FailureKind;
use crate::evacuate::phase::Phase;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::evacuate::tries::Tries;

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
    if !it.record.spec.asks_guest(side) || !it.has_bonds() || late {
        return Ok(Step::Go(Phase::Release));
    }
    sign_of_life(it, side)?;
    let bonds = || it.record.spec.of_bonds();
    let failures = |device: usize| resumed(it, device).failures;
    if it.notes.aborted && bonds().any(|device| failures(device) > 0 && !has_answered(it, device)) {
        return Ok(Step::Go(Phase::Release));
    }
    side_by_side(bonds(), |device| resume(it, side, device), failures)?;
    let tries = it.tries(ActionKey::Guest(GuestCall::Status));
    // Who wants to leave waits for one answer, and for no better one.
    let asked = tries.accepted_ms.is_some() || tries.failures > 0;
    let attached: Vec<usize> = bonds()
        .filter(|device| it.vf_nic(side, *device).is_some())
        .collect();
    if attached.is_empty() || (it.notes.aborted && asked) {
        return Ok(Step::Go(Phase::Release));
    }
    let Some(told_ms) = tries.accepted_ms else {
        return Ok(it.call(side, GuestCall::Status));
    };
    let guest = |device: usize| it.notes.devices[device].guest.as_ref();
    let is_used = |device: &usize| guest(*device).is_some_and(|guest| guest.vf_active);
    if attached.iter().all(is_used) {
        return Ok(Step::Go(Phase::Release));
    }
    // A guest that booted anew has forgotten the bonds that the host gave it.
    let configured = it.tries(ActionKey::Guest(GuestCall::Configure)).accepted_ms;
    let lacks_bond = bonds().any(|device| guest(device).is_some_and(|guest| !guest.bond_known));
    if it.record.spec.configure && lacks_bond && configured.is_none_or(|at| at < told_ms) {
        return Ok(it.call(side, GuestCall::Configure));
    }
    let refused = |device: &usize| {
        let resumed = resumed(it, *device);
        resumed.accepted_ms.is_none() && it.now_ms >= resumed.next_ms
    };
    if let Some(device) = bonds().find(refused) {
        return Ok(it.call(side, GuestCall::Resume(device)));
    }
    let again_ms = told_ms + it.limits.look_every_ms;
    if it.now_ms < again_ms {
        return Ok(Step::WaitUntil(again_ms));
    }
    Ok(it.call(side, GuestCall::Status))
}

fn resumed(it: &Evacuation, device: usize) -> Tries {
    it.tries(ActionKey::Guest(GuestCall::Resume(device)))
}

/// It answered; a refusal too: its status tells whether it lacks the bond, as after a boot.
fn has_answered(it: &Evacuation, device: usize) -> bool {
    let resumed = resumed(it, device);
    let last = resumed.last.as_ref();
    let refused = last.is_some_and(|failure| failure.kind == FailureKind::AgentRefused);
    resumed.accepted_ms.is_some() || refused
}

/// While a device is waited for, the guest may take those that are there. It is asked once, and again in its
/// phase.
pub(super) fn meanwhile(
    it: &Evacuation,
    side: Side,
    plugged: Result<(), Step>,
) -> Result<(), Step> {
    let waits = matches!(plugged, Err(Step::WaitUntil(_)));
    if waits && !it.notes.aborted && it.record.spec.asks_guest(side) {
        let due = |device: &usize| {
            let tries = resumed(it, *device);
            let asked = tries.accepted_ms.is_some() || tries.failures > 0;
            let leaves =
                side == Side::Source && it.notes.devices[*device].unplug_asked_ms.is_some();
            !asked && !leaves && it.vf_nic(side, *device).is_some()
        };
        if let Some(device) = it.record.spec.of_bonds().find(due) {
            return Err(it.call(side, GuestCall::Resume(device)));
        }
    }
    plugged
}

/// A bond's guest may take its VF again.
fn resume(it: &Evacuation, side: Side, device: usize) -> Result<(), Step> {
    if has_answered(it, device) {
        return Ok(());
    }
    Err(it.call(side, GuestCall::Resume(device)))
}
