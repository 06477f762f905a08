//! What is known of one host, and how old that is.

use super::input::{Failure, SideFacts};

/// One host.
#[derive(Debug, Clone, Default)]
pub(super) struct HostView {
    /// What the last look that worked showed.
    pub(super) facts: Option<SideFacts>,
    /// When that look was asked for, in ms.
    pub(super) asked_ms: u64,
    /// Nothing was done to the host since.
    fresh: bool,
    /// When something was done to the host last, in ms.
    touched_ms: u64,
    /// There was one since the last [`HostView::look_anew`].
    pub(super) looked_anew: bool,
    /// The next look is due, in ms.
    pub(super) next_look_ms: u64,
    /// Looks have failed since, in ms.
    failing_since_ms: Option<u64>,
    /// When the last one failed, in ms.
    failed_ms: u64,
    /// How the last one failed.
    pub(super) failure: Option<Failure>,
    /// Since when every look showed no migration, in ms.
    pub(super) quiet_since_ms: Option<u64>,
}

impl HostView {
    /// The facts, if they are of now.
    pub(super) fn current(&self, now_ms: u64) -> Option<&SideFacts> {
        let is_of_now = self.fresh && now_ms < self.next_look_ms;
        self.facts.as_ref().filter(|_| is_of_now)
    }

    pub(super) fn saw(&mut self, asked_ms: u64, now_ms: u64, every_ms: u64, facts: SideFacts) {
        if has_job(&facts) {
            self.quiet_since_ms = None;
        } else {
            self.quiet_since_ms.get_or_insert(now_ms);
        }
        self.facts = Some(facts);
        self.asked_ms = asked_ms;
        // One that was asked for before the last change may show what was before.
        self.fresh = asked_ms >= self.touched_ms;
        self.looked_anew |= self.fresh;
        // Looks that take long are of use for longer: else those at one host would be too old
        // whenever the other has answered, and nothing could ever be decided.
        let took_ms = now_ms.saturating_sub(asked_ms);
        self.next_look_ms = match self.fresh {
            true => now_ms.saturating_add(every_ms.max(took_ms.saturating_mul(2))),
            false => now_ms,
        };
        self.failing_since_ms = None;
        self.failure = None;
    }

    pub(super) fn failed(&mut self, now_ms: u64, every_ms: u64, failure: Failure) {
        self.fresh = false;
        self.next_look_ms = now_ms.saturating_add(every_ms);
        self.failing_since_ms.get_or_insert(now_ms);
        self.failed_ms = now_ms;
        self.failure = Some(failure);
        self.quiet_since_ms = None;
    }

    /// Something was done to this host: only a new look counts.
    pub(super) fn touched(&mut self, now_ms: u64) {
        self.fresh = false;
        self.touched_ms = now_ms;
        self.next_look_ms = self.next_look_ms.min(now_ms);
    }

    /// As [`HostView::touched`], and what was seen before says nothing more.
    pub(super) fn look_anew(&mut self, now_ms: u64) {
        self.touched(now_ms);
        self.looked_anew = false;
    }

    /// Something happened there: look soon. A flood of events is not a flood of looks.
    pub(super) fn stirred(&mut self, now_ms: u64, pause_ms: u64) {
        self.next_look_ms = self.next_look_ms.min(now_ms.saturating_add(pause_ms));
    }

    /// The last look failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_since_ms.is_some()
    }

    /// From the first to the last of the looks that failed in a row, in ms.
    pub(super) fn failing_for_ms(&self) -> u64 {
        self.failing_since_ms
            .map_or(0, |since| self.failed_ms.saturating_sub(since))
    }
}

/// A migration is under way there.
pub(super) fn has_job(facts: &SideFacts) -> bool {
    facts.job.is_under_way()
}
