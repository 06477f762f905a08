//! One bond's step: what is begun now, and when to look again.

use alloc::vec::Vec;

use crate::bond::choice::Choice;
use crate::bond::context::Context;
use crate::bond::memory::Memory;
use crate::bond::view::BondView;
use crate::model::action::ActionKind;
use crate::model::types::{ActionId, Time};
use crate::plan::{actions, intents};
use crate::report::refusal;

/// An action whose end is not reported for so long counts as timed out, in ms.
/// The executor has shorter deadlines of its own.
pub(crate) const ACTION_TIMEOUT_MS: u64 = 30_000;

/// Starts the most urgent action that need not wait. Returns when to look again.
pub(crate) fn step(
    view: &BondView<'_>,
    choice: &Choice<'_>,
    memory: &mut Memory,
    now: Time,
    issue: impl FnOnce(ActionKind) -> ActionId,
) -> Option<Time> {
    memory.attempts.note_marks(view, now);
    let context = Context {
        view,
        choice,
        memory,
        now,
    };
    let actions = actions(&context);
    let mut kept: Vec<_> = intents(&context);
    kept.extend(actions.iter().cloned());
    kept.extend(memory.in_flight.as_ref().map(|busy| busy.kind.clone()));
    memory.attempts.note_wanted(&kept, now);
    let mut deadlines = memory.deadlines(view);
    if memory.in_flight.is_none() {
        deadlines.extend(actions.iter().map(|kind| memory.attempts.next_at(kind)));
        let ready = |kind: &ActionKind| memory.attempts.next_at(kind) <= now;
        if let Some(kind) = actions.into_iter().find(ready) {
            let text = refusal::describe(view.world, &kind);
            let id = issue(kind.clone());
            memory.start(id, kind, text, now);
        }
    }
    let busy = memory.in_flight.as_ref();
    deadlines.extend(busy.map(|busy| busy.issued_at.plus_ms(ACTION_TIMEOUT_MS)));
    deadlines.into_iter().filter(|at| *at > now).min()
}
