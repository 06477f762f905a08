//! The domain and the destination's devices are claimed.
//!
//! A hypervisor has no compare-and-swap for metadata. So the claim is Fischer's mutual
//! exclusion: write soon after the look that saw no record, wait longer than that could
//! take anybody else, and go on only if one's own name is still there.

use super::check::source_refuses;
use super::helpers::VF_FAILURES;
use super::{Next, Phase, Step, side_by_side};
use crate::evacuate::action::{ActionKind, Task};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::RecordFact;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::words::{printable, quoted};

pub(super) fn next(it: &Evacuation) -> Next {
    let Some((_, written_ms)) = it.notes.claimed else {
        return write(it);
    };
    let asked_ms = it.view(Side::Source).asked_ms;
    let settled_ms = written_ms + it.limits.claim_settle_ms;
    if it.now_ms < settled_ms {
        return Ok(Step::WaitUntil(settled_ms));
    }
    if asked_ms < settled_ms {
        it.see(Side::Source, it.limits.unreachable_ms)?;
        return Ok(it.look(Side::Source));
    }
    let source = it.see(Side::Source, it.limits.unreachable_ms)?;
    match &source.record {
        RecordFact::Present(record) if it.is_ours(record) => {}
        _ => return Ok(Step::Fail(claimed_by_other(it))),
    }
    reserve(it)?;
    Ok(Step::Go(Phase::Prepare))
}

fn write(it: &Evacuation) -> Next {
    let source = it.see(Side::Source, it.limits.unreachable_ms)?;
    let tries = it.tries(Task::Save(Side::Source));
    if let Some(failure) = tries.last {
        let code = CauseCode::RecordNotWritten;
        return Ok(Step::Fail(Cause::new(code, failure.message)));
    }
    if tries.accepted_ms.is_some() {
        return Ok(Step::Fail(too_slow()));
    }
    if let Some(cause) = source_refuses(it, source) {
        return Ok(Step::Fail(cause));
    }
    let side = Side::Source;
    // Leave time for the writing itself.
    if !it.is_fresh_for_claim(side) {
        if it.in_phase_ms() >= it.limits.check_ms {
            return Ok(Step::Fail(too_slow()));
        }
        return Ok(Step::Do(ActionKind::Observe { side }));
    }
    let record = Box::new(it.record_at(Stage::Claimed));
    Ok(Step::Do(ActionKind::Save { side, record }))
}

pub(super) fn too_slow() -> Cause {
    let message = "the host is too slow to claim the domain safely; try again later";
    Cause::new(CauseCode::RecordNotWritten, message)
}

impl Evacuation {
    /// The look that saw no record is not so long ago that a claim could come too late.
    pub(super) fn is_fresh_for_claim(&self, side: Side) -> bool {
        self.now_ms < self.view(side).asked_ms + self.limits.claim_write_ms
    }
}

fn claimed_by_other(it: &Evacuation) -> Cause {
    let domain = &it.record.spec.domain;
    let message = format!(
        "another evacuation of domain {} began at the same moment; see `tandem-host status {}`",
        printable(domain),
        quoted(domain)
    );
    Cause::new(CauseCode::Claimed, message)
}

fn reserve(it: &Evacuation) -> Result<(), Step> {
    let room = |device: usize| {
        let tries = it.tries(Task::ClaimVf(device));
        let wanted = it.record.spec.devices[device].destination.is_some();
        match tries.last {
            _ if tries.accepted_ms.is_some() || !wanted => Ok(()),
            Some(failure) if tries.failures >= VF_FAILURES || !failure.effect_unknown() => {
                let message = failure.message;
                Err(Step::Fail(Cause::new(CauseCode::VfTaken, message)))
            }
            _ => Err(it.attempt(ActionKind::ClaimVf { device })),
        }
    };
    side_by_side(it.devices(), room, |_| 0)
}
