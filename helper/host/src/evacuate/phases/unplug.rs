//! The guest lets go of the VF, and the VF leaves. Bounded, with the reason if it does not.

use super::helpers::is_gone;
use super::{Next, Phase, Step};
use crate::evacuate::action::{ActionKind, GuestCall, Task};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::FailureKind;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;

/// The guest moves its traffic off the VF.
pub(super) fn prepare(it: &Evacuation) -> Next {
    if it.record.spec.source_vf.is_none() {
        return Ok(Step::Go(Phase::Unplug));
    }
    let call = GuestCall::PrepareUnplug;
    let tries = it.tries(Task::Guest(call));
    let said_no = |kind| matches!(kind, FailureKind::AgentRefused | FailureKind::AgentHostile);
    if tries.accepted_ms.is_some() {
        return Ok(Step::Go(Phase::Unplug));
    }
    if let Some(failure) = &tries.last
        && failure.kind == FailureKind::AgentRefused
    {
        return Ok(Step::Fail(Cause::of_agent(failure)));
    }
    let late = it.in_phase_ms() >= it.limits.prepare_ms;
    let hostile = tries.last.as_ref().is_some_and(|one| said_no(one.kind));
    if !it.asks_guest(call) || late || hostile {
        return match &tries.last {
            Some(failure) if !it.guest_is_optional() => Ok(Step::Fail(Cause::of_agent(failure))),
            _ => Ok(Step::Go(Phase::Unplug)),
        };
    }
    it.save_first(Side::Source, Stage::Preparing)?;
    Ok(it.call(Side::Source, call))
}

/// The VF leaves. Only a look at the host shows that it has.
pub(super) fn next(it: &Evacuation) -> Next {
    let source = it.see(Side::Source, it.limits.unplug_ms)?;
    if is_gone(source) {
        let message = "the domain ended on the source while its VF was to be unplugged";
        return Ok(Step::Fail(Cause::new(CauseCode::Stopped, message)));
    }
    let Some(nic) = it.vf_nic(Side::Source) else {
        return Ok(Step::Go(Phase::Migrate));
    };
    let tries = it.tries(Task::Detach);
    let spent = it.notes.unplug_requests >= it.limits.unplug_requests;
    let refused = it.notes.unplug_asked_ms.is_none() && it.notes.unplug_refusals > 0;
    let end_ms = it.entered_ms + it.limits.unplug_ms;
    if it.now_ms >= end_ms || (spent && refused) {
        return Ok(Step::Fail(why(it, tries.last.map(|one| one.message))));
    }
    it.save_first(Side::Source, Stage::Unplugging)?;
    let due_ms = match it.notes.unplug_asked_ms {
        _ if spent => end_ms,
        Some(asked_ms) => asked_ms + it.limits.unplug_retry_ms,
        None if refused => it.now_ms,
        None => it.now_ms,
    };
    if it.now_ms < due_ms.max(tries.next_ms) {
        return Ok(it.wait(Side::Source, end_ms.min(due_ms.max(tries.next_ms))));
    }
    let nic = Box::new(nic.clone());
    Ok(Step::Do(ActionKind::Detach { nic }))
}

fn why(it: &Evacuation, last: Option<String>) -> Cause {
    let vf = it.record.spec.source_vf.as_ref();
    let vf = vf.map(|vf| vf.identity.describe()).unwrap_or_default();
    let requests = it.notes.unplug_requests;
    let refusals = it.notes.unplug_refusals;
    let last = last
        .map(|text| format!("; last: {text}"))
        .unwrap_or_default();
    if refusals > 0 {
        let message = format!(
            "the guest refused to release {vf} {refusals} times of {requests}{last}; look at the \
             guest's kernel log"
        );
        return Cause::new(CauseCode::UnplugRefused, message);
    }
    let seconds = it.in_phase_ms() / 1000;
    let message = format!(
        "the guest did not release {vf} within {seconds} s, asked {requests} times{last}; is its \
         hot-plug driver loaded? It may still release it later"
    );
    Cause::new(CauseCode::UnplugTimedOut, message)
}
