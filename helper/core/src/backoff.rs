//! How long to wait before the same thing is tried again.

use crate::model::types::Time;

/// Waits that double from a first one up to a bound.
///
/// Without random spread: one guest's retries meet nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first_ms: u64,
    max_ms: u64,
    step: u32,
}

impl Backoff {
    /// Starts at `first_ms` and never waits longer than `max_ms`.
    pub(crate) const fn new(first_ms: u64, max_ms: u64) -> Self {
        Self {
            first_ms,
            max_ms,
            step: 0,
        }
    }

    /// Counts one more failure at `now` and says when to try again.
    pub(crate) fn fail(&mut self, now: Time) -> Time {
        let factor = 1u64.checked_shl(self.step).unwrap_or(u64::MAX);
        let wait_ms = self.first_ms.saturating_mul(factor).min(self.max_ms);
        self.step = (self.step + 1).min(63);
        now.plus_ms(wait_ms)
    }

    /// Failures in a row, up to 63.
    pub(crate) fn failures(&self) -> u32 {
        self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound_and_never_overflows() {
        let mut backoff = Backoff::new(100, 1_000);
        let waits: alloc::vec::Vec<u64> = (0..6)
            .map(|_| backoff.fail(Time(0)).since_ms(Time(0)))
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        for _ in 0..200 {
            backoff.fail(Time(u64::MAX));
        }
        assert_eq!(backoff.fail(Time(0)), Time(0).plus_ms(1_000));
        assert_eq!(backoff.failures(), 63);
    }
}
