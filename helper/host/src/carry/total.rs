//! What both halves' reports come to.

use tandem_carry::{Received, Sent, lost_between};

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
    let sent = source.as_ref().map(|half| Sent {
        carried: half.carried,
        confirmed: half.confirmed,
    });
    let received = destination.as_ref().map(|half| Received {
        carried: half.carried,
        left: half.left_carried,
    });
    let between = lost_between(sent, received);
    let carried = match (sent, received) {
        (_, Some(received)) => received.taken(),
        (Some(sent), None) => sent.carried,
        (None, None) => 0,
    };
    let (source, destination) = (source.unwrap_or_default(), destination.unwrap_or_default());
    CarryOutcome {
        reason: reason.map(|reason| printable(&reason)),
        stop_was_ours: false,
        pause_ms: None,
        held: source.held.saturating_add(destination.held),
        carried,
        left_to_the_source: destination.left_carried,
        given_back: source.given_back,
        forwarded: source.forwarded,
        late: destination.late,
        lost: source
            .lost
            .saturating_add(source.left_in_queue)
            .saturating_add(destination.lost)
            .saturating_add(between),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The guest ran on the destination without the source's word that it stood still: neither half gave it what was carried.
    #[test]
    fn what_both_halves_left_to_each_other_is_lost_and_not_carried() {
        let source = HalfReport {
            held: 50,
            carried: 50,
            ..HalfReport::default()
        };
        let destination = HalfReport {
            carried: 50,
            confirmed: 50,
            left_carried: 50,
            ..HalfReport::default()
        };
        let told = total(None, [Some(source), Some(destination.clone())]);
        assert_eq!(
            (told.carried, told.left_to_the_source, told.lost),
            (0, 50, 50)
        );
        let told = total(None, [Some(HalfReport::default()), Some(destination)]);
        assert_eq!((told.carried, told.lost), (0, 0), "it was given back");
    }

    /// Another host's half may say any number.
    #[test]
    fn no_sum_is_too_big() {
        let most = HalfReport {
            held: u64::MAX,
            carried: u64::MAX,
            lost: u64::MAX,
            left_in_queue: u64::MAX,
            longest_wait_ms: u64::MAX,
            ..HalfReport::default()
        };
        let told = total(None, [Some(most.clone()), Some(most)]);
        assert_eq!((told.held, told.latest_ms), (u64::MAX, u64::MAX));
    }
}
