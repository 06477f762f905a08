//! On the destination: from here on the domain stays there, whatever happens.

use super::helpers::is_gone;
use super::step::{Next, Step, side_by_side};
use super::verify;
use crate::evacuate::action::{ActionKey, ActionKind, GuestCall};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::{Failure, FailureKind, SideFacts};
use crate::evacuate::phase::Phase;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::evacuate::view::has_job;
use crate::hypervisor::{DomainState, JobPhase};

/// The network learns where the guest is. The guest says so by itself too, so this is no must, and a guest
/// that is silent, such as one that boots, does not keep its VFs waiting for long.
pub(super) fn announce(it: &Evacuation) -> Next {
    let tries = |device: usize| it.tries(ActionKey::Guest(GuestCall::Announce(device)));
    // One that says no of a bond is asked for the others all the same.
    let is_silence = |last: &Failure| last.kind != FailureKind::AgentRefused;
    let mut bonds = it.record.spec.of_bonds();
    let silent = bonds.any(|device| tries(device).last.as_ref().is_some_and(is_silence));
    let due = |device: &usize| {
        let tries = tries(*device);
        tries.accepted_ms.is_none() && tries.failures == 0
    };
    let next = it.record.spec.of_bonds().find(due).filter(|_| !silent);
    if let Some(device) = next
        && !it.notes.aborted
        && it.record.spec.asks_guest(Side::Destination)
    {
        return Ok(it.call(Side::Destination, GuestCall::Announce(device)));
    }
    memory_has_come(it)?;
    Ok(Step::Go(Phase::Plug))
}

pub(super) fn next(it: &Evacuation) -> Next {
    let side = Side::Destination;
    let end_ms = it.plugged_until_ms(it.limits.plug_ms);
    let late = it.now_ms >= end_ms || it.notes.aborted;
    if late && it.view(side).is_failing() {
        return Ok(Step::End);
    }
    let facts = it.peek(side)?;
    if is_gone(facts) {
        return Ok(Step::Go(Phase::Release));
    }
    let missing = it.missing(side);
    if missing.is_empty() {
        return Ok(Step::Go(Phase::Verify));
    }
    let failures = |device: usize| it.tries(ActionKey::Attach(side, device)).failures;
    if late && missing.iter().any(|device| failures(*device) > 0) {
        it.is_certain()?;
    }
    if late {
        return Ok(Step::Fail(why(it, &missing)));
    }
    if facts.state != DomainState::Running {
        return Ok(it.wait(side, end_ms));
    }
    it.try_save(side, Stage::Plugging)?;
    let room = |device: usize| Err(it.attempt(ActionKind::Attach { side, device }));
    let plugged = it.is_certain();
    let plugged = plugged.and_then(|()| side_by_side(missing.into_iter(), room, failures));
    verify::meanwhile(it, side, plugged)?;
    Ok(Step::Go(Phase::Verify))
}

/// After a switch to post-copy the guest runs here and its memory still comes: leaving now
/// would end the guest, and nothing can be plugged in before that is over.
fn memory_has_come(it: &Evacuation) -> Result<(), Step> {
    let source = it.view(Side::Source);
    let came = matches!(it.notes.migration_end, Some((Ok(()), _)));
    if came || source.failing_for_ms() >= it.limits.unclear_ms {
        return Ok(());
    }
    let facts = it.peek(Side::Source)?;
    if !has_job(facts) {
        return Ok(());
    }
    if it.in_phase_ms() >= it.limits.migrate_ms {
        // It goes on without us; a recovery plugs the VF in once it is over.
        return Err(Step::End);
    }
    resume_memory(it, facts)?;
    Err(it.wait(Side::Source, source.next_look_ms))
}

/// A post-copy whose connection is gone leaves half of the guest's memory on either host: nothing but going on with it
/// helps, and that is tried until there is a way again.
pub(super) fn resume_memory(it: &Evacuation, source: &SideFacts) -> Result<(), Step> {
    if source.job.phase != JobPhase::PostCopyBroken {
        return Ok(());
    }
    let ended = it.notes.migration_end.as_ref().map(|(_, at_ms)| *at_ms);
    let begun = it.tries(ActionKey::ResumeMemory).accepted_ms.is_some();
    let due_ms = match ended {
        Some(at_ms) => at_ms + it.limits.resume_every_ms,
        // What was begun last has not said anything yet.
        None if begun || it.notes.recovery.is_none() => return Ok(()),
        None => it.now_ms,
    };
    if it.now_ms < due_ms {
        return Err(it.wait(Side::Source, due_ms));
    }
    Err(it.attempt(ActionKind::ResumeMemory))
}

fn why(it: &Evacuation, missing: &[usize]) -> Cause {
    let side = Side::Destination;
    if it.notes.aborted {
        let message = format!(
            "the operator stopped it before {} was plugged in on the destination",
            it.names(side, missing)
        );
        return Cause::new(CauseCode::Aborted, message);
    }
    let each = missing.iter().map(|device| {
        let last = it.notes.devices[*device].plug_failure.as_deref();
        let last = last.unwrap_or("it was not tried long enough");
        let name = it.name(side, *device);
        format!("{name} could not be plugged in on the destination: {last}")
    });
    let message = each.collect::<Vec<_>>().join("; ");
    Cause::new(CauseCode::PlugFailed, message)
}
