//! What comes next in each phase. Nothing here changes anything: each function reads
//! what is known and answers with one step.

mod check;
mod claim;
mod helpers;
mod migrate;
mod plug;
mod release;
mod restore;
mod takeover;
mod unplug;
mod verify;

use super::action::ActionKind;
use super::cause::{Cause, CauseCode};
use super::phase::Phase;
use super::state::Evacuation;

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    Do(ActionKind),
    /// Nothing before that moment, unless something is learnt.
    WaitUntil(u64),
    Go(Phase),
    /// It will not end as it should; the machine knows what follows in which phase.
    Fail(Cause),
    /// It is over.
    End,
}

/// `Err` is a step that has to come first.
pub(super) type Next = Result<Step, Step>;

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
        return Step::Fail(Cause::new(CauseCode::Aborted, message));
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
    match next {
        Ok(step) | Err(step) => step,
    }
}
