//! The domain and the destination's devices are claimed.

use super::check::source_refuses;
use super::step::{Next, Step, side_by_side};
use crate::evacuate::action::{ActionKey, ActionKind};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::phase::Phase;
use crate::evacuate::progress::Stage;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;

pub(super) fn next(it: &Evacuation) -> Next {
    let side = Side::Source;
    if it.notes.claimed.is_some() {
        reserve(it)?;
        return Ok(Step::Go(Phase::Prepare));
    }
    let source = it.see(side, it.limits.unreachable_ms)?;
    if let Some(cause) = source_refuses(it, source) {
        return Ok(Step::Fail(cause));
    }
    it.claim(side, source)?;
    if let Some(failure) = it.tries(ActionKey::Save(side)).last {
        let code = CauseCode::RecordNotWritten;
        return Ok(Step::Fail(Cause::new(code, failure.message)));
    }
    let record = Box::new(it.record_at(Stage::Claimed));
    Ok(Step::Do(ActionKind::Save { side, record }))
}

fn reserve(it: &Evacuation) -> Result<(), Step> {
    let room = |device: usize| it.room_for(device, ActionKind::ClaimVf { device });
    side_by_side(it.devices(), room, |_| 0)
}
