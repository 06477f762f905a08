//! One step, and how those of several devices become one.

use crate::evacuate::action::ActionKind;
use crate::evacuate::cause::Cause;
use crate::evacuate::phase::Phase;

/// What comes next.
#[derive(Debug)]
pub(in crate::evacuate) enum Step {
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
