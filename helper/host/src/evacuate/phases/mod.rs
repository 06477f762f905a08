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
    /// It is not begun, for all these reasons.
    Refuse(Vec<Cause>),
    /// It is over.
    End,
}

/// `Err` is a step that has to come first.
pub(super) type Next = Result<Step, Step>;

/// Devices go side by side: each room answers what its device needs, and `Ok` once it is through. The hypervisor
/// takes one request of a domain at a time, so what is done at once is the waiting: one that has something to do
/// never waits for another's end, and one that failed less often comes first.
pub(super) fn side_by_side(
    devices: impl Iterator<Item = usize>,
    room: impl Fn(usize) -> Result<(), Step>,
    failures: impl Fn(usize) -> u32,
) -> Result<(), Step> {
    let (mut first, mut until_ms): (Option<(u32, ActionKind)>, Option<u64>) = (None, None);
    for device in devices {
        match room(device) {
            Ok(()) => {}
            Err(Step::Do(kind)) => {
                let failures = failures(device);
                if first.as_ref().is_none_or(|(fewest, _)| failures < *fewest) {
                    first = Some((failures, kind));
                }
            }
            Err(Step::WaitUntil(at_ms)) => {
                until_ms = Some(until_ms.map_or(at_ms, |until_ms: u64| until_ms.min(at_ms)));
            }
            Err(other) => return Err(other),
        }
    }
    match (first, until_ms) {
        (Some((_, kind)), _) => Err(Step::Do(kind)),
        (None, Some(at_ms)) => Err(Step::WaitUntil(at_ms)),
        (None, None) => Ok(()),
    }
}

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
