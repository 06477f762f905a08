//! How often something was tried, and when it may be tried again.

use super::input::Failure;
use super::limits::Limits;

/// What became of the actions of one key since the phase began.
#[derive(Debug, Clone, Default)]
pub(super) struct Tries {
    /// Failures since the last success.
    pub(super) failures: u32,
    /// The last failure.
    pub(super) last: Option<Failure>,
    /// When it was accepted last, in ms.
    pub(super) accepted_ms: Option<u64>,
    /// Not again before, in ms.
    pub(super) next_ms: u64,
}

impl Tries {
    pub(super) fn accepted(&mut self, now_ms: u64) {
        self.failures = 0;
        self.last = None;
        self.accepted_ms = Some(now_ms);
    }

    /// The wait doubles. An action whose effect is unknown may still take effect, and is
    /// not repeated before that would have been seen.
    pub(super) fn failed(&mut self, now_ms: u64, failure: Failure, limits: &Limits) {
        let factor = 1u64.checked_shl(self.failures).unwrap_or(u64::MAX);
        let backoff_ms = limits.retry_first_ms.saturating_mul(factor);
        let mut wait_ms = backoff_ms.min(limits.retry_max_ms);
        if failure.effect_unknown() {
            wait_ms = wait_ms.max(limits.settle_ms);
        }
        self.failures = (self.failures + 1).min(63);
        self.next_ms = now_ms.saturating_add(wait_ms);
        self.last = Some(failure);
    }
}
