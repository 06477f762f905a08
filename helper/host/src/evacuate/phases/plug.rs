//! On the destination: from here on the domain stays there, whatever happens.

use super::helpers::is_gone;
use super::{Next, Phase, Step};
use crate::evacuate::action::{ActionKind, GuestCall, Task};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::evacuate::view::has_job;
use crate::hypervisor::DomainState;

/// The network learns where the guest is. The guest says so by itself too, so this is no must, and a guest
/// that is silent, such as one that boots, does not keep its VF waiting for long.
pub(super) fn announce(it: &Evacuation) -> Next {
    let call = GuestCall::Announce;
    let tries = it.tries(Task::Guest(call));
    let tried = tries.accepted_ms.is_some() || tries.failures > 0;
    if !tried && !it.notes.aborted && it.record.spec.asks_guest(Side::Destination) {
        return Ok(it.call(Side::Destination, call));
    }
    memory_has_come(it)?;
    Ok(Step::Go(Phase::Plug))
}

pub(super) fn next(it: &Evacuation) -> Next {
    let side = Side::Destination;
    let end_ms = it.entered_ms + it.limits.plug_ms;
    let tries = it.tries(Task::Attach(side));
    let late = it.now_ms >= end_ms || it.notes.aborted;
    if late && it.view(side).is_failing() {
        return Ok(Step::End);
    }
    let facts = it.peek(side)?;
    if is_gone(facts) {
        return Ok(Step::Go(Phase::Release));
    }
    if it.vf_nic(side).is_some() || it.record.spec.destination_vf.is_none() {
        return Ok(Step::Go(Phase::Verify));
    }
    if late && tries.failures > 0 {
        it.is_certain()?;
    }
    if late {
        let last = tries.last.map(|failure| failure.message);
        return Ok(Step::Fail(why(it, last)));
    }
    if facts.state != DomainState::Running {
        return Ok(it.wait(side, end_ms));
    }
    it.try_save(side, Stage::Plugging)?;
    it.is_certain()?;
    Ok(it.attempt(ActionKind::Attach { side }))
}

/// After a switch to post-copy the guest runs here and its memory still comes: leaving now
/// would end the guest, and nothing can be plugged in before that is over.
fn memory_has_come(it: &Evacuation) -> Result<(), Step> {
    let source = it.view(Side::Source);
    let came = matches!(it.notes.migration_end, Some((Ok(()), _)));
    if came || source.failing_for_ms() >= it.limits.unclear_ms {
        return Ok(());
    }
    if !has_job(it.peek(Side::Source)?) {
        return Ok(());
    }
    if it.in_phase_ms() >= it.limits.migrate_ms {
        // It goes on without us; a recovery plugs the VF in once it is over.
        return Err(Step::End);
    }
    Err(it.wait(Side::Source, source.next_look_ms))
}

fn why(it: &Evacuation, last: Option<String>) -> Cause {
    let vf = it.record.spec.destination_vf.as_ref();
    let vf = vf.map(|vf| vf.identity.describe()).unwrap_or_default();
    if it.notes.aborted {
        let message =
            format!("the operator stopped it before {vf} was plugged in on the destination");
        return Cause::new(CauseCode::Aborted, message);
    }
    let last = last.unwrap_or_else(|| "it was not tried long enough".to_owned());
    let message = format!("{vf} could not be plugged in on the destination: {last}");
    Cause::new(CauseCode::PlugFailed, message)
}
