//! The guest lets go of its VFs, and all devices leave, side by side. Bounded, with the reason if one does not.

use super::helpers::is_gone;
use super::step::{Next, Step, side_by_side};
use crate::evacuate::action::{ActionKey, ActionKind, GuestCall};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::FailureKind;
use crate::evacuate::phase::Phase;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;

/// The guest moves its traffic off the VFs of all its bonds.
pub(super) fn prepare(it: &Evacuation) -> Next {
    let bonds = it.record.spec.of_bonds();
    side_by_side(bonds, |device| prepare_one(it, device), |_| 0)?;
    Ok(Step::Go(Phase::Unplug))
}

fn prepare_one(it: &Evacuation, device: usize) -> Result<(), Step> {
    if it.record.spec.devices[device].source.is_none() {
        return Ok(());
    }
    let call = GuestCall::PrepareUnplug(device);
    let tries = it.tries(ActionKey::Guest(call));
    let said_no = |kind| matches!(kind, FailureKind::AgentRefused | FailureKind::AgentHostile);
    if tries.accepted_ms.is_some() {
        return Ok(());
    }
    if let Some(failure) = &tries.last
        && failure.kind == FailureKind::AgentRefused
    {
        return Err(Step::Fail(Cause::of_agent(failure)));
    }
    // The guest is asked for one bond after the other.
    let bonds = it.record.spec.of_bonds().count() as u64;
    let late = it.in_phase_ms() >= it.limits.prepare_ms.saturating_mul(bonds);
    let hostile = tries.last.as_ref().is_some_and(|one| said_no(one.kind));
    if !it.asks_guest(call) || late || hostile {
        return match &tries.last {
            Some(failure) if !it.guest_is_optional() => Err(Step::Fail(Cause::of_agent(failure))),
            None if !it.guest_is_optional() => {
                let message = format!(
                    "the guest was not asked in time to release {}",
                    it.name(Side::Source, device)
                );
                Err(Step::Fail(Cause::new(CauseCode::AgentMissing, message)))
            }
            _ => Ok(()),
        };
    }
    it.save_first(Side::Source, Stage::Preparing)?;
    Err(it.call(Side::Source, call))
}

/// The devices leave. Only a look at the host shows that they have.
pub(super) fn next(it: &Evacuation) -> Next {
    let source = it.see(Side::Source, it.limits.unplug_ms)?;
    if is_gone(source) {
        let message = "the domain ended on the source while its devices were to be unplugged";
        return Ok(Step::Fail(Cause::new(CauseCode::Stopped, message)));
    }
    let requests = |device: usize| it.notes.devices[device].unplug_requests;
    side_by_side(it.devices(), |device| unplug_one(it, device), requests)?;
    Ok(Step::Go(Phase::Migrate))
}

fn unplug_one(it: &Evacuation, device: usize) -> Result<(), Step> {
    let Some(nic) = it.vf_nic(Side::Source, device) else {
        return Ok(());
    };
    let tries = it.tries(ActionKey::Detach(device));
    let notes = &it.notes.devices[device];
    let spent = notes.unplug_requests >= it.limits.unplug_requests;
    let refused = notes.unplug_asked_ms.is_none();
    // libvirt waits for the guest up to 5 s, so that one request goes after the other.
    let sources = it.record.spec.devices.iter();
    let sources = sources.filter(|one| one.source.is_some()).count() as u64;
    let end_ms = it.entered_ms + it.limits.unplug_ms.saturating_mul(sources.max(1));
    if it.now_ms >= end_ms || (spent && refused) {
        let last = tries.last.map(|one| one.message);
        return Err(Step::Fail(why(it, device, last)));
    }
    it.save_first(Side::Source, Stage::Unplugging)?;
    let due_ms = match notes.unplug_asked_ms {
        _ if spent => end_ms,
        Some(asked_ms) => asked_ms + it.limits.unplug_retry_ms,
        None => it.now_ms,
    };
    if it.now_ms < due_ms.max(tries.next_ms) {
        let due_ms = end_ms.min(due_ms.max(tries.next_ms));
        return Err(it.wait(Side::Source, due_ms));
    }
    let nic = Box::new(nic.clone());
    Err(Step::Do(ActionKind::Detach { device, nic }))
}

fn why(it: &Evacuation, device: usize, last: Option<String>) -> Cause {
    let vf = it.name(Side::Source, device);
    let notes = &it.notes.devices[device];
    if !notes.unplug_taken
        && let Some(last) = last
    {
        let message = format!("the hypervisor did not take the request to unplug {vf}: {last}");
        return Cause::new(CauseCode::UnplugFailed, message);
    }
    if notes.unplug_requests == 0 {
        let message = format!(
            "the hypervisor was not asked in time to unplug {vf}: the host is slow; give it longer by --unplug-timeout"
        );
        return Cause::new(CauseCode::UnplugFailed, message);
    }
    let heard = notes.unplug_heard;
    if heard == 0
        && let Some(last) = last
    {
        let message = format!(
            "it is not known whether the guest was ever asked to release {vf}; the hypervisor said last: {last}. The \
             guest may still release it later"
        );
        return Cause::new(CauseCode::UnplugFailed, message);
    }
    let refusals = notes.unplug_refusals;
    let last = last
        .map(|text| format!("; last: {text}"))
        .unwrap_or_default();
    if refusals > 0 {
        let message = format!(
            "the guest refused to release {vf} {refusals} times of {heard}{last}; look at the \
             guest's kernel log"
        );
        return Cause::new(CauseCode::UnplugRefused, message);
    }
    let seconds = it.in_phase_ms() / 1000;
    let message = format!(
        "the guest did not release {vf} within {seconds} s, asked {heard} times{last}; is its \
         hot-plug driver loaded? It may still release it later"
    );
    Cause::new(CauseCode::UnplugTimedOut, message)
}
