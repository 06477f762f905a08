//! What comes next in each phase. Nothing here changes anything: each function reads
//! what is known and answers with one step.

mod carry;
mod check;
mod claim;
mod helpers;
mod migrate;
mod plug;
mod release;
mod restore;
mod rivals;
mod step;
mod takeover;
mod unplug;
mod verify;

use super::cause::{Cause, CauseCode};
use super::phase::Phase;
use super::state::Evacuation;

pub(super) use step::Step;

pub(super) fn step(it: &Evacuation) -> Step {
    if it.notes.superseded {
        return Step::End;
    }
    let begun = it.phase == Phase::Migrate && it.notes.migration_begun;
    let undoable = matches!(
        it.phase,
        Phase::Takeover
            | Phase::Check
            | Phase::Claim
            | Phase::Prepare
            | Phase::Unplug
            | Phase::Migrate
    );
    if it.notes.aborted && undoable && !begun {
        let message = format!("the operator stopped it in phase {}", it.phase.as_str());
        let stops = Step::Fail(Cause::new(CauseCode::Aborted, message));
        return it.withdraw().unwrap_or(stops);
    }
    let next = match it.phase {
        Phase::Takeover => takeover::next(it),
        Phase::Check => check::next(it),
        Phase::Claim => claim::next(it),
        Phase::Prepare => unplug::prepare(it),
        Phase::Unplug => unplug::next(it),
        Phase::Migrate => migrate::next(it),
        Phase::Announce => plug::announce(it),
        Phase::Plug => plug::next(it),
        Phase::Restore => restore::next(it),
        Phase::Verify => verify::next(it),
        Phase::Release => release::next(it),
    };
    let (Ok(step) | Err(step)) = next;
    match step {
        Step::Fail(_) | Step::Refuse(_) | Step::Go(_) | Step::End => it.withdraw().unwrap_or(step),
        Step::Do(_) | Step::WaitUntil(_) => step,
    }
}
