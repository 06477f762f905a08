//! Whether a migration comes to its end within the pause that may be.
//!
//! What the hypervisor itself expects (`expected-downtime` of QEMU) is of no use here: it counts with the speed that the copying has
//! now, and that is slowed down near the end. What is left goes at the fastest speed that was seen.

use crate::hypervisor::JobFacts;

/// From the decision to hold until the guest's stop, in ms: so much longer it changes memory.
const HOLD_MS: u64 = 50;
/// A migration that gets no nearer to its end in this time won't, in ms.
const PATIENCE_MS: u64 = 20_000;
/// Nearer is by more than one part in so many.
const PART: u64 = 10;

/// What a look says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    NotYet,
    /// The guest may be stopped.
    Near,
    /// It does not come to that: who stops the guest is left to the hypervisor.
    Never,
}

/// What looks have shown. Moments in ms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convergence {
    max_pause_ms: u64,
    /// The fastest that memory was copied so far, in bytes per second.
    most_rate: u64,
    /// The shortest pause that was to be expected, and since when.
    least: Option<(u64, u64)>,
}

impl Convergence {
    pub(super) const fn new(max_pause_ms: u64) -> Self {
        Self {
            max_pause_ms,
            most_rate: 0,
            least: None,
        }
    }

    /// The fastest that memory was copied so far, in bytes per second; 0 if that is not known.
    pub(super) const fn rate(&self) -> u64 {
        self.most_rate
    }

    /// One more look at memory that is being copied. Not before all of it was sent once, as it is not known before what changes.
    pub(super) fn look(&mut self, now_ms: u64, job: &JobFacts) -> Verdict {
        self.most_rate = self.most_rate.max(job.rate_bytes_per_s.unwrap_or(0));
        if job.passes.is_some_and(|passes| passes <= 1) {
            return Verdict::NotYet;
        }
        let expected_ms = self.expected_ms(job).unwrap_or(u64::MAX);
        let is_known = job.passes.is_some();
        if is_known && expected_ms <= self.max_pause_ms {
            return Verdict::Near;
        }
        match self.least {
            Some((least_ms, _)) if expected_ms < least_ms - least_ms / PART => {
                self.least = Some((expected_ms, now_ms));
                Verdict::NotYet
            }
            Some((_, since_ms)) if now_ms >= since_ms.saturating_add(PATIENCE_MS) => Verdict::Never,
            Some(_) => Verdict::NotYet,
            None => {
                self.least = Some((expected_ms, now_ms));
                Verdict::NotYet
            }
        }
    }

    /// How long the guest would stand still if it was decided now to hold and to stop it, in ms.
    fn expected_ms(&self, job: &JobFacts) -> Option<u64> {
        let rest = u128::from(job.memory_remaining_bytes?);
        let changes = u128::from(job.dirty_bytes_per_s.unwrap_or(0)) * u128::from(HOLD_MS) / 1000;
        let ms = ((rest + changes) * 1000).checked_div(u128::from(self.most_rate))?;
        Some(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(rest: u64) -> JobFacts {
        JobFacts {
            passes: Some(2),
            memory_remaining_bytes: Some(rest),
            rate_bytes_per_s: Some(100_000_000),
            ..JobFacts::default()
        }
    }

    #[test]
    fn the_end_is_near_when_the_rest_goes_within_the_pause() {
        let look = |pause_ms: u64, job: &JobFacts| Convergence::new(pause_ms).look(0, job);
        assert_eq!(look(100, &job(10_000_000)), Verdict::Near);
        assert_eq!(look(99, &job(10_000_000)), Verdict::NotYet);
        let first = JobFacts {
            passes: Some(1),
            ..job(10_000_000)
        };
        assert_eq!(
            look(100, &first),
            Verdict::NotYet,
            "what changed is not known yet"
        );
        let unknown = JobFacts {
            rate_bytes_per_s: None,
            ..job(10_000_000)
        };
        assert_eq!(look(100, &unknown), Verdict::NotYet);
    }

    #[test]
    fn what_the_guest_changes_until_its_stop_counts() {
        let busy = JobFacts {
            dirty_bytes_per_s: Some(20_000_000),
            ..job(10_000_000)
        };
        assert_eq!(Convergence::new(109).look(0, &busy), Verdict::NotYet);
        assert_eq!(Convergence::new(110).look(0, &busy), Verdict::Near);
    }

    #[test]
    fn the_fastest_speed_counts_not_the_one_it_is_slowed_down_to() {
        let mut convergence = Convergence::new(100);
        convergence.look(0, &job(50_000_000));
        let slow = JobFacts {
            rate_bytes_per_s: Some(1_000_000),
            ..job(10_000_000)
        };
        assert_eq!(convergence.look(1, &slow), Verdict::Near);
    }

    #[test]
    fn what_gets_no_nearer_never_ends_by_itself() {
        let mut convergence = Convergence::new(100);
        assert_eq!(convergence.look(0, &job(90_000_000)), Verdict::NotYet);
        // Much nearer, and no more after that.
        assert_eq!(convergence.look(15_000, &job(50_000_000)), Verdict::NotYet);
        assert_eq!(convergence.look(34_999, &job(49_000_000)), Verdict::NotYet);
        assert_eq!(convergence.look(35_000, &job(49_000_000)), Verdict::Never);
    }

    #[test]
    fn a_hypervisor_that_tells_nothing_is_not_waited_for_for_ever() {
        let mut convergence = Convergence::new(100);
        let nothing = JobFacts::default();
        assert_eq!(convergence.look(0, &nothing), Verdict::NotYet);
        assert_eq!(convergence.look(20_000, &nothing), Verdict::Never);
    }
}
