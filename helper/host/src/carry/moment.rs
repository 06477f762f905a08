//! When to hold, near a migration's end: shortly before QEMU's migration thread wakes.
//!
//! Slowed down, it sleeps to the end of each window of 100 ms once it has sent what it may in that (`migration_rate_limit` of
//! migration/migration.c, QEMU 11.1), and a higher speed counts from the next window on. Nothing ends while it sleeps, and a
//! guest that is stopped then stands still until it wakes. What is left changes only while it is awake, and so tells when.

/// `BUFFER_DELAY` of migration/migration.h, QEMU 11.1.
const WINDOW_MS: u64 = 100;
/// How long before it wakes frames are held, besides what it takes to raise the speed: for the guest to empty its tap's queue, which
/// took an emulated guest 1 to 4 ms. The guest hears nothing meanwhile.
const AHEAD_MS: u64 = 12;
/// Whether it sleeps is not waited for any longer, and only if what is left lasts for longer than that.
pub(super) const MOST_MS: u64 = 200;

/// What looks have shown since the end came near. Moments in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    since_ms: u64,
    last_ms: u64,
    rest: u64,
    /// When it has woken at the earliest, in the last window that was seen to begin.
    woke_ms: Option<u64>,
    /// It has been seen to sleep since.
    sleeps: bool,
}

impl Moment {
    /// The first look.
    pub(super) const fn new(now_ms: u64, rest: u64) -> Self {
        Self {
            since_ms: now_ms,
            last_ms: now_ms,
            rest,
            woke_ms: None,
            sleeps: false,
        }
    }

    /// One more look.
    pub(super) const fn look(&mut self, now_ms: u64, rest: u64) {
        if rest == self.rest {
            self.sleeps = true;
        } else if self.sleeps || self.woke_ms.is_none() {
            self.woke_ms = Some(self.last_ms);
            self.sleeps = false;
        }
        self.rest = rest;
        self.last_ms = now_ms;
    }

    /// When to hold, if it takes so long to raise the speed.
    pub(super) fn due_ms(&self, raise_ms: u64) -> u64 {
        let last_ms = self.since_ms.saturating_add(MOST_MS);
        match self.wakes_ms() {
            Some(wakes_ms) if self.sleeps => {
                let ahead_ms = AHEAD_MS.saturating_add(raise_ms);
                wakes_ms.saturating_sub(ahead_ms).min(last_ms)
            }
            _ => last_ms,
        }
    }

    /// It is known to sleep: whatever the speed, nothing ends before it wakes.
    pub(super) const fn sleeps(&self) -> bool {
        self.sleeps && self.woke_ms.is_some()
    }

    /// When it wakes next, as far as that is known.
    pub(super) fn wakes_ms(&self) -> Option<u64> {
        Some(self.woke_ms?.saturating_add(WINDOW_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_before_the_thread_wakes_again() {
        let mut moment = Moment::new(1_000, 500);
        assert_eq!(moment.due_ms(10), 1_200);
        moment.look(1_005, 500);
        moment.look(1_010, 400);
        assert_eq!(moment.due_ms(10), 1_200, "it is awake");
        moment.look(1_015, 300);
        moment.look(1_020, 300);
        assert_eq!(moment.wakes_ms(), Some(1_105));
        assert_eq!(moment.due_ms(10), 1_083);
        moment.look(1_110, 200);
        moment.look(1_115, 200);
        assert_eq!(moment.due_ms(10), 1_098, "looks came late: at once");
    }

    #[test]
    fn a_thread_that_never_sleeps_is_not_waited_for_long() {
        let mut moment = Moment::new(0, 500);
        for look in 1..100 {
            moment.look(look * 5, 500 - look);
        }
        assert_eq!(moment.due_ms(0), 200);
    }
}
