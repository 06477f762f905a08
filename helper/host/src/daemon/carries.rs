//! The carries that have ended on this host since `serve` started, as `migrate` has told.

use crate::control::{CarryEnd, CarryFigures};

/// Carries that ended alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CarrySums {
    pub(super) carries: u64,
    pub(super) held: u64,
    pub(super) carried: u64,
    pub(super) lost: u64,
}

/// All of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carries {
    by_end: [CarrySums; CarryEnd::ALL.len()],
    pub(super) last: Option<CarryFigures>,
}

impl Carries {
    /// One more.
    pub(super) fn add(&mut self, figures: &CarryFigures) {
        let place = CarryEnd::ALL.iter().position(|end| *end == figures.end);
        if let Some(sums) = place.and_then(|place| self.by_end.get_mut(place)) {
            // Another host's half may have said any number.
            for (sum, more) in [
                (&mut sums.carries, 1),
                (&mut sums.held, figures.held),
                (&mut sums.carried, figures.carried),
                (&mut sums.lost, figures.lost),
            ] {
                *sum = sum.saturating_add(more);
            }
        }
        self.last = Some(*figures);
    }

    /// Each way to end, with what ended so.
    pub(super) fn by_end(&self) -> impl Iterator<Item = (CarryEnd, &CarrySums)> {
        CarryEnd::ALL.into_iter().zip(&self.by_end)
    }
}
