//! What both halves' reports come to.

use super::words::HalfReport;
use crate::evacuate::CarryOutcome;
use crate::words::printable;

/// As far as the halves know; `reason` is what is known besides.
pub(super) fn total(reason: Option<String>, reports: [Option<HalfReport>; 2]) -> CarryOutcome {
    let [source, destination] = reports;
    let cause = |report: &Option<HalfReport>| report.as_ref().and_then(|one| one.cause.clone());
    let reason = reason
        .or_else(|| cause(&source))
        .or_else(|| cause(&destination));
    // What a half had that told nothing any more went with it.
    let unheard = destination.is_none();
    let (source, destination) = (source.unwrap_or_default(), destination.unwrap_or_default());
    let unconfirmed = source.carried.saturating_sub(source.confirmed);
    CarryOutcome {
        reason: reason.map(|reason| printable(&reason)),
        stop_was_ours: false,
        pause_ms: None,
        held: source.held.saturating_add(destination.held),
        carried: destination.carried.max(source.carried),
        given_back: source.given_back,
        forwarded: source.forwarded,
        late: destination.late,
        lost: source
            .lost
            .saturating_add(source.left_in_queue)
            .saturating_add(destination.lost)
            .saturating_add(if unheard { unconfirmed } else { 0 }),
        left_in_queue: source.left_in_queue,
        swept: source.swept,
        maybe_lost: source.unseen,
        emptied: destination.emptied,
        no_sweep: source.no_copy.map(|reason| printable(&reason)),
        not_emptied: destination.no_copy.map(|reason| printable(&reason)),
        drain_ms: source.drain_ms,
        latest_ms: source
            .longest_wait_ms
            .saturating_add(destination.longest_wait_ms),
        most_bytes: source.most_bytes.max(destination.most_bytes),
    }
}
